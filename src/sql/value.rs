//! What a column may hold: types, single values and the order between them.
//!
//! * Every type has one in-memory form: the INT family is `i64`, the FLOAT family `f64`, TIMESTAMP microseconds since
//!   1970-01-01 as `i64`. Widths that a user declared are checked at the door, not carried along.
//! * [`Value::order`] is the order of keys, of ORDER BY and of MIN/MAX: NULL last, -0.0 equal to 0.0, NaN above all.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// The type of a column or of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DataType {
    /// `BOOL`
    Bool,
    /// `SMALLINT`, `INT`, `BIGINT`: 64 bits, overflow is an error
    Int,
    /// `FLOAT`, `REAL`, `DOUBLE PRECISION`: IEEE 754 binary64
    Float,
    /// `TEXT`, `STRING`, `VARCHAR`, `CHAR`: UTF-8, compared by bytes
    Text,
    /// `BLOB`, `BYTEA`
    Blob,
    /// `TIMESTAMP`: microseconds since 1970-01-01 00:00:00
    Timestamp,
}

impl DataType {
    /// Every type.
    pub const ALL: [DataType; 6] =
        [DataType::Bool, DataType::Int, DataType::Float, DataType::Text, DataType::Blob, DataType::Timestamp];

    /// Reads a type as it is displayed.
    pub fn parse(name: &str) -> Option<DataType> {
        DataType::ALL.into_iter().find(|data_type| data_type.to_string() == name)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DataType::Bool => "BOOL",
            DataType::Int => "INT",
            DataType::Float => "FLOAT",
            DataType::Text => "TEXT",
            DataType::Blob => "BLOB",
            DataType::Timestamp => "TIMESTAMP",
        })
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// No value.
    Null,
    /// `TRUE`, `FALSE`
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A string.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
    /// Microseconds since 1970-01-01 00:00:00.
    Timestamp(i64),
}

impl Value {
    /// The type, or none for NULL.
    pub fn data_type(&self) -> Option<DataType> {
        match self {
            Value::Null => None,
            Value::Bool(_) => Some(DataType::Bool),
            Value::Int(_) => Some(DataType::Int),
            Value::Float(_) => Some(DataType::Float),
            Value::Text(_) => Some(DataType::Text),
            Value::Blob(_) => Some(DataType::Blob),
            Value::Timestamp(_) => Some(DataType::Timestamp),
        }
    }

    /// True for NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The order of keys, NULL last. Values of different types (which the binder never lets meet) order by type.
    pub fn order(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) | (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
            (Value::Float(a), Value::Float(b)) => order_floats(*a, *b),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Blob(a), Value::Blob(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Value::Bool(_) => 0,
            Value::Int(_) => 1,
            Value::Float(_) => 2,
            Value::Text(_) => 3,
            Value::Blob(_) => 4,
            Value::Timestamp(_) => 5,
            Value::Null => 6,
        }
    }
}

/// The total order of FLOAT: -0.0 equals 0.0, and NaN equals NaN and is above everything, as in PostgreSQL.
pub fn order_floats(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        (a_is_nan, b_is_nan) => a_is_nan.cmp(&b_is_nan),
    }
}
