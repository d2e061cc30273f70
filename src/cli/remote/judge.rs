//! What a failed call means: whether it may be sent again, and which error it is.

use crate::actors::grpc::SQLSTATE;
use crate::actors::tls::explain;
use chronos::error::{Error, Kind, SqlState};
use tonic::{Code, Status};

/// How one attempt ended, where it did not succeed.
pub enum Attempt {
    /// Another node may be asked.
    Elsewhere(Error),
    /// That is the answer.
    Final(Error),
}

impl Attempt {
    /// True where the node may not have been heard, or has not heard.
    pub fn was_not_answered(&self) -> bool {
        let (Attempt::Elsewhere(error) | Attempt::Final(error)) = self;
        matches!(error.kind(), Kind::InDoubt | Kind::Unavailable)
    }
}

/// Whether a failed call may be sent again.
pub fn judge(status: &Status, only_reads: bool) -> Attempt {
    if did_nothing(status) {
        return Attempt::Elsewhere(Error::unavailable(reason(status)));
    }
    match (broke(status), only_reads) {
        (false, _) => Attempt::Final(from_status(status)),
        (true, true) => Attempt::Elsewhere(Error::unavailable(reason(status))),
        (true, false) => Attempt::Final(
            Error::in_doubt(format!("the connection broke while the statement ran: {}", reason(status)))
                .hint("it may or may not have taken effect: look before sending it again"),
        ),
    }
}

/// True where the call never reached a node, or the node says that nothing happened.
pub fn did_nothing(status: &Status) -> bool {
    let never_sent = causes(status).any(<dyn std::error::Error>::is::<tonic::ConnectError>);
    // Whoever is refused in the handshake was not heard.
    never_sent || explain(status).is_some() || (!broke(status) && status.code() == Code::Unavailable)
}

/// True where the connection failed, rather than the node answering.
pub fn broke(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |error| error.source())
}

/// What the status says, or what lies below it.
pub fn reason(status: &Status) -> String {
    if let Some(why) = explain(status) {
        return why;
    }
    match causes(status).last() {
        Some(cause) => cause.to_string(),
        None => status.message().to_owned(),
    }
}

/// A gRPC status as an error of ours, with the SQLSTATE that the node gave it.
pub fn from_status(status: &Status) -> Error {
    let error = by_code(status);
    let Some(state) = sqlstate(status) else { return error };
    let named = Error::new(error.kind(), state, error.message().to_owned());
    match error.hint_text() {
        Some(hint) => named.hint(hint.to_owned()),
        None => named,
    }
}

fn sqlstate(status: &Status) -> Option<SqlState> {
    status.metadata().get(SQLSTATE).and_then(|state| state.to_str().ok()).map(SqlState::parse)
}

fn by_code(status: &Status) -> Error {
    let text = reason(status);
    match status.code() {
        Code::Unauthenticated => Error::invalid(SqlState::INVALID_AUTHORIZATION, text)
            .hint("set CHRONOS_AUTH_TOKEN to a token of the server"),
        Code::PermissionDenied => Error::invalid(SqlState::INSUFFICIENT_PRIVILEGE, text),
        // Too large once is too large for ever.
        Code::ResourceExhausted if sqlstate(status) == Some(SqlState::LIMIT_EXCEEDED) => {
            Error::limit(SqlState::LIMIT_EXCEEDED, text)
        }
        Code::ResourceExhausted => Error::overloaded(text),
        // The transport's own words for a message beyond what the node takes, and beyond what it sends.
        Code::OutOfRange if text.contains("encoded message length too large") => {
            Error::limit(SqlState::LIMIT_EXCEEDED, "one row of the answer is longer than the node sends")
                .hint("limits.response_bytes_max of the node says how long it may be: ask for fewer columns")
        }
        Code::OutOfRange if text.contains("decoded message length too large") => {
            Error::limit(SqlState::LIMIT_EXCEEDED, "the statement is longer than the node takes")
                .hint("limits.statement_bytes_max of the node says how long it may be: send it in parts")
        }
        Code::OutOfRange => Error::limit(SqlState::LIMIT_EXCEEDED, text),
        Code::DeadlineExceeded | Code::Cancelled => Error::limit(SqlState::QUERY_CANCELED, text),
        Code::Unavailable => Error::unavailable(text),
        Code::Unimplemented => Error::invalid(SqlState::FEATURE_NOT_SUPPORTED, text),
        Code::InvalidArgument => Error::invalid(SqlState::PROTOCOL_VIOLATION, text),
        Code::Unknown => Error::in_doubt(text),
        Code::DataLoss => Error::damaged(text),
        Code::Ok | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted | Code::Internal => {
            Error::internal(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_unavailable_did_nothing_and_a_broken_call_is_in_doubt() {
        assert!(matches!(judge(&Status::unavailable("no leader"), false), Attempt::Elsewhere(_)));
        let broken = || Status::from_error(Box::new(std::io::Error::other("reset")));
        match judge(&broken(), false) {
            Attempt::Final(error) => assert_eq!(error.kind(), Kind::InDoubt),
            Attempt::Elsewhere(error) => panic!("sent twice: {error}"),
        }
        assert!(matches!(judge(&broken(), true), Attempt::Elsewhere(_)));
    }

    #[test]
    fn a_status_keeps_the_code_that_the_node_gave_it() {
        let mut status = Status::resource_exhausted("disk full, 3 MB free");
        status.metadata_mut().insert(SQLSTATE, "53100".parse().expect("a header"));
        let error = from_status(&status);
        assert_eq!((error.sqlstate(), error.kind()), (SqlState::DISK_FULL, Kind::Overloaded));
        status.metadata_mut().insert(SQLSTATE, "53200".parse().expect("a header"));
        assert!(from_status(&status).is_retryable());
        status.metadata_mut().insert(SQLSTATE, "54000".parse().expect("a header"));
        assert_eq!(from_status(&status).kind(), Kind::Limit, "no retry makes a statement shorter");
        assert_eq!(from_status(&Status::resource_exhausted("busy")).sqlstate(), SqlState::TOO_MANY_REQUESTS);
    }

    #[test]
    fn a_statement_beyond_the_nodes_limit_is_told_in_its_words() {
        let status =
            Status::out_of_range("Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes");
        let error = from_status(&status);
        assert_eq!(error.sqlstate(), SqlState::LIMIT_EXCEEDED);
        assert!(error.to_string().contains("limits.statement_bytes_max"), "{error}");
        let status =
            Status::out_of_range("Error, encoded message length too large: found 9 bytes, the limit is: 8 bytes");
        assert!(from_status(&status).to_string().contains("limits.response_bytes_max"));
    }
}
