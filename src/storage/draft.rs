//! A draft: blocks of the hot store that are written and that nobody sees yet.
//!
//! Flush writes into a draft; [`crate::storage::hot::HotStore::publish`] makes it visible. One large command may fill
//! several memtables, so a draft takes in any number of them before it is published, or is thrown away whole.
//!
//! * Each memtable taken in gets a file of its own, so what a later one takes the place of leaves with its file, before
//!   the draft is published.
//! * File numbers are drawn once: what a draft wrote and gave up is never written again under the same number.
//! * Nothing is published before all of it has been handed to the operating system.

use crate::error::{Error, Result};
use crate::storage::block::Block;
use crate::storage::entry::EntryRecord;
use crate::storage::hot::HotStore;
use crate::storage::hot::block_file::{self, BlockFile, Stored, Writer};
use crate::storage::level::{Address, BlockEntry, Level, Manifest, RangeDelete};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a flush made.
#[derive(Clone)]
pub struct FlushReport {
    /// The level to swap in.
    pub level: Arc<Level>,
    /// How much work it was.
    pub work: FlushWork,
}

/// What a flush did. The write amplification is `rows_written / rows_in`, and `bytes_written` against the encoded
/// bytes of the rows that came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushWork {
    /// Rows taken from the memtable.
    pub rows_in: u64,
    /// Rows in the blocks written.
    pub rows_written: u64,
    /// Blocks written.
    pub blocks_written: u64,
    /// Encoded bytes of the blocks written, with their entries.
    pub bytes_written: u64,
    /// Bytes of blocks that were copied as they were, to empty files that held little else.
    pub bytes_moved: u64,
    /// Blocks that the new level no longer names.
    pub blocks_superseded: u64,
    /// Rows left out because they had expired.
    pub rows_expired: u64,
}

impl FlushWork {
    /// Rows written for each row that came in: about one for appends, and as many as there were flushes where each
    /// hits every block.
    pub fn amplification(&self) -> f64 {
        self.rows_written as f64 / self.rows_in.max(1) as f64
    }
}

/// Blocks that are written and not yet visible.
pub struct Draft {
    pub(super) manifest: Manifest,
    pub(super) range_deletes: Vec<RangeDelete>,
    pub(super) added: BTreeMap<Address, Stored>,
    /// Published blocks that the draft takes the place of.
    pub(super) superseded: Vec<Address>,
    /// Files of this draft that are written to their end.
    pub(super) files: BTreeMap<u32, BlockFile>,
    pub(super) next_file: u32,
    pub(super) work: FlushWork,
    is_complete: bool,
    writer: Option<Writer>,
}

impl Draft {
    /// A draft that begins with what is published.
    pub fn new(hot: &HotStore) -> Draft {
        Draft {
            manifest: hot.level.manifest.clone(),
            range_deletes: hot.level.range_deletes.to_vec(),
            added: BTreeMap::new(),
            superseded: Vec::new(),
            files: BTreeMap::new(),
            next_file: hot.next_file,
            work: FlushWork::default(),
            is_complete: false,
            writer: None,
        }
    }

    /// Moves what is left of nearly empty files and ends the file that is being written, once: what remains is to publish.
    pub(super) fn complete(&mut self, hot: &HotStore) -> Result<()> {
        if !self.is_complete {
            self.make_room(hot)?;
            self.end_file()?;
            self.is_complete = true;
        }
        Ok(())
    }

    /// The file that is being written.
    pub(super) fn file_number(&self) -> Option<u32> {
        self.writer.as_ref().map(|writer| writer.number)
    }

    /// Ends the file that is being written; what comes goes into the next.
    pub(super) fn end_file(&mut self) -> Result<()> {
        if let Some(mut writer) = self.writer.take() {
            // Known before it is whole: a draft that is thrown away removes it.
            let file = BlockFile { file: writer.file.clone(), bytes: writer.bytes() };
            self.files.insert(writer.number, file);
            writer.write_out()?;
        }
        Ok(())
    }

    /// Hands what was written to the operating system, so that it can be read back.
    pub(super) fn write_out(&mut self) -> Result<()> {
        self.writer.as_mut().map_or(Ok(()), Writer::write_out)
    }

    /// Removes files of this draft in which nothing is named any more: keys from all over rewrite every block with every
    /// memtable, and a large command would fill the disk with what nobody ever saw.
    pub(super) fn remove_unnamed(&mut self, hot: &HotStore) -> Result<()> {
        let named: BTreeSet<u32> = self.added.keys().map(|address| address.file).collect();
        let gone: Vec<u32> = self.files.keys().filter(|number| !named.contains(number)).copied().collect();
        gone.into_iter().try_for_each(|number| {
            self.files.remove(&number);
            hot.shared.remove(number)
        })
    }

    /// Takes a block out, with the next publish.
    pub(super) fn supersede(&mut self, entry: &BlockEntry) {
        self.work.blocks_superseded += 1;
        if self.added.remove(&entry.address).is_none() {
            self.superseded.push(entry.address);
        }
    }

    /// Writes a block.
    pub(super) fn store(&mut self, hot: &HotStore, mut entry: EntryRecord, block: &[u8]) -> Result<Arc<BlockEntry>> {
        let (address, stored) = self.writer(hot)?.push(&entry, block)?;
        entry.offset = address.offset;
        self.work.blocks_written += 1;
        self.work.rows_written += u64::from(entry.summary.rows);
        self.work.bytes_written += u64::from(stored.bytes);
        self.added.insert(address, stored);
        Ok(entry.into_entry(address.file).1)
    }

    /// Puts a block as it is into the file that is being written.
    pub(super) fn move_block(&mut self, hot: &HotStore, entry: &BlockEntry) -> Result<Address> {
        let stored = self.added.get(&entry.address).or_else(|| hot.live.get(&entry.address)).copied();
        let stored = stored.expect("what a manifest names is in the chain or was added by this draft");
        let file = self.file(hot, entry.address.file)?.file.clone();
        let record = hot.shared.checked(block_file::read_record(&*file, entry.address, stored))?;
        let (address, stored) = self.writer(hot)?.push_record(&record, stored.head)?;
        self.work.bytes_moved += u64::from(stored.bytes);
        if self.added.remove(&entry.address).is_none() {
            self.superseded.push(entry.address);
        }
        self.added.insert(address, stored);
        Ok(address)
    }

    /// Reads a block of the draft's manifest.
    pub(super) fn read(&self, hot: &HotStore, entry: &BlockEntry) -> Result<Block> {
        hot.shared.checked(block_file::read_block(&*self.file(hot, entry.address.file)?.file, entry))
    }

    fn file<'a>(&'a self, hot: &'a HotStore, number: u32) -> Result<&'a BlockFile> {
        let file = self.files.get(&number).or_else(|| hot.files.get(&number));
        file.ok_or_else(|| Error::internal(format!("hot store: no file {number} for the blocks to be merged")))
    }

    fn writer(&mut self, hot: &HotStore) -> Result<&mut Writer> {
        if self.writer.is_none() {
            let number = self.next_file;
            self.next_file += 1;
            self.writer = Some(hot.shared.create(number)?);
        }
        Ok(self.writer.as_mut().expect("it was made just now where there was none"))
    }
}
