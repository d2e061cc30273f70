//! What nodes say to each other.
//!
//! Every message carries its sender's term and disk. One that promises durability (a vote, an acknowledgement) is sent
//! only once what it promises is durable: it leaves in [`super::Ready::after_persist`].

use crate::clock::Wall;
use crate::ids::{DiskId, LogIndex, Term};
use crate::raft::{Entry, NodeId};
use crate::storage::wal::Position;
use serde::{Deserialize, Serialize};

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Who sends it.
    pub from: NodeId,
    /// The sender's disk.
    pub disk: DiskId,
    /// For whom.
    pub to: NodeId,
    /// The sender's term; of a pre-vote, the term it would stand in.
    pub term: Term,
    /// What it says.
    pub message: Message,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Would you vote for me? Nobody's term changes (thesis 9.6).
    PreVote {
        /// End of the candidate's log.
        last: Position,
    },
    /// Answer to it; granted ones carry the term asked for, others the voter's own.
    PreVoteReply {
        /// Yes or no.
        granted: bool,
    },
    /// Vote for me (3.4).
    Vote {
        /// End of the candidate's log.
        last: Position,
        /// The leader itself asked the candidate to stand (3.10): a leader that is alive is no reason to refuse.
        transfer: bool,
    },
    /// Answer to it.
    VoteReply {
        /// Yes or no.
        granted: bool,
    },
    /// Entries for the log (3.5).
    Append {
        /// The position before the first of them.
        previous: Position,
        /// Entries in order.
        #[serde(skip)]
        entries: Vec<Entry>,
        /// Everything up to here is committed.
        commit: LogIndex,
    },
    /// Answer to it.
    AppendReply(Verdict),
    /// The leader is there. Never behind entries, never waits for a disk.
    Heartbeat {
        /// Everything up to here is committed, and the receiver is known to have it.
        commit: LogIndex,
        /// Counts the leader's rounds: an answer to this one shows that it led when it was sent.
        round: u64,
        /// A round whose answer by the receiver had arrived when the leader sent one that a quorum has confirmed since:
        /// with everything up to `commit` applied, the receiver is as current as it was when it gave that answer. A
        /// round and no time, since clocks differ and messages tarry. None where the receiver lags, or nothing is
        /// confirmed.
        confirmed: Option<u64>,
        /// Every member that has rows, or is about to vote with them, has the log durably up to here: a witness may let go
        /// of it. 0 where the sender does not know.
        held: LogIndex,
    },
    /// Answer to it.
    HeartbeatReply {
        /// Which round.
        round: u64,
        /// The highest version of commands that the sender understands.
        command_version: u8,
        /// The sender holds its log for damaged until it has fetched it again up to here.
        quarantined_until: Option<LogIndex>,
        /// What the sender's wall clock says.
        wall: Wall,
        /// The sender's disk is short of room: as a leader it would refuse what grows.
        is_disk_low: bool,
    },
    /// Up to where must I have applied, to read what is committed now (6.4)?
    ReadIndex {
        /// The asker's number for it.
        id: u64,
    },
    /// Answer to it.
    ReadIndexReply {
        /// The asker's number.
        id: u64,
        /// The position; none where this node cannot say.
        index: Option<LogIndex>,
        /// Everything up to here is committed, and the receiver is known to have it.
        commit: LogIndex,
    },
    /// Stand at once: the leader steps aside (3.10).
    TimeoutNow,
    /// The receiver's disk is not the one that this name had. Nothing it says counts.
    NewDisk,
    /// The receiver is no member any more.
    Removed,
    /// The removal of a disk that had the receiver's name is committed: nothing that it holds counts any more.
    Dismissed {
        /// Which one.
        disk: DiskId,
    },
}

/// What a follower says to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The log is the leader's up to here, durably.
    Accepted {
        /// The last position that the message verified.
        matched: LogIndex,
    },
    /// The entry before is another one, or missing.
    Rejected {
        /// The position that was asked for.
        previous: LogIndex,
        /// The last position of this log at which it may agree: of the greatest term not above the one asked for.
        hint: Position,
        /// The log was damaged: what it is known to have held before does not count.
        quarantined: bool,
    },
    /// A witness whose log has reached its limit: it is the leader's up to here, durably, and takes no more for now.
    Full {
        /// The last position that the message verified and that is there.
        matched: LogIndex,
    },
}
