//! Tokens, roles and the audit line of a real node, at every door.

use crate::process::wire::admin_service_client::AdminServiceClient;
use crate::process::wire::health_service_client::HealthServiceClient;
use crate::process::wire::sql_service_client::SqlServiceClient;
use crate::process::wire::sync_service_client::SyncServiceClient;
use crate::process::wire::sync_status_service_client::SyncStatusServiceClient;
use crate::process::wire::{self, BatchRequest, SqlRequest};
use crate::process::{FREE, Node, body, command, wait};
use chronos::clock::{Clock, SystemClock};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const TOKENS: [(&str, &str); 2] =
    [("CHRONOS_AUTH_TOKEN_ADMIN", "admin-s3cret"), ("CHRONOS_AUTH_TOKEN_READONLY", "reader-s3cret")];

/// Far more than a busy machine takes for a line: a test that waits for ever says nothing.
const PATIENCE: Duration = Duration::from_secs(30);

const ADMIN: Option<&str> = Some("admin-s3cret");
const READER: Option<&str> = Some("reader-s3cret");

fn signed<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

async fn channel(node: &Node) -> Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{}", node.grpc)).unwrap().connect().await.unwrap()
}

/// Runs a statement; what is no success is its error.
async fn run(channel: &Channel, sql: &str, token: Option<&str>) -> Result<Result<wire::SqlResponse, String>, Status> {
    let mut client = SqlServiceClient::new(channel.clone()).max_encoding_message_size(64 << 20);
    let response = client.execute_sql(signed(SqlRequest { sql: sql.into() }, token)).await?.into_inner();
    Ok(if response.success { Ok(response) } else { Err(response.sqlstate) })
}

/// The same as a stream.
async fn stream(channel: &Channel, sql: &str, token: Option<&str>) -> Result<Result<(), String>, Status> {
    let mut client = SqlServiceClient::new(channel.clone()).max_encoding_message_size(64 << 20);
    let mut rows = client.query_sql(signed(SqlRequest { sql: sql.into() }, token)).await?.into_inner();
    while let Some(part) = rows.message().await? {
        if !part.success {
            return Ok(Err(part.sqlstate));
        }
    }
    Ok(Ok(()))
}

async fn batch(channel: &Channel, sql: &[&str], token: Option<&str>) -> Result<Result<(), String>, Status> {
    let mut client = SqlServiceClient::new(channel.clone()).max_encoding_message_size(64 << 20);
    let sql = sql.iter().map(ToString::to_string).collect();
    let answer = client.execute_batch(signed(BatchRequest { sql }, token)).await?.into_inner();
    let failed = answer.responses.iter().find(|response| !response.success);
    Ok(failed.map_or(Ok(()), |response| Err(response.sqlstate.clone())))
}

/// Until the node serves.
async fn table(channel: &Channel) {
    while !matches!(run(channel, "CREATE TABLE IF NOT EXISTS t (id INT PRIMARY KEY, s TEXT)", ADMIN).await, Ok(Ok(_))) {
        tokio::task::yield_now().await;
    }
}

async fn services(channel: &Channel, token: Option<&str>) -> Vec<Option<Code>> {
    fn code<T>(answer: Result<T, Status>) -> Option<Code> {
        answer.err().map(|status| status.code())
    }
    let c = || channel.clone();
    let names = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut reflection = tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(c());
    let reflected = reflection.server_reflection_info(signed(tokio_stream::once(names), token));
    vec![
        code(run(channel, "SELECT 1", token).await),
        code(run(channel, "INSERT INTO t VALUES (1, 'x')", token).await),
        code(HealthServiceClient::new(c()).get_connectivity(signed(wire::HealthRequest {}, token)).await),
        code(SyncStatusServiceClient::new(c()).get_sync_status(signed(wire::SyncStatusRequest {}, token)).await),
        code(SyncServiceClient::new(c()).sync(signed(wire::SyncRequest::default(), token)).await),
        code(AdminServiceClient::new(c()).create_snapshot(signed(wire::SnapshotRequest::default(), token)).await),
        code(AdminServiceClient::new(c()).change_members(signed(wire::ChangeMembersRequest::default(), token)).await),
        code(AdminServiceClient::new(c()).members(signed(wire::MembersRequest {}, token)).await),
        code(AdminServiceClient::new(c()).report(signed(wire::ReportRequest { metrics: true }, token)).await),
        code(reflected.await),
        code(
            tonic_health::pb::health_client::HealthClient::new(c())
                .check(signed(tonic_health::pb::HealthCheckRequest { service: String::new() }, token))
                .await,
        ),
    ]
}

