//! A result as it has come, read row by row.
//!
//! The generated types would hold all of it once more, and a small number with its row in ten times the bytes that it has
//! on the wire. What has come has a limit, and what is made of it is columns.

use super::wire::{Row, SqlResponse};
use chronos::error::{Error, Result};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint};
use prost::{DecodeError, Message};

/// The field of `SqlResponse` that has the rows.
const ROWS: u32 = 4;

/// Everything of a result but its rows, and how many those are.
///
/// # Errors
///
/// XX000 where it is no result.
pub fn header(bytes: &[u8]) -> Result<(SqlResponse, usize)> {
    let (mut left, mut header, mut rows) = (bytes, SqlResponse::default(), 0);
    while next_row(&mut left, &mut header)?.is_some() {
        rows += 1;
    }
    Ok((header, rows))
}

/// The rows of a result, one after the other.
pub fn rows(bytes: &[u8]) -> impl Iterator<Item = Result<Row>> {
    let (mut left, mut header) = (bytes, SqlResponse::default());
    std::iter::from_fn(move || {
        let row = next_row(&mut left, &mut header).transpose()?;
        Some(row.and_then(|row| Row::decode(row).map_err(|error| unreadable(&error))))
    })
}

/// The bytes of the next row; what stands before it goes into the header.
fn next_row<'a>(left: &mut &'a [u8], header: &mut SqlResponse) -> Result<Option<&'a [u8]>> {
    while !left.is_empty() {
        let (field, wire_type) = decode_key(left).map_err(|error| unreadable(&error))?;
        if field == ROWS && wire_type == WireType::LengthDelimited {
            let length = decode_varint(left).map_err(|error| unreadable(&error))?;
            let split = usize::try_from(length).ok().and_then(|length| left.split_at_checked(length));
            let (row, rest) = split.ok_or_else(|| Error::internal("a row ends before its end"))?;
            *left = rest;
            return Ok(Some(row));
        }
        let merged = header.merge_field(field, wire_type, left, DecodeContext::default());
        merged.map_err(|error| unreadable(&error))?;
    }
    Ok(None)
}

fn unreadable(error: &DecodeError) -> Error {
    Error::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::proto::wire::{Value, value};

    fn response() -> SqlResponse {
        let value = |id| Value { value: Some(value::Value::IntValue(id)) };
        SqlResponse {
            success: true,
            columns: vec!["id".into(), "n".into()],
            types: vec!["INT".into(), "INT".into()],
            rows: (0..300).map(|id| Row { values: vec![value(id), value(-id)] }).collect(),
            affected: 7,
            ..SqlResponse::default()
        }
    }

    #[test]
    fn what_is_read_row_by_row_is_what_prost_reads() {
        let bytes = response().encode_to_vec();
        let (header, count) = header(&bytes).unwrap();
        let rows = rows(&bytes).collect::<Result<Vec<Row>>>().unwrap();
        assert_eq!((count, SqlResponse { rows, ..header }), (300, response()));
        assert_eq!(super::header(&[]).unwrap(), (SqlResponse::default(), 0));
    }

    #[test]
    fn what_breaks_off_is_an_error_and_no_shorter_result() {
        let bytes = response().encode_to_vec();
        let rows_begin = bytes.iter().position(|byte| *byte == 0x22).unwrap();
        for cut in [1, rows_begin + 1, rows_begin + 2, rows_begin + 5, bytes.len() - 1] {
            assert!(header(&bytes[..cut]).is_err(), "{cut}");
        }
        // A length that no memory has.
        assert!(header(&[0x22, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }
}
