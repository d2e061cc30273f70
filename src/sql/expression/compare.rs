//! `= <> < <= > >=`, `IS [NOT] DISTINCT FROM`, `IN`.
//!
//! The order is that of keys ([`Value::order`](crate::sql::value::Value::order)): NaN equals NaN and is above every
//! number, -0.0 equals 0.0, strings compare by bytes. Three loops a type are enough: `>` is `<` with its sides
//! exchanged, `<>` is the opposite of `=`.

use super::BinaryOperator;
use super::operand::{
    Side, StringSide, all_null, bools, finish, floats, ints, is_constant, is_null_constant, marked, mask, strings,
    union, zip, zip_strings,
};
use crate::error::{Error, Result};
use crate::sql::batch::{Column, Values};
use crate::sql::value::{DataType, Value};
use std::collections::HashSet;
use std::sync::Arc;

/// What is asked of a pair that is not NULL.
#[derive(Clone, Copy)]
enum Relation {
    Equal,
    Less,
    LessOrEqual,
}

/// Lists of this many constants are compared one by one, each in a loop over the rows; longer ones are hashed.
const SCANNED_LIST_MAX: usize = 8;

/// Compares each row of two columns of one type.
pub(super) fn binary(operator: BinaryOperator, left: &Column, right: &Column, rows: usize) -> Result<Arc<Column>> {
    let (relation, left, right, opposite) = match operator {
        BinaryOperator::Equal => (Relation::Equal, left, right, false),
        BinaryOperator::NotEqual => (Relation::Equal, left, right, true),
        BinaryOperator::Less => (Relation::Less, left, right, false),
        BinaryOperator::LessOrEqual => (Relation::LessOrEqual, left, right, false),
        BinaryOperator::Greater => (Relation::Less, right, left, false),
        BinaryOperator::GreaterOrEqual => (Relation::LessOrEqual, right, left, false),
        BinaryOperator::NotDistinct => return distinct(left, right, false, rows),
        BinaryOperator::Distinct => return distinct(left, right, true, rows),
        BinaryOperator::Add
        | BinaryOperator::Subtract
        | BinaryOperator::Multiply
        | BinaryOperator::Divide
        | BinaryOperator::Modulo
        | BinaryOperator::And
        | BinaryOperator::Or
        | BinaryOperator::Concatenate => return Err(Error::internal("not a comparison")),
    };
    if is_null_constant(left) || is_null_constant(right) {
        return Ok(all_null(DataType::Bool, rows));
    }
    let mut values = relate(relation, left, right)?;
    if opposite {
        invert(&mut values);
    }
    let nulls = union(mask(left), mask(right));
    Ok(finish(Values::Bool(values), nulls, is_constant(left) && is_constant(right), rows))
}

/// The relation of each pair, whatever is NULL; one pair where both sides are constant.
fn relate(relation: Relation, left: &Column, right: &Column) -> Result<Vec<bool>> {
    Ok(match left.data_type() {
        DataType::Bool => {
            let (left, right) = (bools(left)?, bools(right)?);
            match relation {
                Relation::Equal => zip(left, right, |a, b| a == b),
                Relation::Less => zip(left, right, |a, b| !a & b),
                Relation::LessOrEqual => zip(left, right, |a, b| !a | b),
            }
        }
        DataType::Int | DataType::Timestamp => {
            let (left, right) = (ints(left)?, ints(right)?);
            match relation {
                Relation::Equal => zip(left, right, |a, b| a == b),
                Relation::Less => zip(left, right, |a, b| a < b),
                Relation::LessOrEqual => zip(left, right, |a, b| a <= b),
            }
        }
        DataType::Float => {
            let (left, right) = (floats(left)?, floats(right)?);
            match relation {
                Relation::Equal => zip(left, right, equal_floats),
                Relation::Less => zip(left, right, |a, b| (a < b) | (!a.is_nan() & b.is_nan())),
                Relation::LessOrEqual => zip(left, right, |a, b| (a <= b) | b.is_nan()),
            }
        }
        DataType::Text | DataType::Blob => {
            let (left, right) = (strings(left)?, strings(right)?);
            match relation {
                Relation::Equal => zip_strings(left, right, |a, b| a == b),
                Relation::Less => zip_strings(left, right, |a, b| a < b),
                Relation::LessOrEqual => zip_strings(left, right, |a, b| a <= b),
            }
        }
    })
}

#[expect(clippy::float_cmp, reason = "SQL's equality of floats is exact")]
fn equal_floats(a: f64, b: f64) -> bool {
    (a == b) | (a.is_nan() & b.is_nan())
}

