//! The largest statements on little memory: rows are gathered by their bytes, not by their number alone.

use super::support::*;
use chronos::embedded::Database;
use chronos::error::SqlState;
use chronos::ids::{ColumnId, KeyspaceId};
use chronos::sql::catalog::Catalog;
use chronos::sql::evaluate::KEY_BYTES_MAX;
use chronos::sql::value::Value;
use chronos::storage::engine::Stop;
use chronos::storage::keys::KeyRange;
use chronos::storage::level::BlockEntry;
use chronos::storage::view::{ScanRequest, View};
use std::sync::Arc;

/// What a batch may have at most: the MiB that is aimed at, and a large row more.
const BYTES_MAX: usize = 5 << 18;

fn view(db: &Database) -> View {
    db.group().handle().unwrap().view()
}

fn keyspace(catalog: &Catalog, table: &str) -> KeyspaceId {
    catalog.table(table).unwrap().keyspace
}

/// The blocks of a table in all levels.
fn blocks(db: &Database, table: &str) -> Vec<Arc<BlockEntry>> {
    let view = view(db);
    let keyspace = keyspace(&view.catalog, table);
    view.levels.blocks.iter().flat_map(|level| level.manifest.blocks(keyspace).to_vec()).collect()
}

/// Rows and bytes of each batch of a scan of all columns.
fn batches(db: &Database, table: &str) -> Vec<(usize, usize)> {
    let view = view(db);
    let columns: Vec<ColumnId> = view.catalog.table(table).unwrap().columns.iter().map(|column| column.id).collect();
    let mut scanner = view
        .scan(ScanRequest {
            keyspace: keyspace(&view.catalog, table),
            ranges: vec![KeyRange::all()],
            columns,
            bounds: vec![],
            expired_below_ms: 0,
            with_keys: true,
            batch_rows: 1024,
        })
        .unwrap();
    let mut batches = Vec::new();
    while let Some(found) = scanner.next_batch().unwrap() {
        let rows = found.batch.rows;
        batches.push((rows, found.batch.columns.iter().map(|column| column.bytes_between(0, rows)).sum()));
    }
    batches
}

/// A table of texts that are all alike, 40 of them, of 128 KiB: encoded they are next to nothing.
fn alike_texts(world: &World) -> Database {
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT, s TEXT)");
    let text = "x".repeat(128 << 10);
    for id in 0..40 {
        run(&db, &format!("INSERT INTO t VALUES ({id}, 0, '{text}')"));
    }
    db
}

#[test]
fn blocks_and_batches_of_large_rows_hold_few_of_them() {
    let world = World::new();
    let db = alike_texts(&world);
    assert!(batches(&db, "t").iter().all(|(_, bytes)| *bytes <= BYTES_MAX), "in memtables: {:?}", batches(&db, "t"));
    run(&db, "UPDATE t SET v = v + 1");
    let db = world.restart(db, Stop::Clean);
    let found = batches(&db, "t");
    assert_eq!(found.iter().map(|(rows, _)| rows).sum::<usize>(), 40);
    assert!(found.iter().all(|(_, bytes)| *bytes <= BYTES_MAX), "sealed: {found:?}");
    let rows: Vec<u32> = blocks(&db, "t").iter().map(|block| block.summary.rows).collect();
    assert!(rows.iter().all(|rows| *rows <= 8), "{rows:?}");
    // Rows that are looked up come by their bytes too: by their keys, and by an index.
    run(&db, "CREATE INDEX by_v ON t (v)");
    let ids: Vec<String> = (0..40).map(|id| id.to_string()).collect();
    for condition in [format!("id IN ({})", ids.join(", ")), "v = 1".to_owned()] {
        assert_eq!(rows_of(&db, &format!("SELECT id, s FROM t WHERE {condition}")), 40, "{condition}");
    }
    assert_eq!(run(&db, "UPDATE t SET v = 2 WHERE v = 1"), 40);
    assert_eq!(ints(&db, "SELECT COUNT(*), MIN(v), MAX(v) FROM t"), [[Some(40), Some(2), Some(2)]]);
}

