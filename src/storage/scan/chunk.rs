//! A chunk: some rows of one level, opened. A portion of a memtable, or one block.
//!
//! Merging looks at few keys of a block where other levels have few rows in its range. So a block's keys are at first
//! encoded one by one out of its key columns, as they are asked for; only when that has happened often are they built
//! for all rows at once.
//!
//! * What is decoded of a block is decoded when it is asked for, and once.

use super::plan::{Need, Planned};
use super::request::Wanted;
use crate::error::Result;
use crate::sql::batch::{Column, Strings};
use crate::storage::rows::{Metadata, Stamp};
use crate::storage::view::reader::BlockReader;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// A block's keys are built once a quarter as many single ones have been asked for: one costs about four times as much
/// alone as among all.
const PROBES_SHARE: usize = 4;

/// Rows of one level, in key order.
pub(super) struct Chunk {
    pub(super) rows: usize,
    pub(super) live: Live,
    parts: Parts,
    /// See [`Chunk::row_bytes`].
    row_bytes: OnceLock<usize>,
}

/// Which rows of a chunk are there; the others only shadow.
pub(super) enum Live {
    All,
    None,
    Some(Vec<bool>),
}

enum Parts {
    /// Copied from a memtable and decoded at once.
    Memory { keys: Arc<Strings>, metadata: Option<Arc<Metadata>>, columns: Vec<Arc<Column>> },
    /// Decoded when asked for.
    Block(Box<BlockParts>),
}

struct BlockParts {
    block: BlockReader,
    key_columns: OnceLock<Vec<Arc<Column>>>,
    /// Single keys asked for.
    probes: AtomicUsize,
    keys: OnceLock<Arc<Strings>>,
    metadata: OnceLock<Arc<Metadata>>,
    columns: OnceLock<Vec<Arc<Column>>>,
}

impl Chunk {
    /// A chunk of rows of a memtable.
    pub(super) fn of_memory(
        keys: Strings,
        metadata: Option<Metadata>,
        columns: Vec<Arc<Column>>,
        live: Vec<bool>,
    ) -> Chunk {
        let rows = keys.len();
        let parts = Parts::Memory { keys: Arc::new(keys), metadata: metadata.map(Arc::new), columns };
        Chunk { rows, live: Live::of(live), parts, row_bytes: OnceLock::new() }
    }

    /// A chunk of a block in the level of this rank.
    pub(super) fn of_block(wanted: &Wanted, rank: usize, planned: &Planned, block: BlockReader) -> Result<Chunk> {
        let parts = BlockParts {
            block,
            key_columns: OnceLock::new(),
            probes: AtomicUsize::new(0),
            keys: OnceLock::new(),
            metadata: OnceLock::new(),
            columns: OnceLock::new(),
        };
        let live = match planned.need {
            Need::Shadow => Live::None,
            Need::Rows if is_clean(wanted, rank, planned) => Live::All,
            Need::Rows => parts.live(wanted, rank, planned)?,
        };
        let rows = parts.block.rows();
        Ok(Chunk { rows, live, parts: Parts::Block(Box::new(parts)), row_bytes: OnceLock::new() })
    }

    /// The keys of all rows.
    pub(super) fn keys(&self, wanted: &Wanted) -> Result<&Arc<Strings>> {
        match &self.parts {
            Parts::Memory { keys, .. } => Ok(keys),
            Parts::Block(parts) => parts.keys(wanted),
        }
    }

    /// Appends the key of one row to `out`.
    pub(super) fn push_key(&self, wanted: &Wanted, row: usize, out: &mut Vec<u8>) -> Result<()> {
        if let Some(keys) = self.keys_at_hand(wanted)? {
            out.extend_from_slice(keys.get(row));
            return Ok(());
        }
        if let Parts::Block(parts) = &self.parts {
            parts.key_columns(wanted)?.iter().for_each(|column| crate::storage::keys::push_cell(out, column, row));
        }
        Ok(())
    }

