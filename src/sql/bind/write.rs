//! INSERT, UPDATE and DELETE: values and expressions become what the columns hold.

use super::coercion::{Typed, assign};
use super::constant::{evaluate, place};
use super::expression::Binder;
use super::source::{Source, table, unknown_column};
use super::{BindContext, BoundDelete, BoundInsert, BoundUpdate};
use crate::error::{Error, Result, SqlState};
use crate::ids::ColumnId;
use crate::sql::batch::{Column, ColumnBuilder, Values};
use crate::sql::catalog::{ColumnDefinition, Table};
use crate::sql::expression::Expression;
use crate::sql::optimize;
use crate::sql::statement::{Delete, Expr, Insert, InsertSource, Name, Node, Update};
use crate::sql::translate::{ParseLimits, parse_expression};
use crate::sql::value::Value;
use std::sync::Arc;

/// What a column of an INSERT is made of.
enum Filling {
    /// The values at this place of each row.
    Given(usize),
    /// The column's default.
    Default,
}

pub(super) fn insert(insert: &Insert, context: &BindContext<'_>) -> Result<BoundInsert> {
    let table = table(&insert.table, context)?;
    let targets = targets(insert.columns.as_deref(), table)?;
    let no_rows = vec![Vec::new()];
    let rows = match &insert.source {
        InsertSource::Values(rows) => rows,
        InsertSource::Defaults => &no_rows,
    };
    let width = check_widths(insert, rows, &targets)?;
    let columns = table
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let place = targets[..width].iter().position(|&target| target == index);
            let filling = place.map_or(Filling::Default, Filling::Given);
            fill(column, &filling, rows, table, context).map(Arc::new)
        })
        .collect::<Result<Vec<Arc<Column>>>>()?;
    Ok(BoundInsert { table: Arc::clone(table), columns, rows: rows.len() })
}

/// Positions in the table of the columns that values are given for.
pub(crate) fn targets(names: Option<&[Name]>, table: &Table) -> Result<Vec<usize>> {
    let Some(names) = names else { return Ok((0..table.columns.len()).collect()) };
    let mut targets = Vec::with_capacity(names.len());
    for name in names {
        let index = table.columns.iter().position(|column| column.name == name.text).ok_or_else(|| {
            let message = format!("column \"{}\" of table \"{}\" does not exist", name.text, table.name);
            unknown_column(name, message, table)
        })?;
        if targets.contains(&index) {
            let message = format!("column \"{}\" specified more than once", name.text);
            return Err(place(Error::invalid(SqlState::DUPLICATE_COLUMN, message), name.position));
        }
        targets.push(index);
    }
    Ok(targets)
}

/// How many values each row has. Without a column list it may be fewer than the table's columns: the rest default.
fn check_widths(insert: &Insert, rows: &[Vec<Expr>], targets: &[usize]) -> Result<usize> {
    if insert.source == InsertSource::Defaults {
        return Ok(0);
    }
    let width = rows.first().map_or(0, Vec::len);
    let position = |row: &[Expr], at: usize| row.get(at).map_or(insert.table.position, |expr| expr.position);
    let fail = |message: &'static str, position| Err(place(Error::invalid(SqlState::SYNTAX_ERROR, message), position));
    for row in rows {
        if row.len() != width {
            return fail("VALUES lists must all be the same length", position(row, row.len().saturating_sub(1)));
        }
    }
    if width > targets.len() {
        return fail("INSERT has more expressions than target columns", position(&rows[0], targets.len()));
    }
    if width < targets.len() && insert.columns.is_some() {
        let names = insert.columns.as_deref().unwrap_or_default();
        return fail("INSERT has more target columns than expressions", names[width].position);
    }
    Ok(width)
}

fn fill(
    column: &ColumnDefinition,
    filling: &Filling,
    rows: &[Vec<Expr>],
    table: &Table,
    context: &BindContext<'_>,
) -> Result<Column> {
    let &Filling::Given(index) = filling else {
        let value = evaluate_default(column, context)?;
        let filled = Column::constant(value, column.data_type, rows.len());
        check_column(column, table, &filled)?;
        return Ok(filled);
    };
    let mut builder = ColumnBuilder::new(column.data_type, rows.len());
    let mut binder = Binder::plain(context, None, "VALUES");
    let mut default = None;
    for row in rows {
        let written = &row[index];
        if written.node == Node::Default {
            let value = match &default {
                Some(value) => value,
                None => default.insert(evaluate_default(column, context)?),
            };
            check_value(column, table, value).map_err(|error| place(error, written.position))?;
            builder.push(value);
            continue;
        }
        let expression = assign(binder.expression(written)?, &column.name, column.data_type, "expression")?;
        let value = evaluate(&expression, written.position)?;
        check_value(column, table, &value).map_err(|error| place(error, written.position))?;
        builder.push(&value);
    }
    Ok(builder.finish())
}

/// Binds the DEFAULT of a column: no columns, no aggregates, a type that fits.
pub(super) fn bind_default(written: &Expr, column: &ColumnDefinition, context: &BindContext<'_>) -> Result<Expression> {
    if let Some(position) = first_column(written) {
        let message = "column references in DEFAULT expressions are";
        return Err(place(Error::unsupported(message), position));
    }
    let typed: Typed = Binder::plain(context, None, "DEFAULT expressions").expression(written)?;
    assign(typed, &column.name, column.data_type, "default expression")
}

