//! What a manifest knows of a block: counts, newest stamps, and a zone for each column.

use crate::ids::LogIndex;
use crate::sql::batch::{Column, Strings, Values};
use crate::sql::value::{Value, order_floats};
use crate::storage::level::{Summary, Zone};
use crate::storage::rows::Metadata;
use std::sync::Arc;

/// Bytes of a string in a zone. Longer ones are cut: a zone leaves out blocks, and most strings differ early.
pub const ZONE_STRING_BYTES_MAX: usize = 32;

/// The summary of these columns, in their order.
pub fn of(columns: &[Arc<Column>], metadata: &Metadata) -> Summary {
    let Metadata { created_ms, hlc, origin: _, modified, tombstone } = metadata;
    let greatest = |values: &[u64]| values.iter().copied().max().unwrap_or(0);
    let living = created_ms.iter().zip(tombstone).filter(|(_, tombstone)| !**tombstone);
    Summary {
        rows: metadata.len() as u32,
        tombstones: tombstone.iter().filter(|mark| **mark).count() as u32,
        created_min_ms: living.map(|(created, _)| *created).min().unwrap_or(u64::MAX),
        created_max_ms: greatest(created_ms),
        hlc_max: greatest(hlc),
        modified_max: LogIndex(greatest(modified)),
        zones: columns.iter().map(|column| zone(column)).collect(),
    }
}

fn zone(column: &Column) -> Zone {
    match column {
        Column::Constant { value, rows, .. } => {
            let nulls = if value.is_null() { *rows as u32 } else { 0 };
            Zone { min: lower(value.clone()), max: upper(value.clone()), nulls }
        }
        Column::Vector { values, nulls } => {
            let nulls = nulls.as_deref();
            let (min, max) = extremes(values, nulls);
            let nulls = nulls.map_or(0, |nulls| nulls.iter().filter(|null| **null).count() as u32);
            Zone { min: lower(min), max: upper(max), nulls }
        }
    }
}

fn extremes(values: &Values, nulls: Option<&[bool]>) -> (Value, Value) {
    match values {
        Values::Bool(values) => both(range(values, nulls, bool::cmp), Value::Bool),
        Values::Int(values) => both(range(values, nulls, i64::cmp), Value::Int),
        Values::Timestamp(values) => both(range(values, nulls, i64::cmp), Value::Timestamp),
        Values::Float(values) => both(range(values, nulls, |a, b| order_floats(*a, *b)), Value::Float),
        Values::Text(values) => {
            let text = |bytes: &[u8]| Value::Text(String::from_utf8_lossy(bytes).into_owned());
            both(string_range(values, nulls), text)
        }
        Values::Blob(values) => both(string_range(values, nulls), |bytes: &[u8]| Value::Blob(bytes.to_vec())),
    }
}

fn both<T>(range: Option<(T, T)>, value: impl Fn(T) -> Value) -> (Value, Value) {
    range.map_or((Value::Null, Value::Null), |(min, max)| (value(min), value(max)))
}

fn range<T: Copy>(
    values: &[T],
    nulls: Option<&[bool]>,
    order: impl Fn(&T, &T) -> std::cmp::Ordering,
) -> Option<(T, T)> {
    let widen = |range: Option<(T, T)>, value: &T| {
        let (min, max) = range.unwrap_or((*value, *value));
        let min = if order(value, &min).is_lt() { *value } else { min };
        Some((min, if order(value, &max).is_gt() { *value } else { max }))
    };
    match nulls {
        None => values.iter().fold(None, widen),
        Some(nulls) => values.iter().zip(nulls).filter(|(_, null)| !**null).map(|(value, _)| value).fold(None, widen),
    }
}

fn string_range<'a>(values: &'a Strings, nulls: Option<&[bool]>) -> Option<(&'a [u8], &'a [u8])> {
    let present = || values.iter().enumerate().filter(|(row, _)| nulls.is_none_or(|nulls| !nulls[*row]));
    let min = present().map(|(_, value)| value).min()?;
    let max = present().map(|(_, value)| value).max()?;
    Some((min, max))
}

/// A value not above this one, short.
fn lower(value: Value) -> Value {
    match value {
        Value::Text(text) => Value::Text(head(&text).to_owned()),
        Value::Blob(mut bytes) => {
            bytes.truncate(ZONE_STRING_BYTES_MAX);
            Value::Blob(bytes)
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Timestamp(_) => value,
    }
}

/// A value not below this one, short where there is such a value.
fn upper(value: Value) -> Value {
    match value {
        Value::Text(text) if text.len() > ZONE_STRING_BYTES_MAX => Value::Text(text_above(head(&text)).unwrap_or(text)),
        Value::Blob(bytes) if bytes.len() > ZONE_STRING_BYTES_MAX => {
            let mut above = bytes[..ZONE_STRING_BYTES_MAX].to_vec();
            while let Some(last) = above.pop() {
                if last < 0xFF {
                    above.push(last + 1);
                    return Value::Blob(above);
                }
            }
            Value::Blob(bytes)
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Blob(_)
        | Value::Timestamp(_) => value,
    }
}

/// The beginning of a text, cut between characters.
fn head(text: &str) -> &str {
    &text[..text.floor_char_boundary(ZONE_STRING_BYTES_MAX)]
}

/// The least text that is above everything beginning with `prefix`: its last character counted up.
fn text_above(prefix: &str) -> Option<String> {
    let mut characters = prefix.chars();
    while let Some(last) = characters.next_back() {
        // Stepping over the surrogates, which are no characters.
        if let Some(next) = (last..=char::MAX).nth(1) {
            return Some(format!("{}{next}", characters.as_str()));
        }
    }
    None
}
