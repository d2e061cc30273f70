//! Column encodings: how the values of one column of one block become bytes.
//!
//! A column is first stripped of its nulls, then its values are given to the family of their type, which looks at them
//! and picks an encoding. What does not shrink is stored plain, so no choice can cost more than a few bytes.
//!
//! ```text
//! column = [null mask, where a value is NULL] | values that are not NULL, as their encoding has them
//! ```
//!
//! * A decoded column equals the encoded one, bit by bit, floats included; a vector that says the same value in every
//!   row comes back as [`Column::Constant`].
//! * Decoding takes any bytes: what encoding did not write is an error, never a panic, and allocates no more than
//!   8 bytes a row, the bytes read, or the limit of `strings`.

mod bits;
mod floats;
mod ints;
mod numbers;
mod reader;
mod strings;

use crate::error::Result;
use crate::sql::batch::{Column, Strings, Values};
use crate::sql::value::{DataType, Value};
use reader::{Reader, damaged};
use strings::Content;

/// How values are stored. The numbers are on disk: they are never given to anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// Every row is NULL; no bytes at all.
    Null = 0,
    /// One value for all rows that are not NULL.
    Constant = 1,
    /// As in memory; booleans as a mask.
    Plain = 2,
    /// Integers: distance from the least, in as many bits as the farthest needs.
    Packed = 3,
    /// Integers: steps from one to the next, packed; equal steps take no bits.
    Delta = 4,
    /// Integers: values with the number of times each repeats.
    Runs = 5,
    /// Distinct values, and a code for each row.
    Dictionary = 6,
    /// Numbers as `pco` compresses them.
    Pco = 7,
    /// Strings: lengths, and LZ4 of the bytes.
    Lz4 = 8,
    /// Floats: their bit patterns as integers.
    Bits = 9,
    /// Integers: how often a common unit goes into the distance from the least.
    Scaled = 10,
}

/// Set in the stored encoding of a column that begins with a null mask.
const WITH_NULLS: u8 = 0x80;

impl Encoding {
    /// The encoding of a stored number.
    pub fn of(number: u8) -> Result<Encoding> {
        Ok(match number {
            0 => Encoding::Null,
            1 => Encoding::Constant,
            2 => Encoding::Plain,
            3 => Encoding::Packed,
            4 => Encoding::Delta,
            5 => Encoding::Runs,
            6 => Encoding::Dictionary,
            7 => Encoding::Pco,
            8 => Encoding::Lz4,
            9 => Encoding::Bits,
            10 => Encoding::Scaled,
            _ => return Err(damaged("has an unknown encoding")),
        })
    }
}

/// Appends a column and gives the number that its directory entry stores.
pub fn encode(column: &Column, out: &mut Vec<u8>) -> u8 {
    match column {
        Column::Constant { value, .. } => encode_constant(value, out) as u8,
        Column::Vector { values, nulls: None } => encode_values(values, out) as u8,
        Column::Vector { values, nulls: Some(nulls) } if !nulls.contains(&true) => encode_values(values, out) as u8,
        Column::Vector { nulls: Some(nulls), .. } if !nulls.contains(&false) => Encoding::Null as u8,
        Column::Vector { values, nulls: Some(nulls) } => {
            bits::push_mask(nulls, out);
            encode_values(&without_nulls(values, nulls), out) as u8 | WITH_NULLS
        }
    }
}

