//! What bounds the engine from outside: old readers, a full disk, a disk that does not answer.

use chronos::clock::{ManualClock, Wall};
use chronos::embedded::{Database, Options};
use chronos::error::{Kind, SqlState};
use chronos::storage::engine::{self, Engine, HotEngine, Limits, Stop};
use chronos::storage::faults::{Crash, Disk, Fault, Operation};
use chronos::storage::files::Files;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

struct World {
    disk: Disk,
    clock: Arc<ManualClock>,
    limits: Limits,
}

impl World {
    fn new() -> World {
        let limits = Limits {
            memtable_bytes_max: 256 << 10,
            cache_bytes_max: 256 << 10,
            seal_wal_bytes: 256 << 10,
            segment_bytes: 64 << 10,
            disk_reserve_bytes: 0,
            ..Limits::default()
        };
        World { disk: Disk::new(), clock: Arc::new(ManualClock::new(Wall(1_700_000_000_000))), limits }
    }

    fn engine(&self) -> engine::Options {
        engine::Options {
            files: Arc::new(self.disk.clone()),
            clock: self.clock.clone(),
            hot: HotEngine::Memory,
            boot_id: None,
            limits: self.limits.clone(),
        }
    }

    fn open(&self) -> Database {
        Database::open_on("/data", &Options::default(), &self.engine()).unwrap()
    }

    /// A database with a table of so many rows, all of them in blocks.
    fn filled(&self, rows: usize) -> Database {
        let db = self.open();
        db.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL)").unwrap();
        let tuples: Vec<String> = (0..rows).map(|id| format!("({id}, {})", id * 7919 % 10_007)).collect();
        db.execute(&format!("INSERT INTO t VALUES {}", tuples.join(", "))).unwrap();
        seal(&db);
        db
    }
}

fn seal(db: &Database) {
    db.group().with_engine(Engine::seal).unwrap();
}

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[test]
fn a_read_that_takes_too_long_ends_with_snapshot_too_old() {
    let world = World::new();
    let db = world.filled(5000);
    let mut young = db.query("SELECT id FROM t").unwrap();
    young.next().unwrap().unwrap();
    world.clock.advance(Duration::from_mins(10));
    let mut rows = young.by_ref().take(1000);
    assert!(rows.all(|row| row.is_ok()), "ten minutes are allowed");
    let mut old = db.query("SELECT id FROM t").unwrap();
    old.next().unwrap().unwrap();
    world.clock.advance(Duration::from_millis(600_001));
    let error = old.find_map(Result::err).expect("a read of more than ten minutes fails");
    assert_eq!((error.sqlstate(), error.kind()), (SqlState::SNAPSHOT_TOO_OLD, Kind::Limit));
    assert_eq!(error.sqlstate().as_str(), "72000");
    assert!(error.message().starts_with("snapshot too old"), "{error}");
    assert_eq!(db.execute("SELECT COUNT(*) FROM t").unwrap().rows.len(), 1, "a new read is not concerned");
    let lasting = db.group().handle().unwrap().lasting_view();
    world.clock.advance(Duration::from_hours(1));
    chronos::storage::content_hash::content_hash(&lasting, &|| Ok(())).expect("the content hash is exempt");
}

