//! Sealed files: immutable blocks in key order with the manifest that finds them, `state/000012.blk`.
//!
//! ```text
//! +----------------+---------+---------+-----+--------------------------------------+---------+
//! | magic, version | block 0 | block 1 | ... | footer: entries, range deletes,      | trailer |
//! |                |         |         |     | state record, content hash; crc      |         |
//! +----------------+---------+---------+-----+--------------------------------------+---------+
//! trailer   footer offset u64 | footer length u32 | crc32c u32 | "CHRBLKS." 8
//! ```
//!
//! A run is one level: files with disjoint key ranges. The range that counts is the one that `CURRENT` names, which may
//! be less than a file holds: a merge works through a run range by range.
//!
//! * A file is named in `CURRENT` only after it and its directory have been fsynced, and never changes afterwards.
//! * Opening reads the trailer and the footer. Blocks are checked one by one as they are read, all of them by
//!   [`SealedFile::verify`], which installs and scrubs use.
//! * No block reaches over an end of its file's range.
//! * Files leave with the last level that names them: [`SealedRun::doom`] marks them, the last handle removes them.

use crate::error::{Error, Kind, Result};
use crate::ids::KeyspaceId;
use crate::storage::block::Block;
use crate::storage::current::SealedName;
use crate::storage::entry::{EntryRecord, RangeDeleteRecord, prune, show};
use crate::storage::files::{File, Files, Open};
use crate::storage::frame;
use crate::storage::level::{BlockEntry, BlockSource, Level, Manifest, RangeDelete};
use crate::storage::state::StateRecord;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

const HEADER: [u8; 8] = *b"CHRBLKS\x01";
const TRAILER_MAGIC: [u8; 8] = *b"CHRBLKS.";
const TRAILER_BYTES: usize = 24;
const FOOTER: frame::Kind = frame::Kind { magic: *b"CHFT", version: 1 };

/// Bytes gathered before they are written: large enough that the calls do not count, small beside the memory limit.
const BUFFER_BYTES: usize = 256 << 10;

/// Bytes read at once when a whole file is verified.
const VERIFY_BYTES: usize = 256 << 10;

#[derive(Serialize, Deserialize)]
struct Footer {
    entries: Vec<EntryRecord>,
    range_deletes: Vec<RangeDeleteRecord>,
    state: Vec<u8>,
    /// xxh3 (128 bits) over every byte before the footer.
    content_hash: u128,
}

/// The path of sealed file `number` in the state directory.
pub fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:06}.blk"))
}

/// Writes one sealed file.
pub struct SealedWriter {
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    written: u64,
    hash: Xxh3,
    entries: Vec<EntryRecord>,
}

impl SealedWriter {
    /// Begins file `number`. A leftover of that name, which no `CURRENT` has named, is removed.
    pub fn create(files: &dyn Files, directory: &Path, number: u32) -> Result<SealedWriter> {
        let path = path(directory, number);
        if files.exists(&path) {
            files.remove(&path)?;
        }
        let file = files.open(&path, Open::Create)?;
        let mut writer = SealedWriter { file, buffer: Vec::new(), written: 0, hash: Xxh3::new(), entries: Vec::new() };
        writer.append(&HEADER)?;
        Ok(writer)
    }

    /// Bytes so far, those still gathered included.
    pub fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// True before the first block.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a block, whose keys are above all before it; `entry.offset` is filled in here.
    pub fn push(&mut self, mut entry: EntryRecord, block: &[u8]) -> Result<()> {
        let follows = |last: &EntryRecord| (last.keyspace, &last.last) < (entry.keyspace, &entry.first);
        assert!(self.entries.last().is_none_or(follows), "blocks are sealed in key order");
        assert!(entry.bytes as usize == block.len(), "an entry says how long its block is");
        entry.offset = self.bytes();
        self.entries.push(entry);
        self.append(block)
    }

