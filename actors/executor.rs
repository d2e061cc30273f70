//! The executors: run statements. A pool of actors, each with a thread of its own, over one shared
//! [`chronos::sql::execute::Executor`].
//!
//! ```text
//!   door ── Execute ──> executor: parse, bind, evaluate at a view
//!                          ├─ query: batches, a step at a time, back to the door
//!                          └─ write: command ──> raft ──> log ──> state: its answer wakes the statement here
//! ```
//!
//! A statement is a task on this thread: one that waits for its outcome, or for its reader, lets others run.
//!
//! * A statement that panics answers XX000 and is logged with its text; the actor lives on.
//! * A task ends with its actor, its deadline, or its caller.
//! * Statements at once: [`TASKS_MAX`]. A mailbox that is emptied into tasks without a limit would be no limit.
//!
//! Restart: nothing to rebuild.

use crate::actors::lifeline::Lifeline;
use crate::actors::messages::{
    BatchFailure, Consistency, Execute, ExecuteBatch, Output, Propose, Query, Rows, Statement, Streamed, Terms,
};
use crate::actors::published::Published;
use crate::actors::raft::Raft;
use crate::actors::route::{Ask, Deadline, Reply, Route};
use crate::actors::storage::Parts;
use actix::{Actor, Context, Handler};
use chronos::clock::Clock;
use chronos::error::{Error, Result, SqlState};
use chronos::hlc::Timestamp;
use chronos::ids::OriginUid;
use chronos::machine::Outcome;
use chronos::sql::batch::Batch;
use chronos::sql::execute::{Answer, Executor as Library, Group, RowStream, Task};
use chronos::storage::engine::Handle;
use chronos::storage::view::View;
use futures_util::FutureExt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::error;

/// Statements that one executor has begun and not answered. Most of them wait for the log: a thousand writers share
/// one fdatasync. More would be memory spent on waiting.
const TASKS_MAX: usize = 1024;

/// How long a statement waits for a leader: as long as a healthy group takes to elect one.
const LEADER_WAIT: Duration = Duration::from_millis(2500);

/// Batches that wait for the reader of a streamed result: one that is being sent, one ready, two being found.
const STREAM_BATCHES_MAX: usize = 4;

/// Characters of a statement in the log line about its panic.
const LOGGED_CHARS_MAX: usize = 500;

/// What executors share.
pub struct Seed {
    /// Runs statements.
    pub library: Arc<Library>,
    /// What storage left for the others.
    pub parts: Arc<Parts>,
    /// Where the consensus stands.
    pub published: Arc<Published>,
    /// Orders writes.
    pub raft: Route<Raft>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Bytes of rows that an answer in one piece may have.
    pub response_bytes_max: usize,
}

/// Runs statements.
pub struct Executor {
    seed: Arc<Seed>,
    handle: Handle,
    origin: OriginUid,
    tasks: JoinSet<()>,
    _lifeline: Lifeline,
}

impl Executor {
    /// Builds the actor on what storage has published. Boot and restart both come here.
    pub fn recover(seed: Arc<Seed>, lifeline: Lifeline) -> Result<Executor> {
        let (handle, origin) = (seed.parts.handle()?, seed.parts.origin()?);
        Ok(Executor { seed, handle, origin, tasks: JoinSet::new(), _lifeline: lifeline })
    }

    fn member(&self, terms: &Terms) -> Member {
        Member {
            seed: self.seed.clone(),
            handle: self.handle.clone(),
            origin: self.origin,
            consistency: terms.consistency,
        }
    }

    /// Gives the reply back where somebody waits for it and there is room for one more statement.
    fn admit<T>(&mut self, reply: Reply<T>) -> Option<Reply<T>> {
        while self.tasks.try_join_next().is_some() {}
        if reply.is_abandoned() {
            return None;
        }
        if self.tasks.len() < TASKS_MAX {
            return Some(reply);
        }
        reply.send(Err(Error::overloaded("too many statements are running, retry")));
        None
    }
}

impl Actor for Executor {
    type Context = Context<Self>;
}

impl Handler<Ask<Execute>> for Executor {
    type Result = ();

