//! The state thread: applies committed entries in order, publishes views, answers the doors that wait.
//!
//! A few small entries on a quiet node are applied right where they are found to be committed, by the log thread after
//! their fdatasync or by raft: waking a thread costs more than they do. One client's INSERT then takes three hops instead
//! of four.
//!
//! ```text
//!   durable, committed ──> queue of at most 4 MiB ──> state thread
//!           │ what does not fit                           │ has room again
//!           └──> stays in the log <── hand on ────────────┘
//! ```
//!
//! * Entries are applied in the order of the log, whoever applies them: others do so only while nothing that was handed
//!   over is still to be done.
//! * Others never wait here for the lock, for a flush or for the disk: what would read a block goes to the state thread.
//! * A member that applies more slowly than it is sent entries acknowledges them all the same, since they are durable. So
//!   what waits is bounded here, and the rest is read from the log when its turn comes.

use super::background::Job;
use super::counters::Counters;
use super::log::{Control, LogRequest};
use super::memory::InMemory;
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
use crate::storage::view::View;
use crate::storage::wal::Wal;
use crate::{Error, Result};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Entries applied before their outcomes are published: a view every so often keeps answers prompt.
const APPLY_MAX: usize = 256;

/// Frozen memtables that may wait for the background thread; the memory budget holds this many and the active one.
const FROZEN_MAX: usize = 1;

/// Bytes of entries read from the log at once while it is replayed.
pub(super) const REPLAY_BYTES: usize = 1 << 20;

/// Bytes of entries that wait for the state thread; the last one may reach beyond. Enough to keep it busy while more is
/// read from the log, small beside the memory for rows.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// Bytes of entries that others than the state thread apply themselves: some tens of one-row statements, 4 us each. More would keep the
/// next fdatasync waiting for longer than handing over takes.
const INLINE_BYTES_MAX: usize = 2 << 10;

/// Entries in order, each with who waits for it.
pub(super) type Entries = VecDeque<(Entry, Option<Waiting>)>;

/// What the state thread is asked.
pub(super) enum StateRequest {
    /// Apply these, which are durable and committed.
    Apply(Entries),
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
    log: Sender<LogRequest>,
    /// Bytes handed to the thread and not done.
    queued: AtomicUsize,
    /// Set where something was left behind for want of room: the thread comes back for it.
    held: AtomicBool,
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
    pub fn new(
        state: StateThread,
        durable: Position,
        requests: Sender<StateRequest>,
        log: Sender<LogRequest>,
    ) -> StateDesk {
        let pending = Mutex::new(Pending::new(state.machine.applied.0, durable));
        let (queued, held) = (AtomicUsize::new(0), AtomicBool::new(false));
        StateDesk { state: Mutex::new(state), requests, log, queued, held, pending }
    }

    /// Entries are durable, and where they are `committed` they are applied: here and now where they are small inserts and
    /// nothing waits before them, else on the state thread.
    pub fn persisted(&self, entries: Vec<(Entry, Option<Waiting>)>, committed: Option<Position>) -> Result<Next> {
        let mut pending = self.pending();
        pending.persisted(entries);
        if let Some(committed) = committed {
            pending.commit(committed);
        }
        self.take(&mut pending, committed.is_some())
    }

    /// Everything up to here is committed. A few small entries are applied here and now, as the log thread does; what only
    /// the disk has is for the log thread to read.
    pub fn commit(&self, position: Position) -> Result<Next> {
        let mut pending = self.pending();
        pending.commit(position);
        self.take(&mut pending, true)
    }

    /// Entries that were read from the disk, the next ones that are committed.
    pub fn read(&self, entries: Vec<Entry>) {
        let mut pending = self.pending();
        let taken = pending.take_read(entries);
        self.hand_over(taken.into());
    }

    /// What is still to be read from the disk.
    pub fn next(&self) -> Result<Next> {
        self.take(&mut self.pending(), false)
    }

    /// Takes what is committed as far as there is room, and applies it or hands it over. The lock is held, so nobody hands
    /// on later entries before these.
    fn take(&self, pending: &mut Pending, inline: bool) -> Result<Next> {
        loop {
            let room = QUEUE_BYTES_MAX.saturating_sub(self.queued.load(Ordering::SeqCst));
            if room == 0 && pending.has_more() {
                self.held.store(true, Ordering::SeqCst);
                // The thread looks at the mark after it has made room: one of both sees the other's word.
                if self.queued.load(Ordering::SeqCst) >= QUEUE_BYTES_MAX {
                    return Ok(Next::Wait);
                }
                continue;
            }
            return match pending.take(room) {
                Taken::Entries(entries) => {
                    let is_all = !pending.has_more();
                    if !is_all {
                        self.held.store(true, Ordering::SeqCst);
                    }
                    self.apply(entries.into(), inline && is_all).map(|()| Next::Wait)
                }
                Taken::OnDisk(from, to) => Ok(Next::Read { from, to, committed: pending.committed() }),
                Taken::Nothing => Ok(Next::Wait),
            };
        }
    }

    /// Bytes that wait for the thread.
    pub fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// No code panics while it holds this lock but for a broken log, after which nobody may go on.
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies entries; `inline` where the caller may do so itself.
    fn apply(&self, mut entries: Entries, inline: bool) -> Result<()> {
        if inline
            && self.queued.load(Ordering::SeqCst) == 0
            && entries.iter().map(|(entry, _)| entry.payload.len()).sum::<usize>() <= INLINE_BYTES_MAX
            && entries.iter().all(|(entry, _)| inserts_alone(entry))
            && let Ok(mut state) = self.state.try_lock()
            && state.shared.frozen() == 0
        {
            let count = entries.len();
            state.apply_from_memory(&mut entries)?;
            Counters::add(&state.shared.counters.applied_at_once, (count - entries.len()) as u64);
            if entries.is_empty() {
                return Ok(());
            }
        }
        self.hand_over(entries);
        Ok(())
    }

