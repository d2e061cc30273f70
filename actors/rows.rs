//! A streamed answer between the executor that finds its rows and the door that sends them.
//!
//! ```text
//!   executor ── batches (1) ──> door ──> client      at the client's pace
//!            ── end ──────────> after the last batch: all there were, or why there are no more
//! ```
//!
//! * A stream without an end is an error: rows that stop coming must not pass for all of them. So the end has a place
//!   of its own, which a reader that takes nothing cannot fill.
//! * A reader that takes nothing keeps two batches, and neither the statement nor its view: see [`Pace`]. A batch is
//!   found when there is a place for it. Large ones have their room as well, and one is there at a time: see load.rs.

mod load;
mod parcel;

use crate::actors::analytics::Visit;
use crate::actors::member::canceled;
use crate::actors::messages::Terms;
use crate::actors::route::Deadline;
use chronos::error::{Error, Result, SqlState};
use chronos::sql::batch::{Batch, Column};
use chronos::sql::bind::OutputColumn;
use chronos::sql::execute::{RowStream, Task};
use chronos::sql::value::Value;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

pub use load::Load;
pub use parcel::Parcel;

/// Batches that wait for the reader or are being found, beside the one that is being sent. Each has up to 384 KiB, or
/// room of its own, and there may be as many streams as connections.
const BATCHES_MAX: usize = 1;

/// How long a reader may leave the stream alone: what a link needs to come back, as for snapshots.
pub const STALL_MAX: Duration = Duration::from_mins(1);

/// A result that is still coming. Dropping it ends the statement.
pub struct Rows {
    /// Columns.
    pub columns: Vec<OutputColumn>,
    batches: mpsc::Receiver<Parcel>,
    end: Option<oneshot::Receiver<Result<()>>>,
    done: Option<Done>,
}

/// Told how a stream ended; one that its reader left has not failed.
type Done = Box<dyn FnOnce(Option<&Error>) + Send>;

/// Where the executor puts what it finds.
pub struct Sink {
    batches: mpsc::Sender<Parcel>,
    end: oneshot::Sender<Result<()>>,
}

/// Both ends of a stream.
pub fn stream(columns: Vec<OutputColumn>) -> (Sink, Rows) {
    let (sender, batches) = mpsc::channel(BATCHES_MAX);
    let (end, ended) = oneshot::channel();
    (Sink { batches: sender, end }, Rows { columns, batches, end: Some(ended), done: None })
}

/// How far a stream was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// To its end, or until nobody wanted more.
    Whole,
    /// Not at all: there is no room now for its first rows, of so many bytes. They were forgotten.
    NoRoom(usize),
}

impl Rows {
    /// The next batch, for whoever is no body.
    #[cfg(test)]
    pub async fn next(&mut self) -> Option<Result<Parcel>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// True where a batch waits and no other one has a place.
    #[cfg(test)]
    pub fn is_full(&self) -> bool {
        self.batches.len() == BATCHES_MAX
    }

    /// The next batch; none after the last one. An error is the last thing that comes.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Parcel>>> {
        if let Some(parcel) = ready!(self.batches.poll_recv(context)) {
            return Poll::Ready(Some(Ok(parcel)));
        }
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        let lost = || Err(Error::unavailable("the executor restarted before the last row, read again"));
        let ended = ready!(Pin::new(end).poll(context)).unwrap_or_else(|_| lost());
        self.end = None;
        if let Some(done) = self.done.take() {
            done(ended.as_ref().err());
        }
        Poll::Ready(ended.err().map(Err))
    }

    /// Calls that once, at the end of the stream.
    pub fn when_done(&mut self, done: impl FnOnce(Option<&Error>) + Send + 'static) {
        self.done = Some(Box::new(done));
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(None);
        }
    }
}

impl Sink {
    /// Hands batches to the reader at the reader's pace, until the end, or until it has gone away. Tells when the first
    /// rows go: from then on the query cannot begin anew.
    pub async fn fill(
        &self,
        mut rows: RowStream,
        pace: &Pace,
        load: &mut Load,
        visit: &mut Visit<'_>,
        begun: impl FnOnce(),
    ) -> Result<Filled> {
        let mut begun = Some(begun);
        loop {
            load.settled(pace).await?;
            // Gone: nobody is left who wants the rest.
            let Some(seat) = self.seat(pace, load).await? else { return Ok(Filled::Whole) };
            visit.step(pace.until()).await?;
            let Some(batch) = rows.next_batch()? else { return Ok(Filled::Whole) };
            let bytes = held_bytes(&batch);
            if batch.rows > 0 {
                visit.found_rows();
                if !load.fits(bytes) {
                    if begun.is_some() {
                        return Ok(Filled::NoRoom(bytes));
                    }
                    load.overdraw(pace).await?;
                }
                if let Some(begun) = begun.take() {
                    begun();
                }
                seat.send(load.parcel(batch, bytes));
            }
            // Others have their turn between batches.
            tokio::task::yield_now().await;
            pace.step();
        }
    }

    /// A place for a batch; none where nobody is left who would read. What was sent and is not taken is small, so that its
    /// room is for whoever waits.
    async fn seat(&self, pace: &Pace, load: &mut Load) -> Result<Option<mpsc::Permit<'_, Parcel>>> {
        let mut reserved = std::pin::pin!(self.batches.reserve());
        let stall = pace.stall();
        let mut waited = Duration::ZERO;
        loop {
            let step = Load::patience(stall).min(stall.saturating_sub(waited));
            if let Ok(seat) = tokio::time::timeout(step, &mut reserved).await {
                return Ok(seat.ok());
            }
            waited += step;
            if waited >= stall {
                return Err(pace.stalled());
            }
            load.lend();
        }
    }

    /// Waits until nobody is left who would read.
    pub async fn closed(&self) {
        self.batches.closed().await;
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
        Task { request: terms.request.clone(), access: terms.access, check: Arc::new(check) }
    }

    /// The present batch is there: the next one has its time.
    pub fn step(&self) {
        let next = Deadline::after(self.step_max);
        *lock(&self.until) = self.whole.map_or(next, |whole| whole.min(next));
    }

    /// When the present batch must be there.
    pub fn until(&self) -> Deadline {
        *lock(&self.until)
    }

    /// How long the reader may leave the present batch alone.
    fn stall(&self) -> Duration {
        self.whole.map_or(self.stall_max, |whole| whole.left().min(self.stall_max))
    }

    /// True where the client's own deadline has passed.
    fn is_over(&self) -> bool {
        self.whole.is_some_and(|whole| whole.left().is_zero())
    }

    fn stalled(&self) -> Error {
        if self.is_over() {
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
