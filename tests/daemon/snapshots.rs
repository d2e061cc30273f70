//! Members that need what the log no longer has: real processes, kills in the middle, writes all the time.

use super::process::{Node, body, free_ports};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Small, so that the log is trimmed soon, and kept for nobody.
const SMALL: [(&str, &str); 4] = [
    ("CHRONOS_STORAGE__SEAL_WAL_BYTES", "4MiB"),
    ("CHRONOS_STORAGE__SEGMENT_BYTES", "1MiB"),
    ("CHRONOS_STORAGE__MEMORY_BYTES_MAX", "16MiB"),
    ("CHRONOS_RAFT__LOG_KEEP_BYTES_MAX", "0B"),
];

/// A group whose members know each other by ports that are theirs.
struct Group {
    directory: tempfile::TempDir,
    addresses: Vec<String>,
    /// Settings beside, or in place of, the small ones.
    more: &'static [(&'static str, &'static str)],
}

impl Group {
    fn new(members: usize) -> Group {
        let addresses = free_ports(members).into_iter().map(|port| format!("127.0.0.1:{port}")).collect();
        Group { directory: tempfile::tempdir().unwrap(), addresses, more: &[] }
    }

    fn name(at: usize) -> String {
        format!("n{at}")
    }

    fn path(&self, at: usize) -> std::path::PathBuf {
        self.directory.path().join(format!("{at}"))
    }

    /// How a member is started; `begin` of them begin the group, later ones join it.
    fn start(&self, at: usize, begin: usize) -> Node {
        self.start_as(&Group::name(at), at, begin)
    }

    fn start_as(&self, name: &str, at: usize, begin: usize) -> Node {
        let others = (0..begin).filter(|other| *other != at);
        let peers: Vec<String> =
            others.map(|other| format!("{}={}", Group::name(other), self.addresses[other])).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
        command.args(["node", "--id", name, "--address", &self.addresses[at], "--peers", &peers.join(",")]).envs(SMALL);
        command.envs(self.more.iter().copied());
        command
            .arg("--data-dir")
            .arg(self.path(at))
            .env("CHRONOS_HTTP__ADDRESS", "127.0.0.1:0")
            .env("RUST_LOG", "error");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if at >= begin {
            command.arg("--join");
        }
        Node::spawn_as(command, &self.path(at), name)
    }
}

/// Everything that a node knows of itself, once it can say: while it installs a snapshot its actors start anew.
fn status(node: &Node) -> Json {
    loop {
        let (status, answer) = node.http("GET", "/status", &[], b"");
        if status == 200 {
            return serde_json::from_str(body(&answer)).unwrap();
        }
        assert_eq!(status, 503, "{answer}");
        std::thread::yield_now();
    }
}

/// What `/admin/members` says: cheaper than `/status`, which hashes the content.
fn members(node: &Node) -> Json {
    serde_json::from_str(&node.get("/admin/members")).unwrap()
}

/// The member that leads.
fn leader(nodes: &[Option<Node>]) -> usize {
    let leads = |(at, node): (usize, &Option<Node>)| {
        let node = node.as_ref()?;
        (serde_json::from_str::<Json>(&node.get("/health")).unwrap()["role"] == "Leader").then_some(at)
    };
    loop {
        if let Some(at) = nodes.iter().enumerate().find_map(leads) {
            return at;
        }
        std::thread::yield_now();
    }
}

/// What the leader knows of a member; null where it does not lead, or knows no such member.
fn known(leader: &Node, name: &str, what: &str) -> Json {
    let members = members(leader);
    let found = members["members"].as_array().unwrap().iter().find(|member| member["id"] == name);
    found.map_or(Json::Null, |member| member[what].clone())
}

fn matched(leader: &Node, name: &str) -> u64 {
    known(leader, name, "matched").as_u64().unwrap_or(0)
}

fn last(node: &Node) -> u64 {
    status(node)["raft"]["last"].as_u64().unwrap()
}

/// Runs a statement until it is answered.
fn run(node: &Node, sql: &str) {
    loop {
        let (status, answer) = node.post_sql(&json!({ "sql": sql }).to_string());
        // One that was in doubt, and came through.
        if status == 200 || answer.to_string().contains("23505") {
            return;
        }
    }
}

