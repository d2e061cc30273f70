//! A database's lower half for tests: one table with an index, a memtable, a hot store, sealed runs and `CURRENT`.
//!
//! What is written goes into a `BTreeMap` too, which answers what must be visible. Reading merges whole levels row by
//! row, in the plainest way there is.

mod reading;

use chronos::clock::Wall;
use chronos::error::{Error, Result};
use chronos::hlc::Timestamp;
use chronos::ids::{ColumnId, KeyspaceId, LogIndex, OriginUid, SchemaVersion, Term};
use chronos::sql::catalog::{Catalog, ColumnDefinition, Index, IndexState, Layout, Table};
use chronos::sql::value::{DataType, Value};
use chronos::storage::codec;
use chronos::storage::current::{self, Current};
use chronos::storage::draft::FlushWork;
use chronos::storage::files::{Files, SystemFiles};
use chronos::storage::flush::FlushSource;
use chronos::storage::hot::HotStore;
use chronos::storage::keys::{self, Key, KeyRange};
use chronos::storage::level::{Level, RangeDelete};
use chronos::storage::memory::MemoryStore;
use chronos::storage::memtable::Memtable;
use chronos::storage::merge::{Pick, Step, merge_step, pick};
use chronos::storage::rows::{Rows, Stamp};
use chronos::storage::seal::{Limits, Target, seal};
use chronos::storage::sealed::SealedRun;
use chronos::storage::state::StateRecord;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reading::visible_entries;
pub use reading::{newest_rows, visible_rows};

/// The table's rows.
pub const ROWS: KeyspaceId = KeyspaceId(16);
/// The entries of its index on `value`.
pub const INDEX: KeyspaceId = KeyspaceId(17);
/// Age at which its rows expire.
pub const TTL_MS: u64 = 1_000;
/// Where the clock of every test begins.
pub const BEGIN_MS: u64 = 1_000_000;

/// One row of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelRow {
    pub value: i64,
    pub created_ms: u64,
    pub modified: u64,
}

/// What must be there.
#[derive(Clone, Default)]
pub struct Model {
    pub rows: BTreeMap<(String, i64), ModelRow>,
    /// Position of the deletion of each key that is not there.
    pub deleted: BTreeMap<(String, i64), u64>,
}

/// A database without its upper half.
pub struct Ground {
    pub directory: tempfile::TempDir,
    pub files: Arc<dyn Files>,
    pub store: MemoryStore,
    pub memtable: Memtable,
    pub hot: HotStore,
    pub runs: Vec<SealedRun>,
    pub current: Current,
    /// The state as applied.
    pub state: StateRecord,
    /// The state at the birth of `CURRENT`.
    pub birth: StateRecord,
    pub model: Model,
    pub limits: Limits,
    /// Rows that flush gets from the memtable at once.
    pub portion_rows: usize,
    /// What the last flush did.
    pub work: FlushWork,
}

/// A hot store with a directory and an engine of its own.
pub struct HotCopy {
    pub directory: tempfile::TempDir,
    pub store: MemoryStore,
}

impl HotCopy {
    pub fn open(&self) -> Result<HotStore> {
        HotStore::open(Box::new(self.store.clone()), Arc::new(SystemFiles), self.directory.path())
    }
}

/// A memtable that gives its rows in small portions, so that portions end within blocks.
struct Portions<'a>(&'a Memtable, usize);

impl FlushSource for Portions<'_> {
    fn keyspaces(&self) -> Vec<KeyspaceId> {
        self.0.keyspaces()
    }

    fn rows(&self, keyspace: KeyspaceId, layout: &Layout, after: Option<&[u8]>, rows_max: usize) -> Result<Rows> {
        self.0.rows(keyspace, layout, after, rows_max.min(self.1))
    }

    fn range_deletes(&self) -> Vec<RangeDelete> {
        self.0.range_deletes()
    }
}

fn column(id: u16, name: &str, data_type: DataType) -> ColumnDefinition {
    ColumnDefinition {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        declared_type: data_type.to_string(),
        length_max: None,
        not_null: false,
        default: None,
    }
}

/// A table (device, ts, value, note) with key (device, ts) and an index on value.
pub fn catalog(ttl: Option<Duration>) -> Catalog {
    let mut catalog = Catalog::default();
    let (id, keyspace) = catalog.allocate_table();
    let (index, entries) = catalog.allocate_index();
    assert_eq!((keyspace, entries), (ROWS, INDEX));
    catalog.put(Table {
        id,
        name: "readings".to_owned(),
        schema: SchemaVersion(1),
        keyspace,
        columns: vec![
            column(1, "device", DataType::Text),
            column(2, "ts", DataType::Timestamp),
            column(3, "value", DataType::Int),
            column(4, "note", DataType::Text),
        ],
        primary_key: vec![ColumnId(1), ColumnId(2)],
        ttl,
        expired_below_ms: 0,
        floor: LogIndex(0),
        indexes: vec![Index {
            id: index,
            name: "by_value".to_owned(),
            keyspace: entries,
            columns: vec![ColumnId(3)],
            unique: false,
            state: IndexState::Ready,
        }],
    });
    catalog
}

