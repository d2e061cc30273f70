//! The hot store: blocks that are still being rewritten, in plain files, and the chain that names them.
//!
//! Every flush writes new blocks and leaves the old ones alone; then one small batch publishes the change. So readers of
//! the old manifest go on reading, and a process killed at any point leaves the old manifest or the new one.
//!
//! ```text
//!   files of the directory     000007.hot: the blocks of one flush in key order, never changed, never fsynced
//!
//!   key in the engine          value, at most 4 KB each; longer records go on in the next part
//!   "d" sequence part          a delta: {blocks added with their checksums, blocks removed, hash of the root's content}
//!   "r" part                   the root: {sequence, state record, range deletes, birth}, running hash
//!
//!   running hash n = xxh3(running hash n-1, delta n)         a base delta, every 64th, names all blocks anew
//! ```
//!
//! Why blocks are not values of the engine: sled writes a leaf of up to 16 values anew when one of them is added, and
//! gives space back late. Measured with the same blocks (2 cores, ten flushes of 100,000 rows each):
//!
//! | keys | device bytes for an encoded one: sled | files | disk for a live byte: sled | files | write and publish: sled | files |
//! |---|---|---|---|---|---|---|
//! | one series | 4.3 | 1.0 | 2.2 | 1.0 | 20 ms | 7 ms |
//! | 50 series | 4.4 | 1.0 | 2.6 | 1.2 | 78 ms | 4 ms |
//! | 5,000 series | 5.7 | 1.0 | 6.7 | 1.0 | 265 ms | 29 ms |
//! | UUIDs | 6.9 | 1.0 | 4.4 | 1.0 | 2,440 ms | 162 ms |
//!
//! No setting of sled changed that: segments of 128 KiB, values of 16 KB, `LowSpace`, other batches (3.5 to 10.6). What
//! it is good at stays with it: a small batch, seen whole or not at all, which switches manifest and state together.
//!
//! # How large a block is
//!
//! Measured: 1,000,000 rows (device TEXT, ts) -> FLOAT, or a random key of 32 characters, in 15 flushes of 70,000 and
//! one seal; release build, 2 cores shared with others, so times are good to a factor of two. *Amplification* is rows
//! written for one that came in, *device* the bytes written to it for an encoded byte, sled's share included, *get* one
//! row out of nothing but encoded bytes. 50 series and UUIDs:
//!
//! | block | amplification | live blocks | encoded | device | disk / live | get | RSS (UUIDs) |
//! |---|---|---|---|---|---|---|---|
//! | 4 KB, 1,024 rows | 1.5, 8.2 | 1,188, 11,932 | 3.2, 368 MB | 1.07, 1.04 | 1.8, 1.21 | 17, 20 us | 34 MB |
//! | **8 KB, 1,024 rows** | 1.5, 8.3 | 1,189, 5,271 | 3.2, 355 MB | 1.08, 1.01 | 1.8, 1.13 | 23, 31 us | 24 MB |
//! | 8 KB, 2,048 rows | 2.0, 8.3 | 670, 5,271 | 3.8, 355 MB | 1.07, 1.01 | 2.2, 1.14 | 33 to 55, 35 us | 24 MB |
//! | 16 KB, 2,048 rows | 2.0, 8.4 | 669, 2,571 | 3.8, 346 MB | 1.06, 1.01 | 2.2, 1.09 | 33, 45 us | 22 MB |
//!
//! 5,000 series are rewritten whole at any size: 8.4 rows for one, 1.03 on the device. So it is the rows that cost: 2,048
//! of them rewrite a third more at the tails of series and double a lookup. 8 KB instead of 4 halve the entries that
//! wide or random rows need; 16 KB save little more and cost a lookup half as much again.
//!
//! Before, with blocks of 4 KB as values of sled, the same 1,000,000 rows with their seal wrote 17 MB (50 series), 114 MB
//! (5,000) and 3,133 MB (UUIDs) to the device, now 5.2, 18 and 399 MB; sealed early, after every fifth flush, as
//! [`HotStore::amplification`] asks for, 8.1 MB (5,000) and 171 MB (UUIDs).
//!
//! # Invariants
//!
//! * The store holds what its root says, or opening it fails: the deltas follow one another up to the root's sequence,
//!   the running hash fits, every block named is there with the checksum named. An earlier copy of the whole store is
//!   whole too, and says so by its earlier state record.
//! * The state record and the blocks it belongs to become visible in one batch; the blocks have been handed to the
//!   operating system before, so a process that dies takes none of them with it.
//! * A file leaves once no level that names a block of it is held any more, and the batch that no longer names it has
//!   been handed over too; what no manifest names is deleted when the store is opened.
//! * Files that are mostly superseded are emptied by later flushes (`hot::room`): disk stays below four times the live
//!   bytes, besides what readers hold and one flush's worth.
//! * Nothing here survives a power cut by promise. The log reaches back to the store's birth.

