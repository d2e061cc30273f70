//! What happens, and when.

use super::disk::State;
use super::ledger::Command;
use chronos::ids::{DiskId, LogIndex, Term};
use chronos::raft::{Envelope, Load, Message, NodeId, Verdict};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Something that happens.
#[derive(Debug)]
pub(super) enum Event {
    Tick {
        host: usize,
    },
    /// A connection ends with the disk behind it.
    Deliver {
        to: usize,
        disk: DiskId,
        /// The how manieth that was sent; none of a copy.
        number: Option<u64>,
        envelope: Box<Envelope>,
    },
    Persisted {
        host: usize,
        life: u64,
    },
    Loaded {
        host: usize,
        life: u64,
        load: Box<Load>,
    },
    Snapshot {
        from: usize,
        to: usize,
        disk: DiskId,
        life: u64,
        term: Term,
        state: Box<State>,
        /// It is for the disk that the sender knew.
        is_meant: bool,
    },
    SnapshotEnded {
        host: usize,
        life: u64,
        peer: NodeId,
        installed: Option<LogIndex>,
    },
    Start {
        host: usize,
    },
    /// A machine that stood still may go on.
    Wake {
        host: usize,
    },
    /// Clients and operators come to a leader that has a successor, which has answered others already.
    Deposed {
        host: usize,
    },
    /// The disk that was taken out comes back.
    PutBack {
        host: usize,
    },
    /// A client's write that a follower has handed on.
    Forwarded {
        host: usize,
        client: usize,
        command: Command,
        known: LogIndex,
    },
    /// Whoever was to take over leads by now, or does not.
    TransferDue {
        term: Term,
    },
    Client,
    Fault,
    /// The weather turns.
    Weather {
        storm: bool,
    },
}

impl Event {
    /// Whom it happens to, where it has to wait while that one stands still.
    pub(super) fn host(&self) -> Option<usize> {
        match self {
            Event::Tick { host }
            | Event::Deliver { to: host, .. }
            | Event::Persisted { host, .. }
            | Event::Loaded { host, .. }
            | Event::Snapshot { to: host, .. }
            | Event::SnapshotEnded { host, .. }
            | Event::Forwarded { host, .. }
            | Event::PutBack { host }
            | Event::Start { host } => Some(*host),
            Event::Wake { .. }
            | Event::Deposed { .. }
            | Event::TransferDue { .. }
            | Event::Client
            | Event::Fault
            | Event::Weather { .. } => None,
        }
    }

    /// A number that tells it from others: two runs with the same ones are the same run.
    pub(super) fn digest(&self) -> u64 {
        let (kind, detail) = match self {
            Event::Tick { .. } => (1, 0),
            Event::Deliver { envelope, .. } => {
                let (kind, detail) = message(&envelope.message);
                (32 + kind, detail.wrapping_mul(1000).wrapping_add(envelope.term.0))
            }
            Event::Persisted { life, .. } => (2, *life),
            Event::Loaded { load, .. } => (3, load.from.0),
            Event::Snapshot { state, .. } => (4, state.applied.index.0),
            Event::SnapshotEnded { installed, .. } => (5, installed.map_or(0, |index| index.0)),
            Event::Start { .. } => (6, 0),
            Event::Forwarded { command, .. } => (7, u64::from(command.session) * 1000 + u64::from(command.sequence)),
            Event::TransferDue { term } => (8, term.0),
            Event::Client => (9, 0),
            Event::Fault => (10, 0),
            Event::Weather { storm } => (11, u64::from(*storm)),
            Event::PutBack { .. } => (12, 0),
            Event::Wake { host } => (13, *host as u64),
            Event::Deposed { host } => (14, *host as u64),
        };
        let number = detail.wrapping_mul(64).wrapping_add(kind);
        number.wrapping_mul(64).wrapping_add(self.host().map_or(63, |host| host as u64))
    }
}

/// Which of fewer than 32 kinds it is, and what tells it from others of its kind.
fn message(message: &Message) -> (u64, u64) {
    match message {
        Message::PreVote { last } => (1, last.index.0),
        Message::PreVoteReply { granted } => (2, u64::from(*granted)),
        Message::Vote { last, .. } => (3, last.index.0),
        Message::VoteReply { granted } => (4, u64::from(*granted)),
        Message::Append { previous, entries, commit } => {
            (5, previous.index.0 + entries.len() as u64 * 7 + commit.0 * 3)
        }
        Message::AppendReply(Verdict::Accepted { matched }) => (6, matched.0),
        Message::AppendReply(Verdict::Rejected { hint, .. }) => (7, hint.index.0),
        Message::AppendReply(Verdict::Full { matched }) => (8, matched.0),
        Message::Heartbeat { commit, round, .. } => (9, commit.0 + round * 5),
        Message::HeartbeatReply { round, .. } => (10, *round),
        Message::ReadIndex { id } => (11, *id),
        Message::ReadIndexReply { id, .. } => (12, *id),
        Message::TimeoutNow => (13, 0),
        Message::NewDisk => (14, 0),
        Message::Removed => (15, 0),
        Message::Dismissed { .. } => (16, 0),
    }
}

#[derive(Debug)]
struct Due {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The first one to happen is the greatest: a heap gives that one first.
    fn cmp(&self, other: &Due) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// Events by time; those of one instant in the order in which they were written down.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    due: BinaryHeap<Due>,
    number: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.due.push(Due { at, number: self.number, event });
    }

    pub(super) fn next(&mut self) -> Option<(u64, Event)> {
        self.due.pop().map(|due| (due.at, due.event))
    }
}
