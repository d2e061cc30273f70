//! The state thread: applies committed entries in order, publishes views, answers the doors that wait.
//!
//! A few small entries on a quiet node are applied by the log thread itself, right after their fdatasync: waking a
//! thread costs more than they do. One client's INSERT then takes three hops instead of four.
//!
//! * Entries are applied in the order of the log, whoever applies them: the log thread does so only while nothing it
//!   has handed over is still to be done.
//! * The log thread never waits here for the lock or for a flush. It may read a block for a key that filters do not
//!   rule out, which an insert of a new key seldom needs.

use super::background::Job;
use super::counters::Counters;
use super::pending::{Pending, Taken};
use super::shared::Shared;
use super::sink::Sink;
use super::{Answer, Event, Events, Freshness, Waiting};
use crate::clock::Clock;
use crate::ids::LogIndex;
use crate::machine::{Command, Machine};
use crate::raft::{Entry, Payload, Position};
use crate::storage::snapshot::Snapshot;
use crate::storage::state::StateRecord;
use crate::storage::wal::Wal;
use crate::{Error, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Entries applied before their outcomes are published: a view every so often keeps answers prompt.
const APPLY_MAX: usize = 256;

/// Frozen memtables that may wait for the background thread; the memory budget holds this many and the active one.
const FROZEN_MAX: usize = 1;

/// Bytes of entries read from the log at once while it is replayed.
pub(super) const REPLAY_BYTES: usize = 1 << 20;

/// Bytes of entries that the log thread applies itself: some tens of one-row statements, 4 us each. More would keep the
/// next fdatasync waiting for longer than handing over takes.
const INLINE_BYTES_MAX: usize = 2 << 10;

/// What the state thread is asked.
pub(super) enum StateRequest {
    /// Apply these, which are durable and committed.
    Apply(Vec<(Entry, Option<Waiting>)>),
    /// Freeze and flush what is in memory, then seal it.
    Seal(Sender<Result<()>>),
    /// Freeze and flush what is in memory, then make a snapshot of it.
    Snapshot(oneshot::Sender<Result<Option<Snapshot>>>),
    /// Freeze and flush what is in memory, then stop.
    Stop,
}

/// The state's work, between the thread that mostly does it and the log thread.
pub(super) struct StateDesk {
    state: Mutex<StateThread>,
    requests: Sender<StateRequest>,
    /// Batches handed to the thread and not done.
    queued: AtomicUsize,
    /// What is durable and not committed.
    pending: Mutex<Pending>,
}

/// What the log thread does next for the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    Wait,
    /// Reads these from the disk, where the log holds what is committed.
    Read { from: LogIndex, to: LogIndex, committed: Position },
}

impl StateDesk {
    pub fn new(state: StateThread, durable: Position, requests: Sender<StateRequest>) -> StateDesk {
        let pending = Mutex::new(Pending::new(state.machine.applied.0, durable));
        StateDesk { state: Mutex::new(state), requests, queued: AtomicUsize::new(0), pending }
    }

    /// Entries are durable, and where they are `committed` they are applied: here and now where they are small inserts and
    /// nothing waits before them, else on the state thread. `bytes` is what their payloads have.
    pub fn persisted(
        &self,
        entries: Vec<(Entry, Option<Waiting>)>,
        committed: Option<Position>,
        bytes: usize,
    ) -> Result<Next> {
        let mut pending = self.pending();
        pending.persisted(entries);
        if let Some(committed) = committed {
            pending.commit(committed);
        }
        match pending.take() {
            // The lock is held, so nobody hands on later entries before these.
            Taken::Entries(entries) => self.apply(entries, committed.map(|_| bytes)).map(|()| Next::Wait),
            Taken::OnDisk(from, to) => Ok(Next::Read { from, to, committed: pending.committed() }),
            Taken::Nothing => Ok(Next::Wait),
        }
    }

    /// Everything up to here is committed. A few small entries are applied here and now, as the log thread does; what only
    /// the disk has is for the log thread to read.
    pub fn commit(&self, position: Position) -> Result<Next> {
        let mut pending = self.pending();
        pending.commit(position);
        match pending.take() {
            Taken::Entries(entries) => {
                let bytes = entries.iter().map(|(entry, _)| entry.payload.len()).sum();
                self.apply(entries, Some(bytes)).map(|()| Next::Wait)
            }
            Taken::OnDisk(from, to) => Ok(Next::Read { from, to, committed: pending.committed() }),
            Taken::Nothing => Ok(Next::Wait),
        }
    }

    /// Entries that were read from the disk, the next ones that are committed.
    pub fn read(&self, entries: Vec<Entry>) {
        let mut pending = self.pending();
        let taken = pending.take_read(entries);
        self.hand_over(taken);
    }

    /// What is still to be read from the disk.
    pub fn next(&self) -> Next {
        let mut pending = self.pending();
        match pending.take() {
            Taken::Entries(entries) => {
                self.hand_over(entries);
                Next::Wait
            }
            Taken::OnDisk(from, to) => Next::Read { from, to, committed: pending.committed() },
            Taken::Nothing => Next::Wait,
        }
    }

