//! Order that is there already, and order of which only the beginning is wanted.

use super::access::{is_covering, keys_read};
use super::each_input;
use crate::ids::ColumnId;
use crate::sql::catalog::{IndexState, Table};
use crate::sql::expression::Expression;
use crate::sql::plan::{Access, Aggregate, AggregateFunction, Plan, SortKey};
use crate::sql::value::DataType;
use crate::storage::keys::{self, KeyRange};

/// Rows up to which an index is read for its order alone, with a look-up for each: more are faster sorted.
const LOOKED_UP_MAX: u64 = 1_000;

/// Tells a sort how many of its rows are wanted.
///
/// Law: the rows from `offset` and at most `limit` are among the first `offset + limit`.
pub(super) fn bound_sorts(plan: Plan) -> Plan {
    match plan {
        Plan::Limit { input, limit: Some(limit), offset } => {
            let wanted = limit.saturating_add(offset);
            Plan::Limit { input: Box::new(bound_sorts(bound_sort(*input, wanted))), limit: Some(limit), offset }
        }
        other => each_input(other, &bound_sorts),
    }
}

/// Through projections, which keep rows and their order.
fn bound_sort(plan: Plan, wanted: u64) -> Plan {
    match plan {
        Plan::Sort { input, keys, limit } => {
            Plan::Sort { input, keys, limit: Some(limit.map_or(wanted, |limit| limit.min(wanted))) }
        }
        Plan::Project { input, expressions } => {
            Plan::Project { input: Box::new(bound_sort(*input, wanted)), expressions }
        }
        other @ (Plan::Values { .. }
        | Plan::Scan { .. }
        | Plan::Filter { .. }
        | Plan::Aggregate { .. }
        | Plan::Limit { .. }
        | Plan::Distinct { .. }) => other,
    }
}

/// Drops sorts whose input comes in their order, and finds the least value where the order begins with it.
///
/// Laws: a scan hands out rows in key order, which is the order of the key's columns, ascending, NULL last; columns
/// that have one value throughout are in any order. The minimum of a column is its value in the first row, where rows
/// come in its order.
pub(super) fn use_order(plan: Plan) -> Plan {
    match plan {
        Plan::Sort { input, keys, limit } => {
            let input = match limit {
                Some(limit) if limit <= LOOKED_UP_MAX => by_index(*input, &keys),
                Some(_) | None => *input,
            };
            if is_ordered(&input, &keys) {
                return use_order(input);
            }
            Plan::Sort { input: Box::new(use_order(input)), keys, limit }
        }
        Plan::Aggregate { input, group, aggregates } if group.is_empty() => {
            let Some(key) = least_of(&aggregates) else {
                return Plan::Aggregate { input: Box::new(use_order(*input)), group, aggregates };
            };
            let keys = [key];
            let input = by_index(*input, &keys);
            let input = if is_ordered(&input, &keys) {
                Plan::Limit { input: Box::new(input), limit: Some(1), offset: 0 }
            } else {
                use_order(input)
            };
            Plan::Aggregate { input: Box::new(input), group, aggregates }
        }
        other => each_input(other, &use_order),
    }
}

/// The order in whose first row the answer stands, where all that is asked for is the least value of one column.
pub(super) fn least_of(aggregates: &[Aggregate]) -> Option<SortKey> {
    let mut arguments = aggregates.iter().map(|aggregate| match (aggregate.function, &aggregate.argument) {
        (AggregateFunction::Min, Some(argument @ Expression::Column { .. })) => Some(argument),
        _ => None,
    });
    let first = arguments.next()??;
    let same = arguments.all(|argument| argument == Some(first));
    same.then(|| SortKey { expression: first.clone(), descending: false, nulls_first: false })
}

