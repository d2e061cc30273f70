//! Leaves indexes aside that would find too many rows.
//!
//! Through an index every row costs a look-up, and a look-up decodes a block of some thousand rows unless it is cached:
//! by an index of an unordered column, 3,212 of 1,000,000 rows took 573 ms, while reading all of them took 171 ms. The
//! shape of a condition does not say whether it is narrow (`v > 0` may be all rows or none), so this one choice asks the
//! state that is about to be read.
//!
//! An index stays where it is worth its look-ups or where something rests on it:
//!
//! * it holds every column asked for, so that nothing is looked up;
//! * it finds few rows, or few beside those of the table: entries are counted, and only up to that bound;
//! * a sort or a minimum is spared by its order. A sort of so many rows might not fit into the query's memory;
//! * a LIMIT takes few rows, and the condition speaks of nothing that the index does not hold.

use super::access::is_covering;
use super::order::{is_ordered, least_of};
use super::{Bound, KeyRange, Plan};
use crate::Result;
use crate::ids::{ColumnId, KeyspaceId};
use crate::sql::catalog::{Index, Table};
use crate::sql::expression::Expression;
use crate::sql::plan::Access;
use crate::storage::view::{ScanItem, ScanRequest, View};

/// Rows that are looked up by an index, however small their table: what a scan reads in one step.
const LOOKED_UP_MIN: u64 = 1024;

/// Rows that a scan reads in the time of one look-up, by the figures above, in favour of the index.
const SCANNED_PER_LOOK_UP: u64 = 512;

/// Index entries read at once when they are counted.
const COUNTED_ROWS: usize = 1024;

/// How many rows there are, where a choice depends on it.
pub trait Extents {
    /// About how many rows a keyspace holds. Reads nothing.
    fn rows(&self, keyspace: KeyspaceId) -> u64;

    /// True where the ranges of a keyspace hold more rows than these.
    ///
    /// # Errors
    /// Those of storage.
    fn is_more_than(&self, keyspace: KeyspaceId, ranges: &[KeyRange], rows: u64) -> Result<bool>;
}

/// Nothing is known of the rows: choices are made by the shape of the statement alone.
pub struct Unknown;

impl Extents for Unknown {
    fn rows(&self, _: KeyspaceId) -> u64 {
        0
    }

    fn is_more_than(&self, _: KeyspaceId, _: &[KeyRange], _: u64) -> Result<bool> {
        Ok(false)
    }
}

impl Extents for View {
    fn rows(&self, keyspace: KeyspaceId) -> u64 {
        self.rows_about(keyspace)
    }

