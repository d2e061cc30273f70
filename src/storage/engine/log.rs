//! The log thread: group commit. While one fdatasync runs, the next batch gathers.

use super::counters::Counters;
use super::shared::Shared;
use super::state::StateDesk;
use super::{Append, Event, Events, Waiting};
use crate::clock::{Clock, Monotonic};
use crate::ids::LogIndex;
use crate::raft::{Entry, HardState, Message};
use crate::storage::wal::{Extent, Wal};
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
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
    /// Stop.
    Stop,
}

pub(super) struct LogThread {
    pub wal: Wal,
    pub linger: Duration,
    pub clock: Arc<dyn Clock>,
    pub shared: Arc<Shared>,
    pub state: Arc<StateDesk>,
    pub events: Events,
}

/// Requests gathered for one fdatasync.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    waiting: Vec<Option<Waiting>>,
    hard_state: Option<HardState>,
    messages: Vec<Message>,
    /// When each append was handed over.
    since: Vec<Monotonic>,
    bytes: usize,
    apply: bool,
}

impl Batch {
    fn add(&mut self, append: Append, since: Monotonic) {
        self.since.push(since);
        self.bytes += append.entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
        let mut waiting = append.waiting;
        waiting.resize_with(append.entries.len(), || None);
        self.waiting.extend(waiting);
        self.entries.extend(append.entries);
        if append.hard_state.is_some() {
            self.hard_state = append.hard_state;
        }
        self.messages.extend(append.after_persist);
        self.apply |= append.commit_on_persist;
    }
}

impl LogThread {
    /// Runs until it is asked to stop, its senders are gone, or the disk fails; gives the log back.
    pub fn run(mut self, requests: &Receiver<LogRequest>) -> Wal {
        while let Ok(request) = requests.recv() {
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
                self.wal.trim(below)?;
                self.note_segments();
                Ok(Next::Go)
            }
            Control::Stop => Ok(Next::Stop),
        }
    }

    fn append(&mut self, (first, since): (Append, Monotonic), requests: &Receiver<LogRequest>) -> Result<Next> {
        let mut batch = Batch::default();
        batch.add(first, since);
        let control = self.gather(&mut batch, requests);
        self.write(batch)?;
        control.map_or(Ok(Next::Go), |request| self.control(request))
    }

    /// Takes what is waiting, and with a linger what comes meanwhile, up to a request of another kind.
    fn gather(&self, batch: &mut Batch, requests: &Receiver<LogRequest>) -> Option<Control> {
        let until = self.clock.monotonic() + self.linger;
        while batch.bytes < BATCH_BYTES_MAX {
            let next = if self.linger.is_zero() {
                requests.try_recv().ok()
            } else {
                requests.recv_timeout(until.saturating_sub(self.clock.monotonic())).ok()
            };
            match next {
                Some(LogRequest::Append(append, since)) => batch.add(append, since),
                Some(LogRequest::Control(request)) => return Some(request),
                None => return None,
            }
        }
        None
    }

    fn write(&mut self, batch: Batch) -> Result<()> {
        if self.shared.has_failed() {
            return Err(Error::unavailable("storage has failed"));
        }
        self.wal.append(&batch.entries, batch.hard_state.as_ref())?;
        let begin = self.clock.monotonic();
        self.wal.sync()?;
        let counters = &self.shared.counters;
        let now = self.clock.monotonic();
        let took = now.saturating_sub(begin);
        batch.since.iter().for_each(|&since| counters.commit_times.record(now.saturating_sub(since)));
        Counters::add(&counters.sync_micros, took.as_micros() as u64);
        counters.sync_times.record(took);
        Counters::add(&counters.syncs, 1);
        Counters::add(&counters.entries, batch.entries.len() as u64);
        Counters::add(&counters.log_bytes, batch.bytes as u64);
        self.note_segments();
        let last = batch.entries.last().map(|entry| entry.index);
        if batch.apply && !batch.entries.is_empty() {
            let entries = batch.entries.into_iter().zip(batch.waiting).collect();
            self.state.apply(entries, batch.bytes)?;
        }
        // Without messages the news that it is durable travels with the news that it is applied.
        if !batch.messages.is_empty() || !batch.apply {
            (self.events)(Event::Persisted { last, messages: batch.messages });
        }
        Ok(())
    }

    fn note_segments(&self) {
        let statistics = self.wal.statistics();
        let counters = &self.shared.counters;
        counters.segments.store(statistics.segments as u64, Ordering::Relaxed);
        counters.segment_bytes.store(statistics.bytes, Ordering::Relaxed);
        counters.spares.store(statistics.spares as u64, Ordering::Relaxed);
        counters.segments_recycled.store(statistics.recycled, Ordering::Relaxed);
        counters.batches.store(statistics.batches, Ordering::Relaxed);
    }
}

enum Next {
    Go,
    Stop,
}
