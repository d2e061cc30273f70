//! Doing what nodes want done: messages leave, disks work, snapshots travel.

use super::agenda::Event;
use super::disk::{State, Write};
use super::world::World;
use chronos::ids::{LogIndex, Term};
use chronos::raft::{Envelope, Load, Member, MemberRole, Message, NodeId, Outcast, Position, Ready, Role};

impl World {
    pub(super) fn send(&mut self, from: usize, envelope: Envelope) {
        if envelope.message == (Message::VoteReply { granted: true }) {
            self.check_vote(from, &envelope);
        }
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
            let this = &mut self.hosts[host];
            let overtakes = write.entries.first().is_some_and(|first| this.disk.is_replaced_in_queue(first.index));
            // A leader learns where the logs agree by an answer, and that waits for all that the disk was asked for before.
            assert!(!overtakes, "entries of {} are replaced before they are durable", this.id);
            this.disk.queue.push_back(write);
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
            self.commit(host, committed);
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
        let (term, disk) = (this.disk.hard_state.term, self.hosts[to].disk_id);
        let group = this.node.as_ref().map(chronos::raft::Node::membership);
        let is_witness = group.and_then(|group| group.get(&peer)).is_some_and(|member| member.role.is_witness());
        // What it is, and for whom, is settled when it leaves: the sender may be another one when it arrives.
        let mut state = self.sealed_for(host, to).filter(|state| self.may_ship(host, to, state));
        if is_witness {
            state.iter_mut().for_each(State::strip);
        }
        let arrivals = self.network.arrivals(host, to, self.now + 20_000, &mut self.chance);
        if let (Some(state), Some(&at)) = (state, arrivals.first()) {
            let is_meant = !self.hosts[to].is_stranger(&state.membership);
            self.schedule(at, Event::Snapshot { from: host, to, disk, life, term, state: Box::new(state), is_meant });
        } else {
            self.count("snapshots that failed");
            self.schedule(self.now + 300_000, Event::SnapshotEnded { host, life, peer, installed: None });
        }
    }

    /// What is sealed, where that knows the receiver as the member that it is and the sender by its disk; else what is
    /// sealed for it. A witness must be known by its disk.
    fn sealed_for(&self, host: usize, to: usize) -> Option<State> {
        let (this, peer) = (&self.hosts[host], &self.hosts[to].id);
        let wanted = this.node.as_ref()?.membership().get(peer)?;
        let is_bare = wanted.role.is_witness();
        let is_receiver = |member: &Member| {
            let may_lack_disk = member.disk.is_none() && wanted.role == MemberRole::Voter;
            member.role.is_witness() == is_bare && (member.disk == wanted.disk || may_lack_disk)
        };
        let is_sender = |member: &Member| member.disk.is_none_or(|disk| disk == this.disk_id);
        let knows = |state: &&State| {
            let group = &state.membership;
            let is_before_it = wanted.role == MemberRole::Voter && group.members.len() > 1;
            group.get(peer).map_or(is_before_it, is_receiver) && group.get(&this.id).is_none_or(is_sender)
        };
        [&this.disk.snapshot, &this.state].into_iter().find(knows).cloned()
    }

    /// A witness has no state to send. And it takes no snapshot in place of entries that some full voter lacks: should the
    /// others be gone, it is the one that has them.
    fn may_ship(&self, host: usize, to: usize, state: &State) -> bool {
        let Some(node) = &self.hosts[host].node else { return false };
        let role = node.membership().get(&self.hosts[to].id).map(|member| member.role);
        let is_witness = role.is_some_and(MemberRole::is_witness);
        !state.is_bare && (!is_witness || node.once_held() >= state.applied.index)
    }

    /// A snapshot arrives: installed where it is ahead of what is there.
    pub(super) fn install(&mut self, (from, life): (usize, u64), to: usize, term: Term, state: State, is_meant: bool) {
        let peer = self.hosts[to].id.clone();
        let this = &mut self.hosts[to];
        let is_news =
            this.is_up() && is_meant && term >= this.disk.hard_state.term && state.applied.index > this.committed.index;
        let position: LogIndex = state.applied.index;
        if is_news {
            this.crash();
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
            let count = this.disk.gather() as u64;
            let slow = if self.chance.one_in(8) { this.slow_disk } else { this.slow_disk.min(5000) };
            // One that is to go down in it is slow, so that requests gather.
            let least = if this.doomed.is_some() { 30_000 } else { 100 };
            let takes = least + self.chance.below(slow.max(2 * least));
            let met = if slow > 200 && takes > 300 { this.slowed_by.take() } else { None };
            let at = (self.now + takes).max(this.stalled_until);
            self.schedule(at, Event::Persisted { host, life });
            self.count_all("requests that share an fdatasync", count - 1);
            if let Some(fault) = met {
                self.meet(fault);
                // One of many that are slow for the same reason is enough.
                let others = self.hosts.iter_mut().filter(|other| other.slowed_by == Some(fault));
                others.for_each(|other| other.slowed_by = None);
            }
        }
    }