#[test]
fn each_service_asks_for_the_role_that_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_with(directory.path(), &TOKENS);
    wait(async {
        let channel = channel(&node).await;
        table(&channel).await;
        let no = Some(Code::Unauthenticated);
        let unknown = vec![no, no, no, no, no, no, no, no, no, no, None];
        assert_eq!(services(&channel, None).await, unknown);
        assert_eq!(services(&channel, Some("wrong")).await, unknown);
        assert_eq!(services(&channel, Some("admin-s3cre")).await, unknown);
        let denied = Some(Code::PermissionDenied);
        let read = services(&channel, READER).await;
        assert_eq!(read, [None, denied, None, None, denied, denied, denied, None, None, None, None]);
        let (no_target, says_nothing) = (Some(Code::Unimplemented), Some(Code::InvalidArgument));
        let all = services(&channel, ADMIN).await;
        assert_eq!(all, [None, None, None, None, no_target, None, says_nothing, None, None, None, None]);
    });
}

#[test]
fn a_reader_writes_by_no_form_of_statement() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_with(directory.path(), &TOKENS);
    let long = format!(
        "INSERT INTO t VALUES {}(0, 'z')",
        "(77, 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy'), ".repeat(20_000)
    );
    let writes = [
        "INSERT INTO t VALUES (2, 'x')",
        "insert into t (id, s) values (2, 'x');",
        "  /* SELECT */ INSERT INTO t VALUES (2, 'x')",
        "-- SELECT 1\nINSERT INTO t VALUES (2, 'x')",
        "INSERT INTO t VALUES (1 + 1, 'x')",
        "INSERT INTO t DEFAULT VALUES",
        "UPDATE t SET s = 'y'",
        "DELETE FROM t",
        "DELETE FROM t WHERE id = 1",
        "CREATE TABLE u (id INT)",
        "CREATE TABLE IF NOT EXISTS t (id INT)",
        "CREATE INDEX i ON t (s)",
        "DROP TABLE t",
        "DROP TABLE IF EXISTS t, nothing",
        "DROP INDEX IF EXISTS i",
        "EXPLAIN ANALYZE INSERT INTO t VALUES (2, 'x')",
        "EXPLAIN ANALYZE DELETE FROM t",
    ];
    let unparsable = [
        "SELECT 1; DELETE FROM t",
        ";DELETE FROM t",
        "WITH gone AS (SELECT 1) DELETE FROM t",
        "WITH gone AS (DELETE FROM t RETURNING id) SELECT * FROM gone",
        "SELECT * INTO u FROM t",
        "(DELETE FROM t)",
        "EXPLAIN EXPLAIN ANALYZE UPDATE t SET s = 'y'",
        "TRUNCATE t",
        "COPY t FROM STDIN",
        "DO 1",
        "",
    ];
    wait(async {
        let channel = channel(&node).await;
        table(&channel).await;
        run(&channel, "INSERT INTO t VALUES (1, 'kept')", ADMIN).await.unwrap().unwrap();
        for sql in writes {
            let shown = &sql[..sql.len().min(60)];
            for refused in [
                run(&channel, sql, READER).await.map(|answer| answer.map(drop)),
                stream(&channel, sql, READER).await,
                batch(&channel, &["SELECT 1", sql], READER).await,
                batch(&channel, &[sql], READER).await,
            ] {
                let status = refused.err().unwrap_or_else(|| panic!("{shown}: was answered"));
                assert_eq!(status.code(), Code::PermissionDenied, "{shown}: {status}");
            }
            let asked = serde_json::json!({ "sql": sql }).to_string();
            for asked in [asked, serde_json::json!([sql]).to_string()] {
                let (status, answer) = http(&node, "POST", "/sql", READER, &asked);
                assert_eq!(status, 403, "{shown}: {answer}");
            }
        }
        for sql in unparsable {
            for refused in [
                run(&channel, sql, READER).await.map(|answer| answer.map(drop)),
                stream(&channel, sql, READER).await,
                batch(&channel, &["SELECT 1", sql], READER).await,
            ] {
                let state = refused.unwrap().expect_err(sql);
                assert!(["42601", "0A000"].contains(&state.as_str()), "{sql}: {state}");
            }
        }
        // What is too long to be parsed is refused as that.
        let answer = run(&channel, &long, READER).await;
        assert!(matches!(&answer, Ok(Err(_)) | Err(_)), "{answer:?}");
        // Whatever a request is called: its name is not remembered for a reader.
        let mut named = signed(SqlRequest { sql: "INSERT INTO t VALUES (2, 'x')".into() }, READER);
        named.metadata_mut().insert("x-chronos-request-id", "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap());
        let refused = SqlServiceClient::new(channel.clone()).execute_sql(named).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        for sql in [
            "SELECT * FROM t WHERE id = 1",
            "SELECT COUNT(*) FROM t",
            "SHOW TABLES",
            "DESCRIBE t",
            "VALUES (1)",
            "EXPLAIN DELETE FROM t",
            "EXPLAIN ANALYZE SELECT * FROM t",
        ] {
            run(&channel, sql, READER).await.unwrap().expect(sql);
            stream(&channel, sql, READER).await.unwrap().expect(sql);
            batch(&channel, &[sql, sql], READER).await.unwrap().expect(sql);
        }
        let left = run(&channel, "SELECT id, s FROM t", ADMIN).await.unwrap().unwrap();
        assert_eq!(left.rows.len(), 1);
        assert!(format!("{:?}", left.rows).contains("kept"));
        let tables = run(&channel, "SHOW TABLES", ADMIN).await.unwrap().unwrap();
        assert_eq!(tables.rows.len(), 1);
    });
}

