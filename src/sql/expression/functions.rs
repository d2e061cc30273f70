//! Scalar functions and `||`.

use super::BinaryOperator;
use super::Function;
use super::arithmetic::out_of_range;
use super::budget::{Budget, check_value};
use super::compare;
use super::operand::{
    Side, StringSide, all_null, finish, floats, ints, is_constant, is_null_constant, marked, mask, strings, union, zip,
};
use crate::error::{Error, Result, SqlState};
use crate::sql::batch::{Column, Strings, Values};
use crate::sql::value::{DataType, Value};
use std::sync::Arc;

/// Decimal places beyond which rounding a FLOAT changes nothing.
const PLACES_MAX: i64 = 308;

/// True where some argument makes the function raise an error.
pub(super) fn may_fail(function: Function) -> bool {
    match function {
        Function::Abs | Function::Sqrt => true,
        Function::Coalesce
        | Function::NullIf
        | Function::Length
        | Function::Left
        | Function::Lower
        | Function::Upper
        | Function::Round
        | Function::Floor
        | Function::Ceil => false,
    }
}

/// Calls a function for each row. COALESCE is not among them: it does not evaluate all of its arguments.
pub(super) fn call(
    function: Function,
    arguments: &[Arc<Column>],
    data_type: DataType,
    rows: usize,
) -> Result<Arc<Column>> {
    let argument = |i: usize| -> Result<&Column> {
        arguments
            .get(i)
            .map(|column| &**column)
            .ok_or_else(|| Error::internal(format!("{function:?} lacks an argument")))
    };
    let first = argument(0)?;
    if function == Function::NullIf {
        return null_if(first, argument(1)?, rows);
    }
    if arguments.iter().any(|argument| is_null_constant(argument)) {
        return Ok(all_null(data_type, rows));
    }
    let values = match function {
        Function::Coalesce | Function::NullIf => return Err(Error::internal("not a function of values alone")),
        Function::Abs => absolute(first)?,
        Function::Length => length(first)?,
        Function::Left => return left(first, argument(1)?, rows),
        Function::Lower => Values::Text(map_strings(strings(first)?, append_lower)),
        Function::Upper => Values::Text(map_strings(strings(first)?, append_upper)),
        Function::Round => match arguments.get(1) {
            None => real(first, f64::round_ties_even)?,
            Some(places) => return round_to(first, places, rows),
        },
        Function::Floor => real(first, f64::floor)?,
        Function::Ceil => real(first, f64::ceil)?,
        Function::Sqrt => square_root(first)?,
    };
    Ok(finish(values, mask(first).map(<[bool]>::to_vec), is_constant(first), rows))
}

fn null_if(first: &Column, second: &Column, rows: usize) -> Result<Arc<Column>> {
    let equal = compare::binary(BinaryOperator::Equal, first, second, rows)?;
    let data_type = first.data_type();
    if let Column::Constant { value, .. } = &*equal {
        return Ok(if *value == Value::Bool(true) { all_null(data_type, rows) } else { Arc::new(first.clone()) });
    }
    let Column::Vector { values: Values::Bool(equal), .. } = &*equal else {
        return Err(Error::internal("a comparison is BOOL"));
    };
    let nulls: Vec<bool> = equal.iter().enumerate().map(|(i, &equal)| equal || first.is_null(i)).collect();
    let mut out = crate::sql::batch::ColumnBuilder::new(data_type, rows);
    // Runs that stay are copied whole.
    let mut from = 0;
    while from < rows {
        if nulls[from] {
            out.push_null();
            from += 1;
            continue;
        }
        let to = nulls[from..].iter().position(|&null| null).map_or(rows, |run| from + run);
        out.extend(first, from, to);
        from = to;
    }
    Ok(Arc::new(out.finish()))
}

fn absolute(input: &Column) -> Result<Values> {
    if input.data_type() == DataType::Float {
        return real(input, f64::abs);
    }
    let values = zip(ints(input)?, Side::One(0), |value, _| value.wrapping_abs());
    // Only the smallest integer has no opposite. At a null position stands 0.
    if values.contains(&i64::MIN) { Err(out_of_range(DataType::Int)) } else { Ok(Values::Int(values)) }
}

/// A function of numbers: the identity for INT, which is whole already.
fn real(input: &Column, f: impl Fn(f64) -> f64) -> Result<Values> {
    if input.data_type() == DataType::Int {
        return Ok(Values::Int(zip(ints(input)?, Side::One(0), |value, _| value)));
    }
    Ok(Values::Float(zip(floats(input)?, Side::One(0.0), |value, _| f(value))))
}

fn square_root(input: &Column) -> Result<Values> {
    let side = floats(input)?;
    let values = zip(side, Side::One(0.0), |value, _| value.sqrt());
    let negative = |i: usize| side.get(i) < 0.0 && !marked(mask(input), i);
    if (0..values.len()).any(negative) {
        return Err(Error::invalid(SqlState::parse("2201F"), "cannot take square root of a negative number"));
    }
    Ok(Values::Float(values))
}

/// `ROUND(x, places)`, half away from zero as decimals are rounded; negative places round before the point.
fn round_to(input: &Column, places: &Column, rows: usize) -> Result<Arc<Column>> {
    let nulls = union(mask(input), mask(places));
    let constant = is_constant(input) && is_constant(places);
    let places = ints(places)?;
    let values = if input.data_type() == DataType::Int {
        Values::Int(round_integers(ints(input)?, places, nulls.as_deref())?)
    } else {
        let values = floats(input)?;
        Values::Float(match (values, places) {
            (values, Side::One(places)) => zip(values, Side::One(0.0), |value, _| round_real(value, places)),
            (values, Side::Many(places)) => {
                places.iter().enumerate().map(|(i, &places)| round_real(values.get(i), places)).collect()
            }
        })
    };
    Ok(finish(values, nulls, constant, rows))
}

