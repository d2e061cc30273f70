//! What an error is in gRPC: an answer of its own, or a status.
//!
//! * A statement that fails in SQL is an answer. What fails around it is a status.
//! * In doubt is `UNKNOWN`, never `UNAVAILABLE`, which clients repeat by themselves.

use crate::actors::proto::{self, wire};
use chronos::error::{Error, Kind, Result, SqlState};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Metadata of a status: the SQLSTATE of what it is.
pub const SQLSTATE: &str = "x-chronos-sqlstate";

/// An answer in SQL's own terms, or a status where the statement is not what failed.
pub fn failure(error: &Error) -> Result<wire::SqlResponse, Status> {
    match code(error) {
        None => Ok(proto::failure(error)),
        Some(_) => Err(status(error)),
    }
}

/// The status that an error is; none where it is an answer.
fn code(error: &Error) -> Option<Code> {
    match (error.kind(), error.sqlstate()) {
        (_, SqlState::INVALID_AUTHORIZATION) => Some(Code::Unauthenticated),
        (_, SqlState::INSUFFICIENT_PRIVILEGE) => Some(Code::PermissionDenied),
        (Kind::Limit, SqlState::QUERY_CANCELED) => Some(Code::DeadlineExceeded),
        (Kind::Unavailable, _) => Some(Code::Unavailable),
        (Kind::Overloaded, _) => Some(Code::ResourceExhausted),
        (Kind::InDoubt, _) => Some(Code::Unknown),
        (Kind::Invalid | Kind::Conflict | Kind::Limit | Kind::Damaged | Kind::Io | Kind::Internal, _) => None,
    }
}

/// An error as a status; its SQLSTATE travels in the metadata.
pub fn status(error: &Error) -> Status {
    let mut status = Status::new(code(error).unwrap_or(Code::InvalidArgument), error.to_string());
    if let Ok(state) = MetadataValue::try_from(error.sqlstate().as_str()) {
        status.metadata_mut().insert(SQLSTATE, state);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_doubt_is_never_a_status_that_clients_repeat() {
        assert_eq!(code(&Error::in_doubt("lost")), Some(Code::Unknown));
        assert_eq!(code(&Error::unavailable("no leader (term 7)")), Some(Code::Unavailable));
        assert_eq!(code(&Error::overloaded("retry")), Some(Code::ResourceExhausted));
        assert_eq!(code(&Error::limit(SqlState::QUERY_CANCELED, "late")), Some(Code::DeadlineExceeded));
        assert_eq!(code(&Error::invalid(SqlState::UNDEFINED_TABLE, "no")), None);
        assert_eq!(code(&Error::internal("bug")), None);
    }
}
