//! The log thread: group commit. While one fdatasync runs, the next batch gathers.
//!
//! Where the disk has no room for a batch, it waits until there is. It cannot be refused any more: raft counts on what it
//! has handed over, and a leader never takes an entry back. New writes are refused in the meantime, before they come here.

use super::backlog::Backlog;
use super::counters::Counters;
use super::shared::Shared;
use super::state::{self, StateDesk};
use super::{Append, Event, Events, Keep, Options, Waiting, space};
use crate::clock::{Clock, Monotonic};
use crate::ids::LogIndex;
use crate::raft::{Entry, Envelope, HardState, Position};
use crate::storage::wal::{Extent, Wal};
use crate::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// Bytes of payload that one fdatasync covers at most: beyond it waiting costs more than another fdatasync.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// What the log thread is asked.
pub(super) enum LogRequest {
    /// Make these durable; with when they were handed over.
    Append(Append, Monotonic),
    /// Anything else.
    Control(Control),
}

/// What is not gathered into a batch.
pub(super) enum Control {
    /// Tell which parts of which files are durable: the whole log. Nobody may trim it until they have been read.
    Extents(Sender<Vec<Extent>>),
    /// Entries below this are in sealed files.
    Trim(LogIndex),
    /// Peers may need these.
    Keep(Keep),
    /// Read entries from here on, about so many bytes, and hand them to that.
    Read(LogIndex, usize, Box<dyn FnOnce(Vec<Entry>) + Send>),
    /// Entries that only the disk has are committed.
    HandOn,
    /// Applying has failed elsewhere: end like this thread's own failure.
    Fail(Error),
    /// Stop.
    Stop,
}

pub(super) struct LogThread {
    pub wal: Wal,
    pub options: Options,
    /// Of the state, for a look at the disk.
    pub directory: PathBuf,
    /// What came while there was no room.
    pub pending: Backlog,
    /// Segments when the disk was last looked at.
    pub segments: usize,
    /// When it was.
    pub looked: Monotonic,
    pub linger: Duration,
    pub clock: Arc<dyn Clock>,
    pub shared: Arc<Shared>,
    pub state: Arc<StateDesk>,
    pub events: Events,
    /// Entries below this are in sealed files.
    pub trim_to: LogIndex,
    /// What peers may need; those that lag ascending.
    pub keep: Keep,
    /// Bytes of log that are kept for peers alone.
    pub keep_bytes_max: u64,
}

/// Requests gathered for one fdatasync.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    waiting: Vec<Option<Waiting>>,
    hard_state: Option<HardState>,
    messages: Vec<Envelope>,
    /// When each append was handed over.
    since: Vec<Monotonic>,
    bytes: usize,
    /// Where all is committed once it is durable, by what held when these were appended: what comes behind them in the
    /// same batch may need others.
    committed: Option<Position>,
    /// Was committed when these were appended.
    known: Option<Position>,
}

impl Batch {
    fn add(&mut self, append: Append, since: Monotonic) {
        self.since.push(since);
        self.bytes += append.entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
        let mut waiting = append.waiting;
        waiting.resize_with(append.entries.len(), || None);
        self.waiting.extend(waiting);
        if append.commit_on_persist {
            self.committed = append.entries.last().map(position_of).or(self.committed);
        }
        self.known = append.committed.or(self.known);
        self.entries.extend(append.entries);
        if append.hard_state.is_some() {
            self.hard_state = append.hard_state;
        }
        self.messages.extend(append.after_persist);
    }

    /// True where the entries go on where those of the batch end. A later leader's may take the place of some that are not
    /// written yet: those come after the batch, as they would had the disk been faster.
    fn is_followed_by(&self, append: &Append) -> bool {
        match (self.entries.last(), append.entries.first()) {
            (Some(last), Some(first)) => first.index == last.index.next(),
            (None, _) | (_, None) => true,
        }
    }
}

fn position_of(entry: &Entry) -> Position {
    Position { index: entry.index, term: entry.term }
}

impl LogThread {
    /// Runs until it is asked to stop, its senders are gone, or the disk fails; gives the log back.
    pub fn run(mut self, requests: &Receiver<LogRequest>) -> Wal {
        while let Some(request) = self.pending.pop().or_else(|| requests.recv().ok()) {
            let done = match request {
                LogRequest::Append(append, since) => self.append((append, since), requests),
                LogRequest::Control(request) => self.control(request),
            };
            match done {
                Ok(Next::Go) => {}
                Ok(Next::Stop) => break,
                Err(error) => {
                    // What a failed fsync or a failed apply left behind is unknown: nothing more may be written or
                    // acknowledged.
                    self.shared.fail();
                    (self.events)(Event::Failed(error));
                    break;
                }
            }
        }
        self.wal
    }

