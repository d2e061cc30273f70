//! A hot store that is not what was written: an earlier copy, a damaged one, or none at all.
//!
//! A history runs on a real directory with sled, long enough for flushes and seals; its hot directory is copied on the
//! way. Then the process ends without warning, and each case begins from what it left, with the hot directory replaced:
//!
//! ```text
//!  log, sealed files, CURRENT      of the end
//!  hot-000012                      of an earlier moment, or with pages zeroed, cut short, gone
//!  boot id                         another (power was cut), or the same (the disk lies)
//! ```
//!
//! `CHRONOS_HOT_STORE_LIES=all` runs every case, otherwise every sixth.
//!
//! * After another boot id the hot store is not looked at: every acknowledged row is there.
//! * Under the same boot id it is whole or it is not used: every acknowledged row is there, or an error by name.

use chronos::clock::SystemClock;
use chronos::embedded::{Database, Options};
use chronos::error::{Error, Kind};
use chronos::sql::value::Value;
use chronos::storage::engine::{self, HotEngine, Limits, Stop};
use chronos::storage::files::SystemFiles;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

type Model = BTreeMap<i64, i64>;

const FIRST_BOOT: &str = "11111111-1111-1111-1111-111111111111";
const OTHER_BOOT: &str = "22222222-2222-2222-2222-222222222222";

fn open(path: &Path, boot_id: &str) -> Result<Database, Error> {
    let engine = engine::Options {
        files: Arc::new(SystemFiles),
        clock: Arc::new(SystemClock),
        hot: HotEngine::Sled,
        boot_id: Some(boot_id.to_string()),
        limits: Limits {
            memtable_bytes_max: 48 << 10,
            cache_bytes_max: 256 << 10,
            seal_wal_bytes: 20 << 10,
            segment_bytes: 16 << 10,
            commit_linger: Duration::ZERO,
            disk_reserve_bytes: 0,
            ..Limits::default()
        },
    };
    Database::open_on(path, &Options::default(), &engine)
}

fn content(database: &Database) -> Result<Model, Error> {
    let rows = database.execute("SELECT id, v, note FROM t ORDER BY id")?.rows;
    let row = |row: Vec<Value>| match row.as_slice() {
        [Value::Int(id), Value::Int(v), Value::Text(note)] => {
            assert_eq!(*note, format!("row {id}"));
            (*id, *v)
        }
        other => panic!("a row that was never written: {other:?}"),
    };
    let by_index = database.execute("SELECT COUNT(*) FROM t WHERE v >= -1000000 AND v < 1000000")?.rows;
    assert_eq!(by_index, [[Value::Int(rows.len() as i64)]]);
    Ok(rows.into_iter().map(row).collect())
}

/// The one state directory below `path`.
fn state_of(path: &Path) -> PathBuf {
    let below = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path().join("state"));
    std::iter::once(path.join("state")).chain(below).find(|path| path.is_dir()).unwrap()
}

fn hot_directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state_of(path)).unwrap().map(|entry| entry.unwrap().path());
    let mut hot: Vec<PathBuf> = entries.filter(|path| path.to_string_lossy().contains("/hot-")).collect();
    hot.sort();
    hot
}

/// Copies a directory that may be written to meanwhile: what vanishes is left out, what grows is cut.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else if let Ok(bytes) = fs::read(entry.path()) {
            fs::write(target, bytes).unwrap();
        }
    }
}

/// What a history leaves: the directory of its end, copies of its hot directories on the way, and what it holds.
struct History {
    root: tempfile::TempDir,
    copies: usize,
    model: Model,
}