    /// Writes footer and trailer and makes the file durable; its name is durable once the directory is synced.
    /// Gives the length of the file.
    pub fn finish(mut self, range_deletes: &[RangeDelete], state: &[u8]) -> Result<u64> {
        let footer_offset = self.bytes();
        let footer = Footer {
            entries: std::mem::take(&mut self.entries),
            range_deletes: range_deletes.iter().map(RangeDeleteRecord::from).collect(),
            state: state.to_vec(),
            content_hash: self.hash.digest128(),
        };
        let footer = frame::wrap(FOOTER, &frame::encode(&footer));
        let mut trailer = Vec::with_capacity(TRAILER_BYTES);
        trailer.extend_from_slice(&footer_offset.to_le_bytes());
        trailer.extend_from_slice(&(footer.len() as u32).to_le_bytes());
        trailer.extend_from_slice(&crc32c::crc32c(&trailer).to_le_bytes());
        trailer.extend_from_slice(&TRAILER_MAGIC);
        self.append(&footer)?;
        self.append(&trailer)?;
        self.write_out()?;
        self.file.sync_all()?;
        Ok(self.written)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<()> {
        self.file.write_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        // A large row was in it: it keeps what others need.
        self.buffer.shrink_to(2 * BUFFER_BYTES);
        Ok(())
    }
}

/// One open sealed file.
pub struct SealedFile {
    /// Its number.
    pub number: u32,
    /// Its length.
    pub bytes: u64,
    /// The replicated state that was sealed with it.
    pub state: StateRecord,
    path: PathBuf,
    file: Arc<dyn File>,
    files: Arc<dyn Files>,
    footer_offset: u64,
    content_hash: u128,
    identity: u128,
    entries: Vec<(KeyspaceId, Arc<BlockEntry>)>,
    range_deletes: Vec<RangeDelete>,
    is_doomed: AtomicBool,
    /// Set with the first block that is found damaged.
    is_damaged: AtomicBool,
    /// Told of it.
    on_damage: OnceLock<OnDamage>,
}

/// Told what is wrong with a block.
pub type OnDamage = Box<dyn Fn(&Error) + Send + Sync>;

impl SealedFile {
    /// Opens a file by reading its trailer and footer.
    pub fn open(files: &Arc<dyn Files>, directory: &Path, number: u32) -> Result<Arc<SealedFile>> {
        SealedFile::open_at(files, path(directory, number), number)
    }

    /// The same under whatever name.
    pub fn open_at(files: &Arc<dyn Files>, path: PathBuf, number: u32) -> Result<Arc<SealedFile>> {
        let what = path.display();
        let file = files.open(&path, Open::Read)?;
        let bytes = file.len()?;
        let short = || Error::damaged(format!("{what}: {bytes} bytes are too few for a sealed file"));
        let trailer_offset = bytes.checked_sub(TRAILER_BYTES as u64).ok_or_else(short)?;
        let mut trailer = [0; TRAILER_BYTES];
        file.read_at(&mut trailer, trailer_offset)?;
        let (footer_offset, footer_bytes) = parse_trailer(&trailer)
            .filter(|(offset, bytes)| offset.checked_add(u64::from(*bytes)) == Some(trailer_offset))
            .ok_or_else(|| Error::damaged(format!("{what}: its trailer is damaged")))?;
        let mut header = [0; HEADER.len()];
        file.read_at(&mut header, 0)?;
        if header != HEADER {
            return Err(Error::damaged(format!("{what}: its first bytes are not those of a sealed file")));
        }
        let mut footer = vec![0; footer_bytes as usize];
        file.read_at(&mut footer, footer_offset)?;
        let identity = xxh3_128(&footer);
        let footer = frame::unwrap(FOOTER, &footer, format_args!("{what}: footer"))?;
        let footer: Footer = frame::decode(footer, format_args!("{what}: footer"))?;
        if !is_orderly(&footer.entries, footer_offset) {
            return Err(Error::damaged(format!("{what}: footer: its blocks are out of order or reach over its end")));
        }
        let state = StateRecord::decode(&footer.state, format_args!("{what}: state record"))?;
        Ok(Arc::new(SealedFile {
            number,
            bytes,
            state,
            file,
            files: files.clone(),
            footer_offset,
            content_hash: footer.content_hash,
            identity,
            entries: footer.entries.into_iter().map(|entry| entry.into_entry(number)).collect(),
            range_deletes: footer.range_deletes.iter().map(RangeDelete::from).collect(),
            is_doomed: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
            on_damage: OnceLock::new(),
            path,
        }))
    }