fn encode_constant(value: &Value, out: &mut Vec<u8>) -> Encoding {
    match value {
        Value::Null => return Encoding::Null,
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::Int(value) | Value::Timestamp(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::Float(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::Text(value) => return strings::encode(&std::iter::once(value.as_bytes()).collect(), out),
        Value::Blob(value) => return strings::encode(&std::iter::once(value.as_slice()).collect(), out),
    }
    Encoding::Constant
}

fn encode_values(values: &Values, out: &mut Vec<u8>) -> Encoding {
    match values {
        Values::Bool(values) if values.iter().all(|value| *value == values[0]) => {
            out.extend(values.first().map(|&value| u8::from(value)));
            Encoding::Constant
        }
        Values::Bool(values) => {
            bits::push_mask(values, out);
            Encoding::Plain
        }
        Values::Int(values) | Values::Timestamp(values) => ints::encode(values, out),
        Values::Float(values) => floats::encode(values, out),
        Values::Text(values) | Values::Blob(values) => strings::encode(values, out),
    }
}

fn without_nulls(values: &Values, nulls: &[bool]) -> Values {
    fn keep<T: Copy>(values: &[T], nulls: &[bool]) -> Vec<T> {
        values.iter().zip(nulls).filter(|(_, null)| !**null).map(|(value, _)| *value).collect()
    }
    fn keep_strings(values: &Strings, nulls: &[bool]) -> Strings {
        values.iter().zip(nulls).filter(|(_, null)| !**null).map(|(value, _)| value).collect()
    }
    match values {
        Values::Bool(values) => Values::Bool(keep(values, nulls)),
        Values::Int(values) => Values::Int(keep(values, nulls)),
        Values::Float(values) => Values::Float(keep(values, nulls)),
        Values::Text(values) => Values::Text(keep_strings(values, nulls)),
        Values::Blob(values) => Values::Blob(keep_strings(values, nulls)),
        Values::Timestamp(values) => Values::Timestamp(keep(values, nulls)),
    }
}

/// Reads a column of `rows` rows; `number` is what [`encode`] gave.
pub fn decode(data_type: DataType, number: u8, bytes: &[u8], rows: usize) -> Result<Column> {
    let mut reader = Reader::new(bytes);
    let encoding = Encoding::of(number & !WITH_NULLS)?;
    let with_nulls = number & WITH_NULLS != 0;
    let column = if encoding == Encoding::Null {
        Column::constant(Value::Null, data_type, rows)
    } else if with_nulls {
        let nulls = bits::mask(&mut reader, rows)?;
        let present = nulls.iter().filter(|null| !**null).count();
        let values = decode_values(data_type, encoding, &mut reader, present)?;
        Column::with_nulls(spread(values, &nulls), nulls)
    } else if encoding == Encoding::Constant {
        Column::constant(decode_constant(data_type, &mut reader)?, data_type, rows)
    } else {
        Column::new(decode_values(data_type, encoding, &mut reader, rows)?)
    };
    reader.finish()?;
    Ok(column)
}

fn decode_constant(data_type: DataType, reader: &mut Reader<'_>) -> Result<Value> {
    Ok(match data_type {
        DataType::Bool => Value::Bool(reader.byte()? != 0),
        DataType::Int => Value::Int(reader.int()?),
        DataType::Timestamp => Value::Timestamp(reader.int()?),
        DataType::Float => Value::Float(f64::from_le_bytes(reader.array()?)),
        DataType::Blob => Value::Blob(strings::decode_constant(reader, Content::Bytes)?.to_vec()),
        DataType::Text => {
            Value::Text(String::from_utf8_lossy(strings::decode_constant(reader, Content::Utf8)?).into_owned())
        }
    })
}

fn decode_values(data_type: DataType, encoding: Encoding, reader: &mut Reader<'_>, count: usize) -> Result<Values> {
    Ok(match data_type {
        DataType::Bool => Values::Bool(decode_bools(encoding, reader, count)?),
        DataType::Int => Values::Int(ints::decode(encoding, reader, count)?),
        DataType::Timestamp => Values::Timestamp(ints::decode(encoding, reader, count)?),
        DataType::Float => Values::Float(floats::decode(encoding, reader, count)?),
        DataType::Text => Values::Text(strings::decode(encoding, reader, count, Content::Utf8)?),
        DataType::Blob => Values::Blob(strings::decode(encoding, reader, count, Content::Bytes)?),
    })
}

fn decode_bools(encoding: Encoding, reader: &mut Reader<'_>, count: usize) -> Result<Vec<bool>> {
    match encoding {
        Encoding::Constant => Ok(vec![reader.byte()? != 0; count]),
        Encoding::Plain => bits::mask(reader, count),
        Encoding::Null
        | Encoding::Packed
        | Encoding::Delta
        | Encoding::Runs
        | Encoding::Dictionary
        | Encoding::Pco
        | Encoding::Lz4
        | Encoding::Bits
        | Encoding::Scaled => Err(damaged("has an encoding that booleans do not have")),
    }
}

/// Puts values back between the nulls, where the type's zero stands.
fn spread(values: Values, nulls: &[bool]) -> Values {
    fn put<T: Copy + Default>(values: &[T], nulls: &[bool]) -> Vec<T> {
        let mut values = values.iter();
        nulls.iter().map(|null| if *null { T::default() } else { values.next().copied().unwrap_or_default() }).collect()
    }
    fn put_strings(values: &Strings, nulls: &[bool]) -> Strings {
        let mut values = values.iter();
        nulls.iter().map(|null| if *null { &[][..] } else { values.next().unwrap_or_default() }).collect()
    }
    match values {
        Values::Bool(values) => Values::Bool(put(&values, nulls)),
        Values::Int(values) => Values::Int(put(&values, nulls)),
        Values::Float(values) => Values::Float(put(&values, nulls)),
        Values::Text(values) => Values::Text(put_strings(&values, nulls)),
        Values::Blob(values) => Values::Blob(put_strings(&values, nulls)),
        Values::Timestamp(values) => Values::Timestamp(put(&values, nulls)),
    }
}

/// Appends unsigned metadata.
pub fn encode_unsigned(values: &[u64], out: &mut Vec<u8>) -> u8 {
    let values: Vec<i64> = values.iter().map(|&value| value as i64).collect();
    ints::encode(&values, out) as u8
}

/// Reads unsigned metadata.
pub fn decode_unsigned(number: u8, bytes: &[u8], rows: usize) -> Result<Vec<u64>> {
    let mut reader = Reader::new(bytes);
    let values = ints::decode(Encoding::of(number)?, &mut reader, rows)?;
    reader.finish()?;
    Ok(values.into_iter().map(|value| value as u64).collect())
}

/// Appends marks of rows.
pub fn encode_marks(marks: &[bool], out: &mut Vec<u8>) -> u8 {
    bits::push_mask(marks, out);
    Encoding::Plain as u8
}

/// Reads marks of rows.
pub fn decode_marks(number: u8, bytes: &[u8], rows: usize) -> Result<Vec<bool>> {
    if Encoding::of(number)? != Encoding::Plain {
        return Err(damaged("has an encoding that marks do not have"));
    }
    let mut reader = Reader::new(bytes);
    let marks = bits::mask(&mut reader, rows)?;
    reader.finish()?;
    Ok(marks)
}
