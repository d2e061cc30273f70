//! Writing runs: rows and whole blocks come in key order, files of bounded size go out. Seal and merge both write here.
//!
//! ```text
//!   Stream ──rows──> pending ──2,048──> block ──> file 12 │ file 13 │ ...      each at most 32 MiB
//!          ──block that is big enough──────────>          ^ a file ends where the next block begins
//! ```
//!
//! * In memory are the pending rows, one encoded block, and the entries of one file: a few MiB, whatever is sealed.
//! * The files of a run tile the range written, so every range delete and every key has its file.
//! * A range delete goes into each file where it may hide something: rows of its table in the deleted range, or any
//!   entry of the table's indexes. So it leaves the run range by range, as merges get to it.
//! * Until the last file is finished nothing names any of them; a writer dropped before that removes what it wrote.

use crate::error::Result;
use crate::ids::KeyspaceId;
use crate::sql::catalog::Layout;
use crate::storage::block::Block;
use crate::storage::current::SealedName;
use crate::storage::entry::{EntryRecord, Place, start};
use crate::storage::files::Files;
use crate::storage::filter;
use crate::storage::judge::{Judge, KeyspaceJudge};
use crate::storage::keys::{Key, KeyRange};
use crate::storage::level::{BlockEntry, Level, RangeDelete};
use crate::storage::rows::Rows;
use crate::storage::sealed::{self, SealedWriter};
use crate::storage::state::StateRecord;
use crate::storage::stream::{Piece, Stream};
use crate::storage::weave;
use std::path::Path;

/// How large things become; tests make them small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows a block is cut at.
    pub block_rows: usize,
    /// Bytes in memory (before encoding) that a block is cut at, where rows are wide.
    pub block_bytes: usize,
    /// Bytes of a file: a merge frees its inputs file by file, and needs two such beside them.
    pub file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        // 2,048 rows: a scan's fixed costs are spread, a point read decodes 2,048 keys. Measured choice: block.rs.
        Limits { block_rows: 2048, block_bytes: 1 << 20, file_bytes: 32 << 20 }
    }
}

/// How a key that is not there is told without reading its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Keys come in order, so the key ranges of blocks say enough.
    ByRange,
    /// Keys come from all over: each block has a filter.
    Filtered,
}

impl Lookup {
    /// What the blocks of these levels have already: once found, the nature of a keyspace's keys stays with it.
    pub fn of(levels: &[&Level], keyspace: KeyspaceId) -> Lookup {
        let mut blocks = levels.iter().flat_map(|level| level.manifest.blocks(keyspace));
        if blocks.any(|entry| entry.filter.is_some()) { Lookup::Filtered } else { Lookup::ByRange }
    }
}

/// Called after each block: seal and merge give way to flush here. An error ends the step, and nothing of it stays.
pub type Pause<'a> = &'a dyn Fn() -> Result<()>;

/// Where a run is written.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Through which files.
    pub files: &'a dyn Files,
    /// The state directory.
    pub directory: &'a Path,
    /// First number to draw.
    pub first_number: u32,
    /// How large things become.
    pub limits: Limits,
    /// Called after each block.
    pub pause: Pause<'a>,
}

/// What a seal or a merge step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteReport {
    /// Rows that were written.
    pub rows: u64,
    /// Blocks that were encoded.
    pub blocks_encoded: u64,
    /// Blocks that were copied as they were.
    pub blocks_copied: u64,
    /// Bytes of the files written.
    pub bytes: u64,
    /// Rows left out because they had expired.
    pub rows_expired: u64,
}

/// Writes files of a run.
pub struct RunWriter<'a> {
    target: Target<'a>,
    judge: &'a Judge<'a>,
    deletes: Vec<RangeDelete>,
    state: Vec<u8>,
    next_number: u32,
    from: Place,
    file: Option<(u32, SealedWriter)>,
    finished: Vec<SealedName>,
    created: Vec<u32>,
    is_complete: bool,
    keyspace: Option<(KeyspaceId, Layout, Lookup)>,
    pending: Vec<Rows>,
    pending_rows: usize,
    pending_bytes: usize,
    report: WriteReport,
}

