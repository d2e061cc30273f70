//! Whatever a string or a quoted name holds, a statement with it is read, and a DEFAULT is stored as what reads back as
//! the same.
//!
//! What the parser has read is printed, to look for words in it and to store defaults; its printer doubles no quote
//! behind a backslash, and puts no space between signs.

use chronos::sql::statement::Statement;
use chronos::sql::translate::{ParseLimits, parse, parse_expression};
use proptest::prelude::*;

/// What strings are made of: what ends them, what would be read as something else outside of them, and letters.
const PIECES: &[&str] = &[
    "'",
    "'",
    "\\",
    "\\",
    "\"",
    "\"",
    "\n",
    "\r\n",
    "\t",
    " ",
    ";",
    "--",
    "/*",
    "*/",
    "$$",
    "$x$",
    "E'",
    "U&'",
    "X'",
    "%",
    "+",
    "-",
    "a",
    "b",
    "x41",
    "é",
    "°",
    "🚀",
    "\u{a0}",
    "status",
    "VALUE",
    "SELECT",
    "AUTO_INCREMENT",
    "DESC",
];

/// Statements of every kind, each with `{s}` for strings and `{n}` for a quoted name; between them they have words that
/// are keywords of the parser's and names here.
const TEMPLATES: &[&str] = &[
    "CREATE TABLE {n} (a TEXT DEFAULT {s} NOT NULL, {n} INT, b TEXT DEFAULT {s} || {s}, value FLOAT, PRIMARY KEY ({n}))",
    "CREATE TABLE IF NOT EXISTS t (°c TEXT DEFAULT CASE WHEN {s} = {s} THEN {s} ELSE upper({s}) END, b INT) WITH TTL=7d",
    "CREATE UNIQUE INDEX IF NOT EXISTS {n} ON {n} (value, {n} ASC)",
    "DROP TABLE IF EXISTS {n}, status, {n}",
    "DROP INDEX {n}",
    "INSERT INTO {n} (value, {n}) VALUES ({s}, 1), ({s}, -2)",
    "UPDATE {n} AS u SET note = {s}, value = {s} WHERE status = {s} AND name LIKE {s} OR u.type IN ({s}, {s})",
    "DELETE FROM {n} WHERE value = {s} OR {n}.type IS DISTINCT FROM {s}",
    "SELECT {s} AS {n}, value, {n}.*, CAST({s} AS BLOB), {s}::INT FROM t AS {n} WHERE {s} < value ORDER BY status, {s}",
    "VALUES ({s}, value)",
    "EXPLAIN ANALYZE SELECT value FROM t WHERE year BETWEEN {s} AND {s}",
    "SELECT TIMESTAMP {s}, count(*) AS status FROM {n} GROUP BY {s}, month HAVING {s} IS NULL",
    "DESCRIBE {n}",
    "SHOW COLUMNS FROM {n}",
];

/// How a string is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    Plain,
    Escaped,
    Doubled,
    Unicode,
    Dollars,
}

fn quoted(text: &str, quote: char) -> String {
    format!("{quote}{}{quote}", text.replace(quote, &format!("{quote}{quote}")))
}

fn written(text: &str, form: Form) -> String {
    let backslashes = || text.replace('\\', "\\\\");
    match form {
        Form::Plain => quoted(text, '\''),
        Form::Escaped => {
            format!("E'{}'", backslashes().replace('\'', "\\'").replace('\n', "\\n").replace('a', "\\x61"))
        }
        Form::Doubled => format!("E{}", quoted(&backslashes(), '\'')),
        Form::Unicode => format!("U&{}", quoted(&backslashes().replace('🚀', "\\+01F680"), '\'')),
        Form::Dollars => format!("$tag${text}$tag$"),
    }
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..7).prop_map(|pieces| pieces.concat())
}

fn form() -> impl Strategy<Value = Form> {
    prop::sample::select(&[Form::Plain, Form::Plain, Form::Escaped, Form::Doubled, Form::Unicode, Form::Dollars][..])
}

fn fill(template: &str, string: &str, name: &str) -> String {
    template.replace("{s}", string).replace("{n}", &quoted(name, '"'))
}

/// A tree without the places of its parts.
fn placeless(tree: &impl std::fmt::Debug) -> String {
    let text = format!("{tree:?}");
    text.split("position: ").map(|part| part.trim_start_matches(|char: char| char.is_ascii_digit())).collect()
}

