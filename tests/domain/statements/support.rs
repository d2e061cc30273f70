//! A database on a disk in memory with a clock moved by hand, and short ways to ask it.

use chronos::Error;
use chronos::clock::{ManualClock, Wall};
use chronos::embedded::{Database, Options};
use chronos::error::SqlState;
use chronos::sql::value::Value;
use chronos::storage::engine::{self, HotEngine, Limits, Stop};
use chronos::storage::faults::Disk;
use std::sync::Arc;
use std::time::Duration;

/// When every test begins: 2023-11-14 22:13:20.
pub const BEGIN_MS: u64 = 1_700_000_000_000;

/// A disk with a clock, on which databases are opened one after another.
pub struct World {
    pub disk: Disk,
    pub clock: Arc<ManualClock>,
    pub options: Options,
    pub limits: Limits,
}

impl World {
    pub fn new() -> World {
        let limits = Limits {
            memtable_bytes_max: 1 << 20,
            cache_bytes_max: 1 << 20,
            seal_wal_bytes: 512 << 10,
            segment_bytes: 64 << 10,
            commit_linger: Duration::ZERO,
            disk_reserve_bytes: 0,
            ..Limits::default()
        };
        World {
            disk: Disk::new(),
            clock: Arc::new(ManualClock::new(Wall(BEGIN_MS))),
            options: Options::default(),
            limits,
        }
    }

    pub fn open(&self) -> Database {
        let engine = engine::Options {
            files: Arc::new(self.disk.clone()),
            clock: self.clock.clone(),
            hot: HotEngine::Memory,
            boot_id: None,
            limits: self.limits.clone(),
        };
        Database::open_on("/data", &self.options, &engine).unwrap()
    }

    /// Closes the database as `how` says and opens it again.
    pub fn restart(&self, database: Database, how: Stop) -> Database {
        database.group().stop(how).unwrap();
        drop(database);
        self.open()
    }
}

/// A fresh database that nothing is known of.
pub fn fresh() -> Database {
    World::new().open()
}

/// Runs a statement that must succeed: rows affected.
pub fn run(database: &Database, sql: &str) -> u64 {
    match database.execute(sql) {
        Ok(done) => done.affected,
        Err(error) => panic!("{}: {error:?}", head(sql)),
    }
}

/// The error of a statement that must fail.
pub fn fail(database: &Database, sql: &str, state: SqlState) -> Error {
    match database.execute(sql) {
        Ok(done) => panic!("{} succeeded: {done:?}", head(sql)),
        Err(error) => {
            assert_eq!(error.sqlstate(), state, "{}: {error:?}", head(sql));
            error
        }
    }
}

fn head(sql: &str) -> String {
    sql.chars().take(200).collect()
}

pub fn rows(database: &Database, sql: &str) -> Vec<Vec<Value>> {
    database.execute(sql).unwrap_or_else(|error| panic!("{}: {error:?}", head(sql))).rows
}

/// A result of integers; NULL reads as none.
pub fn ints(database: &Database, sql: &str) -> Vec<Vec<Option<i64>>> {
    let int = |value: &Value| match value {
        Value::Int(value) => Some(*value),
        Value::Null => None,
        other => panic!("{sql}: {other} is no integer"),
    };
    rows(database, sql).iter().map(|row| row.iter().map(int).collect()).collect()
}

/// The one integer of a result.
pub fn int(database: &Database, sql: &str) -> i64 {
    match ints(database, sql).as_slice() {
        [row] if row.len() == 1 => row[0].unwrap_or_else(|| panic!("{sql}: NULL")),
        other => panic!("{sql}: {other:?}"),
    }
}

/// One statement that inserts `(id, id * 10)` for a range of ids.
pub fn insert_range(table: &str, ids: std::ops::Range<i64>) -> String {
    let tuples: Vec<String> = ids.map(|id| format!("({id}, {})", id * 10)).collect();
    format!("INSERT INTO {table} (id, v) VALUES {}", tuples.join(", "))
}

pub fn batch(database: &Database, statements: &[&str]) -> Result<Vec<chronos::embedded::ResultSet>, Error> {
    let statements: Vec<String> = statements.iter().map(|sql| (*sql).to_string()).collect();
    database.execute_batch(&statements)
}
