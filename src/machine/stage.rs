//! Stages: a statement that is too large for one entry of the log, kept in parts until its last entry says "now".
//!
//! ```text
//! leader:  slice ─ slice ─ slice ...      each a transaction of a few MiB, framed: [length:u32][transaction]
//!            └──────┴── stream of bytes, cut anywhere ──> Stage 0 │ Stage 1 │ ... │ Commit
//! replica: Stage: rows of a system keyspace, 3 KiB each      Commit: read back frame by frame
//! ```
//!
//! Frames are read one at a time, so that applying takes the memory of one slice, however large the statement. A stage
//! of one frame may hold any transaction. A stage of several is one statement on one table, its keys distributed over
//! the frames: no key is in two of them.
//!
//! * Staged bytes are flushed, sealed and shipped like any rows, and hidden from all statements.
//! * A stage ends with its commit, with `Abandon`, or when a term begins.

use super::command::{Effect, Part, Transaction};
use super::request;
use super::staged::{Staged, Writes};
use super::write::Writer;
use crate::error::SqlState;
use crate::ids::{ColumnId, TableId};
use crate::raft::Entry;
use crate::sql::catalog::STAGES;
use crate::sql::value::Value;
use crate::storage::keys::{self, Key, KeyRange};
use crate::storage::level::RangeDelete;
use crate::storage::view::{ScanRequest, Scanner, View};
use crate::{Error, Result};

/// Bytes of one row of a staged part: what fits a block of the hot store.
const CHUNK_BYTES: usize = 3 << 10;

/// Rows of staged bytes read at once: 192 KiB.
const READ_ROWS: usize = 64;

/// Tombstones written at once when a stage ends.
const END_ROWS: usize = 4096;

/// Bytes of a frame for which room is made at once: a few of the largest rows. What a damaged length says beyond is not
/// believed.
const FRAME_RESERVED_MAX: usize = 64 << 20;

/// Bytes before each frame.
const LENGTH_BYTES: usize = 4;

/// Appends one slice of a statement, or all of a transaction, as a frame.
pub fn push_frame(out: &mut Vec<u8>, transaction: &Transaction) {
    let at = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    let encoded = postcard::to_extend(transaction, std::mem::take(out)).expect("a transaction has a plain encoding");
    *out = encoded;
    let length = u32::try_from(out.len() - at - LENGTH_BYTES).expect("statement_effects_max is below 4 GiB");
    out[at..at + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// The rows of one staged part.
pub(super) fn part(stage: u128, part: u32, bytes: &[u8], writer: Writer) -> Staged {
    let mut staged = Staged::default();
    for (chunk, bytes) in bytes.chunks(CHUNK_BYTES).enumerate() {
        let key = [stage.to_be_bytes().as_slice(), &part.to_be_bytes(), &(chunk as u32).to_be_bytes()].concat();
        request::put_system(&mut staged, STAGES, &key, bytes.to_vec(), writer);
    }
    staged
}

/// The frames of a stage, in order.
pub(super) struct Frames {
    scanner: Scanner,
    bytes: Vec<u8>,
    at: usize,
}

impl Frames {
    /// Opens a stage of which all parts are there.
    pub(super) fn open(stage: u128, parts: u32, view: &View) -> Result<Frames> {
        require_parts(stage, parts, view)?;
        Ok(Frames { scanner: scan(stage, view, vec![ColumnId(2)], READ_ROWS)?, bytes: Vec::new(), at: 0 })
    }

    /// The next one; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Transaction>> {
        loop {
            if let Some(frame) = frame(&self.bytes[self.at..]) {
                let transaction = postcard::from_bytes(frame)
                    .map_err(|error| Error::not_understood(format!("a staged transaction does not decode: {error}")))?;
                self.at += LENGTH_BYTES + frame.len();
                if self.at == self.bytes.len() {
                    // A frame may be one row of megabytes: its bytes go before it is written.
                    (self.bytes, self.at) = (Vec::new(), 0);
                }
                return Ok(Some(transaction));
            }
            self.bytes.drain(..self.at);
            self.at = 0;
            match self.scanner.next_batch()? {
                Some(batch) => batch.batch.columns.iter().for_each(|column| {
                    for row in 0..batch.batch.rows {
                        if let Value::Blob(chunk) = column.value(row) {
                            self.reserve();
                            self.bytes.extend_from_slice(&chunk);
                        }
                    }
                }),
                None if self.bytes.is_empty() => return Ok(None),
                None => return Err(Error::not_understood("a staged transaction ends within a frame")),
            }
        }
    }
}

impl Frames {
    /// Room for all of a frame whose length is known: growing by halves would take half as much again.
    fn reserve(&mut self) {
        if let Some(length) = self.bytes.first_chunk::<LENGTH_BYTES>() {
            let whole = LENGTH_BYTES + u32::from_le_bytes(*length) as usize + CHUNK_BYTES;
            if whole > self.bytes.capacity() && whole <= FRAME_RESERVED_MAX {
                self.bytes.reserve_exact(whole - self.bytes.len());
            }
        }
    }
}

/// The content of the first frame, where all of it is there.
fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.get(..u32::from_le_bytes(*length) as usize)
}

