//! What queries may hold in memory: one pool for all, a limit for each.
//!
//! ```text
//! Pool (30 % of memory_bytes_max) <── QueryMemory (limits.query_memory_bytes) <── Reservation, one an operator
//! ```
//!
//! Operators that gather rows (sort, aggregate, distinct) reserve what they hold, batch by batch, before they go on;
//! over a limit the query ends with 53200 and everything it held comes back. Batches on their way are not counted: each
//! operator has at most one, and they are bounded.
//!
//! Texts are counted by the same rules: what parsing a long one takes until it is parsed, and the values of a long IN
//! list for as long as anything is looked up in them.
//!
//! * The pool's count is the sum of its queries', and a query's is the sum of its reservations'.
//! * Dropping a reservation, however the query ends, gives its bytes back.

use crate::error::{Error, Result, SqlState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory that all queries of a node share.
#[derive(Debug)]
pub struct Pool {
    bytes_max: usize,
    used: AtomicUsize,
}

/// The memory of one query.
#[derive(Debug)]
pub struct QueryMemory {
    pool: Arc<Pool>,
    bytes_max: usize,
    used: AtomicUsize,
}

/// What one operator holds.
#[derive(Debug)]
pub struct Reservation {
    query: Arc<QueryMemory>,
    bytes: usize,
}

impl Pool {
    /// A pool of so many bytes.
    pub fn new(bytes_max: usize) -> Arc<Pool> {
        Arc::new(Pool { bytes_max, used: AtomicUsize::new(0) })
    }

    /// The account of a new query, which may hold at most `bytes_max` of the pool.
    pub fn query(self: &Arc<Pool>, bytes_max: usize) -> Arc<QueryMemory> {
        Arc::new(QueryMemory { pool: Arc::clone(self), bytes_max, used: AtomicUsize::new(0) })
    }

    /// Bytes that queries hold now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl QueryMemory {
    /// An account for one operator, holding nothing yet.
    pub fn reservation(self: &Arc<QueryMemory>) -> Reservation {
        Reservation { query: Arc::clone(self), bytes: 0 }
    }

    /// Bytes that the query holds now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<()> {
        if !add_below(&self.used, bytes, self.bytes_max) {
            return Err(exhausted(format!("query memory limit of {} bytes reached", self.bytes_max))
                .hint("raise limits.query_memory_bytes, or ask for fewer rows or groups"));
        }
        if !add_below(&self.pool.used, bytes, self.pool.bytes_max) {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(exhausted(format!("memory pool of all queries, {} bytes, is exhausted", self.pool.bytes_max))
                .hint("try again when other queries have ended, or raise storage.memory_bytes_max"));
        }
        Ok(())
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.pool.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Reservation {
    /// Says how many bytes the operator holds now: takes or gives the difference.
    ///
    /// # Errors
    /// 53200 over the query's limit or the pool's; then nothing has changed.
    pub fn set(&mut self, bytes: usize) -> Result<()> {
        if bytes > self.bytes {
            self.query.take(bytes - self.bytes)?;
        } else {
            self.query.give(self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.query.give(self.bytes);
    }
}

/// Adds where the sum stays within the limit.
fn add_below(used: &AtomicUsize, bytes: usize, bytes_max: usize) -> bool {
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        used.checked_add(bytes).filter(|sum| *sum <= bytes_max)
    })
    .is_ok()
}

/// What is counted for as long as it lives, by whoever owns it; nothing is where its maker had no account.
#[derive(Debug, Default)]
pub struct Counted(Option<Reservation>);

impl Counted {
    /// Holding nothing yet, in this account.
    pub fn new(memory: Option<&Arc<QueryMemory>>) -> Counted {
        Counted(memory.map(QueryMemory::reservation))
    }

    /// Another one in the same account, holding nothing yet.
    #[must_use]
    pub fn beside(&self) -> Counted {
        Counted(self.0.as_ref().map(|reservation| reservation.query.reservation()))
    }

    /// Says how many bytes there are now.
    ///
    /// # Errors
    /// Those of [`Reservation::set`].
    pub fn set(&mut self, bytes: usize) -> Result<()> {
        self.0.as_mut().map_or(Ok(()), |reservation| reservation.set(bytes))
    }

    /// Gives back what is above so many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        if let Some(reservation) = &mut self.0
            && reservation.bytes > bytes
        {
            reservation.query.give(reservation.bytes - bytes);
            reservation.bytes = bytes;
        }
    }
}

/// Things are the same wherever they are counted.
impl PartialEq for Counted {
    fn eq(&self, _: &Counted) -> bool {
        true
    }
}

fn exhausted(message: String) -> Error {
    Error::limit(SqlState::OUT_OF_MEMORY, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_over_its_limit_is_refused_by_the_setting() {
        let pool = Pool::new(1000);
        let mut one = pool.query(100).reservation();
        one.set(100).unwrap();
        let error = one.set(101).unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::OUT_OF_MEMORY);
        assert!(error.to_string().contains("query memory limit of 100 bytes reached"));
        assert!(error.to_string().contains("limits.query_memory_bytes"));
        assert_eq!((one.bytes(), pool.used()), (100, 100));
    }

    #[test]
    fn the_pool_bounds_all_queries_together_and_gets_everything_back() {
        let pool = Pool::new(150);
        let (first, second) = (pool.query(100), pool.query(100));
        let (mut one, mut two) = (first.reservation(), second.reservation());
        one.set(100).unwrap();
        assert_eq!(two.set(60).unwrap_err().sqlstate(), SqlState::OUT_OF_MEMORY);
        assert_eq!(second.used(), 0);
        one.set(40).unwrap();
        two.set(60).unwrap();
        drop((one, two));
        assert_eq!((pool.used(), first.used(), second.used()), (0, 0, 0));
    }
}
