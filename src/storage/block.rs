//! Blocks: rows of one keyspace, column by column, immutable once encoded.
//!
//! A block is the unit of reading, caching, checking and merging. Each column is a section of its own, so a scan decodes
//! the columns that it was asked for and nothing else; metadata are columns too, each by itself.
//!
//! ```text
//! header     magic u32 | version u8 | 0 | sections u16 | rows u32 | tombstones u32 | length u32 | crc32c u32
//! directory  sections x { id u16 | kind u8 | encoding u8 | end u32 }
//! sections   the bytes of each, end to end; a section ends where its entry says and begins where the one before ends
//! ```
//!
//! * The checksum covers every byte but its own. [`Block::open`] checks it once; what decodes later has been checked.
//! * Keys are not stored: they are the key columns, encoded. Their bytes are rebuilt on demand.
//! * `created` has no section where it is what the stamp says for every row; tombstones have none where there are none.
//! * Zones and counts live in the level's manifest. The block does not repeat them, since [`Block::summary`] finds the
//!   same by decoding: two copies could disagree, and cost two of a hundred bytes.
//! * Any bytes may be given to `open` and to what follows: they decode, or they are an error of kind `Damaged`.
//!
//! # How many rows
//!
//! Measured in a release build on 2 cores: 1,000,000 rows `device INT, ts INT, value FLOAT` in key order, 50 devices,
//! real temperatures of nine digits (the CSV is 27.5 MB) or rounded to two decimals (19.8 MB), with one stamp for a
//! thousand rows, or (right of the bar) one for each. *Scan*: value, then device and ts, then metadata, then keys, in
//! ms for all rows. *Get*: one row out of nothing but encoded bytes: check, keys, search, one value, metadata.
//!
//! ```text
//!                  blocks   bytes a row   of CSV           rounded       of CSV           scan ms              get us
//! 1,024 rows          977   4.47 | 4.67   0.162 | 0.170   1.86 | 2.07   0.094 | 0.105   8.4  0.8  2.1  4.6       17
//! 2,048 rows          489   4.32 | 4.53   0.157 | 0.165   1.72 | 1.93   0.087 | 0.098   7.6  0.7  1.8  4.7       36
//! 4,096 rows          245   4.25 | 4.46   0.155 | 0.162   1.65 | 1.86   0.083 | 0.094   7.2  0.9  1.8  4.4       69
//! 8,192 rows          123   4.20 | 4.42   0.153 | 0.161   1.61 | 1.82   0.081 | 0.092   6.9  1.3  1.5  4.1      107
//! at most 4,096 B    1132   4.51 | 4.73   0.164 | 0.172   1.70 | 1.93   0.086 | 0.097   8.9  0.8  2.3  5.0       15
//! ```
//!
//! Encoding takes 80 to 150 ns a row at any size. Of a row's 4.25 bytes (4,096 rows a block) the value takes 4.17, the
//! stamp 0.04 (0.26 where each row has its own), device, ts, origin and position together 0.03. So sealed blocks have
//! 2,048 rows: twice as many save one byte in sixty and make a lookup twice as dear. Blocks of the hot store are
//! smaller, for they are rewritten: `storage::hot`.

mod cut;
mod directory;
mod key_columns;
mod summary;

use crate::error::{Error, Result};
use crate::ids::ColumnId;
use crate::sql::batch::{Column, Strings};
use crate::sql::catalog::{Layout, LayoutColumn};
use crate::storage::column;
use crate::storage::level::Summary;
use crate::storage::rows::{Metadata, Rows};
use directory::{Directory, Kind, Writer};
use std::fmt;
use std::sync::Arc;

pub use cut::{Limits, encode_cut, slice};
pub use directory::BLOCK_ROWS_MAX;
pub use key_columns::{build_keys, search_keys};

/// Bits of a stamp below its milliseconds; what `created` is derived by.
const STAMP_COUNTER_BITS: u32 = 16;

/// An encoded block, checked and ready to decode column by column. Cheap to clone.
#[derive(Clone)]
pub struct Block {
    bytes: Arc<[u8]>,
    directory: Directory,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block of {} rows in {} bytes", self.rows(), self.bytes.len())
    }
}