    fn hand_over(&self, entries: Entries) {
        self.queued.fetch_add(size_of(&entries), Ordering::SeqCst);
        // A state thread that has failed has said so itself; its waiters learn that the outcome is in doubt.
        let _ = self.requests.send(StateRequest::Apply(entries));
    }

    /// So many bytes are done: comes back for what was left behind, once half of the room is free.
    fn done(&self, bytes: usize) -> Result<()> {
        let left = self.queued.fetch_sub(bytes, Ordering::SeqCst) - bytes;
        if left > QUEUE_BYTES_MAX / 2 || !self.held.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        if let Next::Read { .. } = self.next()? {
            // A log thread that has gone will be followed by another engine.
            let _ = self.log.send(LogRequest::Control(Control::HandOn));
        }
        Ok(())
    }

    /// Nothing that clients write is applied from here on, and nothing of it is kept.
    pub fn strip(&self) {
        // Poisoned by a panic in the middle of an entry, after which the engine ends.
        let Ok(mut state) = self.state.lock() else { return };
        state.machine.strip();
        state.shared.advance(&state.machine);
    }

    /// Asks for a snapshot of everything applied. An engine that has ended drops the sender.
    pub fn snapshot(&self, done: oneshot::Sender<Result<Option<Snapshot>>>) {
        let _ = self.requests.send(StateRequest::Snapshot(done));
    }

    /// Runs until it is asked to stop, its senders are gone, or apply fails.
    pub fn run(&self, requests: &Receiver<StateRequest>) {
        while let Ok(request) = requests.recv() {
            let mut bytes = 0;
            // Poisoned by a panic in the middle of an entry: what the state holds is unknown, and nobody may go on.
            let Ok(mut state) = self.state.lock() else { return };
            let done = match request {
                StateRequest::Apply(entries) => {
                    bytes = size_of(&entries);
                    state.apply_all(entries)
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
            let (shared, events) = (state.shared.clone(), state.events.clone());
            // Whoever holds the other lock tries this one.
            drop(state);
            if let Err(error) = done.and_then(|()| self.done(bytes)) {
                shared.fail();
                events(Event::Failed(error));
                return;
            }
        }
    }
}

/// Bytes that entries hold while they wait.
fn size_of(entries: &Entries) -> usize {
    entries.iter().map(|(entry, _)| std::mem::size_of::<(Entry, Option<Waiting>)>() + entry.payload.len()).sum()
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
    /// How to apply without the disk.
    pub memory: InMemory,
    pub shared: Arc<Shared>,
    pub background: Sender<Job>,
    pub clock: Arc<dyn Clock>,
    pub events: Events,
}

impl StateThread {
    /// Applies entries, a bounded number for each view.
    pub fn apply_all(&mut self, mut entries: Entries) -> Result<()> {
        while !entries.is_empty() {
            let latest = self.shared.latest(&self.machine.catalog);
            self.apply_some(&mut entries, &latest)?;
            if self.sink.is_full() {
                self.sink.freeze(&self.machine);
                self.shared.wait_for_flush(FROZEN_MAX);
                if self.shared.has_failed() {
                    return Err(Error::unavailable("storage has failed"));
                }
            }
        }
        Ok(())
    }

    /// Applies inserts as long as nothing is to be read from the disk for them; what is left has had no effect.
    pub fn apply_from_memory(&mut self, entries: &mut Entries) -> Result<()> {
        let latest = self.shared.latest(&self.machine.catalog);
        let (latest, refused) = self.memory.view(latest);
        match self.apply_some(entries, &latest) {
            Err(_) if refused.is_set() => {}
            done => done?,
        }
        if self.sink.is_full() {
            // No memtable waits to be flushed, so nobody has to wait for this one.
            self.sink.freeze(&self.machine);
        }
        Ok(())
    }

    /// Applies entries to those of `latest`, up to the next view, and publishes what they have done. Where one fails, it is
    /// the first that is left.
    fn apply_some(&mut self, entries: &mut Entries, latest: &View) -> Result<()> {
        let mut answers: Vec<(Waiting, Answer)> = Vec::new();
        let (mut count, mut failed) = (0, Ok(()));
        let begin = self.clock.monotonic();
        while count < APPLY_MAX
            && let Some((entry, _)) = entries.front()
        {
            let view = latest.with_catalog(self.machine.catalog.clone());
            match self.machine.apply(entry, &view, &self.sink) {
                Ok(outcome) => {
                    if self.sink.take_mark() {
                        self.shared.mark(&self.machine);
                    }
                    let waiting = entries.pop_front().and_then(|(_, waiting)| waiting);
                    answers.extend(waiting.map(|waiting| (waiting, outcome)));
                }
                Err(error) => {
                    failed = Err(error);
                    break;
                }
            }
            count += 1;
            // After a large command the levels are others than those of `latest`.
            if self.sink.end_large(&self.machine)? || self.sink.is_full() {
                break;
            }
        }
        if count > 0 {
            let took = self.clock.monotonic().saturating_sub(begin);
            Counters::add(&self.shared.counters.apply_micros, took.as_micros() as u64);
            self.shared.counters.apply_times.record(took);
            Counters::add(&self.shared.counters.applied, count as u64);
            self.shared.advance(&self.machine);
            for (waiting, outcome) in answers {
                // A door that has gone away does not want its answer any more.
                let _ = waiting.send(outcome);
            }
            (self.events)(Event::Applied(self.machine.applied.0));
        }
        failed
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
