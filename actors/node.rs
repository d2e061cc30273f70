//! A node put together: routes, actors, supervisor. Doors are opened by whoever starts it.

use crate::actors::DaemonConfig;
use crate::actors::executor::{self, Executor};
use crate::actors::janitor::{self, Janitor};
use crate::actors::metrics::{Metrics, MetricsActor};
use crate::actors::published::Published;
use crate::actors::raft::{self, Raft};
use crate::actors::route::{Slot, route};
use crate::actors::router::{Router, Routes};
use crate::actors::storage::{self, Parts, Storage};
use crate::actors::supervisor::{Supervisor, Watch, WhenHung};
use crate::actors::sync::Sync;
use chronos::clock::Clock;
use chronos::error::Result;
use chronos::raft::{Config, NodeId};
use chronos::sql::execute::Executor as Library;
use chronos::sql::memory::Pool;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// A thread that owns files and is silent for a minute has met a disk that does not answer.
const FILES_HANG: Duration = Duration::from_mins(1);

/// No handler of the others takes a second.
const HANG: Duration = Duration::from_secs(30);

/// Bytes of proposals that wait to be applied: two of the largest commands, or some 100,000 rows in small ones.
const PROPOSALS_BYTES_MAX: usize = 32 << 20;

/// A started node.
pub struct Node {
    /// Where requests go.
    pub router: Router,
    /// What actors publish.
    pub published: Arc<Published>,
    /// What storage leaves for others.
    pub parts: Arc<Parts>,
    /// Keeps the actors alive, once it is run.
    pub supervisor: Supervisor,
}

/// What a node is put together from.
struct Assembly {
    storage: Arc<storage::Seed>,
    raft: Arc<raft::Seed>,
    executor: Arc<executor::Seed>,
    janitor: Arc<janitor::Seed>,
    published: Arc<Published>,
    counters: Arc<Metrics>,
    router: Router,
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
        let counters = Arc::new(Metrics::new(clock.wall().0));
        let counted = counters.clone();
        let on_restart = Box::new(move |actor| counted.restarted(actor));
        let mut supervisor = Supervisor::new(config.policy, clock.clone(), on_restart);
        let (slots, ways) = routes(config, &counters, &clock);
        let published = Arc::new(Published::default());
        let assembly = assemble(config, Router::new(ways), &supervisor, published, counters, clock);
        let (router, published) = (assembly.router.clone(), assembly.published.clone());
        let parts = assembly.storage.parts.clone();
        add_actors(&mut supervisor, slots, assembly, config)?;
        supervisor.start().await?;
        Ok(Node { router, published, parts, supervisor })
    }
}

fn routes(config: &DaemonConfig, counters: &Arc<Metrics>, clock: &Arc<dyn Clock>) -> (Slots, Routes) {
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
        clock: clock.clone(),
        next: AtomicUsize::new(0),
    };
    (Slots { storage, raft, executors, janitor, sync, metrics }, routes)
}

fn assemble(
    config: &DaemonConfig,
    router: Router,
    supervisor: &Supervisor,
    published: Arc<Published>,
    counters: Arc<Metrics>,
    clock: Arc<dyn Clock>,
) -> Assembly {
    let parts = Arc::new(Parts::default());
    let id = NodeId(config.id.clone());
    let database = &config.database;
    let pool = Pool::new(database.query_bytes_max);
    let library = Arc::new(Library::new(database.statements.clone(), pool, clock.clone()));
    Assembly {
        storage: Arc::new(storage::Seed {
            directory: config.data_dir.clone(),
            database: database.clone(),
            parts: parts.clone(),
            published: published.clone(),
            news: supervisor.sender(),
        }),
        raft: Arc::new(raft::Seed {
            config: Config { id, proposals_bytes_max: PROPOSALS_BYTES_MAX },
            parts: parts.clone(),
            published: published.clone(),
            counters: counters.clone(),
            clock: clock.clone(),
        }),
        executor: Arc::new(executor::Seed {
            library,
            parts: parts.clone(),
            published: published.clone(),
            raft: router.routes().raft.clone(),
            clock: clock.clone(),
            response_bytes_max: config.limits.response_bytes_max,
        }),
        janitor: Arc::new(janitor::Seed {
            interval: config.ttl_cleanup_interval,
            parts,
            published: published.clone(),
            raft: router.routes().raft.clone(),
            clock,
        }),
        published,
        counters,
        router,
    }
}

/// The start order: each may hold what those before it made.
fn add_actors(supervisor: &mut Supervisor, slots: Slots, assembly: Assembly, config: &DaemonConfig) -> Result<()> {
    let watch = |rank| Watch { rank, hang_after: HANG, when_hung: WhenHung::NewArbiter };
    let Assembly { storage, raft, executor, janitor, published, counters, router } = assembly;
    let files = Watch { rank: 0, hang_after: FILES_HANG, when_hung: WhenHung::EndProcess };
    supervisor.add(slots.storage, files, move |lifeline| Storage::recover(storage.clone(), lifeline))?;
    supervisor.add(slots.raft, watch(1), move |lifeline| Raft::recover(raft.clone(), lifeline))?;
    for slot in slots.executors {
        let seed = executor.clone();
        // One step of a statement may keep the thread for as long as statements may take.
        let watch = Watch { hang_after: HANG + config.limits.request_timeout, ..watch(2) };
        supervisor.add(slot, watch, move |lifeline| Executor::recover(seed.clone(), lifeline))?;
    }
    supervisor.add(slots.janitor, watch(3), move |lifeline| Janitor::recover(janitor.clone(), lifeline))?;
    let board = published.clone();
    supervisor.add(slots.sync, watch(4), move |lifeline| Ok(Sync::recover(board.clone(), lifeline)))?;
    supervisor.add(slots.metrics, watch(5), move |lifeline| {
        Ok(MetricsActor::recover(counters.clone(), published.clone(), router.clone(), lifeline))
    })
}
