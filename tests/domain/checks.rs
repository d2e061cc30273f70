//! The check of a database that rests: every flipped bit that matters is named, and nothing is changed.

use chronos::embedded::{Database, Options};
use chronos::error::Kind;
use chronos::storage::check;
use chronos::storage::engine::{self, Engine, HotEngine, Limits, Stop};
use chronos::storage::files::{Files, SystemFiles};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn check(directory: &Path) -> chronos::Result<()> {
    let files: Arc<dyn Files> = Arc::new(SystemFiles);
    check::database(&files, &directory.join("local"))
}

/// A database with two sealed files, one of them with an index, and a log of several segments behind them; as `kill -9`
/// leaves it.
fn history(path: &Path) {
    let engine = engine::Options {
        files: Arc::new(SystemFiles),
        clock: Arc::new(chronos::clock::SystemClock),
        hot: HotEngine::Memory,
        boot_id: None,
        limits: Limits { segment_bytes: 32 << 10, disk_reserve_bytes: 0, ..Limits::default() },
    };
    let database = Database::open_on(path, &Options::default(), &engine).unwrap();
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)").unwrap();
    database.execute("CREATE INDEX by_v ON t (v)").unwrap();
    for turn in 0..60i64 {
        let rows: Vec<String> = (0..240).map(|i| format!("({}, {i})", (turn * 240 + i) * 7919 % 100_003)).collect();
        database.execute(&format!("INSERT INTO t VALUES {}", rows.join(", "))).unwrap();
        if turn == 10 || turn == 20 {
            database.group().with_engine(Engine::seal).unwrap();
        }
    }
    database.group().stop(Stop::Abandon).unwrap();
}

/// The files that count, with their content.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(content(&path));
        } else {
            all.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn a_flipped_bit_that_counts_is_named_and_the_check_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    history(directory.path());
    let whole = content(directory.path());
    check(directory.path()).unwrap();
    assert_eq!(content(directory.path()), whole);
    let (mut named, mut harmless): (BTreeMap<&str, usize>, usize) = (BTreeMap::new(), 0);
    let segments: Vec<&PathBuf> = whole.keys().filter(|path| path.extension().is_some_and(|it| it == "wal")).collect();
    assert!(segments.len() > 1, "a log of several segments");
    for (path, bytes) in &whole {
        let name = path.file_name().unwrap().to_str().unwrap();
        let kind = match (name, path.extension().and_then(|ending| ending.to_str())) {
            ("CLUSTER" | "CURRENT", _) => "marks",
            (_, Some("blk")) => "sealed",
            // What the last segment ends with may be a torn write.
            (_, Some("wal")) if Some(&path) != segments.last() => "log",
            _ => continue,
        };
        // A segment has a header and one statement at least; how much else depends on when the seals came. Between
        // batches there are bytes that mean nothing.
        let places = if kind == "log" { 2048 } else { bytes.len() };
        for place in (0..30).map(|i| i * (places - 1) / 29) {
            let mut flipped = bytes.clone();
            flipped[place] ^= 4;
            std::fs::write(path, &flipped).unwrap();
            let checked = check(directory.path());
            if kind == "log" && checked.is_ok() {
                harmless += 1;
                continue;
            }
            let error = checked.expect_err(&format!("{name} at {place} of {places}"));
            assert_eq!(error.kind(), Kind::Damaged, "{name} at {place}: {error}");
            // A segment that no longer fits in is told by the one behind it.
            assert!(kind == "log" || error.message().contains(name), "{name} at {place}: {error}");
            assert_eq!(std::fs::read(path).unwrap(), flipped, "it is left as it is");
            *named.entry(kind).or_default() += 1;
        }
        std::fs::write(path, bytes).unwrap();
    }
    assert!(named["marks"] == 60 && named["sealed"] >= 60 && named["log"] >= 30, "{named:?}");
    assert!(harmless * 10 < named["log"], "{harmless} of {named:?}");
    check(directory.path()).unwrap();
}

#[test]
fn a_torn_tail_is_no_damage_and_a_missing_file_is() {
    let directory = tempfile::tempdir().unwrap();
    history(directory.path());
    let whole = content(directory.path());
    let (last, bytes) = whole.iter().rfind(|(path, _)| path.extension().is_some_and(|it| it == "wal")).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    std::fs::write(last, &bytes[..end - 1]).unwrap();
    check(directory.path()).unwrap();
    let sealed = whole.keys().find(|path| path.extension().is_some_and(|it| it == "blk")).unwrap();
    std::fs::remove_file(sealed).unwrap();
    let error = check(directory.path()).unwrap_err();
    assert!(error.message().contains(sealed.file_name().unwrap().to_str().unwrap()), "{error}");
}
