//! What the engine counts is what it did.

use super::support::{World, int, run};
use chronos::storage::engine::Stop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[test]
fn expired_rows_are_counted_once_when_their_space_comes_back() {
    let world = World::new();
    let database = world.open();
    run(&database, "CREATE TABLE t (id INT PRIMARY KEY, v INT) WITH TTL=1h");
    run(&database, "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)");
    run(&database, "DELETE FROM t WHERE id = 3");
    database.group().with_engine(chronos::storage::engine::Engine::seal).unwrap();
    let counters = database.group().handle().unwrap().counters();
    assert_eq!(of(&counters.rows_expired), 0);
    world.clock.advance(Duration::from_hours(2));
    // The row of now moves the state's own time on; the two of before stand in a block of their own.
    run(&database, "INSERT INTO t VALUES (1000, 4)");
    database.group().with_engine(chronos::storage::engine::Engine::seal).unwrap();
    for _ in 0..3 {
        run(&database, "INSERT INTO t VALUES (1000000, 5)");
        run(&database, "DELETE FROM t WHERE id = 1000000");
        database.group().with_engine(chronos::storage::engine::Engine::seal).unwrap();
    }
    assert_eq!(of(&counters.seals), 5);
    assert_eq!(int(&database, "SELECT COUNT(*) FROM t"), 1);
    database.group().stop(Stop::Clean).unwrap();
    assert!(of(&counters.merges) > 0, "what merged is what left the rows out");
    assert_eq!(of(&counters.rows_expired), 2, "a tombstone is no row");
}

#[test]
fn every_commit_is_counted_with_its_time_and_its_bytes() {
    let world = World::new();
    let database = world.open();
    let counters = database.group().handle().unwrap().counters();
    let syncs = of(&counters.syncs);
    run(&database, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&database, "INSERT INTO t VALUES (1, 1)");
    database.group().with_engine(chronos::storage::engine::Engine::seal).unwrap();
    assert_eq!(of(&counters.syncs), syncs + 2, "one client, one statement at a time: one fdatasync each");
    assert_eq!(counters.sync_times.distribution().count, of(&counters.syncs));
    assert!(of(&counters.batches) >= of(&counters.syncs));
    assert!(of(&counters.flush_bytes) > 0 && of(&counters.seal_bytes) > 0 && of(&counters.log_bytes) > 0);
    int(&database, "SELECT COUNT(*) FROM t WHERE v = 1");
    let asked = |counters: &chronos::storage::engine::Counters| of(&counters.cache.hits) + of(&counters.cache.misses);
    let before = asked(&counters);
    int(&database, "SELECT COUNT(*) FROM t WHERE v = 1");
    assert!(asked(&counters) > before);
}
