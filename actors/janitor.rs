//! The janitor: proposes what keeps the database from growing without end.
//!
//! Rows past their time-to-live, floors under old tombstones, outcomes of requests nobody will repeat, and the next
//! step of an index whose builder went away. All of it goes through the log like any write, so replicas never disagree.
//!
//! It also reads every block on disk from time to time ([`chronos::storage::scrub`]), so that damage is known before it
//! is asked for. Snapshots are made on demand only; what seals the hot store when the log asks for it is the engine, which
//! alone knows how long the log is.
//!
//! In a group it has copies compared ([`compare`]). For those who ask it has the content hashed ([`fingerprint`]).
//!
//! * It proposes only where something would change: an idle node's log stands still.
//! * Raising a mark twice changes nothing, so a proposal lost or repeated needs no care.
//!
//! Restart: nothing to rebuild. Marks live in the catalog.

pub mod compare;
mod fingerprint;

use crate::actors::lifeline::Lifeline;
use crate::actors::messages::{ContentHash, DamageMet, Propose};
use crate::actors::peers::Peers;
use crate::actors::published::Published;
use crate::actors::raft::Raft;
use crate::actors::route::{Ask, Deadline, Route};
use crate::actors::storage::{Lent, Parts};
use actix::{Actor, AsyncContext, Context, Handler, WrapFuture};
use chronos::clock::{Clock, Monotonic, Wall};
use chronos::error::{Error, Result};
use chronos::hlc::Timestamp;
use chronos::ids::LogIndex;
use chronos::machine::{Body, Command};
use chronos::raft::{NodeId, Role};
use chronos::sql::execute::next_backfill;
use chronos::storage::scrub::{Next, Scrub};
use compare::Comparing;
use fingerprint::Fingerprint;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, error, info};

/// Proposals in one turn: a thousand tables that expire at once take several turns, not the log's whole attention.
const PROPOSALS_MAX: usize = 256;

/// How long a proposal may take; the next turn comes anyway.
const PROPOSAL_WAIT: Duration = Duration::from_secs(10);

/// How often floors and index builds are looked at, whatever the interval of TTL.
const TURN_MAX: Duration = Duration::from_mins(1);

/// How much longer tombstones are kept than any view that may lack them lives: a statement looks at the age of its view
/// between steps, and a step is done in seconds.
const FLOOR_MARGIN: Duration = Duration::from_mins(1);

/// How long tombstones are kept at least, however short the views are that this node allows: other nodes allow others.
const FLOOR_AGE_MIN: Duration = Duration::from_mins(2);

/// Entries that make a new floor worth an entry of its own.
const FLOOR_ENTRIES_MIN: u64 = 10_000;

/// How long a session's outcomes are kept after its last request, in ms.
const SESSION_MS: u64 = 90 * 24 * 3600 * 1000;

/// Outcomes are forgotten once so often: each time costs a scan of all that are remembered.
const EVICT_INTERVAL: Duration = Duration::from_hours(24);

/// Positions remembered for the floor: one a turn for as long as a floor takes to age by default, and several times that.
/// Where views may be read for longer, floors come further apart.
const POSITIONS_MAX: usize = 64;

/// Between two steps of a scrub, of about a MiB each: 10 MB/s at most, which leaves any disk to others.
const SCRUB_PAUSE: Duration = Duration::from_millis(100);

/// What the actor is made from.
pub struct Seed {
    /// How often TTL is enforced.
    pub interval: Duration,
    /// How often every block on disk is read and verified.
    pub scrub_interval: Duration,
    /// How often copies are compared.
    pub compare_interval: Duration,
    /// This node.
    pub id: NodeId,
    /// The others.
    pub peers: Arc<Peers>,
    /// How long a view may be read. Tombstones are kept for statements that began before them.
    pub view_age_max: Duration,
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
    lent: Lent,
    /// Where the log stood, and when.
    positions: VecDeque<(Monotonic, LogIndex)>,
    swept: Option<Monotonic>,
    evicted: Monotonic,
    scrub: Scrub,
    comparing: Comparing,
    fingerprint: Fingerprint,
    /// A turn is under way: the next one waits for it.
    busy: bool,
    _lifeline: Lifeline,
}

impl Janitor {
    /// Builds the actor. Boot and restart both come here.
    pub fn recover(seed: Arc<Seed>, lifeline: Lifeline) -> Result<Janitor> {
        let lent = seed.parts.lent()?;
        let evicted = seed.clock.monotonic();
        let scrub = Scrub::resume(seed.scrub_interval, evicted, &seed.published.scrub());
        seed.published.forget_content();
        let comparing = Comparing::new(seed.compare_interval, evicted);
        Ok(Janitor {
            seed,
            lent,
            positions: VecDeque::new(),
            swept: None,
            evicted,
            scrub,
            comparing,
            fingerprint: Fingerprint::default(),
            busy: false,
            _lifeline: lifeline,
        })
    }

