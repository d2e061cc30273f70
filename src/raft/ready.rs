//! What a node wants done.

use crate::ids::LogIndex;
use crate::raft::{Entry, Envelope, HardState, NodeId, Position};

/// Effects, in the order in which they must happen: first `hard_state` and `entries` become durable, in one batch;
/// then `after_persist` is sent. `messages` may be sent at any time, and what is `committed` may be applied once the log holds
/// an entry of that term there: until then another one is, which must not be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// To be made durable, where it changed.
    pub hard_state: Option<HardState>,
    /// To be appended; an entry at an index that the log has replaces it and all behind it.
    pub entries: Vec<Entry>,
    /// To be sent now, among them the leader's own entries: they travel while its disk works (thesis 10.2.1).
    pub messages: Vec<Envelope>,
    /// Promises that rest on `hard_state` and `entries`. A candidate sends its vote to itself.
    pub after_persist: Vec<Envelope>,
    /// Every entry up to here is committed.
    pub committed: Option<Position>,
    /// A group of one: what is persisted is thereby committed.
    pub commit_on_persist: bool,
    /// Answers to reads.
    pub reads: Vec<ReadAnswer>,
    /// Entries to be read from the disk for a peer, and handed to `loaded`.
    pub loads: Vec<Load>,
    /// Peers that need what the log no longer has: they are to be sent a snapshot.
    pub snapshots: Vec<NodeId>,
}

/// An answer to [`super::Node::read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadAnswer {
    /// Which read.
    pub id: u64,
    /// Once this much is applied here, the read sees all that was committed when it was asked. None: there is no leader
    /// that could say.
    pub index: Option<LogIndex>,
}

/// Entries wanted from the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// For whom.
    pub peer: NodeId,
    /// The first.
    pub from: LogIndex,
    /// About how many bytes.
    pub bytes_max: usize,
}

impl Ready {
    /// True where nothing is to be done.
    pub fn is_empty(&self) -> bool {
        *self == Ready { commit_on_persist: self.commit_on_persist, ..Ready::default() }
    }

    /// True where the log thread has something to do.
    pub fn writes(&self) -> bool {
        self.hard_state.is_some() || !self.entries.is_empty() || !self.after_persist.is_empty()
    }
}