/// Reads the first of 1,500 rows, has all of them written anew and merged, and reads on.
fn read_while_all_is_replaced(pinned_bytes_max: u64) -> Option<chronos::Error> {
    let mut world = World::new();
    world.limits.pinned_bytes_max = pinned_bytes_max;
    let db = world.filled(1500);
    let counters = db.group().handle().unwrap().counters();
    let mut reader = db.query("SELECT id, v FROM t").unwrap();
    reader.next().unwrap().unwrap();
    world.clock.advance(Duration::from_secs(1));
    let merges = of(&counters.merges);
    for turn in 0..4 {
        // Under a bound of 1,000 bytes a merge in its midst takes the statement's own view as well: then it has done
        // nothing, and is sent again.
        let update = format!("UPDATE t SET v = v + {turn}");
        until(|| match db.execute(&update) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.sqlstate(), SqlState::SNAPSHOT_TOO_OLD, "{error}");
                false
            }
        });
        seal(&db);
    }
    until(|| of(&counters.merges) > merges);
    assert_eq!(db.execute("SELECT COUNT(*) FROM t").unwrap().rows.len(), 1, "a new read is not concerned");
    let pinned = || db.group().handle().unwrap().status().pinned_bytes;
    assert!(pinned() > 1000, "what the reader sees is in no level any more");
    let error = reader.find_map(Result::err);
    assert_eq!(of(&counters.views_revoked) > 0, error.is_some());
    drop(reader);
    assert_eq!(pinned(), 0, "nobody reads it any more");
    error
}

#[test]
fn a_reader_that_keeps_too_much_on_disk_loses_its_view() {
    let error = read_while_all_is_replaced(1000).expect("its version of the table is larger than that");
    assert_eq!(error.sqlstate(), SqlState::SNAPSHOT_TOO_OLD);
    assert!(error.message().contains("more than 1000 bytes on disk"), "{error}");
    assert_eq!(read_while_all_is_replaced(1 << 20), None);
}

#[test]
fn readers_do_not_keep_flushed_memtables_beyond_their_share() {
    let world = World::new();
    let db = world.filled(100);
    let mut readers = Vec::new();
    for turn in 0..12 {
        let tuples: Vec<String> = (0..1500).map(|id| format!("({}, 1)", 1000 + turn * 1500 + id)).collect();
        db.execute(&format!("INSERT INTO t VALUES {}", tuples.join(", "))).unwrap();
        let mut rows = db.query("SELECT id FROM t").unwrap();
        rows.next().unwrap().unwrap();
        readers.push(rows);
        world.clock.advance(Duration::from_secs(1));
        seal(&db);
    }
    let refused = readers.into_iter().filter_map(|mut rows| rows.find_map(Result::err)).count();
    assert!((6..12).contains(&refused), "{refused} of 12 readers, of whom each keeps some 75 KB of 512");
}

/// A place where disk calls wait until they are let through.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    closed: bool,
    waiting: usize,
}

impl Gate {
    /// A closed one.
    fn new() -> Arc<Gate> {
        Arc::new(Gate { state: Mutex::new(GateState { closed: true, waiting: 0 }), ..Gate::default() })
    }

    /// Closes it to the disk calls that `stops` names.
    fn close(disk: &Disk, stops: fn(Operation, &Path) -> bool) -> Arc<Gate> {
        let gate = Gate::new();
        let hook = gate.clone();
        disk.set_hook(Some(Arc::new(move |operation, path| {
            if stops(operation, path) {
                hook.pass();
            }
        })));
        gate
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| state.closed).unwrap());
    }

    /// Waits until a call waits here.
    fn wait_for_call(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.waiting == 0).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().closed = false;
        self.changed.notify_all();
    }
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

fn is_log_sync(operation: Operation, path: &Path) -> bool {
    operation == Operation::Sync && path.to_string_lossy().contains("/raft/")
}

#[test]
fn an_fsync_of_some_seconds_delays_and_harms_nothing() {
    let world = World::new();
    let db = world.filled(10);
    let counters = db.group().handle().unwrap().counters();
    let gate = Gate::close(&world.disk, is_log_sync);
    std::thread::scope(|scope| {
        let write = scope.spawn(|| db.execute("INSERT INTO t VALUES (100, 1)").map(|done| done.affected));
        gate.wait_for_call();
        world.clock.advance(Duration::from_secs(6));
        until(|| of(&counters.slow_disk_calls) > 0);
        gate.open();
        assert_eq!(write.join().unwrap().unwrap(), 1);
    });
    assert_eq!(of(&counters.slow_disk_calls), 1, "one call, one warning");
    assert!(counters.sync_times.distribution().sum >= Duration::from_secs(5));
    db.execute("INSERT INTO t VALUES (101, 1)").unwrap();
    db.group().stop(Stop::Clean).unwrap();
}

