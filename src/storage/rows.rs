//! Rows on their way between levels: columns, keys and metadata side by side.
//!
//! A memtable is drained into `Rows`, a block encodes one and decodes to one, a merge reads several and writes one.
//! The columns stand in the slot order of the keyspace's [`Layout`](crate::sql::catalog::Layout).
//!
//! * Rows are in strictly ascending key order: within a level a key occurs once.
//! * A tombstone keeps its key columns; its other columns are NULL and its `created` is the time of the deletion.

use crate::hlc::Timestamp;
use crate::ids::{LogIndex, OriginUid};
use crate::sql::batch::{Column, Strings};
use std::sync::Arc;

/// What is kept of the write that made a row what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds at which the row was inserted (an UPDATE keeps it); what TTL and windows count from.
    pub created_ms: u64,
    /// Stamp of the last writing command.
    pub hlc: Timestamp,
    /// The node directory where the row was last written by a client.
    pub origin: OriginUid,
    /// Position of the last writing command in this group's log.
    pub modified: LogIndex,
}

/// The metadata columns of rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// See [`Stamp::created_ms`].
    pub created_ms: Vec<u64>,
    /// See [`Stamp::hlc`].
    pub hlc: Vec<u64>,
    /// See [`Stamp::origin`].
    pub origin: Vec<u64>,
    /// See [`Stamp::modified`].
    pub modified: Vec<u64>,
    /// `true` marks a tombstone.
    pub tombstone: Vec<bool>,
}

impl Metadata {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.created_ms.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.created_ms.is_empty()
    }

    /// Adds one row.
    pub fn push(&mut self, stamp: Stamp, tombstone: bool) {
        self.created_ms.push(stamp.created_ms);
        self.hlc.push(stamp.hlc.0);
        self.origin.push(stamp.origin.0);
        self.modified.push(stamp.modified.0);
        self.tombstone.push(tombstone);
    }

    /// The stamp of row `i`.
    pub fn stamp(&self, i: usize) -> Stamp {
        Stamp {
            created_ms: self.created_ms[i],
            hlc: Timestamp(self.hlc[i]),
            origin: OriginUid(self.origin[i]),
            modified: LogIndex(self.modified[i]),
        }
    }
}

/// Rows of one keyspace.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Encoded keys, ascending.
    pub keys: Strings,
    /// One column for each slot of the layout.
    pub columns: Vec<Arc<Column>>,
    /// Metadata of each row.
    pub metadata: Metadata,
}

/// Bytes of one row's metadata: four numbers and a mark.
const METADATA_BYTES: usize = 33;

impl Rows {
    /// Bytes that the rows take in memory, a repeated value counted for each row.
    pub fn byte_len(&self) -> usize {
        let columns: usize = self.columns.iter().map(|column| column.bytes_between(0, self.len())).sum();
        columns + self.keys.byte_len() + self.len() * METADATA_BYTES
    }

    /// How many rows, tombstones included.
    pub fn len(&self) -> usize {
        self.metadata.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.metadata.is_empty()
    }
}
