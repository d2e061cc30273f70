//! The catalog: what tables there are. Part of the replicated state, changed by commands alone.
//!
//! A catalog is an immutable value behind an `Arc`; a command makes the next one and shares what did not change, so a
//! read view keeps the definitions that its rows were written under at no cost.
//!
//! * Identifiers of tables, indexes, columns and keyspaces are never reused.
//! * A column keeps its *slot* for the life of its table; a dropped column leaves its slot empty. So a stored row is
//!   its values in slot order, and rows written before an ADD COLUMN are merely shorter.
//! * Names are stored as they compare: unquoted identifiers arrive in lower case.

use crate::ids::{ColumnId, IndexId, KeyspaceId, LogIndex, SchemaVersion, TableId};
use crate::sql::value::{DataType, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Keyspaces below this number are the system's own.
pub const FIRST_USER_KEYSPACE: u32 = 16;

/// Sessions and request ids: what a client was answered.
pub const SESSIONS: KeyspaceId = KeyspaceId(1);

/// Parts of commands too large for one log entry.
pub const STAGES: KeyspaceId = KeyspaceId(2);

/// The three hidden columns that are the key of a table without PRIMARY KEY: HLC, origin uid, ordinal in its command.
pub const ROW_ID_COLUMNS: [ColumnId; 3] = [ColumnId(0xFFF0), ColumnId(0xFFF1), ColumnId(0xFFF2)];

/// All tables at one position of the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    tables: BTreeMap<TableId, Arc<Table>>,
    next_table: u32,
    next_index: u32,
    next_keyspace: u32,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Identity.
    pub id: TableId,
    /// Name as it compares.
    pub name: String,
    /// Counts definitions of this table; commands name the one they were bound to.
    pub schema: SchemaVersion,
    /// Where the rows are.
    pub keyspace: KeyspaceId,
    /// Columns a statement can name, in order.
    pub columns: Vec<ColumnDefinition>,
    /// Columns of the PRIMARY KEY in key order; empty where the table has a hidden row id.
    pub primary_key: Vec<ColumnId>,
    /// Age at which rows expire, counted from `created`.
    pub ttl: Option<Duration>,
    /// Rows with `created` (ms) below this are gone, whatever the TTL says now.
    pub expired_below_ms: u64,
    /// Tombstones at or below this position count as not there.
    pub floor: LogIndex,
    /// Secondary indexes, in order of creation.
    pub indexes: Vec<Index>,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnDefinition {
    /// Identity within the table.
    pub id: ColumnId,
    /// Name as it compares.
    pub name: String,
    /// Type.
    pub data_type: DataType,
    /// The type as the user wrote it, for DESCRIBE: `VARCHAR(20)`.
    pub declared_type: String,
    /// Characters at most, for `VARCHAR(n)`.
    pub length_max: Option<u32>,
    /// NULL is refused.
    pub not_null: bool,
    /// SQL text of the DEFAULT expression, evaluated by the leader for each statement.
    pub default: Option<String>,
}

/// A secondary index: an ordered keyspace of (its columns, then the primary key).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Identity.
    pub id: IndexId,
    /// Name, unique among the indexes of all tables.
    pub name: String,
    /// Where the entries are.
    pub keyspace: KeyspaceId,
    /// Columns, in key order, before those of the primary key.
    pub columns: Vec<ColumnId>,
    /// Two rows may not have equal, non-NULL columns.
    pub unique: bool,
    /// Whether queries may use it.
    pub state: IndexState,
}

/// How far an index is built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum IndexState {
    /// Maintained by every write; rows with keys below `done_below` have been backfilled.
    Building {
        /// Encoded primary key up to which entries exist; empty at the beginning.
        done_below: Vec<u8>,
    },
    /// Complete.
    Ready,
}

/// What storage must know of a keyspace: the columns that its rows are made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    /// Columns by slot. Key columns may stand anywhere.
    pub columns: Vec<LayoutColumn>,
    /// Slots of the key columns, in key order.
    pub key: Vec<u16>,
}

/// A column as storage sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayoutColumn {
    /// Identity, as stored in blocks.
    pub id: ColumnId,
    /// Type.
    pub data_type: DataType,
    /// What a row written before the column existed has here.
    pub missing: Value,
}

impl Layout {
    /// The slot of a column.
    pub fn slot(&self, id: ColumnId) -> Option<usize> {
        self.columns.iter().position(|column| column.id == id)
    }

    /// Types of the key's components, in key order.
    pub fn key_types(&self) -> Vec<DataType> {
        self.key.iter().map(|&slot| self.columns[slot as usize].data_type).collect()
    }

    /// The layout of the system's own keyspaces: opaque key, opaque value.
    pub fn system() -> Layout {
        let column = |id, data_type| LayoutColumn { id: ColumnId(id), data_type, missing: Value::Null };
        Layout { columns: vec![column(1, DataType::Blob), column(2, DataType::Blob)], key: vec![0] }
    }
}

impl Table {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&ColumnDefinition> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The column of this identity.
    pub fn column_by_id(&self, id: ColumnId) -> Option<&ColumnDefinition> {
        self.columns.iter().find(|column| column.id == id)
    }

    /// True where rows are identified by a hidden row id.
    pub fn has_row_id(&self) -> bool {
        self.primary_key.is_empty()
    }

