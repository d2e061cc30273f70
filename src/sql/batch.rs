//! Column batches: what storage decodes, what operators work on.
//!
//! A [`Column`] is a typed vector with an optional null mask, or one value repeated; a [`Batch`] is columns of one
//! length. Columns are shared (`Arc`), so a scan hands out what the block cache holds without a copy.
//!
//! * A null mask is absent where nothing is null, and as long as the column where present.
//! * The payload at a null position is the type's zero and is never looked at.
//! * A constant column keeps its type even where its value is NULL.

mod size;
mod strings;

use crate::sql::value::{DataType, Value};
use std::sync::Arc;

pub use strings::Strings;

/// Rows a batch holds at most. A block of storage passes through whole, and 4,096 numbers are one 32 KiB L1 cache.
pub const BATCH_ROWS_MAX: usize = 4096;

/// The typed payload of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// BOOL
    Bool(Vec<bool>),
    /// INT
    Int(Vec<i64>),
    /// FLOAT
    Float(Vec<f64>),
    /// TEXT; each string is UTF-8
    Text(Strings),
    /// BLOB
    Blob(Strings),
    /// TIMESTAMP
    Timestamp(Vec<i64>),
}

impl Values {
    /// An empty payload of a type, with room for `capacity` values.
    pub fn with_capacity(data_type: DataType, capacity: usize) -> Values {
        match data_type {
            DataType::Bool => Values::Bool(Vec::with_capacity(capacity)),
            DataType::Int => Values::Int(Vec::with_capacity(capacity)),
            DataType::Float => Values::Float(Vec::with_capacity(capacity)),
            DataType::Text => Values::Text(Strings::default()),
            DataType::Blob => Values::Blob(Strings::default()),
            DataType::Timestamp => Values::Timestamp(Vec::with_capacity(capacity)),
        }
    }

    /// The type.
    pub fn data_type(&self) -> DataType {
        match self {
            Values::Bool(_) => DataType::Bool,
            Values::Int(_) => DataType::Int,
            Values::Float(_) => DataType::Float,
            Values::Text(_) => DataType::Text,
            Values::Blob(_) => DataType::Blob,
            Values::Timestamp(_) => DataType::Timestamp,
        }
    }

    /// How many values.
    pub fn len(&self) -> usize {
        match self {
            Values::Bool(values) => values.len(),
            Values::Int(values) | Values::Timestamp(values) => values.len(),
            Values::Float(values) => values.len(),
            Values::Text(values) | Values::Blob(values) => values.len(),
        }
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Value `i`.
    pub fn get(&self, i: usize) -> Value {
        match self {
            Values::Bool(values) => Value::Bool(values[i]),
            Values::Int(values) => Value::Int(values[i]),
            Values::Float(values) => Value::Float(values[i]),
            Values::Text(values) => Value::Text(String::from_utf8_lossy(values.get(i)).into_owned()),
            Values::Blob(values) => Value::Blob(values.get(i).to_vec()),
            Values::Timestamp(values) => Value::Timestamp(values[i]),
        }
    }

    /// Adds the type's zero: what stands at a null position.
    pub fn push_zero(&mut self) {
        match self {
            Values::Bool(values) => values.push(false),
            Values::Int(values) | Values::Timestamp(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Text(values) | Values::Blob(values) => values.push(b""),
        }
    }

    /// Bytes held in memory.
    pub fn byte_len(&self) -> usize {
        match self {
            Values::Bool(values) => values.len(),
            Values::Int(values) | Values::Timestamp(values) => values.len() * 8,
            Values::Float(values) => values.len() * 8,
            Values::Text(values) | Values::Blob(values) => values.byte_len() + (values.len() + 1) * 4,
        }
    }
}

/// One column of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// A value for each row.
    Vector {
        /// The payload.
        values: Values,
        /// `nulls[i]` says that row `i` is NULL; absent where none is.
        nulls: Option<Vec<bool>>,
    },
    /// One value for all rows.
    Constant {
        /// The value, of type `data_type` or NULL.
        value: Value,
        /// The type, also of a NULL.
        data_type: DataType,
        /// How many rows.
        rows: usize,
    },
}

impl Column {
    /// A column without nulls.
    pub fn new(values: Values) -> Column {
        Column::Vector { values, nulls: None }
    }

