//! Doing what nodes want done: messages leave, disks work, snapshots travel.

use super::agenda::Event;
use super::disk::{State, Write};
use super::world::World;
use chronos::ids::{LogIndex, Term};
use chronos::raft::{Envelope, MemberRole, Message, NodeId, Outcast, Ready, Role};

impl World {
    pub(super) fn send(&mut self, from: usize, envelope: Envelope) {
        let Some(to) = self.index(&envelope.to) else { return };
        let disk = self.hosts[to].disk_id;
        let mut arrivals = self.network.arrivals(from, to, self.now, &mut self.chance);
        if let Some(last) = arrivals.pop() {
            for at in arrivals {
                self.schedule(at, Event::Deliver { to, disk, envelope: Box::new(envelope.clone()) });
            }
            self.schedule(last, Event::Deliver { to, disk, envelope: Box::new(envelope) });
        }
    }

    /// Does what a node wants done.
    pub(super) fn pump(&mut self, host: usize) {
        loop {
            let Some(node) = &mut self.hosts[host].node else { return };
            let mut ready = node.take_ready();
            assert!(node.outcast() != Some(Outcast::Contradicted), "a leader has other entries than what is committed");
            if node.role() == Role::Leader {
                let term = node.term();
                self.note_leader(host, term);
            }
            if ready.is_empty() {
                break;
            }
            self.perform(host, &mut ready);
        }
        self.work_disk(host);
        if !self.hosts[host].reads.is_empty() {
            self.serve(host);
        }
    }

    fn perform(&mut self, host: usize, ready: &mut Ready) {
        if ready.writes() {
            let write = Write::of(ready);
            self.hosts[host].disk.queue.push_back(write);
        }
        for envelope in std::mem::take(&mut ready.messages) {
            if envelope.message == Message::TimeoutNow
                && self.hosts[host].node.as_ref().is_some_and(|node| node.status().clock_off.is_some())
            {
                self.count("leaders that handed over for their clock");
            }
            self.send(host, envelope);
        }
        if let Some(committed) = ready.committed {
            self.hosts[host].commit(committed);
            self.apply(host);
        }
        for answer in std::mem::take(&mut ready.reads) {
            if let Some(index) = answer.index {
                if let Some(read) = self.hosts[host].reads.get_mut(&answer.id) {
                    read.index = Some(index);
                }
            } else {
                self.hosts[host].reads.remove(&answer.id);
                self.count("reads refused");
            }
        }
        let life = self.hosts[host].life;
        for load in std::mem::take(&mut ready.loads) {
            let slow = self.hosts[host].slow_disk.min(20_000);
            let at = self.now + 500 + self.chance.below(2000 + slow);
            self.schedule(at, Event::Loaded { host, life, load: Box::new(load) });
        }
        for peer in std::mem::take(&mut ready.snapshots) {
            self.ship(host, life, peer);
        }
    }

    fn ship(&mut self, host: usize, life: u64, peer: NodeId) {
        let Some(to) = self.index(&peer) else { return };
        let this = &self.hosts[host];
        let state = this.disk.snapshot.clone();
        let term = this.disk.hard_state.term;
        let state = self.may_ship(host, to, &state).then_some(state);
        let disk = self.hosts[to].disk_id;
        let arrivals = self.network.arrivals(host, to, self.now + 20_000, &mut self.chance);
        if let (Some(state), Some(&at)) = (state, arrivals.first()) {
            self.schedule(at, Event::Snapshot { from: host, to, disk, life, term, state: Box::new(state) });
        } else {
            self.count("snapshots that failed");
            self.schedule(self.now + 300_000, Event::SnapshotEnded { host, life, peer, installed: None });
        }
    }

    /// A witness has no state to send. And it takes no snapshot in place of entries that some full voter lacks: should the
    /// others be gone, it is the one that has them.
    fn may_ship(&self, host: usize, to: usize, state: &State) -> bool {
        let Some(node) = &self.hosts[host].node else { return false };
        let membership = node.membership();
        let role = |host: usize| membership.get(&self.hosts[host].id).map(|member| member.role);
        let has_it = |host: usize| {
            let this = &self.hosts[host];
            this.has_new_disk || (this.disk.last().index >= state.applied.index && !this.is_quarantined())
        };
        let full = (0..self.hosts.len()).filter(|host| role(*host) == Some(MemberRole::Voter));
        let is_witness = role(to).is_some_and(MemberRole::is_witness);
        !state.is_bare && (!is_witness || full.into_iter().all(has_it))
    }

    /// A snapshot arrives: installed where it is ahead of what is there.
    pub(super) fn install(&mut self, from: usize, to: usize, life: u64, term: Term, mut state: State) {
        let peer = self.hosts[to].id.clone();
        let sender = self.hosts[from].node.as_ref();
        let role = sender.and_then(|node| node.membership().get(&peer)).map(|member| member.role);
        // It is meant for the disk that the sender knows, in the role that it knows.
        let is_stranger = sender.is_none_or(|node| self.hosts[to].is_stranger(node.membership()));
        let is_meant = role.is_some() && !is_stranger;
        let this = &mut self.hosts[to];
        let is_news =
            this.is_up() && is_meant && term >= this.disk.hard_state.term && state.applied.index > this.committed.index;
        let position: LogIndex = state.applied.index;
        if is_news {
            this.crash();
            if role.is_some_and(MemberRole::is_witness) {
                state.strip();
            }
            this.disk.install(state);
            this.disk.note_membership();
            self.count("snapshots installed");
            self.schedule(self.now, Event::Start { host: to });
        }
        let installed = self.hosts[to].is_up() || is_news;
        let ended = Event::SnapshotEnded { host: from, life, peer, installed: installed.then_some(position) };
        let after = self.now + 1000 + self.chance.below(20_000);
        self.schedule(after, ended);
    }

    fn work_disk(&mut self, host: usize) {
        let this = &mut self.hosts[host];
        if this.is_up() && !this.disk_is_busy && !this.disk.queue.is_empty() {
            this.disk_is_busy = true;
            let life = this.life;
            let slow = if self.chance.one_in(8) { this.slow_disk } else { this.slow_disk.min(5000) };
            let at = self.now + 100 + self.chance.below(slow.max(200));
            self.schedule(at, Event::Persisted { host, life });
        }
    }
}
