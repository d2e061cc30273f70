//! Statements too large for one entry of the log, and those too large for any.

use super::support::*;
use chronos::error::{Kind, SqlState};
use chronos::storage::engine::Stop;

fn small_commands() -> World {
    let mut world = World::new();
    world.options.statements.command_bytes_max = 4 << 10;
    world
}

#[test]
fn effects_of_many_parts_are_applied_as_one() {
    let world = small_commands();
    let mut db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT, note TEXT)");
    run(&db, "CREATE INDEX by_v ON t (v)");
    let tuples: Vec<String> = (0..3000).map(|id| format!("({id}, {}, 'note of row {id}')", id * 10)).collect();
    assert_eq!(run(&db, &format!("INSERT INTO t VALUES {}", tuples.join(", "))), 3000);
    assert_eq!(run(&db, "UPDATE t SET note = note || ', longer', v = v + 1"), 3000);
    assert_eq!(run(&db, "UPDATE t SET id = id + 10000 WHERE id < 2000"), 2000);
    assert_eq!(run(&db, "DELETE FROM t WHERE v > 100 AND v < 20000"), 1990);
    fail(&db, &format!("INSERT INTO t VALUES (-1, 0, ''), {}", tuples.join(", ")), SqlState::UNIQUE_VIOLATION);
    for how in [Stop::Abandon, Stop::Clean] {
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 1010);
        assert_eq!(ints(&db, "SELECT id FROM t WHERE v = 51"), [[Some(10_005)]]);
        let kept = rows(&db, "SELECT COUNT(*) FROM t WHERE note LIKE '%, longer'");
        assert_eq!(kept, [[chronos::sql::value::Value::Int(1010)]]);
        db = world.restart(db, how);
    }
}

#[test]
fn large_batches_and_large_values_are_staged_too() {
    let world = small_commands();
    let db = world.open();
    let long = "x".repeat(50_000);
    let insert = format!("INSERT INTO t VALUES (1, '{long}')");
    let update = format!("UPDATE t SET note = note || '{long}'");
    batch(&db, &["CREATE TABLE t (id INT PRIMARY KEY, note TEXT)", &insert, &update]).unwrap();
    let db = world.restart(db, Stop::Abandon);
    assert_eq!(rows(&db, "SELECT note FROM t")[0][0].to_string().len(), 100_000);
}

#[test]
fn staged_writers_and_others_do_not_lose_each_others_updates() {
    let world = small_commands();
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT, note TEXT)");
    let tuples: Vec<String> = (0..500).map(|id| format!("({id}, 0, 'note of row {id}')")).collect();
    run(&db, &format!("INSERT INTO t VALUES {}", tuples.join(", ")));
    std::thread::scope(|scope| {
        let all = scope.spawn(|| (0..10).map(|_| run(&db, "UPDATE t SET v = v + 1000")).sum::<u64>());
        let one = scope.spawn(|| (0..60).map(|_| run(&db, "UPDATE t SET v = v + 1 WHERE id = 77")).sum::<u64>());
        assert_eq!((all.join().unwrap(), one.join().unwrap()), (5000, 60));
    });
    assert_eq!(ints(&db, "SELECT MIN(v), MAX(v) FROM t"), [[Some(10_000), Some(10_060)]]);
}

#[test]
fn a_statement_that_writes_too_much_is_refused_by_name() {
    let mut world = World::new();
    world.options.statements.effects_bytes_max = 20_000;
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    for from in (0..5000).step_by(500) {
        run(&db, &insert_range("t", from..from + 500));
    }
    for sql in ["UPDATE t SET v = v + 1", "UPDATE t SET id = id + 1", "DELETE FROM t WHERE v >= 0"] {
        let error = fail(&db, sql, SqlState::LIMIT_EXCEEDED);
        assert_eq!(error.kind(), Kind::Limit);
        assert!(error.to_string().contains("statement_effects_max"), "{error}");
        assert!(error.to_string().contains("rows"), "{error}");
    }
    assert_eq!(ints(&db, "SELECT COUNT(*), SUM(v) FROM t"), [[Some(5000), Some(124_975_000)]]);
    assert_eq!(run(&db, "UPDATE t SET v = 0 WHERE id < 300"), 300);
    assert_eq!(run(&db, "DELETE FROM t"), 5000, "a whole table is one effect");
    let error = fail(&db, &insert_range("t", 0..15_000), SqlState::LIMIT_EXCEEDED);
    assert!(error.to_string().contains("statement_effects_max"), "{error}");
    let insert = insert_range("t", 0..6000);
    let other = insert_range("t", 6000..12_000);
    let error = batch(&db, &[&insert, &other]).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::LIMIT_EXCEEDED, "{error}");
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 0);
}
