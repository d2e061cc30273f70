//! A batch between the executor that found it and the door that sends it.
//!
//! Whoever sends it looks at it piece by piece, and each look is a sign of life. Whoever found it may take it back where
//! there is none: the door is asked for the next piece only when its client takes one, and could not be told to let go.

use chronos::sql::batch::Batch;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A batch on its way. Dropping it says that it was sent.
pub struct Parcel(Arc<Slot>);

/// The place of a batch, which both sides see.
pub struct Slot {
    batch: Mutex<Option<Batch>>,
    looks: AtomicUsize,
    emptied: Notify,
}

impl Parcel {
    /// A batch to be sent.
    pub fn new(batch: Batch) -> Parcel {
        Parcel(Arc::new(Slot { batch: Mutex::new(Some(batch)), looks: AtomicUsize::new(0), emptied: Notify::new() }))
    }

    /// Where its finder watches it.
    pub fn slot(&self) -> Arc<Slot> {
        self.0.clone()
    }

    /// Looks at the batch; none where it was taken back.
    pub fn look<T>(&self, look: impl FnOnce(&Batch) -> T) -> Option<T> {
        self.0.looks.fetch_add(1, Ordering::Relaxed);
        self.0.lock().as_ref().map(look)
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.0.empty();
    }
}

impl Slot {
    /// How often it was looked at.
    pub fn looks(&self) -> usize {
        self.looks.load(Ordering::Relaxed)
    }

    /// Waits until the batch was sent, or its reader has gone.
    pub async fn emptied(&self) {
        while self.lock().is_some() {
            // A batch that goes between the look and the wait is not missed: the notice is kept.
            self.emptied.notified().await;
        }
    }

    /// Lets the batch go, whoever has it.
    pub fn empty(&self) {
        let batch = self.lock().take();
        drop(batch);
        self.emptied.notify_one();
    }

    /// Only reading code runs while this lock is held, so a poisoned one still guards a whole batch.
    fn lock(&self) -> MutexGuard<'_, Option<Batch>> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
