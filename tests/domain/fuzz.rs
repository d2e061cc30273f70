//! What is fuzzed, one function a target: every place where bytes from elsewhere become something of ours.
//!
//! Each function takes any bytes and gives true where they were accepted; a panic in it, an assertion included, is a
//! bug. `tests/fuzz` runs the same functions under cargo-fuzz, and `fuzz_driver` runs them, bounded, with the tests.
//!
//! A checksum in front of a parser keeps mutated bytes away from it, and the disk that lies is not the only thing
//! behind a checksum: our own mistakes are too. So where a format has one, the first byte of the input says whether
//! lengths and checksums are made to fit before the bytes are parsed.
//!
//! ```text
//! sql_text       text
//! wal_recovery   flags | file*            file = first index u16 | sequence u16 | length u16 | bytes
//! block          flags | block            flags & 1: repaired
//! sealed_file    flags | file
//! key            count of components | a type for each | key
//! command        command
//! row_image      layout | length of the key | key | image
//! ```

// The path holds from here and from the fuzz crate, which mounts this file.
#[path = "fuzz/repair.rs"]
mod repair;

use chronos::error::Kind;
use chronos::hlc::Timestamp;
use chronos::ids::{ColumnId, KeyspaceId, LogIndex};
use chronos::machine::Command;
use chronos::sql::batch::ColumnBuilder;
use chronos::sql::bind::{BindContext, Bound, bind, prepare};
use chronos::sql::catalog::{Catalog, Layout, LayoutColumn};
use chronos::sql::explain;
use chronos::sql::insert::bind_literal_insert;
use chronos::sql::point::PointQuery;
use chronos::sql::translate::{ParseLimits, parse, split};
use chronos::sql::value::{DataType, Value};
use chronos::storage::block::Block;
use chronos::storage::current::SealedName;
use chronos::storage::entry;
use chronos::storage::faults::{Crash, Disk};
use chronos::storage::files::{Files, Open};
use chronos::storage::sealed::{self, SealedRun};
use chronos::storage::wal::{Entry, Needs, Wal, WalOptions};
use chronos::storage::{codec, keys};
use std::cmp::Ordering;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The types of SQL, as a byte of an input names them.
pub const TYPES: [DataType; 6] =
    [DataType::Bool, DataType::Int, DataType::Float, DataType::Text, DataType::Blob, DataType::Timestamp];

/// The tables that a fuzzed statement finds.
pub const DEFINITIONS: [&str; 4] = [
    "CREATE TABLE t (a INT, b TEXT, c FLOAT, d BOOL, e TIMESTAMP, f BLOB, PRIMARY KEY (a, b))",
    "CREATE TABLE s (id INT NOT NULL, name VARCHAR(4) DEFAULT 'x', at TIMESTAMP DEFAULT now(), v FLOAT)",
    "CREATE TABLE readings (device TEXT, ts TIMESTAMP, value FLOAT, PRIMARY KEY (device, ts)) WITH TTL=7d",
    "CREATE TABLE \"Odd name\" (\"select\" INT PRIMARY KEY, \"\u{e4}\" TEXT)",
];

/// The log's limits under fuzzing: the smallest segments there are.
pub const WAL: WalOptions = WalOptions { segment_bytes: 4096, spares_max: 2, salt: 0x5EED };

/// Where the log under fuzzing lies.
pub const WAL_DIRECTORY: &str = "/db/raft";

/// Longest statement worth fuzzing: from 16 KiB on, long lists are taken out of a text.
const SQL_BYTES_MAX: usize = 20 << 10;

/// Files of a log in one input.
const WAL_FILES_MAX: usize = 4;

fn catalog() -> &'static Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    CATALOG.get_or_init(|| {
        let mut catalog = Catalog::default();
        for sql in DEFINITIONS {
            let context = BindContext { catalog: &catalog, now_us: 0 };
            match prepare(sql, &ParseLimits::default(), &context) {
                Ok(Bound::CreateTable(create)) => {
                    let (id, keyspace) = catalog.allocate_table();
                    catalog.put(create.definition.into_table(id, keyspace));
                }
                other => panic!("{sql}: {other:?}"),
            }
        }
        catalog
    })
}