fn row_values(device: &str, ts: i64, value: i64) -> Vec<Value> {
    let note = if value % 3 == 0 { Value::Null } else { Value::Text(format!("note {value}")) };
    vec![Value::Text(device.to_owned()), Value::Timestamp(ts), Value::Int(value), note]
}

fn entry_values(device: &str, ts: i64, value: i64) -> Vec<Value> {
    vec![Value::Int(value), Value::Text(device.to_owned()), Value::Timestamp(ts)]
}

/// The key of a row.
pub fn row_key(device: &str, ts: i64) -> Key {
    keys::encode(&[Value::Text(device.to_owned()), Value::Timestamp(ts)])
}

impl Ground {
    /// An empty database.
    pub fn new(ttl: Option<Duration>) -> Ground {
        let directory = tempfile::tempdir().unwrap();
        let files: Arc<dyn Files> = Arc::new(SystemFiles);
        let state = StateRecord {
            hlc: Timestamp::at(Wall(BEGIN_MS)),
            catalog: catalog(ttl),
            applied_term: Term(1),
            ..StateRecord::default()
        };
        let store = MemoryStore::new();
        let current = Current::new();
        current.store(&*files, directory.path()).unwrap();
        let path = current::hot_path(directory.path(), current.hot);
        files.create_dir(&path).unwrap();
        let hot = HotStore::create(Box::new(store.clone()), files.clone(), &path, &state).unwrap();
        Ground {
            directory,
            files,
            store,
            memtable: Memtable::new(),
            hot,
            runs: Vec::new(),
            current,
            birth: state.clone(),
            state,
            model: Model::default(),
            limits: Limits { block_rows: 16, block_bytes: 64 << 10, file_bytes: 4 << 10 },
            portion_rows: usize::MAX,
            work: FlushWork::default(),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().to_path_buf()
    }

    /// The hot directory.
    pub fn hot_path(&self) -> PathBuf {
        current::hot_path(&self.path(), self.current.hot)
    }

    /// The files of hot blocks with their lengths.
    pub fn hot_files(&self) -> Vec<(PathBuf, u64)> {
        let paths = self.files.list(&self.hot_path()).unwrap();
        paths.into_iter().map(|path| (path.clone(), std::fs::metadata(path).unwrap().len())).collect()
    }

    /// Bytes of those files.
    pub fn hot_bytes(&self) -> u64 {
        self.hot_files().iter().map(|(_, bytes)| bytes).sum()
    }

    /// A copy of the hot store as it lies there: what a process that dies now leaves.
    pub fn copy_hot(&self) -> HotCopy {
        let directory = tempfile::tempdir().unwrap();
        for (path, _) in self.hot_files() {
            std::fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
        }
        HotCopy { directory, store: self.store.copy() }
    }

    pub fn layout(&self, keyspace: KeyspaceId) -> Layout {
        self.state.catalog.layout(keyspace).unwrap()
    }

    pub fn now_ms(&self) -> u64 {
        self.state.now_ms()
    }

    /// Begins a command: the next position and stamp.
    fn command(&mut self) -> Stamp {
        self.state.applied = self.state.applied.next();
        self.state.hlc = self.state.hlc.next();
        let (hlc, modified) = (self.state.hlc, self.state.applied);
        Stamp { created_ms: hlc.wall().0, hlc, origin: OriginUid(7), modified }
    }

    fn write(&self, keyspace: KeyspaceId, values: &[Value], stamp: Stamp, is_row: bool) {
        let layout = self.layout(keyspace);
        let key = codec::key_of(&layout, values);
        let mut image = Vec::new();
        codec::encode(&layout, values, &mut image);
        self.memtable.put(keyspace, &key, stamp, is_row.then_some(&image[..]));
    }

    /// The model's row, if it is there now.
    pub fn visible(&self, device: &str, ts: i64) -> Option<&ModelRow> {
        let row = self.model.rows.get(&(device.to_owned(), ts))?;
        (row.created_ms >= self.expired_below_ms()).then_some(row)
    }

    pub fn expired_below_ms(&self) -> u64 {
        self.state.catalog.owner(ROWS).map_or(0, |table| table.expired_below(self.now_ms()))
    }

    /// Writes rows: one command.
    pub fn put(&mut self, rows: &[(&str, i64, i64)]) {
        let stamp = self.command();
        for &(device, ts, value) in rows {
            let old = self.visible(device, ts).cloned();
            // An UPDATE keeps `created`; what has expired is not there, so this is an INSERT.
            let created_ms = old.as_ref().map_or(stamp.created_ms, |old| old.created_ms);
            let stamp = Stamp { created_ms, ..stamp };
            if let Some(old) = old.filter(|old| old.value != value) {
                self.write(INDEX, &entry_values(device, ts, old.value), stamp, false);
            }
            self.write(ROWS, &row_values(device, ts, value), stamp, true);
            self.write(INDEX, &entry_values(device, ts, value), stamp, true);
            let row = ModelRow { value, created_ms, modified: stamp.modified.0 };
            self.model.rows.insert((device.to_owned(), ts), row);
            self.model.deleted.remove(&(device.to_owned(), ts));
        }
    }

    /// Deletes rows by key: one command.
    pub fn delete(&mut self, rows: &[(&str, i64)]) {
        let stamp = self.command();
        for &(device, ts) in rows {
            if let Some(old) = self.visible(device, ts).cloned() {
                self.write(INDEX, &entry_values(device, ts, old.value), stamp, false);
            }
            self.write(ROWS, &row_values(device, ts, 0), stamp, false);
            self.model.rows.remove(&(device.to_owned(), ts));
            self.model.deleted.insert((device.to_owned(), ts), stamp.modified.0);
        }
    }

    /// Deletes a device's rows of a time range: one command.
    pub fn delete_range(&mut self, device: &str, from: i64, to: i64) {
        let stamp = self.command();
        let range = KeyRange { from: row_key(device, from), to: Some(row_key(device, to)) };
        self.memtable.delete_range(RangeDelete { keyspace: ROWS, range, index: stamp.modified, hlc: stamp.hlc.0 });
        let gone = self.model.rows.range((device.to_owned(), from)..(device.to_owned(), to));
        let gone: Vec<(String, i64)> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.model.rows.remove(&key);
            self.model.deleted.insert(key, stamp.modified.0);
        }
    }

