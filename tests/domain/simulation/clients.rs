//! What clients ask, of whom, and what they must find.
//!
//! Writers have one wish at a time, in a session: where no answer comes they ask again, of anybody, or give up and begin
//! another session. What they and the readers are told is written down in the history.

use super::agenda::Event;
use super::host::{Asked, Read};
use super::ledger::{BANK, Command, OBJECTS, Wish};
use super::world::World;
use chronos::ids::LogIndex;
use chronos::raft::{Position, Role};
use std::time::Duration;

/// Writers at once.
const WRITERS: usize = 12;

/// Microseconds after which a writer asks again.
const PATIENCE: u64 = 150_000;

/// One that writes.
#[derive(Debug)]
pub(super) struct Writer {
    session: u32,
    sequence: u32,
    wish: Option<Pending>,
}

/// A wish without an answer.
#[derive(Debug)]
struct Pending {
    command: Command,
    operation: usize,
    /// When it was asked for last.
    asked: u64,
    /// Ways that it may still take: while there is one, a refusal does not say that nothing happened.
    open: u32,
    /// Somebody may have it in a log.
    is_taken: bool,
}

/// What a write is counted as.
const TAKEN: &str = "writes taken";

impl Writer {
    pub(super) fn all() -> Vec<Writer> {
        (0..WRITERS).map(|n| Writer { session: n as u32, sequence: 0, wish: None }).collect()
    }
}

impl World {
    /// A client asks something of somebody; false where nobody hears it.
    pub(super) fn ask(&mut self) -> bool {
        let anybody = self.chance.below(self.hosts.len() as u64) as usize;
        let host = if self.chance.one_in(2) { self.leader().unwrap_or(anybody) } else { anybody };
        if self.hosts[host].stopped_until > self.now || !self.hosts[host].is_up() {
            return false;
        }
        self.asks += 1;
        let known = self.checks.known();
        match self.chance.below(10) {
            0..=4 => self.write(host, known),
            5..=7 => self.read(host, known),
            8 => self.read_by_lease(host, known),
            _ => self.read_stale(host),
        }
        true
    }

    /// One client after the other asks for all that there is.
    pub(super) fn ask_everything(&mut self, host: usize) {
        let known = self.checks.known();
        self.asks += 1;
        self.read_by_lease(host, known);
        self.write(host, known);
        self.read(host, known);
        self.read_stale(host);
    }

    /// Whoever is asked hands on what it cannot do itself.
    fn write(&mut self, host: usize, known: LogIndex) {
        let Some(node) = &self.hosts[host].node else { return };
        let leader = if node.role() == Role::Leader {
            host
        } else {
            let Some(leader) = node.leader().and_then(|leader| self.index(leader)) else { return };
            leader
        };
        let Some((client, command)) = self.wish() else { return };
        if leader == host {
            self.propose(host, client, command, known, TAKEN);
            return;
        }
        let arrivals = self.network.arrivals(host, leader, self.now, &mut self.chance);
        // Its stream hands on each write once.
        if let Some(&at) = arrivals.first() {
            self.schedule(at, Event::Forwarded { host: leader, client, command, known });
        } else if let Some(pending) = &mut self.writers[client].wish {
            // Nobody tells the client that it was lost.
            pending.is_taken = true;
        }
    }

