//! Room: files of hot blocks that are mostly superseded are emptied, so that the disk stays bounded.
//!
//! A flush supersedes blocks here and there, and a file goes only when none of its blocks is named. So a flush also
//! moves what is left of nearly empty files, record by record as it stands, into the file that it writes anyway.
//!
//! * A file is emptied once less than a quarter of its bytes are live. So files hold at most four times the live bytes,
//!   besides those that wait for their turn and those that readers hold.
//! * What is moved in all is at most a third of what was superseded: a file had to lose three quarters for one quarter
//!   to be moved. In one flush it is at most [`MOVE_BYTES_MAX`] and the rest of the file with which that is reached.
//! * More than [`FILES_MAX`] files are too many as well: then those with the least in them are emptied.

use crate::error::Result;
use crate::ids::KeyspaceId;
use crate::storage::draft::Draft;
use crate::storage::hot::HotStore;
use crate::storage::level::BlockEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A file is emptied where its length is more than this many times what is live in it: twice would move up to as much
/// as was superseded, four times a third of it.
const SPARSE_RATIO: u64 = 4;

/// Live bytes moved in one flush, about: copied in the time in which a flush encodes a tenth of its rows.
const MOVE_BYTES_MAX: u64 = 4 << 20;

/// Files named at once: each holds a descriptor. Usual settings seal after eight to twenty flushes.
const FILES_MAX: usize = 64;

#[derive(Default)]
struct Use {
    live: u64,
    bytes: u64,
}

impl Draft {
    /// Moves what is left of nearly empty files into the draft's own.
    pub(in crate::storage) fn make_room(&mut self, hot: &HotStore) -> Result<()> {
        let emptied = self.sparse_files(hot);
        if emptied.is_empty() {
            return Ok(());
        }
        let keyspaces: Vec<KeyspaceId> = self.manifest.keyspaces().collect();
        for keyspace in keyspaces {
            let mut blocks = self.manifest.blocks(keyspace).to_vec();
            let mut has_changed = false;
            for entry in blocks.iter_mut().filter(|entry| emptied.contains(&entry.address.file)) {
                let address = self.move_block(hot, entry)?;
                // The same content under the same name in this process: what is cached of it stays.
                *entry = Arc::new(BlockEntry { address, ..(**entry).clone() });
                has_changed = true;
            }
            if has_changed {
                self.manifest = self.manifest.with(keyspace, blocks);
            }
        }
        Ok(())
    }

    /// The files to empty now, those with the least in them first.
    fn sparse_files(&self, hot: &HotStore) -> BTreeSet<u32> {
        let mut uses: BTreeMap<u32, Use> = BTreeMap::new();
        for (number, file) in hot.files.iter().chain(&self.files) {
            uses.entry(*number).or_default().bytes = file.bytes;
        }
        let mut live = |file: u32, bytes: u32| uses.entry(file).or_default().live += u64::from(bytes);
        hot.live.iter().chain(&self.added).for_each(|(address, stored)| live(address.file, stored.bytes));
        for address in &self.superseded {
            if let (Some(stored), Some(file)) = (hot.live.get(address), uses.get_mut(&address.file)) {
                file.live -= u64::from(stored.bytes);
            }
        }
        // What is moved goes into the file that is being written.
        let target = self.file_number();
        let others = uses.into_iter().filter(|(number, file)| file.live > 0 && Some(*number) != target);
        let mut uses: Vec<(u32, Use)> = others.collect();
        uses.sort_by_key(|(number, file)| (file.live, *number));
        let mut left = uses.len();
        let mut moved = 0;
        let mut emptied = BTreeSet::new();
        for (number, file) in uses {
            let is_sparse = file.live * SPARSE_RATIO < file.bytes;
            if moved < MOVE_BYTES_MAX && (is_sparse || left > FILES_MAX) {
                moved += file.live;
                left -= 1;
                emptied.insert(number);
            }
        }
        emptied
    }
}