#[test]
fn a_disk_that_hangs_ends_the_engine_by_name() {
    let stops: [(&str, fn(Operation, &Path) -> bool); 2] = [
        ("fdatasync /data/", is_log_sync),
        // The background thread's file of a seal.
        ("fsync /data/", |operation, path| {
            operation == Operation::Sync && path.extension().is_some_and(|end| end == "blk")
        }),
    ];
    for (call, stop) in stops {
        let world = World::new();
        let db = world.filled(10);
        let handle = db.group().handle().unwrap();
        let gate = Gate::close(&world.disk, stop);
        std::thread::scope(|scope| {
            let write = scope.spawn(|| {
                drop(db.execute("INSERT INTO t VALUES (100, 1)"));
                drop(db.group().with_engine(Engine::seal));
            });
            gate.wait_for_call();
            world.clock.advance(Duration::from_secs(60));
            assert!(!handle.has_failed(), "sixty seconds are allowed");
            world.clock.advance(Duration::from_millis(1));
            until(|| handle.has_failed());
            let error = loop {
                match db.execute("SELECT 1") {
                    Err(error) => break error,
                    Ok(_) => std::thread::yield_now(),
                }
            };
            assert!(error.message().contains("the disk hangs") && error.message().contains(call), "{error}");
            gate.open();
            write.join().unwrap();
        });
        let stopped = db.group().stop(Stop::Clean).unwrap_err();
        assert!(stopped.message().contains("the disk hangs"), "{stopped}");
        let again = Database::open_on("/data", &Options::default(), &world.engine()).map(drop).unwrap_err();
        assert_eq!(again.sqlstate(), SqlState::IN_USE, "nobody opens it beside a thread that may wake up: {again}");
    }
}

/// Stops a database whose disk begins to hang in a call that the stop itself makes, or waits for.
fn stop_meets_a_disk_that_hangs(call: &str, begin: impl FnOnce(&Database), stops: fn(Operation, &Path) -> bool) {
    let world = World::new();
    let db = world.filled(10);
    begin(&db);
    let gate = Gate::close(&world.disk, stops);
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| db.group().stop(Stop::Clean));
        gate.wait_for_call();
        world.clock.advance(Duration::from_secs(60));
        assert!(!stopping.is_finished(), "{call}: sixty seconds are allowed");
        world.clock.advance(Duration::from_millis(1));
        let error = stopping.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::Io, "{call}: {error}");
        assert!(error.message().contains("the disk hangs") && error.message().contains(call), "{call}: {error}");
        let again = Database::open_on("/data", &Options::default(), &world.engine()).map(drop).unwrap_err();
        assert_eq!(again.sqlstate(), SqlState::IN_USE, "nobody opens it beside a thread that may wake up: {again}");
        gate.open();
    });
}

#[test]
fn a_disk_that_begins_to_hang_while_the_engine_stops_ends_the_stop_by_name() {
    let write = |db: &Database| drop(db.execute("INSERT INTO t VALUES (100, 1)").unwrap());
    // The last seal, at each of its steps.
    stop_meets_a_disk_that_hangs("open /data/", write, |call, path| call == Operation::Create && ends(path, "blk"));
    stop_meets_a_disk_that_hangs("fsync /data/", write, |call, path| call == Operation::Sync && ends(path, "blk"));
    stop_meets_a_disk_that_hangs("CURRENT", write, |call, path| call == Operation::Sync && ends(path, "tmp"));
    // The log's last segment, cut to its content.
    stop_meets_a_disk_that_hangs("/raft", write, |call, path| call == Operation::SetLen && ends(path, "wal"));
    stop_meets_a_disk_that_hangs("/raft", |_| {}, |call, path| call == Operation::SetLen && ends(path, "wal"));
}