fn rows_of(db: &Database, sql: &str) -> usize {
    let found = rows(db, sql);
    assert!(found.iter().all(|row| matches!(&row[1], Value::Text(text) if text.len() == 128 << 10)));
    found.len()
}

#[test]
fn rows_of_a_wide_table_share_blocks() {
    let world = World::new();
    let db = world.open();
    let columns: Vec<String> = (0..800).map(|i| format!("c{i} INT")).collect();
    run(&db, &format!("CREATE TABLE t (id INT PRIMARY KEY, {})", columns.join(", ")));
    for from in (0..200).step_by(50) {
        let row = |id: i64| {
            let values: Vec<String> = (0..800).map(|i| (id * i).to_string()).collect();
            format!("({id}, {})", values.join(", "))
        };
        let tuples: Vec<String> = (from..from + 50).map(row).collect();
        run(&db, &format!("INSERT INTO t VALUES {}", tuples.join(", ")));
    }
    assert_eq!(run(&db, "UPDATE t SET c7 = c7 + 1"), 200);
    run(&db, "CREATE TABLE other (id INT PRIMARY KEY, v INT)");
    // Flushed, not sealed: these are blocks of the hot store.
    while !view(&db).levels.memtables.iter().all(|memtable| memtable.keyspaces().is_empty())
        && blocks(&db, "t").iter().map(|block| block.summary.rows).sum::<u32>() < 200
    {
        run(&db, &insert_range("other", next(&db)..next(&db) + 500));
    }
    let blocks = blocks(&db, "t");
    assert!(blocks.len() <= 24, "{} blocks of {} rows", blocks.len(), blocks[0].summary.rows);
    assert_eq!(int(&db, "SELECT SUM(c7) FROM t"), (0..200).map(|id| id * 7 + 1).sum::<i64>());
}

/// The least id that is free in `other`.
fn next(db: &Database) -> i64 {
    int(db, "SELECT COUNT(*) FROM other")
}

#[test]
fn one_value_set_in_all_rows_is_written_out_a_portion_at_a_time() {
    let mut world = World::new();
    world.options.statements.effects_bytes_max = 1 << 20;
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, "CREATE TABLE s (id INT PRIMARY KEY, s TEXT)");
    let tuples: Vec<String> = (0..1000).map(|id| format!("({id}, '')")).collect();
    run(&db, &format!("INSERT INTO s VALUES {}", tuples.join(", ")));
    let error = fail(&db, &format!("UPDATE s SET s = '{}'", "x".repeat(100_000)), SqlState::LIMIT_EXCEEDED);
    let rows: usize = error.message().split_once('(').unwrap().1.split_once(' ').unwrap().0.parse().unwrap();
    assert!((10..30).contains(&rows), "it was refused before all of them were in memory: {error}");
}

#[test]
fn a_key_longer_than_an_index_may_have_is_refused_wherever_it_comes_from() {
    let world = World::new();
    let db = world.open();
    let (long, short) = ("k".repeat(KEY_BYTES_MAX), "k".repeat(KEY_BYTES_MAX - 100));
    run(&db, "CREATE TABLE p (name TEXT PRIMARY KEY)");
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, s TEXT, v INT)");
    let own = fail(&db, &format!("INSERT INTO p VALUES ('{long}')"), SqlState::LIMIT_EXCEEDED);
    assert!(own.message().contains("exceeds maximum 8192 for index \"p_pkey\""), "{own}");
    assert_eq!(run(&db, &format!("INSERT INTO p VALUES ('{short}')")), 1);
    assert_eq!(run(&db, &format!("INSERT INTO t VALUES (1, '{long}', 1), (2, '{short}', 2)")), 2);
    let index = "CREATE INDEX by_s ON t (v, s)";
    let entry = fail(&db, index, SqlState::LIMIT_EXCEEDED);
    assert!(entry.message().contains("for index \"by_s\""), "{entry}");
    run(&db, "UPDATE t SET s = 'short' WHERE id = 1");
    run(&db, index);
    for sql in [
        format!("INSERT INTO t VALUES (3, '{long}', 3)"),
        format!("INSERT INTO t (id, s) VALUES (3, '{long}' || 'x')"),
        "UPDATE t SET s = s || s WHERE id = 2".to_owned(),
    ] {
        fail(&db, &sql, SqlState::LIMIT_EXCEEDED);
        assert_eq!(batch(&db, &["UPDATE t SET v = 9", &sql]).unwrap_err().sqlstate(), SqlState::LIMIT_EXCEEDED);
    }
    assert_eq!(ints(&db, "SELECT id, v FROM t ORDER BY id"), [[Some(1), Some(1)], [Some(2), Some(2)]]);
}

