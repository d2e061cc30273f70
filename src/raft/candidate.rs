//! Standing for election, and voting.
//!
//! ```text
//!   Follower ── nothing heard ──> asks around (pre-vote) ── a quorum would ──> stands, term + 1 ── a quorum does ──> leads
//!                                      nobody's term changes                     vote and request durable first
//! ```
//!
//! * A node that cannot win disturbs nobody: its pre-votes are refused while a leader is heard, and change no term (9.6).
//! * A vote request leaves once the candidate's term and log are durable. Were it sent before, a crash could shorten the
//!   log that the votes were given for.
//! * After a start a node grants nothing for an election timeout: it may have heard a leader just before, which counts on
//!   it for its lease.
//! * A group is founded with the votes of all: a candidate in whose log no disks are written down needs every voter, for
//!   those that are there may be empty disks, and the one that is not there the group.
//! * Who is told that its disk is a new one promises nothing any more, and remembers that: it is in quarantine, like a
//!   node that joins, until it has from a leader what the group has.

use crate::clock::Monotonic;
use crate::ids::{DiskId, LogIndex, Term};
use crate::raft::node::State;
use crate::raft::{Envelope, Membership, Message, Node, NodeId, Outcast};
use crate::storage::wal::Position;
use std::collections::BTreeMap;

/// A candidate's tally.
#[derive(Debug)]
pub(super) struct Candidacy {
    /// It only asks whether it would be elected.
    is_pre: bool,
    /// The term that it stands in, or would.
    term: Term,
    votes: BTreeMap<NodeId, Ballot>,
}

/// What a voter said, and on which disk it has written that down.
#[derive(Clone, Copy, Debug)]
struct Ballot {
    granted: bool,
    disk: DiskId,
}

impl Candidacy {
    /// The disks of those who gave their vote.
    pub(super) fn disks(&self) -> Vec<(NodeId, DiskId)> {
        let granted = self.votes.iter().filter(|(_, ballot)| ballot.granted);
        granted.map(|(id, ballot)| (id.clone(), ballot.disk)).collect()
    }
}

/// What a tally says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Won,
    Lost,
    Open,
}

/// Terms ahead that rounds of asking around take turns in. An answer to an earlier one says another term, unless it was on its
/// way for so many rounds: since then a leader may have come that its voter holds to.
const ROUNDS: u64 = 8;

/// Election timeouts that a witness waits longer than others: it leads only where nobody else can.
const WITNESS_PATIENCE: u32 = 2;

impl Node {
    /// Draws the time at which this node stands.
    pub(super) fn wait_for_leader(&mut self) {
        let least = self.config.election_timeout;
        let chance = Monotonic::from_micros(self.draw(least.as_micros() as u64));
        let patience = if self.is_witness() { WITNESS_PATIENCE } else { 0 };
        self.deadline = self.now.monotonic + least * (1 + patience) + chance;
    }

    /// True where this node may be elected at all.
    pub(super) fn may_stand(&self) -> bool {
        let this = &self.config.id;
        // One whose removal is not committed may be the only one with the log that the others need (4.2.2).
        let votes =
            self.membership().is_voter(this) || (self.memberships.before().is_some_and(|before| before.is_voter(this)));
        votes && self.hard_state.quarantined_until.is_none() && !self.is_replaced()
    }

    /// True where this node's name belongs to another disk, by its own log, or by a member's word where its log does not
    /// say.
    fn is_replaced(&self) -> bool {
        match self.this().and_then(|this| this.disk) {
            Some(disk) => disk != self.config.disk,
            None => self.outcast.is_some() && !self.is_named(),
        }
    }

    /// True where this node's log names it with its disk, or did so before a change that is not committed: what was promised
    /// on that disk is there, and until that change is decided it may be needed to decide it.
    fn is_named(&self) -> bool {
        let names =
            |group: &Membership| group.get(&self.config.id).is_some_and(|member| member.disk == Some(self.config.disk));
        names(self.membership()) || self.memberships.before().is_some_and(names)
    }

    /// A member says that the name has another disk. It may be behind, so what this node's own log says counts more; and
    /// what is believed wrongly ends with a leader's word, as for every node that joins.
    pub(super) fn refused(&mut self) {
        // A group of one is known by its directory: there is nobody who could know better.
        let is_single = self.this().is_some() && self.membership().members.len() == 1;
        if self.is_named() || is_single {
            return;
        }
        self.outcast = Some(Outcast::NewDisk);
        if self.hard_state.quarantined_until.is_none() {
            // Durable: after a restart it would not be told again by those who have forgotten, or are gone.
            let until = self.log.last().index.max(LogIndex(1));
            self.hard_state.quarantined_until = Some(until);
            self.shown_quarantine = Some(until);
            self.contacted = false;
            self.save();
        }
        if !matches!(self.state, State::Follower) {
            self.follow(self.hard_state.term, None);
        }
    }

    /// True while a leader is there, or may be: no vote is granted then.
    pub(super) fn holds_to_leader(&self) -> bool {
        let within = |since: Option<Monotonic>| {
            since.is_some_and(|since| self.now.monotonic < since + self.config.election_timeout)
        };
        matches!(self.state, State::Leader(_)) || within(self.heard) || within(self.started)
    }

