//! Results as JSON and CSV.
//!
//! JSON has no NaN and no infinity: they are the strings `"NaN"`, `"Infinity"`, `"-Infinity"`, so that a reader can
//! tell them from NULL, and what was stored can be told back. INT is written as a JSON number whatever its size.
//! TIMESTAMP and BLOB are strings in the form that SQL reads back.
//! Who cuts a result into pieces is `pieces.rs`; here stands how its parts are written.
//! CSV is RFC 4180 with a header; NULL is an empty field, an empty string is `""`.

use crate::actors::messages::OutputColumn;
use chronos::error::Error;
use chronos::sql::batch::{Column, Values};
use chronos::sql::text;
use chronos::sql::value::Value;

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

/// One value of a result, without a copy of it.
pub enum Cell<'a> {
    /// NULL.
    Null,
    /// BOOL.
    Bool(bool),
    /// INT.
    Int(i64),
    /// FLOAT.
    Float(f64),
    /// TEXT, as UTF-8.
    Text(&'a [u8]),
    /// BLOB.
    Blob(&'a [u8]),
    /// TIMESTAMP, in microseconds since 1970.
    Timestamp(i64),
}

impl Cell<'_> {
    /// The value of a column in a row.
    pub fn of(column: &Column, row: usize) -> Cell<'_> {
        match column {
            _ if column.is_null(row) => Cell::Null,
            Column::Constant { value, .. } => match value {
                Value::Null => Cell::Null,
                Value::Bool(value) => Cell::Bool(*value),
                Value::Int(value) => Cell::Int(*value),
                Value::Float(value) => Cell::Float(*value),
                Value::Text(value) => Cell::Text(value.as_bytes()),
                Value::Blob(value) => Cell::Blob(value),
                Value::Timestamp(value) => Cell::Timestamp(*value),
            },
            Column::Vector { values, .. } => match values {
                Values::Bool(values) => Cell::Bool(values[row]),
                Values::Int(values) => Cell::Int(values[row]),
                Values::Float(values) => Cell::Float(values[row]),
                Values::Text(values) => Cell::Text(values.get(row)),
                Values::Blob(values) => Cell::Blob(values.get(row)),
                Values::Timestamp(values) => Cell::Timestamp(values[row]),
            },
        }
    }

    /// Appends it as SQL reads it back.
    pub fn append(&self, out: &mut Vec<u8>) {
        match self {
            Cell::Null => text::append(out, &Value::Null),
            Cell::Bool(value) => text::append(out, &Value::Bool(*value)),
            Cell::Int(value) => text::append(out, &Value::Int(*value)),
            Cell::Float(value) => text::append(out, &Value::Float(*value)),
            Cell::Text(value) => out.extend_from_slice(value),
            Cell::Blob(value) => {
                out.extend_from_slice(b"\\x");
                hex(out, value);
            }
            Cell::Timestamp(value) => text::append(out, &Value::Timestamp(*value)),
        }
    }
}

/// Everything of a JSON object before its rows.
pub fn json_head(out: &mut Vec<u8>, columns: &[OutputColumn]) {
    out.extend_from_slice(br#"{"columns":["#);
    for (i, column) in columns.iter().enumerate() {
        separate(out, i);
        string(out, &column.name);
    }
    out.extend_from_slice(br#"],"types":["#);
    for (i, column) in columns.iter().enumerate() {
        separate(out, i);
        string(out, &column.data_type.to_string());
    }
    out.extend_from_slice(br#"],"rows":["#);
}

/// What follows the rows.
pub fn json_tail(out: &mut Vec<u8>, affected: u64) {
    out.extend_from_slice(br#"],"affected":"#);
    out.extend_from_slice(affected.to_string().as_bytes());
    out.push(b'}');
}

/// A value as JSON.
pub fn json_cell(out: &mut Vec<u8>, cell: &Cell) {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Bool(_) | Cell::Int(_) => cell.append(out),
        Cell::Float(value) if value.is_finite() => cell.append(out),
        Cell::Text(value) => string(out, &String::from_utf8_lossy(value)),
        // Digits and signs need no escaping.
        Cell::Float(_) | Cell::Timestamp(_) => {
            out.push(b'"');
            cell.append(out);
            out.push(b'"');
        }
        Cell::Blob(value) => {
            out.extend_from_slice(b"\"\\\\x");
            hex(out, value);
            out.push(b'"');
        }
    }
}

/// A part of a text as it stands between quotes in JSON.
pub fn json_escaped(out: &mut Vec<u8>, part: &[u8]) {
    let from = out.len();
    string(out, &String::from_utf8_lossy(part));
    // The quotes are those of the whole text.
    out.pop();
    out.remove(from);
}

/// Bytes as digits.
pub fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend(bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
}

fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is always JSON, and a vector takes all bytes");
}

fn separate(out: &mut Vec<u8>, i: usize) {
    if i > 0 {
        out.push(b',');
    }
}

/// The first line of CSV; none where there are no columns.
pub fn csv_head(out: &mut Vec<u8>, columns: &[OutputColumn]) {
    for (i, column) in columns.iter().enumerate() {
        separate(out, i);
        csv_field(out, column.name.as_bytes());
    }
    if !columns.is_empty() {
        out.extend_from_slice(b"\r\n");
    }
}

/// A value as a field of CSV.
pub fn csv_cell(out: &mut Vec<u8>, cell: &Cell) {
    match cell {
        Cell::Null => {}
        Cell::Text(value) => csv_field(out, value),
        Cell::Bool(_) | Cell::Int(_) | Cell::Float(_) | Cell::Blob(_) | Cell::Timestamp(_) => cell.append(out),
    }
}

/// A part of a text as it stands between quotes in CSV.
pub fn csv_escaped(out: &mut Vec<u8>, part: &[u8]) {
    for &byte in part {
        if byte == b'"' {
            out.push(byte);
        }
        out.push(byte);
    }
}

fn csv_field(out: &mut Vec<u8>, field: &[u8]) {
    let plain = !field.is_empty() && !field.iter().any(|byte| matches!(byte, b'"' | b',' | b'\r' | b'\n'));
    if plain {
        return out.extend_from_slice(field);
    }
    out.push(b'"');
    csv_escaped(out, field);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::format::Format;
    use crate::actors::messages::Output;
    use crate::actors::pieces::Pieces;
    use crate::actors::transit::Hold;
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
        Output { columns: names, batches: vec![Batch::new(built.collect(), 2)], affected: 3, hold: Hold::nothing() }
    }

    fn written(format: Format) -> Vec<u8> {
        Pieces::new(format, vec![output()]).piece().to_vec()
    }

    #[test]
    fn json_keeps_what_json_cannot_say() {
        let read: serde_json::Value = serde_json::from_slice(&written(Format::Json)).unwrap();
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
        let read = String::from_utf8(written(Format::Csv)).unwrap();
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