    /// The first of the rows `from..to` whose key is not below `key`, by galloping: near ones are found in few steps.
    pub(super) fn lower_bound(&self, wanted: &Wanted, from: usize, to: usize, key: &[u8]) -> Result<usize> {
        let mut probe = Vec::new();
        let mut is_below = |row: usize| -> Result<bool> {
            probe.clear();
            self.push_key(wanted, row, &mut probe)?;
            Ok(probe.as_slice() < key)
        };
        let (mut low, mut high, mut step) = (from, to, 1);
        while low + step <= to {
            if !is_below(low + step - 1)? {
                high = low + step - 1;
                break;
            }
            low += step;
            step *= 2;
        }
        while low < high {
            let middle = low.midpoint(high);
            if is_below(middle)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// All keys, where they have been built or should be by now.
    fn keys_at_hand(&self, wanted: &Wanted) -> Result<Option<&Arc<Strings>>> {
        match &self.parts {
            Parts::Memory { keys, .. } => Ok(Some(keys)),
            Parts::Block(parts) => {
                let probes = parts.probes.fetch_add(1, Ordering::Relaxed);
                if probes * PROBES_SHARE >= self.rows { parts.keys(wanted).map(Some) } else { Ok(parts.keys.get()) }
            }
        }
    }

    /// The metadata of all rows. A chunk of a memtable has them where the scan is asked for keys.
    pub(super) fn metadata(&self) -> Result<Arc<Metadata>> {
        match &self.parts {
            Parts::Memory { metadata, .. } => Ok(metadata.clone().unwrap_or_default()),
            Parts::Block(parts) => parts.metadata().cloned(),
        }
    }

    /// The columns wanted, one for each of the scan's slots.
    pub(super) fn columns(&self, wanted: &Wanted) -> Result<&[Arc<Column>]> {
        match &self.parts {
            Parts::Memory { columns, .. } => Ok(columns),
            Parts::Block(parts) => once(&parts.columns, || {
                wanted.slots.iter().map(|&slot| parts.block.column(&wanted.layout, slot)).collect()
            })
            .map(Vec::as_slice),
        }
    }

    /// Bytes that a row of the columns wanted takes in a batch on average, at least one. A chunk is small: one row of it
    /// that is much larger than the others does not matter.
    pub(super) fn row_bytes(&self, wanted: &Wanted) -> Result<usize> {
        once(&self.row_bytes, || {
            let columns = self.columns(wanted)?.iter();
            let bytes: usize = columns.map(|column| column.bytes_between(0, self.rows)).sum();
            Ok(bytes.div_ceil(self.rows.max(1)).max(1))
        })
        .copied()
    }

    /// True where the chunk is that block.
    pub(super) fn is_of(&self, planned: &Planned) -> bool {
        match &self.parts {
            Parts::Memory { .. } => false,
            Parts::Block(parts) => Arc::ptr_eq(parts.block.entry(), &planned.entry),
        }
    }
}

impl BlockParts {
    fn key_columns(&self, wanted: &Wanted) -> Result<&Vec<Arc<Column>>> {
        once(&self.key_columns, || self.block.key_columns(&wanted.layout))
    }

    fn keys(&self, wanted: &Wanted) -> Result<&Arc<Strings>> {
        once(&self.keys, || self.block.keys(self.key_columns(wanted)?).map(Arc::new))
    }

    fn metadata(&self) -> Result<&Arc<Metadata>> {
        once(&self.metadata, || self.block.metadata())
    }

    /// Which rows are there, from no more metadata than needed.
    fn live(&self, wanted: &Wanted, rank: usize, planned: &Planned) -> Result<Live> {
        let mut live = vec![true; self.block.rows()];
        if planned.entry.summary.created_min_ms < wanted.expired_below_ms {
            let created_ms = self.block.created_ms()?;
            live.iter_mut().zip(&*created_ms).for_each(|(live, &created)| *live = created >= wanted.expired_below_ms);
        }
        if let Some(tombstones) = self.block.tombstones()? {
            live.iter_mut().zip(tombstones).for_each(|(live, tombstone)| *live &= !tombstone);
        }
        if wanted.deletes_of(rank, &planned.entry).next().is_some() {
            let (keys, metadata) = (self.keys(wanted)?, self.metadata()?);
            for (row, live) in live.iter_mut().enumerate() {
                *live &= !wanted.is_deleted(rank, keys.get(row), metadata.stamp(row).modified);
            }
        }
        Ok(Live::of(live))
    }
}

impl Live {
    fn of(live: Vec<bool>) -> Live {
        match (live.contains(&true), live.contains(&false)) {
            (true, true) => Live::Some(live),
            (false, true) => Live::None,
            (true | false, false) => Live::All,
        }
    }
}

/// What is in the cell; where nothing is, what `decode` gives.
fn once<T>(cell: &OnceLock<T>, decode: impl FnOnce() -> Result<T>) -> Result<&T> {
    if let Some(decoded) = cell.get() {
        return Ok(decoded);
    }
    let decoded = decode()?;
    Ok(cell.get_or_init(|| decoded))
}

/// True where the summary says that every row of the block is there.
pub(super) fn is_clean(wanted: &Wanted, rank: usize, planned: &Planned) -> bool {
    let summary = &planned.entry.summary;
    planned.need == Need::Rows
        && summary.tombstones == 0
        && summary.created_min_ms >= wanted.expired_below_ms
        && wanted.deletes_of(rank, &planned.entry).next().is_none()
}

/// True where a row of a memtable is there.
pub(super) fn is_live(wanted: &Wanted, rank: usize, key: &[u8], stamp: Stamp, image: Option<&[u8]>) -> bool {
    image.is_some() && stamp.created_ms >= wanted.expired_below_ms && !wanted.is_deleted(rank, key, stamp.modified)
}
