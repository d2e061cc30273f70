//! What a node that does not lead answers: the same as the leader, by every door, and counted once.

use crate::group::Group;
use crate::patience::{Patience, until};
use crate::process::wire::{BatchRequest, BatchResponse, SqlRequest};
use crate::process::{body, wait};
use serde_json::{Value as Json, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use tonic::{Code, Request};

/// The rows of an answer, as text.
fn answer(group: &Group, at: usize, headers: &[&str], sent: &str) -> (u16, String) {
    let (status, whole) = group.node(at).http("POST", "/sql", headers, sent.as_bytes());
    (status, body(&whole).to_owned())
}

#[test]
fn what_one_node_refuses_every_node_refuses_in_the_same_words() {
    let group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)");
    // Longer than a statement may be, and shorter than a body.
    let half = "x".repeat(9 << 20);
    let batch = json!([format!("INSERT INTO t VALUES (1, '{half}')"), format!("INSERT INTO t VALUES (2, '{half}')"),]);
    let cases = [
        (json!({ "sql": "INSERT INTO t VALUES ($1, 'a')", "params": [1] }).to_string(), "parameters ($1) are not"),
        (batch.to_string(), "limits.statement_bytes_max is 16777216"),
        (json!({ "sql": "INSERT INTO nowhere VALUES (1)" }).to_string(), "42P01"),
    ];
    for (sent, says) in cases {
        let told: Vec<(u16, String)> = (0..3).map(|at| answer(&group, at, &[], &sent)).collect();
        assert!(told[0].0 == 400 && told[0].1.contains(says), "{:?}", told[0]);
        assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    }
    assert_eq!(group.number(0, "SELECT COUNT(*) FROM t"), 0);
}

#[test]
fn a_batch_takes_effect_with_all_its_rows_or_not_at_all() {
    let group = Group::start_with(&[
        ("CHRONOS_LIMITS__RESPONSE_BYTES_MAX", "64 KiB"),
        ("CHRONOS_LIMITS__STATEMENT_BYTES_MAX", "128 KiB"),
        ("CHRONOS_LIMITS__IN_FLIGHT_BYTES_MAX", "8 MiB"),
    ]);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, b BOOL)");
    for part in 0..5 {
        let rows: Vec<String> = (0..6_000).map(|id| format!("({}, true)", 6_000 * part + id)).collect();
        group.sql(0, &format!("INSERT INTO t VALUES {}", rows.join(", ")));
    }
    let grpc = |at: usize, batch: &[&str]| {
        let sql = batch.iter().map(|sql| (*sql).to_owned()).collect();
        wait(async { group.node(at).client().await.execute_batch(BatchRequest { sql }).await.unwrap().into_inner() })
    };
    let third = "SELECT id FROM t ORDER BY id LIMIT 3000";
    let insert = "INSERT INTO t VALUES (30000, true)";
    for batch in [
        // 60 KB as they are held, five times as much on the wire.
        &[insert, "SELECT b, b FROM t"][..],
        // One value for all of them.
        &[insert, "SELECT 7 FROM t"],
        // Each of them fits.
        &[insert, third, third, third],
    ] {
        let told: Vec<(u16, String)> = (0..3).map(|at| answer(&group, at, &[], &json!(batch).to_string())).collect();
        assert!(told[0].0 == 400 && told[0].1.contains("the batch answers more than 65536 bytes"), "{told:?}");
        assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
        let told: Vec<BatchResponse> = (0..3).map(|at| grpc(at, batch)).collect();
        assert_eq!((told[0].responses[0].sqlstate.as_str(), told[0].failed as usize), ("54000", batch.len() - 1));
        assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    }
    assert_eq!(group.number(0, "SELECT COUNT(*) FROM t"), 30_000);
    // In pieces between the nodes, and to the client.
    let (undo, fits) = ("DELETE FROM t WHERE id = 30000", [insert, third, third]);
    let mut told = Vec::new();
    for at in 0..3 {
        told.push(answer(&group, at, &[], &json!(fits).to_string()));
        group.sql(at, undo);
    }
    assert!(told[0].0 == 200 && told[0].1.contains("[2999]"), "{told:?}");
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    for at in 0..3 {
        let told = grpc(at, &fits);
        assert_eq!(told.responses.iter().map(|one| one.rows.len()).collect::<Vec<_>>(), [0, 3000, 3000]);
        group.sql(at, undo);
    }
}

