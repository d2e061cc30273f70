//! What the three threads share: the present levels and the published view.
//!
//! The state thread moves the version forward, the background thread exchanges levels. Both do it under one lock, held
//! for a few copies of pointers, and both end by publishing a new view; readers take it without a lock.

use crate::hlc::Timestamp;
use crate::ids::{LogIndex, Term};
use crate::machine::Machine;
use crate::sql::catalog::Catalog;
use crate::storage::cache::Cache;
use crate::storage::levels::Levels;
use crate::storage::view::View;
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Counters that the threads keep and anyone may read; they survive no restart.
#[derive(Debug, Default)]
pub struct Counters {
    /// Entries made durable.
    pub entries: AtomicU64,
    /// Calls of fdatasync on the log.
    pub syncs: AtomicU64,
    /// Microseconds spent in them.
    pub sync_micros: AtomicU64,
    /// Bytes appended to the log.
    pub log_bytes: AtomicU64,
    /// Commands applied.
    pub applied: AtomicU64,
    /// Memtables flushed.
    pub flushes: AtomicU64,
    /// Bytes of blocks written by flushes.
    pub flush_bytes: AtomicU64,
    /// Hot stores sealed.
    pub seals: AtomicU64,
    /// Merge steps.
    pub merges: AtomicU64,
    /// Log segments reused.
    pub segments_recycled: AtomicU64,
    /// Log segments on disk.
    pub segments: AtomicU64,
    /// Bytes of the database directory, as last measured.
    pub disk_bytes: AtomicU64,
    /// Bytes free on its file system, as last measured.
    pub free_bytes: AtomicU64,
    /// Set while free space is below the reserve: writes that grow are refused.
    pub disk_low: AtomicBool,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

/// What readers see, and what the next view is made from.
pub(super) struct Published {
    pub levels: Arc<Levels>,
    pub version: LogIndex,
    pub term: Term,
    pub hlc: Timestamp,
    pub catalog: Arc<Catalog>,
    /// Memtables frozen and not yet in the hot store.
    pub frozen: usize,
}

pub(super) struct Shared {
    published: Mutex<Published>,
    /// Signalled when a frozen memtable has been flushed.
    flushed: Condvar,
    view: ArcSwap<View>,
    pub cache: Arc<Cache>,
    pub counters: Arc<Counters>,
    /// Set when a thread has failed: the others stop at their next step.
    pub failed: AtomicBool,
}

impl Shared {
    pub fn new(machine: &Machine, levels: Levels, cache: Arc<Cache>) -> Shared {
        let published = Published {
            levels: Arc::new(levels),
            version: machine.applied.0,
            term: machine.applied.1,
            hlc: machine.hlc,
            catalog: machine.catalog.clone(),
            frozen: 0,
        };
        Shared {
            view: ArcSwap::from_pointee(view_of(&published, &cache)),
            published: Mutex::new(published),
            flushed: Condvar::new(),
            cache,
            counters: Arc::default(),
            failed: AtomicBool::new(false),
        }
    }

    /// The newest view.
    pub fn view(&self) -> View {
        (**self.view.load()).clone()
    }

    /// A view of everything applied, for the state thread itself.
    pub fn latest(&self, catalog: &Arc<Catalog>) -> View {
        let mut view = self.view();
        view.version = LogIndex(u64::MAX);
        view.catalog = catalog.clone();
        view
    }

    pub fn levels(&self) -> Arc<Levels> {
        self.lock().levels.clone()
    }

    /// Changes what is published and publishes it.
    pub fn publish<T>(&self, edit: impl FnOnce(&mut Published) -> T) -> T {
        let mut published = self.lock();
        let value = edit(&mut published);
        self.view.store(Arc::new(view_of(&published, &self.cache)));
        value
    }

    /// Moves the version forward to what the machine has applied.
    pub fn advance(&self, machine: &Machine) {
        self.publish(|published| {
            published.version = machine.applied.0;
            published.term = machine.applied.1;
            published.hlc = machine.hlc;
            published.catalog = machine.catalog.clone();
        });
    }

    /// One frozen memtable has become part of the hot store.
    pub fn note_flushed(&self) {
        self.lock().frozen -= 1;
        self.flushed.notify_all();
    }

    /// Waits until at most `frozen_max` frozen memtables are left, or a thread has failed.
    pub fn wait_for_flush(&self, frozen_max: usize) {
        let mut published = self.lock();
        while published.frozen > frozen_max && !self.has_failed() {
            published = self.flushed.wait(published).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        let _guard = self.lock();
        self.flushed.notify_all();
    }

    /// No code panics while it holds this lock, so a poisoned one still guards whole values.
    fn lock(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn view_of(published: &Published, cache: &Arc<Cache>) -> View {
    View {
        version: published.version,
        hlc: published.hlc,
        catalog: published.catalog.clone(),
        levels: published.levels.clone(),
        cache: cache.clone(),
    }
}
