//! A group of real processes: elections, failover, members that come and go.
//!
//! `CHRONOS_LEADER_KILLS=20 cargo test --test raft_cluster killed -- --nocapture` kills the leader that often under load.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod authority;
#[path = "../daemon/certificates.rs"]
mod certificates;
mod clean;
mod copied;
mod damage;
mod doubt;
mod forged;
mod forwarding;
mod freshness;
mod full_disk;
mod group;
mod isolation;
mod line;
mod named;
mod operators;
mod patience;
#[path = "../daemon/process.rs"]
#[expect(dead_code, reason = "the daemon's tests use all of it")]
mod process;
mod recover;
mod shipped;
#[path = "../domain/skipped.rs"]
mod skipped;
mod stale;
mod standing;
mod succession;
mod trust;
mod witness;
mod writers;

use chronos::clock::{Clock, SystemClock};
use group::{Group, name};
use patience::until;
use process::free_ports;
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use std::process::Stdio;
use std::time::Duration;
use writers::Writers;

#[test]
fn every_node_takes_reads_and_writes() {
    let group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)");
    for at in 0..3 {
        group.sql(at, &format!("INSERT INTO t VALUES ({at}, 'from {at}')"));
        // Whoever asks after the answer finds the row, wherever it asks.
        for other in 0..3 {
            assert_eq!(group.number(other, "SELECT COUNT(*) FROM t"), at as i64 + 1);
        }
    }
    let (status, answer) =
        group.node(0).post_sql(r#"["INSERT INTO t VALUES (7, 'x')", "INSERT INTO t VALUES (0, 'y')"]"#);
    assert_eq!((status, &answer["sqlstate"]), (400, &json!("23505")), "{answer}");
    for at in 0..3 {
        let (status, answer) = group.node(at).post_sql(r#"{"sql": "INSERT INTO nowhere VALUES (1)"}"#);
        assert_eq!((status, &answer["sqlstate"], &answer["position"]), (400, &json!("42P01"), &json!(13)), "{answer}");
        assert_eq!(group.number(at, "SELECT COUNT(*) FROM t"), 3, "a batch is all or nothing");
    }
    group.agree();
}

#[test]
fn killed_leaders_lose_nothing_that_was_acknowledged() {
    kill_leaders(Group::start());
}

#[test]
fn killed_leaders_lose_nothing_where_only_two_have_rows() {
    kill_leaders(Group::start_with_witness(&[]));
}

/// Kills whoever leads, again and again, while clients write.
fn kill_leaders(mut group: Group) {
    let kills = std::env::var("CHRONOS_LEADER_KILLS").map_or(2, |kills| kills.parse().unwrap());
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, writer INT)");
    let writers = Writers::start(&group, 6);
    let mut gaps = Vec::new();
    for _ in 0..kills {
        let leader = group.leader();
        let (before, begin) = (writers.acknowledged(), SystemClock.monotonic());
        group.kill(leader);
        // A write that was acknowledged before the kill may still be counted after it: one more is wanted than may be on
        // its way.
        writers.wait_for(before + 7);
        gaps.push(SystemClock.monotonic().saturating_sub(begin));
        group.restart(leader);
        group.until_ready(leader);
        writers.follow(&group);
    }
    let written = writers.stop();
    println!(
        "{} writes acknowledged, {} in doubt; from kill to write {gaps:?}",
        written.acknowledged.len(),
        written.in_doubt.len()
    );
    let rows: Vec<i64> = group.sql(0, "SELECT id FROM t ORDER BY id")["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row[0].as_i64().unwrap())
        .collect();
    let lost: Vec<&i64> = written.acknowledged.iter().filter(|id| rows.binary_search(id).is_err()).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let invented: Vec<&i64> =
        rows.iter().filter(|id| !written.acknowledged.contains(id) && !written.in_doubt.contains(id)).collect();
    assert!(invented.is_empty(), "never acknowledged, and there: {invented:?}");
    group.agree();
}

#[test]
fn a_minority_takes_no_writes_and_says_so() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    // A stale read finds what this node has heard of.
    assert_eq!(group.number(0, "SELECT COUNT(*) FROM t"), 0);
    group.kill(1);
    group.kill(2);
    let (status, answer) = group.node(0).post_sql(r#"{"sql": "INSERT INTO t VALUES (1)"}"#);
    // Where it led until just now, the outcome of what it has proposed is unknown.
    assert!(status == 503 || (status == 500 && answer["sqlstate"] == json!("08007")), "{status} {answer}");
    let stale = group.node(0).post_sql(r#"{"sql": "SELECT COUNT(*) FROM t", "consistency": "stale"}"#);
    assert_eq!(stale.0, 200, "{}", stale.1);
    group.restart(1);
    group.until_ready(1);
    group.sql(1, "INSERT INTO t VALUES (2)");
    assert_eq!(group.number(0, "SELECT COUNT(*) FROM t WHERE id = 2"), 1);
}

#[test]
fn a_leader_that_stood_still_serves_no_old_reads() {
    let group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let old = group.leader();
    let other = (old + 1) % 3;
    group.node(old).signal(Signal::STOP);
    // The others elect a leader, which takes a write.
    until("somebody takes over", || match group.node(other).post_sql(r#"{"sql": "INSERT INTO t VALUES (1)"}"#) {
        (200, _) => Ok(()),
        // An attempt before was in doubt, and done.
        (400, answer) if answer["sqlstate"] == "23505" => Ok(()),
        (_, answer) => Err(answer.to_string()),
    });
    group.node(old).signal(Signal::CONT);
    for consistency in ["lease", "linearizable"] {
        let asked = json!({ "sql": "SELECT COUNT(*) FROM t", "consistency": consistency }).to_string();
        let (status, answer) = group.node(old).post_sql(&asked);
        assert!(status != 200 || answer["rows"] == json!([[1]]), "{consistency}: {answer}");
    }
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let stopped = (group.leader() + 1) % 3;
    group.kill(stopped);
    let log = group.path().join("stopped.log");
    let mut command = group.command(stopped, &[]);
    command.env("CHRONOS_LOG_FILE", &log).env("RUST_LOG", "info");
    group.nodes[stopped] = Some(process::Node::spawn_as(command, group.path(), &name(stopped)));
    group.until_ready(stopped);
    let transfer = json!({ "to": name(stopped) }).to_string();
    until("it leads", || match group.node(stopped).http("POST", "/admin/transfer", &[], transfer.as_bytes()) {
        (200, _) => Ok(()),
        (_, answer) => Err(answer),
    });
    assert_eq!(group.leader(), stopped);
    let (status, took) = group.nodes[stopped].take().unwrap().terminate_timed();
    assert!(status.success() && took < Duration::from_secs(5), "{took:?}");
    // The others have a leader without anybody having missed one, and their links are waited for by nobody.
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("leadership handed over") && said.contains("stopped"), "{said}");
    assert!(!said.contains("requests were still open"), "{said}");
    group.sql((stopped + 1) % 3, "INSERT INTO t VALUES (1)");
    group.restart(stopped);
    group.until_ready(stopped);
    assert_eq!(group.number(stopped, "SELECT COUNT(*) FROM t"), 1);
}

#[test]
fn members_come_and_go_while_the_group_serves() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)");
    group.sql(0, "INSERT INTO t VALUES (1, 'before')");
    let fourth = group.join();
    group.sql(fourth, "INSERT INTO t VALUES (2, 'from the fourth')");
    assert_eq!(group.number(fourth, "SELECT COUNT(*) FROM t"), 2);
    // The leader itself goes.
    let leader = group.leader();
    let remove = json!({ "remove": name(leader) }).to_string();
    let (status, answer) = group.node((leader + 1) % 3).http("POST", "/admin/members", &[], remove.as_bytes());
    assert_eq!(status, 200, "{answer}");
    group.kill(leader);
    group.sql((leader + 1) % 3, "INSERT INTO t VALUES (3, 'without it')");
    let members: Json = serde_json::from_str(&group.node(fourth).get("/admin/members")).unwrap();
    assert_eq!(members["members"].as_array().unwrap().len(), 3, "{members}");
    group.agree();
}