    /// No code panics while it holds this lock but for a broken log, after which nobody may go on.
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies entries; `inline` is how many bytes they have where the caller is the log thread and may do so itself.
    fn apply(&self, entries: Vec<(Entry, Option<Waiting>)>, inline: Option<usize>) -> Result<()> {
        if inline.is_some_and(|bytes| bytes <= INLINE_BYTES_MAX)
            && self.queued.load(Ordering::Acquire) == 0
            && entries.iter().all(|(entry, _)| inserts_alone(entry))
            && let Ok(mut state) = self.state.try_lock()
            && state.shared.frozen() == 0
        {
            Counters::add(&state.shared.counters.applied_at_once, entries.len() as u64);
            return state.apply_all(entries);
        }
        self.hand_over(entries);
        Ok(())
    }

    fn hand_over(&self, entries: Vec<(Entry, Option<Waiting>)>) {
        self.queued.fetch_add(1, Ordering::AcqRel);
        // A state thread that has failed has said so itself; its waiters learn that the outcome is in doubt.
        let _ = self.requests.send(StateRequest::Apply(entries));
    }

    /// Asks for a snapshot of everything applied. An engine that has ended drops the sender.
    pub fn snapshot(&self, done: oneshot::Sender<Result<Option<Snapshot>>>) {
        let _ = self.requests.send(StateRequest::Snapshot(done));
    }

    /// Runs until it is asked to stop, its senders are gone, or apply fails.
    pub fn run(&self, requests: &Receiver<StateRequest>) {
        while let Ok(request) = requests.recv() {
            // Poisoned by a panic in the middle of an entry: what the state holds is unknown, and nobody may go on.
            let Ok(mut state) = self.state.lock() else { return };
            let done = match request {
                StateRequest::Apply(entries) => {
                    let done = state.apply_all(entries);
                    self.queued.fetch_sub(1, Ordering::AcqRel);
                    done
                }
                StateRequest::Seal(done) => {
                    state.sink.freeze(&state.machine);
                    // Only a background thread that has failed does not listen; then the asker's channel closes.
                    let _ = state.background.send(Job::Seal(done));
                    Ok(())
                }
                StateRequest::Snapshot(done) => {
                    state.sink.freeze(&state.machine);
                    let _ = state.background.send(Job::Snapshot { freshness: Freshness::Now, done });
                    Ok(())
                }
                StateRequest::Stop => {
                    state.sink.freeze(&state.machine);
                    return;
                }
            };
            if let Err(error) = done {
                state.shared.fail();
                (state.events)(Event::Failed(error));
                return;
            }
        }
    }
}

/// True where the size of an entry tells how much work it is: rows to insert, and no request to remember. A few bytes
/// may delete a table, look up a hundred rows of an index, or commit what was staged before.
fn inserts_alone(entry: &Entry) -> bool {
    match Payload::decode(&entry.payload) {
        Ok(Payload::Command(command)) => Command::decode(command).is_ok_and(|command| command.inserts_alone()),
        Ok(Payload::Noop | Payload::Membership(_)) | Err(_) => false,
    }
}

/// What applies entries, and where its writes go.
pub(super) struct StateThread {
    pub machine: Machine,
    pub sink: Sink,
    pub shared: Arc<Shared>,
    pub background: Sender<Job>,
    pub clock: Arc<dyn Clock>,
    pub events: Events,
}

impl StateThread {
    /// Applies entries, a bounded number for each view.
    pub fn apply_all(&mut self, entries: Vec<(Entry, Option<Waiting>)>) -> Result<()> {
        let mut entries = entries.into_iter();
        loop {
            let mut answers: Vec<(Waiting, Answer)> = Vec::new();
            let mut count = 0;
            let begin = self.clock.monotonic();
            let latest = self.shared.latest(&self.machine.catalog);
            for (entry, waiting) in entries.by_ref().take(APPLY_MAX) {
                let view = latest.with_catalog(self.machine.catalog.clone());
                let outcome = self.machine.apply(&entry, &view, &self.sink)?;
                answers.extend(waiting.map(|waiting| (waiting, outcome)));
                count += 1;
                // After a large command the levels are others than those of `latest`.
                if self.sink.end_large(&self.machine)? || self.sink.is_full() {
                    break;
                }
            }
            if count == 0 {
                return Ok(());
            }
            let took = self.clock.monotonic().saturating_sub(begin);
            Counters::add(&self.shared.counters.apply_micros, took.as_micros() as u64);
            self.shared.counters.apply_times.record(took);
            Counters::add(&self.shared.counters.applied, count);
            self.shared.advance(&self.machine);
            for (waiting, outcome) in answers {
                // A door that has gone away does not want its answer any more.
                let _ = waiting.send(outcome);
            }
            (self.events)(Event::Applied(self.machine.applied.0));
            if self.sink.is_full() {
                self.sink.freeze(&self.machine);
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