/// An INSERT of so many rows that its text is read in slices.
fn long_insert(ids: &[i64]) -> String {
    let tuples: Vec<String> = ids.iter().map(|id| format!("({id}, {}, 'row {id} it''s{:90}')", id * 10, "")).collect();
    format!("INSERT INTO t (id, v, s) VALUES {};", tuples.join(", "))
}

#[test]
fn a_long_insert_is_read_in_slices_and_means_what_a_short_one_means() {
    let mut world = World::new();
    world.options.statements.slice_bytes_max = 256 << 10;
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, s TEXT, v INT NOT NULL, d TEXT DEFAULT 'none')");
    let ordered: Vec<i64> = (0..12_000).collect();
    assert!(long_insert(&ordered).len() > 1 << 20);
    assert_eq!(run(&db, &long_insert(&ordered)), 12_000);
    let scattered: Vec<i64> = (0..12_007).map(|i| 12_000 + i * 7919 % 12_007).collect();
    assert_eq!(run(&db, &long_insert(&scattered)), 12_007);
    let all = ints(&db, "SELECT COUNT(*), SUM(v - id * 10), MIN(id), MAX(id) FROM t");
    assert_eq!(all, [[Some(24_007), Some(0), Some(0), Some(24_006)]]);
    let row = rows(&db, "SELECT s, d FROM t WHERE id = 23999");
    assert_eq!(row, [[Value::Text(format!("row 23999 it's{:90}", "")), Value::Text("none".into())]]);
    // One that is there, one that comes twice, one that is none: nothing of the statement stays.
    let more = |last: i64| (100_000..112_000).chain([last]).collect::<Vec<i64>>();
    assert!(fail(&db, &long_insert(&more(7)), SqlState::UNIQUE_VIOLATION).message().contains("(id)=(7)"));
    assert!(fail(&db, &long_insert(&more(100_001)), SqlState::UNIQUE_VIOLATION).message().contains("=(100001)"));
    let wrong = long_insert(&more(112_000)).replace("(112000, 1120000,", "(112000, NULL,");
    let error = fail(&db, &wrong, SqlState::NOT_NULL_VIOLATION);
    assert_eq!(error.position(), Some(wrong.find("NULL").unwrap() as u32 + 1), "the row is parsed by itself: {error}");
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 24_007);
    run(&db, "CREATE TABLE u (id INT, v INT, s TEXT)");
    assert_eq!(run(&db, &long_insert(&scattered).replacen("INTO t", "INTO u", 1)), 12_007, "rows without a key");
}

