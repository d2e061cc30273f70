//! Reads of one row by its key: the short way gives what the general way gives, and takes nothing else.

use chronos::embedded::Database;
use chronos::sql::bind::{BindContext, Bound, bind};
use chronos::sql::insert::bind_literal_insert;
use chronos::sql::point::PointQuery;
use chronos::sql::translate::{ParseLimits, parse};

const SCRIPT: [&str; 5] = [
    "CREATE TABLE readings (device INT, at TIMESTAMP, name VARCHAR(4), level FLOAT, \"case\" INT, ok BOOL, raw BLOB,
     PRIMARY KEY (device, at))",
    "CREATE TABLE named (name TEXT PRIMARY KEY, level FLOAT)",
    "CREATE TABLE levels (level FLOAT PRIMARY KEY, name TEXT)",
    "CREATE TABLE heap (id INT, level FLOAT)",
    "CREATE TABLE short (id INT PRIMARY KEY, level FLOAT) WITH TTL=1s",
];

fn filled() -> (tempfile::TempDir, Database) {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path()).unwrap();
    for sql in SCRIPT {
        database.execute(sql).unwrap();
    }
    for sql in [
        "INSERT INTO readings VALUES (7, '2024-03-01 10:00:00', 'a', 1.5, 3, TRUE, X'00ff'), (-7, '1970-01-01', NULL, NULL, NULL, NULL, NULL)",
        "INSERT INTO named VALUES ('it''s', 1), ('', 2), ('größe', 3)",
        "INSERT INTO levels VALUES (0, 'zero'), (0.1, 'tenth'), (9007199254740993, 'large'), (-1e300, 'small')",
        "INSERT INTO heap VALUES (1, 1)",
        "INSERT INTO short VALUES (1, 1)",
    ] {
        database.execute(sql).unwrap();
    }
    (directory, database)
}

/// Statements of the short form, with the condition to be put in parentheses for the general way.
const SHORT: [(&str, &str); 19] = [
    ("SELECT * FROM readings WHERE ", "device = 7 AND at = '2024-03-01 10:00:00'"),
    ("select level,name,device from Readings where ", "at='2024-03-01T10:00:00Z'and device=7"),
    ("SELECT level, level FROM readings WHERE ", "device = -7 AND at = '1970-01-01'"),
    ("  SELECT raw, ok, \"level\" FROM readings\nWHERE ", "at = '2024-03-01 10:00:00' AND device = 7"),
    ("SELECT level FROM readings WHERE ", "device = 8 AND at = '2024-03-01 10:00:00'"),
    ("SELECT * FROM named WHERE ", "name = 'it''s'"),
    ("SELECT * FROM named WHERE ", "name = ''"),
    ("SELECT level FROM named WHERE ", "name = 'größe'"),
    ("SELECT level FROM \"named\" WHERE ", "\"name\" = 'nobody'"),
    ("SELECT name FROM levels WHERE ", "level = 0"),
    ("SELECT name FROM levels WHERE ", "level = -0"),
    ("SELECT name FROM levels WHERE ", "level = -0.0"),
    ("SELECT name, level FROM levels WHERE ", "level = 0.1"),
    ("SELECT name FROM levels WHERE ", "level = 0.10000000000000001"),
    ("SELECT name FROM levels WHERE ", "level = 1e-1"),
    ("SELECT name FROM levels WHERE ", "level = -1e300"),
    ("SELECT name FROM levels WHERE ", "level = 9007199254740993"),
    ("SELECT name FROM levels WHERE ", "level = 9007199254740992"),
    ("SELECT * FROM short WHERE ", "id = 1"),
];

#[test]
fn a_read_by_key_gives_what_the_general_way_gives() {
    let (_directory, database) = filled();
    for (select, condition) in SHORT {
        let short = database.execute(&format!("{select}{condition};")).unwrap();
        let general = database.execute(&format!("{select}({condition})")).unwrap();
        assert_eq!(short.columns, general.columns, "{select}{condition}");
        assert_eq!(format!("{:?}", short.rows), format!("{:?}", general.rows), "{select}{condition}");
    }
    let named = database.execute("SELECT level FROM named WHERE name = 'größe'").unwrap();
    assert_eq!(named.rows.len(), 1);
}