impl Block {
    /// Encodes rows of one keyspace: at least one, at most [`BLOCK_ROWS_MAX`].
    pub fn encode(layout: &Layout, rows: &Rows) -> (Vec<u8>, Summary) {
        assert!(rows.columns.len() == layout.columns.len(), "rows have one column for each of their layout");
        assert!(
            (1..=BLOCK_ROWS_MAX).contains(&rows.len()),
            "a block has 1 to {BLOCK_ROWS_MAX} rows, not {}",
            rows.len()
        );
        debug_assert_eq!(
            build_keys(layout, &rows.columns, rows.len()).map(|keys| keys == rows.keys),
            Ok(true),
            "keys are what the key columns say"
        );
        let Metadata { created_ms, hlc, origin, modified, tombstone } = &rows.metadata;
        let tombstones = tombstone.iter().filter(|mark| **mark).count();
        let mut writer = Writer::new(rows.len(), tombstones, layout.columns.len() + 5);
        for (slot, stored) in layout.columns.iter().zip(&rows.columns) {
            assert!(stored.len() == rows.len(), "column {} is as long as its block", slot.id);
            assert!(stored.data_type() == slot.data_type, "column {} is {}", slot.id, slot.data_type);
            writer.section(slot.id.0, Kind::Column(slot.data_type), |out| column::encode(stored, out));
        }
        writer.section(0, Kind::Hlc, |out| column::encode_unsigned(hlc, out));
        if created_ms.iter().zip(hlc).any(|(created, stamp)| *created != stamp >> STAMP_COUNTER_BITS) {
            writer.section(0, Kind::Created, |out| column::encode_unsigned(created_ms, out));
        }
        writer.section(0, Kind::Origin, |out| column::encode_unsigned(origin, out));
        writer.section(0, Kind::Modified, |out| column::encode_unsigned(modified, out));
        if tombstones > 0 {
            writer.section(0, Kind::Tombstone, |out| column::encode_marks(tombstone, out));
        }
        (writer.finish(), summary::of(&rows.columns, &rows.metadata))
    }

    /// Checks magic, version, length and checksum.
    pub fn open(bytes: Arc<[u8]>) -> Result<Block> {
        let directory = Directory::open(&bytes)?;
        Ok(Block { bytes, directory })
    }

    /// Rows, tombstones included.
    pub fn rows(&self) -> usize {
        self.directory.rows as usize
    }

    /// Tombstones among the rows.
    pub fn tombstone_count(&self) -> usize {
        self.directory.tombstones as usize
    }

    /// The encoded bytes: what is written elsewhere where a block moves as it is.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// The columns that the block was written with, in slot order.
    pub fn column_ids(&self) -> impl Iterator<Item = ColumnId> {
        self.directory
            .sections(&self.bytes)
            .filter(|section| section.kind.data_type().is_some())
            .map(|section| ColumnId(section.id))
    }

    /// A column, decoded; none where the block was written before the column existed.
    pub fn column(&self, id: ColumnId) -> Result<Option<Arc<Column>>> {
        let mut sections = self.directory.sections(&self.bytes);
        let found = sections.find_map(|section| match section.kind {
            Kind::Column(data_type) if section.id == id.0 => Some((data_type, section)),
            Kind::Column(_) | Kind::Hlc | Kind::Created | Kind::Origin | Kind::Modified | Kind::Tombstone => None,
        });
        let Some((data_type, section)) = found else { return Ok(None) };
        let column = column::decode(data_type, section.encoding, section.bytes, self.rows());
        column.map(|column| Some(Arc::new(column))).map_err(|error| error.context(format_args!("column {id}")))
    }

    /// The metadata columns, decoded.
    pub fn metadata(&self) -> Result<Arc<Metadata>> {
        let hlc = self.hlc()?;
        let created_ms = match self.unsigned(Kind::Created)? {
            Some(created_ms) => created_ms,
            None => derive_created(&hlc),
        };
        let tombstone = self.tombstones()?.unwrap_or_else(|| vec![false; self.rows()]);
        Ok(Arc::new(Metadata { created_ms, hlc, origin: self.origin()?, modified: self.modified()?, tombstone }))
    }

    /// Milliseconds at which each row was inserted.
    pub fn created_ms(&self) -> Result<Vec<u64>> {
        match self.unsigned(Kind::Created)? {
            Some(created_ms) => Ok(created_ms),
            None => self.hlc().map(|hlc| derive_created(&hlc)),
        }
    }

    /// Stamps of the last writing commands.
    pub fn hlc(&self) -> Result<Vec<u64>> {
        self.unsigned(Kind::Hlc)?.ok_or_else(|| absent("stamps"))
    }

