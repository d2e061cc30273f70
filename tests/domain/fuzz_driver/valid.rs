//! Valid inputs: what each target accepts, made by the code that writes it.

use crate::fuzz::{self, WAL, WAL_DIRECTORY};
use crate::storage_ground::Ground;
use chronos::hlc::Timestamp;
use chronos::ids::{ColumnId, IndexId, LogIndex, OriginUid, SchemaVersion, TableId, Term};
use chronos::machine::{
    Body, Command, Effect, KeySet, NewIndex, NewTable, Part, Request, RequestId, RowSet, TableWrite, Transaction,
};
use chronos::sql::batch::{Column, ColumnBuilder, Strings};
use chronos::sql::catalog::{ColumnDefinition, Layout};
use chronos::sql::value::{DataType, Value};
use chronos::storage::block::{Block, build_keys};
use chronos::storage::faults::Disk;
use chronos::storage::files::{self, Files};
use chronos::storage::keys::{self, Key};
use chronos::storage::rows::{Metadata, Rows, Stamp};
use chronos::storage::wal::{Entry, HardState, Wal};
use chronos::storage::{codec, sealed};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a mutation puts into a statement.
pub(super) const SQL_WORDS: &[&[u8]] = &[
    b" ",
    b"(",
    b")",
    b",",
    b";",
    b"'",
    b"''",
    b"\"",
    b"*",
    b"=",
    b"<>",
    b"<=",
    b"||",
    b"+",
    b"-",
    b"/",
    b"%",
    b"::",
    b".",
    b"$1",
    b"?",
    b"--",
    b"/*",
    b"*/",
    b"E'\\n'",
    b"X'00'",
    b"0",
    b"-1",
    b"1e308",
    b"1e-400",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"NULL",
    b"TRUE",
    b"t",
    b"s",
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"f",
    b"readings",
    b" AND ",
    b" OR ",
    b" NOT ",
    b" IN (",
    b" BETWEEN ",
    b" LIKE ",
    b" ESCAPE ",
    b" IS NULL",
    b" IS DISTINCT FROM ",
    b"CASE WHEN ",
    b" THEN ",
    b" ELSE ",
    b" END",
    b"CAST(",
    b" AS INT)",
    b" AS ",
    b"count(*)",
    b"sum(",
    b"avg(DISTINCT ",
    b"min(",
    b"abs(",
    b"coalesce(",
    b"now()",
    b"INTERVAL '7 days'",
    b"TIMESTAMP '",
    b"2024-02-30",
    b" GROUP BY ",
    b" HAVING ",
    b" ORDER BY ",
    b" DESC NULLS FIRST",
    b" LIMIT ",
    b" OFFSET ",
    b"SELECT ",
    b" FROM ",
    b" WHERE ",
    b"DISTINCT ",
    b"INSERT INTO ",
    b" VALUES ",
    b"UPDATE ",
    b" SET ",
    b"DELETE ",
    b"EXPLAIN ",
    b"ANALYZE ",
    b"CREATE TABLE ",
    b"DROP TABLE ",
    b"CREATE INDEX ",
    b" PRIMARY KEY",
    b" DEFAULT ",
    b" WITH TTL=",
    b"7d",
    b"\xC3\xA4",
    b"\xF0\x9F\x8C\xA1",
    b"\0",
    b"\t",
    b"\xC2\xA0",
];

