//! Row sets: the rows that a command writes, column by column.
//!
//! Commands travel and rest in the log, so their rows are kept small there: integers as differences, in few bytes, and
//! no mark per value. 1,000 sensor rows (device, time, value) take 10 bytes a row where row images took 17.
//!
//! ```text
//! row set = rows:varint columns:varint column*
//! column  = id:varint type:u8 flags:u8 [nulls: a bit a row] payload
//! payload = BOOL   a bit a row
//!           INT    zigzag varint of the difference to the row before (wrapping)
//!           FLOAT  8 bytes a row, little endian
//!           TEXT   lengths as varints, then the bytes; BLOB likewise
//! ```
//!
//! * Decoding checks every length before it allocates: a row set of n bytes never takes more than a fixed multiple of
//!   n, since every row of every column takes at least a bit.

use crate::ids::ColumnId;
use crate::sql::batch::{Column, Strings, Values};
use crate::sql::value::DataType;
use crate::storage::keys::Key;
use crate::{Error, Result};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// Rows of one table, some of its columns.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RowSet {
    /// The columns, each as long as `rows`.
    pub columns: Vec<(ColumnId, Arc<Column>)>,
    /// How many rows.
    pub rows: usize,
}

const FLAG_NULLS: u8 = 1;

impl RowSet {
    /// The column of this identity.
    pub fn column(&self, id: ColumnId) -> Option<&Arc<Column>> {
        self.columns.iter().find(|(column, _)| *column == id).map(|(_, column)| column)
    }

    /// Appends the encoding to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.rows as u64);
        put_varint(out, self.columns.len() as u64);
        for (id, column) in &self.columns {
            put_varint(out, u64::from(id.0));
            encode_column(column, self.rows, out);
        }
    }

    /// Reads one row set off the front of `rest`.
    pub fn decode(rest: &mut &[u8]) -> Result<RowSet> {
        let rows = take_varint(rest)? as usize;
        let count = take_varint(rest)? as usize;
        // Even a column of booleans takes a bit a row, so the rest of the command bounds both counts.
        if rows > rest.len().saturating_mul(8) || count > rest.len() || (rows > 0 && count == 0) {
            return Err(malformed());
        }
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            let id = u16::try_from(take_varint(rest)?).map_err(|_| malformed())?;
            columns.push((ColumnId(id), Arc::new(decode_column(rest, rows)?)));
        }
        Ok(RowSet { columns, rows })
    }
}

impl Serialize for RowSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        // Texts are most of what is large, and take as much encoded; the rest is a few bytes a value.
        let bytes = self.columns.iter().map(|(_, column)| column.byte_len()).sum();
        let mut bytes = Vec::with_capacity(bytes);
        self.encode(&mut bytes);
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for RowSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<RowSet, D::Error> {
        let mut rest = <&[u8]>::deserialize(deserializer)?;
        let rows = RowSet::decode(&mut rest).map_err(D::Error::custom)?;
        if rest.is_empty() { Ok(rows) } else { Err(D::Error::custom("bytes behind a row set")) }
    }
}

/// Encoded keys of one table, ascending or not; stored without what each shares with the one before.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct KeySet(pub Vec<Key>);

impl Serialize for KeySet {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        let mut before: &[u8] = &[];
        for key in &self.0 {
            let shared = before.iter().zip(key.iter()).take_while(|(a, b)| a == b).count();
            put_varint(&mut bytes, shared as u64);
            put_varint(&mut bytes, (key.len() - shared) as u64);
            bytes.extend_from_slice(&key[shared..]);
            before = key;
        }
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for KeySet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<KeySet, D::Error> {
        fn next(rest: &mut &[u8], key: &mut Vec<u8>) -> Result<Key> {
            let shared = take_varint(rest)? as usize;
            let len = take_varint(rest)? as usize;
            if shared > key.len() {
                return Err(malformed());
            }
            key.truncate(shared);
            key.extend_from_slice(take(rest, len)?);
            Ok(Key::new(key))
        }
        let mut rest = <&[u8]>::deserialize(deserializer)?;
        let (mut keys, mut key) = (Vec::new(), Vec::new());
        while !rest.is_empty() {
            keys.push(next(&mut rest, &mut key).map_err(D::Error::custom)?);
        }
        Ok(KeySet(keys))
    }
}

fn encode_column(column: &Column, rows: usize, out: &mut Vec<u8>) {
    let expanded;
    let (values, nulls) = match column {
        Column::Vector { values, nulls } => (values, nulls.as_ref()),
        Column::Constant { .. } => {
            expanded = column.expand();
            match &expanded {
                Column::Vector { values, nulls } => (values, nulls.as_ref()),
                Column::Constant { .. } => panic!("an expanded column is a vector"),
            }
        }
    };
    assert!(values.len() == rows, "the columns of a row set have one length");
    out.push(type_code(values.data_type()));
    out.push(if nulls.is_some() { FLAG_NULLS } else { 0 });
    if let Some(nulls) = nulls {
        put_bits(out, nulls);
    }
    match values {
        Values::Bool(values) => put_bits(out, values),
        Values::Int(values) | Values::Timestamp(values) => {
            let mut before = 0i64;
            for &value in values {
                let difference = value.wrapping_sub(before);
                put_varint(out, (difference << 1 ^ difference >> 63) as u64);
                before = value;
            }
        }
        Values::Float(values) => values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes())),
        Values::Text(strings) | Values::Blob(strings) => {
            strings.iter().for_each(|string| put_varint(out, string.len() as u64));
            strings.iter().for_each(|string| out.extend_from_slice(string));
        }
    }
}