    /// Asks whether a quorum would elect this node.
    pub(super) fn ask_around(&mut self) {
        let term = Term(self.hard_state.term.0 + 1 + self.asked_around);
        self.asked_around = (self.asked_around + 1) % ROUNDS;
        self.begin_candidacy(true, term);
        let message = Message::PreVote { last: self.log.last() };
        for peer in self.other_voters() {
            let envelope = Envelope { term, ..self.envelope(&peer, message.clone()) };
            self.ready.messages.push(envelope);
        }
        self.count_pre_vote(self.config.id.clone(), self.config.disk, term, true);
    }

    /// Stands for election in the next term.
    pub(super) fn stand(&mut self, transfer: bool) {
        self.stand_in(Term(self.hard_state.term.0 + 1), transfer);
    }

    fn stand_in(&mut self, term: Term, transfer: bool) {
        self.hard_state.term = term;
        self.hard_state.vote = Some(self.config.id.number(self.config.disk));
        self.save();
        self.begin_candidacy(false, term);
        let message = Message::Vote { last: self.log.last(), transfer };
        for peer in self.other_voters() {
            self.promise(&peer, message.clone());
        }
        // The vote must be durable before it counts, or a restart could vote twice in one term.
        let this = self.config.id.clone();
        self.promise(&this, Message::VoteReply { granted: true });
    }

    fn begin_candidacy(&mut self, is_pre: bool, term: Term) {
        self.give_up_reads();
        self.leader = None;
        self.heard = None;
        self.state = State::Candidate(Candidacy { is_pre, term, votes: BTreeMap::new() });
        self.wait_for_leader();
    }

    /// The term that this node would stand in, where it asks around.
    fn asks_for(&self) -> Option<Term> {
        match &self.state {
            State::Candidate(candidacy) if candidacy.is_pre => Some(candidacy.term),
            State::Candidate(_) | State::Follower | State::Leader(_) => None,
        }
    }

    fn other_voters(&self) -> Vec<NodeId> {
        self.membership().voters().filter(|id| **id != self.config.id).cloned().collect()
    }

    /// The leader asks this node to take its place.
    pub(super) fn take_over(&mut self, from: &NodeId) {
        if self.leader.as_ref() == Some(from) && self.may_stand() {
            self.stand(true);
        }
    }

    /// True where a candidate's log holds all that this one has committed (5.4.1).
    fn is_up_to_date(&self, last: Position) -> bool {
        let own = self.log.last();
        (last.term, last.index) >= (own.term, own.index)
    }

    fn may_vote(&self) -> bool {
        self.hard_state.quarantined_until.is_none() && !self.is_replaced()
    }

    /// True where this node has no vote left for another candidate of its term.
    fn is_free_for(&self, candidate: u64) -> bool {
        self.hard_state.vote.is_none_or(|vote| vote == candidate)
    }

    pub(super) fn answer_pre_vote(&mut self, from: &NodeId, disk: DiskId, term: Term, last: Position) {
        let is_free = term > self.hard_state.term || self.is_free_for(from.number(disk));
        let granted = self.may_vote() && is_free && !self.holds_to_leader() && self.is_up_to_date(last);
        let reply = self.envelope(from, Message::PreVoteReply { granted });
        let term = if granted { term } else { reply.term };
        self.ready.messages.push(Envelope { term, ..reply });
    }

    pub(super) fn answer_vote(&mut self, from: &NodeId, disk: DiskId, last: Position, transfer: bool) {
        let candidate = from.number(disk);
        let is_free = (transfer || !self.holds_to_leader()) && self.is_free_for(candidate);
        if self.may_vote() && is_free && self.is_up_to_date(last) {
            self.hard_state.vote = Some(candidate);
            self.save();
            self.wait_for_leader();
            self.promise(from, Message::VoteReply { granted: true });
        } else {
            self.send(from, Message::VoteReply { granted: false });
        }
    }

    pub(super) fn count_pre_vote(&mut self, from: NodeId, disk: DiskId, term: Term, granted: bool) {
        let Some(wanted) = self.asks_for().filter(|wanted| !granted || *wanted == term) else { return };
        match self.tally(from, Ballot { granted, disk }, true) {
            Outcome::Won => self.stand_in(wanted, false),
            Outcome::Lost => self.follow(self.hard_state.term, None),
            Outcome::Open => {}
        }
    }

    pub(super) fn count_vote(&mut self, from: NodeId, disk: DiskId, granted: bool) {
        match self.tally(from, Ballot { granted, disk }, false) {
            Outcome::Won => self.lead(),
            Outcome::Lost => self.follow(self.hard_state.term, None),
            Outcome::Open => {}
        }
    }

    fn tally(&mut self, from: NodeId, ballot: Ballot, is_pre: bool) -> Outcome {
        let (needed, counts) = (self.membership().votes_to_lead(), self.membership().is_voter(&from));
        let voters = self.membership().voters().count();
        let State::Candidate(candidacy) = &mut self.state else { return Outcome::Open };
        if candidacy.is_pre != is_pre || !counts {
            return Outcome::Open;
        }
        candidacy.votes.insert(from, ballot);
        let granted = candidacy.votes.values().filter(|ballot| ballot.granted).count();
        if granted >= needed {
            Outcome::Won
        } else if candidacy.votes.len() - granted > voters - needed {
            Outcome::Lost
        } else {
            Outcome::Open
        }
    }
}
