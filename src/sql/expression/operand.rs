//! What kernels read and write: typed slices, null masks, and columns made of results.
//!
//! A kernel is a loop over slices that knows neither NULL nor the expression around it. Nulls are combined apart from
//! values; results at null positions are set to the type's zero afterwards, since every column keeps that promise.
//! A constant stays one value: a kernel over two constants runs once, whatever the number of rows.

use crate::error::{Error, Result};
use crate::sql::batch::{Column, Strings, Values};
use crate::sql::value::{DataType, Value};
use std::sync::Arc;

/// One side of a kernel over numbers or booleans.
#[derive(Clone, Copy)]
pub(super) enum Side<'a, T> {
    /// The same value in each row.
    One(T),
    /// A value for each row.
    Many(&'a [T]),
}

impl<T: Copy> Side<'_, T> {
    /// The value of row `i`.
    pub(super) fn get(&self, i: usize) -> T {
        match self {
            Side::One(value) => *value,
            Side::Many(values) => values[i],
        }
    }
}

/// One side of a kernel over strings.
#[derive(Clone, Copy)]
pub(super) enum StringSide<'a> {
    /// The same string in each row.
    One(&'a [u8]),
    /// A string for each row.
    Many(&'a Strings),
}

impl<'a> StringSide<'a> {
    /// The string of row `i`.
    pub(super) fn get(&self, i: usize) -> &'a [u8] {
        match self {
            StringSide::One(string) => string,
            StringSide::Many(strings) => strings.get(i),
        }
    }

    /// How many strings a kernel visits: one, or one a row.
    pub(super) fn len(&self) -> usize {
        match self {
            StringSide::One(_) => 1,
            StringSide::Many(strings) => strings.len(),
        }
    }
}

/// Applies a function to pairs; to one pair where both sides are constant.
pub(super) fn zip<T: Copy, U>(left: Side<'_, T>, right: Side<'_, T>, mut f: impl FnMut(T, T) -> U) -> Vec<U> {
    match (left, right) {
        (Side::One(a), Side::One(b)) => vec![f(a, b)],
        (Side::One(a), Side::Many(b)) => b.iter().map(|&b| f(a, b)).collect(),
        (Side::Many(a), Side::One(b)) => a.iter().map(|&a| f(a, b)).collect(),
        (Side::Many(a), Side::Many(b)) => a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect(),
    }
}

/// Applies a function to pairs of strings; to one pair where both sides are constant.
pub(super) fn zip_strings<U>(
    left: StringSide<'_>,
    right: StringSide<'_>,
    mut f: impl FnMut(&[u8], &[u8]) -> U,
) -> Vec<U> {
    match (left, right) {
        (StringSide::One(a), StringSide::One(b)) => vec![f(a, b)],
        (StringSide::One(a), StringSide::Many(b)) => b.iter().map(|b| f(a, b)).collect(),
        (StringSide::Many(a), StringSide::One(b)) => a.iter().map(|a| f(a, b)).collect(),
        (StringSide::Many(a), StringSide::Many(b)) => a.iter().zip(b.iter()).map(|(a, b)| f(a, b)).collect(),
    }
}

/// BOOL values; a NULL constant reads as its zero.
pub(super) fn bools(column: &Column) -> Result<Side<'_, bool>> {
    match column {
        Column::Vector { values: Values::Bool(values), .. } => Ok(Side::Many(values)),
        Column::Constant { value: Value::Bool(value), .. } => Ok(Side::One(*value)),
        Column::Constant { value: Value::Null, data_type: DataType::Bool, .. } => Ok(Side::One(false)),
        Column::Vector { .. } | Column::Constant { .. } => Err(unexpected(column, DataType::Bool)),
    }
}

/// INT or TIMESTAMP values; a NULL constant reads as its zero.
pub(super) fn ints(column: &Column) -> Result<Side<'_, i64>> {
    match column {
        Column::Vector { values: Values::Int(values) | Values::Timestamp(values), .. } => Ok(Side::Many(values)),
        Column::Constant { value: Value::Int(value) | Value::Timestamp(value), .. } => Ok(Side::One(*value)),
        Column::Constant { value: Value::Null, data_type: DataType::Int | DataType::Timestamp, .. } => Ok(Side::One(0)),
        Column::Vector { .. } | Column::Constant { .. } => Err(unexpected(column, DataType::Int)),
    }
}

