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

    /// Reads what `encode` wrote. Logs and wires have checksums, so what does not decode is no damage.
    pub fn decode(bytes: &[u8]) -> Result<Payload<'_>> {
        match bytes.split_first() {
            Some((&NOOP, [])) => Ok(Payload::Noop),
            Some((&MEMBERSHIP, body)) => Membership::decode(body).map(Payload::Membership),
            Some((&COMMAND, body)) => Ok(Payload::Command(body)),
            Some((kind, _)) => Err(Error::not_understood(format!(
                "an entry of kind {kind}, which this chronos does not know: start a newer one"
            ))),
            None => Err(Error::not_understood("an entry without content")),
        }
    }
}

/// What an entry says of the group, where it does. An error is not understood by this program, and must not be passed over:
/// the rest of the group goes by it.
pub(super) fn membership_of(entry: &Entry) -> Result<Option<Membership>> {
    match Payload::decode(&entry.payload) {
        Ok(Payload::Membership(membership)) => Ok(Some(membership)),
        Ok(Payload::Noop | Payload::Command(_)) => Ok(None),
        Err(error) => Err(error.context(format!("entry {}", entry.index))),
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