pub(in crate::storage) mod block_file;
mod chain;
mod room;

use crate::error::{Error, Kind, Result, SqlState};
use crate::ids::{LogIndex, Term};
use crate::storage::block::Block;
use crate::storage::block_store::{BlockStore, Edit};
use crate::storage::current;
use crate::storage::draft::{Draft, FlushReport, FlushWork};
use crate::storage::entry::RangeDeleteRecord;
use crate::storage::files::Files;
use crate::storage::frame;
use crate::storage::level::{Address, BlockEntry, BlockSource, Level, Manifest, RangeDelete};
use crate::storage::state::StateRecord;
use block_file::{BlockFile, Stored, Writer};
use chain::{DELTA, DELTA_PREFIX, Delta, Root, chain, push_parts, push_root, read_delta, read_root};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use xxhash_rust::xxh3::xxh3_128;

pub use block_file::path as block_path;
pub use chain::PART_BYTES;

/// After so many deltas one names all blocks anew, so that opening reads a bounded chain: 64 flushes fill a hot store.
const DELTAS_MAX: u64 = 64;

/// Flushes that [`HotStore::amplification`] looks back on: one alone may be an odd one.
const RECENT_FLUSHES: usize = 4;

/// The hot store, as its one writer sees it.
pub struct HotStore {
    /// First, so that it is closed before the last of what levels share may remove its directory. Levels do not hold it:
    /// a reader that outlives an engine must not keep the next one from opening it.
    store: Box<dyn BlockStore>,
    pub(super) shared: Arc<Shared>,
    pub(super) level: Arc<Level>,
    pub(super) live: BTreeMap<Address, Stored>,
    /// The files in which something is live.
    pub(super) files: BTreeMap<u32, BlockFile>,
    pub(super) next_file: u32,
    state: StateRecord,
    birth: (LogIndex, Term),
    sequence: u64,
    first_delta: u64,
    running: u128,
    root_parts: u16,
    recent: VecDeque<FlushWork>,
}

/// What levels share with the writer.
pub(super) struct Shared {
    files: Arc<dyn Files>,
    directory: PathBuf,
    garbage: Mutex<Garbage>,
    /// Runs once the store and all of its levels are gone: removes its directory.
    retired: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Set with the first block that is found damaged.
    is_distrusted: AtomicBool,
    /// Told of it.
    on_damage: OnceLock<OnDamage>,
}

/// Told what is wrong with a block.
pub type OnDamage = Box<dyn Fn(&Error) + Send + Sync>;

#[derive(Default)]
struct Garbage {
    /// Sequences of the levels that are held somewhere.
    held: BTreeSet<u64>,
    /// By the sequence of the last level that names them: files of which nothing is named any more, with their lengths.
    superseded: BTreeMap<u64, Vec<(u32, u64)>>,
}

/// Reads blocks for the level of one sequence.
struct HotSource {
    shared: Arc<Shared>,
    sequence: u64,
    files: BTreeMap<u32, BlockFile>,
}

