//! What the engine counts: totals since it was opened, of fixed size, written by its threads and read by anyone.
//!
//! All but the gauges at the end only ever rise, so a reader that remembers the last figure knows what happened since. A
//! restart of the engine begins at zero, which Prometheus takes for what it is.
//!
//! | what is asked | figures |
//! |---|---|
//! | how long an acknowledgement takes | `sync_times`, `append_times`, `syncs`, `batches`, `entries` |
//! | whether apply keeps up | `apply_micros` against `applied` |
//! | write amplification | `flush_bytes + seal_bytes + merge_bytes` against `log_bytes` |
//! | what became of expired rows | `rows_expired` |
//! | whether reads find their blocks in memory | `cache.hits`, `cache.misses` |

use super::histogram::Histogram;
use crate::storage::cache::Lookups;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters that the threads keep and anyone may read; they survive no restart.
#[derive(Debug, Default)]
pub struct Counters {
    /// Entries made durable.
    pub entries: AtomicU64,
    /// Calls of fdatasync on the log: one for each group commit.
    pub syncs: AtomicU64,
    /// Microseconds spent in them.
    pub sync_micros: AtomicU64,
    /// How long each of them took.
    pub sync_times: Histogram,
    /// How long each append took from its way to the log thread until it was durable.
    pub append_times: Histogram,
    /// Batches written to the log, each with a checksum of its own: a group commit takes at least one.
    pub batches: AtomicU64,
    /// Bytes appended to the log.
    pub log_bytes: AtomicU64,
    /// Commands applied.
    pub applied: AtomicU64,
    /// Those of them that the log thread applied itself, right after their fdatasync.
    pub applied_at_once: AtomicU64,
    /// Microseconds spent applying them.
    pub apply_micros: AtomicU64,
    /// How long applying took, from view to view.
    pub apply_times: Histogram,
    /// Commands applied that were larger than a memtable and went into blocks of their own.
    pub large_commands: AtomicU64,
    /// Memtables flushed.
    pub flushes: AtomicU64,
    /// Bytes of blocks written by flushes.
    pub flush_bytes: AtomicU64,
    /// Hot stores sealed.
    pub seals: AtomicU64,
    /// Bytes of files written by seals.
    pub seal_bytes: AtomicU64,
    /// Merge steps.
    pub merges: AtomicU64,
    /// Bytes of files written by merge steps.
    pub merge_bytes: AtomicU64,
    /// Rows left out by flushes, seals and merges because their time-to-live had passed.
    pub rows_expired: AtomicU64,
    /// Log segments reused.
    pub segments_recycled: AtomicU64,
    /// Views that readers lost because they kept too much from being freed.
    pub views_revoked: AtomicU64,
    /// Disk calls that took longer than a twelfth of `disk_stall_max`.
    pub slow_disk_calls: AtomicU64,
    /// Reads of the block cache.
    pub cache: Arc<Lookups>,
    /// Log segments on disk.
    pub segments: AtomicU64,
    /// Bytes in them that count.
    pub segment_bytes: AtomicU64,
    /// Bytes among them that no restart needs: kept for members that lag, or for the rest of their segment.
    pub kept_bytes: AtomicU64,
    /// Spare segments that wait to be used.
    pub spares: AtomicU64,
    /// Position at which the present hot store was born, and from which the log is kept.
    pub birth: AtomicU64,
    /// Sealed runs.
    pub runs: AtomicU64,
    /// Bytes of their files.
    pub sealed_bytes: AtomicU64,
    /// Bytes of the database directory, as last measured.
    pub disk_bytes: AtomicU64,
    /// Bytes free on its file system, as last measured.
    pub free_bytes: AtomicU64,
    /// Set while free space is below the reserve.
    pub disk_low: AtomicBool,
    /// Set while the log thread waits for room. Where a quota is what is used up, this alone says so.
    pub log_waits: AtomicBool,
    /// Set while the hot store cannot be sealed and the next one is due: writes that grow are refused.
    pub seal_overdue: AtomicBool,
}

impl Counters {
    /// Counters of an engine with this cache, all at zero.
    pub(super) fn new(cache: Arc<Lookups>) -> Counters {
        Counters { cache, ..Counters::default() }
    }

    /// Whether writes that grow are refused. Two flags of one writer each, so that none takes back what the other says.
    pub fn is_disk_full(&self) -> bool {
        self.disk_low.load(Ordering::Relaxed) || self.log_waits.load(Ordering::Relaxed)
    }

    pub(super) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}
