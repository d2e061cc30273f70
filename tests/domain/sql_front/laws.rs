//! Laws: what holds for every statement.

use super::{Front, rows};
use chronos::sql::batch::{Batch, ColumnBuilder};
use chronos::sql::bind::{Bound, bind};
use chronos::sql::insert::bind_literal_insert;
use chronos::sql::plan::{Access, Plan};
use chronos::sql::translate::{ParseLimits, parse, split};
use chronos::sql::value::Value;
use chronos::storage::keys;
use proptest::prelude::*;
use std::sync::Arc;

fn front() -> Front {
    Front::with(&[
        "CREATE TABLE t (a INT, b TEXT, c FLOAT, d BOOL, e TIMESTAMP, f BLOB, PRIMARY KEY (a, b))",
        "CREATE TABLE s (id INT NOT NULL, name VARCHAR(4) DEFAULT 'x', at TIMESTAMP DEFAULT now(), v FLOAT)",
        "CREATE INDEX t_c ON t (c, d)",
    ])
}

/// Words that statements are made of, for texts that come further than random bytes.
const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "t",
    "s",
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "id",
    "name",
    "(",
    ")",
    ",",
    "*",
    "=",
    "<",
    ">",
    "<=",
    "<>",
    "+",
    "-",
    "/",
    "%",
    "||",
    "AND",
    "OR",
    "NOT",
    "IN",
    "BETWEEN",
    "LIKE",
    "ILIKE",
    "ESCAPE",
    "IS",
    "NULL",
    "TRUE",
    "FALSE",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "CAST",
    "AS",
    "INT",
    "TEXT",
    "::",
    "1",
    "-1",
    "1.5",
    "1e3",
    "'x'",
    "''",
    "X'00'",
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "DISTINCT",
    "GROUP",
    "BY",
    "HAVING",
    "ORDER",
    "ASC",
    "DESC",
    "NULLS",
    "FIRST",
    "LAST",
    "LIMIT",
    "OFFSET",
    "INSERT",
    "INTO",
    "VALUES",
    "DEFAULT",
    "UPDATE",
    "SET",
    "DELETE",
    "CREATE",
    "TABLE",
    "INDEX",
    "ON",
    "DROP",
    "IF",
    "EXISTS",
    "PRIMARY",
    "KEY",
    "WITH",
    "TTL",
    "7",
    "7d",
    "INTERVAL",
    "'7 days'",
    "now()",
    "TIMESTAMP",
    "EXPLAIN",
    "ANALYZE",
    "SHOW",
    "TABLES",
    "DESCRIBE",
    "UNION",
    "JOIN",
    "OVER",
    "$1",
    ";",
    "--",
    "/*",
    "*/",
    "\"",
    "'",
    "é",
    "coalesce",
    "nullif",
    "abs",
    "round",
    "[",
    "]",
    ".",
    "EXTRACT",
    "ARRAY",
    "FILTER",
    "\n",
];

fn words() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(WORDS), 0..40).prop_map(|words| words.join(" "))
}

/// A literal for an INSERT, right or wrong for its column.
fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|value| value.to_string()),
        (-1000_i64..1000).prop_map(|value| value.to_string()),
        any::<f64>().prop_map(|value| format!("{value}")),
        any::<f64>().prop_map(|value| format!("{value:e}")),
        (-100_000_i64..100_000, 1_usize..6).prop_map(|(value, places)| format!("{:.places$}", value as f64 / 1e3)),
        "'[a-z'é ]{0,6}'".prop_map(|text| format!("'{}'", text[1..text.len() - 1].replace('\'', "''"))),
        Just("NULL".to_owned()),
        Just("null".to_owned()),
        Just("TRUE".to_owned()),
        Just("false".to_owned()),
        Just("DEFAULT".to_owned()),
        Just("-0".to_owned()),
        Just("-0.0".to_owned()),
        Just("+5".to_owned()),
        Just("- 5".to_owned()),
        Just(".5".to_owned()),
        Just("5.".to_owned()),
        Just("1_000".to_owned()),
        Just("0x1F".to_owned()),
        Just("9223372036854775807".to_owned()),
        Just("-9223372036854775808".to_owned()),
        Just("9223372036854775808".to_owned()),
        Just("123456789012345678901234.5".to_owned()),
        Just("1e400".to_owned()),
        Just("1e-400".to_owned()),
        Just("1 + 1".to_owned()),
        Just("now()".to_owned()),
        Just("X'00ff'".to_owned()),
        Just("X'0'".to_owned()),
        Just("'2024-03-10 12:00:00'".to_owned()),
        Just("'2024-03-10T12:00:00.5Z'".to_owned()),
        Just("'nonsense'".to_owned()),
        Just("E'a\\nb'".to_owned()),
        Just("/* c */ 1".to_owned()),
        Just("1 -- c\n".to_owned()),
    ]
}

