//! Row images: the values of one row as bytes, for the log and the memtables.
//!
//! A command carries whole rows, and a memtable keeps them as they came: nothing is decoded between the log and a
//! reader. So an image is small, can be read in any order of slots, and tells of itself what each value is.
//!
//! ```text
//! image = value*                          by slot; trailing slots that are not there take `LayoutColumn::missing`
//! value = 00                              NULL
//!       | 01                              the value stands in the key
//!       | 02 | 03                         FALSE, TRUE
//!       | 04 varint                       INT, zigzag
//!       | 05 8 bytes, little-endian       FLOAT, its bits
//!       | 06 varint bytes | 07 varint bytes   TEXT, BLOB
//!       | 08 varint                       TIMESTAMP, zigzag
//!       | 80..FF                          INT 0..127
//! ```
//!
//! * A key column is left to the key where its type comes back from there unchanged: all but FLOAT, whose keys forget
//!   the sign of -0.0 and the payload of a NaN. Which slots these are follows from the layout alone, so an image that
//!   says otherwise is damaged.
//! * Any bytes may be given to the decoder: it answers `damaged`, it never panics and allocates no more than its input.

use crate::error::{Error, Result};
use crate::sql::batch::{Column, ColumnBuilder, Values};
use crate::sql::catalog::Layout;
use crate::sql::value::{DataType, Value};
use crate::storage::keys;
use std::sync::Arc;

const NULL: u8 = 0;
const IN_KEY: u8 = 1;
const FALSE: u8 = 2;
const TRUE: u8 = 3;
const INT: u8 = 4;
const FLOAT: u8 = 5;
const TEXT: u8 = 6;
const BLOB: u8 = 7;
const TIMESTAMP: u8 = 8;
const SMALL: u8 = 0x80;

/// True where the value of `slot` is left to the key.
fn is_in_key(layout: &Layout, slot: usize) -> bool {
    layout.key.contains(&(slot as u16)) && layout.columns[slot].data_type != DataType::Float
}

/// Appends the image of a row. Fewer values than the layout has slots leave the trailing ones missing.
pub fn encode(layout: &Layout, values: &[Value], out: &mut Vec<u8>) {
    assert!(values.len() <= layout.columns.len(), "a row has no more values than its layout has slots");
    for (slot, value) in values.iter().enumerate() {
        if is_in_key(layout, slot) {
            out.push(IN_KEY);
            continue;
        }
        match value {
            Value::Null => out.push(NULL),
            Value::Bool(value) => out.push(if *value { TRUE } else { FALSE }),
            Value::Int(value) => push_int(out, *value),
            Value::Float(value) => push_float(out, *value),
            Value::Text(value) => push_string(out, TEXT, value.as_bytes()),
            Value::Blob(value) => push_string(out, BLOB, value),
            Value::Timestamp(value) => push_timestamp(out, *value),
        }
    }
}

/// Appends the image of row `row` of columns that stand in slot order.
pub fn encode_row(layout: &Layout, columns: &[Arc<Column>], row: usize, out: &mut Vec<u8>) {
    assert!(columns.len() <= layout.columns.len(), "a row has no more values than its layout has slots");
    for (slot, column) in columns.iter().enumerate() {
        if is_in_key(layout, slot) {
            out.push(IN_KEY);
            continue;
        }
        match &**column {
            Column::Vector { nulls: Some(nulls), .. } if nulls[row] => out.push(NULL),
            Column::Vector { values, .. } => match values {
                Values::Bool(values) => out.push(if values[row] { TRUE } else { FALSE }),
                Values::Int(values) => push_int(out, values[row]),
                Values::Float(values) => push_float(out, values[row]),
                Values::Text(values) => push_string(out, TEXT, values.get(row)),
                Values::Blob(values) => push_string(out, BLOB, values.get(row)),
                Values::Timestamp(values) => push_timestamp(out, values[row]),
            },
            Column::Constant { value, .. } => match value {
                Value::Null => out.push(NULL),
                Value::Bool(value) => out.push(if *value { TRUE } else { FALSE }),
                Value::Int(value) => push_int(out, *value),
                Value::Float(value) => push_float(out, *value),
                Value::Text(value) => push_string(out, TEXT, value.as_bytes()),
                Value::Blob(value) => push_string(out, BLOB, value),
                Value::Timestamp(value) => push_timestamp(out, *value),
            },
        }
    }
}

