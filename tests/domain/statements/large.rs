//! Statements that touch more rows than memory holds: applied slice by slice, seen whole or not at all.

use super::support::*;
use chronos::embedded::Database;
use chronos::error::SqlState;
use chronos::storage::engine::Stop;
use std::sync::atomic::{AtomicBool, Ordering};

const ROWS: i64 = 20_000;

/// Memtables of 32 KiB, in which 20,000 rows have no room, and slices of some fifty rows.
fn small_memory() -> World {
    let mut world = World::new();
    world.limits.memtable_bytes_max = 64 << 10;
    world.options.statements.slice_bytes_max = 8 << 10;
    world
}

fn filled(world: &World, definition: &str) -> Database {
    let db = world.open();
    run(&db, definition);
    assert_eq!(run(&db, &insert_range("t", 0..ROWS)), ROWS as u64);
    db
}

fn large_commands(db: &Database) -> u64 {
    db.group().handle().unwrap().counters().large_commands.load(Ordering::Relaxed)
}

/// Nothing is left of any stage: each of its chunks would be a row of the system keyspace.
fn has_no_stages(db: &Database) {
    use chronos::sql::catalog::STAGES;
    use chronos::storage::keys::KeyRange;
    use chronos::storage::view::ScanRequest;
    let request = ScanRequest {
        keyspace: STAGES,
        ranges: vec![KeyRange::all()],
        columns: vec![],
        bounds: vec![],
        expired_below_ms: 0,
        with_keys: false,
        batch_rows: 1,
    };
    let view = db.group().handle().unwrap().view();
    assert!(view.scan(request).unwrap().next_batch().unwrap().is_none(), "a stage is left");
}

#[test]
fn every_row_of_a_table_may_change_at_once() {
    let world = small_memory();
    let mut db = filled(&world, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, "CREATE INDEX by_v ON t (v)");
    assert_eq!(run(&db, "UPDATE t SET v = v + 1"), ROWS as u64);
    assert_eq!(run(&db, "DELETE FROM t WHERE v - v / 20 * 20 = 1"), ROWS as u64 / 2);
    assert_eq!(large_commands(&db), 3, "the insert, the update, the delete");
    for how in [Stop::Abandon, Stop::Clean, Stop::Clean] {
        has_no_stages(&db);
        let sum = (0..ROWS).filter(|id| id % 2 == 1).map(|id| id * 10 + 1).sum();
        assert_eq!(ints(&db, "SELECT COUNT(*), SUM(v) FROM t"), [[Some(ROWS / 2), Some(sum)]]);
        assert_eq!(int(&db, "SELECT id FROM t WHERE v = 4011"), 401);
        assert_eq!(ints(&db, "SELECT id FROM t WHERE v = 4010 OR v = 4001"), Vec::<Vec<Option<i64>>>::new());
        db = world.restart(db, how);
    }
}

#[test]
fn a_large_command_leaves_no_more_in_memory_than_a_memtable_holds() {
    let world = small_memory();
    let db = filled(&world, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    let handle = db.group().handle().unwrap();
    let before = handle.counters().flushes.load(Ordering::Relaxed);
    run(&db, "UPDATE t SET v = 0");
    assert!(handle.status().memtable_bytes < 64 << 10, "{:?}", handle.status());
    // The staged parts themselves are rows; beside them the rows go out at once, not memtable by memtable.
    assert!(handle.counters().flushes.load(Ordering::Relaxed) > before);
    run(&db, "UPDATE t SET v = 1 WHERE id < 10");
    assert_eq!(int(&db, "SELECT SUM(v) FROM t"), 10, "what comes later stands above it");
}

#[test]
fn readers_see_all_of_a_large_command_or_nothing() {
    let mut world = small_memory();
    // Enough that the views of reader and writer may both keep what they began with.
    world.limits.memtable_bytes_max = 1 << 20;
    let db = filled(&world, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, "UPDATE t SET v = 0");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = Vec::new();
            while !done.load(Ordering::Acquire) || seen.is_empty() {
                let found = ints(&db, "SELECT MIN(v), MAX(v), COUNT(*) FROM t");
                assert_eq!(found[0][0], found[0][1], "half of a statement was seen");
                assert_eq!(found[0][2], Some(ROWS));
                seen.push(found[0][0].unwrap());
            }
            seen
        });
        for _ in 0..3 {
            run(&db, "UPDATE t SET v = v + 1");
        }
        done.store(true, Ordering::Release);
        assert!(reader.join().unwrap().is_sorted());
    });
    assert_eq!(int(&db, "SELECT MIN(v) FROM t"), 3);
}