    /// A column with a null mask; a mask that marks nothing is dropped.
    pub fn with_nulls(values: Values, nulls: Vec<bool>) -> Column {
        assert!(nulls.len() == values.len(), "a null mask is as long as its column");
        let any = nulls.contains(&true);
        Column::Vector { values, nulls: any.then_some(nulls) }
    }

    /// One value repeated.
    pub fn constant(value: Value, data_type: DataType, rows: usize) -> Column {
        Column::Constant { value, data_type, rows }
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        match self {
            Column::Vector { values, .. } => values.len(),
            Column::Constant { rows, .. } => *rows,
        }
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type.
    pub fn data_type(&self) -> DataType {
        match self {
            Column::Vector { values, .. } => values.data_type(),
            Column::Constant { data_type, .. } => *data_type,
        }
    }

    /// True where row `i` is NULL.
    pub fn is_null(&self, i: usize) -> bool {
        match self {
            Column::Vector { nulls, .. } => nulls.as_ref().is_some_and(|nulls| nulls[i]),
            Column::Constant { value, .. } => value.is_null(),
        }
    }

    /// The value of row `i`. For output and single rows; loops over whole columns match on the payload instead.
    pub fn value(&self, i: usize) -> Value {
        match self {
            Column::Vector { values, nulls } if nulls.as_ref().is_none_or(|nulls| !nulls[i]) => values.get(i),
            Column::Vector { .. } => Value::Null,
            Column::Constant { value, .. } => value.clone(),
        }
    }

    /// The same rows as a vector, also where one value is repeated.
    #[must_use]
    pub fn expand(&self) -> Column {
        match self {
            Column::Vector { .. } => self.clone(),
            Column::Constant { value, data_type, rows } => {
                let mut builder = ColumnBuilder::new(*data_type, *rows);
                (0..*rows).for_each(|_| builder.push(value));
                builder.finish()
            }
        }
    }

    /// Bytes held in memory.
    pub fn byte_len(&self) -> usize {
        match self {
            Column::Vector { values, nulls } => values.byte_len() + nulls.as_ref().map_or(0, Vec::len),
            Column::Constant { value, .. } => size_of::<Column>() + value.byte_len(),
        }
    }

    /// The rows named, in that order; a row may be named more than once.
    #[must_use]
    pub fn gather(&self, rows: &[u32]) -> Column {
        fn pick<T: Copy>(from: &[T], rows: &[u32]) -> Vec<T> {
            rows.iter().map(|&row| from[row as usize]).collect()
        }
        fn pick_strings(from: &Strings, rows: &[u32]) -> Strings {
            rows.iter().map(|&row| from.get(row as usize)).collect()
        }
        match self {
            Column::Constant { value, data_type, .. } => Column::constant(value.clone(), *data_type, rows.len()),
            Column::Vector { values, nulls } => {
                let values = match values {
                    Values::Bool(values) => Values::Bool(pick(values, rows)),
                    Values::Int(values) => Values::Int(pick(values, rows)),
                    Values::Float(values) => Values::Float(pick(values, rows)),
                    Values::Text(values) => Values::Text(pick_strings(values, rows)),
                    Values::Blob(values) => Values::Blob(pick_strings(values, rows)),
                    Values::Timestamp(values) => Values::Timestamp(pick(values, rows)),
                };
                match nulls {
                    Some(nulls) => Column::with_nulls(values, pick(nulls, rows)),
                    None => Column::new(values),
                }
            }
        }
    }

    /// The rows `from..to`.
    #[must_use]
    pub fn slice(&self, from: usize, to: usize) -> Column {
        if let Column::Constant { value, data_type, .. } = self {
            return Column::constant(value.clone(), *data_type, to - from);
        }
        let mut part = ColumnBuilder::new(self.data_type(), to - from);
        part.extend(self, from, to);
        part.finish()
    }
}

/// Builds a column value by value or run by run.
#[derive(Clone, Debug)]
pub struct ColumnBuilder {
    values: Values,
    nulls: Option<Vec<bool>>,
}

impl ColumnBuilder {
    /// A builder of a type, with room for `capacity` values.
    pub fn new(data_type: DataType, capacity: usize) -> ColumnBuilder {
        ColumnBuilder { values: Values::with_capacity(data_type, capacity), nulls: None }
    }

    /// How many rows so far.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// True before the first row.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The payload so far, for loops that push many values of one type; nulls are not touched by such pushes once
    /// [`ColumnBuilder::finish`] pads the mask.
    pub fn values_mut(&mut self) -> &mut Values {
        &mut self.values
    }

