//! The rows of an INSERT, cut into slices whose keys ascend.
//!
//! Whether a key comes twice can be told slice by slice only where the slices are in key order. Rows mostly come so; for
//! those that do not, an order is found here, which takes the keys of all of them into memory at once.

use super::{Effects, ROW_BYTES, insert_effects, write};
use crate::error::SqlState;
use crate::machine::{Effect, RowSet, duplicate_key};
use crate::sql::batch::{Column, Strings, Values};
use crate::sql::bind::BoundInsert;
use crate::sql::catalog::Layout;
use crate::storage::codec;
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

/// Row numbers in key order, where rows are in another.
fn order(insert: &BoundInsert, bytes_max: usize) -> Result<Option<Vec<u32>>> {
    let layout = insert.table.layout();
    let columns: Vec<Arc<Column>> = layout
        .columns
        .iter()
        .map(|slot| {
            let at = insert.table.columns.iter().position(|column| column.id == slot.id);
            insert.columns[at.expect("a table with a key has no hidden columns")].clone()
        })
        .collect();
    let (mut before, mut key) = (Vec::new(), Vec::new());
    for row in 0..insert.rows {
        key.clear();
        codec::encode_key(&layout, &columns, row, &mut key);
        if row > 0 && key <= before {
            return sorted(insert, &layout, &columns, bytes_max).map(Some);
        }
        std::mem::swap(&mut before, &mut key);
    }
    Ok(None)
}

fn sorted(insert: &BoundInsert, layout: &Layout, columns: &[Arc<Column>], bytes_max: usize) -> Result<Vec<u32>> {
    let (mut keys, mut key) = (Strings::default(), Vec::new());
    for row in 0..insert.rows {
        key.clear();
        codec::encode_key(layout, columns, row, &mut key);
        keys.push(&key);
        if keys.byte_len() + keys.len() * 2 * size_of::<u32>() > bytes_max {
            let message = format!(
                "the INSERT has {} rows in no order of their keys, which take more than {bytes_max} bytes to sort: \
                 send them in key order, or in smaller statements",
                insert.rows
            );
            return Err(Error::limit(SqlState::LIMIT_EXCEEDED, message));
        }
    }
    let mut order: Vec<u32> = (0..insert.rows as u32).collect();
    order.sort_unstable_by(|a, b| keys.get(*a as usize).cmp(keys.get(*b as usize)));
    match order.windows(2).find(|pair| keys.get(pair[0] as usize) == keys.get(pair[1] as usize)) {
        Some(pair) => Err(duplicate_key(&insert.table, layout, keys.get(pair[0] as usize))),
        None => Ok(order),
    }
}
