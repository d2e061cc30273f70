//! What storage counts, as one value that anybody may read.
//!
//! The engine keeps its counters as long as it lives, and it is opened again after each failure. So what earlier
//! engines of this process counted is added: on `/metrics` no counter goes back.

use chronos::storage::engine::Distribution;
use chronos::storage::engine::Handle;
use std::sync::atomic::{AtomicU64, Ordering};

/// How storage is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageStatus {
    /// Bytes of the node's directory.
    pub size_bytes: u64,
    /// Bytes free on its file system.
    pub disk_free_bytes: u64,
    /// Writes are refused for want of space.
    pub disk_full: bool,
    /// Memtables, active and frozen.
    pub memtables: u64,
    /// Bytes they hold.
    pub memtable_bytes: u64,
    /// Bytes of flushed memtables that statements under way keep.
    pub memtable_kept_bytes: u64,
    /// Bytes of superseded blocks on disk that statements under way keep.
    pub pinned_bytes: u64,
    /// Bytes the block cache holds.
    pub cache_bytes: u64,
    /// Sealed runs.
    pub runs: u64,
    /// Bytes of their files.
    pub sealed_bytes: u64,
    /// The log on disk.
    pub log: LogStatus,
    /// What was done since the process began.
    pub totals: Totals,
}

/// The log on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Segments that hold it.
    pub segments: u64,
    /// Bytes in them that count.
    pub bytes: u64,
    /// Bytes among them that no restart needs: kept for members that lag, or for the rest of their segment.
    pub kept_bytes: u64,
    /// Spare segments that wait.
    pub spares: u64,
    /// Position from which it is kept: the birth of the present hot store.
    pub birth: u64,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries made durable.
    pub entries: u64,
    /// Commands applied.
    pub applied: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Bytes of blocks that flushes wrote.
    pub flush_bytes: u64,
    /// Hot stores sealed.
    pub seals: u64,
    /// Bytes of files that seals wrote.
    pub seal_bytes: u64,
    /// Merge steps.
    pub merges: u64,
    /// Bytes of files that merges wrote.
    pub merge_bytes: u64,
    /// Rows past their time-to-live that were left out.
    pub rows_expired: u64,
    /// Read views taken back because they kept too much from being freed.
    pub views_revoked: u64,
    /// Disk calls that were slow enough to be warned about.
    pub slow_disk_calls: u64,
    /// Log segments made of a spare.
    pub recycled: u64,
    /// Reads that the block cache answered.
    pub cache_hits: u64,
    /// Reads that it did not.
    pub cache_misses: u64,
    /// How long each fdatasync of the log took.
    pub syncs: Distribution,
    /// How long appends took from their way to the log until they were durable.
    pub appends: Distribution,
    /// How long applying took, from view to view.
    pub applies: Distribution,
}

impl Totals {
    /// What one engine has counted so far.
    pub fn of(handle: &Handle) -> Totals {
        let (counters, status) = (handle.counters(), handle.status());
        Totals {
            entries: load(&counters.entries),
            applied: load(&counters.applied),
            flushes: load(&counters.flushes),
            flush_bytes: load(&counters.flush_bytes),
            seals: load(&counters.seals),
            seal_bytes: load(&counters.seal_bytes),
            merges: load(&counters.merges),
            merge_bytes: load(&counters.merge_bytes),
            views_revoked: load(&counters.views_revoked),
            slow_disk_calls: load(&counters.slow_disk_calls),
            rows_expired: load(&counters.rows_expired),
            recycled: load(&counters.segments_recycled),
            cache_hits: status.cache_hits,
            cache_misses: status.cache_misses,
            syncs: counters.sync_times.distribution(),
            appends: counters.append_times.distribution(),
            applies: counters.apply_times.distribution(),
        }
    }

    /// Two engines' counts together.
    #[must_use]
    pub fn plus(&self, other: &Totals) -> Totals {
        Totals {
            entries: self.entries + other.entries,
            applied: self.applied + other.applied,
            flushes: self.flushes + other.flushes,
            flush_bytes: self.flush_bytes + other.flush_bytes,
            seals: self.seals + other.seals,
            seal_bytes: self.seal_bytes + other.seal_bytes,
            merges: self.merges + other.merges,
            merge_bytes: self.merge_bytes + other.merge_bytes,
            views_revoked: self.views_revoked + other.views_revoked,
            slow_disk_calls: self.slow_disk_calls + other.slow_disk_calls,
            rows_expired: self.rows_expired + other.rows_expired,
            recycled: self.recycled + other.recycled,
            cache_hits: self.cache_hits + other.cache_hits,
            cache_misses: self.cache_misses + other.cache_misses,
            syncs: self.syncs.plus(&other.syncs),
            appends: self.appends.plus(&other.appends),
            applies: self.applies.plus(&other.applies),
        }
    }
}

impl StorageStatus {
    /// What the present engine says; `past` is what earlier ones counted.
    pub fn of(handle: &Handle, past: &Totals) -> StorageStatus {
        let (counters, status) = (handle.counters(), handle.status());
        StorageStatus {
            size_bytes: load(&counters.disk_bytes),
            disk_free_bytes: load(&counters.free_bytes),
            disk_full: counters.is_disk_full(),
            memtables: status.memtables as u64,
            memtable_bytes: status.memtable_bytes as u64,
            memtable_kept_bytes: status.memtable_kept_bytes,
            pinned_bytes: status.pinned_bytes,
            cache_bytes: status.cache_bytes as u64,
            runs: load(&counters.runs),
            sealed_bytes: load(&counters.sealed_bytes),
            log: LogStatus {
                segments: load(&counters.segments),
                bytes: load(&counters.segment_bytes),
                kept_bytes: load(&counters.kept_bytes),
                spares: load(&counters.spares),
                birth: load(&counters.birth),
            },
            totals: Totals::of(handle).plus(past),
        }
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
