//! Two nodes that have the data, and a witness: what it is there for, and what it does not have.

use crate::group::{Group, name};
use crate::patience::until;
use crate::process::body;
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::Command;

/// The witness of a group that was founded with one.
const WITNESS: usize = 2;

/// Small logs: what takes hours elsewhere happens within a few megabytes.
const SMALL: [(&str, &str); 3] = [
    ("CHRONOS_STORAGE__SEGMENT_BYTES", "1 MiB"),
    ("CHRONOS_STORAGE__SEAL_WAL_BYTES", "4 MiB"),
    ("CHRONOS_RAFT__LOG_KEEP_BYTES_MAX", "0 B"),
];

/// The first entry of a node's log.
fn first(group: &Group, at: usize) -> u64 {
    let status: Json = serde_json::from_str(&group.node(at).get("/status")).unwrap();
    status["raft"]["first"].as_u64().unwrap()
}

/// Rows in blocks and memtables, as the node sees them.
fn rows(group: &Group, at: usize) -> u64 {
    let status: Json = serde_json::from_str(&group.node(at).get("/status")).unwrap();
    let levels = status["storage"]["levels"].as_array().unwrap().iter();
    levels.map(|level| level["rows"].as_u64().unwrap()).sum()
}

/// Bytes of the blocks in a node's state directory.
fn block_bytes(group: &Group, at: usize) -> u64 {
    fn bytes(directory: &Path) -> u64 {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .map(|entry| {
                let path = entry.path();
                let is_block = path.extension().is_some_and(|end| end == "blk");
                // Files come and go while the node works.
                let own = entry.metadata().map_or(0, |metadata| metadata.len());
                if path.is_dir() { bytes(&path) } else { u64::from(is_block) * own }
            })
            .sum()
    }
    bytes(&group.directory(at).join("state"))
}

/// Inserts a row of 100 KB for each id.
fn fill(group: &Group, at: usize, ids: std::ops::Range<i64>) {
    for id in ids {
        let text = format!("{id:08}").repeat(12_500);
        group.sql(at, &format!("INSERT INTO t VALUES ({id}, '{text}')"));
    }
}

/// The leader, and the other one with rows.
fn full(group: &Group) -> (usize, usize) {
    let leader = until("one with the data leads", || match group.leader() {
        WITNESS => Err("the witness leads".to_owned()),
        leader => Ok(leader),
    });
    (leader, 1 - leader)
}

/// Waits until a query has its answer.
fn number_in_the_end(group: &Group, at: usize, sql: &str) -> i64 {
    until("an answer", || match group.node(at).post_sql(&json!({ "sql": sql }).to_string()) {
        (200, answer) => Ok(answer["rows"][0][0].as_i64().unwrap()),
        (_, answer) => Err(answer.to_string()),
    })
}

#[test]
fn with_a_witness_one_of_two_may_go() {
    let mut group = Group::start_with_witness(&[]);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let (leader, other) = full(&group);
    group.kill(other);
    group.sql(leader, "INSERT INTO t VALUES (1)");
    group.restart(other);
    group.until_ready(other);
    assert_eq!(group.number(other, "SELECT COUNT(*) FROM t"), 1);
    // The other way round, too: the witness elects whoever is left.
    group.kill(leader);
    until("a write goes through", || match group.node(other).post_sql(r#"{"sql": "INSERT INTO t VALUES (2)"}"#) {
        (200, _) => Ok(()),
        // Said after it was proposed, it may have come to pass.
        (_, answer) if answer["sqlstate"] == json!("23505") => Ok(()),
        (_, answer) => Err(answer.to_string()),
    });
    group.restart(leader);
    group.until_ready(leader);
    assert_eq!(group.number(leader, "SELECT COUNT(*) FROM t"), 2);
    group.agree();
}

#[test]
fn what_only_the_witness_still_has_reaches_the_one_that_lagged() {
    let mut group = Group::start_with_witness(&[]);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)");
    let (leader, lagging) = full(&group);
    let elections = group.metric(WITNESS, "chronos_raft_elections_total ");
    group.node(lagging).signal(Signal::STOP);
    // More than may be on its way to it, in whatever buffers.
    fill(&group, leader, 0..120);
    group.kill(leader);
    group.node(lagging).signal(Signal::CONT);
    assert_eq!(number_in_the_end(&group, lagging, "SELECT COUNT(*) FROM t"), 120, "nothing acknowledged is lost");
    assert!(group.metric(WITNESS, "chronos_raft_elections_total ") > elections, "nobody else could be elected");
    assert_eq!(full(&group).0, lagging, "the witness has handed over");
    group.sql(lagging, "INSERT INTO t VALUES (1000, 'after')");
    group.restart(leader);
    group.until_ready(leader);
    assert_eq!(group.number(leader, "SELECT COUNT(*) FROM t"), 121);
    group.agree();
}