    /// Columns of the key, hidden ones included, in key order.
    pub fn key_columns(&self) -> Vec<ColumnId> {
        if self.has_row_id() { ROW_ID_COLUMNS.to_vec() } else { self.primary_key.clone() }
    }

    /// How rows are stored: the hidden row id first, where there is one, then the columns.
    ///
    /// Blocks name columns by identity, so one that is added or dropped leaves them as they are. Row images in a memtable
    /// go by slot: columns are added behind all others, and a definition that takes a slot away is applied once no
    /// memtable holds rows of the one before ([`crate::machine::Writes::begin_large`] freezes and flushes likewise).
    pub fn layout(&self) -> Layout {
        let hidden = if self.has_row_id() { &ROW_ID_COLUMNS[..] } else { &[] };
        let hidden = hidden.iter().map(|&id| LayoutColumn { id, data_type: DataType::Int, missing: Value::Null });
        let visible = self.columns.iter().map(|column| LayoutColumn {
            id: column.id,
            data_type: column.data_type,
            missing: Value::Null,
        });
        let columns: Vec<LayoutColumn> = hidden.chain(visible).collect();
        let slot = |id: &ColumnId| columns.iter().position(|column| column.id == *id).expect("keys name own columns");
        let key = self.key_columns().iter().map(|id| slot(id) as u16).collect();
        Layout { columns, key }
    }

    /// How the entries of one of the table's indexes are stored: its columns, then the key columns not among them.
    /// Every column is part of the key.
    pub fn index_layout(&self, index: &Index) -> Layout {
        let table = self.layout();
        let mut ids = index.columns.clone();
        ids.extend(self.key_columns().into_iter().filter(|id| !index.columns.contains(id)));
        let columns: Vec<LayoutColumn> = ids
            .iter()
            .map(|id| table.columns[table.slot(*id).expect("indexes name columns of their table")].clone())
            .collect();
        Layout { key: (0..columns.len() as u16).collect(), columns }
    }

    /// Rows created (ms) below this are expired at `now_ms`, by TTL or by watermark.
    pub fn expired_below(&self, now_ms: u64) -> u64 {
        let by_ttl = self.ttl.map_or(0, |ttl| now_ms.saturating_sub(ttl.as_millis() as u64));
        by_ttl.max(self.expired_below_ms)
    }
}

impl Catalog {
    /// True where tables stand under their own identity, and keys and indexes name columns of their table: what every
    /// other function relies on. One that was read from bytes is asked first.
    pub fn is_consistent(&self) -> bool {
        self.tables.iter().all(|(id, table)| {
            let owns = |id: &ColumnId| table.column_by_id(*id).is_some();
            let indexes_own =
                table.indexes.iter().all(|index| !index.columns.is_empty() && index.columns.iter().all(owns));
            *id == table.id && table.primary_key.iter().all(owns) && indexes_own
        })
    }

    /// The table of this identity.
    pub fn table_by_id(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables.get(&id)
    }

    /// The table of this name.
    pub fn table(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.values().find(|table| table.name == name)
    }

    /// All tables in order of creation.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }

    /// The index of this name with its table.
    pub fn index(&self, name: &str) -> Option<(&Arc<Table>, &Index)> {
        self.tables().find_map(|table| Some((table, table.indexes.iter().find(|index| index.name == name)?)))
    }

    /// The table that a keyspace belongs to, as its rows or as one of its indexes.
    pub fn owner(&self, keyspace: KeyspaceId) -> Option<&Arc<Table>> {
        self.tables()
            .find(|table| table.keyspace == keyspace || table.indexes.iter().any(|index| index.keyspace == keyspace))
    }

    /// How a keyspace is stored; none where its table or index has been dropped.
    pub fn layout(&self, keyspace: KeyspaceId) -> Option<Layout> {
        if keyspace.0 < FIRST_USER_KEYSPACE {
            return Some(Layout::system());
        }
        let table = self.owner(keyspace)?;
        match table.indexes.iter().find(|index| index.keyspace == keyspace) {
            Some(index) => Some(table.index_layout(index)),
            None => Some(table.layout()),
        }
    }

    /// Draws the next table's identity and keyspace.
    pub fn allocate_table(&mut self) -> (TableId, KeyspaceId) {
        self.next_table += 1;
        (TableId(self.next_table), self.allocate_keyspace())
    }

    /// Draws the next index's identity and keyspace.
    pub fn allocate_index(&mut self) -> (IndexId, KeyspaceId) {
        self.next_index += 1;
        (IndexId(self.next_index), self.allocate_keyspace())
    }

    fn allocate_keyspace(&mut self) -> KeyspaceId {
        let keyspace = self.next_keyspace.max(FIRST_USER_KEYSPACE);
        self.next_keyspace = keyspace + 1;
        KeyspaceId(keyspace)
    }

    /// Adds a table or puts a new definition in the place of the old.
    pub fn put(&mut self, table: Table) {
        self.tables.insert(table.id, Arc::new(table));
    }

    /// Removes a table; its keyspaces are then no one's and merging drops their rows.
    pub fn remove(&mut self, id: TableId) -> Option<Arc<Table>> {
        self.tables.remove(&id)
    }
}
