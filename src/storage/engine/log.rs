//! The log thread: group commit. While one fdatasync runs, the next batch gathers.

use super::shared::{Counters, Shared};
use super::state::StateRequest;
use super::{Append, Event, Events, Waiting};
use crate::clock::Clock;
use crate::ids::LogIndex;
use crate::raft::{Entry, HardState, Message};
use crate::storage::wal::Wal;
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// Bytes of payload that one fdatasync covers at most: beyond it waiting costs more than another fdatasync.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// What the log thread is asked.
pub(super) enum LogRequest {
    /// Make these durable.
    Append(Append),
    /// Anything else.
    Control(Control),
}

/// What is not gathered into a batch.
#[derive(Clone, Copy)]
pub(super) enum Control {
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
    pub state: Sender<StateRequest>,
    pub events: Events,
}

/// Requests gathered for one fdatasync.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    waiting: Vec<Option<Waiting>>,
    hard_state: Option<HardState>,
    messages: Vec<Message>,
    bytes: usize,
    apply: bool,
}

impl Batch {
    fn add(&mut self, append: Append) {
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
                LogRequest::Append(append) => self.append(append, requests),
                LogRequest::Control(request) => self.control(request),
            };
            match done {
                Ok(Next::Go) => {}
                Ok(Next::Stop) => break,
                Err(error) => {
                    // What a failed fsync left behind is unknown: nothing more may be written or acknowledged.
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
            Control::Trim(below) => {
                self.wal.trim(below)?;
                self.note_segments();
                Ok(Next::Go)
            }
            Control::Stop => Ok(Next::Stop),
        }
    }

    fn append(&mut self, first: Append, requests: &Receiver<LogRequest>) -> Result<Next> {
        let mut batch = Batch::default();
        batch.add(first);
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
                Some(LogRequest::Append(append)) => batch.add(append),
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
        Counters::add(&counters.sync_micros, self.clock.monotonic().saturating_sub(begin).as_micros() as u64);
        Counters::add(&counters.syncs, 1);
        Counters::add(&counters.entries, batch.entries.len() as u64);
        Counters::add(&counters.log_bytes, batch.bytes as u64);
        self.note_segments();
        let last = batch.entries.last().map(|entry| entry.index);
        if batch.apply && !batch.entries.is_empty() {
            let entries = batch.entries.into_iter().zip(batch.waiting).collect();
            // A state thread that has failed has said so itself; its waiters learn that the outcome is in doubt.
            let _ = self.state.send(StateRequest::Apply(entries));
        }
        // Without messages the news that it is durable travels with the news that it is applied.
        if !batch.messages.is_empty() || !batch.apply {
            (self.events)(Event::Persisted { last, messages: batch.messages });
        }
        Ok(())
    }

    fn note_segments(&self) {
        let statistics = self.wal.statistics();
        self.shared.counters.segments.store(statistics.segments as u64, Ordering::Relaxed);
        self.shared.counters.segments_recycled.store(statistics.recycled, Ordering::Relaxed);
    }
}

enum Next {
    Go,
    Stop,
}