/// FLOAT values; a NULL constant reads as its zero.
pub(super) fn floats(column: &Column) -> Result<Side<'_, f64>> {
    match column {
        Column::Vector { values: Values::Float(values), .. } => Ok(Side::Many(values)),
        Column::Constant { value: Value::Float(value), .. } => Ok(Side::One(*value)),
        Column::Constant { value: Value::Null, data_type: DataType::Float, .. } => Ok(Side::One(0.0)),
        Column::Vector { .. } | Column::Constant { .. } => Err(unexpected(column, DataType::Float)),
    }
}

/// TEXT or BLOB values; a NULL constant reads as its zero.
pub(super) fn strings(column: &Column) -> Result<StringSide<'_>> {
    match column {
        Column::Vector { values: Values::Text(values) | Values::Blob(values), .. } => Ok(StringSide::Many(values)),
        Column::Constant { value: Value::Text(value), .. } => Ok(StringSide::One(value.as_bytes())),
        Column::Constant { value: Value::Blob(value), .. } => Ok(StringSide::One(value)),
        Column::Constant { value: Value::Null, data_type: DataType::Text | DataType::Blob, .. } => {
            Ok(StringSide::One(b""))
        }
        Column::Vector { .. } | Column::Constant { .. } => Err(unexpected(column, DataType::Text)),
    }
}

fn unexpected(column: &Column, wanted: DataType) -> Error {
    Error::internal(format!("the binder promised {wanted}, got {}", column.data_type()))
}

/// True for one value repeated.
pub(super) fn is_constant(column: &Column) -> bool {
    matches!(column, Column::Constant { .. })
}

/// True where every row is the constant NULL.
pub(super) fn is_null_constant(column: &Column) -> bool {
    matches!(column, Column::Constant { value: Value::Null, .. })
}

/// The null mask, where there is one. A NULL constant has none: callers look at [`is_null_constant`] first.
pub(super) fn mask(column: &Column) -> Option<&[bool]> {
    match column {
        Column::Vector { nulls, .. } => nulls.as_deref(),
        Column::Constant { .. } => None,
    }
}

/// NULL where either side is.
pub(super) fn union(left: Option<&[bool]>, right: Option<&[bool]>) -> Option<Vec<bool>> {
    match (left, right) {
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => Some(one.to_vec()),
        (Some(left), Some(right)) => Some(left.iter().zip(right).map(|(&a, &b)| a | b).collect()),
    }
}

/// True where row `i` of a mask is NULL.
pub(super) fn marked(nulls: Option<&[bool]>, i: usize) -> bool {
    nulls.is_some_and(|nulls| nulls[i])
}

/// A column of a kernel's results: one for all rows where it ran on constants. Sets what stands at nulls to zero.
pub(super) fn finish(mut values: Values, nulls: Option<Vec<bool>>, constant: bool, rows: usize) -> Arc<Column> {
    if constant {
        return Arc::new(Column::constant(values.get(0), values.data_type(), rows));
    }
    let Some(nulls) = nulls else { return Arc::new(Column::new(values)) };
    match &mut values {
        Values::Bool(values) => blank(values, &nulls, false),
        Values::Int(values) | Values::Timestamp(values) => blank(values, &nulls, 0),
        Values::Float(values) => blank(values, &nulls, 0.0),
        // Kernels that make strings push the empty one at nulls themselves: a string cannot shrink in place.
        Values::Text(_) | Values::Blob(_) => {}
    }
    Arc::new(Column::with_nulls(values, nulls))
}

fn blank<T: Copy>(values: &mut [T], nulls: &[bool], zero: T) {
    values.iter_mut().zip(nulls).for_each(|(value, &null)| *value = if null { zero } else { *value });
}

/// NULL in every row.
pub(super) fn all_null(data_type: DataType, rows: usize) -> Arc<Column> {
    Arc::new(Column::constant(Value::Null, data_type, rows))
}
