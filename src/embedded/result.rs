//! Results as a program takes them: rows of values, with typed access.

use crate::error::SqlState;
use crate::sql::bind::OutputColumn;
use crate::sql::execute::RowStream;
use crate::sql::value::Value;
use crate::{Error, Result};
use std::sync::Arc;

/// The whole answer of a statement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResultSet {
    /// Names and types of the columns; none where the statement does not answer rows.
    pub columns: Vec<OutputColumn>,
    /// The rows, values in column order.
    pub rows: Vec<Vec<Value>>,
    /// Rows that the statement wrote.
    pub affected: u64,
}

/// One row with the names of its columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    columns: Arc<Vec<OutputColumn>>,
    values: Vec<Value>,
}

impl Row {
    /// The values in column order.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The value of a column, as a type of Rust's: `row.get::<Option<f64>>("temperature")`.
    pub fn get<T: FromValue>(&self, column: &str) -> Result<T> {
        let at = self.columns.iter().position(|known| known.name == column).ok_or_else(|| {
            Error::invalid(SqlState::UNDEFINED_COLUMN, format!("the result has no column \"{column}\""))
        })?;
        T::from_value(&self.values[at]).ok_or_else(|| {
            Error::invalid(SqlState::DATATYPE_MISMATCH, format!("column \"{column}\" holds {}", self.values[at]))
        })
    }
}

/// A type that a value can be taken as.
pub trait FromValue: Sized {
    /// The value, or none where it is of another type.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($type:ty: $pattern:pat => $value:expr;)*) => {$(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                if let $pattern = value { Some($value) } else { None }
            }
        }
    )*};
}

from_value! {
    bool: Value::Bool(value) => *value;
    i64: Value::Int(value) | Value::Timestamp(value) => *value;
    f64: Value::Float(value) => *value;
    String: Value::Text(value) => value.clone();
    Vec<u8>: Value::Blob(value) => value.clone();
}

impl FromValue for Value {
    fn from_value(value: &Value) -> Option<Value> {
        Some(value.clone())
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Option<T>> {
        if value.is_null() { Some(None) } else { T::from_value(value).map(Some) }
    }
}

/// Rows of a query, read as they are asked for: a large result takes the memory of one batch.
pub struct Rows {
    columns: Arc<Vec<OutputColumn>>,
    stream: RowStream,
    batch: Vec<Vec<Value>>,
}

impl Rows {
    pub(super) fn new(stream: RowStream) -> Rows {
        Rows { columns: Arc::new(stream.columns.clone()), stream, batch: Vec::new() }
    }

    /// Names and types of the columns.
    pub fn columns(&self) -> &[OutputColumn] {
        &self.columns
    }
}

impl Iterator for Rows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        while self.batch.is_empty() {
            match self.stream.next_batch() {
                Ok(Some(batch)) => self.batch = (0..batch.rows).rev().map(|row| batch.row(row)).collect(),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
        self.batch.pop().map(|values| Ok(Row { columns: self.columns.clone(), values }))
    }
}
