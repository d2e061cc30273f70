//! The embedded database as a program uses it: async, blocking, shared.

use chronos::ChronosEmbedded;
use chronos::embedded::{Database, Options};
use chronos::error::{Kind, SqlState};
use chronos::sql::value::Value;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A log that waits a little for company, so that what can share an fdatasync does, on any disk.
fn patient(workers: usize) -> Options {
    let mut options = Options { workers: NonZeroUsize::new(workers), ..Options::default() };
    options.engine.commit_linger = Duration::from_millis(5);
    options
}

fn wait<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// Entries and fdatasyncs so far.
fn log(database: &Database) -> (u64, u64) {
    let counters = database.group().handle().unwrap().counters();
    (counters.entries.load(Ordering::Relaxed), counters.syncs.load(Ordering::Relaxed))
}

#[test]
fn tasks_on_one_handle_share_fdatasyncs() {
    let directory = tempfile::tempdir().unwrap();
    wait(async {
        let db = Arc::new(ChronosEmbedded::open_with(directory.path(), patient(2)).await.unwrap());
        db.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        let before = log(&db.blocking().unwrap());
        let local = tokio::task::LocalSet::new();
        for task in 0..16 {
            let db = db.clone();
            local.spawn_local(async move {
                for i in 0..20 {
                    db.execute(&format!("INSERT INTO t VALUES ({})", task * 20 + i)).await.unwrap();
                }
            });
        }
        local.await;
        let after = log(&db.blocking().unwrap());
        let (entries, syncs) = (after.0 - before.0, after.1 - before.1);
        assert_eq!(entries, 320);
        assert!(syncs * 4 <= entries, "{syncs} fdatasyncs for {entries} entries");
        let count = db.execute("SELECT COUNT(*) FROM t").await.unwrap();
        assert_eq!(count.rows, [[Value::Int(320)]]);
    });
}

#[test]
fn threads_on_one_database_share_fdatasyncs() {
    let directory = tempfile::tempdir().unwrap();
    let db = Arc::new(Database::open_with(directory.path(), &patient(2)).unwrap());
    db.execute("CREATE TABLE t (id INT PRIMARY KEY)").unwrap();
    let before = log(&db);
    let threads: Vec<_> = (0..16)
        .map(|thread| {
            let db = db.clone();
            std::thread::spawn(move || {
                (0..20).for_each(|i| {
                    db.execute(&format!("INSERT INTO t VALUES ({})", thread * 20 + i)).unwrap();
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let after = log(&db);
    let (entries, syncs) = (after.0 - before.0, after.1 - before.1);
    assert!(entries == 320 && syncs * 4 <= entries, "{syncs} fdatasyncs for {entries} entries");
}

#[test]
fn a_handle_closes_after_its_last_statement_and_the_directory_opens_again() {
    let directory = tempfile::tempdir().unwrap();
    wait(async {
        let db = ChronosEmbedded::new(directory.path()).await;
        db.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        let batch = ["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (1)"];
        let error = db.execute_batch(batch.map(str::to_owned).to_vec()).await.unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::UNIQUE_VIOLATION);
        assert!(error.to_string().contains("statement 3"), "{error}");
        db.execute_batch(batch[..2].iter().map(|sql| (*sql).to_owned()).collect()).await.unwrap();
        let blocking = db.blocking().unwrap();
        assert_eq!(blocking.query("SELECT id FROM t").unwrap().count(), 2);
        db.close().await.unwrap();
        assert_eq!(blocking.execute("SELECT 1").unwrap_err().kind(), Kind::Unavailable, "closed with its handle");
        let again = ChronosEmbedded::open(directory.path()).await.unwrap();
        assert_eq!(again.execute("SELECT id FROM t").await.unwrap().rows.len(), 2);
        again.close().await.unwrap();
    });
}

#[test]
fn a_directory_that_does_not_open_is_told_by_every_statement() {
    let directory = tempfile::tempdir().unwrap();
    let _first = Database::open(directory.path()).unwrap();
    wait(async {
        let second = ChronosEmbedded::new(directory.path()).await;
        let error = second.execute("SELECT 1").await.unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::IN_USE);
        assert_eq!(second.close().await.unwrap_err().sqlstate(), SqlState::IN_USE);
        assert!(ChronosEmbedded::open(directory.path()).await.is_err());
    });
}
