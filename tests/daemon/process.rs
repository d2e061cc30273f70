//! A node as a process of its own, and a client for each of its doors.

use chronos::clock::{Clock, SystemClock};
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The client generated from the proto, as any user of it has one.
pub mod wire {
    #![expect(clippy::pedantic, clippy::enum_variant_names, clippy::allow_attributes, reason = "generated")]
    tonic::include_proto!("raft");
}

use wire::sql_service_client::SqlServiceClient;

/// A gRPC client of a node.
pub type Client = SqlServiceClient<tonic::transport::Channel>;

/// A running node; killed when dropped.
pub struct Node {
    child: Child,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
}

/// A free port for everything.
pub const FREE: &str = "127.0.0.1:0";

/// Free ports for the members of a group, which must know each other's before they start, and keep them while they are
/// away. Each stays bound for as long as this process lives, so nobody who asks for any port is given it; and as nobody
/// listens there, a node that names it may (`SO_REUSEADDR`).
pub fn free_ports(count: usize) -> Vec<u16> {
    static BOUND: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());
    let mut bound = BOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let port = |_| {
        let free = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_reuseaddr(&free, true).unwrap();
        bind(&free, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = SocketAddrV4::try_from(getsockname(&free).unwrap()).unwrap();
        bound.push(free);
        address.port()
    };
    (0..count).map(port).collect()
}

/// The command that runs a node.
pub fn command(directory: &Path, address: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(["node", "--id", "node1", "--address", address, "--data-dir"]).arg(directory);
    command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Node {
    /// Starts a node and waits until it serves.
    pub fn start(directory: &Path) -> Node {
        Node::start_with(directory, &[])
    }

    /// The same on the database that a program without a daemon has left in a directory.
    pub fn start_local(directory: &Path) -> Node {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
        command.args(["node", "--id", "local", "--address", FREE, "--data-dir"]).arg(directory);
        command.env("RUST_LOG", "error").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Node::spawn_as(command, directory, "local")
    }

    /// The same with settings from the environment.
    pub fn start_with(directory: &Path, settings: &[(&str, &str)]) -> Node {
        let mut command = command(directory, FREE);
        command.envs(settings.iter().copied());
        Node::spawn(command, directory)
    }

    /// The same with a command of the test's own.
    pub fn spawn(command: Command, directory: &Path) -> Node {
        Node::spawn_as(command, directory, "node1")
    }

    /// The same for a node of another name.
    pub fn spawn_as(mut command: Command, directory: &Path, id: &str) -> Node {
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("connect with") {
            line.clear();
            if output.read_line(&mut line).unwrap() == 0 {
                let mut told = String::new();
                child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
                panic!("the node ended: {told}");
            }
        }
        let content = std::fs::read(directory.join(id).join("addresses.json")).unwrap();
        let addresses: serde_json::Value = serde_json::from_slice(&content).unwrap();
        let address = |name: &str| addresses[name].as_str().unwrap().parse().unwrap();
        Node { child, grpc: address("grpc"), http: address("http") }
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the end that follows.
    pub fn terminate(self) -> ExitStatus {
        self.terminate_timed().0
    }

    /// The same, with how long it took.
    pub fn terminate_timed(mut self) -> (ExitStatus, Duration) {
        let began = SystemClock.monotonic();
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        (status, SystemClock.monotonic().saturating_sub(began))
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// A gRPC client, once the node serves statements.
    pub async fn client(&self) -> Client {
        let mut client = SqlServiceClient::connect(format!("http://{}", self.grpc))
            .await
            .unwrap()
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(64 << 20);
        while client.execute_sql(wire::SqlRequest { sql: "SELECT 1".into() }).await.is_err() {
            tokio::task::yield_now().await;
        }
        client
    }

    /// One HTTP request on a connection of its own: status and whole answer, head included.
    pub fn http(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n");
        headers.iter().for_each(|header| head.extend([header, "\r\n"]));
        head.extend(["content-length: ", &body.len().to_string(), "\r\n\r\n"]);
        stream.write_all(head.as_bytes()).unwrap();
        // A body that is refused for its size may not be read to its end.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = unchunked(&answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no HTTP: {answer:?}")), answer)
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that the process has had so far.
    pub fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    /// A GET for its body.
    pub fn get(&self, path: &str) -> String {
        let (status, answer) = self.http("GET", path, &[], b"");
        assert_eq!(status, 200, "{answer}");
        body(&answer).to_string()
    }

    /// A POST to `/sql`, read as JSON.
    pub fn post_sql(&self, body_sent: &str) -> (u16, serde_json::Value) {
        let (status, answer) = self.http("POST", "/sql", &["content-type: application/json"], body_sent.as_bytes());
        (status, serde_json::from_str(body(&answer)).unwrap_or_else(|error| panic!("{error}: {answer}")))
    }

    /// Waits until `/ready` says so.
    pub fn until_ready(&self) {
        while self.http("GET", "/ready", &[], b"").0 != 200 {
            std::thread::yield_now();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A whole answer as text; one that came in chunks is put together, and must have come to its end.
pub fn unchunked(answer: &[u8]) -> String {
    let head_end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let (head, mut rest) = answer.split_at(head_end);
    let mut whole = head.to_vec();
    if !String::from_utf8_lossy(head).to_lowercase().contains("transfer-encoding: chunked") {
        whole.extend_from_slice(rest);
        return String::from_utf8(whole).unwrap();
    }
    loop {
        let line_end = rest.windows(2).position(|two| two == b"\r\n").expect("the answer broke off");
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line_end]).unwrap(), 16).unwrap();
        if length == 0 {
            return String::from_utf8(whole).unwrap();
        }
        let chunk = &rest[line_end + 2..];
        whole.extend_from_slice(&chunk[..length]);
        rest = &chunk[length + 2..];
    }
}

/// What follows the head of an answer.
pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// Runs a client's work on a runtime of its own.
pub fn wait<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
