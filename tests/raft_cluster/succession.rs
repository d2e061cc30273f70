//! Writes that were handed to a leader that stands still.

use crate::group::Group;
use crate::patience::{Patience, pause, until};
use crate::process::{Node, body};
use chronos::clock::{Clock, SystemClock};
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use std::io::{Read, Write};
use std::time::Duration;

/// A write under the client's own name for it.
fn named(node: &Node, sequence: u64, sql: &str) -> (u16, Json) {
    let sequence = format!("x-chronos-sequence: {sequence}");
    let headers = ["x-chronos-client-id: tester", sequence.as_str()];
    let (status, answer) = node.http("POST", "/sql", &headers, json!({ "sql": sql }).to_string().as_bytes());
    (status, serde_json::from_str(body(&answer)).unwrap())
}

#[test]
fn a_named_write_moves_on_from_a_leader_that_stands_still() {
    let group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, n INT)");
    group.sql(0, "INSERT INTO t VALUES (1, 0)");
    for round in 1..=2 {
        let old = group.leader();
        let other = (old + 1) % 3;
        group.node(old).signal(Signal::STOP);
        // It has a leader as far as it knows, which takes the write and says nothing.
        let (status, answer) = named(group.node(other), round, "UPDATE t SET n = n + 1 WHERE id = 1");
        assert_eq!((status, &answer["affected"]), (200, &json!(1)), "at {other} with {old} stopped: {answer}");
        group.node(old).signal(Signal::CONT);
        group.node(old).until_ready();
        // It takes itself for the leader until it is told: it may say that nothing was begun, or that it does not know.
        let patience = Patience::new();
        loop {
            let (status, again) = named(group.node(old), round, "UPDATE t SET n = n + 1 WHERE id = 1");
            let says_nothing = status == 503 || again["sqlstate"] == json!("08007");
            if !says_nothing {
                assert_eq!((status, &again["affected"]), (200, &json!(1)), "{again}");
                break;
            }
            patience.spend(|| again.to_string());
        }
        assert_eq!(group.number(other, "SELECT n FROM t WHERE id = 1"), round as i64, "once, wherever it was asked");
    }
    // Without a name it is not sent twice: what became of it is in doubt, and that is said.
    let old = group.leader();
    let other = (old + 1) % 3;
    group.node(old).signal(Signal::STOP);
    let (status, answer) = group.node(other).post_sql(r#"{"sql": "UPDATE t SET n = n + 1 WHERE id = 1"}"#);
    assert!(status == 200 || (status == 500 && answer["sqlstate"] == json!("08007")), "{status} {answer}");
    group.node(old).signal(Signal::CONT);
}

#[test]
fn what_was_let_in_is_answered_while_the_node_stops() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let stops = (group.leader() + 1) % 3;
    let sent = r#"{"sql": "SELECT COUNT(*) FROM t"}"#;
    let mut stream = std::net::TcpStream::connect(group.node(stops).http).unwrap();
    let head = format!("POST /sql HTTP/1.1\r\nhost: node\r\ncontent-length: {}\r\n\r\n", sent.len());
    // All but the last letter; and the node has taken up the request.
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&sent.as_bytes()[..sent.len() - 1]).unwrap();
    group.sql(stops, "SELECT 1");
    let (grpc, node) = (group.node(stops).grpc, group.nodes[stops].take().unwrap());
    node.signal(Signal::TERM);
    until("its door is closed", || match std::net::TcpStream::connect(grpc) {
        Ok(_) => Err("it is open".to_owned()),
        Err(_) => Ok(()),
    });
    // It asks the leader how fresh the answer must be.
    stream.write_all(&sent.as_bytes()[sent.len() - 1..]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("[[0]]"), "{answer}");
    let (status, took) = node.terminate_timed();
    assert!(status.success() && took < Duration::from_secs(5), "{took:?}");
}

/// The term as a node knows it.
fn term(node: &Node) -> u64 {
    serde_json::from_str::<Json>(&node.get("/health")).unwrap()["term"].as_u64().unwrap()
}

#[test]
fn a_group_waits_for_its_leader_as_long_as_is_set() {
    let group = Group::start_with(&[("CHRONOS_RAFT__ELECTION_TIMEOUT", "10s"), ("CHRONOS_RAFT__HEARTBEAT", "50ms")]);
    let (leader, before) = (group.leader(), term(group.node(group.leader())));
    group.node(leader).signal(Signal::STOP);
    // By then another one would lead by default.
    let until = SystemClock.monotonic() + Duration::from_secs(3);
    while SystemClock.monotonic() < until {
        pause();
    }
    group.node(leader).signal(Signal::CONT);
    group.sql(leader, "CREATE TABLE t (id INT PRIMARY KEY)");
    assert_eq!((group.leader(), term(group.node(leader))), (leader, before));
}

#[test]
fn what_a_lost_leader_may_have_begun_stays_in_doubt() {
    let group = Group::start_with(&[("CHRONOS_LIMITS__STATEMENT_TIMEOUT", "2s")]);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, n INT)");
    let leader = group.leader();
    let (other, third) = ((leader + 1) % 3, (leader + 2) % 3);
    // Nobody succeeds it, so nobody knows.
    group.node(leader).signal(Signal::STOP);
    group.node(third).signal(Signal::STOP);
    let (status, answer) = named(group.node(other), 1, "INSERT INTO t VALUES (1, 1)");
    assert_eq!((status, &answer["sqlstate"]), (500, &json!("08007")), "{answer}");
    group.node(third).signal(Signal::CONT);
    group.node(leader).signal(Signal::CONT);
    group.node(other).until_ready();
    // The same name tells it.
    let (status, answer) = named(group.node(other), 1, "INSERT INTO t VALUES (1, 1)");
    assert_eq!((status, &answer["affected"]), (200, &json!(1)), "{answer}");
    assert_eq!(group.number(other, "SELECT COUNT(*) FROM t"), 1);
}

#[test]
fn a_client_that_knows_several_nodes_needs_none_of_them() {
    let mut group = Group::start();
    let all = (0..3).map(|at| group.node(at).grpc.to_string()).collect::<Vec<String>>().join(",");
    let client = |sql: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chronos"));
        let output = command.args(["client", "--leader", &all, "-e", sql]).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{sql}: {told}");
        told
    };
    client("CREATE TABLE t (id INT PRIMARY KEY)");
    for gone in 0..3 {
        group.kill(gone);
        client(&format!("INSERT INTO t VALUES ({gone})"));
        assert!(client("SELECT COUNT(*) AS n FROM t").contains(&format!(" {}\n", gone + 1)));
        group.restart(gone);
        group.node(gone).until_ready();
    }
}
