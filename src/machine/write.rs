//! From an effect to rows and index entries, checked but not yet written.

use super::command::{Effect, Part, TableWrite};
use super::row_set::RowSet;
use super::staged::Staged;
use crate::error::SqlState;
use crate::hlc::Timestamp;
use crate::ids::{ColumnId, KeyspaceId, LogIndex, OriginUid};
use crate::sql::batch::{Column, Values};
use crate::sql::catalog::{Catalog, Layout, LayoutColumn, ROW_ID_COLUMNS, Table};
use crate::sql::value::{DataType, Value};
use crate::storage::codec;
use crate::storage::keys::{self, Key, KeyRange};
use crate::storage::level::RangeDelete;
use crate::storage::rows::Stamp;
use crate::storage::view::{Head, PointReader, View};
use crate::{Error, Result};
use std::cell::OnceCell;
use std::sync::Arc;

/// Who writes, when, and what it read: the part of a command that every row of it shares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    /// Position of the command.
    pub index: LogIndex,
    /// Its stamp.
    pub hlc: Timestamp,
    /// Origin of new rows.
    pub origin: OriginUid,
    /// Position of the view that the effects were computed at.
    pub read_index: LogIndex,
}

impl Writer {
    fn stamp(&self, created_ms: u64) -> Stamp {
        Stamp { created_ms, hlc: self.hlc, origin: self.origin, modified: self.index }
    }

    fn now_ms(&self) -> u64 {
        self.hlc.wall().0
    }
}

/// What is to be done with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// All of it.
    Both,
    /// Only its checks; nothing is staged.
    Check,
    /// It was checked; only staged.
    Write,
}

/// Where a write stands among the slices of its statement.
pub(super) struct Place {
    pass: Pass,
    /// Rows inserted by the slices before.
    rows: usize,
    /// The greatest key that they inserted.
    last: Option<Key>,
}

impl Place {
    /// The first one.
    pub(super) fn of(pass: Pass) -> Place {
        Place { pass, rows: 0, last: None }
    }
}

/// Checks one write against `view` and stages it.
pub(super) fn stage(
    write: &TableWrite,
    catalog: &Catalog,
    view: &View,
    writer: Writer,
    place: &mut Place,
) -> Result<Staged> {
    let table = catalog.table_by_id(write.table).filter(|table| table.schema == write.schema);
    let Some(table) = table else {
        return Err(Error::conflict("the table was changed since the statement was planned"));
    };
    // Below the floor merging may have dropped tombstones, so what changed since cannot be told (storage: floors).
    if writer.read_index < table.floor {
        return Err(Error::conflict("the statement was evaluated too long ago"));
    }
    let mut stager = Stager::new(table, view, writer, place);
    match &write.effect {
        Effect::Insert { rows, created_ms } => stager.insert(rows, created_ms.as_deref())?,
        Effect::Replace { rows, created_ms } => stager.replace(rows, created_ms)?,
        Effect::Delete { keys } => keys.0.iter().try_for_each(|key| stager.delete(key))?,
        Effect::DeleteRange { from, to } => {
            stager.delete_range(&KeyRange { from: from.clone(), to: to.clone() })?;
        }
    }
    Ok(stager.staged)
}

/// The parts of a transaction that only write; definitions are another file's business.
pub(super) fn writes(parts: &[Part]) -> usize {
    parts.iter().filter(|part| matches!(part, Part::Write(_))).count()
}

struct Stager<'a> {
    table: &'a Table,
    layout: Layout,
    indexes: Vec<(KeyspaceId, Layout)>,
    view: &'a View,
    /// Made when the first key is looked up, and good for all others.
    heads: OnceCell<PointReader>,
    /// The same for the columns of each index.
    entries: Vec<OnceCell<PointReader>>,
    writer: Writer,
    expired_below_ms: u64,
    staged: Staged,
    place: &'a mut Place,
}