/// Rows that do not shrink much, so that a statement is 100 KB of log.
fn insert(from: i64) -> String {
    let row = |id: i64| {
        let noise: Vec<String> = (0..6).map(|k| format!("{:016x}", mix((id * 6 + k) as u64))).collect();
        format!("({id}, '{}')", noise.concat())
    };
    format!("INSERT INTO t VALUES {}", (from..from + 1000).map(row).collect::<Vec<String>>().join(", "))
}

/// A number that nothing can be guessed from, and the same in every run.
fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Writes until the leader has let go of its log up to what another one has.
fn write_beyond(node: &Node, last: u64, next: &AtomicI64) {
    while status(node)["raft"]["first"].as_u64().unwrap() <= last + 1 {
        (0..20).for_each(|_| run(node, &insert(next.fetch_add(1000, Ordering::Relaxed))));
    }
}

/// Waits until both have applied the same, and compares it.
fn assert_same(one: &Node, other: &Node) {
    loop {
        let (a, b) = (status(one)["content"].clone(), status(other)["content"].clone());
        if a["index"].is_u64() && a["index"] == b["index"] {
            assert_eq!(a, b);
            return;
        }
    }
}

fn installs(directory: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(directory.join("snapshots"))
        .map_or(Vec::new(), |found| found.map(|it| it.unwrap().path()).collect())
}

#[test]
fn a_follower_that_was_away_while_the_log_was_trimmed_comes_back_by_snapshot_while_writes_go_on() {
    let group = Group::new(3);
    let mut nodes: Vec<Option<Node>> = (0..3).map(|at| Some(group.start(at, 3))).collect();
    let lead = leader(&nodes);
    let away = (lead + 1) % 3;
    run(nodes[lead].as_ref().unwrap(), "CREATE TABLE t (id INT PRIMARY KEY, note TEXT)");
    let before = last(nodes[lead].as_ref().unwrap());
    nodes[away].take().unwrap().kill();
    let next = AtomicI64::new(0);
    write_beyond(nodes[lead].as_ref().unwrap(), before, &next);
    let stop = AtomicBool::new(false);
    let back = std::thread::scope(|scope| {
        let writer = nodes[lead].as_ref().unwrap();
        let (stop, next) = (&stop, &next);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                run(writer, &insert(next.fetch_add(1000, Ordering::Relaxed)));
            }
        });
        let back = group.start(away, 3);
        while matched(writer, &Group::name(away)) <= before {}
        // It follows: what is written from here on arrives.
        let goal = last(writer);
        while matched(writer, &Group::name(away)) < goal {}
        stop.store(true, Ordering::Relaxed);
        back
    });
    assert_same(nodes[lead].as_ref().unwrap(), &back);
    assert_eq!(installs(&group.path(away).join(Group::name(away))), Vec::<std::path::PathBuf>::new());
    // What it has is durable: it starts from it.
    back.kill();
    assert_same(nodes[lead].as_ref().unwrap(), &group.start(away, 3));
}

#[test]
fn a_transfer_survives_the_death_of_either_end_at_any_time() {
    let group = Group::new(3);
    let mut nodes: Vec<Option<Node>> = (0..3).map(|at| Some(group.start(at, 3))).collect();
    let next = AtomicI64::new(0);
    let lead = leader(&nodes);
    run(nodes[lead].as_ref().unwrap(), "CREATE TABLE t (id INT PRIMARY KEY, note TEXT)");
    let mut broken = 0;
    for round in 0..6 {
        let lead = leader(&nodes);
        let away = (lead + 1) % 3;
        let before = last(nodes[lead].as_ref().unwrap());
        nodes[away].take().unwrap().kill();
        write_beyond(nodes[lead].as_ref().unwrap(), before, &next);
        let path = group.path(away).join(Group::name(away));
        let back = group.start(away, 3);
        // Early in the transfer, later, or while it is being installed: as the machine has it.
        let mut looks = 0;
        while matched(nodes[lead].as_ref().unwrap(), &Group::name(away)) <= before && looks <= 2 * round {
            looks += usize::from(!installs(&path).is_empty());
        }
        broken += usize::from(!installs(&path).is_empty());
        if round % 2 == 0 {
            back.kill();
            nodes[away] = Some(group.start(away, 3));
        } else {
            nodes[lead].take().unwrap().kill();
            nodes[lead] = Some(group.start(lead, 3));
            nodes[away] = Some(back);
        }
        let goal = last(nodes[leader(&nodes)].as_ref().unwrap());
        // Who leads may change once more.
        while matched(nodes[leader(&nodes)].as_ref().unwrap(), &Group::name(away)) < goal && leader(&nodes) != away {}
        let lead = (away + 1) % 3;
        assert_same(nodes[lead].as_ref().unwrap(), nodes[away].as_ref().unwrap());
    }
    assert!(broken > 0, "no transfer was broken");
}

