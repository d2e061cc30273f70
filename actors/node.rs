//! A node put together: routes, actors, supervisor. Doors are opened by whoever starts it.
//!
//! Every actor has a thread of its own but raft, which runs on that of the gRPC door. Proposals and the words of peers
//! come from there, answers and frames go back there, and to wake a sleeping thread takes longer than all that raft does
//! with them. Alternating runs on 2 cores, own thread against shared: one client's INSERT, p50, 436, 408, 355, 375 us
//! against 355, 333, 310, 424; in a group of three 704, 644 against 592, 571 us, and for 64 clients 128, 97 us of processor
//! time a row on all nodes together against 99, 76.
//!
//! * It is an actor all the same: messages are all it gets, a panic ends its task and nothing else, and where the thread
//!   hangs it is given one of its own.
//! * The door does nothing long there: statements that are not brief run on executors, and messages of megabytes are
//!   taken in pieces.

use crate::actors::child::{Thread, Watch, WhenHung, new_arbiter};
use crate::actors::executor::Executor;
use crate::actors::forward::{Leaders, message_bytes_max};
use crate::actors::front::Front;
use crate::actors::janitor::{self, Janitor};
use crate::actors::member;
use crate::actors::metrics::{self, KEPT, Metrics, MetricsActor, RESIDENT, RESIDENT_BESIDE_BYTES};
use crate::actors::peers::Peers;
use crate::actors::published::Published;
use crate::actors::raft::{self, Raft};
use crate::actors::route::{Slot, route};
use crate::actors::router::{LEADER_WAIT_TIMEOUTS, Router, Routes};
use crate::actors::storage::{self, Parts, Storage};
use crate::actors::supervisor::Supervisor;
use crate::actors::sync::Sync;
use crate::actors::{DaemonConfig, analytics};
use actix::{Arbiter, ArbiterHandle};
use chronos::clock::{self, Clock};
use chronos::config::{Bytes, Ceiling};
use chronos::embedded::{Begin, engine_options};
use chronos::error::Result;
use chronos::ids::DiskId;
use chronos::raft::{Config, NodeId};
use chronos::sql::execute::Executor as Library;
use chronos::sql::memory::Pool;
use chronos::storage::engine;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A thread that owns files and is silent for a minute has met a disk that does not answer.
const FILES_HANG: Duration = Duration::from_mins(1);

/// No handler of the others takes a second.
const HANG: Duration = Duration::from_secs(30);

/// A started node.
pub struct Node {
    /// Where requests go.
    pub router: Router,
    /// What actors publish.
    pub published: Arc<Published>,
    /// What storage leaves for others.
    pub parts: Arc<Parts>,
    /// The other nodes of the group.
    pub peers: Arc<Peers>,
    /// Keeps the actors alive, once it is run.
    pub supervisor: Supervisor,
    /// The thread of the gRPC door, and of raft.
    pub front: Arbiter,
}

/// What a node is put together from.
struct Assembly {
    storage: Arc<storage::Seed>,
    raft: Arc<raft::Seed>,
    executor: Arc<member::Seed>,
    janitor: Arc<janitor::Seed>,
    metrics: Arc<metrics::Seed>,
    published: Arc<Published>,
}

struct Slots {
    storage: Slot<Storage>,
    raft: Slot<Raft>,
    executors: Vec<Slot<Executor>>,
    janitor: Slot<Janitor>,
    sync: Slot<Sync>,
    metrics: Slot<MetricsActor>,
}

impl Node {
    /// Recovers what is on disk and starts all actors. Must be called on the thread of an actix system.
    pub async fn start(config: &DaemonConfig, clock: Arc<dyn Clock>) -> Result<Node> {
        Node::start_on(config, clock, engine_options(config.database.engine.clone())).await
    }

    /// The same on other files than this machine's: for tests.
    pub async fn start_on(config: &DaemonConfig, clock: Arc<dyn Clock>, engine: engine::Options) -> Result<Node> {
        let counters = Arc::new(Metrics::new(clock.wall().0));
        let counted = counters.clone();
        let on_restart = Box::new(move |actor| counted.restarted(actor));
        let supervisor = Supervisor::new(config.policy, clock.clone(), on_restart);
        let mut supervisor = supervisor.with_mailbox(config.mailbox_messages_max);
        let published = Arc::new(Published::default());
        let (slots, ways) = routes(config, &counters, &published, &clock);
        let executor = member_seed(config, &ways, &published, &clock);
        let (parts, peers) = (executor.parts.clone(), executor.peers.clone());
        let router = Router::new(ways, Front::new(executor.clone()));
        let assembly = assemble(config, engine, &router, executor, &supervisor, &counters)?;
        let front = new_arbiter()?;
        add_actors(&mut supervisor, slots, assembly, (config, front.handle()))?;
        supervisor.start().await?;
        Ok(Node { router, published, parts, peers, supervisor, front })
    }