    /// Counts entries. Blocks that the ranges hold whole are counted without being read; those at their ends are the
    /// ones that a scan of the ranges would read first, and stay in the cache for it.
    fn is_more_than(&self, keyspace: KeyspaceId, ranges: &[KeyRange], rows: u64) -> Result<bool> {
        let mut scanner = self.scan(ScanRequest {
            keyspace,
            ranges: ranges.to_vec(),
            columns: Vec::new(),
            bounds: Vec::new(),
            // An expired entry costs a look-up too.
            expired_below_ms: 0,
            with_keys: false,
            batch_rows: COUNTED_ROWS,
        })?;
        let mut counted = 0;
        while let Some(item) = scanner.next_summary()? {
            counted += match item {
                ScanItem::Summary(summary) => u64::from(summary.rows),
                ScanItem::Batch(found) => found.batch.rows as u64,
            };
            if counted > rows {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reads tables instead of wide indexes.
///
/// Law: an index was chosen only where the primary key says nothing, and the filter holds every condition, so the whole
/// table under the filter gives the same rows. Their order differs, which is why whatever rests on it keeps its index.
pub(super) fn leave(plan: Plan, extents: &dyn Extents) -> Plan {
    leave_below(plan, extents, None)
}

/// The same for the rows of a write, which are in no order.
pub(super) fn leave_bound(bound: Bound, extents: &dyn Extents) -> Bound {
    match bound {
        Bound::Update(mut update) => {
            update.access = narrow_or_all(&update.table, update.access, extents);
            Bound::Update(update)
        }
        Bound::Delete(mut delete) => {
            delete.access = narrow_or_all(&delete.table, delete.access, extents);
            Bound::Delete(delete)
        }
        other => other,
    }
}

/// `wanted` is how many rows the nodes above take at most, where they say so.
fn leave_below(plan: Plan, extents: &dyn Extents, wanted: Option<u64>) -> Plan {
    let below = |input: Box<Plan>, wanted| Box::new(leave_below(*input, extents, wanted));
    match plan {
        Plan::Scan { table, access, columns, bounds, filter } => {
            let access = access_of(&table, access, &columns, filter.as_ref(), (extents, wanted));
            Plan::Scan { table, access, columns, bounds, filter }
        }
        Plan::Project { input, expressions } => Plan::Project { input: below(input, wanted), expressions },
        Plan::Limit { input, limit, offset } => {
            let wanted = limit.map(|limit| limit.saturating_add(offset));
            Plan::Limit { input: below(input, wanted), limit, offset }
        }
        Plan::Sort { input, keys, limit } if is_ordered(&input, &keys) => Plan::Sort { input, keys, limit },
        Plan::Sort { input, keys, limit } => Plan::Sort { input: below(input, None), keys, limit },
        Plan::Aggregate { input, group, aggregates } => {
            let least = if group.is_empty() { least_of(&aggregates) } else { None };
            let input = match least {
                Some(key) if is_ordered(&input, std::slice::from_ref(&key)) => input,
                Some(_) | None => below(input, None),
            };
            Plan::Aggregate { input, group, aggregates }
        }
        Plan::Filter { input, predicate } => Plan::Filter { input: below(input, None), predicate },
        Plan::Distinct { input } => Plan::Distinct { input: below(input, None) },
        Plan::Values { rows, types } => Plan::Values { rows, types },
    }
}

fn access_of(
    table: &Table,
    access: Access,
    columns: &[ColumnId],
    filter: Option<&Expression>,
    (extents, wanted): (&dyn Extents, Option<u64>),
) -> Access {
    let Access::Index { index: id, .. } = &access else { return access };
    let Some(index) = table.indexes.iter().find(|known| known.id == *id) else { return access };
    if is_covering(table, columns, index) {
        return access;
    }
    let decided_by_index = || {
        let mut decided = true;
        let mut look = |at: usize| decided &= columns.get(at).is_some_and(|column| index.columns.contains(column));
        filter.into_iter().for_each(|filter| filter.for_each_column(&mut look));
        decided
    };
    if wanted.is_some_and(|wanted| wanted <= LOOKED_UP_MIN) && decided_by_index() {
        return access;
    }
    narrow_or_all(table, access, extents)
}

/// The index where it is narrow, else the whole table.
fn narrow_or_all(table: &Table, access: Access, extents: &dyn Extents) -> Access {
    let Access::Index { index: id, ranges } = &access else { return access };
    let Some(index) = table.indexes.iter().find(|known| known.id == *id) else { return access };
    // What cannot be counted cannot be read either: reading it says why.
    if is_narrow(table, index, ranges, extents).unwrap_or(true) {
        return access;
    }
    Access::Primary { ranges: vec![KeyRange::all()] }
}

/// True where looking up the rows of these index ranges is less work than reading the table.
fn is_narrow(table: &Table, index: &Index, ranges: &[KeyRange], extents: &dyn Extents) -> Result<bool> {
    // Most statements end here, before anything is asked of the table.
    if !extents.is_more_than(index.keyspace, ranges, LOOKED_UP_MIN)? {
        return Ok(true);
    }
    let worth = extents.rows(table.keyspace) / SCANNED_PER_LOOK_UP;
    Ok(worth > LOOKED_UP_MIN && !extents.is_more_than(index.keyspace, ranges, worth)?)
}
