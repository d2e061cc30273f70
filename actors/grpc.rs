//! The gRPC door: statements in, answers out.
//!
//! A thread that it shares with raft (node.rs), with a current-thread runtime; a multi-thread one gained nothing on two
//! cores. A request becomes a question to an actor, and its deadline goes along.
//!
//! * A statement that fails in SQL answers `success = false`. What fails around it is a status: overload
//!   `RESOURCE_EXHAUSTED`, no leader `UNAVAILABLE`, a deadline `DEADLINE_EXCEEDED`. In doubt is `UNKNOWN`, never
//!   `UNAVAILABLE`, which clients repeat by themselves.
//! * Messages are bounded both ways; results of any size go through `QuerySql`, in messages of about a megabyte
//!   (streamed.rs).
//! * What is on its way has its room: the services stand behind a gate (gate.rs), and long answers leave in pieces.
//! * Before the gate stands a guard (auth.rs): no message of an unknown caller is read.
//! * Connections are bounded, and their sockets prepared, in [`Incoming`].

mod guarded;
mod status;
mod streamed;

use crate::actors::audit::audit;
use crate::actors::auth::{Caller, Guard, Need};
use crate::actors::format::Format;
use crate::actors::forward;
use crate::actors::freshness::{CONSISTENCY, Freshness, MAX_STALENESS};
use crate::actors::gate::{Gate, Long, Messages, Room};
use crate::actors::incoming::Incoming;
use crate::actors::messages::{BatchFailure, Output, Receive, Statement, Streamed, SyncProgress, Terms, request_id};
use crate::actors::metrics::{Door as Counted, Metrics};
use crate::actors::peers::dial::keep_links;
use crate::actors::peers::{self, Peers};
use crate::actors::pieces::{PIECE_BYTES, Pieces};
use crate::actors::proto::message;
use crate::actors::proto::{self, wire};
use crate::actors::published::Published;
use crate::actors::route::Deadline;
use crate::actors::router::Router;
use crate::actors::snapshot;
use crate::actors::transit::{Hold, Transit};
use actix::ArbiterHandle;
use chronos::config::ENVELOPE_BYTES_MAX;
use chronos::error::{Error, Result, SqlState};
use futures_util::stream::{self, BoxStream, StreamExt};
use guarded::Guarded;
pub use status::{SQLSTATE, failure, status};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use streamed::Flow;
pub use streamed::Flowing;
use tokio::sync::oneshot;
use tonic::metadata::MetadataValue;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tracing::{info, warn};
use wire::health_service_server::{HealthService, HealthServiceServer};
use wire::sql_service_server::{SqlService, SqlServiceServer};
use wire::sync_service_server::{SyncService, SyncServiceServer};
use wire::sync_status_service_server::{SyncStatusService, SyncStatusServiceServer};

/// Statements that one connection may have in flight. A thousand is what a mailbox holds; more would be refused there.
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;

/// What a client may send of a message that is not read yet, for want of room: enough for 10 MB/s at 10 ms.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;

/// Requests of one connection that may wait for room: twice as many as have room by default with 4 MiB each. Of all
/// connections together wait no more than transit.rs lets wait, and only who waits is not read; so what lies unread is
/// bounded there, not by connections times this.
const WAITING_PER_CONNECTION_MAX: u32 = 15;

/// What a client may send over a connection that is not read yet. Those who wait fill their own windows and leave one
/// for the others: with less, a few who wait would keep every byte from those who have room, and nobody would come to
/// an end.
const CONNECTION_WINDOW_BYTES: u32 = (WAITING_PER_CONNECTION_MAX + 1) * STREAM_WINDOW_BYTES;

/// What a message of a streamed answer may have in any case: twice what its rows are gathered to.
const STREAM_MESSAGE_BYTES_MIN: usize = 2 << 20;

/// How often it is looked whether requests are left, once the door is closed.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// How often the standard health service is brought up to date.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);

