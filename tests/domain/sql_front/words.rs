//! Every word counts: no word of a statement is dropped in silence, neither by us nor by the parser.
//!
//! The parser reads the words of fifty dialects, and reads some of them without keeping them. Which ones differs from
//! version to version, so nothing here knows its code: each of its keywords is planted at each place of statements that
//! between them have every clause, or with `CHRONOS_PLANT_GOLDEN=1` of all in the golden files. What comes out must be
//! an error or another statement. The words that may be added or left out without a difference are listed, each with
//! the reason.

use chronos::sql::translate::{ParseLimits, parse};
use std::path::Path;

/// Statements that between them have every clause that is accepted, and each kind of place where a word may stand.
const STATEMENTS: [&str; 26] = [
    "CREATE TABLE t (a INT, b TEXT NOT NULL DEFAULT 'x', PRIMARY KEY (a, b))",
    "CREATE TABLE t (a VARCHAR(5) NULL DEFAULT NULL, b FLOAT DEFAULT 1 + 2)",
    "CREATE TABLE t (a DOUBLE PRECISION, b TIMESTAMP WITH TIME ZONE DEFAULT now())",
    "CREATE TABLE IF NOT EXISTS t (a BIGINT PRIMARY KEY, b CHARACTER VARYING(3))",
    "CREATE TABLE t (a BOOL DEFAULT TRUE, CONSTRAINT k PRIMARY KEY (a ASC)) WITH (ttl = '7d')",
    "CREATE INDEX i ON t (a, b ASC NULLS LAST)",
    "CREATE UNIQUE INDEX IF NOT EXISTS i ON t USING btree (a)",
    "DROP TABLE IF EXISTS t, u CASCADE",
    "DROP INDEX i",
    "INSERT INTO t (a, b) VALUES (1, 'x'), (-2.5, DEFAULT), (NULL, now())",
    "INSERT INTO t DEFAULT VALUES",
    "UPDATE t AS u SET a = 1, b = u.b || 'x' WHERE a = 1 AND b IS NULL",
    "DELETE FROM t AS u WHERE u.a = 5 OR NOT c",
    "SELECT DISTINCT a, b + 1 AS c, t.* FROM t AS u WHERE a > 5 ORDER BY a DESC NULLS FIRST, 2",
    "SELECT a, count(*) d, sum(DISTINCT e) FROM t GROUP BY a, b + 1 HAVING count(*) > 1",
    "SELECT u.a FROM t u LIMIT 10 OFFSET 5 ROWS",
    "SELECT CASE a WHEN 1 THEN 'x' ELSE b END, CASE WHEN c THEN 1 END",
    "SELECT CAST(a AS INT), b::TEXT, floor(d), TIMESTAMP '2024-01-01', now() - INTERVAL '7 days'",
    "SELECT coalesce(a, 1) FROM t WHERE a BETWEEN 1 AND 2 AND b LIKE 'x' ESCAPE '!'",
    "SELECT * FROM t WHERE c NOT IN (1, 2) AND d IS NOT TRUE AND e ILIKE 'y'",
    "SELECT * FROM t WHERE f IS DISTINCT FROM 1 AND NOT g",
    "VALUES (1, 'x'), (2, 'y') ORDER BY 1 LIMIT 1",
    "EXPLAIN ANALYZE SELECT a FROM t",
    "DESCRIBE t",
    "SHOW TABLES",
    "SHOW COLUMNS FROM t",
];

/// Words that ask for what happens anyway: the word, what stands before it in the statement, and why.
const IDLE: [(&str, &str, &str); 18] = [
    ("AS", "SELECT", "an alias needs none"),
    ("AS", "UPDATE t", "an alias needs none"),
    ("AS", "DELETE FROM", "an alias needs none"),
    ("ALL", "SELECT", "the opposite of DISTINCT"),
    ("ALL", "VALUES", "the opposite of DISTINCT, in a call"),
    ("ASC", "PRIMARY KEY (", "the order of every key"),
    ("ASC", "INDEX", "the order of every index"),
    ("ASC", "ORDER BY", "the order where none is named"),
    ("CASCADE", "DROP", "nothing depends on what may be dropped"),
    ("RESTRICT", "DROP", "nothing depends on what may be dropped"),
    ("CONCURRENTLY", "INDEX", "every index is built without blocking writers"),
    ("NULL", "NULL", "said twice"),
    ("NULL", "CREATE TABLE", "the same as neither NULL nor NOT NULL: the catalog keeps no difference"),
    ("ROWS", "OFFSET", "rows are all that there is to skip"),
    ("ROW", "OFFSET", "rows are all that there is to skip"),
    ("PRECISION", "DOUBLE", "DOUBLE alone is the same"),
    ("INTERVAL", "ttl =", "the text alone is the same"),
    ("IS", " ", "the parser takes `a NOT NULL` for `a IS NOT NULL`, which nothing else can mean"),
];

