//! A cursor: where a scan stands in one level, within one key range.
//!
//! ```text
//! memtable: seek ─> copy a portion under its lock ─> a chunk ─> seek after its last key ─> ...
//! level:    [block] [block, open: row 17 of 980] [block] ...
//! ```
//!
//! * Between calls a cursor holds no lock: a memtable is sought anew for each portion.
//! * A block is opened only where its rows have to be told apart; one that no other level touches is handed out whole.

use super::BATCH_BYTES_MAX;
use super::chunk::{Chunk, is_live};
use super::plan::Planned;
use super::request::Wanted;
use crate::error::Result;
use crate::sql::batch::Strings;
use crate::storage::keys::{Key, KeyRange};
use crate::storage::level::Level;
use crate::storage::memtable::{Memtable, Visit};
use crate::storage::rows::Metadata;
use crate::storage::view::reader::BlockReader;
use std::ops::Bound;
use std::sync::Arc;

/// Rows copied from a memtable at a time, at least: a scan for one row may meet many that are not there.
const PORTION_ROWS_MIN: usize = 32;

/// Where a scan stands in one level.
pub(super) struct Cursor {
    /// Its place among all levels, the newest memtable being 0.
    pub(super) rank: usize,
    source: Source,
    /// Opened rows, of which `at..end` are still to come.
    open: Option<Open>,
    /// The key of row `at`, where it has been asked for.
    head: Vec<u8>,
    head_is_stale: bool,
}

/// Rows at hand.
#[derive(Clone)]
pub(super) struct Open {
    pub(super) chunk: Arc<Chunk>,
    pub(super) at: usize,
    pub(super) end: usize,
    /// No other level has a key among these rows: they are not compared, and their keys are not decoded.
    pub(super) alone: bool,
}

enum Source {
    Memtable { memtable: Arc<Memtable>, after: Option<Key>, ended: bool },
    Level { level: Arc<Level>, blocks: Vec<Planned>, next: usize },
}

impl Cursor {
    /// A cursor before a memtable's first row of a range.
    pub(super) fn of_memtable(rank: usize, memtable: &Arc<Memtable>) -> Cursor {
        let source = Source::Memtable { memtable: memtable.clone(), after: None, ended: memtable.is_empty() };
        Cursor::new(rank, source)
    }

    /// A cursor before a level's first row of a range, which lies in `blocks`.
    pub(super) fn of_level(rank: usize, level: &Arc<Level>, blocks: Vec<Planned>) -> Cursor {
        Cursor::new(rank, Source::Level { level: level.clone(), blocks, next: 0 })
    }

    fn new(rank: usize, source: Source) -> Cursor {
        Cursor { rank, source, open: None, head: Vec::new(), head_is_stale: true }
    }

    /// Makes sure that the next row or block is at hand, if there is one. `recent` is the block opened last.
    pub(super) fn fill(&mut self, wanted: &Wanted, range: &KeyRange, recent: &mut Option<Arc<Chunk>>) -> Result<()> {
        loop {
            if self.open.as_ref().is_some_and(|open| open.at < open.end) {
                return self.read_head(wanted);
            }
            self.open = None;
            self.head_is_stale = true;
            match &self.source {
                Source::Memtable { ended: true, .. } => return Ok(()),
                Source::Memtable { ended: false, .. } => self.copy_portion(wanted, range)?,
                Source::Level { .. } => match self.block() {
                    // The range begins within the block, so its first key says nothing.
                    Some(block) if block.entry.first < range.from => self.open_block(wanted, range, recent)?,
                    Some(_) | None => return Ok(()),
                },
            }
        }
    }

    /// The next block, where it is not open.
    pub(super) fn block(&self) -> Option<&Planned> {
        match &self.source {
            Source::Level { blocks, next, .. } if self.open.is_none() => blocks.get(*next),
            Source::Level { .. } | Source::Memtable { .. } => None,
        }
    }

    /// The rows at hand.
    pub(super) fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    /// The least key still to come; none at the end. Known after `fill`.
    pub(super) fn head(&self) -> Option<&[u8]> {
        match (&self.open, self.block()) {
            // Of rows that are not compared any key will do that is not above theirs.
            (Some(open), _) if open.alone => Some(&[]),
            (Some(_), _) => Some(&self.head),
            (None, Some(block)) => Some(&block.entry.first),
            (None, None) => None,
        }
    }

