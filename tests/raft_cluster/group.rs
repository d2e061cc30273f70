//! Three nodes as processes of their own, and a client that looks for one that answers.

use crate::line::Line;
use crate::patience::until;
use crate::process::{Node, body, free_ports};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

/// A group of nodes; those that run are killed when dropped.
pub struct Group {
    directory: TempDir,
    ports: Vec<u16>,
    pub nodes: Vec<Option<Node>>,
    settings: Vec<(&'static str, &'static str)>,
    /// A file that names all members, where they are not all voters.
    members: Option<PathBuf>,
    /// The one without rows.
    witness: Option<usize>,
    /// The lines over which the nodes reach each other; empty where they need none.
    lines: Vec<Line>,
    _turn: MutexGuard<'static, ()>,
}

/// One group at a time: on two cores a dozen nodes would wait for each other longer than an election takes.
static TURN: Mutex<()> = Mutex::new(());

/// Waits until no other group runs.
pub fn alone() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn name(at: usize) -> String {
    format!("node{}", at + 1)
}

impl Group {
    /// Starts a group of three and waits until all of them serve.
    pub fn start() -> Group {
        Group::start_with(&[])
    }

    /// The same with settings from the environment.
    pub fn start_with(settings: &[(&'static str, &'static str)]) -> Group {
        let mut group = Group::unstarted(settings);
        (0..3).for_each(|at| group.restart(at));
        (0..3).for_each(|at| group.until_ready(at));
        group
    }

    /// Two nodes that have the data, and a third one as their witness.
    pub fn start_with_witness(settings: &[(&'static str, &'static str)]) -> Group {
        Group::start_beside("witness", settings)
    }

    /// Two voters, and a third member of another role, as a file names it.
    pub fn start_beside(third: &str, settings: &[(&'static str, &'static str)]) -> Group {
        let mut group = Group::unstarted(settings);
        let member = |at: usize| {
            let (id, address, role) = (name(at), group.address(at), if at == 2 { third } else { "voter" });
            format!("[[cluster.members]]\nid = \"{id}\"\naddress = \"{address}\"\nrole = \"{role}\"\n")
        };
        let path = group.path().join("members.toml");
        std::fs::write(&path, (0..3).map(member).collect::<String>()).unwrap();
        (group.members, group.witness) = (Some(path), (third == "witness").then_some(2));
        (0..3).for_each(|at| group.restart(at));
        (0..3).for_each(|at| group.until_ready(at));
        group
    }

    /// Three nodes that reach each other over lines of their own.
    pub fn start_behind_lines(settings: &[(&'static str, &'static str)]) -> Group {
        let mut group = Group::unstarted(settings);
        group.lines = (0..3).map(|at| Line::to(group.address(at).parse().unwrap())).collect();
        (0..3).for_each(|at| group.restart(at));
        (0..3).for_each(|at| group.until_ready(at));
        group
    }

    /// Cuts a node off from the others; clients still reach it.
    pub fn isolate(&self, alone: usize) {
        let known: Vec<u32> = (0..3).map(|at| self.node(at).id()).collect();
        for (at, line) in self.lines.iter().enumerate() {
            line.cut(at == alone, &[known[alone]], &known);
        }
    }

    /// All lines are whole again.
    pub fn heal(&self) {
        self.lines.iter().for_each(|line| line.cut(false, &[], &[]));
    }

    /// All lines let no more through than this.
    pub fn slow_down(&self, bytes_per_second: u64) {
        self.lines.iter().for_each(|line| line.slow_down(bytes_per_second));
    }

    fn unstarted(settings: &[(&'static str, &'static str)]) -> Group {
        Group {
            directory: tempfile::tempdir().unwrap(),
            ports: free_ports(3),
            nodes: (0..3).map(|_| None).collect(),
            settings: settings.to_vec(),
            members: None,
            witness: None,
            lines: Vec::new(),
            _turn: alone(),
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().unwrap()
    }

    /// The directory of a node.
    pub fn directory(&self, at: usize) -> PathBuf {
        self.path().join(name(at))
    }

    /// Waits until a node serves, as far as it ever does.
    pub fn until_ready(&self, at: usize) {
        let is_witness = Some(at) == self.witness;
        self.until_readiness(at, if is_witness { "this node is a witness" } else { "200" });
    }

    /// Waits until `/ready` of a node says so, in its status or its text.
    pub fn until_readiness(&self, at: usize, says: &str) {
        until(&format!("{} says {says}", name(at)), || {
            let (status, answer) = self.node(at).http("GET", "/ready", &[], b"");
            if status.to_string() == says || answer.contains(says) { Ok(()) } else { Err(answer) }
        });
    }

    /// The node has another address when it is started again.
    pub fn moves(&mut self, at: usize) -> String {
        self.ports[at] = free_ports(1)[0];
        self.address(at)
    }

    pub fn address(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.ports[at])
    }