#[test]
fn a_node_that_is_added_gets_everything_by_snapshot_and_votes_then() {
    is_added_by_snapshot(&Group::new(4), |writer, next| write_beyond(writer, 10, next));
}

#[test]
fn a_node_that_has_nothing_gets_a_snapshot_though_the_log_has_all() {
    let more = &[
        ("CHRONOS_STORAGE__SEAL_WAL_BYTES", "64MiB"),
        ("CHRONOS_RAFT__LOG_KEEP_BYTES_MAX", "256MiB"),
        ("CHRONOS_RAFT__SNAPSHOT_LAG", "20"),
    ];
    let group = Group { more, ..Group::new(4) };
    is_added_by_snapshot(&group, |writer, next| {
        (0..30).for_each(|_| run(writer, &insert(next.fetch_add(1000, Ordering::Relaxed))));
        assert_eq!(status(writer)["raft"]["first"], 1);
    });
}

/// A node joins a group that has been written to, and goes on being.
fn is_added_by_snapshot(group: &Group, write: impl Fn(&Node, &AtomicI64)) {
    let nodes: Vec<Option<Node>> = (0..3).map(|at| Some(group.start(at, 3))).collect();
    let lead = leader(&nodes);
    let writer = nodes[lead].as_ref().unwrap();
    run(writer, "CREATE TABLE t (id INT PRIMARY KEY, note TEXT)");
    let next = AtomicI64::new(0);
    write(writer, &next);
    // Its name sorts before all others, who know of it before it knows of them.
    let added = group.start_as("a", 3, 3);
    let asked = Command::new(env!("CARGO_BIN_EXE_chronos"))
        .args(["admin", "add-node", &format!("a={}", group.addresses[3]), "--leader", &writer.grpc.to_string()])
        .output()
        .unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                run(writer, &insert(next.fetch_add(1000, Ordering::Relaxed)));
            }
        });
        while matched(writer, "a") < last(writer) / 2 {}
        stop.store(true, Ordering::Relaxed);
    });
    while known(writer, "a", "role") != "voter" {}
    assert!(status(&added)["raft"]["first"].as_u64() > Some(1), "it came by the log");
    assert_same(writer, &added);
}

#[test]
fn a_member_whose_log_is_damaged_fetches_what_it_has_lost_and_counts_again() {
    let group = Group::new(3);
    let mut nodes: Vec<Option<Node>> = (0..3).map(|at| Some(group.start(at, 3))).collect();
    let lead = leader(&nodes);
    let hurt = (lead + 1) % 3;
    let writer = nodes[lead].as_ref().unwrap();
    run(writer, "CREATE TABLE t (id INT PRIMARY KEY, note TEXT)");
    (0..30).for_each(|at| run(writer, &insert(at * 1000)));
    let goal = last(writer);
    while matched(writer, &Group::name(hurt)) < goal {}
    nodes[hurt].take().unwrap().kill();
    let raft = group.path(hurt).join(Group::name(hurt)).join("raft");
    let mut segments: Vec<_> = std::fs::read_dir(raft).unwrap().map(|it| it.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|it| it == "wal"));
    segments.sort();
    // Not the last: a later one proves that it had been written.
    let segment = &segments[segments.len() - 2];
    let mut content = std::fs::read(segment).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(segment, content).unwrap();
    let back = group.start(hurt, 3);
    let writer = nodes[lead].as_ref().unwrap();
    run(writer, &insert(100_000));
    let goal = last(writer);
    while matched(writer, &Group::name(hurt)) < goal {}
    assert_same(writer, &back);
    // It votes again: with the leader gone it is needed, and the other one cannot decide alone.
    nodes[lead].take().unwrap().kill();
    nodes[hurt] = Some(back);
    run(nodes[leader(&nodes)].as_ref().unwrap(), &insert(200_000));
}
