//! Hostile input on every port: a clear text or a closed connection, and a node that goes on serving.
//!
//! `cargo test --test daemon hostile -- --nocapture` prints each input with what was said to it.

use crate::process::wire::{SqlRequest, SqlResponse};
use crate::process::{Node, body, command, wait};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request};

/// Prints one line of the table, and checks what was said.
fn told(input: &str, said: &str, expected: &str) {
    println!("{input} | {said}");
    assert!(said.contains(expected), "{input}: {said}");
}

/// What is said to a body on `/sql`: the status and the text of the error.
fn post(node: &Node, headers: &[&str], content: &[u8]) -> String {
    let (status, answer) = node.http("POST", "/sql", headers, content);
    let error = serde_json::from_str::<serde_json::Value>(body(&answer)).unwrap_or_else(|_| panic!("{answer}"));
    format!("{status} {}", error["error"].as_str().unwrap_or_else(|| panic!("{answer}")))
}

fn sql(node: &Node, sql: &str) -> String {
    post(node, &[], serde_json::json!({ "sql": sql }).to_string().as_bytes())
}

fn lives(node: &Node) {
    let (status, answer) = node.post_sql(r#"{"sql": "SELECT 1"}"#);
    assert_eq!(status, 200, "{answer}");
    let health: serde_json::Value = serde_json::from_str(&node.get("/health")).unwrap();
    assert_eq!(health["status"], serde_json::json!("ok"), "{health}");
    wait(async {
        let mut client = node.client().await;
        assert!(client.execute_sql(SqlRequest { sql: "SELECT 1".into() }).await.unwrap().into_inner().success);
    });
}

/// A hundred megabytes of zeros in gzip, made by hand: a literal, then copies of 258 bytes, 13 bits each.
fn bomb() -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    // The last block, with the fixed code.
    bits.extend([true, true, false]);
    // A literal zero is 00110000; a length of 258 is 11000101, its distance of one 00000.
    bits.extend("00110000".chars().map(|bit| bit == '1'));
    for _ in 0..(100 << 20) / 258 {
        bits.extend("1100010100000".chars().map(|bit| bit == '1'));
    }
    bits.extend([false; 7]);
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    bytes.extend(bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |all, (i, &bit)| all | u8::from(bit) << i)));
    bytes
}

#[test]
fn a_hostile_body_is_told_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    let gzip = ["content-encoding: gzip"];
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let statement = format!("{{\"sql\": \"SELECT '{}'\"}}", "x".repeat(100 << 20));
    let longer = format!("{{\"sql\": \"SELECT '{}'\"}}", "x".repeat(17 << 20));
    told("gzip bomb", &post(&node, &gzip, &bomb()), "415 content-encoding \"gzip\" is not supported: send the body as");
    told(
        "NaN in JSON",
        &post(&node, &[], b"{\"sql\": NaN}"),
        "400 the body is not JSON: expected value at line 1 column 9",
    );
    let parameter = br#"{"sql": "SELECT $1", "params": [1e999]}"#;
    told("number out of range in JSON", &post(&node, &[], parameter), "400 the body is not JSON: number out of range");
    told(
        "invalid UTF-8 in JSON",
        &post(&node, &[], b"{\"sql\": \"\xff\xfe\"}"),
        "400 the body is not JSON: invalid unicode",
    );
    told(
        "100,000 nested arrays",
        &post(&node, &[], deep.as_bytes()),
        "400 invalid type: sequence, expected a statement",
    );
    told(
        "half a JSON document",
        &post(&node, &[], b"{\"sql\": \"SELE"),
        "400 the body is not JSON: EOF while parsing a string",
    );
    told("no body", &post(&node, &[], b""), "400 the body is not JSON: EOF while parsing a value");
    told(
        "100 MB statement over HTTP",
        &post(&node, &[], statement.as_bytes()),
        "413 the body is longer than 33554432 bytes, limits.statement_bytes_max is 16777216",
    );
    let said = post(&node, &[], longer.as_bytes());
    told(
        "17 MiB statement over HTTP",
        &said,
        "400 the statement has 17825801 bytes, limits.statement_bytes_max is 16777216",
    );
    let wrong = ["x-chronos-request-id: 7"];
    told(
        "a request id that is none",
        &post(&node, &wrong, br#"{"sql": "SELECT 1"}"#),
        "400 x-chronos-request-id is a UUIDv7",
    );
    let head = "x".repeat(200 << 10);
    let (status, _) = node.http("POST", "/sql", &[&format!("x-much: {head}")], b"{}");
    println!("a head of 200 KiB | {status}");
    assert!((400..=431).contains(&status));
    lives(&node);
}

