//! Keys: bytes that compare as the values they stand for.
//!
//! ```text
//! key       = component*
//! component = 01 payload | FF                     FF is NULL: it sorts last
//! INT, TIMESTAMP  8 bytes big-endian, sign bit flipped
//! FLOAT           8 bytes big-endian; positive: sign bit set, negative: all bits flipped; -0.0 as 0.0, one NaN above all
//! BOOL            1 byte
//! TEXT, BLOB      the bytes, 00 as 00 FF, then 00 00
//! ```
//!
//! * `encode(a) < encode(b)` exactly where `a < b` component by component ([`Value::order`]).
//! * No encoded component is a prefix of another, so composites compare by concatenation.
//! * Decoding gives the value back, but for the sign of -0.0 and the payload of a NaN.

use crate::error::{Error, Result};
use crate::sql::batch::{Column, ColumnBuilder, Values};
use crate::sql::value::{DataType, Value};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

const PRESENT: u8 = 0x01;
const NULL: u8 = 0xFF;

/// Bytes a key holds without a heap allocation: three components of 8 bytes with their marks, and some.
const INLINE_BYTES: usize = 30;

/// One encoded key. 32 bytes, most keys without an allocation.
#[derive(Clone)]
pub struct Key(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE_BYTES] },
    Heap(Box<[u8]>),
}

impl Key {
    /// A key of these encoded bytes.
    pub fn new(encoded: &[u8]) -> Key {
        if encoded.len() <= INLINE_BYTES {
            let mut bytes = [0; INLINE_BYTES];
            bytes[..encoded.len()].copy_from_slice(encoded);
            Key(Repr::Inline { len: encoded.len() as u8, bytes })
        } else {
            Key(Repr::Heap(encoded.into()))
        }
    }

    /// The smallest key above this one.
    #[must_use]
    pub fn successor(&self) -> Key {
        let mut bytes = self.to_vec();
        bytes.push(0);
        Key::new(&bytes)
    }

    /// Bytes on the heap, beside the key's own 32.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Inline { .. } => 0,
            Repr::Heap(bytes) => bytes.len(),
        }
    }
}

impl Deref for Key {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..*len as usize],
            Repr::Heap(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        **self == **other
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Key, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Key::new)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Keys from `from` up to but without `to`; no `to` means up to the end of the keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// First key that belongs.
    pub from: Key,
    /// First key that no longer belongs.
    pub to: Option<Key>,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> KeyRange {
        KeyRange { from: Key::new(&[]), to: None }
    }

    /// One key.
    pub fn point(key: &Key) -> KeyRange {
        KeyRange { from: key.clone(), to: Some(key.successor()) }
    }

    /// Keys that begin with `prefix`, which is whole components.
    pub fn prefix(prefix: &[u8]) -> KeyRange {
        let mut to = prefix.to_vec();
        // The prefix counted up by one is the first key that no longer begins with it.
        while let Some(last) = to.pop() {
            if last < 0xFF {
                to.push(last + 1);
                return KeyRange { from: Key::new(prefix), to: Some(Key::new(&to)) };
            }
        }
        KeyRange { from: Key::new(prefix), to: None }
    }

    /// True where `key` belongs.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &*self.from && self.to.as_ref().is_none_or(|to| key < &**to)
    }

    /// True where a key between `first` and `last` (both included) may belong.
    pub fn overlaps(&self, first: &[u8], last: &[u8]) -> bool {
        last >= &*self.from && self.to.as_ref().is_none_or(|to| first < &**to)
    }

    /// True where no key can belong.
    pub fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }
}

/// Bytes of a number's component.
pub const NUMBER_BYTES: usize = 9;

/// An integer (or timestamp) component.
pub fn int_component(value: i64) -> [u8; NUMBER_BYTES] {
    number_component(value as u64 ^ 1 << 63)
}

/// A floating-point component.
pub fn float_component(value: f64) -> [u8; NUMBER_BYTES] {
    number_component(order_bits(value))
}

fn number_component(ordered: u64) -> [u8; NUMBER_BYTES] {
    let mut component = [PRESENT; NUMBER_BYTES];
    component[1..].copy_from_slice(&ordered.to_be_bytes());
    component
}

/// Appends an integer (or timestamp) component.
pub fn push_int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&int_component(value));
}

/// Appends a floating-point component.
pub fn push_float(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&float_component(value));
}

