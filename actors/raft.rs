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
//! Restart: the node is recovered from what storage knows to be in the log.

use crate::actors::lifeline::Lifeline;
use crate::actors::messages::Propose;
use crate::actors::metrics::Metrics;
use crate::actors::published::{Published, RaftReport};
use crate::actors::route::Ask;
use crate::actors::storage::Parts;
use actix::{Actor, ActorFuture, AsyncContext, Context, Handler};
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
    /// Doors that wait for entries of the `Ready` to come, by position.
    waiting: VecDeque<(LogIndex, Waiting)>,
    proposals: usize,
    seed: Arc<Seed>,
    _lifeline: Lifeline,
}

impl Raft {
    /// Builds the actor on what storage has recovered. Boot and restart both come here.
    pub fn recover(seed: Arc<Seed>, lifeline: Lifeline) -> Result<Raft> {
        let (recovered, events) = seed.parts.open_log()?;
        let node = Node::recover(seed.config.clone(), recovered)?;
        Ok(Raft { node, events, waiting: VecDeque::new(), proposals: 0, seed, _lifeline: lifeline })
    }

    /// Takes what the disk has done.
    fn take_events(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.completed(event);
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
            // With one voter the log thread hands on what is durable without asking: applied says both.
            Event::Applied(index) => {
                self.node.persisted(index);
                self.node.applied(index);
            }
            // Storage has told the supervisor; the process is about to end.
            Event::Failed(_) => {}
        }
    }

    fn tick(&mut self) {
        let before = self.node.status().role;
        self.node.tick(self.seed.clock.monotonic());
        if before != Role::Candidate && self.node.status().role == Role::Candidate {
            self.seed.counters.stood_for_election();
        }
    }

    /// Performs what the core asks for since the last time.
    fn flush(&mut self) {
        self.proposals = 0;
        let ready = self.node.take_ready();
        if !ready.entries.is_empty() || ready.hard_state.is_some() {
            let mut waiting = Vec::with_capacity(ready.entries.len());
            for entry in &ready.entries {
                let awaited = self.waiting.front().is_some_and(|(index, _)| *index == entry.index);
                waiting.push(if awaited { self.waiting.pop_front().map(|(_, waiting)| waiting) } else { None });
            }
            // Where storage has just gone, the doors' channels go with the append, and this actor goes next.
            let _ = self.seed.parts.append(ready, waiting);
        }
        self.publish();
    }

    fn publish(&self) {
        let report = RaftReport { status: self.node.status(), serves: self.node.may_read() };
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
        _: &mut Context<Raft>,
        waker: &mut task::Context<'_>,
    ) -> Poll<Self::Output> {
        while let Poll::Ready(Some(event)) = raft.events.poll_recv(waker) {
            raft.completed(event);
        }
        raft.flush();
        Poll::Pending
    }
}

impl Handler<Ask<Propose>> for Raft {
    type Result = ();

    fn handle(&mut self, ask: Ask<Propose>, _: &mut Self::Context) {
        self.take_events();
        let (Propose { command }, reply) = ask.open();
        match self.node.propose(&command, self.seed.clock.wall()) {
            Ok(index) => self.waiting.push_back((index, reply.into_sender())),
            Err(error) => reply.send(Err(error)),
        }
        self.proposals += 1;
        if self.proposals >= PROPOSALS_MAX {
            self.flush();
        }
    }
}