#[test]
fn a_statement_is_counted_where_it_was_asked_and_nowhere_else() {
    let group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let (leader, follower) = (group.leader(), (group.leader() + 1) % 3);
    let writes = |at: usize| -> u64 {
        let text = group.node(at).get("/metrics");
        let sample = text.lines().find_map(|line| line.strip_prefix("chronos_sql_requests_total{kind=\"write\"} "));
        sample.unwrap().parse().unwrap()
    };
    let before = (writes(leader), writes(follower));
    group.sql(follower, "INSERT INTO t VALUES (1)");
    assert_eq!((writes(leader), writes(follower)), (before.0, before.1 + 1));
    let (status, told) = answer(&group, follower, &[], r#"["INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (3)"]"#);
    assert_eq!(status, 200, "{told}");
    assert_eq!((writes(leader), writes(follower)), (before.0, before.1 + 2));
    let (status, _) = answer(&group, leader, &[], r#"["INSERT INTO t VALUES (4)"]"#);
    assert_eq!((status, writes(leader), writes(follower)), (200, before.0 + 1, before.1 + 2));
}

#[test]
fn every_door_of_a_follower_answers() {
    let tokens = [
        ("CHRONOS_AUTH_TOKEN_ADMIN", "admin-s3cret"),
        ("CHRONOS_AUTH_TOKEN_READONLY", "reader-s3cret"),
        ("CHRONOS_AUTH__CLUSTER_TOKEN", "cluster-s3cret"),
    ];
    let group = Group::start_with(&tokens);
    let leader = group.leader();
    let follower = (leader + 1) % 3;
    fn signed<T>(token: &str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    }
    let one = |token: &str, sql: &str| signed(token, SqlRequest { sql: sql.to_owned() });
    let batch = |token: &str, sql: &[&str]| {
        signed(token, BatchRequest { sql: sql.iter().map(|sql| (*sql).to_owned()).collect() })
    };
    wait(async {
        let address = format!("http://{}", group.node(follower).grpc);
        let mut client = crate::process::Client::connect(address).await.unwrap();
        let made = client.execute_sql(one("admin-s3cret", "CREATE TABLE t (id INT PRIMARY KEY)")).await.unwrap();
        assert!(made.get_ref().success, "{made:?}");
        let both = ["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2), (3)"];
        let done = client.execute_batch(batch("admin-s3cret", &both)).await.unwrap().into_inner();
        assert_eq!(done.responses.iter().map(|one| one.affected).collect::<Vec<_>>(), [1, 2], "{done:?}");
        let half = ["INSERT INTO t VALUES (4)", "INSERT INTO t VALUES (1)"];
        let failed = client.execute_batch(batch("admin-s3cret", &half)).await.unwrap().into_inner();
        assert_eq!((failed.failed, failed.responses[0].sqlstate.as_str()), (1, "23505"), "{failed:?}");
        for (sql, expected) in [("SELECT id FROM t", 3), ("DESC t", 1), ("DESCRIBE t", 1)] {
            let mut rows = client.query_sql(one("reader-s3cret", sql)).await.unwrap().into_inner();
            let mut found = 0;
            while let Some(part) = rows.message().await.unwrap() {
                assert!(part.success, "{sql}: {part:?}");
                found += part.rows.len();
            }
            assert_eq!(found, expected, "{sql}");
        }
        // A write by the streaming call, too.
        let mut done = client.query_sql(one("admin-s3cret", "INSERT INTO t VALUES (4)")).await.unwrap().into_inner();
        assert_eq!(done.message().await.unwrap().unwrap().affected, 1);
        for (token, expected) in [("reader-s3cret", Code::PermissionDenied), ("guess", Code::Unauthenticated)] {
            let write = "DELETE FROM t";
            let streamed = match client.query_sql(one(token, write)).await {
                Ok(answer) => answer.into_inner().message().await.map(drop),
                Err(status) => Err(status),
            };
            let refused = [
                client.execute_sql(one(token, write)).await.unwrap_err(),
                client.execute_batch(batch(token, &[write])).await.unwrap_err(),
                streamed.unwrap_err(),
            ];
            assert!(refused.iter().all(|status| status.code() == expected), "{token}: {refused:?}");
        }
    });
    let headers = ["accept: text/csv", "authorization: Bearer admin-s3cret"];
    let csv = |sql: &str| answer(&group, follower, &headers, &json!({ "sql": sql }).to_string());
    assert_eq!(csv("SELECT id FROM t ORDER BY id"), (200, "id\r\n1\r\n2\r\n3\r\n4\r\n".to_owned()));
    assert_eq!(csv("DELETE FROM t WHERE id = 4"), (200, String::new()));
}

#[test]
fn how_fresh_a_read_must_be_may_stand_in_the_head() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    assert_eq!(group.number(0, "SELECT COUNT(*) FROM t"), 0);
    group.kill(1);
    group.kill(2);
    let read = r#"{"sql": "SELECT COUNT(*) FROM t"}"#;
    let stale = ["x-chronos-consistency: stale"];
    let (status, told) = answer(&group, 0, &stale, read);
    assert_eq!(status, 200, "{told}");
    // Whose first word says that it only looks, whatever that word is.
    let (status, told) = answer(&group, 0, &stale, r#"{"sql": "DESC t"}"#);
    assert_eq!(status, 200, "{told}");
    let (status, told) = answer(&group, 0, &stale, r#"["SELECT COUNT(*) FROM t"]"#);
    assert_eq!(status, 200, "{told}");
    assert_eq!(answer(&group, 0, &["x-chronos-consistency: fresh"], read).0, 400);
    assert_eq!(answer(&group, 0, &["x-chronos-max-staleness: \u{fc}"], read).0, 400);
    assert_eq!(answer(&group, 0, &stale, r#"{"sql": "SELECT 1", "consistency": "linearizable"}"#).0, 400);
    // What the body says, and what is said by nobody, needs the others.
    assert_eq!(answer(&group, 0, &[], read).0, 503);
}

/// Connections that are opened, greet, and stay; those that end are found out.
fn flood(address: std::net::SocketAddr, count: usize) -> Vec<TcpStream> {
    let open = || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").ok()?;
        stream.set_nonblocking(true).unwrap();
        Some(stream)
    };
    (0..count).filter_map(|_| open()).collect()
}

fn is_open(stream: &mut TcpStream) -> bool {
    let mut told = [0; 1024];
    loop {
        match stream.read(&mut told) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn a_flood_of_clients_keeps_no_member_out() {
    const CONNECTIONS: usize = 16;
    let mut group = Group::start_with(&[("CHRONOS_LIMITS__CONNECTIONS", "16")]);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let leader = group.leader();
    let follower = (leader + 1) % 3;
    group.kill(follower);
    let mut held = flood(group.node(leader).grpc, 200);
    // Those beyond the limit are let in for a moment, to say that they are nodes.
    let patience = Patience::new();
    loop {
        held.retain_mut(is_open);
        if held.len() <= CONNECTIONS {
            break;
        }
        patience.spend(|| format!("{} connections stay", held.len()));
    }
    assert!(held.len() >= CONNECTIONS - 4, "{} hold the door", held.len());
    group.restart(follower);
    group.until_ready(follower);
    group.sql(follower, "INSERT INTO t VALUES (1)");
    assert_eq!(group.number(follower, "SELECT COUNT(*) FROM t"), 1);
    // To clients the door is as full as it was.
    let address = format!("http://{}", group.node(leader).grpc);
    let refused = until("somebody is let in to be refused", || {
        let endpoint = tonic::transport::Endpoint::from_shared(address.clone()).unwrap();
        wait(async {
            // Places for nodes are given out for a moment, so there may be none at the first attempt.
            let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
            let mut client = crate::process::Client::new(channel);
            let asked = client.execute_sql(SqlRequest { sql: "SELECT 1".into() }).await;
            let refused = asked.expect_err("a client is let in beside those who fill the door");
            if std::error::Error::source(&refused).is_some() { Err(refused.to_string()) } else { Ok(refused) }
        })
    });
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("limits.connections"), "{refused}");
    held.retain_mut(is_open);
    assert!(held.len() >= CONNECTIONS - 4, "{} still hold the door", held.len());
    let open: Json = serde_json::from_str(&group.node(leader).get("/status")).unwrap();
    assert!(open["limits"]["limits.connections"]["now"].as_u64().unwrap() >= held.len() as u64, "{open}");
}