impl History {
    fn run() -> History {
        let root = tempfile::tempdir().unwrap();
        let end = root.path().join("end");
        fs::create_dir(&end).unwrap();
        let database = open(&end, FIRST_BOOT).unwrap();
        database.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL, note TEXT)").unwrap();
        database.execute("CREATE INDEX by_v ON t (v)").unwrap();
        let (mut model, mut copies) = (Model::new(), 0);
        for turn in 0..150i64 {
            let rows: Vec<(i64, i64)> = (0..40).map(|i| ((turn * 40 + i) * 7919 % 100_003, turn)).collect();
            let tuples: Vec<String> = rows.iter().map(|(id, v)| format!("({id}, {v}, 'row {id}')")).collect();
            database.execute(&format!("INSERT INTO t VALUES {}", tuples.join(", "))).unwrap();
            model.extend(rows);
            if turn % 3 == 0 {
                let from = turn * 997 % 90_000;
                database
                    .execute(&format!("UPDATE t SET v = v + 100 WHERE id >= {from} AND id < {}", from + 5000))
                    .unwrap();
                model.range_mut(from..from + 5000).for_each(|(_, v)| *v += 100);
            }
            if turn % 7 == 3 {
                let from = turn * 1361 % 90_000;
                database.execute(&format!("DELETE FROM t WHERE id >= {from} AND id < {}", from + 2000)).unwrap();
                model.retain(|id, _| !(from..from + 2000).contains(id));
            }
            if turn == 40 {
                // The background thread seals in its own time; once it is made to, or a busy machine would have none.
                database.group().with_engine(engine::Engine::seal).unwrap();
            }
            if turn % 15 == 14 {
                for hot in hot_directories(&end) {
                    copy(&hot, &root.path().join(format!("copy-{copies}")));
                    copies += 1;
                }
            }
        }
        let counters = database.group().handle().unwrap().counters();
        assert!(counters.flushes.load(Ordering::Relaxed) > 1, "the history flushes");
        assert!(counters.seals.load(Ordering::Relaxed) > 0, "the history seals");
        database.group().stop(Stop::Abandon).unwrap();
        assert!(copies > 5);
        History { root, copies, model }
    }

    /// The directory of the end, once more, with its hot directory changed.
    fn case(&self, change: impl FnOnce(&Path)) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        copy(&self.root.path().join("end"), directory.path());
        if let Some(hot) = hot_directories(directory.path()).first() {
            change(hot);
        }
        directory
    }

    fn check(&self, name: &str, boot_id: &str, directory: &Path) {
        for round in 0..2 {
            let found = open(directory, boot_id).and_then(|database| {
                let found = content(&database)?;
                if round == 0 && name.starts_with("as it was") {
                    assert_eq!(database.group().recovered().rebuilt, boot_id == OTHER_BOOT, "{name}");
                }
                if round == 0 {
                    database.execute("INSERT INTO t VALUES (-1, 0, 'row -1')")?;
                    database.execute("DELETE FROM t WHERE id = -1")?;
                }
                database.group().stop(if round == 0 { Stop::Abandon } else { Stop::Clean })?;
                Ok(found)
            });
            match found {
                Ok(found) => {
                    assert!(found == self.model, "{name}, round {round}: {} rows of {}", found.len(), self.model.len());
                }
                Err(error) if boot_id == FIRST_BOOT => {
                    assert_eq!(error.kind(), Kind::Damaged, "{name}, round {round}: {error}");
                }
                Err(error) => panic!("{name}, round {round}: the log has everything, but {error}"),
            }
        }
    }
}

fn largest_file(hot: &Path) -> PathBuf {
    let files = fs::read_dir(hot).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// Zeroes 4 KB at a place counted in thousandths of what is written; sled's file is longer than its content.
fn zero(hot: &Path, thousandth: usize) {
    let path = largest_file(hot);
    let mut bytes = fs::read(&path).unwrap();
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0);
    let from = used * thousandth / 1000;
    let to = bytes.len().min(from + 4096);
    bytes[from..to].fill(0);
    fs::write(path, bytes).unwrap();
}

fn cut(hot: &Path, thousandth: usize) {
    let path = largest_file(hot);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() * thousandth / 1000]).unwrap();
}

#[test]
fn no_acknowledged_row_is_lost_to_a_hot_store_that_lies() {
    let history = History::run();
    // Each case costs two starts; all of them are run where somebody waits for it.
    let all = std::env::var("CHRONOS_HOT_STORE_LIES").is_ok_and(|which| which == "all");
    let number = std::cell::Cell::new(0);
    for boot_id in [OTHER_BOOT, FIRST_BOOT] {
        let check = |name: &str, change: &dyn Fn(&Path)| {
            number.set(number.get() + 1);
            if !all && number.get() % 6 != 1 {
                return;
            }
            let directory = history.case(change);
            history.check(&format!("{name}, boot {}", &boot_id[..1]), boot_id, directory.path());
        };
        check("as it was", &|_| {});
        for number in 0..history.copies {
            check(&format!("copy {number}"), &|hot| {
                fs::remove_dir_all(hot).unwrap();
                copy(&history.root.path().join(format!("copy-{number}")), hot);
            });
        }
        for thousandth in [0, 100, 350, 600, 850, 990] {
            check(&format!("zeroed at {thousandth}"), &|hot| zero(hot, thousandth));
        }
        for thousandth in [0, 300, 700, 999] {
            check(&format!("cut at {thousandth}"), &|hot| cut(hot, thousandth));
        }
        check("content gone", &|hot| fs::remove_file(largest_file(hot)).unwrap());
        check("noise", &|hot| fs::write(largest_file(hot), vec![0xA5; 100_000]).unwrap());
        check("all gone", &|hot| fs::remove_dir_all(hot).unwrap());
        check("empty", &|hot| {
            fs::remove_dir_all(hot).unwrap();
            fs::create_dir(hot).unwrap();
        });
        check("empty but for the boot id", &|hot| {
            let boot = fs::read(hot.join("BOOT")).unwrap();
            fs::remove_dir_all(hot).unwrap();
            fs::create_dir(hot).unwrap();
            fs::write(hot.join("BOOT"), boot).unwrap();
        });
    }
}
