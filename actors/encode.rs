//! Results as JSON and CSV.
//!
//! JSON has no NaN and no infinity: they are the strings `"NaN"`, `"Infinity"`, `"-Infinity"`, so that a reader can
//! tell them from NULL, and what was stored can be told back. INT is written as a JSON number whatever its size.
//! TIMESTAMP and BLOB are strings in the form that SQL reads back.
//! CSV is RFC 4180 with a header; NULL is an empty field, an empty string is `""`.

use crate::actors::messages::Output;
use chronos::error::Error;
use chronos::sql::batch::{Column, Values};
use chronos::sql::text;
use chronos::sql::value::Value;

/// A result as a JSON object.
pub fn json(output: &Output) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    append_json(&mut out, output);
    out
}

/// Results of a batch as a JSON object.
pub fn json_batch(outputs: &[Output]) -> Vec<u8> {
    let mut out = br#"{"results":["#.to_vec();
    for (i, output) in outputs.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        append_json(&mut out, output);
    }
    out.extend_from_slice(b"]}");
    out
}

/// An error as a JSON object; `statement` is the position of the one that failed in a batch.
pub fn json_error(error: &Error, statement: Option<usize>) -> Vec<u8> {
    let mut object = serde_json::Map::new();
    object.insert("error".into(), error.to_string().into());
    object.insert("sqlstate".into(), error.sqlstate().as_str().into());
    if let Some(position) = error.position() {
        object.insert("position".into(), position.into());
    }
    if let Some(statement) = statement {
        object.insert("statement".into(), statement.into());
    }
    serde_json::Value::Object(object).to_string().into_bytes()
}

fn append_json(out: &mut Vec<u8>, output: &Output) {
    out.extend_from_slice(br#"{"columns":["#);
    for (i, column) in output.columns.iter().enumerate() {
        separate(out, i);
        string(out, &column.name);
    }
    out.extend_from_slice(br#"],"types":["#);
    for (i, column) in output.columns.iter().enumerate() {
        separate(out, i);
        string(out, &column.data_type.to_string());
    }
    out.extend_from_slice(br#"],"rows":["#);
    let mut first = true;
    for batch in &output.batches {
        for row in 0..batch.rows {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.push(b'[');
            for (i, column) in batch.columns.iter().enumerate() {
                separate(out, i);
                json_cell(out, column, row);
            }
            out.push(b']');
        }
    }
    out.extend_from_slice(br#"],"affected":"#);
    out.extend_from_slice(output.affected.to_string().as_bytes());
    out.push(b'}');
}

fn json_cell(out: &mut Vec<u8>, column: &Column, row: usize) {
    match column {
        _ if column.is_null(row) => out.extend_from_slice(b"null"),
        Column::Constant { value, .. } => json_value(out, value),
        Column::Vector { values, .. } => match values {
            Values::Float(values) => json_float(out, values[row]),
            Values::Text(values) => string(out, &String::from_utf8_lossy(values.get(row))),
            Values::Bool(_) | Values::Int(_) => text::append_row(out, column, row),
            Values::Blob(_) | Values::Timestamp(_) => quoted(out, |out| text::append_row(out, column, row)),
        },
    }
}

fn json_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Float(value) => json_float(out, *value),
        Value::Text(value) => string(out, value),
        Value::Bool(_) | Value::Int(_) => text::append(out, value),
        Value::Blob(_) | Value::Timestamp(_) => quoted(out, |out| text::append(out, value)),
    }
}

fn json_float(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        text::append(out, &Value::Float(value));
    } else {
        quoted(out, |out| text::append(out, &Value::Float(value)));
    }
}

/// Text that needs no escaping: digits, signs, and the backslash of a BLOB, which does.
fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut plain = Vec::with_capacity(32);
    write(&mut plain);
    string(out, &String::from_utf8_lossy(&plain));
}

fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is always JSON, and a vector takes all bytes");
}

fn separate(out: &mut Vec<u8>, i: usize) {
    if i > 0 {
        out.push(b',');
    }
}

/// A result as CSV.
pub fn csv(output: &Output) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    for (i, column) in output.columns.iter().enumerate() {
        separate(&mut out, i);
        csv_field(&mut out, column.name.as_bytes());
    }
    if !output.columns.is_empty() {
        out.extend_from_slice(b"\r\n");
    }
    let mut field = Vec::with_capacity(64);
    for batch in &output.batches {
        for row in 0..batch.rows {
            for (i, column) in batch.columns.iter().enumerate() {
                separate(&mut out, i);
                if !column.is_null(row) {
                    field.clear();
                    text::append_row(&mut field, column, row);
                    csv_field(&mut out, &field);
                }
            }
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

fn csv_field(out: &mut Vec<u8>, field: &[u8]) {
    let plain = !field.is_empty() && !field.iter().any(|byte| matches!(byte, b'"' | b',' | b'\r' | b'\n'));
    if plain {
        return out.extend_from_slice(field);
    }
    out.push(b'"');
    for &byte in field {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::messages::OutputColumn;
    use chronos::sql::batch::{Batch, ColumnBuilder};
    use chronos::sql::value::DataType;
    use std::sync::Arc;

    fn output() -> Output {
        let columns = [
            (DataType::Int, vec![Value::Int(i64::MAX), Value::Null]),
            (DataType::Float, vec![Value::Float(f64::NAN), Value::Float(0.5)]),
            (DataType::Text, vec![Value::Text("a \"b\",\nc".into()), Value::Text(String::new())]),
            (DataType::Blob, vec![Value::Blob(vec![0, 255]), Value::Null]),
        ];
        let names = columns
            .iter()
            .map(|(data_type, _)| OutputColumn { name: data_type.to_string().to_lowercase(), data_type: *data_type });
        let names = names.collect();
        let built = columns.into_iter().map(|(data_type, values)| {
            let mut column = ColumnBuilder::new(data_type, values.len());
            values.iter().for_each(|value| column.push(value));
            Arc::new(column.finish())
        });
        Output { columns: names, batches: vec![Batch::new(built.collect(), 2)], affected: 3 }
    }

    #[test]
    fn json_keeps_what_json_cannot_say() {
        let read: serde_json::Value = serde_json::from_slice(&json(&output())).unwrap();
        let expected = serde_json::json!({
            "columns": ["int", "float", "text", "blob"],
            "types": ["INT", "FLOAT", "TEXT", "BLOB"],
            "rows": [[i64::MAX, "NaN", "a \"b\",\nc", "\\x00ff"], [null, 0.5, "", null]],
            "affected": 3
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn csv_tells_null_from_an_empty_string() {
        let read = String::from_utf8(csv(&output())).unwrap();
        let expected = "int,float,text,blob\r\n9223372036854775807,NaN,\"a \"\"b\"\",\nc\",\\x00ff\r\n,0.5,\"\",\r\n";
        assert_eq!(read, expected);
    }

    #[test]
    fn an_error_names_code_and_place() {
        let error = Error::invalid(chronos::error::SqlState::SYNTAX_ERROR, "no").at(7);
        let read: serde_json::Value = serde_json::from_slice(&json_error(&error, Some(2))).unwrap();
        assert_eq!(read, serde_json::json!({"error": "no", "sqlstate": "42601", "position": 7, "statement": 2}));
    }
}
