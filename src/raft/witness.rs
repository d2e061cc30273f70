//! What a witness is to the consensus: a vote and a log, without the state that the log makes.
//!
//! It is there for the moment in which another member is not. So it keeps what that one may still need: an entry may leave
//! its log only once every member that has rows, or is about to vote with them, has it durably. The leader knows, and says
//! so in each heartbeat ([`Node::held`]).
//!
//! * While a change of the group is not committed the leader says nothing: a member that is on its way out may stay.
//! * What it is told holds for as long as disks keep what they have; a member in quarantine has lost something, and counts
//!   as one that has nothing.
//! * A log cannot grow for ever: at its limit a witness takes no more entries. What it does not have it does not
//!   acknowledge, so it counts for nothing but votes until others have caught up and it may let go of something.
//! * What a disk is for is known once a committed membership names it: a name alone may have been another disk's.

use crate::ids::LogIndex;
use crate::raft::node::State;
use crate::raft::{Entry, Member, MemberRole, Node, NodeId};

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
