//! SELECT and VALUES become plans.
//!
//! ```text
//! Scan -> Filter -> Aggregate -> Filter (HAVING) -> Project -> Distinct -> Sort -> Limit -> Project
//! ```
//!
//! * Only the operators that the statement needs are there.
//! * ORDER BY may name what is not in the output: such keys are computed as hidden columns behind the visible ones,
//!   which the last Project drops.

mod output;

use super::coercion::{Typed, unify};
use super::constant::{evaluate, place};
use super::expression::{Aggregates, Binder};
use super::grouping::Groups;
use super::source::Source;
use super::{BindContext, OutputColumn};
use crate::error::{Error, Result, SqlState};
use crate::sql::expression::Expression;
use crate::sql::plan::{Aggregate, Plan, SortKey};
use crate::sql::statement::{Expr, Node, OrderItem, Query, QueryBody, Select};
use crate::sql::value::{DataType, Value};
use output::{Output, named_output, ordinal, outputs};

/// Columns of a result or of a VALUES at most, as in PostgreSQL.
const COLUMNS_MAX: usize = 1_664;

pub(super) fn bind(query: &Query, context: &BindContext<'_>) -> Result<(Plan, Vec<OutputColumn>)> {
    let (plan, outputs) = match &query.body {
        QueryBody::Select(select) => bind_select(select, &query.order, context)?,
        QueryBody::Values(rows) => bind_values(rows, &query.order, context)?,
    };
    let limit = row_count(query.limit.as_ref(), "LIMIT", SqlState::INVALID_LIMIT, context)?;
    let offset = row_count(query.offset.as_ref(), "OFFSET", SqlState::INVALID_OFFSET, context)?.unwrap_or(0);
    let Ordered { mut plan, width } = plan;
    if limit.is_some() || offset > 0 {
        plan = Plan::Limit { input: Box::new(plan), limit, offset };
    }
    if width > outputs.len() {
        let expressions = outputs.iter().enumerate().map(|(index, output)| reference(index, output)).collect();
        plan = Plan::Project { input: Box::new(plan), expressions };
    }
    Ok((plan, outputs))
}

/// A plan whose rows are in order, with hidden columns behind those of the output.
struct Ordered {
    plan: Plan,
    width: usize,
}

fn reference(index: usize, output: &OutputColumn) -> Expression {
    Expression::Column { index, data_type: output.data_type, name: output.name.clone() }
}

fn bind_select(
    select: &Select,
    order: &[OrderItem],
    context: &BindContext<'_>,
) -> Result<(Ordered, Vec<OutputColumn>)> {
    let source = select.from.as_ref().map(|reference| Source::of(reference, context)).transpose()?;
    let source = source.as_ref();
    let mut plan = match source {
        Some(source) => source.scan(),
        None => Plan::Values { rows: vec![Vec::new()], types: Vec::new() },
    };
    if let Some(filter) = &select.filter {
        let predicate = Binder::plain(context, source, "WHERE").condition(filter, "WHERE")?;
        plan = Plan::Filter { input: Box::new(plan), predicate };
    }
    let mut binder = Binder {
        context,
        source,
        aggregates: Aggregates::Collected(Vec::new()),
        within_aggregate: false,
        references: Vec::new(),
    };
    let mut outputs = outputs(select, &mut binder)?;
    let mut having = select.having.as_ref().map(|having| binder.condition(having, "HAVING")).transpose()?;
    let mut keys = sort_keys(order, &outputs, &mut binder)?;
    let groups = group_expressions(select, &outputs, context, source)?;
    let aggregates = match binder.aggregates {
        Aggregates::Collected(aggregates) => aggregates,
        Aggregates::Refused(_) => Vec::new(),
    };
    if !groups.is_empty() || !aggregates.is_empty() || having.is_some() {
        let all = outputs.iter_mut().map(|output| &mut output.expression);
        let all = all.chain(having.as_mut()).chain(keys.iter_mut().map(|(key, _)| &mut key.expression));
        plan = grouped(plan, groups, aggregates, source, all.collect(), &binder.references)?;
        if let Some(predicate) = having {
            plan = Plan::Filter { input: Box::new(plan), predicate };
        }
    }
    let columns = outputs
        .iter()
        .map(|output| OutputColumn { name: output.name.clone(), data_type: output.expression.data_type() })
        .collect();
    Ok((ordered(plan, outputs, keys, select.distinct)?, columns))
}

