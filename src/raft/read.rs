//! Reads that see everything committed before they were asked (thesis 6.4).
//!
//! ```text
//!   any node ── ReadIndex ──> leader: takes its commit index, begins a round of heartbeats
//!                               a quorum answers: nobody else led when the round was sent
//!            <── index ─────────┘
//!   waits until it has applied that much, then reads its own view
//! ```
//!
//! * One round answers all reads that were asked before it left; those that come while one is out share the next.
//! * A leader answers only once an entry of its own term is committed: before, it does not know what is.
//! * A lease saves the round: for a little less than an election timeout after a confirmed round was *sent*, no other
//!   node can have been elected, if clocks run at about the same speed.

use crate::clock::Monotonic;
use crate::ids::LogIndex;
use crate::raft::leader::ROUNDS_MAX;
use crate::raft::node::{READS_MAX, State};
use crate::raft::progress::Progress;
use crate::raft::{Message, Node, NodeId, Now, Outcast, ReadAnswer, quorum};
use std::collections::VecDeque;
use std::time::Duration;

/// A read at the leader that waits for a round.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The first round that was sent after it was asked.
    round: u64,
    id: u64,
    /// Who asked; none for this node itself.
    from: Option<NodeId>,
}

/// A read at a follower that waits for the leader's word.
#[derive(Debug)]
pub(super) struct Asked {
    id: u64,
    /// What it is called on the wire.
    number: u64,
    at: Monotonic,
}

/// A round that shows, once it is confirmed, that everything committed before it was sent is known.
#[derive(Debug)]
pub(super) struct Mark {
    round: u64,
    at: Monotonic,
    committed: LogIndex,
}

/// When a follower answered which round, oldest first.
#[derive(Debug, Default)]
pub(super) struct Answered(VecDeque<(u64, Monotonic)>);

/// Rounds that a follower remembers: more than leave while an answer is on its way. Where they are more, the older ones
/// serve, and a follower takes itself for less current than it is.
const ANSWERED_MAX: usize = 64;

impl Answered {
    pub(super) fn note(&mut self, round: u64, now: Monotonic) {
        let is_new = self.0.back().is_none_or(|(newest, _)| *newest < round);
        if is_new && self.0.len() < ANSWERED_MAX {
            self.0.push_back((round, now));
        }
    }

