//! AND, OR, NOT, IS NULL: three truth values, NULL for the unknown one.
//!
//! The right side of AND is evaluated only for the rows that the left side leaves open, that of OR likewise: so
//! `d <> 0 AND n / d > 1` raises nothing. Where the right side cannot raise and many rows are open, it is evaluated
//! over all of them instead, which spares the copies.

#![expect(clippy::needless_bitwise_bool, reason = "loops over columns are to have no branches")]

use super::operand::{Side, all_null, bools, finish, is_constant, is_null_constant, mask, union, zip};
use super::rows::restrict;
use super::{Budget, Expression, rows};
use crate::error::Result;
use crate::sql::batch::{Batch, Column, Values};
use crate::sql::value::{DataType, Value};
use std::sync::Arc;

/// The two connectives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Connective {
    And,
    Or,
}

impl Connective {
    /// The truth value that decides whatever the other side is: false for AND, true for OR.
    fn deciding(self) -> bool {
        self == Connective::Or
    }
}

/// `left AND right`, `left OR right`
pub(super) fn connect(
    connective: Connective,
    left: &Expression,
    right: &Expression,
    (input, budget): (&Batch, &Budget),
) -> Result<Arc<Column>> {
    let decided_by = connective.deciding();
    let left = left.evaluate_within(input, budget)?;
    if let Column::Constant { value, .. } = &*left {
        if *value == Value::Bool(decided_by) {
            return Ok(left);
        }
        let right = right.evaluate_within(input, budget)?;
        return if value.is_null() { combine(connective, &left, &right, input.rows) } else { Ok(right) };
    }
    let open = open_rows(&left, decided_by)?;
    if open.is_empty() {
        return Ok(left);
    }
    let all = open.len() == input.rows;
    // A quarter of the rows is where copying a few columns begins to cost less than computing over all.
    if all || (!right.may_fail() && open.len() * 4 > input.rows) {
        return combine(connective, &left, &*right.evaluate_within(input, budget)?, input.rows);
    }
    let part = restrict(input, &open, &[right]);
    let _copied = budget.hold(part.columns.iter().map(|column| column.byte_len()).sum())?;
    let right = right.evaluate_within(&part, budget)?;
    let answer = combine(connective, &left.gather(&open), &right, open.len())?;
    rows::overlay(&left, &open, &answer)
}

/// Rows that the left side does not decide: NULL, or the opposite of what decides.
fn open_rows(left: &Column, decided_by: bool) -> Result<Vec<u32>> {
    let nulls = mask(left);
    let Side::Many(values) = bools(left)? else { return Ok(Vec::new()) };
    let mut open = Vec::with_capacity(values.len());
    match nulls {
        None => open.extend((0u32..).zip(values).filter(|(_, value)| **value != decided_by).map(|(row, _)| row)),
        Some(nulls) => open.extend(
            (0u32..)
                .zip(values.iter().zip(nulls))
                .filter(|(_, (value, null))| **null || **value != decided_by)
                .map(|(row, _)| row),
        ),
    }
    Ok(open)
}

/// `left OR right` of columns that are there.
pub(super) fn either(left: &Column, right: &Column, rows: usize) -> Result<Arc<Column>> {
    combine(Connective::Or, left, right, rows)
}

/// The truth table, row by row. False stands at every null position, as in all columns.
fn combine(connective: Connective, left: &Column, right: &Column, rows: usize) -> Result<Arc<Column>> {
    let constant = is_constant(left) && is_constant(right);
    let (a, b) = (bools(left)?, bools(right)?);
    let values = match connective {
        Connective::And => zip(a, b, |a, b| a & b),
        Connective::Or => zip(a, b, |a, b| a | b),
    };
    let unknown = |column: &Column| -> Option<Vec<bool>> {
        if is_null_constant(column) { Some(vec![true; values.len()]) } else { mask(column).map(<[bool]>::to_vec) }
    };
    let (left_nulls, right_nulls) = (unknown(left), unknown(right));
    if left_nulls.is_none() && right_nulls.is_none() {
        return Ok(finish(Values::Bool(values), None, constant, rows));
    }
    let null_at = |nulls: &Option<Vec<bool>>, i: usize| nulls.as_ref().is_some_and(|nulls| nulls[i]);
    let decided_by = connective.deciding();
    let nulls: Vec<bool> = (0..values.len())
        .map(|i| {
            let (a_null, b_null) = (null_at(&left_nulls, i), null_at(&right_nulls, i));
            let decided = (!a_null & (a.get(i) == decided_by)) | (!b_null & (b.get(i) == decided_by));
            (a_null | b_null) & !decided
        })
        .collect();
    if constant && nulls[0] {
        return Ok(all_null(DataType::Bool, rows));
    }
    Ok(finish(Values::Bool(values), Some(nulls), constant, rows))
}

/// `NOT x`
pub(super) fn not(input: &Column, rows: usize) -> Result<Arc<Column>> {
    if is_null_constant(input) {
        return Ok(all_null(DataType::Bool, rows));
    }
    let values = zip(bools(input)?, Side::One(false), |value, _| !value);
    Ok(finish(Values::Bool(values), union(mask(input), None), is_constant(input), rows))
}

/// `x IS NULL`, `x IS NOT NULL`
pub(super) fn is_null(input: &Column, negated: bool, rows: usize) -> Arc<Column> {
    let Some(nulls) = mask(input) else {
        let value = Value::Bool(is_null_constant(input) != negated);
        return Arc::new(Column::constant(value, DataType::Bool, rows));
    };
    Arc::new(Column::new(Values::Bool(nulls.iter().map(|&null| null != negated).collect())))
}