/// The table that a slice of a statement writes to, and whether the slice may stand beside others of its statement.
pub(super) fn sliced_table(transaction: &Transaction) -> Option<TableId> {
    match transaction.parts.as_slice() {
        [Part::Write(write)] => match write.effect {
            Effect::Insert { .. } | Effect::Replace { .. } | Effect::Delete { .. } => Some(write.table),
            Effect::DeleteRange { .. } => None,
        },
        _ => None,
    }
}

/// Ends a stage: tombstones for all its rows.
pub(super) fn end(stage: u128, view: &View, writer: Writer, out: &dyn Writes) -> Result<()> {
    let mut scanner = scan(stage, view, vec![], END_ROWS)?;
    while let Some(batch) = scanner.next_batch()? {
        let (keys, _) = batch.keys.expect("keys were asked for");
        let mut staged = Staged::default();
        keys.iter().for_each(|key| staged.tombstone(STAGES, Key::new(key), request::stamp(writer)));
        out.write(&staged)?;
    }
    Ok(())
}

/// A term begins: whoever staged parts before will not commit them, or did.
pub(super) fn end_all(view: &View, entry: &Entry, out: &dyn Writes) -> Result<()> {
    let mut scanner = scan_range(KeyRange::all(), view, vec![], 1)?;
    if scanner.next_batch()?.is_some() {
        let mut staged = Staged::default();
        let (index, hlc) = (entry.index, entry.hlc.0);
        staged.delete_range(RangeDelete { keyspace: STAGES, range: KeyRange::all(), index, hlc });
        out.write(&staged)?;
    }
    Ok(())
}

fn require_parts(stage: u128, parts: u32, view: &View) -> Result<()> {
    let mut scanner = scan(stage, view, vec![ColumnId(1)], END_ROWS)?;
    let (mut seen, mut last) = (0, None);
    while let Some(batch) = scanner.next_batch()? {
        for row in 0..batch.batch.rows {
            if let Value::Blob(key) = batch.batch.columns[0].value(row) {
                let part = key.get(16..20).map(<[u8]>::to_vec);
                seen += u32::from(part != last);
                last = part;
            }
        }
    }
    if seen == parts {
        return Ok(());
    }
    let message = format!("{seen} of {parts} parts of the statement are there: it was not executed");
    Err(Error::invalid(SqlState::SERIALIZATION_FAILURE, message))
}

fn scan(stage: u128, view: &View, columns: Vec<ColumnId>, batch_rows: usize) -> Result<Scanner> {
    // The stage's id is the head of the one BLOB component, whose encoding escapes zero bytes: build both ends alike.
    let bound = |id: u128| keys::encode(&[Value::Blob(id.to_be_bytes().to_vec())]);
    let range = KeyRange { from: bound(stage), to: stage.checked_add(1).map(bound) };
    scan_range(range, view, columns, batch_rows)
}

fn scan_range(range: KeyRange, view: &View, columns: Vec<ColumnId>, batch_rows: usize) -> Result<Scanner> {
    view.scan(ScanRequest {
        keyspace: STAGES,
        ranges: vec![range],
        columns,
        bounds: vec![],
        expired_below_ms: 0,
        with_keys: true,
        batch_rows,
    })
}
