//! Scans by key, by point, by index; expiry; and aggregates from summaries.

use super::support::*;
use chronos::error::Result;
use chronos::ids::{ColumnId, IndexId, KeyspaceId, LogIndex, SchemaVersion, TableId};
use chronos::sql::catalog::{ColumnDefinition, Index, IndexState, Table};
use chronos::sql::expression::{BinaryOperator, Expression};
use chronos::sql::operator::{BatchSource, PointSource, Source};
use chronos::sql::plan::{Access, Aggregate, AggregateFunction, Plan};
use chronos::sql::value::{DataType, Value};
use chronos::storage::keys::{Key, KeyRange};
use chronos::storage::level::{Summary, Zone};
use chronos::storage::view::{ScanBatch, ScanItem, ScanRequest};
use std::sync::Arc;
use std::time::Duration;

pub const ROWS: KeyspaceId = KeyspaceId(16);
pub const BY_DEVICE: KeyspaceId = KeyspaceId(17);
pub const ID: ColumnId = ColumnId(1);
pub const DEVICE: ColumnId = ColumnId(2);
pub const VALUE: ColumnId = ColumnId(3);

/// A table of so many sensors readings: (id, device, value), created at `id` ms, with an index on device.
pub fn sensors(rows: i64) -> (Map, Arc<Table>) {
    let define = |id, name: &str, data_type: DataType| ColumnDefinition {
        id,
        name: name.into(),
        data_type,
        declared_type: data_type.to_string(),
        length_max: None,
        not_null: false,
        default: None,
    };
    let table = Table {
        id: TableId(1),
        name: "readings".into(),
        schema: SchemaVersion(1),
        keyspace: ROWS,
        columns: vec![
            define(ID, "id", DataType::Int),
            define(DEVICE, "device", DataType::Text),
            define(VALUE, "value", DataType::Float),
        ],
        primary_key: vec![ID],
        ttl: None,
        expired_below_ms: 0,
        floor: LogIndex(0),
        indexes: vec![Index {
            id: IndexId(1),
            name: "by_device".into(),
            keyspace: BY_DEVICE,
            columns: vec![DEVICE],
            unique: false,
            state: IndexState::Ready,
        }],
    };
    let mut map = Map::default();
    let readings = map.keyspaces.entry(ROWS).or_default();
    readings.columns = vec![(ID, DataType::Int), (DEVICE, DataType::Text), (VALUE, DataType::Float)];
    for id in 0..rows {
        readings.rows.insert(key(&[Value::Int(id)]), (id as u64, Some(reading(id))));
    }
    let index = map.keyspaces.entry(BY_DEVICE).or_default();
    index.columns = vec![(DEVICE, DataType::Text), (ID, DataType::Int)];
    for id in 0..rows {
        let entry = vec![reading(id)[1].clone(), Value::Int(id)];
        index.rows.insert(key(&entry), (id as u64, Some(entry)));
    }
    (map, Arc::new(table))
}

fn reading(id: i64) -> Vec<Value> {
    vec![Value::Int(id), Value::Text(format!("pump-{}", id % 7)), Value::Float(id as f64 / 2.0)]
}

pub fn scan(table: &Arc<Table>, access: Access, columns: &[ColumnId], filter: Option<Expression>) -> Plan {
    Plan::Scan { table: Arc::clone(table), access, columns: columns.to_vec(), bounds: Vec::new(), filter }
}

pub fn whole(table: &Arc<Table>) -> Plan {
    scan(table, Access::Primary { ranges: vec![KeyRange::all()] }, &[ID, DEVICE, VALUE], None)
}

#[test]
fn every_access_gives_the_same_rows() {
    let (mut map, table) = sensors(3000);
    // A row deleted since: the index still names it here, as a range delete leaves it.
    map.keyspaces.get_mut(&ROWS).unwrap().rows.get_mut(&key(&[Value::Int(9)])).unwrap().1 = None;
    let context = context(map);
    let is_two = binary(BinaryOperator::Equal, column(1, DataType::Text), text("pump-2"));
    let by_scan = scan(&table, Access::Primary { ranges: vec![KeyRange::all()] }, &[ID, DEVICE, VALUE], Some(is_two));
    let by_scan = run_in(&by_scan, &context).unwrap();
    let device = key(&[Value::Text("pump-2".into())]);
    let access = || Access::Index { index: IndexId(1), ranges: vec![KeyRange::prefix(&device)] };
    let by_index = run_in(&scan(&table, access(), &[ID, DEVICE, VALUE], None), &context).unwrap();
    let points =
        (0..3000).filter(|id| id % 7 == 2).map(|id| KeyRange::point(&Key::new(&key(&[Value::Int(id)])))).collect();
    let by_point =
        run_in(&scan(&table, Access::Primary { ranges: points }, &[ID, DEVICE, VALUE], None), &context).unwrap();
    assert_eq!(by_scan.len(), 428);
    assert!(by_scan == by_index && by_scan == by_point);
    // The index holds these columns: the rows are not looked up, so the deleted one's entry shows.
    let covered = run_in(&scan(&table, access(), &[DEVICE, ID], None), &context).unwrap();
    assert_eq!(covered.len(), 429);
    assert_eq!(covered[0], [Value::Text("pump-2".into()), Value::Int(2)]);
}

