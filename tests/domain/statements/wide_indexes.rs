//! An index that finds too many rows is left aside, unless something rests on its order: the rows are the same.

use super::support::*;
use chronos::embedded::Database;
use chronos::sql::value::Value;
use chronos::storage::engine::{Engine, Stop};
use proptest::prelude::*;

const ROWS: i64 = 12_000;
const COLUMNS: &str = "id INT PRIMARY KEY, a INT, b TEXT, c INT";

/// Rows whose indexed column is in no order: each value from 0 to 999 twelve times.
fn insert(table: &str, ids: std::ops::Range<i64>) -> String {
    let tuples: Vec<String> =
        ids.map(|id| format!("({id}, {}, 'b{}', {})", id * 7919 % 1000, id % 5, ROWS - id)).collect();
    format!("INSERT INTO {table} VALUES {}", tuples.join(", "))
}

fn fill(db: &Database, table: &str) {
    for from in (0..ROWS).step_by(3000) {
        run(db, &insert(table, from..from + 3000));
    }
}

/// `t` with indexes, all of it in blocks.
fn filled(world: &World) -> Database {
    let db = world.open();
    run(&db, &format!("CREATE TABLE t ({COLUMNS})"));
    run(&db, "CREATE INDEX by_a ON t (a)");
    run(&db, "CREATE INDEX by_c ON t (c)");
    fill(&db, "t");
    db.group().with_engine(Engine::seal).unwrap();
    db
}

fn plan(db: &Database, sql: &str) -> String {
    let lines = rows(db, &format!("EXPLAIN {sql}"));
    let lines: Vec<String> = lines.iter().map(|row| row[0].to_string()).collect();
    lines.join("\n")
}

fn assert_plan(db: &Database, sql: &str, has: &[&str], has_not: &[&str]) {
    let plan = plan(db, sql);
    assert!(has.iter().all(|part| plan.contains(part)), "{sql}: {plan}");
    assert!(!has_not.iter().any(|part| plan.contains(part)), "{sql}: {plan}");
}

#[test]
fn a_wide_index_is_left_aside_and_a_narrow_one_is_not() {
    let world = World::new();
    let db = filled(&world);
    let table = "Scan t by primary key";
    for (wide, narrow) in [
        ("SELECT * FROM t WHERE a >= 0 AND a < 500", "SELECT * FROM t WHERE a >= 0 AND a < 50"),
        ("SELECT b FROM t WHERE a > 5 AND a < 900 ORDER BY c", "SELECT b FROM t WHERE a = 5 ORDER BY c"),
        (
            "SELECT b, COUNT(*) FROM t WHERE a > 5 AND a < 900 GROUP BY b",
            "SELECT b, COUNT(*) FROM t WHERE a = 7 GROUP BY b",
        ),
        ("UPDATE t SET b = 'x' WHERE a > 5 AND a < 900", "UPDATE t SET b = 'x' WHERE a = 5"),
        ("DELETE FROM t WHERE a > 5 AND a < 900", "DELETE FROM t WHERE a IN (5, 6)"),
    ] {
        assert_plan(&db, wide, &[table], &["by_a"]);
        assert_plan(&db, narrow, &["by index by_a"], &[table]);
    }
    // One row, in a block of which all others are not asked for.
    assert_plan(&db, "SELECT * FROM t WHERE c = 77", &["by index by_c"], &[]);
    assert_plan(&db, "UPDATE t SET b = 'x' WHERE c = 77", &["by index by_c"], &[]);
    // Nothing is looked up.
    assert_plan(&db, "SELECT id, a FROM t WHERE a > 5 AND a < 900", &["by index by_a"], &[]);
    // EXPLAIN ANALYZE runs what it shows: a scan of blocks, not a look-up of some hundred rows at a time.
    let figures = plan(&db, "ANALYZE SELECT * FROM t WHERE a >= 0 AND a < 500");
    assert!(figures.contains("by primary key") && figures.contains("rows=6000 "), "{figures}");
}

#[test]
fn rows_in_memory_alone_count_as_rows_of_their_table() {
    let world = World::new();
    let db = world.open();
    run(&db, &format!("CREATE TABLE t ({COLUMNS})"));
    run(&db, &insert("t", 0..3000));
    run(&db, "UPDATE t SET b = 'x'");
    let rows = |db: &Database| {
        let view = db.group().handle().unwrap().view();
        view.rows_about(view.catalog.table("t").unwrap().keyspace)
    };
    assert_eq!(rows(&db), 3000);
    db.group().with_engine(Engine::seal).unwrap();
    assert_eq!(rows(&db), 3000);
    run(&db, &insert("t", 3000..3100));
    assert_eq!(rows(&db), 3100);
}

