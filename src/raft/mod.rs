//! Raft: consensus as a function from inputs to effects.
//!
//! Sources: Ongaro, "Consensus: Bridging Theory and Practice" (2014), by section in the code; etcd's documentation on
//! asynchronous storage writes for the shape of [`Ready`].
//!
//! ```text
//!             step, tick, propose              Ready
//!  peers  ──────────────────────────> Node ──────────────> entries, hard state   to the log thread
//!  clock        persisted, applied      ^                  after_persist         sent once those are durable
//!                                       │                  committed             to the state thread
//!                                       └──────────────────────── completions ──────────┘
//! ```
//!
//! The node does no input or output and reads no clock: the same inputs in the same order give the same outputs.
//! This module runs a group of one voter, with the write path, the hard state and the election of any group.
//! A leader of one still does everything in Raft's order: it raises its term and persists its vote before it counts it,
//! appends an entry of its own term before it serves reads (thesis 6.4), and counts its own copy of an entry only when
//! the log thread says that it is durable (10.2.1).
//!
//! Invariants:
//!
//! * `applied <= committed <= persisted <= last`
//! * a term has at most one leader; the term and the vote are durable before anything that rests on them is sent
//! * each entry's stamp is strictly above every stamp before it in the log

mod log;
mod node;
mod ready;

pub use crate::storage::wal::{Entry, HardState};
pub use log::{Payload, bootstrap};
pub use node::{Config, Naming, Node, Recovered, Role, Status};
pub use ready::{Message, Ready};

use serde::{Deserialize, Serialize};

/// A node's name within its group, as the operator gave it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub String);

impl NodeId {
    /// The number that stands for the id in a vote.
    pub fn number(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.0.as_bytes())
    }
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who belongs to the group: what entry 1 of every log says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Nodes that vote, sorted.
    pub voters: Vec<NodeId>,
}

impl Membership {
    /// A group of one.
    pub fn single(id: &NodeId) -> Membership {
        Membership { voters: vec![id.clone()] }
    }

    /// True where `id` alone decides.
    pub fn is_only(&self, id: &NodeId) -> bool {
        self.voters == [id.clone()]
    }

    /// The bytes that the log and the state record keep.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a membership has a plain encoding")
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8]) -> crate::Result<Membership> {
        postcard::from_bytes(bytes)
            .map_err(|error| crate::Error::damaged(format!("a membership does not decode: {error}")))
    }

    /// Votes that decide.
    pub fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }
}