fn round_integers(values: Side<'_, i64>, places: Side<'_, i64>, nulls: Option<&[bool]>) -> Result<Vec<i64>> {
    let mut rounded = zip(values, places, round_integer);
    for (i, value) in rounded.iter_mut().enumerate().filter(|(_, value)| value.is_none()) {
        *value = marked(nulls, i).then_some(0);
    }
    rounded.into_iter().collect::<Option<Vec<i64>>>().ok_or_else(|| out_of_range(DataType::Int))
}

fn round_integer(value: i64, places: i64) -> Option<i64> {
    if places >= 0 {
        return Some(value);
    }
    // 10^19 is above every integer, and half of it too.
    let Some(unit) = u32::try_from(-places).ok().and_then(|places| 10i128.checked_pow(places)) else { return Some(0) };
    let value = i128::from(value);
    let rounded = (value.abs() + unit / 2) / unit * unit;
    i64::try_from(rounded * value.signum()).ok()
}

fn round_real(value: f64, places: i64) -> f64 {
    let unit = 10f64.powi(places.clamp(-PLACES_MAX, PLACES_MAX) as i32);
    let scaled = value * unit;
    // From 2^52 on there are no fractions: the number is as round as it can be.
    if !scaled.is_finite() || (places > 0 && scaled.abs() >= 4_503_599_627_370_496.0) {
        return value;
    }
    scaled.round() / unit
}

/// Characters of each TEXT, bytes of each BLOB.
fn length(input: &Column) -> Result<Values> {
    let side = strings(input)?;
    let is_blob = input.data_type() == DataType::Blob;
    // A character has one byte that does not continue another.
    let begins = |byte: &&u8| **byte & 0xC0 != 0x80;
    let of = |string: &[u8]| if is_blob { string.len() } else { string.iter().filter(begins).count() } as i64;
    Ok(Values::Int((0..side.len()).map(|i| of(side.get(i))).collect()))
}

/// The first characters of each TEXT; none where fewer than one are asked for.
fn left(input: &Column, count: &Column, rows: usize) -> Result<Arc<Column>> {
    let nulls = union(mask(input), mask(count));
    let constant = is_constant(input) && is_constant(count);
    let (texts, counts) = (strings(input)?, ints(count)?);
    let mut out = Strings::default();
    for i in 0..if constant { 1 } else { rows } {
        let text = texts.get(i);
        let wanted = usize::try_from(counts.get(i)).unwrap_or(0);
        let begins = text.iter().enumerate().filter(|(_, byte)| **byte & 0xC0 != 0x80);
        let end = begins.map(|(at, _)| at).nth(wanted).unwrap_or(text.len());
        out.push(&text[..end]);
    }
    Ok(finish(Values::Text(out), nulls, constant, rows))
}

/// Applies a function that appends its result.
fn map_strings(side: StringSide<'_>, f: impl Fn(&mut Vec<u8>, &[u8])) -> Strings {
    let mut out = Strings::default();
    for i in 0..side.len() {
        out.push_with(|bytes| f(bytes, side.get(i)));
    }
    out
}

/// Appends a text in lower case: each character by Unicode's mapping.
pub(super) fn append_lower(out: &mut Vec<u8>, text: &[u8]) {
    append_mapped(out, text, <[u8]>::make_ascii_lowercase, char::to_lowercase);
}

fn append_upper(out: &mut Vec<u8>, text: &[u8]) {
    append_mapped(out, text, <[u8]>::make_ascii_uppercase, char::to_uppercase);
}

fn append_mapped<I: Iterator<Item = char>>(
    out: &mut Vec<u8>,
    text: &[u8],
    ascii: impl Fn(&mut [u8]),
    map: impl Fn(char) -> I,
) {
    let begin = out.len();
    out.extend_from_slice(text);
    if text.is_ascii() {
        return ascii(&mut out[begin..]);
    }
    out.truncate(begin);
    let mut utf8 = [0; 4];
    for c in String::from_utf8_lossy(text).chars().flat_map(map) {
        out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
    }
}

/// `left || right`
///
/// # Errors
/// 54000 where a string is longer than any, or those of the batch are more than the budget has.
pub(super) fn concatenate(left: &Column, right: &Column, rows: usize, budget: &Budget) -> Result<Arc<Column>> {
    let data_type = left.data_type();
    if is_null_constant(left) || is_null_constant(right) {
        return Ok(all_null(data_type, rows));
    }
    let nulls = union(mask(left), mask(right));
    let constant = is_constant(left) && is_constant(right);
    let (left, right) = (strings(left)?, strings(right)?);
    let rows_made = if constant { 1 } else { rows };
    let mut bytes = 0;
    for i in (0..rows_made).filter(|&i| !marked(nulls.as_deref(), i)) {
        let len = left.get(i).len() + right.get(i).len();
        check_value(len)?;
        bytes += len;
    }
    budget.check(bytes)?;
    let mut out = Strings::with_capacity(rows_made, bytes);
    for i in 0..rows_made {
        out.push_with(|bytes| {
            if !marked(nulls.as_deref(), i) {
                bytes.extend_from_slice(left.get(i));
                bytes.extend_from_slice(right.get(i));
            }
        });
    }
    let values = if data_type == DataType::Blob { Values::Blob(out) } else { Values::Text(out) };
    Ok(finish(values, nulls, constant, rows))
}