impl<'a> RunWriter<'a> {
    /// A writer of files from `from` on, carrying `state` and those of `deletes` that may hide something in them.
    pub fn new(
        target: Target<'a>,
        judge: &'a Judge<'a>,
        deletes: Vec<RangeDelete>,
        state: &StateRecord,
        from: Place,
    ) -> RunWriter<'a> {
        RunWriter {
            next_number: target.first_number,
            target,
            judge,
            deletes,
            state: state.encode(),
            from,
            file: None,
            finished: Vec::new(),
            created: Vec::new(),
            is_complete: false,
            keyspace: None,
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
            report: WriteReport::default(),
        }
    }

    /// Goes to a keyspace, which is above the one before.
    pub fn begin(&mut self, keyspace: KeyspaceId, layout: &Layout, lookup: Lookup) -> Result<()> {
        self.cut_all()?;
        self.keyspace = Some((keyspace, layout.clone(), lookup));
        Ok(())
    }

    /// Adds rows.
    pub fn rows(&mut self, rows: Rows) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.pending_rows += rows.len();
        self.pending_bytes += rows.byte_len();
        self.pending.push(rows);
        let limits = self.target.limits;
        if self.pending_rows >= limits.block_rows || self.pending_bytes >= limits.block_bytes {
            self.cut(false)?;
        }
        Ok(())
    }

    /// True where a block is better copied than taken apart: it is of a good size, and what is pending would not be
    /// left behind as a small one.
    pub fn wants_copy(&self, entry: &BlockEntry) -> bool {
        let limits = self.target.limits;
        let is_big = |rows: usize| rows * 4 >= limits.block_rows * 3;
        let rows = entry.summary.rows as usize;
        // Wide rows make a big block of few; their encoded bytes are compared with an eighth, for they may be packed.
        let is_good = (is_big(rows) && rows <= limits.block_rows) || entry.bytes as usize * 8 >= limits.block_bytes;
        is_good && (self.pending_rows == 0 || is_big(self.pending_rows))
    }

    /// Adds a block as it is.
    pub fn copy(&mut self, entry: &BlockEntry, block: &Block) -> Result<()> {
        self.cut_all()?;
        self.report.blocks_copied += 1;
        let keyspace = self.keyspace.as_ref().expect("blocks come after `begin`").0;
        let record = EntryRecord {
            keyspace,
            offset: 0,
            bytes: entry.bytes,
            first: entry.first.to_vec(),
            last: entry.last.to_vec(),
            summary: entry.summary.as_ref().clone(),
            filter: entry.filter.as_deref().map(<[u8]>::to_vec),
        };
        self.put(record, block.bytes())
    }

    /// True where the present file is about full: the next block may begin another one.
    pub fn is_file_full(&self) -> bool {
        let room = self.target.limits.file_bytes / 16;
        !self.finished.is_empty()
            || self.file.as_ref().is_some_and(|(_, file)| file.bytes() + room >= self.target.limits.file_bytes)
    }

    /// Ends the run, or the part of it before `to`; at least one file. The directory is synced.
    pub fn finish(mut self, to: Option<Place>) -> Result<(Vec<SealedName>, WriteReport)> {
        self.cut_all()?;
        if self.file.is_none() {
            self.open_file()?;
        }
        self.close_file(to)?;
        self.target.files.sync_dir(self.target.directory)?;
        self.is_complete = true;
        self.report.rows_expired = self.judge.rows_expired();
        Ok((std::mem::take(&mut self.finished), self.report.clone()))
    }

    fn cut_all(&mut self) -> Result<()> {
        if self.pending_rows > 0 { self.cut(true) } else { Ok(()) }
    }

    /// Cuts pending rows into blocks; what is left below a block's size stays pending unless it is the last.
    fn cut(&mut self, last: bool) -> Result<()> {
        let (keyspace, layout, lookup) = self.keyspace.clone().expect("rows come after `begin`");
        let parts: Vec<&Rows> = self.pending.iter().collect();
        let rows = weave::join(&layout, &parts);
        let limits = self.target.limits;
        let row_bytes = (self.pending_bytes / self.pending_rows).max(1);
        let block_rows = (limits.block_bytes / row_bytes).clamp(1, limits.block_rows);
        self.pending.clear();
        (self.pending_rows, self.pending_bytes) = (0, 0);
        let mut at = 0;
        while rows.len() - at >= block_rows || (last && at < rows.len()) {
            let to = (at + block_rows).min(rows.len());
            self.encode(keyspace, &layout, lookup, &weave::slice(&layout, &rows, at, to))?;
            at = to;
        }
        if at < rows.len() {
            let rest = weave::slice(&layout, &rows, at, rows.len());
            self.pending_rows = rest.len();
            self.pending_bytes = rest.byte_len();
            self.pending.push(rest);
        }
        Ok(())
    }

    fn encode(&mut self, keyspace: KeyspaceId, layout: &Layout, lookup: Lookup, rows: &Rows) -> Result<()> {
        let (block, summary) = Block::encode(layout, rows);
        self.report.blocks_encoded += 1;
        let record = EntryRecord {
            keyspace,
            offset: 0,
            bytes: block.len() as u32,
            first: rows.keys.get(0).to_vec(),
            last: rows.keys.get(rows.len() - 1).to_vec(),
            summary,
            filter: match lookup {
                Lookup::Filtered => Some(filter::build(rows.keys.iter())),
                Lookup::ByRange => None,
            },
        };
        self.put(record, &block)
    }

    fn put(&mut self, record: EntryRecord, block: &[u8]) -> Result<()> {
        let place = (record.keyspace, Key::new(&record.first));
        let is_full =
            |file: &SealedWriter| !file.is_empty() && file.bytes() + block.len() as u64 > self.target.limits.file_bytes;
        if self.file.as_ref().is_some_and(|(_, file)| is_full(file)) {
            self.close_file(Some(place))?;
        }
        if self.file.is_none() {
            self.open_file()?;
        }
        self.report.rows += u64::from(record.summary.rows);
        let (_, file) = self.file.as_mut().expect("opened above");
        file.push(record, block)?;
        (self.target.pause)()
    }

    fn open_file(&mut self) -> Result<()> {
        let number = self.next_number;
        self.next_number += 1;
        self.created.push(number);
        self.file = Some((number, SealedWriter::create(self.target.files, self.target.directory, number)?));
        Ok(())
    }

    fn close_file(&mut self, to: Option<Place>) -> Result<()> {
        let Some((number, file)) = self.file.take() else { return Ok(()) };
        let from = match &to {
            Some(to) => std::mem::replace(&mut self.from, to.clone()),
            None => self.from.clone(),
        };
        let name = SealedName { number, from, to };
        let hides = |delete: &&RangeDelete| reaches(self.judge, delete, &name);
        let deletes: Vec<RangeDelete> = self.deletes.iter().filter(hides).cloned().collect();
        self.report.bytes += file.finish(&deletes, &self.state)?;
        self.finished.push(name);
        Ok(())
    }
}

