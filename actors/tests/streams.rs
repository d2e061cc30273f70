//! Streamed answers: what ends them, and that their end is told.

use crate::actors::DaemonConfig;
use crate::actors::grpc::Limits;
use crate::actors::messages::{Streamed, Terms};
use crate::actors::route::Deadline;
use crate::actors::rows::{Parcel, Rows};
use crate::actors::tests::node::{Poison, Running, on_a_system, statement, terms};
use crate::actors::tests::patience::until;
use crate::actors::transit::Side;
use chronos::clock::SystemClock;
use chronos::embedded::engine_options;
use chronos::error::{Error, Kind, SqlState};
use chronos::storage::engine;
use futures_util::future::join_all;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// More batches than wait for a reader, by far.
const ROWS: usize = 100_000;

/// Rows of a megabyte.
const LARGE_ROWS: usize = 5;

const MIB: usize = 1 << 20;

/// A node whose answers have some 3 MiB of room together, with rows of a megabyte.
async fn start_large(directory: &Path, stall_max: Duration) -> Running {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = DaemonConfig::new("node1", directory, address);
    config.limits = Limits {
        stall_max,
        statement_bytes_max: 4 * MIB,
        response_bytes_max: 2 * MIB,
        in_flight_bytes_max: 8 * MIB,
        ..config.limits
    };
    let options = engine_options(engine::Limits::default());
    let node = Running::start_with(config, options, Arc::new(SystemClock)).await;
    node.execute("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)").await.unwrap();
    for id in 0..LARGE_ROWS {
        let value = char::from(b'a' + id as u8).to_string().repeat(MIB);
        node.execute(&format!("INSERT INTO t VALUES ({id}, '{value}')")).await.unwrap();
    }
    node
}

async fn start(directory: &Path, stall_max: Duration) -> Running {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = DaemonConfig::new("node1", directory, address);
    config.limits.stall_max = stall_max;
    let node = Running::start_with(config, engine_options(engine::Limits::default()), Arc::new(SystemClock)).await;
    node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    for part in 0..10 {
        let values: Vec<String> = (part * ROWS / 10..(part + 1) * ROWS / 10).map(|id| format!("({id})")).collect();
        node.execute(&format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
    }
    node
}

async fn query(node: &Running, terms: Terms) -> Rows {
    ask(node, "SELECT id FROM t", terms).await
}

async fn ask(node: &Running, sql: &str, terms: Terms) -> Rows {
    match node.router.query(statement(sql), terms).await.unwrap() {
        Streamed::Rows(rows) => rows,
        Streamed::Whole(_) => panic!("a query streams"),
    }
}

fn rows_of(parcel: &Parcel) -> usize {
    parcel.look(|batch| batch.rows).unwrap_or(0)
}

/// How many rows came, and why no more.
async fn rest(rows: &mut Rows) -> (usize, Option<Error>) {
    let mut seen = 0;
    loop {
        match rows.next().await {
            Some(Ok(parcel)) => seen += rows_of(&parcel),
            Some(Err(error)) => return (seen, Some(error)),
            None => return (seen, None),
        }
    }
}

/// How many rows came, which must be all.
async fn whole(rows: &mut Rows) -> usize {
    let (seen, error) = rest(rows).await;
    assert!(error.is_none(), "{error:?}");
    seen
}

/// Waits until no statement runs.
async fn until_idle(node: &Running) {
    until(async || node.router.routes().executors.iter().all(|executor| executor.depth() == 0)).await;
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
        let first = rows_of(&unlimited.next().await.unwrap().unwrap());
        limited.next().await.unwrap().unwrap();
        until(async || deadline.left().is_zero()).await;
        let (seen, error) = rest(&mut unlimited).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(first + seen, ROWS);
        let (_, error) = rest(&mut limited).await;
        assert_eq!(error.unwrap().sqlstate(), SqlState::QUERY_CANCELED);
        node.stop().await;
    });
}

