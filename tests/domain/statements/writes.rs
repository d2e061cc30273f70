//! INSERT, UPDATE and DELETE, one statement at a time, and many at once.

use super::support::*;
use chronos::error::{Kind, SqlState};
use chronos::machine::{Body, Command};
use chronos::sql::execute::Group;
use chronos::storage::engine::{Engine, Stop};
use std::time::Duration;

#[test]
fn a_key_is_inserted_once() {
    let db = fresh();
    run(&db, "CREATE TABLE t (a INT, b TEXT, v INT, PRIMARY KEY (a, b))");
    let error = fail(&db, "INSERT INTO t VALUES (1, 'x', 1), (2, 'x', 1), (1, 'x', 2)", SqlState::UNIQUE_VIOLATION);
    assert!(error.to_string().contains("(a, b)=(1, x)"), "{error}");
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 0);
    assert_eq!(run(&db, "INSERT INTO t VALUES (1, 'x', 1), (1, 'y', 1)"), 2);
    fail(&db, "INSERT INTO t VALUES (3, 'x', 1), (1, 'y', 2)", SqlState::UNIQUE_VIOLATION);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 2);
    assert_eq!(run(&db, "DELETE FROM t WHERE a = 1 AND b = 'y'"), 1);
    assert_eq!(run(&db, "INSERT INTO t VALUES (1, 'y', 7)"), 1);
    assert_eq!(int(&db, "SELECT v FROM t WHERE a = 1 AND b = 'y'"), 7);
}

#[test]
fn a_key_is_inserted_once_whichever_level_holds_it() {
    let world = World::new();
    let mut db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, &insert_range("t", 0..2000));
    db.group().with_engine(Engine::seal).unwrap();
    run(&db, &insert_range("t", 2000..2500));
    for how in [Stop::Abandon, Stop::Clean] {
        for id in [0, 1999, 2000, 2499] {
            fail(&db, &format!("INSERT INTO t VALUES ({id}, 0)"), SqlState::UNIQUE_VIOLATION);
        }
        db = world.restart(db, how);
    }
    assert_eq!(run(&db, "DELETE FROM t WHERE id = 1999"), 1);
    assert_eq!(run(&db, "DELETE FROM t WHERE id = 1999"), 0);
    assert_eq!(run(&db, "INSERT INTO t VALUES (1999, 1)"), 1);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 2500);
}

#[test]
fn rows_without_a_key_are_told_apart() {
    let world = World::new();
    let db = world.open();
    run(&db, "CREATE TABLE t (v INT)");
    for _ in 0..5 {
        assert_eq!(run(&db, "INSERT INTO t VALUES (1), (1), (2)"), 3);
    }
    assert_eq!(run(&db, "UPDATE t SET v = 3 WHERE v = 1"), 10);
    assert_eq!(run(&db, "DELETE FROM t WHERE v = 2"), 5);
    let db = world.restart(db, Stop::Abandon);
    assert_eq!(run(&db, "INSERT INTO t VALUES (4)"), 1);
    assert_eq!(ints(&db, "SELECT v, COUNT(*) FROM t GROUP BY v ORDER BY v"), [[Some(3), Some(10)], [Some(4), Some(1)]]);
    assert_eq!(rows(&db, "SELECT * FROM t LIMIT 1")[0].len(), 1, "the hidden columns stay hidden");
}

#[test]
fn an_update_moves_keys_in_one_step() {
    let world = World::new();
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, "CREATE INDEX by_v ON t (v)");
    run(&db, &insert_range("t", 0..3000));
    assert_eq!(run(&db, "UPDATE t SET id = id + 1"), 3000);
    assert_eq!(ints(&db, "SELECT MIN(id), MAX(id), COUNT(*) FROM t"), [[Some(1), Some(3000), Some(3000)]]);
    assert_eq!(run(&db, "UPDATE t SET id = -id, v = v + 1 WHERE id <= 10"), 10);
    assert_eq!(int(&db, "SELECT id FROM t WHERE v = 91"), -10);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v = 90"), 0);
    fail(&db, "UPDATE t SET id = 5000 WHERE id > 2990", SqlState::UNIQUE_VIOLATION);
    fail(&db, "UPDATE t SET id = 3000 WHERE id = 2999", SqlState::UNIQUE_VIOLATION);
    assert_eq!(run(&db, "UPDATE t SET id = id WHERE id = 2999"), 1);
    let db = world.restart(db, Stop::Abandon);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 3000);
    assert_eq!(ints(&db, "SELECT id FROM t WHERE v = 29980"), [[Some(2999)]]);
}