/// A literal that mostly fits a column of the type, so that whole rows go the fast way.
fn fitting(column: usize) -> BoxedStrategy<String> {
    let fits = match column {
        0 => any::<i64>().prop_map(|value| value.to_string()).boxed(),
        1 => "[a-z'é]{0,8}".prop_map(|text| format!("'{}'", text.replace('\'', "''"))).boxed(),
        2 => prop_oneof![any::<f64>().prop_map(|value| format!("{value:?}")), "-?[0-9]{1,20}\\.[0-9]{1,25}"].boxed(),
        3 => prop_oneof![Just("TRUE".to_owned()), Just("FALSE".to_owned())].boxed(),
        4 => prop_oneof![Just("'2024-03-10 12:00:00.25'".to_owned()), Just("'1999-12-31'".to_owned())].boxed(),
        _ => "([0-9a-fA-F]{2}){0,4}".prop_map(|digits| format!("X'{digits}'")).boxed(),
    };
    prop_oneof![30 => fits, 1 => literal()].boxed()
}

fn insert() -> impl Strategy<Value = String> {
    let row = (fitting(0), fitting(1), fitting(2), fitting(3), fitting(4), fitting(5))
        .prop_map(|(a, b, c, d, e, f)| format!("({a}, {b},{c} ,{d},{e} , {f})"));
    let all = prop::collection::vec(row, 1..6).prop_map(|rows| format!("INSERT INTO t VALUES {}", rows.join(", ")));
    let some = prop::collection::vec((literal(), literal()), 1..4).prop_map(|rows| {
        let rows: Vec<String> = rows.iter().map(|(id, name)| format!("({id}, {name})")).collect();
        format!("insert into \"s\" (ID, name) values{};", rows.join(","))
    });
    let other =
        (prop::sample::select(vec!["v, id", "id, id", "id, w", "at, id", "id, v, name, at"]), literal(), literal())
            .prop_map(|(columns, first, second)| format!("INSERT INTO s ({columns}) VALUES ({first}, {second})"));
    prop_oneof![3 => all, 2 => some, 1 => other]
}

/// A condition over the key (a INT, b TEXT) and c FLOAT.
fn condition() -> impl Strategy<Value = String> {
    let number = (-3_i64..4).prop_map(|value| value.to_string());
    let real = prop::sample::select(vec!["-1.5", "0.0", "-0.0", "2.0", "2.5", "1e300", "9007199254740993.0"]);
    let text = prop::sample::select(vec!["''", "'a'", "'ab'", "'b'", "'a%'", "'é'"]);
    let operator =
        prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"]);
    let leaf = prop_oneof![
        (operator.clone(), number.clone()).prop_map(|(operator, value)| format!("a {operator} {value}")),
        (operator.clone(), number.clone()).prop_map(|(operator, value)| format!("{value} {operator} a")),
        (operator.clone(), real.clone()).prop_map(|(operator, value)| format!("a {operator} {value}")),
        (operator.clone(), real.clone()).prop_map(|(operator, value)| format!("c {operator} {value}")),
        (operator, text.clone()).prop_map(|(operator, value)| format!("b {operator} {value}")),
        (number.clone(), number.clone()).prop_map(|(low, high)| format!("a BETWEEN {low} AND {high}")),
        prop::collection::vec(number, 1..4).prop_map(|list| format!("a IN ({})", list.join(", "))),
        (real.clone(), real).prop_map(|(x, y)| format!("a IN ({x}, {y})")),
        prop::collection::vec(text, 1..3).prop_map(|list| format!("b IN ({}, NULL)", list.join(", "))),
        prop::sample::select(vec![
            "b LIKE 'a%'",
            "b LIKE 'a_'",
            "b LIKE 'ab'",
            "b LIKE '%'",
            "b LIKE 'a\\%%'",
            "b NOT LIKE 'a%'",
            "c IS NULL",
            "c IS NOT NULL",
            "a IS NULL",
            "a = NULL",
            "TRUE",
            "FALSE",
            "NULL",
            "d",
            "NOT d",
            "d IS TRUE",
            "d IS NOT FALSE",
            "a + 1 = 2",
            "c = a",
            "lower(b) = 'a'",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(|terms| format!("({})", terms.join(" AND "))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|terms| format!("({})", terms.join(" OR "))),
            inner.prop_map(|term| format!("NOT ({term})")),
        ]
    })
}

/// Some rows of `t`: every combination of a few values.
fn sample() -> Vec<[Value; 6]> {
    let mut all = Vec::new();
    for a in [-4, -3, -1, 0, 1, 2, 3, 5, 1 << 60] {
        for b in ["", "a", "a%", "a\0", "aa", "ab", "b", "é"] {
            for (c, d) in [
                (Value::Null, Value::Null),
                (Value::Float(-0.0), Value::Bool(true)),
                (Value::Float(2.0), Value::Bool(false)),
                (Value::Float(2.25), Value::Bool(true)),
                (Value::Float(f64::NAN), Value::Bool(false)),
                (Value::Float(f64::NEG_INFINITY), Value::Null),
            ] {
                let row = [Value::Int(a), Value::Text(b.to_owned()), c, d, Value::Null, Value::Null];
                all.push(row);
            }
        }
    }
    all
}

