//! The block cache: decoded columns, keys and metadata, by block and part, up to a number of bytes.
//!
//! Least recently used goes first, in two segments (Karedla, Love, Wherry: "Caching Strategies to Improve Disk System
//! Performance", 1994): what is asked for once enters *probation*, a second time *protected*. So a scan over everything
//! pushes out what other scans left, and not what point lookups come back for. Key columns enter protected at once:
//! every lookup and every merge of levels needs them.
//!
//! ```text
//!   decoded ──────────────> probation ──asked for again──> protected <────── decoded key columns
//!                  evicted <── oldest   <──too many bytes── oldest
//! ```
//!
//! * Entries are found by a block's uid, which is drawn in this process, so nothing stale can be found under it.
//! * Nothing is read or decoded while the lock is held. Two readers may decode the same part at once; one result stays.
//! * The bytes of both segments together never exceed the limit. What readers still hold after it was evicted is theirs.

mod segments;

use crate::error::Result;
use crate::ids::ColumnId;
use crate::sql::batch::{Column, Strings};
use crate::storage::block::Block;
use crate::storage::rows::Metadata;
use segments::Segments;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of an entry beside its content: the maps' slots, list links and the headers of shared values.
const ENTRY_BYTES: usize = 160;

/// What a column is to its keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Part of the key: kept first.
    Key,
    /// Any other.
    Value,
}

/// Part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Encoded,
    Column(ColumnId),
    Keys,
    Metadata,
    Created,
}

#[derive(Clone)]
enum Entry {
    Encoded(Block),
    Column(Arc<Column>),
    /// The block was written before the column existed.
    NoColumn,
    Keys(Arc<Strings>),
    Metadata(Arc<Metadata>),
    Created(Arc<Vec<u64>>),
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Entry::Encoded(block) => block.bytes().len(),
                Entry::Column(column) => column.byte_len(),
                Entry::NoColumn => 0,
                Entry::Keys(keys) => keys.byte_len() + (keys.len() + 1) * 4,
                // Four numbers of eight bytes and a mark.
                Entry::Metadata(metadata) => metadata.len() * 33,
                Entry::Created(created) => created.len() * 8,
            }
    }
}

type Key = (u64, Part);

/// What the cache holds and how it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes held.
    pub bytes: usize,
    /// Bytes that may be held.
    pub bytes_max: usize,
    /// Parts of blocks held.
    pub entries: usize,
    /// Times that a part was there.
    pub hits: u64,
    /// Times that it had to be decoded.
    pub misses: u64,
    /// Entries that went because there was no room.
    pub evictions: u64,
}

/// How often the cache was asked; outlives it.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Times that a part was there.
    pub hits: AtomicU64,
    /// Times that it had to be decoded.
    pub misses: AtomicU64,
}

/// The cache. Shared by all readers.
pub struct Cache {
    segments: Mutex<Segments>,
    lookups: Arc<Lookups>,
}