    fn handle(&mut self, ask: Ask<Execute>, _: &mut Self::Context) {
        let (Execute { statement, terms }, reply, place) = ask.open_and_stay();
        let Some(reply) = self.admit(reply) else { return };
        let member = self.member(&terms);
        self.tasks.spawn_local(async move {
            let _place = place;
            let work = async {
                match run(&member, &statement, &terms).await? {
                    Answer::Done { affected } => Ok(Output { affected, ..Output::default() }),
                    Answer::Rows(rows) => collect(rows, member.seed.response_bytes_max).await,
                }
            };
            reply.send(guarded(&statement.sql, work).await);
        });
    }
}

impl Handler<Ask<Query>> for Executor {
    type Result = ();

    fn handle(&mut self, ask: Ask<Query>, _: &mut Self::Context) {
        let (Query { statement, terms }, reply, place) = ask.open_and_stay();
        let Some(reply) = self.admit(reply) else { return };
        let member = self.member(&terms);
        self.tasks.spawn_local(async move {
            let _place = place;
            match guarded(&statement.sql, run(&member, &statement, &terms)).await {
                Ok(Answer::Done { affected }) => {
                    reply.send(Ok(Streamed::Whole(Output { affected, ..Output::default() })));
                }
                Ok(Answer::Rows(mut rows)) => {
                    let (sender, batches) = mpsc::channel(STREAM_BATCHES_MAX);
                    reply.send(Ok(Streamed::Rows(Rows { columns: rows.columns.clone(), batches })));
                    let pumped = guarded(&statement.sql, pump(&mut rows, &sender)).await;
                    if let Err(error) = pumped {
                        // A reader that has gone away needs no reason.
                        let _ = sender.send(Err(error)).await;
                    }
                }
                Err(error) => reply.send(Err(error)),
            }
        });
    }
}

impl Handler<Ask<ExecuteBatch>> for Executor {
    type Result = ();

    fn handle(&mut self, ask: Ask<ExecuteBatch>, _: &mut Self::Context) {
        let (ExecuteBatch { statements, terms }, reply, place) = ask.open_and_stay();
        let Some(reply) = self.admit(reply) else { return };
        let member = self.member(&terms);
        self.tasks.spawn_local(async move {
            let _place = place;
            let named = statements.iter().map(|statement| statement.sql.as_str()).take(1).collect::<String>();
            reply.send(guarded(&named, async { Ok(run_batch(&member, statements, &terms).await) }).await);
        });
    }
}

/// A statement's connection to its group: the view it reads, the way its command goes.
struct Member {
    seed: Arc<Seed>,
    handle: Handle,
    origin: OriginUid,
    consistency: Consistency,
}

impl Group for Member {
    fn view(&self) -> Result<View> {
        let raft = self.seed.published.raft();
        match self.consistency {
            Consistency::Stale => Ok(self.handle.view()),
            // In a group of one, what is acknowledged is in the published view: a leader that serves reads it.
            Consistency::Lease | Consistency::Linearizable if raft.serves => Ok(self.handle.view()),
            Consistency::Lease | Consistency::Linearizable => {
                Err(Error::unavailable(format!("no leader (term {})", raft.status.term)))
            }
        }
    }

    fn instant(&self) -> Timestamp {
        self.handle.view().hlc.max(Timestamp::at(self.seed.clock.wall()))
    }

    fn origin(&self) -> OriginUid {
        self.origin
    }

    fn check_space(&self) -> Result<()> {
        self.handle.check_space()
    }

    fn propose(&self, command: Vec<u8>) -> oneshot::Receiver<Result<Outcome>> {
        self.seed.raft.ask_now(Propose { command })
    }
}

async fn run(member: &Member, statement: &Statement, terms: &Terms) -> Result<Answer> {
    #[cfg(test)]
    assert!(statement.sql != crate::actors::tests::node::POISONED, "poison");
    check(statement)?;
    serving(member, terms).await?;
    let task = task(terms);
    let running = member.seed.library.execute(member, &statement.sql, &task);
    match tokio::time::timeout_at(terms.deadline.instant(), running).await {
        Ok(answer) => answer,
        Err(_) if statement.may_write() => Err(Error::in_doubt(
            "the outcome of the write is unknown: its deadline passed before the answer, read before writing again",
        )),
        Err(_) => Err(canceled()),
    }
}

