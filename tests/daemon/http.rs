//! The HTTP door of a real node.

use crate::process::{FREE, Node, body, command};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn health_readiness_status_and_the_page_answer() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    let health: serde_json::Value = serde_json::from_str(&node.get("/health")).unwrap();
    assert_eq!((health["status"].as_str(), health["role"].as_str()), (Some("ok"), Some("Leader")), "{health}");
    assert!(health["term"].as_u64() >= Some(1));
    let status: serde_json::Value = serde_json::from_str(&node.get("/status")).unwrap();
    assert_eq!(status["raft"]["voters"], json!(["node1"]));
    assert_eq!(status["actors"].as_array().map(Vec::len), Some(6), "{status}");
    assert!(node.get("/").contains("<title>ChronosDB</title>"));
    assert_eq!(node.http("GET", "/nowhere", &[], b"").0, 404);
    for (method, path, allowed) in [
        ("GET", "/sql", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("DELETE", "/status", "GET, HEAD"),
        ("PUT", "/admin/members", "GET, POST"),
        ("GET", "/admin/transfer", "POST"),
    ] {
        let (status, answer) = node.http(method, path, &[], b"");
        assert_eq!(status, 405, "{answer}");
        assert!(answer.contains(&format!("\r\nallow: {allowed}\r\n")), "{answer}");
        assert_eq!(body(&answer), format!("{{\"error\":\"{path} takes {allowed}\"}}"));
    }
}