#[test]
fn odd_rows_of_a_long_insert_are_read_one_by_one() {
    let mut world = World::new();
    world.options.statements.slice_bytes_max = 256 << 10;
    let db = world.open();
    let odd = |ids: &[i64]| {
        let sql = long_insert(ids).replace("it''s", "its");
        let third = format!("({}, {}, ", ids[2], ids[2] * 10);
        let sql = sql.replacen(&third, &format!("/* third */ ({}, 5 * 2 * {}, ", ids[2], ids[2]), 1);
        let last = format!("({}, {}, ", ids[ids.len() - 1], ids[ids.len() - 1] * 10);
        sql.replacen(&last, &format!("({}, -(-{}0), E'' || ", ids[ids.len() - 1], ids[ids.len() - 1]), 1) + "; -- end"
    };
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, s TEXT, v INT NOT NULL, d TEXT DEFAULT 'none')");
    let (ordered, scattered): (Vec<i64>, Vec<i64>) =
        ((1..12_001).collect(), (0..12_007).map(|i| 13_000 + i * 7919 % 12_007).collect());
    assert!(odd(&ordered).len() > 1 << 20);
    assert_eq!(run(&db, &odd(&ordered)), 12_000);
    assert_eq!(run(&db, &odd(&scattered)), 12_007);
    // Above what is parsed as a whole, below what is read in slices.
    let few: Vec<i64> = (50_000..55_000).collect();
    assert!((64 << 10..1 << 20).contains(&odd(&few).len()));
    assert_eq!(run(&db, &odd(&few)), 5_000);
    let others: Vec<i64> = (60_000..72_000).collect();
    let made = odd(&others).replacen("INTO t", "INTO made", 1);
    batch(&db, &["CREATE TABLE made (id INT PRIMARY KEY, s TEXT, v INT)", &made, &odd(&others)]).unwrap();
    let all =
        ints(&db, "SELECT COUNT(*), SUM(v - id * 10), SUM(length(s) - length('row ' || id || ' its') - 90) FROM t");
    assert_eq!(all, [[Some(12_000 + 12_007 + 5_000 + 12_000), Some(0), Some(0)]]);
    assert_eq!(ints(&db, "SELECT COUNT(*), SUM(v - id * 10) FROM made"), [[Some(12_000), Some(0)]]);
    // What is wrong is said by its place, and nothing of the statement stays.
    let wrong: Vec<i64> = (80_000..92_000).collect();
    let with = |from: &str, to: &str| odd(&wrong).replacen(from, to, 1);
    let says = |sql: &str, state: SqlState, at: &str, what: &str| {
        let error = fail(&db, sql, state);
        assert_eq!(error.position(), Some(sql.find(at).unwrap() as u32 + 1), "{error}");
        assert!(error.to_string().contains(what), "{error}");
        let in_batch = batch(&db, &["INSERT INTO t VALUES (99999999, '', 1)", sql]).unwrap_err();
        assert_eq!((in_batch.sqlstate(), in_batch.position()), (state, error.position()), "{in_batch}");
    };
    says(&with("(85000, 850000,", "(85000, 8 / 0,"), SqlState::DIVISION_BY_ZERO, "8 / 0", "division");
    says(&with("(91999, -(-919990),", "(91999, 1, 2,"), SqlState::SYNTAX_ERROR, "E'' ||", "same length");
    says(&with("(85000, 850000,", "(85000 850000,"), SqlState::SYNTAX_ERROR, "850000, 'row", "850000");
    says(&with("INTO t ", "INTO tt "), SqlState::UNDEFINED_TABLE, "tt (", "\"tt\" does not exist");
    says(&with("(id, v", "(id, w"), SqlState::UNDEFINED_COLUMN, "w, s)", "\"w\"");
    let refused = fail(&db, &with("VALUES", "VALUE"), SqlState::FEATURE_NOT_SUPPORTED);
    assert!(refused.to_string().contains("VALUE"), "{refused}");
    says(&with("INSERT", "INSRT"), SqlState::SYNTAX_ERROR, "INSRT", "INSRT");
    says(&with(";; -- end", " ON CONFLICT DO NOTHING"), SqlState::FEATURE_NOT_SUPPORTED, "INSERT", "ON CONFLICT");
    says(&with(";; -- end", ", (1, 2, 'three"), SqlState::SYNTAX_ERROR, "'three", "nterminated");
    assert_eq!(ints(&db, "SELECT COUNT(*), COUNT(*) FROM t WHERE id >= 80000"), [[Some(0), Some(0)]]);
}