fn http(node: &Node, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
    let header = token.map(|token| format!("authorization: Bearer {token}"));
    let headers: Vec<&str> = header.iter().map(String::as_str).collect();
    node.http(method, path, &headers, body.as_bytes())
}

#[test]
fn http_answers_by_path_and_by_who_asks() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_with(directory.path(), &TOKENS);
    node.until_ready();
    let made = http(&node, "POST", "/sql", ADMIN, r#"{"sql": "CREATE TABLE t (id INT PRIMARY KEY, s TEXT)"}"#);
    assert_eq!(made.0, 200, "{}", made.1);
    let read = r#"{"sql": "SELECT 1"}"#;
    let write = r#"{"sql": "INSERT INTO t VALUES (1, 'x')"}"#;
    let asked = |token| {
        [
            http(&node, "GET", "/health", token, "").0,
            http(&node, "GET", "/ready", token, "").0,
            http(&node, "GET", "/", token, "").0,
            http(&node, "GET", "/metrics", token, "").0,
            http(&node, "GET", "/status", token, "").0,
            http(&node, "GET", "/nowhere", token, "").0,
            http(&node, "POST", "/sql", token, read).0,
            http(&node, "POST", "/sql", token, write).0,
        ]
    };
    assert_eq!(asked(None), [200, 200, 200, 401, 401, 401, 401, 401]);
    assert_eq!(asked(Some("wrong")), [200, 200, 200, 401, 401, 401, 401, 401]);
    assert_eq!(asked(READER), [200, 200, 200, 200, 200, 404, 200, 403]);
    assert_eq!(asked(ADMIN), [200, 200, 200, 200, 200, 404, 200, 200]);
    let (_, refused) = http(&node, "POST", "/sql", None, read);
    assert!(refused.to_lowercase().contains("www-authenticate: bearer"), "{refused}");
    assert!(body(&refused).contains("\"sqlstate\":\"28000\""), "{refused}");
    // A body that nobody may send is not read to its end.
    let (status, _) = http(&node, "POST", "/sql", None, &" ".repeat(8 << 20));
    assert_eq!(status, 401);
}