/// Puts the Aggregate on top and makes all expressions speak of groups.
fn grouped(
    input: Plan,
    groups: Vec<Expression>,
    aggregates: Vec<Aggregate>,
    source: Option<&Source>,
    mut all: Vec<&mut Expression>,
    references: &[(usize, u32)],
) -> Result<Plan> {
    let mut groups = Groups::new(groups, source);
    for expression in &mut all {
        groups.resolve(expression, references)?;
    }
    for expression in all {
        groups.settle(expression);
    }
    Ok(Plan::Aggregate { input: Box::new(input), group: groups.expressions, aggregates })
}

/// Projects, makes distinct and sorts.
fn ordered(input: Plan, outputs: Vec<Output<'_>>, keys: Vec<(SortKey, u32)>, distinct: bool) -> Result<Ordered> {
    let visible = outputs.len();
    let mut expressions: Vec<Expression> = outputs.into_iter().map(|output| output.expression).collect();
    let mut sort = Vec::with_capacity(keys.len());
    for (key, position) in keys {
        let known = expressions.iter().position(|expression| *expression == key.expression);
        if known.is_none() && distinct {
            let message = "for SELECT DISTINCT, ORDER BY expressions must appear in select list";
            return Err(place(Error::invalid(SqlState::INVALID_COLUMN_REFERENCE, message), position));
        }
        let data_type = key.expression.data_type();
        let name = key.expression.column_name().unwrap_or("sort key").to_owned();
        let index = known.unwrap_or_else(|| {
            expressions.push(key.expression);
            expressions.len() - 1
        });
        sort.push(SortKey { expression: Expression::Column { index, data_type, name }, ..key });
    }
    let width = expressions.len().max(visible);
    let mut plan = Plan::Project { input: Box::new(input), expressions };
    if distinct {
        plan = Plan::Distinct { input: Box::new(plan) };
    }
    if !sort.is_empty() {
        plan = Plan::Sort { input: Box::new(plan), keys: sort, limit: None };
    }
    Ok(Ordered { plan, width })
}