#[test]
fn a_long_in_list_finds_what_a_short_one_finds() {
    let db = fresh();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT, f FLOAT, s TEXT, at TIMESTAMP)");
    let tuple =
        |id: i64| format!("({id}, {}, {id}.5, 's{id}', '2024-01-01 00:{:02}:{:02}')", id % 7, id / 60 % 60, id % 60);
    let tuples: Vec<String> = (0..3000).map(tuple).collect();
    run(&db, &format!("INSERT INTO t VALUES {}", tuples.join(", ")));
    run(&db, "UPDATE t SET v = NULL WHERE id = 8");
    let list = |item: &dyn Fn(i64) -> String| (-1500..1500).map(|i| item(i * 2)).collect::<Vec<String>>().join(", ");
    let count = |condition: &str| int(&db, &format!("SELECT COUNT(*) FROM t WHERE {condition}"));
    assert_eq!(count(&format!("id IN ({})", list(&|i| i.to_string()))), 1500);
    assert_eq!(count(&format!("id NOT IN ({})", list(&|i| i.to_string()))), 1500);
    assert_eq!(count(&format!("NOT v IN ({})", list(&|i| i.to_string()))), 3000 - 4 * 3000 / 7 - 1);
    assert_eq!(count(&format!("f - 0.5 IN ({})", list(&|i| i.to_string()))), 1500);
    assert_eq!(count(&format!("f IN ({})", list(&|i| format!("{i}.5")))), 1500);
    assert_eq!(count(&format!("s IN ({}) AND id > 100", list(&|i| format!("'s{i}'")))), 1449);
    let times: Vec<String> = (0..1200).map(|i| format!("'2024-01-01 00:{:02}:{:02}'", i / 60, i % 60)).collect();
    assert_eq!(count(&format!("at IN ({})", times.join(","))), 1200);
    assert_eq!(count(&format!("id IN ({}, NULL)", list(&|i| i.to_string()))), 1500);
    // So many that what lies between the least and the greatest is read: the greatest is a row too.
    let some = |ids: &mut dyn Iterator<Item = i64>| ids.map(|id| id.to_string()).collect::<Vec<String>>().join(", ");
    let (low, high) = (some(&mut (-9000..0)), some(&mut (-6001..3000).filter(|id| id % 2 != 0)));
    assert_eq!(count(&format!("id IN ({low}) OR id IN ({low}, {high})")), 1500);
    assert_eq!(count(&format!("id IN ({low}) OR id IN ({high})")), 1500);
    assert_eq!(run(&db, &format!("DELETE FROM t WHERE id IN ({})", list(&|i| i.to_string()))), 1500);
    let wrong =
        fail(&db, &format!("SELECT 1 FROM t WHERE s IN ({})", list(&|i| i.to_string())), SqlState::UNDEFINED_FUNCTION);
    assert!(wrong.to_string().contains("TEXT = INT"), "{wrong}");
}

#[test]
fn lists_that_look_for_the_answers_of_other_lists_take_no_copies_of_them() {
    let db = fresh();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, s TEXT, b BOOL)");
    run(&db, "INSERT INTO t VALUES (1, 'a', TRUE), (2, 'b', FALSE), (3, NULL, TRUE)");
    let listed = |value: &str, odd: &str| format!("({}, {odd})", vec![value; 1_200].join(","));
    let found = |condition: &str| ints(&db, &format!("SELECT id FROM t WHERE {condition} ORDER BY id"));
    let nested = |operator: &str, odd: &str| {
        (0..60).fold(format!("s {operator} {}", listed("'a'", "NULL")), |inner, _| {
            format!("({inner}) IN {}", listed("'t'", odd))
        })
    };
    for odd in ["NULL", "b", "NULL, NOT b, b AND b"] {
        assert_eq!(found(&nested("IN", odd))[0], [Some(1)], "{odd}");
        assert!(found(&nested("NOT IN", "NULL")).is_empty());
    }
    // Several kinds, and what none of them is.
    let mixed = format!("({}, {}, id + 1)", vec!["2"; 1_500].join(","), vec!["3.0"; 1_500].join(","));
    assert_eq!(found(&format!("id + 0 IN {mixed}")), [[Some(2)], [Some(3)]]);
    assert_eq!(found(&format!("id + 0 NOT IN {mixed}")), [[Some(1)]]);
    assert_eq!(found(&format!("NOT (id IN {mixed})")), [[Some(1)]]);
    assert_eq!(found(&format!("id IN {}", listed("3", "NULL"))), [[Some(3)]]);
    assert!(found(&format!("id NOT IN {}", listed("3", "NULL"))).is_empty());
}

