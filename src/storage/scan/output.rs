//! The batch under construction: runs of rows from chunks, put end to end.
//!
//! Most batches are one run of one chunk: it is kept as it is and handed out without a copy where it is the whole
//! chunk. The second run makes it a copy.

use super::BATCH_BYTES_MAX;
use super::chunk::{Chunk, Live};
use super::request::Wanted;
use crate::error::Result;
use crate::sql::batch::{Batch, Column, ColumnBuilder, Strings};
use crate::storage::rows::Metadata;
use crate::storage::view::ScanBatch;
use std::mem;
use std::sync::Arc;

/// Rows gathered so far.
#[derive(Default)]
pub(super) struct Output {
    rows: usize,
    /// What they take in memory, about.
    bytes: usize,
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Empty,
    /// One run.
    Run { chunk: Arc<Chunk>, from: usize, to: usize },
    /// Several, copied.
    Copied { columns: Vec<ColumnBuilder>, keys: Strings, metadata: Metadata },
}

impl Output {
    /// How many rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// True where it is to be handed out before anything is added.
    pub(super) fn is_full(&self, wanted: &Wanted) -> bool {
        self.rows >= wanted.batch_rows || self.bytes >= BATCH_BYTES_MAX
    }

    /// How many rows of a chunk have room: at least one where the output is not full.
    pub(super) fn room(&self, wanted: &Wanted, chunk: &Chunk) -> Result<usize> {
        let rows = wanted.batch_rows - self.rows;
        if matches!(chunk.live, Live::None) {
            return Ok(rows);
        }
        Ok(rows.min((BATCH_BYTES_MAX - self.bytes).div_ceil(chunk.row_bytes(wanted)?)))
    }

    /// Adds those of the rows `from..to` of a chunk that are there.
    pub(super) fn push(&mut self, wanted: &Wanted, chunk: &Arc<Chunk>, from: usize, to: usize) -> Result<()> {
        match &chunk.live {
            Live::All => self.push_run(wanted, chunk, from, to),
            Live::None => Ok(()),
            Live::Some(live) => {
                let mut at = from;
                while let Some(start) = live[at..to].iter().position(|&live| live).map(|skipped| at + skipped) {
                    let end = live[start..to].iter().position(|&live| !live).map_or(to, |rows| start + rows);
                    self.push_run(wanted, chunk, start, end)?;
                    at = end;
                }
                Ok(())
            }
        }
    }

    fn push_run(&mut self, wanted: &Wanted, chunk: &Arc<Chunk>, from: usize, to: usize) -> Result<()> {
        self.rows += to - from;
        self.bytes += (to - from) * chunk.row_bytes(wanted)?;
        self.state = match mem::take(&mut self.state) {
            State::Empty => State::Run { chunk: chunk.clone(), from, to },
            State::Run { chunk: first, from: first_from, to: first_to } => {
                if Arc::ptr_eq(&first, chunk) && first_to == from {
                    State::Run { chunk: first, from: first_from, to }
                } else {
                    let rows = wanted.batch_rows.min(first.rows + chunk.rows);
                    let types = wanted.slots.iter().map(|&slot| wanted.layout.columns[slot].data_type);
                    let mut columns: Vec<_> = types.map(|data_type| ColumnBuilder::new(data_type, rows)).collect();
                    let (mut keys, mut metadata) = (Strings::default(), Metadata::default());
                    copy(wanted, &first, first_from, first_to, &mut columns, &mut keys, &mut metadata)?;
                    copy(wanted, chunk, from, to, &mut columns, &mut keys, &mut metadata)?;
                    State::Copied { columns, keys, metadata }
                }
            }
            State::Copied { mut columns, mut keys, mut metadata } => {
                copy(wanted, chunk, from, to, &mut columns, &mut keys, &mut metadata)?;
                State::Copied { columns, keys, metadata }
            }
        };
        Ok(())
    }

    /// The batch, never empty; the output is empty afterwards.
    pub(super) fn take(&mut self, wanted: &Wanted) -> Result<Option<ScanBatch>> {
        let rows = mem::take(&mut self.rows);
        self.bytes = 0;
        let (columns, keys) = match mem::take(&mut self.state) {
            State::Empty => return Ok(None),
            State::Run { chunk, from, to } => return run(wanted, &chunk, from, to).map(Some),
            State::Copied { columns, keys, metadata } => {
                let columns: Vec<_> = columns.into_iter().map(|column| Arc::new(column.finish())).collect();
                (columns, wanted.with_keys.then(|| (Arc::new(keys), Arc::new(metadata))))
            }
        };
        Ok(Some(ScanBatch { batch: Batch { columns: in_order(wanted, &columns), rows }, keys }))
    }
}

/// One run as a batch; a whole chunk without a copy.
pub(super) fn run(wanted: &Wanted, chunk: &Chunk, from: usize, to: usize) -> Result<ScanBatch> {
    let whole = from == 0 && to == chunk.rows;
    let columns = in_order(wanted, chunk.columns(wanted)?);
    let columns = if whole { columns } else { columns.iter().map(|column| Arc::new(column.slice(from, to))).collect() };
    let keys = match (wanted.with_keys, whole) {
        (false, _) => None,
        (true, true) => Some((chunk.keys(wanted)?.clone(), chunk.metadata()?)),
        (true, false) => {
            let (mut keys, mut metadata) = (Strings::default(), Metadata::default());
            copy_keys(wanted, chunk, from, to, &mut keys, &mut metadata)?;
            Some((Arc::new(keys), Arc::new(metadata)))
        }
    };
    Ok(ScanBatch { batch: Batch { columns, rows: to - from }, keys })
}

/// The columns in the order asked for, in which one may occur twice.
fn in_order(wanted: &Wanted, columns: &[Arc<Column>]) -> Vec<Arc<Column>> {
    wanted.outputs.iter().map(|&output| columns[output].clone()).collect()
}

fn copy(
    wanted: &Wanted,
    chunk: &Chunk,
    from: usize,
    to: usize,
    columns: &mut [ColumnBuilder],
    keys: &mut Strings,
    metadata: &mut Metadata,
) -> Result<()> {
    for (into, column) in columns.iter_mut().zip(chunk.columns(wanted)?) {
        into.extend(column, from, to);
    }
    if wanted.with_keys { copy_keys(wanted, chunk, from, to, keys, metadata) } else { Ok(()) }
}

fn copy_keys(
    wanted: &Wanted,
    chunk: &Chunk,
    from: usize,
    to: usize,
    keys: &mut Strings,
    metadata: &mut Metadata,
) -> Result<()> {
    let (all_keys, all) = (chunk.keys(wanted)?, chunk.metadata()?);
    (from..to).for_each(|row| keys.push(all_keys.get(row)));
    metadata.created_ms.extend_from_slice(&all.created_ms[from..to]);
    metadata.hlc.extend_from_slice(&all.hlc[from..to]);
    metadata.origin.extend_from_slice(&all.origin[from..to]);
    metadata.modified.extend_from_slice(&all.modified[from..to]);
    metadata.tombstone.extend_from_slice(&all.tombstone[from..to]);
    Ok(())
}