#[test]
fn a_hostile_statement_is_told_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    node.post_sql(r#"{"sql": "CREATE TABLE t (id INT PRIMARY KEY, n INT NOT NULL, x FLOAT, ts TIMESTAMP)"}"#);
    node.post_sql(r#"{"sql": "INSERT INTO t VALUES (1, 1, 0.5, NULL)"}"#);
    let deep = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    for (input, statement, expected) in [
        ("SQL that does not parse", "SELEKT 1", "400 syntax error at or near \"SELEKT\" (expected a statement)"),
        ("an unknown table", "SELECT * FROM nowhere", "400 table \"nowhere\" does not exist"),
        ("an unknown column", "SELECT nothing FROM t", "400 column \"nothing\" does not exist"),
        ("an unknown function", "SELECT nothing(id) FROM t", "400 function nothing(INT) does not exist"),
        (
            "a wrong type",
            "INSERT INTO t VALUES (2, 'warm', 0, NULL)",
            "400 invalid input syntax for type INT: \"warm\"",
        ),
        (
            "a number out of range",
            "INSERT INTO t VALUES (99999999999999999999, 1, 0, NULL)",
            "400 value \"99999999999999999999\" is out of range for type INT",
        ),
        ("a sum out of range", "SELECT 9223372036854775807 + id FROM t", "400 INT out of range"),
        (
            "a timestamp that is none",
            "INSERT INTO t VALUES (2, 2, 0, '2024-13-45')",
            "400 date/time field value out of range: \"2024-13-45\"",
        ),
        (
            "NULL into NOT NULL",
            "INSERT INTO t VALUES (2, NULL, 0, NULL)",
            "400 null value in column \"n\" of table \"t\" violates not-null constraint",
        ),
        (
            "a duplicate key",
            "INSERT INTO t VALUES (1, 1, 0, NULL)",
            "400 duplicate key value violates unique constraint \"t_pkey\": key (id)=(1) already exists",
        ),
        ("a division by zero", "SELECT 1 / 0", "400 division by zero"),
        ("10,000 nested parentheses", &deep, "400 the statement is nested more than 128 levels deep"),
        ("a billion-row cross join", "SELECT COUNT(*) FROM t a, t b, t c", "400 "),
        ("a statement of nothing", "", "400 the statement is empty"),
        ("a NUL byte", "SELECT 1 \0", "400 the character NUL (0x00) cannot stand in text"),
    ] {
        told(input, &sql(&node, statement), expected);
    }
    let (_, count) = node.post_sql(r#"{"sql": "SELECT COUNT(*) FROM t"}"#);
    assert_eq!(count["rows"], serde_json::json!([[1]]), "nothing of it was written");
    lives(&node);
}

/// A request whose text is not one.
#[derive(Clone, PartialEq, prost::Message)]
struct RawRequest {
    #[prost(bytes = "vec", tag = "1")]
    sql: Vec<u8>,
}

#[test]
fn a_hostile_grpc_message_is_told_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    wait(async {
        let mut client = node.client().await.max_encoding_message_size(256 << 20);
        let statement = |bytes: usize| SqlRequest { sql: format!("SELECT '{}'", "x".repeat(bytes)) };
        let refused = client.execute_sql(statement(100 << 20)).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        told(
            "100 MB statement over gRPC",
            refused.message(),
            "the message has 104857614 bytes, limits.statement_bytes_max is 16777216",
        );
        let refused = client.execute_sql(statement(17 << 20)).await.unwrap_err();
        told("an oversized gRPC message", refused.message(), "limits.statement_bytes_max is 16777216");
        let long = client.execute_sql(statement((16 << 20) + 1)).await.unwrap().into_inner();
        told(
            "a statement just too long",
            &long.error,
            "the statement has 16777226 bytes, limits.statement_bytes_max is",
        );
        let channel = Channel::from_shared(format!("http://{}", node.grpc)).unwrap().connect().await.unwrap();
        let mut raw = tonic::client::Grpc::new(channel);
        raw.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<RawRequest, SqlResponse>::default();
        let path = PathAndQuery::from_static("/raft.SqlService/ExecuteSql");
        let request = Request::new(RawRequest { sql: vec![b'S', 0xff, 0xfe] });
        let refused = raw.unary(request, path, codec).await.unwrap_err();
        told("invalid UTF-8 over gRPC", refused.message(), "invalid string value: data is not UTF-8 encoded");
        raw.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<RawRequest, SqlResponse>::default();
        let path = PathAndQuery::from_static("/raft.SqlService/Nothing");
        let refused = raw.unary(Request::new(RawRequest { sql: Vec::new() }), path, codec).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        let mut odd = Request::new(SqlRequest { sql: "SELECT 1".into() });
        odd.metadata_mut().insert("x-chronos-consistency", "maybe".parse().unwrap());
        let refused = client.execute_sql(odd).await.unwrap_err();
        told("an unknown consistency", refused.message(), "consistency is stale, lease or linearizable, got \"maybe\"");
    });
    lives(&node);
}

/// The same bytes in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Sends bytes, says that no more will come, and reads what is answered until the end.
fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The other side may close before it has read everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn random_bytes_and_half_frames_on_every_port_harm_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut held = Vec::new();
    for round in 0..100 {
        let count = 1 + noise.next() % 2000;
        let bytes = noise.bytes(count);
        send(node.grpc, &bytes);
        // Behind a proper greeting the noise is read as frames.
        send(node.grpc, &[greeting.as_slice(), &bytes].concat());
        send(node.http, &bytes);
        send(node.http, &[b"POST /sql HTTP/1.1\r\nhost: node\r\n".as_slice(), &bytes].concat());
        if round % 4 == 0 {
            // Half a frame, and a client that then holds its breath.
            for (address, half) in [
                (node.grpc, &greeting[..20]),
                (node.grpc, &[greeting.as_slice(), b"\0\xff\xff\0\0\0\0\0\x01ab"].concat()[..]),
                (node.http, b"GET / HT".as_slice()),
                (node.http, b"POST /sql HTTP/1.1\r\nhost: node\r\ncontent-length: 1000\r\n\r\n{".as_slice()),
            ] {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(half).unwrap();
                held.push(stream);
            }
        }
    }
    lives(&node);
    let answer = String::from_utf8_lossy(&send(node.http, &noise.bytes(500))).into_owned();
    told("random bytes at HTTP", answer.lines().next().unwrap_or("closed"), "HTTP/1.1 400 Bad Request");
    let answer = send(node.grpc, &noise.bytes(500));
    println!("random bytes at gRPC | closed after {} bytes", answer.len());
    assert_eq!(node.terminate().code(), Some(0));
    drop(held);
}

