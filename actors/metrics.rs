//! The metrics actor: renders what the node counts, and judges its health.
//!
//! The counters live in [`Metrics`], outside the actor, so no restart makes one go back. Gauges are read at the moment
//! of rendering from what the other actors publish; nobody is asked.
//!
//! * Counting is one or two relaxed additions: no lock, no allocation, no label looked up by name.
//! * Label values come from fixed sets: no request can make a new series, and each is there from the start, since a
//!   rate over one that appears late misses its first increase.
//!
//! Restart: nothing to rebuild.

mod page;
mod text;

use crate::actors::figures::StorageStatus;
use crate::actors::lifeline::Lifeline;
use crate::actors::messages::{
    ActorReport, CeilingReport, Health, HealthReport, LevelReport, Render, Status, StatusReport,
};
use crate::actors::process;
use crate::actors::published::{Published, RaftReport};
use crate::actors::route::Ask;
use crate::actors::router::Router;
use crate::actors::storage::Parts;
use actix::{Actor, Context, Handler};
use chronos::clock::Clock;
use chronos::config::Ceiling;
use chronos::error::{Error, Kind};
use chronos::sql::memory::Pool;
use chronos::storage::engine::{Distribution, Histogram};
use chronos::storage::level::Level;
use page::Present;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a statement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Only looked.
    Read,
    /// Changed something, or tried to.
    Write,
}

/// Where connections come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Statements in bulk.
    Grpc,
    /// Administration.
    Http,
}

/// Connections of one door.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicU64,
    refused: AtomicU64,
}

/// A connection that is open; dropping it closes it, as far as counting goes.
pub struct Connection {
    metrics: Arc<Metrics>,
    door: Door,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.metrics.door(self.door).open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    /// How many are open.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// How many were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts one that was refused.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// The actors, in start order, as labels name them.
const ACTORS: [&str; 6] = ["storage", "raft", "executor", "janitor", "sync", "metrics"];

/// The kinds of errors, as labels name them.
const KINDS: [(Kind, &str); 9] = [
    (Kind::Invalid, "invalid"),
    (Kind::Conflict, "conflict"),
    (Kind::Limit, "limit"),
    (Kind::Unavailable, "unavailable"),
    (Kind::Overloaded, "overloaded"),
    (Kind::InDoubt, "in_doubt"),
    (Kind::Damaged, "damaged"),
    (Kind::Io, "io"),
    (Kind::Internal, "internal"),
];

/// All counters of the node. One for the life of the process.
#[derive(Debug)]
pub struct Metrics {
    reads: Histogram,
    writes: Histogram,
    errors: [AtomicU64; KINDS.len()],
    restarts: [AtomicU64; ACTORS.len()],
    elections: AtomicU64,
    commits: Histogram,
    grpc: Connections,
    http: Connections,
    started_ms: u64,
}

impl Metrics {
    /// All at zero. `started_ms` is when the process began, in milliseconds since 1970.
    pub fn new(started_ms: u64) -> Metrics {
        Metrics {
            reads: Histogram::default(),
            writes: Histogram::default(),
            errors: Default::default(),
            restarts: Default::default(),
            elections: AtomicU64::new(0),
            commits: Histogram::default(),
            grpc: Connections::default(),
            http: Connections::default(),
            started_ms,
        }
    }

