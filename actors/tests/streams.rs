//! Streamed answers: what ends them, and that their end is told.

use crate::actors::DaemonConfig;
use crate::actors::messages::{Streamed, Terms};
use crate::actors::route::Deadline;
use crate::actors::rows::Rows;
use crate::actors::tests::node::{Poison, Running, on_a_system, statement, terms};
use chronos::clock::SystemClock;
use chronos::embedded::engine_options;
use chronos::error::{Error, Kind, SqlState};
use chronos::storage::engine::Limits;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// More batches than wait for a reader, by far.
const ROWS: usize = 100_000;

async fn start(directory: &Path, stall_max: Duration) -> Running {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = DaemonConfig::new("node1", directory, address);
    config.limits.stall_max = stall_max;
    let node = Running::start_with(config, engine_options(Limits::default()), Arc::new(SystemClock)).await;
    node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    for part in 0..10 {
        let values: Vec<String> = (part * ROWS / 10..(part + 1) * ROWS / 10).map(|id| format!("({id})")).collect();
        node.execute(&format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
    }
    node
}

async fn query(node: &Running, terms: Terms) -> Rows {
    match node.router.query(statement("SELECT id FROM t"), terms).await.unwrap() {
        Streamed::Rows(rows) => rows,
        Streamed::Whole(_) => panic!("a query streams"),
    }
}

/// How many rows came, and why no more.
async fn rest(rows: &mut Rows) -> (usize, Option<Error>) {
    let mut seen = 0;
    loop {
        match rows.next().await {
            Some(Ok(batch)) => seen += batch.rows,
            Some(Err(error)) => return (seen, Some(error)),
            None => return (seen, None),
        }
    }
}

/// Waits until no statement runs.
async fn until_idle(node: &Running) {
    while node.router.routes().executors.iter().any(|executor| executor.depth() > 0) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_reader_that_takes_nothing_loses_its_stream_and_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = start(directory.path(), Duration::from_millis(50)).await;
        let mut rows = query(&node, terms()).await;
        // The statement goes, and its view with it, while the reader is still there.
        until_idle(&node).await;
        let (seen, error) = rest(&mut rows).await;
        assert!(seen > 0 && seen < ROWS, "{seen}");
        assert_eq!(error.unwrap().sqlstate(), SqlState::QUERY_CANCELED);
        assert!(rows.next().await.is_none(), "the error is the last thing that comes");
        node.stop().await;
    });
}

#[test]
fn a_stream_whose_executor_goes_has_no_clean_end() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = start(directory.path(), Duration::from_mins(1)).await;
        let mut rows = query(&node, terms()).await;
        rows.next().await.unwrap().unwrap();
        for executor in &node.router.routes().executors {
            executor.ask(Poison, terms().deadline).await.unwrap_err();
        }
        let (seen, error) = rest(&mut rows).await;
        assert!(seen < ROWS, "{seen}");
        assert_eq!(error.unwrap().kind(), Kind::Unavailable);
        node.stop().await;
    });
}

#[test]
fn only_a_deadline_of_the_clients_own_holds_for_a_whole_stream() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = start(directory.path(), Duration::from_mins(1)).await;
        let deadline = Deadline::after(Duration::from_secs(1));
        let mut unlimited = query(&node, Terms { deadline, ..terms() }).await;
        let mut limited = query(&node, Terms { deadline, whole: Some(deadline), ..terms() }).await;
        let first = unlimited.next().await.unwrap().unwrap().rows;
        limited.next().await.unwrap().unwrap();
        while !deadline.left().is_zero() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (seen, error) = rest(&mut unlimited).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(first + seen, ROWS);
        let (_, error) = rest(&mut limited).await;
        assert_eq!(error.unwrap().sqlstate(), SqlState::QUERY_CANCELED);
        node.stop().await;
    });
}
