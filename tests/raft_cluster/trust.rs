//! By what the nodes of a running group know each other: certificates alone, and a token that is changed on the way.

use crate::certificates::{Authority, Validity};
use crate::group::{Group, alone, name};
use crate::patience::until;
use crate::process::wire::peer_service_client::PeerServiceClient;
use crate::process::wire::{IdentifyRequest, PeerFrame, PeerHello, peer_frame::Frame};
use crate::process::{Node, free_ports, wait};
use serde_json::{Value as Json, json};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tokio_stream::StreamExt;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

#[test]
fn certificates_alone_make_a_group() {
    let _turn = alone();
    let directory = tempfile::tempdir().unwrap();
    let files = Authority::new().write(directory.path(), "node", "localhost", Validity::Now);
    let addresses: Vec<String> = free_ports(3).iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let start = |at: usize| {
        let others = (0..3).filter(|other| *other != at);
        let peers: Vec<String> = others.map(|other| format!("{}={}", name(other), addresses[other])).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
        command.args(["node", "--id", &name(at), "--address", &addresses[at], "--peers", &peers.join(",")]);
        command.arg("--data-dir").arg(directory.path()).envs(files.variables());
        command.env("RUST_LOG", "error").env("CHRONOS_HTTP__ADDRESS", "127.0.0.1:0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Node::spawn_as(command, directory.path(), &name(at))
    };
    let chronos = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
        let output = command.args(arguments).envs(files.variables()).output().unwrap();
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        if output.status.success() { Ok(told) } else { Err(told) }
    };
    let mut nodes: Vec<Option<Node>> = (0..3).map(|at| Some(start(at))).collect();
    let all = addresses.join(",");
    until("it serves", || chronos(&["admin", "--leader", &all, "ready"]));
    chronos(&["client", "--leader", &all, "-e", "CREATE TABLE t (id INT PRIMARY KEY)"]).unwrap();
    for (at, address) in addresses.iter().enumerate() {
        // Two of the three hand it on.
        chronos(&["client", "--leader", address, "-e", &format!("INSERT INTO t VALUES ({at})")]).unwrap();
    }
    let members: Json =
        serde_json::from_str(&chronos(&["admin", "--leader", &all, "members", "--json"]).unwrap()).unwrap();
    let leads = (0..3).find(|at| members["leader"] == json!(name(*at))).unwrap();
    nodes[leads].take().unwrap().kill();
    chronos(&["client", "--leader", &all, "-e", "INSERT INTO t VALUES (3)"]).unwrap();
    nodes[leads] = Some(start(leads));
    until("it has what came meanwhile", || {
        let told = chronos(&["client", "--leader", &addresses[leads], "-e", "SELECT COUNT(*) FROM t"])?;
        if told.contains(" 4\n") { Ok(()) } else { Err(told) }
    });
}

#[test]
fn the_token_of_a_group_is_changed_while_it_serves() {
    let directory = tempfile::tempdir().unwrap();
    let leaked = |file: &str| &*directory.path().join(file).to_str().unwrap().to_owned().leak();
    let (token, log) = (leaked("token"), leaked("log"));
    std::fs::write(token, "old\n").unwrap();
    let settings = [("CHRONOS_AUTH__CLUSTER_TOKEN_FILE", token), ("CHRONOS_LOG_FILE", log), ("RUST_LOG", "info")];
    let mut group = Group::start_with(&settings);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let mut written = 0;
    // Somebody has read the old one, and holds a link to a node that is not started anew.
    let spied = group.leader();
    let address = format!("http://{}", group.node(spied).grpc);
    let spy = spy(Endpoint::from_shared(address).unwrap(), Some("old"));
    assert_eq!(spy.recv_timeout(Duration::from_secs(10)), Ok("linked"));
    for (phase, tokens) in ["old\nnew\n", "new\nold\n", "new\n"].into_iter().enumerate() {
        std::fs::write(token, tokens).unwrap();
        for at in 0..3 {
            group.node(at).hang_up();
            until("the token is read", || {
                let read = std::fs::read_to_string(log).unwrap().matches("read the settings again").count();
                if read == 3 * phase + at + 1 { Ok(()) } else { Err(read.to_string()) }
            });
            // A member that comes back now makes new connections to all of them.
            let back = (at + 1) % 3;
            if back != group.leader() && back != spied {
                group.kill(back);
                group.restart(back);
                group.until_ready(back);
            }
            for other in 0..3 {
                written += 1;
                group.sql(other, &format!("INSERT INTO t VALUES ({written})"));
            }
        }
        let wait = Duration::from_millis(if phase < 2 { 300 } else { 10_000 });
        assert_eq!(spy.recv_timeout(wait).ok(), (phase == 2).then_some("ended"), "after {tokens:?}");
    }
    assert_eq!(group.number(0, "SELECT COUNT(*) FROM t"), written);
    for at in 0..3 {
        let address = format!("http://{}", group.node(at).grpc);
        let identify = |token: &'static str| {
            let mut request = Request::new(IdentifyRequest::default());
            request.metadata_mut().insert("x-chronos-cluster-token", token.parse().unwrap());
            wait(async {
                let mut peer = PeerServiceClient::connect(address.clone()).await.unwrap();
                peer.identify(request).await.map(drop).map_err(|status| status.code())
            })
        };
        assert_eq!((identify("old"), identify("new")), (Err(Code::Unauthenticated), Ok(())), "{}", name(at));
    }
}

/// A link to a node, by whoever is let in there: says once it is there, and once it has ended.
pub fn spy(endpoint: Endpoint, token: Option<&'static str>) -> mpsc::Receiver<&'static str> {
    fn signed<T>(message: T, token: Option<&'static str>) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = token {
            request.metadata_mut().insert("x-chronos-cluster-token", token.parse().unwrap());
        }
        request
    }
    let (tell, told) = mpsc::channel();
    let linked = async move {
        let mut peer = PeerServiceClient::new(endpoint.connect().await.unwrap());
        let of = peer.identify(signed(IdentifyRequest::default(), token)).await.unwrap().into_inner();
        let hello = PeerHello {
            version: u32::from(chronos::raft::WIRE_VERSION),
            cluster_id: of.cluster_id,
            cluster_name: of.cluster_name,
            node_id: "spy".to_owned(),
            disk_id: vec![7; 16],
            to: of.node_id,
            ..PeerHello::default()
        };
        // It says nothing more, and does not hang up.
        let hello = PeerFrame { frame: Some(Frame::Hello(hello)) };
        let link = signed(tokio_stream::once(hello).chain(tokio_stream::pending()), token);
        let mut frames = peer.link(link).await.unwrap().into_inner();
        assert!(frames.message().await.unwrap().is_some(), "it is answered");
        tell.send("linked").unwrap();
        while let Ok(Some(_)) = frames.message().await {}
        // Whoever waited for it may have failed.
        let _ = tell.send("ended");
    };
    std::thread::spawn(move || wait(linked));
    told
}