/// Text as a client sends it: cut at semicolons, parsed, bound, optimized, explained. An INSERT of literals binds to
/// the same rows by both ways.
pub fn sql_text(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&data[..data.len().min(SQL_BYTES_MAX)]);
    let context = BindContext { catalog: catalog(), now_us: 1_710_072_000_000_000 };
    let limits = ParseLimits::default();
    let pieces = split(&text);
    let bytes = pieces.statements.iter().map(|piece| piece.len()).sum::<usize>() + pieces.rest.len();
    assert!(bytes <= text.len(), "pieces are parts of the text");
    let bound = prepare(&text, &limits, &context);
    if let Some(fast) = bind_literal_insert(&text, &context) {
        let general = parse(&text, &limits).and_then(|statement| bind(&statement, &context));
        let Ok(Bound::Insert(general)) = general else { panic!("only the short way takes it: {text}") };
        assert!(fast.rows == general.rows, "{text}");
        for (fast, general) in fast.columns.iter().zip(&general.columns) {
            for row in 0..fast.len() {
                assert!(is_same(&fast.value(row), &general.value(row)), "{text}");
            }
        }
    }
    if let Some(short) = PointQuery::bind(&text, context.catalog) {
        let general = parse(&text, &limits).and_then(|statement| bind(&statement, &context));
        let Ok(Bound::Query { columns, .. }) = general else { panic!("only the short way takes it: {text}") };
        assert!(short.columns() == columns, "{text}");
    }
    match bound {
        Ok(bound) => {
            explain::render(&bound, &[]);
            true
        }
        Err(error) => {
            let characters = text.chars().count() as u64;
            let position = error.position().map_or(1, |position| u64::from(position.max(1)));
            assert!(
                position <= characters + 1,
                "an error points behind {characters} characters, at {position}: {text}"
            );
            assert!(error.kind() != Kind::Internal, "an internal error from text alone: {error}: {text}");
            false
        }
    }
}

/// Values that cannot be told apart: any NaN is every other.
fn is_same(a: &Value, b: &Value) -> bool {
    a.data_type() == b.data_type() && a.order(b) == Ordering::Equal
}

/// Bytes as the segments of a log: recovered or refused by name. What was recovered takes another entry, survives a
/// power cut, and is the same the second time.
pub fn wal_recovery(data: &[u8]) -> bool {
    let Some((&flags, mut rest)) = data.split_first() else { return false };
    let disk = Disk::new();
    let directory = Path::new(WAL_DIRECTORY);
    disk.create_dir(directory).expect("an empty disk takes a directory");
    for _ in 0..WAL_FILES_MAX {
        let Some((head, tail)) = rest.split_first_chunk::<6>() else { break };
        let first = u16::from_le_bytes([head[0], head[1]]);
        let sequence = u16::from_le_bytes([head[2], head[3]]);
        let length = usize::from(u16::from_le_bytes([head[4], head[5]])).min(tail.len());
        let mut bytes = tail[..length].to_vec();
        rest = &tail[length..];
        if flags & 1 == 1 {
            repair::segment(&mut bytes, u64::from(sequence), WAL.salt);
        }
        let path = directory.join(format!("{first:020}-{sequence:010}.wal"));
        // Two files of one name: the first stays.
        if let Ok(file) = disk.open(&path, Open::Create) {
            file.write_at(&bytes, 0).and_then(|()| file.sync_all()).expect("the disk has room");
        }
    }
    for directory in directory.ancestors() {
        disk.sync_dir(directory).expect("the disk is healthy");
    }
    let salvage = flags & 2 == 2;
    let open = |files, directory: &Path, options| {
        if salvage {
            Wal::salvage(files, directory, options, Needs::default(), |_| true)
        } else {
            Wal::open(files, directory, options)
        }
    };
    let mut recovered = match open(Arc::new(disk.clone()), directory, WAL) {
        Ok(recovered) => recovered,
        Err(error) => return refused(error.kind(), &error),
    };
    let Ok(before) = content(&recovered.wal) else { return true };
    let (last, hard_state) = (recovered.last, recovered.hard_state.clone());
    assert!(before.len() as u64 == last.index.0 - recovered.previous.index.0, "a log without a gap");
    if last.index.0 < u64::MAX - 1 {
        let next =
            Entry { index: last.index.next(), term: last.term, hlc: Timestamp(1), payload: Arc::from(&b"x"[..]) };
        recovered.wal.append(std::slice::from_ref(&next), None).expect("a recovered log takes an entry");
        recovered.wal.sync().expect("a healthy disk syncs");
        let disk = disk.crash(0, Crash::Lose);
        let again = Wal::open(Arc::new(disk), directory, WAL).expect("what was recovered opens again");
        assert!(again.last.index == next.index && again.hard_state == hard_state, "the same log, and one entry more");
        let mut after = content(&again.wal).expect("what was read reads again");
        assert!(after.pop() == Some(next) && before.ends_with(&after), "no entry changed");
    }
    true
}

