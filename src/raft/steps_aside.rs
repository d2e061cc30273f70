//! Stepping aside: a leader hands over by itself to a voter that is fitter to lead.
//!
//! Two things make one unfit, and neither makes it a bad follower: a wall clock that is far from the others' (`clocks`), and
//! a disk that is short of room. A leader short of disk refuses whatever would grow it, for a whole group that may have room.
//!
//! | fitness | wall clock | disk |
//! |---|---|---|
//! | best | right | has room |
//! | | right | is short of it |
//! | | wrong | has room |
//! | worst | wrong | is short of it |
//!
//! * It hands over only to a voter that is fitter than itself, and never to an equal. So leadership goes up this table until
//!   nobody is fitter, and in no circle: a full leader does not hand over to one with a wrong clock that would hand back.
//! * The clock counts more than the disk. What a wrong clock has stamped stays wrong, and what expires by it is gone; a write
//!   that is refused can be asked for again, and both are said aloud (`Status`).
//! * Room is each one's own word, in its answers to heartbeats, so two leaders judge it alike. A clock that nobody has seen
//!   lately is taken for as right as this leader's own: it is a reason neither for nor against. So that this is rare, a leader
//!   waits for an election timeout, in which all that answer have done so.
//! * Where nobody is fitter it stays: one that is short of disk serves reads and deletes, and refuses the rest.
//! * A node that is short of disk stands for election like any other, for it may be the only one that has the log. What it
//!   wins it hands on.

use crate::raft::clocks::seen_since;
use crate::raft::node::State;
use crate::raft::progress::Progress;
use crate::raft::{Node, NodeId};
use crate::{Error, Result};

/// Election timeouts between two attempts to hand over. During one nothing is proposed, so that it costs writes.
const ATTEMPT_PAUSE: u32 = 20;

/// A follower that is short of disk is taken to starve once what it has is older than so many election timeouts: a change of
/// the leader takes two or three.
const STARVES_AFTER: u32 = 10;

/// How fit a voter is to lead. The order of the fields is that of what counts more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fitness {
    has_right_clock: bool,
    has_room: bool,
}

impl Node {
    /// The disk of this node is short of room, or has room again. It is told: it looks at no disk itself.
    pub fn set_disk_low(&mut self, is_low: bool) {
        self.is_disk_low = is_low;
    }

    /// An answer to a heartbeat says whether the sender's disk is short of room.
    pub(super) fn note_room(&mut self, from: &NodeId, is_low: bool) {
        let State::Leader(lead) = &mut self.state else { return };
        if let Some(progress) = lead.progress.get_mut(from) {
            progress.is_disk_low = is_low;
        }
    }

    /// True where this node follows, its disk is short of room, and what it has is old: it takes no more, and what is read
    /// here falls behind.
    pub(super) fn starves(&self) -> bool {
        let age_max = self.config.election_timeout * STARVES_AFTER;
        let is_old = self.staleness(self.now.monotonic).is_none_or(|age| age > age_max);
        self.is_disk_low && is_old && !matches!(self.state, State::Leader(_))
    }

    fn own_fitness(&self) -> Fitness {
        Fitness { has_right_clock: self.clock_off().is_none(), has_room: !self.is_disk_low }
    }

    /// Judges other voters, by what is known now.
    pub(super) fn judge(&self) -> impl Fn(&Progress) -> Fitness + use<> {
        let (own, median) = (self.own_fitness(), self.median_clock());
        let since = self.now.monotonic.saturating_sub(self.config.election_timeout);
        let bound = self.config.clock_drift_max.as_millis();
        move |peer| {
            let seen = seen_since(peer, since).zip(median);
            let is_right = seen.map(|(clock, median)| u128::from(clock.abs_diff(median)) <= bound);
            Fitness { has_right_clock: is_right.unwrap_or(own.has_right_clock), has_room: !peer.is_disk_low }
        }
    }

    /// Hands over to the voter that is fittest to lead, where this node is less fit. One that has nothing of this term on its
    /// disk is far behind, or its disk stands still.
    pub(super) fn hand_over_to_a_fitter_one(&mut self) {
        let own = self.own_fitness();
        let State::Leader(lead) = &self.state else { return };
        let (now, since) = (self.now.monotonic, lead.since);
        let is_fit = own.has_right_clock && own.has_room;
        let waits = now < lead.steps_aside_after || lead.transfer.is_some() || self.committed < since;
        if is_fit || waits || self.is_witness() {
            return;
        }
        let judge = self.judge();
        let fitter = |peer: &Progress| Some(judge(peer)).filter(|fitness| *fitness > own && peer.matched >= since);
        let Some(to) = self.best_by(|peer| fitter(peer).map(|fitness| (fitness, peer.matched))) else { return };
        let pause = self.config.election_timeout * ATTEMPT_PAUSE;
        if let State::Leader(lead) = &mut self.state {
            lead.steps_aside_after = now + pause;
        }
        self.begin_transfer(to);
    }

    /// Refuses a successor that is short of disk, where it would hand on at once. Where nobody is fitter it may lead as well
    /// as this node.
    pub(super) fn check_room(&self, to: &NodeId) -> Result<()> {
        let State::Leader(lead) = &self.state else { return Ok(()) };
        let Some(heir) = lead.progress.get(to).filter(|heir| heir.is_disk_low) else { return Ok(()) };
        let judge = self.judge();
        let heir = judge(heir);
        if self.own_fitness() > heir || self.best_by(|peer| Some(judge(peer)).filter(|other| *other > heir)).is_some() {
            return Err(Error::unavailable(format!(
                "{to} is short of disk, and would hand leadership on at once: free space there, or name a voter that has room"
            )));
        }
        Ok(())
    }
}
