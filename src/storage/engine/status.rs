//! How large everything is that the engine holds, for those who look after it.

use super::Handle;
use crate::ids::LogIndex;

/// What an operator sees of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Position of the newest view.
    pub applied: LogIndex,
    /// Memtables, active and frozen.
    pub memtables: usize,
    /// Bytes they hold.
    pub memtable_bytes: usize,
    /// Bytes of flushed memtables that statements under way keep.
    pub memtable_kept_bytes: u64,
    /// Bytes of superseded blocks on disk that statements under way keep.
    pub pinned_bytes: u64,
    /// Levels of blocks below them.
    pub block_levels: usize,
    /// Bytes the block cache holds.
    pub cache_bytes: usize,
    /// Reads that the cache answered.
    pub cache_hits: u64,
    /// Reads that it did not.
    pub cache_misses: u64,
    /// Bytes of committed entries that wait in memory to be applied; more of them wait in the log.
    pub apply_queue_bytes: usize,
}

impl Handle {
    /// Sizes now.
    pub fn status(&self) -> Status {
        let levels = self.shared.levels();
        let cache = self.shared.cache.statistics();
        Status {
            applied: self.shared.view().version,
            memtables: levels.memtables.len(),
            memtable_bytes: levels.memtable_bytes(),
            memtable_kept_bytes: self.shared.leases.memory_bytes(&levels),
            pinned_bytes: self.shared.leases.disk_bytes(&levels),
            block_levels: levels.blocks.len(),
            cache_bytes: cache.bytes,
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            apply_queue_bytes: self.state.queued_bytes(),
        }
    }
}
