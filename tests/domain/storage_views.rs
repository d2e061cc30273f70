//! Views against a plain map of versions: whatever is written, frozen, flushed and merged, in whatever order, a view
//! shows what the map says of its version, and goes on showing it.

#![expect(clippy::unwrap_used, reason = "a test of helpers that are not test functions themselves")]

mod blocks;
mod world;

use blocks::*;
use chronos::error::Error;
use chronos::hlc::Timestamp;
use chronos::ids::{KeyspaceId, LogIndex, OriginUid};
use chronos::sql::catalog::Layout;
use chronos::sql::value::Value;
use chronos::storage::cache::Cache;
use chronos::storage::codec;
use chronos::storage::keys::{self, Key, KeyRange};
use chronos::storage::levels::{Edit, Levels};
use chronos::storage::memtable::{Memtable, Put};
use chronos::storage::rows::Stamp;
use chronos::storage::view::{ScanItem, ScanRequest, View, ZoneBound};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use world::*;

fn key() -> impl Strategy<Value = (i64, String)> {
    (-3..4i64, prop_oneof![Just(""), Just("k"), Just("k\0z")].prop_map(String::from))
}

fn row() -> impl Strategy<Value = Row> {
    let text = prop_oneof![Just(""), Just("red"), Just("green")].prop_map(String::from);
    (option::of(-9..10i64), -2..3i64, text, 0..300i64).prop_map(|(v, w, s, x)| Row { v, w: w as f64 / 2.0, s, x })
}

fn op() -> impl Strategy<Value = Op> {
    let written = (option::weighted(0.8, row()), 0..4u64);
    prop_oneof![
        8 => proptest::collection::btree_map(key(), written, 1..8).prop_map(Op::Write),
        1 => (-3..4i64, 1..4i64).prop_map(|(from, keys)| Op::DeleteRange(from, from + keys)),
        2 => Just(Op::Freeze),
        3 => (1..6usize).prop_map(Op::Flush),
        1 => (0..3usize, 1..9usize).prop_map(|(at, rows)| Op::Merge(at, rows)),
        1 => Just(Op::AddColumn),
        2 => Just(Op::Hold),
    ]
}

fn bound() -> impl Strategy<Value = ZoneBound> {
    let int = |column, from: i64, to: i64| {
        (option::of(from..to), option::of(from..to)).prop_map(move |(min, max)| ZoneBound {
            column,
            min: min.map(Value::Int),
            max: max.map(Value::Int),
        })
    };
    let text =
        |column| option::of("[g-k]").prop_map(move |min| ZoneBound { column, min: min.map(Value::Text), max: None });
    prop_oneof![int(V, -9, 10), int(A, -3, 4), text(S), text(B)]
}