/// Appends the key of row `row` of columns that stand in slot order.
pub fn encode_key(layout: &Layout, columns: &[Arc<Column>], row: usize, out: &mut Vec<u8>) {
    layout.key.iter().for_each(|&slot| keys::push_cell(out, &columns[usize::from(slot)], row));
}

/// The key of a row whose values stand in slot order.
pub fn key_of(layout: &Layout, values: &[Value]) -> keys::Key {
    let mut out = Vec::with_capacity(32);
    layout.key.iter().for_each(|&slot| keys::push(&mut out, &values[usize::from(slot)]));
    keys::Key::new(&out)
}

/// All values of a row in slot order.
pub fn decode(layout: &Layout, key: &[u8], image: &[u8]) -> Result<Vec<Value>> {
    let slots: Vec<usize> = (0..layout.columns.len()).collect();
    let decoder = Decoder::new(layout, &slots);
    let mut columns = decoder.builders(1);
    decoder.decode(key, Some(image), &mut columns)?;
    let mut rest = image;
    let mut stored = 0;
    while !rest.is_empty() {
        skip_value(&mut rest)?;
        stored += 1;
    }
    if stored > layout.columns.len() {
        return Err(damaged());
    }
    Ok(columns.into_iter().map(|column| column.finish().value(0)).collect())
}

/// The value of one slot.
pub fn decode_slot(layout: &Layout, slot: usize, key: &[u8], image: &[u8]) -> Result<Value> {
    let decoder = Decoder::new(layout, &[slot]);
    let mut columns = decoder.builders(1);
    decoder.decode(key, Some(image), &mut columns)?;
    Ok(columns.remove(0).finish().value(0))
}

/// Decodes some slots of many rows of one layout, straight into columns.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// For each slot of the image up to the last one wanted, what becomes of it.
    slots: Vec<Fate>,
    /// For each component of the key up to the last one wanted, its type and the output that takes it.
    key: Vec<(DataType, Option<usize>)>,
    /// For each output, its type and what stands there where the image ends before it.
    outputs: Vec<Output>,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    /// The key has it.
    InKey,
    /// Nobody asked.
    Skip,
    /// Goes to this output.
    Take(usize),
}

#[derive(Clone, Debug)]
struct Output {
    data_type: DataType,
    missing: Value,
    /// The key holds the value, though for FLOAT not exactly: good enough for a tombstone.
    is_key: bool,
}

impl Decoder {
    /// A decoder of these slots, each named once; its outputs stand in this order.
    pub fn new(layout: &Layout, slots: &[usize]) -> Decoder {
        let output_of = |slot: usize| slots.iter().position(|&wanted| wanted == slot);
        let stored = slots.iter().filter(|&&slot| !is_in_key(layout, slot)).map(|slot| slot + 1).max().unwrap_or(0);
        let fate = |slot| match output_of(slot) {
            _ if is_in_key(layout, slot) => Fate::InKey,
            Some(output) => Fate::Take(output),
            None => Fate::Skip,
        };
        let mut key: Vec<(DataType, Option<usize>)> = layout
            .key
            .iter()
            .map(|&slot| (layout.columns[usize::from(slot)].data_type, output_of(usize::from(slot))))
            .collect();
        key.truncate(key.iter().rposition(|(_, output)| output.is_some()).map_or(0, |last| last + 1));
        let outputs = slots.iter().map(|&slot| Output {
            data_type: layout.columns[slot].data_type,
            missing: layout.columns[slot].missing.clone(),
            is_key: layout.key.contains(&(slot as u16)),
        });
        Decoder { slots: (0..stored).map(fate).collect(), key, outputs: outputs.collect() }
    }

    /// Empty columns to decode into, one for each slot asked for.
    pub fn builders(&self, rows: usize) -> Vec<ColumnBuilder> {
        self.outputs.iter().map(|output| ColumnBuilder::new(output.data_type, rows)).collect()
    }

