//! Cuts long runs of rows into blocks of the wanted size.
//!
//! How small rows get is known only after encoding them, so each block is sized by what the one before came to; the
//! first, and any that turns out too large, is encoded again with fewer rows.

use crate::sql::batch::Strings;
use crate::sql::catalog::Layout;
use crate::storage::block::{BLOCK_ROWS_MAX, Block};
use crate::storage::level::Summary;
use crate::storage::rows::{Metadata, Rows};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a block's columns in memory, about: what a reader holds at once. Eight such fit the smallest cache.
const DECODED_BYTES_MAX: usize = 2 << 20;

/// How large blocks become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows of a block at most.
    pub rows_max: usize,
    /// Encoded bytes of a block at most; a single row may be larger.
    pub bytes_max: usize,
}

impl Limits {
    /// Blocks of sealed files: the table in `block` says why 2,048 rows. Long strings make a block of fewer, so that
    /// one row of it does not cost the reading of a megabyte.
    pub const SEALED: Limits = Limits { rows_max: 2048, bytes_max: 64 << 10 };

    /// Blocks of the hot store: small, for they are still rewritten.
    pub const HOT: Limits = Limits { rows_max: 1024, bytes_max: 8000 };
}

/// Encodes all rows, block by block; `each` is told which rows a block holds.
///
/// No block but one of a single row is larger than `limits.bytes_max`. The last two share what is left, so no tail of
/// a few rows makes a block of its own.
pub fn encode_cut(layout: &Layout, rows: &Rows, limits: Limits, mut each: impl FnMut(Range<usize>, Vec<u8>, Summary)) {
    let columns: usize = rows.columns.iter().map(|column| column.byte_len()).sum();
    let decoded = columns + rows.keys.byte_len();
    let rows_in_memory = DECODED_BYTES_MAX / decoded.div_ceil(rows.len().max(1)).max(1);
    let rows_max = limits.rows_max.min(rows_in_memory).clamp(1, BLOCK_ROWS_MAX);
    let mut from = 0;
    let mut wanted = rows_max;
    while from < rows.len() {
        let left = rows.len() - from;
        let mut count = share(left, wanted);
        let (bytes, summary) = loop {
            let encoded = Block::encode(layout, &slice(rows, from..from + count));
            let length = encoded.0.len();
            // A fortieth less than what would just fit, since the next rows may be a little larger.
            let target = (limits.bytes_max - limits.bytes_max / 40) as u64;
            wanted = ((count as u64 * target / length as u64) as usize).clamp(1, rows_max);
            if length <= limits.bytes_max || count == 1 {
                break encoded;
            }
            count = share(left, wanted).min(count - 1);
        };
        each(from..from + count, bytes, summary);
        from += count;
    }
}

/// Rows of the next block, where `wanted` fill one: the last two blocks share what is left.
fn share(left: usize, wanted: usize) -> usize {
    match left {
        _ if left <= wanted => left,
        _ if left < wanted * 2 => left.div_ceil(2),
        _ => wanted,
    }
}

/// Some of the rows, as rows of their own.
pub fn slice(rows: &Rows, range: Range<usize>) -> Rows {
    if range == (0..rows.len()) {
        return rows.clone();
    }
    let Metadata { created_ms, hlc, origin, modified, tombstone } = &rows.metadata;
    let keys: Strings = range.clone().map(|row| rows.keys.get(row)).collect();
    Rows {
        keys,
        columns: rows.columns.iter().map(|column| Arc::new(column.slice(range.start, range.end))).collect(),
        metadata: Metadata {
            created_ms: created_ms[range.clone()].to_vec(),
            hlc: hlc[range.clone()].to_vec(),
            origin: origin[range.clone()].to_vec(),
            modified: modified[range.clone()].to_vec(),
            tombstone: tombstone[range].to_vec(),
        },
    }
}
