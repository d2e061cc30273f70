//! Every door of a group with tokens and certificates, by what a caller shows: one table, of what was seen.
//!
//! `cargo test --test daemon every_door -- --nocapture` prints it.

use crate::certificates::{Authority, Files, Validity};
use crate::patience::{Patience, until};
use crate::process::wire::admin_service_client::AdminServiceClient;
use crate::process::wire::forward_service_client::ForwardServiceClient;
use crate::process::wire::health_service_client::HealthServiceClient;
use crate::process::wire::peer_frame::Frame;
use crate::process::wire::peer_service_client::PeerServiceClient;
use crate::process::wire::sql_service_client::SqlServiceClient;
use crate::process::wire::sync_service_client::SyncServiceClient;
use crate::process::wire::sync_status_service_client::SyncStatusServiceClient;
use crate::process::wire::{self, PeerFrame, PeerHello, change_members_request::Change};
use crate::process::{Node, free_ports, wait};
use crate::tls::{connect, https_as};
use std::path::Path;
use std::process::{Command, Stdio};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

/// Who asks, and how.
struct Caller<'a> {
    shows: &'static str,
    files: &'a Files,
    has_certificate: bool,
    token: Option<&'static str>,
    cluster_token: Option<&'static str>,
    /// He says that he hands on what an operator has asked him for.
    hands_on: bool,
}

impl Caller<'_> {
    /// What he shows, as names and values.
    fn headers(&self) -> Vec<(&'static str, String)> {
        let token = self.token.map(|token| ("authorization", format!("Bearer {token}")));
        let cluster = self.cluster_token.map(|token| ("x-chronos-cluster-token", token.to_owned()));
        let handed_on = self.hands_on.then(|| ("x-chronos-handed-on", "1".to_owned()));
        token.into_iter().chain(cluster).chain(handed_on).collect()
    }
}

const GRPC: [&str; 21] = [
    "gRPC SQL, read",
    "gRPC SQL, write",
    "gRPC query, read",
    "gRPC query, write",
    "gRPC batch, read",
    "gRPC batch, write",
    "gRPC connectivity",
    "gRPC health",
    "gRPC reflection",
    "gRPC admin, report",
    "gRPC admin, members",
    "gRPC admin, change",
    "gRPC admin, transfer",
    "gRPC snapshot",
    "Sync",
    "Sync status",
    "peers: Identify",
    "peers: Link",
    "peers: Install",
    "peers: Content",
    "peers: Forward",
];

/// What is answered to whoever gets a connection.
const OPEN: [&str; 4] = ["HTTP /health", "HTTP /ready", "HTTP /", "gRPC health"];

/// What is answered without a certificate too: what watches over a node has none.
const WITHOUT_CERTIFICATE: [&str; 2] = ["HTTP /health", "HTTP /ready"];