    /// The way to a node that has no actors, and hears of a group what is published: for tests of what stands before them.
    #[cfg(test)]
    pub fn unstarted(config: &DaemonConfig, published: &Arc<Published>, clock: &Arc<dyn Clock>) -> Router {
        let (_, ways) = routes(config, &Arc::new(Metrics::new(0)), published, clock);
        let executor = member_seed(config, &ways, published, clock);
        Router::new(ways, Front::new(executor))
    }
}

fn routes(
    config: &DaemonConfig,
    counters: &Arc<Metrics>,
    published: &Arc<Published>,
    clock: &Arc<dyn Clock>,
) -> (Slots, Routes) {
    let (storage, to_storage) = route("storage");
    let (raft, to_raft) = route("raft");
    let (executors, to_executors) = (0..config.executors.max(1)).map(|_| route("executor")).unzip();
    let (janitor, to_janitor) = route("janitor");
    let (sync, to_sync) = route("sync");
    let (metrics, to_metrics) = route("metrics");
    let routes = Routes {
        storage: to_storage,
        raft: to_raft,
        executors: to_executors,
        janitor: to_janitor,
        sync: to_sync,
        metrics: to_metrics,
        counters: counters.clone(),
        published: published.clone(),
        peers: Arc::default(),
        leaders: Leaders::default(),
        forward_bytes_max: message_bytes_max(&config.limits),
        transit: config.limits.transit(),
        leader_wait: config.election_timeout * LEADER_WAIT_TIMEOUTS,
        clock: clock.clone(),
        next: AtomicUsize::new(0),
    };
    (Slots { storage, raft, executors, janitor, sync, metrics }, routes)
}

/// What all that run statements share.
fn member_seed(
    config: &DaemonConfig,
    routes: &Routes,
    published: &Arc<Published>,
    clock: &Arc<dyn Clock>,
) -> Arc<member::Seed> {
    let pool = Pool::new(config.database.query_bytes_max);
    Arc::new(member::Seed {
        library: Arc::new(Library::new(config.database.statements.clone(), pool.clone(), clock.clone())),
        pool,
        parts: Arc::default(),
        peers: routes.peers.clone(),
        published: published.clone(),
        raft: routes.raft.clone(),
        clock: clock.clone(),
        transit: routes.transit.clone(),
        leader_wait: routes.leader_wait,
        turn: tokio::sync::Semaphore::new(1),
        slots: analytics::Slots::new(config.executors),
        response_bytes_max: config.limits.response_bytes_max,
        step_max: config.limits.request_timeout,
        stall_max: config.limits.stall_max,
    })
}

fn assemble(
    config: &DaemonConfig,
    engine: engine::Options,
    router: &Router,
    executor: Arc<member::Seed>,
    supervisor: &Supervisor,
    counters: &Arc<Metrics>,
) -> Result<Assembly> {
    let member::Seed { parts, published, clock, .. } = &*executor;
    let (parts, pool) = (parts.clone(), executor.pool.clone());
    let id = NodeId(config.id.clone());
    let database = &config.database;
    Ok(Assembly {
        storage: Arc::new(storage::Seed {
            directory: config.data_dir.clone(),
            id: id.clone(),
            database: database.clone(),
            options: engine,
            past: Mutex::default(),
            parts: parts.clone(),
            published: published.clone(),
            news: supervisor.sender(),
        }),
        raft: Arc::new(raft::Seed {
            config: Config {
                proposals_bytes_max: config.proposals_bytes_max,
                election_timeout: config.election_timeout,
                heartbeat: config.heartbeat,
                memory_bytes_max: config.raft_memory_bytes_max,
                clock_drift_max: config.clock_drift_max,
                snapshot_lag: config.snapshot_lag,
                naming: database.naming,
                address: reached_at(config),
                // Its disk is known once storage has opened it.
                ..Config::new(id.clone(), DiskId::default(), clock::random_u64()?)
            },
            parts: parts.clone(),
            peers: executor.peers.clone(),
            published: published.clone(),
            counters: counters.clone(),
            clock: clock.clone(),
            configured: match &database.begin {
                Begin::Together(membership) => Some(membership.clone()),
                Begin::Alone | Begin::Joining(_) => None,
            },
            cluster_name: database.cluster_name.clone().unwrap_or_default(),
            has_compared: AtomicBool::new(false),
            witness_log_bytes_max: config.witness_log_bytes_max,
        }),
        janitor: Arc::new(janitor::Seed {
            interval: config.ttl_cleanup_interval,
            scrub_interval: config.scrub_interval,
            compare_interval: config.compare_interval,
            id: id.clone(),
            peers: executor.peers.clone(),
            view_age_max: database.engine.view_age_max,
            parts: parts.clone(),
            published: published.clone(),
            raft: router.routes().raft.clone(),
            clock: clock.clone(),
        }),
        metrics: Arc::new(metrics::Seed {
            counters: counters.clone(),
            published: published.clone(),
            router: router.clone(),
            parts,
            pool,
            clock: clock.clone(),
            id: config.id.clone(),
            address: config.advertise.clone().unwrap_or_else(|| config.address.to_string()),
            fsync: fsync(database.engine.commit_linger),
            ceilings: ceilings(config),
        }),
        published: published.clone(),
        executor,
    })
}

