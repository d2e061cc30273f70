//! Which type a column of text has, and how its fields become SQL.
//!
//! A column starts as [`Guess::Nothing`] and only ever widens:
//!
//! ```text
//! Nothing ──┬── Bool ───────────┐
//!           ├── Timestamp ──────┤
//!           └── Int ── Float ───┴── Text
//! ```
//!
//! * Widening never loses a digit: numbers with leading zeros and integers beyond 64 bits are text.
//! * An empty field says nothing about the type. A column that is empty throughout is text.

use super::timestamp;
use chronos::sql::text;
use chronos::sql::value::{DataType, Value};

/// What a column's fields so far allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guess {
    /// No field had a value.
    #[default]
    Nothing,
    /// `true` and `false`
    Bool,
    /// Whole numbers of 64 bits
    Int,
    /// Numbers
    Float,
    /// Dates and times
    Timestamp,
    /// Anything
    Text,
}

impl Guess {
    /// The guess after one more field.
    #[must_use]
    pub fn with(self, field: &str, format: Option<&str>) -> Guess {
        if self == Guess::Text {
            return Guess::Text;
        }
        let field = field.trim();
        // Most columns go on as they began, so that is tried first.
        if self == Guess::Timestamp && timestamp::parse(field, format).is_some() {
            return self;
        }
        self.join(Guess::of(field, format))
    }

    fn of(field: &str, format: Option<&str>) -> Guess {
        let digits = field.strip_prefix(['-', '+']).unwrap_or(field);
        let begins_like_a_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        // With a format of its own (`%s`, say) a timestamp may look like a number.
        if format.is_some() && timestamp::parse(field, format).is_some() {
            return Guess::Timestamp;
        }
        if begins_like_a_number {
            let zero_padded = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
            if !zero_padded && field.parse::<i64>().is_ok() {
                return Guess::Int;
            }
            let whole = digits.bytes().all(|byte| byte.is_ascii_digit());
            if !zero_padded && !whole && field.parse::<f64>().is_ok_and(f64::is_finite) {
                return Guess::Float;
            }
            if timestamp::parse(field, None).is_some() {
                return Guess::Timestamp;
            }
            return Guess::Text;
        }
        match field.to_ascii_lowercase().as_str() {
            "true" | "false" => Guess::Bool,
            "nan" | "inf" | "-inf" | "infinity" | "-infinity" => Guess::Float,
            _ => Guess::Text,
        }
    }

    fn join(self, other: Guess) -> Guess {
        match (self, other) {
            (Guess::Nothing, guess) | (guess, Guess::Nothing) => guess,
            (Guess::Int, Guess::Float) | (Guess::Float, Guess::Int) => Guess::Float,
            (a, b) if a == b => a,
            _ => Guess::Text,
        }
    }

    /// The column's type.
    pub fn data_type(self) -> DataType {
        match self {
            Guess::Bool => DataType::Bool,
            Guess::Int => DataType::Int,
            Guess::Float => DataType::Float,
            Guess::Timestamp => DataType::Timestamp,
            Guess::Nothing | Guess::Text => DataType::Text,
        }
    }
}

/// Appends a field as a literal of the type; the error completes the sentence `column "x": ...`.
pub fn literal(out: &mut Vec<u8>, field: &str, data_type: DataType, format: Option<&str>) -> Result<(), String> {
    let trimmed = field.trim();
    let not = |what: &str| format!("{:?} is not {what}", shorten(field));
    match data_type {
        DataType::Bool => {
            let value = text::parse_bool(trimmed).map_err(|_| not("BOOL"))?;
            out.extend_from_slice(if value { b"TRUE" } else { b"FALSE" });
        }
        DataType::Int => text::append(out, &Value::Int(text::parse_int(trimmed).map_err(|_| not("INT"))?)),
        DataType::Float => float(out, trimmed).ok_or_else(|| not("FLOAT"))?,
        DataType::Timestamp => {
            let micros = timestamp::parse(trimmed, format).ok_or_else(|| not("TIMESTAMP"))?;
            quoted(out, |out| text::append(out, &Value::Timestamp(micros)));
        }
        DataType::Blob => {
            let bytes = text::parse_blob(field).map_err(|_| not("BLOB, written \\x00ff"))?;
            quoted(out, |out| text::append(out, &Value::Blob(bytes)));
        }
        DataType::Text => quoted(out, |out| {
            for (i, part) in field.split('\'').enumerate() {
                if i > 0 {
                    out.extend_from_slice(b"''");
                }
                out.extend_from_slice(part.as_bytes());
            }
        }),
    }
    Ok(())
}