#[test]
fn rows_without_a_key_of_their_own_are_all_kept() {
    let world = small_memory();
    let db = filled(&world, "CREATE TABLE t (id INT, v INT)");
    assert_eq!(ints(&db, "SELECT COUNT(*), COUNT(DISTINCT id) FROM t"), [[Some(ROWS), Some(ROWS)]]);
    assert_eq!(run(&db, "UPDATE t SET v = id"), ROWS as u64);
    let db = world.restart(db, Stop::Abandon);
    assert_eq!(ints(&db, "SELECT COUNT(*), SUM(v - id) FROM t"), [[Some(ROWS), Some(0)]]);
}

#[test]
fn rows_in_any_order_are_inserted_and_duplicates_are_found_wherever_they_are() {
    let world = small_memory();
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    let insert = |ids: &mut dyn Iterator<Item = i64>| {
        let tuples: Vec<String> = ids.map(|id| format!("({id}, 1)")).collect();
        format!("INSERT INTO t VALUES {}", tuples.join(", "))
    };
    assert_eq!(run(&db, &insert(&mut (0..5000).map(|i| i * 7919 % 5003))), 5000);
    assert_eq!(ints(&db, "SELECT COUNT(*), SUM(v) FROM t"), [[Some(5000), Some(5000)]]);
    // One that is there already; one that comes twice, far apart; one that comes twice, in order.
    let there = fail(&db, &insert(&mut (5003..9000).chain([4])), SqlState::UNIQUE_VIOLATION);
    assert!(there.message().contains("(id)=(4)"), "{there}");
    let twice = fail(&db, &insert(&mut (5003..9000).chain([6000])), SqlState::UNIQUE_VIOLATION);
    assert!(twice.message().contains("(id)=(6000)"), "{twice}");
    fail(&db, &insert(&mut (5003..9000).chain([8999])), SqlState::UNIQUE_VIOLATION);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 5000);
    has_no_stages(&db);
}

#[test]
fn a_large_statement_that_fails_on_its_way_changes_nothing() {
    let world = small_memory();
    let db = filled(&world, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    let before = int(&db, "SELECT SUM(v) FROM t");
    fail(&db, "UPDATE t SET v = 1 / (19999 - id)", SqlState::DIVISION_BY_ZERO);
    assert_eq!(int(&db, "SELECT SUM(v) FROM t"), before);
    run(&db, "UPDATE t SET v = v WHERE id = 1");
    has_no_stages(&db);
}

#[test]
fn a_stage_whose_commit_is_refused_is_forgotten() {
    let world = small_memory();
    let db = filled(&world, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    let error = fail(&db, &insert_range("t", ROWS - 1..2 * ROWS - 1), SqlState::UNIQUE_VIOLATION);
    assert!(error.message().contains("(19999)"), "{error}");
    has_no_stages(&db);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), ROWS);
}

#[test]
fn what_cannot_be_cut_and_is_too_large_is_refused_by_name() {
    let mut world = small_memory();
    world.options.statements.whole_bytes_max = 64 << 10;
    let db = filled(&world, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    let moved = fail(&db, "UPDATE t SET id = id + 1", SqlState::LIMIT_EXCEEDED);
    assert!(moved.message().contains("split it by key ranges"), "{moved}");
    let batched = batch(&db, &["UPDATE t SET v = 1", "UPDATE t SET v = 2"]).unwrap_err();
    assert_eq!(batched.sqlstate(), SqlState::LIMIT_EXCEEDED);
    let inserts: Vec<String> = (2..6).map(|i| insert_range("t", i * ROWS..i * ROWS + 600)).collect();
    let inserts: Vec<&str> = inserts.iter().map(String::as_str).collect();
    batch(&db, &inserts[..1]).unwrap();
    let batched = batch(&db, &inserts[1..]).unwrap_err();
    assert!(batched.message().contains("send it in parts"), "{batched}");
    let backwards: Vec<String> = (0..5000).rev().map(|id| format!("({}, 1)", 10 * ROWS + id)).collect();
    let unsorted = fail(&db, &format!("INSERT INTO t VALUES {}", backwards.join(", ")), SqlState::LIMIT_EXCEEDED);
    assert!(unsorted.message().contains("in key order"), "{unsorted}");
    assert_eq!(run(&db, "UPDATE t SET id = id + 100000 WHERE id < 100"), 100);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), ROWS + 600);
}

#[test]
fn large_and_small_writers_do_not_lose_each_others_updates() {
    let world = small_memory();
    let db = filled(&world, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, "UPDATE t SET v = 0");
    std::thread::scope(|scope| {
        let all = scope.spawn(|| (0..3).map(|_| run(&db, "UPDATE t SET v = v + 1000")).sum::<u64>());
        let one = scope.spawn(|| (0..40).map(|_| run(&db, "UPDATE t SET v = v + 1 WHERE id = 77")).sum::<u64>());
        assert_eq!((all.join().unwrap(), one.join().unwrap()), (3 * ROWS as u64, 40));
    });
    assert_eq!(ints(&db, "SELECT MIN(v), MAX(v), SUM(v) FROM t"), [[Some(3000), Some(3040), Some(3000 * ROWS + 40)]]);
}
