//! How the engine's threads share the work, and what they leave at a clean stop: sealed rows, and of the log one small
//! segment.

use chronos::embedded::{Database, Options, engine_options};
use chronos::sql::value::Value;
use chronos::storage::engine::{Limits, Stop};
use std::path::Path;
use std::sync::atomic::Ordering;

/// Bytes that the log may have after a clean stop.
const LOG_BYTES_MAX: u64 = 1 << 20;

fn lengths(directory: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().len()).collect()
}

#[test]
fn a_small_statement_on_a_quiet_node_is_applied_by_the_thread_that_made_it_durable() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path()).unwrap();
    database.execute("CREATE TABLE t (id INT PRIMARY KEY)").unwrap();
    let at_once = || database.group().handle().unwrap().counters().applied_at_once.load(Ordering::Relaxed);
    // The state thread answers a statement a moment before it rests, so the first INSERT may find it at work still.
    let mut ids = 1..1000;
    while at_once() == 0 {
        let id = ids.next().expect("one of a thousand statements on a quiet node is applied at once");
        database.execute(&format!("INSERT INTO t VALUES ({id})")).unwrap();
    }
    // An answer may be there before it is counted; the next statement on the state thread is behind both.
    database.execute("DELETE FROM t WHERE id = 1").unwrap();
    let before = at_once();
    let many: Vec<String> = (1000..5000).map(|id| format!("({id})")).collect();
    database.execute(&format!("INSERT INTO t VALUES {}", many.join(","))).unwrap();
    assert_eq!(at_once(), before, "the next fdatasync does not wait for this one");
}

#[test]
fn a_clean_stop_leaves_one_small_segment_of_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Database::open(directory.path()).unwrap();
    let database = open();
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, text TEXT)").unwrap();
    let text = "x".repeat(400);
    for round in 0..8 {
        let rows: Vec<String> = (0..1000).map(|row| format!("({}, '{text}')", round * 1000 + row)).collect();
        database.execute(&format!("INSERT INTO t VALUES {}", rows.join(", "))).unwrap();
    }
    let log = directory.path().join("local/raft");
    assert!(lengths(&log).iter().sum::<u64>() > LOG_BYTES_MAX, "the log holds more than may be left");
    database.close().unwrap();
    let left = lengths(&log);
    assert!(left.len() == 1 && left[0] <= LOG_BYTES_MAX, "{left:?}");

    // What is left is enough to go on, twice.
    for round in 0..2 {
        let database = open();
        let count = database.execute("SELECT COUNT(*) FROM t").unwrap();
        assert_eq!(count.rows, [vec![Value::Int(8000 + round)]]);
        database.execute(&format!("INSERT INTO t VALUES ({}, '')", 8000 + round)).unwrap();
        database.close().unwrap();
    }
}

#[test]
fn restarts_that_bring_nothing_write_no_sealed_files() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Database::open(directory.path()).unwrap();
    let database = open();
    database.execute("CREATE TABLE t (id INT PRIMARY KEY)").unwrap();
    database.execute("INSERT INTO t VALUES (1)").unwrap();
    database.close().unwrap();
    let sealed = || {
        let state = std::fs::read_dir(directory.path().join("local/state")).unwrap();
        let mut sealed: Vec<_> = state.map(|entry| entry.unwrap().file_name()).collect();
        sealed.retain(|name| name.to_string_lossy().ends_with(".blk"));
        sealed.sort();
        sealed
    };
    let first = sealed();
    assert!(!first.is_empty());
    for _ in 0..20 {
        let database = open();
        assert_eq!(database.execute("SELECT id FROM t").unwrap().rows, [vec![Value::Int(1)]]);
        database.close().unwrap();
    }
    assert_eq!(sealed(), first);
    // What brought no rows is there all the same.
    let database = open();
    database.execute("CREATE TABLE empty (id INT PRIMARY KEY)").unwrap();
    database.close().unwrap();
    assert_eq!(sealed(), first);
    assert_eq!(open().execute("SELECT COUNT(*) FROM empty").unwrap().rows, [vec![Value::Int(0)]]);
}

/// An actor's restart opens the directory while readers of the engine before still have their views.
#[test]
fn a_reader_that_outlives_an_engine_keeps_nobody_from_its_hot_store() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { memtable_bytes_max: 48 << 10, ..Limits::default() };
    let open = || Database::open_on(directory.path(), &Options::default(), &engine_options(limits.clone())).unwrap();
    let database = open();
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, v FLOAT)").unwrap();
    for round in 0..3 {
        let rows: Vec<String> = (0..4000).map(|row| format!("({}, 0.5)", round * 4000 + row)).collect();
        database.execute(&format!("INSERT INTO t VALUES {}", rows.join(", "))).unwrap();
    }
    let mut rows = database.query("SELECT id FROM t").unwrap();
    rows.next().unwrap().unwrap();
    database.group().stop(Stop::Abandon).unwrap();
    let again = open();
    assert!(!again.group().recovered().rebuilt, "it goes on from the hot store");
    assert_eq!(again.execute("SELECT COUNT(*) FROM t").unwrap().rows, [vec![Value::Int(12_000)]]);
    assert_eq!(rows.map(Result::unwrap).count(), 11_999, "the reader goes on as well");
}
