//! A look at the disk: what the database takes, and what is left.

use super::super::{HotEngine, space};
use super::Background;
use crate::Result;
use crate::storage::sealed::SealedRun;
use std::path::Path;
use std::sync::atomic::Ordering;

impl Background {
    /// Notes what is sealed.
    pub(super) fn note_runs(&self) {
        let counters = &self.shared.counters;
        counters.birth.store(self.current.birth.0, Ordering::Relaxed);
        counters.runs.store(self.runs.len() as u64, Ordering::Relaxed);
        counters.sealed_bytes.store(self.runs.iter().map(SealedRun::bytes).sum(), Ordering::Relaxed);
    }

    /// Notes what is free.
    pub(super) fn measure_free(&self) {
        space::measure(&self.options, &self.directory, &self.shared.counters);
    }

    /// An error where the engine of a hot store may not find the room that it needs: it cannot go on after a write that
    /// failed.
    pub(super) fn check_hot_room(&self) -> Result<()> {
        match self.options.hot {
            HotEngine::Sled => space::check(&self.options, &self.directory, space::HOT_ROOM_BYTES),
            HotEngine::Memory => Ok(()),
        }
    }

    /// Notes the sizes that operators see and writers are refused by.
    pub(super) fn measure(&self) {
        let counters = &self.shared.counters;
        self.measure_free();
        if self.options.hot == HotEngine::Sled {
            let database = self.directory.parent().unwrap_or(&self.directory);
            counters.disk_bytes.store(bytes_below(database), Ordering::Relaxed);
        }
    }
}

/// Bytes of the files in a directory and those below it; what vanishes meanwhile counts as nothing.
fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
