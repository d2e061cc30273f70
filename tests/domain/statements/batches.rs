//! Batches: all or nothing, each statement on what the ones before it did.

use super::support::*;
use chronos::clock::SystemClock;
use chronos::error::SqlState;
use chronos::sql::execute::{Executor, Limits, Task};
use chronos::sql::memory::Pool;
use chronos::sql::value::Value;
use chronos::storage::engine::Stop;
use std::sync::Arc;

#[test]
fn statements_of_a_batch_see_the_ones_before_them() {
    let world = World::new();
    let db = world.open();
    let answers = batch(
        &db,
        &[
            "CREATE TABLE t (id INT PRIMARY KEY, v INT)",
            "INSERT INTO t VALUES (1, 10), (2, 20), (3, 30)",
            "UPDATE t SET v = v + 1 WHERE id >= 2",
            "SELECT id, v FROM t ORDER BY id",
            "UPDATE t SET v = v * 2",
            "DELETE FROM t WHERE id = 1",
            "INSERT INTO t VALUES (1, 5)",
            "SELECT id, v FROM t ORDER BY id",
        ],
    )
    .unwrap();
    let affected: Vec<u64> = answers.iter().map(|answer| answer.affected).collect();
    assert_eq!(affected, [0, 3, 2, 0, 3, 1, 1, 0]);
    let pairs = |pairs: [(i64, i64); 3]| pairs.map(|(id, v)| vec![Value::Int(id), Value::Int(v)]).to_vec();
    assert_eq!(answers[3].rows, pairs([(1, 10), (2, 21), (3, 31)]));
    assert_eq!(answers[7].rows, pairs([(1, 5), (2, 42), (3, 62)]));
    assert_eq!(rows(&db, "SELECT id, v FROM t ORDER BY id"), pairs([(1, 5), (2, 42), (3, 62)]));
    let db = world.restart(db, Stop::Abandon);
    assert_eq!(rows(&db, "SELECT id, v FROM t ORDER BY id"), pairs([(1, 5), (2, 42), (3, 62)]));
}

#[test]
fn rows_without_a_key_are_told_apart_within_a_batch() {
    let db = fresh();
    batch(
        &db,
        &[
            "CREATE TABLE t (v INT)",
            "INSERT INTO t VALUES (1), (2), (3), (4)",
            "INSERT INTO t VALUES (1), (2)",
            "UPDATE t SET v = v + 10 WHERE v <= 2",
            "DELETE FROM t WHERE v = 3",
        ],
    )
    .unwrap();
    batch(&db, &["INSERT INTO t VALUES (5)", "INSERT INTO t VALUES (5)", "UPDATE t SET v = 6 WHERE v = 5"]).unwrap();
    let found = ints(&db, "SELECT v, COUNT(*) FROM t GROUP BY v ORDER BY v");
    assert_eq!(found, [[Some(4), Some(1)], [Some(6), Some(2)], [Some(11), Some(2)], [Some(12), Some(2)]]);
}

#[test]
fn a_range_deleted_in_a_batch_is_empty_for_the_statements_after_it() {
    for index in [false, true] {
        let db = fresh();
        run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
        if index {
            run(&db, "CREATE INDEX by_v ON t (v)");
        }
        // The rows carry the position that the batch reads at: as new as its own.
        run(&db, &insert_range("t", 0..2000));
        let answers = batch(
            &db,
            &["DELETE FROM t", "SELECT COUNT(*) FROM t", "INSERT INTO t VALUES (7, 70)", "SELECT COUNT(*) FROM t"],
        )
        .unwrap();
        assert_eq!(answers[0].affected, 2000);
        assert_eq!(answers[1].rows, [[Value::Int(0)]], "index: {index}");
        assert_eq!(answers[3].rows, [[Value::Int(1)]]);
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 1);
        assert_eq!(ints(&db, "SELECT id FROM t WHERE v = 70"), [[Some(7)]]);
        run(&db, "CREATE TABLE u (id INT)");
        run(&db, &insert_range("t", 1000..4000));
        run(&db, "INSERT INTO u VALUES (1)");
        let answers = batch(
            &db,
            &[
                "DELETE FROM t WHERE id >= 1000",
                "INSERT INTO t VALUES (1000, 1)",
                "DELETE FROM t",
                "SELECT COUNT(*) FROM t",
            ],
        )
        .unwrap();
        assert_eq!((answers[0].affected, answers[2].affected), (3000, 2));
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 0);
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v > 0"), 0);
    }
}

#[test]
fn rows_inserted_and_deleted_by_one_batch_are_gone() {
    let world = World::new();
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    let insert = insert_range("t", 0..3000);
    let answers = batch(&db, &[&insert, "DELETE FROM t WHERE id < 2999", "SELECT COUNT(*) FROM t"]).unwrap();
    assert_eq!((answers[1].affected, &answers[2].rows), (2999, &vec![vec![Value::Int(1)]]));
    assert_eq!(int(&db, "SELECT id FROM t"), 2999);
    let db = world.restart(db, Stop::Abandon);
    assert_eq!(int(&db, "SELECT id FROM t"), 2999);
}