    fn control(&mut self, request: Control) -> Result<Next> {
        match request {
            Control::Extents(asked) => {
                // Every write was followed by its fdatasync. Whoever asked and has gone needs no answer.
                let _ = asked.send(self.wal.extents());
                Ok(Next::Go)
            }
            Control::Trim(below) => {
                self.trim_to = self.trim_to.max(below);
                self.trim()?;
                Ok(Next::Go)
            }
            Control::Keep(mut keep) => {
                keep.lagging.sort_unstable();
                self.keep = keep;
                self.trim()?;
                Ok(Next::Go)
            }
            Control::Read(from, bytes_max, done) => {
                // What was trimmed since it was asked for is answered by nothing, and the asker looks again.
                let is_there = from > self.wal.terms().previous().index;
                done(if is_there { self.wal.read(from, bytes_max)? } else { Vec::new() });
                Ok(Next::Go)
            }
            Control::Fail(error) => Err(error),
            Control::HandOn => {
                let next = self.state.next()?;
                self.hand_on(next)?;
                Ok(Next::Go)
            }
            Control::Stop => Ok(Next::Stop),
        }
    }

    /// Lets go of what is in sealed files, but for what peers that lag may need, as far as that goes.
    fn trim(&mut self) -> Result<()> {
        let needed = self.wal.bytes_since(self.trim_to);
        let kept = |from: LogIndex| self.wal.bytes_since(from).saturating_sub(needed);
        // A peer that is too far behind is given up, and does not cost the others theirs.
        let lagging = self.keep.lagging.iter().find(|from| kept(**from) <= self.keep_bytes_max);
        let has_room = !self.shared.counters.is_disk_full();
        let pinned = self.keep.pinned.iter().min().filter(|_| has_room);
        let below = lagging.into_iter().chain(pinned).fold(self.trim_to, |below, from| below.min(*from));
        self.trim_below(below)
    }

    fn trim_below(&mut self, below: LogIndex) -> Result<()> {
        let before = self.wal.terms().previous();
        // Nothing else, and no full disk, makes a witness let go of what others may need of it.
        self.wal.trim(below.min(self.shared.kept_from()))?;
        let previous = self.wal.terms().previous();
        if previous != before {
            (self.events)(Event::Trimmed(previous));
        }
        let kept = self.wal.statistics().bytes.saturating_sub(self.wal.bytes_since(self.trim_to));
        self.shared.counters.kept_bytes.store(kept, Ordering::Relaxed);
        self.note_segments();
        Ok(())
    }

    /// Reads committed entries back that did not fit into memory.
    fn hand_on(&self, mut next: state::Next) -> Result<()> {
        while let state::Next::Read { from, to, committed } = next {
            if self.wal.terms().term(committed.index) != Some(committed.term) {
                // What is to be there instead is not written yet.
                return Ok(());
            }
            let mut entries = self.wal.read(from, state::REPLAY_BYTES)?;
            entries.retain(|entry| entry.index <= to);
            self.state.read(entries);
            next = self.state.next()?;
        }
        Ok(())
    }

    fn append(&mut self, (mut first, mut since): (Append, Monotonic), requests: &Receiver<LogRequest>) -> Result<Next> {
        loop {
            let mut batch = Batch::default();
            batch.add(first, since);
            let next = self.gather(&mut batch, requests);
            if self.write(batch, requests)? == Next::Stop {
                return Ok(Next::Stop);
            }
            (first, since) = match next {
                Some(LogRequest::Append(append, since)) => (append, since),
                Some(LogRequest::Control(request)) => return self.control(request),
                None => return Ok(Next::Go),
            };
        }
    }

    /// Takes what is waiting, and with a linger what comes meanwhile, up to a request that is not for this batch.
    fn gather(&mut self, batch: &mut Batch, requests: &Receiver<LogRequest>) -> Option<LogRequest> {
        let until = self.clock.monotonic() + self.linger;
        while batch.bytes < BATCH_BYTES_MAX {
            let next = if let Some(pending) = self.pending.pop() {
                Some(pending)
            } else if self.linger.is_zero() {
                requests.try_recv().ok()
            } else {
                requests.recv_timeout(until.saturating_sub(self.clock.monotonic())).ok()
            };
            match next {
                Some(LogRequest::Append(append, since)) if batch.is_followed_by(&append) => batch.add(append, since),
                other => return other,
            }
        }
        None
    }

