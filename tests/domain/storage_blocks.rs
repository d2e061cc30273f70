//! Blocks against plain vectors: what went in comes out, and nothing else ever does.

mod format;

use chronos::error::Kind;
use chronos::hlc::Timestamp;
use chronos::ids::{ColumnId, LogIndex, OriginUid};
use chronos::sql::batch::{Column, ColumnBuilder, Strings};
use chronos::sql::catalog::{Layout, LayoutColumn};
use chronos::sql::value::{DataType, Value};
use chronos::storage::block::{Block, Limits, encode_cut, slice};
use chronos::storage::rows::{Metadata, Rows, Stamp};
use chronos::storage::{filter, keys};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::sync::Arc;

/// Gives length and checksum of a block the values that fit its bytes.
fn vouch(bytes: &mut [u8]) {
    let length = bytes.len() as u32;
    bytes[16..20].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), &bytes[24..]);
    bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
}

const TYPES: [DataType; 6] =
    [DataType::Bool, DataType::Int, DataType::Float, DataType::Text, DataType::Blob, DataType::Timestamp];

fn value(data_type: DataType) -> BoxedStrategy<Value> {
    let ints = || prop_oneof![any::<i64>(), -5..5i64, select(vec![i64::MIN, i64::MAX, 0, -1])];
    match data_type {
        DataType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        DataType::Int => ints().prop_map(Value::Int).boxed(),
        DataType::Timestamp => ints().prop_map(Value::Timestamp).boxed(),
        DataType::Float => {
            let odd = vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 5e-324];
            let decimal = (-100_000..100_000i64).prop_map(|cents| cents as f64 / 100.0);
            prop_oneof![any::<u64>().prop_map(f64::from_bits), select(odd), decimal].prop_map(Value::Float).boxed()
        }
        DataType::Text => {
            let long = (0..3usize, "[a-c]{1,2}").prop_map(|(n, part)| part.repeat(n * 700));
            prop_oneof![".{0,12}", "[ab]{0,2}", long, Just(String::from("\u{10FFFF}").repeat(20))]
                .prop_map(Value::Text)
                .boxed()
        }
        DataType::Blob => {
            prop_oneof![vec(any::<u8>(), 0..20), Just(vec![0xFF; 50]), Just(vec![0; 50])].prop_map(Value::Blob).boxed()
        }
    }
}

/// How a column's rows are drawn from a few values: the shapes that encodings look for.
#[derive(Clone, Debug)]
enum Shape {
    Any,
    Same,
    Runs(usize),
    Cycle,
    Series(i64, i64),
}

#[derive(Clone, Debug)]
struct Drawn {
    data_type: DataType,
    shape: Shape,
    pool: Vec<Value>,
    nulls: Vec<bool>,
}

impl Drawn {
    fn at(&self, row: usize) -> Value {
        if self.nulls[row % self.nulls.len()] {
            return Value::Null;
        }
        let pick = match self.shape {
            Shape::Any => row.wrapping_mul(0x9E37_79B9) >> 3,
            Shape::Same => 0,
            Shape::Runs(length) => row / length,
            Shape::Cycle => row,
            Shape::Series(first, step) => {
                let value = first.wrapping_add(step.wrapping_mul(row as i64));
                match self.data_type {
                    DataType::Int => return Value::Int(value),
                    DataType::Timestamp => return Value::Timestamp(value),
                    DataType::Float => return Value::Float(value as f64),
                    DataType::Bool | DataType::Text | DataType::Blob => row,
                }
            }
        };
        self.pool[pick % self.pool.len()].clone()
    }
}

fn drawn() -> impl Strategy<Value = Drawn> {
    select(&TYPES[..]).prop_flat_map(|data_type| {
        let shape = prop_oneof![
            Just(Shape::Any),
            Just(Shape::Same),
            (2..40usize).prop_map(Shape::Runs),
            Just(Shape::Cycle),
            (any::<i64>(), -100..100i64).prop_map(|(first, step)| Shape::Series(first, step)),
        ];
        let nulls = prop_oneof![Just(vec![false]), Just(vec![true]), vec(any::<bool>(), 1..20)];
        (shape, vec(value(data_type), 1..60), nulls).prop_map(move |(shape, pool, nulls)| Drawn {
            data_type,
            shape,
            pool,
            nulls,
        })
    })
}

