//! The memory of requests and answers on their way: one account for all doors.
//!
//! ```text
//!   in_flight_bytes_max = [ answers only: response_bytes_max | both | requests only: statement_bytes_max + envelope ]
//!
//!   request ── has come to 64 KiB ── waits for room ──> read, run, answered ──> room given back
//!   answer  ── takes room as its rows are found ─────────> sent, or its client gone ──> room given back
//! ```
//!
//! Each request and each answer has a limit of its own, and connections have theirs; their product is gigabytes.
//!
//! * A request takes room as it comes (entry.rs): its beginning beside the account, then its whole length before it is read
//!   any further. One whose length nobody knows, or that is slow, takes more as it grows, and fails where there is no more.
//!   So who waits holds nothing of the account, and no two can wait for each other. What is not read stays in the client's
//!   socket: waiting costs a window, and [`WAITING_MAX`] may wait.
//! * Of one connection only as many wait as leave a part of its window: line.rs.
//! * Requests are let in in turn: a large one is not overtaken for ever by small ones.
//! * An answer grows while its rows are found, and nobody knows how far. It never waits, since it holds what others wait
//!   for; without room it fails with 53200, and its statement may be sent again. A batch that reads takes the longest
//!   answer there is before it runs, since it must not fail once its writes are in. Where it runs on another node it has
//!   that room for as long as that node takes, so of such only one at a time has any: away.rs.
//! * Neither side takes the other's last room: bodies that are sent by halves keep nobody from reading, and answers
//!   that nobody fetches keep nobody from writing.
//! * A streamed answer takes room for batches of large rows, one at a time, and waits for it: rows/load.rs.
//! * What is at most [`SMALL_BYTES`] takes nothing: it is one frame or one piece, in no greater number than connections
//!   and their streams, and nearly all statements are so. Only a request of which so little is here when it is looked at
//!   is counted, by number, up to [`SMALL_MAX`].
//! * Dropping a [`Hold`] gives back, whatever became of the connection.

mod away;
mod hold;
mod line;

use crate::actors::route::Deadline;
use away::Away;
pub use away::AwayTurn;
use chronos::config::ENVELOPE_BYTES_MAX;
use chronos::error::{Error, Kind, Result, SqlState};
pub use hold::{Hold, SmallPlace};
pub use line::Line;
use line::{Waiting, enter};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Requests and answers up to this size take nothing: one frame of HTTP/2, one piece of an answer.
pub const SMALL_BYTES: usize = 16 << 10;

/// Small requests that may be half here at once: as many as a mailbox holds, 16 MiB in all.
const SMALL_MAX: usize = 1024;

/// What modest requests have for themselves, beside the account, until they are whole: eight of the largest, a hundred
/// of 20 KB.
const MODEST_BYTES_MAX: usize = 2 << 20;

/// What the beginnings of larger ones have, beside the account: 64 of them at the end of their trial,
/// as many as may wait then.
const TRIAL_BYTES_MAX: usize = 4 << 20;

/// Those of one side that may wait for room. A request keeps the window of its stream, 128 KiB, in memory: 8 MiB in all.
/// A batch keeps its statements, which have their room as requests.
const WAITING_MAX: usize = 64;

/// Answers that may wait for the place beyond the account. Each has up to a row in hand, which nobody has counted.
const OVERDRAWING_MAX: usize = 2;

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
    /// The place beyond the account, and how many wait for it.
    overdraft: Arc<Semaphore>,
    overdrawing: AtomicUsize,
    away: Away,
}

/// The place beyond the account. Dropping it lets the next one in.
#[derive(Debug)]
pub struct Overdraft {
    _place: OwnedSemaphorePermit,
}

/// Who holds how much.
#[derive(Debug, Default)]
struct Used {
    requests: usize,
    answers: usize,
    modest: usize,
    trials: usize,
}

/// What is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// To the node.
    Request,
    /// To the client.
    Answer,
    /// To the node, of a length that is modest; beside the account, and never waited for.
    Modest,
    /// To the node, the beginning of what may be long; beside the account, and never waited for.
    Trial,
}

impl Side {
    /// Of those who wait, which ones.
    fn lane(self) -> usize {
        match self {
            Side::Request | Side::Modest | Side::Trial => 0,
            Side::Answer => 1,
        }
    }
}

