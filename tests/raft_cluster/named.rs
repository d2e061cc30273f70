//! Named requests in a group: each takes effect once, by whatever node and door it is repeated, whoever dies meanwhile.

use crate::group::Group;
use crate::patience::until;
use crate::process::wire::{BatchRequest, BatchResponse, SqlRequest, SqlResponse};
use crate::process::{Client, wait};
use crate::writers::post_named;
use chronos::clock::{Clock, SystemClock};
use serde_json::{Value as Json, json};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tonic::{Code, Request, Status};

/// A name as metadata has it.
type Name = Vec<(&'static str, String)>;

fn session(sequence: u64) -> Name {
    vec![("x-chronos-client-id", "edge1".to_owned()), ("x-chronos-sequence", sequence.to_string())]
}

/// A `UUIDv7` of this moment.
fn bare(number: u64) -> Name {
    let id = u128::from(SystemClock.wall().0) << 80 | 7 << 76 | 2 << 62 | u128::from(number);
    vec![("x-chronos-request-id", format!("{id:032x}"))]
}

fn named<T>(message: T, name: &Name) -> Request<T> {
    let mut request = Request::new(message);
    for (key, value) in name {
        request.metadata_mut().insert(*key, value.parse().unwrap());
    }
    request
}

fn one(group: &Group, at: usize, sql: &str, name: &Name) -> Result<SqlResponse, Status> {
    let request = named(SqlRequest { sql: sql.to_owned() }, name);
    let address = format!("http://{}", group.node(at).grpc);
    wait(async { Ok(Client::connect(address).await.unwrap().execute_sql(request).await?.into_inner()) })
}

fn batch(group: &Group, at: usize, sql: &[&str], name: &Name) -> BatchResponse {
    let sql = sql.iter().map(|sql| (*sql).to_owned()).collect();
    let request = named(BatchRequest { sql }, name);
    let address = format!("http://{}", group.node(at).grpc);
    wait(async { Client::connect(address).await.unwrap().execute_batch(request).await.unwrap().into_inner() })
}

#[test]
fn a_name_is_executed_once_whatever_nodes_are_asked_by_grpc() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, n INT)");
    group.sql(0, "INSERT INTO t VALUES (1, 0)");
    let update = "UPDATE t SET n = n + 1 WHERE id = 1";
    let names = [session(1), bare(1)];
    let both = ["UPDATE t SET n = n + 10 WHERE id = 1", "INSERT INTO t VALUES (2, 0), (3, 0)"];
    let whole = session(2);
    let (leader, mut asked) = (group.leader(), vec![0, 1, 2]);
    // A follower first.
    asked.rotate_left(leader + 1);
    for killed in [None, Some(leader)] {
        if let Some(killed) = killed {
            group.kill(killed);
            asked.retain(|at| *at != killed);
        }
        for &at in &asked {
            for name in &names {
                let done = one(&group, at, update, name).unwrap();
                assert_eq!((done.success, done.affected), (true, 1), "{done:?}");
            }
            let done = batch(&group, at, &both, &whole);
            assert_eq!(done.responses.iter().map(|one| one.affected).collect::<Vec<_>>(), [1, 2], "{done:?}");
        }
        assert_eq!(group.number(asked[0], "SELECT n FROM t WHERE id = 1"), 12);
    }
    for name in &names {
        let other = one(&group, asked[0], "UPDATE t SET n = 0", name);
        assert!(!other.as_ref().is_ok_and(|done| done.success), "another statement has that name: {other:?}");
    }
    let half = vec![("x-chronos-client-id", "edge1".to_owned())];
    assert_eq!(one(&group, asked[0], update, &half).unwrap_err().code(), Code::InvalidArgument);
    group.restart(leader);
    group.until_ready(leader);
    assert_eq!(one(&group, leader, update, &names[0]).unwrap().affected, 1);
    assert_eq!(group.number(leader, "SELECT n FROM t WHERE id = 1"), 12);
    group.agree();
}

/// The answer to a batch of a session that writes and reads; none where there is none.
fn counted(node: SocketAddr, client: usize, sequence: u64) -> Option<(u16, Json)> {
    let (write, read) = (format!("UPDATE t SET n = n + 1 WHERE id = {client}"), format!("SELECT {client} FROM t"));
    let content = json!([write, read]).to_string();
    post_named(node, &format!("batches{client}"), sequence, &content)
}

/// True where the answer says that the batch took effect, now or before.
fn is_done(answer: Option<&(u16, Json)>) -> bool {
    match answer {
        Some((200, _)) => true,
        Some((400, told)) => told["sqlstate"] == "RQ003",
        Some(_) | None => false,
    }
}

#[test]
fn a_named_batch_that_reads_is_done_once_through_kills_of_the_leader() {
    const CLIENTS: usize = 4;
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, n INT)");
    (0..CLIENTS).for_each(|client| drop(group.sql(0, &format!("INSERT INTO t VALUES ({client}, 0)"))));
    let nodes = |group: &Group| group.nodes.iter().flatten().map(|node| node.http).collect::<Vec<_>>();
    let (known, ends, done) = (Mutex::new(nodes(&group)), AtomicBool::new(false), Mutex::new(0_u64));
    let written: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let session = |client: usize| {
            let (known, ends, done) = (&known, &ends, &done);
            move || {
                let (mut sequence, mut applied, mut at) = (0_u64, 0_u64, client);
                while !ends.load(Ordering::SeqCst) {
                    sequence += 1;
                    let answer = until("the batch is done", || {
                        let nodes = known.lock().unwrap().clone();
                        let answer = counted(nodes[at % nodes.len()], client, sequence);
                        if is_done(answer.as_ref()) {
                            return Ok(answer);
                        }
                        at += 1;
                        Err(format!("{answer:?}"))
                    });
                    applied += u64::from(answer.is_some_and(|(status, _)| status != 200));
                    *done.lock().unwrap() += 1;
                }
                (sequence, applied)
            }
        };
        let sessions: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(session(client))).collect();
        for _ in 0..3 {
            let go_on = |group: &Group| {
                *known.lock().unwrap() = nodes(group);
                let before = *done.lock().unwrap();
                until("batches go on", || match *done.lock().unwrap() {
                    now if now > before + 20 => Ok(()),
                    now => Err(format!("{now} after {before}")),
                });
            };
            go_on(&group);
            let leader = group.leader();
            group.kill(leader);
            go_on(&group);
            group.restart(leader);
            group.until_ready(leader);
        }
        ends.store(true, Ordering::SeqCst);
        sessions.into_iter().map(|session| session.join().unwrap()).collect()
    });
    for (client, (sequence, _)) in written.iter().enumerate() {
        let n = group.number(0, &format!("SELECT n FROM t WHERE id = {client}"));
        assert_eq!(n as u64, *sequence, "{client}: each once");
        let told: Vec<_> = (0..3).map(|at| counted(group.node(at).http, client, *sequence).unwrap()).collect();
        assert!(told[0].0 == 400 && told[0].1["sqlstate"] == "RQ003", "{told:?}");
        assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    }
    group.agree();
    println!("(batches, of which applied before their answer came) of each session: {written:?}");
}