    /// What tells this file from every other one: the hash of its footer, in which the hash of all the rest is.
    pub fn identity(&self) -> u128 {
        self.identity
    }

    /// Reads bytes of it as they lie there.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_at(buffer, offset)
    }

    /// Reads everything and compares it with the content hash.
    pub fn verify(&self) -> Result<()> {
        let mut hash = Xxh3::new();
        let mut buffer = vec![0; VERIFY_BYTES];
        let mut at = 0;
        while at < self.footer_offset {
            let part = &mut buffer[..(self.footer_offset - at).min(VERIFY_BYTES as u64) as usize];
            self.file.read_at(part, at)?;
            hash.update(part);
            at += part.len() as u64;
        }
        if hash.digest128() == self.content_hash {
            return Ok(());
        }
        // The hash says that something is wrong; the blocks say where.
        self.entries.iter().try_for_each(|(_, entry)| self.read(entry).map(|_| ()))?;
        Err(Error::damaged(format!("{}: its content does not have the hash in its footer", self.path.display())))
    }

    /// Has `then` called once, by whoever first finds a block of this file damaged. The first call of this counts.
    pub fn on_damage(&self, then: OnDamage) {
        let _ = self.on_damage.set(then);
    }

    fn read(&self, entry: &BlockEntry) -> Result<Block> {
        self.read_block(entry).inspect_err(|error| {
            if matches!(error.kind(), Kind::Damaged | Kind::Io)
                && !self.is_damaged.swap(true, Ordering::AcqRel)
                && let Some(then) = self.on_damage.get()
            {
                then(error);
            }
        })
    }

    fn read_block(&self, entry: &BlockEntry) -> Result<Block> {
        let named = |error: Error| {
            error.context(format_args!(
                "{} at {}, keys {} to {}",
                self.path.display(),
                entry.address.offset,
                show(&entry.first),
                show(&entry.last)
            ))
        };
        let mut bytes = vec![0; entry.bytes as usize];
        self.file.read_at(&mut bytes, entry.address.offset).map_err(named)?;
        let block = Block::open(bytes.into()).map_err(named)?;
        if block.rows() != entry.summary.rows as usize {
            return Err(named(Error::damaged("another block lies here than the manifest says")));
        }
        Ok(block)
    }
}

impl Drop for SealedFile {
    fn drop(&mut self) {
        if self.is_doomed.load(Ordering::Acquire)
            && let Err(error) = self.files.remove(&self.path)
        {
            // Nothing is lost but space: the next start removes what CURRENT does not name.
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a merged file");
        }
    }
}

/// True where entries are what [`SealedWriter::push`] wrote: in key order, end to end, all before the footer. So no
/// length from a file is believed, and no search runs over what is not sorted.
fn is_orderly(entries: &[EntryRecord], footer_offset: u64) -> bool {
    let mut reached = HEADER.len() as u64;
    let is_whole = entries.iter().all(|entry| {
        let follows = entry.offset == reached && entry.first <= entry.last && entry.summary.rows > 0;
        reached += u64::from(entry.bytes);
        follows
    });
    let ascend = |pair: &[EntryRecord]| (pair[0].keyspace, &pair[0].last) < (pair[1].keyspace, &pair[1].first);
    is_whole && reached == footer_offset && entries.windows(2).all(ascend)
}