    /// What would change something now.
    fn due(&mut self) -> Vec<Body> {
        let (now, wall) = (self.seed.clock.monotonic(), self.seed.clock.wall());
        let view = self.lent.handle.view();
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
            bodies.push(Body::EvictRequests { before: sessions_end_before(view.hlc, wall) });
        }
        bodies.truncate(PROPOSALS_MAX);
        bodies
    }

    /// A position that no running statement reads at, where one is old enough.
    fn floor(&mut self, now: Monotonic, version: LogIndex) -> Option<LogIndex> {
        let age = (self.seed.view_age_max + FLOOR_MARGIN).max(FLOOR_AGE_MIN);
        let mut floor = None;
        while self.positions.front().is_some_and(|(at, _)| *at + age <= now) {
            floor = self.positions.pop_front().map(|(_, version)| version);
        }
        let apart = self.positions.back().is_none_or(|(at, _)| *at + TURN_MAX <= now);
        if apart && self.positions.len() < POSITIONS_MAX {
            self.positions.push_back((now, version));
        }
        floor
    }

    /// Reads the next blocks where that is due, and says what it found.
    fn scrub(&mut self, context: &mut Context<Self>) {
        let view = self.lent.handle.lasting_view();
        let before = self.scrub.report().clone();
        let next = self.scrub.step(self.seed.clock.monotonic(), &view.levels.blocks);
        let report = self.scrub.report();
        for found in report.damaged.iter().filter(|found| !before.damaged.contains(found)) {
            error!(found, "a block on disk is damaged");
        }
        if report.passes > before.passes {
            info!(blocks = report.blocks - before.blocks, damaged = report.damaged.len(), "a scrub has ended");
        }
        if report.rebuild && !before.rebuild {
            info!("the hot store is made anew from the log");
            // Storage ends, and this actor with it; where storage has gone already, its successor is left alone.
            self.lent.reopen();
        }
        if *report != before {
            self.seed.published.set_scrub(report.clone());
        }
        let wait = match next {
            Next::Step => SCRUB_PAUSE,
            // The clock that decides may be another one than the timer's.
            Next::Wait(wait) => wait.clamp(SCRUB_PAUSE, TURN_MAX),
        };
        context.run_later(wait, Janitor::scrub);
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
        let (raft, origin) = (self.seed.raft.clone(), self.lent.origin);
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

/// Sessions whose last request has an earlier stamp are forgotten: by the stamps of the log, which a clock that was set back
/// does not follow.
fn sessions_end_before(hlc: Timestamp, wall: Wall) -> Timestamp {
    Timestamp::at(Wall(hlc.wall().0.max(wall.0).saturating_sub(SESSION_MS)))
}

impl Actor for Janitor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let every = self.seed.interval.clamp(Duration::from_millis(10), TURN_MAX);
        context.run_interval(every, Janitor::turn);
        context.run_interval(compare::LOOK, Janitor::compare);
        self.scrub(context);
    }
}

impl Handler<Ask<ContentHash>> for Janitor {
    type Result = ();

    /// Has everything scanned, on a thread of its own.
    fn handle(&mut self, ask: Ask<ContentHash>, context: &mut Self::Context) {
        let (ContentHash, reply) = ask.open();
        if self.lent.handle.is_witness() {
            return reply.send(Err(Error::unavailable("a witness has no rows to hash")));
        }
        reply.send(Ok(self.fingerprint(context)));
    }
}

impl Handler<Ask<DamageMet>> for Janitor {
    type Result = ();

    fn handle(&mut self, ask: Ask<DamageMet>, _: &mut Self::Context) {
        let (DamageMet { found }, reply) = ask.open();
        if self.scrub.meet(self.seed.clock.monotonic(), found.clone()) {
            error!(found, "a statement has met damage");
            self.seed.published.set_scrub(self.scrub.report().clone());
        }
        reply.send(Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_expire_by_the_stamps_of_the_log_also_where_a_clock_is_set_back() {
        let now = Wall(1_700_000_000_000);
        let ended = |hlc, wall| sessions_end_before(Timestamp::at(hlc), wall).wall().0;
        assert_eq!(ended(Wall(0), now), now.0 - SESSION_MS, "nothing was written for long");
        assert_eq!(ended(now, Wall(now.0 - 3_600_000)), now.0 - SESSION_MS, "as the next entry would be stamped");
    }
}
