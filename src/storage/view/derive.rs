//! Views made from views, and what changed since one was taken.

use super::View;
use super::reader::BlockReader;
use crate::error::Result;
use crate::ids::{KeyspaceId, LogIndex};
use crate::sql::catalog::Catalog;
use crate::storage::keys::KeyRange;
use crate::storage::level::RangeDelete;
use crate::storage::levels::Levels;
use crate::storage::memtable::{Memtable, Visit};
use std::ops::Bound;
use std::sync::Arc;

/// Rows of a memtable looked at for each hold of its lock.
const VISIT_ROWS: usize = 512;

impl View {
    /// The same state with a memtable in front: how a transaction reads its own writes.
    #[must_use]
    pub fn with_memtable(&self, memtable: Arc<Memtable>) -> View {
        let mut levels = Levels::clone(&self.levels);
        levels.memtables.insert(0, memtable);
        View { levels: Arc::new(levels), ..self.clone() }
    }

    /// The same rows under other definitions.
    #[must_use]
    pub fn with_catalog(&self, catalog: Arc<Catalog>) -> View {
        View { catalog, ..self.clone() }
    }

    /// About how many rows a keyspace holds: those of its blocks, and the keys in its memtables. Nothing is read; what
    /// was updated is counted in each level that has it.
    pub fn rows_about(&self, keyspace: KeyspaceId) -> u64 {
        let all = KeyRange::all();
        let blocks = self.levels.blocks.iter().flat_map(|level| level.manifest.overlapping(keyspace, &all));
        let in_memory: usize = self.levels.memtables.iter().map(|memtable| memtable.keys(keyspace)).sum();
        blocks.map(|entry| u64::from(entry.summary.rows)).sum::<u64>() + in_memory as u64
    }

    /// True where a key of `range` was written or deleted after `since`. Blocks whose newest change is older are not
    /// read.
    pub fn changed_since(&self, keyspace: KeyspaceId, range: &KeyRange, since: LogIndex) -> Result<bool> {
        let deleted = |delete: &RangeDelete| {
            let to = delete.range.to.as_deref();
            let overlaps =
                range.to.as_ref().is_none_or(|end| *end > delete.range.from) && to.is_none_or(|to| to > &*range.from);
            delete.keyspace == keyspace && delete.index > since && delete.index <= self.version && overlaps
        };
        for memtable in &self.levels.memtables {
            if memtable.range_deletes().iter().any(deleted)
                || self.memtable_changed(memtable, keyspace, range, since)?
            {
                return Ok(true);
            }
        }
        for level in &self.levels.blocks {
            if level.range_deletes.iter().any(deleted) {
                return Ok(true);
            }
            for entry in level.manifest.overlapping(keyspace, range) {
                if entry.summary.modified_max <= since {
                    continue;
                }
                let block = BlockReader::new(&self.cache, level, entry);
                let layout = self.layout(keyspace)?;
                let (keys, metadata) = (block.keys(&block.key_columns(&layout)?)?, block.metadata()?);
                if (0..keys.len()).any(|row| metadata.modified[row] > since.0 && range.contains(keys.get(row))) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn memtable_changed(
        &self,
        memtable: &Memtable,
        keyspace: KeyspaceId,
        range: &KeyRange,
        since: LogIndex,
    ) -> Result<bool> {
        let mut changed = false;
        let mut from = Bound::Included(range.from.clone());
        loop {
            let bound = from.as_ref().map(|key| &**key);
            let visit =
                memtable.visit(keyspace, bound, range.to.as_deref(), self.version, VISIT_ROWS, |_, stamp, _| {
                    changed |= stamp.modified > since;
                    Ok(())
                })?;
            match visit {
                Visit::End => return Ok(changed),
                Visit::More(_) if changed => return Ok(true),
                Visit::More(key) => from = Bound::Excluded(key),
            }
        }
    }
}
