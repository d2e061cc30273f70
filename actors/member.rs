//! What a statement sees of its node: the view it reads, the way its command goes, the time it has.
//!
//! Statements run on executors and, where they are brief, on a door's own thread; both run them through this.
//!
//! * A panic in a statement is that statement's error, and nobody else's.
//! * A deadline that passes leaves a write in doubt once it has been proposed, and not before. One that has met a conflict
//!   is known not to have taken effect, until it is proposed again.
//! * In a group of one, what is acknowledged is in the published view: a leader that serves reads it.

use crate::actors::analytics::Slots;
use crate::actors::messages::{Consistency, Propose, ReadIndex, Terms};
use crate::actors::peers::Peers;
use crate::actors::published::Published;
use crate::actors::raft::Raft;
use crate::actors::route::{Deadline, Effect, Route, late};
use crate::actors::storage::{Lent, Parts};
use crate::actors::transit::Transit;
use chronos::clock::Clock;
use chronos::error::{Error, Kind, Result, SqlState};
use chronos::hlc::Timestamp;
use chronos::ids::OriginUid;
use chronos::machine::Outcome;
use chronos::sql::execute::{Access, Executor as Library, Group, Task};
use chronos::sql::memory::Pool;
use chronos::storage::view::View;
use futures_util::FutureExt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tracing::error;

/// Bytes of text from which on a statement waits for its turn: on its way into a memtable, a row of megabytes is there
/// some four times, as values, as effects and as what is staged. Smaller ones are let in by their number.
const LARGE_BYTES_MIN: usize = 4 << 20;

/// How long a read waits before it asks for the leader's word again.
const READ_PAUSE: Duration = Duration::from_millis(20);

/// Characters of a statement in the log line about its panic.
pub const LOGGED_CHARS_MAX: usize = 500;

/// What all that run statements share.
pub struct Seed {
    /// Runs statements.
    pub library: Arc<Library>,
    /// Memory of queries, shared by all of them.
    pub pool: Arc<Pool>,
    /// What storage left for the others.
    pub parts: Arc<Parts>,
    /// The other nodes.
    pub peers: Arc<Peers>,
    /// Where the consensus stands.
    pub published: Arc<Published>,
    /// Orders writes.
    pub raft: Route<Raft>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Room for answers.
    pub transit: Arc<Transit>,
    /// One large statement runs at a time.
    pub turn: Semaphore,
    /// Long queries run a few at a time.
    pub slots: Slots,
    /// Bytes of rows that an answer in one message may have.
    pub response_bytes_max: usize,
    /// How long a step of a streamed answer may take: as long as a whole statement.
    pub step_max: Duration,
    /// How long the reader of a streamed answer may take nothing.
    pub stall_max: Duration,
}

/// A statement's connection to its group.
pub struct Member {
    /// What all share.
    pub seed: Arc<Seed>,
    lent: Lent,
    consistency: Consistency,
    /// The view holds all that a read must see, by the leader's word.
    is_fresh: AtomicBool,
    access: Access,
    /// Where its write stands, a [`Way`] as a number.
    way: AtomicU8,
}

/// How far a statement's write has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Way {
    /// Nothing has left for the log.
    Here,
    /// A command has, and its outcome is not known.
    Proposed,
    /// All that was proposed met a conflict: the statement waits for its turn, or is evaluated again.
    Conflicted,
}

impl Member {
    /// For one statement, on an engine that storage has lent.
    pub fn new(seed: &Arc<Seed>, lent: Lent, terms: &Terms) -> Member {
        let Terms { consistency, access, .. } = *terms;
        Member {
            seed: seed.clone(),
            lent,
            consistency,
            is_fresh: AtomicBool::new(false),
            access,
            way: AtomicU8::new(Way::Here as u8),
        }
    }

