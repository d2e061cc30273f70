//! What becomes of the engine where its background work fails: in a flush, around `CURRENT`, in a seal or merge that can
//! be tried again, in a damaged block.
//!
//! Files are on a disk that fails on demand, sled on a real one beside it, so a restart within the same boot goes on from
//! the hot store.

mod current;
mod damage;

use chronos::clock::{ManualClock, Wall};
use chronos::embedded::{Database, Options};
use chronos::error::{Error, Kind};
use chronos::sql::value::Value;
use chronos::storage::engine::{self, Counters, Engine, Handle, HotEngine, Limits, Stop};
use chronos::storage::faults::{Disk, Operation};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Rows of one INSERT, and bytes of text in each: some 21 KB of log.
const ROWS: i64 = 50;
const TEXT_BYTES: usize = 400;

struct World {
    disk: Disk,
    clock: Arc<ManualClock>,
    limits: Limits,
    /// Where sled lies.
    directory: tempfile::TempDir,
    /// Rows acknowledged, from 0 on.
    rows: i64,
}

impl World {
    fn new() -> World {
        let limits = Limits {
            memtable_bytes_max: 8 << 20,
            cache_bytes_max: 256 << 10,
            seal_wal_bytes: 80 << 10,
            segment_bytes: 64 << 10,
            disk_reserve_bytes: 0,
            ..Limits::default()
        };
        let clock = Arc::new(ManualClock::new(Wall(1_700_000_000_000)));
        World { disk: Disk::new(), clock, limits, directory: tempfile::tempdir().unwrap(), rows: 0 }
    }

    fn try_open(&self) -> Result<Database, Error> {
        let options = engine::Options {
            files: Arc::new(self.disk.clone()),
            clock: self.clock.clone(),
            hot: HotEngine::Sled,
            boot_id: Some("11111111-1111-1111-1111-111111111111".into()),
            limits: self.limits.clone(),
        };
        Database::open_on(self.directory.path(), &Options::default(), &options)
    }

    fn open(&self) -> Database {
        self.try_open().unwrap()
    }

    fn create(&self) -> Database {
        let db = self.open();
        db.execute("CREATE TABLE t (id INT PRIMARY KEY, note TEXT NOT NULL)").unwrap();
        db
    }

    /// Inserts rows that are not there yet, and counts them once they are acknowledged.
    fn insert(&mut self, db: &Database) -> Result<(), Error> {
        let tuples: Vec<String> = (self.rows..self.rows + ROWS).map(|id| format!("({id}, '{}')", text(id))).collect();
        db.execute(&format!("INSERT INTO t VALUES {}", tuples.join(", ")))?;
        self.rows += ROWS;
        Ok(())
    }

    /// Rows that fill a hot store, sealed as a run of their own.
    fn seal_one(&mut self, db: &Database) {
        self.insert(db).unwrap();
        seal(db).unwrap();
    }

    /// The process ends without warning, in the same boot.
    fn restart(&self, db: Database) -> Database {
        // It has failed already, or is told to give up.
        let _ = db.group().stop(Stop::Abandon);
        drop(db);
        self.disk.revive();
        self.disk.set_hook(None);
        self.open()
    }

    /// All acknowledged rows are there, and no other.
    fn check(&self, db: &Database) {
        let rows = db.execute("SELECT id, note FROM t ORDER BY id").unwrap().rows;
        let expected: Vec<Vec<Value>> = (0..self.rows).map(|id| vec![Value::Int(id), Value::Text(text(id))]).collect();
        assert!(rows == expected, "{} rows of {}", rows.len(), self.rows);
    }

    fn hot_files(&self) -> Vec<PathBuf> {
        self.disk.paths().into_iter().filter(|path| ends(path, "hot")).collect()
    }
}

/// Text that does not shrink, so that blocks are many.
fn text(id: i64) -> String {
    let mut state = id as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + ((state >> 33) % 26) as u8)
    };
    (0..TEXT_BYTES).map(|_| next()).collect()
}

fn seal(db: &Database) -> Result<(), Error> {
    db.group().with_engine(Engine::seal)
}

fn handle(db: &Database) -> Handle {
    db.group().handle().unwrap()
}

fn counters(db: &Database) -> Arc<Counters> {
    handle(db).counters()
}

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn ends(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|end| end == extension)
}

