//! The raft actor: feeds the consensus core, and performs what it asks for.
//!
//! ```text
//!   executor ── Propose ──> mailbox ──┐                     ┌──> log thread: entries, hard state, waiting doors
//!   log, state threads ── events ─────┼──> Node ── Ready ───┤
//!   timer ── tick ────────────────────┘                     └──> published: role, term, positions
//! ```
//!
//! What arrives while a `Ready` is being performed gathers in the mailbox and leaves as one append: proposals batch
//! themselves under load, and one alone waits for nobody.
//!
//! * Events of the disk have a channel of their own, bounded by the appends that are out, and are taken before
//!   proposals: a flood cannot keep an acknowledgement from being counted.
//! * The waiting door's channel travels with the entry to the state thread: an outcome does not come back through here.
//! * A proposal that was never opened had no effect (route.rs); one that was is in doubt until its outcome comes.
//!
//! * Only the actor that began last may append (storage.rs). One whose thread was taken for dead and goes on finds that
//!   out at its next append, which is refused, and ends.
//!
//! Restart: the node is recovered from what storage knows to be in the log.

use crate::actors::lifeline::Lifeline;
use crate::actors::messages::Propose;
use crate::actors::metrics::Metrics;
use crate::actors::published::{Published, RaftReport};
use crate::actors::route::Ask;
use crate::actors::storage::{Parts, Ticket};
use actix::{Actor, ActorContext, ActorFuture, AsyncContext, Context, Handler};
use chronos::clock::Clock;
use chronos::error::Result;
use chronos::ids::LogIndex;
use chronos::raft::{Config, Node, Role};
use chronos::storage::engine::{Event, Waiting};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::warn;

/// How often the core is told the time: twice a heartbeat, so that none is late by more than half of itself.
const TICK: Duration = Duration::from_millis(50);

/// Proposals taken from the mailbox before what they make is sent on. Under a flood the mailbox never empties, and
/// without this nothing would be appended.
const PROPOSALS_MAX: usize = 256;

/// What the actor is made from.
pub struct Seed {
    /// This node and its limits.
    pub config: Config,
    /// What storage left.
    pub parts: Arc<Parts>,
    /// Where to say how it stands.
    pub published: Arc<Published>,
    /// Counts elections.
    pub counters: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Orders writes.
pub struct Raft {
    node: Node,
    events: mpsc::UnboundedReceiver<Event>,
    /// The right to append.
    ticket: Ticket,
    /// Doors that wait for entries of the `Ready` to come, by position.
    waiting: VecDeque<(LogIndex, Waiting)>,
    proposals: usize,
    seed: Arc<Seed>,
    _lifeline: Lifeline,
}

impl Raft {
    /// Builds the actor on what storage has recovered. Boot and restart both come here.
    pub fn recover(seed: Arc<Seed>, lifeline: Lifeline) -> Result<Raft> {
        let (recovered, events, ticket) = seed.parts.open_log()?;
        let node = Node::recover(seed.config.clone(), recovered)?;
        Ok(Raft { node, events, ticket, waiting: VecDeque::new(), proposals: 0, seed, _lifeline: lifeline })
    }

    /// Takes what the disk has done.
    fn take_events(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.completed(event);
        }
        self.take_applied();
    }

    /// With one voter the log thread hands on what is durable without asking: applied says both.
    fn take_applied(&mut self) {
        let applied = self.seed.parts.applied();
        if applied > self.node.status().applied {
            self.node.persisted(applied);
            self.node.applied(applied);
        }
    }

    fn completed(&mut self, event: Event) {
        match event {
            Event::Persisted { last, messages } => {
                if let Some(last) = last {
                    self.node.persisted(last);
                }
                let wall = self.seed.clock.wall();
                for message in messages {
                    self.node.step(message, wall);
                }
            }
            Event::Applied(_) => self.take_applied(),
            // Storage has told the supervisor, or ends itself and takes this actor with it.
            Event::Failed(_) | Event::Panicked { .. } | Event::Distrusted(_) => {}
        }
    }

    fn tick(&mut self) {
        self.take_applied();
        let before = self.node.status().role;
        self.node.tick(self.seed.clock.monotonic());
        if before != Role::Candidate && self.node.status().role == Role::Candidate {
            self.seed.counters.stood_for_election();
        }
    }

    /// Performs what the core asks for since the last time, and ends where that is a successor's work by now.
    fn flush_or_end(&mut self, context: &mut Context<Raft>) {
        self.flush();
        if self.seed.parts.is_superseded(self.ticket) {
            warn!("a raft actor that was taken for dead ends: another one has taken over");
            context.terminate();
        }
    }

