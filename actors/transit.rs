//! The memory of requests and answers on their way: one account for all doors.
//!
//! ```text
//!   in_flight_bytes_max = [ answers only: response_bytes_max | both | requests only: statement_bytes_max + envelope ]
//!
//!   request ── announces its length ── waits for room ──> read, run, answered ──> room given back
//!   answer  ── takes room as its rows are found ─────────> sent, or its client gone ──> room given back
//! ```
//!
//! Each request and each answer has a limit of its own, and connections have theirs; their product is gigabytes.
//!
//! * A request takes its whole length before it is read any further. One whose length nobody knows takes more as it grows,
//!   and fails where there is no more. So who waits holds nothing, and no two can wait for each other. What is not read
//!   stays in the client's socket: waiting costs a window, and [`WAITING_MAX`] may wait.
//! * Streams of one HTTP/2 connection share its window. Those who wait leave their bytes in it, and must never fill it:
//!   those who were let in would get nothing any more. So of one connection only as many wait as leave a part of it.
//! * Requests are let in in turn: a large one is not overtaken for ever by small ones.
//! * An answer grows while its rows are found, and nobody knows how far. It never waits, since it holds what others wait
//!   for; without room it fails with 53200, and its statement may be sent again. A batch that reads takes the longest
//!   answer there is before it runs, since it must not fail once its writes are in.
//! * Neither side takes the other's last room: bodies that are sent by halves keep nobody from reading, and answers
//!   that nobody fetches keep nobody from writing.
//! * What is at most [`SMALL_BYTES`] takes nothing: it is one frame or one piece, in no greater number than connections
//!   and their streams, and nearly all statements are so. Only such a request that is still on its way when it is
//!   looked at is counted, by number, up to [`SMALL_MAX`].
//! * Dropping a [`Hold`] gives back, whatever became of the connection.

use crate::actors::route::Deadline;
use chronos::config::ENVELOPE_BYTES_MAX;
use chronos::error::{Error, Kind, Result, SqlState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// Requests and answers up to this size take nothing: one frame of HTTP/2, one piece of an answer.
pub const SMALL_BYTES: usize = 16 << 10;

/// How long a request may be silent before it is whole: on the worst line, the time that a lost packet takes.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Small requests that may be half here at once: as many as a mailbox holds, 16 MiB in all.
const SMALL_MAX: usize = 1024;

/// Those of one side that may wait for room. A request keeps the window of its stream, 128 KiB, in memory: 8 MiB in all.
/// A batch keeps its statements, which have their room as requests.
const WAITING_MAX: usize = 64;

/// The account.
#[derive(Debug)]
pub struct Transit {
    bytes_max: usize,
    requests_max: usize,
    answers_max: usize,
    used: Mutex<Used>,
    /// Room was given back. Those who have their turn wait for it: one of each side.
    freed: [Notify; 2],
    /// One turn a side: the first in line waits for room, the others for the turn.
    turns: [Semaphore; 2],
    /// How many wait, a side.
    waiting: [AtomicUsize; 2],
    small: AtomicUsize,
}

/// Who holds how much.
#[derive(Debug, Default)]
struct Used {
    requests: usize,
    answers: usize,
}

/// What is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// To the node.
    Request,
    /// To the client.
    Answer,
}

impl Transit {
    /// An account of `bytes_max`, for requests with statements and answers up to these sizes.
    pub fn new(bytes_max: usize, statement_bytes_max: usize, response_bytes_max: usize) -> Arc<Transit> {
        Arc::new(Transit {
            bytes_max,
            requests_max: bytes_max.saturating_sub(response_bytes_max),
            answers_max: bytes_max.saturating_sub(statement_bytes_max + ENVELOPE_BYTES_MAX as usize),
            used: Mutex::default(),
            freed: Default::default(),
            turns: [Semaphore::new(1), Semaphore::new(1)],
            waiting: Default::default(),
            small: AtomicUsize::new(0),
        })
    }

    /// Bytes that are held now.
    pub fn used(&self) -> usize {
        let used = self.lock();
        used.requests + used.answers
    }

    /// Bytes that one request may have at most.
    pub fn request_bytes_max(&self) -> usize {
        self.requests_max
    }