impl Used {
    fn of(&mut self, side: Side) -> &mut usize {
        match side {
            Side::Request => &mut self.requests,
            Side::Answer => &mut self.answers,
            Side::Modest => &mut self.modest,
            Side::Trial => &mut self.trials,
        }
    }
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
            overdraft: Arc::new(Semaphore::new(1)),
            overdrawing: AtomicUsize::new(0),
            away: Away::default(),
        })
    }

    /// Bytes of the account that are held now.
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

    /// Bytes that answers have in any case, which is the longest one.
    pub fn sure_answer_bytes(&self) -> usize {
        self.bytes_max - self.requests_max
    }

    /// True where answers have so much that a request of this length has no room until they are fetched.
    pub fn is_too_full_for(&self, bytes: usize) -> bool {
        self.lock().answers + bytes > self.bytes_max
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

    /// The same where nobody has to wait.
    pub fn admit_now(self: &Arc<Transit>, side: Side, bytes: usize) -> Option<Hold> {
        // Whoever has the turn is before all others.
        let _turn = self.turns[side.lane()].try_acquire().ok()?;
        self.take(side, bytes)
    }

    async fn wait(self: &Arc<Transit>, side: Side, bytes: usize, deadline: Deadline) -> Result<Hold> {
        let waiting = Waiting::enter(&self.waiting[side.lane()], WAITING_MAX).ok_or_else(|| self.full(side))?;
        let turn = &self.turns[side.lane()];
        let in_turn = async {
            let _turn = turn.acquire().await;
            loop {
                if let Some(hold) = self.take(side, bytes) {
                    return hold;
                }
                // What is given back between the look and the wait is not missed: the notice is kept.
                self.freed[side.lane()].notified().await;
            }
        };
        let admitted = tokio::time::timeout_at(deadline.instant(), in_turn).await;
        drop(waiting);
        admitted.map_err(|_| self.full(side))
    }

    /// What an answer holds, nothing at first.
    pub fn answer(self: &Arc<Transit>) -> Hold {
        self.nothing_yet(Side::Answer)
    }

    /// What holds nothing at first, and may reach more.
    pub fn nothing_yet(self: &Arc<Transit>, side: Side) -> Hold {
        Hold::of(self, side, 0)
    }

    /// True where somebody waits for room.
    pub fn is_waited_for(&self, side: Side) -> bool {
        let waits = |count: &AtomicUsize| count.load(Ordering::Relaxed) > 0;
        waits(&self.waiting[side.lane()]) || (side == Side::Answer && waits(&self.overdrawing))
    }

    /// Bytes that all answers may have together.
    pub fn answer_bytes_max(&self) -> usize {
        self.answers_max
    }

    /// The one place beyond the account, for an answer that is here and cannot wait without what it has. Whoever has it
    /// must wait for nobody.
    pub async fn overdraw(self: &Arc<Transit>, deadline: Deadline) -> Result<Overdraft> {
        if let Ok(place) = self.overdraft.clone().try_acquire_owned() {
            return Ok(Overdraft { _place: place });
        }
        let _waiting = Waiting::enter(&self.overdrawing, OVERDRAWING_MAX).ok_or_else(|| self.full(Side::Answer))?;
        match tokio::time::timeout_at(deadline.instant(), self.overdraft.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(Overdraft { _place: place }),
            // It is never closed; and who waits too long is told the same.
            Ok(Err(_)) | Err(_) => Err(self.full(Side::Answer)),
        }
    }

    /// A place for a small request that is half here.
    pub fn half_small(self: &Arc<Transit>) -> Result<SmallPlace> {
        if !enter(&self.small, SMALL_MAX) {
            return Err(Error::overloaded(format!("{SMALL_MAX} requests are half here, retry")));
        }
        Ok(SmallPlace::of(self))
    }

    /// Room, where there is some at once, whoever waits.
    pub fn take(self: &Arc<Transit>, side: Side, bytes: usize) -> Option<Hold> {
        self.add(side, bytes).then(|| Hold::of(self, side, bytes))
    }

    fn add(&self, side: Side, bytes: usize) -> bool {
        let mut used = self.lock();
        let (own_max, is_of_account) = match side {
            Side::Request => (self.requests_max, true),
            Side::Answer => (self.answers_max, true),
            Side::Modest => (MODEST_BYTES_MAX, false),
            Side::Trial => (TRIAL_BYTES_MAX, false),
        };
        let is_full = is_of_account && used.requests + used.answers + bytes > self.bytes_max;
        let own = used.of(side);
        if is_full || *own + bytes > own_max {
            return false;
        }
        *own += bytes;
        true
    }

    fn give(&self, side: Side, bytes: usize) {
        *self.lock().of(side) -= bytes;
        self.freed.iter().for_each(Notify::notify_one);
    }

    /// Why something has no room.
    pub fn full(&self, side: Side) -> Error {
        let what = match side {
            Side::Request | Side::Modest | Side::Trial => "this request",
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
            assert_eq!(transit.waiting[Side::Request.lane()].load(Ordering::Relaxed), 0);
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
    fn small_requests_that_are_half_here_are_counted() {
        let transit = Transit::new(2 * MIB, MIB / 2, MIB);
        let mut places: Vec<SmallPlace> = (0..SMALL_MAX).map(|_| transit.half_small().unwrap()).collect();
        assert_eq!(transit.half_small().err().unwrap().kind(), Kind::Overloaded);
        places.pop();
        transit.half_small().unwrap();
    }
}
