//! Certificates of a real node: who is let in, what is said to the others, and what changes while it runs.

use crate::certificates::{Authority, Files, Validity};
use crate::process::wire::SqlRequest;
use crate::process::wire::sql_service_client::SqlServiceClient;
use crate::process::{FREE, Node, body, command, wait};
use chronos::clock::{Clock, SystemClock};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// A node with its certificates, and a client with its own.
struct World {
    certificates: tempfile::TempDir,
    authority: Authority,
    server: Files,
    client: Files,
    data: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let server = authority.write(directory.path(), "server", "localhost", Validity::Now);
        let client = authority.write(directory.path(), "client", "somebody", Validity::Now);
        World { certificates: directory, authority, server, client, data: tempfile::tempdir().unwrap() }
    }

    fn files(&self) -> &Path {
        self.certificates.path()
    }

    fn start(&self, more: &[(&str, &str)]) -> Node {
        let settings: Vec<(&str, &str)> = self.server.variables().into_iter().chain(more.iter().copied()).collect();
        Node::start_with(self.data.path(), &settings)
    }
}

pub async fn connect(node: &Node, files: &Files, identity: bool) -> Result<Channel, tonic::transport::Error> {
    let read = |path: &Path| std::fs::read(path).unwrap();
    let mut tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&files.ca))).domain_name("localhost");
    if identity {
        tls = tls.identity(Identity::from_pem(read(&files.cert), read(&files.key)));
    }
    Endpoint::from_shared(format!("https://{}", node.grpc)).unwrap().tls_config(tls)?.connect().await
}

/// Whether a statement is answered over a connection.
async fn answers(channel: &Channel) -> bool {
    let sql = SqlRequest { sql: "SELECT 1".into() };
    SqlServiceClient::new(channel.clone()).execute_sql(sql).await.is_ok_and(|answer| answer.into_inner().success)
}

async fn is_let_in(node: &Node, files: &Files, identity: bool) -> bool {
    match connect(node, files, identity).await {
        Ok(channel) => answers(&channel).await,
        Err(_) => false,
    }
}

/// What is said of a certificate that another authority has signed.
const FOREIGN: &str = "the certificate in tls.cert is not signed by the authority in tls.ca_cert";

/// One request over HTTPS: status and answer. None where the handshake fails.
fn https(address: SocketAddr, files: &Files, identity: bool, request: (&str, &str, &str)) -> Option<(u16, String)> {
    https_as(address, files, identity, request, "")
}

/// The same with more lines in its head, each with its end.
pub fn https_as(
    address: SocketAddr,
    files: &Files,
    identity: bool,
    request: (&str, &str, &str),
    more: &str,
) -> Option<(u16, String)> {
    over(encrypted(address, files, identity), request, more)
}

/// One request, and the end of its connection.
fn over(
    mut stream: StreamOwned<ClientConnection, TcpStream>,
    request: (&str, &str, &str),
    more: &str,
) -> Option<(u16, String)> {
    let (method, path, sent) = request;
    let length = sent.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(sent.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    Some((answer.split(' ').nth(1)?.parse().ok()?, answer))
}

/// A connection that shakes hands with the first request.
fn encrypted(address: SocketAddr, files: &Files, identity: bool) -> StreamOwned<ClientConnection, TcpStream> {
    encrypted_at(Arc::new(DefaultTimeProvider), address, files, identity)
}

/// The middle of the time in which an expired certificate was valid.
#[derive(Debug)]
struct Then;

impl TimeProvider for Then {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_hours(24 * 365 * 49 + 24 * 200)))
    }
}

/// The same by a client whose clock says so.
fn encrypted_at(
    clock: Arc<dyn TimeProvider>,
    address: SocketAddr,
    files: &Files,
    identity: bool,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.ca).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_details(Arc::new(rustls::crypto::ring::default_provider()), clock)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = if identity {
        let chain = vec![CertificateDer::from_pem_file(&files.cert).unwrap()];
        builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&files.key).unwrap()).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    let session = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    StreamOwned::new(session, TcpStream::connect(address).unwrap())
}