#[test]
fn a_member_with_a_new_disk_counts_only_once_it_was_added_again() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let (leader, wiped) = (group.leader(), (group.leader() + 1) % 3);
    group.kill(wiped);
    std::fs::remove_dir_all(group.directory(wiped)).unwrap();
    group.restart(wiped);
    group.until_readiness(wiped, "new disk: remove and re-add it");
    // The two others are a majority of three, and one of them alone is none: the wiped one does not count.
    group.sql(leader, "INSERT INTO t VALUES (1)");
    let third = (wiped + 1) % 3;
    let third = if third == leader { (third + 1) % 3 } else { third };
    group.kill(third);
    let (status, answer) = group.node(leader).post_sql(r#"{"sql": "INSERT INTO t VALUES (2)"}"#);
    assert_ne!(status, 200, "{answer}");
}

#[test]
fn empty_disks_do_not_found_the_group_again_beside_the_one_that_has_the_data() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    group.sql(0, "INSERT INTO t VALUES (1)");
    group.agree();
    (0..3).for_each(|at| group.kill(at));
    // Two mounts are missing, and the two nodes start on empty directories, before the third one is there.
    let shelf = group.path().join("shelf");
    std::fs::create_dir(&shelf).unwrap();
    for at in [1, 2] {
        std::fs::rename(group.directory(at), shelf.join(name(at))).unwrap();
    }
    [1, 2].into_iter().for_each(|at| group.restart(at));
    group.until_readiness(1, "waiting for node1");
    let write = r#"{"sql": "CREATE TABLE other (id INT PRIMARY KEY)"}"#;
    let (status, answer) = group.node(1).post_sql(write);
    assert_eq!(status, 503, "{answer}");
    group.restart(0);
    for at in [1, 2] {
        group.until_readiness(at, "new disk: remove and re-add it");
    }
    // They know it for good, whoever they hear of.
    group.kill(0);
    group.kill(1);
    [0, 1].into_iter().for_each(|at| group.restart(at));
    group.until_readiness(1, "new disk: remove and re-add it");
    for at in 0..3 {
        let (status, answer) = group.node(at).post_sql(write);
        assert_eq!(status, 503, "{answer}");
    }
    for at in [1, 2] {
        group.kill(at);
        std::fs::remove_dir_all(group.directory(at)).unwrap();
        std::fs::rename(shelf.join(name(at)), group.directory(at)).unwrap();
        group.restart(at);
    }
    (0..3).for_each(|at| group.until_ready(at));
    group.sql(2, "INSERT INTO t VALUES (2)");
    assert_eq!(group.number(1, "SELECT COUNT(*) FROM t"), 2);
    group.agree();
}

