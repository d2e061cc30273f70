//! Who belongs to the group: what entry 1 of every log says, and each change after it.
//!
//! One voter at a time comes or goes, so any quorum of the old group and any of the new one have a node in common
//! (thesis 4.1), and a change counts from the moment at which a node appends it. A leader begins one only once an entry
//! of its own term is committed (the erratum of 2015): until then a change of an earlier term may still be alive
//! elsewhere.
//!
//! A node is known by its *disk*, a number drawn when its directory was formatted. A group is founded by all of its first
//! voters: each gives the first leader its vote, and that leader writes all of their disks down before any client writes.
//! From then on a node of that name with another disk has lost what it promised: it is refused until it is removed and
//! added again. And empty disks cannot found the group anew while one disk of it is left, however many they are.
//!
//! Where more disks are lost than a group survives, the operator names one member that counts ([`Membership::claimed_by`],
//! `admin recover`). That is the one change that no quorum decides, and the old members' disks stay written down as removed:
//! what they still say is answered, and never counted.
//!
//! Invariants:
//!
//! * at most one membership change is in the log and not committed
//! * two memberships that follow each other differ by at most one voter, but for a claim

use crate::ids::DiskId;
use crate::raft::NodeId;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The first byte of the encoding. The form before it began with the number of voters, which never was this many.
const MARK: u8 = 0xFF;

/// The version of the encoding behind the mark.
const VERSION: u8 = 2;

/// Members that a group may have. Beyond seven voters a commit waits for more disks than it gains safety; the rest is
/// room for learners.
pub const MEMBERS_MAX: usize = 16;

/// Disks of removed members that are remembered. A machine whose removal is so many removals ago and that still talks
/// takes a name only if its node was added again meanwhile.
const REMOVED_MAX: usize = 64;

/// What a member does in the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberRole {
    /// Votes and stores everything.
    #[default]
    Voter,
    /// Votes and stores the log, but no state.
    Witness,
    /// Stores everything and does not vote: becomes a voter once it has caught up.
    Learner,
    /// The same for a witness to be.
    LearningWitness,
    /// Stores everything and never votes.
    Observer,
}

impl MemberRole {
    /// What operators write, and read.
    pub fn name(self) -> &'static str {
        match self {
            MemberRole::Voter => "voter",
            MemberRole::Witness => "witness",
            MemberRole::Learner | MemberRole::LearningWitness => "learner",
            MemberRole::Observer => "observer",
        }
    }

    /// Reads what a member is to become.
    pub fn parse(name: &str) -> Option<MemberRole> {
        match name {
            "voter" | "" => Some(MemberRole::Voter),
            "witness" => Some(MemberRole::Witness),
            "observer" => Some(MemberRole::Observer),
            _ => None,
        }
    }

    /// True where it counts towards a quorum.
    pub fn votes(self) -> bool {
        match self {
            MemberRole::Voter | MemberRole::Witness => true,
            MemberRole::Learner | MemberRole::LearningWitness | MemberRole::Observer => false,
        }
    }

    /// What it becomes when it has caught up; none where it stays what it is.
    pub fn promoted(self) -> Option<MemberRole> {
        match self {
            MemberRole::Learner => Some(MemberRole::Voter),
            MemberRole::LearningWitness => Some(MemberRole::Witness),
            MemberRole::Voter | MemberRole::Witness | MemberRole::Observer => None,
        }
    }

    /// True where it keeps the log and no state.
    pub fn is_witness(self) -> bool {
        match self {
            MemberRole::Witness | MemberRole::LearningWitness => true,
            MemberRole::Voter | MemberRole::Learner | MemberRole::Observer => false,
        }
    }
}

/// One member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What it does.
    pub role: MemberRole,
    /// Where the others reach it.
    pub address: String,
    /// Its disk, once a leader has written it down.
    pub disk: Option<DiskId>,
}

/// The group at one position of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// All members, by name.
    pub members: BTreeMap<NodeId, Member>,
    /// The disks of members that were removed, oldest first: what they still say must not pass for a new member of the
    /// same name.
    pub removed: Vec<DiskId>,
    /// The highest version of commands that every member understands; none above it is proposed.
    pub command_version: u8,
}