/// `IS [NOT] DISTINCT FROM`: NULL is a value, equal to itself. Never NULL.
fn distinct(left: &Column, right: &Column, distinct: bool, rows: usize) -> Result<Arc<Column>> {
    let constant = is_constant(left) && is_constant(right);
    let mut values = relate(Relation::Equal, left, right)?;
    if is_null_constant(left) || is_null_constant(right) || mask(left).is_some() || mask(right).is_some() {
        for (i, value) in values.iter_mut().enumerate() {
            *value = match (left.is_null(i), right.is_null(i)) {
                (false, false) => *value,
                (a, b) => a == b,
            };
        }
    }
    if distinct {
        invert(&mut values);
    }
    Ok(finish(Values::Bool(values), None, constant, rows))
}

/// `x IN (a, b, …)`: true where something equals, else NULL where x or something in the list is NULL, else false.
pub(super) fn in_list(input: &Column, list: &[Arc<Column>], negated: bool, rows: usize) -> Result<Arc<Column>> {
    if is_null_constant(input) {
        return Ok(all_null(DataType::Bool, rows));
    }
    let (constants, columns): (Vec<&Arc<Column>>, Vec<&Arc<Column>>) =
        list.iter().filter(|item| !is_null_constant(item)).partition(|item| is_constant(item));
    let constant = is_constant(input) && columns.is_empty();
    let visited = if constant { 1 } else { rows };
    let mut found = vec![false; visited];
    if constants.len() > SCANNED_LIST_MAX {
        found = look_up(input, &constants)?;
        if found.len() < visited {
            found = vec![found[0]; visited];
        }
    } else {
        for item in constants {
            let equal = relate(Relation::Equal, input, item)?;
            // A constant input beside columns in the list gives one answer for all rows.
            let all = Side::Many(&equal[..]);
            found.iter_mut().enumerate().for_each(|(i, found)| *found |= all.get(if equal.len() == 1 { 0 } else { i }));
        }
    }
    let some_null = list.iter().any(|item| is_null_constant(item));
    let mut unknown = some_null.then(|| vec![true; visited]);
    for item in columns {
        let equal = relate(Relation::Equal, input, item)?;
        let nulls = mask(item);
        for (i, equal) in equal.into_iter().enumerate() {
            found[i] |= equal && !marked(nulls, i);
        }
        if let Some(nulls) = nulls {
            let unknown = unknown.get_or_insert_with(|| vec![false; visited]);
            unknown.iter_mut().zip(nulls).for_each(|(unknown, &null)| *unknown |= null);
        }
    }
    let mut nulls =
        unknown.map(|unknown| unknown.iter().zip(&found).map(|(&unknown, &found)| unknown && !found).collect());
    if let Some(own) = mask(input) {
        nulls = union(nulls.as_deref(), Some(own));
    }
    if negated {
        invert(&mut found);
    }
    if constant && marked(nulls.as_deref(), 0) {
        return Ok(all_null(DataType::Bool, rows));
    }
    Ok(finish(Values::Bool(found), nulls, constant, rows))
}

fn invert(values: &mut [bool]) {
    for value in values {
        *value = !*value;
    }
}

/// Whether each row's value is one of many constants; one answer for a constant input.
fn look_up(input: &Column, list: &[&Arc<Column>]) -> Result<Vec<bool>> {
    let words = || -> HashSet<u64> { list.iter().filter_map(|item| word(&item.value(0))).collect() };
    Ok(match input.data_type() {
        DataType::Bool => {
            let set = words();
            zip(bools(input)?, Side::One(false), |value, _| set.contains(&u64::from(value)))
        }
        DataType::Int | DataType::Timestamp => {
            let set = words();
            zip(ints(input)?, Side::One(0), |value, _| set.contains(&(value as u64)))
        }
        DataType::Float => {
            let set = words();
            zip(floats(input)?, Side::One(0.0), |value, _| set.contains(&float_word(value)))
        }
        DataType::Text | DataType::Blob => {
            let sides = list.iter().map(|item| strings(item)).collect::<Result<Vec<StringSide<'_>>>>()?;
            let set: HashSet<&[u8]> = sides.iter().map(|side| side.get(0)).collect();
            let input = strings(input)?;
            (0..input.len()).map(|i| set.contains(input.get(i))).collect()
        }
    })
}

/// A word that is equal for equal values of one type.
fn word(value: &Value) -> Option<u64> {
    match value {
        Value::Bool(value) => Some(u64::from(*value)),
        Value::Int(value) | Value::Timestamp(value) => Some(*value as u64),
        Value::Float(value) => Some(float_word(*value)),
        Value::Null | Value::Text(_) | Value::Blob(_) => None,
    }
}

/// One word for all NaN, one for both zeros.
fn float_word(value: f64) -> u64 {
    if value.is_nan() { u64::MAX } else { (value + 0.0).to_bits() }
}
