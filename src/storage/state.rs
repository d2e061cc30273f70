//! The state record: everything replicated that is not rows, at one position of the log.
//!
//! It is captured when a memtable is frozen, published together with the blocks of that memtable, and copied into every
//! sealed footer. Flush, seal and merge judge by it what may be left out, so the same record must be at hand wherever
//! a replay begins.
//!
//! * `applied` is the end of a command, never the middle of one.
//! * Whoever holds a record with `applied = i` needs the log from `i + 1` on and nothing before it.

use crate::error::{Error, Result};
use crate::hlc::Timestamp;
use crate::ids::{LogIndex, Term};
use crate::sql::catalog::Catalog;
use crate::storage::frame;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

const KIND: frame::Kind = frame::Kind { magic: *b"CHST", version: 1 };

/// The replicated state at one position, rows apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StateRecord {
    /// Position of the last command applied.
    pub applied: LogIndex,
    /// Term of that command.
    pub applied_term: Term,
    /// Highest stamp seen: a restart goes on above it.
    pub hlc: Timestamp,
    /// Tables with their watermarks and floors.
    pub catalog: Catalog,
    /// Members of the group, as the consensus layer encodes them; storage does not look inside.
    pub membership: Vec<u8>,
    /// What the state machine counts (sequences, cursors), by name; storage does not look inside.
    pub counters: BTreeMap<String, u64>,
}

impl StateRecord {
    /// The bytes that stand for it, with version and checksum.
    pub fn encode(&self) -> Vec<u8> {
        frame::wrap(KIND, &frame::encode(self))
    }

    /// Reads what [`StateRecord::encode`] wrote; `what` names its place in errors.
    pub fn decode(bytes: &[u8], what: impl fmt::Display) -> Result<StateRecord> {
        let state: StateRecord = frame::decode(frame::unwrap(KIND, bytes, &what)?, &what)?;
        // A checksum says that the bytes are those that were written, not that they make sense.
        if state.catalog.is_consistent() {
            Ok(state)
        } else {
            Err(Error::damaged(format!("{what}: a key or an index names a column that its table does not have")))
        }
    }

    /// Wall time (ms) by which expiry is judged at this position.
    pub fn now_ms(&self) -> u64 {
        self.hlc.wall().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_record_survives_its_encoding() {
        let record = StateRecord {
            applied: LogIndex(7),
            applied_term: Term(2),
            hlc: Timestamp(99),
            membership: vec![1, 2, 3],
            counters: BTreeMap::from([("outbox".to_owned(), 5)]),
            ..StateRecord::default()
        };
        let bytes = record.encode();
        assert_eq!(StateRecord::decode(&bytes, "it").unwrap(), record);
        let mut bad = bytes.clone();
        bad[14] ^= 1;
        assert!(StateRecord::decode(&bad, "it").is_err());
    }
}
