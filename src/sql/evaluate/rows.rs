//! The rows that an UPDATE or DELETE is about, a step at a time.

use super::{STEP_BYTES, STEP_ROWS, YIELD_STEPS, give_way};
use crate::ids::ColumnId;
use crate::sql::batch::{Batch, ColumnBuilder, Strings};
use crate::sql::catalog::{Layout, Table};
use crate::sql::expression::{self, Expression};
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

/// Rows with all columns of their table's layout, their keys and metadata.
pub(super) struct Step {
    pub batch: Batch,
    pub keys: Arc<Strings>,
    pub metadata: Arc<Metadata>,
}

impl Step {
    /// The rows before `at`; those from there on stay here.
    pub fn split_off_front(&mut self, at: usize) -> Step {
        let front = self.part(0, at);
        *self = self.part(at, self.batch.rows);
        front
    }

    fn part(&self, from: usize, to: usize) -> Step {
        let mut metadata = Metadata::default();
        (from..to).for_each(|row| metadata.push(self.metadata.stamp(row), false));
        Step {
            batch: self.batch.slice(from, to),
            keys: Arc::new((from..to).map(|row| self.keys.get(row)).collect()),
            metadata: Arc::new(metadata),
        }
    }
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
    /// Entries at hand, and the first whose row is still to be looked up.
    entries: Option<(Batch, usize)>,
    /// Steps read so far.
    steps: usize,
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
        let (request, by_index) = match selection.access {
            Access::Primary { ranges } => {
                let columns = layout.columns.iter().map(|column| column.id).collect();
                let request = request(table.keyspace, ranges, columns);
                (ScanRequest { bounds: selection.bounds.to_vec(), ..request }, false)
            }
            Access::Index { index, ranges } => {
                let index = table.indexes.iter().find(|known| known.id == *index);
                let index = index.ok_or_else(|| Error::conflict("the index was dropped meanwhile"))?;
                (ScanRequest { with_keys: false, ..request(index.keyspace, ranges, table.key_columns()) }, true)
            }
        };
        let scanner = view.scan(request)?;
        Ok(RowReader {
            view,
            table: table.clone(),
            layout,
            filter: selection.filter,
            scanner,
            by_index,
            entries: None,
            steps: 0,
        })
    }

    /// The next rows, none of them in an empty step; none at the end. Others have their turn in between: a filter may pass
    /// few rows of many.
    pub(super) async fn next(&mut self, check: &(dyn Fn() -> Result<()> + Send + Sync)) -> Result<Option<Step>> {
        while let Some(step) = self.read()? {
            check()?;
            self.steps += 1;
            if self.steps.is_multiple_of(YIELD_STEPS) {
                give_way().await;
            }
            let passing = self.passing(step)?;
            if passing.batch.rows > 0 {
                return Ok(Some(passing));
            }
        }
        Ok(None)
    }

    fn read(&mut self) -> Result<Option<Step>> {
        if let Some((entries, from)) = self.entries.take() {
            return self.look_up(entries, from).map(Some);
        }
        let Some(found) = self.scanner.next_batch()? else { return Ok(None) };
        if self.by_index {
            return self.look_up(found.batch, 0).map(Some);
        }
        let (keys, metadata) = found.keys.expect("keys were asked for");
        Ok(Some(Step { batch: found.batch, keys, metadata }))
    }

    fn passing(&self, step: Step) -> Result<Step> {
        let Some(filter) = self.filter else { return Ok(step) };
        let Step { batch, keys, metadata } = step;
        let hidden = self.layout.columns.len() - self.table.columns.len();
        let selected = filter.select(&Batch::new(batch.columns[hidden..].to_vec(), batch.rows))?;
        let expression::Selection::Rows(passing) = selected else { return Ok(Step { batch, keys, metadata }) };
        let keys: Strings = passing.iter().map(|&row| keys.get(row as usize)).collect();
        let mut kept = Metadata::default();
        passing.iter().for_each(|&row| kept.push(metadata.stamp(row as usize), false));
        Ok(Step { batch: batch.gather(&passing), keys: Arc::new(keys), metadata: Arc::new(kept) })
    }

    /// The rows whose key columns stand in `entries`, as many as a step may hold; the others are for the next one.
    fn look_up(&mut self, entries: Batch, from: usize) -> Result<Step> {
        let ids: Vec<ColumnId> = self.layout.columns.iter().map(|column| column.id).collect();
        let mut builders: Vec<ColumnBuilder> =
            self.layout.columns.iter().map(|column| ColumnBuilder::new(column.data_type, entries.rows)).collect();
        let (mut found_keys, mut metadata) = (Strings::default(), Metadata::default());
        let (mut key, mut bytes, mut row) = (Vec::new(), 0, from);
        while row < entries.rows && bytes < STEP_BYTES {
            key.clear();
            entries.columns.iter().for_each(|column| keys::push_cell(&mut key, column, row));
            row += 1;
            let Some(found) = self.view.get(self.table.keyspace, &key, &ids)? else { continue };
            let Some(values) = found.values else { continue };
            builders.iter_mut().zip(&values).for_each(|(builder, value)| builder.push(value));
            bytes += values.iter().map(Value::byte_len).sum::<usize>();
            found_keys.push(&key);
            metadata.push(found.stamp, false);
        }
        if row < entries.rows {
            self.entries = Some((entries, row));
        }
        let columns = builders.into_iter().map(|builder| Arc::new(builder.finish())).collect();
        Ok(Step {
            batch: Batch::new(columns, metadata.len()),
            keys: Arc::new(found_keys),
            metadata: Arc::new(metadata),
        })
    }
}
