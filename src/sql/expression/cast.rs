//! Casts: `CAST(x AS type)`, `x::type`, and what the binder inserts.
//!
//! ```text
//! from \ to   BOOL   INT    FLOAT  TEXT   BLOB   TIMESTAMP
//! BOOL        .      0, 1   -      text   -      -
//! INT         <> 0   .      exact* text   -      -
//! FLOAT       -      round  .      text   -      -
//! TEXT        parse  parse  parse  .      parse  parse
//! BLOB        -      -      -      text   .      -
//! TIMESTAMP   -      -      -      text   -      .
//! ```
//!
//! The table is PostgreSQL's. FLOAT to INT rounds half to even and is 22003 outside 64 bits; (*) INT to FLOAT rounds
//! to the nearest above 2^53. What has no entry is 42846.

use super::Budget;
use super::arithmetic::out_of_range;
use super::operand::{Side, all_null, bools, finish, floats, ints, is_null_constant, marked, mask, zip};
use crate::error::{Error, Result, SqlState};
use crate::sql::batch::{Column, Strings, Values};
use crate::sql::text;
use crate::sql::value::{DataType, Value};
use std::sync::Arc;

/// 2^63: the first FLOAT that no INT holds.
const INT_END: f64 = 9_223_372_036_854_775_808.0;

/// True where the cast exists.
pub fn can_cast(from: DataType, to: DataType) -> bool {
    match (from, to) {
        _ if from == to => true,
        (DataType::Text, _)
        | (_, DataType::Text)
        | (DataType::Bool | DataType::Float, DataType::Int)
        | (DataType::Int, DataType::Bool | DataType::Float) => true,
        (
            DataType::Bool | DataType::Int | DataType::Float | DataType::Blob | DataType::Timestamp,
            DataType::Bool | DataType::Int | DataType::Float | DataType::Blob | DataType::Timestamp,
        ) => false,
    }
}

/// True where some value of the type cannot be cast.
pub(super) fn may_fail(from: DataType, to: DataType) -> bool {
    !matches!(
        (from, to),
        (_, DataType::Text) | (DataType::Bool, DataType::Int) | (DataType::Int, DataType::Float | DataType::Bool)
    ) && from != to
}

/// One value as a value of another type; NULL stays NULL.
///
/// # Errors
/// 42846 where there is no such cast; 22P02, 22007, 22008, 22003 where this value has none.
pub fn cast_value(value: &Value, to: DataType) -> Result<Value> {
    match (value, to) {
        (Value::Null, _) => Ok(Value::Null),
        (Value::Text(text), to) => text::parse(text, to),
        (value, DataType::Text) => Ok(Value::Text(text::format(value))),
        (Value::Bool(value), DataType::Int) => Ok(Value::Int(i64::from(*value))),
        (Value::Int(value), DataType::Bool) => Ok(Value::Bool(*value != 0)),
        (Value::Int(value), DataType::Float) => Ok(Value::Float(*value as f64)),
        (Value::Float(value), DataType::Int) => round(*value).map(Value::Int).ok_or_else(|| out_of_range(to)),
        (value, to) if value.data_type() == Some(to) => Ok(value.clone()),
        (value, to) => Err(no_cast(value.data_type().unwrap_or(to), to)),
    }
}

/// The nearest integer, half to even; none for NaN and outside 64 bits.
fn round(value: f64) -> Option<i64> {
    let rounded = value.round_ties_even();
    (-INT_END..INT_END).contains(&rounded).then_some(rounded as i64)
}

fn no_cast(from: DataType, to: DataType) -> Error {
    Error::invalid(SqlState::CANNOT_COERCE, format!("cannot cast type {from} to {to}"))
}

/// Casts each row of a column.
pub(super) fn evaluate(input: Arc<Column>, to: DataType, rows: usize, budget: &Budget) -> Result<Arc<Column>> {
    let from = input.data_type();
    if from == to {
        return Ok(input);
    }
    if !can_cast(from, to) {
        return Err(no_cast(from, to));
    }
    if is_null_constant(&input) {
        return Ok(all_null(to, rows));
    }
    if from == DataType::Blob {
        // Two digits a byte. No other cast makes more of a value than some dozen bytes.
        budget.check(2 * input.byte_len())?;
    }
    let Column::Vector { values, nulls } = &*input else {
        return Ok(Arc::new(Column::constant(cast_value(&input.value(0), to)?, to, rows)));
    };
    let nulls = nulls.as_deref();
    let values = match (values, to) {
        (Values::Text(strings), to) => return parse_all(strings, nulls, to),
        (values, DataType::Text) => Values::Text(format_all(values, nulls)),
        (Values::Bool(_), _) => Values::Int(zip(bools(&input)?, Side::One(false), |value, _| i64::from(value))),
        (Values::Int(_), DataType::Bool) => Values::Bool(zip(ints(&input)?, Side::One(0), |value, _| value != 0)),
        (Values::Int(_), _) => Values::Float(zip(ints(&input)?, Side::One(0), |value, _| value as f64)),
        // The zero at a null position rounds to 0.
        (Values::Float(_), _) => Values::Int(
            zip(floats(&input)?, Side::One(0.0), |value, _| round(value))
                .into_iter()
                .collect::<Option<Vec<i64>>>()
                .ok_or_else(|| out_of_range(to))?,
        ),
        (Values::Blob(_) | Values::Timestamp(_), _) => return Err(no_cast(from, to)),
    };
    Ok(finish(values, mask(&input).map(<[bool]>::to_vec), false, rows))
}

fn format_all(values: &Values, nulls: Option<&[bool]>) -> Strings {
    let mut out = match values {
        Values::Blob(blobs) => Strings::with_capacity(blobs.len(), 2 * blobs.byte_len() + 2 * blobs.len()),
        Values::Bool(_) | Values::Int(_) | Values::Float(_) | Values::Text(_) | Values::Timestamp(_) => {
            Strings::default()
        }
    };
    for i in 0..values.len() {
        out.push_with(|bytes| {
            if !marked(nulls, i) {
                text::append_from(bytes, values, i);
            }
        });
    }
    out
}

fn parse_all(strings: &Strings, nulls: Option<&[bool]>, to: DataType) -> Result<Arc<Column>> {
    let mut out = crate::sql::batch::ColumnBuilder::new(to, strings.len());
    for (i, string) in strings.iter().enumerate() {
        if marked(nulls, i) {
            out.push_null();
            continue;
        }
        let string = std::str::from_utf8(string).map_err(|_| Error::damaged("a TEXT is not UTF-8"))?;
        out.push(&text::parse(string, to)?);
    }
    Ok(Arc::new(out.finish()))
}
