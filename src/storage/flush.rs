//! Flush: a frozen memtable merged into the hot blocks that it touches.
//!
//! Rows are woven into the blocks whose key ranges they fall into; rows between blocks join the block to their left
//! where that one has room, else they make blocks of their own. So appends rewrite one block a series, and random
//! inserts what they hit.
//!
//! ```text
//!   blocks     [a      f]      [k      p]           [u   w]
//!   memtable        d      h i      m n       r s t
//!   result     [a    d f]  [h i] [k  m n p]  [r s t u   w]?   no: r s t join [k .. p] if it has room, else stand alone
//! ```
//!
//! What a flush costs is measured in [`crate::storage::hot`], with the choice of the size of a block. Where keys come
//! from all over, or from thousands of series, every flush hits every block: the cost grows with the store, and an early
//! seal ends it ([`HotStore::amplification`]).
//!
//! * Nothing is visible before [`HotStore::publish`]: a draft may take in several memtables, as one large command needs.
//! * A block that is more than three quarters full is not taken apart for rows beyond its end.
//! * What is in memory is a bounded number of bytes, whatever a row has: a chunk of the memtable, one block, and what they
//!   make together. So has a block when it is decoded, by which readers are bounded.
//! * What may be left out is judged by the state record that will be published (`storage::judge`).
//! * Rows of dropped keyspaces go, and so do blocks of which nothing is left, unread.

use crate::error::Result;
use crate::ids::KeyspaceId;
use crate::sql::catalog::Layout;
use crate::storage::block::Block;
use crate::storage::draft::{Draft, FlushReport};
use crate::storage::entry::{EntryRecord, prune};
use crate::storage::filter;
use crate::storage::hot::HotStore;
use crate::storage::judge::{Judge, KeyspaceJudge, Verdict};
use crate::storage::keys::Key;
use crate::storage::level::{BlockEntry, Level, RangeDelete};
use crate::storage::memtable::Memtable;
use crate::storage::rows::Rows;
use crate::storage::seal::Lookup;
use crate::storage::state::StateRecord;
use crate::storage::weave;
use std::sync::Arc;

/// Rows taken from the memtable at once; large ones are fewer.
const CHUNK_ROWS: usize = 4096;

/// Bytes in memory of rows that wait to become blocks: with the chunk that they come from and the copies made of both, a
/// flush takes a few MiB.
const PENDING_BYTES_MAX: usize = 1 << 20;

/// Bytes that a block has in memory when it is decoded: texts that are alike take next to nothing encoded.
const DECODED_BYTES_MAX: usize = 256 << 10;

/// Encoded bytes for each column that a block aims at, where a table is so wide that they are more than `TARGET_BYTES`. A
/// column costs a block some 16 bytes and its manifest 72 whatever it holds; in blocks of 8 KB, a row of 1,600 columns
/// was one block, and its manifest ten times the row.
const COLUMN_BYTES: usize = 160;

/// Rows of a wide table that a block has room for in memory at least, for the same reason.
const WIDE_ROWS_MIN: usize = 64;

/// Encoded bytes that a block aims at: the table in `storage::hot` says why.
const TARGET_BYTES: usize = 8000;

/// Rows of a hot block at most, however small they are: a point read decodes all keys of its block. See there too.
const ROWS_MAX: usize = 1024;

/// Bytes a row is taken for before anything was measured.
const BYTES_PER_ROW_GUESS: f64 = 16.0;

/// Rows that must have come in before they are called scattered: few rows say nothing.
const SCATTER_ROWS_MIN: usize = 64;

/// Rows are scattered where fewer than this many, on average, stand side by side between rows that were there.
const SCATTER_STRETCH_ROWS: usize = 4;

/// What flush reads from.
pub trait FlushSource {
    /// The keyspaces that have rows, ascending.
    fn keyspaces(&self) -> Vec<KeyspaceId>;
    /// At most `rows_max` rows after a key, tombstones included, each in its newest version; none at the end.
    fn rows(&self, keyspace: KeyspaceId, layout: &Layout, after: Option<&[u8]>, rows_max: usize) -> Result<Rows>;
    /// The range deletes.
    fn range_deletes(&self) -> Vec<RangeDelete>;
}

impl FlushSource for Memtable {
    fn keyspaces(&self) -> Vec<KeyspaceId> {
        Memtable::keyspaces(self)
    }

    fn rows(&self, keyspace: KeyspaceId, layout: &Layout, after: Option<&[u8]>, rows_max: usize) -> Result<Rows> {
        Memtable::rows(self, keyspace, layout, after, rows_max)
    }

