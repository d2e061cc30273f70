//! `+ - * / %` and unary minus.
//!
//! A loop computes every row without a branch and remembers whether any row went wrong; only then a second loop looks
//! for the row, so that what stands at a NULL position raises nothing.
//!
//! * INT leaves 64 bits: 22003. Division by zero, of integers and of floats: 22012. Integer division truncates.
//! * FLOAT follows PostgreSQL: finite operands with an infinite result, or a product or quotient that vanishes though
//!   neither operand is zero, are 22003; infinities and NaN pass through.

#![expect(clippy::needless_bitwise_bool, reason = "loops over columns are to have no branches")]

use super::BinaryOperator;
use super::operand::{Side, all_null, finish, floats, ints, is_constant, is_null_constant, marked, mask, union, zip};
use crate::error::{Error, Result, SqlState};
use crate::sql::batch::{Column, Values};
use crate::sql::value::DataType;
use std::sync::Arc;

/// The five operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// What a row's result was refused for.
#[derive(Clone, Copy)]
enum Fault {
    Overflow,
    Underflow,
    ZeroDivisor,
}

/// Computes each row of two columns of one numeric type.
pub(super) fn binary(operation: Operation, left: &Column, right: &Column, rows: usize) -> Result<Arc<Column>> {
    let data_type = left.data_type();
    if is_null_constant(left) || is_null_constant(right) {
        return Ok(all_null(data_type, rows));
    }
    let nulls = union(mask(left), mask(right));
    let values = match data_type {
        DataType::Int => Values::Int(integers(operation, ints(left)?, ints(right)?, nulls.as_deref())?),
        DataType::Float => Values::Float(reals(operation, floats(left)?, floats(right)?, nulls.as_deref())?),
        DataType::Bool | DataType::Text | DataType::Blob | DataType::Timestamp => {
            return Err(Error::invalid(
                SqlState::UNDEFINED_FUNCTION,
                format!("operator does not exist: {data_type} {} {}", operation.symbol(), right.data_type()),
            ));
        }
    };
    Ok(finish(values, nulls, is_constant(left) && is_constant(right), rows))
}

/// `-x`
pub(super) fn negate(input: &Column, rows: usize) -> Result<Arc<Column>> {
    let data_type = input.data_type();
    if is_null_constant(input) {
        return Ok(all_null(data_type, rows));
    }
    let values = match data_type {
        // The zero at a null position negates to itself, so nulls need no second look here.
        DataType::Int => {
            let subtract = integers(Operation::Subtract, Side::One(0), ints(input)?, mask(input))?;
            Values::Int(subtract)
        }
        DataType::Float => Values::Float(zip(floats(input)?, Side::One(0.0), |value, _| -value)),
        DataType::Bool | DataType::Text | DataType::Blob | DataType::Timestamp => {
            return Err(Error::invalid(
                SqlState::UNDEFINED_FUNCTION,
                format!("operator does not exist: - {data_type}"),
            ));
        }
    };
    Ok(finish(values, mask(input).map(<[bool]>::to_vec), is_constant(input), rows))
}

fn integers(
    operation: Operation,
    left: Side<'_, i64>,
    right: Side<'_, i64>,
    nulls: Option<&[bool]>,
) -> Result<Vec<i64>> {
    match operation {
        Operation::Add => guarded(left, right, nulls, DataType::Int, i64::overflowing_add, |_, _| Fault::Overflow),
        Operation::Subtract => guarded(left, right, nulls, DataType::Int, i64::overflowing_sub, |_, _| Fault::Overflow),
        Operation::Multiply => guarded(left, right, nulls, DataType::Int, i64::overflowing_mul, |_, _| Fault::Overflow),
        Operation::Divide => guarded(left, right, nulls, DataType::Int, divide, |_, divisor| {
            if divisor == 0 { Fault::ZeroDivisor } else { Fault::Overflow }
        }),
        Operation::Modulo => guarded(left, right, nulls, DataType::Int, modulo, |_, _| Fault::ZeroDivisor),
    }
}

fn divide(dividend: i64, divisor: i64) -> (i64, bool) {
    if divisor == 0 { (0, true) } else { dividend.overflowing_div(divisor) }
}

/// The sign is the dividend's. The smallest integer has no remainder by -1, though its quotient overflows.
fn modulo(dividend: i64, divisor: i64) -> (i64, bool) {
    if divisor == 0 { (0, true) } else { (dividend.wrapping_rem(divisor), false) }
}