#[test]
fn an_update_is_held_to_what_the_columns_promise() {
    let db = fresh();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(3) NOT NULL, v INT, f FLOAT)");
    assert_eq!(run(&db, "UPDATE t SET name = NULL"), 0, "no row, no violation");
    run(&db, "INSERT INTO t VALUES (1, 'abc', 5, 1.5), (2, 'de', NULL, 2.5)");
    fail(&db, "UPDATE t SET name = NULL", SqlState::NOT_NULL_VIOLATION);
    fail(&db, "UPDATE t SET id = NULL WHERE id = 1", SqlState::NOT_NULL_VIOLATION);
    fail(&db, "UPDATE t SET name = name || 'x'", SqlState::STRING_TOO_LONG);
    fail(&db, "UPDATE t SET name = 'toolong'", SqlState::STRING_TOO_LONG);
    fail(&db, "UPDATE t SET name = CASE WHEN v = 5 THEN 'ok' END", SqlState::NOT_NULL_VIOLATION);
    fail(&db, "UPDATE t SET v = 1 / (v - 5)", SqlState::DIVISION_BY_ZERO);
    fail(&db, "UPDATE t SET v = 'x'", SqlState::INVALID_TEXT);
    assert_eq!(run(&db, "UPDATE t SET name = name || 'x' WHERE id = 2"), 1);
    assert_eq!(run(&db, "UPDATE t SET v = f, f = v WHERE id = 1"), 1, "both sides are read before either is written");
    assert_eq!(ints(&db, "SELECT v, CAST(f AS INT) FROM t WHERE id = 1"), [[Some(2), Some(5)]]);
}

#[test]
fn deletes_end_what_they_name_and_the_keys_can_be_used_again() {
    for index in [false, true] {
        let world = World::new();
        let mut db = world.open();
        run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
        if index {
            run(&db, "CREATE INDEX by_v ON t (v)");
        }
        run(&db, &insert_range("t", 0..5000));
        db.group().with_engine(Engine::seal).unwrap();
        assert_eq!(run(&db, "DELETE FROM t WHERE id >= 100 AND id < 2600"), 2500);
        assert_eq!(run(&db, "DELETE FROM t WHERE id = 3000 OR id = 3001"), 2);
        assert_eq!(run(&db, "DELETE FROM t WHERE v = 40000"), 1);
        assert_eq!(ints(&db, "SELECT COUNT(*), SUM(id) FROM t")[0][0], Some(2497));
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v >= 1000 AND v < 26000"), 0);
        run(&db, &insert_range("t", 200..300));
        db = world.restart(db, Stop::Abandon);
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 2597);
        assert_eq!(int(&db, "SELECT id FROM t WHERE v = 2500"), 250);
        assert_eq!(run(&db, "DELETE FROM t"), 2597);
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 0);
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v = 2500"), 0);
        run(&db, &insert_range("t", 0..2000));
        db = world.restart(db, Stop::Clean);
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 2000);
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v >= 0"), 2000);
        assert_eq!(run(&db, "DELETE FROM t WHERE id >= 0"), 2000);
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 0);
    }
}

#[test]
fn every_acknowledged_increment_of_a_hot_row_counts() {
    let db = fresh();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, "INSERT INTO t VALUES (1, 0)");
    let acknowledged: i64 = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let db = &db;
                scope.spawn(move || {
                    let done = (0..40).filter(|turn| {
                        if (writer + turn) % 2 == 0 {
                            return db.execute("UPDATE t SET v = v + 1").is_ok();
                        }
                        batch(db, &["UPDATE t SET v = v + 3 WHERE id = 1", "UPDATE t SET v = v - 2"]).is_ok()
                    });
                    done.count() as i64
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    assert_eq!(int(&db, "SELECT v FROM t"), acknowledged);
    assert_eq!(acknowledged, 320, "latches let every writer through");
}

#[test]
fn concurrent_inserts_of_one_key_succeed_once() {
    let db = fresh();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    let insert = || (0..50).filter(|id| db.execute(&format!("INSERT INTO t VALUES ({id}, 1)")).is_ok()).count();
    let done: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4).map(|_| scope.spawn(insert)).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    assert_eq!((done, int(&db, "SELECT COUNT(*) FROM t")), (50, 50));
}

