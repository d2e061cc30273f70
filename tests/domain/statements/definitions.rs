//! CREATE and DROP of tables and indexes.

use super::support::*;
use chronos::error::SqlState;
use chronos::sql::value::Value;
use chronos::storage::engine::{Engine, Stop};

#[test]
fn a_table_is_made_once_and_dropped_once() {
    let db = fresh();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    fail(&db, "CREATE TABLE t (id INT)", SqlState::DUPLICATE_TABLE);
    run(&db, "CREATE TABLE IF NOT EXISTS t (other TEXT)");
    run(&db, "INSERT INTO t VALUES (1, 2)");
    assert_eq!(ints(&db, "SELECT id, v FROM t"), [[Some(1), Some(2)]]);
    run(&db, "DROP TABLE t");
    fail(&db, "SELECT * FROM t", SqlState::UNDEFINED_TABLE);
    fail(&db, "DROP TABLE t", SqlState::UNDEFINED_TABLE);
    run(&db, "DROP TABLE IF EXISTS t");
}

#[test]
fn a_table_made_again_is_empty_whatever_the_old_one_held() {
    let world = World::new();
    let mut db = world.open();
    for round in 0..3 {
        run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
        run(&db, "CREATE INDEX by_v ON t (v)");
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 0, "round {round}");
        run(&db, &insert_range("t", 0..3000));
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v = 50"), 1);
        db.group().with_engine(Engine::seal).unwrap();
        run(&db, "DROP TABLE t");
        db = world.restart(db, if round == 1 { Stop::Clean } else { Stop::Abandon });
        fail(&db, "SELECT * FROM t", SqlState::UNDEFINED_TABLE);
    }
}

#[test]
fn an_index_is_made_once_and_dropped_once() {
    let db = fresh();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, "CREATE INDEX by_v ON t (v)");
    fail(&db, "CREATE INDEX by_v ON t (v)", SqlState::DUPLICATE_TABLE);
    run(&db, "CREATE INDEX IF NOT EXISTS by_v ON t (v)");
    fail(&db, "CREATE INDEX ON t (nothing)", SqlState::UNDEFINED_COLUMN);
    fail(&db, "CREATE INDEX ON nothing (v)", SqlState::UNDEFINED_TABLE);
    run(&db, "DROP INDEX by_v");
    fail(&db, "DROP INDEX by_v", SqlState::UNDEFINED_OBJECT);
    run(&db, "DROP INDEX IF EXISTS by_v");
    run(&db, "INSERT INTO t VALUES (1, 1)");
    run(&db, "CREATE INDEX by_v ON t (v)");
    assert_eq!(int(&db, "SELECT id FROM t WHERE v = 1"), 1);
}

#[test]
fn definitions_survive_restarts() {
    let world = World::new();
    let mut db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(3) NOT NULL DEFAULT 'abc', at TIMESTAMP) WITH TTL=7d");
    run(&db, "CREATE INDEX by_name ON t (name)");
    let before = rows(&db, "DESCRIBE t");
    for how in [Stop::Clean, Stop::Abandon, Stop::Clean] {
        db = world.restart(db, how);
        assert_eq!(rows(&db, "DESCRIBE t"), before);
        fail(&db, "CREATE INDEX by_name ON t (name)", SqlState::DUPLICATE_TABLE);
    }
    run(&db, "INSERT INTO t (id) VALUES (1)");
    fail(&db, "INSERT INTO t (id, name) VALUES (2, 'abcd')", SqlState::STRING_TOO_LONG);
}

