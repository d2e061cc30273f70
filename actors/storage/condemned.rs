//! A state that is to be given up, because a block of it is damaged or because the group's is another one.
//!
//! Two parties find that out, the engine's threads and whoever compares copies; the storage actor acts on it, once others
//! can do without this node: it gives the lead away, and then the state. What is damaged is never served meanwhile, and the
//! rest is served as ever.

use chronos::error::{Error, Kind, SqlState};
use chronos::raft::{Role, Status};
use chronos::storage::engine::has_others;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why the present state is to be given up, where it is.
#[derive(Default)]
pub struct Condemned {
    why: Mutex<Option<Error>>,
    /// The engine cannot go on with it.
    is_fatal: AtomicBool,
}

/// What is to be done about it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is all there is, or nobody leads the group.
    Wait,
    /// Another node is to lead first.
    HandOver,
    /// The group goes on without this copy.
    GiveUp,
}

impl Condemned {
    /// The first reason stays.
    pub fn condemn(&self, why: Error) {
        self.lock().get_or_insert(why);
    }

    /// The engine has ended over it.
    pub fn end(&self, why: Error) {
        self.condemn(why);
        self.is_fatal.store(true, Ordering::Release);
    }

    /// The reason, where the engine has ended over it.
    pub fn fatal(&self) -> Option<Error> {
        self.why().filter(|_| self.is_fatal.load(Ordering::Acquire))
    }

    /// The reason, where there is one.
    pub fn why(&self) -> Option<Error> {
        self.lock().clone()
    }

    /// No code panics while it holds this lock.
    fn lock(&self) -> MutexGuard<'_, Option<Error>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be done by a node that stands so.
pub fn step(status: &Status, id: &str) -> Step {
    if !has_others(&status.membership, id) || status.quarantined_until.is_some() {
        return Step::Wait;
    }
    match status.role {
        Role::Leader => Step::HandOver,
        // One that votes is not counted until it has a state again: not before somebody leads, or nobody might.
        Role::Follower if status.leader.is_some() => Step::GiveUp,
        Role::Follower | Role::Candidate => Step::Wait,
    }
}

/// What a failure of the engine means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// That the engine is ending is what its threads find then, and no failure of the disk.
    Told,
    /// The state is to be given up, where others have it.
    Damage,
    /// The process ends, with everything left as it is.
    Fatal,
}

/// Tells them apart. A log that is whole, and not understood, is the same on every replica: were it taken for damage, all of
/// them would give up their copies, and with the last one what was acknowledged. A newer program goes on with what is there.
pub fn judge(error: &Error, is_ending: bool, is_condemned: bool) -> Failure {
    if error.sqlstate() == SqlState::NOT_UNDERSTOOD {
        return Failure::Fatal;
    }
    // A state that is not the group's may fail in any way.
    let other = if is_condemned { Failure::Damage } else { Failure::Fatal };
    match error.kind() {
        Kind::Unavailable | Kind::Damaged if is_ending => Failure::Told,
        Kind::Damaged => Failure::Damage,
        Kind::Invalid
        | Kind::Conflict
        | Kind::Limit
        | Kind::Unavailable
        | Kind::Overloaded
        | Kind::InDoubt
        | Kind::Io
        | Kind::Internal => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos::ids::LogIndex;
    use chronos::raft::{Member, MemberRole, Membership, NodeId};

    #[test]
    fn a_log_that_is_not_understood_ends_the_process_and_gives_nothing_up() {
        let unknown = chronos::machine::Command::decode(&[9]).unwrap_err();
        for is_condemned in [false, true] {
            assert_eq!(judge(&unknown, false, is_condemned), Failure::Fatal);
        }
        let (damage, other) = (Error::damaged("a block"), Error::internal("a panic"));
        assert_eq!((judge(&damage, false, false), judge(&damage, true, false)), (Failure::Damage, Failure::Told));
        assert_eq!((judge(&other, false, false), judge(&other, false, true)), (Failure::Fatal, Failure::Damage));
    }

    fn status(members: &[(&str, MemberRole)]) -> Status {
        let member =
            |(id, role): &(&str, MemberRole)| (NodeId((*id).to_string()), Member { role: *role, ..Member::default() });
        let leader = Some(NodeId("b".to_string()));
        Status { membership: Membership::of(members.iter().map(member)), leader, ..Status::default() }
    }

    #[test]
    fn the_only_copy_is_never_given_up() {
        assert_eq!(step(&status(&[("a", MemberRole::Voter)]), "a"), Step::Wait);
        let witness = [("a", MemberRole::Voter), ("b", MemberRole::Witness)];
        assert_eq!(step(&status(&witness), "a"), Step::Wait, "a witness has no state");
        assert_eq!(step(&status(&[("a", MemberRole::Voter), ("b", MemberRole::Learner)]), "a"), Step::Wait);
        assert_eq!(step(&status(&[("a", MemberRole::Learner), ("b", MemberRole::Voter)]), "a"), Step::GiveUp);
    }

    #[test]
    fn a_copy_is_given_up_by_a_follower_whose_group_has_a_leader() {
        let group = status(&[("a", MemberRole::Voter), ("b", MemberRole::Voter)]);
        assert_eq!(step(&group, "a"), Step::GiveUp);
        assert_eq!(step(&Status { leader: None, ..group.clone() }, "a"), Step::Wait);
        assert_eq!(step(&Status { role: Role::Candidate, ..group.clone() }, "a"), Step::Wait);
        assert_eq!(step(&Status { role: Role::Leader, ..group.clone() }, "a"), Step::HandOver);
        assert_eq!(step(&Status { quarantined_until: Some(LogIndex(9)), ..group }, "a"), Step::Wait);
    }
}