#[test]
fn a_follower_that_moves_is_found_again() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    // The others dial it, at the address that they know.
    group.kill(2);
    let address = group.moves(2);
    group.restart(2);
    group.until_ready(2);
    group.sql(2, "INSERT INTO t VALUES (1)");
    until("the others know where it is", || {
        let members = group.node(0).get("/admin/members");
        if members.contains(&address) { Ok(()) } else { Err(members) }
    });
    group.agree();
}

#[test]
fn peers_that_differ_from_the_group_are_warned_about() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    group.kill(2);
    let log = group.path().join("third.log");
    let mut command = group.command_with(2, &format!("{}={}", name(0), group.address(0)), &[]);
    command.env("CHRONOS_LOG_FILE", &log);
    group.nodes[2] = Some(process::Node::spawn_as(command, group.path(), &name(2)));
    group.until_ready(2);
    group.sql(2, "INSERT INTO t VALUES (1)");
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(said.matches("--peers differs from the members of the group").count(), 1, "{said}");
}

#[test]
fn groups_of_the_same_members_and_other_names_refuse_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports(3);
    let start = |at: usize, name: &str, more: &[&str]| {
        let (id, other) = (format!("node{}", at + 1), usize::from(at == 0));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chronos"));
        command.args(["node", "--id", &id, "--address", &format!("127.0.0.1:{}", ports[at])]).args(more);
        command.args(["--peers", &format!("node{}=127.0.0.1:{}", other + 1, ports[other])]);
        command.arg("--data-dir").arg(directory.path()).env("CHRONOS_CLUSTER__NAME", name);
        command.env("RUST_LOG", "warn").env("CHRONOS_HTTP__ADDRESS", "127.0.0.1:0");
        command.env("CHRONOS_LOG_FILE", directory.path().join(format!("{id}.log")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let run = |at: usize, name: &str| {
        process::Node::spawn_as(start(at, name, &[]), directory.path(), &format!("node{}", at + 1))
    };
    let first = run(0, "north");
    let second = run(1, "south");
    for id in ["node1", "node2"] {
        until("it names the difference", || {
            let log = std::fs::read_to_string(directory.path().join(format!("{id}.log"))).unwrap_or_default();
            let is_named = log.contains("is called \"north\"") && log.contains("is called \"south\"");
            if is_named { Ok(()) } else { Err(format!("{id}: {log}")) }
        });
    }
    let joining = start(2, "south", &["--join"]).output().unwrap();
    let told = String::from_utf8(joining.stderr).unwrap();
    assert!(!joining.status.success() && told.contains("is called \"north\""), "{told}");
    second.kill();
    std::fs::remove_dir_all(directory.path().join("node2")).unwrap();
    let second = run(1, "north");
    first.until_ready();
    second.until_ready();
    assert_eq!(second.post_sql(r#"{"sql": "CREATE TABLE t (id INT PRIMARY KEY)"}"#).0, 200);
}

#[test]
fn nodes_that_were_started_as_different_groups_refuse_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports(3);
    let start = |id: &str, at: usize, peers: String| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chronos"));
        command.args(["node", "--id", id, "--address", &format!("127.0.0.1:{}", ports[at]), "--peers", &peers]);
        command.arg("--data-dir").arg(directory.path());
        command.env("RUST_LOG", "warn").env("CHRONOS_HTTP__ADDRESS", "127.0.0.1:0");
        command.env("CHRONOS_LOG_FILE", directory.path().join(format!("{id}.log")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        process::Node::spawn_as(command, directory.path(), id)
    };
    let _first = start("node1", 0, format!("node2=127.0.0.1:{}", ports[1]));
    let _second = start("node2", 1, format!("node1=127.0.0.1:{},node3=127.0.0.1:{}", ports[0], ports[2]));
    for id in ["node1", "node2"] {
        until("it names the difference", || {
            let log = std::fs::read_to_string(directory.path().join(format!("{id}.log"))).unwrap_or_default();
            let is_named = log.contains("were not started as one group") && log.contains("node3=127.0.0.1");
            if is_named { Ok(()) } else { Err(format!("{id}: {log}")) }
        });
    }
}