/// Statements of every kind.
pub(super) fn sql_text() -> Vec<Vec<u8>> {
    let statements = [
        "SELECT 1",
        "SELECT * FROM t",
        "SELECT a, b || 'x', c * 2 + 1.5, NOT d, e, f FROM t WHERE a = 1 AND b > 'k' ORDER BY a DESC, b LIMIT 3 OFFSET 1",
        "SELECT device, COUNT(*), AVG(value), MAX(value) FROM readings GROUP BY device HAVING COUNT(*) > 1 ORDER BY 2",
        "SELECT DISTINCT d FROM t WHERE a IN (1, 2, 3) OR b LIKE 'a%' ESCAPE '!' OR c BETWEEN -1 AND 1e3",
        "SELECT CASE WHEN a > 0 THEN 'p' WHEN a < 0 THEN 'n' ELSE NULL END AS sign, CAST(c AS INT), b::TEXT FROM t",
        "SELECT value FROM readings WHERE ts >= '2024-03-01' AND ts < TIMESTAMP '2024-03-02 12:00:00' AND device = 'x'",
        "SELECT count(DISTINCT a), sum(c), min(e), max(b) FROM t WHERE e IS NOT NULL AND (a + 1) % 2 = 0",
        "INSERT INTO t VALUES (1, 'x', 1.5, TRUE, '2024-01-01 00:00:00', X'00FF'), (-2, '', NULL, FALSE, NULL, NULL)",
        "INSERT INTO s (id, v) VALUES (1, -0.0), (2, 1e300), (3, .5), (4, 123456789012345678)",
        "INSERT INTO readings (device, ts, value) VALUES ('a', '2024-01-01', 1), ('it''s', '2024-01-01 10:00:00.123456', 2)",
        "INSERT INTO \"Odd name\" VALUES (1 + 2, upper('x'))",
        "UPDATE t SET c = c + 1, b = DEFAULT WHERE a = 1 AND d",
        "DELETE FROM readings WHERE device = 'x' AND ts < now()",
        "CREATE TABLE n (id INT PRIMARY KEY, name VARCHAR(10) NOT NULL DEFAULT 'n', at TIMESTAMP DEFAULT now()) WITH TTL=7d",
        "CREATE TABLE IF NOT EXISTS t (x BOOL, y BLOB, z DOUBLE PRECISION, PRIMARY KEY (y, x))",
        "CREATE INDEX i ON t (c, d)",
        "DROP TABLE IF EXISTS nothing, t",
        "EXPLAIN SELECT a FROM t WHERE a > 1 -- why\n",
        "EXPLAIN ANALYZE DELETE FROM t /* all */",
        "SHOW TABLES",
        "DESCRIBE t",
        "SELECT abs(-1), round(2.5), length('\u{e4}'), coalesce(NULL, 1), lower(b) FROM t;",
    ];
    // Lists that are taken out before the text is parsed, and names as they get.
    let ints: Vec<String> = (0..1_900).map(|i| format!("{}", i * 7_919 - 4_000_000)).collect();
    let texts: Vec<String> = (0..1_800).map(|i| format!("'it''s{}'", i % 1_000)).collect();
    let lists = [
        format!("SELECT a FROM t WHERE '$listxx' < b AND a IN ({}) OR a = 1", ints.join(",")),
        format!("SELECT a FROM t WHERE b not in ( {} ) -- $list", texts.join(",")),
    ];
    let statements = statements.into_iter().map(str::to_owned).chain(lists);
    statements.map(String::into_bytes).filter(|sql| fuzz::sql_text(sql)).collect()
}

/// The files of a log as the target reads them.
fn log(fill: impl FnOnce(&mut Wal)) -> Vec<u8> {
    let disk = Disk::new();
    disk.create_dir(Path::new("/db")).unwrap();
    let mut wal = Wal::create(Arc::new(disk.clone()), Path::new(WAL_DIRECTORY), WAL).unwrap().wal;
    fill(&mut wal);
    let mut segments = wal.segment_files();
    let keep = segments.len().saturating_sub(3);
    segments.drain(..keep);
    let mut input = vec![1];
    for segment in segments {
        let name = segment.path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (first, sequence) = name.split_once('-').unwrap();
        let mut bytes = files::read(&disk, &segment.path).unwrap();
        // The zeros that a file is filled with say nothing.
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 9).next_multiple_of(8));
        input.extend_from_slice(&first.parse::<u16>().unwrap().to_le_bytes());
        input.extend_from_slice(&sequence.parse::<u16>().unwrap().to_le_bytes());
        input.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        input.extend_from_slice(&bytes);
    }
    input
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64, payload: usize) -> Vec<Entry> {
    let entry = |index| Entry {
        index: LogIndex(index),
        term: Term(term),
        hlc: Timestamp(1_700_000_000_000 << 16 | index),
        payload: Arc::from(vec![index as u8; payload]),
    };
    range.map(entry).collect()
}

