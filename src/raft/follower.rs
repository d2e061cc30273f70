//! Taking what a leader sends.

use crate::ids::LogIndex;
use crate::raft::arrival::Shown;
use crate::raft::entry::membership_of;
use crate::raft::node::State;
use crate::raft::{Entry, Message, Node, NodeId, Outcast, Verdict};
use crate::storage::wal::Position;

impl Node {
    /// A leader of the present term says something.
    fn heed(&mut self, from: &NodeId) {
        assert!(
            !matches!(self.state, State::Leader(_)),
            "{from} leads term {}, and so does this node: two leaders in one term",
            self.hard_state.term
        );
        if self.leader.as_ref() != Some(from) || !matches!(self.state, State::Follower) {
            self.follow(self.hard_state.term, Some(from.clone()));
        }
        self.heard = Some(self.now.monotonic);
        let is_named = self.this().is_none_or(|this| this.disk.is_none_or(|disk| disk == self.config.disk));
        self.outcast = self.outcast.filter(|outcast| match outcast {
            Outcast::NewDisk => !is_named,
            Outcast::Removed | Outcast::Contradicted => false,
        });
        self.wait_for_leader();
    }

    /// What a damaged log has lost may have been acknowledged: it is fetched again up to where the group stands. Only an
    /// append says where that is: a heartbeat names what the receiver has. And every one counts, since the first to
    /// arrive need not be the last that was sent.
    fn contact(&mut self, commit: LogIndex) {
        if let Some(until) = self.hard_state.quarantined_until {
            self.contacted = true;
            if commit > until {
                self.hard_state.quarantined_until = Some(commit);
                self.shown_quarantine = Some(commit);
                self.save();
            }
        }
    }

    /// Entries from the leader (thesis 3.5).
    pub(super) fn take_entries(&mut self, from: &NodeId, previous: Position, entries: Vec<Entry>, commit: LogIndex) {
        if self.is_contradicted_by(previous, &entries) {
            // Disks were put back to what they were at some earlier time, more of them than a group survives. What is here
            // may be all that is left, so it is kept, and an operator is told. What others are said to have is of their log.
            self.outcast = Some(Outcast::Contradicted);
            self.held = LogIndex(0);
            self.follow(self.hard_state.term, None);
            return;
        }
        if self.outcast == Some(Outcast::Contradicted) {
            // Until one shows a log that has what is committed here.
            match self.shown(previous, &entries) {
                Shown::All => {}
                Shown::Nothing => return self.reject(from, previous),
                Shown::Some | Shown::Other => return self.follow(self.hard_state.term, None),
            }
        }
        if let Some(error) = entries.iter().find_map(|entry| membership_of(entry).err()) {
            // Who belongs to the group counts from the append on: whoever does not know it must not acknowledge, nor vote.
            self.stopped = Some(error);
            return;
        }
        self.heed(from);
        self.contact(commit);
        // What was trimmed here was applied, so every leader has the same.
        let is_trimmed = previous.index < self.log.previous().index;
        if !is_trimmed && !self.log.has(previous) {
            self.reject(from, previous);
            return;
        }
        let is_full = self.takes_no_entries();
        let entries = if is_full { self.those_here(entries) } else { entries };
        let verified = entries.last().map_or(previous.index, |entry| entry.index);
        for entry in entries {
            if entry.index <= self.log.previous().index || self.log.term(entry.index) == Some(entry.term) {
                continue;
            }
            if entry.index <= self.log.last().index {
                self.take_back(entry.index);
            }
            self.adopt(entry);
        }
        // Beyond the end there is nothing to verify: a trimmed log may be ahead of the whole message.
        let matched = verified.max(self.log.previous().index).min(self.log.last().index);
        let verdict = if is_full { Verdict::Full { matched } } else { Verdict::Accepted { matched } };
        self.promise(from, Message::AppendReply(verdict));
        self.commit(commit.min(matched));
        self.leave_quarantine();
    }

    /// The logs do not agree at `previous`.
    pub(super) fn reject(&mut self, from: &NodeId, previous: Position) {
        let hint = self.log.agreeable(previous.index, previous.term);
        let quarantined = self.hard_state.quarantined_until.is_some();
        let verdict = Verdict::Rejected { previous: previous.index, hint, quarantined };
        self.promise(from, Message::AppendReply(verdict));
    }

    /// True where these entries, or the one before them, are other ones than what is committed here. No leader that a
    /// quorum has elected sends such.
    pub(super) fn is_contradicted_by(&self, previous: Position, entries: &[Entry]) -> bool {
        let positions = entries.iter().map(|entry| Position { index: entry.index, term: entry.term });
        let is_other = |at: &Position| self.log.term(at.index).is_some_and(|term| term != at.term);
        std::iter::once(previous).chain(positions).take_while(|at| at.index <= self.committed).any(|at| is_other(&at))
    }

    /// The log is whole again once it holds all that was committed before this leader, which an entry of the leader's own
    /// term shows, and all that it may have acknowledged itself. On disk, that is: the log thread writes the newest hard
    /// state of those that wait before all of their entries, so a crash may keep it and lose them.
    fn leave_quarantine(&mut self) {
        let is_whole = |until: LogIndex| self.contacted && self.committed.min(self.log.persisted()) >= until;
        if self.hard_state.quarantined_until.is_some_and(is_whole)
            && self.log.term(self.committed) == Some(self.hard_state.term)
        {
            self.hard_state.quarantined_until = None;
            self.save();
            let (this, mut whole) = (self.config.id.clone(), self.heartbeat_reply(0));
            if let Message::HeartbeatReply { quarantined_until, .. } = &mut whole {
                *quarantined_until = None;
            }
            self.promise(&this, whole);
        }
    }

    /// Gives up entries that a later leader does not have.
    fn take_back(&mut self, from: LogIndex) {
        assert!(from > self.committed, "entry {from} is committed, and another one would take its place");
        self.log.truncate(from);
        if self.memberships.truncate(from) {
            self.save();
        }
        self.ready.entries.retain(|entry| entry.index < from);
        while let Some((index, bytes)) = self.in_flight.back().copied() {
            if index < from {
                break;
            }
            self.in_flight.pop_back();
            self.in_flight_bytes -= bytes;
        }
    }

    /// The leader is there, in this round of heartbeats, and a quorum has answered an earlier one. Up to `held` everybody
    /// with rows has its log.
    pub(super) fn hear(&mut self, from: &NodeId, commit: LogIndex, rounds: (u64, Option<u64>), held: LogIndex) {
        if self.outcast == Some(Outcast::Contradicted) {
            // Until one shows a log that has what is committed here.
            return;
        }
        let (round, confirmed) = rounds;
        // What is committed here, by this leader's word: of its log beyond that nothing is known to be this one's.
        self.held = held.min(commit);
        self.heed(from);
        self.commit(commit);
        self.leave_quarantine();
        if let Some(at) = confirmed.and_then(|round| self.answered.when(round)) {
            self.freshness.note(at, commit, self.applied);
        }
        self.answered.note(round, self.now.monotonic);
        let reply = self.heartbeat_reply(round);
        self.send(from, reply);
    }

    pub(super) fn heartbeat_reply(&self, round: u64) -> Message {
        Message::HeartbeatReply {
            round,
            command_version: crate::machine::COMMAND_VERSION,
            quarantined_until: self.shown_quarantine,
            wall: self.now.wall,
            is_disk_low: self.is_disk_low,
        }
    }
}
