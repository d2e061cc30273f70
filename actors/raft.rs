//! The raft actor: feeds the consensus core, and performs what it asks for.
//!
//! ```text
//!   executor ── Propose, ReadIndex ──> mailbox ──┐                     ┌──> log thread: entries, hard state, waiting doors
//!   log, state threads ── events ────────────────┼──> Node ── Ready ───┼──> state: what is committed
//!   peers ── messages ───────────────────────────┤                     ├──> peers: messages
//!   timer ── tick ───────────────────────────────┘                     └──> published: role, term, positions
//! ```
//!
//! What arrives while a `Ready` is being performed gathers in the mailbox and leaves as one append: proposals batch
//! themselves under load, and one alone waits for nobody.
//!
//! * Events of the disk have a channel of their own, bounded by the appends that are out, and peers have one. Both are taken
//!   before proposals, and the time is told in between: a flood of clients keeps no acknowledgement from being counted, no
//!   heartbeat from being answered, and no leader from stepping down.
//! * The waiting door's channel travels with the entry to the state thread: an outcome does not come back through here.
//! * A proposal that was never opened had no effect (route.rs); one that was is in doubt until its outcome comes.
//!
//! * Only the actor that began last may append (storage.rs). One whose thread was taken for dead and goes on finds that
//!   out at its next append, which is refused, and ends.
//!
//! Restart: the node is recovered from what storage knows to be in the log.

mod duty;
mod tell;