impl HotStore {
    /// Makes a store of an empty engine and a directory that is there; `birth` is the state that the log continues.
    pub fn create(
        store: Box<dyn BlockStore>,
        files: Arc<dyn Files>,
        directory: &Path,
        birth: &StateRecord,
    ) -> Result<HotStore> {
        block_file::remove_others(&*files, directory, &BTreeMap::new())?;
        let shared = Shared::new(files, directory);
        let mut hot = HotStore {
            store,
            level: shared.level(0, Manifest::default(), Vec::new(), BTreeMap::new()),
            shared,
            live: BTreeMap::new(),
            files: BTreeMap::new(),
            next_file: 1,
            state: birth.clone(),
            birth: (birth.applied, birth.applied_term),
            sequence: 0,
            first_delta: 1,
            running: 0,
            root_parts: 0,
            recent: VecDeque::new(),
        };
        let draft = Draft::new(&hot);
        hot.publish(draft, birth.clone())?;
        Ok(hot)
    }

    /// Opens what [`HotStore::create`] made. Anything that does not fit together is an error of kind `Damaged`.
    pub fn open(store: Box<dyn BlockStore>, files: Arc<dyn Files>, directory: &Path) -> Result<HotStore> {
        let (root, running) = read_root(&*store)?;
        let mut live: BTreeMap<Address, Stored> = BTreeMap::new();
        let mut chained = None;
        for sequence in root.content.first_delta..=root.content.sequence {
            let (delta, bytes) = read_delta(&*store, sequence)?;
            if delta.is_base != chained.is_none() {
                return Err(Error::damaged(format!("hot store: delta {sequence} is out of place")));
            }
            chained = Some(chain(chained.unwrap_or(0), &bytes));
            if sequence == root.content.sequence && delta.root_hash != root.hash {
                return Err(Error::damaged("hot store: the root is not the one that the last delta names"));
            }
            delta.removed.iter().for_each(|address| {
                live.remove(address);
            });
            live.extend(delta.added);
        }
        if chained != Some(running) {
            return Err(Error::damaged("hot store: the chain of deltas does not lead to its root"));
        }
        let (manifest, opened) = block_file::open_named(&*files, directory, &live)?;
        let state = StateRecord::decode(&root.content.state, "hot store: state record")?;
        let deletes = root.content.range_deletes.iter().map(RangeDelete::from).collect();
        block_file::remove_others(&*files, directory, &opened)?;
        let shared = Shared::new(files, directory);
        Ok(HotStore {
            store,
            level: shared.level(root.content.sequence, manifest, deletes, opened.clone()),
            shared,
            live,
            files: opened,
            next_file: root.content.next_file,
            state,
            birth: (root.content.birth, root.content.birth_term),
            sequence: root.content.sequence,
            first_delta: root.content.first_delta,
            running,
            root_parts: root.parts,
            recent: VecDeque::new(),
        })
    }

    /// The level as last published.
    pub fn level(&self) -> Arc<Level> {
        self.level.clone()
    }

    /// The state record as last published.
    pub fn state(&self) -> &StateRecord {
        &self.state
    }

    /// Position and term at which the store was born.
    pub fn birth(&self) -> (LogIndex, Term) {
        self.birth
    }

    /// Bytes of the engine below and of the files, superseded ones included.
    pub fn size(&self) -> Result<u64> {
        let superseded: u64 = lock(&self.shared.garbage).superseded.values().flatten().map(|(_, bytes)| bytes).sum();
        let named: u64 = self.files.values().map(|file| file.bytes).sum();
        Ok(self.store.size()? + named + superseded)
    }

    /// Encoded bytes of the blocks that are named: what a seal will read.
    pub fn block_bytes(&self) -> u64 {
        self.blocks().map(|entry| u64::from(entry.bytes)).sum()
    }

    /// Rows in them, tombstones included.
    pub fn rows(&self) -> u64 {
        self.blocks().map(|entry| u64::from(entry.summary.rows)).sum()
    }

    fn blocks(&self) -> impl Iterator<Item = &Arc<BlockEntry>> {
        let manifest = &self.level.manifest;
        manifest.keyspaces().flat_map(|keyspace| manifest.blocks(keyspace))
    }

