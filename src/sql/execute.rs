//! The life of a statement, from its text to its answer, on the node that leads.
//!
//! ```text
//! text ── parse ── bind at a view ─┬─ query: operators over the view, pulled by the door
//!                                  └─ write: evaluate to effects ── propose ── await the outcome
//!                                        ^                                        │
//!                                        └──────── conflict: again, on a newer view
//! ```
//!
//! What a statement needs of its group (a view, an instant, a way to propose) is a trait, so the daemon's actors, the
//! embedded engine and a test run the same code. Nothing here waits but for an outcome or a latch; there is no runtime
//! and no clock.
//!
//! * `now()` and expiry are one instant for a whole statement.
//! * A statement is proposed at most once at a time; it is evaluated again only after the group answered "conflict".
//! * A batch is one command: its statements see each other, nobody sees a part of it.

mod access;
mod batch;
mod brief;
mod propose;
mod read;
mod request;
mod text;

pub use access::Access;
pub use brief::BRIEF_BYTES_MAX;
pub use propose::next_backfill;

use crate::clock::Clock;
use crate::error::{Kind, SqlState};
use crate::hlc::Timestamp;
use crate::ids::{OriginUid, TableId};
use crate::machine::{Outcome, Request, RequestId};
use crate::sql::batch::Batch;
use crate::sql::bind::{BindContext, Bound, OutputColumn};
use crate::sql::catalog::Catalog;
use crate::sql::evaluate::{ByRange, Evaluation};
use crate::sql::latch::Latches;
use crate::sql::memory::Pool;
use crate::sql::operator::Operator;
use crate::sql::statement::Statement;
use crate::sql::translate::ParseLimits;
use crate::storage::view::View;
use crate::{Error, Result};
use batch::{Draft, Held};
use request::{counts, known, known_batch, request_of, request_of_batch};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// Evaluations of one statement before the conflict is answered. From the second on a latch is held, so only
/// statements that take none can come in between.
const ATTEMPTS_MAX: usize = 64;

/// Statements of one batch at most.
pub const BATCH_STATEMENTS_MAX: usize = 10_000;

/// What a statement needs of its group.
pub trait Group: Send + Sync {
    /// The state to read, at the consistency that was asked for.
    fn view(&self) -> Result<View>;
    /// An instant at or above every stamp of that state: what `now()` says and expiry is judged by.
    fn instant(&self) -> Timestamp;
    /// The origin of rows written here.
    fn origin(&self) -> OriginUid;
    /// Refuses what would grow the files while the disk is nearly full.
    fn check_space(&self) -> Result<()>;
    /// Hands a command to consensus. A dropped sender means that the outcome is in doubt.
    fn propose(&self, command: Vec<u8>) -> oneshot::Receiver<Result<Outcome>>;
    /// Told once everything proposed so far is known to have met a conflict: nothing of it took effect, and nothing is in
    /// doubt before the next proposal. For those who may have to answer in the statement's place.
    fn conflicted(&self) {}
}

/// Limits of statements, from the configuration.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes that one query may take of the pool.
    pub query_bytes_max: usize,
    /// Bytes and nesting of a statement's text.
    pub parse: ParseLimits,
    /// Bytes of one command; effects above it are staged.
    pub command_bytes_max: usize,
    /// Bytes of one statement's effects.
    pub effects_bytes_max: usize,
    /// Bytes of memory that one slice of effects takes: larger ones are staged and applied slice by slice.
    pub slice_bytes_max: usize,
    /// Bytes of memory that effects which cannot be cut may take: those of a batch, and of an UPDATE of key columns.
    pub whole_bytes_max: usize,
    /// Bytes that all statements of a batch may answer, as rows are held until it is done and as they are sent then: once
    /// it took effect, it cannot fail any more because of its answer.
    pub batch_result_bytes_max: usize,
    /// Bytes of a result with these columns and rows, as it is sent.
    pub sent_bytes: fn(&[OutputColumn], &[Batch]) -> usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            query_bytes_max: 16 << 20,
            parse: ParseLimits::default(),
            command_bytes_max: 8 << 20,
            effects_bytes_max: 256 << 20,
            slice_bytes_max: 4 << 20,
            whole_bytes_max: 16 << 20,
            batch_result_bytes_max: 16 << 20,
            sent_bytes: |_, _| 0,
        }
    }
}

/// One request.
#[derive(Clone)]
pub struct Task {
    /// Under which name its outcome is remembered, where the client gave one.
    pub request: Option<RequestId>,
    /// What its caller may do.
    pub access: Access,
    /// Asked between steps: an error (cancelled, past the deadline) ends the statement.
    pub check: Arc<dyn Fn() -> Result<()> + Send + Sync>,
}