#[test]
fn a_witness_has_no_rows_and_says_so() {
    let group = Group::start_with_witness(&SMALL);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)");
    let (leader, _) = full(&group);
    fill(&group, leader, 0..120);
    // Writes are handed to whoever leads.
    group.sql(WITNESS, "INSERT INTO t VALUES (1000, 'through the witness')");
    for level in ["stale", "lease", "linearizable"] {
        for sql in ["SELECT COUNT(*) FROM t", "SHOW TABLES", "SELECT 1"] {
            let asked = json!({ "sql": sql, "consistency": level }).to_string();
            let (status, answer) = group.node(WITNESS).post_sql(&asked);
            let says = answer["error"].as_str().unwrap();
            assert!(status == 503 && says.contains("is a witness"), "{level}, {sql}: {status} {says}");
            assert!(says.contains(&format!("{} ({})", name(0), group.address(0))), "it says whom to ask: {says}");
        }
    }
    until("the state moves on without rows", || {
        let seals = group.metric(WITNESS, "chronos_storage_seals_total ");
        if seals >= 2.0 { Ok(()) } else { Err(format!("{seals} seals")) }
    });
    assert!(rows(&group, leader) >= 30, "the leader has them");
    assert_eq!((rows(&group, WITNESS), group.metric(WITNESS, "chronos_storage_memtable_bytes ")), (0, 0.0));
    let (its, theirs) = (block_bytes(&group, WITNESS), block_bytes(&group, leader));
    assert!(its < 64 << 10, "{its} bytes of blocks without a row, {theirs} at the leader");
    until("the log is let go of", || {
        let bytes = group.metric(WITNESS, "chronos_wal_size_bytes ");
        // Twelve megabytes were written; it keeps what the last seal did not cover.
        if bytes < 9e6 { Ok(()) } else { Err(format!("{bytes} bytes")) }
    });
    let health: Json = serde_json::from_str(&group.node(WITNESS).get("/health")).unwrap();
    assert_eq!((&health["role"], &health["status"]), (&json!("Witness"), &json!("ok")), "{health}");
    let status: Json = serde_json::from_str(&group.node(WITNESS).get("/status")).unwrap();
    assert_eq!((&status["content"], &status["raft"]["witness"]), (&Json::Null, &json!(true)), "{status}");
    assert_eq!(group.metric(WITNESS, "chronos_raft_witness ") as u64, 1);
    let output = group.path().join("its.snap");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(["snapshot", "create", "--leader", &group.node(WITNESS).grpc.to_string(), "--output"]).arg(&output);
    let refused = command.output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("is a witness") && !output.exists(), "{said}");
    // A client that knows another node asks that one.
    let nodes = [WITNESS, leader].map(|at| group.node(at).grpc.to_string()).join(",");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    let asked = command.args(["client", "--leader", &nodes, "-e", "SELECT COUNT(*) AS n FROM t"]).output().unwrap();
    let answer = String::from_utf8(asked.stdout).unwrap();
    assert!(asked.status.success() && answer.contains(" 121\n"), "{answer}");
    let to = json!({ "to": name(WITNESS) }).to_string();
    let (status, answer) = group.node(leader).http("POST", "/admin/transfer", &[], to.as_bytes());
    assert!(status == 400 && answer.contains("is a witness"), "{answer}");
}

#[test]
fn a_witness_keeps_its_log_for_a_voter_that_is_away() {
    let group = Group::start_with_witness(&SMALL);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)");
    let (leader, away) = full(&group);
    group.node(away).signal(Signal::STOP);
    fill(&group, leader, 0..150);
    until("the leader lets go of what it has sealed", || {
        let bytes = group.metric(leader, "chronos_wal_size_bytes ");
        if bytes < 12e6 { Ok(()) } else { Err(format!("{bytes} bytes")) }
    });
    until("its own state covers it", || {
        let seals = group.metric(WITNESS, "chronos_storage_seals_total ");
        if seals >= 2.0 { Ok(()) } else { Err(format!("{seals} seals")) }
    });
    // But for what both had before: the first few entries.
    assert!(first(&group, WITNESS) < 10 && first(&group, leader) > 20, "all of it may be needed");
    group.node(away).signal(Signal::CONT);
    until("nobody needs it any more", || {
        let bytes = group.metric(WITNESS, "chronos_wal_size_bytes ");
        if bytes < 9e6 { Ok(()) } else { Err(format!("{bytes} bytes")) }
    });
    assert_eq!(number_in_the_end(&group, away, "SELECT COUNT(*) FROM t"), 150);
}