    /// Rows written for each row that came in, over the last few flushes: about one for appends, growing with the store
    /// where each flush hits every block.
    pub fn amplification(&self) -> f64 {
        let add = |sum: FlushWork, one: &FlushWork| FlushWork {
            rows_in: sum.rows_in + one.rows_in,
            rows_written: sum.rows_written + one.rows_written,
            ..sum
        };
        self.recent.iter().fold(FlushWork::default(), add).amplification()
    }

    /// Runs `then` once this store and every level of it have been let go, and the engine is closed.
    pub fn retire(&self, then: Box<dyn FnOnce() + Send>) {
        *lock(&self.shared.retired) = Some(then);
    }

    /// Has `then` called once, by whoever first finds a block damaged, after the next start was kept from trusting the
    /// store. The first call of this counts.
    pub fn on_damage(&self, then: OnDamage) {
        let _ = self.shared.on_damage.set(then);
    }

    /// Makes visible what a draft holds, together with the state record that it belongs to, in one batch.
    pub fn publish(&mut self, mut draft: Draft, state: StateRecord) -> Result<FlushReport> {
        draft.complete(self)?;
        let sequence = self.sequence + 1;
        let is_base = self.sequence == 0 || sequence - self.first_delta >= DELTAS_MAX;
        let mut live = self.live.clone();
        draft.superseded.iter().for_each(|address| {
            live.remove(address);
        });
        live.extend(&draft.added);
        let root = Root {
            sequence,
            first_delta: if is_base { sequence } else { self.first_delta },
            next_file: draft.next_file,
            birth: self.birth.0,
            birth_term: self.birth.1,
            state: state.encode(),
            range_deletes: draft.range_deletes.iter().map(RangeDeleteRecord::from).collect(),
        };
        let content = frame::encode(&root);
        let delta = Delta {
            sequence,
            is_base,
            added: if is_base { live.clone() } else { draft.added.clone() },
            removed: if is_base { Vec::new() } else { draft.superseded.clone() },
            root_hash: xxh3_128(&content),
        };
        let delta = frame::wrap(DELTA, &frame::encode(&delta));
        let running = chain(if is_base { 0 } else { self.running }, &delta);
        let mut edits = self.publish_edits(sequence, is_base, &delta)?;
        let root_parts = push_root(&mut edits, &content, running, self.root_parts);
        // Before any file goes that the root before this one names: that root may be what a killed process leaves.
        self.store.apply_batch(edits).and_then(|()| self.store.flush()).map_err(unusable)?;

        let named: BTreeSet<u32> = live.keys().map(|address| address.file).collect();
        let (files, gone) = std::mem::take(&mut self.files)
            .into_iter()
            .chain(std::mem::take(&mut draft.files))
            .partition(|(number, _)| named.contains(number));
        let gone: BTreeMap<u32, BlockFile> = gone;
        let gone = gone.into_iter().map(|(number, file)| (number, file.bytes)).collect();
        lock(&self.shared.garbage).superseded.insert(self.sequence, gone);
        self.files = files;
        self.level = self.shared.level(sequence, draft.manifest, draft.range_deletes, self.files.clone());
        (self.sequence, self.first_delta, self.running) = (sequence, root.first_delta, running);
        (self.next_file, self.root_parts) = (draft.next_file, root_parts);
        (self.live, self.state) = (live, state);
        self.remember(draft.work);
        if let Err(error) = self.collect() {
            // Nothing is lost but space: what is published stands, and the next start removes what it does not name.
            tracing::warn!(%error, "cannot remove a superseded file of hot blocks");
        }
        Ok(FlushReport { level: self.level.clone(), work: draft.work })
    }

    fn remember(&mut self, work: FlushWork) {
        if work.rows_in > 0 {
            self.recent.truncate(RECENT_FLUSHES - 1);
            self.recent.push_front(work);
        }
    }

    fn publish_edits(&self, sequence: u64, is_base: bool, delta: &[u8]) -> Result<Vec<Edit>> {
        let mut edits = Vec::new();
        if is_base {
            let old = self.store.range(&[DELTA_PREFIX], &[DELTA_PREFIX + 1]);
            edits = old.map(|pair| pair.map(|(key, _)| (key, None))).collect::<Result<Vec<Edit>>>()?;
        }
        push_parts(&mut edits, DELTA_PREFIX, sequence, delta);
        Ok(edits)
    }