    /// The others of the first three, as `--peers` takes them.
    fn peers(&self, at: usize) -> String {
        let others = (0..3).filter(|other| *other != at);
        others.map(|other| format!("{}={}", name(other), self.reached_at(other))).collect::<Vec<_>>().join(",")
    }

    /// Where the others reach a node.
    fn reached_at(&self, at: usize) -> String {
        self.lines.get(at).map_or_else(|| self.address(at), |line| line.address.to_string())
    }

    pub fn command(&self, at: usize, more: &[&str]) -> Command {
        self.command_with(at, &self.peers(at), more)
    }

    /// The same with others named as its peers.
    pub fn command_with(&self, at: usize, peers: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
        command.args(["node", "--id", &name(at), "--address", &self.address(at)]);
        match &self.members {
            Some(members) => command.arg("--config").arg(members),
            None => command.args(["--peers", peers]),
        };
        if !self.lines.is_empty() {
            command.args(["--advertise", &self.reached_at(at)]);
        }
        command.arg("--data-dir").arg(self.path()).args(more);
        command.env("RUST_LOG", "warn").env("CHRONOS_HTTP__ADDRESS", "127.0.0.1:0");
        command.envs(self.settings.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    /// Starts a node that is not there, as it was.
    pub fn restart(&mut self, at: usize) {
        self.nodes[at] = Some(Node::spawn_as(self.command(at, &[]), self.path(), &name(at)));
    }

    /// Adds a fourth node and waits until it serves.
    pub fn join(&mut self) -> usize {
        self.join_as("voter")
    }

    /// The same with what it is to be.
    pub fn join_as(&mut self, role: &str) -> usize {
        let at = self.nodes.len();
        self.ports.extend(free_ports(1));
        let leader = self.leader();
        let add = json!({ "add": { "id": name(at), "address": self.address(at), "role": role } }).to_string();
        let (status, answer) = self.node(leader).http("POST", "/admin/members", &[], add.as_bytes());
        assert_eq!(status, 200, "{answer}");
        self.nodes.push(Some(Node::spawn_as(self.command(at, &["--join"]), self.path(), &name(at))));
        self.witness = if role == "witness" { Some(at) } else { self.witness };
        self.until_ready(at);
        at
    }

    pub fn kill(&mut self, at: usize) {
        self.nodes[at].take().unwrap().kill();
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter_map(|(at, node)| node.as_ref().map(|node| (at, node)))
    }

    /// Who leads, once somebody does.
    pub fn leader(&self) -> usize {
        let leads = |node: &Node| {
            let (_, answer) = node.http("GET", "/health", &[], b"");
            serde_json::from_str::<Json>(body(&answer)).is_ok_and(|health| health["role"] == json!("Leader"))
        };
        until("somebody leads", || {
            let leader = self.running().find(|(_, node)| leads(node));
            leader.map(|(at, _)| at).ok_or_else(|| "nobody does".to_owned())
        })
    }

    /// A sample of a node's `/metrics`.
    pub fn metric(&self, at: usize, name: &str) -> f64 {
        let page = self.node(at).get("/metrics");
        let sample = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        sample.unwrap_or_else(|| panic!("no {name} in {page}"))
    }

    /// Runs a statement on a node; its answer must be a success.
    pub fn sql(&self, at: usize, sql: &str) -> Json {
        let (status, answer) = self.node(at).post_sql(&json!({ "sql": sql }).to_string());
        assert_eq!(status, 200, "{} says {answer} to {sql}", name(at));
        answer
    }

    /// The one number that a query answers.
    pub fn number(&self, at: usize, sql: &str) -> i64 {
        self.sql(at, sql)["rows"][0][0].as_i64().unwrap()
    }

    /// Waits until all that run and have rows have the same content at the same position.
    pub fn agree(&self) -> String {
        until("the nodes come to one position", || {
            let contents: Vec<Json> = self
                .running()
                .filter(|(at, _)| Some(*at) != self.witness)
                .map(|(_, node)| {
                    let status: Json = serde_json::from_str(&node.get("/status")).unwrap();
                    // The last hash that is known may be an older one.
                    let is_present = status["content"]["index"].as_u64() >= status["raft"]["applied"].as_u64();
                    if is_present { status["content"].clone() } else { json!({ "of": status["id"] }) }
                })
                .collect();
            if contents.windows(2).all(|pair| pair[0] == pair[1]) && contents[0]["hash"].is_string() {
                return Ok(contents[0]["hash"].as_str().unwrap().to_owned());
            }
            let at_one_place = contents.len() > 1
                && contents.windows(2).all(|pair| pair[0]["index"].is_u64() && pair[0]["index"] == pair[1]["index"]);
            assert!(!at_one_place, "the same position, and not the same content: {contents:?}");
            Err(format!("{contents:?}"))
        })
    }
}