/// Ascending, disjoint ranges: bounds are drawn, sorted and paired.
fn ranges() -> impl Strategy<Value = Vec<KeyRange>> {
    let end = (-4..5i64, any::<bool>(), any::<bool>()).prop_map(|(a, has_b, successor)| {
        let mut encoded = Vec::new();
        keys::push_int(&mut encoded, a);
        if has_b {
            keys::push_bytes(&mut encoded, b"k");
        }
        if successor { Key::new(&encoded).successor() } else { Key::new(&encoded) }
    });
    let some = vec(end, 1..7).prop_map(|mut ends| {
        ends.sort();
        let pair = |pair: &[Key]| KeyRange { from: pair[0].clone(), to: pair.get(1).cloned() };
        ends.chunks(2).map(pair).collect()
    });
    let point = key().prop_map(|(a, b)| vec![KeyRange::point(&keys::encode(&[Value::Int(a), Value::Text(b)]))]);
    prop_oneof![Just(vec![KeyRange::all()]), some, point]
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let columns = proptest::sample::subsequence(vec![A, B, V, W, S, V], 0..6).prop_shuffle();
    (ranges(), columns, vec(bound(), 0..2), 0..20u64, any::<bool>(), 1..9usize).prop_map(
        |(ranges, columns, bounds, expired_below_ms, with_keys, batch_rows)| Wanted {
            ranges,
            columns,
            bounds,
            expired_below_ms: expired_below_ms + 900,
            with_keys,
            batch_rows,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("CHRONOS_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256)
    ))]

    #[test]
    fn views_show_what_was_written_up_to_their_version_and_never_change(
        ops in vec(op(), 1..40),
        scans in vec(wanted(), 1..8),
    ) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        world.held.push(world.view());
        for view in &world.held {
            world.check_points(view);
            for wanted in &scans {
                world.check_scan(view, wanted);
            }
        }
    }

    #[test]
    fn a_row_image_gives_its_row_back(a in any::<i64>(), b in ".{0,9}", v in option::of(any::<i64>()), w in any::<f64>(), s in ".{0,99}") {
        let (catalog, keyspace) = catalog(false);
        let layout = catalog.layout(keyspace).unwrap();
        let values = Row { v, w, s, x: 0 }.values(&(a, b), false);
        let key = codec::key_of(&layout, &values);
        let mut image = Vec::new();
        codec::encode(&layout, &values, &mut image);
        let same = |a: &Value, b: &Value| a == b || matches!((a, b), (Value::Float(a), Value::Float(b)) if a.to_bits() == b.to_bits());
        let decoded = codec::decode(&layout, &key, &image).unwrap();
        prop_assert!(decoded.iter().zip(&values).all(|(a, b)| same(a, b)), "{:?}", decoded);
        let columns: Vec<_> = values.iter().zip(&layout.columns).map(|(value, slot)| {
            let mut column = chronos::sql::batch::ColumnBuilder::new(slot.data_type, 1);
            column.push(value);
            Arc::new(column.finish())
        }).collect();
        let (mut from_columns, mut key_from_columns) = (Vec::new(), Vec::new());
        codec::encode_row(&layout, &columns, 0, &mut from_columns);
        codec::encode_key(&layout, &columns, 0, &mut key_from_columns);
        prop_assert_eq!((from_columns, key_from_columns), (image.clone(), key.to_vec()));
        // Added later: the image is merely shorter.
        let later = catalog_layout_with_x();
        prop_assert_eq!(codec::decode_slot(&later, 5, &key, &image).unwrap(), Value::Null);
    }

    #[test]
    fn any_bytes_decode_or_are_damaged(key in vec(prop_oneof![0..10u8, any::<u8>()], 0..40), image in vec(prop_oneof![0..10u8, any::<u8>()], 0..60)) {
        let layout = catalog_layout_with_x();
        let error = |error: Error| assert_eq!(error.kind(), chronos::error::Kind::Damaged);
        let _ = codec::decode(&layout, &key, &image).map_err(error);
        (0..layout.columns.len()).for_each(|slot| {
            let _ = codec::decode_slot(&layout, slot, &key, &image).map_err(error);
        });
        let memtable = Memtable::new();
        let stamp = World::new().stamp(0);
        memtable.put(KeyspaceId(16), &key, stamp, Some(&image));
        memtable.put(KeyspaceId(17), &key, stamp, None);
        let _ = memtable.rows(KeyspaceId(16), &layout, None, 9).map_err(error);
        let _ = memtable.rows(KeyspaceId(17), &layout, None, 9).map_err(error);
    }
}

fn catalog_layout_with_x() -> Layout {
    let (catalog, keyspace) = catalog(true);
    catalog.layout(keyspace).unwrap()
}

/// Two levels of blocks, the newer one with keys above all of the older: appends.
fn appended() -> (World, Vec<Arc<MemorySource>>) {
    let mut world = World::new();
    let mut sources = Vec::new();
    for first in [0, 100] {
        let row = |a: i64| ((a, String::from("k")), (Some(Row { v: Some(a), w: 0.5, s: String::new(), x: 0 }), 0));
        world.write(&(first..first + 100).map(row).collect());
        world.apply(&Op::Freeze);
        let frozen = world.levels.memtables[1].clone();
        let rows = frozen.rows(world.keyspace, &world.layout, None, usize::MAX).unwrap();
        let (level, source) = level(&world.layout, world.keyspace, &[rows], 25, Vec::new());
        let edit = Edit { take_memtables: vec![frozen], take_blocks: Vec::new(), put: vec![level] };
        world.levels = world.levels.edit(&edit).unwrap();
        sources.push(source);
    }
    (world, sources)
}

fn reads(sources: &[Arc<MemorySource>]) -> usize {
    sources.iter().map(|source| source.reads.swap(0, Ordering::Relaxed)).sum()
}

fn all(world: &World) -> ScanRequest {
    ScanRequest {
        keyspace: world.keyspace,
        ranges: vec![KeyRange::all()],
        columns: vec![A],
        bounds: Vec::new(),
        expired_below_ms: 0,
        with_keys: false,
        batch_rows: 10,
    }
}

#[test]
fn blocks_that_no_other_level_touches_pass_whole_and_one_at_a_time() {
    let (world, sources) = appended();
    let mut scanner = world.view().scan(all(&world)).unwrap();
    assert_eq!(reads(&sources), 0, "nothing is read before the first batch");
    assert_eq!(scanner.next_batch().unwrap().unwrap().batch.rows, 25);
    assert_eq!(reads(&sources), 1);
}

