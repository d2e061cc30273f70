//! The gRPC door: statements in, answers out.
//!
//! A thread of its own with a current-thread runtime; a multi-thread one gained nothing on two cores. A request becomes
//! a question to an actor, and its deadline goes along.
//!
//! * A statement that fails in SQL answers `success = false`. What fails around it is a status: overload
//!   `RESOURCE_EXHAUSTED`, no leader `UNAVAILABLE`, a deadline `DEADLINE_EXCEEDED`. In doubt is `UNKNOWN`, never
//!   `UNAVAILABLE`, which clients repeat by themselves.
//! * Messages are bounded both ways; results of any size go through `QuerySql`, in messages of about
//!   [`STREAM_MESSAGE_BYTES`].
//! * Connections are bounded, and their sockets prepared, in [`Incoming`].

use crate::actors::incoming::Incoming;
use crate::actors::messages::{Consistency, Statement, Streamed, SyncProgress, Terms, request_id};
use crate::actors::proto::{self, wire};
use crate::actors::published::Published;
use crate::actors::route::Deadline;
use crate::actors::router::Router;
use crate::actors::rows::Rows;
use crate::actors::snapshot;
use chronos::error::{Error, Kind, Result, SqlState};
use chronos::sql::batch::Batch;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tracing::{info, warn};
use wire::health_service_server::{HealthService, HealthServiceServer};
use wire::sql_service_server::{SqlService, SqlServiceServer};
use wire::sync_service_server::{SyncService, SyncServiceServer};
use wire::sync_status_service_server::{SyncStatusService, SyncStatusServiceServer};

/// Size of a message of a streamed result: far below the 4 MiB that clients accept by default, far above a frame.
const STREAM_MESSAGE_BYTES: usize = 1 << 20;

/// What a message needs beside the statement in it.
const ENVELOPE_BYTES_MAX: usize = 64 << 10;

/// Statements that one connection may have in flight. A thousand is what a mailbox holds; more would be refused there.
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;

/// How often the standard health service is brought up to date.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);

/// What the standard health service is asked about: every service of ours, and "" for all of them.
const SERVICES: [&str; 6] =
    ["", "raft.AdminService", "raft.HealthService", "raft.SqlService", "raft.SyncService", "raft.SyncStatusService"];

/// What the door must know.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a statement.
    pub statement_bytes_max: usize,
    /// Bytes of an answer that comes in one message.
    pub response_bytes_max: usize,
    /// How long a request may take that does not say so itself.
    pub request_timeout: Duration,
    /// Connections of each door.
    pub connections: usize,
}

/// The running door.
pub struct GrpcDoor {
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl GrpcDoor {
    /// Serves on a bound listener.
    pub fn open(listener: TcpListener, router: Router, published: Arc<Published>, limits: Limits) -> Result<GrpcDoor> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        listener.set_nonblocking(true).map_err(|error| Error::io("prepare the gRPC listener", &error))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::io("start the gRPC runtime", &error))?;
        let serve = move || {
            let outcome = runtime.block_on(serve(listener, router, published, limits, stopped));
            if let Err(error) = outcome {
                warn!(%error, "the gRPC door failed");
            }
            // Streams that clients hold open end here, not when they like.
            runtime.shutdown_background();
            let _ = end.send(());
        };
        std::thread::Builder::new()
            .name("grpc".to_string())
            .spawn(serve)
            .map_err(|error| Error::io("start the gRPC thread", &error))?;
        Ok(GrpcDoor { stop, ended })
    }

    /// Accepts nothing more, lets requests finish, and after `grace` ends what is left.
    pub async fn close(self, grace: Duration) {
        let _ = self.stop.send(());
        if tokio::time::timeout(grace, self.ended).await.is_err() {
            info!("gRPC requests were still open at the end");
        }
    }
}