#[test]
fn defaults_and_names_of_any_characters_survive_restarts() {
    let defaults = [
        (r"'it\''s'", r"it\'s"),
        (r"'\'''", r"\'"),
        (r"'\'", r"\"),
        (r"E'\'\\\n\t'", "'\\\n\t"),
        (r"U&'\0041\\''\+01F680'", r"A\'🚀"),
        (r"$x$it's \' $$ here$x$", r"it's \' $$ here"),
        ("'two\nlines -- /* é'", "two\nlines -- /* é"),
        (r#"'"' || '\"'"#, r#""\""#),
        (r"CASE WHEN 1 - - -1 = 0 THEN 'zero' ELSE '\''' END", "zero"),
        ("CAST(- -1 AS TEXT)", "1"),
        ("(- +1)::TEXT", "-1"),
    ];
    let world = World::new();
    let mut db = world.open();
    let columns: Vec<String> =
        defaults.iter().enumerate().map(|(i, (sql, _))| format!("c{i} TEXT DEFAULT {sql}")).collect();
    run(&db, &format!("CREATE TABLE t (id INT PRIMARY KEY, value INT, {})", columns.join(", ")));
    run(&db, r#"CREATE TABLE "a\""b '" ("c\""" INT PRIMARY KEY, °c INT DEFAULT 7, "\" TEXT DEFAULT '\''')"#);
    run(&db, r#"CREATE INDEX "i\""" ON "a\""b '" (°c, "\")"#);
    let names: Vec<String> = (0..defaults.len()).map(|i| format!("c{i}")).collect();
    let wanted: Vec<Value> = defaults.iter().map(|(_, text)| Value::Text((*text).to_owned())).collect();
    let before = (rows(&db, "DESCRIBE t"), rows(&db, r#"DESCRIBE "a\""b '""#));
    for (id, how) in [Stop::Clean, Stop::Abandon, Stop::Clean].into_iter().enumerate() {
        run(&db, &format!("INSERT INTO t (id) VALUES ({id})"));
        assert_eq!(rows(&db, &format!("SELECT {} FROM t WHERE id = {id}", names.join(", ")))[0], wanted);
        run(&db, &format!(r#"INSERT INTO "a\""b '" ("c\""") VALUES ({id})"#));
        db = world.restart(db, how);
        assert_eq!((rows(&db, "DESCRIBE t"), rows(&db, r#"DESCRIBE "a\""b '""#)), before);
    }
    // What is shown makes the same table again.
    let shown = before.0.iter().skip(2).map(|column| format!("{} TEXT DEFAULT {}", column[0], column[4]));
    run(&db, &format!("CREATE TABLE u (id INT, {})", shown.collect::<Vec<String>>().join(", ")));
    run(&db, "INSERT INTO u (id) VALUES (1)");
    assert_eq!(rows(&db, &format!("SELECT {} FROM u", names.join(", "))), [wanted]);
    assert_eq!(int(&db, r#"SELECT count(*) FROM "a\""b '" WHERE °c = 7 AND "\" = '\'''"#), 3);
    run(&db, r#"DROP INDEX "i\""""#);
    run(&db, r#"DROP TABLE "a\""b '""#);
}

#[test]
fn describe_tells_columns_indexes_and_the_ttl() {
    let db = fresh();
    run(
        &db,
        "CREATE TABLE t (id INT, name VARCHAR(3) NOT NULL DEFAULT 'abc', v FLOAT, at TIMESTAMP, \
         PRIMARY KEY (at, id)) WITH TTL=36h",
    );
    run(&db, "CREATE INDEX by_name ON t (name)");
    run(&db, "CREATE INDEX by_both ON t (v, name)");
    let described = db.execute("DESCRIBE t").unwrap();
    let names: Vec<&str> = described.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["column_name", "data_type", "is_nullable", "key", "column_default", "indexes", "ttl"]);
    let described: Vec<String> = rows(&db, "SHOW COLUMNS FROM t")
        .iter()
        .map(|row| row.iter().map(ToString::to_string).collect::<Vec<String>>().join("|"))
        .collect();
    assert_eq!(
        described,
        [
            "id|INT|NO|primary|NULL|NULL|36h",
            "name|VARCHAR(3)|NO|index|'abc'|by_name (name), by_both (v, name)|36h",
            "v|FLOAT|YES|index|NULL|by_both (v, name)|36h",
            "at|TIMESTAMP|NO|primary|NULL|NULL|36h",
        ]
    );
    run(&db, "DROP INDEX by_both");
    run(&db, "CREATE TABLE forever (id INT)");
    assert_eq!(rows(&db, "DESCRIBE t")[2][5], Value::Null);
    assert_eq!(rows(&db, "DESCRIBE forever")[0][6], Value::Null);
}

#[test]
fn several_tables_are_dropped_by_one_statement_or_none() {
    let db = fresh();
    run(&db, "CREATE TABLE a (id INT)");
    run(&db, "CREATE TABLE b (id INT)");
    fail(&db, "DROP TABLE a, nothing", SqlState::UNDEFINED_TABLE);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM a"), 0);
    run(&db, "DROP TABLE a, b");
    fail(&db, "SELECT * FROM b", SqlState::UNDEFINED_TABLE);
}
