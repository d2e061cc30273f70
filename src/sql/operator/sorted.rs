//! Sorted runs: what a sort makes of each batch, and how runs are merged.
//!
//! Sort keys are encoded as bytes that compare like the keys ([`crate::storage::keys`]), with the bytes of a descending
//! key inverted and NULL marked to go where it was asked to. So one comparison of bytes orders rows by any keys.
//!
//! Before that a *word* is made of each row's first key, a column at a time: `word(a) < word(b)` only where `a < b`.
//! Words decide most comparisons from a register, and with LIMIT they drop most rows before a key is encoded.

use crate::error::Result;
use crate::sql::batch::{Batch, Column, ColumnBuilder, Strings, Values};
use crate::storage::keys;

use crate::sql::plan::SortKey;
use crate::sql::value::{DataType, Value};
use std::cmp::Ordering;
use std::sync::Arc;

/// Marks before a component: NULL below or above every value (a present component begins with 1).
const NULL_FIRST: u8 = 0;
const NULL_LAST: u8 = 0xFF;

/// A place in the order: the word, and the key that decides where words are equal.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    word: u64,
    key: Vec<u8>,
}

/// Rows in order, with their words and encoded keys.
pub(super) struct Run {
    pub(super) batch: Batch,
    words: Vec<u64>,
    keys: Strings,
}

