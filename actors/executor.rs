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
//! * A task ends with its actor, its deadline, or its caller; a streamed answer with a reader that takes nothing
//!   (rows.rs).
//! * Large statements run one at a time ([`Member::turn`]), long queries on all threads but one (analytics.rs).
//! * Statements at once: [`TASKS_MAX`]. A mailbox that is emptied into tasks without a limit would be no limit.
//!
//! Restart: nothing to rebuild.

use crate::actors::analytics::Visit;
use crate::actors::lifeline::Lifeline;
use crate::actors::member::{LOGGED_CHARS_MAX, Member, Seed, guarded, task};
use crate::actors::messages::{
    BatchFailure, Consistency, Execute, ExecuteBatch, Freshness, Output, Query, Statement, Streamed, Terms,
};
use crate::actors::route::{Ask, Deadline, Reply};
use crate::actors::rows::{self, Filled, Load, Pace, Sink, held_bytes};
use crate::actors::storage::Lent;
use crate::actors::transit::{Hold, Side};
use actix::{Actor, Context, Handler};
use chronos::error::{Error, Result, SqlState};
use chronos::sql::execute::{Answer, RowStream, Task};
use futures_util::future::{Either, select};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Statements that one executor has begun and not answered. Most of them wait for the log: a thousand writers share
/// one fdatasync. More would be memory spent on waiting.
const TASKS_MAX: usize = 1024;

/// Runs statements.
pub struct Executor {
    seed: Arc<Seed>,
    lent: Lent,
    tasks: JoinSet<()>,
    _lifeline: Lifeline,
}

impl Executor {
    /// Builds the actor on what storage has published. Boot and restart both come here.
    pub fn recover(seed: Arc<Seed>, lifeline: Lifeline) -> Result<Executor> {
        let lent = seed.parts.lent()?;
        Ok(Executor { seed, lent, tasks: JoinSet::new(), _lifeline: lifeline })
    }