/// Waits for something that another thread is about to do.
fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}

/// The failure that the group reports.
fn failure(db: &Database) -> Error {
    loop {
        match db.execute("SELECT 1") {
            Err(error) => return error,
            Ok(_) => std::thread::yield_now(),
        }
    }
}

/// Stops the first disk call that `stops` names until it is let through.
struct Gate {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn close(disk: &Disk, stops: impl Fn(Operation, &Path) -> bool + Send + Sync + 'static) -> Arc<Gate> {
        let gate = Arc::new(Gate { state: Mutex::default(), changed: Condvar::new() });
        let hook = gate.clone();
        disk.set_hook(Some(Arc::new(move |operation, path| {
            if stops(operation, path) {
                let mut state = hook.state.lock().unwrap();
                state.0 = true;
                hook.changed.notify_all();
                drop(hook.changed.wait_while(state, |state| !state.1).unwrap());
            }
        })));
        gate
    }

    fn wait_for_call(&self) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |state| !state.0).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// Has a flush fail once, that a seal or merge stopped at `gate` gives way to.
fn fail_a_flush_that_is_given_way_to(world: &mut World, db: Database, gate: &Gate) {
    gate.wait_for_call();
    while handle(&db).status().memtables < 2 {
        world.insert(&db).unwrap();
    }
    let failed = AtomicBool::new(false);
    world.disk.fail_where(Some(Arc::new(move |operation, path| {
        operation == Operation::Write && ends(path, "hot") && !failed.swap(true, Ordering::Relaxed)
    })));
    gate.open();
    // Where the failure were swallowed, the next memtable would be flushed above the rows of this one.
    for _ in 0..20 {
        if world.insert(&db).is_err() {
            break;
        }
    }
    let told = failure(&db);
    assert!(told.message().contains("flush") && told.message().contains("injected error"), "{told}");
    until(|| handle(&db).has_failed());
    let again = world.restart(db);
    assert!(!again.group().recovered().rebuilt, "it goes on from the hot store");
    let acknowledged = world.rows;
    let rows = again.execute("SELECT COUNT(*) FROM t").unwrap().rows;
    // One statement may have been under way when the engine ended.
    if rows == [[Value::Int(acknowledged + ROWS)]] {
        world.rows += ROWS;
    }
    world.check(&again);
    world.insert(&again).unwrap();
    seal(&again).unwrap();
    world.check(&again);
}

#[test]
fn a_flush_that_fails_while_a_seal_gives_way_ends_the_engine_and_loses_nothing() {
    let mut world = World::new();
    let db = world.create();
    let gate = Gate::close(&world.disk, |operation, path| operation == Operation::Create && ends(path, "blk"));
    for _ in 0..5 {
        world.insert(&db).unwrap();
    }
    fail_a_flush_that_is_given_way_to(&mut world, db, &gate);
}

#[test]
fn a_flush_that_fails_while_a_merge_gives_way_ends_the_engine_and_loses_nothing() {
    let mut world = World::new();
    let db = world.create();
    let gate =
        Gate::close(&world.disk, |operation, path| operation == Operation::Create && path.ends_with("000005.blk"));
    for _ in 0..4 {
        world.seal_one(&db);
    }
    fail_a_flush_that_is_given_way_to(&mut world, db, &gate);
}

#[test]
fn a_seal_that_fails_before_current_is_tried_again() {
    let mut world = World::new();
    let db = world.create();
    for operation in [Operation::Create, Operation::Write, Operation::Sync] {
        world.insert(&db).unwrap();
        world.disk.fail_where(Some(Arc::new(move |each, path| each == operation && ends(path, "blk"))));
        let error = seal(&db).unwrap_err();
        assert_eq!(error.kind(), Kind::Io, "{error}");
        assert!(!handle(&db).has_failed());
        world.disk.fail_where(None);
        seal(&db).unwrap();
        world.check(&db);
    }
    let db = world.restart(db);
    world.check(&db);
}

/// Inserts until as many memtables more have been flushed. All but the last are followed by a look for other work.
fn flush_some(world: &mut World, db: &Database, flushes: u64) {
    let counters = counters(db);
    for _ in 0..flushes {
        let before = of(&counters.flushes);
        while of(&counters.flushes) == before {
            world.insert(db).unwrap();
        }
    }
}