    /// Where each row was last written by a client.
    pub fn origin(&self) -> Result<Vec<u64>> {
        self.unsigned(Kind::Origin)?.ok_or_else(|| absent("origins"))
    }

    /// Log positions of the last writing commands.
    pub fn modified(&self) -> Result<Vec<u64>> {
        self.unsigned(Kind::Modified)?.ok_or_else(|| absent("modifying positions"))
    }

    /// Which rows are tombstones; none where no row is, which costs nothing to find out.
    pub fn tombstones(&self) -> Result<Option<Vec<bool>>> {
        if self.directory.tombstones == 0 {
            return Ok(None);
        }
        let section = self.directory.find(&self.bytes, Kind::Tombstone).ok_or_else(|| absent("tombstones"))?;
        let marks = column::decode_marks(section.encoding, section.bytes, self.rows())?;
        if marks.iter().filter(|mark| **mark).count() == self.directory.tombstones as usize {
            Ok(Some(marks))
        } else {
            Err(Error::damaged("a block has another number of tombstones than it says"))
        }
    }

    /// The columns of the key, in key order: enough for [`search_keys`], and what a cache keeps first.
    pub fn key_columns(&self, layout: &Layout) -> Result<Vec<Arc<Column>>> {
        let decoded = |slot: &u16| {
            let slot = &layout.columns[*slot as usize];
            let column = self.column(slot.id)?.filter(|column| column.data_type() == slot.data_type);
            column.ok_or_else(|| Error::damaged(format!("a block has no key column {}", slot.id)))
        };
        layout.key.iter().map(decoded).collect()
    }

    /// The keys, rebuilt from the key columns.
    pub fn keys(&self, layout: &Layout) -> Result<Arc<Strings>> {
        let columns = self.key_columns(layout)?;
        key_columns::encode(&columns.iter().map(|column| &**column).collect::<Vec<&Column>>(), self.rows())
            .map(Arc::new)
    }

    /// The row of this key.
    pub fn find(&self, layout: &Layout, key: &[u8]) -> Result<Option<usize>> {
        Ok(search_keys(&self.key_columns(layout)?, self.rows(), key).ok())
    }

    /// Decodes everything and keeps nothing: whether the block can be read to the last byte.
    pub fn check(&self) -> Result<()> {
        let columns = self.directory.sections(&self.bytes).try_for_each(|section| {
            section.kind.data_type().map_or(Ok(()), |data_type| {
                column::decode(data_type, section.encoding, section.bytes, self.rows()).map(drop)
            })
        });
        columns.and_then(|()| self.metadata().map(drop))
    }

    /// Every column in the slots of `layout`, with keys and metadata: what a merge reads. A column that the block was
    /// written before has its `missing` value.
    pub fn decode(&self, layout: &Layout) -> Result<Rows> {
        let decoded = |slot: &LayoutColumn| {
            let column = self.column(slot.id)?;
            if column.as_ref().is_some_and(|column| column.data_type() != slot.data_type) {
                return Err(Error::damaged(format!("a block has another type in column {}", slot.id)));
            }
            Ok(column.unwrap_or_else(|| Arc::new(Column::constant(slot.missing.clone(), slot.data_type, self.rows()))))
        };
        let columns = layout.columns.iter().map(decoded).collect::<Result<Vec<Arc<Column>>>>()?;
        let keys = build_keys(layout, &columns, self.rows())?;
        let metadata = Arc::unwrap_or_clone(self.metadata()?);
        Ok(Rows { keys, columns, metadata })
    }

    /// What a manifest knows of the block, found by decoding it: the zones in the order of its own columns.
    pub fn summary(&self) -> Result<Summary> {
        let ids: Vec<ColumnId> = self.column_ids().collect();
        let column = |id: &ColumnId| self.column(*id)?.ok_or_else(|| absent("a column"));
        let columns = ids.iter().map(column).collect::<Result<Vec<Arc<Column>>>>()?;
        Ok(summary::of(&columns, &*self.metadata()?))
    }

    fn unsigned(&self, kind: Kind) -> Result<Option<Vec<u64>>> {
        let Some(section) = self.directory.find(&self.bytes, kind) else { return Ok(None) };
        column::decode_unsigned(section.encoding, section.bytes, self.rows()).map(Some)
    }
}

fn derive_created(hlc: &[u64]) -> Vec<u64> {
    hlc.iter().map(|stamp| stamp >> STAMP_COUNTER_BITS).collect()
}

fn absent(what: &str) -> Error {
    Error::damaged(format!("a block has no section for {what}"))
}