    /// Bytes that requests have in any case: answers cannot take them.
    pub fn sure_request_bytes(&self) -> usize {
        self.bytes_max - self.answers_max
    }

    /// Room for a request, or for an answer whose size is not known yet; waited for in turn, at most until `deadline`.
    /// Whoever waits here must hold nothing of the same side.
    pub async fn admit(self: &Arc<Transit>, side: Side, bytes: usize, deadline: Deadline) -> Result<Hold> {
        match self.admit_now(side, bytes) {
            Some(hold) => Ok(hold),
            None => self.wait(side, bytes, deadline).await,
        }
    }

    /// The same for a request that comes over a connection with others.
    pub async fn admit_from(self: &Arc<Transit>, line: &Line, bytes: usize, deadline: Deadline) -> Result<Hold> {
        if let Some(hold) = self.admit_now(Side::Request, bytes) {
            return Ok(hold);
        }
        let _waiting = Waiting::enter(&line.waiting, line.waiting_max).ok_or_else(|| line.full())?;
        self.wait(Side::Request, bytes, deadline).await
    }

    fn admit_now(self: &Arc<Transit>, side: Side, bytes: usize) -> Option<Hold> {
        // Whoever has the turn is before all others.
        let _turn = self.turns[side as usize].try_acquire().ok()?;
        self.take(side, bytes)
    }

    async fn wait(self: &Arc<Transit>, side: Side, bytes: usize, deadline: Deadline) -> Result<Hold> {
        let waiting = Waiting::enter(&self.waiting[side as usize], WAITING_MAX).ok_or_else(|| self.full(side))?;
        let turn = &self.turns[side as usize];
        let in_turn = async {
            let _turn = turn.acquire().await;
            loop {
                if let Some(hold) = self.take(side, bytes) {
                    return hold;
                }
                // What is given back between the look and the wait is not missed: the notice is kept.
                self.freed[side as usize].notified().await;
            }
        };
        let admitted = tokio::time::timeout_at(deadline.instant(), in_turn).await;
        drop(waiting);
        admitted.map_err(|_| self.full(side))
    }

    /// What an answer holds, nothing at first.
    pub fn answer(self: &Arc<Transit>) -> Hold {
        Hold { transit: Some(self.clone()), side: Side::Answer, bytes: 0 }
    }

    /// A place for a small request that is half here.
    pub fn half_small(self: &Arc<Transit>) -> Result<SmallPlace> {
        if !enter(&self.small, SMALL_MAX) {
            return Err(Error::overloaded(format!("{SMALL_MAX} requests are half here, retry")));
        }
        Ok(SmallPlace(self.clone()))
    }

    fn take(self: &Arc<Transit>, side: Side, bytes: usize) -> Option<Hold> {
        let mut hold = Hold { transit: Some(self.clone()), side, bytes: 0 };
        self.add(side, bytes).then(|| {
            hold.bytes = bytes;
            hold
        })
    }

    fn add(&self, side: Side, bytes: usize) -> bool {
        let mut used = self.lock();
        let (own, own_max) = match side {
            Side::Request => (used.requests, self.requests_max),
            Side::Answer => (used.answers, self.answers_max),
        };
        if own + bytes > own_max || used.requests + used.answers + bytes > self.bytes_max {
            return false;
        }
        match side {
            Side::Request => used.requests += bytes,
            Side::Answer => used.answers += bytes,
        }
        true
    }

    fn give(&self, side: Side, bytes: usize) {
        let mut used = self.lock();
        match side {
            Side::Request => used.requests -= bytes,
            Side::Answer => used.answers -= bytes,
        }
        drop(used);
        self.freed.iter().for_each(Notify::notify_one);
    }

    fn full(&self, side: Side) -> Error {
        let what = match side {
            Side::Request => "this request",
            Side::Answer => "this answer",
        };
        let message = format!(
            "too many requests and answers are on their way for {what}: limits.in_flight_bytes_max ({}) is reached",
            self.bytes_max
        );
        Error::new(Kind::Overloaded, SqlState::OUT_OF_MEMORY, message)
            .hint("try again, or stream large results with QuerySql")
    }

