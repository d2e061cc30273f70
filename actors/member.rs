//! What a statement sees of its node: the view it reads, the way its command goes, the time it has.
//!
//! Statements run on executors and, where they are brief, on a door's own thread; both run them through this.
//!
//! * A panic in a statement is that statement's error, and nobody else's.
//! * A deadline that passes leaves a write in doubt once it has been proposed, and not before. One that has met a conflict
//!   is known not to have taken effect, until it is proposed again.
//! * In a group of one, what is acknowledged is in the published view: a leader that serves reads it.
//! * In a group of several a leader may have been succeeded without knowing. What it commits proves that it was not; what
//!   it answers from its view alone (rows, no effect, an error) proves nothing. A statement that may write is evaluated at
//!   once, for nearly all of them commit something; one that came to such an answer is evaluated again behind the word of
//!   a majority ([`Member::needs_word`]).
//! * A lease is not looked at again once the view is taken: the view holds all that was committed when it was looked at,
//!   which was after the statement had come.

use crate::actors::analytics::Slots;
use crate::actors::messages::{Consistency, Freshness, Propose, ReadIndex, Staleness, Terms};
use crate::actors::peers::Peers;
use crate::actors::published::{Published, RaftReport};
use crate::actors::raft::Raft;
use crate::actors::route::{Deadline, Effect, Route, late};
use crate::actors::storage::{Lent, Parts};
use crate::actors::transit::Transit;
use chronos::clock::Clock;
use chronos::config::Span;
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
    /// How long a statement waits for a leader.
    pub leader_wait: Duration,
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
    /// It has looked at a view without the leader's word.
    has_guessed: AtomicBool,
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
        let Terms { freshness: Freshness { consistency, .. }, access, .. } = *terms;
        Member {
            seed: seed.clone(),
            lent,
            consistency,
            is_fresh: AtomicBool::new(false),
            access,
            way: AtomicU8::new(Way::Here as u8),
            has_guessed: AtomicBool::new(false),
        }
    }

    /// True where an answer rests on nothing but a view of this node's own, which another leader's commits may have
    /// overtaken: nothing of the statement was committed, as far as it is known, and nobody has confirmed the view.
    pub fn needs_word<T>(&self, answer: &Result<T>) -> bool {
        let says_something = match answer {
            Ok(_) => true,
            Err(error) => match error.kind() {
                Kind::Invalid => true,
                // They say nothing of rows, and most are about this node.
                Kind::Conflict
                | Kind::Limit
                | Kind::Overloaded
                | Kind::Unavailable
                | Kind::InDoubt
                | Kind::Damaged
                | Kind::Io
                | Kind::Internal => false,
            },
        };
        says_something
            && self.has_guessed.load(Ordering::Acquire)
            && !self.is_fresh.load(Ordering::Acquire)
            && self.way.load(Ordering::Acquire) != Way::Proposed as u8
            && self.seed.published.raft().status.membership.members.len() > 1
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

    /// Refuses to read where this node has no rows.
    pub fn check_rows(&self) -> Result<()> {
        refuse_without_rows(&self.seed.published.raft(), &self.lent)
    }

    /// Waits until this node's view holds everything that is committed now, by the leader's word.
    pub async fn catch_up(&self, lease: bool, until: Deadline) -> Result<()> {
        let mut lease = lease;
        loop {
            lease = lease && self.seed.published.holds_lease(self.seed.clock.monotonic());
            match self.seed.raft.ask(ReadIndex { lease }, until).await {
                Ok(index) => {
                    self.lent.reach(index, until).await?;
                    if lease && !self.seed.published.holds_lease(self.seed.clock.monotonic()) {
                        // The view was a long time coming: what the lease stood for has to be asked for.
                        continue;
                    }
                    self.is_fresh.store(true, Ordering::Release);
                    return Ok(());
                }
                // There is no leader just now, or its word was lost.
                Err(error) if error.kind() == Kind::Unavailable && until.left() > READ_PAUSE => {
                    tokio::time::sleep(READ_PAUSE).await;
                }
                // Nobody can say so in time: what matters to the client is not whose turn it was then.
                Err(error) if error.sqlstate() == SqlState::QUERY_CANCELED => return Err(self.unconfirmed()),
                Err(error) => return Err(error),
            }
        }
    }

    /// A leader's word did not come.
    fn unconfirmed(&self) -> Error {
        let status = &self.seed.published.raft().status;
        Error::unavailable(match &status.leader {
            Some(leader) => format!("{leader} leads, and does not answer (term {})", status.term),
            None => format!("no leader (term {})", status.term),
        })
    }

    /// Refuses what this node has where it may be older than that.
    pub async fn check_age(&self, max: Duration, until: Deadline) -> Result<()> {
        let age = self.seed.raft.ask(Staleness, until).await?;
        if age.is_some_and(|age| age <= max) {
            return Ok(());
        }
        let found = age.map_or("of unknown age: no leader has shown it since the start".to_owned(), |age| {
            format!("{} ms old", age.as_millis())
        });
        Err(Error::unavailable(format!("what this node has is {found}, max_staleness is {}", Span(max)))
            .hint("ask another node, or read linearizable"))
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

/// Whatever its log has it for, or whatever it has applied: where either is a witness's, rows are missing.
fn refuse_without_rows(raft: &RaftReport, lent: &Lent) -> Result<()> {
    match raft.witness_refusal() {
        Some(refusal) => Err(refusal),
        None if lent.handle.is_witness() => Err(Error::unavailable("this node was a witness, and has no rows")),
        None => Ok(()),
    }
}

impl Group for Member {
    fn view(&self) -> Result<View> {
        let raft = self.seed.published.raft();
        refuse_without_rows(&raft, &self.lent)?;
        self.has_guessed.store(true, Ordering::Release);
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

    /// A node that serves as far as it knows, in a group of so many.
    fn serving(members: usize) -> Arc<Published> {
        let published = Arc::new(Published::default());
        let mut report = (*published.raft()).clone();
        let named = |at| (chronos::raft::NodeId(format!("n{at}")), chronos::raft::Member::default());
        report.status.membership = chronos::raft::Membership::of((0..members).map(named));
        report.serves = true;
        published.set_raft(report);
        published
    }

    fn seed(node: &Running, published: Arc<Published>) -> Arc<Seed> {
        let (pool, clock) = (Pool::new(1 << 20), Arc::new(SystemClock));
        Arc::new(Seed {
            library: Arc::new(Library::new(chronos::sql::execute::Limits::default(), pool.clone(), clock.clone())),
            pool,
            parts: node.parts.clone(),
            peers: Arc::default(),
            published,
            raft: route("raft").1,
            clock,
            transit: Transit::new(4 << 20, 1 << 20, 1 << 20),
            leader_wait: Duration::from_secs(1),
            turn: Semaphore::new(1),
            slots: Slots::new(1),
            response_bytes_max: 1 << 20,
            step_max: Duration::from_secs(1),
            stall_max: Duration::from_secs(1),
        })
    }

    #[test]
    fn an_answer_that_committed_nothing_needs_the_word_of_the_others() {
        let directory = tempfile::tempdir().unwrap();
        on_a_system(async {
            let node = Running::start(directory.path()).await;
            let terms = crate::actors::tests::node::terms();
            let (done, wrong) = (Ok(()), Err::<(), _>(Error::invalid(SqlState::UNIQUE_VIOLATION, "a duplicate")));
            let several = seed(&node, serving(3));
            let member = Member::new(&several, node.parts.lent().unwrap(), &terms);
            assert!(!member.needs_word(&wrong), "it has not looked at anything");
            member.view().unwrap();
            assert!(member.needs_word(&done) && member.needs_word(&wrong));
            assert!(!member.needs_word(&Err::<(), _>(Error::unavailable("no leader"))));
            let _answer = member.propose(Vec::new());
            assert!(!member.needs_word(&done) && !member.needs_word(&wrong), "the log has judged");
            member.conflicted();
            member.view().unwrap();
            assert!(member.needs_word(&done), "what was proposed is known to be nothing");
            member.is_fresh.store(true, Ordering::Release);
            assert!(!member.needs_word(&done) && !member.needs_word(&wrong));
            drop(member);
            let alone = seed(&node, serving(1));
            let member = Member::new(&alone, node.parts.lent().unwrap(), &terms);
            member.view().unwrap();
            assert!(!member.needs_word(&done), "nobody else can lead");
            drop(member);
            drop((several, alone));
            node.stop().await;
        });
    }

    #[test]
    fn a_deadline_leaves_in_doubt_only_what_was_proposed() {
        let directory = tempfile::tempdir().unwrap();
        on_a_system(async {
            let node = Running::start(directory.path()).await;
            let seed = seed(&node, node.published.clone());
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