fn quoted(out: &mut Vec<u8>, inner: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'\'');
    inner(out);
    out.push(b'\'');
}

/// A number as SQL reads it; none where it is no number.
fn float(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let value = text::parse_float(text).ok()?;
    // Unquoted, `-0` is the negation of an integer, which has no negative zero.
    if !value.is_finite() || (value == 0.0 && value.is_sign_negative()) {
        quoted(out, |out| text::append(out, &Value::Float(value)));
        return Some(());
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.split_once('.').is_some_and(|(whole, fraction)| {
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        all_digits(whole) && all_digits(fraction)
    });
    // Digits that SQL reads the same way need not be written anew.
    if plain {
        out.extend_from_slice(text.as_bytes());
    } else {
        text::append(out, &Value::Float(value));
    }
    Some(())
}

/// Characters of a field that an error shows.
const SHOWN_CHARS_MAX: usize = 40;

fn shorten(field: &str) -> String {
    match field.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &field[..end]),
        None => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(fields: &[&str]) -> Guess {
        fields.iter().fold(Guess::default(), |guess, field| guess.with(field, None))
    }

    fn sql(field: &str, data_type: DataType) -> Result<String, String> {
        let mut out = Vec::new();
        literal(&mut out, field, data_type, None).map(|()| String::from_utf8(out).expect("UTF-8"))
    }

    #[test]
    fn a_column_is_as_narrow_as_its_fields_allow() {
        assert_eq!(guess(&["1", "-2", " 3 "]), Guess::Int);
        assert_eq!(guess(&["1", "2.5", "1e-3"]), Guess::Float);
        assert_eq!(guess(&["2.5", "NaN"]), Guess::Float);
        assert_eq!(guess(&["true", "FALSE"]), Guess::Bool);
        assert_eq!(guess(&["2015-02-04 17:51:00", "2015-02-05"]), Guess::Timestamp);
        assert_eq!(guess(&[]).data_type(), DataType::Text);
    }

    #[test]
    fn a_column_widens_to_text_when_nothing_else_fits() {
        assert_eq!(guess(&["1", "x"]), Guess::Text);
        assert_eq!(guess(&["1", "true"]), Guess::Text);
        assert_eq!(guess(&["2015-02-04", "1"]), Guess::Text);
        assert_eq!(guess(&["007"]), Guess::Text);
        assert_eq!(guess(&["12345678901234567890"]), Guess::Text);
        assert_eq!(guess(&["1.2.3"]), Guess::Text);
    }

    #[test]
    fn fields_become_literals() {
        assert_eq!(sql("it's", DataType::Text), Ok("'it''s'".to_owned()));
        assert_eq!(sql(" 5 ", DataType::Int), Ok("5".to_owned()));
        assert_eq!(sql("73.96732207", DataType::Float), Ok("73.96732207".to_owned()));
        assert_eq!(sql("1e5", DataType::Float), Ok("100000".to_owned()));
        assert_eq!(sql("-inf", DataType::Float), Ok("'-Infinity'".to_owned()));
        assert_eq!(sql(".5", DataType::Float), Ok("0.5".to_owned()));
        assert_eq!(sql("-0", DataType::Int), Ok("0".to_owned()));
        assert_eq!(sql("T", DataType::Bool), Ok("TRUE".to_owned()));
        assert_eq!(sql("2015-02-04T17:51:00Z", DataType::Timestamp), Ok("'2015-02-04 17:51:00'".to_owned()));
        assert_eq!(sql("\\x00fF", DataType::Blob), Ok("'\\x00ff'".to_owned()));
    }

    #[test]
    fn a_negative_zero_keeps_its_sign_where_it_has_one() {
        for field in ["-0", "-0.0", "-.0", "-0e3", " -0.00 "] {
            assert_eq!(sql(field, DataType::Float), Ok("'-0'".to_owned()), "{field}");
        }
        assert_eq!(sql("0.0", DataType::Float), Ok("0.0".to_owned()));
        assert_eq!(guess(&["-0"]), Guess::Int);
        assert_eq!(guess(&["1.5", "-0"]), Guess::Float);
    }

    #[test]
    fn a_field_that_does_not_fit_says_so() {
        assert_eq!(sql("warm", DataType::Float), Err("\"warm\" is not FLOAT".to_owned()));
        assert!(sql("1.5", DataType::Int).is_err());
        assert!(sql("1e999", DataType::Float).is_err());
        assert!(sql("\\x0", DataType::Blob).is_err());
        let long = "x".repeat(100);
        assert!(sql(&long, DataType::Int).expect_err("no number").len() < 70);
    }
}
