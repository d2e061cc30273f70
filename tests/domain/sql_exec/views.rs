//! Plans over real read views: rows in blocks, newer ones in a memtable, and a map of the same rows beside them.

use super::scans::{BY_DEVICE, DEVICE, ID, ROWS, VALUE, scan, sensors, whole};
use super::support::*;
use chronos::error::{Error, Result};
use chronos::hlc::Timestamp;
use chronos::ids::{IndexId, KeyspaceId, LogIndex, OriginUid};
use chronos::sql::catalog::Catalog;
use chronos::sql::expression::BinaryOperator;
use chronos::sql::plan::{Access, Aggregate, AggregateFunction, Plan, SortKey};
use chronos::sql::value::{DataType, Value};
use chronos::storage::block::Block;
use chronos::storage::cache::Cache;
use chronos::storage::codec;
use chronos::storage::keys::{Key, KeyRange};
use chronos::storage::level::{Address, BlockEntry, BlockSource, Level, Manifest};
use chronos::storage::levels::{Edit, Levels};
use chronos::storage::memtable::{Memtable, Put};
use chronos::storage::rows::Stamp;
use chronos::storage::view::View;
use std::collections::BTreeMap;
use std::sync::Arc;

const ROW_COUNT: i64 = 3000;

/// Blocks of a level, by uid.
struct Bytes(BTreeMap<u64, Arc<[u8]>>);

impl BlockSource for Bytes {
    fn read(&self, entry: &BlockEntry) -> Result<Block> {
        Block::open(self.0.get(&entry.uid).cloned().ok_or_else(|| Error::damaged("no such block"))?)
    }
}

fn put(memtable: &Memtable, catalog: &Catalog, map: &Map, keyspace: KeyspaceId, from: i64, to: i64) {
    let layout = catalog.layout(keyspace).unwrap();
    for (key, (created_ms, row)) in &map.keyspaces[&keyspace].rows {
        let row = row.as_ref().unwrap();
        let id = row.iter().find_map(|value| if let Value::Int(id) = value { Some(*id) } else { None }).unwrap();
        if (from..to).contains(&id) {
            let mut image = Vec::new();
            codec::encode(&layout, row, &mut image);
            let stamp =
                Stamp { created_ms: *created_ms, hlc: Timestamp(1), origin: OriginUid(1), modified: LogIndex(1) };
            memtable.put_many(keyspace, &[Put { key, stamp, image: Some(&image) }]);
        }
    }
}

/// The map's rows as storage holds them: the older half in one block a keyspace, the others in a memtable.
fn view_of(map: &Map, catalog: Catalog) -> View {
    let older = Arc::new(Memtable::new());
    let levels = Levels::new(Vec::new());
    let mut blocks = BTreeMap::new();
    let mut bytes = BTreeMap::new();
    for (uid, keyspace) in (1u64..).zip([ROWS, BY_DEVICE]) {
        put(&older, &catalog, map, keyspace, 0, ROW_COUNT / 2);
        let layout = catalog.layout(keyspace).unwrap();
        let rows = older.rows(keyspace, &layout, None, usize::MAX).unwrap();
        let (encoded, summary) = Block::encode(&layout, &rows);
        let entry = BlockEntry {
            uid,
            address: Address { file: 0, offset: uid },
            bytes: encoded.len() as u32,
            first: Key::new(rows.keys.get(0)),
            last: Key::new(rows.keys.get(rows.len() - 1)),
            summary: Arc::new(summary),
            filter: None,
        };
        blocks.insert(keyspace, vec![Arc::new(entry)]);
        bytes.insert(uid, Arc::from(encoded));
        put(&levels.memtables[0], &catalog, map, keyspace, ROW_COUNT / 2, ROW_COUNT);
    }
    let level =
        Level { manifest: Manifest::new(blocks), range_deletes: Arc::new(Vec::new()), source: Arc::new(Bytes(bytes)) };
    let edit = Edit { take_memtables: Vec::new(), take_blocks: Vec::new(), put: vec![Arc::new(level)] };
    View {
        version: LogIndex(1),
        hlc: Timestamp(1),
        catalog: Arc::new(catalog),
        levels: Arc::new(levels.edit(&edit).unwrap()),
        cache: Arc::new(Cache::new(1 << 20)),
        lease: None,
    }
}

#[test]
fn plans_over_a_view_answer_as_over_a_map() {
    let (map, table) = sensors(ROW_COUNT);
    let mut catalog = Catalog::default();
    catalog.put((*table).clone());
    let view = context(view_of(&map, catalog));
    let map = context(map);
    let device = |name: &str| key(&[Value::Text(name.into())]);
    let by_index = Access::Index { index: IndexId(1), ranges: vec![KeyRange::prefix(&device("pump-3"))] };
    let points = [5, 1600, 2999, 4000].map(|id| KeyRange::point(&Key::new(&key(&[Value::Int(id)])))).to_vec();
    let middle = KeyRange { from: Key::new(&key(&[Value::Int(1400)])), to: Some(Key::new(&key(&[Value::Int(1601)]))) };
    let large = binary(BinaryOperator::Greater, column(2, DataType::Float), float(1200.0));
    let aggregate = |function, argument, data_type| Aggregate { function, argument, distinct: false, data_type };
    let value = || Some(column(2, DataType::Float));
    let ends = vec![
        aggregate(AggregateFunction::Count, None, DataType::Int),
        aggregate(AggregateFunction::Min, value(), DataType::Float),
        aggregate(AggregateFunction::Max, value(), DataType::Float),
    ];
    let all = [ID, DEVICE, VALUE];
    let plans = [
        whole(&table),
        scan(&table, Access::Primary { ranges: vec![middle] }, &all, None),
        scan(&table, Access::Primary { ranges: vec![KeyRange::all()] }, &all, Some(large)),
        scan(&table, Access::Primary { ranges: points }, &all, None),
        scan(&table, by_index.clone(), &all, None),
        scan(&table, by_index, &[ID, DEVICE], None),
        Plan::Limit { input: Box::new(whole(&table)), limit: Some(10), offset: 1495 },
        Plan::Aggregate { input: Box::new(whole(&table)), group: Vec::new(), aggregates: ends.clone() },
        Plan::Aggregate {
            input: Box::new(whole(&table)),
            group: vec![column(1, DataType::Text)],
            aggregates: [ends, vec![aggregate(AggregateFunction::Avg, value(), DataType::Float)]].concat(),
        },
        Plan::Sort {
            input: Box::new(whole(&table)),
            keys: vec![SortKey { expression: column(1, DataType::Text), descending: true, nulls_first: true }],
            limit: Some(700),
        },
    ];
    for (number, plan) in plans.iter().enumerate() {
        let (over_view, over_map) = (run_in(plan, &view).unwrap(), run_in(plan, &map).unwrap());
        assert!(!over_map.is_empty() && over_view == over_map, "plan {number}");
    }
}
