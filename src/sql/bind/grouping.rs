//! GROUP BY: what an output may say of a group.
//!
//! An output expression is bound over the rows first, aggregates standing as columns from [`FIRST_AGGREGATE`] on.
//! Then each subtree that equals a group expression becomes the group's column; a column of the rows that is left
//! over is an error (42803), for a group has no single value of it.
//!
//! * As in PostgreSQL, grouping by the whole primary key allows every column of the table.

use super::constant::place;
use super::expression::FIRST_AGGREGATE;
use super::source::Source;
use crate::error::{Error, Result, SqlState};
use crate::sql::expression::Expression;

/// The group expressions of a query.
pub(super) struct Groups {
    /// Over the rows. Grows by columns that the primary key determines.
    pub(super) expressions: Vec<Expression>,
    /// Whether the table's primary key is among them.
    by_key: bool,
}

impl Groups {
    pub(super) fn new(expressions: Vec<Expression>, source: Option<&Source>) -> Groups {
        let by_key = source.is_some_and(|source| {
            let table = &source.table;
            let grouped = |index: usize| {
                expressions
                    .iter()
                    .any(|group| matches!(group, Expression::Column { index: column, .. } if *column == index))
            };
            let mut key = table.primary_key.iter();
            !table.primary_key.is_empty()
                && key.all(|id| table.columns.iter().position(|column| column.id == *id).is_some_and(grouped))
        });
        Groups { expressions, by_key }
    }

    /// Turns an expression over the rows into one over the groups. Aggregates keep their marked columns, as the
    /// number of groups is not final yet; see [`Groups::settle`].
    pub(super) fn resolve(&mut self, expression: &mut Expression, references: &[(usize, u32)]) -> Result<()> {
        if let Some(group) = self.expressions.iter().position(|group| group == expression) {
            let name = expression.column_name().map_or_else(|| format!("group {}", group + 1), str::to_owned);
            *expression = Expression::Column { index: group, data_type: expression.data_type(), name };
            return Ok(());
        }
        if let Expression::Column { index, name, .. } = expression {
            if *index >= FIRST_AGGREGATE {
                return Ok(());
            }
            if self.by_key {
                self.expressions.push(expression.clone());
                return self.resolve(expression, references);
            }
            let position = references.iter().find(|(column, _)| column == index).map_or(0, |&(_, position)| position);
            let message =
                format!("column \"{name}\" must appear in the GROUP BY clause or be used in an aggregate function");
            return Err(place(Error::invalid(SqlState::GROUPING_ERROR, message), position));
        }
        children(expression).into_iter().try_for_each(|child| self.resolve(child, references))
    }

    /// Puts the aggregates' columns behind those of the groups.
    pub(super) fn settle(&self, expression: &mut Expression) {
        if let Expression::Column { index, .. } = expression {
            if *index >= FIRST_AGGREGATE {
                *index = *index - FIRST_AGGREGATE + self.expressions.len();
            }
            return;
        }
        for child in children(expression) {
            self.settle(child);
        }
    }
}

/// The inputs of an expression.
pub(crate) fn children(expression: &mut Expression) -> Vec<&mut Expression> {
    match expression {
        Expression::Constant { .. } | Expression::Column { .. } => Vec::new(),
        Expression::Unary { input, .. } | Expression::IsNull { input, .. } | Expression::Cast { input, .. } => {
            vec![input]
        }
        Expression::Binary { left, right, .. } => vec![left, right],
        Expression::Like { input, pattern, .. } => vec![input, pattern],
        Expression::InList { input, list, .. } | Expression::InSet { input, list, .. } => {
            std::iter::once(&mut **input).chain(list).collect()
        }
        Expression::Case { branches, otherwise, .. } => branches
            .iter_mut()
            .flat_map(|(condition, result)| [condition, result])
            .chain(std::iter::once(&mut **otherwise))
            .collect(),
        Expression::Call { arguments, .. } => arguments.iter_mut().collect(),
    }
}
