//! Changing the group, by a leader: what operators ask for, and what it learns of the members.
//!
//! * One change at a time, and only once an entry of the present term is committed (the erratum of 2015).
//! * The one exception changes no quorum: a leader that all first voters have elected writes down the disks that they have
//!   voted with, right behind its first entry. A group is founded with that.
//! * A member is removed only where those who stay can decide: a quorum of them has answered a moment ago. Were it not so,
//!   the removal itself could not be committed, and nothing else any more (as etcd's strict check of reconfigurations).
//! * A group uses the commands that all of its members understand. Who joins and understands less is not promoted.
//! * Where a member says that it is reached elsewhere now, that is written down for the others.

use crate::ids::{DiskId, LogIndex};
use crate::raft::node::{Now, State};
use crate::raft::progress::Progress;
use crate::raft::{Change, Member, MemberRole, Membership, Message, Node, NodeId, Payload};
use crate::{Error, Result};

impl Node {
    /// Writes down the disks of all first voters, which are those that they have voted with.
    pub(super) fn found(&mut self) {
        let mut founded = self.membership().clone();
        if founded.is_bound() {
            return;
        }
        for (id, member) in founded.members.iter_mut().filter(|(_, member)| member.role.votes()) {
            let voted = if *id == self.config.id { Some(self.config.disk) } else { self.heard_disk(id) };
            member.disk = member.disk.or(voted);
        }
        if founded.is_bound() {
            self.append(&Payload::Membership(founded));
        }
    }

    /// Voters whose vote is missing, where the group is yet to be founded and this node stands for it.
    pub fn awaited(&self) -> Vec<NodeId> {
        match &self.state {
            State::Candidate(candidacy) if !self.membership().is_bound() => {
                let granted = candidacy.disks();
                let is_missing = |id: &&NodeId| **id != self.config.id && granted.iter().all(|(voter, _)| voter != *id);
                self.membership().voters().filter(is_missing).cloned().collect()
            }
            State::Candidate(_) | State::Follower | State::Leader(_) => Vec::new(),
        }
    }

    /// A member says, on this disk, where it is reached.
    pub fn reached_at(&mut self, peer: &NodeId, disk: DiskId, address: &str) {
        let bound = self.membership().get(peer).and_then(|member| member.disk);
        if let State::Leader(lead) = &mut self.state
            && let Some(progress) = lead.progress.get_mut(peer)
            && bound.or(progress.disk) == Some(disk)
            && !address.is_empty()
            && progress.address.as_deref() != Some(address)
        {
            progress.address = Some(address.to_owned());
        }
    }

    /// A leader that is no member any more has done its last work.
    pub(super) fn leave_where_removed(&mut self) {
        if self.memberships.unsettled().is_some() || self.this().is_some() {
            return;
        }
        // The others learn that it is committed, and one of them stands at once.
        self.begin_round();
        if let Some(next) = self.best_voter() {
            self.send(&next, Message::TimeoutNow);
        }
        self.follow(self.hard_state.term, None);
    }