fn decode_column(rest: &mut &[u8], rows: usize) -> Result<Column> {
    let [code, flags] = take_array(rest)?;
    let data_type = type_of(code)?;
    let nulls = match flags {
        0 => None,
        FLAG_NULLS => Some(take_bits(rest, rows)?),
        _ => return Err(malformed()),
    };
    let values = match data_type {
        DataType::Bool => Values::Bool(take_bits(rest, rows)?),
        DataType::Int => Values::Int(take_ints(rest, rows)?),
        DataType::Timestamp => Values::Timestamp(take_ints(rest, rows)?),
        DataType::Float => {
            let bytes = take(rest, rows.checked_mul(8).ok_or_else(malformed)?)?;
            let (words, _) = bytes.as_chunks::<8>();
            Values::Float(words.iter().map(|word| f64::from_le_bytes(*word)).collect())
        }
        DataType::Text => {
            let strings = take_strings(rest, rows)?;
            if strings.iter().any(|string| std::str::from_utf8(string).is_err()) {
                return Err(malformed());
            }
            Values::Text(strings)
        }
        DataType::Blob => Values::Blob(take_strings(rest, rows)?),
    };
    Ok(match nulls {
        Some(nulls) => Column::with_nulls(values, nulls),
        None => Column::new(values),
    })
}

fn type_code(data_type: DataType) -> u8 {
    match data_type {
        DataType::Bool => 0,
        DataType::Int => 1,
        DataType::Float => 2,
        DataType::Text => 3,
        DataType::Blob => 4,
        DataType::Timestamp => 5,
    }
}

fn type_of(code: u8) -> Result<DataType> {
    Ok(match code {
        0 => DataType::Bool,
        1 => DataType::Int,
        2 => DataType::Float,
        3 => DataType::Text,
        4 => DataType::Blob,
        5 => DataType::Timestamp,
        _ => return Err(malformed()),
    })
}

/// Appends an integer in as few bytes as it needs, seven bits each.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads what `put_varint` wrote.
pub(super) fn take_varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or_else(malformed)?;
        *rest = tail;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(malformed())
}

/// Takes `len` bytes off the front.
pub(super) fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(len).ok_or_else(malformed)?;
    *rest = tail;
    Ok(head)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or_else(malformed)?;
    *rest = tail;
    Ok(*head)
}

fn take_ints(rest: &mut &[u8], rows: usize) -> Result<Vec<i64>> {
    if rows > rest.len() {
        return Err(malformed());
    }
    let mut values = Vec::with_capacity(rows);
    let mut before = 0i64;
    for _ in 0..rows {
        let coded = take_varint(rest)?;
        before = before.wrapping_add((coded >> 1) as i64 ^ -((coded & 1) as i64));
        values.push(before);
    }
    Ok(values)
}

fn take_strings(rest: &mut &[u8], rows: usize) -> Result<Strings> {
    if rows > rest.len() {
        return Err(malformed());
    }
    let lengths = (0..rows).map(|_| take_varint(rest)).collect::<Result<Vec<u64>>>()?;
    let mut strings = Strings::default();
    for length in lengths {
        strings.push(take(rest, usize::try_from(length).map_err(|_| malformed())?)?);
    }
    Ok(strings)
}

fn put_bits(out: &mut Vec<u8>, bits: &[bool]) {
    out.extend(
        bits.chunks(8).map(|chunk| chunk.iter().enumerate().fold(0u8, |byte, (i, &bit)| byte | u8::from(bit) << i)),
    );
}

fn take_bits(rest: &mut &[u8], rows: usize) -> Result<Vec<bool>> {
    let bytes = take(rest, rows.div_ceil(8))?;
    Ok((0..rows).map(|i| bytes[i / 8] >> (i % 8) & 1 == 1).collect())
}

pub(super) fn malformed() -> Error {
    Error::not_understood("a command does not decode")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::batch::ColumnBuilder;
    use crate::sql::value::Value;

    #[test]
    fn every_type_survives_the_log() {
        let columns = [
            (DataType::Bool, vec![Value::Bool(true), Value::Null, Value::Bool(false)]),
            (DataType::Int, vec![Value::Int(i64::MAX), Value::Int(i64::MIN), Value::Null]),
            (DataType::Float, vec![Value::Float(-0.0), Value::Float(f64::INFINITY), Value::Float(1e-300)]),
            (DataType::Text, vec![Value::Text(String::new()), Value::Text("grüß".into()), Value::Null]),
            (DataType::Blob, vec![Value::Blob(vec![0, 255]), Value::Blob(vec![]), Value::Null]),
            (DataType::Timestamp, vec![Value::Timestamp(-1), Value::Null, Value::Timestamp(1)]),
        ];
        let columns = columns.into_iter().enumerate().map(|(i, (data_type, values))| {
            let mut column = ColumnBuilder::new(data_type, 3);
            values.iter().for_each(|value| column.push(value));
            (ColumnId(i as u16), Arc::new(column.finish()))
        });
        let rows = RowSet { columns: columns.collect(), rows: 3 };
        let mut bytes = Vec::new();
        rows.encode(&mut bytes);
        let mut rest = bytes.as_slice();
        assert_eq!(RowSet::decode(&mut rest).unwrap(), rows);
        assert!(rest.is_empty());
    }

    #[test]
    fn a_cut_row_set_is_an_error_at_every_length() {
        let column = Column::new(Values::Int((0..20).collect()));
        let rows = RowSet { columns: vec![(ColumnId(1), Arc::new(column))], rows: 20 };
        let mut bytes = Vec::new();
        rows.encode(&mut bytes);
        for len in 0..bytes.len() {
            assert!(RowSet::decode(&mut &bytes[..len]).is_err());
        }
    }
}
