//! A damaged block of the hot store, met by whoever reads it: storage is opened again, and nothing else ends.

use crate::actors::messages::Streamed;
use crate::actors::tests::janitor::{files, flip, small, until_quiet};
use crate::actors::tests::node::{Running, ints, on_a_system, statement, terms};
use crate::actors::tests::patience::until;
use chronos::clock::SystemClock;
use chronos::embedded::engine_options;
use chronos::error::Kind;
use chronos::storage::engine::{Limits, Options};
use std::path::Path;
use std::sync::Arc;

/// Flushed, and not sealed; no cache between a reader and the disk.
fn options() -> Options {
    engine_options(Limits { seal_wal_bytes: 64 << 20, cache_bytes_max: 0, ..small() })
}

/// Rows that are there. The others are in doubt.
struct Rows {
    next: i64,
}

impl Rows {
    /// Writes until something was flushed once more, or a statement fails.
    async fn write(&mut self, node: &Running) -> Result<(), chronos::error::Error> {
        let flushes = || node.published.storage().totals.flushes;
        let before = flushes();
        while flushes() == before {
            let values: Vec<String> =
                (self.next..self.next + 500).map(|id| format!("({id}, 'row {}')", id * 7919)).collect();
            node.execute(&format!("INSERT INTO t VALUES {}", values.join(","))).await?;
            self.next += 500;
        }
        Ok(())
    }
}

fn restarts(node: &Running) -> u64 {
    node.router.routes().counters.restarts_of("storage")
}

fn damage(directory: &Path) {
    let hot = files(&directory.join("node1/state"), ".hot");
    assert!(!hot.is_empty());
    for victim in &hot {
        // Every block of it.
        (0..victim.metadata().unwrap().len() as usize).step_by(500).for_each(|at| flip(victim, at));
    }
}

/// Every row is there again after one restart of storage, and after a restart of the node.
async fn check(node: Running, directory: &Path, rows: &Rows) {
    until(async || restarts(&node) == 1 && node.router.absent().is_empty()).await;
    node.until_served().await;
    let count = ints(&node.execute("SELECT COUNT(*) FROM t").await.unwrap())[0];
    // One statement may have been under way when the block was met.
    assert!(count == rows.next || count == rows.next + 500, "{count} rows of {}", rows.next);
    node.execute("INSERT INTO t VALUES (-1, 'served')").await.unwrap();
    assert_eq!(restarts(&node), 1, "once was enough");
    node.stop().await;
    let again = Running::start_on(directory, options(), Arc::new(SystemClock)).await;
    assert_eq!(ints(&again.execute("SELECT COUNT(*) FROM t").await.unwrap()), [count + 1]);
    again.stop().await;
}

#[test]
fn a_statement_that_meets_a_damaged_hot_block_is_told_and_the_node_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start_on(directory.path(), options(), Arc::new(SystemClock)).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY, words TEXT)").await.unwrap();
        let mut rows = Rows { next: 0 };
        rows.write(&node).await.unwrap();
        until_quiet(&node).await;
        damage(directory.path());
        let error = node.execute("SELECT words FROM t").await.unwrap_err();
        assert!(error.kind() == Kind::Damaged && error.message().contains(".hot"), "{error}");
        check(node, directory.path(), &rows).await;
    });
}

#[test]
fn damage_that_a_streamed_statement_meets_is_counted_and_known_to_the_operator() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let options = engine_options(Limits { cache_bytes_max: 0, ..small() });
        let node = Running::start_on(directory.path(), options, Arc::new(SystemClock)).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY, words TEXT)").await.unwrap();
        let mut rows = Rows { next: 0 };
        while node.published.storage().totals.seals == 0 {
            rows.write(&node).await.unwrap();
        }
        until_quiet(&node).await;
        let failed = || node.router.routes().counters.errors().find(|(kind, _)| *kind == "damaged").unwrap().1;
        let read = async || {
            let Ok(Streamed::Rows(mut rows)) = node.router.query(statement("SELECT words FROM t"), terms()).await
            else {
                panic!("a query streams")
            };
            let mut end = None;
            while let Some(next) = rows.next().await {
                end = next.err();
            }
            end
        };
        assert_eq!((read().await.map(|error| error.to_string()), failed()), (None, 0));
        for sealed in files(&directory.path().join("node1/state"), ".blk") {
            flip(&sealed, 300);
        }
        let error = read().await.expect("a block is damaged");
        assert_eq!((error.kind(), failed()), (Kind::Damaged, 1));
        until(async || node.router.health().await.unwrap().degraded.is_some_and(|why| why.contains("damaged on disk")))
            .await;
        node.stop().await;
    });
}

#[test]
fn a_flush_that_meets_a_damaged_hot_block_costs_the_node_one_restart_of_storage() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start_on(directory.path(), options(), Arc::new(SystemClock)).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY, words TEXT)").await.unwrap();
        let mut rows = Rows { next: 0 };
        rows.write(&node).await.unwrap();
        until_quiet(&node).await;
        damage(directory.path());
        // The last block is not full: the next flush goes on with it.
        while restarts(&node) == 0 && rows.write(&node).await.is_ok() {}
        check(node, directory.path(), &rows).await;
    });
}

#[test]
fn who_asks_for_an_engine_that_is_gone_to_be_opened_again_leaves_its_successor_alone() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start_on(directory.path(), options(), Arc::new(SystemClock)).await;
        let first = node.parts.lent().unwrap();
        first.reopen();
        until(async || restarts(&node) == 1 && node.router.absent().is_empty()).await;
        node.until_served().await;
        first.reopen();
        node.until_published().await;
        node.until_published().await;
        assert_eq!(restarts(&node), 1);
        node.parts.lent().unwrap().reopen();
        until(async || restarts(&node) == 2 && node.router.absent().is_empty()).await;
        node.until_served().await;
        node.stop().await;
    });
}