    fn write(&mut self, batch: Batch, requests: &Receiver<LogRequest>) -> Result<Next> {
        if self.shared.has_failed() {
            return Err(Error::unavailable("storage has failed"));
        }
        if self.append_with_room(&batch, requests)? == Next::Stop {
            return Ok(Next::Stop);
        }
        let begin = self.clock.monotonic();
        self.wal.sync()?;
        let counters = &self.shared.counters;
        let now = self.clock.monotonic();
        let took = now.saturating_sub(begin);
        batch.since.iter().for_each(|&since| counters.append_times.record(now.saturating_sub(since)));
        Counters::add(&counters.sync_micros, took.as_micros() as u64);
        counters.sync_times.record(took);
        Counters::add(&counters.syncs, 1);
        Counters::add(&counters.entries, batch.entries.len() as u64);
        Counters::add(&counters.log_bytes, batch.bytes as u64);
        // A look costs a microsecond, and between two of them others may have filled the disk.
        if now.saturating_sub(self.looked) >= space::LOOK_EVERY {
            self.looked = now;
            space::measure(&self.options, &self.directory, counters);
        }
        self.note_segments();
        let last = batch.entries.last().map(position_of);
        if !batch.entries.is_empty() {
            let entries = batch.entries.into_iter().zip(batch.waiting).collect();
            let next = self.state.persisted(entries, batch.committed)?;
            self.hand_on(next)?;
        }
        // Where it is all committed, and nobody was promised anything, the news that it is durable travels with the news
        // that it is applied.
        if !batch.messages.is_empty() || batch.committed != last {
            (self.events)(Event::Persisted { last, messages: batch.messages });
        }
        // Whoever waits for the promise is waiting; nobody waits for this.
        if let Some(position) = batch.known {
            let next = self.state.commit(position)?;
            self.hand_on(next)?;
        }
        Ok(Next::Go)
    }

    /// Appends a batch, and waits as long as the disk has no room for it.
    fn append_with_room(&mut self, batch: &Batch, requests: &Receiver<LogRequest>) -> Result<Next> {
        let mut rest = &batch.entries[..];
        loop {
            let error = match self.wal.append(rest, batch.hard_state.as_ref()) {
                Ok(()) => break,
                Err(error) if Wal::is_full(&error) && !self.wal.has_failed() => error,
                Err(error) => return Err(error),
            };
            if !self.shared.counters.log_waits.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "the disk is full: the log waits for room");
                (self.events)(Event::Stalled);
            }
            space::measure(&self.options, &self.directory, &self.shared.counters);
            // What it took before it was full stays; the same position and term mean the same entry.
            let taken = rest.iter().take_while(|entry| self.wal.term(entry.index) == Some(entry.term)).count();
            rest = &rest[taken..];
            if self.wait_for_room(requests)? == Next::Stop {
                return Ok(Next::Stop);
            }
        }
        if self.shared.counters.log_waits.swap(false, Ordering::Relaxed) {
            tracing::info!("the log has found room");
            space::measure(&self.options, &self.directory, &self.shared.counters);
        }
        Ok(Next::Go)
    }

    /// Waits a moment. What comes meanwhile waits behind, but for what makes room, what is on disk already and is to be
    /// applied, and the end.
    fn wait_for_room(&mut self, requests: &Receiver<LogRequest>) -> Result<Next> {
        let until = self.clock.monotonic() + space::LOOK_EVERY;
        loop {
            if self.shared.has_failed() {
                return Err(Error::unavailable("storage has failed"));
            }
            match requests.recv_timeout(until.saturating_sub(self.clock.monotonic()).min(space::LOOK_EVERY)) {
                Ok(LogRequest::Control(Control::Trim(below))) => {
                    self.trim_to = self.trim_to.max(below);
                    // All the way: peers that lag get a snapshot, and nothing else makes room here.
                    self.trim_below(self.trim_to)?;
                    return Ok(Next::Go);
                }
                Ok(LogRequest::Control(request @ (Control::Keep(_) | Control::HandOn | Control::Fail(_)))) => {
                    self.control(request)?;
                }
                Ok(LogRequest::Control(Control::Stop)) | Err(RecvTimeoutError::Disconnected) => {
                    // Nobody was promised these: whoever waits learns that the outcome is in doubt.
                    tracing::warn!("the engine stops with entries for which the log had no room");
                    return Ok(Next::Stop);
                }
                Ok(
                    request @ (LogRequest::Append(..) | LogRequest::Control(Control::Extents(_) | Control::Read(..))),
                ) => {
                    self.pending.push(request);
                }
                Err(RecvTimeoutError::Timeout) => return Ok(Next::Go),
            }
        }
    }

    fn note_segments(&mut self) {
        let statistics = self.wal.statistics();
        // A segment more is a spare less, and the moment to look what is left; one less is room again.
        if std::mem::replace(&mut self.segments, statistics.segments) != statistics.segments {
            space::measure(&self.options, &self.directory, &self.shared.counters);
        }
        let counters = &self.shared.counters;
        counters.segments.store(statistics.segments as u64, Ordering::Relaxed);
        counters.segment_bytes.store(statistics.bytes, Ordering::Relaxed);
        counters.spares.store(statistics.spares as u64, Ordering::Relaxed);
        counters.segments_recycled.store(statistics.recycled, Ordering::Relaxed);
        counters.batches.store(statistics.batches, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Go,
    Stop,
}
