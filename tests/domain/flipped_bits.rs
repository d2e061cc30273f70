//! One flipped bit in each kind of file of a database directory: named, or harmless; never served.
//!
//! A history leaves rows in sealed files, in the hot store and in the log alone. For each file of what it left, and for
//! places spread over it, one bit is turned over and the database opened.
//!
//! * It opens and shows exactly what was there, or an error says which file is damaged: when it is opened, or by the read
//!   that meets the damage.
//! * The one exception is stated under limits: damage to the very last batch of the log cannot be told from a torn write,
//!   and the last statement is gone.
//!
//! `CHRONOS_FLIPPED_BITS=40` chooses how many places of each file; more take longer.

use chronos::clock::SystemClock;
use chronos::embedded::{Database, Options};
use chronos::error::{Error, Kind};
use chronos::sql::value::Value;
use chronos::storage::engine::{self, Engine, HotEngine, Limits, Stop};
use chronos::storage::files::SystemFiles;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Model = BTreeMap<i64, i64>;

fn open(path: &Path) -> Result<Database, Error> {
    let engine = engine::Options {
        files: Arc::new(SystemFiles),
        clock: Arc::new(SystemClock),
        hot: HotEngine::Sled,
        boot_id: Some("11111111-1111-1111-1111-111111111111".into()),
        limits: Limits {
            memtable_bytes_max: 64 << 10,
            cache_bytes_max: 256 << 10,
            seal_wal_bytes: 4 << 20,
            segment_bytes: 32 << 10,
            disk_reserve_bytes: 0,
            ..Limits::default()
        },
    };
    Database::open_on(path, &Options::default(), &engine)
}

fn content(database: &Database) -> Result<Model, Error> {
    let row = |row: Vec<Value>| match row.as_slice() {
        [Value::Int(id), Value::Int(v)] => (*id, *v),
        other => panic!("a row that was never written: {other:?}"),
    };
    Ok(database.execute("SELECT id, v FROM t ORDER BY id")?.rows.into_iter().map(row).collect())
}

/// Runs the history in `path`: what is there before its last statement, and after it.
fn history(path: &Path) -> [Model; 2] {
    let database = open(path).unwrap();
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL)").unwrap();
    let mut model = Model::new();
    for turn in 0..30i64 {
        let rows: Vec<(i64, i64)> = (0..60).map(|i| ((turn * 60 + i) * 7919 % 100_003, turn)).collect();
        let tuples: Vec<String> = rows.iter().map(|(id, v)| format!("({id}, {v})")).collect();
        database.execute(&format!("INSERT INTO t VALUES {}", tuples.join(", "))).unwrap();
        model.extend(rows);
        if turn == 10 {
            database.group().with_engine(Engine::seal).unwrap();
        }
    }
    let before = model.clone();
    database.execute("UPDATE t SET v = v + 1000 WHERE id < 50000").unwrap();
    model.range_mut(..50_000).for_each(|(_, v)| *v += 1000);
    database.group().stop(Stop::Abandon).unwrap();
    [before, model]
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() { copy(&path, &target) } else { fs::copy(path, target).map(|_| ()).unwrap() }
    }
}

/// What a file is for, by its name; none where its content means nothing.
fn kind_of(path: &Path) -> Option<&'static str> {
    let text = path.to_string_lossy();
    let name = path.file_name()?.to_str()?;
    let in_hot = text.contains("/hot-");
    let is = |extension: &str| path.extension().is_some_and(|end| end == extension);
    Some(match name {
        "CLUSTER" => "CLUSTER",
        "CURRENT" => "CURRENT",
        "BOOT" => "BOOT",
        _ if is("wal") => "log",
        _ if in_hot && is("hot") => "hot block",
        _ if in_hot => "sled",
        _ if is("blk") => "sealed",
        _ => return None,
    })
}

/// Bytes to flip: the head, the end (where a sealed file has its footer), and places in between.
fn places(path: &Path) -> Vec<u64> {
    let bytes = fs::metadata(path).unwrap().len();
    let count = std::env::var("CHRONOS_FLIPPED_BITS").ok().and_then(|count| count.parse().ok()).unwrap_or(6u64);
    let spread = (0..count).map(|i| bytes.saturating_sub(1) * i / count.max(2).saturating_sub(1));
    spread
        .chain([9, 40, bytes.saturating_sub(30)])
        .filter(|at| *at < bytes)
        .collect::<BTreeSet<u64>>()
        .into_iter()
        .collect()
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 1 << (at % 8);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_in_any_kind_of_file_is_named_or_harmless_and_never_served() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("whole");
    fs::create_dir(&whole).unwrap();
    let [before, after] = history(&whole);
    let mut outcomes: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for file in files_below(&whole) {
        let Some(kind) = kind_of(&file) else { continue };
        for at in places(&file) {
            let case = tempfile::tempdir_in(root.path()).unwrap();
            copy(&whole, case.path());
            let flipped = case.path().join(file.strip_prefix(&whole).unwrap());
            flip(&flipped, at);
            let what = format!("{} at {at}", file.strip_prefix(&whole).unwrap().display());
            let found = open(case.path()).and_then(|database| content(&database));
            let outcome = match &found {
                Ok(rows) if *rows == after => "harmless",
                Ok(rows) => {
                    assert!(kind == "log" && *rows == before, "{what}: other rows are served");
                    "the last batch"
                }
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Damaged, "{what}: {error}");
                    let name = flipped.file_name().unwrap().to_str().unwrap();
                    // A log whose end is gone is found out by the hot store, which stands beyond it.
                    let is_named =
                        error.message().contains(name) || error.message().contains("the log covers positions");
                    assert!(is_named, "{what}: not named: {error}");
                    "named"
                }
            };
            *outcomes.entry((kind, outcome)).or_default() += 1;
        }
    }
    let seen = |kind, outcome| outcomes.get(&(kind, outcome)).copied().unwrap_or(0);
    for kind in ["CLUSTER", "CURRENT", "sealed"] {
        assert!(seen(kind, "named") > 0, "{kind}: {outcomes:?}");
        assert_eq!(seen(kind, "the last batch"), 0);
    }
    assert_eq!(seen("CLUSTER", "harmless"), 0, "{outcomes:?}");
    assert_eq!(seen("CURRENT", "harmless"), 0, "{outcomes:?}");
    // The hot store is not needed: what it lacks is in the log.
    for kind in ["BOOT", "hot block", "sled"] {
        assert!(seen(kind, "harmless") > 0, "{kind}: {outcomes:?}");
    }
    assert!(seen("log", "named") > 0 && seen("log", "the last batch") <= 3, "{outcomes:?}");
}
