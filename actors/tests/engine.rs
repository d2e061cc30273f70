//! A panic in one of the storage engine's own threads, or while a directory is opened: the files are where it springs.

use crate::actors::router::Router;
use crate::actors::tests::files::{Call, Hook, HookedFiles};
use crate::actors::tests::node::{Running, ints, on_a_system, statement, survives_on, terms};
use chronos::clock::SystemClock;
use chronos::embedded::engine_options;
use chronos::error::{Error, Kind};
use chronos::storage::engine::{self, Options};
use std::sync::{Arc, Mutex};

/// A panic that waits for a thread at the files.
#[derive(Clone, Default)]
struct Trap {
    /// Whose, by the beginning of its name, and how many calls from now.
    armed: Arc<Mutex<Option<(&'static str, usize)>>>,
}

impl Trap {
    fn arm(&self, thread: &'static str, calls: usize) {
        *self.armed.lock().unwrap() = Some((thread, calls));
    }

    /// True once it has sprung.
    fn has_sprung(&self) -> bool {
        self.armed.lock().unwrap().is_none()
    }

    fn step(&self) {
        let mut armed = self.armed.lock().unwrap();
        let current = std::thread::current();
        let Some((thread, calls)) = &mut *armed else { return };
        if !current.name().is_some_and(|name| name.starts_with(*thread)) {
            return;
        }
        if *calls > 1 {
            *calls -= 1;
            return;
        }
        *armed = None;
        drop(armed);
        panic!("poison");
    }
}

/// The trap springs at what a thread waits for: not at names that are looked up.
fn springs_at(call: Call) -> bool {
    match call {
        Call::Read | Call::Write | Call::Sync | Call::Rename | Call::SyncDir => true,
        Call::Create | Call::Open | Call::Link | Call::Remove | Call::CreateDir | Call::List | Call::SetLen => false,
    }
}

/// Memtables so small that every few hundred rows are flushed, and no cache: apply reads blocks from the files.
fn trapped(trap: &Trap) -> Options {
    let limits = engine::Limits {
        memtable_bytes_max: 64 << 10,
        cache_bytes_max: 0,
        seal_wal_bytes: 256 << 10,
        segment_bytes: 128 << 10,
        disk_reserve_bytes: 0,
        ..engine::Limits::default()
    };
    let trap = trap.clone();
    let hook: Hook = Arc::new(move |call, _| {
        if springs_at(call) {
            trap.step();
        }
        Ok(())
    });
    Options { files: Arc::new(HookedFiles(hook)), ..engine_options(limits) }
}

/// Writes until the trap has sprung. Keys that are there make apply read the block that holds them; so many of them that
/// the log thread leaves them to the state thread. No writer's own keys are below 0.
async fn until_sprung(router: &Router, trap: &Trap) -> Error {
    let keys: Vec<String> = (1..2000).map(|key| format!("(-{key})")).collect();
    let sql = format!("INSERT INTO t VALUES {}", keys.join(","));
    loop {
        let written = router.execute(statement(&sql), terms()).await;
        if trap.has_sprung() {
            return written.err().unwrap_or_else(|| Error::unavailable("another write was caught"));
        }
    }
}

fn survives_a_panic_of(thread: &'static str, calls: usize, panics: usize) {
    let trap = Trap::default();
    survives_on(trapped(&trap), panics, &async |router: &Router| {
        trap.arm(thread, calls);
        Err(until_sprung(router, &trap).await)
    });
}

#[test]
fn no_acknowledged_write_is_lost_when_the_log_thread_panics_before_its_fsync() {
    survives_a_panic_of("chronos-log", 2, 50);
}

#[test]
fn no_acknowledged_write_is_lost_when_the_log_thread_panics_while_it_applies_what_it_synced() {
    // A write, its fdatasync, and then the block that holds the key.
    survives_a_panic_of("chronos-log", 3, 50);
}

#[test]
fn no_acknowledged_write_is_lost_when_the_state_thread_panics_in_the_middle_of_apply() {
    survives_a_panic_of("chronos-state", 1, 50);
}

#[test]
fn no_acknowledged_write_is_lost_when_the_background_thread_panics_in_a_flush_or_a_seal() {
    survives_a_panic_of("chronos-background", 7, 50);
}

#[test]
fn a_write_that_a_panic_caught_is_in_doubt_and_its_neighbours_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let trap = Trap::default();
    on_a_system(async {
        let node = Running::start_on(directory.path(), trapped(&trap), Arc::new(SystemClock)).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        for round in 1..=5 {
            trap.arm("chronos-log", 1);
            let caught = node.execute(&format!("INSERT INTO t VALUES ({round})")).await.unwrap_err();
            assert_eq!(caught.kind(), Kind::InDoubt, "{caught}");
            // Whatever became of it, the first write that is served again knows.
            loop {
                match node.execute(&format!("INSERT INTO t VALUES ({round})")).await {
                    Ok(written) => break assert_eq!(written.affected, 1),
                    Err(error) if matches!(error.kind(), Kind::InDoubt | Kind::Unavailable) => {}
                    Err(error) => break assert_eq!(error.sqlstate().as_str(), "23505", "{error}"),
                }
            }
        }
        let rows = node.execute("SELECT id FROM t ORDER BY id").await.unwrap();
        assert_eq!(ints(&rows), [1, 2, 3, 4, 5]);
        let status = node.router.status().await.unwrap();
        let restarts = status.actors.iter().find(|actor| actor.name == "storage").unwrap().restarts;
        assert_eq!(restarts, 5, "each panic is one failure of storage, and of nobody else: {:?}", status.actors);
        node.stop().await;
    });
}

#[test]
fn a_panic_anywhere_in_a_recovery_is_followed_by_one_that_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let trap = Trap::default();
    on_a_system(async {
        let node = Running::start_on(directory.path(), trapped(&trap), Arc::new(SystemClock)).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        let mut sprung = 0;
        for round in 0..40 {
            let values: Vec<String> = (round * 100..(round + 1) * 100).map(|id| format!("({id})")).collect();
            while let Err(error) = node.execute(&format!("INSERT INTO t VALUES {}", values.join(","))).await {
                // The one before was written after all.
                if error.sqlstate().as_str() == "23505" {
                    break;
                }
            }
            // The recovery runs on the actor's own thread; each round goes a little further into it.
            let restarts = node.router.routes().counters.restarts_of("storage");
            trap.arm("actix", 1 + round as usize);
            node.poison_storage().await;
            while node.router.routes().counters.restarts_of("storage") == restarts || !node.router.absent().is_empty() {
                tokio::task::yield_now().await;
            }
            sprung += usize::from(trap.has_sprung());
            *trap.armed.lock().unwrap() = None;
        }
        assert!(sprung >= 10, "only {sprung} recoveries were hit");
        let rows = node.execute("SELECT id FROM t ORDER BY id").await.unwrap();
        assert_eq!(ints(&rows), (0..4000).collect::<Vec<i64>>());
        node.stop().await;
    });
}
