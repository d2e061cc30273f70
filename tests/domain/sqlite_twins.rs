//! Questions that a user asks of real sensor data, answered as SQLite answers them, row by row.
//!
//! Floats may differ by 1e-12 of their size: sums are taken in another order here.

pub mod questions;

use chronos::embedded::{Database, Options};
use chronos::sql::value::Value;
use chronos::storage::engine::Stop;
use questions::{TABLES, TWINS, data, fill, sqlite};
use rusqlite::Connection;

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
    for twin in &TWINS {
        let sql = twin.ours;
        let ours = database.execute(sql).unwrap_or_else(|error| panic!("{when}: {sql}: {error}")).rows;
        let theirs = twin.answer(connection);
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
    let connection = sqlite(&data);
    let directory = tempfile::tempdir().unwrap();
    let options = Options::default();
    let mut database = Database::open_with(directory.path(), &options).unwrap();
    for table in TABLES {
        database.execute(table).unwrap();
    }
    fill(&data, |insert| {
        database.execute(insert).unwrap();
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
