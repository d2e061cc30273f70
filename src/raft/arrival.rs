//! A message arrives: whether it counts, what its term means, and who takes it.
//!
//! ```text
//!   envelope ──> is it for this node? ──> does its sender's disk count? ──> term: later, present, earlier ──> role
//! ```
//!
//! * A later term is followed, but for those of candidates while a leader is heard: no lease ends because of them.
//! * An earlier term counts for nothing; who believes to lead or to stand in it is told of the present one.
//! * What a member says whose disk is another one than the group knows is answered, and not counted.
//! * What a disk says whose removal is committed here counts for nothing, not even where it leads: those that were left out
//!   when an operator recovered the group (`storage::engine::claim`) may believe to be its majority.
//! * A leader whose disk is another one than what is committed here says of its name is followed once it shows a log that
//!   has all of that: it may have been removed and added again behind the end of this log. Until then it is told what it
//!   looks like, an empty disk that leads others.

use crate::ids::{DiskId, LogIndex, Term};
use crate::raft::node::State;
use crate::raft::{Entry, Envelope, HardState, Membership, Message, Node, NodeId, Now, Outcast, Verdict};
use crate::storage::wal::Position;

/// What a leader's entries show of its log.
pub(super) enum Shown {
    /// It has all that is committed here.
    All,
    /// It agrees with this one as far as it goes, which is less than that.
    Some,
    /// The two logs differ further ahead.
    Nothing,
    /// It lacks something, as far as can be seen.
    Other,
}

impl Node {
    /// A message arrived, from a peer or from this node's own disk.
    pub fn step(&mut self, envelope: Envelope, now: Now) {
        self.advance(now);
        // Who was dismissed says nothing any more, whoever asks: its acknowledgement would count where nobody knows.
        if envelope.to != self.config.id || self.hard_state.is_dismissed() {
            return;
        }
        if self.stopped.is_some() {
            return;
        }
        if let Message::Dismissed { disk } = envelope.message {
            // The name may have gone to this disk since.
            if disk == self.config.disk {
                self.dismissed(&envelope.from, envelope.disk);
            }
            return;
        }
        if !self.admits(&envelope) {
            return;
        }
        if let Message::HeartbeatReply { quarantined_until: None, .. } = envelope.message
            && envelope.from == self.config.id
        {
            // This node's own word that its quarantine is over, now that it is durable. Another one may have begun since.
            if self.hard_state.quarantined_until.is_none() {
                self.shown_quarantine = None;
            }
            return;
        }
        self.note_disk(&envelope.from, envelope.disk);
        let own = self.hard_state.term;
        if envelope.term >= own && self.doubts(&envelope) {
            return;
        }
        if envelope.term > own {
            match &envelope.message {
                // A pre-vote changes nobody's term, and a granted one carries the term that this node would stand in.
                Message::PreVote { .. } | Message::PreVoteReply { granted: true } => {}
                // A vote is no reason to leave a leader that is there (check-quorum, thesis 4.2.3).
                Message::Vote { transfer: false, .. } if self.holds_to_leader() => return,
                Message::Append { .. } | Message::Heartbeat { .. } => {
                    self.follow(envelope.term, Some(envelope.from.clone()));
                }
                Message::PreVoteReply { granted: false }
                | Message::Vote { .. }
                | Message::VoteReply { .. }
                | Message::AppendReply(_)
                | Message::HeartbeatReply { .. }
                | Message::ReadIndex { .. }
                | Message::ReadIndexReply { .. }
                | Message::TimeoutNow
                | Message::NewDisk
                | Message::Removed
                | Message::Dismissed { .. } => self.follow(envelope.term, None),
            }
        } else if envelope.term < own {
            self.step_old(&envelope);
            return;
        }
        self.dispatch(envelope);
    }

