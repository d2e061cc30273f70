//! The janitor: proposes what keeps the database from growing without end.
//!
//! Rows past their time-to-live, floors under old tombstones, outcomes of requests nobody will repeat, and the next
//! step of an index whose builder went away. All of it goes through the log like any write, so replicas never disagree.
//!
//! * It proposes only where something would change: an idle node's log stands still.
//! * Raising a mark twice changes nothing, so a proposal lost or repeated needs no care.
//!
//! Restart: nothing to rebuild. Marks live in the catalog.

use crate::actors::lifeline::Lifeline;
use crate::actors::messages::{Content, ContentHash, Propose};
use crate::actors::published::Published;
use crate::actors::raft::Raft;
use crate::actors::route::{Ask, Deadline, Route};
use crate::actors::storage::Parts;
use actix::{Actor, AsyncContext, Context, Handler, WrapFuture};
use chronos::clock::{Clock, Monotonic};
use chronos::error::Result;
use chronos::hlc::Timestamp;
use chronos::ids::{LogIndex, OriginUid};
use chronos::machine::{Body, Command};
use chronos::raft::Role;
use chronos::sql::execute::next_backfill;
use chronos::storage::content_hash::content_hash;
use chronos::storage::engine::Handle;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tracing::debug;

/// Proposals in one turn: a thousand tables that expire at once take several turns, not the log's whole attention.
const PROPOSALS_MAX: usize = 256;

/// How long a proposal may take; the next turn comes anyway.
const PROPOSAL_WAIT: Duration = Duration::from_secs(10);

/// How often floors and index builds are looked at, whatever the interval of TTL.
const TURN_MAX: Duration = Duration::from_mins(1);

/// Tombstones are kept for statements that began before them. No statement or view lives longer than ten minutes.
const FLOOR_AGE: Duration = Duration::from_mins(11);

/// Entries that make a new floor worth an entry of its own.
const FLOOR_ENTRIES_MIN: u64 = 10_000;

/// How long a session's outcomes are kept after its last request, in ms.
const SESSION_MS: u64 = 90 * 24 * 3600 * 1000;

/// Outcomes are forgotten once so often: each time costs a scan of all that are remembered.
const EVICT_INTERVAL: Duration = Duration::from_hours(24);

/// Positions remembered for the floor: one a turn for as long as a floor takes to age.
const POSITIONS_MAX: usize = 64;

/// What the actor is made from.
pub struct Seed {
    /// How often TTL is enforced.
    pub interval: Duration,
    /// What storage left.
    pub parts: Arc<Parts>,
    /// Where the consensus stands.
    pub published: Arc<Published>,
    /// Orders writes.
    pub raft: Route<Raft>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Proposes, for each table, what is gone.
pub struct Janitor {
    seed: Arc<Seed>,
    handle: Handle,
    origin: OriginUid,
    /// Where the log stood, and when.
    positions: VecDeque<(Monotonic, LogIndex)>,
    swept: Option<Monotonic>,
    evicted: Monotonic,
    /// The last content hash: asked for again at the same position it costs nothing.
    content: Option<Content>,
    /// A turn is under way: the next one waits for it.
    busy: bool,
    _lifeline: Lifeline,
}

impl Janitor {
    /// Builds the actor. Boot and restart both come here.
    pub fn recover(seed: Arc<Seed>, lifeline: Lifeline) -> Result<Janitor> {
        let (handle, origin) = (seed.parts.handle()?, seed.parts.origin()?);
        let evicted = seed.clock.monotonic();
        Ok(Janitor {
            seed,
            handle,
            origin,
            positions: VecDeque::new(),
            swept: None,
            evicted,
            content: None,
            busy: false,
            _lifeline: lifeline,
        })
    }

    /// What would change something now.
    fn due(&mut self) -> Vec<Body> {
        let (now, wall) = (self.seed.clock.monotonic(), self.seed.clock.wall());
        let view = self.handle.view();
        let mut bodies: Vec<Body> =
            view.catalog.tables().flat_map(|table| table.indexes.iter().filter_map(next_backfill)).collect();
        if self.swept.is_none_or(|at| now.saturating_sub(at) >= self.seed.interval) {
            self.swept = Some(now);
            for table in view.catalog.tables().filter(|table| table.ttl.is_some()) {
                let below_ms = table.expired_below(wall.0);
                if below_ms > table.expired_below_ms {
                    bodies.push(Body::Expire { table: table.id, below_ms });
                }
            }
        }
        if let Some(floor) = self.floor(now, view.version) {
            let tables = view.catalog.tables().filter(|table| table.floor.0 + FLOOR_ENTRIES_MIN <= floor.0);
            bodies.extend(tables.map(|table| Body::RaiseFloor { table: table.id, floor }));
        }
        if now.saturating_sub(self.evicted) >= EVICT_INTERVAL {
            self.evicted = now;
            let before = Timestamp::at(chronos::clock::Wall(wall.0.saturating_sub(SESSION_MS)));
            bodies.push(Body::EvictRequests { before });
        }
        bodies.truncate(PROPOSALS_MAX);
        bodies
    }

    /// A position that no running statement reads at, where one is old enough.
    fn floor(&mut self, now: Monotonic, version: LogIndex) -> Option<LogIndex> {
        let mut floor = None;
        while self.positions.front().is_some_and(|(at, _)| *at + FLOOR_AGE <= now) {
            floor = self.positions.pop_front().map(|(_, version)| version);
        }
        let apart = self.positions.back().is_none_or(|(at, _)| *at + TURN_MAX <= now);
        if apart && self.positions.len() < POSITIONS_MAX {
            self.positions.push_back((now, version));
        }
        floor
    }

    fn turn(&mut self, context: &mut Context<Self>) {
        if self.busy || self.seed.published.raft().status.role != Role::Leader {
            return;
        }
        let bodies = self.due();
        if bodies.is_empty() {
            return;
        }
        self.busy = true;
        let (raft, origin) = (self.seed.raft.clone(), self.origin);
        let work = async move {
            for body in bodies {
                let command = Command { request: None, origin, affected: 0, body }.encode();
                // Whatever became of it, the next turn looks again.
                if let Err(error) = raft.ask(Propose { command }, Deadline::after(PROPOSAL_WAIT)).await {
                    debug!(%error, "a proposal of the janitor failed");
                }
            }
        };
        let done = actix::fut::ActorFutureExt::map(work.into_actor(self), |(), janitor: &mut Janitor, _| {
            janitor.busy = false;
        });
        context.spawn(done);
    }
}

impl Actor for Janitor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let every = self.seed.interval.clamp(Duration::from_millis(10), TURN_MAX);
        context.run_interval(every, Janitor::turn);
    }
}

impl Handler<Ask<ContentHash>> for Janitor {
    type Result = ();

    /// A scan of everything, on the one thread that nobody waits for.
    fn handle(&mut self, ask: Ask<ContentHash>, _: &mut Self::Context) {
        let (ContentHash, reply) = ask.open();
        let view = self.handle.view();
        let content = match self.content.filter(|content| content.index == view.version) {
            Some(content) => Ok(content),
            None => content_hash(&view, &|| Ok(())).map(|hash| Content { index: view.version, hash }),
        };
        self.content = content.as_ref().ok().copied();
        reply.send(content);
    }
}
