//! A few threads on which many statements go on at once.
//!
//! A statement that writes spends most of its time waiting for the disk. While it does, its thread takes up another, so
//! that the log's next fdatasync covers the writes of all who wait: two threads suffice for a thousand callers. A
//! statement that only computes keeps its thread until it is done, which is why there are at least two.
//!
//! ```text
//!   caller ── future ──> queue ──> thread: poll ──ready──> answered
//!                          ^                └─pending──> parked; whoever wakes it puts it back
//! ```
//!
//! * A statement that panics ends alone: its caller is told that the outcome is in doubt, the thread goes on.
//! * The threads end once the pool is closed and every statement is done.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

/// What a thread polls.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The queue between callers and threads.
#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<State>,
    /// Signalled when something can be polled, and when a thread may end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Can go on. Its length is at most the number of statements that callers await, each of which holds its text.
    ready: VecDeque<Arc<Job>>,
    /// Begun and not done.
    unfinished: usize,
    closed: bool,
}

/// One statement.
struct Job {
    pool: Arc<Pool>,
    /// None once it is done. Locked while it is polled, so that a wake in the middle is seen by the next poll.
    work: Mutex<Option<Work>>,
}

impl Wake for Job {
    fn wake(self: Arc<Self>) {
        let pool = self.pool.clone();
        pool.lock().ready.push_back(self);
        pool.changed.notify_one();
    }
}

impl Pool {
    /// Takes a statement on; false where the pool is closed.
    pub(super) fn spawn(self: &Arc<Self>, work: Work) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.unfinished += 1;
        state.ready.push_back(Arc::new(Job { pool: self.clone(), work: Mutex::new(Some(work)) }));
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Takes nothing more on; what was begun goes to its end.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Works until the pool is closed and empty. Any number of threads may call this.
    pub(super) fn work(&self) {
        while let Some(job) = self.next() {
            if job.poll() {
                let mut state = self.lock();
                state.unfinished -= 1;
                let ends = state.closed && state.unfinished == 0;
                drop(state);
                if ends {
                    self.changed.notify_all();
                }
            }
        }
    }

    fn next(&self) -> Option<Arc<Job>> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.ready.pop_front() {
                return Some(job);
            }
            if state.closed && state.unfinished == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// No code panics while it holds this lock, so a poisoned one still guards whole values.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// Polls it once; true where that was its end.
    fn poll(self: &Arc<Self>) -> bool {
        // A panic is caught below, within the lock.
        let mut slot = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(work) = slot.as_mut() else { return false };
        let waker = Waker::from(self.clone());
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut context)));
        let done = if let Ok(poll) = polled {
            poll.is_ready()
        } else {
            tracing::error!("a statement panicked");
            true
        };
        if done {
            // What it held goes here, its caller's channel too.
            *slot = None;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[test]
    fn one_thread_carries_many_statements_that_wait() {
        let pool = Arc::new(Pool::default());
        let (first, second) = (oneshot::channel::<u8>(), oneshot::channel::<u8>());
        let (done, wait) = std::sync::mpsc::channel();
        // Each waits for what the other sends: on a thread that finished one before the other, none would end.
        let pairs = [(first.1, second.0), (second.1, first.0)];
        let [(hears_first, tells_second), (hears_second, tells_first)] = pairs;
        let one = done.clone();
        assert!(pool.spawn(Box::pin(async move {
            let heard = hears_first.await;
            let _ = tells_second.send(2);
            let _ = one.send(heard);
        })));
        assert!(pool.spawn(Box::pin(async move {
            let _ = tells_first.send(1);
            let _ = done.send(hears_second.await);
        })));
        pool.close();
        pool.work();
        assert_eq!(wait.iter().collect::<Vec<_>>(), [Ok(1), Ok(2)]);
        assert!(!pool.spawn(Box::pin(async {})), "a closed pool takes nothing");
    }

    #[test]
    fn a_panic_ends_one_statement_alone() {
        let pool = Arc::new(Pool::default());
        let (told, hears) = oneshot::channel::<()>();
        pool.spawn(Box::pin(async move {
            let _told = told;
            panic!("on purpose");
        }));
        let (done, after) = oneshot::channel();
        pool.spawn(Box::pin(async move {
            let _ = done.send(());
        }));
        pool.close();
        pool.work();
        assert!(hears.blocking_recv().is_err(), "its caller learns that there is no answer");
        assert_eq!(after.blocking_recv(), Ok(()));
    }
}
