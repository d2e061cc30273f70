//! The engine's threads as such: how they are started, and what becomes of their panics.
//!
//! A thread that panicked would leave an engine that takes writes and answers none of them. So its panic is told, like a
//! failure, and the others stop at their next step.

use super::background::{Background, Job};
use super::shared::Shared;
use super::{Event, Events};
use crate::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

/// Starts threads whose panics are told.
pub(super) struct Guard {
    shared: Arc<Shared>,
    events: Events,
}

impl Guard {
    pub(super) fn new(shared: Arc<Shared>, events: Events) -> Guard {
        Guard { shared, events }
    }

    /// Starts one of the engine's threads.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        name: &'static str,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let (shared, events) = (self.shared.clone(), self.events.clone());
        let guarded = move || {
            catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
                // Told first: what the other threads then report is a consequence of it.
                events(Event::Panicked { thread: name });
                shared.fail();
                resume_unwind(panic)
            })
        };
        spawn(name, guarded)
    }
}

/// Starts a thread with a name that tools show.
pub(super) fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(format!("chronos-{name}"))
        .spawn(run)
        .map_err(|error| Error::io(format_args!("start the {name} thread"), &error))
}

/// The background thread while the log is replayed. Where that fails, or panics, it has ended before the directory is
/// let go, or the next one to open it would meet its writes.
pub(super) struct Alone {
    thread: Option<JoinHandle<Background>>,
    jobs: Sender<Job>,
    shared: Arc<Shared>,
}

impl Alone {
    pub(super) fn new(thread: JoinHandle<Background>, jobs: Sender<Job>, shared: Arc<Shared>) -> Alone {
        Alone { thread: Some(thread), jobs, shared }
    }

    /// The log is replayed: it is joined with the others.
    pub(super) fn join_later(mut self) -> JoinHandle<Background> {
        self.thread.take().expect("it is given away once: giving it consumes this")
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.fail();
            let _ = self.jobs.send(Job::Stop);
            // Whether it ended well does not matter any more.
            let _ = thread.join();
        }
    }
}