    /// When this round or one before it was answered; those before are asked for no more.
    pub(super) fn when(&mut self, round: u64) -> Option<Monotonic> {
        while self.0.get(1).is_some_and(|(next, _)| *next <= round) {
            self.0.pop_front();
        }
        self.0.front().filter(|(first, _)| *first <= round).map(|(_, at)| *at)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// How current the state machine is known to be: it held everything that was committed at some instant.
#[derive(Debug, Default)]
pub(super) struct Freshness {
    held: Option<Monotonic>,
    /// (instant, position): true as well once so much is applied. The older one stays until it is, or a state machine
    /// that is always a little behind would never be known to be current.
    waiting: Option<(Monotonic, LogIndex)>,
    newest: Option<(Monotonic, LogIndex)>,
}

impl Freshness {
    /// Everything that was committed at `at` lies up to `index`.
    pub(super) fn note(&mut self, at: Monotonic, index: LogIndex, applied: LogIndex) {
        let slot = if self.waiting.is_none() { &mut self.waiting } else { &mut self.newest };
        *slot = Some((at, index));
        self.applied(applied);
    }

    pub(super) fn applied(&mut self, applied: LogIndex) {
        while let Some((at, _)) = self.waiting.filter(|(_, index)| *index <= applied) {
            self.held = self.held.max(Some(at));
            self.waiting = self.newest.take();
        }
    }

    pub(super) fn held(&self) -> Option<Monotonic> {
        self.held
    }
}

impl Node {
    /// Asks up to where this node must have applied to read what is committed now. The answer comes in `Ready::reads`.
    pub fn read(&mut self, id: u64, now: Now) {
        self.advance(now);
        if self.is_witness() || self.outcast == Some(Outcast::Contradicted) {
            // It has no state to read, or one that its leader knows nothing of.
            self.ready.reads.push(ReadAnswer { id, index: None });
            return;
        }
        match (&self.state, &self.leader) {
            (State::Leader(_), _) => self.wait_for_round(id, None),
            (State::Follower, Some(leader)) if self.asked.len() < READS_MAX => {
                let leader = leader.clone();
                self.last_asked = self.last_asked.wrapping_add(1);
                let number = self.last_asked;
                self.asked.push_back(Asked { id, number, at: self.now.monotonic });
                self.send(&leader, Message::ReadIndex { id: number });
            }
            (State::Follower | State::Candidate(_), _) => self.ready.reads.push(ReadAnswer { id, index: None }),
        }
    }

    /// A follower asks.
    pub(super) fn read_for(&mut self, from: NodeId, id: u64) {
        match &self.state {
            State::Leader(_) => self.wait_for_round(id, Some(from)),
            State::Follower | State::Candidate(_) => {
                self.send(&from, Message::ReadIndexReply { id, index: None, commit: LogIndex(0) });
            }
        }
    }

    fn wait_for_round(&mut self, id: u64, from: Option<NodeId>) {
        let State::Leader(lead) = &mut self.state else { return };
        if lead.reads.len() >= READS_MAX {
            self.answer_read(id, from, None);
            return;
        }
        // A round that was sent before proves nothing about now.
        let is_out = lead.reads.iter().any(|read| read.round <= lead.round) && !lead.round_is_open;
        let round = if lead.round_is_open { lead.round } else { lead.round + 1 };
        lead.reads.push_back(Waiting { round, id, from });
        if self.is_alone() {
            self.answer_reads();
        } else if !is_out {
            self.begin_round();
        }
    }

    /// Asks everybody to confirm that this node leads.
    pub(super) fn begin_round(&mut self) {
        let now = self.now.monotonic;
        let (heartbeat, committed, held) = (self.config.heartbeat, self.committed, self.held());
        let State::Leader(lead) = &mut self.state else { return };
        if !lead.round_is_open {
            lead.round += 1;
            lead.rounds.push_back((lead.round, now));
            lead.round_is_open = true;
            if lead.rounds.len() > ROUNDS_MAX {
                lead.rounds.pop_front();
            }
            // A leader that has not committed an entry of its own does not know what is.
            if lead.mark.is_none() && committed >= lead.since {
                lead.mark = Some(Mark { round: lead.round, at: now, committed });
                lead.progress.values_mut().for_each(|progress| progress.marked = progress.round);
            }
        }
        lead.next_heartbeat = now + heartbeat;
        let (round, proven) = (lead.round, lead.proven);
        let heartbeat = |progress: &Progress| {
            let has_it = proven.is_some_and(|proven| progress.matched >= proven);
            let confirmed = (has_it && progress.proven > 0).then_some(progress.proven);
            Message::Heartbeat { commit: progress.matched.min(committed), round, confirmed, held }
        };
        let peers: Vec<(NodeId, Message)> =
            lead.progress.iter().map(|(id, progress)| (id.clone(), heartbeat(progress))).collect();
        peers.into_iter().for_each(|(peer, message)| self.send(&peer, message));
    }

    /// What was begun leaves now.
    pub(super) fn close_round(&mut self) {
        if let State::Leader(lead) = &mut self.state {
            lead.round_is_open = false;
        }
    }

    /// Takes note of rounds that a quorum has answered.
    pub(super) fn confirm_rounds(&mut self) {
        let Some(confirmed) = self.confirmed_round() else { return };
        let State::Leader(lead) = &mut self.state else { return };
        while let Some(&(round, at)) = lead.rounds.front() {
            if round > confirmed {
                break;
            }
            lead.rounds.pop_front();
            lead.confirmed = Some(at);
        }
        if let Some(mark) = lead.mark.take_if(|mark| mark.round <= confirmed) {
            lead.proven = Some(mark.committed);
            lead.progress.values_mut().for_each(|progress| progress.proven = progress.marked);
            self.freshness.note(mark.at, mark.committed, self.applied);
        }
        self.answer_reads();
    }

    fn confirmed_round(&self) -> Option<u64> {
        let State::Leader(lead) = &self.state else { return None };
        let answered = |id: &NodeId| {
            if *id == self.config.id { lead.round } else { lead.progress.get(id).map_or(0, |progress| progress.round) }
        };
        let membership = self.membership();
        quorum::highest(membership.voters().map(answered), membership.quorum())
    }

    /// Answers the reads whose round is confirmed.
    pub(super) fn answer_reads(&mut self) {
        let (confirmed, committed) = (self.confirmed_round(), self.committed);
        let is_alone = self.is_alone();
        let State::Leader(lead) = &mut self.state else { return };
        if committed < lead.since {
            return;
        }
        let mut answered = Vec::new();
        while let Some(read) = lead.reads.front() {
            if !is_alone && confirmed.is_none_or(|confirmed| read.round > confirmed) {
                break;
            }
            answered.extend(lead.reads.pop_front());
        }
        let wants_round = lead.reads.front().is_some_and(|read| read.round > lead.round);
        for read in answered {
            self.answer_read(read.id, read.from, Some(committed));
        }
        if wants_round {
            self.begin_round();
        }
    }

    fn answer_read(&mut self, id: u64, from: Option<NodeId>, index: Option<LogIndex>) {
        match from {
            None => self.ready.reads.push(ReadAnswer { id, index }),
            Some(from) => {
                let State::Leader(lead) = &self.state else { return };
                let matched = lead.progress.get(&from).map_or(LogIndex(0), |progress| progress.matched);
                let commit = matched.min(self.committed);
                self.send(&from, Message::ReadIndexReply { id, index, commit });
            }
        }
    }

    /// The leader's word arrived.
    pub(super) fn take_read_index(&mut self, from: &NodeId, number: u64, index: Option<LogIndex>, commit: LogIndex) {
        // Reads are given up when the leader goes, so what is asked was asked of the present one.
        if self.leader.as_ref() != Some(from) {
            return;
        }
        let Some(at) = self.asked.iter().position(|asked| asked.number == number) else { return };
        let Some(Asked { id, .. }) = self.asked.remove(at) else { return };
        self.commit(commit);
        self.ready.reads.push(ReadAnswer { id, index });
    }

    /// There is another leader, or none: whoever waits asks again.
    pub(super) fn give_up_reads(&mut self) {
        let asked = std::mem::take(&mut self.asked).into_iter().map(|asked| asked.id);
        self.ready.reads.extend(asked.map(|id| ReadAnswer { id, index: None }));
        if let State::Leader(lead) = &mut self.state {
            let own = std::mem::take(&mut lead.reads).into_iter().filter(|read| read.from.is_none());
            self.ready.reads.extend(own.map(|read| ReadAnswer { id: read.id, index: None }));
        }
    }

    /// What the leader has not answered within an election timeout was lost.
    pub(super) fn forget_old_reads(&mut self) {
        let timeout = self.config.election_timeout;
        while self.asked.front().is_some_and(|asked| self.now.monotonic >= asked.at + timeout) {
            let lost = self.asked.pop_front().map(|asked| ReadAnswer { id: asked.id, index: None });
            self.ready.reads.extend(lost);
        }
    }

    /// True where this node leads and knows what is committed; in a group of one a read needs no more.
    pub fn may_read(&self) -> bool {
        matches!(&self.state, State::Leader(lead) if self.applied >= lead.since) && !self.is_witness()
    }

    /// True where statements can be served here: it leads, knows what is committed, and takes what clients propose.
    pub fn serves(&self) -> bool {
        self.may_read() && self.check_leading().is_ok()
    }

    /// True where no other node can lead at `now`, if clocks run at about the same speed. To be asked again once the view
    /// is taken.
    pub fn holds_lease(&self, now: Monotonic) -> bool {
        self.lease_until().is_some_and(|until| now < until)
    }

    /// When the lease that this node holds ends; none where it holds none.
    pub fn lease_until(&self) -> Option<Monotonic> {
        let State::Leader(lead) = &self.state else { return None };
        if !self.may_read() {
            None
        } else if self.is_alone() {
            Some(Monotonic::MAX)
        } else {
            lead.confirmed.map(|at| at + self.config.lease()).filter(|_| !lead.has_stepped_aside)
        }
    }

    /// How old, at `now`, what this node has applied is at most: it held everything that was committed then. None where
    /// no leader has shown it since the start.
    pub fn staleness(&self, now: Monotonic) -> Option<Duration> {
        if self.is_alone() && matches!(self.state, State::Leader(_)) {
            return Some(Duration::ZERO);
        }
        self.freshness.held().map(|at| now.saturating_sub(at))
    }
}