async fn serve(
    listener: TcpListener,
    router: Router,
    published: Arc<Published>,
    limits: Limits,
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let listener =
        tokio::net::TcpListener::from_std(listener).map_err(|error| Error::io("use the gRPC listener", &error))?;
    let incoming = Incoming::new(listener, limits.connections, router.routes().counters.clone());
    let door = Door { router, limits };
    let request_bytes_max = limits.statement_bytes_max + ENVELOPE_BYTES_MAX;
    let sql = SqlServiceServer::new(door.clone())
        .max_decoding_message_size(request_bytes_max)
        .max_encoding_message_size(limits.response_bytes_max.max(2 * STREAM_MESSAGE_BYTES) + ENVELOPE_BYTES_MAX);
    let (reporter, health) = tonic_health::server::health_reporter();
    let reporting = tokio::spawn(report_health(reporter, published));
    let reflect = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let described = |error: tonic_reflection::server::Error| Error::internal(format!("reflection: {error}"));
    let served = Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        // A peer that vanished without a word is noticed, and its requests end.
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(sql)
        .add_service(HealthServiceServer::new(door.clone()).max_decoding_message_size(ENVELOPE_BYTES_MAX))
        .add_service(snapshot::service(door.router.clone()))
        .add_service(SyncServiceServer::new(door.clone()).max_decoding_message_size(request_bytes_max))
        .add_service(SyncStatusServiceServer::new(door).max_decoding_message_size(ENVELOPE_BYTES_MAX))
        .add_service(health)
        .add_service(reflect().build_v1().map_err(described)?)
        .add_service(reflect().build_v1alpha().map_err(described)?)
        .serve_with_incoming_shutdown(incoming, async {
            // Asked to, or the daemon is gone.
            let _ = stopped.await;
        })
        .await;
    reporting.abort();
    served.map_err(|error| Error::unavailable(format!("gRPC: {error}")))
}

/// Keeps `grpc.health.v1` in step with what this node can do.
async fn report_health(reporter: tonic_health::server::HealthReporter, published: Arc<Published>) {
    let mut interval = tokio::time::interval(HEALTH_INTERVAL);
    let mut before = None;
    loop {
        interval.tick().await;
        let serves = published.raft().serves;
        if before != Some(serves) {
            before = Some(serves);
            let status =
                if serves { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
            for service in SERVICES {
                reporter.set_service_status(service, status).await;
            }
        }
    }
}

/// What every service needs; cheap to clone.
#[derive(Clone)]
struct Door {
    router: Router,
    limits: Limits,
}

impl Door {
    fn terms(&self, metadata: &MetadataMap) -> Result<Terms, Status> {
        let asked = match metadata.get("grpc-timeout") {
            Some(text) => {
                let asked = text.to_str().ok().and_then(parse_timeout);
                let wrong = || Status::invalid_argument("grpc-timeout is not a number and one of H M S m u n");
                Some(asked.ok_or_else(wrong)?)
            }
            None => None,
        };
        let consistency = match metadata.get("x-chronos-consistency").map(MetadataValue::to_str) {
            None => Consistency::default(),
            Some(Ok(text)) => Consistency::parse(text).map_err(|error| status(&error))?,
            Some(Err(_)) => return Err(Status::invalid_argument("x-chronos-consistency is not text")),
        };
        // Our word on what became of the request should still reach the client: a tenth, at most 10 ms, is kept for it.
        let in_time = |wait: Duration| Deadline::after(wait.saturating_sub((wait / 10).min(Duration::from_millis(10))));
        let deadline = in_time(asked.unwrap_or(self.limits.request_timeout).min(self.limits.request_timeout));
        let whole = asked.map(in_time);
        let header = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        let request = request_id(header).map_err(|error| status(&error))?;
        Ok(Terms { deadline, whole, consistency, request })
    }

    fn statement(&self, sql: String) -> Result<Statement> {
        check_length(&sql, self.limits.statement_bytes_max)?;
        Ok(Statement { sql, parameters: Vec::new() })
    }

    /// A result as one message, where it is small enough for one.
    fn unary(&self, result: Result<wire::SqlResponse>) -> Result<wire::SqlResponse, Status> {
        let limited = result.and_then(|response| {
            let bytes = proto::encoded_bytes(&response);
            if bytes > self.limits.response_bytes_max {
                Err(too_large(self.limits.response_bytes_max))
            } else {
                Ok(response)
            }
        });
        limited.or_else(|error| failure(&error))
    }
}

/// An answer in SQL's own terms, or a status where the statement is not what failed.
fn failure(error: &Error) -> Result<wire::SqlResponse, Status> {
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
        status.metadata_mut().insert("x-chronos-sqlstate", state);
    }
    status
}

fn too_large(bytes_max: usize) -> Error {
    Error::limit(SqlState::LIMIT_EXCEEDED, format!("the result is larger than limits.response_bytes_max ({bytes_max})"))
        .hint("ask for fewer rows with LIMIT, or stream it with QuerySql")
}