use crate::actors::lifeline::Lifeline;
use crate::actors::messages::{ChangeGroup, Propose, ReadIndex, Staleness, TransferLead};
use crate::actors::metrics::Metrics;
use crate::actors::peers::transfer::{Ended, Order, Transfers};
use crate::actors::peers::{Identity, Peers};
use crate::actors::published::{Published, RaftReport};
use crate::actors::route::{Ask, LOOK_AT_MEMBERS, Reply};
use crate::actors::storage::{Parts, Ticket};
use actix::{Actor, ActorContext, ActorFuture, AsyncContext, Context, Handler};
use chronos::clock::{Clock, Monotonic, random_u64};
use chronos::error::{Error, Result, SqlState};
use chronos::ids::{LogIndex, Term};
use chronos::machine::check_version;
use chronos::raft::{Config, Entry, Envelope, Load, Membership, Node, NodeId, Now, Position, ReadAnswer, Role};
use chronos::storage::engine::{Event, Keep, Waiting};
use duty::Duty;
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{self, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::warn;

/// How often the core is told the time at least: others look at what it then publishes.
const TICK_MAX: Duration = Duration::from_millis(50);

/// Ticks between two looks at what the log must be kept for.
const KEEP_TICKS: u32 = 20;

/// What clients ask for that is taken from the mailbox before what comes of it is sent on. Under a flood the mailbox never
/// empties, and without this nothing would be appended.
const ASKED_MAX: usize = 256;

/// Messages of peers taken before what they make is sent on.
const MESSAGES_MAX: usize = 256;

/// What the actor is made from.
pub struct Seed {
    /// This node and its limits.
    pub config: Config,
    /// What storage left.
    pub parts: Arc<Parts>,
    /// The other nodes.
    pub peers: Arc<Peers>,
    /// Where to say how it stands.
    pub published: Arc<Published>,
    /// Counts elections.
    pub counters: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The members that the operator has named, where that is more than this node.
    pub configured: Option<Membership>,
    /// What the operator calls the group; empty where it has no name.
    pub cluster_name: String,
    /// That they are not the group's was said already.
    pub has_compared: AtomicBool,
    /// Bytes of log at which this node, as a witness, takes no more.
    pub witness_log_bytes_max: u64,
}

/// The doors that wait for these entries, in their order, and those whose entries are not among them any more.
fn pair<W>(waiting: &mut VecDeque<(Position, W)>, entries: &[Entry]) -> (Vec<Option<W>>, Vec<W>) {
    let mut taken_back = Vec::new();
    let mut paired = Vec::with_capacity(entries.len());
    for entry in entries {
        let this = Position { index: entry.index, term: entry.term };
        while let Some((_, stale)) = waiting.pop_front_if(|(at, _)| at.index <= this.index && *at != this) {
            taken_back.push(stale);
        }
        paired.push(waiting.pop_front_if(|(at, _)| *at == this).map(|(_, waiting)| waiting));
    }
    taken_back.extend(waiting.drain(..).map(|(_, stale)| stale));
    (paired, taken_back)
}

/// Orders writes.
pub struct Raft {
    node: Node,
    events: mpsc::UnboundedReceiver<Event>,
    inbound: mpsc::Receiver<Envelope>,
    /// Entries read from the disk for peers; at most one request a peer is out.
    loads: mpsc::UnboundedReceiver<Loaded>,
    loaded: mpsc::UnboundedSender<Loaded>,
    /// The right to append.
    ticket: Ticket,
    /// Doors that wait for entries of the `Ready` to come, by position.
    waiting: VecDeque<(Position, Waiting)>,
    /// What was proposed here and is not committed yet: since when.
    proposed: VecDeque<(LogIndex, Monotonic)>,
    /// Reads that wait for the leader's word.
    reads: BTreeMap<u64, Reply<LogIndex>>,
    next_read: u64,
    /// Snapshots on their way to peers.
    transfers: Transfers,
    endings: mpsc::UnboundedReceiver<Ended>,
    /// What of the log is kept for peers, and ticks until that is looked at again.
    kept: Keep,
    until_kept: u32,
    /// Changes of the group that wait to be committed: position and term.
    changes: Vec<(LogIndex, Term, Reply<()>)>,
    /// What clients have asked for since the last `Ready`.
    asked: usize,
    /// When the core was last told the time.
    ticked: Monotonic,
    /// Since when the group waits for members before it can begin.
    begins: Option<Monotonic>,
    duty: Duty,
    seed: Arc<Seed>,
    lifeline: Lifeline,
}

/// Entries for a peer.
struct Loaded {
    peer: NodeId,
    entries: Vec<Entry>,
}

impl Raft {
    /// Builds the actor on what storage has recovered. Boot and restart both come here.
    pub fn recover(seed: Arc<Seed>, lifeline: Lifeline) -> Result<Raft> {
        let (log, events, ticket) = seed.parts.open_log()?;
        // Chance begins anew in every life: reads are numbered from there.
        let config = Config { disk: log.disk, seed: random_u64()?, ..seed.config.clone() };
        let (id, address) = (config.id.clone(), config.address.clone());
        let cluster_name = seed.cluster_name.clone();
        let life = Some(seed.peers.life()?);
        seed.peers.set_identity(Identity { cluster: log.cluster, id, disk: log.disk, address, cluster_name, life });
        let node = Node::recover(config, log.recovered)?;
        seed.compare(node.membership());
        let inbound = seed.peers.open_inbound();
        let (loaded, loads) = mpsc::unbounded_channel();
        let (transfers, endings) = Transfers::new();
        Ok(Raft {
            node,
            events,
            inbound,
            loads,
            loaded,
            ticket,
            waiting: VecDeque::new(),
            proposed: VecDeque::new(),
            reads: BTreeMap::new(),
            next_read: 0,
            transfers,
            endings,
            kept: Keep::default(),
            until_kept: 0,
            changes: Vec::new(),
            asked: 0,
            ticked: Monotonic::default(),
            begins: None,
            duty: Duty::default(),
            seed,
            lifeline,
        })
    }

    /// Takes what comes before anything that clients ask for: what the disk has done, and what peers say.
    fn keep_up(&mut self) {
        self.take_events();
        for _ in 0..MESSAGES_MAX {
            let Ok(envelope) = self.inbound.try_recv() else { return };
            let now = self.now();
            self.node.step(envelope, now);
        }
    }

    /// Takes note of something that a client has asked for. After many the mailbox may not have been empty for long, and
    /// what else there is to do waits for that.
    fn asked(&mut self, context: &mut Context<Raft>) {
        self.asked += 1;
        if self.asked >= ASKED_MAX {
            self.keep_up();
            if self.seed.clock.monotonic() >= self.ticked + self.tick_every() {
                self.tick();
            }
            self.flush_or_end(context);
        }
    }

    /// Twice a heartbeat, so that none is late by more than half of itself.
    fn tick_every(&self) -> Duration {
        (self.seed.config.heartbeat / 2).min(TICK_MAX)
    }

    /// Takes what the disk has done.
    fn take_events(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.completed(event);
        }
        self.take_applied();
    }

    fn take_applied(&mut self) {
        let applied = self.seed.parts.applied();
        if applied > self.node.applied_index() {
            self.node.applied(applied);
        }
    }

    fn completed(&mut self, event: Event) {
        match event {
            Event::Persisted { last, messages } => {
                if let Some(last) = last {
                    self.node.persisted(last);
                }
                let now = self.now();
                for envelope in messages {
                    if envelope.to == self.seed.config.id {
                        self.node.step(envelope, now);
                    } else {
                        self.send(envelope);
                    }
                }
            }
            Event::Applied(_) => self.take_applied(),
            Event::Trimmed(previous) => self.node.trimmed(previous),
            Event::Stalled => {
                if self.node.role() == Role::Leader {
                    warn!("this node's disk stands still: another one is to lead");
                }
                let now = self.now();
                self.node.step_aside(now);
            }
            // Told again as long as this node leads: where nobody can take over, it goes on.
            Event::Damaged(_) => {
                let now = self.now();
                let _ = self.node.transfer(None, now);
            }
            // Storage has told the supervisor, or ends itself and takes this actor with it.
            Event::Failed(_) | Event::Panicked { .. } | Event::Distrusted(_) => {}
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.seed.clock.monotonic(), wall: self.seed.clock.wall() }
    }

    fn tick(&mut self) {
        self.take_applied();
        self.alight();
        let before = self.node.role();
        let now = self.now();
        self.ticked = now.monotonic;
        self.watch_room();
        self.node.tick(now);
        if before != Role::Candidate && self.node.role() == Role::Candidate {
            self.seed.counters.stood_for_election();
        }
        if self.node.role() == Role::Leader {
            let node = &mut self.node;
            self.seed.peers.for_each_met(|id, disk, address| node.reached_at(id, disk, address));
        } else {
            self.transfers.cancel();
        }
        // A change whose entry was taken back is not committed, and neither is anything in its place for a while.
        self.answer_changes();
        self.seed.published.set_lease(self.node.lease_until());
        self.tell_awaited();
        self.watch_log();
        self.until_kept = self.until_kept.saturating_sub(1);
        if self.until_kept == 0 {
            self.keep_log();
        }
        self.publish();
    }

    /// Has the log kept for those who may need it. What is kept for longer than that costs space only.
    fn keep_log(&mut self) {
        self.until_kept = KEEP_TICKS;
        let wanted = self.transfers.keep(&self.node.status().peers);
        if wanted != self.kept && self.seed.parts.keep_log(self.ticket, wanted.clone()).is_ok() {
            self.kept = wanted;
        }
        self.release_log();
    }

    /// Begins to send a snapshot.
    fn bring_snapshot(&mut self, peer: NodeId) {
        let Some(member) = self.node.membership().get(&peer).cloned() else { return };
        self.transfers.begin(Order {
            peer,
            member,
            committed: self.node.committed(),
            term: self.node.term(),
            parts: self.seed.parts.clone(),
            peers: self.seed.peers.clone(),
            published: self.seed.published.clone(),
        });
    }

    fn transferred(&mut self, ended: Ended) {
        let last = self.node.status().last;
        if let Some((peer, delivery)) = self.transfers.end(ended, last) {
            let now = self.now();
            self.node.snapshot_ended(&peer, delivery, now);
        }
    }

    /// Performs what the core asks for since the last time, and ends where that is a successor's work by now.
    fn flush_or_end(&mut self, context: &mut Context<Raft>) {
        self.flush();
        if let Some(error) = self.node.stopped() {
            self.lifeline.fatal(error.clone());
            context.terminate();
        }
        if self.seed.parts.is_superseded(self.ticket) {
            warn!("a raft actor that was taken for dead ends: another one has taken over");
            context.terminate();
        }
    }

    fn flush(&mut self) {
        self.asked = 0;
        self.take_applied();
        let mut ready = self.node.take_ready();
        // Before anything leaves by which another one may lead.
        self.seed.published.set_lease(self.node.lease_until());
        let messages = std::mem::take(&mut ready.messages);
        let answers = std::mem::take(&mut ready.reads);
        let loads = std::mem::take(&mut ready.loads);
        let snapshots = std::mem::take(&mut ready.snapshots);
        let committed = ready.committed.take();
        let committed = self.ride(committed, &mut ready);
        let (waiting, taken_back) = pair(&mut self.waiting, &ready.entries);
        for waiting in taken_back {
            // It has left for nowhere: another leader's entry came before this one's were handed to the log.
            let _ = waiting.send(Err(Error::unavailable(format!("no leader (term {})", self.node.term()))));
        }
        if ready.writes() {
            // Where storage has just gone, or a successor is there, the doors' channels go with the append, and this
            // actor goes next.
            let _ = self.seed.parts.append(self.ticket, ready, waiting);
        }
        self.commit(committed);
        self.time_commits();
        for envelope in messages {
            self.send(envelope);
        }
        for answer in answers {
            self.answer_read(&answer);
        }
        for load in loads {
            self.load(&load);
        }
        if !snapshots.is_empty() {
            snapshots.into_iter().for_each(|peer| self.bring_snapshot(peer));
            // Before the log can be trimmed beyond what they begin with.
            self.keep_log();
        }
        if !self.published_stands() {
            self.publish();
        }
    }

    fn send(&mut self, envelope: Envelope) {
        let (to, has_entries) = (envelope.to.clone(), envelope.entry_bytes() > 0);
        if !self.seed.peers.send(envelope) && has_entries {
            self.node.unreachable(&to);
        }
    }

    fn load(&mut self, load: &Load) {
        let (loaded, peer) = (self.loaded.clone(), load.peer.clone());
        let asked = self.seed.parts.read_log(self.ticket, load.from, load.bytes_max, move |entries| {
            // A raft actor that is gone has no use for them.
            let _ = loaded.send(Loaded { peer, entries });
        });
        if asked.is_err() {
            let now = self.now();
            self.node.loaded(&load.peer, Vec::new(), now);
        }
    }

    fn answer_read(&mut self, answer: &ReadAnswer) {
        if let Some(reply) = self.reads.remove(&answer.id) {
            let term = self.node.term();
            reply.send(answer.index.ok_or_else(|| Error::unavailable(format!("no leader (term {term})"))));
        }
    }

    /// Tells those who changed the group what became of it.
    fn answer_changes(&mut self) {
        let (committed, term) = (self.node.committed(), self.node.term());
        for (index, of, reply) in std::mem::take(&mut self.changes) {
            if of != term {
                reply.send(Err(Error::in_doubt(format!("another leader has taken over: {LOOK_AT_MEMBERS}"))));
            } else if index <= committed {
                reply.send(Ok(()));
            } else {
                self.changes.push((index, of, reply));
            }
        }
    }

    /// True where what others act upon is still as it was published.
    fn published_stands(&self) -> bool {
        let report = self.seed.published.raft();
        let status = &report.status;
        report.serves == self.node.serves()
            && status.role == self.node.role()
            && status.term == self.node.term()
            && status.leader.as_ref() == self.node.leader()
            && status.membership == *self.node.membership()
    }

    fn publish(&self) {
        let report = RaftReport { status: self.node.status(), serves: self.node.serves() };
        // A leader serves once it has applied an entry of its own. Else this actor looks when it is awake anyway.
        let is_about_to_serve = report.status.role == Role::Leader && !report.serves;
        if self.seed.parts.follow(self.ticket, is_about_to_serve).is_err() {
            // What this actor knows of the log holds no more.
            return;
        }
        self.tell(&report);
        if *self.seed.published.raft() != report {
            self.seed.published.set_raft(report);
        }
    }
}