fn stamps() -> impl Strategy<Value = Vec<(Stamp, bool)>> {
    let stamp =
        (any::<u64>(), prop_oneof![Just(None), any::<u64>().prop_map(Some)], 0..3u64, any::<u64>(), any::<bool>());
    vec(stamp, 1..40).prop_map(|drawn| {
        let stamp = |(hlc, created, origin, modified, tombstone): (u64, Option<u64>, u64, u64, bool)| {
            let created_ms = created.unwrap_or(hlc >> 16);
            let stamp =
                Stamp { created_ms, hlc: Timestamp(hlc), origin: OriginUid(origin), modified: LogIndex(modified) };
            (stamp, tombstone)
        };
        drawn.into_iter().map(stamp).collect()
    })
}

/// Rows in key order, whose key is the first `key` columns and a number that keeps them apart.
fn rows(columns: &[Drawn], key: usize, count: usize, stamps: &[(Stamp, bool)]) -> (Layout, Rows) {
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type).chain([DataType::Int]).collect();
    let last = columns.len();
    let layout = Layout {
        columns: (1u16..)
            .zip(&types)
            .map(|(id, &data_type)| LayoutColumn { id: ColumnId(id), data_type, missing: Value::Null })
            .collect(),
        key: (0..key as u16).chain([last as u16]).collect(),
    };
    let mut all: Vec<(keys::Key, Vec<Value>)> = (0..count)
        .map(|row| {
            let values: Vec<Value> =
                columns.iter().map(|column| column.at(row)).chain([Value::Int(row as i64)]).collect();
            let key: Vec<Value> = layout.key.iter().map(|&slot| values[slot as usize].clone()).collect();
            (keys::encode(&key), values)
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let built = types.iter().enumerate().map(|(slot, &data_type)| {
        let mut builder = ColumnBuilder::new(data_type, count);
        for (_, values) in &all {
            builder.push(&values[slot]);
        }
        Arc::new(builder.finish())
    });
    let columns = built.collect();
    let mut metadata = Metadata::default();
    (0..count).for_each(|row| {
        let (stamp, tombstone) = stamps[row % stamps.len()];
        metadata.push(stamp, tombstone);
    });
    let keys: Strings = all.iter().map(|(key, _)| &**key).collect();
    (layout, Rows { keys, columns, metadata })
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

fn same_columns(a: &Column, b: &Column) -> bool {
    a.data_type() == b.data_type() && a.len() == b.len() && (0..a.len()).all(|row| same(&a.value(row), &b.value(row)))
}

fn inputs() -> impl Strategy<Value = (Layout, Rows)> {
    (vec(drawn(), 0..5), any::<Index>(), prop_oneof![1..5usize, 1..300usize, Just(1024)], stamps())
        .prop_map(|(columns, key, count, stamps)| rows(&columns, key.index(columns.len() + 1), count, &stamps))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_row_comes_back((layout, rows) in inputs()) {
        let (bytes, summary) = Block::encode(&layout, &rows);
        let block = Block::open(bytes.into()).unwrap();
        prop_assert_eq!(block.rows(), rows.len());
        let decoded = block.decode(&layout).unwrap();
        prop_assert_eq!(&decoded.keys, &rows.keys);
        prop_assert_eq!(&decoded.metadata, &rows.metadata);
        for (slot, column) in layout.columns.iter().zip(&rows.columns) {
            let alone = block.column(slot.id).unwrap().unwrap();
            prop_assert!(same_columns(&alone, column), "{column:?} came back as {alone:?}");
        }
        prop_assert!(block.column(ColumnId(99)).unwrap().is_none());
        prop_assert_eq!(&*block.keys(&layout).unwrap(), &rows.keys);
        prop_assert_eq!(block.created_ms().unwrap(), rows.metadata.created_ms.clone());
        let marks = block.tombstones().unwrap();
        prop_assert_eq!(marks.is_some(), summary.tombstones > 0);
        for row in [0, rows.len() / 2, rows.len() - 1] {
            prop_assert_eq!(block.find(&layout, rows.keys.get(row)).unwrap(), Some(row));
            let above = keys::Key::new(rows.keys.get(row)).successor();
            prop_assert_eq!(block.find(&layout, &above).unwrap(), None);
        }
        block.check().unwrap();
        prop_assert_eq!(format!("{:?}", block.summary().unwrap()), format!("{summary:?}"));
    }

    #[test]
    fn zones_hold_every_value((layout, rows) in inputs()) {
        let (_, summary) = Block::encode(&layout, &rows);
        for (column, zone) in rows.columns.iter().zip(&summary.zones) {
            let nulls = (0..rows.len()).filter(|&row| column.is_null(row)).count();
            prop_assert_eq!(nulls, zone.nulls as usize);
            for value in (0..rows.len()).map(|row| column.value(row)).filter(|value| !value.is_null()) {
                prop_assert!(zone.min.order(&value).is_le() && zone.max.order(&value).is_ge(), "{value:?} in {zone:?}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_damage((layout, rows) in inputs(), at in any::<Index>(), bit in 0..8u8) {
        let (mut bytes, _) = Block::encode(&layout, &rows);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(Block::open(bytes.into()).unwrap_err().kind(), Kind::Damaged);
    }

    #[test]
    fn bytes_that_only_their_checksum_vouches_for_never_panic(
        (layout, rows) in inputs(),
        edits in vec((any::<Index>(), prop_oneof![any::<u8>(), Just(0), Just(0xFF)]), 1..8),
        cut in proptest::option::of(any::<Index>()),
    ) {
        let (mut bytes, _) = Block::encode(&layout, &rows);
        if let Some(cut) = cut {
            bytes.truncate(24 + cut.index(bytes.len() - 24));
        }
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        vouch(&mut bytes);
        if let Ok(block) = Block::open(bytes.into()) {
            let _ = block.check();
            let _ = block.decode(&layout);
            let _ = block.find(&layout, rows.keys.get(0));
            let _ = block.summary();
        }
    }

    #[test]
    fn a_filter_never_hides_a_key_and_reads_any_bytes(
        keys in vec(vec(any::<u8>(), 0..40), 0..600),
        bytes in vec(any::<u8>(), 0..100),
    ) {
        let built = filter::build(keys.iter().map(Vec::as_slice));
        filter::check(&built).unwrap();
        prop_assert!(keys.iter().all(|key| filter::may_contain(&built, key)));
        prop_assert!(keys.iter().all(|key| filter::may_contain_hash(&built, filter::KeyHash::of(key))));
        let _ = (filter::check(&bytes), keys.iter().filter(|key| filter::may_contain(&bytes, key)).count());
    }

    #[test]
    fn cutting_keeps_every_row_and_the_limit((layout, rows) in inputs(), rows_max in 1..500usize, bytes_max in 300..5000usize) {
        let mut reached = 0;
        encode_cut(&layout, &rows, Limits { rows_max, bytes_max }, |range, bytes, summary| {
            assert_eq!(range.start, reached);
            reached = range.end;
            assert!(range.len() <= rows_max && (bytes.len() <= bytes_max || range.len() == 1));
            assert_eq!(summary.rows as usize, range.len());
            let block = Block::open(bytes.into()).unwrap();
            assert_eq!(block.decode(&layout).unwrap().keys, slice(&rows, range).keys);
        });
        prop_assert_eq!(reached, rows.len());
    }
}

#[test]
fn a_row_of_two_numbers_and_a_nine_digit_float_takes_less_than_six_bytes() {
    // A random walk in steps of up to 0.5, written with seven decimals.
    let mut state = 1u64;
    let mut level = 800_000_000i64;
    let values = (0..4096).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        level += (state >> 33) as i64 % 10_000_001 - 5_000_000;
        Value::Float(level as f64 / 1e7)
    });
    let drawn = [
        Drawn { data_type: DataType::Int, shape: Shape::Same, pool: vec![Value::Int(17)], nulls: vec![false] },
        Drawn { data_type: DataType::Float, shape: Shape::Cycle, pool: values.collect(), nulls: vec![false] },
    ];
    let stamps: Vec<(Stamp, bool)> = (0..4096u64)
        .map(|row| {
            let hlc = Timestamp((1_763_800_000_000 + row / 20 * 3) << 16);
            (
                Stamp { created_ms: hlc.0 >> 16, hlc, origin: OriginUid(u64::MAX / 3), modified: LogIndex(row / 20) },
                false,
            )
        })
        .collect();
    let (layout, rows) = rows(&drawn, 1, 4096, &stamps);
    let (bytes, _) = Block::encode(&layout, &rows);
    assert!(bytes.len() < 4096 * 6, "{} bytes", bytes.len());
    // Of which the value takes nearly all: the rest, header and directory too, is below a tenth of a byte a row.
    let value = bytes[24 + 8 + 4..][..4].try_into().map(u32::from_le_bytes).unwrap()
        - bytes[24 + 4..][..4].try_into().map(u32::from_le_bytes).unwrap();
    assert!(bytes.len() - (value as usize) < 450, "{} bytes beside the value", bytes.len() - value as usize);
}
