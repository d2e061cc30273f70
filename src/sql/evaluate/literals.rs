//! The rows of a long INSERT, slice by slice out of its text.
//!
//! A statement of 16 MB is some 700,000 short rows: read at once they took as much memory again, and half as much more
//! where the vectors grew. Reading a row takes less than storing it, so they are read twice: once to see that all of the
//! text is understood and whether the keys ascend, and then a slice at a time as they are proposed.
//!
//! * Where keys do not ascend, an order is found, which takes the keys of all rows and where each begins.

use super::insert::{RowKeys, too_many_to_sort};
use super::{Effects, Evaluation, ROW_BYTES, STEP_BYTES, STEP_ROWS, give_way, insert_effects};
use crate::machine::duplicate_key;
use crate::sql::batch::{ColumnBuilder, Strings};
use crate::sql::bind::BoundInsert;
use crate::sql::catalog::Table;
use crate::sql::insert::{MixedInsert, Place};
use crate::{Error, Result};
use std::sync::Arc;

/// Bytes of text from which on rows are read slice by slice: below, all of them are no more than one slice.
pub const LONG_BYTES_MIN: usize = 1 << 20;

/// What is left of a long INSERT.
pub struct LiteralSlices<'a> {
    insert: MixedInsert<'a>,
    /// In which order rows are read.
    order: Order,
    /// Rows and bytes taken so far.
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

enum Order {
    /// That of the text, from here on.
    Text(Place),
    /// That of the keys: where each row begins, and how many of them were taken.
    Keys(Vec<u32>, usize),
}

impl<'a> LiteralSlices<'a> {
    /// Looks through all rows; none where they are not understood.
    ///
    /// # Errors
    /// What is wrong with a row.
    pub async fn scan(insert: MixedInsert<'a>, evaluation: &Evaluation<'_>) -> Result<Option<LiteralSlices<'a>>> {
        let mut keys = (!insert.table().has_row_id()).then(|| RowKeys::new(insert.table()));
        let mut ascends = true;
        let ascend = |rows: BoundInsert| ascends = ascends && keys.as_mut().is_none_or(|keys| keys.ascend(&rows));
        if !each_step(&insert, evaluation, ascend).await? {
            return Ok(None);
        }
        let order = if ascends { Order::Text(insert.first()) } else { sorted(&insert, evaluation).await? };
        Ok(Some(LiteralSlices { insert, order, rows: 0, bytes: 0 }))
    }

    /// All rows at once, for a batch: its statements see each other, so they are in memory in any case.
    ///
    /// # Errors
    /// What is wrong with a row.
    pub async fn whole(insert: &MixedInsert<'_>, evaluation: &Evaluation<'_>) -> Result<Option<BoundInsert>> {
        let mut parts = Vec::new();
        Ok(each_step(insert, evaluation, |rows| parts.push(rows)).await?.then(|| joined(parts)))
    }

    pub(super) fn table(&self) -> &Table {
        self.insert.table()
    }

    /// The next slice, of about so many bytes.
    pub(super) async fn next(&mut self, bytes_max: usize) -> Result<Option<Effects>> {
        let mut parts: Vec<BoundInsert> = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max {
            if !parts.is_empty() && !matches!(self.order, Order::Text(Place::End)) {
                give_way().await;
            }
            let rows = match &mut self.order {
                Order::Text(Place::End) => break,
                Order::Text(at) => self.insert.rows(at, step_rows(&self.insert), STEP_BYTES)?,
                Order::Keys(places, taken) => {
                    let from = *taken;
                    let row_bytes = (self.insert.text_bytes() / places.len()).max(1);
                    *taken = places.len().min(from + step_rows(&self.insert).min(STEP_BYTES.div_ceil(row_bytes)));
                    if from == *taken {
                        break;
                    }
                    self.insert.rows_at(places[from..*taken].iter().copied())?
                }
            };
            let rows = rows.ok_or_else(|| Error::internal("a statement that was understood before is not any more"))?;
            let size: usize = rows.columns.iter().map(|column| column.bytes_between(0, rows.rows)).sum();
            bytes += size + rows.rows * ROW_BYTES;
            (self.rows, self.bytes) = (self.rows + rows.rows, self.bytes + size);
            parts.push(rows);
        }
        Ok((!parts.is_empty()).then(|| insert_effects(&joined(parts))))
    }
}

/// Reads all rows, some at a time, and lets others have their turn in between; false where they are not understood.
async fn each_step(
    insert: &MixedInsert<'_>,
    evaluation: &Evaluation<'_>,
    mut take: impl FnMut(BoundInsert),
) -> Result<bool> {
    let mut at = insert.first();
    loop {
        (evaluation.check)()?;
        let Some(rows) = insert.rows(&mut at, step_rows(insert), STEP_BYTES)? else { return Ok(false) };
        take(rows);
        if at == Place::End {
            return Ok(true);
        }
        give_way().await;
    }
}

/// Rows read at once. One of many columns has many numbers.
fn step_rows(insert: &MixedInsert<'_>) -> usize {
    (STEP_BYTES / (insert.table().columns.len() * size_of::<u64>() + ROW_BYTES)).clamp(1, STEP_ROWS)
}

/// The rows of all parts, end to end.
fn joined(mut parts: Vec<BoundInsert>) -> BoundInsert {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let rows = parts.iter().map(|part| part.rows).sum();
    let columns = (0..parts[0].columns.len()).map(|at| {
        let mut column = ColumnBuilder::new(parts[0].columns[at].data_type(), rows);
        for part in &mut parts {
            let rows = part.rows;
            // What has been copied is let go at once.
            let empty = Arc::new(ColumnBuilder::new(part.columns[at].data_type(), 0).finish());
            let taken = std::mem::replace(&mut part.columns[at], empty);
            column.extend(&taken, 0, rows);
        }
        Arc::new(column.finish())
    });
    let columns = columns.collect();
    BoundInsert { table: parts[0].table.clone(), columns, rows }
}

/// The order of the keys. Others have their turn meanwhile: rows that are more than literals take long to read.
async fn sorted(insert: &MixedInsert<'_>, evaluation: &Evaluation<'_>) -> Result<Order> {
    let (mut keys, mut places): (Strings, Vec<u32>) = (Strings::default(), Vec::new());
    let mut row_keys = RowKeys::new(insert.table());
    let mut at = insert.first();
    while let Place::At(place) = at {
        places.push(place);
        if places.len().is_multiple_of(STEP_ROWS) {
            (evaluation.check)()?;
            give_way().await;
        }
        let row = insert.rows(&mut at, 1, usize::MAX)?;
        let row = row.ok_or_else(|| Error::internal("a statement that was understood before is not any more"))?;
        keys.push(row_keys.key(&row, 0));
        // A row has its key, where that begins, where the row begins, and its number in the order.
        if keys.byte_len() + keys.len() * 3 * size_of::<u32>() > evaluation.whole_bytes_max {
            return Err(too_many_to_sort(evaluation.whole_bytes_max));
        }
    }
    let mut order: Vec<u32> = (0..places.len() as u32).collect();
    order.sort_unstable_by(|a, b| keys.get(*a as usize).cmp(keys.get(*b as usize)));
    if let Some(pair) = order.windows(2).find(|pair| keys.get(pair[0] as usize) == keys.get(pair[1] as usize)) {
        return Err(duplicate_key(insert.table(), &insert.table().layout(), keys.get(pair[0] as usize)));
    }
    drop(keys);
    order.iter_mut().for_each(|row| *row = places[*row as usize]);
    Ok(Order::Keys(order, 0))
}