impl Actor for Raft {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.tick();
        context.run_interval(self.tick_every(), |raft, _| raft.tick());
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
        while let Poll::Ready(Some(loaded)) = raft.loads.poll_recv(waker) {
            let now = raft.now();
            raft.node.loaded(&loaded.peer, loaded.entries, now);
        }
        while let Poll::Ready(Some(ended)) = raft.endings.poll_recv(waker) {
            raft.transferred(ended);
        }
        let mut messages = 0;
        while let Poll::Ready(Some(envelope)) = raft.inbound.poll_recv(waker) {
            let now = raft.now();
            raft.node.step(envelope, now);
            messages += 1;
            if messages % MESSAGES_MAX == 0 {
                raft.flush();
            }
        }
        raft.flush_or_end(context);
        Poll::Pending
    }
}

impl Handler<Ask<Propose>> for Raft {
    type Result = ();

    fn handle(&mut self, ask: Ask<Propose>, context: &mut Self::Context) {
        self.keep_up();
        let (Propose { command }, reply) = ask.open();
        let now = self.now();
        // By the newest word of the log, committed or not: it stands before the command, so who has the one has the other.
        let understood = check_version(&command, self.node.membership().command_version);
        match understood.and_then(|()| self.node.propose(&command, now)) {
            Ok(index) => {
                let position = Position { index, term: self.node.term() };
                self.waiting.push_back((position, reply.into_sender()));
                self.proposed.push_back((index, now.monotonic));
            }
            Err(error) => reply.send(Err(error)),
        }
        self.asked(context);
    }
}

