//! BLOB as text: `\x` and two hexadecimal digits a byte; PostgreSQL's older escape form is read as well.

use super::invalid_syntax;
use crate::error::{Error, Result, SqlState};
use crate::sql::value::DataType;

/// Appends bytes in hexadecimal.
pub fn append_blob(out: &mut Vec<u8>, value: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 + 2 * value.len());
    out.extend_from_slice(b"\\x");
    for byte in value {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// Reads a BLOB in hexadecimal (`\x00ff`) or escape form (`a\\b\000`).
///
/// # Errors
/// 22023 for wrong hexadecimal digits, 22P02 for a wrong escape.
pub fn parse_blob(text: &str) -> Result<Vec<u8>> {
    match text.strip_prefix("\\x") {
        Some(digits) => parse_hexadecimal(digits),
        None => parse_escapes(text),
    }
}

fn parse_hexadecimal(digits: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(digits.len() / 2);
    let mut high = None;
    for c in digits.chars() {
        // White space may stand between bytes, never within one.
        if high.is_none() && c.is_ascii_whitespace() {
            continue;
        }
        let digit = c
            .to_digit(16)
            .ok_or_else(|| Error::invalid(SqlState::INVALID_PARAMETER, format!("invalid hexadecimal digit: \"{c}\"")))?
            as u8;
        match high.take() {
            None => high = Some(digit),
            Some(high) => out.push(high << 4 | digit),
        }
    }
    match high {
        None => Ok(out),
        Some(_) => Err(Error::invalid(SqlState::INVALID_PARAMETER, "invalid hexadecimal data: odd number of digits")),
    }
}

fn parse_escapes(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match *rest {
            [b'\\', ..] => {
                out.push(b'\\');
                rest = &rest[1..];
            }
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = &rest[3..];
            }
            _ => return Err(invalid_syntax(DataType::Blob, text)),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_read_in_both_forms() {
        assert_eq!(parse_blob("\\x00fF").unwrap(), [0, 255]);
        assert_eq!(parse_blob("\\x 00 ff ").unwrap(), [0, 255]);
        assert_eq!(parse_blob("\\x").unwrap(), [0; 0]);
        assert_eq!(parse_blob("a\\\\b\\000\\377").unwrap(), b"a\\b\x00\xff");
        assert_eq!(parse_blob("plain").unwrap(), b"plain");
    }

    #[test]
    fn wrong_blobs_are_refused_as_postgresql_refuses_them() {
        assert_eq!(parse_blob("\\xzz").unwrap_err().message(), "invalid hexadecimal digit: \"z\"");
        assert_eq!(parse_blob("\\xabc").unwrap_err().message(), "invalid hexadecimal data: odd number of digits");
        assert_eq!(parse_blob("a\\").unwrap_err().sqlstate(), SqlState::INVALID_TEXT);
        assert_eq!(parse_blob("\\400").unwrap_err().sqlstate(), SqlState::INVALID_TEXT);
    }
}