    /// The turn of a statement whose text has so many bytes, for as long as it runs; a small one needs none. Whoever waits
    /// here has nothing but its text, and a batch the room for its answers.
    pub async fn turn(&self, bytes: usize, terms: &Terms) -> Result<Option<SemaphorePermit<'_>>> {
        if bytes < LARGE_BYTES_MIN {
            return Ok(None);
        }
        match tokio::time::timeout_at(terms.deadline.instant(), self.seed.turn.acquire()).await {
            Ok(Ok(turn)) => Ok(Some(turn)),
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(self.late()),
        }
    }

    /// Waits until this node's view holds everything that is committed now, by the leader's word.
    pub async fn catch_up(&self, lease: bool, until: Deadline) -> Result<()> {
        loop {
            match self.seed.raft.ask(ReadIndex { lease }, until).await {
                Ok(index) => {
                    self.lent.reach(index, until).await?;
                    self.is_fresh.store(true, Ordering::Release);
                    return Ok(());
                }
                // There is no leader just now, or its word was lost.
                Err(error) if error.kind() == Kind::Unavailable && until.left() > READ_PAUSE => {
                    tokio::time::sleep(READ_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The deadline came before the statement's answer.
    pub fn late(&self) -> Error {
        match self.way.load(Ordering::Acquire) {
            way if way == Way::Here as u8 => canceled(),
            way if way == Way::Conflicted as u8 => Error::conflict(
                "other statements changed the same rows, and the deadline passed before this one's turn: nothing took \
                 effect, try again",
            ),
            _ => late(Effect::Write),
        }
    }

    fn set_way(&self, way: Way) {
        self.way.store(way as u8, Ordering::Release);
    }
}

impl Group for Member {
    fn view(&self) -> Result<View> {
        let raft = self.seed.published.raft();
        match self.consistency {
            Consistency::Stale => Ok(self.lent.handle.view()),
            Consistency::Lease | Consistency::Linearizable if raft.serves || self.is_fresh.load(Ordering::Acquire) => {
                Ok(self.lent.handle.view())
            }
            Consistency::Lease | Consistency::Linearizable => {
                Err(Error::unavailable(format!("no leader (term {})", raft.status.term)))
            }
        }
    }

    fn instant(&self) -> Timestamp {
        // Only looked at, so it needs no lease.
        self.lent.handle.lasting_view().hlc.max(Timestamp::at(self.seed.clock.wall()))
    }

    fn origin(&self) -> OriginUid {
        self.lent.origin
    }

    fn check_space(&self) -> Result<()> {
        self.lent.handle.check_space()
    }

    fn propose(&self, command: Vec<u8>) -> oneshot::Receiver<Result<Outcome>> {
        // The last of three fences: see `chronos::sql::execute::Access`.
        if let Err(refused) = self.access.check_write() {
            let (answer, answered) = oneshot::channel();
            let _ = answer.send(Err(refused));
            return answered;
        }
        self.set_way(Way::Proposed);
        self.seed.raft.ask_now(Propose { command })
    }

    fn conflicted(&self) {
        self.set_way(Way::Conflicted);
    }
}

/// What the library asks between steps.
pub fn task(terms: &Terms) -> Task {
    let deadline = terms.deadline;
    let check = move || if deadline.left().is_zero() { Err(canceled()) } else { Ok(()) };
    Task { request: terms.request.clone(), access: terms.access, check: Arc::new(check) }
}

/// The deadline came first.
pub fn canceled() -> Error {
    Error::limit(SqlState::QUERY_CANCELED, "the statement's deadline has passed")
}

/// Runs a statement's work; a panic in it is the statement's error, and nobody else's.
pub async fn guarded<T>(sql: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        let statement: String = sql.chars().take(LOGGED_CHARS_MAX).collect();
        error!(statement, "a statement panicked");
        Err(Error::internal("the statement ran into an error of the program, see the server's log"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::route::route;
    use crate::actors::tests::node::{Running, on_a_system};
    use chronos::clock::SystemClock;
    use chronos::error::Kind;

    #[test]
    fn a_deadline_leaves_in_doubt_only_what_was_proposed() {
        let directory = tempfile::tempdir().unwrap();
        on_a_system(async {
            let node = Running::start(directory.path()).await;
            let (pool, clock) = (Pool::new(1 << 20), Arc::new(SystemClock));
            let seed = Arc::new(Seed {
                library: Arc::new(Library::new(chronos::sql::execute::Limits::default(), pool.clone(), clock.clone())),
                pool,
                parts: node.parts.clone(),
                peers: Arc::default(),
                published: node.published.clone(),
                raft: route("raft").1,
                clock,
                transit: Transit::new(4 << 20, 1 << 20, 1 << 20),
                turn: Semaphore::new(1),
                slots: Slots::new(1),
                response_bytes_max: 1 << 20,
                step_max: Duration::from_secs(1),
                stall_max: Duration::from_secs(1),
            });
            let deadline = crate::actors::route::Deadline::after(Duration::from_millis(20));
            let terms = Terms { deadline, ..crate::actors::tests::node::terms() };
            let member = Member::new(&seed, node.parts.lent().unwrap(), &terms);
            member.view().unwrap();
            let turn = member.turn(LARGE_BYTES_MIN, &terms).await.unwrap();
            assert!(turn.is_some() && member.turn(LARGE_BYTES_MIN - 1, &terms).await.unwrap().is_none());
            let refused = member.turn(LARGE_BYTES_MIN, &terms).await.unwrap_err();
            assert_eq!(refused.sqlstate(), SqlState::QUERY_CANCELED, "large ones run one at a time");
            drop(turn);
            assert_eq!(member.late().sqlstate(), SqlState::QUERY_CANCELED);
            let _answer = member.propose(Vec::new());
            assert_eq!(member.late().kind(), Kind::InDoubt);
            // The library says so once it has read the answer.
            member.conflicted();
            let conflict = member.late();
            assert!(conflict.kind() == Kind::Conflict && conflict.is_retryable(), "{conflict}");
            let _answer = member.propose(Vec::new());
            assert_eq!(member.late().kind(), Kind::InDoubt, "the next attempt is in doubt again");
            let reader = Terms { access: Access::ReadOnly, ..terms };
            let reader = Member::new(&seed, node.parts.lent().unwrap(), &reader);
            let refused = reader.propose(Vec::new()).await.unwrap().unwrap_err();
            assert_eq!(refused.sqlstate(), SqlState::INSUFFICIENT_PRIVILEGE);
            assert_eq!(reader.late().sqlstate(), SqlState::QUERY_CANCELED, "nothing left for the log");
            drop(reader);
            drop(member);
            node.stop().await;
        });
    }
}