    pub fn advance(&mut self, ms: u64) {
        self.state.hlc = Timestamp::at(Wall(self.now_ms() + ms)).max(self.state.hlc);
    }

    /// Raises the table's floor to the present position.
    pub fn raise_floor(&mut self) {
        if let Some(table) = self.state.catalog.owner(ROWS).cloned() {
            self.state.catalog.put(Table { floor: self.state.applied, ..(*table).clone() });
        }
    }

    /// DROP TABLE.
    pub fn drop_table(&mut self) {
        self.command();
        let id = self.state.catalog.owner(ROWS).unwrap().id;
        self.state.catalog.remove(id);
        self.model = Model::default();
    }

    pub fn older(&self) -> Vec<Level> {
        self.runs.iter().map(|run| run.level.clone()).collect()
    }

    pub fn flush(&mut self) {
        let frozen = std::mem::take(&mut self.memtable);
        let older = self.older();
        let report = self.hot.flush(&Portions(&frozen, self.portion_rows), self.state.clone(), &older).unwrap();
        self.work = report.work;
    }

    pub fn target<'a>(&'a self, pause: &'a dyn Fn() -> Result<()>) -> Target<'a> {
        Target {
            files: &*self.files,
            directory: self.directory.path(),
            first_number: self.current.next_number,
            limits: self.limits,
            pause,
        }
    }

    /// Flushes, seals the hot store and begins a new one.
    pub fn seal(&mut self) {
        self.flush();
        let (names, _) = seal(self.target(&|| Ok(())), &self.hot.level(), &self.older(), self.hot.state()).unwrap();
        let next = self.current.sealed(names, self.current.hot + 1, self.state.applied, self.state.applied_term);
        self.switch(next, &[]);
        self.birth = self.state.clone();
        self.store = MemoryStore::new();
        let (path, old) = (self.hot_path(), current::hot_path(&self.path(), self.current.hot - 1));
        self.files.create_dir(&path).unwrap();
        let fresh = HotStore::create(Box::new(self.store.clone()), self.files.clone(), &path, &self.birth).unwrap();
        let files = self.files.clone();
        std::mem::replace(&mut self.hot, fresh).retire(Box::new(move || files.remove_dir(&old).unwrap()));
    }

    fn switch(&mut self, next: Current, obsolete: &[u32]) {
        next.store(&*self.files, self.directory.path()).unwrap();
        let open = |names: &Vec<_>| SealedRun::open(&self.files, self.directory.path(), names, &self.runs).unwrap();
        let runs: Vec<SealedRun> = next.runs.iter().map(open).collect();
        self.runs.iter().for_each(|run| run.doom(obsolete));
        self.runs = runs;
        self.current = next;
    }

    pub fn pick(&self) -> Option<Pick> {
        pick(&self.current, &self.runs, &self.birth)
    }