/// What a query answers for a list that is short, and for one with 3,000 more values on either side of an item; and where
/// the item stands in both.
fn both_lists(db: &Database, condition: &str, value: &dyn Fn(i64) -> String, item: &str) {
    let written = |around: i64| {
        let values = |from: i64| (from..from + around).map(value).collect::<Vec<String>>().join(", ");
        let before = format!("SELECT id FROM t WHERE s <> 'é' AND {}({}, ", condition, values(100_000));
        let shift = before.chars().count();
        (format!("{before}{item}, {}) AND id + 0 < 90 ORDER BY id", values(200_000)), shift as u32)
    };
    let ((short_text, at), (long, moved)) = (written(3), written(3_000));
    match (db.execute(&short_text), db.execute(&long)) {
        (Ok(short), Ok(long)) => assert_eq!(short.rows, long.rows, "{condition} {item}"),
        (Err(short), Err(long)) => {
            assert_eq!(short.to_string(), long.to_string(), "{condition} {item}");
            let head = short_text.find(" IN (").unwrap() as u32;
            let place = |position: u32| if position <= head { position } else { position + moved - at };
            assert_eq!(long.position(), short.position().map(place), "{condition} {item}: {long}");
        }
        (short, long) => panic!("{short:?} became {long:?}: {condition} {item}"),
    }
}

#[test]
fn a_long_in_list_with_an_odd_item_means_what_a_short_one_means() {
    let mut world = World::new();
    world.options.statements.query_bytes_max = 2 << 20;
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT, f FLOAT, s TEXT, at TIMESTAMP)");
    let tuple = |id: i64| {
        let (v, f) = if id % 5 == 0 { ("NULL".into(), "NULL".into()) } else { (id.to_string(), format!("{id}.5")) };
        format!("({id}, {v}, {f}, 's{id}', '2024-01-01 00:00:{:02}')", id % 60)
    };
    run(&db, &format!("INSERT INTO t VALUES {}", (0..100).map(tuple).collect::<Vec<String>>().join(", ")));
    let (int, float, text, time): (
        &dyn Fn(i64) -> String,
        &dyn Fn(i64) -> String,
        &dyn Fn(i64) -> String,
        &dyn Fn(i64) -> String,
    ) = (&|i| i.to_string(), &|i| format!("{i}.25"), &|i| format!("'t{i}'"), &|i| {
        format!("'2025-01-01 00:{:02}:{:02}'", i / 60 % 60, i % 60)
    });
    let any = [
        "NULL",
        "7",
        "-7",
        "7.5",
        "3 + 4",
        "v",
        "f",
        "(7)",
        "/* seven */ 7",
        "7 -- seven\n",
        "'7'",
        "NULL, 7, NULL, 8",
        "1, 2.5, '3', 4 + 0",
        "length('seven!!')",
        "9223372036854775807",
        "99999999999999999999",
        "- 7",
        "+7",
        "7.",
        ".5",
        "1e0",
        "",
        "7 8",
        "x",
        "now()",
        "TRUE",
        "1 / 0",
        "CASE WHEN TRUE THEN 7 END",
        "(SELECT 1)",
        "7, 7, 7",
    ];
    for item in any {
        for (column, value) in [("id", int), ("v", int), ("f", int), ("v", float), ("f", float)] {
            both_lists(&db, &format!("{column} IN "), value, item);
            both_lists(&db, &format!("{column} NOT IN "), value, item);
            both_lists(&db, &format!("NOT {column} IN "), value, item);
        }
    }
    for item in [
        "NULL",
        "'s7'",
        "E's7'",
        "'s' || '7'",
        "s",
        "upper('s7')",
        "7",
        "'s7'\n'x'",
        "'s7' 'x'",
        "$$s7$$",
        "'it''s', NULL",
    ] {
        for condition in ["s IN ", "s NOT IN "] {
            both_lists(&db, condition, text, item);
        }
    }
    for item in ["NULL", "'2024-01-01 00:00:07'", "TIMESTAMP '2024-01-01 00:00:07'", "at", "'x'", "now()", "7"] {
        for condition in ["at IN ", "at NOT IN "] {
            both_lists(&db, condition, time, item);
        }
    }
}

