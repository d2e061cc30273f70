//! The rows that an UPDATE or DELETE is about, a step at a time.

use super::STEP_ROWS;
use crate::ids::ColumnId;
use crate::sql::batch::{Batch, ColumnBuilder, Strings};
use crate::sql::catalog::{Index, Layout, Table};
use crate::sql::expression::Expression;
use crate::sql::plan::Access;
use crate::sql::value::Value;
use crate::storage::keys::{self, KeyRange};
use crate::storage::rows::Metadata;
use crate::storage::view::{ScanRequest, Scanner, View, ZoneBound};
use crate::{Error, Result};
use std::sync::Arc;

/// Which rows.
pub(super) struct Selection<'a> {
    pub table: &'a Arc<Table>,
    pub access: &'a Access,
    pub bounds: &'a [ZoneBound],
    pub filter: Option<&'a Expression>,
}

/// Rows that are looked up by an index, however small their table.
const LOOKED_UP_MIN: u64 = STEP_ROWS as u64;

/// Rows that a scan reads in the time of one look-up. A look-up decodes a block of some thousand rows unless it is
/// cached: through an index of an unordered column, 3,212 of 1,000,000 rows took 573 ms, and reading all of them 171 ms.
const SCANNED_PER_LOOK_UP: u64 = 512;

/// True where looking up the rows of these index ranges is less work than reading the table.
fn is_narrow(view: &View, table: &Table, index: &Index, ranges: &[KeyRange]) -> bool {
    let found = view.rows_in_blocks(index.keyspace, ranges);
    found <= LOOKED_UP_MIN || found <= view.rows_in_blocks(table.keyspace, &[KeyRange::all()]) / SCANNED_PER_LOOK_UP
}

/// Rows with all columns of their table's layout, their keys and metadata.
pub(super) struct Step {
    pub batch: Batch,
    pub keys: Arc<Strings>,
    pub metadata: Arc<Metadata>,
}

/// Reads the rows that pass, in key order or in that of an index.
pub(super) struct RowReader<'a> {
    view: &'a View,
    table: Arc<Table>,
    layout: Layout,
    filter: Option<&'a Expression>,
    scanner: Scanner,
    /// The scanner reads index entries, whose rows are looked up.
    by_index: bool,
}

impl<'a> RowReader<'a> {
    pub(super) fn new(selection: &Selection<'a>, view: &'a View, now_ms: u64) -> Result<RowReader<'a>> {
        let (table, layout) = (selection.table, selection.table.layout());
        let request = |keyspace, ranges: &[KeyRange], columns| ScanRequest {
            keyspace,
            ranges: ranges.to_vec(),
            columns,
            bounds: vec![],
            expired_below_ms: table.expired_below(now_ms),
            with_keys: true,
            batch_rows: STEP_ROWS,
        };
        let scan = |ranges: &[KeyRange]| {
            let columns = layout.columns.iter().map(|column| column.id).collect();
            let request = request(table.keyspace, ranges, columns);
            (ScanRequest { bounds: selection.bounds.to_vec(), ..request }, false)
        };
        let (request, by_index) = match selection.access {
            Access::Primary { ranges } => scan(ranges),
            Access::Index { index, ranges } => {
                let index = table.indexes.iter().find(|known| known.id == *index);
                let index = index.ok_or_else(|| Error::conflict("the index was dropped meanwhile"))?;
                if is_narrow(view, table, index, ranges) {
                    (ScanRequest { with_keys: false, ..request(index.keyspace, ranges, table.key_columns()) }, true)
                } else {
                    // The filter holds every condition, also those that the index would have met.
                    scan(&[KeyRange::all()])
                }
            }
        };
        let scanner = view.scan(request)?;
        Ok(RowReader { view, table: table.clone(), layout, filter: selection.filter, scanner, by_index })
    }

    /// The next rows, none of them in an empty step; none at the end.
    pub(super) fn next(&mut self, check: &dyn Fn() -> Result<()>) -> Result<Option<Step>> {
        while let Some(found) = self.scanner.next_batch()? {
            check()?;
            let step = if self.by_index {
                self.look_up(&found.batch)?
            } else {
                let (keys, metadata) = found.keys.expect("keys were asked for");
                Step { batch: found.batch, keys, metadata }
            };
            let passing = self.passing(step)?;
            if passing.batch.rows > 0 {
                return Ok(Some(passing));
            }
        }
        Ok(None)
    }

    fn passing(&self, step: Step) -> Result<Step> {
        let Some(filter) = self.filter else { return Ok(step) };
        let Step { batch, keys, metadata } = step;
        let hidden = self.layout.columns.len() - self.table.columns.len();
        let verdict = filter.evaluate(&Batch::new(batch.columns[hidden..].to_vec(), batch.rows))?;
        let passing: Vec<u32> =
            (0..batch.rows as u32).filter(|&row| verdict.value(row as usize) == Value::Bool(true)).collect();
        if passing.len() == batch.rows {
            return Ok(Step { batch, keys, metadata });
        }
        let keys: Strings = passing.iter().map(|&row| keys.get(row as usize)).collect();
        let mut kept = Metadata::default();
        passing.iter().for_each(|&row| kept.push(metadata.stamp(row as usize), false));
        Ok(Step { batch: batch.gather(&passing), keys: Arc::new(keys), metadata: Arc::new(kept) })
    }

    /// The rows whose key columns stand in `entries`.
    fn look_up(&self, entries: &Batch) -> Result<Step> {
        let ids: Vec<ColumnId> = self.layout.columns.iter().map(|column| column.id).collect();
        let mut builders: Vec<ColumnBuilder> =
            self.layout.columns.iter().map(|column| ColumnBuilder::new(column.data_type, entries.rows)).collect();
        let (mut found_keys, mut metadata) = (Strings::default(), Metadata::default());
        let mut key = Vec::new();
        for row in 0..entries.rows {
            key.clear();
            entries.columns.iter().for_each(|column| keys::push_cell(&mut key, column, row));
            let Some(found) = self.view.get(self.table.keyspace, &key, &ids)? else { continue };
            let Some(values) = found.values else { continue };
            builders.iter_mut().zip(&values).for_each(|(builder, value)| builder.push(value));
            found_keys.push(&key);
            metadata.push(found.stamp, false);
        }
        let columns = builders.into_iter().map(|builder| Arc::new(builder.finish())).collect();
        Ok(Step {
            batch: Batch::new(columns, metadata.len()),
            keys: Arc::new(found_keys),
            metadata: Arc::new(metadata),
        })
    }
}
