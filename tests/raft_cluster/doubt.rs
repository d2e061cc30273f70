//! Clients whose leader dies under their writes: named ones learn what became of each.

use crate::group::{Group, name};
use crate::patience::{pause, until};
use crate::writers::post_named;
use serde_json::{Value as Json, json};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Kills of the leader in each test.
const KILLS: usize = 3;

fn kill_leaders(group: &mut Group, mut goes_on: impl FnMut(&Group)) {
    for _ in 0..KILLS {
        goes_on(group);
        let leader = group.leader();
        group.kill(leader);
        goes_on(group);
        group.restart(leader);
        group.until_ready(leader);
    }
}

/// `chronos client` on all nodes, which reads statements from a pipe.
fn client(group: &Group) -> Child {
    let nodes: Vec<String> = (0..3).map(|at| group.address(at)).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(["client", "--leader", &nodes.join(",")]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn the_client_is_never_in_doubt_where_it_knows_several_nodes() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, n INT)");
    group.sql(0, "INSERT INTO t VALUES (0, 0)");
    let mut client = client(&group);
    let mut pipe = client.stdin.take().unwrap();
    let ends = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0_i64;
            while !ends.load(Ordering::SeqCst) {
                // Once too often would be seen.
                if writeln!(pipe, "UPDATE t SET n = n + 1 WHERE id = 0;").and_then(|()| pipe.flush()).is_err() {
                    break;
                }
                written += 1;
            }
            drop(pipe);
            written
        });
        kill_leaders(&mut group, |group| {
            let count = || {
                let node = group.nodes.iter().flatten().next().unwrap();
                let (status, answer) = node.post_sql(r#"{"sql": "SELECT n FROM t"}"#);
                (status == 200).then(|| answer["rows"][0][0].as_i64().unwrap())
            };
            let before = until("there is a leader", || count().ok_or_else(|| "none".to_owned()));
            until("writes go on", || match count() {
                Some(now) if now > before + 20 => Ok(()),
                now => Err(format!("{now:?} after {before}")),
            });
        });
        ends.store(true, Ordering::SeqCst);
        writer.join().unwrap()
    });
    let output = client.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.is_empty(), "{told}");
    assert_eq!(group.number(0, "SELECT n FROM t"), written, "each once");
    group.agree();
    println!("{written} writes of one client through {KILLS} kills of the leader, none in doubt");
}

/// The answer to a write by a session; none where there is none.
fn write(node: SocketAddr, client: &str, sequence: u64) -> Option<(u16, Json)> {
    let content = json!({ "sql": format!("UPDATE t SET n = n + 1 WHERE id = {}", client.len()) }).to_string();
    post_named(node, client, sequence, &content)
}

#[test]
fn a_session_that_repeats_its_sequence_has_each_write_once() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, n INT)");
    let clients = ["a", "bb", "ccc", "dddd"];
    clients.iter().for_each(|client| drop(group.sql(0, &format!("INSERT INTO t VALUES ({}, 0)", client.len()))));
    let nodes = |group: &Group| group.nodes.iter().flatten().map(|node| node.http).collect::<Vec<_>>();
    let (known, ends) = (Mutex::new(nodes(&group)), AtomicBool::new(false));
    let acknowledged: Mutex<i64> = Mutex::new(0);
    let counts: Vec<(i64, u64)> = std::thread::scope(|scope| {
        let session = |client: &'static str| {
            let (known, ends, acknowledged) = (&known, &ends, &acknowledged);
            move || {
                let (mut sequence, mut repeated, mut at) = (0_u64, 0_u64, client.len());
                while !ends.load(Ordering::SeqCst) {
                    sequence += 1;
                    until("the write has an answer", || {
                        let nodes = known.lock().unwrap().clone();
                        match write(nodes[at % nodes.len()], client, sequence) {
                            Some((200, _)) => Ok(()),
                            other => {
                                repeated += 1;
                                at += 1;
                                pause();
                                Err(format!("{other:?}"))
                            }
                        }
                    });
                    *acknowledged.lock().unwrap() += 1;
                }
                (sequence as i64, repeated)
            }
        };
        let sessions: Vec<_> = clients.iter().map(|client| scope.spawn(session(client))).collect();
        kill_leaders(&mut group, |group| {
            *known.lock().unwrap() = nodes(group);
            let before = *acknowledged.lock().unwrap();
            until("writes go on", || match *acknowledged.lock().unwrap() {
                now if now > before + 20 => Ok(()),
                now => Err(format!("{now} after {before}")),
            });
        });
        ends.store(true, Ordering::SeqCst);
        sessions.into_iter().map(|session| session.join().unwrap()).collect()
    });
    for (client, (written, _)) in clients.iter().zip(&counts) {
        let n = group.number(0, &format!("SELECT n FROM t WHERE id = {}", client.len()));
        assert_eq!(n, *written, "{client}: each once");
    }
    group.agree();
    println!("(written, repeated) of {} at {}: {counts:?}", clients.join(", "), name(0));
}