impl Handler<Ask<ReadIndex>> for Raft {
    type Result = ();

    /// What peers say in between is left for later: each answer to a heartbeat would begin another round, for fewer reads.
    /// Taken before every read, 64 clients at the leader came to 17,900 reads a second, and to 22,400 without.
    fn handle(&mut self, ask: Ask<ReadIndex>, context: &mut Self::Context) {
        let (ReadIndex { lease }, reply) = ask.open();
        let now = self.now();
        if lease && self.node.holds_lease(now.monotonic) {
            reply.send(Ok(self.node.committed()));
        } else {
            self.next_read += 1;
            self.reads.insert(self.next_read, reply);
            self.node.read(self.next_read, now);
        }
        self.asked(context);
    }
}

impl Handler<Ask<Staleness>> for Raft {
    type Result = ();

    fn handle(&mut self, ask: Ask<Staleness>, _: &mut Self::Context) {
        let (Staleness, reply) = ask.open();
        let now = self.now();
        reply.send(Ok(self.node.staleness(now.monotonic)));
    }
}

impl Handler<Ask<ChangeGroup>> for Raft {
    type Result = ();

    fn handle(&mut self, ask: Ask<ChangeGroup>, _: &mut Self::Context) {
        let (ChangeGroup(change), reply) = ask.open();
        let now = self.now();
        match self.node.change(&change, now) {
            Ok(index) => self.changes.push((index, self.node.term(), reply)),
            Err(error) => reply.send(Err(error)),
        }
    }
}

impl Handler<Ask<TransferLead>> for Raft {
    type Result = ();

    fn handle(&mut self, ask: Ask<TransferLead>, _: &mut Self::Context) {
        let (TransferLead { to }, reply) = ask.open();
        let now = self.now();
        let heir =
            to.as_ref().filter(|to| self.node.membership().get(to).is_some_and(|member| member.role.is_witness()));
        reply.send(if let Some(witness) = heir {
            let text =
                format!("{witness} is a witness: it has no rows to answer with, and leads only where nobody else can");
            Err(Error::invalid(SqlState::CONFIG_ERROR, text))
        } else {
            self.node.transfer(to.as_ref(), now)
        });
    }
}

#[cfg(test)]
mod tests;
