//! What the services of the gRPC door answer, and how a request's metadata becomes its terms.

use super::Limits;
use super::status::{failure, status};
use super::streamed::{Flow, Flowing};
use crate::actors::audit::audit;
use crate::actors::auth::{Caller, Guard};
use crate::actors::format::Format;
use crate::actors::freshness::{CONSISTENCY, Freshness, MAX_STALENESS};
use crate::actors::gate::{Long, Room};
use crate::actors::messages::{BatchFailure, Output, Receive, Statement, Streamed, SyncProgress, Terms, request_id};
use crate::actors::pieces::{PIECE_BYTES, Pieces};
use crate::actors::proto::message;
use crate::actors::proto::wire::health_service_server::HealthService;
use crate::actors::proto::wire::sql_service_server::SqlService;
use crate::actors::proto::wire::sync_service_server::SyncService;
use crate::actors::proto::wire::sync_status_service_server::SyncStatusService;
use crate::actors::proto::{self, wire};
use crate::actors::route::Deadline;
use crate::actors::router::Router;
use crate::actors::transit::Hold;
use chronos::config::ENVELOPE_BYTES_MAX;
use chronos::error::{Error, Result, SqlState};
use futures_util::stream::{self, BoxStream, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

/// What every service needs; cheap to clone.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) router: Router,
    pub(super) limits: Limits,
    pub(super) guard: Arc<Guard>,
}

impl Door {
    fn terms<T>(&self, request: &Request<T>) -> Result<Terms, Status> {
        let (metadata, access) = (request.metadata(), caller_of(request)?.access());
        let asked = match metadata.get("grpc-timeout") {
            Some(text) => {
                let asked = text.to_str().ok().and_then(parse_timeout);
                let wrong = || Status::invalid_argument("grpc-timeout is not a number and one of H M S m u n");
                Some(asked.ok_or_else(wrong)?)
            }
            None => None,
        };
        let text = |name: &'static str| {
            let value = metadata.get(name).map(MetadataValue::to_str).transpose();
            value.map_err(|_| Status::invalid_argument(format!("{name} is not text")))
        };
        let freshness = Freshness::parse(text(CONSISTENCY)?, text(MAX_STALENESS)?).map_err(|error| status(&error))?;
        // Our word on what became of the request should still reach the client: a tenth, at most 10 ms, is kept for it.
        let in_time = |wait: Duration| Deadline::after(wait.saturating_sub((wait / 10).min(Duration::from_millis(10))));
        let deadline = in_time(asked.unwrap_or(self.limits.request_timeout).min(self.limits.request_timeout));
        let whole = asked.map(in_time);
        let header = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        let name = request_id(header).map_err(|error| status(&error))?;
        Ok(Terms { deadline, whole, freshness, request: name, access })
    }

    /// What stands in the log about statements that are about to run.
    fn audit<T>(&self, request: &Request<T>, statements: &[String]) -> Result<(), Status> {
        let caller = caller_of(request)?;
        statements.iter().for_each(|sql| audit(&self.guard, caller, sql));
        Ok(())
    }

    fn statement(&self, sql: String, hold: Hold) -> Result<Statement> {
        check_length(&sql, self.limits.statement_bytes_max)?;
        Ok(Statement { sql, parameters: Vec::new(), hold })
    }

    /// A result as one message, where it is small enough for one.
    fn unary(&self, result: Result<Output>) -> Result<Response<wire::SqlResponse>, Status> {
        let limit = self.limits.response_bytes_max;
        let sized = result.map(|output| (message::len(&output), output));
        match sized.and_then(|(bytes, output)| if bytes > limit { Err(too_large(limit)) } else { Ok((bytes, output)) })
        {
            Ok((bytes, output)) if bytes > PIECE_BYTES => Ok(long(bytes, Format::Message, vec![output])),
            Ok((_, output)) => Ok(Response::new(proto::response(&output))),
            Err(error) => failure(&error).map(Response::new),
        }
    }
}

