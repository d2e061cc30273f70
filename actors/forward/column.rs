//! A column of the leader's answer, built as its values come.
//!
//! One value that stands for all rows does not travel as one. Here it becomes one again: an answer that the leader holds as
//! a few values is no larger on this node, where it has the same room.

use chronos::sql::batch::{Column, ColumnBuilder};
use chronos::sql::value::{DataType, Value};

/// A column as far as it has come.
pub(super) struct Incoming {
    data_type: DataType,
    first: Value,
    rows: usize,
    /// None while all are as the first.
    values: Option<ColumnBuilder>,
}

impl Incoming {
    /// A column of which nothing is here, of as many rows as a batch has.
    pub(super) fn new(data_type: DataType) -> Incoming {
        Incoming { data_type, first: Value::Null, rows: 0, values: None }
    }

    /// Adds a value, which is of the column's type or NULL.
    pub(super) fn push(&mut self, value: Value) {
        match &mut self.values {
            Some(values) => values.push(&value),
            None if self.rows == 0 => self.first = value,
            None if is_same(&self.first, &value) => {}
            None => {
                let mut values = ColumnBuilder::new(self.data_type, self.rows + 1);
                (0..self.rows).for_each(|_| values.push(&self.first));
                values.push(&value);
                self.values = Some(values);
            }
        }
        self.rows += 1;
    }

    /// The column, with one value for all rows where that takes less.
    pub(super) fn finish(self) -> Column {
        if let Some(values) = self.values {
            return values.finish();
        }
        let constant = Column::constant(self.first, self.data_type, self.rows);
        if constant.byte_len() < constant.bytes_between(0, self.rows) { constant } else { constant.expand() }
    }
}

/// True where one is sent as the other: zeros of both signs are equal and are not the same.
fn is_same(first: &Value, value: &Value) -> bool {
    match (first, value) {
        (Value::Float(first), Value::Float(value)) => first.to_bits() == value.to_bits(),
        (first, value) => first == value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos::sql::batch::BATCH_ROWS_MAX;

    fn column(data_type: DataType, values: Vec<Value>) -> Column {
        let mut column = Incoming::new(data_type);
        values.into_iter().for_each(|value| column.push(value));
        column.finish()
    }

    #[test]
    fn one_value_for_all_rows_is_one_value_again() {
        let text = Value::Text("the same".into());
        let same = column(DataType::Text, vec![text.clone(); BATCH_ROWS_MAX]);
        assert_eq!(same, Column::constant(text, DataType::Text, BATCH_ROWS_MAX));
        let nulls = column(DataType::Int, vec![Value::Null; 300]);
        assert_eq!(nulls, Column::constant(Value::Null, DataType::Int, 300));
        // A few take less than what says that they are the same.
        assert!(matches!(column(DataType::Int, vec![Value::Int(7); 2]), Column::Vector { .. }));
    }

    #[test]
    fn values_that_differ_stay_as_they_are() {
        for (data_type, one, other) in [
            (DataType::Int, Value::Int(1), Value::Null),
            (DataType::Int, Value::Null, Value::Int(0)),
            (DataType::Float, Value::Float(0.0), Value::Float(-0.0)),
            (DataType::Text, Value::Text(String::new()), Value::Null),
        ] {
            for at in [0, 299] {
                let mut values = vec![one.clone(); 300];
                values[at] = other.clone();
                let column = column(data_type, values.clone());
                assert!(matches!(column, Column::Vector { .. }));
                let sent = |value: &Value| format!("{value:?}");
                let read: Vec<String> = (0..300).map(|row| sent(&column.value(row))).collect();
                assert_eq!(read, values.iter().map(sent).collect::<Vec<_>>());
            }
        }
    }
}
