//! Keys out of key columns, without a value of SQL for each row.
//!
//! Where every component has one width (numbers without NULL, constants), keys are laid out in a grid and filled column
//! by column; otherwise row by row. A search needs no keys at all, only those of the rows that it probes.

use crate::error::{Error, Result};
use crate::sql::batch::{Column, Strings, Values};
use crate::sql::catalog::Layout;
use crate::storage::keys::{self, NUMBER_BYTES};
use std::sync::Arc;

/// Bytes of a boolean's component.
const BOOL_BYTES: usize = 2;

/// Bytes that the keys of one block may take. Blocks are cut at a hundredth of this; what claims more is damaged.
const KEY_BYTES_MAX: usize = 256 << 20;

/// The keys of rows whose columns stand in the slots of `layout`.
pub fn build_keys(layout: &Layout, columns: &[Arc<Column>], rows: usize) -> Result<Strings> {
    let columns: Vec<&Column> = layout.key.iter().map(|&slot| &*columns[slot as usize]).collect();
    encode(&columns, rows)
}

/// The keys of `rows` rows, from the columns of the key in key order.
pub fn encode(columns: &[&Column], rows: usize) -> Result<Strings> {
    let parts: Vec<Part<'_>> = columns.iter().map(|column| Part::of(column)).collect();
    let widths = parts.iter().map(|part| part.bytes_at_most(rows));
    if widths.fold(0, usize::saturating_add) > KEY_BYTES_MAX {
        return Err(Error::damaged(format!("a block's keys take more than {KEY_BYTES_MAX} bytes")));
    }
    let keys = match parts.iter().map(Part::width).sum::<Option<usize>>() {
        Some(width) if width > 0 => grid(&parts, width, rows),
        Some(_) | None => row_by_row(&parts, rows),
    };
    keys.ok_or_else(|| Error::damaged("a block's keys do not fit together"))
}

/// Finds `key` among rows in key order, from the columns of the key in key order: the row, or where it would stand.
pub fn search_keys(columns: &[Arc<Column>], rows: usize, key: &[u8]) -> Result<usize, usize> {
    let parts: Vec<Part<'_>> = columns.iter().map(|column| Part::of(column)).collect();
    let mut probe = Vec::with_capacity(key.len() + NUMBER_BYTES);
    let (mut low, mut high) = (0, rows);
    while low < high {
        let middle = low.midpoint(high);
        probe.clear();
        for part in &parts {
            part.push(middle, &mut probe);
        }
        match probe.as_slice().cmp(key) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Equal => return Ok(middle),
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    Err(low)
}

/// One component of the keys.
enum Part<'a> {
    Constant(Vec<u8>),
    Bool(&'a [bool], Option<&'a [bool]>),
    Int(&'a [i64], Option<&'a [bool]>),
    Float(&'a [f64], Option<&'a [bool]>),
    Bytes(&'a Strings, Option<&'a [bool]>),
}

impl<'a> Part<'a> {
    fn of(column: &'a Column) -> Part<'a> {
        match column {
            Column::Constant { value, .. } => {
                let mut component = Vec::new();
                keys::push(&mut component, value);
                Part::Constant(component)
            }
            Column::Vector { values, nulls } => {
                let nulls = nulls.as_deref();
                match values {
                    Values::Bool(values) => Part::Bool(values, nulls),
                    Values::Int(values) | Values::Timestamp(values) => Part::Int(values, nulls),
                    Values::Float(values) => Part::Float(values, nulls),
                    Values::Text(values) | Values::Blob(values) => Part::Bytes(values, nulls),
                }
            }
        }
    }

    /// Bytes of the component, where they are the same in every row.
    fn width(&self) -> Option<usize> {
        match self {
            Part::Constant(component) => Some(component.len()),
            Part::Bool(_, None) => Some(BOOL_BYTES),
            Part::Int(_, None) | Part::Float(_, None) => Some(NUMBER_BYTES),
            Part::Bool(..) | Part::Int(..) | Part::Float(..) | Part::Bytes(..) => None,
        }
    }

    /// Bytes of the component in all rows, at most.
    fn bytes_at_most(&self, rows: usize) -> usize {
        match self {
            Part::Constant(component) => component.len().saturating_mul(rows),
            Part::Bool(..) | Part::Int(..) | Part::Float(..) => NUMBER_BYTES * rows,
            // Each byte may need escaping, and each string has its mark and its end.
            Part::Bytes(values, _) => values.byte_len().saturating_mul(2).saturating_add(3 * rows),
        }
    }

    fn push(&self, row: usize, out: &mut Vec<u8>) {
        let null_at = |nulls: Option<&[bool]>| nulls.is_some_and(|nulls| nulls[row]);
        match self {
            Part::Constant(component) => out.extend_from_slice(component),
            Part::Bool(_, nulls) | Part::Int(_, nulls) | Part::Float(_, nulls) | Part::Bytes(_, nulls)
                if null_at(*nulls) =>
            {
                keys::push_null(out);
            }
            Part::Bool(values, _) => keys::push_bool(out, values[row]),
            Part::Int(values, _) => keys::push_int(out, values[row]),
            Part::Float(values, _) => keys::push_float(out, values[row]),
            Part::Bytes(values, _) => keys::push_bytes(out, values.get(row)),
        }
    }
}

/// All keys have `width` bytes: components are written down the rows.
fn grid(parts: &[Part<'_>], width: usize, rows: usize) -> Option<Strings> {
    let offsets = (0..=rows).map(|row| (row * width) as u32).collect();
    let mut bytes = vec![0; rows * width];
    let mut at = 0;
    for part in parts {
        let cells = bytes.chunks_exact_mut(width).map(|key| &mut key[at..]);
        match part {
            Part::Constant(constant) => cells.for_each(|cell| cell[..constant.len()].copy_from_slice(constant)),
            Part::Int(values, _) => {
                cells.zip(*values).for_each(|(cell, &value)| put(cell, keys::int_component(value)));
            }
            Part::Float(values, _) => {
                cells.zip(*values).for_each(|(cell, &value)| put(cell, keys::float_component(value)));
            }
            Part::Bool(..) | Part::Bytes(..) => {
                let mut component = Vec::with_capacity(BOOL_BYTES);
                cells.enumerate().for_each(|(row, cell)| {
                    component.clear();
                    part.push(row, &mut component);
                    cell[..component.len()].copy_from_slice(&component);
                });
            }
        }
        at += part.width()?;
    }
    Strings::from_parts(offsets, bytes)
}

fn put(cell: &mut [u8], component: [u8; NUMBER_BYTES]) {
    if let Some(cell) = cell.first_chunk_mut() {
        *cell = component;
    }
}

fn row_by_row(parts: &[Part<'_>], rows: usize) -> Option<Strings> {
    let mut bytes = Vec::new();
    let mut offsets = Vec::with_capacity(rows + 1);
    offsets.push(0);
    for row in 0..rows {
        for part in parts {
            part.push(row, &mut bytes);
        }
        offsets.push(bytes.len() as u32);
    }
    Strings::from_parts(offsets, bytes)
}
