//! Expressions whose value is known before a row is read.

use crate::error::{Error, Result};
use crate::sql::expression::Expression;
use crate::sql::value::Value;

/// Points an error at a position, where there is one.
pub(super) fn place(error: Error, position: u32) -> Error {
    if position == 0 { error } else { error.at(position) }
}

/// True where no column is read.
pub(crate) fn is_constant(expression: &Expression) -> bool {
    let mut constant = true;
    expression.for_each_column(&mut |_| constant = false);
    constant
}

/// The value of an expression that reads no column.
pub(super) fn evaluate(expression: &Expression, position: u32) -> Result<Value> {
    match expression {
        Expression::Constant { value, .. } => Ok(value.clone()),
        other => other.evaluate_constant().map_err(|error| place(error, position)),
    }
}
