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
//! The node does no input or output and reads no clock: the same inputs in the same order give the same outputs. Chance
//! comes from a seed that is handed in.
//!
//! ```text
//!   Node: transitions, time     ─── arrival    whether a message counts, and who takes it
//!     │                         ─── follower   takes entries, answers
//!     │                         ─── candidate  pre-vote, vote
//!     ├── log: terms, tail      ─── leader ──> progress, one a peer; changes of the group, one at a time; clocks
//!     └── membership history    ─── read       index reads, lease
//!                               ─── witness    a vote and a log, without state
//!                               ─── steps_aside  who is fitter to lead
//! ```
//!
//! A group of one is led the same way, in Raft's order: the leader raises its term and persists its vote before it counts
//! it, appends an entry of its own term before it serves reads (thesis 6.4), and counts its own copy of an entry only when
//! the log thread says that it is durable (10.2.1). What is persisted is then committed, so the log thread goes on without
//! asking.
//!
//! Invariants:
//!
//! * `applied <= min(committed, persisted)`, and both of these `<= last`: a quorum commits without this node's disk, and
//!   nothing is applied before that has it
//! * a term has at most one leader; the term and the vote are durable before anything that rests on them is sent
//! * each entry's stamp is strictly above every stamp before it in the log

mod arrival;
mod candidate;
mod changes;
mod clocks;
mod codec;
mod entry;
mod follower;
mod leader;
mod log;
mod membership;
mod message;
mod node;
mod progress;
mod quorum;
mod read;
mod ready;
mod status;
mod steps_aside;
mod witness;

pub use crate::storage::wal::{Entry, HardState, Position, Terms};
pub use codec::WIRE_VERSION;
pub use entry::{Payload, bootstrap};
pub use membership::{Change, Known, MEMBERS_MAX, Member, MemberRole, Membership};
pub use message::{Envelope, Message, Verdict};
pub use node::{Config, Naming, Node, Now, Recovered};
pub use progress::{Delivery, Flow};
pub use ready::{Load, ReadAnswer, Ready};
pub use status::{Outcast, Peer, Role, Status};

use crate::ids::DiskId;
use serde::{Deserialize, Serialize};

/// A node's name within its group, as the operator gave it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub String);

impl NodeId {
    /// The number that stands for a node in a vote. Another disk under the same name is another candidate: it knows
    /// nothing of what the first one did with that vote.
    pub fn number(&self, disk: DiskId) -> u64 {
        let seed = (disk.0 >> 64) as u64 ^ disk.0 as u64;
        xxhash_rust::xxh3::xxh3_64_with_seed(self.0.as_bytes(), seed)
    }
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