const HTTP: [(&str, &str, &str, &str); 10] = [
    ("HTTP /health", "GET", "/health", ""),
    ("HTTP /ready", "GET", "/ready", ""),
    ("HTTP /", "GET", "/", ""),
    ("HTTP /metrics", "GET", "/metrics", ""),
    ("HTTP /sql, read", "POST", "/sql", r#"{"sql": "SELECT 1"}"#),
    ("HTTP /sql, write", "POST", "/sql", r#"{"sql": "DELETE FROM t"}"#),
    ("HTTP /status", "GET", "/status", ""),
    ("HTTP admin, members", "GET", "/admin/members", ""),
    ("HTTP admin, change", "POST", "/admin/members", r#"{"remove": "node9"}"#),
    ("HTTP admin, transfer", "POST", "/admin/transfer", r#"{"to": "node9"}"#),
];

/// Two nodes, and the certificates of their authority.
struct World {
    _directory: tempfile::TempDir,
    nodes: Vec<Node>,
}

impl World {
    fn start(server: &Files) -> World {
        let directory = tempfile::tempdir().unwrap();
        let ports = free_ports(2);
        let start = |at: usize| {
            let (id, other) = (format!("node{}", at + 1), 1 - at);
            let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
            command.args(["node", "--id", &id, "--address", &format!("127.0.0.1:{}", ports[at])]);
            command.args(["--peers", &format!("node{}=127.0.0.1:{}", other + 1, ports[other])]);
            command.arg("--data-dir").arg(directory.path()).envs(server.variables());
            command.env("CHRONOS_AUTH_TOKEN_ADMIN", "admin-s3cret").env("CHRONOS_AUTH_TOKEN_READONLY", "reader-s3cret");
            command.env("CHRONOS_AUTH__CLUSTER_TOKEN", "cluster-s3cret");
            command.env("RUST_LOG", "error").env("CHRONOS_HTTP__ADDRESS", "127.0.0.1:0");
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            Node::spawn_as(command, directory.path(), &id)
        };
        World { nodes: vec![start(0), start(1)], _directory: directory }
    }

    fn http(&self, caller: &Caller, (_, method, path, sent): (&str, &str, &str, &str)) -> String {
        let headers = caller.headers().into_iter();
        let head = headers.fold(String::new(), |head, (name, value)| head + name + ": " + &value + "\r\n");
        let answer = https_as(self.nodes[0].http, caller.files, caller.has_certificate, (method, path, sent), &head);
        answer.map_or_else(|| "no TLS".to_owned(), |(status, _)| status.to_string())
    }

    async fn grpc(&self, caller: &Caller<'_>, door: &str) -> String {
        match connect(&self.nodes[0], caller.files, caller.has_certificate).await {
            Ok(channel) => call(channel, caller, door).await,
            Err(_) => "no TLS".to_owned(),
        }
    }
}

fn ok() -> String {
    "ok".to_owned()
}

fn said<T>(answer: Result<Response<T>, Status>) -> String {
    match answer {
        Ok(_) => ok(),
        // What the connection failed with, rather than an answer.
        Err(status) if std::error::Error::source(&status).is_some() => "no TLS".to_owned(),
        Err(status) => format!("{:?}", status.code()),
    }
}

fn signed<T>(caller: &Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in caller.headers() {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    request
}

/// A statement, by each of the calls that take one; read or write.
async fn call_sql(channel: Channel, caller: &Caller<'_>, door: &str) -> String {
    let mut sql = SqlServiceClient::new(channel);
    let text = if door.ends_with("write") { "DELETE FROM t" } else { "SELECT 1" };
    let statement = || signed(caller, wire::SqlRequest { sql: text.to_owned() });
    match door.trim_start_matches("gRPC ").split(',').next().unwrap() {
        "SQL" => said(sql.execute_sql(statement()).await),
        "query" => match sql.query_sql(statement()).await {
            Ok(answers) => {
                let first = answers.into_inner().message().await;
                let first = first.map(|first| first.map_or("nothing".to_owned(), |first| first.sqlstate));
                first.map_or_else(|status| said::<()>(Err(status)), |state| if state.is_empty() { ok() } else { state })
            }
            Err(status) => said::<()>(Err(status)),
        },
        "batch" => {
            let batch = wire::BatchRequest { sql: vec!["SELECT 1".to_owned(), text.to_owned()] };
            said(sql.execute_batch(signed(caller, batch)).await)
        }
        other => panic!("no call {other}"),
    }
}

/// What there is beside SQL and operators.
async fn call_other(channel: Channel, caller: &Caller<'_>, door: &str) -> String {
    match door {
        "gRPC connectivity" => {
            let asked = signed(caller, wire::HealthRequest {});
            said(HealthServiceClient::new(channel).get_connectivity(asked).await)
        }
        "gRPC health" => {
            let asked = signed(caller, tonic_health::pb::HealthCheckRequest { service: String::new() });
            said(tonic_health::pb::health_client::HealthClient::new(channel).check(asked).await)
        }
        "gRPC reflection" => {
            let names = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let asked = signed(caller, tokio_stream::once(names));
            said(ServerReflectionClient::new(channel).server_reflection_info(asked).await)
        }
        "Sync" => said(SyncServiceClient::new(channel).sync(signed(caller, wire::SyncRequest::default())).await),
        "Sync status" => {
            let asked = signed(caller, wire::SyncStatusRequest {});
            said(SyncStatusServiceClient::new(channel).get_sync_status(asked).await)
        }
        other => panic!("no door {other}"),
    }
}

async fn call(channel: Channel, caller: &Caller<'_>, door: &str) -> String {
    // Whoever gets so far is told that the group is another one: nothing is disturbed.
    let hello = || PeerHello {
        version: u32::from(chronos::raft::WIRE_VERSION),
        cluster_id: vec![0; 16],
        disk_id: vec![0; 16],
        ..PeerHello::default()
    };
    let admin = AdminServiceClient::new(channel.clone());
    let (mut admin, mut peers) = (admin, PeerServiceClient::new(channel.clone()));
    match door {
        "gRPC admin, report" => said(admin.report(signed(caller, wire::ReportRequest { metrics: true })).await),
        "gRPC admin, members" => said(admin.members(signed(caller, wire::MembersRequest {})).await),
        "gRPC admin, change" => {
            let change = wire::ChangeMembersRequest { change: Some(Change::Remove("node9".to_owned())) };
            said(admin.change_members(signed(caller, change)).await)
        }
        "gRPC admin, transfer" => {
            let asked = wire::TransferLeaderRequest { to: "node9".to_owned() };
            said(admin.transfer_leader(signed(caller, asked)).await)
        }
        "gRPC snapshot" => {
            let patience = Patience::new();
            loop {
                // One is made at a time, and who asked before has only just gone.
                let said = said(admin.create_snapshot(signed(caller, wire::SnapshotRequest::default())).await);
                if said != "ResourceExhausted" {
                    break said;
                }
                patience.spend(|| said);
            }
        }
        "peers: Identify" => said(peers.identify(signed(caller, wire::IdentifyRequest::default())).await),
        "peers: Link" => {
            let frame = PeerFrame { frame: Some(Frame::Hello(hello())) };
            said(peers.link(signed(caller, tokio_stream::once(frame))).await)
        }
        "peers: Install" => {
            let offer = wire::SnapshotOffer { hello: Some(hello()), term: 0, manifest_bytes: 0 };
            let piece = wire::SnapshotPiece { piece: Some(wire::snapshot_piece::Piece::Offer(offer)) };
            match peers.install(signed(caller, tokio_stream::once(piece))).await {
                Ok(answers) => said(answers.into_inner().message().await.map(Response::new)),
                Err(status) => said::<()>(Err(status)),
            }
        }
        "peers: Content" => {
            let asked = wire::ContentRequest { hello: Some(hello()), index: 1 };
            said(peers.content(signed(caller, asked)).await)
        }
        "peers: Forward" => {
            let asked = wire::ForwardRequest {
                sql: vec!["SELECT 1".to_owned()],
                deadline_ms: 5000,
                consistency: "linearizable".to_owned(),
                ..wire::ForwardRequest::default()
            };
            said(ForwardServiceClient::new(channel).forward(signed(caller, asked)).await)
        }
        door if door.ends_with("read") || door.ends_with("write") => call_sql(channel, caller, door).await,
        door => call_other(channel, caller, door).await,
    }
}

/// What was seen, as a table.
fn drawn(callers: &[Caller], rows: &[(&str, Vec<String>)]) -> String {
    let line = |door: &str, cells: &mut dyn Iterator<Item = &str>| {
        let columns = cells.map(|cell| format!("{cell:<18}"));
        let columns: Vec<String> = std::iter::once(format!("{door:<20}")).chain(columns).collect();
        columns.join(" | ").trim_end().to_owned()
    };
    let mut lines = vec![line("", &mut callers.iter().map(|caller| caller.shows))];
    lines.extend(rows.iter().map(|(door, cells)| line(door, &mut cells.iter().map(String::as_str))));
    lines.join("\n")
}

#[test]
fn every_door_of_a_group_asks_who_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let files: &Path = directory.path();
    let authority = Authority::new();
    let server = authority.write(files, "server", "localhost", Validity::Now);
    let right = authority.write(files, "client", "somebody", Validity::Now);
    let stranger = Authority::new().write(files, "other", "somebody", Validity::Now).trusting(&right);
    let caller = |shows, files, has_certificate, token, cluster_token| Caller {
        shows,
        files,
        has_certificate,
        token,
        cluster_token,
        hands_on: false,
    };
    let (admin, cluster) = (Some("admin-s3cret"), Some("cluster-s3cret"));
    let callers = [
        caller("no token", &right, true, None, None),
        caller("wrong token", &right, true, Some("s3cret"), Some("s3cret")),
        caller("read-only token", &right, true, Some("reader-s3cret"), Some("reader-s3cret")),
        caller("admin token", &right, true, admin, admin),
        caller("cluster token", &right, true, None, cluster),
        caller("no certificate", &right, false, admin, cluster),
        caller("wrong CA", &stranger, true, admin, cluster),
        Caller { hands_on: true, ..caller("handed on", &right, true, None, cluster) },
        caller("all of it", &right, true, admin, cluster),
    ];
    let world = World::start(&server);
    let all = callers.last().unwrap();
    until("there is a table", || {
        let create = r#"{"sql": "CREATE TABLE IF NOT EXISTS t (id INT PRIMARY KEY)"}"#;
        let said = world.http(all, ("", "POST", "/sql", create));
        if said == "200" { Ok(()) } else { Err(said) }
    });
    // What is handed on goes to the leader: the one that is asked here.
    until("node1 leads", || {
        let (_, health) = https_as(world.nodes[0].http, all.files, true, ("GET", "/health", ""), "").unwrap();
        if health.contains("\"role\":\"Leader\"") {
            return Ok(());
        }
        Err(world.http(all, ("", "POST", "/admin/transfer", r#"{"to": "node1"}"#)))
    });
    let mut rows: Vec<(&str, Vec<String>)> = Vec::new();
    for door in HTTP {
        rows.push((door.0, callers.iter().map(|caller| world.http(caller, door)).collect()));
    }
    wait(async {
        for door in GRPC {
            let mut cells = Vec::new();
            for caller in &callers {
                cells.push(world.grpc(caller, door).await);
            }
            rows.push((door, cells));
        }
    });
    let table = drawn(&callers, &rows);
    println!("{table}");
    for (door, cells) in &rows {
        // A cluster's port is never open: whatever else it is shown, not without a certificate of the authority.
        let (is_open, is_http) = (OPEN.contains(door), door.starts_with("HTTP"));
        let answered = if is_http { "200" } else { "ok" };
        let refused = if is_http { "403" } else { "no TLS" };
        let uncertified = if WITHOUT_CERTIFICATE.contains(door) { answered } else { refused };
        assert_eq!((cells[5].as_str(), cells[6].as_str()), (uncertified, "no TLS"), "{door}");
        let without = if is_http { "401" } else { "Unauthenticated" };
        let expected = if is_open { answered } else { without };
        assert_eq!((cells[0].as_str(), cells[1].as_str()), (expected, expected), "{door}");
        // An operator's token is not a node's, and a node's is not an operator's.
        if door.starts_with("peers") {
            assert_eq!((cells[2].as_str(), cells[3].as_str()), (without, without), "{door}");
        } else if !is_open {
            assert_eq!(cells[4], without, "{door}");
            // A node hands on what changes the group, over gRPC, and nothing else.
            let is_handed_on = ["gRPC admin, change", "gRPC admin, transfer"].contains(door);
            assert_eq!(cells[7] == without, !is_handed_on, "{door}: {}", cells[7]);
        }
    }
    assert_eq!(table, EXPECTED.trim_matches('\n'));
}

/// Where a door lets somebody in who asks for what there is not, it says so in its own words: 400, `InvalidArgument`,
/// `Unimplemented`, `FailedPrecondition`.
const EXPECTED: &str = "
                     | no token           | wrong token        | read-only token    | admin token        | cluster token      | no certificate     | wrong CA           | handed on          | all of it
HTTP /health         | 200                | 200                | 200                | 200                | 200                | 200                | no TLS             | 200                | 200
HTTP /ready          | 200                | 200                | 200                | 200                | 200                | 200                | no TLS             | 200                | 200
HTTP /               | 200                | 200                | 200                | 200                | 200                | 403                | no TLS             | 200                | 200
HTTP /metrics        | 401                | 401                | 200                | 200                | 401                | 403                | no TLS             | 401                | 200
HTTP /sql, read      | 401                | 401                | 200                | 200                | 401                | 403                | no TLS             | 401                | 200
HTTP /sql, write     | 401                | 401                | 403                | 200                | 401                | 403                | no TLS             | 401                | 200
HTTP /status         | 401                | 401                | 200                | 200                | 401                | 403                | no TLS             | 401                | 200
HTTP admin, members  | 401                | 401                | 200                | 200                | 401                | 403                | no TLS             | 401                | 200
HTTP admin, change   | 401                | 401                | 403                | 400                | 401                | 403                | no TLS             | 401                | 400
HTTP admin, transfer | 401                | 401                | 403                | 400                | 401                | 403                | no TLS             | 401                | 400
gRPC SQL, read       | Unauthenticated    | Unauthenticated    | ok                 | ok                 | Unauthenticated    | no TLS             | no TLS             | Unauthenticated    | ok
gRPC SQL, write      | Unauthenticated    | Unauthenticated    | PermissionDenied   | ok                 | Unauthenticated    | no TLS             | no TLS             | Unauthenticated    | ok
gRPC query, read     | Unauthenticated    | Unauthenticated    | ok                 | ok                 | Unauthenticated    | no TLS             | no TLS             | Unauthenticated    | ok
gRPC query, write    | Unauthenticated    | Unauthenticated    | PermissionDenied   | ok                 | Unauthenticated    | no TLS             | no TLS             | Unauthenticated    | ok
gRPC batch, read     | Unauthenticated    | Unauthenticated    | ok                 | ok                 | Unauthenticated    | no TLS             | no TLS             | Unauthenticated    | ok
gRPC batch, write    | Unauthenticated    | Unauthenticated    | PermissionDenied   | ok                 | Unauthenticated    | no TLS             | no TLS             | Unauthenticated    | ok
gRPC connectivity    | Unauthenticated    | Unauthenticated    | ok                 | ok                 | Unauthenticated    | no TLS             | no TLS             | Unauthenticated    | ok
gRPC health          | ok                 | ok                 | ok                 | ok                 | ok                 | no TLS             | no TLS             | ok                 | ok
gRPC reflection      | Unauthenticated    | Unauthenticated    | ok                 | ok                 | Unauthenticated    | no TLS             | no TLS             | Unauthenticated    | ok
gRPC admin, report   | Unauthenticated    | Unauthenticated    | ok                 | ok                 | Unauthenticated    | no TLS             | no TLS             | Unauthenticated    | ok
gRPC admin, members  | Unauthenticated    | Unauthenticated    | ok                 | ok                 | Unauthenticated    | no TLS             | no TLS             | Unauthenticated    | ok
gRPC admin, change   | Unauthenticated    | Unauthenticated    | PermissionDenied   | InvalidArgument    | Unauthenticated    | no TLS             | no TLS             | InvalidArgument    | InvalidArgument
gRPC admin, transfer | Unauthenticated    | Unauthenticated    | PermissionDenied   | InvalidArgument    | Unauthenticated    | no TLS             | no TLS             | InvalidArgument    | InvalidArgument
gRPC snapshot        | Unauthenticated    | Unauthenticated    | PermissionDenied   | ok                 | Unauthenticated    | no TLS             | no TLS             | Unauthenticated    | ok
Sync                 | Unauthenticated    | Unauthenticated    | PermissionDenied   | Unimplemented      | Unauthenticated    | no TLS             | no TLS             | Unauthenticated    | Unimplemented
Sync status          | Unauthenticated    | Unauthenticated    | ok                 | ok                 | Unauthenticated    | no TLS             | no TLS             | Unauthenticated    | ok
peers: Identify      | Unauthenticated    | Unauthenticated    | Unauthenticated    | Unauthenticated    | ok                 | no TLS             | no TLS             | ok                 | ok
peers: Link          | Unauthenticated    | Unauthenticated    | Unauthenticated    | Unauthenticated    | FailedPrecondition | no TLS             | no TLS             | FailedPrecondition | FailedPrecondition
peers: Install       | Unauthenticated    | Unauthenticated    | Unauthenticated    | Unauthenticated    | FailedPrecondition | no TLS             | no TLS             | FailedPrecondition | FailedPrecondition
peers: Content       | Unauthenticated    | Unauthenticated    | Unauthenticated    | Unauthenticated    | FailedPrecondition | no TLS             | no TLS             | FailedPrecondition | FailedPrecondition
peers: Forward       | Unauthenticated    | Unauthenticated    | Unauthenticated    | Unauthenticated    | ok                 | no TLS             | no TLS             | ok                 | ok
";
