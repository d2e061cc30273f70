//! Questions that a user asks of real sensor data, answered as SQLite answers them, row by row.
//!
//! Both databases hold the two files of the project's data directory. Where that is not there, the tests say so and
//! pass. Floats may differ by 1e-12 of their size: sums are taken in another order here.

use chronos::embedded::{Database, Options};
use chronos::sql::value::Value;
use chronos::storage::engine::Stop;
use rusqlite::Connection;
use std::path::{Path, PathBuf};

/// A question: how we are asked, and how SQLite is where it wants other words.
struct Twin {
    ours: &'static str,
    theirs: Option<&'static str>,
}

const fn same(ours: &'static str) -> Twin {
    Twin { ours, theirs: None }
}

const TWINS: [Twin; 16] = [
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

fn data() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    if directory.join("machine_temperature_system_failure.csv").exists() {
        return Some(directory);
    }
    eprintln!("skipped: no sensor data in {}", directory.display());
    None
}

/// Rows of a file as the tuples of an INSERT, which both databases read.
fn tuples(path: &Path) -> Vec<String> {
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

fn fill(directory: &Path, mut insert: impl FnMut(&str)) {
    for (table, file) in
        [("machine", "machine_temperature_system_failure.csv"), ("office", "occupancy_datatraining.txt")]
    {
        for rows in tuples(&directory.join(file)).chunks(1000) {
            insert(&format!("INSERT INTO {table} VALUES {}", rows.join(", ")));
        }
    }
}

/// Both dialects read these definitions; SQLite keeps timestamps as the text that they are written in.
const TABLES: [&str; 2] = [
    "CREATE TABLE machine (id INT PRIMARY KEY, at TIMESTAMP, value FLOAT)",
    "CREATE TABLE office (id INT PRIMARY KEY, at TIMESTAMP, text TEXT, temperature FLOAT, humidity FLOAT, light FLOAT, \
     co2 FLOAT, ratio FLOAT, occupancy INT)",
];

fn theirs(connection: &Connection, sql: &str) -> Vec<Vec<rusqlite::types::Value>> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| (0..columns).map(|i| row.get(i)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

fn is_same(ours: &Value, theirs: &rusqlite::types::Value) -> bool {
    use rusqlite::types::Value as Theirs;
    match (ours, theirs) {
        (Value::Null, Theirs::Null) => true,
        (Value::Int(ours), Theirs::Integer(theirs)) => ours == theirs,
        (Value::Float(ours), Theirs::Real(theirs)) => (ours - theirs).abs() <= 1e-12 * theirs.abs(),
        (Value::Text(ours), Theirs::Text(theirs)) => ours == theirs,
        (Value::Timestamp(_), Theirs::Text(theirs)) => ours.to_string() == *theirs,
        _ => false,
    }
}

fn assert_twins(database: &Database, connection: &Connection, when: &str) {
    for Twin { ours: sql, theirs: words } in &TWINS {
        let ours = database.execute(sql).unwrap_or_else(|error| panic!("{when}: {sql}: {error}")).rows;
        let theirs = theirs(connection, words.unwrap_or(sql));
        assert!(!theirs.is_empty(), "{sql}: a question without an answer shows nothing");
        assert_eq!(ours.len(), theirs.len(), "{when}: {sql}");
        for (row, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            let equal = ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| is_same(a, b));
            assert!(equal, "{when}: {sql}\nrow {row}: {ours:?}, SQLite {theirs:?}");
        }
    }
}

#[test]
fn real_data_is_answered_as_sqlite_answers() {
    let Some(data) = data() else { return };
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("PRAGMA case_sensitive_like = ON").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let options = Options::default();
    let mut database = Database::open_with(directory.path(), &options).unwrap();
    for table in TABLES {
        database.execute(table).unwrap();
        connection.execute(table, []).unwrap();
    }
    fill(&data, |insert| {
        database.execute(insert).unwrap();
        connection.execute(insert, []).unwrap();
    });
    let count = |table| database.execute(&format!("SELECT COUNT(*) FROM {table}")).unwrap().rows[0][0].clone();
    assert_eq!((count("machine"), count("office")), (Value::Int(22_695), Value::Int(8_143)));
    assert_twins(&database, &connection, "at first");
    for (how, when) in [(Stop::Abandon, "after an end without warning"), (Stop::Clean, "after a clean restart")] {
        database.group().stop(how).unwrap();
        drop(database);
        database = Database::open_with(directory.path(), &options).unwrap();
        assert_twins(&database, &connection, when);
    }
}
