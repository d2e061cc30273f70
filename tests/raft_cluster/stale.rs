//! A leader that was succeeded while it stood still: nothing that it answers afterwards rests on what it had.

use crate::group::Group;
use crate::patience::Patience;
use crate::process::{body, unchunked};
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How often a leader is stopped. In each round a dozen requests wait for it when it goes on.
const ROUNDS: i64 = 3;

/// Sends a request and does not wait: a process that stands still has its sockets filled by the kernel.
fn send(node: SocketAddr, content: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let head = format!(
        "POST /sql HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{content}",
        content.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn receive(mut stream: TcpStream) -> (u16, Json) {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = unchunked(&answer);
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body(&answer)).unwrap())
}

/// Has a statement take effect at a node, however often it must be said.
fn insist(group: &Group, at: usize, sql: &str) {
    let patience = Patience::new();
    loop {
        let (status, answer) = group.node(at).post_sql(&json!({ "sql": sql }).to_string());
        // What was in doubt may have taken effect.
        if status == 200 || answer["sqlstate"] == json!("23505") {
            return;
        }
        patience.spend(|| format!("{sql}: {status} {answer}"));
    }
}

/// What is sent to the old leader, and whether an answer of 200 or 400 is one that the newest state gives.
fn requests(round: i64) -> Vec<(String, Box<dyn Fn(u16, &Json) -> bool>)> {
    let one = |sql: &str, consistency: &str| json!({ "sql": sql, "consistency": consistency }).to_string();
    let new = json!([[round]]);
    let mut all: Vec<(String, Box<dyn Fn(u16, &Json) -> bool>)> = Vec::new();
    for consistency in ["linearizable", "lease"] {
        for sql in [
            "/* app */ SELECT v FROM t WHERE id = 1",
            "-- app\n SELECT v FROM t WHERE id = 1",
            "SELECT v FROM t WHERE id = 1",
        ] {
            let new = new.clone();
            all.push((one(sql, consistency), Box::new(move |status, answer| status == 200 && answer["rows"] == new)));
        }
    }
    let affects: [String; 3] = [
        format!("UPDATE t SET v = v WHERE v = {round}"),
        format!("DELETE FROM t WHERE id = {}", 1000 + round),
        // An error of the old view: the row was there, and is not any more.
        format!("INSERT INTO t VALUES ({}, 0)", 2000 + round),
    ];
    for sql in affects {
        all.push((
            one(&sql, "linearizable"),
            Box::new(|status, answer| status == 200 && answer["affected"] == json!(1)),
        ));
    }
    let unknown = format!("DELETE FROM made_{round}");
    all.push((one(&unknown, "linearizable"), Box::new(|status, _| status == 200)));
    let batch = json!(["SELECT v FROM t WHERE id = 1", "DELETE FROM t WHERE id = -1"]).to_string();
    all.push((batch, Box::new(move |status, answer| status == 200 && answer.to_string().contains(&new.to_string()))));
    all
}

#[test]
fn a_leader_that_was_succeeded_answers_nothing_from_what_it_had() {
    let group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    group.sql(0, "INSERT INTO t VALUES (1, 0)");
    for round in 1..=ROUNDS {
        group.sql(0, &format!("INSERT INTO t VALUES ({}, 0)", 2000 + round));
        let old = group.leader();
        let other = (old + 1) % 3;
        group.node(old).signal(Signal::STOP);
        for sql in [
            format!("UPDATE t SET v = {round} WHERE id = 1"),
            format!("INSERT INTO t VALUES ({}, 0)", 1000 + round),
            format!("DELETE FROM t WHERE id = {}", 2000 + round),
            format!("CREATE TABLE IF NOT EXISTS made_{round} (id INT)"),
        ] {
            insist(&group, other, &sql);
        }
        let requests = requests(round);
        let sent: Vec<TcpStream> = requests.iter().map(|(request, _)| send(group.node(old).http, request)).collect();
        group.node(old).signal(Signal::CONT);
        for ((request, is_new), stream) in requests.iter().zip(sent) {
            let (status, answer) = receive(stream);
            // It may refuse, and need not know what became of what it has proposed.
            let says_nothing = status == 503 || answer["sqlstate"] == json!("08007");
            assert!(says_nothing || is_new(status, &answer), "round {round}: {request} got {status} {answer}");
        }
        group.node(old).until_ready();
    }
}
