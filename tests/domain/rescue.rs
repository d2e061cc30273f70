//! What is read of a table past its damaged blocks: all that is certain, and no row that had been replaced or deleted.

use chronos::clock::SystemClock;
use chronos::embedded::{Database, Options};
use chronos::sql::execute::Group;
use chronos::sql::value::Value;
use chronos::storage::engine::{self, Engine, HotEngine, Limits};
use chronos::storage::files::SystemFiles;
use chronos::storage::keys::KeyRange;
use chronos::storage::rescue::Rescue;
use chronos::storage::view::{ScanRequest, View};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Model = BTreeMap<i64, i64>;

fn open(path: &Path) -> Database {
    let engine = engine::Options {
        files: Arc::new(SystemFiles),
        clock: Arc::new(SystemClock),
        hot: HotEngine::Memory,
        boot_id: None,
        // Small memtables, so that changes come to the hot store in several flushes, scattered: then blocks have filters.
        limits: Limits { disk_reserve_bytes: 0, memtable_bytes_max: 24 << 10, ..Limits::default() },
    };
    Database::open_on(path, &Options::default(), &engine).unwrap()
}

fn seal(database: &Database) {
    database.group().with_engine(Engine::seal).unwrap();
}

/// Ids in no order, so that the levels overlap and have filters.
fn id(i: i64) -> i64 {
    i * 7919 % 100_003
}

/// The older level: 6,000 rows, v = 0. The newer one: a thirtieth of them updated, as many deleted, 50 new, v = 1. Above both,
/// in memory: a few updated, v = 2. Gives what was there after the older one, and at the end.
fn history(database: &Database) -> (Model, Model) {
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)").unwrap();
    let insert = |ids: std::ops::Range<i64>, v: i64| {
        let rows: Vec<String> = ids.map(|i| format!("({}, {v})", id(i))).collect();
        database.execute(&format!("INSERT INTO t VALUES {}", rows.join(", "))).unwrap();
    };
    insert(0..6000, 0);
    seal(database);
    let old: Model = (0..6000).map(|i| (id(i), 0)).collect();
    for part in 0..10 {
        database.execute(&format!("UPDATE t SET v = 1 WHERE id % 300 = {}", part * 30)).unwrap();
    }
    database.execute("DELETE FROM t WHERE id % 30 = 7").unwrap();
    insert(6000..6050, 1);
    seal(database);
    database.execute("UPDATE t SET v = 2 WHERE id % 300 = 0").unwrap();
    let mut new = old.clone();
    new.retain(|id, _| id % 30 != 7);
    new.iter_mut().filter(|(id, _)| **id % 30 == 0).for_each(|(_, v)| *v = 1);
    new.extend((6000..6050).map(|i| (id(i), 1)));
    new.iter_mut().filter(|(id, _)| **id % 300 == 0).for_each(|(_, v)| *v = 2);
    (old, new)
}

/// Sealed files with blocks of the table, newest first: numbers grow.
fn sealed(path: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(path.join("local/state")).unwrap().map(|entry| entry.unwrap().path());
    let mut sealed: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|it| it == "blk")).collect();
    sealed.sort();
    sealed.reverse();
    sealed
}

/// Damages the first block of a file, which is one of the table's: the system's own hold nothing here.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[200] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// What is read: rows, rows of blocks that cannot be read, and rows left out.
fn rescued(view: &View, now_ms: u64) -> (Model, u64, u64) {
    let table = view.catalog.table("t").unwrap();
    let request = ScanRequest {
        keyspace: table.keyspace,
        ranges: vec![KeyRange::all()],
        columns: table.columns.iter().map(|column| column.id).collect(),
        bounds: Vec::new(),
        expired_below_ms: table.expired_below(now_ms),
        with_keys: true,
        batch_rows: 500,
    };
    let mut lost = 0;
    let mut rescue = Rescue::new(view, request, &mut |block| {
        assert!(block.error.message().contains(".blk at "), "{}", block.error);
        lost += u64::from(block.rows);
    })
    .unwrap();
    let mut rows = Model::new();
    while let Some(batch) = rescue.next_batch().unwrap() {
        for row in 0..batch.rows {
            let [Value::Int(id), Value::Int(v)] = batch.row(row)[..] else { panic!("two integers") };
            assert_eq!(rows.insert(id, v), None, "{id} is there twice");
        }
    }
    (rows, lost, rescue.left_out())
}

fn rescue_all(database: &Database) -> (Model, u64, u64) {
    rescued(&database.group().handle().unwrap().lasting_view(), database.group().instant().wall().0)
}

#[test]
fn without_damage_everything_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let (_, new) = history(&database);
    assert_eq!(rescue_all(&database), (new, 0, 0));
}

#[test]
fn rows_that_a_damaged_newer_block_may_have_replaced_or_deleted_do_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let (old, new) = history(&database);
    damage(&sealed(directory.path())[0]);
    let (rows, lost, left_out) = rescue_all(&database);
    // Updates, deletes and inserts of the newer level are one block, over all keys.
    let changed = new.iter().filter(|(_, v)| **v > 0).count() + old.keys().filter(|id| *id % 30 == 7).count();
    assert_eq!(lost, changed as u64);
    for (id, v) in &rows {
        assert_eq!(new.get(id), Some(v), "{id}: a row that had been replaced or deleted is back");
    }
    assert!(rows.iter().filter(|(_, v)| **v == 2).count() > 10, "what is newer than the damage is certain");
    let unchanged = new.values().filter(|v| **v == 0).count();
    let kept = rows.values().filter(|v| **v == 0).count();
    // The block's filter rules out all but about one in a hundred of those that it does not hold.
    assert!(kept < unchanged && kept * 100 > unchanged * 95, "{kept} of {unchanged}");
    assert_eq!(
        left_out as usize,
        old.len() - kept - rows.iter().filter(|(id, v)| **v == 2 && old.contains_key(id)).count()
    );
}

#[test]
fn newer_rows_over_a_damaged_older_block_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let (old, new) = history(&database);
    damage(sealed(directory.path()).last().unwrap());
    let (rows, lost, left_out) = rescue_all(&database);
    assert!(lost > 0 && left_out == 0, "{lost} {left_out}");
    let missing: Vec<i64> = new.keys().filter(|id| !rows.contains_key(id)).copied().collect();
    assert!(missing.iter().all(|id| old.contains_key(id) && new[id] == 0), "a newer row is missing");
    assert!(rows.iter().all(|(id, v)| new.get(id) == Some(v)));
    assert!(!missing.is_empty() && (missing.len() as u64) < lost, "some of the block's rows had been replaced since");
    let (least, greatest) = (missing[0], missing[missing.len() - 1]);
    assert!(rows.iter().all(|(id, v)| *v > 0 || *id < least || *id > greatest), "the block's range, and nothing else");
}