#[test]
fn what_is_wrong_in_a_long_in_list_is_said_at_its_place() {
    let db = fresh();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, s TEXT)");
    let list = |wrong: &str| {
        (0..4000).map(|i| if i == 3000 { wrong.into() } else { format!("'{i}'") }).collect::<Vec<String>>()
    };
    let place = |sql: &str, wrong: &str| Some(sql[..sql.find(wrong).unwrap()].chars().count() as u32 + 1);
    let sql = format!("SELECT s FROM t WHERE s = 'é' AND id IN ({}) AND s = 'b'", list("'x'").join(","));
    let error = fail(&db, &sql, SqlState::INVALID_TEXT);
    assert_eq!(error.position(), place(&sql, "'x'"), "{error}");
    assert!(error.to_string().contains("\"x\""), "{error}");
    let sql = format!("SELECT s FROM t WHERE id > 0 AND length(s) IN ({})", list("'1.5'").join(","));
    assert_eq!(fail(&db, &sql, SqlState::INVALID_TEXT).position(), place(&sql, "'1.5'"));
}

#[test]
fn a_long_in_list_is_memory_of_its_query_for_as_long_as_its_stream_lives() {
    let mut world = World::new();
    (world.options.statements.query_bytes_max, world.options.query_bytes_max) = (2_200_000, 2_200_000);
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, f FLOAT, s TEXT)");
    run(&db, "INSERT INTO t VALUES (1, 2.0, '3')");
    let sql = |column: &str, quote: &str, values: usize| {
        let list: Vec<String> = (0..values).map(|i| format!("{quote}{i}{quote}")).collect();
        format!("SELECT id FROM t WHERE {column} IN ({})", list.join(","))
    };
    let state = |sql: &str| db.query(sql).err().map(|error| error.sqlstate());
    // Some 800 KB each, twice that where one becomes a set of another type.
    for (column, quote, values) in [("id", "", 100_000), ("f", "", 100_000), ("s", "'", 80_000), ("id", "'", 80_000)] {
        let sql = sql(column, quote, values);
        let first = db.query(&sql).unwrap();
        let second = if column == "id" && quote.is_empty() { Some(db.query(&sql).unwrap()) } else { None };
        assert_eq!(state(&sql), Some(SqlState::OUT_OF_MEMORY), "{column} {quote}: not counted");
        drop((first, second));
        assert_eq!(state(&sql), None, "{column} {quote}: not given back");
    }
    let error = fail(&db, &sql("id", "", 300_000), SqlState::OUT_OF_MEMORY);
    assert!(error.to_string().contains("parsing a statement of"), "{error}");
    assert_eq!(int(&db, &format!("SELECT COUNT(*) FROM t WHERE id IN ({})", vec!["1"; 200_000].join(","))), 1);
}

#[test]
fn parsing_a_long_text_takes_from_the_pool_and_is_refused_by_name_where_it_has_too_little() {
    let mut world = World::new();
    world.options.statements.query_bytes_max = 4 << 20;
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    let sum = |terms: i64| {
        format!("INSERT INTO t VALUES {}", (0..terms).map(|i| format!("({i},1+1)")).collect::<Vec<_>>().join(","))
    };
    assert_eq!(run(&db, &sum(1000)), 1000);
    let terms = |terms: i64| (0..terms).map(|i| format!("{i}+1")).collect::<Vec<_>>().join(",");
    let long = format!("DELETE FROM t WHERE id IN ({})", terms(12_000));
    let error = fail(&db, &long, SqlState::OUT_OF_MEMORY);
    assert!(error.to_string().contains("limits.query_memory_bytes"), "{error}");
    let error = batch(&db, &["UPDATE t SET v = 3", &long]).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::OUT_OF_MEMORY);
    assert_eq!(int(&db, "SELECT SUM(v) FROM t"), 2000);
    // A batch of many short ones is no long text, and means the same where its trees are not kept.
    let many: Vec<String> =
        (0..6000).map(|i| format!("INSERT INTO t VALUES ({}, 7) /* {:30} */", 5000 + i, "")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(batch(&db, &many).unwrap().len(), 6000);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE v = 7"), 6000);
}