/// That the stored text of each default reads back as what it was stored for.
fn check_defaults(sql: &str, statement: &Statement) {
    let Statement::CreateTable(create) = statement else { return };
    for default in create.columns.iter().filter_map(|column| column.default.as_ref()) {
        let again = parse_expression(&default.text, &ParseLimits::default());
        let again = again.unwrap_or_else(|error| panic!("{error}: {} of {sql}", default.text));
        assert_eq!(placeless(&again), placeless(&default.expression), "{} of {sql}", default.text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_statement_is_read_whatever_its_strings_and_names_hold(string in text(), form in form(), name in text()) {
        let name = if name.is_empty() { "\\" } else { &name };
        for template in TEMPLATES {
            let sql = fill(template, &written(&string, form), name);
            let statement = parse(&sql, &ParseLimits::default()).unwrap_or_else(|error| panic!("{error}: {sql}"));
            let debug = format!("{statement:?}");
            let strings = debug.matches(&format!("Quoted({string:?})")).count();
            prop_assert_eq!(strings, template.matches("{s}").count(), "{}: {}", sql, debug);
            let names = debug.matches(&format!("text: {name:?}")).count();
            prop_assert!(names >= template.matches("{n}").count(), "{}: {}", sql, debug);
            check_defaults(&sql, &statement);
        }
    }

    #[test]
    fn an_error_repeats_a_string_as_it_was(string in text(), form in form(), name in text()) {
        let string = written(&string, form);
        let name = if name.is_empty() { "\\" } else { &name };
        let templates = ["SELECT 1 AS {s}", "SELECT 1 {n} {s}", "SELECT a FROM t {n} {n}", "SELECT INTERVAL {s}",
            "CREATE TABLE t (a INT) WITH (ttl = {s})", "CREATE TABLE t (a {n})", "CREATE TABLE t (a INT) WITH ({n} = 1)",
            "SELECT {s} ~ {n}", "INSERT INTO t VALUES {s}", "SELECT a::{n}", "SELECT {n}({s} {s})"];
        for sql in templates.map(|template| fill(template, &string, name)) {
            if let Err(error) = parse(&sql, &ParseLimits::default()) {
                let text = format!("{}{}", error.message(), error.hint_text().unwrap_or_default());
                prop_assert!(!text.contains('\0'), "{}: {:?}", sql, text);
            }
        }
    }
}

#[test]
fn a_default_is_stored_as_what_reads_back_as_the_same() {
    for default in [
        r"'it\''s'",
        r"'\'''",
        r"'\'",
        r"E'\'\\\n\t'",
        r"E'\\'",
        r"U&'\0041\\''\+01F680'",
        "$$it's \\' here$$",
        "$a$ $$ $a$",
        "'two\nlines'\n'joined'",
        r#"'"' || '\"'"#,
        "X'00ff'",
        "- -1",
        "- - -1",
        "-(-1)",
        "- +1",
        "+ -1",
        "1 - -1",
        "1- - -(2)",
        "-1::INT",
        "(-1)::INT",
        "- -9223372036854775807",
        "NOT NOT TRUE",
        "NOT (TRUE AND FALSE) OR NULL",
        "(1 + 2) * 3 % 2",
        "1 - (2 - 3)",
        "CAST(1 AS VARCHAR(5)) || 'x'",
        "CASE WHEN 1 > 2 THEN - -1 ELSE 2 END",
        "CASE 1 WHEN 1 THEN 'a' END",
        "now() - INTERVAL '7 days'",
        "INTERVAL '7' DAY + now()",
        "TIMESTAMP '2024-01-01 00:00:00'",
        "TIMESTAMP WITH TIME ZONE '2024-01-01 00:00:00Z'",
        "CURRENT_TIMESTAMP",
        "1e3",
        "1.50",
        ".5",
        "1_000",
        "1 IN (1, 2)",
        "1 NOT BETWEEN 1 AND 2",
        r"'a' LIKE '\'''",
        r"'a' NOT ILIKE 'b' ESCAPE '\'",
        "1 IS NOT DISTINCT FROM 2",
        "NULL ISNULL",
        "NULL NOTNULL",
        "TRUE IS NOT UNKNOWN",
        "coalesce(NULL, 'x')",
        "floor(1.5) + ceil(2.5)",
        r#""lower"('A')"#,
    ] {
        for sql in [
            format!("CREATE TABLE t (a INT, b TEXT DEFAULT {default}, status INT)"),
            format!("CREATE TABLE t (b TEXT DEFAULT ({default}))"),
        ] {
            let statement = parse(&sql, &ParseLimits::default()).unwrap_or_else(|error| panic!("{error}: {sql}"));
            check_defaults(&sql, &statement);
        }
    }
}

#[test]
fn a_name_may_begin_with_any_character_that_is_not_ascii() {
    for name in ["°c", "🚀", "é", "ß", "_a", "a$b", "日本", "\u{301}x", "€uro", "µs", "²x", "¼", "\u{a0}a"]
    {
        for sql in [
            format!("CREATE TABLE t ({name} FLOAT)"),
            format!("CREATE TABLE {name} (id INT PRIMARY KEY, b {name} INT)")
                .replace(&format!("b {name}"), &format!("b{name}")),
            format!("DROP TABLE {name}"),
            format!("CREATE INDEX {name} ON {name} ({name}, id)"),
            format!("DROP INDEX IF EXISTS {name}"),
            format!("SELECT {name}.{name} AS {name}, value FROM {name} AS {name}"),
            format!("INSERT INTO {name} ({name}, status) VALUES (1, 2)"),
            format!("UPDATE {name} SET {name} = 1, status = 2"),
        ] {
            assert!(parse(&sql, &ParseLimits::default()).is_ok(), "{sql}: {:?}", parse(&sql, &ParseLimits::default()));
        }
    }
}