/// Sort keys over the rows. A bare name is one of the output first (SQL-92), any other expression is over the input.
fn sort_keys(order: &[OrderItem], outputs: &[Output<'_>], binder: &mut Binder<'_>) -> Result<Vec<(SortKey, u32)>> {
    order
        .iter()
        .map(|item| {
            let position = item.expression.position;
            let output = match &item.expression.node {
                Node::Literal(literal) => ordinal(literal, "ORDER BY", outputs.len(), position)?,
                Node::Column { table: None, name } => named_output(&name.text, "ORDER BY", outputs, position)?,
                _ => None,
            };
            let expression = match output {
                Some(index) => outputs[index].expression.clone(),
                None => binder.expression(&item.expression)?.expression,
            };
            // PostgreSQL's default: NULL counts as greater than everything.
            let nulls_first = item.nulls_first.unwrap_or(item.descending);
            Ok((SortKey { expression, descending: item.descending, nulls_first }, position))
        })
        .collect()
}

/// Group expressions over the rows. A bare name is a column of the table first, then an output.
fn group_expressions(
    select: &Select,
    outputs: &[Output<'_>],
    context: &BindContext<'_>,
    source: Option<&Source>,
) -> Result<Vec<Expression>> {
    let mut binder = Binder::plain(context, source, "GROUP BY");
    let mut groups: Vec<Expression> = Vec::new();
    for written in &select.group {
        let position = written.position;
        let output = match &written.node {
            Node::Literal(literal) => ordinal(literal, "GROUP BY", outputs.len(), position)?,
            Node::Column { table: None, name } if !source.is_some_and(|source| source.has(&name.text)) => {
                named_output(&name.text, "GROUP BY", outputs, position)?
            }
            _ => None,
        };
        let group = match output.map(|index| &outputs[index]) {
            // Bound once more, to refuse the aggregates that the output may hold.
            Some(Output { written: Some(written), .. }) => binder.expression(written)?.expression,
            Some(Output { written: None, expression, .. }) => expression.clone(),
            None => binder.expression(written)?.expression,
        };
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(groups)
}

/// The constant of a LIMIT or OFFSET; NULL is none.
fn row_count(
    written: Option<&Expr>,
    clause: &'static str,
    state: SqlState,
    context: &BindContext<'_>,
) -> Result<Option<u64>> {
    let Some(written) = written else { return Ok(None) };
    let mut binder = Binder::plain(context, None, clause);
    if matches!(written.node, Node::Column { .. }) {
        let message = format!("argument of {clause} must not contain variables");
        return Err(place(Error::invalid(SqlState::INVALID_COLUMN_REFERENCE, message), written.position));
    }
    let typed = binder.expression(written)?;
    if !typed.untyped && !matches!(typed.data_type(), DataType::Int | DataType::Float) {
        let message = format!("argument of {clause} must be type INT, not type {}", typed.data_type());
        return Err(place(Error::invalid(SqlState::DATATYPE_MISMATCH, message), written.position));
    }
    match evaluate(&typed.into_type(DataType::Int)?, written.position)? {
        Value::Int(count) if count >= 0 => Ok(Some(count as u64)),
        Value::Null => Ok(None),
        _ => Err(place(Error::invalid(state, format!("{clause} must not be negative")), written.position)),
    }
}

/// `VALUES`: columns `column1`, `column2`, …, each of the type in which its values meet.
fn bind_values(
    rows: &[Vec<Expr>],
    order: &[OrderItem],
    context: &BindContext<'_>,
) -> Result<(Ordered, Vec<OutputColumn>)> {
    let width = rows.first().map_or(0, Vec::len);
    let mut columns: Vec<Vec<Typed>> = (0..width).map(|_| Vec::with_capacity(rows.len())).collect();
    let mut binder = Binder::plain(context, None, "VALUES");
    if width > COLUMNS_MAX {
        let message = format!("a row of VALUES has {width} columns, the limit is {COLUMNS_MAX}");
        return Err(Error::limit(SqlState::LIMIT_EXCEEDED, message));
    }
    for row in rows {
        if row.len() != width {
            let position = row.last().map_or(0, |last| last.position);
            let message = "VALUES lists must all be the same length";
            return Err(place(Error::invalid(SqlState::SYNTAX_ERROR, message), position));
        }
        for (column, written) in columns.iter_mut().zip(row) {
            column.push(binder.expression(written)?);
        }
    }
    let mut rows: Vec<Vec<Expression>> = rows.iter().map(|_| Vec::with_capacity(width)).collect();
    let mut types = Vec::with_capacity(width);
    for column in columns {
        let (values, data_type) = unify("VALUES", column)?;
        rows.iter_mut().zip(values).for_each(|(row, value)| row.push(value));
        types.push(data_type);
    }
    let outputs: Vec<Output<'_>> = types
        .iter()
        .enumerate()
        .map(|(index, &data_type)| {
            let name = format!("column{}", index + 1);
            let expression = Expression::Column { index, data_type, name: name.clone() };
            Output { name, written: None, expression }
        })
        .collect();
    let keys = sort_keys(order, &outputs, &mut binder)?;
    let columns = outputs
        .iter()
        .map(|output| OutputColumn { name: output.name.clone(), data_type: output.expression.data_type() })
        .collect();
    let plan = Plan::Values { rows, types };
    if keys.is_empty() {
        return Ok((Ordered { plan, width }, columns));
    }
    Ok((ordered(plan, outputs, keys, false)?, columns))
}
