//! The metrics actor: renders what the node counts, and judges its health.
//!
//! The counters live in [`Metrics`], outside the actor, so no restart makes one go back. Gauges are read at the moment
//! of rendering from what the other actors publish; nobody is asked.
//!
//! * The text is Prometheus 0.0.4, not `OpenMetrics`: there `# TYPE` names the sample with its `_total`, and there is
//!   no `# EOF`. The encoder at hand writes `OpenMetrics`, so [`prometheus_text`] translates.
//! * Label values come from fixed sets: no request can make a new series.
//!
//! Restart: nothing to rebuild.

use crate::actors::lifeline::Lifeline;
use crate::actors::messages::{ActorReport, Health, HealthReport, Render, Status, StatusReport};
use crate::actors::process;
use crate::actors::published::Published;
use crate::actors::route::Ask;
use crate::actors::router::Router;
use actix::{Actor, Context, Handler};
use chronos::error::{Error, Kind, Result};
use chronos::raft::Role;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// What a statement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Only looked.
    Read,
    /// Changed something, or tried to.
    Write,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActorLabel {
    actor: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: &'static str,
}

type Float = Gauge<f64, AtomicU64>;

/// All counters and gauges of the node. One for the life of the process.
pub struct Metrics {
    registry: Registry,
    requests: Family<KindLabel, Counter>,
    latency: Family<KindLabel, Histogram, fn() -> Histogram>,
    errors: Family<KindLabel, Counter>,
    restarts: Family<ActorLabel, Counter>,
    mailbox: Family<ActorLabel, Gauge>,
    term: Gauge,
    role: Gauge,
    commit_index: Gauge,
    applied_index: Gauge,
    proposals: Gauge,
    elections: Counter,
    storage_bytes: Gauge,
    disk_free: Gauge,
    cpu: Counter<f64, AtomicU64>,
    resident: Gauge,
    descriptors: Gauge,
    started: Float,
}

/// 50 us to 6.5 s in steps of two: from below an in-memory point read to the longest fsync that is survived.
fn latency_buckets() -> Histogram {
    Histogram::new((0..18).map(|i| 50e-6 * f64::from(1 << i)))
}

impl Metrics {
    /// All at zero. `started_ms` is when the process began, in milliseconds since 1970.
    pub fn new(started_ms: u64) -> Metrics {
        let mut registry = Registry::default();
        let mut build = Family::<VersionLabel, Gauge>::default();
        let metrics = Metrics {
            requests: Family::default(),
            latency: Family::new_with_constructor(latency_buckets),
            errors: Family::default(),
            restarts: Family::default(),
            mailbox: Family::default(),
            term: Gauge::default(),
            role: Gauge::default(),
            commit_index: Gauge::default(),
            applied_index: Gauge::default(),
            proposals: Gauge::default(),
            elections: Counter::default(),
            storage_bytes: Gauge::default(),
            disk_free: Gauge::default(),
            cpu: Counter::default(),
            resident: Gauge::default(),
            descriptors: Gauge::default(),
            started: Float::default(),
            registry: Registry::default(),
        };
        metrics.register(&mut registry, &mut build);
        // Both kinds are there from the start: a rate over a series that appears late misses its first increase.
        for kind in ["read", "write"] {
            drop(metrics.requests.get_or_create(&KindLabel { kind }));
            drop(metrics.latency.get_or_create(&KindLabel { kind }));
        }
        build.get_or_create(&VersionLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
        metrics.started.set(started_ms as f64 / 1e3);
        Metrics { registry, ..metrics }
    }

    fn register(&self, registry: &mut Registry, build: &mut Family<VersionLabel, Gauge>) {
        let r = registry;
        r.register("chronos_sql_requests", "Statements answered, by what they did", self.requests.clone());
        r.register(
            "chronos_sql_duration_seconds",
            "Time from a statement's arrival to its answer",
            self.latency.clone(),
        );
        r.register("chronos_sql_errors", "Statements that failed, by what the caller does next", self.errors.clone());
        r.register("chronos_raft_term", "Current Raft term", self.term.clone());
        r.register("chronos_raft_role", "Role: 0 follower, 1 candidate, 2 leader", self.role.clone());
        r.register("chronos_raft_commit_index", "Highest log index known to be committed", self.commit_index.clone());
        r.register("chronos_raft_applied_index", "Highest log index in the state", self.applied_index.clone());
        r.register(
            "chronos_raft_proposals_pending_bytes",
            "Bytes proposed and not yet applied",
            self.proposals.clone(),
        );
        r.register("chronos_raft_elections", "Elections that this node stood in", self.elections.clone());
        r.register("chronos_storage_size_bytes", "Bytes of this node's directory on disk", self.storage_bytes.clone());
        r.register(
            "chronos_storage_disk_free_bytes",
            "Bytes free on the file system of the data",
            self.disk_free.clone(),
        );
        r.register("chronos_actor_restarts", "Restarts of each actor after its own failure", self.restarts.clone());
        r.register("chronos_actor_mailbox_messages", "Requests waiting for or with an actor", self.mailbox.clone());
        r.register("chronos_build_info", "Version of the program; always 1", build.clone());
        r.register("process_cpu_seconds", "User and system time of the process", self.cpu.clone());
        r.register("process_resident_memory_bytes", "Resident memory of the process", self.resident.clone());
        r.register("process_open_fds", "Open file descriptors", self.descriptors.clone());
        r.register("process_start_time_seconds", "Start of the process since 1970", self.started.clone());
    }

    /// Counts a statement that was answered, well or badly.
    pub fn statement(&self, work: Work, took: Duration, failure: Option<&Error>) {
        let kind = match work {
            Work::Read => "read",
            Work::Write => "write",
        };
        self.requests.get_or_create(&KindLabel { kind }).inc();
        self.latency.get_or_create(&KindLabel { kind }).observe(took.as_secs_f64());
        if let Some(error) = failure {
            self.errors.get_or_create(&KindLabel { kind: kind_name(error.kind()) }).inc();
        }
    }

    /// Counts a restart.
    pub fn restarted(&self, actor: &'static str) {
        self.restarts.get_or_create(&ActorLabel { actor }).inc();
    }

    /// Restarts so far, of one actor.
    pub fn restarts_of(&self, actor: &'static str) -> u64 {
        self.restarts.get_or_create(&ActorLabel { actor }).get()
    }

    /// Counts an election that this node stood in.
    pub fn stood_for_election(&self) {
        self.elections.inc();
    }

    fn refresh(&self, published: &Published, router: &Router) {
        let raft = published.raft().status.clone();
        self.term.set(raft.term.0 as i64);
        self.role.set(match raft.role {
            Role::Follower => 0,
            Role::Candidate => 1,
            Role::Leader => 2,
        });
        self.commit_index.set(raft.committed.0 as i64);
        self.applied_index.set(raft.applied.0 as i64);
        self.proposals.set(raft.proposals_bytes as i64);
        let storage = published.storage();
        self.storage_bytes.set(storage.size_bytes as i64);
        self.disk_free.set(storage.disk_free_bytes as i64);
        for (actor, depth) in router.depths() {
            self.mailbox.get_or_create(&ActorLabel { actor }).set(depth as i64);
        }
        let usage = process::usage();
        self.cpu.inner().store(usage.cpu.as_secs_f64().to_bits(), std::sync::atomic::Ordering::Relaxed);
        self.resident.set(usage.resident_bytes as i64);
        self.descriptors.set(usage.open_files as i64);
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> Result<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &self.registry)
            .map_err(|_| Error::internal("metrics could not be written"))?;
        Ok(prometheus_text(&text))
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "invalid",
        Kind::Conflict => "conflict",
        Kind::Limit => "limit",
        Kind::Unavailable => "unavailable",
        Kind::Overloaded => "overloaded",
        Kind::InDoubt => "in_doubt",
        Kind::Damaged => "damaged",
        Kind::Io => "io",
        Kind::Internal => "internal",
    }
}

