//! The two segments of the cache, and which of their entries goes first.

use super::{Entry, Key};
use lru::LruCache;
use std::ops::Range;

/// Share of the limit that protected entries may take, of four parts: the rest lets new ones prove themselves.
const PROTECTED_QUARTERS: usize = 3;

/// Part of the limit above which an entry is not kept: it would push out many to serve one.
const ENTRY_SHARE_MAX: usize = 8;

/// Entries by their last use.
pub(super) struct Segment {
    pub(super) entries: LruCache<Key, Entry>,
    pub(super) bytes: usize,
}

impl Segment {
    fn new() -> Segment {
        Segment { entries: LruCache::unbounded(), bytes: 0 }
    }

    fn put(&mut self, key: Key, entry: Entry) {
        self.bytes += entry.bytes();
        if let Some(former) = self.entries.put(key, entry) {
            self.bytes -= former.bytes();
        }
    }

    fn take(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.pop(&key)?;
        self.bytes -= entry.bytes();
        Some(entry)
    }

    fn take_oldest(&mut self) -> Option<(Key, Entry)> {
        let (key, entry) = self.entries.pop_lru()?;
        self.bytes -= entry.bytes();
        Some((key, entry))
    }

    pub(super) fn forget(&mut self, blocks: &Range<u64>) {
        let bytes = &mut self.bytes;
        self.entries.retain(|(block, _), entry| {
            let gone = blocks.contains(block);
            if gone {
                *bytes -= entry.bytes();
            }
            !gone
        });
    }
}

/// Probation and protected.
pub(super) struct Segments {
    pub(super) probation: Segment,
    pub(super) protected: Segment,
    pub(super) bytes_max: usize,
    pub(super) evictions: u64,
}

impl Segments {
    pub(super) fn new(bytes_max: usize) -> Segments {
        Segments { probation: Segment::new(), protected: Segment::new(), bytes_max, evictions: 0 }
    }

    pub(super) fn get(&mut self, key: Key) -> Option<Entry> {
        if let Some(entry) = self.protected.entries.get(&key) {
            return Some(entry.clone());
        }
        let entry = self.probation.take(key)?;
        self.protected.put(key, entry.clone());
        self.settle();
        Some(entry)
    }

    pub(super) fn put(&mut self, key: Key, entry: Entry, protect: bool) {
        if entry.bytes() > self.bytes_max / ENTRY_SHARE_MAX {
            return;
        }
        // Another reader may have put it in the meantime, and more may have asked for it since.
        if protect || self.protected.entries.contains(&key) {
            self.probation.take(key);
            self.protected.put(key, entry);
        } else {
            self.probation.put(key, entry);
        }
        self.settle();
    }

    /// Moves the oldest down and out until the limits hold again.
    pub(super) fn settle(&mut self) {
        let protected_max = self.bytes_max / 4 * PROTECTED_QUARTERS;
        while self.protected.bytes > protected_max
            && let Some((key, entry)) = self.protected.take_oldest()
        {
            self.probation.put(key, entry);
        }
        while self.probation.bytes + self.protected.bytes > self.bytes_max && self.probation.take_oldest().is_some() {
            self.evictions += 1;
        }
    }
}
