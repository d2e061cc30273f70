//! What operators, and those who serve them, may know of a node.

use crate::ids::{DiskId, LogIndex, Term};
use crate::raft::{Flow, Membership, Node, NodeId};
use std::time::Duration;

/// What a node is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Takes what the leader sends.
    #[default]
    Follower,
    /// Asks for votes.
    Candidate,
    /// Orders the log.
    Leader,
}

/// A peer, as its leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub id: NodeId,
    /// Its log is the leader's up to here.
    pub matched: LogIndex,
    /// What it is sent.
    pub flow: Flow,
    /// How long ago it said anything.
    pub silent: Duration,
    /// The highest version of commands that it understands; none before it has said so.
    pub command_version: Option<u8>,
    /// Its disk is short of room, by its last word.
    pub is_disk_low: bool,
}

/// What an operator may ask about.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about a node")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// This node's role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Everything up to here is committed.
    pub committed: LogIndex,
    /// Everything up to here is in the state machine.
    pub applied: LogIndex,
    /// Beginning of the log: what is before it is only in the state.
    pub first: LogIndex,
    /// End of the log.
    pub last: LogIndex,
    /// Bytes proposed and not yet applied.
    pub proposals_bytes: usize,
    /// Bytes of the newest entries that are kept in memory for other members.
    pub tail_bytes: usize,
    /// The group.
    pub membership: Membership,
    /// The others, where this node leads.
    pub peers: Vec<Peer>,
    /// The members in whose names another disk speaks, where this node leads: they are to be removed and added again.
    pub replaced: Vec<NodeId>,
    /// Why the group does not count this node, where it does not.
    pub outcast: Option<Outcast>,
    /// The log was damaged, and is fetched again up to here.
    pub quarantined_until: Option<LogIndex>,
    /// Disks whose removal is committed.
    pub dismissed: Vec<DiskId>,
    /// Where this node leads with a wall clock that is too far from the others': milliseconds that theirs are ahead of it.
    pub clock_off: Option<i64>,
    /// Voters that are waited for before the group begins.
    pub awaited: Vec<NodeId>,
    /// The group has this node for a witness, by the newest word of its log.
    pub is_witness: bool,
    /// Every member that has rows has the log durably up to here, as far as this node knows.
    pub held: LogIndex,
    /// The same, or had it before it lost its disk, or is about to go.
    pub once_held: LogIndex,
    /// This witness takes no more entries.
    pub log_is_full: bool,
    /// This node's disk is short of room: where it leads, it refuses what grows.
    pub is_disk_low: bool,
    /// And it follows, and has fallen behind.
    pub starves: bool,
}

/// Why a group does not count a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcast {
    /// Its disk is another one than the one that its name had.
    NewDisk,
    /// It was removed.
    Removed,
    /// A leader has other entries than those that are committed here.
    Contradicted,
}

impl Node {
    /// Role, term and positions.
    pub fn status(&self) -> Status {
        Status {
            role: self.role(),
            term: self.hard_state.term,
            leader: self.leader.clone(),
            committed: self.committed,
            applied: self.applied,
            first: self.log.previous().index.next(),
            last: self.log.last().index,
            proposals_bytes: self.in_flight_bytes,
            tail_bytes: self.log.tail_bytes(),
            membership: self.membership().clone(),
            peers: self.peers(),
            replaced: self.replaced(),
            outcast: self.outcast,
            quarantined_until: self.hard_state.quarantined_until,
            dismissed: self.memberships.removed().to_vec(),
            clock_off: self.clock_off(),
            awaited: self.awaited(),
            is_witness: self.is_witness(),
            held: self.held(),
            once_held: self.once_held(),
            log_is_full: self.takes_no_entries(),
            is_disk_low: self.is_disk_low,
            starves: self.starves(),
        }
    }

    /// Why the group does not count this node, where it does not.
    pub fn outcast(&self) -> Option<Outcast> {
        self.outcast
    }
}
