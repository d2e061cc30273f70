//! Block entries and range deletes as they are written down, in the hot store and in sealed footers.
//!
//! In memory an entry is shared and carries an identity drawn by this process; on disk it is the plain facts. The two
//! meet here.

use crate::ids::{KeyspaceId, LogIndex};
use crate::storage::keys::{Key, KeyRange};
use crate::storage::level::{Address, BlockEntry, RangeDelete, Summary};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A place in a level: a keyspace and a key in it. Levels are ordered by it.
pub type Place = (KeyspaceId, Key);

/// The least place.
pub fn start() -> Place {
    (KeyspaceId(0), Key::new(&[]))
}

/// Draws a block's name within the process. Never from a file, and never the same twice: caches rely on it.
pub fn next_uid() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A block's facts on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntryRecord {
    /// Whose rows.
    pub keyspace: KeyspaceId,
    /// Offset in the file; 0 in the hot store, where the entry stands before its block.
    pub offset: u64,
    /// Encoded length.
    pub bytes: u32,
    /// Least key.
    pub first: Vec<u8>,
    /// Greatest key.
    pub last: Vec<u8>,
    /// What is known without reading.
    pub summary: Summary,
    /// Filter over the keys.
    pub filter: Option<Vec<u8>>,
}

impl EntryRecord {
    /// The entry in memory, under a fresh name.
    pub fn into_entry(self, file: u32) -> (KeyspaceId, Arc<BlockEntry>) {
        let entry = BlockEntry {
            uid: next_uid(),
            address: Address { file, offset: self.offset },
            bytes: self.bytes,
            first: Key::new(&self.first),
            last: Key::new(&self.last),
            summary: Arc::new(self.summary),
            filter: self.filter.map(Arc::from),
        };
        (self.keyspace, Arc::new(entry))
    }
}

/// A range delete on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RangeDeleteRecord {
    keyspace: KeyspaceId,
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    index: LogIndex,
    hlc: u64,
}

impl From<&RangeDelete> for RangeDeleteRecord {
    fn from(delete: &RangeDelete) -> RangeDeleteRecord {
        RangeDeleteRecord {
            keyspace: delete.keyspace,
            from: delete.range.from.to_vec(),
            to: delete.range.to.as_ref().map(|to| to.to_vec()),
            index: delete.index,
            hlc: delete.hlc,
        }
    }
}

impl From<&RangeDeleteRecord> for RangeDelete {
    fn from(record: &RangeDeleteRecord) -> RangeDelete {
        RangeDelete {
            keyspace: record.keyspace,
            range: KeyRange { from: Key::new(&record.from), to: record.to.as_deref().map(Key::new) },
            index: record.index,
            hlc: record.hlc,
        }
    }
}

/// Takes out range deletes that another one covers: a wider range of the same keyspace, not older. So a periodic
/// `DELETE ... WHERE ts < x` leaves one, not thousands.
pub fn prune(deletes: &mut Vec<RangeDelete>) {
    let covers = |wide: &RangeDelete, narrow: &RangeDelete| {
        wide.keyspace == narrow.keyspace
            && wide.index >= narrow.index
            && wide.range.from <= narrow.range.from
            && match (&wide.range.to, &narrow.range.to) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(wide), Some(narrow)) => wide >= narrow,
            }
    };
    // Newest first, so that of two equal ones the first that is met stays.
    deletes.sort_by(|a, b| (a.keyspace, b.index, &a.range.from).cmp(&(b.keyspace, a.index, &b.range.from)));
    let mut kept: Vec<RangeDelete> = Vec::with_capacity(deletes.len());
    for delete in deletes.drain(..) {
        if !kept.iter().any(|wide| covers(wide, &delete)) {
            kept.retain(|narrow| !covers(&delete, narrow));
            kept.push(delete);
        }
    }
    *deletes = kept;
}

/// A key in an error message: hexadecimal, cut where it is long.
pub fn show(key: &[u8]) -> String {
    const SHOWN_BYTES: usize = 24;
    let shown = Key::new(&key[..key.len().min(SHOWN_BYTES)]);
    if key.len() > SHOWN_BYTES { format!("{shown:?}...") } else { format!("{shown:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(from: u8, to: Option<u8>, index: u64) -> RangeDelete {
        let range = KeyRange { from: Key::new(&[from]), to: to.map(|to| Key::new(&[to])) };
        RangeDelete { keyspace: KeyspaceId(16), range, index: LogIndex(index), hlc: index }
    }

    #[test]
    fn a_wider_newer_range_delete_takes_the_place_of_a_narrower_one() {
        let mut deletes = vec![delete(1, Some(3), 5), delete(1, Some(9), 7), delete(4, Some(5), 8), delete(0, None, 6)];
        prune(&mut deletes);
        assert_eq!(deletes, [delete(4, Some(5), 8), delete(1, Some(9), 7), delete(0, None, 6)]);
        let mut same = vec![delete(1, None, 5), delete(1, None, 5)];
        prune(&mut same);
        assert_eq!(same.len(), 1);
    }
}