impl Default for Task {
    fn default() -> Task {
        Task { request: None, access: Access::ReadWrite, check: Arc::new(|| Ok(())) }
    }
}

/// What a statement answers.
pub enum Answer {
    /// Rows, pulled batch by batch.
    Rows(RowStream),
    /// The end of a statement that writes or defines.
    Done {
        /// Rows written.
        affected: u64,
    },
}

/// Rows of a query. Owns its view: dropping it ends the query.
pub struct RowStream {
    /// Names and types.
    pub columns: Vec<OutputColumn>,
    source: Box<dyn Operator>,
}

impl RowStream {
    /// The next rows; an empty batch is a pause, after which a polite caller lets others run. None at the end.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        self.source.next_batch()
    }
}

/// Runs statements; one for each node, shared by all its doors.
pub struct Executor {
    limits: Limits,
    latches: Latches,
    /// Stages that are still to be abandoned: their nodes had too much before them.
    abandoned: Mutex<Vec<u128>>,
    pool: Arc<Pool>,
    /// Times the operators of EXPLAIN ANALYZE.
    clock: Arc<dyn Clock>,
}

impl Executor {
    /// An executor whose queries share `pool`.
    pub fn new(limits: Limits, pool: Arc<Pool>, clock: Arc<dyn Clock>) -> Executor {
        Executor { limits, latches: Latches::default(), abandoned: Mutex::default(), pool, clock }
    }

    /// Runs one statement.
    pub async fn execute(&self, group: &dyn Group, sql: &str, task: &Task) -> Result<Answer> {
        if let Some(answer) = brief::point_query(group, sql)? {
            return Ok(answer);
        }
        let parsed = self.permitted(sql, task.access)?;
        let request = request_of(task, sql);
        if let Some(known) = known(group, request.as_ref())? {
            return known.affected.map(|affected| Answer::Done { affected });
        }
        match self.execute_new(group, (sql, parsed), task, request.as_ref()).await {
            // Where another copy of the request was executed meanwhile, its outcome is the answer of both.
            Err(error) => match known(group, request.as_ref()) {
                Ok(Some(known)) => known.affected.map(|affected| Answer::Done { affected }),
                Ok(None) | Err(_) => Err(error),
            },
            done => done,
        }
    }

    async fn execute_new(
        &self,
        group: &dyn Group,
        (sql, mut parsed): (&str, Option<Statement>),
        task: &Task,
        request: Option<&Request>,
    ) -> Result<Answer> {
        self.limits.parse.check_text(sql)?;
        let mut table = None;
        let by_text = task.access == Access::ReadWrite;
        for _ in 0..ATTEMPTS_MAX {
            // After its first conflict a statement takes turns. Whoever held the latch has just written: what this one
            // reads, and the instant by which it judges, are taken after that.
            let _latch = match table {
                Some(table) => Some(self.latches.acquire(table).await),
                None => None,
            };
            let (view, instant) = (group.view()?, group.instant());
            let mut bound = None;
            let short = by_text.then(|| Self::short_insert(sql, &view, instant)).flatten();
            let long = match short {
                Some(_) => None,
                None if !by_text => None,
                None => self.long_insert(sql, &view, instant, task).await?,
            };
            let slices = if let Some((id, slices)) = long {
                table = Some(id);
                mark_writer(&view);
                slices
            } else {
                let statement = match short {
                    Some(insert) => insert,
                    None => self.bind(sql, &mut parsed, &view, instant)?,
                };
                if let Some(stream) = self.query(&statement, &view, instant, task)? {
                    return Ok(Answer::Rows(stream));
                }
                task.access.check_write()?;
                table = table_of(&statement);
                mark_writer(&view);
                self.evaluation(&view, instant, task, ByRange::Any).slices(bound.insert(statement)).await?
            };
            match self.write_slices(group, slices, &view, request).await {
                Err(error) if error.kind() == Kind::Conflict => group.conflicted(),
                Err(error) => return Err(error),
                Ok(affected) => {
                    if let Some(bound) = &bound {
                        self.build_indexes(group, bound, task).await?;
                    }
                    return Ok(Answer::Done { affected });
                }
            }
        }
        Err(Error::conflict(format!("other statements changed the same rows {ATTEMPTS_MAX} times in a row: try again")))
    }