/// The status of `/status` on a connection that stays.
fn status_on(kept: &mut StreamOwned<ClientConnection, TcpStream>) -> u16 {
    kept.write_all(b"HEAD /status HTTP/1.1\r\nhost: node\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        kept.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    std::str::from_utf8(&head[9..12]).unwrap().parse().unwrap()
}

/// `chronos client -e` with certificates: code and what it says.
fn client(node: &Node, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    chronos(&["client", "--leader", &node.grpc.to_string(), "-e", "SELECT 1"], variables)
}

fn chronos(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(arguments).envs(variables.iter().copied());
    let output = command.output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(told).unwrap())
}

/// Waits until a log has said something so often.
fn until_said(log: &Path, what: &str, times: usize) {
    let began = SystemClock.monotonic();
    while std::fs::read_to_string(log).unwrap().matches(what).count() < times {
        let said = || std::fs::read_to_string(log).unwrap();
        assert!(SystemClock.monotonic().saturating_sub(began).as_secs() < 30, "{what} is missing in\n{}", said());
        std::thread::yield_now();
    }
}

#[test]
fn grpc_lets_in_who_shows_a_certificate_of_the_authority() {
    let world = World::new();
    let node = world.start(&[]);
    let other = Authority::new().write(world.files(), "other", "localhost", Validity::Now);
    let past = world.authority.write(world.files(), "past", "localhost", Validity::Past);
    wait(async {
        while !is_let_in(&node, &world.client, true).await {
            tokio::task::yield_now().await;
        }
        assert!(!is_let_in(&node, &world.client, false).await, "no certificate");
        assert!(!is_let_in(&node, &other.trusting(&world.client), true).await, "another authority");
        assert!(!is_let_in(&node, &past, true).await, "expired");
        assert!(!is_let_in(&node, &other, true).await, "the client does not know the node");
        let plain = Endpoint::from_shared(format!("http://{}", node.grpc)).unwrap().connect().await;
        assert!(match plain {
            Ok(channel) => !answers(&channel).await,
            Err(_) => true,
        });
        assert!(is_let_in(&node, &world.client, true).await, "and the node lives");
    });
}

#[test]
fn what_is_wrong_about_certificates_is_said_by_the_client() {
    let world = World::new();
    let node = world.start(&[]);
    while client(&node, &world.client.variables()).0 != Some(0) {}
    let other = Authority::new().write(world.files(), "other", "localhost", Validity::Now);
    let past = world.authority.write(world.files(), "past", "localhost", Validity::Past);
    let stranger = other.trusting(&world.client);
    let mut misnamed = world.client.variables().to_vec();
    misnamed.push(("CHRONOS_TLS_DOMAIN", "elsewhere.example"));
    for (variables, says) in [
        (&other.variables()[..], "signed by another authority than CHRONOS_TLS_CA_CERT"),
        (&stranger.variables()[..], "does not know the authority of the certificate shown to it"),
        (&past.variables()[..], "says that the certificate shown to it has expired"),
        (&misnamed[..], "for another name: see CHRONOS_TLS_DOMAIN"),
        (&[][..], "TLS"),
        (&world.client.variables()[..2], "CHRONOS_TLS_CERT, CHRONOS_TLS_KEY and CHRONOS_TLS_CA_CERT together"),
        (
            &[("CHRONOS_TLS_CERT", "/nowhere"), ("CHRONOS_TLS_KEY", "k"), ("CHRONOS_TLS_CA_CERT", "c")][..],
            "read tls.cert /nowhere",
        ),
    ] {
        let (code, told) = client(&node, variables);
        assert!(code != Some(0) && told.contains(says), "{says}: {told}");
        assert!(!told.contains("in doubt"), "{told}");
    }
    // A write that was refused in the handshake is not in doubt.
    let insert = ["client", "--leader", &node.grpc.to_string(), "-e", "CREATE TABLE t (id INT)"];
    let (code, told) = chronos(&insert, &stranger.variables());
    assert!(code == Some(1) && !told.contains("08007") && told.contains("does not know the authority"), "{told}");
    // And the other way round.
    let plain = tempfile::tempdir().unwrap();
    let open = Node::start(plain.path());
    let (code, told) = client(&open, &world.client.variables());
    assert!(code == Some(1) && told.contains("speak TLS"), "{told}");
}