#[test]
fn an_index_follows_what_a_batch_does_to_one_row() {
    let db = fresh();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, "CREATE INDEX by_v ON t (v)");
    run(&db, "INSERT INTO t VALUES (1, 1)");
    batch(
        &db,
        &[
            "UPDATE t SET v = 2",
            "UPDATE t SET v = 1",
            "UPDATE t SET v = 3 WHERE v = 1",
            "UPDATE t SET v = 1 WHERE v = 3",
        ],
    )
    .unwrap();
    assert_eq!(ints(&db, "SELECT id FROM t WHERE v = 1"), [[Some(1)]]);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v >= 2"), 0);
    batch(&db, &["DELETE FROM t WHERE v = 1", "INSERT INTO t VALUES (1, 9)", "UPDATE t SET id = 2 WHERE v = 9"])
        .unwrap();
    assert_eq!(ints(&db, "SELECT id FROM t WHERE v = 9"), [[Some(2)]]);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v < 9"), 0);
}

#[test]
fn an_error_in_the_middle_names_its_statement_and_changes_nothing() {
    let world = World::new();
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, "INSERT INTO t VALUES (1, 1)");
    for (wrong, state) in [
        ("INSERT INTO t VALUES (1, 2)", SqlState::UNIQUE_VIOLATION),
        ("INSERT INTO nothing VALUES (1)", SqlState::UNDEFINED_TABLE),
        ("UPDATE t SET v = v / 0", SqlState::DIVISION_BY_ZERO),
        ("SELECT FROM WHERE", SqlState::SYNTAX_ERROR),
        ("CREATE TABLE u (id INT)", SqlState::DUPLICATE_TABLE),
        ("CREATE INDEX by_v ON t (v)", SqlState::FEATURE_NOT_SUPPORTED),
    ] {
        let error = batch(
            &db,
            &[
                "CREATE TABLE u (id INT)",
                "INSERT INTO t VALUES (2, 2)",
                "DELETE FROM t WHERE id = 1",
                wrong,
                "SELECT 1",
            ],
        );
        let expected = if wrong.starts_with("INSERT INTO t") {
            // The row in its way is gone by then.
            assert!(error.is_ok());
            run(&db, "DROP TABLE u");
            run(&db, "DELETE FROM t WHERE id = 2");
            run(&db, "UPDATE t SET v = 1");
            continue;
        } else {
            error.unwrap_err()
        };
        assert_eq!(expected.sqlstate(), state, "{wrong}");
        assert!(expected.to_string().starts_with("statement 4"), "{expected}");
        assert_eq!(ints(&db, "SELECT id, v FROM t"), [[Some(1), Some(1)]]);
        fail(&db, "SELECT * FROM u", SqlState::UNDEFINED_TABLE);
    }
    let db = world.restart(db, Stop::Abandon);
    assert_eq!(ints(&db, "SELECT id, v FROM t"), [[Some(1), Some(1)]]);
}

#[test]
fn what_thousands_of_writes_answer_is_counted_before_they_take_effect() {
    let db = fresh();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    // Sixteen bytes for the end of each.
    let limits = Limits { batch_result_bytes_max: 16 * 64, ..Limits::default() };
    let executor = Executor::new(limits, Pool::new(1 << 20), Arc::new(SystemClock));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let write = |from: i64, count: i64| {
        let writes: Vec<String> = (from..from + count).map(|id| format!("INSERT INTO t VALUES ({id}, 0)")).collect();
        runtime.block_on(executor.execute_batch(db.group(), &writes, &Task::default())).map(|answers| answers.len())
    };
    assert_eq!(write(0, 64).map_err(|(_, error)| error).unwrap(), 64);
    let (at, error) = write(100, 65).unwrap_err();
    assert_eq!((at, error.sqlstate()), (64, SqlState::LIMIT_EXCEEDED), "{error}");
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 64);
}

#[test]
fn a_table_can_be_replaced_by_a_batch() {
    let world = World::new();
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, &insert_range("t", 0..100));
    batch(
        &db,
        &[
            "DROP TABLE t",
            "CREATE TABLE IF NOT EXISTS t (v INT)",
            "CREATE TABLE IF NOT EXISTS t (other INT)",
            "INSERT INTO t VALUES (1), (1)",
            "CREATE TABLE u (id INT PRIMARY KEY)",
            "INSERT INTO u VALUES (1)",
        ],
    )
    .unwrap();
    let db = world.restart(db, Stop::Abandon);
    assert_eq!(ints(&db, "SELECT v FROM t"), [[Some(1)], [Some(1)]]);
    assert_eq!(int(&db, "SELECT id FROM u"), 1);
}

#[test]
fn two_batches_that_make_the_same_table_do_not_write_into_each_others() {
    let db = fresh();
    for round in 0..20 {
        std::thread::scope(|scope| {
            let one = ["CREATE TABLE IF NOT EXISTS t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)"];
            let other = ["CREATE TABLE IF NOT EXISTS t (id TEXT PRIMARY KEY)", "INSERT INTO t VALUES ('a')"];
            let db = &db;
            let first = scope.spawn(move || batch(db, &one));
            let second = scope.spawn(move || batch(db, &other));
            let (first, second) = (first.join().unwrap(), second.join().unwrap());
            assert!(first.is_ok() || second.is_ok(), "round {round}: {first:?} {second:?}");
        });
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 1);
        run(&db, "DROP TABLE t");
    }
}
