//! The world and its model: levels as the storage engine would change them, beside a plain map of versions.

use super::blocks::*;
use chronos::hlc::Timestamp;
use chronos::ids::{ColumnId, KeyspaceId, LogIndex, OriginUid};
use chronos::sql::catalog::{Catalog, Layout};
use chronos::sql::value::Value;
use chronos::storage::cache::Cache;
use chronos::storage::codec;
use chronos::storage::keys::{self, Key, KeyRange};
use chronos::storage::level::RangeDelete;
use chronos::storage::levels::{Edit, Levels};
use chronos::storage::memtable::{Memtable, Put};
use chronos::storage::rows::Stamp;
use chronos::storage::view::{ScanItem, ScanRequest, View, ZoneBound};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Row {
    pub v: Option<i64>,
    pub w: f64,
    pub s: String,
    pub x: i64,
}

impl Row {
    pub fn values(&self, key: &(i64, String), with_x: bool) -> Vec<Value> {
        let mut values = vec![
            self.v.map_or(Value::Null, Value::Int),
            Value::Int(key.0),
            Value::Float(self.w),
            Value::Text(key.1.clone()),
            Value::Text(self.s.clone()),
        ];
        values.extend(with_x.then_some(Value::Int(self.x)));
        values
    }
}

#[derive(Clone, Debug)]
pub enum Op {
    /// One command; none deletes. The number is how long before the command the row was created, in ms.
    Write(BTreeMap<(i64, String), (Option<Row>, u64)>),
    DeleteRange(i64, i64),
    Freeze,
    Flush(usize),
    Merge(usize, usize),
    AddColumn,
    Hold,
}

#[derive(Clone, Debug)]
pub struct Wanted {
    pub ranges: Vec<KeyRange>,
    pub columns: Vec<ColumnId>,
    pub bounds: Vec<ZoneBound>,
    pub expired_below_ms: u64,
    pub with_keys: bool,
    pub batch_rows: usize,
}

/// A stamp, and the values unless it is a tombstone.
pub type Version = (Stamp, Option<Vec<Value>>);

/// The position that a version is from, and stamp and values unless it is a tombstone.
pub type Newest<'a> = (LogIndex, Option<(Stamp, &'a Vec<Value>)>);

/// What there is, and what the map says of it.
pub struct World {
    pub levels: Levels,
    pub cache: Arc<Cache>,
    pub catalog: Arc<Catalog>,
    pub layout: Layout,
    pub keyspace: KeyspaceId,
    pub with_x: bool,
    pub version: u64,
    pub model: BTreeMap<Vec<u8>, Vec<Version>>,
    pub deletes: Vec<RangeDelete>,
    pub held: Vec<View>,
}

impl World {
    pub fn new() -> World {
        let (catalog, keyspace) = catalog(false);
        World {
            levels: Levels::new(Vec::new()),
            // Room for some blocks, so that parts are found, evicted and decoded again.
            cache: Arc::new(Cache::new(16 << 10)),
            layout: catalog.layout(keyspace).unwrap(),
            catalog,
            keyspace,
            with_x: false,
            version: 0,
            model: BTreeMap::new(),
            deletes: Vec::new(),
            held: Vec::new(),
        }
    }

    pub fn now_ms(&self) -> u64 {
        900 + self.version
    }

    pub fn view(&self) -> View {
        View {
            version: LogIndex(self.version),
            hlc: Timestamp(self.now_ms() << 16),
            catalog: self.catalog.clone(),
            levels: Arc::new(self.levels.clone()),
            cache: self.cache.clone(),
            lease: None,
        }
    }

