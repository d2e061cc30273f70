//! Snapshots of a node that goes on working.

use super::process::{Node, wait, wire};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

fn chronos(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chronos")).args(arguments).env("RUST_LOG", "warn").output().unwrap()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn create(node: &Node, file: &Path) -> Output {
    chronos(&["snapshot", "create", "--leader", &node.grpc.to_string(), "--output", file.to_str().unwrap()])
}

fn restore(file: &Path, directory: &Path) {
    let restored =
        chronos(&["snapshot", "restore", "--data-dir", directory.to_str().unwrap(), "--input", file.to_str().unwrap()]);
    assert!(restored.status.success(), "{}", told(&restored));
}

fn run(node: &Node, sql: &str) {
    let (status, answer) = node.post_sql(&serde_json::json!({ "sql": sql }).to_string());
    assert_eq!(status, 200, "{answer}");
}

fn int(node: &Node, sql: &str) -> i64 {
    let (status, answer) = node.post_sql(&serde_json::json!({ "sql": sql }).to_string());
    assert_eq!(status, 200, "{answer}");
    answer["rows"][0][0].as_i64().unwrap()
}

/// The content's hash as `/status` shows it, once that is of everything applied.
fn content(node: &Node) -> serde_json::Value {
    loop {
        let status: serde_json::Value = serde_json::from_str(&node.get("/status")).unwrap();
        let content = &status["content"];
        if content["index"].as_u64() >= status["raft"]["applied"].as_u64() {
            assert!(content["hash"].is_string(), "{status}");
            return content["hash"].clone();
        }
        std::thread::yield_now();
    }
}

fn insert(table: &str, ids: std::ops::Range<i64>) -> String {
    let rows: Vec<String> = ids.map(|id| format!("({id}, {id}.5, 'row {id}')")).collect();
    format!("INSERT INTO {table} VALUES {}", rows.join(", "))
}

/// Small limits, so that flushes, seals and recycled segments come in between.
const SMALL: [(&str, &str); 3] = [
    ("CHRONOS_STORAGE__SEAL_WAL_BYTES", "4MiB"),
    ("CHRONOS_STORAGE__SEGMENT_BYTES", "1MiB"),
    ("CHRONOS_STORAGE__MEMORY_BYTES_MAX", "16MiB"),
];

#[test]
fn a_snapshot_of_a_running_node_restores_to_the_same_content() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_with(&directory.path().join("from"), &SMALL);
    run(&node, "CREATE TABLE t (id INT PRIMARY KEY, v FLOAT, name TEXT)");
    run(&node, "CREATE INDEX by_v ON t (v)");
    for from in 0..20 {
        run(&node, &insert("t", from * 1000..(from + 1) * 1000));
    }
    run(&node, "DELETE FROM t WHERE id % 7 = 0");
    run(&node, "UPDATE t SET v = -v WHERE id < 500");
    let file = directory.path().join("node.snap");
    let made = create(&node, &file);
    assert!(made.status.success(), "{}", told(&made));
    let again = create(&node, &file);
    assert!(!again.status.success() && told(&again).contains("--force"), "{}", told(&again));
    // The backup goes once its last piece has: the client may be quicker.
    let snapshots = directory.path().join("from/node1/snapshots");
    while std::fs::read_dir(&snapshots).map_or(0, Iterator::count) > 0 {
        std::thread::yield_now();
    }
    restore(&file, &directory.path().join("to"));
    let copy = Node::start(&directory.path().join("to"));
    assert_eq!(content(&copy), content(&node));
    assert_eq!(int(&copy, "SELECT COUNT(*) FROM t WHERE v < 0"), int(&node, "SELECT COUNT(*) FROM t WHERE v < 0"));
    run(&copy, &insert("t", 100_000..100_001));
}

#[test]
fn a_snapshot_under_load_holds_what_was_answered_before_it_and_whole_statements() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_with(&directory.path().join("from"), &SMALL);
    run(&node, "CREATE TABLE t (id INT PRIMARY KEY, v FLOAT, name TEXT)");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut from = 0;
            while !stop.load(Ordering::Relaxed) {
                run(&node, &insert("t", from..from + 100));
                from += 100;
            }
            from
        });
        for round in 0..3 {
            // So that each has flushes and a log behind it.
            let goal = int(&node, "SELECT COUNT(*) FROM t") + 20_000;
            while int(&node, "SELECT COUNT(*) FROM t") < goal {}
            let answered = int(&node, "SELECT COUNT(*) FROM t");
            let file = directory.path().join(format!("{round}.snap"));
            let made = create(&node, &file);
            assert!(made.status.success(), "{}", told(&made));
            let to = directory.path().join(format!("to{round}"));
            restore(&file, &to);
            let copy = Node::start(&to);
            let rows = int(&copy, "SELECT COUNT(*) FROM t");
            assert!(rows >= answered, "{rows} of {answered}");
            assert_eq!((rows % 100, int(&copy, "SELECT MAX(id) FROM t")), (0, rows - 1), "a prefix of the statements");
        }
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().unwrap();
        assert_eq!(int(&node, "SELECT COUNT(*) FROM t"), written);
    });
}

#[test]
fn one_snapshot_is_made_at_a_time_and_a_client_that_goes_away_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    run(&node, "CREATE TABLE t (id INT PRIMARY KEY, v FLOAT, name TEXT)");
    // Bytes that do not shrink, more of them than connection and channel hold: the stream waits for its reader.
    for from in 0..16 {
        let rows: Vec<String> = (0..100)
            .map(|i| {
                let id = from * 100 + i;
                let noise: Vec<String> = (0..400).map(|k| format!("{:016x}", mix(id * 400 + k))).collect();
                format!("({id}, 1, '{}')", noise.concat())
            })
            .collect();
        run(&node, &format!("INSERT INTO t VALUES {}", rows.join(", ")));
    }
    wait(async {
        let channel =
            tonic::transport::Endpoint::from_shared(format!("http://{}", node.grpc)).unwrap().connect().await.unwrap();
        let mut client = wire::admin_service_client::AdminServiceClient::new(channel);
        let mut first = client.create_snapshot(wire::SnapshotRequest::default()).await.unwrap().into_inner();
        assert!(first.message().await.unwrap().is_some());
        let second = client.create_snapshot(wire::SnapshotRequest::default()).await.expect_err("one at a time");
        assert_eq!(second.code(), tonic::Code::ResourceExhausted, "{second}");
        drop(first);
        // The place is free once the node has noticed.
        let mut third = loop {
            match client.create_snapshot(wire::SnapshotRequest::default()).await {
                Ok(stream) => break stream.into_inner(),
                Err(status) => assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}"),
            }
        };
        while third.message().await.unwrap().is_some() {}
    });
    let snapshots = directory.path().join("node1/snapshots");
    while std::fs::read_dir(&snapshots).map_or(0, Iterator::count) > 0 {}
}

/// A number that nothing can be guessed from, and the same in every run.
fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