    fn read_head(&mut self, wanted: &Wanted) -> Result<()> {
        if let (Some(Open { chunk, at, alone: false, .. }), true) = (&self.open, self.head_is_stale) {
            self.head.clear();
            chunk.push_key(wanted, *at, &mut self.head)?;
            self.head_is_stale = false;
        }
        Ok(())
    }

    /// Goes on by so many rows.
    pub(super) fn advance(&mut self, rows: usize) {
        if let Some(open) = &mut self.open {
            open.at += rows;
            self.head_is_stale = true;
        }
    }

    /// Takes the next block out unread.
    pub(super) fn take_block(&mut self) -> Option<(Arc<Level>, Planned)> {
        match &mut self.source {
            Source::Level { level, blocks, next } => {
                let block = blocks.get(*next)?.clone();
                *next += 1;
                Some((level.clone(), block))
            }
            Source::Memtable { .. } => None,
        }
    }

    /// Opens the next block and puts the cursor before its first row of the range.
    pub(super) fn open_block(
        &mut self,
        wanted: &Wanted,
        range: &KeyRange,
        recent: &mut Option<Arc<Chunk>>,
    ) -> Result<()> {
        let Some((level, planned)) = self.take_block() else { return Ok(()) };
        // Point ranges come in key order, so the next one is often in the same block.
        let chunk = if let Some(chunk) = recent.take_if(|chunk| chunk.is_of(&planned)) {
            chunk
        } else {
            let block = BlockReader::new(&wanted.view.cache, &level, &planned.entry);
            Arc::new(Chunk::of_block(wanted, self.rank, &planned, block)?)
        };
        *recent = Some(chunk.clone());
        let (from, first) = (&range.from, &planned.entry.first);
        let at = if first < from { chunk.lower_bound(wanted, 0, chunk.rows, from)? } else { 0 };
        let end = match &range.to {
            Some(to) if planned.entry.last >= *to => chunk.lower_bound(wanted, at, chunk.rows, to)?,
            Some(_) | None => chunk.rows,
        };
        self.open = Some(Open { chunk, at, end, alone: false });
        Ok(())
    }

    /// Opens the next block, which lies in the range and which no other level touches.
    pub(super) fn open_alone(&mut self, wanted: &Wanted) -> Result<()> {
        let Some((level, planned)) = self.take_block() else { return Ok(()) };
        let block = BlockReader::new(&wanted.view.cache, &level, &planned.entry);
        let chunk = Arc::new(Chunk::of_block(wanted, self.rank, &planned, block)?);
        self.open = Some(Open { at: 0, end: chunk.rows, chunk, alone: true });
        Ok(())
    }

    fn copy_portion(&mut self, wanted: &Wanted, range: &KeyRange) -> Result<()> {
        let Source::Memtable { memtable, after, ended } = &mut self.source else { return Ok(()) };
        let rank = self.rank;
        // An image of many NULLs is small, and its columns are not.
        let row_bytes = (wanted.slots.len() * size_of::<u64>()).max(1);
        let rows_max = wanted.batch_rows.max(PORTION_ROWS_MIN).min((BATCH_BYTES_MAX / row_bytes).max(1));
        let (mut keys, mut live) = (Strings::default(), Vec::new());
        let mut metadata = wanted.with_keys.then(Metadata::default);
        let mut columns = wanted.decoder.builders(0);
        let from = after.as_deref().map_or(Bound::Included(&*range.from), Bound::Excluded);
        let (to, version) = (range.to.as_deref(), wanted.view.version);
        let visit = memtable.visit(wanted.keyspace, from, to, version, rows_max, |key, stamp, image| {
            keys.push(key);
            if let Some(metadata) = &mut metadata {
                metadata.push(stamp, image.is_none());
            }
            let is_live = is_live(wanted, rank, key, stamp, image);
            live.push(is_live);
            if is_live {
                return wanted.decoder.decode(key, image, &mut columns);
            }
            // The row only shadows others; its place in the columns has to be kept.
            for column in &mut columns {
                column.push_null();
            }
            Ok(())
        })?;
        match visit {
            Visit::End => *ended = true,
            Visit::More(last) => *after = Some(last),
        }
        let columns = columns.into_iter().map(|column| Arc::new(column.finish())).collect();
        let chunk = Chunk::of_memory(keys, metadata, columns, live);
        self.open = Some(Open { at: 0, end: chunk.rows, chunk: Arc::new(chunk), alone: false });
        Ok(())
    }
}
