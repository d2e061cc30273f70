//! Point reads: the newest version of one key.
//!
//! ```text
//! memtables, newest first ─ none ─> levels, newest first: manifest ─> filter ─> keys of one block ─> row
//!      └ first version found, or a range delete above it, ends the search
//! ```
//!
//! * A level whose key ranges or filter rule the key out is not read; otherwise it costs one block at most.
//! * A range delete ends the search like a tombstone: all that older levels hold of its keys was written before it.

use super::reader::BlockReader;
use super::{Found, View};
use crate::error::{Error, Result};
use crate::hlc::Timestamp;
use crate::ids::{ColumnId, KeyspaceId, OriginUid};
use crate::sql::batch::ColumnBuilder;
use crate::sql::catalog::Layout;
use crate::sql::value::Value;
use crate::storage::block::search_keys;
use crate::storage::codec::Decoder;
use crate::storage::filter::may_contain;
use crate::storage::level::{BlockEntry, Level, RangeDelete};
use crate::storage::rows::Stamp;
use std::sync::Arc;

/// The newest version of a key, without its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Who wrote it and when.
    pub stamp: Stamp,
    /// True where it is a tombstone, or a range delete.
    pub tombstone: bool,
}

/// Reads many keys of one keyspace for the same columns.
pub struct PointReader {
    view: View,
    keyspace: KeyspaceId,
    layout: Layout,
    /// Slots of the columns asked for, each once.
    slots: Vec<usize>,
    /// For each column asked for, its place among `slots`.
    outputs: Vec<usize>,
    decoder: Decoder,
}

impl PointReader {
    pub(super) fn new(view: &View, keyspace: KeyspaceId, columns: &[ColumnId]) -> Result<PointReader> {
        let layout = view.layout(keyspace)?;
        let (slots, outputs) = wanted_slots(&layout, columns)?;
        let decoder = Decoder::new(&layout, &slots);
        Ok(PointReader { view: view.clone(), keyspace, layout, slots, outputs, decoder })
    }

    /// The newest version of a key, tombstones included; none where no level knows the key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Found>> {
        self.view.check_lease()?;
        let from_image = |image: &[u8]| {
            let mut columns = self.decoder.builders(1);
            self.decoder.decode(key, Some(image), &mut columns)?;
            let columns: Vec<_> = columns.into_iter().map(ColumnBuilder::finish).collect();
            Ok(self.outputs.iter().map(|&output| columns[output].value(0)).collect())
        };
        let from_block = |block: &BlockReader, row: usize| {
            let columns = self.slots.iter().map(|&slot| block.column(&self.layout, slot));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            Ok(self.outputs.iter().map(|&output| columns[output].value(row)).collect())
        };
        let found = find(&self.view, self.keyspace, key, Some(&self.layout), from_image, from_block)?;
        Ok(found.map(|(stamp, values): (Stamp, Option<Vec<Value>>)| Found { stamp, values }))
    }

    /// The newest version of a key without its values.
    pub fn head(&self, key: &[u8]) -> Result<Option<Head>> {
        head_of(&self.view, self.keyspace, key, Some(&self.layout))
    }

    /// True where no level knows a key from `first` to `last`. Costs a search a level, and reads no block: it says false
    /// of keys that lie between those of one.
    pub fn knows_none(&self, first: &[u8], last: &[u8]) -> bool {
        let levels = &self.view.levels;
        levels.memtables.iter().all(|memtable| memtable.names_none(self.keyspace, first, last))
            && levels.blocks.iter().all(|level| level.manifest.holds_none(self.keyspace, first, last))
    }
}

/// Slots of columns, each once, and for each column its place among them.
pub(in crate::storage) fn wanted_slots(layout: &Layout, columns: &[ColumnId]) -> Result<(Vec<usize>, Vec<usize>)> {
    let mut slots: Vec<usize> = Vec::with_capacity(columns.len());
    let mut outputs = Vec::with_capacity(columns.len());
    for &id in columns {
        let slot = layout.slot(id).ok_or_else(|| Error::internal(format!("column {id} is not in its keyspace")))?;
        outputs.push(slots.iter().position(|&known| known == slot).unwrap_or_else(|| {
            slots.push(slot);
            slots.len() - 1
        }));
    }
    Ok((slots, outputs))
}

