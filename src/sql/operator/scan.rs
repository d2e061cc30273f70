//! Reads a table: by its keys, by an index that holds all columns asked for, or by an index and a look-up of each row.
//!
//! ```text
//! Primary ranges ──> scan of the table ─────────────────────────────> filter ──>
//! Primary points ──> keys ──> Lookup ───────────────────────────────> filter ──>
//! Index, covering ─> scan of the index ─────────────────────────────> filter ──>
//! Index ──────────> scan of the index ──> keys of the rows ──> Lookup ─> filter ──>
//! ```
//!
//! * The filter holds exactly, whatever ranges and bounds let through. Rows that pass are gathered; where all pass the
//!   batch goes on as storage gave it.
//! * Rows expire by the read instant, in the index as in the table.

use super::filter::keep;
use super::lookup::{IndexKeys, Keys, Lookup};
use super::source::BatchSource;
use super::{Context, Operator};
use crate::error::{Error, Result};
use crate::ids::{ColumnId, KeyspaceId};
use crate::sql::batch::{BATCH_ROWS_MAX, Batch};
use crate::sql::catalog::{Index, Table};
use crate::sql::expression::Expression;
use crate::sql::plan::Access;
use crate::storage::keys::KeyRange;
use crate::storage::view::{ScanRequest, ZoneBound};
use std::sync::Arc;

/// Rows of a first batch where a filter stands between them and a LIMIT: most rows may fall out.
const FILTERED_ROWS_MIN: u64 = 256;

/// The parts of [`Plan::Scan`](crate::sql::plan::Plan::Scan).
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) table: &'a Arc<Table>,
    pub(super) access: &'a Access,
    pub(super) columns: &'a [ColumnId],
    pub(super) bounds: &'a [ZoneBound],
    pub(super) filter: Option<&'a Expression>,
}

/// Starts a scan of which at most `wanted` rows will be asked for.
pub(super) fn build(request: Request<'_>, context: &Context, wanted: Option<u64>) -> Result<Box<dyn Operator>> {
    let Request { table, access, columns, bounds, filter } = request;
    let filter = filter.cloned();
    let wanted = match (wanted, &filter) {
        (Some(wanted), Some(_)) => wanted.max(FILTERED_ROWS_MIN),
        (Some(wanted), None) => wanted,
        (None, _) => u64::MAX,
    };
    let batch_rows = wanted.clamp(1, BATCH_ROWS_MAX as u64) as usize;
    match access {
        Access::Primary { ranges } if !ranges.is_empty() && ranges.iter().all(is_point) => {
            let keys = Keys::Listed(ranges.iter().map(|range| range.from.clone()).collect());
            Ok(Box::new(Lookup::new(table, columns, keys, filter, context)?))
        }
        Access::Primary { ranges } => {
            let target = Target { keyspace: table.keyspace, ranges, columns, bounds: bounds.to_vec() };
            Ok(Box::new(Scan { source: start(table, target, context, batch_rows)?, filter, context: context.clone() }))
        }
        Access::Index { index, ranges } => {
            let index =
                table.indexes.iter().find(|known| known.id == *index).ok_or_else(|| {
                    Error::internal(format!("index {index} does not belong to table \"{}\"", table.name))
                })?;
            let held = index_columns(table, index);
            let bounds = bounds.iter().filter(|bound| held.contains(&bound.column)).cloned().collect();
            if columns.iter().all(|column| held.contains(column)) {
                let target = Target { keyspace: index.keyspace, ranges, columns, bounds };
                let source = start(table, target, context, batch_rows)?;
                return Ok(Box::new(Scan { source, filter, context: context.clone() }));
            }
            let key_columns = table.key_columns();
            let target = Target { keyspace: index.keyspace, ranges, columns: &key_columns, bounds };
            let entries = start(table, target, context, batch_rows)?;
            let keys = Keys::Index(IndexKeys::new(entries));
            Ok(Box::new(Lookup::new(table, columns, keys, filter, context)?))
        }
    }
}

/// True for a range that holds one key at most.
pub(super) fn is_point(range: &KeyRange) -> bool {
    // `successor` is the key and a zero byte: compared in place, since a list may have thousands.
    range.to.as_ref().is_some_and(|to| to.split_last().is_some_and(|(last, rest)| *last == 0 && *rest == *range.from))
        && !range.from.is_empty()
}

fn index_columns(table: &Table, index: &Index) -> Vec<ColumnId> {
    table.index_layout(index).columns.iter().map(|column| column.id).collect()
}

/// What is scanned.
pub(super) struct Target<'a> {
    pub(super) keyspace: KeyspaceId,
    pub(super) ranges: &'a [KeyRange],
    pub(super) columns: &'a [ColumnId],
    pub(super) bounds: Vec<ZoneBound>,
}

/// Starts to read a table or one of its indexes.
pub(super) fn start(
    table: &Table,
    target: Target<'_>,
    context: &Context,
    batch_rows: usize,
) -> Result<Box<dyn BatchSource>> {
    context.source.scan(ScanRequest {
        keyspace: target.keyspace,
        ranges: target.ranges.to_vec(),
        columns: target.columns.to_vec(),
        bounds: target.bounds,
        expired_below_ms: table.expired_below(context.now_ms),
        with_keys: false,
        batch_rows,
    })
}

/// A scan of one keyspace.
struct Scan {
    source: Box<dyn BatchSource>,
    filter: Option<Expression>,
    context: Context,
}

impl Operator for Scan {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        (self.context.interrupt)()?;
        let Some(scanned) = self.source.next_batch()? else { return Ok(None) };
        match &self.filter {
            Some(filter) => Ok(Some(keep(scanned.batch, filter)?)),
            None => Ok(Some(scanned.batch)),
        }
    }
}
