//! Backups of a database that is in use.

use super::support::*;
use chronos::embedded::Database;
use chronos::sql::execute::Group;
use chronos::storage::engine::{BACKUP_PREFIX, Stop};
use chronos::storage::files::Files;
use std::path::{Path, PathBuf};

fn backup(db: &Database, name: &str) -> PathBuf {
    let to = Path::new("/data/local/snapshots").join(format!("{BACKUP_PREFIX}{name}"));
    db.group().handle().unwrap().backup(&to, std::sync::Arc::new(|| true)).blocking_recv().unwrap().unwrap();
    to
}

fn open(world: &World, path: &Path) -> Database {
    let engine = chronos::storage::engine::Options {
        files: std::sync::Arc::new(world.disk.clone()),
        clock: world.clock.clone(),
        hot: chronos::storage::engine::HotEngine::Memory,
        boot_id: None,
        limits: world.limits.clone(),
    };
    Database::open_on(path, &world.options, &engine).unwrap()
}

fn hash(db: &Database) -> u128 {
    let view = db.group().view().unwrap();
    chronos::storage::content_hash::content_hash(&view, &|| Ok(())).unwrap()
}

#[test]
fn a_backup_opens_as_a_database_of_the_same_content() {
    let world = World::new();
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    // Sealed, then in the log alone; a backup has both.
    run(&db, &insert_range("t", 0..5000));
    db.group().with_engine(chronos::storage::engine::Engine::seal).unwrap();
    run(&db, &insert_range("t", 5000..6000));
    run(&db, "DELETE FROM t WHERE id < 100");
    let before = hash(&db);
    let path = backup(&db, "1");
    // What comes later is not in it, and does not disturb it.
    run(&db, "DELETE FROM t");
    db.group().with_engine(chronos::storage::engine::Engine::seal).unwrap();
    let copy = open(&world, &path);
    assert_eq!(int(&copy, "SELECT COUNT(*) FROM t"), 5900);
    assert_eq!(hash(&copy), before);
    run(&copy, &insert_range("t", 0..100));
    assert_eq!((int(&copy, "SELECT COUNT(*) FROM t"), int(&db, "SELECT COUNT(*) FROM t")), (6000, 0));
}

#[test]
fn what_a_crash_leaves_of_a_backup_goes_at_the_next_start() {
    let world = World::new();
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, &insert_range("t", 0..100));
    let path = backup(&db, "7");
    assert!(world.disk.exists(&path.join("CLUSTER")));
    let db = world.restart(db, Stop::Abandon);
    assert!(!world.disk.exists(&path));
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 100);
}

#[test]
fn a_backup_that_fails_leaves_nothing_and_harms_nothing() {
    let world = World::new();
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, &insert_range("t", 0..100));
    let path = backup(&db, "1");
    // The directory is there already, so its files cannot be made.
    let again = db.group().handle().unwrap().backup(&path, std::sync::Arc::new(|| true)).blocking_recv().unwrap();
    assert!(again.is_err(), "nothing is overwritten");
    assert!(!world.disk.exists(&path), "the failed one is removed");
    run(&db, &insert_range("t", 100..200));
    assert_eq!(int(&open(&world, &backup(&db, "2")), "SELECT COUNT(*) FROM t"), 200);
}