/// Logs: empty, one batch, several segments, truncated, trimmed; opened and salvaged.
pub(super) fn wal_recovery() -> Vec<Vec<u8>> {
    let state = HardState { term: Term(2), vote: Some(7), membership: vec![1, 2, 3], ..HardState::default() };
    let mut logs = vec![
        log(|_| {}),
        log(|wal| wal.append(&entries(1..=3, 1, 20), Some(&state)).and_then(|()| wal.sync()).unwrap()),
        log(|wal| {
            for first in [1, 5, 9] {
                wal.append(&entries(first..=first + 3, 1, 30), None).and_then(|()| wal.sync()).unwrap();
            }
        }),
        log(|wal| {
            for first in (1..40).step_by(4) {
                wal.append(&entries(first..=first + 3, 1, 300), Some(&state)).and_then(|()| wal.sync()).unwrap();
            }
            wal.trim(LogIndex(20)).unwrap();
        }),
        log(|wal| {
            wal.append(&entries(1..=8, 1, 10), None).and_then(|()| wal.sync()).unwrap();
            wal.append(&entries(4..=6, 3, 10), Some(&state)).and_then(|()| wal.sync()).unwrap();
        }),
    ];
    let salvaged: Vec<Vec<u8>> = logs.iter().map(|log| [&[3], &log[1..]].concat()).collect();
    logs.extend(salvaged);
    logs
}

fn value(data_type: DataType, row: usize, shape: usize) -> Value {
    let number = row as i64 * 60 * (1 - shape as i64 % 2 * 2) + (row * row * shape) as i64;
    match data_type {
        _ if shape > 1 && (row + shape).is_multiple_of(7) => Value::Null,
        DataType::Bool => Value::Bool(number % 3 == 0),
        DataType::Int => Value::Int(number),
        DataType::Float => Value::Float(number as f64 / 100.0),
        DataType::Text => Value::Text(format!("sensor {}", number % 10)),
        DataType::Blob => Value::Blob(number.to_be_bytes().to_vec()),
        DataType::Timestamp => Value::Timestamp(1_700_000_000_000_000 + number),
    }
}

fn rows(layout: &Layout, count: usize, shape: usize) -> Rows {
    let column = |slot: usize| {
        let data_type = layout.columns[slot].data_type;
        let is_key = layout.key.contains(&(slot as u16));
        let mut column = ColumnBuilder::new(data_type, count);
        for row in 0..count {
            column.push(&match (is_key, data_type) {
                (true, DataType::Text) => Value::Text(format!("device {}", row / 16)),
                (true, _) => Value::Timestamp(row as i64 * 1_000_000),
                (false, _) => value(data_type, row, shape),
            });
        }
        Arc::new(column.finish())
    };
    let columns: Vec<Arc<Column>> = (0..layout.columns.len()).map(column).collect();
    let mut metadata = Metadata::default();
    for row in 0..count as u64 {
        let created_ms = 1_700_000_000_000 + row * shape as u64;
        let hlc = Timestamp((created_ms + shape as u64 % 2) << 16);
        let stamp = Stamp { created_ms, hlc, origin: OriginUid(7), modified: LogIndex(row / 3) };
        metadata.push(stamp, shape == 3 && row % 5 == 0);
    }
    Rows { keys: build_keys(layout, &columns, count).unwrap(), columns, metadata }
}

/// Blocks of several sizes and shapes.
pub(super) fn block() -> Vec<Vec<u8>> {
    let layout = fuzz::block_layout();
    let sizes = [(1, 0), (2, 3), (16, 1), (60, 2), (100, 0), (300, 3), (40, 1)];
    let encoded = |(count, shape)| [&[1], &Block::encode(&layout, &rows(&layout, count, shape)).0[..]].concat();
    sizes.map(encoded).to_vec()
}

/// Sealed files of a small database.
pub(super) fn sealed_file() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for count in [1, 40, 120] {
        let mut ground = Ground::new((count > 1).then_some(Duration::from_secs(1000)));
        let written: Vec<(&str, i64, i64)> = (0..count).map(|ts| ("a", ts, ts * 7919 % 1000)).collect();
        ground.put(&written);
        ground.delete_range("a", 5, 9);
        ground.seal();
        for name in ground.current.runs.iter().flatten() {
            let bytes = std::fs::read(sealed::path(&ground.path(), name.number)).unwrap();
            inputs.push([&[1], &bytes[..]].concat());
        }
    }
    inputs.retain(|input| fuzz::sealed_file(input));
    inputs
}

/// Keys of one and several components, with the types in front.
pub(super) fn key() -> Vec<Vec<u8>> {
    let values = [
        Value::Bool(true),
        Value::Int(-5),
        Value::Float(-0.5),
        Value::Text("a\0b".into()),
        Value::Blob(vec![0, 255, 0]),
        Value::Timestamp(1_700_000_000_000_000),
    ];
    let mut inputs = Vec::new();
    for first in 0..values.len() {
        for count in 1..4 {
            let picked: Vec<usize> = (first..first + count).map(|at| at % values.len()).collect();
            let mut parts: Vec<Value> = picked.iter().map(|at| values[*at].clone()).collect();
            if count == 3 {
                parts[1] = Value::Null;
            }
            let types: Vec<u8> = picked.iter().map(|at| *at as u8).collect();
            inputs.push([&[count as u8], &types[..], &keys::encode(&parts)].concat());
        }
    }
    inputs
}

