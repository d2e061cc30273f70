//! What rows of a column take in memory, by range: for whoever gathers rows up to a number of bytes. And what sets of
//! values, and those who take rows back, ask of a column.

use super::{Column, Strings, Values};
use crate::sql::value::Value;
use std::cmp::Ordering;

/// Bytes of a string's place among its neighbours.
const OFFSET_BYTES: usize = size_of::<u32>();

impl Column {
    /// The same values with no mark at any of them.
    #[must_use]
    pub fn without_nulls(self) -> Column {
        match self {
            Column::Vector { values, .. } => Column::new(values),
            constant @ Column::Constant { .. } => constant,
        }
    }

    /// Bytes that the rows `from..to` take as a vector, also where one value is repeated: what copying them will cost.
    pub fn bytes_between(&self, from: usize, to: usize) -> usize {
        let rows = to - from;
        match self {
            Column::Vector { values, nulls } => values.bytes_between(from, to) + if nulls.is_some() { rows } else { 0 },
            Column::Constant { value, .. } => rows * value.byte_len(),
        }
    }
}

impl Values {
    /// Takes back all values but the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        match self {
            Values::Bool(values) => values.truncate(len),
            Values::Int(values) | Values::Timestamp(values) => values.truncate(len),
            Values::Float(values) => values.truncate(len),
            Values::Text(values) | Values::Blob(values) => values.truncate(len),
        }
    }

    fn bytes_between(&self, from: usize, to: usize) -> usize {
        let rows = to - from;
        match self {
            Values::Bool(_) => rows,
            Values::Int(_) | Values::Float(_) | Values::Timestamp(_) => rows * size_of::<i64>(),
            Values::Text(strings) | Values::Blob(strings) => strings.bytes_between(from, to) + rows * OFFSET_BYTES,
        }
    }
}

impl Strings {
    /// True where strings that ascend hold this one.
    pub fn holds_ordered(&self, string: &[u8]) -> bool {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from.midpoint(to);
            match self.get(middle).cmp(string) {
                Ordering::Less => from = middle + 1,
                Ordering::Equal => return true,
                Ordering::Greater => to = middle,
            }
        }
        false
    }

    /// Bytes of the strings `from..to`.
    pub fn bytes_between(&self, from: usize, to: usize) -> usize {
        (self.offsets()[to] - self.offsets()[from]) as usize
    }
}

impl Value {
    /// Bytes that the value takes in a column.
    pub fn byte_len(&self) -> usize {
        match self {
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Timestamp(_) => size_of::<i64>(),
            Value::Text(text) => text.len() + OFFSET_BYTES,
            Value::Blob(bytes) => bytes.len() + OFFSET_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::value::DataType;

    #[test]
    fn a_repeated_value_counts_once_for_each_row() {
        let text: Strings = [b"ab".as_slice(), b"", b"cdef"].into_iter().collect();
        let column = Column::new(Values::Text(text));
        assert_eq!((column.bytes_between(0, 3), column.bytes_between(2, 3), column.bytes_between(1, 1)), (18, 8, 0));
        let constant = Column::constant(Value::Text("x".repeat(96)), DataType::Text, 1000);
        assert_eq!(constant.bytes_between(0, 1000), 100_000);
        assert!((100..200).contains(&constant.byte_len()), "it is held once: {}", constant.byte_len());
        assert_eq!(Column::constant(Value::Null, DataType::Int, 5).bytes_between(1, 3), 16);
    }
}
