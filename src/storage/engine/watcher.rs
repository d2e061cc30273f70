//! The watcher: a thread that never touches the disk, so that it can say when the disk does not answer.
//!
//! A call that is slow is warned about, and a leader then hands over to a node whose disk answers.
//! A write that waits for a disk that hangs would wait for ever, and so would everyone who asks. Better the process ends:
//! whoever supervises it can act, and what was acknowledged is in the log.

use super::counters::Counters;
use super::shared::Shared;
use super::threads::spawn;
use super::{Event, Events};
use crate::Result;
use crate::error::{Error, Kind, SqlState};
use crate::storage::watch::Watch;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it looks: a stall is measured in many seconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often somebody who waits for a thread looks whether it has ended, or hangs.
const JOIN_LOOK_EVERY: Duration = Duration::from_millis(1);

/// Its thread ends when this is dropped.
pub(super) struct Watcher {
    hung: Arc<OnceLock<Error>>,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Watcher {
    /// Begins to look.
    pub(super) fn start(watch: Arc<Watch>, shared: Arc<Shared>, events: Events) -> Result<Watcher> {
        let (stop, stopped) = channel::<()>();
        let hung = Arc::new(OnceLock::new());
        let found = hung.clone();
        let thread = spawn("watcher", move || {
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                if let Some(error) = look(&watch, &shared, &events) {
                    let _ = found.set(error.clone());
                    shared.fail();
                    events(Event::Failed(error));
                    return;
                }
            }
        })?;
        Ok(Watcher { hung, stop, thread })
    }

    /// Ends the thread: what it holds keeps the hot store open, which the next engine is to find closed.
    pub(super) fn end(self) {
        drop(self.stop);
        // It has said what it had to say, even where it panicked.
        let _ = self.thread.join();
    }

    /// The call that did not return, where one was found.
    pub(super) fn hung(&self) -> Option<Error> {
        self.hung.get().cloned()
    }

    /// Waits until a thread has ended, as long as its disk calls come back: an error once one hangs, and then the thread
    /// goes on waiting for it.
    pub(super) fn join<T>(&self, thread: JoinHandle<T>) -> Result<std::thread::Result<T>> {
        loop {
            if let Some(hung) = self.hung() {
                return Err(hung);
            }
            if thread.is_finished() {
                return Ok(thread.join());
            }
            std::thread::park_timeout(JOIN_LOOK_EVERY);
        }
    }
}

/// Warns about calls that are slow, so that another node may lead meanwhile; an error where one hangs.
fn look(watch: &Watch, shared: &Shared, events: &Events) -> Option<Error> {
    for slow in watch.look() {
        if slow.is_hung {
            let message = format!("the disk hangs: {} has not returned for {} s", slow.what, slow.since.as_secs());
            return Some(Error::new(Kind::Io, SqlState::IO_ERROR, message).hint("storage.disk_stall_max is the limit"));
        }
        Counters::add(&shared.counters.slow_disk_calls, 1);
        tracing::warn!(call = slow.what, seconds = slow.since.as_secs(), "the disk is slow");
        events(Event::Stalled);
    }
    None
}