    /// Counts a statement that was answered, well or badly.
    pub fn statement(&self, work: Work, took: Duration, failure: Option<&Error>) {
        match work {
            Work::Read => self.reads.record(took),
            Work::Write => self.writes.record(took),
        }
        if let Some(error) = failure
            && let Some(at) = KINDS.iter().position(|(kind, _)| *kind == error.kind())
        {
            self.errors[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How long statements took.
    pub fn statements(&self, work: Work) -> Distribution {
        match work {
            Work::Read => self.reads.distribution(),
            Work::Write => self.writes.distribution(),
        }
    }

    /// Statements that failed, by kind.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KINDS.iter().zip(&self.errors).map(|((_, name), count)| (*name, count.load(Ordering::Relaxed)))
    }

    /// Counts a restart.
    pub fn restarted(&self, actor: &'static str) {
        if let Some(at) = ACTORS.iter().position(|name| *name == actor) {
            self.restarts[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Restarts so far, by actor.
    pub fn restarts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ACTORS.iter().zip(&self.restarts).map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
    }

    /// Restarts so far, of one actor.
    pub fn restarts_of(&self, actor: &'static str) -> u64 {
        self.restarts().find(|(name, _)| *name == actor).map_or(0, |(_, count)| count)
    }

    /// Counts an election that this node stood in.
    pub fn stood_for_election(&self) {
        self.elections.fetch_add(1, Ordering::Relaxed);
    }

    /// Elections that this node stood in.
    pub fn elections(&self) -> u64 {
        self.elections.load(Ordering::Relaxed)
    }

    /// How long proposals took until they were committed.
    pub fn commits(&self) -> &Histogram {
        &self.commits
    }

    /// The connections of a door.
    pub fn door(&self, door: Door) -> &Connections {
        match door {
            Door::Grpc => &self.grpc,
            Door::Http => &self.http,
        }
    }

    /// Counts a connection that was opened, until the answer is dropped.
    pub fn connected(self: &Arc<Metrics>, door: Door) -> Connection {
        self.door(door).open.fetch_add(1, Ordering::Relaxed);
        Connection { metrics: self.clone(), door }
    }

    /// When the process began, in milliseconds since 1970.
    pub fn started_ms(&self) -> u64 {
        self.started_ms
    }
}

/// What the actor is made from.
pub struct Seed {
    /// Counts.
    pub counters: Arc<Metrics>,
    /// What the others say of themselves.
    pub published: Arc<Published>,
    /// Who is there, and what waits for them.
    pub router: Router,
    /// What storage left.
    pub parts: Arc<Parts>,
    /// What queries hold.
    pub pool: Arc<Pool>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The node's name.
    pub id: String,
    /// Where others reach it.
    pub address: String,
    /// What an acknowledged write rests on, in words.
    pub fsync: String,
    /// Every limit.
    pub ceilings: Vec<Ceiling>,
}

/// The ceiling of resident memory, which no setting names: that of the database and what the program takes.
pub const RESIDENT: &str = "process.resident_bytes";

/// The share of memory for flushed memtables that statements keep.
pub const KEPT: &str = "storage.memtable_kept_bytes_max";

/// What a process takes beside `storage.memory_bytes_max`: code, stacks, sled's tables, and what the allocator keeps.
pub const RESIDENT_BESIDE_BYTES: u64 = 40_000_000;

/// What is wrong with a witness whose log has reached its limit, and what ends it.
const LOG_FULL: &str = "the log of this witness has reached raft.witness_log_bytes_max: it counts towards no commit until the \
                        members with rows have caught up (chronos admin members shows how far they are); where one does \
                        not come back, raise the limit and remove it";

/// Which members have no room, where this node leads them.
fn short_of_disk(raft: &RaftReport) -> Option<String> {
    let short: Vec<&str> = raft.short_of_disk().map(|id| id.0.as_str()).collect();
    let are = if short.len() == 1 { "is" } else { "are" };
    let text = "short of disk (storage.disk_reserve): free space there";
    (!short.is_empty()).then(|| format!("{} {are} {text}", short.join(", ")))
}

/// Renders and judges; owns nothing that lasts.
pub struct MetricsActor {
    seed: Arc<Seed>,
    _lifeline: Lifeline,
}

impl MetricsActor {
    /// Builds the actor. Boot and restart both come here.
    pub fn recover(seed: Arc<Seed>, lifeline: Lifeline) -> MetricsActor {
        MetricsActor { seed, _lifeline: lifeline }
    }

    fn render(&self) -> String {
        let Seed { counters, published, router, parts, pool, clock, .. } = &*self.seed;
        let (raft, storage, sync) = (published.raft(), published.storage(), published.sync());
        let stamped = parts.handle().map_or(0, |handle| handle.lasting_view().hlc.wall().0);
        let present = Present {
            raft: &raft,
            storage: &storage,
            sync: &sync,
            scrub: &published.scrub(),
            comparison: &published.comparison(),
            depths: router.depths(),
            query_bytes: pool.used(),
            in_flight_bytes: router.routes().transit.used(),
            skew: Duration::from_millis(stamped.saturating_sub(clock.wall().0)),
            usage: process::usage(),
        };
        page::render(counters, &present)
    }

    fn health(&self) -> HealthReport {
        let Seed { published, router, .. } = &*self.seed;
        let (raft, storage, scrub) = (published.raft(), published.storage(), published.scrub());
        let restarting = router.absent();
        let reason = if !restarting.is_empty() {
            Some(format!("restarting: {}", restarting.join(", ")))
        } else if storage.disk_full {
            Some("the disk is full".to_string())
        } else if let Some(outcast) = raft.outcast() {
            Some(outcast)
        } else if raft.status.log_is_full {
            Some(LOG_FULL.to_string())
        } else if let Some(alarm) = published.comparison().alarm().or_else(|| router.routes().peers.alarm()) {
            Some(alarm)
        } else if let Some(first) = scrub.damaged.first() {
            // The rest of it is in /status and in the log.
            Some(format!("{} damaged on disk: {first}", blocks(scrub.damaged.len())))
        } else {
            short_of_disk(&raft)
        };
        HealthReport { role: raft.role_of(&self.seed.id), term: raft.status.term, degraded: reason }
    }

    fn status(&self) -> StatusReport {
        let Seed { counters, published, router, parts, .. } = &*self.seed;
        let report = |(name, waiting)| ActorReport { name, waiting, restarts: counters.restarts_of(name) };
        let view = parts.handle().map(|handle| handle.lasting_view());
        let levels = view.map_or_else(|_| Vec::new(), |view| view.levels.blocks.iter().map(|one| level(one)).collect());
        StatusReport {
            id: self.seed.id.clone(),
            address: self.seed.address.clone(),
            fsync: self.seed.fsync.clone(),
            started_ms: counters.started_ms(),
            health: self.health(),
            raft: (*published.raft()).clone(),
            storage: (*published.storage()).clone(),
            levels,
            scrub: (*published.scrub()).clone(),
            ceilings: self.ceilings(&published.storage()),
            actors: router.depths().into_iter().map(report).collect(),
            sync: (*published.sync()).clone(),
            content: published.content(),
            memory: process::memory(),
        }
    }

    /// Every limit, with how much of it is used where that can be told.
    fn ceilings(&self, storage: &StorageStatus) -> Vec<CeilingReport> {
        let Seed { counters, published, router, pool, .. } = &*self.seed;
        let now = |name: &str| match name {
            "storage.memory_bytes_max" => {
                Some(storage.memtable_bytes + storage.memtable_kept_bytes + storage.cache_bytes + pool.used() as u64)
            }
            RESIDENT => Some(process::usage().resident_bytes),
            "storage.memtable_bytes_max" => Some(storage.memtable_bytes),
            KEPT => Some(storage.memtable_kept_bytes),
            "storage.cache_bytes_max" => Some(storage.cache_bytes),
            "storage.seal_wal_bytes" => Some(storage.log.bytes),
            "storage.pinned_bytes_max" => Some(storage.pinned_bytes),
            "raft.witness_log_bytes_max" if published.raft().status.is_witness => Some(storage.log.bytes),
            "raft.log_keep_bytes_max" => Some(storage.log.kept_bytes),
            "raft.memory_bytes_max" => Some(published.raft().status.tail_bytes as u64),
            "raft.proposals_bytes_max" => Some(published.raft().status.proposals_bytes as u64),
            "limits.query_memory_bytes" => Some(pool.used() as u64),
            "limits.in_flight_bytes_max" => Some(router.routes().transit.used() as u64),
            "limits.connections" => Some(counters.door(Door::Grpc).open().max(counters.door(Door::Http).open())),
            "limits.mailbox" => router.depths().into_iter().map(|(_, depth)| depth as u64).max(),
            _ => None,
        };
        let report = |ceiling: &Ceiling| CeilingReport {
            now: now(&ceiling.name),
            free: (ceiling.name == "storage.disk_reserve").then_some(storage.disk_free_bytes),
            ceiling: ceiling.clone(),
        };
        self.seed.ceilings.iter().map(report).collect()
    }
}

fn blocks(count: usize) -> String {
    if count == 1 { "a block is".to_string() } else { format!("{count} blocks are") }
}

fn level(level: &Level) -> LevelReport {
    let mut report = LevelReport::default();
    for entry in level.manifest.keyspaces().flat_map(|keyspace| level.manifest.blocks(keyspace)) {
        report.blocks += 1;
        report.rows += u64::from(entry.summary.rows);
        report.bytes += u64::from(entry.bytes);
    }
    report
}

impl Actor for MetricsActor {
    type Context = Context<Self>;
}

impl Handler<Ask<Render>> for MetricsActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<Render>, _: &mut Self::Context) {
        let (Render, reply) = ask.open();
        reply.send(Ok(self.render()));
    }
}

impl Handler<Ask<Health>> for MetricsActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<Health>, _: &mut Self::Context) {
        let (Health, reply) = ask.open();
        reply.send(Ok(self.health()));
    }
}

impl Handler<Ask<Status>> for MetricsActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<Status>, _: &mut Self::Context) {
        let (Status, reply) = ask.open();
        reply.send(Ok(self.status()));
    }
}