/// What the standard health service is asked about: every service of ours, and "" for all of them.
const SERVICES: [&str; 6] =
    ["", "raft.AdminService", "raft.HealthService", "raft.SqlService", "raft.SyncService", "raft.SyncStatusService"];

/// What whoever may read may ask the admin's service, as over HTTP: `GET /admin/members`, `/status` and `/metrics`.
const READING: [&str; 2] = ["/raft.AdminService/Members", "/raft.AdminService/Report"];

/// What nodes hand on to their leader of what operators ask for (admin.rs).
const HANDED_ON: [&str; 2] = ["/raft.AdminService/ChangeMembers", "/raft.AdminService/TransferLeader"];

/// What the door must know.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a statement.
    pub statement_bytes_max: usize,
    /// Bytes of an answer that comes in one message.
    pub response_bytes_max: usize,
    /// Bytes of all requests and answers on their way.
    pub in_flight_bytes_max: usize,
    /// How long a request may take that does not say so itself.
    pub request_timeout: Duration,
    /// Connections of each door.
    pub connections: usize,
    /// How long a client may take nothing of an answer.
    pub stall_max: Duration,
}

impl Limits {
    /// Bytes of a message of a streamed answer: a row that has more cannot be sent. Small answers leave rows their size.
    fn stream_message_bytes_max(&self) -> usize {
        self.response_bytes_max.max(STREAM_MESSAGE_BYTES_MIN) + ENVELOPE_BYTES_MAX as usize
    }

    /// The account of what is on its way.
    pub fn transit(&self) -> Arc<Transit> {
        Transit::new(self.in_flight_bytes_max, self.statement_bytes_max, self.response_bytes_max)
    }
}

/// The running door.
pub struct GrpcDoor {
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
    /// Links are kept for as long as this is.
    _links: oneshot::Sender<()>,
    counters: Arc<Metrics>,
    peers: Arc<Peers>,
}

impl GrpcDoor {
    /// Serves on a bound listener.
    pub fn open(
        listener: TcpListener,
        thread: &ArbiterHandle,
        router: Router,
        (published, peers): (Arc<Published>, Arc<Peers>),
        limits: Limits,
        guard: Arc<Guard>,
    ) -> Result<GrpcDoor> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        listener.set_nonblocking(true).map_err(|error| Error::io("prepare the gRPC listener", &error))?;
        let counters = router.routes().counters.clone();
        let (links, gone) = oneshot::channel::<()>();
        let linking = keep_links(peers.clone(), published.clone());
        thread.spawn(async move {
            tokio::select! {
                () = linking => {}
                _ = gone => {}
            }
        });
        let door = Door { router, limits, guard };
        let others = peers.clone();
        let served = thread.spawn(async move {
            if let Err(error) = serve(listener, door, (published, others), stopped).await {
                warn!(%error, "the gRPC door failed");
            }
            let _ = end.send(());
        });
        if !served {
            return Err(Error::internal("the thread of the gRPC door has ended"));
        }
        Ok(GrpcDoor { stop: Some(stop), ended, _links: links, counters, peers })
    }

    /// Accepts nothing more, and lets requests finish; what other nodes have open is none.
    pub async fn drain(&mut self, grace: Duration) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        // A connection without requests ends at once.
        let ended = async {
            while self.counters.door(Counted::Grpc).open() > self.peers.served() {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        if tokio::time::timeout(grace, ended).await.is_err() {
            info!("gRPC requests were still open at the end");
        }
    }

    /// Waits until all connections have ended.
    pub async fn close(self, wait: Duration) {
        let _ = tokio::time::timeout(wait, self.ended).await;
    }
}

