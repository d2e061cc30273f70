//! Where the state thread's writes go: the active memtable, or for a large command blocks that nobody sees yet.
//!
//! ```text
//! commands ──> active memtable ──full──> frozen ──Flush──> hot store          every view sees what is applied
//! a large command:   active memtable ──Flush──> hot store
//!                    private memtable ──full──> Absorb ─┐
//!                    private memtable ──full──> Absorb ─┴─> draft ──Publish──> hot store, together with its position
//! ```
//!
//! A command that touches every row of a table may be many times larger than the memory for rows. Its rows lie in no
//! level before the last of them is written: a reader finds all of them or none, and so does a restart, which finds the
//! draft's blocks in no manifest, deletes them, and applies the command again from the log.
//!
//! * The active memtable is flushed before a large command begins, so the draft stands above everything older.
//! * At most one private memtable is in memory: the state thread waits until it is absorbed.
//! * What a draft leaves out is judged by the state before the command: judging earlier leaves out less.

use super::background::Job;
use super::counters::Counters;
use super::shared::Shared;
use super::state::state_record;
use crate::machine::{Machine, Staged, Writes};
use crate::storage::memtable::Memtable;
use crate::storage::state::StateRecord;
use crate::{Error, Result};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};

pub(super) struct Sink {
    inner: RefCell<Inner>,
    /// Bytes at which a memtable is full.
    memtable_bytes_max: usize,
    /// Bytes of log after which it is frozen, however little it holds.
    log_bytes_max: u64,
    /// The last command asks for a hash.
    marked: Cell<bool>,
    shared: Arc<Shared>,
    background: Sender<Job>,
}

struct Inner {
    memtable: Arc<Memtable>,
    /// Bytes of log written when the last memtable was frozen.
    freeze_mark: u64,
    large: Option<Large>,
}

/// A command under way that is too large for memory.
struct Large {
    memtable: Arc<Memtable>,
    before: Arc<StateRecord>,
}

impl Sink {
    pub(super) fn new(
        shared: Arc<Shared>,
        background: Sender<Job>,
        memtable_bytes_max: usize,
        log_bytes_max: u64,
    ) -> Sink {
        let memtable = shared.levels().memtables[0].clone();
        let inner = RefCell::new(Inner { memtable, freeze_mark: 0, large: None });
        Sink { inner, memtable_bytes_max, log_bytes_max, marked: Cell::new(false), shared, background }
    }

    /// A memtable is full by its bytes, or where the log has grown without it: by statements that failed, say.
    pub(super) fn is_full(&self) -> bool {
        let inner = self.inner.borrow();
        inner.memtable.bytes() >= self.memtable_bytes_max || self.log_bytes() - inner.freeze_mark >= self.log_bytes_max
    }

    /// True where the last command asks for a hash of what there is after it.
    pub(super) fn take_mark(&self) -> bool {
        self.marked.take()
    }

    fn log_bytes(&self) -> u64 {
        self.shared.counters.log_bytes.load(Ordering::Relaxed)
    }

    /// Freezes the memtable with the state at this position and starts a new one.
    pub(super) fn freeze(&self, machine: &Machine) {
        let mut inner = self.inner.borrow_mut();
        inner.freeze_mark = self.log_bytes();
        let frozen = std::mem::replace(&mut inner.memtable, Arc::new(Memtable::new()));
        let (active, log_mark) = (inner.memtable.clone(), inner.freeze_mark);
        self.shared.publish(|published| {
            published.levels = Arc::new(published.levels.with_memtable(active));
            published.frozen += 1;
        });
        // Only a background thread that has failed does not listen, and it has said so itself.
        let _ = self.background.send(Job::Flush { frozen, state: Box::new(state_record(machine)), log_mark });
    }

    /// Makes a large command visible as a whole, with the state after it; false where the last command was none.
    pub(super) fn end_large(&self, after: &Machine) -> Result<bool> {
        let Some(large) = self.inner.borrow_mut().large.take() else { return Ok(false) };
        self.absorb(large.memtable, large.before)?;
        let log_mark = self.log_bytes();
        self.ask(|done| Job::Publish {
            state: Box::new(state_record(after)),
            catalog: after.catalog.clone(),
            log_mark,
            done,
        })?;
        self.inner.borrow_mut().freeze_mark = log_mark;
        Counters::add(&self.shared.counters.large_commands, 1);
        Ok(true)
    }

    fn absorb(&self, part: Arc<Memtable>, before: Arc<StateRecord>) -> Result<()> {
        self.ask(|done| Job::Absorb { part, before, done })
    }

    /// Has the background thread do something and waits for it.
    fn ask(&self, job: impl FnOnce(Sender<()>) -> Job) -> Result<()> {
        let (done, wait) = channel();
        let gone = || Error::unavailable("storage has failed");
        self.background.send(job(done)).map_err(|_| gone())?;
        wait.recv().map_err(|_| gone())
    }
}

impl Writes for Sink {
    fn mark(&self) {
        self.marked.set(true);
    }

    fn begin_large(&self, before: &Machine) -> Result<()> {
        // What is about to be flushed becomes visible first: blocks show all their rows to every view.
        self.shared.advance(before);
        self.freeze(before);
        // What is frozen leaves memory before the command takes its place.
        self.shared.wait_for_flush(0);
        let large = Large { memtable: Arc::new(Memtable::new()), before: Arc::new(state_record(before)) };
        self.inner.borrow_mut().large = Some(large);
        Ok(())
    }

    fn write(&self, staged: &Staged) -> Result<()> {
        let mut inner = self.inner.borrow_mut();
        let Inner { memtable, large, .. } = &mut *inner;
        let Some(large) = large else {
            staged.write(memtable);
            return Ok(());
        };
        staged.write(&large.memtable);
        if large.memtable.bytes() >= self.memtable_bytes_max {
            let part = std::mem::replace(&mut large.memtable, Arc::new(Memtable::new()));
            let before = large.before.clone();
            drop(inner);
            self.absorb(part, before)?;
        }
        Ok(())
    }
}