impl<'a> Stager<'a> {
    fn new(table: &'a Table, view: &'a View, writer: Writer, place: &'a mut Place) -> Stager<'a> {
        let indexes: Vec<_> = table.indexes.iter().map(|index| (index.keyspace, table.index_layout(index))).collect();
        Stager {
            layout: table.layout(),
            heads: OnceCell::new(),
            entries: indexes.iter().map(|_| OnceCell::new()).collect(),
            indexes,
            expired_below_ms: table.expired_below(writer.now_ms()),
            staged: Staged::default(),
            table,
            view,
            writer,
            place,
        }
    }

    fn insert(&mut self, rows: &RowSet, created_ms: Option<&[u64]>) -> Result<()> {
        if created_ms.is_some_and(|created_ms| created_ms.len() != rows.rows) {
            return Err(super::row_set::malformed());
        }
        let columns = self.columns(rows)?;
        let keys = self.keys(&columns, rows.rows);
        let is_new = self.place.pass == Pass::Write || self.are_beyond(&keys)?;
        self.reserve(rows.rows);
        let now_ms = self.writer.now_ms();
        for (row, key) in keys.into_iter().enumerate() {
            if !is_new && self.visible(&key)?.is_some() {
                return Err(self.duplicate(&key));
            }
            let created_ms = created_ms.map_or(now_ms, |created_ms| created_ms[row]);
            self.put(key, self.writer.stamp(created_ms), &columns, row);
        }
        self.place.rows += rows.rows;
        Ok(())
    }

    /// Checks the keys of an insert against each other and against the slices before: those ascend, so that none needs to
    /// know the keys of all the others. True where no row can have any of them, so none needs to be looked up.
    fn are_beyond(&mut self, keys: &[Key]) -> Result<bool> {
        let Some((least, greatest)) = bounds_of_distinct(keys).map_err(|key| self.duplicate(key))? else {
            return Ok(true);
        };
        if self.place.last.as_ref().is_some_and(|before| least <= before) {
            return Err(self.duplicate(least));
        }
        self.place.last = Some(greatest.clone());
        // A hidden row id holds the stamp of its command: nothing can have it already.
        if self.table.has_row_id() {
            return Ok(true);
        }
        // Time series grow at an end. A single key is looked up in the time that this takes.
        Ok(keys.len() > 1 && self.reader(&self.heads, &[])?.knows_none(least, greatest))
    }

    fn replace(&mut self, rows: &RowSet, created_ms: &[u64]) -> Result<()> {
        if created_ms.len() != rows.rows {
            return Err(super::row_set::malformed());
        }
        let columns = self.columns(rows)?;
        let keys = self.keys(&columns, rows.rows);
        bounds_of_distinct(&keys).map_err(|key| self.duplicate(key))?;
        self.reserve(rows.rows);
        for (row, key) in keys.into_iter().enumerate() {
            self.require_unchanged(&key)?;
            self.end_index_entries(&key, Some((&columns, row)))?;
            self.put(key, self.writer.stamp(created_ms[row]), &columns, row);
        }
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        self.require_unchanged(key)?;
        self.end_index_entries(key, None)?;
        if self.place.pass != Pass::Check {
            self.staged.tombstone(self.table.keyspace, key.clone(), self.writer.stamp(self.writer.now_ms()));
        }
        Ok(())
    }

    fn delete_range(&mut self, range: &KeyRange) -> Result<()> {
        if !self.indexes.is_empty() && *range != KeyRange::all() {
            return Err(super::row_set::malformed());
        }
        if self.view.changed_since(self.table.keyspace, range, self.writer.read_index)? {
            return Err(Error::conflict("a row of the deleted range was written meanwhile"));
        }
        let keyspaces = std::iter::once(self.table.keyspace).chain(self.indexes.iter().map(|(keyspace, _)| *keyspace));
        for keyspace in keyspaces {
            let (index, hlc) = (self.writer.index, self.writer.hlc.0);
            self.staged.delete_range(RangeDelete { keyspace, range: range.clone(), index, hlc });
        }
        Ok(())
    }

    /// The row set's columns in slot order; hidden row ids are drawn where the command does not bring them.
    fn columns(&self, rows: &RowSet) -> Result<Vec<Arc<Column>>> {
        let drawn = |id| match ROW_ID_COLUMNS.iter().position(|hidden| *hidden == id)? {
            0 => Some(Column::constant(Value::Int(self.writer.hlc.0 as i64), DataType::Int, rows.rows)),
            1 => Some(Column::constant(Value::Int(self.writer.origin.0 as i64), DataType::Int, rows.rows)),
            _ => {
                let first = self.place.rows as i64;
                Some(Column::new(Values::Int((first..first + rows.rows as i64).collect())))
            }
        };
        self.layout
            .columns
            .iter()
            .map(|slot| match rows.column(slot.id) {
                Some(column) if column.data_type() == slot.data_type => Ok(column.clone()),
                Some(_) => Err(super::row_set::malformed()),
                None => drawn(slot.id).map(Arc::new).ok_or_else(super::row_set::malformed),
            })
            .collect()
    }

    fn keys(&self, columns: &[Arc<Column>], rows: usize) -> Vec<Key> {
        let mut bytes = Vec::new();
        (0..rows)
            .map(|row| {
                bytes.clear();
                codec::encode_key(&self.layout, columns, row, &mut bytes);
                Key::new(&bytes)
            })
            .collect()
    }

    /// A reader of the table's rows for these columns, made once.
    fn reader<'b>(&self, made: &'b OnceCell<PointReader>, columns: &[LayoutColumn]) -> Result<&'b PointReader> {
        if let Some(reader) = made.get() {
            return Ok(reader);
        }
        let ids: Vec<ColumnId> = columns.iter().map(|column| column.id).collect();
        let reader = self.view.reader(self.table.keyspace, &ids)?;
        Ok(made.get_or_init(|| reader))
    }

    /// The newest version of a key, where a statement of now could see it.
    fn visible(&self, key: &[u8]) -> Result<Option<Head>> {
        let head = self.reader(&self.heads, &[])?.head(key)?;
        Ok(head.filter(|head| !head.tombstone && head.stamp.created_ms >= self.expired_below_ms))
    }

    fn require_unchanged(&self, key: &[u8]) -> Result<()> {
        if self.place.pass == Pass::Write {
            return Ok(());
        }
        // An earlier part of the same transaction may have written the row: that is no one else's change.
        let unchanged = |modified| modified <= self.writer.read_index || modified == self.writer.index;
        match self.visible(key)? {
            Some(head) if unchanged(head.stamp.modified) => Ok(()),
            Some(_) | None => Err(Error::conflict("a row was changed by another statement meanwhile")),
        }
    }

    /// Makes room for the rows of a write and their index entries.
    fn reserve(&mut self, rows: usize) {
        if self.place.pass == Pass::Check {
            return;
        }
        for (keyspace, _) in &self.indexes {
            self.staged.reserve(*keyspace, rows);
        }
        self.staged.reserve(self.table.keyspace, rows);
    }

    /// Writes row `row` of `columns` and its index entries.
    fn put(&mut self, key: Key, stamp: Stamp, columns: &[Arc<Column>], row: usize) {
        if self.place.pass == Pass::Check {
            return;
        }
        let (layout, staged) = (&self.layout, &mut self.staged);
        for (keyspace, index) in &self.indexes {
            let entry = index_entry(layout, index, columns, row);
            staged.put(*keyspace, keys::encode(&entry), stamp, |image| codec::encode(index, &entry, image));
        }
        staged.put(self.table.keyspace, key, stamp, |image| codec::encode_row(layout, columns, row, image));
    }

    /// Tombstones for the index entries of the row that is there now, but for those that its next version keeps.
    fn end_index_entries(&mut self, key: &[u8], next: Option<(&[Arc<Column>], usize)>) -> Result<()> {
        if self.place.pass == Pass::Check {
            return Ok(());
        }
        for (at, (keyspace, index)) in self.indexes.iter().enumerate() {
            let found = self.reader(&self.entries[at], &index.columns)?.get(key)?;
            let Some(entry) = found.and_then(|found| found.values) else { continue };
            let kept = next.is_some_and(|(columns, row)| {
                keys::encode(&index_entry(&self.layout, index, columns, row)) == keys::encode(&entry)
            });
            if !kept {
                self.staged.tombstone(*keyspace, keys::encode(&entry), self.writer.stamp(self.writer.now_ms()));
            }
        }
        Ok(())
    }

    fn duplicate(&self, key: &Key) -> Error {
        duplicate_key(self.table, &self.layout, key)
    }
}

