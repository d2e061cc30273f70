//! Power cuts of a whole engine: every answered row is there afterwards, whatever the cut left of the files.
//!
//! The history is long enough for flushes, seals, merges and recycled segments at the tiny limits used here. The hot
//! store is the one in memory, so each start rebuilds it from the log: the log and the sealed files carry everything.

use chronos::clock::SystemClock;
use chronos::embedded::{Database, Options};
use chronos::sql::value::Value;
use chronos::storage::engine::{self, HotEngine, Limits};
use chronos::storage::faults::{Crash, Disk};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const STATEMENTS: usize = 160;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

fn open(disk: &Disk) -> chronos::Result<Database> {
    let mut options = Options::default();
    // The larger half of the history's updates is staged.
    options.statements.slice_bytes_max = 32 << 10;
    open_with(disk, &options)
}

fn open_with(disk: &Disk, options: &Options) -> chronos::Result<Database> {
    let engine = engine::Options {
        files: Arc::new(disk.clone()),
        clock: Arc::new(SystemClock),
        hot: HotEngine::Memory,
        boot_id: None,
        limits: Limits {
            memtable_bytes_max: 24 << 10,
            cache_bytes_max: 64 << 10,
            // Five seals and more: four runs of a like size are merged.
            seal_wal_bytes: 8 << 10,
            segment_bytes: 16 << 10,
            commit_linger: Duration::ZERO,
            disk_reserve_bytes: 0,
            ..Limits::default()
        },
    };
    Database::open_on("/data", options, &engine)
}

type Model = BTreeMap<i64, i64>;

/// One statement and what it does to the model.
fn step(random: &mut Random, model: &Model, next: &mut i64) -> (String, Model) {
    let mut after = model.clone();
    let pick = |random: &mut Random| model.keys().nth(random.below(model.len().max(1) as u64) as usize).copied();
    let sql = match random.below(10) {
        0..6 => {
            let rows: Vec<(i64, i64)> = (0..=random.below(40))
                .map(|_| {
                    *next += 1;
                    // Keys in no order, each once.
                    (*next * 7919 % 100_003, random.below(1000) as i64)
                })
                .collect();
            after.extend(rows.iter().copied());
            let tuples: Vec<String> = rows.iter().map(|(id, v)| format!("({id}, {v}, 'row {id}')")).collect();
            format!("INSERT INTO t VALUES {}", tuples.join(", "))
        }
        6..8 => {
            let from = pick(random).unwrap_or(0);
            after.range_mut(from..from + 5000).for_each(|(_, v)| *v += 1);
            format!("UPDATE t SET v = v + 1 WHERE id >= {from} AND id < {}", from + 5000)
        }
        _ => {
            let from = pick(random).unwrap_or(0);
            after.retain(|id, _| !(from..from + 1000).contains(id));
            format!("DELETE FROM t WHERE id >= {from} AND id < {}", from + 1000)
        }
    };
    (sql, after)
}

/// Runs the history until the disk stops. The states that may be found afterwards: before and after the last statement.
fn run(disk: &Disk, seed: u64) -> Vec<Option<Model>> {
    let Ok(database) = open(disk) else { return vec![None, Some(Model::new())] };
    if database.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL, note TEXT)").is_err() {
        return vec![None, Some(Model::new())];
    }
    let (mut random, mut model, mut next) = (Random(seed), Model::new(), 0);
    for _ in 0..STATEMENTS {
        let (sql, after) = step(&mut random, &model, &mut next);
        if database.execute(&sql).is_err() {
            return vec![Some(model), Some(after)];
        }
        model = after;
    }
    let closed = database.close();
    drop(closed);
    vec![Some(model)]
}

fn content(database: &Database) -> Option<Model> {
    let rows = database.execute("SELECT id, v, note FROM t ORDER BY id").ok()?.rows;
    let row = |row: Vec<Value>| match row.as_slice() {
        [Value::Int(id), Value::Int(v), Value::Text(note)] => {
            assert_eq!(*note, format!("row {id}"));
            (*id, *v)
        }
        other => panic!("a row that was never written: {other:?}"),
    };
    let model: Model = rows.into_iter().map(row).collect();
    let counted = database.execute("SELECT COUNT(*) FROM t").expect("it was read a moment ago").rows;
    assert_eq!(counted, [[Value::Int(model.len() as i64)]]);
    Some(model)
}

#[test]
fn the_history_flushes_seals_merges_and_recycles() {
    let disk = Disk::new();
    let database = open(&disk).unwrap();
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL, note TEXT)").unwrap();
    let (mut random, mut model, mut next) = (Random(1), Model::new(), 0);
    for _ in 0..STATEMENTS {
        let (sql, after) = step(&mut random, &model, &mut next);
        database.execute(&sql).unwrap();
        model = after;
    }
    let counters = database.group().handle().unwrap().counters();
    assert_eq!(content(&database), Some(model.clone()));
    database.close().unwrap();
    let [flushes, seals, merges, recycled] =
        [&counters.flushes, &counters.seals, &counters.merges, &counters.segments_recycled]
            .map(|counter| counter.load(Ordering::Relaxed));
    let did = format!("{flushes} flushes, {seals} seals, {merges} merges, {recycled} segments recycled");
    assert!(flushes > 2 && seals > 4 && merges > 0 && recycled > 0, "{did}");
    assert_eq!(content(&open(&disk).unwrap()), Some(model));
}