/// Turns `OpenMetrics` text into Prometheus text 0.0.4: counters are described under the name that their samples have,
/// and what the older format does not know is left out.
fn prometheus_text(open: &str) -> String {
    let mut text = String::with_capacity(open.len() + 256);
    let mut help = None;
    for line in open.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            // Written once the type is known.
            help = described.split_once(' ');
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap_or((typed, "untyped"));
            let total = if kind == "counter" { "_total" } else { "" };
            if let Some((_, words)) = help.take() {
                let _ = writeln!(text, "# HELP {name}{total} {words}");
            }
            let _ = writeln!(text, "# TYPE {name}{total} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Renders and judges; owns nothing that lasts.
pub struct MetricsActor {
    metrics: Arc<Metrics>,
    published: Arc<Published>,
    router: Router,
    _lifeline: Lifeline,
}

impl MetricsActor {
    /// Builds the actor. Boot and restart both come here.
    pub fn recover(
        metrics: Arc<Metrics>,
        published: Arc<Published>,
        router: Router,
        lifeline: Lifeline,
    ) -> MetricsActor {
        MetricsActor { metrics, published, router, _lifeline: lifeline }
    }

    fn health(&self) -> HealthReport {
        let raft = self.published.raft();
        let storage = self.published.storage();
        let restarting = self.router.absent();
        let reason = if !restarting.is_empty() {
            Some(format!("restarting: {}", restarting.join(", ")))
        } else if storage.disk_full {
            Some("the disk is full".to_string())
        } else {
            None
        };
        HealthReport { role: raft.status.role, term: raft.status.term, degraded: reason }
    }
}

impl Actor for MetricsActor {
    type Context = Context<Self>;
}

impl Handler<Ask<Render>> for MetricsActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<Render>, _: &mut Self::Context) {
        let (Render, reply) = ask.open();
        self.metrics.refresh(&self.published, &self.router);
        reply.send(self.metrics.render());
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
        let actors = self
            .router
            .depths()
            .into_iter()
            .map(|(name, waiting)| ActorReport { name, waiting, restarts: self.metrics.restarts_of(name) })
            .collect();
        reply.send(Ok(StatusReport {
            health: self.health(),
            raft: (*self.published.raft()).clone(),
            storage: (*self.published.storage()).clone(),
            actors,
            sync: (*self.published.sync()).clone(),
        }));
    }
}
