//! Slots for long queries: all but one core may be busy with them, so that the log, the doors and brief statements always
//! have one.
//!
//! ```text
//!   step 1 ... 8      no slot: most queries end here
//!   step 9            waits for a slot, in the order of asking
//!   a batch of rows   gives it back: its reader may take its time
//! ```
//!
//! A query is long once it has taken [`BRIEF_STEPS`] steps, whatever its plan looked like. From then on it keeps its slot
//! until it has found rows: what builds a hash table or sorts ends before the next one begins, so that they do not take
//! the memory of queries from each other half-way. One that streams shares its slot with the others, a batch each.
//!
//! * Whoever waits longest is next; a wait ends with the statement's deadline.

use crate::actors::route::Deadline;
use chronos::error::{Error, Result, SqlState};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Steps, of 4,096 rows at most, that a query may take without a slot: some milliseconds, less than waiting for one.
const BRIEF_STEPS: u32 = 8;

/// The slots of a node.
pub struct Slots(Semaphore);

impl Slots {
    /// For a node whose statements run on so many threads.
    pub fn new(threads: usize) -> Slots {
        Slots(Semaphore::new(threads.saturating_sub(1).max(1)))
    }

    /// For a query that begins.
    pub fn visit(&self) -> Visit<'_> {
        Visit { slots: self, steps: 0, held: None }
    }
}

/// A query and the slot that it may have.
pub struct Visit<'a> {
    slots: &'a Slots,
    steps: u32,
    held: Option<SemaphorePermit<'a>>,
}

impl Visit<'_> {
    /// Before a step: waits for a slot where the query is long.
    pub async fn step(&mut self, until: Deadline) -> Result<()> {
        self.steps = self.steps.saturating_add(1);
        if self.steps <= BRIEF_STEPS || self.held.is_some() {
            return Ok(());
        }
        match tokio::time::timeout_at(until.instant(), self.slots.0.acquire()).await {
            Ok(Ok(slot)) => {
                self.held = Some(slot);
                Ok(())
            }
            // They are never closed.
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }

    /// The step has found rows, which are the reader's now.
    pub fn found_rows(&mut self) {
        self.held = None;
    }
}

fn busy() -> Error {
    Error::limit(SqlState::QUERY_CANCELED, "the statement's deadline passed while other long queries ran")
        .hint("ask for fewer rows, by a key or a range, run fewer of them at once, or give it more time")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn later() -> Deadline {
        Deadline::after(Duration::from_mins(1))
    }

    async fn is_let_on(visit: &mut Visit<'_>) -> bool {
        visit.step(Deadline::after(Duration::ZERO)).await.is_ok()
    }

    async fn long(slots: &Slots) -> Visit<'_> {
        let mut visit = slots.visit();
        for _ in 0..=BRIEF_STEPS {
            visit.step(later()).await.unwrap();
        }
        visit
    }

    #[tokio::test]
    async fn one_core_is_left_to_brief_queries() {
        let slots = Slots::new(3);
        let (_first, mut second) = (long(&slots).await, long(&slots).await);
        let mut brief = slots.visit();
        for _ in 0..BRIEF_STEPS {
            assert!(is_let_on(&mut brief).await);
        }
        let refused = brief.step(Deadline::after(Duration::ZERO)).await.unwrap_err();
        assert_eq!(refused.sqlstate(), SqlState::QUERY_CANCELED);
        assert!(is_let_on(&mut second).await, "who has a slot goes on");
        drop(second);
        assert!(is_let_on(&mut brief).await);
    }

    #[tokio::test]
    async fn a_query_that_streams_shares_its_slot_and_one_that_gathers_keeps_it() {
        let slots = Slots::new(1);
        let mut streams = long(&slots).await;
        streams.found_rows();
        let mut gathers = long(&slots).await;
        assert!(!is_let_on(&mut streams).await);
        assert!(is_let_on(&mut gathers).await);
        assert!(!is_let_on(&mut streams).await);
        gathers.found_rows();
        assert!(is_let_on(&mut streams).await);
    }
}
