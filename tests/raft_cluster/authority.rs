//! The authority of a group is changed while it serves: both are trusted first, then certificates are the new one's, then
//! the old one counts no more. After each signal writes through every node go on.

use crate::certificates::{Authority, Files, Validity};
use crate::group::{alone, name};
use crate::patience::until;
use crate::process::wire::IdentifyRequest;
use crate::process::wire::peer_service_client::PeerServiceClient;
use crate::process::{Node, free_ports, wait};
use crate::trust::spy;
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tonic::Request;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// Three nodes that know each other by certificates, of which each has its own.
struct Certified {
    directory: TempDir,
    addresses: Vec<String>,
    files: Vec<Files>,
    /// The operator's, who changes his with theirs.
    operator: Files,
    nodes: Vec<Option<Node>>,
}

impl Certified {
    fn new(authority: &Authority) -> Certified {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str| authority.write(directory.path(), name, "localhost", Validity::Now);
        let files = (0..3).map(|at| write(&name(at))).collect();
        let operator = write("operator");
        let addresses = free_ports(3).iter().map(|port| format!("127.0.0.1:{port}")).collect();
        Certified { directory, addresses, files, operator, nodes: (0..3).map(|_| None).collect() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn log(&self, at: usize) -> String {
        std::fs::read_to_string(self.path().join(format!("{}.log", name(at)))).unwrap()
    }

    fn start(&mut self, at: usize) {
        let others = (0..3).filter(|other| *other != at);
        let peers: Vec<String> = others.map(|other| format!("{}={}", name(other), self.addresses[other])).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
        command.args(["node", "--id", &name(at), "--address", &self.addresses[at], "--peers", &peers.join(",")]);
        command.arg("--data-dir").arg(self.path()).envs(self.files[at].variables()).env("RUST_LOG", "info");
        command.env("CHRONOS_LOG_FILE", self.path().join(format!("{}.log", name(at))));
        command.env("CHRONOS_HTTP__ADDRESS", "127.0.0.1:0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        self.nodes[at] = Some(Node::spawn_as(command, self.path(), &name(at)));
    }

    fn chronos(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
        let output = command.args(arguments).envs(self.operator.variables()).output().unwrap();
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        if output.status.success() { Ok(told) } else { Err(told) }
    }

    fn until_ready(&self, at: usize) {
        until("it serves", || self.chronos(&["admin", "--leader", &self.addresses[at], "ready"]));
    }

    fn leader(&self) -> usize {
        until("somebody leads", || {
            let told = self.chronos(&["admin", "--leader", &self.addresses.join(","), "members", "--json"])?;
            let members: Json = serde_json::from_str(&told).unwrap();
            (0..3).find(|at| members["leader"] == json!(name(*at))).ok_or(told)
        })
    }

    /// A row through each of the nodes, which two of them hand on.
    fn write(&self, rows: &mut usize) {
        for address in &self.addresses {
            let insert = format!("INSERT INTO t VALUES ({rows})");
            until("a write goes on", || match self.chronos(&["client", "--leader", address, "-e", &insert]) {
                // The one before it was in doubt, and has taken effect.
                Err(told) if told.contains("23505") => Ok(()),
                outcome => outcome.map(drop),
            });
            *rows += 1;
        }
    }

    /// Has a node read its files again, and waits until it has.
    fn hang_up(&self, at: usize) {
        let read = || self.log(at).matches("read the settings again").count();
        let before = read();
        self.nodes[at].as_ref().unwrap().hang_up();
        until("the certificates are read", || if read() > before { Ok(()) } else { Err(self.log(at)) });
    }

    /// How a client with these files comes to a node.
    fn endpoint(&self, at: usize, files: &Files) -> Endpoint {
        let read = |path: &Path| std::fs::read(path).unwrap();
        let tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&files.ca))).domain_name("localhost");
        let tls = tls.identity(Identity::from_pem(read(&files.cert), read(&files.key)));
        Endpoint::from_shared(format!("https://{}", self.addresses[at])).unwrap().tls_config(tls).unwrap()
    }
}

/// Files that are put in the place of others.
fn put(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[test]
fn the_authority_of_a_group_is_changed_while_it_serves() {
    let _turn = alone();
    let (old, new) = (Authority::new(), Authority::new());
    let mut group = Certified::new(&old);
    (0..3).for_each(|at| group.start(at));
    (0..3).for_each(|at| group.until_ready(at));
    let write = |authority: &Authority, name: &str| authority.write(group.path(), name, "localhost", Validity::Now);
    let (stranger, newer) = (write(&old, "stranger"), write(&new, "newer"));
    let [old_ca, new_ca] = [&stranger.ca, &newer.ca].map(|path| std::fs::read_to_string(path).unwrap());
    let renewed: Vec<Files> = (0..4).map(|at| write(&new, &format!("renewed{at}"))).collect();
    group.chronos(&["client", "--leader", &group.addresses[0], "-e", "CREATE TABLE t (id INT PRIMARY KEY)"]).unwrap();
    let mut rows = 0;
    group.write(&mut rows);
    // Whoever has a certificate of the old authority may hold a link, to a node that is not started anew.
    let spied = group.leader();
    let spy = spy(group.endpoint(spied, &stranger), None);
    assert_eq!(spy.recv_timeout(Duration::from_secs(10)), Ok("linked"));
    let dialled_again =
        |group: &Certified| (0..3).map(|at| group.log(at).matches("the link is dialled again").count()).sum::<usize>();
    for (phase, trusted) in [old_ca.clone() + &new_ca, old_ca + &new_ca, new_ca.clone()].into_iter().enumerate() {
        for at in [3, 0, 1, 2] {
            let files = if at == 3 { group.operator.clone() } else { group.files[at].clone() };
            if phase == 1 {
                files.replace_with(&renewed[at]);
            }
            put(&files.ca, &trusted);
            if at < 3 {
                group.hang_up(at);
                group.write(&mut rows);
            }
        }
        // A member that comes back now makes new connections to all of them.
        let back = (0..3).find(|at| *at != spied && *at != group.leader()).unwrap();
        assert_eq!(dialled_again(&group) > 0, phase == 2, "links end with the authority that they stand on");
        group.nodes[back].take().unwrap().kill();
        group.start(back);
        group.until_ready(back);
        group.write(&mut rows);
        let wait = Duration::from_millis(if phase < 2 { 300 } else { 10_000 });
        assert_eq!(spy.recv_timeout(wait).ok(), (phase == 2).then_some("ended"), "in phase {phase}");
    }
    let stranger = stranger.trusting(&newer);
    for (at, address) in group.addresses.iter().enumerate() {
        let told = group.chronos(&["client", "--leader", address, "-e", "SELECT COUNT(*) FROM t"]).unwrap();
        assert!(told.contains(&format!(" {rows}\n")), "{rows} rows were written: {told}");
        let mut refused = Command::new(env!("CARGO_BIN_EXE_chronos"));
        let refused = refused.args(["client", "--leader", address, "-e", "SELECT 1"]).envs(stranger.variables());
        let refused = refused.output().unwrap();
        let told = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && told.contains("does not know the authority"), "{told}");
        let identify = |files: &Files| {
            let endpoint = group.endpoint(at, files);
            wait(async {
                let mut peer = PeerServiceClient::new(endpoint.connect().await.map_err(drop)?);
                peer.identify(Request::new(IdentifyRequest::default())).await.map(drop).map_err(drop)
            })
        };
        assert_eq!((identify(&stranger), identify(&newer)), (Err(()), Ok(())), "{}", name(at));
    }
}