#[test]
fn rows_of_megabytes_that_nobody_reads_stay_within_their_room_and_the_one_who_reads_gets_all() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = start_large(directory.path(), Duration::from_mins(1)).await;
        let transit = &node.router.routes().transit;
        let mut first = ask(&node, "SELECT id, v FROM t", terms()).await;
        until(async || transit.used() > 0).await;
        let mut streams = Vec::new();
        for _ in 0..12 {
            streams.push(ask(&node, "SELECT id, v FROM t", terms()).await);
        }
        // Those that wait do so without a statement's memory, and others are answered.
        until(async || transit.is_waited_for(Side::Answer)).await;
        assert_eq!(rest(&mut query(&node, terms()).await).await.0, LARGE_ROWS);
        assert!(transit.used() <= transit.answer_bytes_max(), "{}", transit.used());
        assert_eq!(whole(&mut first).await, LARGE_ROWS);
        assert!(transit.used() <= transit.answer_bytes_max(), "{}", transit.used());
        assert_eq!(join_all(streams.iter_mut().map(whole)).await, [LARGE_ROWS; 12]);
        until_idle(&node).await;
        assert_eq!(transit.used(), 0);
        node.stop().await;
    });
}

#[test]
fn a_large_batch_that_nobody_takes_is_taken_back_with_its_room() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = start_large(directory.path(), Duration::from_millis(50)).await;
        let mut rows = ask(&node, "SELECT id, v FROM t", terms()).await;
        let parcel = rows.next().await.unwrap().unwrap();
        assert_eq!(rows_of(&parcel), 1);
        until_idle(&node).await;
        assert_eq!(parcel.look(|batch| batch.rows), None, "its memory has gone while the door still has it");
        assert_eq!(node.router.routes().transit.used(), 0);
        assert_eq!(rows.next().await.unwrap().err().unwrap().sqlstate(), SqlState::QUERY_CANCELED);
        node.stop().await;
    });
}

#[test]
fn a_row_larger_than_all_room_is_sent_alone() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = start_large(directory.path(), Duration::from_mins(1)).await;
        let mut both = Vec::new();
        for _ in 0..2 {
            both.push(ask(&node, "SELECT v, v, v, v, v FROM t WHERE id < 2", terms()).await);
        }
        assert_eq!(join_all(both.iter_mut().map(whole)).await, [2, 2]);
        node.stop().await;
    });
}

#[test]
fn large_rows_behind_small_ones_get_through_when_there_is_no_room() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = start_large(directory.path(), Duration::from_mins(1)).await;
        let transit = &node.router.routes().transit;
        let mut mixed = Vec::new();
        let sql = "SELECT id, CASE WHEN id = 0 THEN 'small' ELSE v END FROM t";
        for _ in 0..2 {
            let mut rows = ask(&node, sql, terms()).await;
            assert_eq!(rows_of(&rows.next().await.unwrap().unwrap()), 1);
            mixed.push(rows);
        }
        let _all = transit.admit_now(Side::Answer, transit.answer_bytes_max() - transit.used());
        assert_eq!(join_all(mixed.iter_mut().map(whole)).await, [LARGE_ROWS - 1; 2]);
        node.stop().await;
    });
}

#[test]
fn a_reader_that_stops_at_small_rows_keeps_no_room_from_others() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = start_large(directory.path(), Duration::from_secs(4)).await;
        let transit = &node.router.routes().transit;
        let sql = "SELECT id, CASE WHEN id = 0 THEN v ELSE 'small' END FROM t";
        let mut rows = ask(&node, sql, terms()).await;
        assert_eq!(rows_of(&rows.next().await.unwrap().unwrap()), 1);
        // Behind the large row come small ones, and nobody waits for room yet.
        until(async || rows.is_full()).await;
        assert!(transit.used() > MIB);
        let deadline = Deadline::after(Duration::from_secs(30));
        let all = transit.admit(Side::Answer, transit.answer_bytes_max(), deadline).await.unwrap();
        assert_eq!(whole(&mut rows).await, LARGE_ROWS - 1, "it had the room, and has its stream");
        drop(all);
        node.stop().await;
    });
}

#[test]
fn a_reader_that_pauses_at_a_large_row_has_all_the_time_that_it_gave_itself() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = start_large(directory.path(), Duration::from_mins(1)).await;
        // Longer than a client may be silent where others wait, and shorter than twice that.
        let deadline = Deadline::after(Duration::from_secs(7));
        let mut rows = ask(&node, "SELECT id, v FROM t", Terms { whole: Some(deadline), ..terms() }).await;
        let first = rows.next().await.unwrap().unwrap();
        until_idle(&node).await;
        assert!(deadline.left().is_zero(), "nobody waits for its room");
        assert_eq!(first.look(|batch| batch.rows), None);
        let error = rest(&mut rows).await.1.unwrap();
        assert!(error.sqlstate() == SqlState::QUERY_CANCELED && !error.message().contains("was taken"), "{error}");
        node.stop().await;
    });
}