fn row_set(count: usize, shape: usize) -> RowSet {
    let layout = fuzz::block_layout();
    let rows = rows(&layout, count, shape);
    let columns = layout.columns.iter().map(|column| column.id).zip(rows.columns).collect();
    RowSet { columns, rows: count }
}

fn definition() -> ColumnDefinition {
    ColumnDefinition {
        id: ColumnId(1),
        name: "id".into(),
        data_type: DataType::Int,
        declared_type: "INT".into(),
        length_max: None,
        not_null: true,
        default: Some("1".into()),
    }
}

fn key_set() -> KeySet {
    let keys: Strings = build_keys(&fuzz::block_layout(), &rows(&fuzz::block_layout(), 5, 0).columns, 5).unwrap();
    KeySet(keys.iter().map(Key::new).collect())
}

/// Commands of every kind.
pub(super) fn command() -> Vec<Vec<u8>> {
    let write = |effect| Part::Write(TableWrite { table: TableId(1), schema: SchemaVersion(2), effect });
    let table = NewTable {
        name: "t".into(),
        columns: vec![definition()],
        primary_key: vec![ColumnId(1)],
        ttl: Some(Duration::from_secs(7)),
        if_not_exists: true,
        expected: None,
    };
    let index = NewIndex {
        name: "i".into(),
        table: TableId(1),
        schema: SchemaVersion(1),
        columns: vec![ColumnId(1)],
        if_not_exists: false,
    };
    let parts = [
        Part::CreateTable(table),
        Part::DropTable { table: TableId(1) },
        Part::CreateIndex(index),
        Part::DropIndex { index: IndexId(1) },
        write(Effect::Insert { rows: row_set(3, 0), created_ms: None }),
        write(Effect::Insert { rows: row_set(40, 2), created_ms: Some((0..40).collect()) }),
        write(Effect::Replace { rows: row_set(5, 3), created_ms: vec![7; 5] }),
        write(Effect::Delete { keys: key_set() }),
        write(Effect::DeleteRange { from: Key::new(b"\x01a"), to: Some(Key::new(b"\x01b")) }),
    ];
    let mut bodies: Vec<Body> = parts
        .iter()
        .map(|part| Body::Transaction(Transaction { read_index: LogIndex(9), parts: vec![part.clone()] }))
        .collect();
    bodies.extend([
        Body::Transaction(Transaction { read_index: LogIndex(1), parts: parts.to_vec() }),
        Body::Stage { stage: 1 << 90, part: 2, bytes: vec![1, 2, 3] },
        Body::Commit { stage: 1 << 90, parts: 3 },
        Body::Abandon { stage: 1 },
        Body::Expire { table: TableId(3), below_ms: 1_700_000_000_000 },
        Body::RaiseFloor { table: TableId(3), floor: LogIndex(77) },
        Body::Backfill { index: IndexId(2), from: vec![1, 2], rows_max: 100 },
        Body::EvictRequests { before: Timestamp(5) },
        Body::HashAt,
    ]);
    let requests = [
        None,
        Some(Request { id: RequestId::Session { client: "c".into(), sequence: 3 }, fingerprint: 9, counts: vec![] }),
        Some(Request { id: RequestId::Bare(1 << 100), fingerprint: 9, counts: vec![] }),
    ];
    let named = |(i, body): (usize, Body)| {
        Command { request: requests[i % 3].clone(), origin: OriginUid(4), affected: 1, body }.encode()
    };
    bodies.into_iter().enumerate().map(named).collect()
}

/// Row images with their keys, of each layout.
pub(super) fn row_image() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for (at, layout) in fuzz::image_layouts().iter().enumerate() {
        for row in 0..12 {
            let cell = |column: &chronos::sql::catalog::LayoutColumn| value(column.data_type, row, row % 4);
            let values: Vec<Value> = layout.columns.iter().map(cell).collect();
            let key = codec::key_of(layout, &values);
            let mut image = Vec::new();
            codec::encode(layout, &values, &mut image);
            inputs.push([&[at as u8, key.len() as u8], &key[..], &image].concat());
        }
    }
    inputs
}