    /// Runs statements as one command. An error names the statement, counted from 0.
    pub async fn execute_batch(
        &self,
        group: &dyn Group,
        statements: &[String],
        task: &Task,
    ) -> Result<Vec<Answer>, (usize, Error)> {
        if statements.len() > BATCH_STATEMENTS_MAX {
            let message = format!("a batch has at most {BATCH_STATEMENTS_MAX} statements, got {}", statements.len());
            return Err((BATCH_STATEMENTS_MAX, Error::limit(SqlState::LIMIT_EXCEEDED, message)));
        }
        let texts: Vec<&str> = statements.iter().map(String::as_str).collect();
        for (at, sql) in texts.iter().enumerate() {
            self.permitted(sql, task.access).map_err(|error| (at, error))?;
        }
        let request = request_of_batch(task, &texts);
        let last = statements.len().saturating_sub(1);
        let recalled = known(group, request.as_ref()).map_err(|error| (last, error))?;
        if let Some(known) = recalled {
            return known_batch(known, statements.len()).map_err(|error| (last, error));
        }
        let answers = self.execute_new_batch(group, &texts, task, request.as_ref()).await;
        // Where another copy of the request was executed meanwhile, its outcome is the answer of both.
        let recalled = known(group, request.as_ref()).ok().flatten();
        match (answers, recalled) {
            (Ok(answers), Some(known)) if known.counts.len() != answers.len() => Ok(answers),
            (_, Some(known)) => known_batch(known, statements.len()).map_err(|error| (last, error)),
            (answers, None) => answers,
        }
    }

    async fn execute_new_batch(
        &self,
        group: &dyn Group,
        texts: &[&str],
        task: &Task,
        request: Option<&Request>,
    ) -> Result<Vec<Answer>, (usize, Error)> {
        let last = texts.len().saturating_sub(1);
        let parsed = self.look_through(group, texts)?;
        let mut latches = Vec::new();
        for _ in 0..ATTEMPTS_MAX {
            let view = group.view().map_err(|error| (0, error))?;
            let mut draft = Draft::new(view.clone(), group.instant(), group.origin());
            let mut answers = Vec::with_capacity(parsed.len());
            let mut stepped = Ok(());
            for (at, (statement, sql)) in parsed.iter().zip(texts).enumerate() {
                match self.step(&mut draft, (sql, statement.as_ref()), task).await {
                    Ok(answer) => answers.push(answer),
                    Err(error) => {
                        stepped = Err((at, error));
                        break;
                    }
                }
            }
            let tables = draft.tables();
            let settled = match stepped {
                Ok(()) => {
                    let request = request.map(|request| Request { counts: counts(&answers), ..request.clone() });
                    let written = self.write(group, (draft.into_effects(), view), request.as_ref()).await;
                    written.map_err(|error| (last, error))
                }
                Err(failed) => Err(failed),
            };
            match settled {
                // By a step: rows were flushed that are newer than the view it began with.
                Err((_, error)) if error.kind() == Kind::Conflict => {
                    group.conflicted();
                    // Given back before others are taken: whoever holds some while waiting for more takes them in order.
                    drop(std::mem::take(&mut latches));
                    latches = self.latches.acquire_all(&tables).await;
                }
                Err(failed) => return Err(failed),
                Ok(_) => return Ok(answers),
            }
        }
        Err((last, Error::conflict("other statements changed the same rows: try the batch again")))
    }

    fn evaluation<'a>(&self, view: &'a View, instant: Timestamp, task: &'a Task, by_range: ByRange) -> Evaluation<'a> {
        Evaluation {
            view,
            by_range,
            now_ms: instant.wall().0,
            effects_bytes_max: self.limits.effects_bytes_max,
            slice_bytes_max: self.limits.slice_bytes_max,
            whole_bytes_max: self.limits.whole_bytes_max,
            check: &*task.check,
        }
    }
}

/// What a statement that writes has read so far would be lost with its view.
fn mark_writer(view: &View) {
    if let Some(lease) = &view.lease {
        lease.mark_writer();
    }
}

fn context(catalog: &Catalog, instant: Timestamp) -> BindContext<'_> {
    BindContext { catalog, now_us: instant.wall().0 as i64 * 1000 }
}

/// The table whose rows a statement reads before it writes.
fn table_of(bound: &Bound) -> Option<TableId> {
    match bound {
        Bound::Update(update) => Some(update.table.id),
        Bound::Delete(delete) => Some(delete.table.id),
        Bound::Insert(insert) => Some(insert.table.id),
        Bound::CreateIndex(create) => Some(create.table.id),
        Bound::CreateTable(_)
        | Bound::DropTable { .. }
        | Bound::DropIndex { .. }
        | Bound::Query { .. }
        | Bound::Explain { .. } => None,
    }
}