#[test]
fn metrics_count_statements() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    node.post_sql(r#"{"sql": "CREATE TABLE t (id INT)"}"#);
    node.post_sql(r#"{"sql": "SELECT * FROM t"}"#);
    let (_, answer) = node.http("GET", "/metrics", &[], b"");
    assert!(answer.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{answer}");
    for line in [
        "chronos_sql_requests_total{kind=\"read\"} 1",
        "chronos_sql_requests_total{kind=\"write\"} 1",
        "chronos_raft_role 2",
        "# TYPE chronos_storage_size_bytes gauge",
        "# TYPE chronos_sql_duration_seconds histogram",
    ] {
        assert!(body(&answer).lines().any(|one| one == line), "{line} is missing in\n{answer}");
    }
}

#[test]
fn sql_is_answered_as_json_or_csv_and_a_batch_as_one() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    let (status, made) = node.post_sql(r#"{"sql": "CREATE TABLE t (id INT PRIMARY KEY, x FLOAT, s TEXT)"}"#);
    assert_eq!((status, &made["affected"]), (200, &json!(0)), "{made}");
    let (status, batch) =
        node.post_sql(r#"["INSERT INTO t VALUES (1, 0.5, 'a,b')", "INSERT INTO t VALUES (2, 'NaN', NULL)"]"#);
    assert_eq!(status, 200, "{batch}");
    assert_eq!(batch["results"][1]["affected"], json!(1));
    let (_, read) = node.post_sql(r#"{"sql": "SELECT * FROM t ORDER BY id"}"#);
    assert_eq!(read["rows"], json!([[1, 0.5, "a,b"], [2, "NaN", null]]));
    assert_eq!(read["types"], json!(["INT", "FLOAT", "TEXT"]));
    let query = br#"{"sql": "SELECT * FROM t ORDER BY id"}"#;
    let (_, csv) = node.http("POST", "/sql", &["accept: text/csv"], query);
    assert_eq!(body(&csv), "id,x,s\r\n1,0.5,\"a,b\"\r\n2,NaN,\r\n");
    let (status, failed) = node.post_sql(r#"["INSERT INTO t VALUES (3, 0, '')", "INSERT INTO t VALUES (1, 0, '')"]"#);
    assert_eq!((status, &failed["sqlstate"], &failed["statement"]), (400, &json!("23505"), &json!(1)), "{failed}");
    let (_, count) = node.post_sql(r#"{"sql": "SELECT COUNT(*) FROM t"}"#);
    assert_eq!(count["rows"], json!([[2]]), "a failed batch leaves nothing");
}

#[test]
fn what_is_wrong_is_said_in_json() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    let (status, error) = node.post_sql(r#"{"sql": "SELECT nothing FROM nowhere"}"#);
    assert_eq!((status, &error["sqlstate"]), (400, &json!("42P01")), "{error}");
    assert!(error["position"].as_u64().is_some(), "{error}");
    assert_eq!(node.post_sql(r#"{"sql": NaN}"#).0, 400);
    assert_eq!(node.post_sql(r#"{"sql": "SELECT 1", "consistency": "maybe"}"#).0, 400);
    assert_eq!(node.http("POST", "/sql", &[], &[0xff; 100]).0, 400);
    let huge = vec![b' '; 33 << 20];
    assert_eq!(node.http("POST", "/sql", &[], &huge[..]).0, 413);
    node.until_ready();
}

#[test]
fn a_port_in_use_is_a_clear_error() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = Node::start(first.path());
    let output = command(second.path(), &node.grpc.to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("another process uses the port"), "{told}");
    assert!(!second.path().join("node1").exists(), "nothing was touched");
}

#[test]
fn a_directory_in_use_is_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let _node = Node::start(directory.path());
    let output = command(directory.path(), FREE).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("in use"), "{told}");
}

/// The head of an answer, and whether anything follows it.
fn head_of(node: &Node, path: &str) -> (String, bool) {
    let (_, answer) = node.http("HEAD", path, &[], b"");
    (answer.clone(), !body(&answer).is_empty())
}

#[test]
fn head_is_answered_as_get_is_without_a_body() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    for path in ["/", "/health", "/ready", "/metrics", "/status"] {
        let (answer, has_body) = head_of(&node, path);
        assert!(answer.starts_with("HTTP/1.1 200 ") && !has_body, "{path}: {answer}");
        let length = answer.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        assert!(length > Some(0_u64), "{path}: {answer}");
    }
    assert_eq!(node.http("HEAD", "/sql", &[], b"").0, 405);
}

#[test]
fn the_weights_of_accept_decide_between_json_and_csv() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    let query = br#"{"sql": "SELECT 1 AS one"}"#;
    let (_, csv) = node.http("POST", "/sql", &["accept: application/json;q=0.1, text/csv;q=1"], query);
    assert_eq!(body(&csv), "one\r\n1\r\n");
    let (_, json) = node.http("POST", "/sql", &["accept: text/csv;q=0.1, application/json"], query);
    assert!(body(&json).starts_with('{'), "{json}");
}

#[test]
fn the_character_nul_is_refused_in_every_statement() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    node.post_sql(r#"{"sql": "CREATE TABLE t (s TEXT PRIMARY KEY)"}"#);
    for body in [
        r#"{"sql": "INSERT INTO t VALUES ('a\u0000b')"}"#,
        r#"{"sql": "SELECT s FROM t WHERE s = 'a\u0000b'"}"#,
        r#"{"sql": "SELECT 'a\u0000b'"}"#,
        r#"["INSERT INTO t VALUES ('x')", "INSERT INTO t VALUES ('\u0000')"]"#,
    ] {
        let (status, refused) = node.post_sql(body);
        assert_eq!((status, &refused["sqlstate"]), (400, &json!("22021")), "{body}: {refused}");
    }
    let (_, escaped) = node.post_sql(r#"{"sql": "SELECT U&'\\0000'"}"#);
    assert_eq!(escaped["sqlstate"], json!("42601"), "{escaped}");
    assert_eq!(node.post_sql(r#"{"sql": "SELECT COUNT(*) FROM t"}"#).1["rows"], json!([[0]]));
}

#[test]
fn malformed_requests_are_answered_and_leave_no_line_in_the_log() {
    use std::io::{Read, Write};
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("node.log");
    let node =
        Node::start_with(directory.path(), &[("CHRONOS_LOG__FILE", log.to_str().unwrap()), ("RUST_LOG", "info")]);
    node.until_ready();
    for malformed in ["NONSENSE\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "POST /sql HTTP/1.1\r\ncontent-length: x\r\n\r\n"] {
        let mut client = std::net::TcpStream::connect(node.http).unwrap();
        client.write_all(malformed.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{malformed}: {answer}");
    }
    let lines = std::fs::read_to_string(&log).unwrap();
    assert!(lines.contains("INFO") && !lines.contains("ERROR"), "{lines}");
}

#[test]
fn a_page_of_another_site_may_not_ask_in_its_readers_name() {
    let directory = tempfile::tempdir().unwrap();
    let named = [("CHRONOS_NODE__ADVERTISE", "node:8000")];
    let node = Node::start_with(directory.path(), &named);
    node.until_ready();
    let asked = |path: &str, origin: &str| {
        let header = format!("origin: {origin}");
        node.http("POST", path, &[&header, "content-type: text/plain"], br#"{"sql": "CREATE TABLE t (id INT)"}"#)
    };
    for origin in ["http://example.org", "https://node.example.org", "http://node:1", "null", "node", ""] {
        for path in ["/sql", "/admin/transfer", "/%73ql"] {
            let (status, answer) = asked(path, origin);
            assert_eq!(status, 403, "{origin} {path}: {answer}");
        }
        assert_eq!(node.http("GET", "/health", &[&format!("origin: {origin}")], b"").0, 200);
    }
    // The node's own page: `host: node` is what the test's client says.
    let (status, answer) = asked("/sql", "http://node");
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn a_name_that_leads_to_a_node_and_is_not_its_own_makes_no_page_of_it() {
    let ask = |settings: &[(&str, &str)]| {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start_with(directory.path(), settings);
        node.until_ready();
        // Whoever owns the name has its page ask what it takes for its own site (`host: node`).
        node.http("POST", "/sql", &["origin: http://node"], br#"{"sql": "CREATE TABLE t (id INT)"}"#)
    };
    let (status, answer) = ask(&[]);
    assert!(status == 403 && answer.contains("node.advertise"), "{status} {answer}");
    // Where a token is asked for, that page has none.
    let (status, answer) = ask(&[("CHRONOS_AUTH_TOKEN_ADMIN", "admin-s3cret")]);
    assert_eq!(status, 401, "{answer}");
}

#[test]
fn a_body_for_operators_that_never_comes_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_with(directory.path(), &[("CHRONOS_LIMITS__STATEMENT_TIMEOUT", "500ms")]);
    node.until_ready();
    for path in ["/admin/members", "/admin/transfer"] {
        let mut stream = TcpStream::connect(node.http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: node\r\ncontent-length: 100\r\n\r\n{{\"add\"");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    let long = "x".repeat(5000);
    let (status, answer) = node.http("POST", "/admin/members", &[], long.as_bytes());
    assert!(status == 413 && answer.contains("longer than 4096 bytes\""), "{answer}");
}
