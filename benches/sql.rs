//! Statements through the embedded database, everything durable: what a program waits for.
//!
//! The scenarios of the first version, by name (batches of 100 and 1,000 rows, 1,000 rows one at a time and ten at a
//! time, each with and without TTL, full scans), and those that are measured against SQLite on the same rows in the
//! same run: SQLite with WAL, `synchronous=FULL`, prepared statements and 1,000-row transactions.
//!
//! Directories are temporary and on disk: where the system's temporary directory is memory, set TMPDIR. With `--test`
//! each scenario runs once, on less data.

use chronos::embedded::Database;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::fmt::Write as _;
use std::hint::black_box;
use tempfile::TempDir;

const DEVICES: i64 = 50;

/// Rows of the aggregate; fewer where criterion only tests that everything runs.
fn million() -> i64 {
    if std::env::args().any(|argument| argument == "--test") { 10_000 } else { 1_000_000 }
}

/// Row i of the series: 50 devices interleaved by time, values that look like temperatures.
fn reading(i: i64) -> (i64, i64, f64) {
    let value = 85.0 + ((i * 7919) % 2269) as f64 / 100.0 + 1.7e-7 * (i / 22_695) as f64;
    (i % DEVICES, 1_700_000_000 + 10 * (i / DEVICES), value)
}

/// One INSERT of `rows` rows from row `first` on.
fn insert(table: &str, first: i64, rows: i64) -> String {
    let mut sql = format!("INSERT INTO {table} VALUES ");
    for i in first..first + rows {
        let (device, ts, value) = reading(i);
        let separator = if i == first { "" } else { ", " };
        write!(sql, "{separator}({device}, {ts}, {value})").expect("a string takes text");
    }
    sql
}

fn open() -> (TempDir, Database) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = Database::open(directory.path()).expect("a new database");
    (directory, database)
}

fn run(database: &Database, sql: &str) {
    database.execute(sql).unwrap_or_else(|error| panic!("{error}: {}", &sql[..sql.len().min(100)]));
}

fn create(database: &Database, ttl: &str) {
    run(database, &format!("CREATE TABLE readings (device INT, ts INT, value FLOAT, PRIMARY KEY (device, ts)){ttl}"));
}

fn filled(rows: i64) -> (TempDir, Database) {
    let (directory, database) = open();
    create(&database, "");
    for first in (0..rows).step_by(1_000) {
        run(&database, &insert("readings", first, (rows - first).min(1_000)));
    }
    (directory, database)
}

const TTLS: [(&str, &str); 2] = [("without TTL", ""), ("with TTL", " WITH TTL=7d")];