fn content(wal: &Wal) -> chronos::Result<Vec<Entry>> {
    let mut all = Vec::new();
    wal.replay(LogIndex(wal.previous().index.0.saturating_add(1)), wal.last().index, |entry| {
        all.push(entry);
        Ok(())
    })?;
    Ok(all)
}

/// A refusal is damage or something newer, by name; never another internal error.
fn refused(kind: Kind, error: &chronos::Error) -> bool {
    let is_unknown = error.sqlstate() == chronos::error::SqlState::NOT_UNDERSTOOD;
    assert!(kind == Kind::Damaged || kind == Kind::Invalid || is_unknown, "{kind:?}: {error}");
    assert!(!error.message().is_empty(), "a refusal says what is wrong");
    false
}

/// The layout that blocks are decoded with: every type, text and time as key.
pub fn block_layout() -> Layout {
    let column = |(i, data_type): (usize, &DataType)| LayoutColumn {
        id: ColumnId(i as u16 + 1),
        data_type: *data_type,
        missing: Value::Null,
    };
    Layout { columns: TYPES.iter().enumerate().map(column).collect(), key: vec![3, 5] }
}

/// Bytes as a block: every way of reading it.
pub fn block(data: &[u8]) -> bool {
    let Some((&flags, bytes)) = data.split_first() else { return false };
    let mut bytes = bytes.to_vec();
    if flags & 1 == 1 {
        repair::block(&mut bytes);
    }
    match Block::open(bytes.into()) {
        Ok(block) => read_block(&block, &block_layout()),
        Err(error) => refused(error.kind(), &error),
    }
}

fn read_block(block: &Block, layout: &Layout) -> bool {
    let ids: Vec<ColumnId> = block.column_ids().collect();
    for id in ids.iter().take(8) {
        if let Ok(Some(column)) = block.column(*id) {
            assert!(column.len() == block.rows(), "a column is as long as its block");
        }
    }
    let _ = block.created_ms().map(|created_ms| assert!(created_ms.len() == block.rows(), "a time for each row"));
    if let Ok(keys) = block.keys(layout)
        && keys.iter().is_sorted()
    {
        let at = block.rows() / 2;
        let found = block.find(layout, keys.get(at)).expect("keys that were rebuilt decode again");
        assert!(found.is_some_and(|found| keys.get(found) == keys.get(at)), "a key is found where it stands");
    }
    let (checked, summary) = (block.check(), block.summary());
    assert!(checked.is_err() || ids.len() > 1024 || summary.is_ok(), "what is checked can be summed up");
    match block.decode(layout) {
        Ok(rows) => {
            assert!(rows.len() == block.rows() && rows.keys.len() == rows.len(), "all rows, each with a key");
            if rows.keys.iter().is_sorted() && rows.columns.iter().all(|column| column.len() == rows.len()) {
                let (encoded, _) = Block::encode(layout, &rows);
                let again = Block::open(encoded.into()).and_then(|block| block.decode(layout)).expect("our own block");
                assert!(again.keys == rows.keys && again.metadata == rows.metadata, "rows survive being written again");
            }
            true
        }
        Err(error) => refused(error.kind(), &error),
    }
}

/// Bytes as a sealed file: opened, verified, and every block read that its manifest names.
pub fn sealed_file(data: &[u8]) -> bool {
    let Some((&flags, bytes)) = data.split_first() else { return false };
    let mut bytes = bytes.to_vec();
    if flags & 1 == 1 {
        repair::sealed(&mut bytes);
    }
    let disk = Disk::new();
    let directory = Path::new("/state");
    disk.create_dir(directory).expect("an empty disk takes a directory");
    let file = disk.open(&sealed::path(directory, 1), Open::Create).expect("the first of its name");
    file.write_at(&bytes, 0).expect("the disk has room");
    let files: Arc<dyn Files> = Arc::new(disk);
    let names = [SealedName { number: 1, from: entry::start(), to: None }];
    let run = match SealedRun::open(&files, directory, &names, &[]) {
        Ok(run) => run,
        Err(error) => return refused(error.kind(), &error),
    };
    // The content may be damaged all the same: then reading names it.
    let _ = run.files()[0].verify();
    let keyspaces: Vec<KeyspaceId> = run.level.manifest.keyspaces().collect();
    let mut is_whole = true;
    for keyspace in keyspaces {
        for entry in run.level.manifest.blocks(keyspace) {
            assert!(run.level.manifest.find(keyspace, &entry.first).is_some(), "a first key is found");
            match run.level.source.read(entry) {
                Ok(block) => {
                    let layout = run.state.catalog.layout(keyspace).unwrap_or_else(Layout::system);
                    is_whole &= read_block(&block, &layout);
                }
                Err(_) => is_whole = false,
            }
        }
    }
    is_whole
}