#[test]
fn every_answered_row_survives_a_power_cut_at_any_boundary() {
    let whole = Disk::new();
    run(&whole, 1);
    let operations = whole.operations();
    let cuts = std::env::var("CHRONOS_POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(50u64);
    for cut in 0..cuts {
        let at = cut * operations / cuts;
        let disk = Disk::new();
        disk.stop_at(at);
        let allowed = run(&disk, 1);
        for mode in Crash::ALL {
            let after = disk.crash(at, mode);
            let database = open(&after).unwrap_or_else(|error| panic!("cut {at}, {mode:?}: {error}"));
            let found = content(&database);
            assert!(allowed.contains(&found), "cut {at}, {mode:?}: neither state is there");
            // It goes on from there, and a clean restart changes nothing.
            if found.is_some() {
                database.execute("INSERT INTO t VALUES (-1, 0, 'row -1')").unwrap();
                database.execute("DELETE FROM t WHERE id = -1").unwrap();
            }
            database.close().unwrap();
            assert_eq!(content(&open(&after).unwrap()), found, "cut {at}, {mode:?}: a restart changed the state");
        }
    }
}

/// An UPDATE of every row, in several slices, each of them larger than a memtable.
fn update_all(disk: &Disk) -> (chronos::Result<u64>, u64) {
    let mut options = Options::default();
    options.statements.slice_bytes_max = 8 << 10;
    let database = match open_with(disk, &options) {
        Ok(database) => database,
        Err(error) => return (Err(error), 0),
    };
    let done = database.execute("UPDATE t SET v = v + 1").map(|done| done.affected);
    let large = database.group().handle().unwrap().counters().large_commands.load(Ordering::Relaxed);
    (done, large)
}

#[test]
fn a_command_larger_than_all_memory_survives_a_power_cut_whole_or_not_at_all() {
    // One sealed block and a part of one: as many slices, since whole blocks pass through.
    let rows = 2500;
    let base = Disk::new();
    let database = open(&base).unwrap();
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL, note TEXT)").unwrap();
    let tuples: Vec<String> = (0..rows).map(|id| format!("({id}, 0, 'row {id}')")).collect();
    database.execute(&format!("INSERT INTO t VALUES {}", tuples.join(", "))).unwrap();
    database.close().unwrap();
    let before: Model = (0..rows).map(|id| (id, 0)).collect();
    let after: Model = (0..rows).map(|id| (id, 1)).collect();
    let whole = base.crash(0, Crash::Keep);
    let (done, large) = update_all(&whole);
    assert_eq!((done.unwrap(), large), (rows as u64, 1), "the command is applied in parts");
    let operations = whole.operations();
    let cuts = std::env::var("CHRONOS_POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(24u64);
    let cuts = cuts.min(operations);
    let mut found_both = [false; 2];
    for cut in 0..cuts {
        let at = cut * operations / cuts;
        let disk = base.crash(0, Crash::Keep);
        disk.stop_at(at);
        let (answer, _) = update_all(&disk);
        let mode = Crash::ALL[cut as usize % Crash::ALL.len()];
        let database = open(&disk.crash(at, mode)).unwrap_or_else(|error| panic!("cut {at}, {mode:?}: {error}"));
        let found = content(&database).unwrap();
        assert!(found == before || found == after, "cut {at}, {mode:?}: a part of the command is there");
        assert!(answer.is_err() || found == after, "cut {at}, {mode:?}: it was answered and is not there");
        found_both[usize::from(found == after)] = true;
        // It goes on from there: nothing of a stage is in the way.
        database.execute("UPDATE t SET v = 2 WHERE id < 10").unwrap();
        assert_eq!(content(&database).unwrap().values().filter(|v| **v == 2).count(), 10);
    }
    assert_eq!(found_both, [true, true], "the cuts lie before and behind the command");
}

#[test]
fn a_nearly_full_disk_refuses_growth_and_lets_deletes_through() {
    let disk = Disk::new();
    let database = open(&disk).unwrap();
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL, note TEXT)").unwrap();
    database.execute("INSERT INTO t VALUES (1, 1, 'row 1')").unwrap();
    let counters = database.group().handle().unwrap().counters();
    counters.disk_low.store(true, Ordering::Relaxed);
    let refused = database.execute("INSERT INTO t VALUES (2, 2, 'row 2')").unwrap_err();
    assert_eq!(refused.sqlstate().as_str(), "53100");
    assert!(refused.message().starts_with("disk full, "), "{refused}");
    database.execute("DELETE FROM t WHERE id = 1").unwrap();
    assert_eq!(content(&database), Some(Model::new()));
    counters.disk_low.store(false, Ordering::Relaxed);
    database.execute("INSERT INTO t VALUES (2, 2, 'row 2')").unwrap();
}
