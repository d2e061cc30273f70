//! Rescue: what can still be read of a table some of whose blocks are damaged.
//!
//! ```text
//! newer level   . . r r . . r . . .        certain: newer than anything in the damaged block
//! damaged       . [X X X X X X X X] .      lost: its keys are known only as a range, and by their filter
//! older level   [r r|r r . r r r|r r]      within that range, and not ruled out by the filter: left out, since the
//!                                           damaged block may hold a newer version of the row, or have deleted it
//! ```
//!
//! Every block of the table is read once beforehand; those that cannot be read are taken out of the view, and the rest is
//! scanned as ever. A row is then left out where a damaged block might shadow it. So what comes out is what was there: no
//! row that had been replaced or deleted comes back.
//!
//! * Which level a row is of is not asked. Levels hold ranges of positions that do not overlap, so a row shadows a block
//!   exactly where it was modified after all of the block.
//! * A damaged block of the hot store is an error: the log still holds its rows, and the next start makes it anew.
//! * Whatever keeps a block from being read counts as damage: a dying disk reports errors instead of wrong bytes.

use crate::error::{Error, Result};
use crate::ids::KeyspaceId;
use crate::sql::batch::{Batch, Strings};
use crate::storage::keys::Key;
use crate::storage::level::{BlockEntry, Level};
use crate::storage::levels::Levels;
use crate::storage::rows::Metadata;
use crate::storage::view::{ScanRequest, Scanner, View, may_hold};
use std::sync::Arc;

/// A block that cannot be read.
#[derive(Clone, Debug)]
pub struct Lost {
    /// Its least key.
    pub first: Key,
    /// Its greatest key.
    pub last: Key,
    /// Its rows. Some of them may have been deleted or replaced since, and are not lost then.
    pub rows: u32,
    /// Why: names the file and the place.
    pub error: Error,
}

/// Reads a keyspace past its damaged blocks.
pub struct Rescue {
    scanner: Scanner,
    /// Entries of the blocks that cannot be read, by their least key.
    lost: Vec<Arc<BlockEntry>>,
    left_out: u64,
}

impl Rescue {
    /// Reads every block of the keyspace, names to `found` those that cannot be read, and stands before the first row of
    /// the rest. The request must ask for keys and have no bounds.
    pub fn new(view: &View, request: ScanRequest, found: &mut dyn FnMut(Lost)) -> Result<Rescue> {
        assert!(request.with_keys && request.bounds.is_empty(), "a rescue judges every row by its key");
        let mut lost = Vec::new();
        let blocks: Result<Vec<Arc<Level>>> = view
            .levels
            .blocks
            .iter()
            .map(|level| without_damage(level, request.keyspace, &mut lost, found).map(Arc::new))
            .collect();
        let levels = Levels { memtables: view.levels.memtables.clone(), blocks: blocks? };
        lost.sort_by(|a, b| a.first.cmp(&b.first));
        let scanner = View { levels: Arc::new(levels), ..view.clone() }.scan(request)?;
        Ok(Rescue { scanner, lost, left_out: 0 })
    }

    /// How many blocks cannot be read.
    pub fn blocks_lost(&self) -> usize {
        self.lost.len()
    }

    /// Rows left out so far since one of those blocks may hold a newer version, or have deleted them.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The next rows, never none of them; nothing at the end.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        while let Some(scanned) = self.scanner.next_batch()? {
            let Some((keys, metadata)) = &scanned.keys else {
                return Err(Error::internal("a scan that was asked for keys gave none"));
            };
            let kept = self.certain(keys, metadata);
            if kept.len() == scanned.batch.rows {
                return Ok(Some(scanned.batch));
            }
            self.left_out += (scanned.batch.rows - kept.len()) as u64;
            if !kept.is_empty() {
                return Ok(Some(scanned.batch.gather(&kept)));
            }
        }
        Ok(None)
    }

    /// The rows of a batch that no block lost can have replaced or deleted.
    fn certain(&self, keys: &Strings, metadata: &Metadata) -> Vec<u32> {
        let rows = keys.len();
        // Keys ascend, so most batches are far from any damage.
        let near: Vec<&BlockEntry> = match rows.checked_sub(1) {
            Some(last) => {
                let (first, last) = (keys.get(0), keys.get(last));
                let begun = self.lost.partition_point(|entry| &*entry.first <= last);
                self.lost[..begun].iter().map(|entry| &**entry).filter(|entry| *entry.last >= *first).collect()
            }
            None => Vec::new(),
        };
        let is_certain = |row: &u32| {
            let (key, modified) = (keys.get(*row as usize), metadata.modified[*row as usize]);
            near.iter().all(|entry| {
                let within = *entry.first <= *key && *key <= *entry.last;
                !within || modified > entry.summary.modified_max.0 || !may_hold(entry, key)
            })
        };
        (0..rows as u32).filter(is_certain).collect()
    }
}

/// The level without the blocks of a keyspace that cannot be read.
fn without_damage(
    level: &Arc<Level>,
    keyspace: KeyspaceId,
    lost: &mut Vec<Arc<BlockEntry>>,
    found: &mut dyn FnMut(Lost),
) -> Result<Level> {
    let mut kept = Vec::new();
    for entry in level.manifest.blocks(keyspace) {
        match level.source.read(entry).and_then(|block| block.check()) {
            Ok(()) => kept.push(entry.clone()),
            Err(error) if level.source.is_in_log() => {
                return Err(error.hint("nothing is lost: run it again, and the block is made anew from the log"));
            }
            Err(error) => {
                found(Lost { first: entry.first.clone(), last: entry.last.clone(), rows: entry.summary.rows, error });
                lost.push(entry.clone());
            }
        }
    }
    let manifest = level.manifest.with(keyspace, kept);
    Ok(Level { manifest, ..Level::clone(level) })
}
