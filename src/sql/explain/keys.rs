//! Key ranges in words: `device = 'a' AND ts >= 5`, as far as the bytes are whole components.

use super::sql_text::value_to_sql;
use crate::ids::ColumnId;
use crate::sql::catalog::Table;
use crate::sql::value::{DataType, Value};
use crate::storage::keys::{KeyRange, pull};

/// Ranges that are written out; of more, the first ones and their number.
const RANGES_MAX: usize = 5;

/// The ranges as text; none where they are all keys.
pub(super) fn ranges(ranges: &[KeyRange], columns: &[ColumnId], table: &Table) -> Option<String> {
    if ranges == [KeyRange::all()] {
        return None;
    }
    if ranges.is_empty() {
        return Some("none".to_owned());
    }
    let described: Vec<String> = ranges.iter().take(RANGES_MAX).map(|range| describe(range, columns, table)).collect();
    let more = ranges.len().saturating_sub(RANGES_MAX);
    let more = if more > 0 { format!(" or {more} more") } else { String::new() };
    Some(format!("{}{more}", described.join(" or ")))
}

fn describe(range: &KeyRange, columns: &[ColumnId], table: &Table) -> String {
    let (from, rest) = decode(&range.from, columns, table);
    let is_point = range.to.as_ref() == Some(&range.from.successor());
    if rest == 0 && (is_point || *range == KeyRange::prefix(&range.from)) {
        return format!("({}) = ({})", names(columns, from.len(), table), values(&from));
    }
    let mut parts = Vec::new();
    if let Some(text) = edge(&range.from, (">=", ">"), columns, table) {
        parts.push(text);
    }
    if let Some(to) = &range.to
        && let Some(text) = edge(to, ("<", "<="), columns, table)
    {
        parts.push(text);
    }
    if parts.is_empty() { "not null".to_owned() } else { parts.join(" and ") }
}

/// One end. Counted up by one, the bytes are behind all that begin with a value: the other of the two signs.
fn edge(bytes: &[u8], (at, behind): (&str, &str), columns: &[ColumnId], table: &Table) -> Option<String> {
    let said = |sign: &str, values_at: &[Value]| {
        format!("({}) {sign} ({})", names(columns, values_at.len(), table), values(values_at))
    };
    let (whole, rest) = decode(bytes, columns, table);
    if rest == 0 && !whole.is_empty() {
        return Some(said(at, &whole));
    }
    // One byte is the mark before or behind all values of the next column: it adds nothing to what stands before.
    if rest == 1 {
        let sign = if at == "<" { behind } else { at };
        return (!whole.is_empty()).then(|| said(sign, &whole));
    }
    let mut before = bytes.to_vec();
    *before.last_mut()? = before.last()?.checked_sub(1)?;
    let (counted, rest_counted) = decode(&before, columns, table);
    if rest_counted == 0 && !counted.is_empty() {
        return Some(said(behind, &counted));
    }
    // What is left is the beginning of a text.
    let beginning = String::from_utf8_lossy(&bytes[bytes.len() - rest..]).trim_start_matches('\u{1}').to_owned();
    let mut shown: Vec<String> = whole.iter().map(value_to_sql).collect();
    shown.push(format!("'{}'", beginning.escape_debug()));
    Some(format!("({}) {at} ({})", names(columns, shown.len(), table), shown.join(", ")))
}

/// The whole components, and how many bytes are left.
fn decode(bytes: &[u8], columns: &[ColumnId], table: &Table) -> (Vec<Value>, usize) {
    let mut rest = bytes;
    let mut found = Vec::new();
    for id in columns {
        let data_type = table.column_by_id(*id).map_or(DataType::Int, |column| column.data_type);
        let mut next = rest;
        match pull(&mut next, data_type) {
            Ok(value) => found.push(value),
            Err(_) => break,
        }
        rest = next;
    }
    (found, rest.len())
}

fn names(columns: &[ColumnId], count: usize, table: &Table) -> String {
    let name = |id: &ColumnId| table.column_by_id(*id).map_or("row id", |column| column.name.as_str()).to_owned();
    let names: Vec<String> = columns.iter().take(count.max(1)).map(name).collect();
    names.join(", ")
}

fn values(values: &[Value]) -> String {
    let values: Vec<String> = values.iter().map(value_to_sql).collect();
    values.join(", ")
}