    /// Adds one row to the columns. Without an image it is a tombstone: key columns, and NULL in the others. After an
    /// error the columns are of unequal length and of no use.
    pub fn decode(&self, key: &[u8], image: Option<&[u8]>, into: &mut [ColumnBuilder]) -> Result<()> {
        let mut rest = key;
        for &(data_type, output) in &self.key {
            match output {
                // A FLOAT is taken from the image, which has it exactly.
                Some(output) if image.is_none() || data_type != DataType::Float => {
                    keys::pull_into(&mut rest, &mut into[output])?;
                }
                Some(_) | None => keys::skip(&mut rest, data_type)?,
            }
        }
        let Some(mut rest) = image else {
            let not_in_key = self.outputs.iter().zip(into).filter(|(output, _)| !output.is_key);
            not_in_key.for_each(|(_, column)| column.push_null());
            return Ok(());
        };
        for fate in &self.slots {
            match *fate {
                Fate::Take(output) if rest.is_empty() => into[output].push(&self.outputs[output].missing),
                Fate::Take(output) => take_value(&mut rest, &mut into[output])?,
                Fate::InKey | Fate::Skip if rest.is_empty() => {}
                Fate::InKey => {
                    if take_byte(&mut rest)? != IN_KEY {
                        return Err(damaged());
                    }
                }
                Fate::Skip => skip_value(&mut rest)?,
            }
        }
        Ok(())
    }
}

fn take_value(rest: &mut &[u8], column: &mut ColumnBuilder) -> Result<()> {
    let tag = take_byte(rest)?;
    if tag == NULL {
        column.push_null();
        return Ok(());
    }
    match (tag, column.values_mut()) {
        (FALSE | TRUE, Values::Bool(values)) => values.push(tag == TRUE),
        (SMALL..=u8::MAX, Values::Int(values)) => values.push(i64::from(tag - SMALL)),
        (INT, Values::Int(values)) | (TIMESTAMP, Values::Timestamp(values)) => values.push(take_zigzag(rest)?),
        (FLOAT, Values::Float(values)) => {
            let (bits, tail) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
            *rest = tail;
            values.push(f64::from_bits(u64::from_le_bytes(*bits)));
        }
        (TEXT, Values::Text(values)) => {
            let string = take_string(rest)?;
            std::str::from_utf8(string).map_err(|_| damaged())?;
            values.push(string);
        }
        (BLOB, Values::Blob(values)) => values.push(take_string(rest)?),
        _ => return Err(damaged()),
    }
    Ok(())
}

fn skip_value(rest: &mut &[u8]) -> Result<()> {
    match take_byte(rest)? {
        NULL | IN_KEY | FALSE | TRUE | SMALL..=u8::MAX => Ok(()),
        INT | TIMESTAMP => take_varint(rest).map(|_| ()),
        FLOAT => {
            *rest = rest.get(8..).ok_or_else(damaged)?;
            Ok(())
        }
        TEXT | BLOB => take_string(rest).map(|_| ()),
        _ => Err(damaged()),
    }
}

fn push_int(out: &mut Vec<u8>, value: i64) {
    if (0..0x80).contains(&value) {
        out.push(SMALL | value as u8);
    } else {
        out.push(INT);
        push_varint(out, zigzag(value));
    }
}

fn push_timestamp(out: &mut Vec<u8>, value: i64) {
    out.push(TIMESTAMP);
    push_varint(out, zigzag(value));
}

fn push_float(out: &mut Vec<u8>, value: f64) {
    out.push(FLOAT);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn push_string(out: &mut Vec<u8>, tag: u8, string: &[u8]) {
    out.push(tag);
    push_varint(out, string.len() as u64);
    out.extend_from_slice(string);
}

/// Small magnitudes of either sign become small numbers.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Appends a number, seven bits a byte, least significant first.
pub(crate) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number that [`push_varint`] wrote off the front.
pub(crate) fn take_varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(rest)?;
        // The tenth byte has room for one bit.
        if shift == 63 && byte > 1 {
            return Err(damaged());
        }
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(damaged())
}

fn take_zigzag(rest: &mut &[u8]) -> Result<i64> {
    let value = take_varint(rest)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

fn take_string<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let len = usize::try_from(take_varint(rest)?).map_err(|_| damaged())?;
    let (string, tail) = rest.split_at_checked(len).ok_or_else(damaged)?;
    *rest = tail;
    Ok(string)
}

fn take_byte(rest: &mut &[u8]) -> Result<u8> {
    let (&byte, tail) = rest.split_first().ok_or_else(damaged)?;
    *rest = tail;
    Ok(byte)
}

fn damaged() -> Error {
    Error::damaged("a row image does not decode")
}
