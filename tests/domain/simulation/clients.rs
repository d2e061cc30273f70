//! What clients ask, of whom, and what they must find.

use super::agenda::Event;
use super::host::Read;
use super::world::World;
use chronos::ids::LogIndex;
use chronos::raft::{Position, Role};
use std::time::Duration;

impl World {
    /// A client asks something of somebody.
    pub(super) fn ask(&mut self) {
        let anybody = self.chance.below(self.hosts.len() as u64) as usize;
        let host = if self.chance.one_in(2) { self.leader().unwrap_or(anybody) } else { anybody };
        if self.hosts[host].stopped_until > self.now || !self.hosts[host].is_up() {
            return;
        }
        self.asks += 1;
        let (known, ask) = (self.checks.known(), self.asks);
        match self.chance.below(10) {
            0..=4 => self.write(host, ask, known),
            5..=7 => self.read(host, ask, known),
            8 => self.read_by_lease(host, known),
            _ => self.read_stale(host),
        }
    }

    /// Whoever is asked hands on what it cannot do itself.
    fn write(&mut self, host: usize, ask: u64, known: LogIndex) {
        let Some(node) = &self.hosts[host].node else { return };
        if node.role() == Role::Leader {
            self.propose(host, ask, known, "writes taken");
            return;
        }
        let Some(leader) = node.leader().and_then(|leader| self.index(leader)) else { return };
        let arrivals = self.network.arrivals(host, leader, self.now, &mut self.chance);
        // Its stream hands on each write once.
        if let Some(&at) = arrivals.first() {
            self.schedule(at, Event::Forwarded { host: leader, ask, known });
        }
    }

    pub(super) fn propose(&mut self, host: usize, ask: u64, known: LogIndex, what: &'static str) {
        let now = self.hosts[host].now(self.now);
        let this = &mut self.hosts[host];
        let is_witness = this.is_witness();
        let Some(node) = &mut this.node else { return };
        let mut command = ask.to_le_bytes().to_vec();
        command.resize(28 + (ask % 60) as usize, ask as u8);
        match node.propose(&command, now) {
            Ok(index) => {
                assert!(!is_witness, "a witness takes a write");
                let position = Position { index, term: node.term() };
                this.writes.insert(index, (position, known));
                self.count(what);
            }
            Err(_) if node.role() == Role::Leader && is_witness => self.count("writes that a witness refused"),
            Err(_) if node.role() == Role::Leader => self.count("writes that a leader refused"),
            Err(_) => {}
        }
        self.pump(host);
    }

    fn read(&mut self, host: usize, ask: u64, known: LogIndex) {
        let now = self.hosts[host].now(self.now);
        let this = &mut self.hosts[host];
        let Some(node) = &mut this.node else { return };
        let by_leader = node.role() == Role::Leader;
        this.reads.insert(ask, Read { known, index: None, by_leader });
        node.read(ask, now);
        self.pump(host);
    }

    fn read_by_lease(&mut self, host: usize, known: LogIndex) {
        let now = self.hosts[host].now(self.now);
        let this = &self.hosts[host];
        let Some(node) = &this.node else { return };
        let applied = this.state.applied.index;
        // Everything the leader has committed and answered is applied; others may know of more only once it has lost its
        // lease.
        if node.holds_lease(now.monotonic) && applied >= node.committed() {
            assert!(!this.is_witness(), "a witness reads");
            self.checks.read(applied, known, "lease");
            self.count("lease reads");
        }
    }

    /// Reads what is there, where it is not older than the client will have it.
    fn read_stale(&mut self, host: usize) {
        let now = self.hosts[host].now(self.now);
        let age_max = Duration::from_millis(150 + self.chance.below(4000));
        let this = &self.hosts[host];
        let Some(node) = &this.node else { return };
        let Some(age) = node.staleness(now.monotonic).filter(|age| *age <= age_max && !this.is_witness()) else {
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
        if this.is_witness() {
            // It was none when it was asked, and has nothing to read now.
            this.reads.clear();
            return;
        }
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
            self.count(if read.by_leader { "reads at the leader" } else { "reads at followers" });
            if self.now < self.transfer_until {
                self.count("reads during transfers");
            }
        }
    }

    pub(super) fn apply(&mut self, host: usize) {
        let answered = self.hosts[host].apply(&mut self.checks);
        for (position, known) in answered {
            self.checks.written(position, known, self.now);
            self.acknowledged += 1;
            self.count("writes acknowledged");
        }
    }
}
