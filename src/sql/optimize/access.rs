//! Chooses the keys by which a scan reaches its rows, and the bounds by which it skips blocks.
//!
//! The primary key goes first: its rows are where the keys are. A secondary index costs a look-up a row, so it is
//! taken only where the primary key says nothing, and where its own ranges can be narrow:
//!
//! * equality with single values (of a column with more than two), or an interval with two ends;
//! * any condition at all where the index holds every column asked for: reading it is reading a smaller table.

use super::each_input;
use super::pushdown::{conjoin, conjuncts};
use super::ranges::{Found, KeyColumn, find, set_of_terms};
use crate::ids::ColumnId;
use crate::sql::catalog::{Index, IndexState, Table};
use crate::sql::expression::Expression;
use crate::sql::plan::{Access, Plan};
use crate::sql::value::DataType;
use crate::storage::keys::KeyRange;
use crate::storage::view::ZoneBound;

/// What was chosen for a scan.
pub(super) struct Choice {
    pub(super) access: Access,
    pub(super) bounds: Vec<ZoneBound>,
    pub(super) filter: Option<Expression>,
}

/// Chooses for every scan of a plan.
///
/// Law: ranges and bounds hold every row that passes the filter, which stays, but for the terms that the ranges of
/// the primary key make true already.
pub(super) fn choose(plan: Plan) -> Plan {
    match plan {
        Plan::Scan { table, access: _, columns, bounds: _, filter } => {
            let Choice { access, bounds, filter } = choice(&table, &columns, filter);
            Plan::Scan { table, access, columns, bounds, filter }
        }
        other => each_input(other, &choose),
    }
}

/// Chooses for one scan; `filter` is over `columns`.
pub(super) fn choice(table: &Table, columns: &[ColumnId], filter: Option<Expression>) -> Choice {
    let terms: Vec<Expression> = filter.into_iter().flat_map(conjuncts).collect();
    if is_contradiction(&terms, columns) {
        return Choice { access: Access::Primary { ranges: Vec::new() }, bounds: Vec::new(), filter: None };
    }
    let position = |id: &ColumnId| columns.iter().position(|column| column == id);
    let key: Vec<KeyColumn> = table.key_columns().iter().map(position).collect();
    let primary = find(&terms, &key, true);
    let bounds = bounds(&terms, columns);
    if primary.is_all()
        && let Some((index, found)) = best_index(table, columns, &terms)
    {
        let access = Access::Index { index: index.id, ranges: found.ranges };
        return Choice { access, bounds, filter: conjoin(terms) };
    }
    let kept = terms.into_iter().zip(&primary.exact).filter(|(_, exact)| !**exact).map(|(term, _)| term);
    let filter = conjoin(kept.collect());
    Choice { access: Access::Primary { ranges: primary.ranges }, bounds, filter }
}

/// Law: a condition that admits no value of some column, or is never true at all, is true for no row.
fn is_contradiction(terms: &[Expression], columns: &[ColumnId]) -> bool {
    let never = |term: &Expression| matches!(term, Expression::Constant { value, .. } if *value != crate::sql::value::Value::Bool(true));
    let empty = |column| set_of_terms(terms, column).is_some_and(|set| set.spans.is_empty());
    terms.iter().any(never) || (0..columns.len()).any(empty)
}

/// Law: a row that passes has its value of the column within the hull of the values that the condition admits.
/// Where NULL is admitted there is no bound, since NULL meets none.
fn bounds(terms: &[Expression], columns: &[ColumnId]) -> Vec<ZoneBound> {
    let bound = |(position, column): (usize, &ColumnId)| {
        let set = set_of_terms(terms, position)?;
        if set.spans.iter().any(super::spans::Span::is_null) {
            return None;
        }
        let (min, max) = (set.spans.first()?.low.clone(), set.spans.last()?.high.clone());
        (min.is_some() || max.is_some()).then_some(ZoneBound { column: *column, min, max })
    };
    columns.iter().enumerate().filter_map(bound).collect()
}

/// The index that narrows most: single values in most columns, then most columns used; of equals the oldest.
fn best_index<'a>(table: &'a Table, columns: &[ColumnId], terms: &[Expression]) -> Option<(&'a Index, Found)> {
    let mut best: Option<(&Index, Found)> = None;
    for index in table.indexes.iter().filter(|index| index.state == IndexState::Ready) {
        let found = find(terms, &key_of(table, columns, index), false);
        let covering = is_covering(table, columns, index);
        let useful = found.used > 0 && !found.is_all() && (covering || is_narrow(table, index, &found));
        let better = best.as_ref().is_none_or(|(_, so_far)| (found.points, found.used) > (so_far.points, so_far.used));
        if useful && better {
            best = Some((index, found));
        }
    }
    best
}

/// Key columns of an index by their positions in the rows.
fn key_of(table: &Table, columns: &[ColumnId], index: &Index) -> Vec<KeyColumn> {
    let layout = table.index_layout(index);
    layout.columns.iter().map(|held| columns.iter().position(|column| *column == held.id)).collect()
}

fn is_narrow(table: &Table, index: &Index, found: &Found) -> bool {
    let first = index.columns.first().and_then(|id| table.column_by_id(*id));
    let of_two_values = first.is_some_and(|column| column.data_type == DataType::Bool);
    if of_two_values && found.used < 2 {
        return false;
    }
    found.points > 0 || found.bounded
}

/// True where an index holds every column asked for.
pub(super) fn is_covering(table: &Table, columns: &[ColumnId], index: &Index) -> bool {
    let key = table.key_columns();
    columns.iter().all(|column| index.columns.contains(column) || key.contains(column))
}

/// The columns of the keyspace that an access reads, in key order, and its ranges.
pub(super) fn keys_read<'a>(table: &Table, access: &'a Access) -> Option<(Vec<ColumnId>, &'a [KeyRange])> {
    match access {
        Access::Primary { ranges } => Some((table.key_columns(), ranges)),
        Access::Index { index, ranges } => {
            let index = table.indexes.iter().find(|known| known.id == *index)?;
            Some((table.index_layout(index).columns.iter().map(|column| column.id).collect(), ranges))
        }
    }
}