    pub fn stamp(&self, age_ms: u64) -> Stamp {
        Stamp {
            created_ms: self.now_ms() - age_ms,
            hlc: Timestamp(self.now_ms() << 16),
            origin: OriginUid(7),
            modified: LogIndex(self.version),
        }
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Write(rows) => self.write(rows),
            Op::DeleteRange(from, to) => self.delete_range(*from, *to),
            Op::Freeze => self.levels = self.levels.with_memtable(Arc::new(Memtable::new())),
            Op::Flush(block_rows) => self.flush(*block_rows),
            Op::Merge(at, block_rows) => self.merge(*at, *block_rows),
            Op::AddColumn => {
                self.with_x = true;
                self.catalog = catalog(true).0;
                self.layout = self.catalog.layout(self.keyspace).unwrap();
            }
            Op::Hold => self.held.push(self.view()),
        }
    }

    pub fn write(&mut self, rows: &BTreeMap<(i64, String), (Option<Row>, u64)>) {
        self.version += 1;
        let mut encoded = Vec::new();
        for (key, (row, age_ms)) in rows {
            let stamp = self.stamp(if row.is_some() { *age_ms } else { 0 });
            let values = row.as_ref().map(|row| row.values(key, self.with_x));
            let key = keys::encode(&[Value::Int(key.0), Value::Text(key.1.clone())]);
            let image = values.as_ref().map(|values| {
                let mut image = Vec::new();
                codec::encode(&self.layout, values, &mut image);
                image
            });
            self.model.entry(key.to_vec()).or_default().push((stamp, values));
            encoded.push((key, stamp, image));
        }
        let puts: Vec<Put<'_>> =
            encoded.iter().map(|(key, stamp, image)| Put { key, stamp: *stamp, image: image.as_deref() }).collect();
        self.levels.memtables[0].put_many(self.keyspace, &puts);
    }

    pub fn delete_range(&mut self, from: i64, to: i64) {
        self.version += 1;
        let bound = |a| {
            let mut key = Vec::new();
            keys::push_int(&mut key, a);
            Key::new(&key)
        };
        let range = KeyRange { from: bound(from), to: Some(bound(to)) };
        let hlc = self.stamp(0).hlc.0;
        let delete = RangeDelete { keyspace: self.keyspace, range, index: LogIndex(self.version), hlc };
        self.deletes.push(delete.clone());
        self.levels.memtables[0].delete_range(delete);
    }

    /// Writes the oldest frozen memtable as a level of its own.
    pub fn flush(&mut self, block_rows: usize) {
        if self.levels.memtables.len() < 2 {
            return;
        }
        let frozen = self.levels.memtables.last().unwrap().clone();
        let mut all = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = frozen.rows(self.keyspace, &self.layout, after.as_deref(), 7).unwrap();
            if rows.is_empty() {
                break;
            }
            after = Some(rows.keys.get(rows.len() - 1).to_vec());
            all.push(rows);
        }
        let (level, _) = level(&self.layout, self.keyspace, &all, block_rows, frozen.range_deletes());
        let edit = Edit { take_memtables: vec![frozen], take_blocks: Vec::new(), put: vec![level] };
        self.levels = self.levels.edit(&edit).expect("nothing else changes levels");
    }

    pub fn merge(&mut self, at: usize, block_rows: usize) {
        let Some(inputs) = self.levels.blocks.get(at..at + 2) else { return };
        let deletes = inputs.iter().flat_map(|level| level.range_deletes.iter().cloned()).collect();
        let rows = merged(&self.layout, self.keyspace, inputs);
        let (level, _) = level(&self.layout, self.keyspace, &rows, block_rows, deletes);
        let edit = Edit { take_memtables: Vec::new(), take_blocks: inputs.to_vec(), put: vec![level] };
        self.levels = self.levels.edit(&edit).expect("nothing else changes levels");
    }

    /// The newest version of a key at a version: stamp, and values unless it is a tombstone.
    pub fn newest(&self, key: &[u8], version: LogIndex) -> Option<Newest<'_>> {
        let written =
            self.model.get(key).and_then(|versions| versions.iter().rev().find(|(stamp, _)| stamp.modified <= version));
        let deletes = self.deletes.iter().filter(|delete| delete.index <= version && delete.range.contains(key));
        let hidden_at = deletes.map(|delete| delete.index).max();
        match (written, hidden_at) {
            (None, None) => None,
            (Some((stamp, _)), Some(index)) if index > stamp.modified => Some((index, None)),
            (None, Some(index)) => Some((index, None)),
            (Some((stamp, values)), _) => Some((stamp.modified, values.as_ref().map(|values| (*stamp, values)))),
        }
    }

    pub fn check_points(&self, view: &View) {
        let with_x = view.layout(self.keyspace).unwrap().slot(X).is_some();
        for a in -4..5i64 {
            for b in ["", "k", "k\0z"] {
                let key = keys::encode(&[Value::Int(a), Value::Text(b.to_owned())]);
                let expected = self.newest(&key, view.version);
                let head = view.head(self.keyspace, &key).unwrap();
                assert_eq!(head.map(|head| head.stamp.modified), expected.as_ref().map(|(modified, _)| *modified));
                assert_eq!(head.is_none_or(|head| head.tombstone), !matches!(&expected, Some((_, Some(_)))));
                let columns = if with_x { &[W, X, A, B, V][..] } else { &[W, A, B, V][..] };
                let found = view.get(self.keyspace, &key, columns).unwrap();
                let row = found.as_ref().and_then(|found| Some((found.stamp, found.values.clone()?)));
                let wanted = expected.and_then(|(_, row)| row).map(|(stamp, values)| {
                    (stamp, columns.iter().map(|&id| self.value(values, id)).collect::<Vec<Value>>())
                });
                assert_eq!(row, wanted);
            }
        }
    }

    /// A value by the layout now; columns added since are NULL.
    pub fn value(&self, values: &[Value], id: ColumnId) -> Value {
        values.get(self.layout.slot(id).unwrap()).cloned().unwrap_or(Value::Null)
    }

    pub fn meets(&self, values: &[Value], bounds: &[ZoneBound]) -> bool {
        bounds.iter().all(|bound| {
            let value = self.value(values, bound.column);
            let above = bound.min.as_ref().is_none_or(|min| !value.is_null() && value.order(min).is_ge());
            above && bound.max.as_ref().is_none_or(|max| !value.is_null() && value.order(max).is_le())
        })
    }

    pub fn check_scan(&self, view: &View, wanted: &Wanted) {
        // What is needed to compare comes behind what was asked for.
        let columns = [&wanted.columns[..], &[A, B, V, W, S]].concat();
        let request = ScanRequest {
            keyspace: self.keyspace,
            ranges: wanted.ranges.clone(),
            columns: columns.clone(),
            bounds: wanted.bounds.clone(),
            expired_below_ms: wanted.expired_below_ms,
            with_keys: wanted.with_keys,
            batch_rows: wanted.batch_rows,
        };
        let visible: Vec<(&Vec<u8>, Stamp, &Vec<Value>)> = self
            .model
            .keys()
            .filter(|key| wanted.ranges.iter().any(|range| range.contains(key)))
            .filter_map(|key| self.newest(key, view.version)?.1.map(|(stamp, values)| (key, stamp, values)))
            .filter(|(_, stamp, _)| stamp.created_ms >= wanted.expired_below_ms)
            .collect();
        let expected: Vec<Vec<Value>> = visible
            .iter()
            .filter(|(_, _, values)| self.meets(values, &wanted.bounds))
            .map(|(_, _, values)| columns.iter().map(|&id| self.value(values, id)).collect())
            .collect();
        let mut scanner = view.scan(request.clone()).unwrap();
        let mut rows = Vec::new();
        while let Some(scanned) = scanner.next_batch().unwrap() {
            assert!(scanned.batch.rows > 0, "a batch is never empty");
            assert!(scanned.batch.columns.iter().all(|column| column.len() == scanned.batch.rows));
            if let Some((keys, metadata)) = &scanned.keys {
                assert_eq!((keys.len(), metadata.len()), (scanned.batch.rows, scanned.batch.rows));
                for row in 0..keys.len() {
                    assert!(!metadata.tombstone[row]);
                    let place = visible.binary_search_by(|(key, _, _)| key.as_slice().cmp(keys.get(row)));
                    // A replaced row may come where its block's key columns are out of bounds: the filter drops it.
                    if wanted.bounds.is_empty() {
                        assert_eq!(metadata.stamp(row), visible[place.unwrap()].1);
                    }
                }
            }
            assert_eq!(scanned.keys.is_some(), wanted.with_keys);
            rows.extend((0..scanned.batch.rows).map(|row| scanned.batch.row(row)));
        }
        let key_columns = wanted.columns.len();
        rows.retain(|row| {
            let by_slot = [&row[key_columns + 2], &row[key_columns], &row[key_columns + 3], &row[key_columns + 1]];
            let values: Vec<Value> = by_slot.into_iter().chain([&row[key_columns + 4]]).cloned().collect();
            self.meets(&values, &wanted.bounds)
        });
        assert_eq!(rows, expected);
        if wanted.bounds.is_empty() {
            assert_eq!(count(view, request), expected.len());
        }
    }
}

/// Rows counted from summaries where these say it.
pub fn count(view: &View, request: ScanRequest) -> usize {
    let mut scanner = view.scan(ScanRequest { columns: Vec::new(), with_keys: false, ..request }).unwrap();
    let mut rows = 0;
    while let Some(item) = scanner.next_summary().unwrap() {
        rows += match item {
            ScanItem::Summary(summary) => {
                let read = scanner.read_summarised().unwrap().expect("a summary was handed out");
                assert_eq!(read.batch.rows, summary.rows as usize);
                summary.rows as usize
            }
            ScanItem::Batch(rows) => rows.batch.rows,
        };
    }
    rows
}