/// Who the guard found. A service that nobody guards has no callers.
pub fn caller_of<T>(request: &Request<T>) -> Result<&Caller, Status> {
    request.extensions().get().ok_or_else(|| Status::unauthenticated("nobody has looked who asks"))
}

/// The room that the gate has taken for a request.
pub fn room_of<T>(request: &Request<T>) -> Hold {
    request.extensions().get().map_or_else(Hold::nothing, Room::take)
}

/// An answer that the gate sends in pieces.
pub fn long<M: Default>(bytes: usize, format: Format, outputs: Vec<Output>) -> Response<M> {
    let mut response = Response::new(M::default());
    response.extensions_mut().insert(Long::new(bytes, Pieces::new(format, outputs)));
    response
}

/// What a batch answers that has failed.
fn refused(batch: &BatchFailure) -> Result<Response<wire::BatchResponse>, Status> {
    let (responses, failed) = (vec![failure(&batch.error)?], batch.statement as u32);
    Ok(Response::new(wire::BatchResponse { responses, failed }))
}

/// What a result is that does not fit one message.
pub fn too_large(bytes_max: usize) -> Error {
    Error::limit(SqlState::LIMIT_EXCEEDED, format!("the result is larger than limits.response_bytes_max ({bytes_max})"))
        .hint("ask for fewer rows with LIMIT, or stream it with QuerySql")
}

/// What a batch says whose queries answer too much for one message here, though not for the node that has run it: it is
/// done, and must not look like one that may be sent again.
pub fn too_large_a_batch(bytes_max: usize) -> BatchFailure {
    let message =
        format!("the batch took effect, and its answer is larger than limits.response_bytes_max ({bytes_max})");
    let error = Error::invalid(SqlState::REQUEST_APPLIED, message).hint("run its queries by themselves");
    BatchFailure { statement: 0, error }
}

/// Refuses a statement that is too long, by name.
pub fn check_length(sql: &str, bytes_max: usize) -> Result<()> {
    if sql.len() > bytes_max {
        let message = format!("the statement has {} bytes, limits.statement_bytes_max is {bytes_max}", sql.len());
        return Err(Error::limit(SqlState::LIMIT_EXCEEDED, message));
    }
    Ok(())
}

/// Refuses a batch that is too long together: another node may have to take it as one message.
pub fn check_lengths(texts: &[String], bytes_max: usize) -> Result<()> {
    let bytes: usize = texts.iter().map(String::len).sum();
    if bytes > bytes_max {
        let message =
            format!("the statements of the batch have {bytes} bytes, limits.statement_bytes_max is {bytes_max}");
        return Err(Error::limit(SqlState::LIMIT_EXCEEDED, message).hint("send it in parts"));
    }
    Ok(())
}

