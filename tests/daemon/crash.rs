//! Ends of a process, good and bad, and what is there afterwards.

use crate::process::wire::SqlRequest;
use crate::process::{Client, Node, wait};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn sigterm_ends_it_well_and_the_next_start_has_everything() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let node = Node::start(directory.path());
        node.until_ready();
        if round == 0 {
            node.post_sql(r#"{"sql": "CREATE TABLE t (id INT PRIMARY KEY)"}"#);
        }
        let (status, written) = node.post_sql(&format!(r#"{{"sql": "INSERT INTO t VALUES ({round})"}}"#));
        assert_eq!(status, 200, "{written}");
        let (_, count) = node.post_sql(r#"{"sql": "SELECT COUNT(*) FROM t"}"#);
        assert_eq!(count["rows"], json!([[round + 1]]));
        assert_eq!(node.terminate().code(), Some(0));
        assert!(!directory.path().join("node1/addresses.json").exists(), "nobody serves there any more");
    }
}

/// Writers at once.
const WRITERS: i64 = 8;

/// Rows that must have been acknowledged before a round is ended.
const ROUND_ROWS: usize = 1000;

/// Rounds; `CHRONOS_CRASH_ROUNDS=50` for the long run.
fn rounds() -> i64 {
    std::env::var("CHRONOS_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3)
}

/// Limits so small that every round flushes, seals and recycles segments of the log.
fn start_small(directory: &Path) -> Node {
    let settings = [
        ("CHRONOS_STORAGE__MEMORY_BYTES_MAX", "16 MB"),
        ("CHRONOS_STORAGE__SEAL_WAL_BYTES", "4 MiB"),
        ("CHRONOS_STORAGE__SEGMENT_BYTES", "1 MiB"),
        ("CHRONOS_STORAGE__DISK_RESERVE", "0 B"),
    ];
    Node::start_with(directory, &settings)
}

/// What a row says besides its id: the id again, and enough to fill the log.
fn note(id: i64) -> String {
    format!("row {id} {}", "x".repeat(4500 + (id % 1000) as usize))
}

/// What one writer knows: rows that were acknowledged, and the one whose answer never came.
#[derive(Default)]
struct Sent {
    acknowledged: Vec<i64>,
    in_doubt: Option<i64>,
}

async fn write(mut client: Client, first: i64, counter: Arc<AtomicUsize>) -> Sent {
    let mut sent = Sent::default();
    for id in first.. {
        let sql = format!("INSERT INTO t VALUES ({id}, '{}')", note(id));
        if let Ok(answer) = client.execute_sql(SqlRequest { sql }).await {
            assert!(answer.get_ref().success, "{}", answer.get_ref().error);
            sent.acknowledged.push(id);
            counter.fetch_add(1, Ordering::Relaxed);
        } else {
            sent.in_doubt = Some(id);
            break;
        }
    }
    sent
}

/// Everything that a fresh process reads. The table has no key, so a row applied twice would be there twice.
fn read_all(directory: &Path) -> Vec<i64> {
    let node = start_small(directory);
    node.until_ready();
    let mut ids = Vec::new();
    let (_, ends) = node.post_sql(r#"{"sql": "SELECT MAX(id) FROM t"}"#);
    let end = ends["rows"][0][0].as_i64().unwrap_or(-1);
    let mut from = 0;
    while from <= end {
        // A thousand rows of 5 KB stay below the ceiling of one answer.
        let (status, read) = node.post_sql(&format!(
            r#"{{"sql": "SELECT id, note FROM t WHERE id >= {from} AND id < {} ORDER BY id"}}"#,
            from + 1000
        ));
        assert_eq!(status, 200, "{read}");
        for row in read["rows"].as_array().unwrap() {
            let id = row[0].as_i64().unwrap();
            assert_eq!(row[1].as_str().unwrap(), note(id), "row {id} is not what was written");
            ids.push(id);
        }
        from += 1000;
    }
    assert_eq!(node.terminate().code(), Some(0));
    ids
}

#[test]
fn kill_9_under_eight_writers_loses_nothing_doubles_nothing_and_invents_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut in_doubt) = (BTreeSet::new(), BTreeSet::new());
    let (state, log) = (directory.path().join("node1/state"), directory.path().join("node1/raft"));
    let (mut sealed, mut recycled) = (0, 0);
    let mut next = 0;
    for round in 0..rounds() {
        let node = start_small(directory.path());
        let before = (first_name(&state, "hot-"), first_name(&log, "0"));
        wait(async {
            let client = node.client().await;
            if round == 0 {
                let sql = "CREATE TABLE t (id INT NOT NULL, note TEXT)".to_string();
                assert!(client.clone().execute_sql(SqlRequest { sql }).await.unwrap().into_inner().success);
            }
            let counter = Arc::new(AtomicUsize::new(0));
            let first = |writer| next + writer * 1000;
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| tokio::spawn(write(client.clone(), first(writer), counter.clone())))
                .collect();
            // The end falls anywhere after the thousandth row: in a flush, a seal, an fsync.
            let enough = ROUND_ROWS + (round as usize * 7919) % 500;
            while counter.load(Ordering::Relaxed) < enough {
                tokio::task::yield_now().await;
            }
            node.kill();
            for writer in writers {
                let sent = writer.await.unwrap();
                acknowledged.extend(sent.acknowledged);
                in_doubt.extend(sent.in_doubt);
            }
        });
        next += WRITERS * 1000;
        // The first hot store goes with a seal, which flushes feed; the first segment is recycled after it.
        let now = (first_name(&state, "hot-"), first_name(&log, "0"));
        (sealed, recycled) = (sealed + i64::from(now.0 != before.0), recycled + i64::from(now.1 != before.1));
        if round % 10 == 9 || round + 1 == rounds() {
            let there = read_all(directory.path());
            let set: BTreeSet<i64> = there.iter().copied().collect();
            assert_eq!(set.len(), there.len(), "round {round}: rows are there twice");
            let lost: Vec<&i64> = acknowledged.difference(&set).collect();
            assert!(lost.is_empty(), "round {round}: {} acknowledged rows are lost: {lost:?}", lost.len());
            let invented: Vec<&i64> =
                set.iter().filter(|id| !acknowledged.contains(id) && !in_doubt.contains(id)).collect();
            assert!(invented.is_empty(), "round {round}: rows that nobody sent: {invented:?}");
        }
    }
    assert!(acknowledged.len() >= ROUND_ROWS * rounds() as usize);
    assert!(sealed * 2 >= rounds() && recycled * 2 >= rounds(), "{sealed} rounds sealed, {recycled} recycled");
}

/// The first name of a directory that begins with `prefix`: hot stores and segments are numbered, and leave in order.
fn first_name(directory: &Path, prefix: &str) -> Option<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).min()
}
