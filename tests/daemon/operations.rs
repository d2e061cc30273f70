//! What an operator relies on: metrics that a scraper accepts, a status that says everything, limits that hold, signals.

use crate::patience::Patience;
use crate::process::wire::SqlRequest;
use crate::process::{Client, FREE, Node, command, wait};
use crate::skipped::skipped;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use tonic::Code;

fn status(node: &Node) -> Value {
    serde_json::from_str(&node.get("/status")).unwrap()
}

/// Waits until the status says something; it is refreshed once a second.
fn until_status(node: &Node, says: impl Fn(&Value) -> bool) -> Value {
    loop {
        let status = status(node);
        if says(&status) {
            return status;
        }
        std::thread::yield_now();
    }
}

#[test]
fn promtool_finds_nothing_to_lint() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    node.post_sql(r#"{"sql": "CREATE TABLE t (id INT)"}"#);
    node.post_sql(r#"{"sql": "SELECT nothing FROM t"}"#);
    let text = node.get("/metrics");
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut tool = match tool {
        Ok(tool) => tool,
        Err(error) => {
            skipped(&format!("promtool (Debian package prometheus) cannot be started: {error}"));
            return;
        }
    };
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = tool.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(checked.status.success() && told.trim().is_empty(), "{told}\n{text}");
}

#[test]
fn the_status_says_everything_under_names_that_stay() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [("CHRONOS_LIMITS__MAILBOX", "77"), ("CHRONOS_NODE__ADVERTISE", "gateway.local:8000")];
    let node = Node::start_with(directory.path(), &settings);
    node.until_ready();
    node.post_sql(r#"{"sql": "CREATE TABLE t (id INT PRIMARY KEY)"}"#);
    node.post_sql(r#"{"sql": "INSERT INTO t VALUES (1), (2)"}"#);
    let status = until_status(&node, |status| {
        status["storage"]["wal"]["fsyncs"].as_u64() >= Some(2) && status["content"]["hash"].is_string()
    });
    assert_eq!((&status["id"], &status["status"], &status["reason"]), (&json!("node1"), &json!("ok"), &Value::Null));
    assert_eq!(status["address"], json!("gateway.local:8000"));
    assert_eq!(status["version"], json!(env!("CARGO_PKG_VERSION")));
    assert_eq!(status["storage"]["fsync"], json!("fdatasync once a batch, before the answer"));
    assert_eq!(status["members"][0]["role"], json!("Leader"));
    assert_eq!(status["content"]["hash"].as_str().map(str::len), Some(32));
    for path in [
        "/started_ms",
        "/raft/term",
        "/raft/committed",
        "/raft/applied",
        "/raft/last",
        "/storage/size_bytes",
        "/storage/disk_free_bytes",
        "/storage/memtables/bytes",
        "/storage/levels/0/rows",
        "/storage/sealed/runs",
        "/storage/wal/birth",
        "/storage/wal/bytes",
        "/storage/wal/segments",
        "/storage/wal/recycled",
        "/storage/cache/hits",
        "/storage/flushes",
        "/storage/scrub/passes",
        "/content/index",
        "/sync/pending",
        "/sync/dead_letters",
        "/actors/0/restarts",
        "/actors/0/waiting",
    ] {
        assert!(status.pointer(path).is_some_and(Value::is_u64), "{path}: {status:#}");
    }
    let mut names: Vec<&str> = status["limits"].as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    for name in [
        "limits.command_bytes_max",
        "limits.connections",
        "limits.mailbox",
        "limits.query_memory_bytes",
        "limits.in_flight_bytes_max",
        "limits.response_bytes_max",
        "limits.statement_bytes_max",
        "limits.statement_effects_max",
        "limits.statement_timeout",
        "raft.proposals_bytes_max",
        "storage.batch_effects_bytes_max",
        "storage.cache_bytes_max",
        "storage.commit_linger",
        "storage.disk_reserve",
        "storage.disk_stall_max",
        "storage.memory_bytes_max",
        "storage.memtable_bytes_max",
        "storage.seal_wal_bytes",
        "storage.segment_bytes",
        "storage.pinned_bytes_max",
        "storage.scrub_interval",
        "storage.statement_slice_bytes_max",
        "storage.view_age_max",
        "ttl.cleanup_interval_secs",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
        assert!(status["limits"][name]["max"].is_u64(), "{name}");
    }
    assert_eq!(status["limits"]["limits.mailbox"]["max"], json!(77));
    assert_eq!(status["limits"]["storage.seal_wal_bytes"]["set"], json!("64 MiB"));
    // A quarter of the memory, which a larger batch is refused by.
    let memory = status["limits"]["storage.memory_bytes_max"]["max"].as_u64().unwrap();
    assert_eq!(status["limits"]["storage.batch_effects_bytes_max"]["max"], json!(memory / 4));
    let resident = &status["limits"]["process.resident_bytes"];
    assert!(resident["now"].as_u64() > Some(1 << 20) && resident["now"].as_u64() < resident["max"].as_u64());
    let memory = &status["limits"]["storage.memory_bytes_max"];
    assert!(memory["now"].as_u64() > Some(0) && memory["now"].as_u64() < memory["max"].as_u64(), "{memory}");
    assert!(status["limits"]["storage.memtable_bytes_max"]["now"].as_u64() > Some(0));
    for name in ["storage.memtable_kept_bytes_max", "storage.pinned_bytes_max"] {
        assert_eq!(status["limits"][name]["now"], json!(0), "nobody reads");
    }
    let max = |name: &str| status["limits"][name]["max"].as_u64().unwrap();
    assert_eq!(
        max("storage.memtable_kept_bytes_max"),
        2 * max("storage.memtable_bytes_max"),
        "for two long statements"
    );
    assert!(status["limits"]["raft.memory_bytes_max"]["now"].is_u64());
    assert!(status["limits"]["raft.log_keep_bytes_max"]["now"].is_u64());
    // Of a reserve nothing is used: there is what is free.
    let reserve = &status["limits"]["storage.disk_reserve"];
    assert!(reserve["now"].is_null() && reserve["free"] == status["storage"]["disk_free_bytes"], "{reserve}");
    assert!(status["memory"]["bytes"].as_u64() > Some(1 << 24), "{}", status["memory"]);
    assert!(status["memory"]["source"].as_str().is_some_and(|file| file.starts_with('/')), "{}", status["memory"]);
}

#[test]
fn a_budget_of_memory_beyond_the_machine_is_warned_of_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("node.log");
    let file = log.to_str().unwrap();
    let told = |budget| {
        let settings = [("CHRONOS_LOG__FILE", file), ("CHRONOS_STORAGE__MEMORY_BYTES_MAX", budget)];
        drop(Node::start_with(directory.path(), &settings));
        std::fs::read_to_string(&log).unwrap()
    };
    assert!(!told("16 MB").contains("memory_bytes_max"), "fits");
    let told = told("900 GB");
    assert!(told.contains("storage.memory_bytes_max (900000 MB) and 40 MB for the program itself"), "{told}");
}

#[test]
fn a_full_disk_refuses_writes_by_name_and_serves_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    node.post_sql(r#"{"sql": "CREATE TABLE t (id INT PRIMARY KEY)"}"#);
    node.post_sql(r#"{"sql": "INSERT INTO t VALUES (1), (2)"}"#);
    assert_eq!(node.terminate().code(), Some(0));
    // More than any test machine has free stands for a disk without room.
    let node = Node::start_with(directory.path(), &[("CHRONOS_STORAGE__DISK_RESERVE", "1 TB")]);
    node.until_ready();
    until_status(&node, |status| status["storage"]["disk_full"] == json!(true));
    let (status, refused) = node.post_sql(r#"{"sql": "INSERT INTO t VALUES (3)"}"#);
    let told = refused["error"].as_str().unwrap();
    assert_eq!((status, &refused["sqlstate"]), (507, &json!("53100")), "{refused}");
    assert!(told.starts_with("disk full, ") && told.contains(" MB free"), "{told}");
    let (status, read) = node.post_sql(r#"{"sql": "SELECT COUNT(*) FROM t"}"#);
    assert_eq!((status, &read["rows"]), (200, &json!([[2]])));
    let (status, deleted) = node.post_sql(r#"{"sql": "DELETE FROM t WHERE id = 1"}"#);
    assert_eq!((status, &deleted["affected"]), (200, &json!(1)), "{deleted}");
    let health: Value = serde_json::from_str(&node.get("/health")).unwrap();
    assert_eq!((&health["status"], &health["reason"]), (&json!("degraded"), &json!("the disk is full")));
    assert!(node.get("/metrics").contains("\nchronos_storage_disk_full 1\n"));
}

#[test]
fn a_node_that_nobody_could_reach_takes_no_other_member() {
    let directory = tempfile::tempdir().unwrap();
    let add = json!({ "add": { "id": "node2", "address": "127.0.0.1:1", "role": "observer" } }).to_string();
    let start = |advertised: &[&str]| {
        let mut everywhere = command(directory.path(), "0.0.0.0:0");
        everywhere.args(advertised).env("CHRONOS_HTTP__ADDRESS", FREE).env("RUST_LOG", "error");
        let node = Node::spawn(everywhere, directory.path());
        node.until_ready();
        node
    };
    let added = |node: &Node| node.http("POST", "/admin/members", &[], add.as_bytes());
    let (status, answer) = added(&start(&[]));
    assert!(status == 400 && answer.contains("does not say where") && answer.contains("node.advertise"), "{answer}");
    let node = start(&["--advertise", "127.0.0.1:2"]);
    let (status, answer) = added(&node);
    assert_eq!(status, 200, "{answer}");
    // And the other one is told.
    while !node.get("/admin/members").contains("127.0.0.1:2\"") {}
}

#[test]
fn bench_names_how_the_server_syncs() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    let (grpc, http) = (node.grpc.to_string(), node.http.to_string());
    let output = Command::new(env!("CARGO_BIN_EXE_chronos"))
        .args(["bench", "--ops", "20", "--clients", "2", "--leader", &grpc, "--http", &http])
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("\nfsync: fdatasync once a batch, before the answer\n"), "{out}");
}

#[test]
fn one_grpc_connection_too_many_is_refused_until_another_ends() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_with(directory.path(), &[("CHRONOS_LIMITS__CONNECTIONS", "2")]);
    wait(async {
        let mut first = node.client().await;
        let _second = node.client().await;
        let ask = async || {
            let mut client = Client::connect(format!("http://{}", node.grpc)).await.unwrap();
            client.execute_sql(SqlRequest { sql: "SELECT 1".into() }).await
        };
        for _ in 0..20 {
            let refused = ask().await.unwrap_err();
            assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        }
        assert!(first.execute_sql(SqlRequest { sql: "SELECT 1".into() }).await.unwrap().into_inner().success);
        drop(first);
        let patience = Patience::new();
        while let Err(refused) = ask().await {
            patience.spend(|| format!("{refused:?}"));
        }
        // Counted once the node has noticed that the client is gone.
        loop {
            let text = node.get("/metrics");
            let refused =
                text.lines().find_map(|line| line.strip_prefix("chronos_connections_refused_total{door=\"grpc\"} "));
            if refused.unwrap().parse::<u64>().unwrap() >= 20 {
                break;
            }
            patience.spend(|| text);
        }
    });
}

#[test]
fn who_finds_no_grpc_connection_left_is_told_why_and_that_nothing_happened() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_with(directory.path(), &[("CHRONOS_LIMITS__CONNECTIONS", "1")]);
    node.until_ready();
    assert_eq!(node.post_sql(r#"{"sql": "CREATE TABLE t (id INT PRIMARY KEY)"}"#).0, 200);
    wait(async {
        let mut first = node.client().await;
        for sql in ["SELECT 1", "INSERT INTO t VALUES (1)"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
            let refused = command.args(["client", "--leader", &node.grpc.to_string(), "-e", sql]).output().unwrap();
            let told = String::from_utf8(refused.stderr).unwrap();
            assert!(!refused.status.success() && told.contains("limits.connections is reached"), "{told}");
            assert!(told.contains("53300") && told.contains("ask another node"), "{told}");
        }
        let count = first.execute_sql(SqlRequest { sql: "SELECT COUNT(*) FROM t".into() }).await.unwrap().into_inner();
        assert!(count.success && format!("{:?}", count.rows).contains("IntValue(0)"), "{count:?}");
    });
}

#[test]
fn a_http_connection_too_many_waits_until_another_ends() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_with(directory.path(), &[("CHRONOS_LIMITS__CONNECTIONS", "2")]);
    node.until_ready();
    let open = || {
        let mut stream = TcpStream::connect(node.http).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: node\r\n\r\n").unwrap();
        stream
    };
    let mut told = [0; 12];
    let (mut first, mut second) = (open(), open());
    first.read_exact(&mut told).unwrap();
    second.read_exact(&mut told).unwrap();
    let mut third = open();
    third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(third.read_exact(&mut told).is_err(), "a third one was served");
    third.set_read_timeout(None).unwrap();
    drop(first);
    third.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 200");
}

#[test]
fn sigterm_ends_it_in_time_whatever_clients_hold_open() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    wait(async {
        let mut client = node.client().await;
        let sql = "CREATE TABLE t (id INT PRIMARY KEY, words TEXT)".to_string();
        assert!(client.execute_sql(SqlRequest { sql }).await.unwrap().into_inner().success);
        for part in 0..20 {
            let rows: Vec<String> =
                (0..1000).map(|i| format!("({}, '{}')", part * 1000 + i, "w".repeat(1000))).collect();
            let sql = format!("INSERT INTO t VALUES {}", rows.join(","));
            assert!(client.execute_sql(SqlRequest { sql }).await.unwrap().into_inner().success);
        }
        // A reader that has had the first rows of 20 MB and takes no more.
        let mut slow = client.query_sql(SqlRequest { sql: "SELECT * FROM t".into() }).await.unwrap().into_inner();
        slow.message().await.unwrap().unwrap();
        // Half a head, half a body, a connection that says nothing, and one that has only greeted.
        let mut half_head = TcpStream::connect(node.http).unwrap();
        half_head.write_all(b"POST /sql HTTP/1.1\r\nhost: no").unwrap();
        let mut half_body = TcpStream::connect(node.http).unwrap();
        half_body.write_all(b"POST /sql HTTP/1.1\r\nhost: node\r\ncontent-length: 100\r\n\r\n{\"sql\":").unwrap();
        let _silent = TcpStream::connect(node.grpc).unwrap();
        let mut greeted = TcpStream::connect(node.grpc).unwrap();
        greeted.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        let (status, took) = node.terminate_timed();
        assert_eq!(status.code(), Some(0));
        // None of them ever ends by itself: a daemon that waited for one would still be there.
        println!("ended in {took:?}");
        drop((slow, half_head, half_body));
    });
    let again = Node::start(directory.path());
    again.until_ready();
    let (_, count) = again.post_sql(r#"{"sql": "SELECT COUNT(*) FROM t"}"#);
    assert_eq!(count["rows"], json!([[20_000]]));
}

#[test]
fn sighup_reads_the_log_levels_again_and_a_typo_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (settings, log) = (directory.path().join("c.toml"), directory.path().join("chronos.log"));
    let configure = |level: &str| {
        let text = format!("[log]\nlevel = {level:?}\nfile = {log:?}\n");
        std::fs::write(&settings, text).unwrap();
    };
    configure("warn");
    let mut node = command(directory.path(), crate::process::FREE);
    node.args(["--config".as_ref(), settings.as_os_str()]).env_remove("RUST_LOG");
    let node = Node::spawn(node, directory.path());
    node.until_ready();
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    let until_says = |text: &str| {
        while !lines().contains(text) {
            std::thread::yield_now();
        }
    };
    assert!(!lines().contains("INFO"), "{}", lines());
    configure("info,chronos=debug");
    node.hang_up();
    until_says("read the settings again: log.level = \"info,chronos=debug\"");
    configure("no such level=of=all");
    node.hang_up();
    until_says("the settings stay as they are: log.level");
    assert_eq!(node.terminate().code(), Some(0));
    assert!(lines().contains("INFO chronos::actors::ending: stopped"), "info is still logged: {}", lines());
}

#[test]
fn sighup_cannot_overrule_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("chronos.log");
    let node = Node::start_with(directory.path(), &[("CHRONOS_LOG_FILE", log.to_str().unwrap()), ("RUST_LOG", "info")]);
    node.hang_up();
    while !std::fs::read_to_string(&log).unwrap().contains("log.level = \"info\" (environment RUST_LOG)") {
        std::thread::yield_now();
    }
}

#[test]
fn what_dependencies_log_arrives_too() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("chronos.log");
    let settings = [("CHRONOS_LOG_FILE", log.to_str().unwrap()), ("RUST_LOG", "off,sled=debug")];
    let node = Node::start_with(directory.path(), &settings);
    assert_eq!(node.terminate().code(), Some(0));
    let lines = std::fs::read_to_string(&log).unwrap();
    assert!(lines.contains(" sled::") || !cfg!(debug_assertions), "{lines}");
    assert!(!lines.contains(" chronos::"), "{lines}");
}
