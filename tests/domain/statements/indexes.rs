//! What an index answers is what a scan answers, whatever was done to the rows, and what SQLite answers.

use super::support::*;
use chronos::embedded::Database;
use chronos::sql::value::Value;
use chronos::storage::engine::{Engine, Stop};
use proptest::prelude::*;
use rusqlite::Connection;

/// Conditions on the indexed columns, as both dialects write them.
const CONDITIONS: [&str; 6] =
    ["a = 3", "a > 5 AND a <= 8", "a >= 2 AND a < 7", "a IN (1, 4, 8)", "b = 'x'", "b >= 'x' AND a < 5"];

/// One statement: most change a few rows, some all.
fn statement() -> impl Strategy<Value = String> {
    let id = 0i64..60;
    let a = prop_oneof![4 => (0i64..10).prop_map(|a| a.to_string()), 1 => Just("NULL".to_string())];
    let b = prop_oneof![Just("'x'"), Just("'y'"), Just("''"), Just("NULL")];
    let condition = prop_oneof![
        proptest::sample::select(CONDITIONS.to_vec()).prop_map(str::to_string),
        id.clone().prop_map(|id| format!("id = {id}")),
        (id.clone(), 1i64..30).prop_map(|(id, more)| format!("id >= {id} AND id < {}", id + more)),
    ];
    prop_oneof![
        5 => proptest::collection::vec((id, a.clone(), b.clone()), 1..8).prop_map(|rows| {
            let rows: Vec<String> = rows.iter().map(|(id, a, b)| format!("({id}, {a}, {b})")).collect();
            format!("INSERT INTO t (id, a, b) VALUES {}", rows.join(", "))
        }),
        2 => (condition.clone(), a, b).prop_map(|(on, a, b)| format!("UPDATE t SET a = {a}, b = {b} WHERE {on}")),
        2 => condition.clone().prop_map(|on| format!("UPDATE t SET a = a + 1 WHERE {on}")),
        // No order in which rows are moved collides with another row.
        1 => condition.clone().prop_map(|on| format!("UPDATE t SET id = id + 1000 WHERE {on} AND id < 1000")),
        2 => condition.prop_map(|on| format!("DELETE FROM t WHERE {on}")),
        1 => Just("DELETE FROM t ".to_string()),
    ]
}

fn triples(database: &Database, condition: &str) -> Vec<Vec<Value>> {
    rows(database, &format!("SELECT id, a, b FROM t WHERE {condition} ORDER BY id"))
}

fn theirs(connection: &Connection, condition: &str) -> Vec<Vec<Value>> {
    let mut query = connection.prepare(&format!("SELECT id, a, b FROM t WHERE {condition} ORDER BY id")).unwrap();
    let value = |value: rusqlite::types::Value| match value {
        rusqlite::types::Value::Null => Value::Null,
        rusqlite::types::Value::Integer(value) => Value::Int(value),
        rusqlite::types::Value::Text(value) => Value::Text(value),
        other => panic!("{other:?} was never written"),
    };
    let rows = query.query_map([], |row| (0..3).map(|i| Ok(value(row.get(i)?))).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

/// The plans of these conditions go through an index, or the property says nothing.
fn assert_uses_index(database: &Database, condition: &str) {
    let plan = rows(database, &format!("EXPLAIN SELECT id, a, b FROM t WHERE {condition}"));
    let text = format!("{plan:?}");
    assert!(text.contains("by_"), "no index for {condition}: {text}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn index_answer_is_scan_answer_is_sqlite_s(
        statements in proptest::collection::vec((statement(), 0u8..30), 4..40),
        late in any::<bool>(),
    ) {
        let world = World::new();
        let mut db = world.open();
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b TEXT)").unwrap();
        run(&db, "CREATE TABLE t (id INT PRIMARY KEY, a INT, b TEXT)");
        run(&db, "CREATE TABLE plain (id INT PRIMARY KEY, a INT, b TEXT)");
        let indexes = |db: &Database| {
            run(db, "CREATE INDEX by_a ON t (a)");
            run(db, "CREATE INDEX by_b ON t (b, a)");
        };
        if !late {
            indexes(&db);
        }
        for (sql, event) in &statements {
            let ours = db.execute(sql).map(|done| done.affected);
            let theirs = connection.execute(sql, []).map(|rows| rows as u64);
            prop_assert_eq!(ours.as_ref().ok(), theirs.as_ref().ok(), "{}: {:?}", sql, ours);
            // What fails there fails here, and leaves both as they were.
            let same = db.execute(&sql.replacen(" t ", " plain ", 1)).map(|done| done.affected);
            prop_assert_eq!(same.ok(), ours.ok(), "{}", sql);
            match event {
                0 => db = world.restart(db, Stop::Abandon),
                1 => db = world.restart(db, Stop::Clean),
                2 => db.group().with_engine(Engine::seal).unwrap(),
                _ => {}
            }
        }
        if late {
            indexes(&db);
        }
        for condition in CONDITIONS {
            assert_uses_index(&db, condition);
            let expected = theirs(&connection, condition);
            prop_assert_eq!(&triples(&db, condition), &expected, "{}", condition);
            let scan = rows(&db, &format!("SELECT id, a, b FROM plain WHERE {condition} ORDER BY id"));
            prop_assert_eq!(&scan, &expected, "scan: {}", condition);
        }
        prop_assert_eq!(triples(&db, "id = id"), theirs(&connection, "1"));
    }
}

#[test]
fn an_index_made_late_holds_every_row() {
    let world = World::new();
    let mut db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    for from in (0..12_500).step_by(2_500) {
        run(&db, &insert_range("t", from..from + 2_500));
    }
    run(&db, "CREATE INDEX by_v ON t (v)");
    run(&db, "UPDATE t SET v = -1 WHERE id = 12499");
    for how in [Stop::Abandon, Stop::Clean] {
        let plan = format!("{:?}", rows(&db, "EXPLAIN SELECT id FROM t WHERE v = 124980"));
        assert!(plan.contains("by_v"), "{plan}");
        for id in [0, 3_999, 4_000, 8_000, 12_498] {
            assert_eq!(ints(&db, &format!("SELECT id FROM t WHERE v = {}", id * 10)), [[Some(id)]]);
        }
        assert_eq!(ints(&db, "SELECT id FROM t WHERE v = -1"), [[Some(12_499)]]);
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v = 124990"), 0);
        assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v >= 40000 AND v < 80000"), 4_000);
        db = world.restart(db, how);
    }
}

#[test]
fn rows_written_while_an_index_is_built_are_in_it() {
    let db = fresh();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    for from in (0..20_000).step_by(2_500) {
        run(&db, &insert_range("t", from..from + 2_500));
    }
    std::thread::scope(|scope| {
        let db = &db;
        let builder = scope.spawn(move || run(db, "CREATE INDEX by_v ON t (v)"));
        for turn in 0..60 {
            run(db, &format!("UPDATE t SET v = v + 1000000 WHERE id = {}", turn * 331));
            run(db, &format!("INSERT INTO t VALUES ({}, 5)", 100_000 + turn));
            run(db, &format!("DELETE FROM t WHERE id = {}", turn * 331 + 1));
        }
        builder.join().unwrap();
    });
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v >= 1000000"), 60);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v = 5"), 60);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v >= 0"), 20_000);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 20_000);
}
