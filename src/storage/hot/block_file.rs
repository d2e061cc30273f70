//! Files of hot blocks: one for each memtable flushed, written once from front to back, never changed.
//!
//! ```text
//!   hot-000012/000007.hot     record | record | record | ...
//!   record                    frame header 12 | entry length u32 | entry | block | crc32c u32
//!                             ^ stored.head bytes before ...               ^ ... the address of the block
//! ```
//!
//! * A file is complete before the batch that names its blocks goes to the store. It is never fsynced: after a power
//!   cut the whole hot directory is thrown away, and after the death of the process the page cache has the bytes.
//! * Reading a block is one read of the block alone, which carries its own checksum. Opening reads each file once,
//!   from front to back, and compares every named record with the checksum that the chain has for it.
//! * A number is never used for two contents that anything names: what nothing names is removed before it is drawn.

use crate::error::{Error, Result};
use crate::ids::KeyspaceId;
use crate::storage::block::Block;
use crate::storage::entry::{EntryRecord, show};
use crate::storage::files::{File, Files, Open};
use crate::storage::frame;
use crate::storage::level::{Address, BlockEntry, Manifest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BLOCK: frame::Kind = frame::Kind { magic: *b"CHHB", version: 1 };

/// How the names of these files end.
const EXTENSION: &str = "hot";

/// Bytes gathered before they are written, and read at once when a store is opened: large enough that the calls do
/// not count, small beside the memory limit.
const BUFFER_BYTES: usize = 256 << 10;

/// Bytes of the length that stands before an entry.
const LENGTH_BYTES: usize = 4;

/// Bytes of the checksum that ends a record.
const CRC_BYTES: usize = 4;

/// What the chain knows of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::storage) struct Stored {
    /// Checksum that ends its record.
    pub(in crate::storage) crc: u32,
    /// Bytes of the record before the block.
    pub(in crate::storage) head: u32,
    /// Bytes of the record.
    pub(in crate::storage) bytes: u32,
}

impl Stored {
    /// Where the record of the block at `offset` begins.
    fn begin(&self, offset: u64) -> Option<u64> {
        offset.checked_sub(u64::from(self.head))
    }
}

/// The path of file `number` in a hot directory.
pub fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:06}.{EXTENSION}"))
}

/// A file whose blocks are named.
#[derive(Clone)]
pub(in crate::storage) struct BlockFile {
    pub(in crate::storage) file: Arc<dyn File>,
    /// Its length.
    pub(in crate::storage) bytes: u64,
}

/// Writes one file.
pub(in crate::storage) struct Writer {
    pub(in crate::storage) number: u32,
    pub(in crate::storage) file: Arc<dyn File>,
    buffer: Vec<u8>,
    written: u64,
}

impl Writer {
    /// Begins a file. A leftover of that name, which no published manifest names, is removed.
    pub(in crate::storage) fn create(files: &dyn Files, directory: &Path, number: u32) -> Result<Writer> {
        let path = path(directory, number);
        if files.exists(&path) {
            files.remove(&path)?;
        }
        Ok(Writer { number, file: files.open(&path, Open::Create)?, buffer: Vec::new(), written: 0 })
    }

    /// Bytes so far, those still gathered included.
    pub(in crate::storage) fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Adds a block under its entry; says where it lies.
    pub(in crate::storage) fn push(&mut self, entry: &EntryRecord, block: &[u8]) -> Result<(Address, Stored)> {
        let entry = frame::encode(entry);
        let (from, place) = (self.buffer.len(), self.bytes());
        // Straight into the buffer: a block of one row may have megabytes.
        frame::wrap_into(&mut self.buffer, BLOCK, &[&(entry.len() as u32).to_le_bytes(), &entry, block]);
        self.pushed((from, place), (frame::HEADER_BYTES + LENGTH_BYTES + entry.len()) as u32)
    }

    /// Adds a record as it stands in another file.
    pub(in crate::storage) fn push_record(&mut self, record: &[u8], head: u32) -> Result<(Address, Stored)> {
        let (from, place) = (self.buffer.len(), self.bytes());
        self.buffer.extend_from_slice(record);
        self.pushed((from, place), head)
    }

    /// A record stands in the buffer from `from` on, and in the file from `place` on.
    fn pushed(&mut self, (from, place): (usize, u64), head: u32) -> Result<(Address, Stored)> {
        let record = &self.buffer[from..];
        let address = Address { file: self.number, offset: place + u64::from(head) };
        let stored = Stored { crc: crc_of(record), head, bytes: record.len() as u32 };
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_out()?;
        }
        Ok((address, stored))
    }

    /// Hands what is gathered to the operating system.
    pub(in crate::storage) fn write_out(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.file.write_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        // A large row was in it: it keeps what others need.
        self.buffer.shrink_to(2 * BUFFER_BYTES);
        Ok(())
    }
}

/// The checksum that ends a record. The checksum *of* a record with its own at its end is the same for every one.
fn crc_of(record: &[u8]) -> u32 {
    record.last_chunk::<CRC_BYTES>().map_or(0, |crc| u32::from_le_bytes(*crc))
}

/// Names a place in an error.
fn place(address: Address) -> String {
    format!("hot store, {:06}.{EXTENSION} at {}", address.file, address.offset)
}

/// Reads a block by its entry alone.
pub(in crate::storage) fn read_block(file: &dyn File, entry: &BlockEntry) -> Result<Block> {
    let named = |error: Error| {
        let (first, last) = (show(&entry.first), show(&entry.last));
        error.context(format_args!("{}, keys {first} to {last}", place(entry.address)))
    };
    let mut bytes = vec![0; entry.bytes as usize];
    file.read_at(&mut bytes, entry.address.offset).map_err(named)?;
    let block = Block::open(bytes.into()).map_err(named)?;
    if block.rows() != entry.summary.rows as usize {
        return Err(named(Error::damaged("another block lies here than the manifest says")));
    }
    Ok(block)
}