#[test]
fn a_seal_that_begins_to_hang_while_it_is_joined_ends_the_stop_by_name() {
    let world = World::new();
    let db = world.filled(10);
    let creating = Gate::new();
    let syncing = Gate::new();
    let (first, second) = (creating.clone(), syncing.clone());
    world.disk.set_hook(Some(Arc::new(move |call, path| match call {
        Operation::Create if ends(path, "blk") => first.pass(),
        Operation::Sync if ends(path, "blk") => second.pass(),
        _ => {}
    })));
    std::thread::scope(|scope| {
        // Until the log is long enough for a seal. The last one may wait for a flush, for which the seal would make way.
        scope.spawn(|| {
            let mut next = 100;
            while creating.state.lock().unwrap().waiting == 0 {
                let tuples: Vec<String> = (next..next + 500).map(|id| format!("({id}, 1)")).collect();
                drop(db.execute(&format!("INSERT INTO t VALUES {}", tuples.join(", "))));
                next += 500;
            }
        });
        creating.wait_for_call();
        let stopping = scope.spawn(|| db.group().stop(Stop::Clean));
        // The log's thread has ended, so the background thread is being joined, or is about to be.
        until(|| db.execute("SELECT 1").is_err());
        creating.open();
        syncing.wait_for_call();
        world.clock.advance(Duration::from_millis(60_001));
        let error = stopping.join().unwrap().unwrap_err();
        assert!(error.message().contains("the disk hangs: fsync"), "{error}");
        syncing.open();
    });
}

#[test]
fn a_failed_fsync_of_the_log_ends_the_engine_and_loses_nothing_acknowledged() {
    for fault in [Fault::Io, Fault::Full] {
        let world = World::new();
        let db = world.filled(10);
        let counters = db.group().handle().unwrap().counters();
        let applied = of(&counters.applied);
        let disk = world.disk.clone();
        world.disk.set_hook(Some(Arc::new(move |operation, path| {
            if is_log_sync(operation, path) {
                disk.fail_at(disk.operations(), fault);
            }
        })));
        let failed = db.execute("INSERT INTO t VALUES (100, 1)").unwrap_err();
        assert!(matches!(failed.kind(), Kind::InDoubt | Kind::Io), "{failed:?}");
        assert!(db.execute("INSERT INTO t VALUES (101, 1)").is_err(), "nothing is accepted after it");
        assert_eq!(of(&counters.applied), applied, "nothing is applied that is not durable");
        drop(db);
        world.disk.set_hook(None);
        world.disk.revive();
        let db = world.open();
        let rows = db.execute("SELECT COUNT(*) FROM t WHERE id < 100").unwrap().rows;
        assert_eq!(rows, [[chronos::sql::value::Value::Int(10)]]);
        assert_eq!(db.execute("INSERT INTO t VALUES (102, 1)").unwrap().affected, 1);
    }
}

#[test]
fn a_disk_without_room_refuses_writes_and_recovers_by_itself() {
    let mut world = World::new();
    world.limits.disk_reserve_bytes = 1 << 20;
    let db = world.filled(100);
    let counters = db.group().handle().unwrap().counters();
    let free = |bytes: u64| {
        until(|| {
            world.disk.set_capacity(Some(1 << 40));
            let used = (1 << 40) - world.disk.free_bytes(Path::new("/data")).unwrap();
            world.disk.set_capacity(Some(used + bytes));
            // The background thread looks at the disk every few seconds, and whenever it has done something. What a seal
            // frees, or a spare takes, moves the figure: then the disk is made to fit anew.
            seal(&db);
            of(&counters.free_bytes).abs_diff(bytes) < 200 << 10
        });
    };
    free(700 << 10);
    let refused = db.execute("INSERT INTO t VALUES (1000, 1)").unwrap_err();
    assert_eq!(refused.sqlstate(), SqlState::DISK_FULL);
    assert_eq!(refused.message(), "disk full, 0 MB free");
    assert!(db.execute("UPDATE t SET v = 1").is_err(), "an update grows too");
    assert_eq!(db.execute("SELECT COUNT(*) FROM t").unwrap().rows.len(), 1, "reads go on");
    assert_eq!(db.execute("DELETE FROM t WHERE id = 50").unwrap().affected, 1, "deletes go on");
    free(64 << 20);
    assert_eq!(db.execute("INSERT INTO t VALUES (1000, 1)").unwrap().affected, 1, "it recovers by itself");
}

