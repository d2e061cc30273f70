//! Makes plans cheaper. Each rewrite is a function with its law: why the answer stays the same.
//!
//! ```text
//! fold -> push filters down -> prune columns -> choose keys and bounds -> leave wide indexes -> order -> prune again
//! ```
//!
//! * A rewrite keeps the rows, and their order wherever the statement asked for one.
//! * An error that evaluation would raise is left to evaluation: folding never raises one.
//! * There are no statistics. A choice is made by the shape of the condition alone, but for one: an index is left aside
//!   where it finds too many rows, which are counted at the view that the statement reads.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a rewrite names the shapes that it changes and hands on all others as they are"
)]

mod access;
mod fold;
mod order;
mod prune;
mod pushdown;
mod ranges;
mod spans;
mod wide;

use crate::sql::bind::Bound;
use crate::sql::catalog::Table;
use crate::sql::expression::Expression;
use crate::sql::plan::{Access, Plan};
use crate::storage::keys::KeyRange;
use crate::storage::view::ZoneBound;

pub use fold::fold;
pub use pushdown::{conjoin, conjuncts};
pub use wide::{Extents, Unknown};

/// The plan after all rewrites, for the rows that `extents` counts.
pub fn optimize(plan: Plan, extents: &dyn Extents) -> Plan {
    let plan = each_expression(plan, &fold);
    let plan = pushdown::push_filters(plan);
    let plan = prune::prune(plan);
    let plan = access::choose(plan);
    let plan = order::bound_sorts(plan);
    let plan = wide::leave(plan, extents);
    let plan = order::use_order(plan);
    prune::prune(plan)
}

/// Optimizes the plan of a query, also of one that is explained. Writes come out of binding as they are to be, but for
/// indexes that are too wide.
pub fn optimize_bound(bound: Bound, extents: &dyn Extents) -> Bound {
    match bound {
        Bound::Query { plan, columns } => Bound::Query { plan: optimize(plan, extents), columns },
        Bound::Explain { analyze, inner } => {
            Bound::Explain { analyze, inner: Box::new(optimize_bound(*inner, extents)) }
        }
        write @ (Bound::Update(_) | Bound::Delete(_)) => wide::leave_bound(write, extents),
        other @ (Bound::Insert(_)
        | Bound::CreateTable(_)
        | Bound::DropTable { .. }
        | Bound::CreateIndex(_)
        | Bound::DropIndex { .. }) => other,
    }
}

/// How an UPDATE or DELETE finds its rows.
pub(crate) struct WriteTarget {
    pub(crate) access: Access,
    pub(crate) bounds: Vec<ZoneBound>,
    pub(crate) filter: Option<Expression>,
    /// Where the condition is exactly these ranges of the table's own keys.
    pub(crate) exact_ranges: Option<Vec<KeyRange>>,
}

/// Chooses keys and bounds for the rows of a write. `filter` is over all columns of the table, in its order.
pub(crate) fn write_target(table: &Table, filter: Option<Expression>) -> WriteTarget {
    let filter = filter.map(fold);
    let columns: Vec<_> = table.columns.iter().map(|column| column.id).collect();
    let choice = access::choice(table, &columns, filter);
    let exact_ranges = match &choice.access {
        Access::Primary { ranges } if choice.filter.is_none() => Some(ranges.clone()),
        Access::Primary { .. } | Access::Index { .. } => None,
    };
    WriteTarget { access: choice.access, bounds: choice.bounds, filter: choice.filter, exact_ranges }
}

/// Rewrites the inputs of a node.
fn each_input(plan: Plan, rewrite: &impl Fn(Plan) -> Plan) -> Plan {
    let inner = |input: Box<Plan>| Box::new(rewrite(*input));
    match plan {
        leaf @ (Plan::Values { .. } | Plan::Scan { .. }) => leaf,
        Plan::Filter { input, predicate } => Plan::Filter { input: inner(input), predicate },
        Plan::Project { input, expressions } => Plan::Project { input: inner(input), expressions },
        Plan::Aggregate { input, group, aggregates } => Plan::Aggregate { input: inner(input), group, aggregates },
        Plan::Sort { input, keys, limit } => Plan::Sort { input: inner(input), keys, limit },
        Plan::Limit { input, limit, offset } => Plan::Limit { input: inner(input), limit, offset },
        Plan::Distinct { input } => Plan::Distinct { input: inner(input) },
    }
}

/// Rewrites every expression of a plan.
fn each_expression(plan: Plan, rewrite: &impl Fn(Expression) -> Expression) -> Plan {
    let all = |expressions: Vec<Expression>| expressions.into_iter().map(rewrite).collect();
    let plan = match plan {
        Plan::Values { rows, types } => Plan::Values { rows: rows.into_iter().map(all).collect(), types },
        Plan::Scan { table, access, columns, bounds, filter } => {
            Plan::Scan { table, access, columns, bounds, filter: filter.map(rewrite) }
        }
        Plan::Filter { input, predicate } => Plan::Filter { input, predicate: rewrite(predicate) },
        Plan::Project { input, expressions } => Plan::Project { input, expressions: all(expressions) },
        Plan::Aggregate { input, group, mut aggregates } => {
            for aggregate in &mut aggregates {
                aggregate.argument = aggregate.argument.take().map(rewrite);
            }
            Plan::Aggregate { input, group: all(group), aggregates }
        }
        Plan::Sort { input, mut keys, limit } => {
            for key in &mut keys {
                key.expression = rewrite(std::mem::replace(&mut key.expression, fold::truth(true)));
            }
            Plan::Sort { input, keys, limit }
        }
        leaf @ (Plan::Limit { .. } | Plan::Distinct { .. }) => leaf,
    };
    each_input(plan, &|input| each_expression(input, rewrite))
}

/// How many columns the rows of a plan have.
pub(crate) fn width(plan: &Plan) -> usize {
    match plan {
        Plan::Values { types, .. } => types.len(),
        Plan::Scan { columns, .. } => columns.len(),
        Plan::Project { expressions, .. } => expressions.len(),
        Plan::Aggregate { group, aggregates, .. } => group.len() + aggregates.len(),
        Plan::Filter { input, .. }
        | Plan::Sort { input, .. }
        | Plan::Limit { input, .. }
        | Plan::Distinct { input } => width(input),
    }
}