    fn range_deletes(&self) -> Vec<RangeDelete> {
        Memtable::range_deletes(self)
    }
}

impl HotStore {
    /// Merges a frozen memtable into the store and publishes the result with `state`, by which it is judged. `older`
    /// are the levels below, newest first.
    pub fn flush(&mut self, frozen: &dyn FlushSource, state: StateRecord, older: &[Level]) -> Result<FlushReport> {
        let draft = self.draft(frozen, &state, older)?;
        self.publish(draft, state)
    }

    /// Merges a frozen memtable into a draft that is written to its end, for [`HotStore::publish`] or
    /// [`HotStore::discard`]. After an error nothing of it is left, and it may be tried again.
    pub fn draft(&mut self, frozen: &dyn FlushSource, state: &StateRecord, older: &[Level]) -> Result<Draft> {
        let mut draft = Draft::new(self);
        let done = draft.absorb(self, frozen, state, older).and_then(|()| draft.complete(self));
        match done {
            Ok(()) => Ok(draft),
            Err(error) => {
                // What it could not write is no news.
                let _ = self.discard(draft);
                Err(error)
            }
        }
    }
}

impl Draft {
    /// Merges a frozen memtable into the draft. Where the draft is published later than `state` (a large command that
    /// is not complete), `state` is the record before the command: judging earlier leaves out less.
    pub fn absorb(
        &mut self,
        hot: &HotStore,
        frozen: &dyn FlushSource,
        state: &StateRecord,
        older: &[Level],
    ) -> Result<()> {
        self.end_file()?;
        self.range_deletes.extend(frozen.range_deletes());
        self.range_deletes.retain(|delete| state.catalog.layout(delete.keyspace).is_some());
        prune(&mut self.range_deletes);
        let judge = Judge::new(state, older, self.range_deletes.clone());
        let mut keyspaces: Vec<KeyspaceId> = self.manifest.keyspaces().chain(frozen.keyspaces()).collect();
        keyspaces.sort_unstable();
        keyspaces.dedup();
        for keyspace in keyspaces {
            let blocks = self.manifest.blocks(keyspace).to_vec();
            let next = if let Some(judge) = judge.keyspace(keyspace) {
                KeyspaceFlush::new(self, hot, &judge, keyspace, &blocks).run(frozen)?
            } else {
                for entry in &blocks {
                    self.supersede(entry);
                }
                Vec::new()
            };
            if next.len() != blocks.len() || next.iter().zip(&blocks).any(|(a, b)| !Arc::ptr_eq(a, b)) {
                self.manifest = self.manifest.with(keyspace, next);
            }
        }
        self.work.rows_expired += judge.rows_expired();
        // The next memtable of this draft reads these blocks back.
        self.write_out()?;
        self.remove_unnamed(hot)
    }
}

/// The flush of one keyspace: blocks are met from left to right, each is kept, dropped or taken apart.
struct KeyspaceFlush<'a> {
    draft: &'a mut Draft,
    hot: &'a HotStore,
    judge: &'a KeyspaceJudge<'a>,
    keyspace: KeyspaceId,
    /// Blocks as they were; those before `at` have been dealt with.
    blocks: &'a [Arc<BlockEntry>],
    at: usize,
    out: Vec<Arc<BlockEntry>>,
    /// The rest of a block that was taken apart, above all rows that came so far.
    begun: Option<Rows>,
    /// Rows to the right of `out`, not in blocks yet.
    pending: Vec<Rows>,
    pending_rows: usize,
    pending_bytes: usize,
    /// Encoded bytes that a block aims at, and bytes it may have in memory.
    target_bytes: usize,
    decoded_bytes_max: usize,
    bytes_per_row: f64,
    lookup: Lookup,
    /// Rows that came in, and the stretches without a row between them that they came in.
    rows_in: usize,
    stretches_in: usize,
}