    fn flush(&mut self) {
        self.proposals = 0;
        let ready = self.node.take_ready();
        if !ready.entries.is_empty() || ready.hard_state.is_some() {
            let mut waiting = Vec::with_capacity(ready.entries.len());
            for entry in &ready.entries {
                let awaited = self.waiting.front().is_some_and(|(index, _)| *index == entry.index);
                waiting.push(if awaited { self.waiting.pop_front().map(|(_, waiting)| waiting) } else { None });
            }
            // Where storage has just gone, or a successor is there, the doors' channels go with the append, and this
            // actor goes next.
            let _ = self.seed.parts.append(self.ticket, ready, waiting);
        }
        self.publish();
    }

    fn publish(&self) {
        let report = RaftReport { status: self.node.status(), serves: self.node.may_read() };
        if self.seed.parts.follow(self.ticket, !report.serves).is_err() {
            // What this actor knows of the log holds no more.
            return;
        }
        if *self.seed.published.raft() != report {
            self.seed.published.set_raft(report);
        }
    }
}

impl Actor for Raft {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.tick();
        context.run_interval(TICK, |raft, _| raft.tick());
        context.spawn(Pump);
    }
}

/// Runs after the mailbox has been emptied, whatever woke the actor: takes events, and sends on what has gathered.
struct Pump;

impl ActorFuture<Raft> for Pump {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        raft: &mut Raft,
        context: &mut Context<Raft>,
        waker: &mut task::Context<'_>,
    ) -> Poll<Self::Output> {
        while let Poll::Ready(Some(event)) = raft.events.poll_recv(waker) {
            raft.completed(event);
        }
        raft.flush_or_end(context);
        Poll::Pending
    }
}

impl Handler<Ask<Propose>> for Raft {
    type Result = ();

    fn handle(&mut self, ask: Ask<Propose>, context: &mut Self::Context) {
        self.take_events();
        let (Propose { command }, reply) = ask.open();
        match self.node.propose(&command, self.seed.clock.wall()) {
            Ok(index) => self.waiting.push_back((index, reply.into_sender())),
            Err(error) => reply.send(Err(error)),
        }
        self.proposals += 1;
        if self.proposals >= PROPOSALS_MAX {
            self.flush_or_end(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::lifeline::{ChildId, Generation};
    use crate::actors::route::{Deadline, Question};
    use crate::actors::tests::node::{Running, ints, on_a_system};
    use chronos::error::SqlState;
    use chronos::hlc::Timestamp;
    use chronos::ids::OriginUid;
    use chronos::machine::{Body, Command};

    /// Has another actor take over while this one is about to append, as when its thread was taken for dead.
    struct TakeOver;

    impl Question for TakeOver {
        type Answer = ();
    }

    impl Handler<Ask<TakeOver>> for Raft {
        type Result = ();

        fn handle(&mut self, ask: Ask<TakeOver>, _: &mut Self::Context) {
            let (TakeOver, reply) = ask.open();
            let body = Body::EvictRequests { before: Timestamp::default() };
            let command = Command { request: None, origin: OriginUid::default(), affected: 0, body }.encode();
            self.node.propose(&command, self.seed.clock.wall()).unwrap();
            let (news, _) = mpsc::unbounded_channel();
            let lifeline = Lifeline::new(ChildId(0), Generation(0), news);
            let mut successor = Raft::recover(self.seed.clone(), lifeline).unwrap();
            while !successor.node.may_read() {
                successor.take_events();
                successor.tick();
                successor.flush();
            }
            reply.send(Ok(()));
        }
    }

    #[test]
    fn an_actor_that_was_taken_for_dead_appends_nothing_and_ends() {
        let directory = tempfile::tempdir().unwrap();
        on_a_system(async {
            let node = Running::start(directory.path()).await;
            node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
            node.execute("INSERT INTO t VALUES (1)").await.unwrap();
            for id in 2..5 {
                let restarts = node.router.routes().counters.restarts_of("raft");
                node.router.routes().raft.ask(TakeOver, Deadline::after(Duration::from_secs(30))).await.unwrap();
                while node.router.routes().counters.restarts_of("raft") == restarts {
                    assert_eq!(node.router.routes().counters.restarts_of("storage"), 0, "the log refused its append");
                    tokio::task::yield_now().await;
                }
                // Until the next one leads; where its predecessor left the outcome in doubt, the row may be there.
                let insert = format!("INSERT INTO t VALUES ({id})");
                while node.execute(&insert).await.is_err_and(|error| error.sqlstate() != SqlState::UNIQUE_VIOLATION) {}
            }
            assert_eq!(ints(&node.execute("SELECT id FROM t ORDER BY id").await.unwrap()), [1, 2, 3, 4]);
            assert_eq!(node.router.routes().counters.restarts_of("storage"), 0);
            node.stop().await;
        });
    }
}