    /// Writes down what has been learned of the members: their disks, the version of commands that all understand, and
    /// that a learner has caught up. One voter at a time, and nothing while somebody takes over: an entry that the heir does
    /// not have would keep it from being elected. Of a witness everybody but the heir may be waiting for that entry.
    pub(super) fn amend(&mut self) {
        let (now, last) = (self.now.monotonic, self.log.last().index);
        let (timeout, is_witness) = (self.config.election_timeout, self.is_witness());
        let State::Leader(lead) = &mut self.state else { return };
        let current = self.memberships.newest();
        let hands_over = lead.transfer.is_some() && !is_witness;
        if hands_over || self.committed < lead.since || self.memberships.unsettled().is_some() {
            return;
        }
        let mut next = current.clone();
        if current.members.len() <= 1 {
            // Written where a newer program has taken over the directory, and else nothing.
            if current.command_version < crate::machine::COMMAND_VERSION {
                next.command_version = crate::machine::COMMAND_VERSION;
                self.change_to(next);
            }
            return;
        }
        let mut version = crate::machine::COMMAND_VERSION;
        let mut promoted = false;
        for (id, member) in &mut next.members {
            let Some(progress) = lead.progress.get_mut(id) else {
                member.disk = member.disk.or(Some(self.config.disk));
                if !self.config.address.is_empty() {
                    member.address.clone_from(&self.config.address);
                }
                continue;
            };
            member.disk = member.disk.or(progress.disk);
            // No two are reached at one place: who says so is wrong, or the other one has yet to say where it is.
            if let Some(address) = progress.address.as_ref().filter(|address| !current.has_address(address)) {
                member.address.clone_from(address);
            }
            version = version.min(progress.command_version.unwrap_or(current.command_version));
            if let Some(role) = member.role.promoted()
                && progress.matched >= progress.goal.0
            {
                let is_quick = now.saturating_sub(progress.goal.1) <= timeout && progress.heard + timeout >= now;
                progress.goal = (last, now);
                // One that does not understand the group's commands would stop at the first of them, and its vote with it.
                let understands = progress.command_version.is_some_and(|version| version >= current.command_version);
                if is_quick && !promoted && !progress.quarantined && understands {
                    member.role = role;
                    promoted = true;
                }
            }
        }
        next.command_version = current.command_version.max(version);
        if next != *current {
            self.change_to(next);
        }
    }

    fn change_to(&mut self, membership: Membership) -> LogIndex {
        let index = self.append(&Payload::Membership(membership));
        self.follow_members();
        // The new group decides from here on, and a smaller one may have decided already.
        self.count_copies();
        index
    }

    /// Changes the group. The change is done once its entry is committed.
    pub fn change(&mut self, change: &Change, now: Now) -> Result<LogIndex> {
        self.advance(now);
        self.check_leading()?;
        let State::Leader(lead) = &self.state else {
            return Err(Error::unavailable(format!("no leader (term {})", self.hard_state.term)));
        };
        if self.committed < lead.since || self.memberships.unsettled().is_some() {
            return Err(Error::unavailable("another change of the group is under way, retry"));
        }
        let mut next = self.membership().changed(change)?;
        if let Change::Remove { id } = change {
            if !self.keeps_data_without(id) {
                return Err(Error::unavailable(format!(
                    "{id} is the last voter that has the data and answers: retry once another one has caught up"
                )));
            }
            self.check_quorum_of(id, &next)?;
            self.heard_disk(id).into_iter().for_each(|disk| next.forget(disk));
        }
        Ok(self.change_to(next))
    }

    /// Refuses the removal of `id` where those who vote without it could not decide.
    fn check_quorum_of(&self, id: &NodeId, next: &Membership) -> Result<()> {
        let State::Leader(lead) = &self.state else { return Ok(()) };
        let since = self.now.monotonic.saturating_sub(self.config.election_timeout);
        let answers = |voter: &NodeId| {
            let is_heard = |progress: &Progress| progress.disk.is_some() && progress.heard >= since;
            *voter == self.config.id || lead.progress.get(voter).is_some_and(is_heard)
        };
        let silent: Vec<&str> = next.voters().filter(|voter| !answers(voter)).map(|voter| voter.0.as_str()).collect();
        let voters = next.voters().count();
        if voters - silent.len() >= next.quorum() {
            return Ok(());
        }
        let text = format!(
            "without {id} the group could not decide: of its {voters} voters {} must answer, and {} does not",
            next.quorum(),
            silent.join(", ")
        );
        Err(Error::unavailable(text).hint("start those first, or remove one of them instead"))
    }

    /// True where a full voter other than `id` answers and has what was there before this leader; the rest is in the logs
    /// of those who stay.
    fn keeps_data_without(&self, id: &NodeId) -> bool {
        let State::Leader(lead) = &self.state else { return false };
        let since = self.now.monotonic.saturating_sub(self.config.election_timeout);
        let has_it = |progress: &Progress| {
            !progress.quarantined && progress.heard >= since && progress.matched.next() >= lead.since
        };
        let is_full = |member: &Member| member.role == MemberRole::Voter;
        self.membership()
            .members
            .iter()
            .filter(|(other, member)| *other != id && is_full(member))
            .any(|(other, _)| *other == self.config.id || lead.progress.get(other).is_some_and(has_it))
    }
}