/// Bytes as a key: skipping, taking values and filling columns agree, and what decodes encodes to an equal key.
pub fn key(data: &[u8]) -> bool {
    let Some((&count, rest)) = data.split_first() else { return false };
    let Some((types, key)) = rest.split_at_checked(usize::from(count % 5)) else { return false };
    let types: Vec<DataType> = types.iter().map(|byte| TYPES[usize::from(*byte) % TYPES.len()]).collect();
    let mut rest = key;
    for data_type in &types {
        let (mut skipped, mut pulled, mut filled) = (rest, rest, rest);
        let mut column = ColumnBuilder::new(*data_type, 1);
        let value = keys::pull(&mut pulled, *data_type);
        let was_filled = keys::pull_into(&mut filled, &mut column);
        assert!(value.is_ok() == was_filled.is_ok(), "two readers disagree about {rest:02x?} as {data_type}");
        let Ok(value) = value else { break };
        keys::skip(&mut skipped, *data_type).expect("what decodes can be skipped");
        assert!(skipped == pulled && filled == pulled, "three readers end at one place in {rest:02x?}");
        assert!(is_same(&column.finish().value(0), &value), "two readers see one value in {rest:02x?}");
        rest = pulled;
    }
    match keys::decode(key, &types) {
        Ok(values) => {
            let again = keys::decode(&keys::encode(&values), &types).expect("our own key decodes");
            assert!(again.iter().zip(&values).all(|(again, value)| is_same(again, value)), "values survive as a key");
            true
        }
        Err(error) => refused(error.kind(), &error),
    }
}

/// Bytes as a command: what decodes is written the same way twice.
pub fn command(data: &[u8]) -> bool {
    match Command::decode(data) {
        Ok(command) => {
            let encoded = command.encode();
            let again = Command::decode(&encoded).expect("our own command decodes");
            assert!(again.encode() == encoded, "a command has one encoding");
            true
        }
        Err(error) => refused(error.kind(), &error),
    }
}

/// The layouts that row images are decoded with.
pub fn image_layouts() -> [Layout; 2] {
    let all = block_layout();
    let odd = Layout { key: vec![2, 0, 4], ..block_layout() };
    [all, odd]
}

/// Bytes as a row image: a row, its slots one by one, and its tombstone; what decodes survives being written again.
pub fn row_image(data: &[u8]) -> bool {
    let Some(([layout, length], rest)) = data.split_first_chunk::<2>() else { return false };
    let Some((key, image)) = rest.split_at_checked(usize::from(*length)) else { return false };
    let layout = &image_layouts()[usize::from(layout % 2)];
    let slots: Vec<usize> = (0..layout.columns.len()).collect();
    let decoder = codec::Decoder::new(layout, &slots);
    let mut columns = decoder.builders(1);
    if decoder.decode(key, None, &mut columns).is_ok() {
        assert!(columns.iter().all(|column| column.len() == 1), "a tombstone has a value for each column");
    }
    match codec::decode(layout, key, image) {
        Ok(values) => {
            for (slot, value) in values.iter().enumerate() {
                let alone = codec::decode_slot(layout, slot, key, image).expect("a slot of a row that decodes");
                assert!(is_same(&alone, value), "a slot has one value");
            }
            let mut again = Vec::new();
            codec::encode(layout, &values, &mut again);
            let again = codec::decode(layout, &codec::key_of(layout, &values), &again).expect("our own image decodes");
            assert!(again.iter().zip(&values).all(|(again, value)| is_same(again, value)), "values survive");
            true
        }
        Err(error) => refused(error.kind(), &error),
    }
}