/// Reads an unconditional scan through an index that has the order.
fn by_index(plan: Plan, keys: &[SortKey]) -> Plan {
    match plan {
        Plan::Project { input, expressions } => {
            let below: Option<Vec<SortKey>> = keys
                .iter()
                .map(|key| match &key.expression {
                    Expression::Column { index, .. } => {
                        Some(SortKey { expression: expressions.get(*index)?.clone(), ..key.clone() })
                    }
                    _ => None,
                })
                .collect();
            let input = match below {
                Some(below) => by_index(*input, &below),
                None => *input,
            };
            Plan::Project { input: Box::new(input), expressions }
        }
        Plan::Scan { table, access: Access::Primary { ranges }, columns, bounds, filter: None }
            if ranges == [KeyRange::all()] =>
        {
            let candidate = |index: crate::ids::IndexId| Plan::Scan {
                table: table.clone(),
                access: Access::Index { index, ranges: vec![KeyRange::all()] },
                columns: columns.clone(),
                bounds: bounds.clone(),
                filter: None,
            };
            let primary = Plan::Scan {
                table: table.clone(),
                access: Access::Primary { ranges },
                columns: columns.clone(),
                bounds: bounds.clone(),
                filter: None,
            };
            if is_ordered(&primary, keys) {
                return primary;
            }
            let mut ready: Vec<_> = table.indexes.iter().filter(|index| index.state == IndexState::Ready).collect();
            ready.sort_by_key(|index| !is_covering(&table, &columns, index));
            let found = ready.into_iter().map(|index| candidate(index.id)).find(|plan| is_ordered(plan, keys));
            found.unwrap_or(primary)
        }
        other => other,
    }
}

/// True where the rows of a plan come in the order of the keys.
pub(super) fn is_ordered(plan: &Plan, keys: &[SortKey]) -> bool {
    let mut columns = Vec::with_capacity(keys.len());
    for key in keys {
        let Some((table, _, column)) = origin(plan, &key.expression) else { return false };
        let not_null = table.column_by_id(column).is_some_and(|column| column.not_null);
        if key.descending || (key.nulls_first && !not_null) {
            return false;
        }
        columns.push(column);
    }
    let Some((table, access)) = scanned(plan) else { return false };
    let Some((order, ranges)) = keys_read(table, access) else { return false };
    let types: Vec<DataType> =
        order.iter().map(|id| table.column_by_id(*id).map_or(DataType::Int, |column| column.data_type)).collect();
    let fixed = fixed_columns(ranges, &types);
    let mut next = fixed;
    for column in columns {
        if order[..fixed].contains(&column) {
            continue;
        }
        match order.get(next) {
            Some(expected) if *expected == column => next += 1,
            // All columns of a key are one row: what comes after decides nothing.
            None => return true,
            Some(_) => return false,
        }
    }
    true
}

/// The scan below nodes that keep rows in order.
fn scanned(plan: &Plan) -> Option<(&Table, &Access)> {
    match plan {
        Plan::Scan { table, access, .. } => Some((table, access)),
        Plan::Project { input, .. } | Plan::Filter { input, .. } => scanned(input),
        Plan::Values { .. }
        | Plan::Aggregate { .. }
        | Plan::Sort { .. }
        | Plan::Limit { .. }
        | Plan::Distinct { .. } => None,
    }
}

/// The table's column that an expression hands on.
fn origin<'a>(plan: &'a Plan, expression: &Expression) -> Option<(&'a Table, &'a Access, ColumnId)> {
    let Expression::Column { index, .. } = expression else { return None };
    match plan {
        Plan::Scan { table, access, columns, .. } => Some((table, access, *columns.get(*index)?)),
        Plan::Project { input, expressions } => origin(input, expressions.get(*index)?),
        Plan::Filter { input, .. } => origin(input, expression),
        Plan::Values { .. }
        | Plan::Aggregate { .. }
        | Plan::Sort { .. }
        | Plan::Limit { .. }
        | Plan::Distinct { .. } => None,
    }
}

/// How many columns, from the first, have one value in all ranges.
fn fixed_columns(ranges: &[KeyRange], types: &[DataType]) -> usize {
    let Some(first) = ranges.first() else { return types.len() };
    let mut rest = &first.from[..];
    let mut fixed = 0;
    for data_type in types {
        if keys::pull(&mut rest, *data_type).is_err() {
            break;
        }
        let prefix = KeyRange::prefix(&first.from[..first.from.len() - rest.len()]);
        let within = |range: &KeyRange| {
            range.from >= prefix.from
                && match (&range.to, &prefix.to) {
                    (Some(to), Some(end)) => to <= end,
                    (_, None) => true,
                    (None, Some(_)) => false,
                }
        };
        if !ranges.iter().all(within) {
            break;
        }
        fixed += 1;
    }
    fixed
}
