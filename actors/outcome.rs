//! What an error says of a write that was sent before, under the same name.
//!
//! Whoever has no answer to a write asks again. The group executes a name once, so what it answers then may be what became
//! of the first attempt; or it is about the second one alone, and the first stays in doubt.
//!
//! * What the group remembers of a statement is an error of the statement: of its data, its constraints, its text. Or it
//!   remembers that it took effect, and not its answer.
//! * Others are about this attempt: a node that has no room, takes shorter texts, is stopped at its deadline, knows no more
//!   of the name, or does not let the caller in.

use crate::actors::forward::Elsewhere;
use crate::actors::messages::{BatchFailure, Output};
use chronos::error::{Error, Kind, Result, SqlState};

/// Classes of what a statement itself comes to: its data, its constraints, its text and names.
const OF_STATEMENTS: [&str; 3] = ["22", "23", "42"];

/// True where an error says what became of a write that was sent before.
pub fn is_outcome(error: &Error) -> bool {
    let of_the_attempt = [SqlState::INVALID_PARAMETER, SqlState::INSUFFICIENT_PRIVILEGE];
    let state = error.sqlstate();
    let of_the_statement = state.as_str().get(..2).is_some_and(|class| OF_STATEMENTS.contains(&class));
    match error.kind() {
        Kind::Invalid if state == SqlState::REQUEST_APPLIED => true,
        Kind::Invalid => of_the_statement && !of_the_attempt.contains(&state),
        Kind::Limit
        | Kind::Unavailable
        | Kind::Overloaded
        | Kind::Conflict
        | Kind::InDoubt
        | Kind::Damaged
        | Kind::Io
        | Kind::Internal => false,
    }
}

/// An error of statements that another node may have begun before: where it is no news of that, it is not known either.
pub fn in_doubt_since(error: Error, before: Option<&Error>) -> Error {
    match before {
        Some(before) if !is_outcome(&error) && error.kind() != Kind::InDoubt => {
            Error::in_doubt(format!("{}; and then: {}", before.message(), error.message()))
        }
        Some(_) | None => error,
    }
}

/// The same of a batch.
pub fn failure_since(failure: BatchFailure, before: Option<&Error>) -> BatchFailure {
    BatchFailure { error: in_doubt_since(failure.error, before), ..failure }
}

/// What is known of statements that are handed from node to node.
pub struct Attempts {
    last: Error,
    in_doubt: Option<Error>,
}

impl Attempts {
    /// Nobody was asked yet, for this reason.
    pub fn none(reason: Error) -> Attempts {
        Attempts { last: reason, in_doubt: None }
    }

    /// Takes what became of an attempt: the answer, or none where somebody else is to be asked.
    pub fn heard(&mut self, heard: Elsewhere) -> Option<Result<Vec<Output>, BatchFailure>> {
        match heard {
            // Somebody may know it, and has no room to look.
            Elsewhere::Answered(Err(busy)) if self.in_doubt.is_some() && busy.error.kind() == Kind::Overloaded => {
                self.last = busy.error;
            }
            Elsewhere::Answered(answer) => {
                return Some(answer.map_err(|failure| failure_since(failure, self.in_doubt.as_ref())));
            }
            Elsewhere::NotBegun(error) => self.last = error,
            Elsewhere::Unknown(error) => {
                self.last = error.clone();
                self.in_doubt = Some(error);
            }
        }
        None
    }

    /// Why an attempt may have been begun; none where none was.
    pub fn in_doubt(self) -> Option<Error> {
        self.in_doubt
    }

    /// What is said where nobody else is asked.
    pub fn given_up(self) -> Error {
        in_doubt_since(self.last, self.in_doubt.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_stays_until_somebody_knows() {
        let answered = |error| Elsewhere::Answered(Err(BatchFailure { statement: 3, error }));
        let doubted = || {
            let mut attempts = Attempts::none(Error::unavailable("no leader"));
            assert!(attempts.heard(Elsewhere::NotBegun(Error::unavailable("gone"))).is_none());
            assert!(attempts.heard(Elsewhere::Unknown(Error::in_doubt("the first leader died"))).is_none());
            attempts
        };
        for error in [
            Error::limit(SqlState::QUERY_CANCELED, "late"),
            Error::conflict("again"),
            Error::internal("a panic"),
            Error::invalid(SqlState::REQUEST_ID_EXPIRED, "old"),
        ] {
            let failure = doubted().heard(answered(error)).unwrap().unwrap_err();
            let told = failure.error.to_string();
            assert_eq!((failure.error.kind(), failure.statement), (Kind::InDoubt, 3), "{told}");
            assert!(told.contains("the first leader died; and then: "), "{told}");
        }
        let duplicate = Error::invalid(SqlState::UNIQUE_VIOLATION, "a duplicate");
        let known = doubted().heard(answered(duplicate)).unwrap().unwrap_err();
        assert_eq!(known.error.sqlstate(), SqlState::UNIQUE_VIOLATION);
        let applied = Error::invalid(SqlState::REQUEST_APPLIED, "already applied");
        let known = doubted().heard(answered(applied)).unwrap().unwrap_err();
        assert_eq!(known.error.sqlstate(), SqlState::REQUEST_APPLIED);
        assert!(doubted().heard(Elsewhere::Answered(Ok(Vec::new()))).unwrap().is_ok());
        assert_eq!(doubted().given_up().kind(), Kind::InDoubt);
        // Who has no room is asked again, as long as there is time.
        let mut busy = doubted();
        assert!(busy.heard(answered(Error::overloaded("retry"))).is_none());
        assert_eq!(busy.given_up().kind(), Kind::InDoubt);
        // Nothing was begun: it is what it is.
        let mut attempts = Attempts::none(Error::unavailable("no leader"));
        let busy = attempts.heard(answered(Error::overloaded("retry"))).unwrap().unwrap_err();
        assert_eq!(busy.error.kind(), Kind::Overloaded);
    }

    #[test]
    fn what_keeps_a_later_attempt_from_its_answer_is_no_outcome_of_an_earlier_one() {
        let invalid = |state| Error::invalid(state, "no");
        for state in [
            SqlState::UNIQUE_VIOLATION,
            SqlState::DIVISION_BY_ZERO,
            SqlState::UNDEFINED_TABLE,
            SqlState::REQUEST_APPLIED,
        ] {
            assert!(is_outcome(&invalid(state)), "{state}");
        }
        for error in [
            Error::unavailable("no leader"),
            Error::overloaded("overloaded, retry"),
            Error::in_doubt("no answer"),
            Error::limit(SqlState::QUERY_CANCELED, "timeout"),
            Error::limit(SqlState::LIMIT_EXCEEDED, "a statement is longer than this node takes"),
            Error::internal("a panic"),
            invalid(SqlState::INVALID_AUTHORIZATION),
            invalid(SqlState::INSUFFICIENT_PRIVILEGE),
            invalid(SqlState::REQUEST_ID_EXPIRED),
            invalid(SqlState::REQUEST_ID_FORGOTTEN),
            invalid(SqlState::INVALID_PARAMETER),
            invalid(SqlState::CONFIG_ERROR),
            invalid(SqlState::LIMIT_EXCEEDED),
            invalid(SqlState::SNAPSHOT_TOO_OLD),
            invalid(SqlState::FEATURE_NOT_SUPPORTED),
            invalid(SqlState::PROTOCOL_VIOLATION),
        ] {
            assert!(!is_outcome(&error), "{error}");
        }
    }
}
