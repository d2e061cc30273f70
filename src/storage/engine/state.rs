//! The state thread: applies committed entries in order, publishes views, answers the doors that wait.

use super::background::Job;
use super::shared::{Counters, Shared};
use super::{Answer, Event, Events, Waiting};
use crate::machine::Machine;
use crate::raft::Entry;
use crate::storage::memtable::Memtable;
use crate::storage::state::StateRecord;
use crate::storage::wal::Wal;
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};

/// Entries applied before their outcomes are published: a view every so often keeps answers prompt.
const APPLY_MAX: usize = 256;

/// Frozen memtables that may wait for the background thread; the memory budget holds this many and the active one.
const FROZEN_MAX: usize = 1;

/// Bytes of entries read from the log at once while it is replayed.
const REPLAY_BYTES: usize = 1 << 20;

/// What the state thread is asked.
pub(super) enum StateRequest {
    /// Apply these, which are durable and committed.
    Apply(Vec<(Entry, Option<Waiting>)>),
    /// Freeze and flush what is in memory, then seal it.
    Seal(Sender<Result<()>>),
    /// Freeze and flush what is in memory, then stop.
    Stop,
}

pub(super) struct StateThread {
    pub machine: Machine,
    pub memtable: Arc<Memtable>,
    pub memtable_bytes_max: usize,
    pub seal_wal_bytes: u64,
    /// Bytes of log written when the last memtable was frozen.
    pub freeze_mark: u64,
    pub shared: Arc<Shared>,
    pub background: Sender<Job>,
    pub events: Events,
}

impl StateThread {
    /// Runs until it is asked to stop, its senders are gone, or apply fails.
    pub fn run(mut self, requests: &Receiver<StateRequest>) {
        while let Ok(request) = requests.recv() {
            let done = match request {
                StateRequest::Apply(entries) => self.apply_all(entries),
                StateRequest::Seal(done) => {
                    self.freeze();
                    // Only a background thread that has failed does not listen; then the asker's channel closes.
                    let _ = self.background.send(Job::Seal(done));
                    Ok(())
                }
                StateRequest::Stop => {
                    self.freeze();
                    return;
                }
            };
            if let Err(error) = done {
                self.shared.fail();
                (self.events)(Event::Failed(error));
                return;
            }
        }
    }

    /// Applies entries, a bounded number for each view.
    pub fn apply_all(&mut self, entries: Vec<(Entry, Option<Waiting>)>) -> Result<()> {
        let mut entries = entries.into_iter();
        loop {
            let mut answers: Vec<(Waiting, Answer)> = Vec::new();
            let mut count = 0;
            let latest = self.shared.latest(&self.machine.catalog);
            for (entry, waiting) in entries.by_ref().take(APPLY_MAX) {
                let view = latest.with_catalog(self.machine.catalog.clone());
                let outcome = self.machine.apply(&entry, &view, &self.memtable)?;
                answers.extend(waiting.map(|waiting| (waiting, outcome)));
                count += 1;
                if self.is_full() {
                    break;
                }
            }
            if count == 0 {
                return Ok(());
            }
            Counters::add(&self.shared.counters.applied, count);
            self.shared.advance(&self.machine);
            for (waiting, outcome) in answers {
                // A door that has gone away does not want its answer any more.
                let _ = waiting.send(outcome);
            }
            (self.events)(Event::Applied(self.machine.applied.0));
            if self.is_full() {
                self.freeze();
                self.shared.wait_for_flush(FROZEN_MAX);
                if self.shared.has_failed() {
                    return Err(Error::unavailable("storage has failed"));
                }
            }
        }
    }

    /// Applies the log from where the state stands to its end.
    pub fn replay(&mut self, wal: &Wal) -> Result<()> {
        let mut from = self.machine.applied.0.next();
        loop {
            let entries = wal.read(from, REPLAY_BYTES)?;
            let Some(last) = entries.last() else { return Ok(()) };
            from = last.index.next();
            self.apply_all(entries.into_iter().map(|entry| (entry, None)).collect())?;
        }
    }

    /// A memtable is full by its bytes, or where the log has grown without it: by statements that failed, say.
    fn is_full(&self) -> bool {
        self.memtable.bytes() >= self.memtable_bytes_max || self.log_bytes() - self.freeze_mark >= self.seal_wal_bytes
    }

    fn log_bytes(&self) -> u64 {
        self.shared.counters.log_bytes.load(Ordering::Relaxed)
    }

    /// Freezes the memtable with the state at this position and starts a new one.
    pub fn freeze(&mut self) {
        self.freeze_mark = self.log_bytes();
        let frozen = std::mem::replace(&mut self.memtable, Arc::new(Memtable::new()));
        let state = state_record(&self.machine);
        let active = self.memtable.clone();
        self.shared.publish(|published| {
            published.levels = Arc::new(published.levels.with_memtable(active));
            published.frozen += 1;
        });
        // Only a background thread that has failed does not listen, and it has said so itself.
        let _ = self.background.send(Job::Flush { frozen, state: Box::new(state), log_mark: self.freeze_mark });
    }
}

/// The state besides the rows, as the hot store and sealed files carry it.
pub(super) fn state_record(machine: &Machine) -> StateRecord {
    StateRecord {
        applied: machine.applied.0,
        applied_term: machine.applied.1,
        hlc: machine.hlc,
        catalog: (*machine.catalog).clone(),
        membership: machine.membership.encode(),
        counters: machine.counters.clone(),
    }
}