/// Reads a block's whole record, checked, to put it elsewhere.
pub(in crate::storage) fn read_record(file: &dyn File, address: Address, stored: Stored) -> Result<Vec<u8>> {
    let begin = stored.begin(address.offset).ok_or_else(|| misplaced(address))?;
    let mut record = vec![0; stored.bytes as usize];
    file.read_at(&mut record, begin).map_err(|error| error.context(place(address)))?;
    split(&record, address, stored)?;
    Ok(record)
}

fn misplaced(address: Address) -> Error {
    Error::damaged(format!("{}: it is not the block that the chain names", place(address)))
}

/// The entry of a record, and its block; both as the chain names them.
fn split(record: &[u8], address: Address, stored: Stored) -> Result<(EntryRecord, &[u8])> {
    let payload = frame::unwrap(BLOCK, record, place(address))?;
    let parts = payload
        .split_first_chunk::<LENGTH_BYTES>()
        .and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
    let (entry, block) = parts.ok_or_else(|| misplaced(address))?;
    let head = frame::HEADER_BYTES + LENGTH_BYTES + entry.len();
    let entry: EntryRecord = frame::decode(entry, format_args!("{}, its entry", place(address)))?;
    if crc_of(record) != stored.crc || head != stored.head as usize || entry.bytes as usize != block.len() {
        return Err(misplaced(address));
    }
    Ok((entry, block))
}

/// Opens the files of the blocks named and compares every block with its checksum.
pub(in crate::storage) fn open_named(
    files: &dyn Files,
    directory: &Path,
    live: &BTreeMap<Address, Stored>,
) -> Result<(Manifest, BTreeMap<u32, BlockFile>)> {
    let mut opened: BTreeMap<u32, BlockFile> = BTreeMap::new();
    let mut keyspaces: BTreeMap<KeyspaceId, Vec<Arc<BlockEntry>>> = BTreeMap::new();
    let mut reader: Option<Reader> = None;
    for (address, stored) in live {
        let file = match reader.take() {
            Some(reader) if reader.number == address.file => reader,
            Some(_) | None => Reader::open(files, directory, address.file)?,
        };
        let file = reader.insert(file);
        let record = file.record(*address, *stored)?;
        let (mut entry, _) = split(record, *address, *stored)?;
        entry.offset = address.offset;
        let (keyspace, entry) = entry.into_entry(address.file);
        keyspaces.entry(keyspace).or_default().push(entry);
        opened.entry(address.file).or_insert_with(|| BlockFile { file: file.file.clone(), bytes: file.bytes });
    }
    for blocks in keyspaces.values_mut() {
        blocks.sort_by(|a, b| a.first.cmp(&b.first));
        if blocks.windows(2).any(|pair| pair[0].last >= pair[1].first) {
            return Err(Error::damaged("hot store: its blocks overlap"));
        }
    }
    Ok((Manifest::new(keyspaces), opened))
}

/// Removes the files of a hot directory that are not among those named.
pub(in crate::storage) fn remove_others(
    files: &dyn Files,
    directory: &Path,
    named: &BTreeMap<u32, BlockFile>,
) -> Result<()> {
    let kept: Vec<PathBuf> = named.keys().map(|number| path(directory, *number)).collect();
    let is_ours = |path: &PathBuf| path.extension().is_some_and(|extension| extension == EXTENSION);
    let others = files.list(directory)?.into_iter().filter(|path| is_ours(path) && !kept.contains(path));
    others.into_iter().try_for_each(|path| files.remove(&path))
}

/// Goes through a file from front to back.
struct Reader {
    number: u32,
    file: Arc<dyn File>,
    bytes: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    at: u64,
}

impl Reader {
    fn open(files: &dyn Files, directory: &Path, number: u32) -> Result<Reader> {
        let path = path(directory, number);
        if !files.exists(&path) {
            return Err(Error::damaged(format!("hot store: {} is missing", path.display())));
        }
        let file = files.open(&path, Open::Read)?;
        Ok(Reader { number, bytes: file.len()?, file, buffer: Vec::new(), at: 0 })
    }

    fn record(&mut self, address: Address, stored: Stored) -> Result<&[u8]> {
        let begin = stored.begin(address.offset).ok_or_else(|| misplaced(address))?;
        let end = begin + u64::from(stored.bytes);
        if end > self.bytes {
            return Err(Error::damaged(format!("{}: the file is cut short", place(address))));
        }
        if begin < self.at || end > self.at + self.buffer.len() as u64 {
            let length = (self.bytes - begin).min(u64::from(stored.bytes).max(BUFFER_BYTES as u64));
            self.buffer.resize(length as usize, 0);
            self.file.read_at(&mut self.buffer, begin).map_err(|error| error.context(place(address)))?;
            self.at = begin;
        }
        let from = (begin - self.at) as usize;
        Ok(&self.buffer[from..from + stored.bytes as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::files::SystemFiles;

    #[test]
    fn the_buffer_gives_back_what_a_large_record_took() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(&SystemFiles, directory.path(), 1).unwrap();
        for record in [vec![1; 100], vec![7; 4 << 20], vec![2; 100]] {
            let before = writer.bytes();
            let (address, stored) = writer.push_record(&record, 12).unwrap();
            assert_eq!((address.offset, stored.bytes as usize), (before + 12, record.len()));
        }
        assert!(writer.buffer.capacity() <= 2 * BUFFER_BYTES, "{}", writer.buffer.capacity());
        writer.write_out().unwrap();
        assert_eq!(std::fs::read(path(directory.path(), 1)).unwrap().len(), (4 << 20) + 200);
    }
}
