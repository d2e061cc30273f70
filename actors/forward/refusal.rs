//! What a call says that failed: whether its statements may have been begun, and who is to know.
//!
//! | who says it | what | then |
//! |---|---|---|
//! | this node | no connection was made | not begun, tried again |
//! | this node | the connection broke | in doubt; another connection for the next one |
//! | this node | the statement's own time is over | in doubt; the connection stays |
//! | the leader, before it begins | no room, a limit, a caller or a message that it does not take | that is the answer |
//! | the leader, before it begins | not a node that has peers, or not this call | not begun, tried again |
//!
//! * A transport makes up codes too: a peer that resets a stream for its calm is `RESOURCE_EXHAUSTED`, whatever it has begun
//!   of it. What it makes up has a source, what the leader has said has none.

use super::cut;
use crate::actors::grpc::SQLSTATE;
use chronos::error::{Error, Kind, SqlState};
use tonic::{Code, Status, TimeoutExpired};

/// What a failed call says.
#[derive(Debug)]
pub enum Refusal {
    /// Nothing was sent: there is no connection.
    NotSent,
    /// Nothing was begun, and another attempt may find what this one has not.
    NotBegun,
    /// Nothing was begun, and nobody else would say anything else, or sooner.
    Final(Error),
    /// The connection broke; what became of the statements is not known.
    Broken,
    /// The time is over; what became of the statements is not known.
    Late,
    /// Anything else that the leader may say in the midst of it.
    Unknown,
}

impl Refusal {
    /// Of a call to the leader at an address.
    pub fn of(status: &Status, address: &str) -> Refusal {
        // What the kernel says of a connection that was there tells nothing: that a host is unreachable is also said once it
        // has taken all.
        if is_caused_by::<tonic::ConnectError>(status) {
            return Refusal::NotSent;
        }
        if is_caused_by::<TimeoutExpired>(status) {
            return Refusal::Late;
        }
        if std::error::Error::source(status).is_some() {
            return Refusal::Broken;
        }
        let text = cut(status.message());
        match status.code() {
            Code::ResourceExhausted => {
                let state = state_of(status).unwrap_or(SqlState::TOO_MANY_REQUESTS);
                let kind = if state == SqlState::LIMIT_EXCEEDED { Kind::Limit } else { Kind::Overloaded };
                Refusal::Final(Error::new(kind, state, text))
            }
            Code::InvalidArgument => {
                Refusal::Final(Error::invalid(state_of(status).unwrap_or(SqlState::PROTOCOL_VIOLATION), text))
            }
            // This node is who is not let in, and not its client.
            Code::Unauthenticated | Code::PermissionDenied => {
                Refusal::Final(Error::unavailable(format!("the leader at {address} does not let this node in: {text}")))
            }
            Code::FailedPrecondition | Code::Unimplemented => Refusal::NotBegun,
            Code::DeadlineExceeded => Refusal::Late,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::NotFound
            | Code::AlreadyExists
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Refusal::Unknown,
        }
    }
}

fn state_of(status: &Status) -> Option<SqlState> {
    Some(SqlState::parse(status.metadata().get(SQLSTATE)?.to_str().ok()?))
}

fn is_caused_by<E: std::error::Error + 'static>(status: &Status) -> bool {
    let first = std::error::Error::source(status);
    std::iter::successors(first, |cause| cause.source()).any(<dyn std::error::Error>::is::<E>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::grpc;
    use std::sync::Arc;

    fn said(error: &Error) -> Refusal {
        Refusal::of(&grpc::status(error), "there")
    }

    fn made_up(code: Code) -> Refusal {
        let mut status = Status::new(code, "calm down");
        status.set_source(Arc::new(std::io::Error::other("a stream was reset")));
        Refusal::of(&status, "there")
    }

    #[test]
    fn what_the_leader_says_of_its_room_is_the_answer() {
        let full = Error::new(Kind::Overloaded, SqlState::OUT_OF_MEMORY, "too much is on its way");
        let Refusal::Final(told) = said(&full) else { panic!("{:?}", said(&full)) };
        assert_eq!((told.kind(), told.sqlstate()), (Kind::Overloaded, SqlState::OUT_OF_MEMORY));
        let Refusal::Final(told) = Refusal::of(&Status::resource_exhausted("x".repeat(4096)), "there") else {
            panic!("it is final")
        };
        assert_eq!((told.kind(), told.sqlstate()), (Kind::Overloaded, SqlState::TOO_MANY_REQUESTS));
        assert!(told.message().len() < 600, "{}", told.message().len());
        let mut long = grpc::status(&Error::overloaded("the message is too long"));
        long.metadata_mut().insert(SQLSTATE, "54000".parse().unwrap());
        assert!(matches!(Refusal::of(&long, "there"), Refusal::Final(error) if error.kind() == Kind::Limit));
    }

    #[test]
    fn what_the_leader_does_not_take_is_the_answer_and_no_fault_of_the_client() {
        let wrong = Error::invalid(SqlState::INVALID_PARAMETER, "a consistency that it does not know");
        assert!(matches!(said(&wrong), Refusal::Final(error) if error == wrong));
        let unknown = Error::invalid(SqlState::INVALID_AUTHORIZATION, "a token is missing");
        let Refusal::Final(told) = said(&unknown) else { panic!("{:?}", said(&unknown)) };
        assert_eq!(told.kind(), Kind::Unavailable);
        assert!(told.message().contains("a token is missing"), "{told}");
        assert!(matches!(Refusal::of(&Status::failed_precondition("alone"), "there"), Refusal::NotBegun));
    }

    #[test]
    fn a_code_that_the_transport_makes_up_tells_nothing_of_the_statements() {
        for code in [Code::ResourceExhausted, Code::PermissionDenied, Code::InvalidArgument, Code::Unavailable] {
            assert!(matches!(made_up(code), Refusal::Broken), "{code:?}");
        }
        assert!(matches!(Refusal::of(&Status::unknown("it panicked"), "there"), Refusal::Unknown));
    }

    #[test]
    fn time_that_is_over_is_no_fault_of_the_connection() {
        let mut status = Status::cancelled("Timeout expired");
        status.set_source(Arc::new(TimeoutExpired(())));
        assert!(matches!(Refusal::of(&status, "there"), Refusal::Late));
    }
}