    /// A writer that has something to ask: for the first time, or again.
    fn wish(&mut self) -> Option<(usize, Command)> {
        let begin = self.chance.below(WRITERS as u64) as usize;
        let now = self.now;
        let is_idle = |writer: &Writer| writer.wish.as_ref().is_none_or(|wish| now >= wish.asked + PATIENCE);
        let client = (0..WRITERS).map(|n| (begin + n) % WRITERS).find(|client| is_idle(&self.writers[*client]))?;
        if self.writers[client].wish.is_some() {
            if !self.chance.one_in(8) {
                let pending = self.writers[client].wish.as_mut()?;
                (pending.asked, pending.open) = (now, pending.open + 1);
                let command = pending.command;
                self.count("writes asked for again");
                return Some((client, command));
            }
            // The client has died, and another takes its place.
            self.sessions += 1;
            self.writers[client] = Writer { session: self.sessions, sequence: 0, wish: None };
            self.count("writes given up");
        }
        let object = self.chance.below(OBJECTS as u64) as usize;
        let value = self.asks;
        let wish = if object == BANK {
            let (from, to) = (self.chance.below(4), 1 + self.chance.below(3));
            Wish::Transfer { from: from as u8, to: ((from + to) % 4) as u8, amount: 1 + self.chance.below(60) }
        } else if self.chance.one_in(3) {
            // What a reader that is up to date would expect; often it is not so any more.
            let anybody = self.chance.below(self.hosts.len() as u64) as usize;
            Wish::Swap { expected: self.hosts[anybody].state.ledger.objects[object], value }
        } else {
            Wish::Put { value }
        };
        let writer = &mut self.writers[client];
        writer.sequence += 1;
        let command = Command { session: writer.session, sequence: writer.sequence, object: object as u8, wish };
        let operation = self.history.begin(&command);
        writer.wish = Some(Pending { command, operation, asked: now, open: 1, is_taken: false });
        Some((client, command))
    }

    pub(super) fn propose(
        &mut self,
        host: usize,
        client: usize,
        command: Command,
        known: LogIndex,
        what: &'static str,
    ) -> bool {
        let now = self.hosts[host].now(self.now);
        let this = &mut self.hosts[host];
        let is_witness = this.is_witness();
        let Some(node) = &mut this.node else {
            self.answered(client, &command, false);
            return false;
        };
        if this.is_full && node.role() == Role::Leader {
            // Before it is proposed, so that nothing has happened.
            self.note_full(host);
            self.count("writes refused for a full disk");
            self.answered(client, &command, false);
            return true;
        }
        let padding = u64::from(command.session + command.sequence * 7) % 60;
        if let Ok(index) = node.propose(&command.encode(padding as usize), now) {
            assert!(!is_witness, "a witness takes a write");
            let position = Position { index, term: node.term() };
            this.writes.insert(index, Asked { position, known, client, command });
            self.answered(client, &command, true);
            self.count(what);
        } else {
            match node.role() {
                Role::Leader if is_witness => self.count("writes that a witness refused"),
                Role::Leader => self.count("writes that a leader refused"),
                Role::Follower | Role::Candidate => {}
            }
            self.answered(client, &command, false);
        }
        self.pump(host);
        true
    }

    /// One way that a write has taken is at its end: it is in a log, or was refused.
    fn answered(&mut self, client: usize, command: &Command, is_taken: bool) {
        let writer = &mut self.writers[client];
        let Some(pending) = writer.wish.as_mut().filter(|wish| wish.command == *command) else { return };
        pending.open -= 1;
        pending.is_taken |= is_taken;
        if pending.open == 0 && !pending.is_taken {
            self.history.refuse(pending.operation);
            writer.wish = None;
            self.count("writes refused for good");
        }
    }

    fn read(&mut self, host: usize, known: LogIndex) {
        let now = self.hosts[host].now(self.now);
        let (ask, object) = (self.asks, self.chance.below(OBJECTS as u64) as usize);
        let begin = self.history.moment();
        let this = &mut self.hosts[host];
        let Some(node) = &mut this.node else { return };
        let by_leader = node.role() == Role::Leader;
        this.reads.insert(ask, Read { known, object, begin, index: None, by_leader });
        node.read(ask, now);
        self.pump(host);
    }

