//! The size of rows and of keys: of a row's own key, and of its entries in indexes.
//!
//! A key is compared whole, stands in manifests, cursors, range ends and messages, and each entry of an index is one. So
//! a key is short: where values may be megabytes, an index of them would be a second copy of the table that no budget of
//! memory counts, and a comparison of two would read both. PostgreSQL refuses 2,704 bytes and more.
//!
//! A row is read, sent and stored whole: one that no answer can carry could be neither read nor exported. What is written
//! by a statement is bounded by its text, what an UPDATE computes by nothing else.
//!
//! * Judged here, on the node that leads, as the statement is evaluated. Apply writes what the log says: the limit decides
//!   what is proposed, never what a replica does with it.

use super::{Evaluation, STEP_ROWS, YIELD_STEPS, give_way};
use crate::error::{Error, Result, SqlState};
use crate::ids::ColumnId;
use crate::machine::{Effect, Part, RowSet};
use crate::sql::batch::{Column, Values};
use crate::sql::bind::BoundCreateIndex;
use crate::sql::catalog::Table;
use crate::sql::expression::Expression;
use crate::sql::value::DataType;
use crate::storage::keys::{self, KeyRange};
use crate::storage::view::ScanRequest;

/// Bytes of an encoded key at most: a block of the hot store, so that two keys of a block are no more than its rows.
pub const KEY_BYTES_MAX: usize = 8 << 10;

/// Bytes of a row's values at most: what an answer holds by default, and a statement.
pub const ROW_BYTES_MAX: usize = 16 << 20;

/// Bytes of a component at most that is no string, and of a string beside its bytes, each of which may become two.
const COMPONENT_BYTES: usize = 16;

/// Refuses parts of which some row is too large, or has a key, or an entry in one of the table's indexes, that is too long.
pub fn check_parts(table: &Table, parts: &[Part]) -> Result<()> {
    check_changed(table, parts, |_| true)
}

/// The same for what an UPDATE of some columns writes, of which only the keys count that it changes. A row that was
/// indexed while there was no limit, or while the index was made, can be updated in its other columns.
pub(super) fn check_update(table: &Table, parts: &[Part], assignments: &[(ColumnId, Expression)]) -> Result<()> {
    let is_assigned = |id: &ColumnId| assignments.iter().any(|(assigned, _)| assigned == id);
    check_changed(table, parts, |columns| columns.iter().any(is_assigned))
}

fn check_changed(table: &Table, parts: &[Part], is_changed: impl Fn(&[ColumnId]) -> bool) -> Result<()> {
    let own = table.key_columns();
    let check_rows = |rows: &RowSet| {
        check_size(rows, &table.name)?;
        if is_changed(&own) {
            check(rows, &own, || format!("{}_pkey", table.name))?;
        }
        table.indexes.iter().try_for_each(|index| {
            let columns = entry_columns(&index.columns, &own);
            if is_changed(&columns) { check(rows, &columns, || index.name.clone()) } else { Ok(()) }
        })
    };
    parts.iter().try_for_each(|part| match part {
        Part::Write(write) => match &write.effect {
            Effect::Insert { rows, .. } | Effect::Replace { rows, .. } => check_rows(rows),
            Effect::Delete { .. } | Effect::DeleteRange { .. } => Ok(()),
        },
        Part::CreateTable(_) | Part::DropTable { .. } | Part::CreateIndex(_) | Part::DropIndex { .. } => Ok(()),
    })
}

impl Evaluation<'_> {
    /// Refuses an index in which a row of the table has no place. A row that is written while this looks is indexed
    /// however long it is.
    pub(super) async fn check_index(&self, create: &BoundCreateIndex) -> Result<()> {
        let table = &create.table;
        let columns = entry_columns(&create.columns, &table.key_columns());
        let is_string = |id: &ColumnId| {
            table.column_by_id(*id).is_some_and(|column| matches!(column.data_type, DataType::Text | DataType::Blob))
        };
        if create.exists || !columns.iter().any(is_string) {
            return Ok(());
        }
        let mut scanner = self.view.scan(ScanRequest {
            keyspace: table.keyspace,
            ranges: vec![KeyRange::all()],
            columns: columns.clone(),
            bounds: vec![],
            expired_below_ms: table.expired_below(self.now_ms),
            with_keys: false,
            batch_rows: STEP_ROWS,
        })?;
        let mut steps = 0_usize;
        while let Some(batch) = scanner.next_batch()? {
            (self.check)()?;
            steps += 1;
            if steps.is_multiple_of(YIELD_STEPS) {
                give_way().await;
            }
            let batch = batch.batch;
            let rows = RowSet { columns: columns.iter().copied().zip(batch.columns).collect(), rows: batch.rows };
            check(&rows, &columns, || create.name.clone())?;
        }
        Ok(())
    }
}

fn check_size(rows: &RowSet, table: &str) -> Result<()> {
    let columns = || rows.columns.iter().map(|(_, column)| column);
    if columns().map(|column| column.bytes_between(0, rows.rows)).sum::<usize>() <= ROW_BYTES_MAX {
        return Ok(());
    }
    for row in 0..rows.rows {
        let size: usize = columns().map(|column| column.bytes_between(row, row + 1)).sum();
        if size > ROW_BYTES_MAX {
            let message = format!("row size {size} exceeds maximum {ROW_BYTES_MAX} for table \"{table}\"");
            return Err(Error::limit(SqlState::LIMIT_EXCEEDED, message).hint("store the value in pieces, a row each"));
        }
    }
    Ok(())
}

/// The columns of an index's entries: its own, then those of the key that are not among them.
fn entry_columns(index: &[ColumnId], key: &[ColumnId]) -> Vec<ColumnId> {
    index.iter().chain(key.iter().filter(|id| !index.contains(id))).copied().collect()
}

fn check(rows: &RowSet, columns: &[ColumnId], name: impl Fn() -> String) -> Result<()> {
    // Hidden row ids are not among the columns, and are short.
    let columns: Vec<&Column> = columns.iter().filter_map(|id| rows.column(*id)).map(AsRef::as_ref).collect();
    let longest: usize = columns.iter().map(|column| 2 * longest(column) + COMPONENT_BYTES).sum();
    if longest <= KEY_BYTES_MAX {
        return Ok(());
    }
    let mut key = Vec::new();
    for row in 0..rows.rows {
        key.clear();
        columns.iter().for_each(|column| keys::push_cell(&mut key, column, row));
        if key.len() > KEY_BYTES_MAX {
            let message =
                format!("index row size {} exceeds maximum {KEY_BYTES_MAX} for index \"{}\"", key.len(), name());
            return Err(Error::limit(SqlState::LIMIT_EXCEEDED, message)
                .hint("index a shorter column, a hash of the value for example"));
        }
    }
    Ok(())
}

/// Bytes of the longest string; none for other types.
fn longest(column: &Column) -> usize {
    match column {
        Column::Vector { values: Values::Text(strings) | Values::Blob(strings), .. } => {
            // Together they mostly are no more than one may be, which spares a look at each.
            if strings.byte_len() <= KEY_BYTES_MAX / 4 {
                strings.byte_len()
            } else {
                strings.iter().map(<[u8]>::len).max().unwrap_or(0)
            }
        }
        Column::Vector { .. } => 0,
        Column::Constant { value, .. } => value.byte_len(),
    }
}