    pub fn merge(&mut self, pick: &Pick) -> Step {
        let step = merge_step(self.target(&|| Ok(())), &self.current, &self.runs, &self.birth, pick).unwrap();
        self.switch(step.next.clone(), &step.obsolete);
        step
    }

    /// Merges neighbouring runs to the end, step by step; gives how many steps it took.
    pub fn merge_all(&mut self) -> usize {
        let mut steps = 0;
        while self.runs.len() > 1 || self.current.runs.iter().any(|run| Current::is_partial(run)) {
            let whole = Pick { runs: 0..=1, from: chronos::storage::entry::start(), to: None };
            let is_partial = self.current.runs.iter().any(|run| Current::is_partial(run));
            let next = if is_partial { self.pick().unwrap() } else { whole };
            self.merge(&next);
            steps += 1;
        }
        steps
    }

    /// Closes the hot store and opens it again from its engine's content.
    pub fn reopen_hot(&mut self) {
        let state = self.hot.state().clone();
        self.store = self.store.copy();
        let path = self.hot_path();
        self.hot = HotStore::open(Box::new(self.store.clone()), self.files.clone(), &path).unwrap();
        assert_eq!(*self.hot.state(), state);
    }

    /// Forgets what is open of `CURRENT` and reads it all again, as a start does.
    pub fn reopen_runs(&mut self) {
        self.runs.clear();
        let directory = self.path();
        self.current = Current::load(&*self.files, &directory).unwrap();
        let kept = current::hot_path(&directory, self.current.hot);
        let removed = current::clean(&*self.files, &directory, &self.current).unwrap();
        assert!(!removed.contains(&kept));
        assert!(removed.is_empty(), "{removed:?} should have gone with its last level");
        let open = |names: &Vec<_>| SealedRun::open(&self.files, &directory, names, &[]).unwrap();
        self.runs = self.current.runs.iter().map(open).collect();
    }

    /// All levels below the memtable, newest first.
    pub fn levels(&self) -> Vec<Level> {
        std::iter::once((*self.hot.level()).clone()).chain(self.older()).collect()
    }

    /// Compares what the levels hold with the model. The memtable must be empty.
    pub fn check(&self) {
        assert!(self.memtable.is_empty(), "what is compared lies below the memtable");
        let found = visible_rows(&self.levels(), &self.state);
        let expected: Vec<(Vec<Value>, u64, u64)> = self
            .model
            .rows
            .iter()
            .filter(|((device, ts), _)| self.visible(device, *ts).is_some())
            .map(|((device, ts), row)| (row_values(device, *ts, row.value), row.created_ms, row.modified))
            .collect();
        same(&found, &expected, "the rows");
        let mut entries: Vec<Vec<Value>> = visible_entries(&self.levels(), &self.state);
        let mut expected: Vec<Vec<Value>> =
            expected.iter().map(|(row, _, _)| vec![row[2].clone(), row[0].clone(), row[1].clone()]).collect();
        let order = |a: &Vec<Value>, b: &Vec<Value>| keys::encode(a).cmp(&keys::encode(b));
        entries.sort_by(order);
        expected.sort_by(order);
        same(&entries, &expected, "the index entries");
        self.check_deletions();
    }

    /// A deletion above the floor is still known: apply asks for it.
    fn check_deletions(&self) {
        let Some(table) = self.state.catalog.owner(ROWS) else { return };
        let newest = newest_rows(&self.levels(), &self.layout(ROWS), ROWS);
        for ((device, ts), position) in &self.model.deleted {
            let key = row_key(device, *ts);
            let tombstone = newest.get(&*key).is_some_and(|row| row.is_tombstone && row.stamp.modified.0 == *position);
            let by_range =
                self.levels().iter().flat_map(|level| level.range_deletes.to_vec()).any(|delete| {
                    delete.keyspace == ROWS && delete.range.contains(&key) && delete.index.0 >= *position
                });
            assert!(
                tombstone || by_range || *position <= table.floor.0,
                "the deletion of {device} {ts} at {position} is forgotten above the floor {}",
                table.floor
            );
        }
    }
}

/// Fails with what differs, and only that.
fn same<T: PartialEq + std::fmt::Debug>(found: &[T], expected: &[T], what: &str) {
    let surplus: Vec<&T> = found.iter().filter(|one| !expected.contains(one)).collect();
    let missing: Vec<&T> = expected.iter().filter(|one| !found.contains(one)).collect();
    assert!(surplus.is_empty() && missing.is_empty(), "{what}: surplus {surplus:?}, missing {missing:?}");
    assert!(found == expected, "{what} come once and in order");
}

/// An error for a pause that has enough.
pub fn interrupted() -> Result<()> {
    Err(Error::unavailable("interrupted by the test"))
}
