//! One block while it is read: its parts, out of the cache or decoded into it.

use crate::error::{Error, Result};
use crate::sql::batch::{Column, Strings};
use crate::sql::catalog::Layout;
use crate::storage::block::{Block, build_keys};
use crate::storage::cache::{Cache, Role};
use crate::storage::level::{BlockEntry, Level};
use crate::storage::rows::Metadata;
use std::sync::{Arc, OnceLock};

/// Reads the parts of one block. The encoded block is read at most once, and not at all where the cache has the parts.
pub(in crate::storage) struct BlockReader {
    level: Arc<Level>,
    entry: Arc<BlockEntry>,
    cache: Arc<Cache>,
    block: OnceLock<Block>,
}

impl BlockReader {
    /// A reader of a block of this level. Nothing is read yet.
    pub(in crate::storage) fn new(cache: &Arc<Cache>, level: &Arc<Level>, entry: &Arc<BlockEntry>) -> BlockReader {
        let (level, entry, cache) = (level.clone(), entry.clone(), cache.clone());
        BlockReader { level, entry, cache, block: OnceLock::new() }
    }

    /// What the manifest knows of the block.
    pub(in crate::storage) fn entry(&self) -> &Arc<BlockEntry> {
        &self.entry
    }

    /// How many rows.
    pub(in crate::storage) fn rows(&self) -> usize {
        self.entry.summary.rows as usize
    }

    /// The column of a slot; where the block was written before the column existed, its `missing` value repeated.
    pub(in crate::storage) fn column(&self, layout: &Layout, slot: usize) -> Result<Arc<Column>> {
        let wanted = &layout.columns[slot];
        let role = if layout.key.contains(&(slot as u16)) { Role::Key } else { Role::Value };
        let stored = self.cache.column(self.entry.uid, wanted.id, role, || self.block()?.column(wanted.id))?;
        let missing = || Arc::new(Column::constant(wanted.missing.clone(), wanted.data_type, self.rows()));
        let column = stored.unwrap_or_else(missing);
        if column.data_type() != wanted.data_type || column.len() != self.rows() {
            return Err(self.damaged(format_args!("column {} is not what its table says", wanted.id)));
        }
        Ok(column)
    }

    /// The columns of the key, in key order.
    pub(in crate::storage) fn key_columns(&self, layout: &Layout) -> Result<Vec<Arc<Column>>> {
        layout.key.iter().map(|&slot| self.column(layout, usize::from(slot))).collect()
    }

    /// The keys, rebuilt from the columns of the key.
    pub(in crate::storage) fn keys(&self, key_columns: &[Arc<Column>]) -> Result<Strings> {
        // Of a layout, only the places of the key columns are looked at.
        let in_order = Layout { columns: Vec::new(), key: (0..key_columns.len() as u16).collect() };
        build_keys(&in_order, key_columns, self.rows())
    }

    /// Stamps and tombstone marks.
    pub(in crate::storage) fn metadata(&self) -> Result<Arc<Metadata>> {
        self.cache.metadata(self.entry.uid, || self.block()?.metadata())
    }

    /// Milliseconds at which each row was inserted.
    pub(in crate::storage) fn created_ms(&self) -> Result<Arc<Vec<u64>>> {
        self.cache.created_ms(self.entry.uid, || self.block()?.created_ms())
    }

    /// Which rows are tombstones; none where no row is.
    pub(in crate::storage) fn tombstones(&self) -> Result<Option<Vec<bool>>> {
        if self.entry.summary.tombstones == 0 { Ok(None) } else { self.block()?.tombstones() }
    }

    fn block(&self) -> Result<&Block> {
        if let Some(block) = self.block.get() {
            return Ok(block);
        }
        let block = self.level.source.read(&self.entry)?;
        let (rows, tombstones) = (self.rows(), self.entry.summary.tombstones as usize);
        if block.rows() != rows || block.tombstone_count() != tombstones {
            return Err(self.damaged("other counts of rows than its manifest says"));
        }
        Ok(self.block.get_or_init(|| block))
    }

    fn damaged(&self, why: impl std::fmt::Display) -> Error {
        let address = self.entry.address;
        Error::damaged(format!(
            "a block (file {}, offset {}) is not what it should be: {why}",
            address.file, address.offset
        ))
    }
}