async fn run_batch(member: &Member, statements: Vec<Statement>, terms: &Terms) -> Result<Vec<Output>, BatchFailure> {
    for (at, statement) in statements.iter().enumerate() {
        check(statement).map_err(|error| BatchFailure { statement: at, error })?;
    }
    let whole = |error| BatchFailure { statement: 0, error };
    serving(member, terms).await.map_err(whole)?;
    let texts: Vec<String> = statements.into_iter().map(|statement| statement.sql).collect();
    let task = task(terms);
    let running = member.seed.library.execute_batch(member, &texts, &task);
    let answers = match tokio::time::timeout_at(terms.deadline.instant(), running).await {
        Ok(answers) => answers.map_err(|(statement, error)| BatchFailure { statement, error })?,
        Err(_) => return Err(whole(Error::in_doubt("the outcome of the batch is unknown: its deadline has passed"))),
    };
    let mut outputs = Vec::with_capacity(answers.len());
    for (statement, answer) in answers.into_iter().enumerate() {
        outputs.push(match answer {
            Answer::Done { affected } => Output { affected, ..Output::default() },
            // What a batch answers is bounded where it is evaluated: its commands are in the log by now, and an
            // error here would say that they are not.
            Answer::Rows(rows) => collect(rows, usize::MAX).await.map_err(|error| BatchFailure { statement, error })?,
        });
    }
    Ok(outputs)
}

/// Waits for a leader that serves; a stale read needs none.
async fn serving(member: &Member, terms: &Terms) -> Result<()> {
    match terms.consistency {
        Consistency::Stale => Ok(()),
        Consistency::Lease | Consistency::Linearizable => {
            let wait = terms.deadline.left().min(LEADER_WAIT);
            member.seed.published.serving(Deadline::after(wait).instant()).await?;
            member.seed.raft.present(terms.deadline).await
        }
    }
}

fn check(statement: &Statement) -> Result<()> {
    if !statement.parameters.is_empty() {
        return Err(Error::unsupported("parameters ($1) are"));
    }
    Ok(())
}

/// What the library asks between steps.
fn task(terms: &Terms) -> Task {
    let deadline = terms.deadline;
    let check = move || if deadline.left().is_zero() { Err(canceled()) } else { Ok(()) };
    Task { request: terms.request.clone(), check: Arc::new(check) }
}

fn canceled() -> Error {
    Error::limit(SqlState::QUERY_CANCELED, "the statement's deadline has passed")
}

/// The whole of a result, as long as it is small enough to be sent in one piece.
async fn collect(mut rows: RowStream, bytes_max: usize) -> Result<Output> {
    let mut output = Output { columns: rows.columns.clone(), ..Output::default() };
    let mut bytes = 0usize;
    while let Some(batch) = rows.next_batch()? {
        bytes += byte_len(&batch);
        if bytes > bytes_max {
            let message = format!("the result is larger than limits.response_bytes_max ({bytes_max})");
            let error = Error::limit(SqlState::LIMIT_EXCEEDED, message);
            return Err(error.hint("ask for fewer rows with LIMIT, or stream it with QuerySql"));
        }
        output.batches.push(batch);
        // Others have their turn between batches.
        tokio::task::yield_now().await;
    }
    Ok(output)
}

/// Hands batches to a reader at the reader's pace, until the end or until it has gone away.
async fn pump(rows: &mut RowStream, reader: &mpsc::Sender<Result<Batch>>) -> Result<()> {
    while let Some(batch) = rows.next_batch()? {
        if reader.send(Ok(batch)).await.is_err() {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn byte_len(batch: &Batch) -> usize {
    batch.columns.iter().map(|column| column.byte_len()).sum()
}

/// Runs a statement's work; a panic in it is the statement's error, and nobody else's.
async fn guarded<T>(sql: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        let statement: String = sql.chars().take(LOGGED_CHARS_MAX).collect();
        error!(statement, "a statement panicked");
        Err(Error::internal("the statement ran into an error of the program, see the server's log"))
    })
}