/// The form before members had roles.
#[derive(Serialize, Deserialize)]
struct Voters {
    voters: Vec<NodeId>,
}

/// What an operator does to the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a member, which learns before it votes.
    Add {
        /// Its name.
        id: NodeId,
        /// Where the others reach it.
        address: String,
        /// What it is to become: a voter, a witness or an observer.
        role: MemberRole,
    },
    /// Removes a member.
    Remove {
        /// Its name.
        id: NodeId,
    },
}

impl Membership {
    /// A group of one, which understands what this program does.
    pub fn single(id: &NodeId) -> Membership {
        Membership {
            members: BTreeMap::from([(id.clone(), Member::default())]),
            removed: Vec::new(),
            command_version: crate::machine::COMMAND_VERSION,
        }
    }

    /// A group of voters that know each other by address. It is the same whichever programs they are: what all of them
    /// understand is found out by their leader.
    pub fn of(members: impl IntoIterator<Item = (NodeId, Member)>) -> Membership {
        Membership {
            members: members.into_iter().collect(),
            removed: Vec::new(),
            command_version: crate::machine::FIRST_COMMAND_VERSION,
        }
    }

    /// True where `id` alone decides.
    pub fn is_only(&self, id: &NodeId) -> bool {
        self.voters().eq([id])
    }

    /// The members that vote, sorted.
    pub fn voters(&self) -> impl Iterator<Item = &NodeId> + Clone {
        self.members.iter().filter(|(_, member)| member.role.votes()).map(|(id, _)| id)
    }

    /// One member.
    pub fn get(&self, id: &NodeId) -> Option<&Member> {
        self.members.get(id)
    }

    /// True where a member is reached there.
    pub fn has_address(&self, address: &str) -> bool {
        self.members.values().any(|member| member.address == address)
    }

    /// True where `id` votes.
    pub fn is_voter(&self, id: &NodeId) -> bool {
        self.get(id).is_some_and(|member| member.role.votes())
    }

    /// True where the disks of all voters are written down. One that decides alone is known by its directory.
    pub fn is_bound(&self) -> bool {
        let mut voters = self.members.values().filter(|member| member.role.votes());
        match self.voters().count() {
            0 => false,
            1 => true,
            _ => voters.all(|member| member.disk.is_some()),
        }
    }

    /// Copies that decide.
    pub fn quorum(&self) -> usize {
        self.voters().count() / 2 + 1
    }

    /// Votes that elect. Before the disks are written down all of them: a voter that is not asked may be the one whose disk
    /// has the data, and those that are asked may have lost theirs.
    pub fn votes_to_lead(&self) -> usize {
        if self.is_bound() { self.quorum() } else { self.voters().count() }
    }

    /// The group after a change, or why there is none.
    pub fn changed(&self, change: &Change) -> Result<Membership> {
        let mut next = self.clone();
        match change {
            Change::Add { id, address, role } => {
                if let Some(member) = self.get(id) {
                    return Err(refused(format!("{id} is a member already, at {}", member.address))
                        .hint("remove it first where it has a new disk or address"));
                }
                if let Some((other, _)) = self.members.iter().find(|(_, member)| member.address == *address) {
                    return Err(refused(format!("{other} has the address {address} already")));
                }
                if self.members.len() >= MEMBERS_MAX {
                    return Err(refused(format!("the group has {MEMBERS_MAX} members, which is the most it may have")));
                }
                let role = match role {
                    MemberRole::Voter | MemberRole::Learner => MemberRole::Learner,
                    MemberRole::Witness | MemberRole::LearningWitness => MemberRole::LearningWitness,
                    MemberRole::Observer => MemberRole::Observer,
                };
                next.members.insert(id.clone(), Member { role, address: address.clone(), disk: None });
            }
            Change::Remove { id } => {
                let Some(member) = next.members.remove(id) else {
                    let members: Vec<&str> = self.members.keys().map(|id| id.0.as_str()).collect();
                    return Err(refused(format!("{id} is no member: those are {}", members.join(", "))));
                };
                let keeps_state = |member: &Member| member.role == MemberRole::Voter;
                if keeps_state(&member) && !next.members.values().any(keeps_state) {
                    return Err(refused(format!("{id} is the last voter that has the data"))
                        .hint("add another node before this one goes"));
                }
                member.disk.into_iter().for_each(|disk| next.forget(disk));
            }
        }
        Ok(next)
    }