/// With six megabytes of log a witness is full.
fn start_with_little_room() -> Group {
    let limits = [("CHRONOS_RAFT__WITNESS_LOG_BYTES_MAX", "6 MiB"), ("CHRONOS_LIMITS__STATEMENT_TIMEOUT", "2s")];
    let group = Group::start_with_witness(&[&SMALL[..], &limits[..]].concat());
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)");
    group
}

/// Writes until a write is not acknowledged any more; gives how many were.
fn fill_up(group: &Group, leader: usize) -> i64 {
    let text = "x".repeat(100_000);
    let mut acknowledged = 0;
    let refused = (0..200).find_map(|id| {
        let sql = json!({ "sql": format!("INSERT INTO t VALUES ({id}, '{text}')") }).to_string();
        match group.node(leader).post_sql(&sql) {
            (200, _) => {
                acknowledged += 1;
                None
            }
            (_, answer) => Some(answer),
        }
    });
    let refused = refused.expect("nobody acknowledges what only the leader has");
    // Proposed, and committed by nobody so far.
    assert_eq!(refused["sqlstate"], json!("08007"), "{refused}");
    assert!((30..100).contains(&acknowledged), "{acknowledged} writes fill six megabytes");
    until("it says so", || {
        let health = group.node(WITNESS).get("/health");
        let says = health.contains("degraded") && health.contains("raft.witness_log_bytes_max");
        if says && group.metric(WITNESS, "chronos_raft_witness_log_full ") > 0.0 { Ok(()) } else { Err(health) }
    });
    acknowledged
}

#[test]
fn where_a_member_is_lost_a_full_witness_is_given_more_room_to_remove_it() {
    let mut group = start_with_little_room();
    let (leader, lost) = full(&group);
    group.kill(lost);
    let acknowledged = fill_up(&group, leader);
    group.kill(WITNESS);
    let mut command = group.command(WITNESS, &[]);
    command.env("CHRONOS_RAFT__WITNESS_LOG_BYTES_MAX", "64 MiB");
    group.nodes[WITNESS] = Some(crate::process::Node::spawn_as(command, group.path(), &name(WITNESS)));
    group.until_ready(WITNESS);
    until("it is removed", || match admin(&group, leader, &["remove-node", &name(lost)]) {
        (true, _) => Ok(()),
        (false, said) => Err(said),
    });
    assert!(number_in_the_end(&group, leader, "SELECT COUNT(*) FROM t") >= acknowledged);
    until("the log is let go of", || {
        fill(&group, leader, 1000..1001);
        group.sql(leader, "DELETE FROM t WHERE id = 1000");
        let begin = first(&group, WITNESS);
        if begin > 20 { Ok(()) } else { Err(format!("from {begin} on")) }
    });
}

#[test]
fn a_witness_whose_log_is_full_says_so_and_recovers_by_itself() {
    let group = start_with_little_room();
    let (leader, away) = full(&group);
    group.node(away).signal(Signal::STOP);
    let acknowledged = fill_up(&group, leader);
    let members = group.node(leader).get("/admin/members");
    assert!(members.contains("\"flow\":\"full\""), "{members}");
    group.node(away).signal(Signal::CONT);
    until("it has room again", || {
        let health = group.node(WITNESS).get("/health");
        if health.contains("\"status\":\"ok\"") { Ok(()) } else { Err(health) }
    });
    let counted = number_in_the_end(&group, away, "SELECT COUNT(*) FROM t");
    assert!(counted >= acknowledged, "{counted} of {acknowledged} acknowledged");
    // And counts again.
    let (leader, away) = full(&group);
    group.node(away).signal(Signal::STOP);
    until("a write without the one that is away", || {
        match group.node(leader).post_sql(r#"{"sql": "INSERT INTO t VALUES (1000, 'with the witness')"}"#) {
            (200, _) => Ok(()),
            (_, answer) if answer["sqlstate"] == json!("23505") => Ok(()),
            (_, answer) => Err(answer.to_string()),
        }
    });
    group.node(away).signal(Signal::CONT);
}

#[test]
fn a_killed_witness_goes_on_where_it_was() {
    let mut group = Group::start_with_witness(&SMALL);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)");
    let (leader, other) = full(&group);
    fill(&group, leader, 0..60);
    for _ in 0..2 {
        group.kill(WITNESS);
        group.sql(leader, "UPDATE t SET v = 'meanwhile' WHERE id = 0");
        group.restart(WITNESS);
        group.until_ready(WITNESS);
    }
    // It counts, and still has no rows.
    group.kill(other);
    until("a write goes through", || match group.node(leader).post_sql(r#"{"sql": "DELETE FROM t WHERE id = 1"}"#) {
        (200, _) => Ok(()),
        (_, answer) => Err(answer.to_string()),
    });
    assert_eq!(rows(&group, WITNESS), 0);
    let stale = r#"{"sql": "SELECT COUNT(*) FROM t", "consistency": "stale"}"#;
    let (status, answer) = group.node(WITNESS).post_sql(stale);
    assert!(status == 503 && answer["error"].as_str().unwrap().contains("is a witness"), "{answer}");
    group.restart(other);
    group.until_ready(other);
    group.agree();
}

