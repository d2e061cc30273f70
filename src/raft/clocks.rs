//! Wall clocks: a leader whose clock is far from the others' says so, and hands over (`steps_aside`).
//!
//! A leader stamps every write, and expiry goes by stamps: rows that it stamps an hour ahead live an hour too long. Followers
//! take its stamps whatever they are, or two clocks could stop a group. So it is the leader that compares: every answer to a
//! heartbeat carries the follower's wall clock.
//!
//! * The median of all voters counts, this one among them: one clock alone is never right against two. Of an even number
//!   the middle one that is nearer to this node's counts, so two nodes that differ accuse nobody.
//! * Only answers to a round that has just left count: those that waited while this node stood still are old.
//! * The successor's clock must be right by that median. Where nobody's is, the leader stays, and says so.

use crate::clock::{Monotonic, Wall};
use crate::raft::node::State;
use crate::raft::progress::Progress;
use crate::raft::{Node, NodeId};

impl Node {
    /// An answer to a round of heartbeats says what the sender's wall clock is.
    pub(super) fn note_clock(&mut self, from: &NodeId, round: u64, wall: Wall) {
        let now = self.now;
        let State::Leader(lead) = &mut self.state else { return };
        let sent = lead.next_heartbeat.saturating_sub(self.config.heartbeat);
        let is_prompt = round == lead.round && now.monotonic.saturating_sub(sent) < self.config.election_timeout;
        if let Some(progress) = lead.progress.get_mut(from).filter(|_| is_prompt) {
            progress.clock = Some((ahead(wall, now.wall), now.monotonic));
        }
    }

    /// Milliseconds that the voters' median clock is ahead of this leader's, where a quorum of them is known.
    pub(super) fn median_clock(&self) -> Option<i64> {
        let State::Leader(lead) = &self.state else { return None };
        let since = self.now.monotonic.saturating_sub(self.config.election_timeout);
        let clock = |id: &NodeId| {
            if *id == self.config.id { Some(0) } else { lead.progress.get(id).and_then(|peer| seen_since(peer, since)) }
        };
        let mut clocks: Vec<i64> = self.membership().voters().filter_map(clock).collect();
        clocks.sort_unstable();
        let (low, high) = (clocks.get(clocks.len().checked_sub(1)? / 2)?, clocks.get(clocks.len() / 2)?);
        let median = if low.unsigned_abs() <= high.unsigned_abs() { *low } else { *high };
        (clocks.len() >= self.membership().quorum()).then_some(median)
    }

    /// The same where it is further than is good.
    pub(super) fn clock_off(&self) -> Option<i64> {
        self.median_clock().filter(|median| u128::from(median.unsigned_abs()) > self.config.clock_drift_max.as_millis())
    }
}

/// How far a peer's clock was ahead, where it has said so lately.
pub(super) fn seen_since(peer: &Progress, since: Monotonic) -> Option<i64> {
    peer.clock.filter(|(_, at)| *at >= since).map(|(clock, _)| clock)
}

/// Milliseconds that one clock is ahead of another.
fn ahead(one: Wall, other: Wall) -> i64 {
    i64::try_from(i128::from(one.0) - i128::from(other.0)).unwrap_or(if one > other { i64::MAX } else { i64::MIN })
}