#[test]
fn an_expired_row_is_absent_and_an_update_does_not_renew_it() {
    let world = World::new();
    let mut db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT) WITH TTL=10s");
    run(&db, "CREATE INDEX by_v ON t (v)");
    run(&db, "INSERT INTO t VALUES (1, 1), (2, 2)");
    world.clock.advance(Duration::from_secs(6));
    run(&db, "INSERT INTO t VALUES (3, 3)");
    assert_eq!(run(&db, "UPDATE t SET v = v + 100 WHERE id = 1"), 1);
    assert_eq!(run(&db, "UPDATE t SET id = 20 WHERE id = 2"), 1);
    fail(&db, "INSERT INTO t VALUES (1, 1)", SqlState::UNIQUE_VIOLATION);
    world.clock.advance(Duration::from_secs(5));
    for how in [Stop::Abandon, Stop::Clean] {
        assert_eq!(ints(&db, "SELECT id FROM t ORDER BY id"), [[Some(3)]]);
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v = 101"), 0);
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE id = 1"), 0);
        db = world.restart(db, how);
    }
    assert_eq!(run(&db, "UPDATE t SET v = 0 WHERE id = 1"), 0);
    assert_eq!(run(&db, "DELETE FROM t WHERE id = 1"), 0);
    assert_eq!(run(&db, "INSERT INTO t VALUES (1, 7)"), 1, "an expired row is no duplicate");
    assert_eq!(ints(&db, "SELECT id FROM t WHERE v = 7"), [[Some(1)]]);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v = 101"), 0);
    fail(&db, "INSERT INTO t VALUES (1, 8)", SqlState::UNIQUE_VIOLATION);
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(ints(&db, "SELECT id FROM t ORDER BY id"), [[Some(1)]], "the inserted row has an age of its own");
}

/// Proposes a command as the janitor does.
fn propose(db: &chronos::embedded::Database, body: Body) -> Result<(), chronos::Error> {
    let command = Command { request: None, origin: db.group().origin(), affected: 0, body };
    db.group().propose(command.encode()).blocking_recv().unwrap().map(drop)
}

#[test]
fn what_a_watermark_has_passed_stays_gone_whatever_the_clock_says() {
    let world = World::new();
    let mut db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT) WITH TTL=1h");
    run(&db, "CREATE INDEX by_v ON t (v)");
    run(&db, "INSERT INTO t VALUES (1, 1)");
    world.clock.advance(Duration::from_secs(60));
    run(&db, "INSERT INTO t VALUES (2, 2)");
    let table = db.group().view().unwrap().catalog.table("t").unwrap().id;
    propose(&db, Body::Expire { table, below_ms: BEGIN_MS + 30_000 }).unwrap();
    // An older one, late, does not bring anything back; nor does a clock that is set back.
    propose(&db, Body::Expire { table, below_ms: BEGIN_MS }).unwrap();
    world.clock.set_wall(chronos::clock::Wall(BEGIN_MS - 3_600_000));
    for how in [Stop::Abandon, Stop::Clean] {
        assert_eq!(ints(&db, "SELECT id FROM t"), [[Some(2)]]);
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v = 1"), 0);
        db.group().with_engine(Engine::seal).unwrap();
        assert_eq!(ints(&db, "SELECT id FROM t"), [[Some(2)]]);
        db = world.restart(db, how);
    }
    assert_eq!(run(&db, "INSERT INTO t VALUES (1, 7)"), 1);
    assert_eq!(ints(&db, "SELECT id, v FROM t ORDER BY id"), [[Some(1), Some(7)], [Some(2), Some(2)]]);
    run(&db, "DROP TABLE t");
    let gone = propose(&db, Body::Expire { table, below_ms: BEGIN_MS }).unwrap_err();
    assert_eq!(gone.kind(), Kind::Conflict);
}

#[test]
fn a_floor_refuses_statements_of_older_views_and_nothing_else() {
    let world = World::new();
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, &insert_range("t", 0..100));
    run(&db, "DELETE FROM t WHERE id < 50");
    let view = db.group().view().unwrap();
    let (table, floor) = (view.catalog.table("t").unwrap().id, view.version);
    propose(&db, Body::RaiseFloor { table, floor }).unwrap();
    assert_eq!(run(&db, "UPDATE t SET v = 1 WHERE id = 60"), 1);
    assert_eq!(run(&db, "INSERT INTO t VALUES (1, 1)"), 1);
    let db = world.restart(db, Stop::Clean);
    assert_eq!(run(&db, "DELETE FROM t WHERE id >= 0"), 51);
    assert_eq!(run(&db, "INSERT INTO t VALUES (60, 2)"), 1);
    assert_eq!(ints(&db, "SELECT id, v FROM t"), [[Some(60), Some(2)]]);
}