#[test]
fn what_rests_on_the_order_of_an_index_keeps_it() {
    let world = World::new();
    let db = filled(&world);
    for kept in [
        "SELECT * FROM t WHERE a >= 10 AND a < 900 ORDER BY a LIMIT 5",
        "SELECT * FROM t WHERE a >= 10 AND a < 900 ORDER BY a",
        "SELECT MIN(a) FROM t WHERE a >= 10 AND a < 900 AND b <> 'x'",
        "SELECT * FROM t WHERE a >= 10 AND a < 900 LIMIT 5 OFFSET 2",
    ] {
        assert_plan(&db, kept, &["by index by_a"], &["Sort", "primary key"]);
    }
    for left in [
        // Nothing says how many rows must be looked at before five of them pass.
        "SELECT * FROM t WHERE a >= 10 AND a < 900 AND b = 'none' LIMIT 5",
        "SELECT * FROM t WHERE a >= 10 AND a < 900 LIMIT 5000",
        "SELECT MAX(a) FROM t WHERE a >= 10 AND a < 900 AND b <> 'x'",
    ] {
        assert_plan(&db, left, &["by primary key"], &["by_a"]);
    }
    // The other order is made by a sort, over whatever is read.
    assert_plan(&db, "SELECT * FROM t WHERE a >= 10 AND a < 900 ORDER BY a DESC", &["Sort", "by primary key"], &[]);
    let first = rows(&db, "SELECT a FROM t WHERE a >= 10 AND a < 900 AND b <> 'x' ORDER BY a LIMIT 25");
    let expected: Vec<Vec<Value>> = (0..25).map(|at| vec![Value::Int(10 + at / 12)]).collect();
    assert_eq!(first, expected);
    assert_eq!(int(&db, "SELECT MIN(a) FROM t WHERE a >= 10 AND a < 900 AND b <> 'x'"), 10);
}

/// What a condition may be asked for, and how.
const SHAPES: [&str; 5] = [
    "SELECT id, a, b, c FROM {} WHERE {?} ORDER BY id",
    "SELECT id, a, b, c FROM {} WHERE {?} ORDER BY a, id",
    "SELECT id, a, b, c FROM {} WHERE {?} ORDER BY a, id LIMIT 40 OFFSET 3",
    "SELECT b, COUNT(*), MIN(c), MAX(a) FROM {} WHERE {?} GROUP BY b ORDER BY b",
    "SELECT MIN(a), COUNT(b) FROM {} WHERE {?}",
];

fn condition() -> impl Strategy<Value = String> {
    let range = (-50i64..1050, prop_oneof![0i64..5, 0i64..1100]);
    let other = prop_oneof![2 => Just(""), 1 => Just(" AND b <> 'b3'"), 1 => Just(" AND c > 6000")];
    (range, other).prop_map(|((from, more), other)| format!("a >= {from} AND a < {}{other}", from + more))
}

fn change() -> impl Strategy<Value = String> {
    prop_oneof![
        condition().prop_map(|on| format!("UPDATE {{}} SET a = (a * 31 + id) % 1000 WHERE {on}")),
        (condition(), 0i64..4000).prop_map(|(on, id)| format!("DELETE FROM {{}} WHERE {on} AND id < {id}")),
        (0i64..9).prop_map(|from| insert("{}", ROWS + from * 500..ROWS + from * 500 + 400)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn wide_or_narrow_the_rows_are_those_of_a_scan(
        changes in proptest::collection::vec((change(), 0u8..6), 0..6),
        asked in proptest::collection::vec((condition(), 0..SHAPES.len()), 12),
    ) {
        let world = World::new();
        let mut db = filled(&world);
        run(&db, &format!("CREATE TABLE plain ({COLUMNS})"));
        fill(&db, "plain");
        for (sql, event) in &changes {
            let [ours, plain] = ["t", "plain"].map(|table| db.execute(&sql.replace("{}", table)).map(|done| done.affected));
            prop_assert_eq!(ours.ok(), plain.ok(), "{}", sql);
            match event {
                0 => db = world.restart(db, Stop::Abandon),
                1 => db.group().with_engine(Engine::seal).unwrap(),
                _ => {}
            }
        }
        for (condition, shape) in &asked {
            let sql = SHAPES[*shape].replace("{?}", condition);
            let [ours, plain] = ["t", "plain"].map(|table| rows(&db, &sql.replace("{}", table)));
            prop_assert_eq!(ours, plain, "{}\n{}", sql, plan(&db, &sql.replace("{}", "t")));
        }
    }
}
