//! The wire types, and the only place where they meet ours.
//!
//! The wire has five kinds of value. TIMESTAMP and BLOB travel as text in the form that SQL reads back
//! (`2023-11-14 22:13:20.5`, `\x00ff`); the column's type travels beside it.

pub mod message;
pub mod reading;

use crate::actors::messages::{Output, OutputColumn};
use chronos::error::Error;
use chronos::sql::batch::{Batch, Column, Strings, Values};

pub use prost::Message;

/// Generated from `proto/raft.proto`.
pub mod wire {
    #![expect(
        clippy::pedantic,
        clippy::enum_variant_names,
        clippy::allow_attributes,
        reason = "generated; the proto is where it is documented"
    )]
    tonic::include_proto!("raft");
}

/// The compiled proto, which reflection serves.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/raft.bin"));

/// A whole result as one message.
pub fn response(output: &Output) -> wire::SqlResponse {
    let mut response = wire::SqlResponse { affected: output.affected, ..header(&output.columns) };
    response.rows.reserve(output.batches.iter().map(|batch| batch.rows).sum());
    for batch in &output.batches {
        append(&mut response.rows, batch);
    }
    response
}

/// The columns of a result, without rows.
pub fn header(columns: &[OutputColumn]) -> wire::SqlResponse {
    wire::SqlResponse {
        success: true,
        columns: columns.iter().map(|column| column.name.clone()).collect(),
        types: columns.iter().map(|column| column.data_type.to_string()).collect(),
        ..wire::SqlResponse::default()
    }
}

/// A statement that failed in SQL.
pub fn failure(error: &Error) -> wire::SqlResponse {
    wire::SqlResponse {
        success: false,
        error: error.to_string(),
        sqlstate: error.sqlstate().as_str().to_string(),
        position: error.position().unwrap_or(0),
        ..wire::SqlResponse::default()
    }
}

/// Rows of a batch, column by column: each column is looked at once for its type, not once a row.
fn append(rows: &mut Vec<wire::Row>, batch: &Batch) {
    let first = rows.len();
    rows.extend((0..batch.rows).map(|_| wire::Row { values: Vec::with_capacity(batch.columns.len()) }));
    for column in &batch.columns {
        let mut put = |row: usize, value: wire::value::Value| {
            rows[first + row].values.push(wire::Value { value: Some(value) });
        };
        match &**column {
            Column::Constant { value, rows, .. } => {
                let value = wire_value(value);
                (0..*rows).for_each(|row| put(row, value.clone()));
            }
            Column::Vector { values, nulls } => {
                let is_null = |row: usize| nulls.as_ref().is_some_and(|nulls| nulls[row]);
                for row in 0..values.len() {
                    let value = if is_null(row) { wire::value::Value::NullValue(true) } else { cell(values, row) };
                    put(row, value);
                }
            }
        }
    }
}

fn cell(values: &Values, row: usize) -> wire::value::Value {
    use wire::value::Value as Wire;
    match values {
        Values::Bool(values) => Wire::BoolValue(values[row]),
        Values::Int(values) => Wire::IntValue(values[row]),
        Values::Float(values) => Wire::FloatValue(values[row]),
        Values::Text(values) => Wire::StringValue(text(values, row)),
        Values::Blob(_) | Values::Timestamp(_) => Wire::StringValue(values.get(row).to_string()),
    }
}

fn text(strings: &Strings, row: usize) -> String {
    String::from_utf8_lossy(strings.get(row)).into_owned()
}

fn wire_value(value: &chronos::sql::value::Value) -> wire::value::Value {
    use chronos::sql::value::Value;
    use wire::value::Value as Wire;
    match value {
        Value::Null => Wire::NullValue(true),
        Value::Bool(value) => Wire::BoolValue(*value),
        Value::Int(value) => Wire::IntValue(*value),
        Value::Float(value) => Wire::FloatValue(*value),
        Value::Text(value) => Wire::StringValue(value.clone()),
        Value::Blob(_) | Value::Timestamp(_) => Wire::StringValue(value.to_string()),
    }
}