    /// Removes a draft that is not published.
    pub fn discard(&mut self, mut draft: Draft) -> Result<()> {
        // Its numbers are not drawn again: a number names one content for the life of the store.
        self.next_file = draft.next_file;
        let ended = draft.end_file();
        draft.files.keys().try_for_each(|number| self.shared.remove(*number))?;
        ended
    }

    /// Removes files of which no level held anywhere names a block any more. Flush does so by itself; whoever lets go
    /// of levels after that calls it again.
    pub fn collect(&self) -> Result<()> {
        let free: Vec<(u32, u64)> = {
            let mut garbage = lock(&self.shared.garbage);
            let held_from = garbage.held.first().copied().unwrap_or(u64::MAX);
            let kept = garbage.superseded.split_off(&held_from);
            std::mem::replace(&mut garbage.superseded, kept).into_values().flatten().collect()
        };
        // One that cannot be removed does not keep the others.
        free.into_iter().map(|(number, _)| self.shared.remove(number)).fold(Ok(()), Result::and)
    }
}

impl Shared {
    fn new(files: Arc<dyn Files>, directory: &Path) -> Arc<Shared> {
        Arc::new(Shared {
            files,
            directory: directory.to_path_buf(),
            garbage: Mutex::default(),
            retired: Mutex::default(),
            is_distrusted: AtomicBool::new(false),
            on_damage: OnceLock::new(),
        })
    }

    fn level(
        self: &Arc<Shared>,
        sequence: u64,
        manifest: Manifest,
        range_deletes: Vec<RangeDelete>,
        files: BTreeMap<u32, BlockFile>,
    ) -> Arc<Level> {
        lock(&self.garbage).held.insert(sequence);
        let source = HotSource { shared: self.clone(), sequence, files };
        Arc::new(Level { manifest, range_deletes: Arc::new(range_deletes), source: Arc::new(source) })
    }

    /// Passes on what a read of a block gave, and sees to it where the block is damaged or cannot be read.
    pub(super) fn checked<T>(&self, read: Result<T>) -> Result<T> {
        read.inspect_err(|error| {
            if matches!(error.kind(), Kind::Damaged | Kind::Io) && !self.is_distrusted.swap(true, Ordering::AcqRel) {
                self.distrust();
                if let Some(then) = self.on_damage.get() {
                    then(error);
                }
            }
        })
    }

    /// A block is damaged: the next start is not to go on from this store, but to make it anew from the log. Otherwise
    /// it would meet the same block again.
    fn distrust(&self) {
        if let Err(error) = current::distrust(&*self.files, &self.directory) {
            tracing::warn!(%error, path = %self.directory.display(), "a damaged hot store is still trusted");
        }
    }

    /// Begins a file of blocks.
    pub(super) fn create(&self, number: u32) -> Result<Writer> {
        Writer::create(&*self.files, &self.directory, number)
    }

    pub(super) fn remove(&self, number: u32) -> Result<()> {
        self.files.remove(&block_file::path(&self.directory, number))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(then) = lock(&self.retired).take() {
            then();
        }
    }
}

impl Drop for HotSource {
    fn drop(&mut self) {
        lock(&self.shared.garbage).held.remove(&self.sequence);
    }
}

impl BlockSource for HotSource {
    fn read(&self, entry: &BlockEntry) -> Result<Block> {
        let number = entry.address.file;
        let file = self.files.get(&number);
        let file = file.ok_or_else(|| Error::internal(format!("hot store: no file {number} in this level")))?;
        self.shared.checked(block_file::read_block(&*file.file, entry))
    }

    fn is_in_log(&self) -> bool {
        true
    }
}

/// A full disk is no reason to try again here: an engine whose write has failed cannot go on.
fn unusable(error: Error) -> Error {
    if error.sqlstate() == SqlState::DISK_FULL {
        return Error::new(Kind::Io, SqlState::IO_ERROR, error.message().to_owned());
    }
    error
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is complete after every statement, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