#[test]
fn the_short_way_takes_whole_keys_and_plain_literals_alone() {
    let (_directory, database) = filled();
    let catalog = database.group().handle().unwrap().view().catalog;
    let taken = |sql: &str| PointQuery::bind(sql, &catalog).is_some();
    for (select, condition) in &SHORT[..15] {
        assert!(taken(&format!("{select}{condition} ;")), "{select}{condition}");
        assert!(!taken(&format!("{select}({condition})")), "parentheses are the general way's");
    }
    for sql in [
        "SELECT * FROM readings WHERE device = 7",
        "SELECT * FROM readings WHERE device = 7 AND device = 7",
        "SELECT * FROM readings WHERE device = 7 AND at = '2024-03-01' AND ok = TRUE",
        "SELECT * FROM readings WHERE device = 7 OR at = '2024-03-01'",
        "SELECT * FROM readings WHERE device = '7' AND at = '2024-03-01'",
        "SELECT * FROM readings WHERE device = 7.0 AND at = '2024-03-01'",
        "SELECT * FROM readings WHERE device = 7 AND at = 'never'",
        "SELECT * FROM readings WHERE device = NULL AND at = '2024-03-01'",
        "SELECT * FROM readings WHERE device == 7 AND at = '2024-03-01'",
        "SELECT case FROM readings WHERE device = 7 AND at = '2024-03-01'",
        "SELECT level FROM readings r WHERE device = 7 AND at = '2024-03-01'",
        "SELECT level l FROM readings WHERE device = 7 AND at = '2024-03-01'",
        "SELECT nothing FROM readings WHERE device = 7 AND at = '2024-03-01'",
        "SELECT level FROM nothing WHERE device = 7 AND at = '2024-03-01'",
        "SELECT level FROM readings WHERE device = 7 AND at = '2024-03-01' LIMIT 0",
        "SELECT level FROM readings WHERE device = 7 AND at = '2024-03-01'; SELECT 1",
        "SELECT level FROM readings WHERE device = 7 -- AND at = '2024-03-01'",
        "SELECT level FROM levels WHERE level = 9007199254740993",
        "SELECT level FROM heap WHERE id = 1",
        "SELECT readings.level FROM readings WHERE device = 7 AND at = '2024-03-01'",
        "SELECT level FROM readings WHERE device = 9223372036854775808 AND at = '2024-03-01'",
        "SELECT",
        "",
    ] {
        assert!(!taken(sql), "{sql}");
    }
}

#[test]
fn a_word_of_the_grammar_is_a_column_by_the_short_ways_only_where_it_is_one_by_the_general_way() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path()).unwrap();
    let words = sqlparser::keywords::ALL_KEYWORDS.iter().map(|word| word.to_lowercase());
    let words: Vec<String> = words.filter(|word| !word.is_empty() && word != "id").collect();
    let columns: Vec<String> = words.iter().map(|word| format!("\"{word}\" INT")).collect();
    database.execute(&format!("CREATE TABLE words (id INT PRIMARY KEY, {})", columns.join(", "))).unwrap();
    let catalog = database.group().handle().unwrap().view().catalog.clone();
    let context = BindContext { catalog: &catalog, now_us: 0 };
    let general = |sql: &str| parse(sql, &ParseLimits::default()).and_then(|statement| bind(&statement, &context));
    let (mut taken, mut wrong) = (0, Vec::new());
    for word in &words {
        let select = format!("SELECT {word} FROM words WHERE id = 1");
        if let Some(query) = PointQuery::bind(&select, &catalog) {
            taken += 1;
            let general = general(&select);
            if !matches!(&general, Ok(Bound::Query { columns, .. }) if *columns == query.columns()) {
                wrong.push(select);
            }
        }
        let insert = format!("INSERT INTO words (id, {word}) VALUES (1, 2)");
        if bind_literal_insert(&insert, &context).is_some() && !matches!(general(&insert), Ok(Bound::Insert(_))) {
            wrong.push(insert);
        }
    }
    assert!(wrong.is_empty(), "the general way refuses these: {wrong:#?}");
    assert!(taken > words.len() / 2, "most words are names as well: {taken} of {}", words.len());
}

#[test]
fn what_the_short_way_takes_the_general_way_takes_with_the_same_columns() {
    let (_directory, database) = filled();
    let catalog = database.group().handle().unwrap().view().catalog;
    let context = BindContext { catalog: &catalog, now_us: 0 };
    for (select, condition) in SHORT {
        let sql = format!("{select}{condition}");
        let Some(query) = PointQuery::bind(&sql, &catalog) else { continue };
        match bind(&parse(&sql, &ParseLimits::default()).unwrap(), &context).unwrap() {
            Bound::Query { columns, .. } => assert_eq!(query.columns(), columns, "{sql}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
}