/// Runs `chronos admin` against a node.
fn admin(group: &Group, at: usize, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    let leader = group.node(at).grpc.to_string();
    let output = command.arg("admin").args(arguments).args(["--leader", &leader]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.success(), said)
}

/// Waits until a member votes.
fn until_it_votes(group: &Group, at: usize) {
    until("it votes", || {
        let members: Json = serde_json::from_str(&group.node(group.leader()).get("/admin/members")).unwrap();
        let found = members["members"].as_array().unwrap().iter().find(|member| member["id"] == json!(name(at)));
        if found.is_some_and(|member| member["role"] == json!("witness")) { Ok(()) } else { Err(members.to_string()) }
    });
}

#[test]
fn a_witness_is_added_to_a_group_that_has_rows() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)");
    fill(&group, 0, 0..20);
    // It reads the log from the first entry on, long before it finds out what it is.
    let witness = group.join_as("witness");
    until_it_votes(&group, witness);
    group.sql(0, "INSERT INTO t VALUES (100, 'after')");
    group.kill(witness);
    group.restart(witness);
    group.until_ready(witness);
    assert_eq!((rows(&group, witness), group.metric(witness, "chronos_storage_memtable_bytes ")), (0, 0.0));
    // Of four voters three must be there.
    let gone = (group.leader() + 1) % 3;
    group.kill(gone);
    let left = (gone + 1) % 3;
    until("a write with its vote", || match group.node(left).post_sql(r#"{"sql": "DELETE FROM t WHERE id = 0"}"#) {
        (200, _) => Ok(()),
        (_, answer) => Err(answer.to_string()),
    });
    group.restart(gone);
    group.until_ready(gone);
    group.agree();
}

#[test]
fn a_witness_that_joins_late_is_sent_a_snapshot_without_rows() {
    let mut group = Group::start_with(&SMALL);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)");
    let leader = group.leader();
    fill(&group, leader, 0..150);
    until("the log begins later", || {
        let first = first(&group, leader);
        if first > 10 { Ok(()) } else { Err(format!("from {first} on")) }
    });
    let witness = group.join_as("witness");
    until_it_votes(&group, witness);
    assert!(first(&group, witness) > 10, "the entries are gone, so it was brought a snapshot");
    assert!(rows(&group, witness) == 0 && block_bytes(&group, witness) < 64 << 10);
    for at in 0..3 {
        let left: Vec<_> = std::fs::read_dir(group.directory(at).join("snapshots")).into_iter().flatten().collect();
        assert!(left.is_empty(), "what was written for the witness is gone: {left:?}");
    }
}

#[test]
fn a_disk_that_was_a_witness_is_nothing_else_afterwards() {
    let mut group = Group::start_with_witness(&[]);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let (leader, _) = full(&group);
    until("it is removed", || match admin(&group, leader, &["remove-node", &name(WITNESS)]) {
        (true, _) => Ok(()),
        (false, said) => Err(said),
    });
    let again = format!("{}={}", name(WITNESS), group.address(WITNESS));
    let (added, said) = admin(&group, leader, &["add-node", &again]);
    assert!(added, "{said}");
    group.kill(WITNESS);
    group.restart(WITNESS);
    group.until_readiness(WITNESS, "it needs a new disk");
    let (_, answer) = group.node(WITNESS).http("GET", "/health", &[], b"");
    assert!(body(&answer).contains("was removed from its group"), "{answer}");
    let (status, answer) = group.node(WITNESS).post_sql(r#"{"sql": "SELECT COUNT(*) FROM t", "consistency": "stale"}"#);
    assert_eq!(status, 503, "{answer}");
    // With a new one it becomes what it was added as.
    group.kill(WITNESS);
    std::fs::remove_dir_all(group.directory(WITNESS)).unwrap();
    let peers = format!("{}={},{}={}", name(0), group.address(0), name(1), group.address(1));
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(["node", "--join", "--id", &name(WITNESS), "--address", &group.address(WITNESS), "--peers", &peers]);
    command.arg("--data-dir").arg(group.path()).env("RUST_LOG", "warn").env("CHRONOS_HTTP__ADDRESS", "127.0.0.1:0");
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    group.nodes[WITNESS] = Some(crate::process::Node::spawn_as(command, group.path(), &name(WITNESS)));
    group.until_readiness(WITNESS, "200");
    assert_eq!(group.number(WITNESS, "SELECT COUNT(*) FROM t"), 0);
}
