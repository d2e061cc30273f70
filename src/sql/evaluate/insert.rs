//! The rows of an INSERT, cut into slices whose keys ascend.
//!
//! Whether a key comes twice can be told slice by slice only where the slices are in key order. Rows mostly come so; for
//! those that do not, an order is found here, which takes the keys of all of them into memory at once.

use super::{Effects, ROW_BYTES, insert_effects, write};
use crate::error::SqlState;
use crate::machine::{Effect, RowSet, duplicate_key};
use crate::sql::batch::{Column, Strings, Values};
use crate::sql::bind::BoundInsert;
use crate::sql::catalog::{Layout, LayoutColumn, Table};
use crate::storage::keys;
use crate::{Error, Result};
use std::sync::Arc;

/// What is left of an INSERT.
pub(super) struct InsertSlices {
    insert: BoundInsert,
    /// Row numbers in key order; none where that is the order they have.
    order: Option<Vec<u32>>,
    at: usize,
    slice_bytes_max: usize,
}

impl InsertSlices {
    pub(super) fn new(insert: BoundInsert, slice_bytes_max: usize, whole_bytes_max: usize) -> Result<InsertSlices> {
        let mut slices = InsertSlices { insert, order: None, at: 0, slice_bytes_max };
        if slices.end(0) < slices.insert.rows && !slices.insert.table.has_row_id() {
            slices.order = order(&slices.insert, whole_bytes_max)?;
        }
        Ok(slices)
    }

    pub(super) fn table(&self) -> &Table {
        &self.insert.table
    }

    /// Bytes that all rows take.
    pub(super) fn bytes(&self) -> usize {
        self.insert.columns.iter().map(|column| column.byte_len()).sum()
    }

    pub(super) fn rows(&self) -> usize {
        self.insert.rows
    }

    pub(super) fn next(&mut self) -> Option<Effects> {
        let (from, rows) = (self.at, self.insert.rows);
        if from >= rows {
            return None;
        }
        let to = self.end(from);
        self.at = to;
        if (from, to) == (0, rows) {
            return Some(insert_effects(&self.insert));
        }
        let cut = |column: &Arc<Column>| match &self.order {
            None => Arc::new(column.slice(from, to)),
            Some(order) => Arc::new(column.gather(&order[from..to])),
        };
        let ids = self.insert.table.columns.iter().map(|column| column.id);
        let set = RowSet { columns: ids.zip(self.insert.columns.iter().map(cut)).collect(), rows: to - from };
        let effect = Effect::Insert { rows: set, created_ms: None };
        Some(Effects { parts: vec![write(&self.insert.table, effect)], affected: (to - from) as u64 })
    }

    /// Where a slice that begins at `from` ends: at least one row further on.
    fn end(&self, from: usize) -> usize {
        let mut bytes = 0;
        for at in from..self.insert.rows {
            let row = self.order.as_ref().map_or(at, |order| order[at] as usize);
            bytes += ROW_BYTES + self.insert.columns.iter().map(|column| cell_bytes(column, row)).sum::<usize>();
            if bytes > self.slice_bytes_max {
                return at.max(from + 1);
            }
        }
        self.insert.rows
    }
}

fn cell_bytes(column: &Column, row: usize) -> usize {
    match column {
        Column::Vector { values: Values::Text(strings) | Values::Blob(strings), .. } => strings.get(row).len(),
        Column::Vector {
            values: Values::Bool(_) | Values::Int(_) | Values::Float(_) | Values::Timestamp(_), ..
        }
        | Column::Constant { .. } => size_of::<i64>(),
    }
}

/// The keys of rows that are to be inserted.
pub(super) struct RowKeys {
    layout: Layout,
    /// For each column of the layout its place in the table.
    places: Vec<usize>,
    key: Vec<u8>,
    /// The key of the row before; empty before the first.
    before: Vec<u8>,
}

impl RowKeys {
    /// Keys of a table that has a key of its own.
    pub(super) fn new(table: &Table) -> RowKeys {
        let layout = table.layout();
        let place = |slot: &LayoutColumn| {
            let at = table.columns.iter().position(|column| column.id == slot.id);
            at.expect("a table with a key has no hidden columns")
        };
        RowKeys { places: layout.columns.iter().map(place).collect(), layout, key: Vec::new(), before: Vec::new() }
    }

    /// The key of a row.
    pub(super) fn key(&mut self, insert: &BoundInsert, row: usize) -> &[u8] {
        self.key.clear();
        for &slot in &self.layout.key {
            keys::push_cell(&mut self.key, &insert.columns[self.places[usize::from(slot)]], row);
        }
        &self.key
    }

    /// True where each row's key is above the one before it, also above the last row that was given here before.
    pub(super) fn ascend(&mut self, insert: &BoundInsert) -> bool {
        (0..insert.rows).all(|row| {
            self.key(insert, row);
            let ascends = self.key > self.before;
            std::mem::swap(&mut self.key, &mut self.before);
            ascends
        })
    }
}

/// Row numbers in key order, where rows are in another.
fn order(insert: &BoundInsert, bytes_max: usize) -> Result<Option<Vec<u32>>> {
    if RowKeys::new(&insert.table).ascend(insert) { Ok(None) } else { sorted(insert, bytes_max).map(Some) }
}

fn sorted(insert: &BoundInsert, bytes_max: usize) -> Result<Vec<u32>> {
    let (mut keys, mut row_keys) = (Strings::default(), RowKeys::new(&insert.table));
    for row in 0..insert.rows {
        keys.push(row_keys.key(insert, row));
        if keys.byte_len() + keys.len() * 2 * size_of::<u32>() > bytes_max {
            return Err(too_many_to_sort(bytes_max));
        }
    }
    let mut order: Vec<u32> = (0..insert.rows as u32).collect();
    order.sort_unstable_by(|a, b| keys.get(*a as usize).cmp(keys.get(*b as usize)));
    match order.windows(2).find(|pair| keys.get(pair[0] as usize) == keys.get(pair[1] as usize)) {
        Some(pair) => Err(duplicate_key(&insert.table, &row_keys.layout, keys.get(pair[0] as usize))),
        None => Ok(order),
    }
}

/// Why rows are not put in order.
pub(super) fn too_many_to_sort(bytes_max: usize) -> Error {
    let message = format!(
        "the rows of the INSERT are in no order of their keys, which take more than {bytes_max} bytes to sort: send them \
         in key order, or in smaller statements"
    );
    Error::limit(SqlState::LIMIT_EXCEEDED, message)
}