/// Refuses a statement that is too long, by name.
pub fn check_length(sql: &str, bytes_max: usize) -> Result<()> {
    if sql.len() > bytes_max {
        let message = format!("the statement has {} bytes, limits.statement_bytes_max is {bytes_max}", sql.len());
        return Err(Error::limit(SqlState::LIMIT_EXCEEDED, message));
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
        let terms = self.terms(request.metadata())?;
        let result = match self.statement(request.into_inner().sql) {
            Ok(statement) => self.router.execute(statement, terms).await,
            Err(error) => Err(error),
        };
        self.unary(result.map(|output| proto::response(&output))).map(Response::new)
    }

    type QuerySqlStream = BoxStream<'static, Result<wire::SqlResponse, Status>>;

    async fn query_sql(&self, request: Request<wire::SqlRequest>) -> Result<Response<Self::QuerySqlStream>, Status> {
        let terms = self.terms(request.metadata())?;
        let result = match self.statement(request.into_inner().sql) {
            Ok(statement) => self.router.query(statement, terms).await,
            Err(error) => Err(error),
        };
        let messages = match result {
            Ok(Streamed::Rows(rows)) => stream_rows(rows).boxed(),
            Ok(Streamed::Whole(output)) => {
                let header = wire::SqlResponse { affected: output.affected, ..proto::header(&output.columns) };
                let rows = output.batches.into_iter().flat_map(|batch| messages_of(&batch));
                stream::iter(std::iter::once(header).chain(rows).map(Ok)).boxed()
            }
            Err(error) => stream::iter([failure(&error)]).boxed(),
        };
        Ok(Response::new(messages))
    }

    async fn execute_batch(
        &self,
        request: Request<wire::BatchRequest>,
    ) -> Result<Response<wire::BatchResponse>, Status> {
        let terms = self.terms(request.metadata())?;
        let texts = request.into_inner().sql;
        if texts.is_empty() {
            return Err(Status::invalid_argument("a batch has at least one statement"));
        }
        let bytes_max = self.limits.response_bytes_max;
        let statements = texts.into_iter().map(|sql| Statement { sql, parameters: Vec::new() }).collect();
        let response = match self.router.batch(statements, terms).await {
            Ok(outputs) => {
                let responses: Vec<wire::SqlResponse> = outputs.iter().map(proto::response).collect();
                wire::BatchResponse { responses, failed: 0 }
            }
            Err(batch) => {
                let responses = vec![failure(&batch.error)?];
                wire::BatchResponse { responses, failed: batch.statement as u32 }
            }
        };
        if proto::encoded_bytes(&response) > bytes_max {
            // The batch took effect; only its rows do not fit. That must not look like a failure of the batch.
            let brief =
                response.responses.into_iter().map(|one| wire::SqlResponse { rows: Vec::new(), ..one }).collect();
            return Ok(Response::new(wire::BatchResponse { responses: brief, failed: 0 }));
        }
        Ok(Response::new(response))
    }
}

/// The messages of a result that is still coming: the columns first, then rows; an error is the last one.
fn stream_rows(rows: Rows) -> impl stream::Stream<Item = Result<wire::SqlResponse, Status>> + Send + 'static {
    let header = stream::iter([Ok(proto::header(&rows.columns))]);
    let batches = stream::unfold(rows, |mut rows| async move {
        let messages = match rows.next().await? {
            Ok(batch) => messages_of(&batch).into_iter().map(Ok).collect(),
            Err(error) => vec![failure(&error)],
        };
        Some((stream::iter(messages), rows))
    });
    header.chain(batches.flatten())
}

/// A batch in messages that any client accepts.
fn messages_of(batch: &Batch) -> Vec<wire::SqlResponse> {
    let bytes: usize = batch.columns.iter().map(|column| column.byte_len()).sum();
    if bytes <= STREAM_MESSAGE_BYTES {
        return vec![proto::rows(batch)];
    }
    let rows_a_message = (batch.rows * STREAM_MESSAGE_BYTES / bytes).max(1);
    (0..batch.rows)
        .step_by(rows_a_message)
        .map(|from| {
            let to = (from + rows_a_message).min(batch.rows);
            let columns = batch.columns.iter().map(|column| Arc::new(column.slice(from, to))).collect();
            proto::rows(&Batch { columns, rows: to - from })
        })
        .collect()
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
    async fn sync(&self, _: Request<wire::SyncRequest>) -> Result<Response<wire::SyncResponse>, Status> {
        Err(Status::unimplemented("this node is no sync target: receiving operations from edges is not supported"))
    }
}

#[tonic::async_trait]
impl SyncStatusService for Door {
    async fn get_sync_status(
        &self,
        request: Request<wire::SyncStatusRequest>,
    ) -> Result<Response<wire::SyncStatusResponse>, Status> {
        let terms = self.terms(request.metadata())?;
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
