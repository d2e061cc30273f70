//! CASE and COALESCE: a branch is evaluated only for the rows that reach it, so that
//! `CASE WHEN d <> 0 THEN n / d END` raises nothing.

use super::operand::{all_null, is_null_constant, mask};
use super::rows::{Pieces, Selection, restrict};
use super::{Budget, Expression};
use crate::error::Result;
use crate::sql::batch::{Batch, Column};
use crate::sql::value::DataType;
use std::sync::Arc;

/// Rows of a batch not yet answered.
enum Open {
    All(usize),
    Rows(Vec<u32>),
}

impl Open {
    /// The expression's answers for the open rows.
    fn evaluate(&self, expression: &Expression, (input, budget): (&Batch, &Budget)) -> Result<Arc<Column>> {
        match self {
            Open::All(_) => expression.evaluate_within(input, budget),
            Open::Rows(rows) => {
                let part = restrict(input, rows, &[expression]);
                let _copied = budget.hold(part.columns.iter().map(|column| column.byte_len()).sum())?;
                expression.evaluate_within(&part, budget)
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Open::All(rows) => *rows == 0,
            Open::Rows(rows) => rows.is_empty(),
        }
    }

    /// Those of the open rows whose positions among them are named, and those whose are not.
    fn split(self, positions: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let open: Vec<u32> = match self {
            Open::All(rows) => (0..rows as u32).collect(),
            Open::Rows(rows) => rows,
        };
        let (mut named, mut others) = (Vec::with_capacity(positions.len()), Vec::new());
        let mut next = positions.iter().peekable();
        for (position, row) in (0u32..).zip(open) {
            if next.next_if(|&&named| named == position).is_some() {
                named.push(row);
            } else {
                others.push(row);
            }
        }
        (named, others)
    }

    fn into_rows(self) -> Vec<u32> {
        match self {
            Open::All(rows) => (0..rows as u32).collect(),
            Open::Rows(rows) => rows,
        }
    }
}

/// `CASE WHEN … THEN … ELSE … END`
pub(super) fn case(
    branches: &[(Expression, Expression)],
    otherwise: &Expression,
    data_type: DataType,
    (input, budget): (&Batch, &Budget),
) -> Result<Arc<Column>> {
    let mut pieces = Pieces::new(data_type, input.rows);
    let mut open = Open::All(input.rows);
    for (when, then) in branches {
        if open.is_empty() {
            return Ok(pieces.finish());
        }
        match Selection::of(&*open.evaluate(when, (input, budget))?) {
            Selection::Rows(positions) if positions.is_empty() => {}
            Selection::All => {
                let answers = open.evaluate(then, (input, budget))?;
                pieces.push(&open.into_rows(), answers);
                return Ok(pieces.finish());
            }
            Selection::Rows(positions) => {
                let (taken, others) = open.split(&positions);
                let taken = Open::Rows(taken);
                let answers = taken.evaluate(then, (input, budget))?;
                pieces.push(&taken.into_rows(), answers);
                open = Open::Rows(others);
            }
        }
    }
    if !open.is_empty() {
        let answers = open.evaluate(otherwise, (input, budget))?;
        pieces.push(&open.into_rows(), answers);
    }
    Ok(pieces.finish())
}

/// The first argument that is not NULL.
pub(super) fn coalesce(
    arguments: &[Expression],
    data_type: DataType,
    (input, budget): (&Batch, &Budget),
) -> Result<Arc<Column>> {
    let mut pieces = Pieces::new(data_type, input.rows);
    let mut open = Open::All(input.rows);
    for argument in arguments {
        if open.is_empty() {
            return Ok(pieces.finish());
        }
        let answers = open.evaluate(argument, (input, budget))?;
        if is_null_constant(&answers) {
            continue;
        }
        let Some(nulls) = mask(&answers) else {
            pieces.push(&open.into_rows(), answers);
            return Ok(pieces.finish());
        };
        let present: Vec<u32> = (0u32..).zip(nulls).filter(|(_, null)| !**null).map(|(row, _)| row).collect();
        let answers = answers.gather(&present);
        let (answered, others) = open.split(&present);
        pieces.push(&answered, Arc::new(answers));
        open = Open::Rows(others);
    }
    if !open.is_empty() {
        let rows = open.into_rows();
        pieces.push(&rows, all_null(data_type, rows.len()));
    }
    Ok(pieces.finish())
}
