//! A level: blocks that do not overlap, and the manifest that finds them by key.
//!
//! The hot store and every sealed run are each one level. A level never changes; a change of levels puts a new one in
//! its place. So a manifest is shared by all views that were taken while it was current.
//!
//! * Within a keyspace, blocks are ordered by key and their key ranges are disjoint.
//! * `uid` is drawn in this process when the level is opened, never read from a file: caches may rely on it.

use crate::error::Result;
use crate::ids::{KeyspaceId, LogIndex};
use crate::sql::value::Value;
use crate::storage::block::Block;
use crate::storage::keys::{Key, KeyRange};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The least and greatest value of a column in a block; what a scan compares its predicate with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    /// Least value that is not NULL; NULL where every value is. A bound below it for long strings.
    pub min: Value,
    /// Greatest value that is not NULL; NULL where every value is. A bound above it for long strings.
    pub max: Value,
    /// How many values are NULL.
    pub nulls: u32,
}

/// What is known of a block without reading it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Rows, tombstones included.
    pub rows: u32,
    /// Tombstones among them.
    pub tombstones: u32,
    /// Least `created` (ms) of rows that are not tombstones; `u64::MAX` where all are.
    pub created_min_ms: u64,
    /// Greatest `created` (ms), tombstones counted.
    pub created_max_ms: u64,
    /// Greatest stamp.
    pub hlc_max: u64,
    /// Greatest modifying position.
    pub modified_max: LogIndex,
    /// One zone for each column of the layout the block was written with, by slot.
    pub zones: Vec<Zone>,
}

/// One block of a level.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockEntry {
    /// Names the block within the process: (level uid, number) packed by the level; a cache's key.
    pub uid: u64,
    /// Where the level finds it.
    pub address: Address,
    /// Encoded length in bytes.
    pub bytes: u32,
    /// Least key.
    pub first: Key,
    /// Greatest key.
    pub last: Key,
    /// What is known without reading.
    pub summary: Arc<Summary>,
    /// Filter over the keys, where the keyspace is not written in key order.
    pub filter: Option<Arc<[u8]>>,
}

/// Where a block lies in its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// Number of the file: of a sealed file, or of one in the hot directory.
    pub file: u32,
    /// Byte offset of the block in the file.
    pub offset: u64,
}

/// The blocks of a level, by keyspace and key.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    keyspaces: BTreeMap<KeyspaceId, Arc<Vec<Arc<BlockEntry>>>>,
}

impl Manifest {
    /// A manifest of these blocks, which are in key order within each keyspace.
    pub fn new(keyspaces: BTreeMap<KeyspaceId, Vec<Arc<BlockEntry>>>) -> Manifest {
        let keyspaces = keyspaces
            .into_iter()
            .filter(|(_, blocks)| !blocks.is_empty())
            .map(|(keyspace, blocks)| {
                assert!(
                    blocks.windows(2).all(|pair| pair[0].last < pair[1].first),
                    "blocks of one level do not overlap (keyspace {keyspace})"
                );
                (keyspace, Arc::new(blocks))
            })
            .collect();
        Manifest { keyspaces }
    }

    /// The keyspaces that have blocks, ascending.
    pub fn keyspaces(&self) -> impl Iterator<Item = KeyspaceId> {
        self.keyspaces.keys().copied()
    }

    /// All blocks of a keyspace in key order.
    pub fn blocks(&self, keyspace: KeyspaceId) -> &[Arc<BlockEntry>] {
        self.keyspaces.get(&keyspace).map_or(&[], |blocks| blocks.as_slice())
    }

    /// The block that may hold `key`.
    pub fn find(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<&Arc<BlockEntry>> {
        let blocks = self.blocks(keyspace);
        // Rows often come in key order: the end is asked first.
        if blocks.last().is_none_or(|block| *block.last < *key) {
            return None;
        }
        let at = blocks.partition_point(|block| *block.last < *key);
        blocks.get(at).filter(|block| *block.first <= *key)
    }

    /// True where no block holds a key from `first` to `last`.
    pub fn holds_none(&self, keyspace: KeyspaceId, first: &[u8], last: &[u8]) -> bool {
        let blocks = self.blocks(keyspace);
        let at = blocks.partition_point(|block| *block.last < *first);
        blocks.get(at).is_none_or(|block| *block.first > *last)
    }

    /// The blocks that may hold keys of `range`, in key order.
    pub fn overlapping(&self, keyspace: KeyspaceId, range: &KeyRange) -> &[Arc<BlockEntry>] {
        let blocks = self.blocks(keyspace);
        let from = blocks.partition_point(|block| *block.last < *range.from);
        let to = match &range.to {
            Some(to) => blocks.partition_point(|block| block.first < *to),
            None => blocks.len(),
        };
        &blocks[from..to.max(from)]
    }

    /// The same manifest with other blocks in one keyspace.
    #[must_use]
    pub fn with(&self, keyspace: KeyspaceId, blocks: Vec<Arc<BlockEntry>>) -> Manifest {
        let mut keyspaces = self.keyspaces.clone();
        if blocks.is_empty() {
            keyspaces.remove(&keyspace);
        } else {
            assert!(
                blocks.windows(2).all(|pair| pair[0].last < pair[1].first),
                "blocks of one level do not overlap (keyspace {keyspace})"
            );
            keyspaces.insert(keyspace, Arc::new(blocks));
        }
        Manifest { keyspaces }
    }
}

/// A deletion of a key range, kept in a level until merging has applied it.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeDelete {
    /// Whose rows; index entries of a table are hidden by the primary key in them.
    pub keyspace: KeyspaceId,
    /// Which keys.
    pub range: KeyRange,
    /// Hides rows with a lower modifying position.
    pub index: LogIndex,
    /// Stamp of the deleting command.
    pub hlc: u64,
}

/// Reads the bytes of blocks; what differs between the hot store and a sealed run.
pub trait BlockSource: Send + Sync {
    /// The block, checked against its checksum. A damaged one is an error that names it, never a block.
    fn read(&self, entry: &BlockEntry) -> Result<Block>;

    /// True where the log still holds everything that the blocks do: opening the directory again makes them anew.
    fn is_in_log(&self) -> bool {
        false
    }
}

/// One level below the memtables.
#[derive(Clone)]
pub struct Level {
    /// The blocks by key.
    pub manifest: Manifest,
    /// Range deletes of this level, which hide rows in it and in older levels.
    pub range_deletes: Arc<Vec<RangeDelete>>,
    /// Where the bytes are. Dropping the last level that holds it lets its files go.
    pub source: Arc<dyn BlockSource>,
}
