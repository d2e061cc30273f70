//! Literals: numbers, strings, bytes, typed strings, intervals.

use super::{Translator, place, printable};
use crate::error::{Error, Result, SqlState};
use crate::sql::statement::{Expr, Literal, Node};
use sqlparser::ast::{self, Spanned};

impl Translator {
    /// A value; `negative` where a minus stands before it.
    pub(super) fn value(&self, value: ast::ValueWithSpan, negative: bool) -> Result<Expr> {
        let position = self.position(value.span);
        let width = value.span.end.column.saturating_sub(value.span.start.column);
        let literal = match value.value {
            ast::Value::Null => Literal::Null,
            ast::Value::Boolean(value) => Literal::Bool(value),
            ast::Value::Number(digits, false) => number(&digits, negative).map_err(|error| place(error, position))?,
            ast::Value::UnicodeStringLiteral(text) if text.contains('\0') => {
                let error =
                    Error::invalid(SqlState::SYNTAX_ERROR, "\\0000 in U&'...' is no character that text can have");
                return Err(place(error, position));
            }
            ast::Value::SingleQuotedString(text) | ast::Value::EscapedStringLiteral(text) => {
                Literal::Quoted(printable::plain(text))
            }
            ast::Value::UnicodeStringLiteral(text) => Literal::Quoted(text),
            ast::Value::DollarQuotedString(text) => Literal::Quoted(text.value),
            // `0x1F` arrives as the same token as `X'1F'`, one character shorter.
            ast::Value::HexStringLiteral(digits) if width == digits.len() as u64 + 2 => {
                return Err(place(Error::unsupported("hexadecimal integers are"), position));
            }
            ast::Value::HexStringLiteral(digits) => Literal::Blob(bytes_of_hex(&digits).ok_or_else(|| {
                let message = format!("X'{digits}' is not pairs of hexadecimal digits");
                place(Error::invalid(SqlState::INVALID_TEXT, message), position)
            })?),
            ast::Value::Placeholder(name) => {
                return Err(place(Error::unsupported(format_args!("parameters ({name}) are")), position));
            }
            ast::Value::SingleQuotedByteStringLiteral(_) => {
                return Err(place(Error::unsupported("bit strings are"), position));
            }
            ast::Value::NationalStringLiteral(_) => {
                return Err(place(Error::unsupported("national strings (N'...') are"), position));
            }
            other => return Err(place(Error::unsupported(format_args!("literals like {other} are")), position)),
        };
        Ok(Expr { node: Node::Literal(literal), position })
    }

    pub(super) fn typed_string(&self, typed: ast::TypedString) -> Result<Expr> {
        let position = self.position(typed.value.span);
        if typed.uses_odbc_syntax {
            return Err(place(Error::unsupported("ODBC literals are"), position));
        }
        let to = self.type_name(&typed.data_type, position)?;
        let input = Box::new(self.value(typed.value, false)?);
        Ok(Expr { node: Node::Cast { input, to }, position })
    }

    pub(super) fn interval(&self, interval: ast::Interval) -> Result<Expr> {
        let position = self.position(interval.value.span());
        let refuse = || place(Error::unsupported("this form of INTERVAL is"), position);
        let ast::Interval {
            value,
            leading_field,
            leading_precision: None,
            last_field: None,
            fractional_seconds_precision: None,
        } = interval
        else {
            return Err(refuse());
        };
        let ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::SingleQuotedString(text), .. }) = *value else {
            return Err(refuse());
        };
        let text = printable::plain(text);
        let text = leading_field.map_or(text.clone(), |field| format!("{text} {field}"));
        let duration = super::parse_duration(&text).map_err(|error| place(error, position))?;
        Ok(Expr { node: Node::Interval(duration.as_micros() as i64), position })
    }
}

/// Reads a number: without a point and an exponent it is an INT.
fn number(digits: &str, negative: bool) -> Result<Literal> {
    let mut text = String::with_capacity(digits.len() + 1);
    if negative {
        text.push('-');
    }
    text.extend(digits.chars().filter(|&char| char != '_'));
    let out_of_range = |data_type: &str| {
        Error::invalid(SqlState::NUMERIC_OUT_OF_RANGE, format!("value \"{text}\" is out of range for type {data_type}"))
    };
    if digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') {
        return text.parse().map(Literal::Int).map_err(|_| out_of_range("INT"));
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Literal::Float(value)),
        _ => Err(out_of_range("FLOAT")),
    }
}

fn bytes_of_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.as_bytes().chunks(2).map(|pair| Some(digit(&pair[0])? << 4 | digit(&pair[1])?)).collect()
}