#[test]
fn a_greeting_that_does_not_come_gives_its_place_back() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_with(directory.path(), &[("CHRONOS_LIMITS__CONNECTIONS", "3")]);
    let silent: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(node.grpc).unwrap()).collect();
    // Ten seconds later all of them are closed, and a client gets in.
    for mut stream in silent {
        let mut nothing = [0; 64];
        while stream.read(&mut nothing).is_ok_and(|count| count > 0) {}
    }
    lives(&node);
}

/// What a node that does not start says.
fn refused(directory: &Path, prepare: impl FnOnce(&mut std::process::Command)) -> (Option<i32>, String) {
    let mut node = command(directory, crate::process::FREE);
    prepare(&mut node);
    let output = node.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).trim().to_string())
}

#[test]
fn a_hostile_configuration_is_told_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    for (input, arguments, expected) in [
        ("--peers with itself", ["--peers", "node1=127.0.0.1:8001"], "is this node itself"),
        ("--peers twice the same", ["--peers", "node2=a:1,node2=b:1"], "\"node2\" is named twice"),
        ("a sync target", ["--sync-target", "http://127.0.0.1:0"], "synchronisation is not supported by this version"),
        ("a configuration that is not there", ["--config", "nowhere.toml"], "cannot read nowhere.toml"),
    ] {
        let (code, said) = refused(directory.path(), |node| {
            node.args(arguments);
        });
        assert_eq!(code, Some(2), "{input}");
        told(input, &said, expected);
    }
    let (code, said) = refused(directory.path(), |node| {
        node.env("CHRONOS_LIMITS__MAILBOX", "1");
    });
    assert_eq!(code, Some(2));
    told("a limit out of its bounds", &said, "limits.mailbox: 1 is not between 16 and 65536");
    let (code, said) = refused(directory.path(), |node| {
        node.env("RUST_LOG", "a=b=c");
    });
    assert_eq!(code, Some(2));
    told("a log filter that is none", &said, "is not a log filter");
    assert!(!directory.path().join("node1").exists(), "nothing was made");
}

#[test]
fn a_directory_that_cannot_be_used_is_told_why_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    let (code, said) = refused(directory.path(), |_| {});
    assert_eq!(code, Some(1));
    told("a directory locked by a running node", &said, "in use");
    assert_eq!(node.terminate().code(), Some(0));
    let cluster = directory.path().join("node1/CLUSTER");
    let good = std::fs::read(&cluster).unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for (input, content, expected) in
        [("a flipped bit in CLUSTER", flipped, "CLUSTER"), ("an empty CLUSTER", Vec::new(), "CLUSTER")]
    {
        std::fs::write(&cluster, content).unwrap();
        let (code, said) = refused(directory.path(), |_| {});
        assert_eq!(code, Some(1), "{said}");
        told(input, &said, expected);
    }
    std::fs::write(&cluster, good).unwrap();
    let file = directory.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let (code, said) = refused(&file, |_| {});
    assert_ne!(code, Some(0));
    told("a data directory that is a file", &said, "a-file");
    let node = Node::start(directory.path());
    node.until_ready();
}
