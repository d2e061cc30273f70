//! A damaged block of the hot store: whoever meets it, the engine ends by name, and the next start makes the store anew.

use super::*;
use chronos::storage::files::{Files, Open};

/// A damaged block of the hot store is met by `meet`; what it is told, and what becomes of the database.
fn damage(meet: impl FnOnce(&mut World, &Database) -> Option<Error>) {
    let mut world = World::new();
    world.limits.seal_wal_bytes = 1 << 20;
    world.limits.memtable_bytes_max = 64 << 10;
    let db = world.create();
    // Of short rows, so that all of them are in one block, which is not full.
    db.execute("CREATE TABLE small (id INT PRIMARY KEY)").unwrap();
    insert_small(&db, 0).unwrap();
    flush_some(&mut world, &db, 1);
    until(|| handle(&db).status().memtables == 1);
    // Every block, however small.
    for path in world.hot_files() {
        let bytes = world.disk.open(&path, Open::Read).unwrap().len().unwrap();
        (0..bytes).step_by(50).for_each(|at| world.disk.flip(&path, 8 * at).unwrap());
    }
    if let Some(error) = meet(&mut world, &db) {
        assert_eq!(error.kind(), Kind::Damaged, "{error}");
    }
    let told = failure(&db);
    assert!(told.kind() == Kind::Damaged && told.message().contains("hot store"), "{told}");
    assert!(handle(&db).has_failed(), "nothing is written on top of it");
    let boot = |path: &PathBuf| path.ends_with("hot-000001/BOOT");
    assert!(!world.disk.paths().iter().any(boot), "the next start does not trust it");
    assert!(!world.disk.paths().iter().any(|path| ends(path, "blk")), "nothing of it is sealed");
    let refused = db.execute("SELECT id, note FROM t").unwrap_err();
    assert_eq!(refused.kind(), Kind::Damaged, "nothing of it is served: {refused}");
    let db = world.restart(db);
    assert!(db.group().recovered().rebuilt);
    let rows = db.execute("SELECT COUNT(*) FROM t").unwrap().rows;
    if rows == [[Value::Int(world.rows + ROWS)]] {
        world.rows += ROWS;
    }
    world.check(&db);
    let small = db.execute("SELECT COUNT(*) FROM small").unwrap().rows;
    assert!(matches!(small[0][0], Value::Int(rows) if rows > 0 && rows % 100 == 0), "whole statements: {small:?}");
    seal(&db).unwrap();
}

fn insert_small(db: &Database, turn: i64) -> Result<(), Error> {
    let rows: Vec<String> = (turn * 100..(turn + 1) * 100).map(|id| format!("({id})")).collect();
    db.execute(&format!("INSERT INTO small VALUES {}", rows.join(", "))).map(drop)
}

#[test]
fn a_damaged_hot_block_ends_the_engine_and_is_made_anew_from_the_log_when_a_reader_meets_it() {
    damage(|_, db| Some(db.execute("SELECT id, note FROM t").unwrap_err()));
}

#[test]
fn a_damaged_hot_block_ends_the_engine_and_is_made_anew_from_the_log_when_a_seal_meets_it() {
    damage(|_, db| {
        // Whoever asked learns of the block or that the engine is ending.
        let _ = seal(db).unwrap_err();
        None
    });
}

#[test]
fn a_damaged_hot_block_ends_the_engine_and_is_made_anew_from_the_log_when_a_flush_meets_it() {
    damage(|world, db| {
        let flushes = of(&counters(db).flushes);
        insert_small(db, 1).expect("nothing reads the block that these will share");
        // The other table has memory flushed.
        while world.insert(db).is_ok() {}
        // One that had been published before may have been counted after.
        assert!(of(&counters(db).flushes) <= flushes + 1, "it publishes nothing");
        None
    });
}