    /// No code panics while it holds this lock, so a poisoned one still guards whole numbers.
    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room that something on its way has. Dropping it gives the room back.
#[derive(Debug)]
pub struct Hold {
    /// None where it holds nothing and never will.
    transit: Option<Arc<Transit>>,
    side: Side,
    bytes: usize,
}

impl Hold {
    /// What something small holds.
    pub const fn nothing() -> Hold {
        Hold { transit: None, side: Side::Request, bytes: 0 }
    }

    /// Takes what is missing to so many bytes in all; small amounts are free.
    ///
    /// # Errors
    ///
    /// 53200, retryable, where there is no room.
    pub fn reach(&mut self, bytes: usize) -> Result<()> {
        let Some(transit) = self.transit.as_ref().filter(|_| bytes > SMALL_BYTES.max(self.bytes)) else {
            return Ok(());
        };
        if !transit.add(self.side, bytes - self.bytes) {
            return Err(transit.full(self.side));
        }
        self.bytes = bytes;
        Ok(())
    }

    /// What it has.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what is above so many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        if bytes < self.bytes
            && let Some(transit) = &self.transit
        {
            transit.give(self.side, self.bytes - bytes);
            self.bytes = bytes;
        }
    }
}

impl Default for Hold {
    fn default() -> Hold {
        Hold::nothing()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// The place of a small request that is half here.
pub struct SmallPlace(Arc<Transit>);

impl Drop for SmallPlace {
    fn drop(&mut self) {
        self.0.small.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection whose requests wait beside each other.
#[derive(Clone, Debug)]
pub struct Line {
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
}

impl Line {
    /// A connection of whose requests so many may wait.
    pub fn new(waiting_max: usize) -> Line {
        Line { waiting: Arc::default(), waiting_max }
    }

    fn full(&self) -> Error {
        let message = format!(
            "limits.in_flight_bytes_max is reached, and {} requests of this connection wait for room already",
            self.waiting_max
        );
        Error::new(Kind::Overloaded, SqlState::OUT_OF_MEMORY, message)
            .hint("try again, or send fewer at once over one connection")
    }
}

/// Why a request that did not come in time is given up.
pub fn too_slow(limit: Duration) -> Error {
    let silence = SILENCE_MAX.min(limit);
    let message = format!(
        "the request did not arrive: nothing of it came for {silence:?}, or not all of it within \
         limits.statement_timeout ({limit:?})"
    );
    Error::limit(SqlState::QUERY_CANCELED, message)
}

/// One of those who wait.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn enter(count: &AtomicUsize, max: usize) -> Option<Waiting<'_>> {
        enter(count, max).then(|| Waiting(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one more, below a limit.
fn enter(count: &AtomicUsize, max: usize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < max).then_some(now + 1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_millis(20))
    }

    fn on_a_runtime<F: Future>(work: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn neither_side_takes_the_others_last_room() {
        on_a_runtime(async {
            let transit = Transit::new(3 * MIB, MIB - ENVELOPE_BYTES_MAX as usize, MIB);
            let requests = transit.admit(Side::Request, 2 * MIB, soon()).await.unwrap();
            let error = transit.admit(Side::Request, 1, soon()).await.unwrap_err();
            assert_eq!((error.kind(), error.sqlstate()), (Kind::Overloaded, SqlState::OUT_OF_MEMORY));
            assert!(error.is_retryable() && error.to_string().contains("limits.in_flight_bytes_max"), "{error}");
            let mut answer = transit.answer();
            answer.reach(MIB).unwrap();
            answer.reach(MIB + 1).unwrap_err();
            drop(requests);
            answer.reach(2 * MIB).unwrap();
            answer.reach(2 * MIB + 1).unwrap_err();
            transit.admit(Side::Request, MIB, soon()).await.unwrap();
            assert_eq!(transit.used(), 2 * MIB);
            drop(answer);
            assert_eq!(transit.used(), 0);
        });
    }

    #[test]
    fn who_waits_longest_is_let_in_first() {
        on_a_runtime(async {
            let transit = Transit::new(4 * MIB, MIB, MIB);
            let first = transit.admit(Side::Request, 2 * MIB, soon()).await.unwrap();
            let order = Mutex::new(Vec::new());
            let late = || Deadline::after(Duration::from_mins(1));
            let waits = async |name: &'static str, bytes| {
                let hold = transit.admit(Side::Request, bytes, late()).await.unwrap();
                order.lock().unwrap().push(name);
                drop(hold);
            };
            // The small one would have room at once.
            let release = async {
                tokio::task::yield_now().await;
                drop(first);
            };
            tokio::join!(waits("large", 3 * MIB), waits("small", MIB), release);
            assert_eq!(*order.lock().unwrap(), ["large", "small"]);
            assert_eq!(transit.used(), 0);
        });
    }

    #[test]
    fn so_many_wait_and_no_more_and_who_gives_up_leaves_its_place() {
        on_a_runtime(async {
            let transit = Transit::new(2 * MIB, MIB, MIB - ENVELOPE_BYTES_MAX as usize);
            let all = transit.admit(Side::Request, transit.request_bytes_max(), soon()).await.unwrap();
            let asked: Vec<_> =
                (0..=WAITING_MAX).map(|_| Box::pin(transit.admit(Side::Request, MIB, soon()))).collect();
            let failed = futures_util::future::join_all(asked).await;
            assert!(failed.iter().all(Result::is_err));
            assert_eq!(transit.waiting[Side::Request as usize].load(Ordering::Relaxed), 0);
            drop(all);
            transit.admit(Side::Request, MIB, soon()).await.unwrap();
        });
    }

    #[test]
    fn requests_do_not_wait_in_the_places_of_answers() {
        on_a_runtime(async {
            let transit = Transit::new(4 * MIB, MIB, MIB);
            let mut unfetched = transit.answer();
            unfetched.reach(transit.answers_max).unwrap();
            let late = || Deadline::after(Duration::from_mins(1));
            let batches: Vec<_> =
                (0..WAITING_MAX).map(|_| Box::pin(transit.admit(Side::Answer, MIB, late()))).collect();
            let mut batches = futures_util::future::join_all(batches);
            assert!(futures_util::FutureExt::now_or_never(&mut batches).is_none());
            let first = transit.admit(Side::Request, MIB, soon()).await.unwrap();
            let behind = transit.admit(Side::Request, MIB, late());
            let release = async {
                tokio::task::yield_now().await;
                drop(first);
            };
            tokio::join!(behind, release).0.unwrap();
        });
    }

    #[test]
    fn of_one_connection_only_so_many_wait() {
        on_a_runtime(async {
            let transit = Transit::new(2 * MIB, MIB, MIB - ENVELOPE_BYTES_MAX as usize);
            let all = transit.admit(Side::Request, transit.request_bytes_max(), soon()).await.unwrap();
            let (line, other) = (Line::new(2), Line::new(2));
            let late = || Deadline::after(Duration::from_mins(1));
            let refused = async {
                tokio::task::yield_now().await;
                let refused = transit.admit_from(&line, MIB, late()).await.unwrap_err();
                assert_eq!((refused.kind(), refused.sqlstate()), (Kind::Overloaded, SqlState::OUT_OF_MEMORY));
                assert!(refused.is_retryable() && refused.to_string().contains("2 requests"), "{refused}");
                drop(all);
            };
            let ask = |line| transit.admit_from(line, MIB / 4, late());
            let (one, two, third, ()) = tokio::join!(ask(&line), ask(&line), ask(&other), refused);
            assert!(one.is_ok() && two.is_ok() && third.is_ok());
            assert_eq!(line.waiting.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn a_small_answer_is_free_and_a_larger_one_counts_whole() {
        let transit = Transit::new(2 * MIB, MIB / 2, MIB);
        let mut answer = transit.answer();
        answer.reach(SMALL_BYTES).unwrap();
        assert_eq!(transit.used(), 0);
        answer.reach(SMALL_BYTES + 1).unwrap();
        assert_eq!(transit.used(), SMALL_BYTES + 1);
        answer.shrink_to(7);
        assert_eq!(transit.used(), 7);
        drop(answer);
        assert_eq!(transit.used(), 0);
    }

    #[test]
    fn small_requests_that_are_half_here_are_counted() {
        let transit = Transit::new(2 * MIB, MIB / 2, MIB);
        let mut places: Vec<SmallPlace> = (0..SMALL_MAX).map(|_| transit.half_small().unwrap()).collect();
        assert_eq!(transit.half_small().err().unwrap().kind(), Kind::Overloaded);
        places.pop();
        transit.half_small().unwrap();
    }
}
