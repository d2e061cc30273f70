//! The database with async signatures.
//!
//! Statements run on threads of the database's own, so they never block the caller's runtime, whichever that is. Many
//! may be under way at once; those that write share fdatasyncs (see [`super::pool`]).

use super::pool::Pool;
use super::{Database, Options, ResultSet, collect, named};
use crate::sql::execute::Task;
use crate::{Error, Result};
use std::future::Future;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio::sync::oneshot;

/// Threads at least: one for a long query, one for everybody else.
const WORKERS_MIN: usize = 2;

/// A database in this process, with async signatures for any runtime.
pub struct ChronosEmbedded {
    pool: Arc<Pool>,
    /// Set once the directory has been opened, or could not be.
    database: Arc<OnceLock<Result<Arc<Database>>>>,
    closed: oneshot::Receiver<Result<()>>,
}

impl ChronosEmbedded {
    /// Opens the database in a directory, and makes one where there is none. Where that fails, every statement answers
    /// why; [`ChronosEmbedded::open`] says it at once.
    pub async fn new(path: impl Into<PathBuf>) -> ChronosEmbedded {
        let (database, opened) = ChronosEmbedded::start(path.into(), Options::default());
        // Why it did not open is what every statement answers.
        let _ = opened.await;
        database
    }

    /// Opens the database in a directory, or says why not.
    pub async fn open(path: impl Into<PathBuf>) -> Result<ChronosEmbedded> {
        ChronosEmbedded::open_with(path, Options::default()).await
    }

    /// Opens with options.
    pub async fn open_with(path: impl Into<PathBuf>, options: Options) -> Result<ChronosEmbedded> {
        let (database, opened) = ChronosEmbedded::start(path.into(), options);
        opened.await.unwrap_or_else(|_| Err(stopped()))?;
        Ok(database)
    }

    /// Runs one statement and gives its whole answer.
    pub async fn execute(&self, sql: &str) -> Result<ResultSet> {
        let sql = sql.to_owned();
        self.run(move |database| async move {
            collect(database.executor.execute(&database.group, &sql, &Task::default()).await?)
        })
        .await
    }

    /// Runs statements as one: all take effect, or none.
    pub async fn execute_batch(&self, statements: Vec<String>) -> Result<Vec<ResultSet>> {
        self.run(move |database| async move {
            let answers = database.executor.execute_batch(&database.group, &statements, &Task::default()).await;
            answers.map_err(named)?.into_iter().map(collect).collect()
        })
        .await
    }

    /// The same database for calls that block, and for large results row by row. It is closed with this handle.
    pub fn blocking(&self) -> Result<Arc<Database>> {
        self.database.get().cloned().unwrap_or_else(|| Err(stopped()))
    }

    /// Closes it: flushed, sealed, unlocked, once every statement that was begun is done. Dropping does the same, but
    /// only this waits until the directory may be opened again. Where it never opened, says why.
    pub async fn close(mut self) -> Result<()> {
        self.pool.close();
        (&mut self.closed).await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn run<T, F>(&self, run: impl FnOnce(Arc<Database>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let work = run(self.blocking()?);
        let (answer, wait) = oneshot::channel();
        let job = async move {
            // A caller that has dropped its future does not want the answer.
            let _ = answer.send(work.await);
        };
        if !self.pool.spawn(Box::pin(job)) {
            return Err(stopped());
        }
        wait.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Starts the threads; the first opens the database, and closes it when all have ended.
    fn start(path: PathBuf, options: Options) -> (ChronosEmbedded, oneshot::Receiver<Result<()>>) {
        let (pool, database) = (Arc::new(Pool::default()), Arc::new(OnceLock::new()));
        let (opened, wait) = oneshot::channel();
        let (ended, closed) = oneshot::channel();
        let first = {
            let (pool, database) = (pool.clone(), database.clone());
            move || {
                let outcome = database.get_or_init(|| Database::open_with(path, &options).map(Arc::new)).clone();
                let _ = opened.send(outcome.as_ref().map(|_| ()).map_err(Clone::clone));
                if outcome.is_ok() {
                    work(&pool, workers(options.workers));
                }
                if let Err(Err(error)) = ended.send(outcome.and_then(|database| database.stop())) {
                    // Dropped, not closed: nobody else hears of it.
                    tracing::warn!(%error, "the embedded database did not close cleanly");
                }
            }
        };
        // Without a thread nothing is opened, and every statement answers that the database has stopped.
        if let Err(error) = std::thread::Builder::new().name("chronos-embedded".into()).spawn(first) {
            tracing::error!(%error, "cannot start the embedded database's thread");
        }
        (ChronosEmbedded { pool, database, closed }, wait)
    }
}

impl Drop for ChronosEmbedded {
    fn drop(&mut self) {
        self.pool.close();
    }
}

/// Works on this thread and on as many others as make `threads`.
fn work(pool: &Pool, threads: usize) {
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let thread = std::thread::Builder::new().name("chronos-embedded".into());
            if let Err(error) = thread.spawn_scoped(scope, || pool.work()) {
                tracing::warn!(%error, "the embedded database has fewer threads than it was given");
            }
        }
        pool.work();
    });
}

fn workers(asked: Option<NonZeroUsize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(WORKERS_MIN, NonZeroUsize::get);
    asked.map_or_else(|| cores().max(WORKERS_MIN), NonZeroUsize::get)
}

/// Nothing was begun.
fn stopped() -> Error {
    Error::unavailable("the embedded database has stopped")
}

/// It was begun, and its answer is lost.
fn lost() -> Error {
    Error::in_doubt("in doubt: the embedded database stopped before it knew the outcome; read before writing again")
}