async fn serve(
    listener: TcpListener,
    door: Door,
    (published, peers): (Arc<Published>, Arc<Peers>),
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let listener =
        tokio::net::TcpListener::from_std(listener).map_err(|error| Error::io("use the gRPC listener", &error))?;
    let Door { router, limits, guard } = door.clone();
    let counters = router.routes().counters.clone();
    let incoming = Incoming::new(listener, limits.connections, WAITING_PER_CONNECTION_MAX as usize, counters)
        .encrypted(guard.tls().map(crate::actors::tls::Tls::grpc).transpose()?);
    let envelope = ENVELOPE_BYTES_MAX as usize;
    let request_bytes_max = limits.statement_bytes_max + envelope;
    let transit = &router.routes().transit.clone();
    let sql = SqlServiceServer::new(door.clone())
        .max_decoding_message_size(request_bytes_max)
        .max_encoding_message_size(limits.response_bytes_max + envelope);
    let sync = SyncServiceServer::new(door.clone()).max_decoding_message_size(request_bytes_max);
    let (reporter, health) = tonic_health::server::health_reporter();
    let reporting = tokio::spawn(report_health(reporter, published.clone(), peers.clone()));
    let reflect = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let described = |error: tonic_reflection::server::Error| Error::internal(format!("reflection: {error}"));
    let statements = Messages::Statement(request_bytes_max);
    let before = Before { guard: &guard, transit, limits };
    let served = Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        // A peer that vanished without a word is noticed, and its requests end.
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(before.service(sql, statements, Need::AnyRole))
        .add_service(before.for_peers(forward::service(router.clone(), limits), statements, &published))
        // Its frames are small, and what they carry is bounded by the window of replication.
        .add_service(Guarded::for_peers(
            peers::service::service(peers, published.clone(), router.clone()),
            &guard,
            published.clone(),
        ))
        .add_service(before.service(sync, statements, Need::Admin))
        .add_service(before.service(HealthServiceServer::new(door.clone()), Messages::Question, Need::AnyRole))
        .add_service(
            before
                .service(snapshot::service(router.clone()), Messages::Question, Need::Admin)
                .but_for_reading(&READING)
                .and_handed_on(&HANDED_ON, published.clone()),
        )
        .add_service(before.service(SyncStatusServiceServer::new(door), Messages::Question, Need::AnyRole))
        // For whoever watches over the node, as `/health` is.
        .add_service(before.service(health, Messages::Question, Need::Nothing))
        .add_service(before.service(reflect().build_v1().map_err(described)?, Messages::Questions, Need::AnyRole))
        .add_service(before.service(reflect().build_v1alpha().map_err(described)?, Messages::Questions, Need::AnyRole))
        .serve_with_incoming_shutdown(incoming, async {
            // Asked to, or the daemon is gone.
            let _ = stopped.await;
        })
        .await;
    reporting.abort();
    served.map_err(|error| Error::unavailable(format!("gRPC: {error}")))
}

/// What stands before every service.
struct Before<'a> {
    guard: &'a Arc<Guard>,
    transit: &'a Arc<Transit>,
    limits: Limits,
}

impl Before<'_> {
    /// The service behind its gate, and that behind the guard.
    fn service<S>(&self, service: S, messages: Messages, need: Need) -> Guarded<Gate<S>> {
        Guarded::new(self.gate(service, messages), self.guard, need)
    }

    /// The same for other nodes.
    fn for_peers<S>(&self, service: S, messages: Messages, published: &Arc<Published>) -> Guarded<Gate<S>> {
        Guarded::for_peers(self.gate(service, messages), self.guard, published.clone())
    }

    fn gate<S>(&self, service: S, messages: Messages) -> Gate<S> {
        Gate::new(service, self.transit.clone(), self.limits, messages)
    }
}

/// Keeps `grpc.health.v1` in step with what this node can do.
async fn report_health(reporter: tonic_health::server::HealthReporter, published: Arc<Published>, peers: Arc<Peers>) {
    let mut interval = tokio::time::interval(HEALTH_INTERVAL);
    let mut before = None;
    loop {
        interval.tick().await;
        let serves = published.raft().obstacle(|leader| peers.is_linked(leader)).is_none();
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
    guard: Arc<Guard>,
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