#[test]
fn rows_are_counted_without_reading_a_block() {
    let (world, sources) = appended();
    let mut scanner = world.view().scan(all(&world)).unwrap();
    let mut rows = 0;
    while let Some(item) = scanner.next_summary().unwrap() {
        let ScanItem::Summary(summary) = item else { panic!("every block passes whole") };
        rows += summary.rows;
    }
    assert_eq!((rows, reads(&sources)), (200, 0));
}

#[test]
fn a_key_that_no_range_holds_is_absent_without_reading_a_block() {
    let (world, sources) = appended();
    let key = |a| keys::encode(&[Value::Int(a), Value::Text(String::from("k"))]);
    assert_eq!(world.view().head(world.keyspace, &key(500)).unwrap(), None);
    assert_eq!(reads(&sources), 0);
    assert!(world.view().head(world.keyspace, &key(50)).unwrap().is_some());
    assert_eq!(reads(&sources), 1);
}

#[test]
fn a_block_out_of_bounds_is_not_read() {
    let (world, sources) = appended();
    let bound = ZoneBound { column: V, min: Some(Value::Int(130)), max: Some(Value::Int(140)) };
    let mut scanner = world.view().scan(ScanRequest { bounds: vec![bound], ..all(&world) }).unwrap();
    assert_eq!(scanner.next_batch().unwrap().unwrap().batch.rows, 25);
    assert!(scanner.next_batch().unwrap().is_none());
    assert_eq!(reads(&sources), 1);
}

#[test]
fn a_range_delete_is_a_tombstone_that_spares_reading() {
    let (mut world, sources) = appended();
    world.delete_range(0, 100);
    let key = keys::encode(&[Value::Int(50), Value::Text(String::from("k"))]);
    let head = world.view().head(world.keyspace, &key).unwrap().unwrap();
    assert!(head.tombstone);
    assert_eq!(head.stamp.modified, LogIndex(world.version));
    let mut scanner = world.view().scan(all(&world)).unwrap();
    let mut rows = 0;
    while let Some(scanned) = scanner.next_batch().unwrap() {
        rows += scanned.batch.rows;
    }
    assert_eq!((rows, reads(&sources)), (100, 4));
}

#[test]
fn a_reader_sees_whole_commands_while_the_writer_goes_on() {
    const COMMANDS: u64 = 200;
    let (catalog, keyspace) = catalog(false);
    let layout = catalog.layout(keyspace).unwrap();
    let levels = Arc::new(Levels::new(Vec::new()));
    let applied = AtomicU64::new(0);
    let view = |version| View {
        version: LogIndex(version),
        hlc: Timestamp(version),
        catalog: catalog.clone(),
        levels: levels.clone(),
        cache: Arc::new(Cache::new(0)),
        lease: None,
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in 1..=COMMANDS {
                let row = Row { v: Some(version as i64), w: 0.0, s: String::new(), x: 0 };
                let rows: Vec<(Key, Vec<u8>)> = (0..300)
                    .map(|a| {
                        let values = row.values(&(a, String::new()), false);
                        let mut image = Vec::new();
                        codec::encode(&layout, &values, &mut image);
                        (codec::key_of(&layout, &values), image)
                    })
                    .collect();
                let stamp = Stamp {
                    created_ms: version,
                    hlc: Timestamp(version),
                    origin: OriginUid(1),
                    modified: LogIndex(version),
                };
                let puts: Vec<Put<'_>> =
                    rows.iter().map(|(key, image)| Put { key, stamp, image: Some(image) }).collect();
                levels.memtables[0].put_many(keyspace, &puts);
                applied.store(version, Ordering::Release);
            }
        });
        scope.spawn(|| {
            let mut version = 0;
            while version < COMMANDS {
                version = applied.load(Ordering::Acquire);
                let request = ScanRequest {
                    keyspace,
                    ranges: vec![KeyRange::all()],
                    columns: vec![V],
                    bounds: Vec::new(),
                    expired_below_ms: 0,
                    with_keys: false,
                    batch_rows: 64,
                };
                let mut scanner = view(version).scan(request).unwrap();
                let mut rows = 0;
                while let Some(scanned) = scanner.next_batch().unwrap() {
                    rows += scanned.batch.rows;
                    for row in 0..scanned.batch.rows {
                        assert_eq!(scanned.batch.row(row), [Value::Int(version as i64)]);
                    }
                }
                assert_eq!(rows, if version == 0 { 0 } else { 300 });
            }
        });
    });
}
