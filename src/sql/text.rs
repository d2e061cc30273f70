//! Values as text: what a client reads and writes, in PostgreSQL's forms.
//!
//! ```text
//! BOOL       true  false                       in: t, true, yes, on, 1 and their like, any case
//! INT        -42
//! FLOAT      0.1  1e+20  NaN  -Infinity        shortest digits that read back as the same number
//! TIMESTAMP  2024-03-10 12:00:00.5             in: RFC 3339 too; a zone is converted to UTC
//! BLOB       \x00ff                            in: hexadecimal and escape form
//! ```
//!
//! * Reading what was written gives the value back, but for the payload of a NaN.
//! * Writing appends to a buffer that the caller keeps, so that a result of a million values allocates no million times.
//! * Errors of reading are PostgreSQL's, with our names of types: `invalid input syntax for type INT: "abc"`.
//!
//! Dates are computed by two functions of a few integer operations ([`timestamp`]). A calendar crate was looked at:
//! without time zones it would bring nothing but its size.

pub mod bytes;
pub mod number;
pub mod timestamp;

pub use bytes::parse_blob;
pub use number::{parse_float, parse_int};
pub use timestamp::parse_timestamp;

use crate::error::{Error, Result, SqlState};
use crate::sql::batch::{Column, Values};
use crate::sql::value::{DataType, Value};
use std::fmt;

/// Characters of a wrong input that an error repeats; the rest is cut, for the message travels with every answer.
const QUOTED_CHARS_MAX: usize = 100;

/// A value as text; NULL is `NULL`.
pub fn format(value: &Value) -> String {
    value.to_string()
}

/// Appends a value as text; NULL is `NULL`.
pub fn append(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"NULL"),
        Value::Bool(value) => append_bool(out, *value),
        Value::Int(value) => number::append_int(out, *value),
        Value::Float(value) => number::append_float(out, *value),
        Value::Text(value) => out.extend_from_slice(value.as_bytes()),
        Value::Blob(value) => bytes::append_blob(out, value),
        Value::Timestamp(value) => timestamp::append_timestamp(out, *value),
    }
}

/// Appends row `i` of a column as text, without making a [`Value`] of it; NULL is `NULL`.
pub fn append_row(out: &mut Vec<u8>, column: &Column, i: usize) {
    match column {
        Column::Constant { value, .. } => append(out, value),
        Column::Vector { nulls: Some(nulls), .. } if nulls[i] => append(out, &Value::Null),
        Column::Vector { values, .. } => append_from(out, values, i),
    }
}

/// Appends value `i` of a payload as text.
pub(crate) fn append_from(out: &mut Vec<u8>, values: &Values, i: usize) {
    match values {
        Values::Bool(values) => append_bool(out, values[i]),
        Values::Int(values) => number::append_int(out, values[i]),
        Values::Float(values) => number::append_float(out, values[i]),
        Values::Text(values) => out.extend_from_slice(values.get(i)),
        Values::Blob(values) => bytes::append_blob(out, values.get(i)),
        Values::Timestamp(values) => timestamp::append_timestamp(out, values[i]),
    }
}

fn append_bool(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Reads a value of a type from text.
///
/// # Errors
/// 22P02, 22007, 22008 or 22003, as PostgreSQL has them.
pub fn parse(text: &str, data_type: DataType) -> Result<Value> {
    match data_type {
        DataType::Bool => parse_bool(text).map(Value::Bool),
        DataType::Int => parse_int(text).map(Value::Int),
        DataType::Float => parse_float(text).map(Value::Float),
        DataType::Text => Ok(Value::Text(text.to_owned())),
        DataType::Blob => parse_blob(text).map(Value::Blob),
        DataType::Timestamp => parse_timestamp(text).map(Value::Timestamp),
    }
}

/// Reads a BOOL: `true`, `false`, `yes`, `no`, `on`, `off`, `1`, `0` or an unambiguous beginning, in any case.
///
/// # Errors
/// 22P02 for anything else.
pub fn parse_bool(text: &str) -> Result<bool> {
    let word = trim(text).to_ascii_lowercase();
    let begins = |whole: &str, least: usize| word.len() >= least && whole.starts_with(&word);
    if begins("true", 1) || begins("yes", 1) || word == "on" || word == "1" {
        Ok(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || word == "0" {
        Ok(false)
    } else {
        Err(invalid_syntax(DataType::Bool, text))
    }
}

/// Without the white space around it, which PostgreSQL ignores in every type but TEXT and BLOB.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b')
}

fn invalid_syntax(data_type: DataType, text: &str) -> Error {
    let state = match data_type {
        DataType::Timestamp => SqlState::INVALID_DATETIME,
        DataType::Bool | DataType::Int | DataType::Float | DataType::Text | DataType::Blob => SqlState::INVALID_TEXT,
    };
    Error::invalid(state, format!("invalid input syntax for type {data_type}: \"{}\"", quoted(text)))
}

/// The beginning of an input, for a message.
fn quoted(text: &str) -> &str {
    text.char_indices().nth(QUOTED_CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Value::Text(text) = self {
            return f.pad(text);
        }
        let mut out = Vec::with_capacity(26);
        append(&mut out, self);
        f.pad(&String::from_utf8_lossy(&out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_read_as_postgresql_reads_them() {
        for yes in ["t", "TRUE", " tru ", "y", "Yes", "on", "1"] {
            assert!(parse_bool(yes).unwrap(), "{yes}");
        }
        for no in ["f", "FALSE", "n", "No", "of", "off", "0"] {
            assert!(!parse_bool(no).unwrap(), "{no}");
        }
        for neither in ["", "o", "2", "truee", "yesno", "10"] {
            let error = parse_bool(neither).unwrap_err();
            assert_eq!(error.sqlstate(), SqlState::INVALID_TEXT);
            assert_eq!(error.message(), format!("invalid input syntax for type BOOL: \"{neither}\""));
        }
    }

    #[test]
    fn values_display_as_their_text_form() {
        let shown = |value: Value| format(&value);
        assert_eq!(shown(Value::Null), "NULL");
        assert_eq!(shown(Value::Bool(true)), "true");
        assert_eq!(shown(Value::Int(i64::MIN)), "-9223372036854775808");
        assert_eq!(shown(Value::Blob(vec![0, 0xff])), "\\x00ff");
        assert_eq!(shown(Value::Text("it's".into())), "it's");
    }

    #[test]
    fn an_error_repeats_only_the_beginning_of_a_long_input() {
        let error = parse_int(&"ä".repeat(5000)).unwrap_err();
        assert!(error.message().len() < 300);
    }
}
