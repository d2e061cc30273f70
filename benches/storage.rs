//! Blocks and memtables by themselves: what a row costs between the log and the file.
//!
//! No disk is involved, so these are CPU times; the rows are those of the aggregate in `sql`, in key order.

use chronos::hlc::Timestamp;
use chronos::ids::{ColumnId, KeyspaceId, LogIndex, OriginUid};
use chronos::sql::batch::{Column, Values};
use chronos::sql::catalog::{Layout, LayoutColumn};
use chronos::sql::value::{DataType, Value};
use chronos::storage::block::{Block, build_keys};
use chronos::storage::codec;
use chronos::storage::memtable::{Memtable, Put};
use chronos::storage::rows::{Metadata, Rows, Stamp};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;

fn layout() -> Layout {
    let column = |id, data_type| LayoutColumn { id: ColumnId(id), data_type, missing: Value::Null };
    Layout {
        columns: vec![column(1, DataType::Int), column(2, DataType::Int), column(3, DataType::Float)],
        key: vec![0, 1],
    }
}

fn stamp(version: u64) -> Stamp {
    let created_ms = 1_700_000_000_000 + version;
    Stamp { created_ms, hlc: Timestamp(created_ms << 16), origin: OriginUid(7), modified: LogIndex(version) }
}

/// `count` rows of one device, a thousand of each command.
fn rows(count: usize) -> Rows {
    let value = |row: usize| 85.0 + ((row * 7919) % 2269) as f64 / 100.0;
    let columns = vec![
        Arc::new(Column::new(Values::Int(vec![7; count]))),
        Arc::new(Column::new(Values::Int((0..count as i64).map(|row| 1_700_000_000 + 10 * row).collect()))),
        Arc::new(Column::new(Values::Float((0..count).map(value).collect()))),
    ];
    let mut metadata = Metadata::default();
    (0..count as u64).for_each(|row| metadata.push(stamp(row / 1_000), false));
    let keys = build_keys(&layout(), &columns, count).expect("keys of integers");
    Rows { keys, columns, metadata }
}

fn blocks(c: &mut Criterion) {
    const ROWS: usize = 2_048;
    let (layout, rows) = (layout(), rows(ROWS));
    let (bytes, _) = Block::encode(&layout, &rows);
    let bytes: Arc<[u8]> = bytes.into();
    let mut group = c.benchmark_group("block of 2048 rows");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| Block::encode(&layout, black_box(&rows))));
    group.bench_function("open and decode all", |bencher| {
        bencher.iter(|| Block::open(bytes.clone()).and_then(|block| block.decode(&layout)).expect("our own block"));
    });
    group.bench_function("open and decode one column", |bencher| {
        bencher.iter(|| Block::open(bytes.clone()).and_then(|block| block.column(ColumnId(3))).expect("our own block"));
    });
    group.bench_function("find a key", |bencher| {
        let block = Block::open(bytes.clone()).expect("our own block");
        bencher.iter(|| block.find(&layout, black_box(rows.keys.get(ROWS / 3))).expect("our own block"));
    });
    group.finish();
}

fn memtable(c: &mut Criterion) {
    const ROWS: usize = 1_000;
    let (layout, rows) = (layout(), rows(ROWS));
    let images: Vec<Vec<u8>> = (0..ROWS)
        .map(|row| {
            let mut image = Vec::new();
            codec::encode_row(&layout, &rows.columns, row, &mut image);
            image
        })
        .collect();
    let puts: Vec<Put<'_>> =
        (0..ROWS).map(|row| Put { key: rows.keys.get(row), stamp: stamp(1), image: Some(&images[row]) }).collect();
    let mut group = c.benchmark_group("memtable");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("insert 1000 rows in one command", |bencher| {
        let write = |memtable: Memtable| {
            memtable.put_many(KeyspaceId(16), &puts);
            memtable
        };
        bencher.iter_batched(Memtable::new, write, BatchSize::SmallInput);
    });
    group.bench_function("get 1000 rows", |bencher| {
        let memtable = Memtable::new();
        memtable.put_many(KeyspaceId(16), &puts);
        let get = |row: usize| {
            let key = rows.keys.get(row);
            memtable.get(KeyspaceId(16), key, LogIndex(u64::MAX), |_, image| image.map_or(0, <[u8]>::len))
        };
        bencher.iter(|| (0..ROWS).filter_map(get).sum::<usize>());
    });
    group.finish();
}

criterion_group!(benches, blocks, memtable);
criterion_main!(benches);
