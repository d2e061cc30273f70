//! Questions over real sensor data, what SQLite answers, and the data: shared by the tests of the library and of the daemon.
//!
//! SQLite holds the two files of the project's data directory. Where that is not there, the tests say so and pass.

use rusqlite::Connection;
use std::path::{Path, PathBuf};

/// A question: how we are asked, and how SQLite is where it wants other words.
pub struct Twin {
    pub ours: &'static str,
    theirs: Option<&'static str>,
}

const fn same(ours: &'static str) -> Twin {
    Twin { ours, theirs: None }
}

/// The questions.
pub const TWINS: [Twin; 16] = [
    // Aggregates, over everything and by group.
    same("SELECT COUNT(*), MIN(value), MAX(value), AVG(value), SUM(value) FROM machine"),
    same(
        "SELECT occupancy, COUNT(*), AVG(temperature), MIN(co2), MAX(light) FROM office GROUP BY occupancy ORDER BY occupancy",
    ),
    same(
        "SELECT id / 1000 AS thousand, COUNT(*), SUM(value), AVG(value) FROM machine GROUP BY id / 1000 ORDER BY thousand",
    ),
    // NULLs: made by NULLIF and CASE, counted, averaged, grouped, sorted.
    same("SELECT COUNT(NULLIF(light, 0)), COUNT(*), AVG(NULLIF(light, 0)), SUM(NULLIF(occupancy, 0)) FROM office"),
    same(
        "SELECT CASE WHEN light = 0 THEN NULL ELSE occupancy END AS seen, COUNT(*), MAX(NULLIF(occupancy, 1)) \
         FROM office GROUP BY CASE WHEN light = 0 THEN NULL ELSE occupancy END ORDER BY seen NULLS LAST",
    ),
    same(
        "SELECT id, NULLIF(light, 0) AS lit FROM office WHERE id < 400 AND (NULLIF(light, 0) > 500 OR NULLIF(light, 0) IS NULL) \
         ORDER BY lit DESC NULLS LAST, id",
    ),
    same("SELECT id, COALESCE(NULLIF(light, 0), -1) FROM office WHERE NOT (NULLIF(light, 0) > 100) ORDER BY id"),
    // DISTINCT.
    same("SELECT DISTINCT light FROM office ORDER BY light"),
    same("SELECT COUNT(DISTINCT temperature), COUNT(DISTINCT NULLIF(light, 0)), SUM(DISTINCT occupancy) FROM office"),
    // HAVING.
    same(
        "SELECT light, COUNT(*) AS n, AVG(co2) FROM office GROUP BY light HAVING COUNT(*) > 20 AND AVG(co2) > 500 \
         ORDER BY n DESC, light",
    ),
    // Ties, broken by the key, with and without a limit.
    same("SELECT temperature, id FROM office ORDER BY temperature DESC, id LIMIT 50 OFFSET 10"),
    same("SELECT at, id, value FROM machine WHERE value > 100 ORDER BY at, id"),
    // Ranges of time.
    Twin {
        ours: "SELECT id, at, value FROM machine WHERE at >= '2013-12-16 00:00:00' AND at < '2013-12-17' ORDER BY at, id",
        theirs: Some(
            "SELECT id, at, value FROM machine WHERE at >= '2013-12-16 00:00:00' AND at < '2013-12-17 00:00:00' \
             ORDER BY at, id",
        ),
    },
    same(
        "SELECT COUNT(*), MIN(at), MAX(at), AVG(value) FROM machine \
         WHERE at BETWEEN '2014-02-07 12:00:00' AND '2014-02-09 11:55:00'",
    ),
    // CASE and LIKE.
    same(
        "SELECT CASE WHEN value < 50 THEN 'cold' WHEN value < 90 THEN 'warm' WHEN value >= 90 THEN 'hot' END AS feels, \
         COUNT(*), SUM(CASE WHEN id % 2 = 0 THEN 1 ELSE 0 END) FROM machine GROUP BY feels ORDER BY feels",
    ),
    same(
        "SELECT id, text FROM office WHERE text LIKE '2015-02-0_ 09:3%' AND text NOT LIKE '%:00' OR text LIKE '%02-10 09:33%' \
         ORDER BY id",
    ),
];

impl Twin {
    /// What SQLite answers; never nothing, which would show nothing.
    pub fn answer(&self, connection: &Connection) -> Vec<Vec<rusqlite::types::Value>> {
        let sql = self.theirs.unwrap_or(self.ours);
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| (0..columns).map(|i| row.get(i)).collect()).unwrap();
        let rows: Vec<_> = rows.map(Result::unwrap).collect();
        assert!(!rows.is_empty(), "{sql}: a question without an answer shows nothing");
        rows
    }
}

/// Each table with its file.
pub const FILES: [(&str, &str); 2] =
    [("machine", "machine_temperature_system_failure.csv"), ("office", "occupancy_datatraining.txt")];

/// Where the files are: the directory that `CHRONOS_TEST_DATA` names, else `../shared/data` beside the repository.
pub fn data() -> Option<PathBuf> {
    let named = std::env::var_os("CHRONOS_TEST_DATA").filter(|named| !named.is_empty()).map(PathBuf::from);
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let directory = named.unwrap_or_else(beside);
    if directory.join("machine_temperature_system_failure.csv").exists() {
        return Some(directory);
    }
    crate::skipped::skipped(&format!(
        "no sensor data in {}: CHRONOS_TEST_DATA names its directory",
        directory.display()
    ));
    None
}

/// Rows of a file as the tuples of an INSERT, which both databases read.
pub fn tuples(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let is_machine = path.extension().is_some_and(|extension| extension == "csv");
    let tuple = |(id, line): (usize, &str)| {
        let fields: Vec<&str> = line.split(',').map(|field| field.trim_matches('"')).collect();
        if is_machine {
            return format!("({id}, '{}', {:?})", fields[0], fields[1].parse::<f64>().unwrap());
        }
        let numbers: Vec<String> =
            fields[2..7].iter().map(|field| format!("{:?}", field.parse::<f64>().unwrap())).collect();
        format!("({}, '{}', '{}', {}, {})", fields[0], fields[1], fields[1], numbers.join(", "), fields[7])
    };
    text.lines().skip(1).enumerate().map(tuple).collect()
}

/// Hands both files to `insert`, a thousand rows a statement.
pub fn fill(directory: &Path, mut insert: impl FnMut(&str)) {
    for (table, file) in FILES {
        for rows in tuples(&directory.join(file)).chunks(1000) {
            insert(&format!("INSERT INTO {table} VALUES {}", rows.join(", ")));
        }
    }
}

/// Both dialects read these definitions; SQLite keeps timestamps as the text that they are written in.
pub const TABLES: [&str; 2] = [
    "CREATE TABLE machine (id INT PRIMARY KEY, at TIMESTAMP, value FLOAT)",
    "CREATE TABLE office (id INT PRIMARY KEY, at TIMESTAMP, text TEXT, temperature FLOAT, humidity FLOAT, light FLOAT, \
     co2 FLOAT, ratio FLOAT, occupancy INT)",
];

/// SQLite with both files in it.
pub fn sqlite(directory: &Path) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("PRAGMA case_sensitive_like = ON").unwrap();
    for table in TABLES {
        connection.execute(table, []).unwrap();
    }
    fill(directory, |insert| {
        connection.execute(insert, []).unwrap();
    });
    connection
}
