//! What the three threads share: the present levels and the published view.
//!
//! The state thread moves the version forward, the background thread exchanges levels. Both do it under one lock, held
//! for a few copies of pointers, and both end by publishing a new view; readers take it without a lock.

use super::counters::Counters;
use crate::hlc::Timestamp;
use crate::ids::{LogIndex, Term};
use crate::machine::Machine;
use crate::sql::catalog::Catalog;
use crate::storage::cache::Cache;
use crate::storage::lease::Leases;
use crate::storage::levels::{Edit, Levels};
use crate::storage::view::View;
use crate::{Error, Result};
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

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
    /// What there was at the last position at which copies are compared, until somebody hashes it.
    marked: Mutex<Option<View>>,
    pub cache: Arc<Cache>,
    pub leases: Arc<Leases>,
    pub counters: Arc<Counters>,
    /// Set when a thread has failed: the others stop at their next step.
    pub failed: AtomicBool,
    phase: AtomicU8,
    /// The first entry that a witness must not let go of, whatever its own state covers; [`NO_WITNESS`] where this is none.
    kept_from: AtomicU64,
}

/// No witness keeps a log for others here.
const NO_WITNESS: u64 = u64::MAX;

/// What the engine is doing: it decides what becomes of work for which the disk has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The log is replayed: nobody is served, and somebody waits to be told why.
    Opening = 0,
    /// Work that finds no room waits for it.
    Serving = 1,
    /// Such work is left undone: the log has it.
    Stopping = 2,
}

impl Published {
    /// Exchanges levels. Only the background thread takes any out, so the inputs are there.
    pub fn exchange(&mut self, edit: &Edit) -> Result<()> {
        let next = self.levels.edit(edit);
        self.levels = Arc::new(next.ok_or_else(|| Error::internal("a level was taken out by someone else"))?);
        Ok(())
    }
}

impl Shared {
    pub fn new(machine: &Machine, levels: Levels, cache: Arc<Cache>, leases: Arc<Leases>) -> Shared {
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
            marked: Mutex::default(),
            leases,
            counters: Arc::new(Counters::new(cache.lookups())),
            cache,
            failed: AtomicBool::new(false),
            phase: AtomicU8::new(Phase::Opening as u8),
            // Until it is told what the others have it keeps everything.
            kept_from: AtomicU64::new(if machine.is_bare() { 0 } else { NO_WITNESS }),
        }
    }

    /// True where this is a witness, which has no rows.
    pub fn is_bare(&self) -> bool {
        self.kept_from.load(Ordering::Acquire) != NO_WITNESS
    }

    /// The first entry that must stay in the log for others.
    pub fn kept_from(&self) -> LogIndex {
        LogIndex(self.kept_from.load(Ordering::Acquire))
    }

    /// Keeps the log for others from here on, as a witness.
    pub fn keep_from(&self, index: LogIndex) {
        self.kept_from.store(index.0.min(NO_WITNESS - 1), Ordering::Release);
    }

    /// The newest view.
    pub fn view(&self) -> View {
        (**self.view.load()).clone()
    }

    /// The newest view, for as long as a lease lasts.
    pub fn leased_view(&self) -> View {
        let view = self.view();
        View { lease: Some(self.leases.grant(view.levels.clone())), ..view }
    }

    /// The newest view, for as long as what it keeps is not too much.
    pub fn patient_view(&self) -> View {
        let view = self.view();
        View { lease: Some(self.leases.grant_ageless(view.levels.clone())), ..view }
    }

    /// Keeps a view of exactly what is applied, though more may be by the time that it is read. One at a time: who is late
    /// for the one before is not waited for. What a start replays, the others have long compared.
    pub fn mark(&self, machine: &Machine) {
        if self.phase() == Phase::Serving {
            let (version, hlc, catalog) = (machine.applied.0, machine.hlc, machine.catalog.clone());
            let view = View { version, hlc, catalog, levels: self.levels(), cache: self.cache.clone(), lease: None };
            *self.marked.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(view);
        }
    }

    /// The view that was kept last, once.
    pub fn take_marked(&self) -> Option<View> {
        self.marked.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
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
        let before = published.levels.clone();
        let value = edit(&mut published);
        self.view.store(Arc::new(view_of(&published, &self.cache)));
        let present = published.levels.clone();
        drop(published);
        // What is no longer present may be kept by readers, within bounds.
        if !Arc::ptr_eq(&before, &present) {
            let revoked = self.leases.settle(&present);
            Counters::add(&self.counters.views_revoked, revoked as u64);
        }
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

    /// Memtables frozen and not yet flushed.
    pub fn frozen(&self) -> usize {
        self.lock().frozen
    }

    /// Waits until at most `frozen_max` frozen memtables are left, or a thread has failed.
    pub fn wait_for_flush(&self, frozen_max: usize) {
        let mut published = self.lock();
        while published.frozen > frozen_max && !self.has_failed() {
            published = self.flushed.wait(published).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    pub fn phase(&self) -> Phase {
        [Phase::Opening, Phase::Serving, Phase::Stopping][usize::from(self.phase.load(Ordering::Acquire))]
    }

    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
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
        lease: None,
    }
}