/// Why a row cannot be inserted beside another of its key.
pub fn duplicate_key(table: &Table, layout: &Layout, key: &[u8]) -> Error {
    let values = keys::decode(key, &layout.key_types()).unwrap_or_default();
    let named = |id| table.column_by_id(id).map_or("row id", |column| column.name.as_str());
    let columns: Vec<&str> = table.key_columns().into_iter().map(named).collect();
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    Error::invalid(
        SqlState::UNIQUE_VIOLATION,
        format!(
            "duplicate key value violates unique constraint \"{}_pkey\": key ({})=({}) already exists",
            table.name,
            columns.join(", "),
            values.join(", ")
        ),
    )
}

/// The values of a row's entry in an index.
fn index_entry(table: &Layout, index: &Layout, columns: &[Arc<Column>], row: usize) -> Vec<Value> {
    let slot = |id| table.slot(id).expect("indexes name columns of their table");
    index.columns.iter().map(|column| columns[slot(column.id)].value(row)).collect()
}

/// The least and the greatest key; an error is the first key that occurs twice. Rows that come in key order, as most
/// inserts do, cost one comparison each.
fn bounds_of_distinct(keys: &[Key]) -> std::result::Result<Option<(&Key, &Key)>, &Key> {
    if keys.is_sorted_by(|a, b| a < b) {
        return Ok(keys.first().zip(keys.last()));
    }
    let mut sorted: Vec<&Key> = keys.iter().collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(pair[0]),
        None => Ok(sorted.first().copied().zip(sorted.last().copied())),
    }
}
