//! What the engine may take: memory, log, disk and time.
//!
//! None of these decides what a command does: replicas with other limits stay alike.

use crate::storage::lease::Bounds;
use std::time::Duration;

/// Limits of the engine, from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memtables, active and frozen.
    pub memtable_bytes_max: usize,
    /// Bytes of the block cache.
    pub cache_bytes_max: usize,
    /// Bytes of log since the hot store's birth at which it is sealed.
    pub seal_wal_bytes: u64,
    /// Bytes of one log segment.
    pub segment_bytes: u64,
    /// Bytes of log that are kept for peers that lag, beside what a restart needs. One that lags further gets a snapshot.
    pub log_keep_bytes_max: u64,
    /// How long the log thread waits for more before an fdatasync.
    pub commit_linger: Duration,
    /// Bytes of free disk below which writes are refused.
    pub disk_reserve_bytes: u64,
    /// How long one disk call may take before the engine fails.
    pub disk_stall_max: Duration,
    /// How long a statement may read one view.
    pub view_age_max: Duration,
    /// Bytes of superseded blocks that statements' views may keep on disk.
    pub pinned_bytes_max: u64,
}

impl Limits {
    /// Bytes of flushed memtables that statements may keep, beside those in use: twice as much, so that a long statement
    /// that writes and one that reads, or two that read, may each keep what they began with. With as much again, an export
    /// beside a fast import ended after the second flush.
    pub fn memtable_kept_bytes_max(&self) -> u64 {
        2 * self.memtable_bytes_max as u64
    }

    pub(super) fn leases(&self) -> Bounds {
        Bounds {
            age_max: self.view_age_max,
            disk_bytes_max: self.pinned_bytes_max,
            memory_bytes_max: self.memtable_kept_bytes_max(),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memtable_bytes_max: 16 << 20,
            cache_bytes_max: 16 << 20,
            seal_wal_bytes: 64 << 20,
            segment_bytes: 16 << 20,
            log_keep_bytes_max: 256 << 20,
            commit_linger: Duration::ZERO,
            disk_reserve_bytes: 128 << 20,
            disk_stall_max: Duration::from_mins(1),
            view_age_max: Duration::from_mins(10),
            pinned_bytes_max: 256 << 20,
        }
    }
}