/// What a text says, without the places where it says it; none where it is refused.
fn meaning(sql: &str) -> Option<String> {
    let statement = parse(sql, &ParseLimits::default()).ok()?;
    // Each name and each expression has its place, a number behind this word.
    let text = format!("{statement:?}");
    Some(text.split("position: ").map(|part| part.trim_start_matches(|char: char| char.is_ascii_digit())).collect())
}

/// True where the word makes no difference behind this text, by what we promise.
fn is_idle(word: &str, before: &str) -> bool {
    let is_behind = |text: &str| before.contains(text) || before.contains(&text.to_ascii_uppercase());
    IDLE.iter().any(|(idle, behind, _)| word.eq_ignore_ascii_case(idle) && is_behind(behind))
}

/// Where words begin and end and marks stand, outside of quotes: the places where a word may be planted.
fn places(sql: &str) -> Vec<usize> {
    let is_word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let (mut quoted, mut places, mut last) = (false, vec![], ' ');
    for (at, char) in sql.char_indices() {
        let goes_on =
            quoted || char.is_whitespace() || (is_word(char) && is_word(last)) || (last == ':' && char == ':');
        if at > 0 && !goes_on {
            places.push(at);
        }
        quoted ^= char == '\'';
        last = char;
    }
    places.push(sql.len());
    places
}

/// The keywords that can be planted into a statement without a difference, each with the statement.
fn dropped(sql: &str) -> Vec<(&'static str, String)> {
    let meant = meaning(sql).unwrap_or_else(|| panic!("{sql}: {:?}", parse(sql, &ParseLimits::default())));
    let mut dropped = Vec::new();
    for (before, behind) in places(sql).into_iter().map(|at| sql.split_at(at)) {
        for word in sqlparser::keywords::ALL_KEYWORDS {
            if is_idle(word, before) {
                continue;
            }
            let planted = format!("{before} {word} {behind}");
            if meaning(&planted).is_some_and(|planted| planted == meant) {
                dropped.push((*word, planted));
            }
        }
    }
    dropped
}

#[test]
fn a_keyword_that_is_planted_is_refused_or_makes_a_difference() {
    let mut statements: Vec<String> = STATEMENTS.iter().map(|sql| (*sql).to_owned()).collect();
    // For a new version of the parser, by hand: it takes minutes.
    if std::env::var_os("CHRONOS_PLANT_GOLDEN").is_some() {
        // Of an unknown ESCAPE the answer is unknown, whatever the pattern is.
        statements.extend(accepted().into_iter().filter(|sql| !sql.contains("ESCAPE NULL")));
    }
    let dropped: Vec<(&str, String)> = statements.iter().flat_map(|sql| dropped(sql)).collect();
    assert!(dropped.is_empty(), "{} are dropped: {dropped:#?}", dropped.len());
}

/// The words of a statement outside of quotes, without numbers: where each begins and ends.
fn words(sql: &str) -> Vec<(usize, usize)> {
    let (mut words, mut begun, mut quote) = (Vec::new(), None, None);
    for (at, char) in sql.char_indices().chain([(sql.len(), ' ')]) {
        let inside = quote.is_some() || "'\"".contains(char);
        let is_word = !inside && (char.is_alphanumeric() || char == '_' || char == '$');
        match (begun, is_word) {
            (None, true) => begun = Some(at),
            (Some(from), false) => {
                // X'00' and E'a' are one with their string.
                let is_number = sql[from..].starts_with(|char: char| char.is_ascii_digit());
                words.extend((char != '\'' && !is_number).then_some((from, at)));
                begun = None;
            }
            (None, false) | (Some(_), true) => {}
        }
        quote = match quote {
            None if inside => Some(char),
            Some(open) if open == char => None,
            other => other,
        };
    }
    words
}

fn has_comment(sql: &str) -> bool {
    sql.contains("--") || sql.contains("/*")
}

/// The statements of the golden files that are accepted.
fn accepted() -> Vec<String> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/domain/scripts");
    let mut accepted = Vec::new();
    for folder in ["sql", "postgres"] {
        let files = std::fs::read_dir(scripts.join(folder)).unwrap().map(|file| file.unwrap().path());
        for text in files.map(|file| std::fs::read_to_string(file).unwrap()) {
            let statements = text.lines().filter_map(|line| line.strip_prefix("> "));
            let statements = statements.filter(|sql| meaning(sql).is_some() && !has_comment(sql));
            accepted.extend(statements.map(str::to_owned));
        }
    }
    accepted.sort_unstable();
    accepted.dedup();
    accepted
}

#[test]
fn a_word_that_is_left_out_makes_a_difference() {
    let accepted = accepted();
    assert!(accepted.len() > 500, "{} statements are accepted", accepted.len());
    let mut idle = Vec::new();
    for sql in &accepted {
        let meant = meaning(sql);
        for (from, to) in words(sql) {
            let without = format!("{} {}", &sql[..from], &sql[to..]);
            if !is_idle(&sql[from..to], &sql[..from]) && meaning(&without) == meant {
                idle.push(format!("{}: {sql}", &sql[from..to]));
            }
        }
    }
    assert!(idle.is_empty(), "{} words say nothing: {idle:#?}", idle.len());
}