/// Appends a string component.
pub fn push_bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.push(PRESENT);
    for &byte in value {
        out.push(byte);
        if byte == 0 {
            out.push(0xFF);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

/// Appends a boolean component.
pub fn push_bool(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(&[PRESENT, u8::from(value)]);
}

/// Appends a NULL.
pub fn push_null(out: &mut Vec<u8>) {
    out.push(NULL);
}

/// Appends any value.
pub fn push(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => push_null(out),
        Value::Bool(value) => push_bool(out, *value),
        Value::Int(value) | Value::Timestamp(value) => push_int(out, *value),
        Value::Float(value) => push_float(out, *value),
        Value::Text(value) => push_bytes(out, value.as_bytes()),
        Value::Blob(value) => push_bytes(out, value),
    }
}

/// Appends the value in row `row` of a column, without making a [`Value`] of it.
pub fn push_cell(out: &mut Vec<u8>, column: &Column, row: usize) {
    match column {
        Column::Constant { value, .. } => push(out, value),
        Column::Vector { nulls: Some(nulls), .. } if nulls[row] => push_null(out),
        Column::Vector { values, .. } => match values {
            Values::Bool(values) => push_bool(out, values[row]),
            Values::Int(values) | Values::Timestamp(values) => push_int(out, values[row]),
            Values::Float(values) => push_float(out, values[row]),
            Values::Text(values) | Values::Blob(values) => push_bytes(out, values.get(row)),
        },
    }
}

/// The key of these values, component by component.
pub fn encode(values: &[Value]) -> Key {
    let mut out = Vec::with_capacity(INLINE_BYTES);
    values.iter().for_each(|value| push(&mut out, value));
    Key::new(&out)
}

/// The values of a key whose components have these types.
pub fn decode(key: &[u8], types: &[DataType]) -> Result<Vec<Value>> {
    let mut rest = key;
    let values = types.iter().map(|&data_type| pull(&mut rest, data_type)).collect::<Result<Vec<Value>>>()?;
    if rest.is_empty() { Ok(values) } else { Err(malformed()) }
}

/// Takes one component off the front.
pub fn pull(rest: &mut &[u8], data_type: DataType) -> Result<Value> {
    let (&mark, tail) = rest.split_first().ok_or_else(malformed)?;
    *rest = tail;
    match mark {
        NULL => Ok(Value::Null),
        PRESENT => match data_type {
            DataType::Bool => Ok(Value::Bool(take::<1>(rest)? != [0])),
            DataType::Int => Ok(Value::Int(int_of(take(rest)?))),
            DataType::Timestamp => Ok(Value::Timestamp(int_of(take(rest)?))),
            DataType::Float => Ok(Value::Float(float_of(u64::from_be_bytes(take(rest)?)))),
            DataType::Text => String::from_utf8(take_bytes(rest)?).map(Value::Text).map_err(|_| malformed()),
            DataType::Blob => Ok(Value::Blob(take_bytes(rest)?)),
        },
        _ => Err(malformed()),
    }
}

/// Takes one component off the front and adds it to a column of its type, without a [`Value`] in between.
pub fn pull_into(rest: &mut &[u8], column: &mut ColumnBuilder) -> Result<()> {
    let mut payload = *rest;
    match take::<1>(&mut payload)? {
        [NULL] => column.push_null(),
        [PRESENT] => match column.values_mut() {
            Values::Bool(values) => values.push(take::<1>(&mut payload)? != [0]),
            Values::Int(values) | Values::Timestamp(values) => values.push(int_of(take(&mut payload)?)),
            Values::Float(values) => values.push(float_of(u64::from_be_bytes(take(&mut payload)?))),
            Values::Text(_) | Values::Blob(_) => return pull_string_into(rest, column),
        },
        _ => return Err(malformed()),
    }
    *rest = payload;
    Ok(())
}

fn pull_string_into(rest: &mut &[u8], column: &mut ColumnBuilder) -> Result<()> {
    let component = *rest;
    let is_text = matches!(column.values_mut(), Values::Text(_));
    skip(rest, if is_text { DataType::Text } else { DataType::Blob })?;
    // Between the mark and the two bytes of the terminator.
    let escaped = &component[1..component.len() - rest.len() - 2];
    let unescaped;
    let string = if escaped.contains(&0) {
        unescaped = take_bytes(&mut &component[1..])?;
        unescaped.as_slice()
    } else {
        escaped
    };
    if is_text && std::str::from_utf8(string).is_err() {
        return Err(malformed());
    }
    match column.values_mut() {
        Values::Text(values) | Values::Blob(values) => values.push(string),
        Values::Bool(_) | Values::Int(_) | Values::Float(_) | Values::Timestamp(_) => return Err(malformed()),
    }
    Ok(())
}

/// Takes one component off the front without looking into it.
pub fn skip(rest: &mut &[u8], data_type: DataType) -> Result<()> {
    match take::<1>(rest)? {
        [NULL] => Ok(()),
        [PRESENT] => match data_type {
            DataType::Bool => take::<1>(rest).map(|_| ()),
            DataType::Int | DataType::Timestamp | DataType::Float => take::<8>(rest).map(|_| ()),
            DataType::Text | DataType::Blob => loop {
                let zero = rest.iter().position(|&byte| byte == 0).ok_or_else(malformed)?;
                *rest = &rest[zero + 1..];
                match take::<1>(rest)? {
                    [0xFF] => {}
                    [0] => return Ok(()),
                    _ => return Err(malformed()),
                }
            },
        },
        _ => Err(malformed()),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or_else(malformed)?;
    *rest = tail;
    Ok(*head)
}

fn take_bytes(rest: &mut &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let [byte] = take::<1>(rest)?;
        if byte != 0 {
            out.push(byte);
            continue;
        }
        match take::<1>(rest)? {
            [0xFF] => out.push(0),
            [0] => return Ok(out),
            _ => return Err(malformed()),
        }
    }
}

fn int_of(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ 1 << 63) as i64
}

fn order_bits(value: f64) -> u64 {
    if value.is_nan() {
        return u64::MAX;
    }
    // Adding 0.0 turns -0.0 into 0.0.
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

fn float_of(ordered: u64) -> f64 {
    match ordered {
        u64::MAX => f64::NAN,
        _ if ordered >> 63 == 1 => f64::from_bits(ordered & !(1 << 63)),
        _ => f64::from_bits(!ordered),
    }
}

fn malformed() -> Error {
    Error::damaged("a stored key does not decode")
}