impl Run {
    /// The rows of a batch in order, equal ones as they came; no more than the first `limit`, and of those none that is
    /// not below `bound`. None where no row is left.
    pub(super) fn sort(batch: Batch, order: &[SortKey], limit: usize, bound: Option<&Bound>) -> Result<Option<Run>> {
        let columns = order.iter().map(|key| key.expression.evaluate(&batch)).collect::<Result<Vec<_>>>()?;
        let words = words(columns.first().zip(order.first()), batch.rows);
        let mut rows: Vec<u32> = (0..batch.rows as u32).collect();
        if let Some(bound) = bound {
            rows.retain(|&row| words[row as usize] <= bound.word);
        }
        let keys = encode(&columns, order, &rows);
        // Word, place among the keys, row. Places are in the order of rows, so they make the sort stable.
        let mut entries: Vec<(u64, u32, u32)> =
            (0u32..).zip(rows).map(|(place, row)| (words[row as usize], place, row)).collect();
        if let Some(bound) = bound {
            entries.retain(|&(word, place, _)| (word, keys.get(place as usize)) < (bound.word, &bound.key[..]));
        }
        let compare = |a: &(u64, u32, u32), b: &(u64, u32, u32)| {
            a.0.cmp(&b.0).then_with(|| keys.get(a.1 as usize).cmp(keys.get(b.1 as usize))).then(a.1.cmp(&b.1))
        };
        if limit < entries.len() {
            // Which rows are the first, then their order: cheaper than to order all of them.
            entries.select_nth_unstable_by(limit, compare);
            entries.truncate(limit);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        // Batches of a scan are often in the order asked for.
        if !entries.is_sorted_by(|a, b| compare(a, b) == Ordering::Less) {
            entries.sort_unstable_by(compare);
        }
        let words = entries.iter().map(|entry| entry.0).collect();
        let rows: Vec<u32> = entries.iter().map(|entry| entry.2).collect();
        if rows.len() == batch.rows && rows.is_sorted() {
            return Ok(Some(Run { batch, words, keys }));
        }
        let keys = entries.iter().map(|entry| keys.get(entry.1 as usize)).collect();
        Ok(Some(Run { batch: batch.gather(&rows), words, keys }))
    }

    /// Where row `i` stands.
    pub(super) fn bound(&self, i: usize) -> Bound {
        Bound { word: self.words[i], key: self.keys.get(i).to_vec() }
    }

    /// Bytes held.
    pub(super) fn byte_len(&self) -> usize {
        super::batch_bytes(&self.batch) + self.keys.byte_len() + self.keys.len() * (4 + 8)
    }

    fn place(&self, i: usize) -> (u64, &[u8]) {
        (self.words[i], self.keys.get(i))
    }
}

impl Bound {
    /// True where this place is before another.
    pub(super) fn is_before(&self, other: &Bound) -> bool {
        (self.word, &self.key) < (other.word, &other.key)
    }
}

/// A word for each row, of its first sort key.
fn words(first: Option<(&Arc<Column>, &SortKey)>, rows: usize) -> Vec<u64> {
    let Some((column, by)) = first else { return vec![0; rows] };
    // One bit is given up, so that a word above all is free for NULL.
    let turn = |word: u64| if by.descending { !word >> 1 } else { word >> 1 };
    let null = if by.nulls_first { 0 } else { u64::MAX };
    let (values, nulls) = match &**column {
        Column::Vector { values, nulls } => (values, nulls),
        Column::Constant { value, .. } => {
            let word = match value {
                Value::Null => null,
                Value::Bool(value) => turn(bool_word(*value)),
                Value::Int(value) | Value::Timestamp(value) => turn(int_word(*value)),
                Value::Float(value) => turn(float_word(*value)),
                Value::Text(value) => turn(head(value.as_bytes())),
                Value::Blob(value) => turn(head(value)),
            };
            return vec![word; rows];
        }
    };
    let mut words: Vec<u64> = match values {
        Values::Bool(values) => values.iter().map(|&value| turn(bool_word(value))).collect(),
        Values::Int(values) | Values::Timestamp(values) => values.iter().map(|&value| turn(int_word(value))).collect(),
        Values::Float(values) => values.iter().map(|&value| turn(float_word(value))).collect(),
        Values::Text(values) | Values::Blob(values) => values.iter().map(|value| turn(head(value))).collect(),
    };
    if let Some(nulls) = nulls {
        words.iter_mut().zip(nulls).filter(|(_, is_null)| **is_null).for_each(|(word, _)| *word = null);
    }
    words
}

fn bool_word(value: bool) -> u64 {
    u64::from(value) << 63
}

/// A word that orders like the INT.
fn int_word(value: i64) -> u64 {
    value as u64 ^ 1 << 63
}

/// A word that orders like the FLOAT: NaN above all, both zeros alike.
fn float_word(value: f64) -> u64 {
    if value.is_nan() {
        return u64::MAX;
    }
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

/// The first bytes of a string.
fn head(value: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let head = &value[..value.len().min(8)];
    bytes[..head.len()].copy_from_slice(head);
    u64::from_be_bytes(bytes)
}

/// The encoded keys of the rows named.
fn encode(columns: &[Arc<Column>], order: &[SortKey], rows: &[u32]) -> Strings {
    let mut keys = Strings::default();
    let mut key = Vec::new();
    for &row in rows {
        key.clear();
        for (column, by) in columns.iter().zip(order) {
            if column.is_null(row as usize) {
                key.push(if by.nulls_first { NULL_FIRST } else { NULL_LAST });
                continue;
            }
            let begin = key.len() + 1;
            keys::push_cell(&mut key, column, row as usize);
            if by.descending {
                key[begin..].iter_mut().for_each(|byte| *byte = !*byte);
            }
        }
        keys.push(&key);
    }
    keys
}

/// Takes rows off several runs in order; equal rows from the earlier run first.
pub(super) struct Merge {
    runs: Vec<Run>,
    /// The next row of each run.
    next: Vec<usize>,
    /// Runs that have rows left, with the word of their next row, as a binary heap: the least on top.
    heap: Vec<(u64, usize)>,
}

/// Rows `from..to` of a run.
struct Piece {
    run: usize,
    from: usize,
    to: usize,
}

impl Merge {
    pub(super) fn new(runs: Vec<Run>) -> Merge {
        let heap = runs.iter().enumerate().map(|(run, rows)| (rows.words[0], run)).collect();
        let mut merge = Merge { next: vec![0; runs.len()], heap, runs };
        for at in (0..merge.heap.len() / 2).rev() {
            merge.sift(at);
        }
        merge
    }

    /// The next rows, at most so many; none at the end.
    pub(super) fn next_batch(&mut self, count: usize) -> Option<Batch> {
        let pieces = self.pieces(count);
        (!pieces.is_empty()).then(|| self.assemble(&pieces, count))
    }

    /// The next rows as a run, at most so many; none at the end.
    pub(super) fn next_run(&mut self, count: usize) -> Option<Run> {
        let pieces = self.pieces(count);
        if pieces.is_empty() {
            return None;
        }
        let batch = self.assemble(&pieces, count);
        let (mut words, mut keys) = (Vec::with_capacity(batch.rows), Strings::default());
        for Piece { run, from, to } in pieces {
            words.extend_from_slice(&self.runs[run].words[from..to]);
            (from..to).for_each(|row| keys.push(self.runs[run].keys.get(row)));
        }
        Some(Run { batch, words, keys })
    }

    fn pieces(&mut self, count: usize) -> Vec<Piece> {
        let (mut pieces, mut rows) = (Vec::new(), 0);
        while rows < count
            && let Some(&(_, run)) = self.heap.first()
        {
            let (from, to) = self.take(run, count - rows);
            rows += to - from;
            pieces.push(Piece { run, from, to });
        }
        pieces
    }

    fn assemble(&self, pieces: &[Piece], count: usize) -> Batch {
        let rows = pieces.iter().map(|piece| piece.to - piece.from).sum();
        let types: Vec<DataType> =
            self.runs[pieces[0].run].batch.columns.iter().map(|column| column.data_type()).collect();
        let column = |(index, of): (usize, DataType)| {
            let mut column = ColumnBuilder::new(of, count.min(rows));
            for &Piece { run, from, to } in pieces {
                column.extend(&self.runs[run].batch.columns[index], from, to);
            }
            Arc::new(column.finish())
        };
        Batch { columns: types.into_iter().enumerate().map(column).collect(), rows }
    }

    /// Takes from the run on top all rows that come before every other run's: often many together.
    fn take(&mut self, run: usize, count: usize) -> (usize, usize) {
        let from = self.next[run];
        let rows = &self.runs[run];
        let end = rows.batch.rows.min(from + count);
        // The second least head is one of the two below the top.
        let second = match (self.heap.get(1), self.heap.get(2)) {
            (Some(&a), Some(&b)) => Some(if self.before(a, b) { a.1 } else { b.1 }),
            (one, _) => one.map(|one| one.1),
        };
        let mut to = from + 1;
        match second {
            None => to = end,
            Some(second) => {
                let bound = self.runs[second].place(self.next[second]);
                // Words first: where they differ no key is looked at.
                let in_turn = |i: usize| match rows.words[i].cmp(&bound.0) {
                    Ordering::Less => true,
                    Ordering::Greater => false,
                    Ordering::Equal => match rows.keys.get(i).cmp(bound.1) {
                        Ordering::Less => true,
                        Ordering::Equal => run < second,
                        Ordering::Greater => false,
                    },
                };
                // All of a run that ends before the next begins goes at once.
                if in_turn(end - 1) {
                    to = end;
                }
                while to < end && in_turn(to) {
                    to += 1;
                }
            }
        }
        self.next[run] = to;
        match rows.words.get(to) {
            Some(&word) => self.heap[0].0 = word,
            None => {
                self.heap.swap_remove(0);
            }
        }
        self.sift(0);
        (from, to)
    }

    fn before(&self, a: (u64, usize), b: (u64, usize)) -> bool {
        let key = |run: usize| self.runs[run].keys.get(self.next[run]);
        match a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1))) {
            Ordering::Less => true,
            Ordering::Equal => a.1 < b.1,
            Ordering::Greater => false,
        }
    }

    /// Lets what stands at a place of the heap sink to where it belongs.
    fn sift(&mut self, mut at: usize) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let mut least = at;
            for child in [left, right] {
                if child < self.heap.len() && self.before(self.heap[child], self.heap[least]) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }
}