#[test]
fn http_answers_without_a_certificate_what_is_open() {
    let world = World::new();
    let node = world.start(&[]);
    let asked = |files: &Files, identity| {
        let status =
            |method, path, sent| https(node.http, files, identity, (method, path, sent)).map(|(status, _)| status);
        [
            status("GET", "/health", ""),
            status("GET", "/ready", ""),
            status("GET", "/metrics", ""),
            status("GET", "/status", ""),
            status("GET", "/", ""),
            status("POST", "/sql", r#"{"sql": "SELECT 1"}"#),
        ]
    };
    while https(node.http, &world.client, false, ("GET", "/ready", "")).is_none_or(|(status, _)| status != 200) {}
    let (ok, no) = (Some(200), Some(403));
    assert_eq!(asked(&world.client, false), [ok, ok, no, no, no, no]);
    assert_eq!(asked(&world.client, true), [ok; 6]);
    let stranger = Authority::new().write(world.files(), "other", "localhost", Validity::Now).trusting(&world.client);
    assert_eq!(asked(&stranger, true), [None; 6]);
    // A plain request at this port gets no answer that could be taken for one.
    let mut plain = TcpStream::connect(node.http).unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: node\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[test]
fn a_token_is_asked_for_over_tls_too() {
    let world = World::new();
    let node = world.start(&[("CHRONOS_AUTH_TOKEN_ADMIN", "secret"), ("CHRONOS_HTTP__METRICS_OPEN", "true")]);
    while https(node.http, &world.client, false, ("GET", "/ready", "")).is_none_or(|(status, _)| status != 200) {}
    let status = |identity, path| https(node.http, &world.client, identity, ("GET", path, "")).unwrap().0;
    assert_eq!((status(false, "/metrics"), status(false, "/status")), (200, 403));
    assert_eq!((status(true, "/metrics"), status(true, "/status")), (200, 401));
    let (code, told) = client(&node, &world.client.variables());
    assert!(code == Some(1) && told.contains("28000"), "{told}");
    let mut both = world.client.variables().to_vec();
    both.push(("CHRONOS_AUTH_TOKEN", "secret"));
    assert_eq!(client(&node, &both).0, Some(0));
}

#[test]
fn who_finds_no_connection_left_is_told_so_under_tls_too() {
    let world = World::new();
    let node = world.start(&[("CHRONOS_LIMITS__CONNECTIONS", "1")]);
    wait(async {
        let held = connect(&node, &world.client, true).await.unwrap();
        assert!(answers(&held).await);
        let (code, told) = client(&node, &world.client.variables());
        assert!(code == Some(1) && told.contains("limits.connections is reached"), "{told}");
        assert!(answers(&held).await);
    });
}

#[test]
fn certificates_change_without_dropping_a_connection_that_still_counts() {
    let world = World::new();
    let log = world.data.path().join("node.log");
    let node = world.start(&[("CHRONOS_LOG__FILE", log.to_str().unwrap()), ("RUST_LOG", "info")]);
    let until_said = |what: &str, times: usize| until_said(&log, what, times);
    let next = Authority::new();
    let new_server = next.write(world.files(), "new-server", "localhost", Validity::Now);
    let new_client = next.write(world.files(), "new-client", "somebody", Validity::Now);
    wait(async {
        let before = connect(&node, &world.client, true).await.unwrap();
        while !answers(&before).await {
            tokio::task::yield_now().await;
        }
        assert!(!is_let_in(&node, &new_client, true).await);
        let mut kept = encrypted(node.http, &world.client, true);
        assert_eq!(status_on(&mut kept), 200);
        let both = [&world.server.ca, &new_server.ca].map(|path| std::fs::read_to_string(path).unwrap());
        world.server.replace_with(&new_server);
        std::fs::write(&world.server.ca, both.concat()).unwrap();
        node.hang_up();
        until_said("read the settings again", 1);
        assert!(answers(&before).await, "who is there stays");
        assert_eq!(status_on(&mut kept), 200);
        let newer = connect(&node, &new_client, true).await.unwrap();
        world.server.replace_with(&new_server);
        node.hang_up();
        until_said("read the settings again", 2);
        // Also where nothing is said on it.
        until_said("a gRPC connection is ended, its certificate counts no more", 1);
        assert!(!answers(&before).await && answers(&newer).await, "and goes with the authority that vouched for him");
        assert_eq!(status_on(&mut kept), 403);
        assert!(is_let_in(&node, &new_client, true).await);
        assert!(!is_let_in(&node, &world.client.trusting(&new_client), true).await, "the former authority");
        let of = |files: &Files| https(node.http, files, true, ("GET", "/status", "")).map(|(status, _)| status);
        assert_eq!(of(&new_client), Some(200));
        assert_eq!(of(&world.client.trusting(&new_client)), None);
        // What is wrong leaves everything as it was, and is said.
        let past = next.write(world.files(), "past", "localhost", Validity::Past);
        world.server.replace_with(&past);
        node.hang_up();
        until_said("the settings stay as they are: tls.cert: certificate expired", 1);
        // Neither is one that the node's own authority has not signed, however long ago.
        world.server.replace_with(&past.trusting(&world.client));
        node.hang_up();
        until_said(FOREIGN, 1);
        world.server.replace_with(&new_server.trusting(&world.client));
        node.hang_up();
        until_said(FOREIGN, 2);
        assert!(is_let_in(&node, &new_client, true).await && answers(&newer).await);
        std::fs::copy(&world.client.key, &world.server.cert).unwrap();
        node.hang_up();
        until_said("the settings stay as they are: tls.cert holds no certificate", 1);
        assert!(is_let_in(&node, &new_client, true).await && answers(&newer).await);
    });
}

#[test]
fn certificates_that_nobody_could_use_are_an_error_at_start() {
    let world = World::new();
    let foreign = Authority::new().write(world.files(), "foreign", "localhost", Validity::Now);
    let swapped = Files { key: world.client.key.clone(), ..world.server.clone() };
    let no_key = Files { key: world.server.cert.clone(), ..world.server.clone() };
    let no_file = Files { ca: world.files().join("nowhere"), ..world.server.clone() };
    for (variables, says) in [
        (&foreign.trusting(&world.client).variables()[..], FOREIGN),
        (&swapped.variables()[..], "tls.key does not belong to tls.cert"),
        (&no_key.variables()[..], "tls.key holds no private key"),
        (&no_file.variables()[..], "read tls.ca_cert"),
        (&world.server.variables()[..1], "missing: key, ca_cert"),
        (&world.server.variables()[1..], "missing: cert"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let output = command(directory.path(), FREE).envs(variables.iter().copied()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && told.contains(says), "{says}: {told}");
        assert!(!directory.path().join("node1").exists(), "nothing was touched");
    }
}

#[test]
fn a_node_starts_with_an_expired_certificate_and_says_so() {
    let world = World::new();
    let past = world.authority.write(world.files(), "past", "localhost", Validity::Past);
    world.server.replace_with(&past);
    let log = world.data.path().join("node.log");
    let _node = world.start(&[("CHRONOS_LOG__FILE", log.to_str().unwrap()), ("RUST_LOG", "info")]);
    let told = std::fs::read_to_string(&log).unwrap();
    assert!(told.contains("will refuse tls.cert: certificate expired"), "{told}");
}

#[test]
fn a_token_is_taken_away_however_old_the_certificate_in_use_is() {
    let world = World::new();
    world.server.replace_with(&world.authority.write(world.files(), "past", "localhost", Validity::Past));
    let (log, token) = (world.data.path().join("node.log"), world.files().join("token"));
    let put = |text: &str| std::fs::write(&token, text).unwrap();
    put("leaked");
    let node = world.start(&[
        ("CHRONOS_LOG__FILE", log.to_str().unwrap()),
        ("RUST_LOG", "info"),
        ("CHRONOS_AUTH__TOKEN_ADMIN_FILE", token.to_str().unwrap()),
    ]);
    let status = |token: &str| {
        let stream = encrypted_at(Arc::new(Then), node.http, &world.client, true);
        over(stream, ("GET", "/status", ""), &format!("authorization: Bearer {token}\r\n")).unwrap().0
    };
    assert_eq!((status("leaked"), status("fresh")), (200, 401));
    put("fresh");
    node.hang_up();
    until_said(&log, "read the settings again", 1);
    assert_eq!((status("leaked"), status("fresh")), (401, 200));
    until_said(&log, "will refuse tls.cert: certificate expired", 2);
    // Another one that has expired is not taken in its place, and what comes with it is not either.
    world.server.replace_with(&world.authority.write(world.files(), "past", "localhost", Validity::Past));
    put("newer");
    node.hang_up();
    until_said(&log, "the settings stay as they are: tls.cert: certificate expired", 1);
    assert_eq!((status("fresh"), status("newer")), (200, 401));
    world.server.replace_with(&world.authority.write(world.files(), "now", "localhost", Validity::Now));
    node.hang_up();
    until_said(&log, "read the settings again", 2);
    let answer = https_as(node.http, &world.client, true, ("GET", "/status", ""), "authorization: Bearer newer\r\n");
    assert_eq!(answer.unwrap().0, 200);
}

#[test]
fn every_client_command_speaks_tls() {
    let world = World::new();
    let node = world.start(&[("CHRONOS_AUTH_TOKEN_ADMIN", "secret"), ("CHRONOS_AUTH_TOKEN_READONLY", "reader")]);
    let csv = world.files().join("rows.csv");
    std::fs::write(&csv, "id,x\n1,0.5\n2,1.5\n").unwrap();
    let path = |name: &str| world.files().join(name).to_str().unwrap().to_string();
    let address = node.grpc.to_string();
    let with = |token| [&world.client.variables()[..], &[("CHRONOS_AUTH_TOKEN", token)]].concat();
    while chronos(&["client", "--leader", &format!("https://{address}"), "-e", "SELECT 1"], &with("secret")).0
        != Some(0)
    {}
    for arguments in [
        &["import", csv.to_str().unwrap(), "--table", "rows", "--leader", &address][..],
        &["export", "--table", "rows", "--leader", &address, "--output", &path("out.csv")],
        &["snapshot", "create", "--leader", &address, "--output", &path("db.snapshot")],
        &["snapshot", "verify", "--input", &path("db.snapshot")],
        &["bench", "--leader", &address, "--clients", "2", "--seconds", "1"],
    ] {
        let (code, told) = chronos(arguments, &with("secret"));
        assert_eq!(code, Some(0), "{arguments:?}: {told}");
    }
    let (code, told) =
        chronos(&["snapshot", "create", "--leader", &address, "--output", &path("no.snapshot")], &with("reader"));
    assert!(code == Some(1) && told.contains("42501"), "{told}");
    let (_, answer) = https(node.http, &world.client, false, ("GET", "/health", "")).unwrap();
    assert!(body(&answer).contains("\"status\""), "{answer}");
}