impl<'a> KeyspaceFlush<'a> {
    fn new(
        draft: &'a mut Draft,
        hot: &'a HotStore,
        judge: &'a KeyspaceJudge<'a>,
        keyspace: KeyspaceId,
        blocks: &'a [Arc<BlockEntry>],
    ) -> KeyspaceFlush<'a> {
        let columns = judge.layout.columns.len();
        let rows: u64 = blocks.iter().map(|entry| u64::from(entry.summary.rows)).sum();
        let filter_bytes = |entry: &BlockEntry| entry.filter.as_ref().map_or(0, |filter| filter.len() as u64);
        let bytes: u64 = blocks.iter().map(|entry| u64::from(entry.bytes) + filter_bytes(entry)).sum();
        let bytes_per_row = if rows == 0 { BYTES_PER_ROW_GUESS } else { bytes as f64 / rows as f64 };
        KeyspaceFlush {
            draft,
            hot,
            judge,
            keyspace,
            blocks,
            at: 0,
            out: Vec::with_capacity(blocks.len()),
            begun: None,
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
            target_bytes: TARGET_BYTES.max(columns * COLUMN_BYTES),
            decoded_bytes_max: DECODED_BYTES_MAX.max(columns * size_of::<u64>() * WIDE_ROWS_MIN),
            bytes_per_row,
            lookup: Lookup::of(&[&hot.level], keyspace),
            rows_in: 0,
            stretches_in: 0,
        }
    }

    fn run(mut self, frozen: &dyn FlushSource) -> Result<Vec<Arc<BlockEntry>>> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let chunk = frozen.rows(self.keyspace, &self.judge.layout, after.as_deref(), CHUNK_ROWS)?;
            if chunk.is_empty() {
                break;
            }
            self.draft.work.rows_in += chunk.len() as u64;
            self.weave(&chunk)?;
            after = Some(chunk.keys.get(chunk.len() - 1).to_vec());
        }
        if let Some(rest) = self.begun.take() {
            self.push(self.judge.rows(rest))?;
        }
        self.emit_all()?;
        self.pass_until(self.blocks.len());
        Ok(self.out)
    }

    fn weave(&mut self, chunk: &Rows) -> Result<()> {
        let mut row = 0;
        while row < chunk.len() {
            let key = chunk.keys.get(row);
            let (old, to) = if let Some(rest) = self.begun.take() {
                let last = Key::new(rest.keys.get(rest.len() - 1));
                (Some(rest), weave::seek(&chunk.keys, row, &last.successor()))
            } else {
                self.meet(key, chunk, row)?
            };
            let new = weave::slice(&self.judge.layout, chunk, row, to);
            self.rows_in += new.len();
            if let Some(old) = old {
                self.interweave(&new, &old, to == chunk.len())?;
            } else {
                self.stretches_in += 1;
                self.push(self.judge.rows(new))?;
            }
            row = to;
        }
        Ok(())
    }

    /// Finds where a row belongs: the rows of the block around it, if there is one, and how many rows of the chunk go
    /// there.
    fn meet(&mut self, key: &[u8], chunk: &Rows, row: usize) -> Result<(Option<Rows>, usize)> {
        let block = self.at + self.blocks[self.at..].partition_point(|entry| *entry.last < *key);
        let inside = self.blocks.get(block).filter(|entry| *entry.first <= *key).cloned();
        if block > self.at {
            self.emit_all()?;
            self.pass_until(block - 1);
            self.meet_left(inside.is_some())?;
        }
        if let Some(entry) = inside {
            let old = self.take_apart(&entry)?;
            self.at += 1;
            return Ok((Some(old), weave::seek(&chunk.keys, row, &entry.last.successor())));
        }
        let to = match self.blocks.get(block) {
            Some(next) => weave::seek(&chunk.keys, row, &next.first),
            None => chunk.len(),
        };
        Ok((None, to))
    }

    /// Merges new rows with those of a block. Where the chunk ends here, the next one may go on within the block: what
    /// lies above stays back.
    fn interweave(&mut self, new: &Rows, old: &Rows, chunk_ends: bool) -> Result<()> {
        let layout = &self.judge.layout;
        let (merged, stretches) = weave::merge_counted(layout, &[new, old]);
        self.stretches_in += stretches;
        if !chunk_ends || new.is_empty() {
            return self.push(self.judge.rows(merged));
        }
        let after = Key::new(new.keys.get(new.len() - 1)).successor();
        let end = weave::seek(&merged.keys, 0, &after);
        if end < merged.len() {
            self.begun = Some(weave::slice(layout, &merged, end, merged.len()));
        }
        self.push(self.judge.rows(weave::slice(layout, &merged, 0, end)))
    }

    /// Deals with the block to the left of the next row: it takes that row in where the row lies beyond it and it has
    /// room.
    fn meet_left(&mut self, next_is_inside: bool) -> Result<()> {
        let entry = self.blocks[self.at].clone();
        // A block below three quarters of the target takes in the rows to its right.
        let has_room =
            (entry.bytes as usize) < self.target_bytes * 3 / 4 && (entry.summary.rows as usize) < ROWS_MAX * 3 / 4;
        if next_is_inside || !has_room {
            self.pass_until(self.at + 1);
            return Ok(());
        }
        let rows = self.take_apart(&entry)?;
        self.at += 1;
        self.push(self.judge.rows(rows))
    }

    /// Keeps the blocks before `end`, or drops those of which nothing is left.
    fn pass_until(&mut self, end: usize) {
        for entry in &self.blocks[self.at..end] {
            match self.judge.block(entry) {
                Verdict::Drop => {
                    self.judge.count_dropped(entry);
                    self.draft.supersede(entry);
                }
                // What is to be judged row by row waits until the block is taken apart, here or in a seal.
                Verdict::Keep | Verdict::Look => self.out.push(entry.clone()),
            }
        }
        self.at = end;
    }

    fn take_apart(&mut self, entry: &BlockEntry) -> Result<Rows> {
        let block = self.draft.read(self.hot, entry)?;
        self.draft.supersede(entry);
        block.decode(&self.judge.layout)
    }

    /// A keyspace gets filters once its rows come in scattered, and keeps them.
    fn lookup(&mut self) -> Lookup {
        if self.rows_in >= SCATTER_ROWS_MIN && self.stretches_in * SCATTER_STRETCH_ROWS > self.rows_in {
            self.lookup = Lookup::Filtered;
        }
        self.lookup
    }

    /// Rows of the next block, where one takes `row_bytes` in memory.
    fn rows_per_block(&self, row_bytes: usize) -> usize {
        let encoded = (self.target_bytes as f64 / self.bytes_per_row) as usize;
        encoded.min(self.decoded_bytes_max / row_bytes.max(1)).clamp(1, ROWS_MAX)
    }

    fn push(&mut self, rows: Rows) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.pending_rows += rows.len();
        self.pending_bytes += rows.byte_len();
        self.pending.push(rows);
        // Two blocks' worth stay back, so that the last two can be made of one size.
        let row_bytes = self.pending_bytes / self.pending_rows;
        let is_much = self.pending_rows >= CHUNK_ROWS.max(2 * self.rows_per_block(row_bytes))
            || self.pending_bytes >= PENDING_BYTES_MAX.max(4 * self.decoded_bytes_max);
        if is_much { self.emit(false) } else { Ok(()) }
    }

    fn emit_all(&mut self) -> Result<()> {
        if self.pending_rows > 0 { self.emit(true) } else { Ok(()) }
    }

    /// Makes blocks of pending rows; unless it is the last, up to two blocks' worth stay pending.
    fn emit(&mut self, last: bool) -> Result<()> {
        let layout = &self.judge.layout;
        let parts = std::mem::take(&mut self.pending);
        let rows = weave::join(layout, &parts.iter().collect::<Vec<&Rows>>());
        drop(parts);
        let row_bytes = self.pending_bytes / self.pending_rows.max(1);
        (self.pending_rows, self.pending_bytes) = (0, 0);
        let mut at = 0;
        while at < rows.len() {
            let block_rows = self.rows_per_block(row_bytes);
            let left = rows.len() - at;
            if !last && left < 2 * block_rows {
                break;
            }
            // The last rows are cut evenly: two half-full blocks have room, a full one and a crumb have not.
            let take = if left < 2 * block_rows { left.div_ceil(left.div_ceil(block_rows)) } else { block_rows };
            self.encode(&weave::slice(layout, &rows, at, at + take))?;
            at += take;
        }
        if at < rows.len() {
            let rest = weave::slice(layout, &rows, at, rows.len());
            (self.pending_rows, self.pending_bytes) = (rest.len(), rest.byte_len());
            self.pending.push(rest);
        }
        Ok(())
    }

    /// Encodes rows as one block, or as two where they were taken for smaller than they are.
    fn encode(&mut self, rows: &Rows) -> Result<()> {
        let lookup = self.lookup();
        let layout = &self.judge.layout;
        let (block, summary) = Block::encode(layout, rows);
        let filter = match lookup {
            Lookup::Filtered => Some(filter::build(rows.keys.iter())),
            Lookup::ByRange => None,
        };
        let bytes = block.len() + filter.as_ref().map_or(0, Vec::len);
        self.bytes_per_row = bytes as f64 / rows.len() as f64;
        let record = EntryRecord {
            keyspace: self.keyspace,
            offset: 0,
            bytes: block.len() as u32,
            first: rows.keys.get(0).to_vec(),
            last: rows.keys.get(rows.len() - 1).to_vec(),
            summary,
            filter,
        };
        // The estimate is off by a tenth, seldom by half.
        if block.len() > self.target_bytes * 3 / 2 && rows.len() > 1 {
            let middle = rows.len() / 2;
            self.encode(&weave::slice(layout, rows, 0, middle))?;
            return self.encode(&weave::slice(layout, rows, middle, rows.len()));
        }
        let entry = self.draft.store(self.hot, record, &block)?;
        self.out.push(entry);
        Ok(())
    }
}