#[test]
fn rows_expire_by_the_read_instant() {
    let (map, table) = sensors(100);
    let mut expiring = (*table).clone();
    expiring.ttl = Some(Duration::from_millis(40));
    let table = Arc::new(expiring);
    let mut context = context(map);
    context.now_ms = 100;
    assert_eq!(run_in(&whole(&table), &context).unwrap().len(), 40);
    let point = |id| KeyRange::point(&Key::new(&key(&[Value::Int(id)])));
    let points = scan(&table, Access::Primary { ranges: vec![point(59), point(60)] }, &[ID], None);
    assert_eq!(run_in(&points, &context).unwrap(), [[Value::Int(60)]]);
}

#[test]
fn a_limit_asks_storage_for_no_more_than_it_needs() {
    struct Watched(Map, Arc<std::sync::Mutex<Vec<usize>>>);
    impl Source for Watched {
        fn scan(&self, request: ScanRequest) -> Result<Box<dyn BatchSource>> {
            self.1.lock().unwrap().push(request.batch_rows);
            self.0.scan(request)
        }
        fn points(&self, keyspace: KeyspaceId, columns: &[ColumnId]) -> Result<Box<dyn PointSource>> {
            self.0.points(keyspace, columns)
        }
    }
    let (map, table) = sensors(1000);
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let context = context(Watched(map, Arc::clone(&asked)));
    let limited = |input| Plan::Limit { input: Box::new(input), limit: Some(2), offset: 1 };
    assert_eq!(run_in(&limited(whole(&table)), &context).unwrap(), [reading(1), reading(2)]);
    run_in(&whole(&table), &context).unwrap();
    assert_eq!(*asked.lock().unwrap(), [3, 4096]);
}

/// A source that gives the first of two blocks as a summary.
struct Summarising {
    map: Map,
    known_zones: usize,
}

struct SummarisingScan {
    rows: Box<dyn BatchSource>,
    pending: Option<ScanBatch>,
    first: bool,
    known_zones: usize,
}

impl Source for Summarising {
    fn scan(&self, mut request: ScanRequest) -> Result<Box<dyn BatchSource>> {
        request.batch_rows = 500;
        let rows = self.map.scan(request)?;
        Ok(Box::new(SummarisingScan { rows, pending: None, first: true, known_zones: self.known_zones }))
    }
    fn points(&self, keyspace: KeyspaceId, columns: &[ColumnId]) -> Result<Box<dyn PointSource>> {
        self.map.points(keyspace, columns)
    }
}

impl BatchSource for SummarisingScan {
    fn next_batch(&mut self) -> Result<Option<ScanBatch>> {
        self.rows.next_batch()
    }
    fn next_summary(&mut self) -> Result<Option<ScanItem>> {
        let Some(batch) = self.rows.next_batch()? else { return Ok(None) };
        if !std::mem::take(&mut self.first) {
            return Ok(Some(ScanItem::Batch(batch)));
        }
        let zone = |index: usize| {
            let column = &batch.batch.columns[index];
            let values = (0..batch.batch.rows).map(|i| column.value(i));
            let min = values.clone().reduce(|a, b| if b.order(&a).is_lt() { b } else { a }).unwrap();
            let max = values.reduce(|a, b| if b.order(&a).is_gt() { b } else { a }).unwrap();
            Zone { min, max, nulls: 0 }
        };
        let zones = (0..3usize.min(self.known_zones)).map(zone).collect();
        let summary = Summary {
            rows: batch.batch.rows as u32,
            tombstones: 0,
            created_min_ms: 0,
            created_max_ms: 0,
            hlc_max: 0,
            modified_max: LogIndex(1),
            zones,
        };
        self.pending = Some(batch);
        Ok(Some(ScanItem::Summary(Arc::new(summary))))
    }
    fn read_summarised(&mut self) -> Result<Option<ScanBatch>> {
        Ok(self.pending.take())
    }
}

#[test]
fn summaries_answer_what_rows_would() {
    let (map, table) = sensors(1200);
    let of = |function, argument: Option<Expression>, data_type| Aggregate {
        function,
        argument,
        distinct: false,
        data_type,
    };
    let value = || Some(column(2, DataType::Float));
    let plan = Plan::Aggregate {
        input: Box::new(whole(&table)),
        group: Vec::new(),
        aggregates: vec![
            of(AggregateFunction::Count, None, DataType::Int),
            of(AggregateFunction::Count, value(), DataType::Int),
            of(AggregateFunction::Min, value(), DataType::Float),
            of(AggregateFunction::Max, Some(column(0, DataType::Int)), DataType::Int),
        ],
    };
    let expected = [[Value::Int(1200), Value::Int(1200), Value::Float(0.0), Value::Int(1199)]];
    for known_zones in [3, 2, 0] {
        let context = context(Summarising { map: map.clone(), known_zones });
        assert_eq!(run_in(&plan, &context).unwrap(), expected, "{known_zones} zones known");
    }
    assert_eq!(run_in(&plan, &context(map)).unwrap(), expected);
}