    /// The group where only `id`, on `disk`, counts from here on: all others are removed, disks and all.
    #[must_use]
    pub fn claimed_by(&self, id: &NodeId, disk: DiskId) -> Membership {
        let address = self.get(id).map_or_else(String::new, |member| member.address.clone());
        let this = Member { role: MemberRole::Voter, address, disk: Some(disk) };
        let mut next = Membership { members: BTreeMap::from([(id.clone(), this)]), ..self.clone() };
        let others = self.members.iter().filter(|(other, _)| *other != id).filter_map(|(_, member)| member.disk);
        others.filter(|other| *other != disk).for_each(|other| next.forget(other));
        next
    }

    /// Writes down that a disk does not count any more.
    pub(super) fn forget(&mut self, disk: DiskId) {
        if !self.removed.contains(&disk) {
            self.removed.push(disk);
        }
        if self.removed.len() > REMOVED_MAX {
            self.removed.remove(0);
        }
    }

    /// The bytes that the log and the state record keep.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![MARK, VERSION]).expect("a membership has a plain encoding")
    }

    /// Reads what `encode` wrote, and the form before it.
    pub fn decode(bytes: &[u8]) -> Result<Membership> {
        let malformed = |error| Error::not_understood(format!("a membership does not decode: {error}"));
        match bytes {
            [MARK, VERSION, body @ ..] => postcard::from_bytes(body).map_err(malformed),
            [MARK, version, ..] => Err(Error::not_understood(format!(
                "a membership of version {version}, and this chronos knows up to {VERSION}: start a newer one"
            ))),
            older => {
                let Voters { voters } = postcard::from_bytes(older).map_err(malformed)?;
                Ok(Membership::of(voters.into_iter().map(|id| (id, Member::default()))))
            }
        }
    }
}

fn refused(text: String) -> Error {
    Error::invalid(crate::error::SqlState::CONFIG_ERROR, text)
}

/// How a node knows what its state says of the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// It was committed here.
    #[default]
    Committed,
    /// It is the newest word of a log whose state is lost, and was perhaps taken back.
    Hearsay,
}

/// The memberships of the log: the one that is settled, and those behind it that a later leader may still take back.
#[derive(Clone, Debug)]
pub(super) struct History {
    settled: Membership,
    /// How it is known.
    known: Known,
    /// (position, membership), ascending.
    later: Vec<(crate::ids::LogIndex, Membership)>,
}

impl History {
    /// What a node starts with: the membership of its state, and those in the log behind it.
    pub(super) fn new(settled: Membership, known: Known, later: Vec<(crate::ids::LogIndex, Membership)>) -> History {
        History { settled, known, later }
    }

    /// What counts: the newest in the log.
    pub(super) fn newest(&self) -> &Membership {
        self.later.last().map_or(&self.settled, |(_, membership)| membership)
    }

    /// What is committed, or the best guess at it.
    pub(super) fn settled(&self) -> &Membership {
        &self.settled
    }

    /// True where it is settled which disk would get it. Until then the addition of who joins may be taken back, and its name
    /// go to another disk, for another role: a witness's state has no rows. A voter was bound before it voted, or is counted
    /// on to commit that.
    pub(super) fn may_be_brought_a_snapshot(&self, id: &NodeId) -> bool {
        self.newest().is_voter(id) || self.settled.get(id).is_some_and(|member| member.disk.is_some())
    }

    /// The disks whose removal is committed. Nothing is said of any on hearsay: who was once told that it is removed is out
    /// for good.
    pub(super) fn removed(&self) -> &[DiskId] {
        match self.known {
            Known::Committed => &self.settled.removed,
            Known::Hearsay => &[],
        }
    }