fn reals(operation: Operation, left: Side<'_, f64>, right: Side<'_, f64>, nulls: Option<&[bool]>) -> Result<Vec<f64>> {
    let overflow = |_, _| Fault::Overflow;
    match operation {
        Operation::Add => guarded(left, right, nulls, DataType::Float, |a, b| sum(a + b, a, b), overflow),
        Operation::Subtract => guarded(left, right, nulls, DataType::Float, |a, b| sum(a - b, a, b), overflow),
        Operation::Multiply => guarded(left, right, nulls, DataType::Float, multiply_reals, |a, b| {
            if (a * b).is_infinite() { Fault::Overflow } else { Fault::Underflow }
        }),
        Operation::Divide => guarded(left, right, nulls, DataType::Float, divide_reals, |a, b| match a / b {
            _ if b == 0.0 => Fault::ZeroDivisor,
            quotient if quotient.is_infinite() => Fault::Overflow,
            _ => Fault::Underflow,
        }),
        Operation::Modulo => {
            let modulo = |a: f64, b: f64| (a % b, b == 0.0 && !a.is_nan());
            guarded(left, right, nulls, DataType::Float, modulo, |_, _| Fault::ZeroDivisor)
        }
    }
}

fn sum(result: f64, a: f64, b: f64) -> (f64, bool) {
    (result, result.is_infinite() & a.is_finite() & b.is_finite())
}

fn multiply_reals(a: f64, b: f64) -> (f64, bool) {
    let product = a * b;
    let overflow = product.is_infinite() & a.is_finite() & b.is_finite();
    let underflow = (product == 0.0) & (a != 0.0) & (b != 0.0);
    (product, overflow | underflow)
}

fn divide_reals(a: f64, b: f64) -> (f64, bool) {
    let quotient = a / b;
    let by_zero = (b == 0.0) & !a.is_nan();
    let overflow = quotient.is_infinite() & a.is_finite();
    let underflow = (quotient == 0.0) & (a != 0.0) & b.is_finite();
    (quotient, by_zero | overflow | underflow)
}

/// Computes each row; where any was refused, finds the first that is not NULL and reports it.
fn guarded<T: Copy>(
    left: Side<'_, T>,
    right: Side<'_, T>,
    nulls: Option<&[bool]>,
    data_type: DataType,
    compute: impl Fn(T, T) -> (T, bool),
    fault: impl Fn(T, T) -> Fault,
) -> Result<Vec<T>> {
    let mut refused = false;
    let values = zip(left, right, |a, b| {
        let (value, wrong) = compute(a, b);
        refused |= wrong;
        value
    });
    if refused {
        for i in 0..values.len() {
            let (a, b) = (left.get(i), right.get(i));
            if !marked(nulls, i) && compute(a, b).1 {
                return Err(fault(a, b).error(data_type));
            }
        }
    }
    Ok(values)
}

impl Fault {
    fn error(self, data_type: DataType) -> Error {
        match self {
            Fault::ZeroDivisor => Error::invalid(SqlState::DIVISION_BY_ZERO, "division by zero"),
            Fault::Overflow if data_type == DataType::Float => {
                Error::invalid(SqlState::NUMERIC_OUT_OF_RANGE, "value out of range: overflow")
            }
            Fault::Overflow => out_of_range(data_type),
            Fault::Underflow => Error::invalid(SqlState::NUMERIC_OUT_OF_RANGE, "value out of range: underflow"),
        }
    }
}

/// 22003: `INT out of range`.
pub(in crate::sql) fn out_of_range(data_type: DataType) -> Error {
    Error::invalid(SqlState::NUMERIC_OUT_OF_RANGE, format!("{data_type} out of range"))
}

impl Operation {
    /// The operation of an operator, where it is arithmetic.
    pub(super) fn of(operator: BinaryOperator) -> Option<Operation> {
        match operator {
            BinaryOperator::Add => Some(Operation::Add),
            BinaryOperator::Subtract => Some(Operation::Subtract),
            BinaryOperator::Multiply => Some(Operation::Multiply),
            BinaryOperator::Divide => Some(Operation::Divide),
            BinaryOperator::Modulo => Some(Operation::Modulo),
            BinaryOperator::Equal
            | BinaryOperator::NotEqual
            | BinaryOperator::Less
            | BinaryOperator::LessOrEqual
            | BinaryOperator::Greater
            | BinaryOperator::GreaterOrEqual
            | BinaryOperator::NotDistinct
            | BinaryOperator::Distinct
            | BinaryOperator::And
            | BinaryOperator::Or
            | BinaryOperator::Concatenate => None,
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            Operation::Add => "+",
            Operation::Subtract => "-",
            Operation::Multiply => "*",
            Operation::Divide => "/",
            Operation::Modulo => "%",
        }
    }
}
