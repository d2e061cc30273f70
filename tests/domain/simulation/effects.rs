//! Doing what nodes want done: messages leave, disks work, snapshots travel.

use super::agenda::Event;
use super::disk::{State, Write};
use super::world::World;
use chronos::ids::{DiskId, LogIndex, Term};
use chronos::raft::{Envelope, Load, Member, MemberRole, Message, NodeId, Outcast, Position, Ready, Role, Verdict};

impl World {
    pub(super) fn send(&mut self, from: usize, envelope: Envelope) {
        let Some(to) = self.index(&envelope.to) else { return };
        let disk = self.hosts[to].disk_id;
        let arrivals = self.network.arrivals(from, to, self.now, &mut self.chance);
        if let Some((&first, others)) = arrivals.split_first() {
            for &at in others {
                self.schedule(at, Event::Deliver { to, disk, number: None, envelope: Box::new(envelope.clone()) });
            }
            let number = Some(self.network.number());
            self.schedule(first, Event::Deliver { to, disk, number, envelope: Box::new(envelope) });
        }
    }

    /// Does what a node wants done; false where that is nothing.
    pub(super) fn pump(&mut self, host: usize) -> bool {
        let mut is_busy = false;
        loop {
            let Some(node) = &mut self.hosts[host].node else { return is_busy };
            let mut ready = node.take_ready();
            assert!(node.outcast() != Some(Outcast::Contradicted), "a leader has other entries than what is committed");
            if node.role() == Role::Leader {
                let term = node.term();
                self.note_leader(host, term);
            }
            if ready.is_empty() {
                break;
            }
            is_busy = true;
            self.perform(host, &mut ready);
        }
        self.work_disk(host);
        if !self.hosts[host].reads.is_empty() {
            self.serve(host);
        }
        self.check_lease(host);
        is_busy
    }

    fn perform(&mut self, host: usize, ready: &mut Ready) {
        if ready.writes() {
            let write = Write::of(ready);
            let this = &mut self.hosts[host];
            let overtakes = write.entries.first().is_some_and(|first| this.disk.is_replaced_in_queue(first.index));
            // A leader learns where the logs agree by an answer, and that waits for all that the disk was asked for before.
            assert!(!overtakes, "entries of {} are replaced before they are durable", this.id);
            let is_stamped = write.entries.last().is_some_and(|last| this.leads(last.term));
            this.disk.queue.push_back(write);
            if is_stamped && let Some(fault) = this.stepped_by.take() {
                self.meet(fault);
            }
        }
        for envelope in std::mem::take(&mut ready.messages) {
            self.check_promise(host, &envelope);
            if envelope.message == Message::TimeoutNow {
                self.hosts[host].stepped_aside_in = envelope.term;
                let status = self.hosts[host].node.as_ref().map(chronos::raft::Node::status).unwrap_or_default();
                if status.clock_off.is_some() {
                    self.count("leaders that handed over for their clock");
                } else if status.is_disk_low {
                    self.note_full(host);
                    self.count("leaders that handed over for their disk");
                }
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
        if is_witness && let Some(state) = &mut state {
            state.strip();
            self.check_that_voters_had(host, state.applied);
        }
        let arrivals = self.network.arrivals(host, to, self.now + 20_000, &mut self.chance);
        if let (Some(state), Some(&at)) = (state, arrivals.first()) {
            let is_meant = !self.hosts[to].is_stranger(&state.membership);
            if self.hosts[host].disk.snapshot.applied.index == LogIndex(0) {
                self.count("snapshots in place of a log that has all");
            }
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
            let stalled = this.stalled_by.take_if(|_| at > self.now + takes);
            self.schedule(at, Event::Persisted { host, life });
            stalled.into_iter().for_each(|fault| self.meet(fault));
            self.count_all("requests that share an fdatasync", count - 1);
            if let Some(fault) = met {
                self.meet(fault);
                // One of many that are slow for the same reason is enough.
                let others = self.hosts.iter_mut().filter(|other| other.slowed_by == Some(fault));
                others.for_each(|other| other.slowed_by = None);
            }
        }
    }

    pub(super) fn deliver(&mut self, host: usize, number: Option<u64>, envelope: Envelope) {
        let now = self.hosts[host].now(self.now);
        if let (Some(from), Some(number)) = (self.index(&envelope.from), number) {
            self.network.arrive((from, host), number);
        }
        self.note_clock(host, &envelope);
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

    /// A leader compares its clock with another one.
    fn note_clock(&mut self, leader: usize, envelope: &Envelope) {
        let Message::HeartbeatReply { wall, .. } = envelope.message else { return };
        let Some(from) = self.index(&envelope.from).filter(|_| self.hosts[leader].leads(envelope.term)) else { return };
        // What was on its way when the clock was moved says what it was before.
        let is_of_now = self.hosts[from].now(self.now).wall.0.abs_diff(wall.0) < 1000;
        if let Some(fault) = self.hosts[from].stepped_by.take_if(|_| is_of_now) {
            self.meet(fault);
        }
    }

    /// What a promise says is durable by the time at which it may leave, or counts where it was given.
    fn check_promise(&mut self, from: usize, envelope: &Envelope) {
        let (this, term) = (&self.hosts[from], envelope.term);
        match &envelope.message {
            Message::VoteReply { granted: true } => {
                // A name's disks are other candidates than each other, and the network does not say for which it is.
                let is_of = |number: u64| (1..=self.disks).any(|disk| envelope.to.number(DiskId(disk)) == number);
                self.checks.promises((this.disk_id, term), &envelope.to, is_of);
            }
            Message::AppendReply(Verdict::Accepted { matched } | Verdict::Full { matched }) => {
                let last = this.disk.last().index;
                assert!(last >= *matched, "{} acknowledges entry {matched}, and its disk ends at {last}", this.id);
                let own = this.disk.durable_term(*matched);
                let leader = self.checks.leader_of(term).map(|leader| &self.hosts[leader]);
                let of =
                    leader.filter(|leader| leader.leads(term)).and_then(|leader| leader.disk.newest_term(*matched));
                let is_other = own.is_some() && of.is_some() && own != of;
                assert!(!is_other, "{} acknowledges entry {matched} of term {own:?}, sent was {of:?}", this.id);
            }
            Message::VoteReply { granted: false }
            | Message::AppendReply(Verdict::Rejected { .. })
            | Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::Vote { .. }
            | Message::Append { .. }
            | Message::Heartbeat { .. }
            | Message::HeartbeatReply { .. }
            | Message::ReadIndex { .. }
            | Message::ReadIndexReply { .. }
            | Message::TimeoutNow
            | Message::NewDisk
            | Message::Removed
            | Message::Dismissed { .. } => {}
        }
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
        self.hosts[host].was_away &= write.entries.is_empty();
        let this = &self.hosts[host];
        for entry in &write.entries {
            let before = entry.index.previous();
            let previous = this.disk.entry(before).map_or(this.disk.snapshot.applied.term, |entry| entry.term);
            self.checks.holds(entry, previous);
        }
        // Before the next request, which may take back what this one acknowledges.
        write.after_persist.iter().for_each(|envelope| self.check_promise(host, envelope));
        if was_quarantined && !self.hosts[host].is_quarantined() {
            self.count(if self.hosts[host].was_damaged { "quarantines left" } else { "joiners caught up" });
            self.hosts[host].was_damaged = false;
            self.hosts[host].healed_at = Some(self.now);
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
