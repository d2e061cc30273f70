//! Answers taken from a real PostgreSQL 15: `scripts/postgres/record.py` asks it, here we are asked the same.
//!
//! * A result is compared as text, value by value, so that the formatting of numbers counts; an error by its code; a
//!   write by its count. Rows without an order are compared as sets.
//! * `scripts/postgres/differences` holds what we answer otherwise, on purpose, each with its reason.

use crate::statements::fresh;
use chronos::embedded::Database;
use std::path::Path;

struct Case {
    line: usize,
    sql: String,
    answer: Vec<String>,
}

/// The cases of a file: a statement after `> `, its answer up to the next blank line. What stands before is a comment.
fn cases(file: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/domain/scripts/postgres").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let mut cases: Vec<Case> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if let Some(sql) = line.strip_prefix("> ") {
            cases.push(Case { line: i + 1, sql: sql.to_owned(), answer: Vec::new() });
        } else if let Some(case) = cases.last_mut() {
            case.answer.push(line.to_owned());
        }
    }
    for case in &mut cases {
        // The blank line ends the answer; a row of one empty text is blank too.
        if case.answer.last().is_some_and(String::is_empty) {
            case.answer.pop();
        }
    }
    cases
}

/// Our answer as the file writes one.
fn answer(database: &Database, sql: &str) -> Vec<String> {
    match database.execute(sql) {
        Err(error) => vec![format!("! {}", error.sqlstate())],
        Ok(done) if done.columns.is_empty() => vec![format!("# {}", done.affected)],
        Ok(done) => {
            let names: Vec<&str> = done.columns.iter().map(|column| column.name.as_str()).collect();
            let escaped = |text: String| text.replace('\\', "\\\\").replace('\n', "\\n");
            let mut lines = vec![format!("= {}", names.join(" | "))];
            lines.extend(done.rows.iter().map(|row| {
                let values: Vec<String> = row.iter().map(|value| escaped(value.to_string())).collect();
                values.join(" | ")
            }));
            lines
        }
    }
}

fn is_ordered(sql: &str) -> bool {
    sql.contains("ORDER BY") || sql.starts_with("VALUES")
}

fn check(file: &str) {
    let database = fresh();
    let cases = cases(file);
    assert!(cases.len() > 10, "{file} holds {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let (mut ours, mut theirs) = (answer(&database, &case.sql), case.answer);
        if !is_ordered(&case.sql) {
            ours[1..].sort();
            let rows = 1.min(theirs.len());
            theirs[rows..].sort();
        }
        if ours != theirs {
            let place = format!("{file}:{}: {}", case.line, case.sql);
            wrong.push(format!(
                "{place}\n  ours:       {}\n  PostgreSQL: {}",
                ours.join("\n    "),
                theirs.join("\n    ")
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n{} differ", wrong.join("\n"), wrong.len());
}

#[test]
fn scalars_are_what_postgresql_makes_of_them() {
    check("scalars");
}

#[test]
fn timestamps_definitions_and_writes_go_as_in_postgresql() {
    check("statements");
}

#[test]
fn rows_are_filtered_grouped_and_sorted_as_in_postgresql() {
    check("rows");
}

#[test]
fn where_we_differ_from_postgresql_is_written_down() {
    check("differences");
}