pub(super) fn head_of(view: &View, keyspace: KeyspaceId, key: &[u8], layout: Option<&Layout>) -> Result<Option<Head>> {
    let found = find(view, keyspace, key, layout, |_| Ok(()), |_, _| Ok(()))?;
    Ok(found.map(|(stamp, row)| Head { stamp, tombstone: row.is_none() }))
}

/// The stamp of the newest version, and what the closures make of it unless it is a tombstone.
fn find<T>(
    view: &View,
    keyspace: KeyspaceId,
    key: &[u8],
    layout: Option<&Layout>,
    from_image: impl Fn(&[u8]) -> Result<T>,
    from_block: impl Fn(&BlockReader, usize) -> Result<T>,
) -> Result<Option<(Stamp, Option<T>)>> {
    for memtable in &view.levels.memtables {
        let found = memtable.get(keyspace, key, view.version, |stamp, image| (stamp, image.map(&from_image)));
        let delete = memtable.range_delete_of(keyspace, key, view.version);
        match (found, delete) {
            (None, None) => {}
            (Some((stamp, _)), Some(delete)) if delete.index > stamp.modified => return Ok(Some(deleted(&delete))),
            (None, Some(delete)) => return Ok(Some(deleted(&delete))),
            (Some((stamp, value)), _) => return Ok(Some((stamp, value.transpose()?))),
        }
    }
    for level in &view.levels.blocks {
        let delete = delete_of(level, keyspace, key);
        let Some(entry) = level.manifest.find(keyspace, key).filter(|entry| may_hold(entry, key)) else {
            match delete {
                Some(delete) => return Ok(Some(deleted(delete))),
                None => continue,
            }
        };
        // Nothing in this block is newer than the range delete: it need not be read.
        if let Some(delete) = delete.filter(|delete| delete.index > entry.summary.modified_max) {
            return Ok(Some(deleted(delete)));
        }
        let block = BlockReader::new(&view.cache, level, entry);
        let key_columns = match layout {
            Some(layout) => block.key_columns(layout)?,
            None => block.key_columns(&view.layout(keyspace)?)?,
        };
        match (search_keys(&key_columns, block.rows(), key), delete) {
            (Err(_), None) => {}
            (Err(_), Some(delete)) => return Ok(Some(deleted(delete))),
            (Ok(row), delete) => {
                let metadata = block.metadata()?;
                let stamp = metadata.stamp(row);
                if let Some(delete) = delete.filter(|delete| delete.index > stamp.modified) {
                    return Ok(Some(deleted(delete)));
                }
                let value = if metadata.tombstone[row] { None } else { Some(from_block(&block, row)?) };
                return Ok(Some((stamp, value)));
            }
        }
    }
    Ok(None)
}

/// False where the block's filter rules the key out.
pub(in crate::storage) fn may_hold(entry: &BlockEntry, key: &[u8]) -> bool {
    entry.filter.as_ref().is_none_or(|filter| may_contain(filter, key))
}

fn delete_of<'a>(level: &'a Arc<Level>, keyspace: KeyspaceId, key: &[u8]) -> Option<&'a RangeDelete> {
    let hides = |delete: &&RangeDelete| delete.keyspace == keyspace && delete.range.contains(key);
    level.range_deletes.iter().filter(hides).max_by_key(|delete| delete.index)
}

/// A range delete as a tombstone of one key. It is told apart from others by its stamp; its origin is no one's, since
/// synced tables have their range deletes expanded to keys.
fn deleted<T>(delete: &RangeDelete) -> (Stamp, Option<T>) {
    let hlc = Timestamp(delete.hlc);
    (Stamp { created_ms: hlc.wall().0, hlc, origin: OriginUid(0), modified: delete.index }, None)
}