/// What is used of the disk by now.
fn used(disk: &Disk) -> u64 {
    disk.set_capacity(Some(1 << 40));
    let used = (1 << 40) - disk.free_bytes(Path::new("/data")).unwrap();
    disk.set_capacity(None);
    used
}

#[test]
fn a_log_without_room_waits_for_it_and_nothing_is_lost() {
    let world = World::new();
    let db = Arc::new(world.open());
    db.execute("CREATE TABLE t (id INT PRIMARY KEY, note TEXT)").unwrap();
    let counters = db.group().handle().unwrap().counters();
    world.disk.set_capacity(Some(used(&world.disk)));
    let (done, told) = std::sync::mpsc::channel();
    let writer = std::thread::spawn({
        let db = db.clone();
        move || {
            // More than what is left of a segment that has no spare to follow it.
            for id in 0..40 {
                let note = "x".repeat(4000);
                db.execute(&format!("INSERT INTO t VALUES ({id}, '{note}')")).unwrap();
            }
            done.send(()).unwrap();
        }
    });
    until(|| counters.log_waits.load(Ordering::Relaxed));
    assert!(told.try_recv().is_err(), "what found no room is not answered");
    assert!(counters.is_disk_full(), "whoever comes now is refused");
    let refused = db.execute("INSERT INTO t VALUES (1000, 'late')").unwrap_err();
    assert_eq!(refused.sqlstate(), SqlState::DISK_FULL);
    let count = |db: &Database| match db.execute("SELECT COUNT(*) FROM t").unwrap().rows[0][0] {
        chronos::sql::value::Value::Int(count) => count,
        ref other => panic!("{other:?}"),
    };
    assert!(count(&db) < 40, "reads go on");
    assert!(!db.group().handle().unwrap().has_failed());
    world.disk.set_capacity(None);
    // The clock of this world stands still; the log looks again all the same.
    until(|| !counters.is_disk_full());
    writer.join().unwrap();
    assert_eq!(count(&db), 40);
    drop(told);
    drop(db);
    assert_eq!(count(&world.open()), 40, "and so after a restart");
}

#[test]
fn a_flush_without_room_waits_for_it_and_the_engine_lives() {
    let world = World::new();
    let db = Arc::new(world.filled(2000));
    let counters = db.group().handle().unwrap().counters();
    let flushes = of(&counters.flushes);
    // The log finds room, the blocks do not.
    let is_full = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let disk = world.disk.clone();
    let full = is_full.clone();
    world.disk.set_hook(Some(Arc::new(move |operation, path| {
        let is_block = path.extension().is_some_and(|extension| extension == "hot");
        if is_block && operation == Operation::Write && full.load(Ordering::Relaxed) {
            disk.fail_at(disk.operations(), Fault::Full);
        }
    })));
    db.execute("UPDATE t SET v = 1 WHERE id < 1000").unwrap();
    let sealer = std::thread::spawn({
        let db = db.clone();
        move || seal(&db)
    });
    until(|| world.disk.operations() > 0 && db.group().handle().unwrap().status().memtables > 1);
    assert_eq!(db.execute("SELECT COUNT(*) FROM t").unwrap().rows.len(), 1, "reads go on");
    assert_eq!(db.execute("DELETE FROM t WHERE id = 1999").unwrap().affected, 1, "deletes go on");
    assert_eq!(of(&counters.flushes), flushes);
    is_full.store(false, Ordering::Relaxed);
    sealer.join().unwrap();
    assert!(of(&counters.flushes) > flushes && !db.group().handle().unwrap().has_failed());
    world.disk.set_hook(None);
    drop(db);
    let db = world.open();
    let rows = db.execute("SELECT COUNT(*) FROM t WHERE v = 1").unwrap().rows;
    assert!(matches!(rows[0][0], chronos::sql::value::Value::Int(n) if n >= 1000), "{rows:?}");
}