#[test]
fn a_failed_merge_is_left_alone_for_a_while_and_a_failing_seal_does_not_keep_it_from_being_made() {
    let mut world = World::new();
    let db = world.create();
    let (tries, merging) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (seen, allowed) = (tries.clone(), merging.clone());
    for _ in 0..3 {
        world.seal_one(&db);
    }
    world.disk.fail_where(Some(Arc::new(move |operation, path| {
        let is_hot_directory = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("hot-"));
        let merges = operation == Operation::Create && path.ends_with("000005.blk");
        if merges {
            seen.fetch_add(1, Ordering::Relaxed);
        }
        let may_merge = allowed.load(Ordering::Relaxed);
        // First no merge is made; then, with a hot store that cannot be frozen, no seal.
        (merges && !may_merge) || (operation == Operation::Name && is_hot_directory && may_merge)
    })));
    world.seal_one(&db);
    until(|| tries.load(Ordering::Relaxed) == 1);
    for _ in 0..3 {
        world.insert(&db).unwrap();
        let _ = db.group().with_engine(|engine| {
            engine.handle().backup(Path::new("/nowhere/at/all"), Arc::new(|| true)).blocking_recv().unwrap()
        });
    }
    assert_eq!(tries.load(Ordering::Relaxed), 1, "not with every job");
    merging.store(true, Ordering::Relaxed);
    let (seals, merges) = (of(&counters(&db).seals), of(&counters(&db).merges));
    world.clock.advance(Duration::from_mins(10));
    flush_some(&mut world, &db, 1);
    until(|| of(&counters(&db).merges) > merges);
    assert_eq!(of(&counters(&db).seals), seals, "no seal has been made");
    world.check(&db);
    let db = world.restart(db);
    world.check(&db);
}

#[test]
fn seals_wait_for_a_merge_once_the_runs_are_as_many_as_may_be_and_writes_end_by_name() {
    let mut world = World::new();
    let db = world.create();
    // Whatever is merged must read these.
    for _ in 0..8 {
        world.insert(&db).unwrap();
        seal(&db).unwrap();
        for path in world.disk.paths().into_iter().filter(|path| ends(path, "blk")) {
            // Twice would mend it.
            if path == newest(&world.disk, "blk") {
                world.disk.flip(&path, 8 * 1000).unwrap();
            }
        }
    }
    assert_eq!(of(&counters(&db).runs), 8);
    world.insert(&db).unwrap();
    let error = seal(&db).unwrap_err();
    assert_eq!(error.kind(), Kind::Overloaded, "{error}");
    assert!(error.message().contains("8 sealed runs must be merged"), "{error}");
    let mut refused = None;
    for _ in 0..100 {
        match world.insert(&db) {
            Ok(()) => {}
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("the hot store does not grow for ever");
    assert!(refused.kind() == Kind::Overloaded && refused.message().contains("cannot be sealed"), "{refused}");
    assert_eq!(of(&counters(&db).runs), 8);
    db.group().stop(Stop::Clean).unwrap();
}

fn newest(disk: &Disk, extension: &str) -> PathBuf {
    disk.paths().into_iter().filter(|path| ends(path, extension)).max().unwrap()
}

#[test]
fn writes_that_grow_end_while_a_frozen_store_cannot_be_sealed_and_come_back_with_the_seal() {
    let mut world = World::new();
    let db = world.create();
    world.disk.fail_where(Some(Arc::new(|_, path| ends(path, "blk"))));
    let refused = (0..100).find_map(|_| world.insert(&db).err()).expect("the log does not grow for ever");
    assert!(refused.kind() == Kind::Overloaded && refused.message().contains("cannot be sealed"), "{refused}");
    assert!(of(&counters(&db).log_bytes) < 6 * world.limits.seal_wal_bytes);
    assert_eq!(db.execute("DELETE FROM t WHERE id = -1").unwrap().affected, 0, "deletes go on");
    world.check(&db);
    world.disk.fail_where(None);
    world.clock.advance(Duration::from_mins(10));
    seal(&db).unwrap();
    until(|| !counters(&db).seal_overdue.load(Ordering::Relaxed));
    world.insert(&db).unwrap();
    world.check(&db);
}