fn batch(front: &Front) -> Batch {
    let table = front.catalog.table("t").unwrap();
    let rows = sample();
    let columns = table.columns.iter().enumerate().map(|(i, column)| {
        let mut builder = ColumnBuilder::new(column.data_type, rows.len());
        rows.iter().for_each(|row| builder.push(&row[i]));
        Arc::new(builder.finish())
    });
    Batch::new(columns.collect(), rows.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_text_never_panics(sql in ".{0,200}") {
        let _ = front().prepare(&sql);
        let _ = split(&sql);
    }

    #[test]
    fn words_in_any_order_never_panic(sql in words()) {
        let front = front();
        for prefix in ["", "SELECT ", "SELECT a FROM t WHERE ", "INSERT INTO t VALUES (", "CREATE TABLE x (a ", "UPDATE t SET c = "] {
            let _ = front.prepare(&format!("{prefix}{sql}"));
        }
        let parts = split(&sql).all();
        prop_assert!(parts.iter().map(|part| part.len()).sum::<usize>() <= sql.len());
    }

    #[test]
    fn an_error_points_into_the_statement(sql in words()) {
        let sql = format!("SELECT {sql}");
        if let Err(error) = front().prepare(&sql) && let Some(position) = error.position() {
            let chars = sql.chars().count() as u32;
            prop_assert!((1..=chars + 1).contains(&position), "{error:?} at {position} of {chars}: {sql}");
        }
    }

    #[test]
    fn an_insert_of_literals_binds_the_same_both_ways(sql in insert()) {
        let front = front();
        let context = front.context();
        let fast = bind_literal_insert(&sql, &context);
        let slow = parse(&sql, &ParseLimits::default()).and_then(|statement| bind(&statement, &context));
        if let Some(fast) = fast {
            let Ok(Bound::Insert(slow)) = slow else {
                panic!("the fast way took what the general way refuses: {sql}");
            };
            prop_assert_eq!(rows(&fast), rows(&slow), "{}", sql);
            prop_assert_eq!(format!("{:?}", fast.columns), format!("{:?}", slow.columns), "{}", sql);
        }
    }

    #[test]
    fn a_row_that_passes_has_its_key_in_the_ranges(condition in condition()) {
        let front = front();
        let batch = batch(&front);
        let sql = format!("SELECT * FROM t WHERE {condition}");
        let statement = parse(&sql, &ParseLimits::default()).unwrap();
        let context = front.context();
        let Ok(Bound::Query { plan, .. }) = bind(&statement, &context) else { panic!("does not bind: {sql}") };
        let Plan::Project { input, .. } = &plan else { panic!("{plan:?}") };
        let Plan::Filter { predicate, .. } = &**input else { panic!("{plan:?}") };
        let passing = predicate.evaluate(&batch).unwrap();
        let Ok(Bound::Query { plan: optimized, .. }) = front.prepare(&sql) else { panic!("does not bind: {sql}") };
        let scan = match &optimized {
            Plan::Project { input, .. } => input,
            plan => plan,
        };
        let Plan::Scan { table, access, columns, bounds, filter } = scan else { panic!("{optimized:?}") };
        // What the scan's filter says of each row, over the columns that the scan reads.
        let read = |id: &chronos::ids::ColumnId| {
            let position = table.columns.iter().position(|column| column.id == *id).unwrap();
            Arc::clone(&batch.columns[position])
        };
        let scanned = Batch { columns: columns.iter().map(read).collect(), rows: batch.rows };
        let kept = filter.as_ref().map(|filter| filter.evaluate(&scanned).unwrap());
        for row in 0..batch.rows {
            let values = batch.row(row);
            let passes = passing.value(row) == Value::Bool(true);
            let key = match access {
                Access::Primary { .. } => keys::encode(&values[..2]),
                Access::Index { .. } => keys::encode(&[values[2].clone(), values[3].clone(), values[0].clone(), values[1].clone()]),
            };
            let (Access::Primary { ranges } | Access::Index { ranges, .. }) = access;
            let within = ranges.iter().any(|range| range.contains(&key));
            let met = bounds.iter().all(|bound| {
                let value = values[table.columns.iter().position(|column| column.id == bound.column).unwrap()].clone();
                !value.is_null()
                    && bound.min.as_ref().is_none_or(|min| value.order(min).is_ge())
                    && bound.max.as_ref().is_none_or(|max| value.order(max).is_le())
            });
            let kept = kept.as_ref().is_none_or(|kept| kept.value(row) == Value::Bool(true));
            prop_assert!(!passes || (within && met), "{condition}: {values:?} is lost in {access:?} {bounds:?}");
            // The filter that is left, within the ranges, decides exactly.
            prop_assert_eq!(passes, within && kept, "{}: {:?} in {:?} under {:?}", condition, values, access, filter);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].to.as_ref().is_some_and(|to| *to <= pair[1].from)));
        }
    }
}