#[test]
fn a_stop_without_room_leaves_everything_to_the_log() {
    let world = World::new();
    let db = world.filled(100);
    db.execute("INSERT INTO t VALUES (1000, 7)").unwrap();
    let disk = world.disk.clone();
    world.disk.set_hook(Some(Arc::new(move |operation, path| {
        let in_state = path.components().any(|part| part.as_os_str() == "state");
        if in_state && operation == Operation::Write {
            disk.fail_at(disk.operations(), Fault::Full);
        }
    })));
    db.close().unwrap();
    world.disk.set_hook(None);
    let db = world.open();
    assert_eq!(db.execute("SELECT v FROM t WHERE id = 1000").unwrap().rows.len(), 1);
}

#[test]
fn what_is_put_by_lets_a_full_disk_be_opened() {
    let mut world = World::new();
    world.limits.disk_reserve_bytes = 1 << 20;
    let db = world.filled(100);
    let reserve = Path::new("/data/local/state/reserve");
    until(|| {
        seal(&db);
        world.disk.exists(reserve)
    });
    db.close().unwrap();
    assert!(world.disk.exists(reserve), "it outlives a stop");
    world.disk.set_capacity(Some(used(&world.disk)));
    // In memory, so the hot store is always made anew: a directory, a CURRENT, its first file.
    let db = world.open();
    assert!(!world.disk.exists(reserve));
    assert_eq!(db.execute("SELECT COUNT(*) FROM t").unwrap().rows.len(), 1);
    assert_eq!(db.execute("DELETE FROM t WHERE id < 10").unwrap().affected, 10);
    world.disk.set_capacity(None);
    until(|| {
        seal(&db);
        world.disk.exists(reserve)
    });
}

#[test]
fn a_damaged_block_keeps_only_a_replay_that_needs_it_from_starting_and_says_what_to_do() {
    for (statement, is_needed) in [("UPDATE t SET v = 1 WHERE id = 5", true), ("INSERT INTO u VALUES (1)", false)] {
        let mut world = World::new();
        let db = world.open();
        db.execute("CREATE TABLE u (id INT PRIMARY KEY)").unwrap();
        drop(db);
        let db = world.filled(2000);
        db.execute(statement).unwrap();
        // As kill -9 leaves it.
        world.disk = world.disk.crash(0, Crash::Keep);
        let is_block = |path: &&std::path::PathBuf| path.extension().is_some_and(|extension| extension == "blk");
        let paths = world.disk.paths();
        let path = paths.iter().rfind(is_block).expect("it was sealed");
        world.disk.flip(path, 8 * 300).unwrap();
        match Database::open_on("/data", &Options::default(), &world.engine()) {
            Ok(db) => {
                assert!(!is_needed);
                assert_eq!(db.execute("SELECT id FROM u").unwrap().rows.len(), 1);
                assert_eq!(db.execute("SELECT v FROM t WHERE id = 5").unwrap_err().kind(), Kind::Damaged);
            }
            Err(error) => {
                assert!(is_needed, "{error}");
                assert!(error.message().contains("a block fails its checksum"), "{error}");
                let hint = error.hint_text().expect("it says what to do");
                assert!(hint.contains("keep a copy of it, and restore a snapshot"), "{hint}");
            }
        }
    }
}