fn parse_trailer(trailer: &[u8; TRAILER_BYTES]) -> Option<(u64, u32)> {
    let (body, magic) = trailer.split_at(16);
    let crc = u32::from_le_bytes(body[12..16].try_into().ok()?);
    let is_whole = magic == TRAILER_MAGIC && crc32c::crc32c(&body[..12]) == crc;
    let offset = u64::from_le_bytes(body[..8].try_into().ok()?);
    let bytes = u32::from_le_bytes(body[8..12].try_into().ok()?);
    is_whole.then_some((offset, bytes))
}

/// The files of one run, read by block.
struct RunSource {
    files: BTreeMap<u32, Arc<SealedFile>>,
}

impl BlockSource for RunSource {
    fn read(&self, entry: &BlockEntry) -> Result<Block> {
        let file = self.files.get(&entry.address.file);
        file.ok_or_else(|| Error::internal(format!("no file {} in this run", entry.address.file)))?.read(entry)
    }
}

/// One open run.
#[derive(Clone)]
pub struct SealedRun {
    /// Its blocks.
    pub level: Level,
    /// The newest state record of its files.
    pub state: StateRecord,
    /// Its files with the ranges that count, in key order.
    pub names: Vec<SealedName>,
    files: Vec<Arc<SealedFile>>,
}

impl SealedRun {
    /// Opens a run as `CURRENT` names it. Files that one of `open_runs` has open already are not opened again, so what
    /// is cached of their blocks stays.
    pub fn open(
        files: &Arc<dyn Files>,
        directory: &Path,
        names: &[SealedName],
        open_runs: &[SealedRun],
    ) -> Result<SealedRun> {
        let known = |number: u32| open_runs.iter().flat_map(|run| &run.files).find(|file| file.number == number);
        let mut opened = Vec::with_capacity(names.len());
        let mut keyspaces: BTreeMap<KeyspaceId, Vec<Arc<BlockEntry>>> = BTreeMap::new();
        let mut range_deletes = Vec::new();
        for name in names {
            let file = match known(name.number) {
                Some(file) => file.clone(),
                None => SealedFile::open(files, directory, name.number)?,
            };
            for (keyspace, entry) in &file.entries {
                if name.holds(*keyspace, &entry.first) && name.holds(*keyspace, &entry.last) {
                    keyspaces.entry(*keyspace).or_default().push(entry.clone());
                } else if name.holds(*keyspace, &entry.first) || name.holds(*keyspace, &entry.last) {
                    return Err(Error::damaged(format!(
                        "{}: the block at {} reaches over the range that CURRENT names",
                        file.path.display(),
                        entry.address.offset
                    )));
                }
            }
            range_deletes.extend(file.range_deletes.iter().cloned());
            opened.push(file);
        }
        let overlap = |blocks: &Vec<Arc<BlockEntry>>| blocks.windows(2).any(|pair| pair[0].last >= pair[1].first);
        if keyspaces.values().any(overlap) {
            return Err(Error::damaged(format!("{}: the files of a run overlap", directory.display())));
        }
        prune(&mut range_deletes);
        let newest = opened.iter().max_by_key(|file| file.state.applied);
        let state = newest.map(|file| file.state.clone()).ok_or_else(|| Error::damaged("a run without a file"))?;
        let source = RunSource { files: opened.iter().map(|file| (file.number, file.clone())).collect() };
        let level = Level {
            manifest: Manifest::new(keyspaces),
            range_deletes: Arc::new(range_deletes),
            source: Arc::new(source),
        };
        Ok(SealedRun { level, state, names: names.to_vec(), files: opened })
    }

    /// Bytes of its files, whole.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Its open files.
    pub fn files(&self) -> &[Arc<SealedFile>] {
        &self.files
    }

    /// Marks files that no `CURRENT` names any more: each is removed with its last handle.
    pub fn doom(&self, numbers: &[u32]) {
        for file in self.files.iter().filter(|file| numbers.contains(&file.number)) {
            file.is_doomed.store(true, Ordering::Release);
        }
    }
}