/// `statements` of `rows` each, against a table that grows: every statement writes new rows.
fn insert_batches(c: &mut Criterion) {
    let shapes = [
        ("batch of 100 rows", 100, 1),
        ("batch of 1000 rows", 1_000, 1),
        ("1 row x 1000", 1, 1_000),
        ("10 rows x 100", 10, 100),
    ];
    let mut group = c.benchmark_group("insert");
    group.sample_size(10);
    for (name, rows, statements) in shapes {
        for (ttl_name, ttl) in TTLS {
            group.throughput(Throughput::Elements((rows * statements) as u64));
            group.bench_function(format!("{name}, {ttl_name}"), |bencher| {
                let (_directory, database) = open();
                create(&database, ttl);
                let mut next = 0;
                let prepare = || {
                    let first = next;
                    next += rows * statements;
                    (0..statements).map(|at| insert("readings", first + at * rows, rows)).collect::<Vec<String>>()
                };
                let write = |statements: Vec<String>| statements.iter().for_each(|sql| run(&database, sql));
                bencher.iter_batched(prepare, write, BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

fn full_scans(c: &mut Criterion) {
    let mut group = c.benchmark_group("full scan");
    for rows in [100, 1_000] {
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(format!("{rows} rows"), |bencher| {
            let (_directory, database) = filled(rows);
            bencher.iter(|| black_box(database.execute("SELECT * FROM readings").expect("a scan").rows.len()));
        });
    }
    group.finish();
}

fn sqlite() -> (TempDir, rusqlite::Connection) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let connection = rusqlite::Connection::open(directory.path().join("sqlite.db")).expect("a new file");
    let setup = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
        CREATE TABLE readings (device INTEGER, ts INTEGER, value REAL, PRIMARY KEY (device, ts)) WITHOUT ROWID;";
    connection.execute_batch(setup).expect("pragmas and a table");
    (directory, connection)
}

/// One transaction of `rows` prepared inserts.
fn sqlite_insert(connection: &mut rusqlite::Connection, first: i64, rows: i64) {
    let transaction = connection.transaction().expect("a transaction");
    let mut statement = transaction.prepare_cached("INSERT INTO readings VALUES (?1, ?2, ?3)").expect("a statement");
    for i in first..first + rows {
        statement.execute(reading(i)).expect("a new row");
    }
    drop(statement);
    transaction.commit().expect("room on the disk");
}

fn insert_against_sqlite(c: &mut Criterion) {
    const ROWS: i64 = 1_000;
    let mut group = c.benchmark_group("1000-row insert in process");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("chronos, one literal INSERT", |bencher| {
        let (_directory, database) = open();
        create(&database, "");
        let mut next = 0;
        let prepare = || {
            next += ROWS;
            insert("readings", next - ROWS, ROWS)
        };
        bencher.iter_batched(prepare, |sql| run(&database, &sql), BatchSize::PerIteration);
    });
    group.bench_function("sqlite, prepared, one transaction", |bencher| {
        let (_directory, mut connection) = sqlite();
        let mut next = 0;
        bencher.iter(|| {
            sqlite_insert(&mut connection, next, ROWS);
            next += ROWS;
        });
    });
    group.finish();
}

const AGGREGATE: &str = "SELECT device, COUNT(*), AVG(value), MAX(value) FROM readings GROUP BY device";

fn aggregate_against_sqlite(c: &mut Criterion) {
    let rows = million();
    let mut group = c.benchmark_group("group by over 1000000 rows");
    group.sample_size(10).throughput(Throughput::Elements(rows as u64));
    group.bench_function("chronos", |bencher| {
        let (directory, database) = filled(rows);
        // Sealed, as after a clean stop, so that both read files.
        database.close().expect("a clean stop");
        let database = Database::open(directory.path()).expect("the same database");
        bencher.iter(|| {
            let groups = database.execute(AGGREGATE).expect("an aggregate").rows;
            assert_eq!(groups.len(), DEVICES as usize);
            groups
        });
    });
    group.bench_function("sqlite", |bencher| {
        let (_directory, mut connection) = sqlite();
        (0..rows).step_by(1_000).for_each(|first| sqlite_insert(&mut connection, first, (rows - first).min(1_000)));
        let mut statement = connection.prepare(AGGREGATE).expect("a statement");
        bencher.iter(|| {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, f64>(2)?));
            let groups: Vec<(i64, f64)> =
                statement.query_map([], row).expect("an aggregate").map(|row| row.expect("a group")).collect();
            assert_eq!(groups.len(), DEVICES as usize);
            groups
        });
    });
    group.finish();
}

fn point_select(c: &mut Criterion) {
    let rows = million() / 10;
    let mut group = c.benchmark_group("point select by key");
    group.bench_function("chronos", |bencher| {
        let (_directory, database) = filled(rows);
        let mut i = 0;
        bencher.iter(|| {
            i = (i + 7919) % rows;
            let (device, ts, _) = reading(i);
            let sql = format!("SELECT value FROM readings WHERE device = {device} AND ts = {ts}");
            let found = database.execute(&sql).expect("a lookup").rows;
            assert_eq!(found.len(), 1);
            found
        });
    });
    group.bench_function("sqlite, prepared", |bencher| {
        let (_directory, mut connection) = sqlite();
        (0..rows).step_by(1_000).for_each(|first| sqlite_insert(&mut connection, first, (rows - first).min(1_000)));
        let sql = "SELECT value FROM readings WHERE device = ?1 AND ts = ?2";
        let mut statement = connection.prepare(sql).expect("a statement");
        let mut i = 0;
        bencher.iter(|| {
            i = (i + 7919) % rows;
            let (device, ts, _) = reading(i);
            statement.query_row([device, ts], |row| row.get::<_, f64>(0)).expect("one row")
        });
    });
    group.finish();
}

/// The literal INSERT from text to columns, without writing it: the short way and the general way.
fn parsing(c: &mut Criterion) {
    use chronos::sql::bind::{BindContext, Bound, bind, prepare};
    use chronos::sql::catalog::Catalog;
    use chronos::sql::translate::{ParseLimits, parse};

    let limits = ParseLimits::default();
    let mut catalog = Catalog::default();
    let definition = "CREATE TABLE readings (device INT, ts INT, value FLOAT, PRIMARY KEY (device, ts))";
    let bound = prepare(definition, &limits, &BindContext { catalog: &catalog, now_us: 0 });
    let Ok(Bound::CreateTable(create)) = bound else { panic!("a definition") };
    let (id, keyspace) = catalog.allocate_table();
    catalog.put(create.definition.into_table(id, keyspace));
    let context = BindContext { catalog: &catalog, now_us: 0 };
    let sql = insert("readings", 0, 1_000);
    let mut group = c.benchmark_group("literal insert of 1000 rows, text to columns");
    group.throughput(Throughput::Bytes(sql.len() as u64));
    group.bench_function("short way", |bencher| bencher.iter(|| prepare(&sql, &limits, &context).expect("rows")));
    group.bench_function("general way", |bencher| {
        bencher.iter(|| parse(&sql, &limits).and_then(|statement| bind(&statement, &context)).expect("rows"));
    });
    group.finish();
}

criterion_group!(
    benches,
    insert_batches,
    full_scans,
    insert_against_sqlite,
    aggregate_against_sqlite,
    point_select,
    parsing
);
criterion_main!(benches);