#[test]
fn an_insert_of_literals_in_a_batch_takes_and_means_what_it_does_by_itself() {
    let mut world = World::new();
    world.options.statements.query_bytes_max = 1 << 20;
    let db = world.open();
    let rows = |wrong: &str| {
        let row = |id: i64| if id == 9_000 { wrong.to_owned() } else { format!("({id}, {id}, {}.5)", id * 3) };
        (0..10_000).map(row).collect::<Vec<String>>().join(", ")
    };
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL, f FLOAT)");
    let insert = format!("INSERT INTO t VALUES {}", rows("(9000, 9000, 1.0)"));
    let done = batch(&db, &["UPDATE t SET v = 1", &insert, "UPDATE t SET v = v + 1 WHERE id < 10"]).unwrap();
    assert_eq!(done.iter().map(|one| one.affected).collect::<Vec<u64>>(), [0, 10_000, 10]);
    // Into a table that the batch itself makes.
    let other = insert.replacen("INTO t", "INTO u", 1);
    batch(&db, &["CREATE TABLE u (id INT PRIMARY KEY, v INT, f FLOAT)", &other, "DELETE FROM u WHERE id > 9"]).unwrap();
    assert_eq!(int(&db, "SELECT COUNT(*) FROM u"), 10);
    let single = fail(&db, &insert, SqlState::UNIQUE_VIOLATION);
    assert_eq!(batch(&db, &[&insert]).unwrap_err().sqlstate(), single.sqlstate());
    for wrong in ["(9000, NULL, 1.0)", "(9000, 'x', 1.0)", "(9000, 1)", "(9000, 1, 1.0"] {
        let long = format!("INSERT INTO t VALUES {} -- {}", rows(wrong), "é".repeat(1 << 20));
        let single = db.execute(&long).unwrap_err();
        let error = batch(&db, &["DELETE FROM u", &long]).unwrap_err();
        assert_eq!((error.sqlstate(), error.position()), (single.sqlstate(), single.position()), "{wrong}: {error}");
        assert!(error.message().contains(single.message()), "{wrong}: {error}, {single}");
        assert!(single.position().is_some(), "{wrong}: {single}");
    }
    assert_eq!(int(&db, "SELECT COUNT(*) FROM u"), 10);
}

#[test]
fn a_row_that_no_answer_could_carry_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path()).unwrap();
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, body TEXT, more TEXT)").unwrap();
    let text = "x".repeat(9 << 20);
    database.execute(&format!("INSERT INTO t VALUES (1, '{text}', ''), (2, 'y', '')")).unwrap();
    let refused = database.execute("UPDATE t SET more = body || more").unwrap_err();
    assert_eq!(refused.sqlstate(), SqlState::LIMIT_EXCEEDED, "{refused}");
    assert!(refused.message().contains("exceeds maximum 16777216 for table \"t\""), "{refused}");
    let lengths = database.execute("SELECT length(body) FROM t ORDER BY id").unwrap().rows;
    assert_eq!(lengths, [vec![Value::Int(9 << 20)], vec![Value::Int(1)]], "nothing took effect");
    assert_eq!(database.execute("UPDATE t SET body = 'z' || body").unwrap().affected, 2);
}

#[test]
fn values_that_grow_beyond_their_batch_are_computed_in_parts() {
    let world = World::new();
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, s TEXT)");
    let tuples: Vec<String> = (0..300).map(|id| format!("({id}, '{id:01000}')")).collect();
    run(&db, &format!("INSERT INTO t VALUES {}", tuples.join(", ")));
    // 300 texts of 128,000 bytes.
    let long = (0..7).fold("s".to_owned(), |long, _| format!("({long} || {long})"));
    assert_eq!(
        ints(&db, &format!("SELECT COUNT(*), COUNT({long}) FROM t WHERE {long} >= '00'")),
        [[Some(300), Some(300)]]
    );
    let mut streamed = 0;
    for row in db.query(&format!("SELECT {long} FROM t")).unwrap() {
        assert!(matches!(&row.unwrap().values()[0], Value::Text(text) if text.len() == 128_000));
        streamed += 1;
    }
    assert_eq!(streamed, 300);
    assert_eq!(run(&db, &format!("UPDATE t SET s = {long}")), 300);
    for row in db.query("SELECT s FROM t WHERE id IN (0, 299)").unwrap() {
        assert!(matches!(&row.unwrap().values()[0], Value::Text(text) if text.len() == 128_000));
    }
    // Of a single row it is an error, before it is made.
    fail(&db, &format!("SELECT {long} || {long} FROM t WHERE id = 1"), SqlState::LIMIT_EXCEEDED);
}