impl Cache {
    /// A cache that holds at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Cache {
        let segments = Segments::new(bytes_max);
        Cache { segments: Mutex::new(segments), lookups: Arc::default() }
    }

    /// How often it was asked, counted on.
    pub fn lookups(&self) -> Arc<Lookups> {
        self.lookups.clone()
    }

    /// The block with this uid, as `read` gives it where it is not here. For small blocks of the hot store, and for
    /// lookups; a scan that keeps decoded columns has no use for the encoded bytes too.
    pub fn block(&self, uid: u64, read: impl FnOnce() -> Result<Block>) -> Result<Block> {
        let entry = self.entry((uid, Part::Encoded), Role::Value, || read().map(Entry::Encoded))?;
        match entry {
            Entry::Encoded(block) => Ok(block),
            Entry::Column(_) | Entry::NoColumn | Entry::Keys(_) | Entry::Metadata(_) | Entry::Created(_) => mixed_up(),
        }
    }

    /// A column of a block, as `decode` gives it where it is not here; none is remembered too.
    pub fn column(
        &self,
        uid: u64,
        id: ColumnId,
        role: Role,
        decode: impl FnOnce() -> Result<Option<Arc<Column>>>,
    ) -> Result<Option<Arc<Column>>> {
        let decode = || Ok(decode()?.map_or(Entry::NoColumn, Entry::Column));
        match self.entry((uid, Part::Column(id)), role, decode)? {
            Entry::Column(column) => Ok(Some(column)),
            Entry::NoColumn => Ok(None),
            Entry::Encoded(_) | Entry::Keys(_) | Entry::Metadata(_) | Entry::Created(_) => mixed_up(),
        }
    }

    /// The keys of a block.
    pub fn keys(&self, uid: u64, decode: impl FnOnce() -> Result<Arc<Strings>>) -> Result<Arc<Strings>> {
        match self.entry((uid, Part::Keys), Role::Key, || decode().map(Entry::Keys))? {
            Entry::Keys(keys) => Ok(keys),
            Entry::Encoded(_) | Entry::Column(_) | Entry::NoColumn | Entry::Metadata(_) | Entry::Created(_) => {
                mixed_up()
            }
        }
    }

    /// The metadata of a block.
    pub fn metadata(&self, uid: u64, decode: impl FnOnce() -> Result<Arc<Metadata>>) -> Result<Arc<Metadata>> {
        match self.entry((uid, Part::Metadata), Role::Value, || decode().map(Entry::Metadata))? {
            Entry::Metadata(metadata) => Ok(metadata),
            Entry::Encoded(_) | Entry::Column(_) | Entry::NoColumn | Entry::Keys(_) | Entry::Created(_) => mixed_up(),
        }
    }

    /// When the rows of a block were inserted (ms).
    pub fn created_ms(&self, uid: u64, decode: impl FnOnce() -> Result<Vec<u64>>) -> Result<Arc<Vec<u64>>> {
        match self.entry((uid, Part::Created), Role::Value, || decode().map(Arc::new).map(Entry::Created))? {
            Entry::Created(created) => Ok(created),
            Entry::Encoded(_) | Entry::Column(_) | Entry::NoColumn | Entry::Keys(_) | Entry::Metadata(_) => mixed_up(),
        }
    }

    /// Drops what is held of blocks that are gone. Not needed for correctness: they would age out.
    pub fn forget(&self, blocks: Range<u64>) {
        let mut segments = self.lock();
        segments.probation.forget(&blocks);
        segments.protected.forget(&blocks);
    }

    /// Sets the limit; what is too much goes at once.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        let mut segments = self.lock();
        segments.bytes_max = bytes_max;
        segments.settle();
    }

    /// What is held and how it did so far.
    pub fn statistics(&self) -> Statistics {
        let segments = self.lock();
        Statistics {
            bytes: segments.probation.bytes + segments.protected.bytes,
            bytes_max: segments.bytes_max,
            entries: segments.probation.entries.len() + segments.protected.entries.len(),
            hits: self.lookups.hits.load(Ordering::Relaxed),
            misses: self.lookups.misses.load(Ordering::Relaxed),
            evictions: segments.evictions,
        }
    }

    fn entry(&self, key: Key, role: Role, decode: impl FnOnce() -> Result<Entry>) -> Result<Entry> {
        let found = self.lock().get(key);
        if let Some(entry) = found {
            self.lookups.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(entry);
        }
        self.lookups.misses.fetch_add(1, Ordering::Relaxed);
        let entry = decode()?;
        self.lock().put(key, entry.clone(), role == Role::Key);
        Ok(entry)
    }

    fn lock(&self) -> MutexGuard<'_, Segments> {
        // A panic under the lock can only come from an allocation that failed; a cache has nothing to lose by going on.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mixed_up<T>() -> T {
    unreachable!("an entry is of the kind that its part names")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::sql::batch::Values;

    const COLUMN: ColumnId = ColumnId(1);
    /// Bytes of an entry of the tests' columns.
    const BYTES: usize = ENTRY_BYTES + 100 * 8;

    fn column() -> Arc<Column> {
        Arc::new(Column::new(Values::Int(vec![7; 100])))
    }

    fn ask(cache: &Cache, uid: u64, role: Role) -> bool {
        let mut decoded = false;
        let found = cache.column(uid, COLUMN, role, || {
            decoded = true;
            Ok(Some(column()))
        });
        assert_eq!(found.unwrap(), Some(column()));
        !decoded
    }

    #[test]
    fn what_was_decoded_once_is_found_again() {
        let cache = Cache::new(100 * BYTES);
        assert!(!ask(&cache, 1, Role::Value));
        assert!(ask(&cache, 1, Role::Value));
        assert!(cache.column(1, ColumnId(2), Role::Value, || Ok(None)).unwrap().is_none());
        assert!(cache.column(1, ColumnId(2), Role::Value, || panic!("absence is remembered")).unwrap().is_none());
        let statistics = cache.statistics();
        assert_eq!((statistics.hits, statistics.misses, statistics.entries), (2, 2, 2));
        assert_eq!(statistics.bytes, BYTES + ENTRY_BYTES);
    }

    #[test]
    fn the_limit_holds_and_a_scan_leaves_what_is_asked_for_again() {
        let cache = Cache::new(16 * BYTES);
        ask(&cache, 1, Role::Value);
        ask(&cache, 1, Role::Value);
        ask(&cache, 2, Role::Key);
        for uid in 100..200 {
            ask(&cache, uid, Role::Value);
            assert!(cache.statistics().bytes <= 16 * BYTES);
        }
        assert!(ask(&cache, 1, Role::Value) && ask(&cache, 2, Role::Key));
        assert!(ask(&cache, 199, Role::Value) && !ask(&cache, 100, Role::Value));
        assert!(cache.statistics().evictions >= 86);
        // Too much that is protected: the oldest of it goes too.
        for uid in 200..300 {
            ask(&cache, uid, Role::Key);
        }
        assert!(cache.statistics().bytes <= 16 * BYTES);
        assert!(!ask(&cache, 1, Role::Value));
        cache.set_bytes_max(0);
        assert_eq!(cache.statistics().bytes, 0);
    }

    #[test]
    fn a_failed_decode_and_an_oversized_part_leave_nothing_behind() {
        let cache = Cache::new(7 * BYTES);
        assert!(cache.column(1, COLUMN, Role::Value, || Err(Error::damaged("a block"))).is_err());
        assert!(!ask(&cache, 1, Role::Value) && !ask(&cache, 1, Role::Value));
        assert_eq!(cache.statistics().bytes, 0);
    }

    #[test]
    fn forgotten_blocks_are_gone() {
        let cache = Cache::new(100 * BYTES);
        (0..20).for_each(|uid| assert!(!ask(&cache, uid, if uid % 2 == 0 { Role::Key } else { Role::Value })));
        cache.forget(5..15);
        assert_eq!(cache.statistics().bytes, 10 * BYTES);
        assert!(ask(&cache, 4, Role::Value) && !ask(&cache, 5, Role::Value) && ask(&cache, 15, Role::Value));
    }

    #[test]
    fn readers_on_many_threads_agree() {
        let cache = Cache::new(20 * BYTES);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let cache = &cache;
                scope.spawn(move || {
                    for i in 0..500 {
                        ask(cache, (i * 7 + thread) % 50, Role::Value);
                    }
                });
            }
        });
        let statistics = cache.statistics();
        assert_eq!(statistics.hits + statistics.misses, 2000);
        assert_eq!(statistics.bytes, statistics.entries * BYTES);
    }
}