/// Ways to write `/admin/members` and `/admin/transfer`, and what is none of them.
const ADMIN_PATHS: [&str; 12] = [
    "/admin/members",
    "/%61dmin/members",
    "/admin/%6dembers",
    "/%61%64%6D%69%6E/%6d%65%6d%62%65%72%73",
    "//admin/members",
    "/admin//members",
    "/./admin/members",
    "/admin%2fmembers",
    "/ADMIN/members",
    "/admin/members/",
    "/admin/transfer",
    "/%61dmin/transfer",
];

#[test]
fn what_changes_the_group_is_the_admins_however_its_path_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_with(directory.path(), &TOKENS);
    node.until_ready();
    let add = r#"{"add": {"id": "node2", "address": "127.0.0.1:1"}}"#;
    for path in ADMIN_PATHS {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            for (token, expected) in [(None, 401), (Some("wrong"), 401), (READER, 403)] {
                let (status, answer) = http(&node, method, path, token, add);
                assert_eq!(status, expected, "{method} {path} by {token:?}: {answer}");
            }
        }
        assert_eq!(http(&node, "GET", path, None, "").0, 401, "{path}");
    }
    for (token, expected) in [(READER, 200), (ADMIN, 200)] {
        let (status, members) = http(&node, "GET", "/%61dmin/members", token, "");
        assert_eq!(status, expected, "{members}");
        assert!(!members.contains("node2"), "{members}");
    }
    for path in ["/admin/members", "/%61dmin/members"] {
        // It reaches the handler, which wants to know what to do.
        assert_eq!(http(&node, "POST", path, ADMIN, "{}").0, 400, "{path}");
    }
    // A node that could never be heard is not waited for.
    let (status, answer) = http(&node, "POST", "/admin/members", ADMIN, add);
    assert!(status == 400 && answer.contains("auth.cluster_token is not set"), "{status} {answer}");
    // Statements say themselves what they do, however the path to them is written.
    assert_eq!(http(&node, "POST", "/%73ql", READER, r#"{"sql": "SELECT 1"}"#).0, 200);
    assert_eq!(http(&node, "POST", "/%73ql", READER, r#"{"sql": "DROP TABLE t"}"#).0, 403);
}

#[test]
fn operators_have_their_audit_lines() {
    let directory = tempfile::tempdir().unwrap();
    let (node, log) = logging(directory.path(), &TOKENS);
    node.until_ready();
    let add = r#"{"add": {"id": "x\ny", "address": "127.0.0.1:1"}}"#;
    let named = ["authorization: Bearer admin-s3cret", "x-chronos-user: carla"];
    assert_eq!(node.http("POST", "/admin/members", &named, add.as_bytes()).0, 400);
    assert_eq!(http(&node, "POST", "/admin/members", ADMIN, r#"{"remove": "node9"}"#).0, 400);
    wait(async {
        let mut admin = AdminServiceClient::new(channel(&node).await);
        let transfer = wire::TransferLeaderRequest { to: "node9".into() };
        admin.transfer_leader(signed(transfer, ADMIN)).await.unwrap_err();
        admin.create_snapshot(signed(wire::SnapshotRequest::default(), ADMIN)).await.unwrap();
    });
    let said = until_said(&log, "action=snapshot");
    for line in [
        r#"audit_admin user=carla role=Admin action=add-node id="x\ny" address="127.0.0.1:1" role="""#,
        r#"audit_admin user=- role=Admin action=remove-node id="node9""#,
        r#"audit_admin user=- role=Admin action=transfer to="node9""#,
    ] {
        assert!(said.contains(line), "{line} is missing in\n{said}");
    }
}

/// What the peers' services say to a caller with this token.
async fn as_a_peer(channel: &Channel, token: Option<&str>) -> Vec<Option<Code>> {
    fn code<T>(answer: Result<T, Status>) -> Option<Code> {
        answer.err().map(|status| status.code())
    }
    let mut forward = wire::forward_service_client::ForwardServiceClient::new(channel.clone());
    let mut peers = wire::peer_service_client::PeerServiceClient::new(channel.clone());
    let request = wire::ForwardRequest {
        sql: vec!["CREATE TABLE forged (id INT)".into()],
        deadline_ms: 1000,
        consistency: "linearizable".into(),
        may_write: true,
        ..Default::default()
    };
    let frames = || tokio_stream::once(wire::PeerFrame::default());
    vec![
        code(forward.forward(signed(request, token)).await),
        code(peers.identify(signed(wire::IdentifyRequest::default(), token)).await),
        code(peers.link(signed(frames(), token)).await),
        code(peers.install(signed(tokio_stream::once(wire::SnapshotPiece::default()), token)).await),
    ]
}

#[test]
fn a_node_on_its_own_has_no_peers() {
    for settings in [&TOKENS[..], &[]] {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start_with(directory.path(), settings);
        node.until_ready();
        wait(async {
            let channel = channel(&node).await;
            for token in [None, Some("wrong"), READER, ADMIN] {
                assert_eq!(as_a_peer(&channel, token).await, [Some(Code::FailedPrecondition); 4], "{token:?}");
            }
        });
        let tables = http(&node, "POST", "/sql", ADMIN, r#"{"sql": "SHOW TABLES"}"#).1;
        assert!(!tables.contains("forged"), "{tables}");
    }
}

#[test]
fn nobody_hands_on_to_a_node_on_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [&TOKENS[..], &[("CHRONOS_AUTH__CLUSTER_TOKEN", "cluster-s3cret")]].concat();
    let node = Node::start_with(directory.path(), &settings);
    node.until_ready();
    wait(async {
        let mut admin = AdminServiceClient::new(channel(&node).await);
        let mut handed_on = signed(wire::TransferLeaderRequest::default(), None);
        handed_on.metadata_mut().insert("x-chronos-cluster-token", "cluster-s3cret".parse().unwrap());
        handed_on.metadata_mut().insert("x-chronos-handed-on", "1".parse().unwrap());
        let refused = admin.transfer_leader(handed_on).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    });
}

#[test]
fn a_group_with_tokens_does_not_start_without_one_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(directory.path(), FREE);
    command.envs(TOKENS).args(["--peers", "node2=127.0.0.1:1"]);
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("auth.cluster_token must be set"), "{told}");
}

#[test]
fn metrics_are_open_by_choice() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [TOKENS[0], ("CHRONOS_HTTP__METRICS_OPEN", "true")];
    let node = Node::start_with(directory.path(), &settings);
    assert_eq!(node.http("GET", "/metrics", &[], b"").0, 200);
    assert_eq!(node.http("GET", "/status", &[], b"").0, 401);
}

/// A node that writes what it says at INFO into a file.
fn logging(directory: &Path, settings: &[(&str, &str)]) -> (Node, std::path::PathBuf) {
    let log = directory.join("node.log");
    let file = [("CHRONOS_LOG__FILE", log.to_str().unwrap()), ("RUST_LOG", "info")];
    let all: Vec<(&str, &str)> = file.into_iter().chain(settings.iter().copied()).collect();
    (Node::start_with(directory, &all), log)
}

/// The log once it says something.
fn until_said(log: &Path, what: &str) -> String {
    let began = SystemClock.monotonic();
    loop {
        let said = std::fs::read_to_string(log).unwrap();
        if said.contains(what) {
            return said;
        }
        assert!(SystemClock.monotonic().saturating_sub(began) < PATIENCE, "{what} is missing in\n{said}");
        std::thread::yield_now();
    }
}

#[test]
fn each_statement_has_its_audit_line() {
    let directory = tempfile::tempdir().unwrap();
    let (node, log) = logging(directory.path(), &TOKENS);
    wait(async {
        let channel = channel(&node).await;
        table(&channel).await;
        let mut request = signed(SqlRequest { sql: "SELECT 1,\n  'a'".into() }, READER);
        request.metadata_mut().insert("x-chronos-user", "anna role=Admin".parse().unwrap());
        SqlServiceClient::new(channel.clone()).execute_sql(request).await.unwrap();
        run(&channel, "DELETE FROM t", READER).await.unwrap_err();
        batch(&channel, &["SELECT 7", "SELECT 8"], ADMIN).await.unwrap().unwrap();
        run(&channel, &format!("SELECT '{}'", "x".repeat(100_000)), ADMIN).await.unwrap().unwrap();
    });
    let sent = br#"{"sql": "SELECT 9"}"#;
    node.http("POST", "/sql", &["authorization: Bearer reader-s3cret", "x-chronos-user: bert"], sent);
    let said = until_said(&log, "SELECT 9");
    for line in [
        "audit_sql user=anna_role=Admin role=ReadOnly sql=SELECT 1,   'a'",
        "audit_sql user=- role=ReadOnly sql=DELETE FROM t",
        "audit_sql user=- role=Admin sql=SELECT 7",
        "audit_sql user=- role=Admin sql=SELECT 8",
        "audit_sql user=bert role=ReadOnly sql=SELECT 9",
        "... (100009 bytes)",
    ] {
        assert!(said.contains(line), "{line} is missing in\n{said}");
    }
    assert!(!said.contains("s3cret"), "{said}");
    assert!(said.lines().all(|line| line.len() < 4096));
}

#[test]
fn the_audit_line_hides_values_where_it_shall_and_goes_by_its_target() {
    let directory = tempfile::tempdir().unwrap();
    let (node, log) = logging(directory.path(), &[TOKENS[0], ("CHRONOS_AUTH__AUDIT_REDACT_LITERALS", "true")]);
    node.until_ready();
    http(&node, "POST", "/sql", ADMIN, r#"{"sql": "SELECT 'private', 4711 FROM nowhere"}"#);
    let said = until_said(&log, "FROM nowhere");
    assert!(said.contains("audit_sql user=- role=Admin sql=SELECT ?, ? FROM nowhere"), "{said}");
    assert!(!said.contains("private") && !said.contains("4711"), "{said}");
    drop(node);
    let off = tempfile::tempdir().unwrap();
    let (node, log) = logging(off.path(), &[TOKENS[0], ("RUST_LOG", "info,chronos_audit=off")]);
    node.until_ready();
    http(&node, "POST", "/sql", ADMIN, r#"{"sql": "SELECT 1"}"#);
    assert!(!std::fs::read_to_string(&log).unwrap().contains("audit_sql"));
    drop(node);
    // Where nobody is asked who he is, the lines are for whoever asks for debugging.
    let open = tempfile::tempdir().unwrap();
    let (node, log) = logging(open.path(), &[("RUST_LOG", "info,chronos_audit=debug")]);
    node.until_ready();
    http(&node, "POST", "/sql", None, r#"{"sql": "SELECT 1"}"#);
    until_said(&log, "audit_sql user=- role=None sql=SELECT 1");
}

#[test]
fn tokens_change_without_dropping_a_connection() {
    let directory = tempfile::tempdir().unwrap();
    let (admin, reader) = (directory.path().join("admin"), directory.path().join("reader"));
    std::fs::write(&admin, "first\n").unwrap();
    std::fs::write(&reader, "reader\n").unwrap();
    let files = [
        ("CHRONOS_AUTH__TOKEN_ADMIN_FILE", admin.to_str().unwrap()),
        ("CHRONOS_AUTH__TOKEN_READONLY_FILE", reader.to_str().unwrap()),
    ];
    let (node, log) = logging(directory.path(), &files);
    wait(async {
        let channel = channel(&node).await;
        while !matches!(run(&channel, "CREATE TABLE t (id INT)", Some("first")).await, Ok(Ok(_))) {
            tokio::task::yield_now().await;
        }
        std::fs::write(&admin, "second\n").unwrap();
        run(&channel, "SELECT 1", Some("first")).await.unwrap().unwrap();
        node.hang_up();
        until_said(&log, "read the settings again");
        let code = |token| {
            let channel = channel.clone();
            async move { run(&channel, "DELETE FROM t", Some(token)).await.err().map(|status| status.code()) }
        };
        assert_eq!(code("first").await, Some(Code::Unauthenticated));
        assert_eq!(code("second").await, None);
        // What cannot be taken leaves everything as it was, and says why.
        std::fs::write(&reader, "second\n").unwrap();
        node.hang_up();
        until_said(&log, "the settings stay as they are: auth.token_admin and auth.token_readonly are the same");
        assert_eq!(code("second").await, None);
        std::fs::remove_file(&reader).unwrap();
        node.hang_up();
        until_said(&log, "the settings stay as they are: cannot read auth.token_readonly_file");
        assert_eq!(code("second").await, None);
        assert_eq!(code("reader").await, Some(Code::PermissionDenied));
    });
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(!said.contains("second"), "{said}");
}

#[test]
fn an_open_door_to_the_network_is_said_once() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("node.log");
    let mut open = command(directory.path(), "0.0.0.0:0");
    open.env("CHRONOS_LOG__FILE", &log);
    let node = Node::spawn(open, directory.path());
    drop(node);
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(said.matches("AUTHENTICATION IS OFF").count(), 1, "{said}");
}

#[test]
fn a_token_that_cannot_be_had_is_an_error_at_start() {
    for (name, value, says) in [
        ("CHRONOS_AUTH__TOKEN_ADMIN_FILE", "/nowhere/token", "auth.token_admin_file /nowhere/token"),
        ("CHRONOS_AUTH_TOKEN_ADMIN", " spaces ", "auth.token_admin: a secret is printable ASCII"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let output = command(directory.path(), FREE).env(name, value).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && told.contains(says), "{told}");
        assert!(!told.contains(" spaces "), "{told}");
    }
}

#[test]
fn the_client_shows_its_token() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_with(directory.path(), &TOKENS);
    node.until_ready();
    let client = |token: &str, sql: &str| {
        let mut client = Command::new(env!("CARGO_BIN_EXE_chronos"));
        client.args(["client", "--leader", &node.grpc.to_string(), "-e", sql]).env("CHRONOS_AUTH_TOKEN", token);
        let output = client.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(client("admin-s3cret", "CREATE TABLE t (id INT)").0, Some(0));
    assert_eq!(client("reader-s3cret", "SELECT * FROM t").0, Some(0));
    let (code, told) = client("reader-s3cret", "INSERT INTO t VALUES (1)");
    assert!(code == Some(1) && told.contains("42501") && told.contains("may only read"), "{told}");
    for token in ["", "wrong"] {
        let (code, told) = client(token, "SELECT 1");
        assert!(code == Some(1) && told.contains("28000") && told.contains("CHRONOS_AUTH_TOKEN"), "{told}");
    }
}
