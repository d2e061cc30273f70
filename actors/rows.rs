//! A streamed answer between the executor that finds its rows and the door that sends them.
//!
//! ```text
//!   executor ── batches (1) ──> door ──> client      at the client's pace
//!            ── end ──────────> after the last batch: all there were, or why there are no more
//! ```
//!
//! * A stream without an end is an error: rows that stop coming must not pass for all of them. So the end has a place
//!   of its own, which a reader that takes nothing cannot fill.
//! * A reader that takes nothing keeps a few batches, and neither the statement nor its view: see [`Pace`].

use crate::actors::member::canceled;
use crate::actors::messages::Terms;
use crate::actors::route::Deadline;
use chronos::error::{Error, Result, SqlState};
use chronos::sql::batch::{Batch, Column};
use chronos::sql::bind::OutputColumn;
use chronos::sql::execute::{RowStream, Task};
use chronos::sql::value::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Batches that wait for the reader, beside the one that is being sent and the one that is being found. Each has up to
/// 256 KiB, or one row, and there may be as many streams as connections.
const BATCHES_MAX: usize = 1;

/// How long a reader may leave the stream alone: what a link needs to come back, as for snapshots.
pub const STALL_MAX: Duration = Duration::from_mins(1);

/// A result that is still coming. Dropping it ends the statement.
pub struct Rows {
    /// Columns.
    pub columns: Vec<OutputColumn>,
    batches: mpsc::Receiver<Batch>,
    end: Option<oneshot::Receiver<Result<()>>>,
}

/// Where the executor puts what it finds.
pub struct Sink {
    batches: mpsc::Sender<Batch>,
    end: oneshot::Sender<Result<()>>,
}

/// Both ends of a stream.
pub fn stream(columns: Vec<OutputColumn>) -> (Sink, Rows) {
    let (sender, batches) = mpsc::channel(BATCHES_MAX);
    let (end, ended) = oneshot::channel();
    (Sink { batches: sender, end }, Rows { columns, batches, end: Some(ended) })
}

impl Rows {
    /// The next batch; none after the last one. An error is the last thing that comes.
    pub async fn next(&mut self) -> Option<Result<Batch>> {
        if let Some(batch) = self.batches.recv().await {
            return Some(Ok(batch));
        }
        let lost = || Err(Error::unavailable("the executor restarted before the last row, read again"));
        self.end.take()?.await.unwrap_or_else(|_| lost()).err().map(Err)
    }
}

impl Sink {
    /// Hands batches to the reader at the reader's pace, until the end, or until it has gone away.
    pub async fn fill(&self, mut rows: RowStream, pace: &Pace) -> Result<()> {
        while let Some(batch) = rows.next_batch()? {
            match tokio::time::timeout(pace.stall(), self.batches.send(batch)).await {
                Ok(Ok(())) => {}
                // Gone: nobody is left who wants the rest.
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(pace.stalled()),
            }
            // Others have their turn between batches.
            tokio::task::yield_now().await;
            pace.step();
        }
        Ok(())
    }

    /// Says how it ended.
    pub fn end(self, how: Result<()>) {
        // A reader that has gone away needs no reason.
        let _ = self.end.send(how);
    }
}

/// How long a streamed statement may go on.
///
/// Up to the first batch it has its deadline, like any statement. From then on each batch has as long as a statement
/// may take by default, since its executor does nothing else meanwhile; how many there are, and how long the reader
/// takes over all of them, limits only the age of the view, and what the client itself said.
pub struct Pace {
    /// When the present batch must be there.
    until: Arc<Mutex<Deadline>>,
    whole: Option<Deadline>,
    step_max: Duration,
    stall_max: Duration,
}

impl Pace {
    /// For one statement.
    pub fn new(terms: &Terms, step_max: Duration, stall_max: Duration) -> Pace {
        Pace { until: Arc::new(Mutex::new(terms.deadline)), whole: terms.whole, step_max, stall_max }
    }

    /// What the library asks between steps.
    pub fn task(&self, terms: &Terms) -> Task {
        let until = self.until.clone();
        let check = move || if lock(&until).left().is_zero() { Err(canceled()) } else { Ok(()) };
        Task { request: terms.request.clone(), check: Arc::new(check) }
    }

    fn step(&self) {
        let next = Deadline::after(self.step_max);
        *lock(&self.until) = self.whole.map_or(next, |whole| whole.min(next));
    }

    /// How long the reader may leave the present batch alone.
    fn stall(&self) -> Duration {
        self.whole.map_or(self.stall_max, |whole| whole.left().min(self.stall_max))
    }

    fn stalled(&self) -> Error {
        if self.whole.is_some_and(|whole| whole.left().is_zero()) {
            return canceled();
        }
        let message = format!("nothing of the answer was taken for {:?}", self.stall_max);
        Error::limit(SqlState::QUERY_CANCELED, message)
    }
}

/// Bytes of a batch in memory; a value that stands for all rows counts once.
pub fn held_bytes(batch: &Batch) -> usize {
    let held = |column: &Column| match column {
        Column::Constant { value: Value::Text(text), .. } => text.len(),
        Column::Constant { value: Value::Blob(bytes), .. } => bytes.len(),
        Column::Constant { .. } | Column::Vector { .. } => column.byte_len(),
    };
    batch.columns.iter().map(|column| held(column)).sum()
}

/// No code panics while it holds this lock, so a poisoned one still guards a whole value.
fn lock(until: &Mutex<Deadline>) -> MutexGuard<'_, Deadline> {
    until.lock().unwrap_or_else(PoisonError::into_inner)
}
