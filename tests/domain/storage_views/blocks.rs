//! A table, and levels of its rows in blocks held in memory.

use chronos::error::{Error, Result};
use chronos::ids::{ColumnId, KeyspaceId, LogIndex, SchemaVersion};
use chronos::sql::batch::Strings;
use chronos::sql::catalog::{Catalog, ColumnDefinition, Layout, Table};
use chronos::sql::value::DataType;
use chronos::storage::block::Block;
use chronos::storage::filter;
use chronos::storage::keys::Key;
use chronos::storage::level::{Address, BlockEntry, BlockSource, Level, Manifest, RangeDelete};
use chronos::storage::rows::{Metadata, Rows};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub const A: ColumnId = ColumnId(1);
pub const B: ColumnId = ColumnId(2);
pub const V: ColumnId = ColumnId(3);
pub const W: ColumnId = ColumnId(4);
pub const S: ColumnId = ColumnId(5);
/// Added while the test runs.
pub const X: ColumnId = ColumnId(6);

/// A table of the columns A and B (its key), V, W, S and, once added, X.
pub fn catalog(with_x: bool) -> (Arc<Catalog>, KeyspaceId) {
    let mut catalog = Catalog::default();
    let (id, keyspace) = catalog.allocate_table();
    let column = |id, name: &str, data_type| ColumnDefinition {
        id,
        name: name.to_owned(),
        data_type,
        declared_type: data_type.to_string(),
        length_max: None,
        not_null: false,
        default: None,
    };
    let mut columns = vec![
        column(V, "v", DataType::Int),
        column(A, "a", DataType::Int),
        column(W, "w", DataType::Float),
        column(B, "b", DataType::Text),
        column(S, "s", DataType::Text),
    ];
    columns.extend(with_x.then(|| column(X, "x", DataType::Int)));
    catalog.put(Table {
        id,
        name: String::from("t"),
        schema: SchemaVersion(1),
        keyspace,
        columns,
        primary_key: vec![A, B],
        ttl: None,
        expired_below_ms: 0,
        floor: LogIndex(0),
        indexes: Vec::new(),
    });
    (Arc::new(catalog), keyspace)
}

/// Blocks in memory, and how often they were read.
#[derive(Default)]
pub struct MemorySource {
    pub blocks: BTreeMap<u64, Arc<[u8]>>,
    pub reads: AtomicUsize,
}

impl BlockSource for MemorySource {
    fn read(&self, entry: &BlockEntry) -> Result<Block> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Block::open(self.blocks.get(&entry.uid).cloned().ok_or_else(|| Error::damaged("no such block"))?)
    }
}

pub static NEXT_BLOCK: AtomicU64 = AtomicU64::new(1);

/// A level of these rows in blocks of at most `block_rows`.
pub fn level(
    layout: &Layout,
    keyspace: KeyspaceId,
    all: &[Rows],
    block_rows: usize,
    deletes: Vec<RangeDelete>,
) -> (Arc<Level>, Arc<MemorySource>) {
    let mut source = MemorySource::default();
    let mut entries = Vec::new();
    for rows in all {
        for from in (0..rows.len()).step_by(block_rows) {
            let part = slice(rows, from, rows.len().min(from + block_rows));
            let (bytes, summary) = Block::encode(layout, &part);
            let uid = NEXT_BLOCK.fetch_add(1, Ordering::Relaxed);
            entries.push(Arc::new(BlockEntry {
                uid,
                address: Address { file: 0, offset: uid },
                bytes: bytes.len() as u32,
                first: Key::new(part.keys.get(0)),
                last: Key::new(part.keys.get(part.len() - 1)),
                summary: Arc::new(summary),
                // Half of the blocks have one, as if their keyspace were not written in key order.
                filter: uid.is_multiple_of(2).then(|| filter::build(part.keys.iter()).into()),
            }));
            source.blocks.insert(uid, bytes.into());
        }
    }
    let source = Arc::new(source);
    let manifest = Manifest::new(BTreeMap::from([(keyspace, entries)]));
    (Arc::new(Level { manifest, range_deletes: Arc::new(deletes), source: source.clone() }), source)
}

pub fn slice(rows: &Rows, from: usize, to: usize) -> Rows {
    let mut metadata = Metadata::default();
    (from..to).for_each(|row| metadata.push(rows.metadata.stamp(row), rows.metadata.tombstone[row]));
    Rows {
        keys: (from..to).map(|row| rows.keys.get(row)).collect(),
        columns: rows.columns.iter().map(|column| Arc::new(column.slice(from, to))).collect(),
        metadata,
    }
}

/// The rows of a level merged over those of the next older one, as a merge would write them.
pub fn merged(layout: &Layout, keyspace: KeyspaceId, levels: &[Arc<Level>]) -> Vec<Rows> {
    let mut newest: BTreeMap<Vec<u8>, Rows> = BTreeMap::new();
    for level in levels {
        for entry in level.manifest.blocks(keyspace) {
            let rows = level.source.read(entry).unwrap().decode(layout).unwrap();
            for row in 0..rows.len() {
                newest.entry(rows.keys.get(row).to_vec()).or_insert_with(|| slice(&rows, row, row + 1));
            }
        }
    }
    if newest.is_empty() {
        return Vec::new();
    }
    let rows: Vec<Rows> = newest.into_values().collect();
    let mut metadata = Metadata::default();
    for row in &rows {
        metadata.push(row.metadata.stamp(0), row.metadata.tombstone[0]);
    }
    let columns = (0..layout.columns.len()).map(|slot| {
        let mut column = chronos::sql::batch::ColumnBuilder::new(layout.columns[slot].data_type, rows.len());
        for row in &rows {
            column.push(&row.columns[slot].value(0));
        }
        Arc::new(column.finish())
    });
    let columns = columns.collect();
    let keys: Strings = rows.iter().map(|row| row.keys.get(0)).collect();
    vec![Rows { keys, columns, metadata }]
}