    /// What counts again should the newest one be taken back; none where it is settled.
    pub(super) fn before(&self) -> Option<&Membership> {
        let (_, before) = self.later.split_last()?;
        Some(before.last().map_or(&self.settled, |(_, membership)| membership))
    }

    /// Where the newest one is that is not settled.
    pub(super) fn unsettled(&self) -> Option<crate::ids::LogIndex> {
        self.later.last().map(|(index, _)| *index)
    }

    /// An entry says so.
    pub(super) fn push(&mut self, index: crate::ids::LogIndex, membership: Membership) {
        self.later.push((index, membership));
    }

    /// Everything from `from` on is taken back; true where that changes what counts.
    pub(super) fn truncate(&mut self, from: crate::ids::LogIndex) -> bool {
        let before = self.later.len();
        self.later.retain(|(index, _)| *index < from);
        before != self.later.len()
    }

    /// Everything up to `index` is committed.
    pub(super) fn settle(&mut self, index: crate::ids::LogIndex) {
        while self.later.first().is_some_and(|(at, _)| *at <= index) {
            self.settled = self.later.remove(0).1;
            self.known = Known::Committed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId(name.into())
    }

    fn three() -> Membership {
        Membership::of(
            ["a", "b", "c"].map(|name| (id(name), Member { address: format!("{name}:1"), ..Member::default() })),
        )
    }

    #[test]
    fn the_form_before_roles_is_read() {
        let older = postcard::to_stdvec(&Voters { voters: vec![id("a"), id("b")] }).unwrap();
        let read = Membership::decode(&older).unwrap();
        assert!(read.voters().eq([&id("a"), &id("b")]));
        assert_eq!(Membership::decode(&read.encode()).unwrap(), read);
        assert!(Membership::decode(&[MARK, 9]).unwrap_err().message().contains("version 9"));
    }

    #[test]
    fn a_new_member_learns_first() {
        let change = Change::Add { id: id("d"), address: "d:1".into(), role: MemberRole::Voter };
        let next = three().changed(&change).unwrap();
        assert_eq!((next.quorum(), next.get(&id("d")).unwrap().role), (2, MemberRole::Learner));
    }

    #[test]
    fn wrong_changes_are_named() {
        let add =
            |name: &str, address: &str| Change::Add { id: id(name), address: address.into(), role: MemberRole::Voter };
        for (change, says) in [
            (add("a", "x:1"), "a is a member already, at a:1"),
            (add("d", "b:1"), "b has the address b:1 already"),
            (Change::Remove { id: id("d") }, "d is no member: those are a, b, c"),
        ] {
            assert!(three().changed(&change).unwrap_err().message().contains(says), "{change:?}");
        }
        let last = Membership::single(&id("a")).changed(&Change::Remove { id: id("a") });
        assert!(last.unwrap_err().message().contains("the last voter"));
    }

    #[test]
    fn what_a_later_leader_takes_back_no_longer_counts() {
        use crate::ids::LogIndex;
        let without = three().changed(&Change::Remove { id: id("c") }).unwrap();
        let mut history = History::new(three(), Known::Committed, vec![]);
        history.push(LogIndex(5), without.clone());
        assert_eq!(history.newest(), &without);
        assert!(history.truncate(LogIndex(5)) && !history.truncate(LogIndex(5)));
        assert_eq!(history.newest(), &three());
        history.push(LogIndex(6), without.clone());
        history.settle(LogIndex(6));
        assert_eq!((history.newest(), history.unsettled()), (&without, None));
    }

    #[test]
    fn a_removal_known_by_hearsay_is_not_said_to_anybody() {
        use crate::ids::LogIndex;
        let mut without = three();
        without.forget(DiskId(7));
        let mut history = History::new(without.clone(), Known::Hearsay, vec![]);
        history.push(LogIndex(5), without.clone());
        assert_eq!((history.newest(), history.removed()), (&without, &[][..]));
        history.settle(LogIndex(5));
        assert_eq!(history.removed(), [DiskId(7)]);
    }
}
