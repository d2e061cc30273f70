//! The constants of a long IN list, put in order once: what each row is looked up in.
//!
//! A list of constants is an expression an item, hashed anew for each batch: 500,000 items took hundreds of bytes each,
//! and a table of 200 batches 25 s. In order they take what their column takes, and a look-up some twenty comparisons.
//!
//! * Values ascend in the order of keys, each once, none of them NULL.
//! * A set from a long list is counted as memory of its query for as long as it lives.

use super::operand::{StringSide, bools, finish, floats, ints, is_constant, is_null_constant, mask, strings};
use crate::error::Result;
use crate::sql::batch::{Column, Strings, Values};
use crate::sql::memory::Counted;
use crate::sql::value::{DataType, Value, order_floats};
use std::sync::Arc;

/// Values of one type, in order.
#[derive(Debug, PartialEq)]
pub struct ValueSet {
    column: Column,
    /// What they take.
    counted: Counted,
}

impl ValueSet {
    /// The values of a column; NULLs are not among them. What is `counted` is at least the column, and what is not
    /// needed of it is given back.
    pub fn of(column: Column, mut counted: Counted) -> ValueSet {
        let Column::Vector { values, nulls: None } = column else {
            let rows: Vec<u32> = (0..column.len() as u32).filter(|&row| !column.is_null(row as usize)).collect();
            return ValueSet::of(column.gather(&rows).expand().without_nulls(), counted);
        };
        let values = match values {
            Values::Bool(mut values) => {
                values.sort_unstable();
                values.dedup();
                values.shrink_to_fit();
                Values::Bool(values)
            }
            Values::Int(values) => Values::Int(ordered(values)),
            Values::Timestamp(values) => Values::Timestamp(ordered(values)),
            Values::Float(mut values) => {
                values.sort_unstable_by(|a, b| order_floats(*a, *b));
                values.dedup_by(|a, b| order_floats(*a, *b).is_eq());
                values.shrink_to_fit();
                Values::Float(values)
            }
            Values::Text(strings) => Values::Text(ordered_strings(&strings)),
            Values::Blob(strings) => Values::Blob(ordered_strings(&strings)),
        };
        counted.shrink_to(values.byte_len());
        ValueSet { column: Column::new(values), counted }
    }

    /// The set of these texts, for which [`ValueSet::strings_bytes`] are `counted`.
    pub fn of_texts(strings: &Strings, mut counted: Counted) -> ValueSet {
        let values = Values::Text(ordered_strings(strings));
        counted.shrink_to(values.byte_len());
        ValueSet { column: Column::new(values), counted }
    }

    /// Bytes that strings take at most while they are put in order: their own, where they begin, and their order.
    pub fn strings_bytes(strings: &Strings) -> usize {
        strings.byte_len() + (2 * strings.len() + 1) * size_of::<u32>()
    }

    /// Where it is counted.
    pub fn counted(&self) -> &Counted {
        &self.counted
    }

    /// How many values.
    pub fn len(&self) -> usize {
        self.column.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.column.is_empty()
    }

    /// Their type.
    pub fn data_type(&self) -> DataType {
        self.column.data_type()
    }

    /// The `i`-th least.
    pub fn value(&self, i: usize) -> Value {
        self.column.value(i)
    }

    /// Whether each row's value is one of them; NULL where it is NULL.
    pub(super) fn look_up(&self, input: &Column, negated: bool, rows: usize) -> Result<Arc<Column>> {
        if is_null_constant(input) {
            return Ok(super::operand::all_null(DataType::Bool, rows));
        }
        let Column::Vector { values, .. } = &self.column else { unreachable!("a set is built as a vector") };
        let found = match values {
            Values::Bool(values) => each(bools(input)?, |value| values.contains(&value)),
            Values::Int(values) | Values::Timestamp(values) => {
                each(ints(input)?, |value| values.binary_search(&value).is_ok())
            }
            Values::Float(values) => {
                each(floats(input)?, |value| values.binary_search_by(|other| order_floats(*other, value)).is_ok())
            }
            Values::Text(values) | Values::Blob(values) => {
                let input: StringSide<'_> = strings(input)?;
                (0..input.len()).map(|row| values.holds_ordered(input.get(row))).collect()
            }
        };
        let found = found.into_iter().map(|found: bool| found != negated).collect();
        Ok(finish(Values::Bool(found), mask(input).map(<[bool]>::to_vec), is_constant(input), rows))
    }
}

fn each<T: Copy>(side: super::operand::Side<'_, T>, found: impl Fn(T) -> bool) -> Vec<bool> {
    match side {
        super::operand::Side::One(value) => vec![found(value)],
        super::operand::Side::Many(values) => values.iter().map(|&value| found(value)).collect(),
    }
}

fn ordered(mut values: Vec<i64>) -> Vec<i64> {
    values.sort_unstable();
    values.dedup();
    values.shrink_to_fit();
    values
}

fn ordered_strings(strings: &Strings) -> Strings {
    let mut rows: Vec<u32> = (0..strings.len() as u32).collect();
    rows.sort_unstable_by(|a, b| strings.get(*a as usize).cmp(strings.get(*b as usize)));
    rows.dedup_by(|a, b| strings.get(*a as usize) == strings.get(*b as usize));
    let bytes = rows.iter().map(|&row| strings.get(row as usize).len()).sum();
    let mut ordered = Strings::with_capacity(rows.len(), bytes);
    rows.iter().for_each(|&row| ordered.push(strings.get(row as usize)));
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::batch::ColumnBuilder;

    fn column(data_type: DataType, values: &[Value]) -> Column {
        let mut builder = ColumnBuilder::new(data_type, values.len());
        values.iter().for_each(|value| builder.push(value));
        builder.finish()
    }

    fn found(set: &ValueSet, input: &Column, negated: bool) -> Vec<Value> {
        let column = set.look_up(input, negated, input.len()).unwrap();
        (0..input.len()).map(|row| column.value(row)).collect()
    }

    #[test]
    fn a_set_holds_each_value_once_in_the_order_of_keys() {
        let values = [2.0, f64::NAN, -0.0, 1.5, 0.0, f64::NAN].map(Value::Float);
        let set = ValueSet::of(column(DataType::Float, &values), Counted::default());
        assert_eq!(set.len(), 4);
        let input =
            column(DataType::Float, &[Value::Float(0.0), Value::Float(f64::NAN), Value::Null, Value::Float(3.0)]);
        let (yes, no) = (Value::Bool(true), Value::Bool(false));
        assert_eq!(found(&set, &input, false), [yes.clone(), yes.clone(), Value::Null, no.clone()]);
        assert_eq!(found(&set, &input, true), [no.clone(), no.clone(), Value::Null, yes.clone()]);
        let texts = ["b", "a", "b", ""].map(|text| Value::Text(text.into()));
        let set = ValueSet::of(column(DataType::Text, &texts), Counted::default());
        assert_eq!((set.len(), set.value(0), set.value(2)), (3, Value::Text(String::new()), Value::Text("b".into())));
        let constant = Column::constant(Value::Text("a".into()), DataType::Text, 2);
        assert_eq!(found(&set, &constant, false), [yes.clone(), yes]);
    }

    #[test]
    fn nulls_are_no_values_of_a_set() {
        let set = ValueSet::of(column(DataType::Int, &[Value::Int(3), Value::Null, Value::Int(1)]), Counted::default());
        assert_eq!((set.len(), set.value(0), set.value(1)), (2, Value::Int(1), Value::Int(3)));
    }
}