    pub(super) fn deliver(&mut self, host: usize, envelope: Envelope) {
        let now = self.hosts[host].now(self.now);
        if let Some(node) = &mut self.hosts[host].node {
            node.step(envelope, now);
            self.pump(host);
        }
    }

    /// A node holds everything up to there for committed: no other entry ever is.
    fn commit(&mut self, host: usize, position: Position) {
        let this = &mut self.hosts[host];
        let Some(term) = this.node.as_ref().map(chronos::raft::Node::term) else { return };
        for index in (this.committed.index.0 + 1..=position.index.0).map(LogIndex) {
            let of = this.disk.newest_term(index);
            assert!(of.is_some(), "{} holds entry {index} for committed, and does not have it", this.id);
            of.into_iter().for_each(|of| self.checks.commits(index, of, term));
        }
        this.commit(position);
    }

    /// A vote leaves, or counts where it was given.
    fn check_vote(&mut self, from: usize, envelope: &Envelope) {
        let this = &self.hosts[from];
        let durable = (this.disk.hard_state.term, this.disk.hard_state.vote);
        self.checks.promises(this.disk_id, envelope.term, &envelope.to, durable);
    }

    /// An fdatasync is done; or the machine goes down in the middle of it.
    pub(super) fn persisted(&mut self, host: usize) -> bool {
        self.hosts[host].disk_is_busy = false;
        let under_way = self.hosts[host].disk.under_way;
        if let Some((fault, how)) = self.hosts[host].doomed.take_if(|(_, how)| how.needs() <= under_way) {
            self.meet(fault);
            self.go_down(host, how);
            return true;
        }
        let mut writes = Vec::new();
        for _ in 0..std::mem::take(&mut self.hosts[host].disk.under_way) {
            let was_quarantined = self.hosts[host].is_quarantined();
            writes.extend(self.hosts[host].disk.complete());
            self.note_durable(host, was_quarantined, writes.last());
        }
        let position = |write: &Write| {
            let last = write.entries.last()?;
            Some(Position { index: last.index, term: last.term })
        };
        // What is told of many requests at once is where the last one ends.
        let last = writes.iter().filter_map(position).next_back();
        if let (Some(node), Some(last)) = (&mut self.hosts[host].node, last) {
            node.persisted(last);
        }
        if let Some(last) = writes.iter().filter(|write| write.commit_on_persist).filter_map(position).next_back() {
            self.commit(host, last);
        }
        for envelope in writes.into_iter().flat_map(|write| write.after_persist) {
            if envelope.to == self.hosts[host].id {
                if envelope.message == (Message::VoteReply { granted: true }) {
                    self.check_vote(host, &envelope);
                }
                let now = self.hosts[host].now(self.now);
                if let Some(node) = &mut self.hosts[host].node {
                    node.step(envelope, now);
                }
            } else {
                self.send(host, envelope);
            }
        }
        self.apply(host);
        self.pump(host);
        true
    }

    /// A request has become durable.
    pub(super) fn note_durable(&mut self, host: usize, was_quarantined: bool, write: Option<&Write>) {
        let (Some(write), this) = (write, &self.hosts[host]) else { return };
        if let Some(hard_state) = &write.hard_state
            && let Some(vote) = hard_state.vote
        {
            self.checks.votes(this.disk_id, hard_state.term, vote);
        }
        for entry in &write.entries {
            let before = entry.index.previous();
            let previous = this.disk.entry(before).map_or(this.disk.snapshot.applied.term, |entry| entry.term);
            self.checks.holds(entry, previous);
        }
        if was_quarantined && !this.is_quarantined() {
            self.count(if self.hosts[host].was_damaged { "quarantines left" } else { "joiners caught up" });
            self.hosts[host].was_damaged = false;
        }
    }

    pub(super) fn loaded(&mut self, host: usize, load: &Load) -> bool {
        let now = self.hosts[host].now(self.now);
        let mut entries = Vec::new();
        let mut at = load.from;
        while let Some(entry) = self.hosts[host].disk.entry(at)
            && entries.len() < 4
        {
            entries.push(entry.clone());
            at = at.next();
        }
        if let Some(node) = &mut self.hosts[host].node {
            node.loaded(&load.peer, entries, now);
        }
        self.count("loads from disk");
        self.pump(host);
        true
    }
}