/// Reads `grpc-timeout`: at most eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_hours(number)),
        "M" => Some(Duration::from_mins(number)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[tonic::async_trait]
impl SqlService for Door {
    async fn execute_sql(&self, request: Request<wire::SqlRequest>) -> Result<Response<wire::SqlResponse>, Status> {
        let terms = self.terms(&request)?;
        self.audit(&request, std::slice::from_ref(&request.get_ref().sql))?;
        let hold = room_of(&request);
        let result = match self.statement(request.into_inner().sql, hold) {
            Ok(statement) => self.router.execute(statement, terms).await,
            Err(error) => Err(error),
        };
        self.unary(result)
    }

    type QuerySqlStream = BoxStream<'static, Result<wire::SqlResponse, Status>>;

    async fn query_sql(&self, request: Request<wire::SqlRequest>) -> Result<Response<Self::QuerySqlStream>, Status> {
        let terms = self.terms(&request)?;
        self.audit(&request, std::slice::from_ref(&request.get_ref().sql))?;
        let hold = room_of(&request);
        let result = match self.statement(request.into_inner().sql, hold) {
            Ok(statement) => self.router.query(statement, terms).await,
            Err(error) => Err(error),
        };
        let whole = match result {
            Ok(Streamed::Rows(rows)) => {
                let mut response = Response::new(stream::empty().boxed());
                response.extensions_mut().insert(Flowing::new(Flow::new(rows, self.limits.stream_message_bytes_max())));
                return Ok(response);
            }
            // No rows: only what writes answers whole.
            Ok(Streamed::Whole(output)) => Ok(proto::response(&output)),
            Err(error) => failure(&error),
        };
        Ok(Response::new(stream::iter([whole]).boxed()))
    }

    async fn execute_batch(
        &self,
        request: Request<wire::BatchRequest>,
    ) -> Result<Response<wire::BatchResponse>, Status> {
        let terms = self.terms(&request)?;
        self.audit(&request, &request.get_ref().sql)?;
        let hold = room_of(&request);
        let texts = request.into_inner().sql;
        if texts.is_empty() {
            return Err(Status::invalid_argument("a batch has at least one statement"));
        }
        if let Err(error) = check_lengths(&texts, self.limits.statement_bytes_max) {
            return refused(&BatchFailure { statement: 0, error });
        }
        let bytes_max = self.limits.response_bytes_max;
        let ran = self.router.batch(Statement::batch(texts, hold), terms).await;
        let sized = ran.map(|outputs| (message::batch_len(&outputs), outputs));
        match sized {
            Ok((bytes, _)) if bytes > bytes_max + ENVELOPE_BYTES_MAX as usize => refused(&too_large_a_batch(bytes_max)),
            Ok((bytes, outputs)) if bytes > PIECE_BYTES => Ok(long(bytes, Format::MessageBatch, outputs)),
            Ok((_, outputs)) => {
                let responses = outputs.iter().map(proto::response).collect();
                Ok(Response::new(wire::BatchResponse { responses, failed: 0 }))
            }
            Err(failure) => refused(&failure),
        }
    }
}

#[tonic::async_trait]
impl HealthService for Door {
    async fn get_connectivity(
        &self,
        _: Request<wire::HealthRequest>,
    ) -> Result<Response<wire::HealthResponse>, Status> {
        // No sync target is configured in this version, and without one the answer is fixed.
        Ok(Response::new(wire::HealthResponse { state: "Connected".to_string() }))
    }
}

#[tonic::async_trait]
impl SyncService for Door {
    async fn sync(&self, request: Request<wire::SyncRequest>) -> Result<Response<wire::SyncResponse>, Status> {
        let terms = self.terms(&request)?;
        match self.router.routes().sync.ask(Receive, terms.deadline).await {
            Ok(never) => match never {},
            Err(error) if error.sqlstate() == SqlState::FEATURE_NOT_SUPPORTED => {
                Err(Status::unimplemented(error.to_string()))
            }
            Err(error) => Err(status(&error)),
        }
    }
}

#[tonic::async_trait]
impl SyncStatusService for Door {
    async fn get_sync_status(
        &self,
        request: Request<wire::SyncStatusRequest>,
    ) -> Result<Response<wire::SyncStatusResponse>, Status> {
        let terms = self.terms(&request)?;
        let asked = self.router.routes().sync.ask(SyncProgress, terms.deadline).await;
        let report = asked.map_err(|error| status(&error))?;
        Ok(Response::new(wire::SyncStatusResponse {
            last_sync_ts_ms: report.last_sync_ms,
            last_sync_applied: report.last_applied,
            pending_ops: report.pending,
            last_error: report.last_error,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_is_digits_and_a_unit() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("99999999m"), Some(Duration::from_millis(99_999_999)));
        for wrong in ["", "S", "5", "5s", "-1S", "123456789m", "é"] {
            assert_eq!(parse_timeout(wrong), None, "{wrong}");
        }
    }
}
