//! Entries: what they are for.

use crate::hlc::Timestamp;
use crate::ids::{LogIndex, Term};
use crate::raft::{Entry, Membership};
use crate::{Error, Result};
use std::sync::Arc;

/// What an entry is for. The first byte of the encoding says which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// A new leader's first entry.
    Noop,
    /// Who belongs to the group from here on.
    Membership(Membership),
    /// A command for the state machine, opaque here.
    Command(&'a [u8]),
}

const NOOP: u8 = 0;
const MEMBERSHIP: u8 = 1;
const COMMAND: u8 = 2;

impl Payload<'_> {
    /// The bytes that travel and rest in the log.
    pub fn encode(&self) -> Arc<[u8]> {
        match self {
            Payload::Noop => [NOOP].into(),
            Payload::Membership(membership) => [&[MEMBERSHIP], membership.encode().as_slice()].concat().into(),
            Payload::Command(command) => [&[COMMAND], *command].concat().into(),
        }
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8]) -> Result<Payload<'_>> {
        match bytes.split_first() {
            Some((&NOOP, [])) => Ok(Payload::Noop),
            Some((&MEMBERSHIP, body)) => Membership::decode(body).map(Payload::Membership),
            Some((&COMMAND, body)) => Ok(Payload::Command(body)),
            Some((kind, _)) => Err(Error::damaged(format!("a log entry is of unknown kind {kind}"))),
            None => Err(Error::damaged("a log entry is empty")),
        }
    }
}

/// The first entry of every log: the bootstrap membership, the same on all nodes.
pub fn bootstrap(membership: &Membership) -> Entry {
    Entry {
        index: LogIndex(1),
        term: Term(1),
        hlc: Timestamp(1),
        payload: Payload::Membership(membership.clone()).encode(),
    }
}