    fn read_by_lease(&mut self, host: usize, known: LogIndex) {
        let object = self.chance.below(OBJECTS as u64) as usize;
        let begin = self.history.moment();
        let this = &mut self.hosts[host];
        let leads = this.node.as_ref().is_some_and(|node| node.role() == Role::Leader);
        let met = if leads { this.rated_by.take() } else { None };
        let this = &self.hosts[host];
        let applied = this.state.applied.index;
        if this.may_read_by_lease(self.now) {
            assert!(!this.is_witness(), "a witness reads");
            self.checks.read(applied, known, "lease");
            self.history.saw(object, begin, this.state.ledger.objects[object], applied);
            self.count("lease reads");
        }
        met.into_iter().for_each(|fault| self.meet(fault));
    }

    /// Reads what is there, where it is not older than the client will have it.
    fn read_stale(&mut self, host: usize) {
        let now = self.hosts[host].now(self.now);
        let age_max = Duration::from_millis(150 + self.chance.below(4000));
        let this = &self.hosts[host];
        let Some(node) = &this.node else { return };
        let Some(age) = node.staleness(now.monotonic).filter(|age| *age <= age_max && this.has_rows()) else {
            return;
        };
        let (seen, is_leader) = (this.state.applied.index, node.role() == Role::Leader);
        self.checks.read_stale(seen, self.now, age);
        self.count(if is_leader { "stale reads at the leader" } else { "stale reads at others" });
    }

    /// Answers the reads whose view is there.
    pub(super) fn serve(&mut self, host: usize) {
        let this = &mut self.hosts[host];
        let applied = this.state.applied.index;
        if !this.has_rows() {
            // It had when it was asked, or did not know yet that it is a witness.
            this.reads.clear();
            return;
        }
        let objects = this.state.ledger.objects;
        let mut done: Vec<Read> = Vec::new();
        this.reads.retain(|_, read| {
            let is_done = read.index.is_some_and(|index| applied >= index);
            if is_done {
                done.push(*read);
            }
            !is_done
        });
        for read in done {
            self.checks.read(applied, read.known, "linearizable");
            self.history.saw(read.object, read.begin, objects[read.object], applied);
            self.say(|| {
                format!("n{host} says of {} what it is at {applied}: {:#x}", read.object, objects[read.object])
            });
            self.count(if read.by_leader { "reads at the leader" } else { "reads at followers" });
            if self.now < self.transfer_until {
                self.count("reads during transfers");
            }
        }
    }

    pub(super) fn apply(&mut self, host: usize) {
        let answered = self.hosts[host].apply(&mut self.checks);
        self.note_settled(host);
        for (asked, answer) in answered {
            self.checks.written(asked.position, asked.known, self.now);
            self.acknowledged += 1;
            self.ask_who_was_deposed(asked.position.term);
            self.count("writes acknowledged");
            let writer = &mut self.writers[asked.client];
            // Another way may have brought the answer before, or the client is gone.
            if let Some(answer) = answer
                && let Some(pending) = writer.wish.take_if(|wish| wish.command == asked.command)
            {
                self.history.end(pending.operation, answer);
                self.say(|| format!("n{host} answers {:?} with {answer:#x}", asked.command));
            }
        }
    }

    /// Every object is read once more, where all is applied that anybody knows of; then the history must make sense.
    pub(super) fn check_history(&mut self) {
        let known = self.checks.known();
        let leader = self.leader().filter(|leader| self.hosts[*leader].state.applied.index >= known);
        if let Some(leader) = leader.filter(|leader| !self.hosts[*leader].state.is_bare) {
            let applied = self.hosts[leader].state.applied.index;
            for (object, value) in self.hosts[leader].state.ledger.objects.into_iter().enumerate() {
                let begin = self.history.moment();
                self.history.saw(object, begin, value, applied);
            }
            self.count("histories with a last look");
        }
        let (known, open) = self.history.count();
        self.count_all("operations with an answer", known);
        self.count_all("writes whose outcome nobody knows", open);
        let sought = self.history.check(self.checks.places());
        self.count_all("orders that were sought", sought);
    }
}