    fn member(&self, terms: &Terms) -> Member {
        Member::new(&self.seed, self.lent.clone(), terms)
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
                match run(&member, &statement, &terms, &task(&terms)).await? {
                    Answer::Done { affected } => Ok(Output::done(affected)),
                    Answer::Rows(rows) => {
                        let seed = &member.seed;
                        let visit = Some((seed.slots.visit(), terms.deadline));
                        collect(rows, seed.response_bytes_max, seed.transit.answer(), visit).await
                    }
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
            let seed = &member.seed;
            let pacing = Pace::new(&terms, seed.step_max, seed.stall_max);
            match guarded(&statement.sql, run(&member, &statement, &terms, &pacing.task(&terms))).await {
                Ok(Answer::Done { affected }) => reply.send(Ok(Streamed::Whole(Output::done(affected)))),
                Ok(Answer::Rows(found)) => {
                    let begin: String = statement.sql.chars().take(LOGGED_CHARS_MAX).collect();
                    let (sink, rows) = rows::stream(found.columns.clone());
                    reply.send(Ok(Streamed::Rows(rows)));
                    let filled = guarded(&begin, fill(&member, (statement, &terms), found, &sink, &pacing)).await;
                    sink.end(filled);
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

async fn run(member: &Member, statement: &Statement, terms: &Terms, task: &Task) -> Result<Answer> {
    #[cfg(test)]
    assert!(statement.sql != crate::actors::tests::node::POISONED, "poison");
    check(statement)?;
    let _turn = member.turn(statement.sql.len(), terms).await?;
    ready(member, terms, statement.may_write()).await?;
    let answer = evaluate(member, statement, terms, task).await;
    if !statement.may_write() || !member.needs_word(&answer) {
        return answer;
    }
    // Before its view is given back: another one is taken.
    drop(answer);
    confirm(member, terms).await?;
    evaluate(member, statement, terms, task).await
}

async fn evaluate(member: &Member, statement: &Statement, terms: &Terms, task: &Task) -> Result<Answer> {
    let running = member.seed.library.execute(member, &statement.sql, task);
    match tokio::time::timeout_at(terms.deadline.instant(), running).await {
        Ok(answer) => answer,
        Err(_) => Err(member.late()),
    }
}

/// Waits for the word of a majority, for a statement that may write and came to an answer without it.
async fn confirm(member: &Member, terms: &Terms) -> Result<()> {
    let until = Deadline::after(terms.deadline.left().min(member.seed.leader_wait));
    member.catch_up(terms.freshness.consistency == Consistency::Lease, until).await
}

/// Sends what a query finds. One without room for its first rows gives everything back, and is run again once there is
/// some: nobody has seen anything of it but its columns.
async fn fill(
    member: &Member,
    (statement, terms): (Statement, &Terms),
    mut found: RowStream,
    sink: &Sink,
    pace: &Pace,
) -> Result<()> {
    let mut load = Load::new(&member.seed.transit);
    let mut visit = member.seed.slots.visit();
    let columns = found.columns.clone();
    let mut statement = Some(statement);
    // The whole text may be megabytes, whose room ends where the answer begins.
    while let Filled::NoRoom(bytes) = sink.fill(found, pace, &mut load, &mut visit, || statement = None).await? {
        let gone = std::pin::pin!(sink.closed());
        let waited = std::pin::pin!(load.wait(bytes, pace));
        match select(waited, gone).await {
            Either::Left((waited, _)) => waited?,
            Either::Right(_) => return Ok(()),
        }
        pace.step();
        let Some(statement) = &statement else { return Err(Error::internal("rows were sent, and forgotten")) };
        let terms = Terms { deadline: pace.until(), ..terms.clone() };
        found = match run(member, statement, &terms, &pace.task(&terms)).await? {
            Answer::Rows(found) if found.columns == columns => found,
            Answer::Rows(_) | Answer::Done { .. } => {
                return Err(Error::conflict("the table was changed while the query waited for room, read again"));
            }
        };
    }
    Ok(())
}

async fn run_batch(member: &Member, statements: Vec<Statement>, terms: &Terms) -> Result<Vec<Output>, BatchFailure> {
    for (at, statement) in statements.iter().enumerate() {
        check(statement).map_err(|error| BatchFailure { statement: at, error })?;
    }
    let whole = |error| BatchFailure { statement: 0, error };
    let may_write = statements.iter().any(Statement::may_write);
    ready(member, terms, may_write).await.map_err(whole)?;
    let mut hold = room_of_batch(member, &statements, terms).await.map_err(whole)?;
    let (texts, _room): (Vec<String>, Vec<Hold>) =
        statements.into_iter().map(|statement| (statement.sql, statement.hold)).unzip();
    let _turn = member.turn(texts.iter().map(String::len).sum(), terms).await.map_err(whole)?;
    let mut answers = evaluate_batch(member, &texts, terms).await;
    let answered = answers.as_ref().map(drop).map_err(|(_, error)| error.clone());
    if may_write && member.needs_word(&answered) {
        drop(answers);
        confirm(member, terms).await.map_err(whole)?;
        answers = evaluate_batch(member, &texts, terms).await;
    }
    let answers = answers.map_err(|(statement, error)| BatchFailure { statement, error })?;
    let mut outputs = Vec::with_capacity(answers.len());
    for (statement, answer) in answers.into_iter().enumerate() {
        outputs.push(match answer {
            Answer::Done { affected } => Output::done(affected),
            // What a batch answers is bounded where it is evaluated, and has its room: its commands are in the log by
            // now, and an error here would say that they are not.
            Answer::Rows(rows) => {
                let collected = collect(rows, usize::MAX, Hold::nothing(), None).await;
                collected.map_err(|error| BatchFailure { statement, error })?
            }
        });
    }
    hold.shrink_to(outputs.iter().flat_map(|output| &output.batches).map(held_bytes).sum());
    if let Some(first) = outputs.first_mut() {
        first.hold = hold;
    }
    Ok(outputs)
}

async fn evaluate_batch(member: &Member, texts: &[String], terms: &Terms) -> Result<Vec<Answer>, (usize, Error)> {
    let task = task(terms);
    let running = member.seed.library.execute_batch(member, texts, &task);
    match tokio::time::timeout_at(terms.deadline.instant(), running).await {
        Ok(answers) => answers,
        Err(_) => Err((0, member.late())),
    }
}

/// Room for what a batch answers: before it begins, since afterwards it cannot fail for want of it any more.
async fn room_of_batch(member: &Member, statements: &[Statement], terms: &Terms) -> Result<Hold> {
    let seed = &member.seed;
    if statements.iter().all(Statement::may_write) {
        // No statement that writes answers with rows.
        return Ok(seed.transit.answer());
    }
    seed.transit.admit(Side::Answer, seed.response_bytes_max, terms.deadline).await
}

/// Waits until the statement can run here: a write until this node leads, a read until its view holds all that it must
/// see. A stale read needs no more than what is there.
async fn ready(member: &Member, terms: &Terms, may_write: bool) -> Result<()> {
    let Freshness { consistency, max_staleness } = terms.freshness;
    if !may_write {
        member.check_rows()?;
    }
    if consistency == Consistency::Stale && !may_write {
        return match max_staleness {
            Some(age) => member.check_age(age, terms.deadline).await,
            None => Ok(()),
        };
    }
    let until = Deadline::after(terms.deadline.left().min(member.seed.leader_wait));
    let is_alone = member.seed.published.raft().status.membership.members.len() <= 1;
    if may_write || is_alone {
        member.seed.published.serving(until.instant()).await?;
        return member.seed.raft.present(terms.deadline).await;
    }
    member.catch_up(consistency == Consistency::Lease, until).await
}

fn check(statement: &Statement) -> Result<()> {
    if !statement.parameters.is_empty() {
        return Err(Error::unsupported("parameters ($1) are"));
    }
    Ok(())
}

/// The whole of a result, as long as it is small enough for one message and there is room for it.
async fn collect(
    mut rows: RowStream,
    bytes_max: usize,
    hold: Hold,
    mut visit: Option<(Visit<'_>, Deadline)>,
) -> Result<Output> {
    let mut output = Output { columns: rows.columns.clone(), hold, ..Output::default() };
    let mut bytes = 0usize;
    loop {
        if let Some((visit, until)) = &mut visit {
            visit.step(*until).await?;
        }
        let Some(batch) = rows.next_batch()? else { return Ok(output) };
        bytes += held_bytes(&batch);
        if bytes > bytes_max {
            let message = format!("the result is larger than limits.response_bytes_max ({bytes_max})");
            let error = Error::limit(SqlState::LIMIT_EXCEEDED, message);
            return Err(error.hint("ask for fewer rows with LIMIT, or stream it with QuerySql"));
        }
        output.hold.reach(bytes)?;
        output.batches.push(batch);
        // Others have their turn between batches.
        tokio::task::yield_now().await;
    }
}