    /// A message of an earlier term counts for nothing; whoever believes to lead or to stand learns of the present one.
    fn step_old(&mut self, envelope: &Envelope) {
        match &envelope.message {
            Message::Append { .. } => {
                let refusal = Message::AppendReply(Verdict::Rejected {
                    previous: LogIndex(0),
                    hint: Position::default(),
                    quarantined: false,
                });
                self.send(&envelope.from, refusal);
            }
            Message::Heartbeat { .. } => {
                let reply = self.heartbeat_reply(0);
                self.send(&envelope.from, reply);
            }
            Message::PreVote { .. } => self.send(&envelope.from, Message::PreVoteReply { granted: false }),
            Message::ReadIndex { id } => {
                let reply = Message::ReadIndexReply { id: *id, index: None, commit: LogIndex(0) };
                self.send(&envelope.from, reply);
            }
            Message::PreVoteReply { .. }
            | Message::Vote { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply(_)
            | Message::HeartbeatReply { .. }
            | Message::ReadIndexReply { .. }
            | Message::TimeoutNow
            | Message::Removed
            | Message::Dismissed { .. } => {}
            // Whoever has the group's log may still be in a term before this one.
            Message::NewDisk => self.refused(),
        }
    }

    fn dispatch(&mut self, envelope: Envelope) {
        let Envelope { from, disk, term, message, .. } = envelope;
        match message {
            Message::PreVote { last } => self.answer_pre_vote(&from, disk, term, last),
            Message::Vote { last, transfer } => self.answer_vote(&from, disk, last, transfer),
            Message::PreVoteReply { granted } => self.count_pre_vote(from, disk, term, granted),
            Message::VoteReply { granted } => self.count_vote(from, disk, granted),
            Message::Append { previous, entries, commit } => self.take_entries(&from, previous, entries, commit),
            Message::Heartbeat { commit, round, confirmed, held } => self.hear(&from, commit, (round, confirmed), held),
            Message::AppendReply(verdict) => self.take_verdict(&from, verdict),
            Message::HeartbeatReply { round, command_version, quarantined_until, wall, is_disk_low } => {
                self.note_clock(&from, round, wall);
                self.note_room(&from, is_disk_low);
                self.take_heartbeat_reply(&from, round, command_version, quarantined_until.is_some());
            }
            Message::ReadIndex { id } => self.read_for(from, id),
            Message::ReadIndexReply { id, index, commit } => self.take_read_index(&from, id, index, commit),
            Message::TimeoutNow => self.take_over(&from),
            Message::NewDisk => self.refused(),
            Message::Removed => self.outcast = Some(Outcast::Removed),
            // Taken before anything else.
            Message::Dismissed { .. } => {}
        }
    }

    /// The group has committed that it goes on without this disk. Known for good where one says so that is a member by this
    /// node's own log; of others it is hearsay.
    fn dismissed(&mut self, from: &NodeId, disk: DiskId) {
        self.outcast = Some(Outcast::Removed);
        let is_member = |group: &Membership| group.get(from).is_some_and(|member| member.disk == Some(disk));
        if *from == self.config.id || !(is_member(self.membership()) || is_member(self.memberships.settled())) {
            return;
        }
        // Durable: two that were left out, and are told by nobody after their next start, might elect one of them.
        self.hard_state.quarantined_until = Some(HardState::DISMISSED);
        self.shown_quarantine = self.hard_state.quarantined_until;
        self.save();
        self.follow(self.hard_state.term, None);
    }

    /// False for a message that must not count: of a member that is another disk than the one it was, or of one that was
    /// removed.
    fn admits(&mut self, envelope: &Envelope) -> bool {
        if envelope.from == self.config.id {
            return envelope.disk == self.config.disk;
        }
        if self.memberships.removed().contains(&envelope.disk) {
            match envelope.message {
                // The last word of a leader that has removed itself.
                Message::TimeoutNow => return self.leader.as_ref() == Some(&envelope.from),
                Message::NewDisk | Message::Removed | Message::Dismissed { .. } => {}
                Message::PreVote { .. }
                | Message::PreVoteReply { .. }
                | Message::Vote { .. }
                | Message::VoteReply { .. }
                | Message::Append { .. }
                | Message::AppendReply(_)
                | Message::Heartbeat { .. }
                | Message::HeartbeatReply { .. }
                | Message::ReadIndex { .. }
                | Message::ReadIndexReply { .. } => {
                    self.send(&envelope.from, Message::Dismissed { disk: envelope.disk });
                }
            }
            return false;
        }
        let bound = self.membership().get(&envelope.from).map(|member| member.disk);
        let is_leading = matches!(self.state, State::Leader(_));
        let is_removed = self.membership().removed.contains(&envelope.disk);
        let answer = match bound {
            // It was a member, and its name may be another's by now. That is not committed: a candidate with more of the log
            // may have seen another entry take its place.
            _ if is_removed && (is_leading || !self.is_ahead(&envelope.message)) => Message::Removed,
            // It was removed and added again behind the end of this log. An empty disk has no such log to show.
            Some(Some(_)) if self.is_ahead(&envelope.message) => return true,
            Some(Some(disk)) if disk != envelope.disk => Message::NewDisk,
            // Before it is written down, the first disk that a leader hears of is the one that counts.
            Some(None) if self.heard_disk(&envelope.from).is_some_and(|disk| disk != envelope.disk) => Message::NewDisk,
            // A member that does not know of its removal would stand again and again.
            None if is_leading => Message::Removed,
            // What counts here may be older than what the sender knows: a leader is followed, and its candidate heard,
            // whether or not they are members by this node's log (4.1).
            Some(_) | None => return true,
        };
        match envelope.message {
            // A leader was elected by a quorum, which knows its disk, whatever the end of this node's log says of it.
            // What is committed here, its own log must have.
            Message::Append { .. }
            | Message::Heartbeat { .. }
            | Message::TimeoutNow
            | Message::ReadIndexReply { .. } => {
                return true;
            }
            Message::NewDisk | Message::Removed | Message::Dismissed { .. } => {}
            Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::Vote { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply(_)
            | Message::HeartbeatReply { .. }
            | Message::ReadIndex { .. } => {
                if answer == Message::NewDisk {
                    self.note_replaced(&envelope.from);
                }
                self.send(&envelope.from, answer);
            }
        }
        false
    }

    /// True for what a leader says that has not shown yet that it has what is committed here, and whose disk is not the
    /// one that was its name's by then. It is answered here.
    fn doubts(&mut self, envelope: &Envelope) -> bool {
        let known = self.memberships.settled().get(&envelope.from).and_then(|member| member.disk);
        let is_known = known.is_none_or(|disk| disk == envelope.disk);
        if is_known || self.believed == Some((envelope.term, envelope.disk)) || envelope.from == self.config.id {
            return false;
        }
        match &envelope.message {
            Message::Append { previous, entries, .. } => match self.shown(*previous, entries) {
                Shown::All => {
                    self.believed = Some((envelope.term, envelope.disk));
                    return false;
                }
                // It is asked on, from further back or further ahead; that is not yet to follow it.
                Shown::Nothing => {
                    self.reach(envelope.term);
                    self.reject(&envelope.from, *previous);
                }
                // Where no other leader is there: it would be unseated by one that may have nothing more.
                Shown::Some if !self.holds_to_leader() => {
                    self.reach(envelope.term);
                    let matched = previous.index;
                    self.promise(&envelope.from, Message::AppendReply(Verdict::Accepted { matched }));
                }
                Shown::Some | Shown::Other => self.send(&envelope.from, Message::NewDisk),
            },
            Message::Heartbeat { .. } => self.send(&envelope.from, Message::NewDisk),
            Message::TimeoutNow | Message::ReadIndexReply { .. } => {}
            Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::Vote { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply(_)
            | Message::HeartbeatReply { .. }
            | Message::ReadIndex { .. }
            | Message::NewDisk
            | Message::Removed
            | Message::Dismissed { .. } => return false,
        }
        true
    }

    /// This term, with nobody to follow in it so far.
    fn reach(&mut self, term: Term) {
        if term > self.hard_state.term {
            self.follow(term, None);
        }
    }

    /// What the entries of a leader say of its log, beside what is committed here.
    pub(super) fn shown(&self, previous: Position, entries: &[Entry]) -> Shown {
        let reaches = entries.last().map_or(previous.index, |entry| entry.index) >= self.committed;
        if self.is_contradicted_by(previous, entries) {
            Shown::Other
        } else if !self.log.has(previous) && previous.index > self.log.previous().index {
            Shown::Nothing
        } else if reaches {
            Shown::All
        } else if self.log.has(previous) && entries.is_empty() {
            Shown::Some
        } else {
            Shown::Other
        }
    }

    /// True for a candidate that has more of the log than this node.
    fn is_ahead(&self, message: &Message) -> bool {
        let own = self.log.last();
        match message {
            Message::PreVote { last } | Message::Vote { last, .. } => (last.term, last.index) > (own.term, own.index),
            Message::PreVoteReply { .. }
            | Message::VoteReply { .. }
            | Message::Append { .. }
            | Message::AppendReply(_)
            | Message::Heartbeat { .. }
            | Message::HeartbeatReply { .. }
            | Message::ReadIndex { .. }
            | Message::ReadIndexReply { .. }
            | Message::TimeoutNow
            | Message::NewDisk
            | Message::Removed
            | Message::Dismissed { .. } => false,
        }
    }
}
