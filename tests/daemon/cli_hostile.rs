//! What people type and pipe by mistake or on purpose: the client tells each clearly, and the node goes on.

use super::process::{FREE, Node, command};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Pipes bytes into a client of the node.
fn piped(node: &Node, input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(["client", "--format", "csv", "--leader", &node.grpc.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A client that has failed reads no further.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn hostile_statements_get_an_error_and_the_node_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    let fine = piped(&node, b"CREATE TABLE t (id INT PRIMARY KEY, value FLOAT NOT NULL); INSERT INTO t VALUES (1, 1);");
    assert!(fine.status.success(), "{}", told(&fine));
    let long = format!("SELECT '{}';", "a".repeat(100_000_000)).into_bytes();
    let deep = format!("SELECT {}1{};", "(".repeat(10_000), ")".repeat(10_000)).into_bytes();
    let inputs: [(&[u8], &str); 10] = [
        (&long, "limits.statement_bytes_max"),
        (&deep, "nested more than 128 levels deep"),
        (b"SELECT '\xff\xfe';", "not valid UTF-8"),
        (b"SELEC 1;", "syntax error at or near \"SELEC\""),
        (b"SELECT valeu FROM t;", "did you mean \"value\"?"),
        (b"INSERT INTO t VALUES ('x', 1);", "invalid input syntax for type INT: \"x\""),
        (b"INSERT INTO t VALUES (9223372036854775808, 1);", "out of range for type INT"),
        (b"INSERT INTO t VALUES (2, NULL);", "violates not-null constraint"),
        (b"INSERT INTO t VALUES (1, 2);", "duplicate key value"),
        (b"SELECT * FROM t a, t b, t c, t d;", "joins are not supported"),
    ];
    for (input, text) in inputs {
        let output = piped(&node, input);
        let head = String::from_utf8_lossy(&input[..input.len().min(60)]).into_owned();
        assert_eq!(output.status.code(), Some(1), "{head}");
        assert!(told(&output).contains(text), "{head}: {}", told(&output));
        assert!(told(&output).len() < 2000, "{head}: {} bytes of message", told(&output).len());
        let counted = piped(&node, b"SELECT COUNT(*) FROM t;");
        assert_eq!(counted.stdout, b"count\n1\n", "{head}: {}", told(&counted));
    }
}

/// Starts a node that must refuse: what it says.
fn refused(directory: &Path, address: &str) -> String {
    let output = command(directory, address).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    told(&output)
}

#[test]
fn a_port_and_a_directory_in_use_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&directory.path().join("one"));
    let port = refused(&directory.path().join("two"), &node.grpc.to_string());
    assert!(port.contains(&node.grpc.to_string()) && port.contains("another process uses the port"), "{port}");
    let locked = refused(&directory.path().join("one"), FREE);
    assert!(locked.contains("is in use by process") && locked.contains("chronos client"), "{locked}");
    node.until_ready();
}

#[test]
fn a_directory_of_a_newer_version_or_of_another_node_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = directory.path().join("node1/CLUSTER");
    assert!(Node::start(directory.path()).terminate().success());
    let whole = std::fs::read(&cluster).unwrap();
    // A format from the future, with a checksum that fits.
    let mut newer = whole.clone();
    newer[8] = 9;
    let end = newer.len() - 4;
    let crc = crc32c::crc32c(&newer[..end]).to_le_bytes();
    newer[end..].copy_from_slice(&crc);
    std::fs::write(&cluster, &newer).unwrap();
    let text = refused(directory.path(), FREE);
    assert!(text.contains("has format 9, which this version does not know"), "{text}");
    std::fs::write(&cluster, &whole).unwrap();
    std::fs::rename(directory.path().join("node1"), directory.path().join("node7")).unwrap();
    let mut other = Command::new(env!("CARGO_BIN_EXE_chronos"));
    other.args(["node", "--id", "node7", "--address", FREE, "--data-dir"]).arg(directory.path());
    let output = other.stdin(Stdio::null()).env("RUST_LOG", "error").output().unwrap();
    assert!(!output.status.success() && told(&output).contains("node1"), "{}", told(&output));
    std::fs::rename(directory.path().join("node7"), directory.path().join("node1")).unwrap();
    assert!(Node::start(directory.path()).terminate().success(), "nothing was lost");
}