/// Where an expression names a column, if it does so at its top; below, binding finds it.
fn first_column(written: &Expr) -> Option<u32> {
    matches!(written.node, Node::Column { .. }).then_some(written.position)
}

/// The value that a column has where nothing is given: its DEFAULT at the context's instant, or NULL.
///
/// # Errors
/// Those of the expression.
pub fn evaluate_default(column: &ColumnDefinition, context: &BindContext<'_>) -> Result<Value> {
    let Some(text) = &column.default else { return Ok(Value::Null) };
    let about = |error: Error| error.context(format_args!("default of column \"{}\"", column.name));
    let written = parse_expression(text, &ParseLimits::default()).map_err(about)?;
    let expression = bind_default(&written, column, context).map_err(about)?;
    evaluate(&expression, 0).map_err(about)
}

/// Checks computed values of a column against its NOT NULL and its length.
///
/// # Errors
/// 23502 and 22001, naming the column.
pub fn check_column(definition: &ColumnDefinition, table: &Table, values: &Column) -> Result<()> {
    if definition.not_null && (0..values.len()).any(|row| values.is_null(row)) {
        return Err(null_in(definition, table));
    }
    let Some(length_max) = definition.length_max else { return Ok(()) };
    let too_long = match values {
        Column::Constant { value: Value::Text(text), rows, .. } => *rows > 0 && is_longer(text.as_bytes(), length_max),
        Column::Vector { values: Values::Text(strings), .. } => {
            strings.iter().any(|string| is_longer(string, length_max))
        }
        Column::Constant { .. } | Column::Vector { .. } => false,
    };
    if too_long { Err(too_long_for(definition)) } else { Ok(()) }
}

fn check_value(definition: &ColumnDefinition, table: &Table, value: &Value) -> Result<()> {
    match value {
        Value::Null if definition.not_null => Err(null_in(definition, table)),
        Value::Text(text) if definition.length_max.is_some_and(|max| is_longer(text.as_bytes(), max)) => {
            Err(too_long_for(definition))
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Blob(_)
        | Value::Timestamp(_) => Ok(()),
    }
}

/// True where UTF-8 text has more than `length_max` characters.
pub(crate) fn is_longer(text: &[u8], length_max: u32) -> bool {
    // Bytes that continue a character are 10xxxxxx.
    text.len() > length_max as usize && text.iter().filter(|&&byte| byte & 0xC0 != 0x80).count() > length_max as usize
}

fn null_in(definition: &ColumnDefinition, table: &Table) -> Error {
    let message = format!(
        "null value in column \"{}\" of table \"{}\" violates not-null constraint",
        definition.name, table.name
    );
    Error::invalid(SqlState::NOT_NULL_VIOLATION, message)
}

fn too_long_for(definition: &ColumnDefinition) -> Error {
    let message = format!("value too long for column \"{}\" of type {}", definition.name, definition.declared_type);
    Error::invalid(SqlState::STRING_TOO_LONG, message)
}

pub(super) fn update(update: &Update, context: &BindContext<'_>) -> Result<BoundUpdate> {
    let source = Source::of(&update.table, context)?;
    let mut assignments: Vec<(ColumnId, Expression)> = Vec::with_capacity(update.assignments.len());
    for (name, written) in &update.assignments {
        let column = source.table.column(&name.text).ok_or_else(|| {
            let message = format!("column \"{}\" of table \"{}\" does not exist", name.text, source.table.name);
            unknown_column(name, message, &source.table)
        })?;
        if assignments.iter().any(|(id, _)| *id == column.id) {
            let message = format!("multiple assignments to same column \"{}\"", name.text);
            return Err(place(Error::invalid(SqlState::SYNTAX_ERROR, message), name.position));
        }
        assignments.push((column.id, assignment(column, written, &source, context)?));
    }
    let filter = update
        .filter
        .as_ref()
        .map(|filter| Binder::plain(context, Some(&source), "WHERE").condition(filter, "WHERE"))
        .transpose()?;
    let target = optimize::write_target(&source.table, filter);
    Ok(BoundUpdate {
        table: source.table,
        access: target.access,
        bounds: target.bounds,
        filter: target.filter,
        assignments,
    })
}

fn assignment(
    column: &ColumnDefinition,
    written: &Expr,
    source: &Source,
    context: &BindContext<'_>,
) -> Result<Expression> {
    let expression = if written.node == Node::Default {
        Expression::Constant { value: evaluate_default(column, context)?, data_type: column.data_type }
    } else {
        let typed = Binder::plain(context, Some(source), "UPDATE").expression(written)?;
        assign(typed, &column.name, column.data_type, "expression")?
    };
    // A text that fits no row is refused at once, with its place. A NULL is not, as there may be no row to set.
    let expression = optimize::fold(expression);
    if let Expression::Constant { value: value @ Value::Text(_), .. } = &expression {
        check_value(column, &source.table, value).map_err(|error| place(error, written.position))?;
    }
    Ok(expression)
}

pub(super) fn delete(delete: &Delete, context: &BindContext<'_>) -> Result<BoundDelete> {
    let source = Source::of(&delete.table, context)?;
    let filter = delete
        .filter
        .as_ref()
        .map(|filter| Binder::plain(context, Some(&source), "WHERE").condition(filter, "WHERE"))
        .transpose()?;
    let target = optimize::write_target(&source.table, filter);
    Ok(BoundDelete {
        table: source.table,
        access: target.access,
        bounds: target.bounds,
        filter: target.filter,
        exact_ranges: target.exact_ranges,
    })
}
