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
mod services;
mod status;
mod streamed;

use crate::actors::auth::{Guard, Need};
use crate::actors::forward;
use crate::actors::gate::{Gate, Messages};
use crate::actors::incoming::Incoming;
use crate::actors::metrics::{Door as Counted, Metrics};
use crate::actors::peers::dial::keep_links;
use crate::actors::peers::{self, Peers};
use crate::actors::proto::{self, wire};
use crate::actors::published::Published;
use crate::actors::router::Router;
use crate::actors::snapshot;
use crate::actors::transit::Transit;
use actix::ArbiterHandle;
use chronos::config::ENVELOPE_BYTES_MAX;
use chronos::error::{Error, Result};
use guarded::Guarded;
use services::Door;
pub use services::{caller_of, check_length, check_lengths, long, room_of, too_large_a_batch};
pub use status::{SQLSTATE, failure, status};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
pub use streamed::Flowing;
use tokio::sync::oneshot;
use tonic::transport::Server;
use tracing::{info, warn};
use wire::health_service_server::HealthServiceServer;
use wire::sql_service_server::SqlServiceServer;
use wire::sync_service_server::SyncServiceServer;
use wire::sync_status_service_server::SyncStatusServiceServer;

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