/// Where others reach this node; empty where that is not known, as of one that listens everywhere.
fn reached_at(config: &DaemonConfig) -> String {
    match &config.advertise {
        Some(advertise) => advertise.clone(),
        None if config.address.ip().is_unspecified() || config.address.port() == 0 => String::new(),
        None => config.address.to_string(),
    }
}

/// What an acknowledged write rests on.
fn fsync(linger: Duration) -> String {
    if linger.is_zero() {
        "fdatasync once a batch, before the answer".to_string()
    } else {
        format!("fdatasync once a batch, gathered for {linger:?}, before the answer")
    }
}

/// The configured limits, and the shares of memory that follow from them.
fn ceilings(config: &DaemonConfig) -> Vec<Ceiling> {
    let (engine, statements) = (&config.database.engine, &config.database.statements);
    let memory = config.ceilings.iter().find(|ceiling| ceiling.name == "storage.memory_bytes_max");
    let shares = [
        ("storage.memtable_bytes_max", engine.memtable_bytes_max as u64),
        (KEPT, engine.memtable_kept_bytes_max()),
        ("storage.cache_bytes_max", engine.cache_bytes_max as u64),
        // What a batch, or a statement that cannot be cut, may write, and the slices of those that can.
        ("storage.batch_effects_bytes_max", statements.whole_bytes_max as u64),
        ("storage.statement_slice_bytes_max", statements.slice_bytes_max as u64),
        (RESIDENT, memory.map_or(u64::MAX, |memory| memory.number).saturating_add(RESIDENT_BESIDE_BYTES)),
    ];
    let share = |(name, bytes): (&str, u64)| {
        let bytes = Bytes(bytes);
        Ceiling { name: name.to_string(), number: bytes.0, text: bytes.to_string() }
    };
    config.ceilings.iter().cloned().chain(shares.map(share)).collect()
}

/// The start order: each may hold what those before it made.
fn add_actors(
    supervisor: &mut Supervisor,
    slots: Slots,
    assembly: Assembly,
    (config, front): (&DaemonConfig, ArbiterHandle),
) -> Result<()> {
    let watch = |rank| Watch { rank, hang_after: HANG, when_hung: WhenHung::NewArbiter };
    let Assembly { storage, raft, executor, janitor, metrics, published } = assembly;
    let files = Watch { rank: 0, hang_after: FILES_HANG, when_hung: WhenHung::EndProcess };
    supervisor.add(slots.storage, files, move |lifeline| Storage::recover(storage.clone(), lifeline))?;
    // On the thread that brings it proposals and the words of its peers, and takes its answers: to wake another one costs
    // as much as all that raft does with them.
    let front = Thread::Shared(front);
    supervisor.add_on(front, slots.raft, watch(1), move |lifeline| Raft::recover(raft.clone(), lifeline));
    for slot in slots.executors {
        let seed = executor.clone();
        // One step of a statement may keep the thread for as long as statements may take.
        let watch = Watch { hang_after: HANG + config.limits.request_timeout, ..watch(2) };
        supervisor.add(slot, watch, move |lifeline| Executor::recover(seed.clone(), lifeline))?;
    }
    supervisor.add(slots.janitor, watch(3), move |lifeline| Janitor::recover(janitor.clone(), lifeline))?;
    supervisor.add(slots.sync, watch(4), move |lifeline| Ok(Sync::recover(published.clone(), lifeline)))?;
    supervisor.add(slots.metrics, watch(5), move |lifeline| Ok(MetricsActor::recover(metrics.clone(), lifeline)))
}
