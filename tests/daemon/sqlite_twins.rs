//! The questions of `tests/domain/sqlite_twins`, asked of a node over HTTP: after `chronos import`, after `kill -9`, and
//! after an orderly restart.
//!
//! The files are imported as they are, and once more with the columns that some questions need beside: a number for each
//! reading of the machine, and the office's times as text.

#[path = "../domain/sqlite_twins/questions.rs"]
mod questions;

use super::process::Node;
use questions::{FILES, TABLES, TWINS, data, sqlite, tuples};
use rusqlite::Connection;
use rusqlite::types::Value as Theirs;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Names for the fields of the files as they are: one header lacks a field, the other has names of its own.
const COLUMNS: [&str; 2] = ["at,value", "id,at,temperature,humidity,light,co2,ratio,occupancy"];

fn rows(node: &Node, sql: &str) -> Vec<Vec<Value>> {
    let (status, answer) = node.post_sql(&json!({ "sql": sql }).to_string());
    assert_eq!(status, 200, "{sql}: {answer}");
    serde_json::from_value(answer["rows"].clone()).unwrap()
}

fn import(node: &Node, file: &Path, arguments: &[&str], told: &str) {
    let leader = node.grpc.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(["import", "--leader", &leader]).arg(file).args(arguments);
    let output = command.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.starts_with(told) && out.ends_with(", 0 rejected\n"), "{out}");
}

/// Imports both files, under their own columns as `raw_machine` and `raw_office`, and with all columns under their names.
fn import_all(node: &Node, data: &Path, scratch: &Path) {
    for ((table, file), columns) in FILES.into_iter().zip(COLUMNS) {
        let told = if table == "machine" { "imported 22695 rows" } else { "imported 8143 rows" };
        import(node, &data.join(file), &["--table", &format!("raw_{table}"), "--columns", columns], told);
        let tuples = tuples(&data.join(file));
        let lines: Vec<String> =
            tuples.iter().map(|tuple| tuple.trim_matches(['(', ')']).replace(", ", ",").replace('\'', "")).collect();
        let path = scratch.join(format!("{table}.csv"));
        std::fs::write(&path, lines.join("\n")).unwrap();
        import(node, &path, &["--table", table, "--no-header"], told);
    }
}

fn is_same(ours: &Value, theirs: &Theirs) -> bool {
    match theirs {
        Theirs::Null => ours.is_null(),
        Theirs::Integer(theirs) => ours.as_i64() == Some(*theirs),
        Theirs::Real(theirs) => ours.as_f64().is_some_and(|ours| (ours - theirs).abs() <= 1e-12 * theirs.abs()),
        Theirs::Text(theirs) => ours.as_str() == Some(theirs),
        Theirs::Blob(_) => false,
    }
}

fn assert_same(node: &Node, sql: &str, theirs: &[Vec<Theirs>], when: &str) {
    let ours = rows(node, sql);
    assert_eq!(ours.len(), theirs.len(), "{when}: {sql}");
    for (row, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let equal = ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| is_same(a, b));
        assert!(equal, "{when}: {sql}\nrow {row}: {ours:?}, SQLite {theirs:?}");
    }
}

fn assert_twins(node: &Node, connection: &Connection, when: &str) {
    let mut raw = 0;
    for twin in &TWINS {
        let theirs = twin.answer(connection);
        assert_same(node, twin.ours, &theirs, when);
        let mut words = twin.ours.split(|c: char| !c.is_alphanumeric());
        if !words.any(|word| word == "id" || word == "text") {
            let sql = twin.ours.replace("FROM machine", "FROM raw_machine").replace("FROM office", "FROM raw_office");
            assert_same(node, &sql, &theirs, when);
            raw += 1;
        }
    }
    assert!(raw >= 7, "{raw} questions were asked of the files as they are");
}

#[test]
fn imported_files_are_answered_as_sqlite_answers_before_and_after_a_kill() {
    let Some(data) = data() else { return };
    let connection = sqlite(&data);
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    for table in TABLES {
        let (status, answer) = node.post_sql(&json!({ "sql": table }).to_string());
        assert_eq!(status, 200, "{answer}");
    }
    import_all(&node, &data, directory.path());
    assert_twins(&node, &connection, "after the import");
    node.kill();
    let node = Node::start(directory.path());
    node.until_ready();
    assert_twins(&node, &connection, "after kill -9");
    assert!(node.terminate().success());
    let node = Node::start(directory.path());
    node.until_ready();
    assert_twins(&node, &connection, "after a restart");
}