    /// Adds a NULL.
    pub fn push_null(&mut self) {
        let len = self.values.len();
        let nulls = self.nulls.get_or_insert_default();
        nulls.resize(len, false);
        nulls.push(true);
        self.values.push_zero();
    }

    /// Adds a value, which is of the column's type or NULL.
    pub fn push(&mut self, value: &Value) {
        match (&mut self.values, value) {
            (_, Value::Null) => return self.push_null(),
            (Values::Bool(values), Value::Bool(value)) => values.push(*value),
            (Values::Int(values), Value::Int(value)) | (Values::Timestamp(values), Value::Timestamp(value)) => {
                values.push(*value);
            }
            (Values::Float(values), Value::Float(value)) => values.push(*value),
            (Values::Text(values), Value::Text(value)) => values.push(value.as_bytes()),
            (Values::Blob(values), Value::Blob(value)) => values.push(value),
            (values, value) => panic!("a {} column was given {value:?}", values.data_type()),
        }
        if let Some(nulls) = &mut self.nulls {
            nulls.resize(self.values.len(), false);
        }
    }

    /// Takes back all rows but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        if let Some(nulls) = &mut self.nulls {
            nulls.truncate(len);
        }
        self.nulls.take_if(|nulls| !nulls.contains(&true));
    }

    /// Adds the rows `from..to` of a column of the same type.
    pub fn extend(&mut self, column: &Column, from: usize, to: usize) {
        fn strings(into: &mut Strings, column: &Strings, from: usize, to: usize) {
            (from..to).for_each(|i| into.push(column.get(i)));
        }
        match column {
            Column::Constant { value, .. } => (from..to).for_each(|_| self.push(value)),
            Column::Vector { values, nulls } => {
                if nulls.is_some() || self.nulls.is_some() {
                    let len = self.values.len();
                    let mask = self.nulls.get_or_insert_default();
                    mask.resize(len, false);
                    match nulls {
                        Some(nulls) => mask.extend_from_slice(&nulls[from..to]),
                        None => mask.resize(len + to - from, false),
                    }
                }
                match (&mut self.values, values) {
                    (Values::Bool(into), Values::Bool(values)) => into.extend_from_slice(&values[from..to]),
                    (Values::Int(into), Values::Int(values)) | (Values::Timestamp(into), Values::Timestamp(values)) => {
                        into.extend_from_slice(&values[from..to]);
                    }
                    (Values::Float(into), Values::Float(values)) => into.extend_from_slice(&values[from..to]),
                    (Values::Text(into), Values::Text(values)) | (Values::Blob(into), Values::Blob(values)) => {
                        strings(into, values, from, to);
                    }
                    (into, values) => {
                        panic!("a {} column was given {} values", into.data_type(), values.data_type())
                    }
                }
            }
        }
    }

    /// The column.
    pub fn finish(mut self) -> Column {
        match self.nulls.take() {
            Some(mut nulls) => {
                nulls.resize(self.values.len(), false);
                Column::with_nulls(self.values, nulls)
            }
            None => Column::new(self.values),
        }
    }
}

/// Columns of one length.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Batch {
    /// The columns; may be none, where only the number of rows matters (`COUNT(*)`).
    pub columns: Vec<Arc<Column>>,
    /// How many rows.
    pub rows: usize,
}

impl Batch {
    /// A batch of at least one column.
    pub fn new(columns: Vec<Arc<Column>>, rows: usize) -> Batch {
        assert!(columns.iter().all(|column| column.len() == rows), "the columns of a batch have one length");
        Batch { columns, rows }
    }

    /// The values of row `i`.
    pub fn row(&self, i: usize) -> Vec<Value> {
        self.columns.iter().map(|column| column.value(i)).collect()
    }

    /// The rows `from..to`.
    #[must_use]
    pub fn slice(&self, from: usize, to: usize) -> Batch {
        let columns = self.columns.iter().map(|column| Arc::new(column.slice(from, to))).collect();
        Batch { columns, rows: to - from }
    }

    /// The rows named, in that order.
    #[must_use]
    pub fn gather(&self, rows: &[u32]) -> Batch {
        Batch { columns: self.columns.iter().map(|column| Arc::new(column.gather(rows))).collect(), rows: rows.len() }
    }
}