impl Drop for RunWriter<'_> {
    fn drop(&mut self) {
        if self.is_complete {
            return;
        }
        for &number in &self.created {
            let path = sealed::path(self.target.directory, number);
            // A failure here costs space until the next start, which removes what CURRENT does not name.
            let _ = self.target.files.remove(&path);
        }
    }
}

/// True where a range delete may hide something in the part of a file that counts.
fn reaches(judge: &Judge<'_>, delete: &RangeDelete, name: &SealedName) -> bool {
    let begins_before_end = |place: (KeyspaceId, &Key)| name.to.as_ref().is_none_or(|to| place < (to.0, &to.1));
    judge.reach(delete).into_iter().any(|keyspace| {
        if keyspace == delete.keyspace {
            let ends_after_start = match &delete.range.to {
                Some(to) => (keyspace, to) > (name.from.0, &name.from.1),
                None => keyspace >= name.from.0,
            };
            ends_after_start && begins_before_end((keyspace, &delete.range.from))
        } else {
            keyspace >= name.from.0 && begins_before_end((keyspace, &Key::new(&[])))
        }
    })
}

/// Passes a stream on to a writer until the stream ends or the writer's file is full; true at the end.
pub fn pass(
    stream: &mut Stream<'_>,
    levels: &[&Level],
    judge: &KeyspaceJudge<'_>,
    writer: &mut RunWriter<'_>,
    stops_when_full: bool,
) -> Result<bool> {
    while let Some(piece) = stream.next_piece()? {
        match piece {
            Piece::Rows(rows) => writer.rows(rows)?,
            Piece::Block { input, entry } if writer.wants_copy(&entry) => {
                writer.copy(&entry, &levels[input].source.read(&entry)?)?;
            }
            Piece::Block { input, entry } => {
                writer.rows(judge.rows(levels[input].source.read(&entry)?.decode(&judge.layout)?))?;
            }
        }
        if stops_when_full && writer.is_file_full() {
            return Ok(stream.position().is_none());
        }
    }
    Ok(true)
}

/// Writes a frozen hot level as a new run: every key in order, judged by `state`, which becomes the birth state.
/// `older` are the sealed runs below it, newest first. Files and directory are synced; `CURRENT` is the caller's.
pub fn seal(
    target: Target<'_>,
    level: &Level,
    older: &[Level],
    state: &StateRecord,
) -> Result<(Vec<SealedName>, WriteReport)> {
    let judge = Judge::new(state, older, level.range_deletes.to_vec());
    let mut writer = RunWriter::new(target, &judge, judge.kept(&level.range_deletes), state, start());
    for keyspace in level.manifest.keyspaces() {
        let Some(keyspace_judge) = judge.keyspace(keyspace) else { continue };
        writer.begin(keyspace, &keyspace_judge.layout, Lookup::of(&[level], keyspace))?;
        let mut stream = Stream::new(&keyspace_judge, std::iter::once(level), keyspace, &KeyRange::all());
        pass(&mut stream, &[level], &keyspace_judge, &mut writer, false)?;
    }
    writer.finish(None)
}
