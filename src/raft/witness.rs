//! What a witness is to the consensus: a vote and a log, without the state that the log makes.
//!
//! It is there for the moment in which another member is not. So it keeps what that one may still need: an entry may leave
//! its log only once every member that has rows, or is about to vote with them, has it durably. The leader knows, and says
//! so in each heartbeat ([`Node::held`]).
//!
//! * While a change of the group is not committed the leader says nothing: a member that is on its way out may stay.
//! * A witness that was away for so long that it needs what the leader's log no longer has may be what a group lacks to commit
//!   anything, the removal of a dead member included. So what it needs to let go of then ([`Node::once_held`]) is not kept for
//!   one that is about to go, or has lost its disk; and who is silent has what is committed where arithmetic says so.
//! * What it is told holds for as long as disks keep what they have; a member in quarantine has lost something, and counts
//!   as one that has nothing.
//! * A log cannot grow for ever: at its limit a witness takes no more entries. What it does not have it does not
//!   acknowledge, so it counts for nothing but votes until others have caught up and it may let go of something.
//! * What a disk is for is known once a committed membership names it: a name alone may have been another disk's.

use crate::ids::LogIndex;
use crate::raft::node::State;
use crate::raft::{Entry, Flow, Member, MemberRole, Node, NodeId};

impl Node {
    /// What the group has this disk for, by what is committed; none where that does not say.
    pub fn duty(&self) -> Option<MemberRole> {
        let member = self.memberships.settled().get(&self.config.id)?;
        (member.disk == Some(self.config.disk)).then_some(member.role)
    }

    /// True where the newest word of the log has this node for a witness.
    pub fn is_witness(&self) -> bool {
        self.this().is_some_and(|this| this.role.is_witness())
    }

    /// Every member that has rows, or is about to vote with them, has the log durably up to here; 0 where that is not
    /// known. A learner counts: once it votes, what the witness let go of before could be missing to it.
    pub fn held(&self) -> LogIndex {
        let State::Leader(lead) = &self.state else { return self.held };
        if self.memberships.unsettled().is_some() {
            return LogIndex(0);
        }
        let has = |(id, member): (&NodeId, &Member)| match member.role {
            MemberRole::Voter | MemberRole::Learner if *id == self.config.id => Some(self.log.persisted()),
            MemberRole::Voter | MemberRole::Learner => {
                let progress = lead.progress.get(id).filter(|progress| !progress.quarantined);
                Some(progress.map_or(LogIndex(0), |progress| progress.matched))
            }
            MemberRole::Witness | MemberRole::LearningWitness | MemberRole::Observer => None,
        };
        self.membership().members.iter().filter_map(has).min().unwrap_or_default()
    }

    /// Every member that has rows has the log durably up to here, or had before it lost its disk: it votes for nobody before
    /// a leader has given it all, so no majority rests on what a witness keeps for it. Whose removal is not committed does
    /// not count either: an operator has said that it does not come back, and the removal may need the witness. A learner
    /// counts while it is on its way; one that is silent, or at its beginning, is to catch up with more than this before it
    /// votes.
    pub fn once_held(&self) -> LogIndex {
        let State::Leader(lead) = &self.state else { return self.held() };
        let all_had = self.all_had_what_is_committed();
        let has = |(id, member): (&NodeId, &Member)| match member.role {
            MemberRole::Voter | MemberRole::Learner if *id == self.config.id => Some(self.log.persisted()),
            MemberRole::Voter | MemberRole::Learner => {
                let Some(progress) = lead.progress.get(id) else { return Some(LogIndex(0)) };
                if member.role == MemberRole::Learner && progress.flow != Flow::Replicate {
                    return None;
                }
                let had = if all_had && self.memberships.settled().is_voter(id) { self.committed } else { LogIndex(0) };
                (!progress.has_lost_its_log()).then_some(progress.matched.max(had))
            }
            MemberRole::Witness | MemberRole::LearningWitness | MemberRole::Observer => None,
        };
        self.membership().members.iter().filter_map(has).min().unwrap_or_default()
    }

    /// True where arithmetic shows that every voter with rows has, or had, what is committed, silent as it may be.
    ///
    /// That was acknowledged by half of the settled voters at least, rounded up: a change that is on its way, or was,
    /// moves the quorum by one voter. Where just so many are left beside the witnesses that cannot have done so, each of
    /// them has.
    fn all_had_what_is_committed(&self) -> bool {
        let State::Leader(lead) = &self.state else { return false };
        let settled = self.memberships.settled();
        let lacks = |id: &&NodeId| {
            let is_witness = settled.get(id).is_some_and(|member| member.role.is_witness());
            let progress = lead.progress.get(*id);
            is_witness && progress.is_some_and(|progress| progress.flow == Flow::Snapshot && !progress.quarantined)
        };
        let (voters, lacking) = (settled.voters().count(), settled.voters().filter(lacks).count());
        voters - lacking <= voters.div_ceil(2)
    }

    /// The log has reached its limit, or has room again. Only a witness refuses entries for it: what others have is in
    /// their state, and their logs are trimmed whoever lags.
    pub fn set_log_full(&mut self, is_full: bool) {
        self.log_is_full = is_full;
    }

    /// True where entries are refused for want of room in the log. Who joins under a witness's name is none before it has
    /// read so, for which it needs entries.
    pub(super) fn takes_no_entries(&self) -> bool {
        self.log_is_full && self.duty().is_some_and(MemberRole::is_witness)
    }

    /// Of a leader's entries those that this log has already.
    pub(super) fn those_here(&self, mut entries: Vec<Entry>) -> Vec<Entry> {
        let begin = self.log.previous().index;
        let is_here = |entry: &&Entry| entry.index <= begin || self.log.term(entry.index) == Some(entry.term);
        let count = entries.iter().take_while(is_here).count();
        entries.truncate(count);
        entries
    }
}
