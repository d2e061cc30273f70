//! A result as it has come, read row by row.
//!
//! The generated types would hold all of it once more, and a small number with its row in ten times the bytes that it has
//! on the wire. What has come has a limit, and what is made of it is columns.

use super::wire::{SqlResponse, Value};
use chronos::error::{Error, Result};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};

/// The field of `SqlResponse` that has the rows.
const ROWS: u32 = 4;
/// The field of `Row` that has the values.
const VALUES: u32 = 1;

/// Columns of a result that is read: many times what a statement may select. A name of no length takes two bytes on the
/// wire, and a dozen times that in memory.
const COLUMNS_MAX: usize = 1 << 16;

/// Bytes of a value at least: its field and its length.
const VALUE_BYTES_MIN: usize = 2;

/// Everything of a result but its rows, and how many those are.
///
/// # Errors
///
/// XX000 where it is no result, or one whose rows cannot have a value for each column: what has come is then less than
/// what would be reserved for it.
pub fn header(bytes: &[u8]) -> Result<(SqlResponse, usize)> {
    let (mut left, mut header, mut rows) = (bytes, SqlResponse::default(), 0usize);
    while next_row(&mut left, &mut header)?.is_some() {
        rows += 1;
    }
    let (columns, types) = (header.columns.len(), header.types.len());
    if columns != types {
        return Err(Error::internal(format!("{columns} columns have {types} types")));
    }
    if rows.saturating_mul(columns * VALUE_BYTES_MIN) > bytes.len() {
        return Err(Error::internal(format!("{rows} rows of {columns} columns are more than {} bytes", bytes.len())));
    }
    Ok((header, rows))
}

/// The rows of a result, one after the other.
pub fn rows(bytes: &[u8]) -> impl Iterator<Item = Result<&[u8]>> {
    let (mut left, mut header) = (bytes, SqlResponse::default());
    std::iter::from_fn(move || next_row(&mut left, &mut header).transpose())
}

/// The values of a row, one after the other.
pub fn values(row: &[u8]) -> impl Iterator<Item = Result<Value>> {
    let mut left = row;
    std::iter::from_fn(move || next_value(&mut left).transpose())
}

fn next_value(left: &mut &[u8]) -> Result<Option<Value>> {
    while !left.is_empty() {
        let (field, wire_type) = decode_key(left).map_err(|error| unreadable(&error))?;
        if field == VALUES && wire_type == WireType::LengthDelimited {
            let value = Value::decode(message(left)?);
            return value.map(Some).map_err(|error| unreadable(&error));
        }
        skip_field(wire_type, field, left, DecodeContext::default()).map_err(|error| unreadable(&error))?;
    }
    Ok(None)
}

/// What stands next behind its length.
fn message<'a>(left: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = decode_varint(left).map_err(|error| unreadable(&error))?;
    let split = usize::try_from(length).ok().and_then(|length| left.split_at_checked(length));
    let (message, rest) = split.ok_or_else(|| Error::internal("a row ends before its end"))?;
    *left = rest;
    Ok(message)
}

/// The bytes of the next row; what stands before it goes into the header.
fn next_row<'a>(left: &mut &'a [u8], header: &mut SqlResponse) -> Result<Option<&'a [u8]>> {
    while !left.is_empty() {
        let (field, wire_type) = decode_key(left).map_err(|error| unreadable(&error))?;
        if field == ROWS && wire_type == WireType::LengthDelimited {
            return message(left).map(Some);
        }
        let merged = header.merge_field(field, wire_type, left, DecodeContext::default());
        merged.map_err(|error| unreadable(&error))?;
        if header.columns.len().max(header.types.len()) > COLUMNS_MAX {
            return Err(Error::internal(format!("it has more than {COLUMNS_MAX} columns")));
        }
    }
    Ok(None)
}

fn unreadable(error: &DecodeError) -> Error {
    Error::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::proto::wire::{Row, value};

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
        let row = |row: Result<&[u8]>| Row { values: values(row.unwrap()).collect::<Result<_>>().unwrap() };
        let rows = rows(&bytes).map(row).collect();
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
    #[test]
    fn what_would_take_more_memory_than_has_come_is_no_result() {
        let told = |response: &SqlResponse| header(&response.encode_to_vec()).unwrap_err().message().to_owned();
        let columns = |columns: usize, types: usize, rows: usize| SqlResponse {
            columns: vec![String::new(); columns],
            types: vec!["INT".into(); types],
            rows: vec![Row::default(); rows],
            ..SqlResponse::default()
        };
        // Room for them all would be 8 GB.
        assert!(told(&columns(1000, 1000, 1 << 20)).starts_with("1048576 rows of 1000 columns are more than"));
        assert_eq!(told(&columns(2, 3, 0)), "2 columns have 3 types");
        assert_eq!(told(&columns(COLUMNS_MAX + 1, 0, 0)), "it has more than 65536 columns");
        assert_eq!(header(&columns(0, 0, 7).encode_to_vec()).unwrap().1, 7);
        // What a later version may add is no value.
        assert_eq!(values(&[0x10, 7]).count(), 0);
        assert!(values(&[0x0a, 2, 0x10]).next().unwrap().is_err(), "it breaks off");
    }
}
