//! The operators' commands, and those that load, against a group whose nodes come and go.

use crate::group::{Group, name};
use crate::patience::{Patience, until};
use crate::process::free_ports;
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A command of the program: whether it went well, and what it said.
fn chronos(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_chronos")).args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn addresses(group: &Group, order: &[usize]) -> String {
    order.iter().map(|at| group.address(*at)).collect::<Vec<String>>().join(",")
}

#[test]
fn operators_name_several_nodes_and_need_one_that_can_answer() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let (leader, follower) = (group.leader(), (group.leader() + 1) % 3);
    let third = 3 - leader - follower;
    let admin = |what: &[&str], nodes: &str| chronos(&[&["admin", "--leader", nodes], what].concat());
    // A leader has no word before its first entry is committed, and others hear of it a moment later.
    let settled = |what: &[&str], nodes: &str| {
        until("there is a leader", || match admin(what, nodes) {
            (false, told) if told.contains("no leader") => Err(told),
            answer => Ok(answer),
        })
    };
    let members = |nodes: &str| -> Json {
        let (is_well, told) = admin(&["members", "--json"], nodes);
        assert!(is_well, "{told}");
        serde_json::from_str(&told).unwrap()
    };
    assert_eq!(members(&addresses(&group, &[follower]))["leader"], json!(name(leader)));
    let (is_well, told) = settled(&["transfer", "--to", &name(follower)], &addresses(&group, &[third]));
    assert!(is_well && told == format!("{} leads\n", name(follower)), "{told}");
    // By way of a node that does not lead, a member comes and goes.
    let address = format!("127.0.0.1:{}", free_ports(1)[0]);
    let add = ["add-node", &format!("node4={address}"), "--role", "observer"];
    let (is_well, told) = settled(&add, &addresses(&group, &[leader]));
    assert!(is_well && told.contains("node4") && told.contains(&address), "{told}");
    let (is_well, told) = settled(&["add-node", &format!("node5={address}")], &addresses(&group, &[leader]));
    assert!(!is_well && told.contains("node4"), "the address is taken: {told}");
    let (is_well, told) = settled(&["remove-node", "node4"], &addresses(&group, &[third]));
    assert!(is_well && !told.contains("node4"), "{told}");
    // A node that is up, and belongs to no group that could elect anybody, is asked first.
    let alone = tempfile::tempdir().unwrap();
    let lonely = lonely(alone.path());
    let nodes = format!("{},{}", lonely.grpc, addresses(&group, &[third]));
    assert_eq!(members(&nodes)["leader"], json!(name(follower)));
    let (is_well, told) = settled(&["transfer", "--to", &name(leader)], &nodes);
    assert!(is_well && told == format!("{} leads\n", name(leader)), "{told}");
    let (is_well, told) = settled(&["remove-node", "node9"], &nodes);
    assert!(!is_well && told.contains("node9"), "what the group says is final: {told}");
    let (is_well, told) = admin(&["transfer"], &lonely.grpc.to_string());
    assert!(!is_well && told.contains("no leader"), "{told}");
    // And one that is down.
    group.kill(leader);
    let nodes = addresses(&group, &[leader, follower, third]);
    until("there is a leader", || match admin(&["members", "--json"], &nodes) {
        (true, told) if told.contains(&format!("\"leader\":\"{}\"", name(leader))) => Err(told),
        (true, _) => Ok(()),
        (false, told) => Err(told),
    });
    for what in ["status", "metrics"] {
        let (is_well, told) = admin(&[what], &nodes);
        assert!(is_well, "{told}");
    }
}

#[test]
fn a_change_that_may_be_done_is_in_doubt_and_nobody_else_is_asked() {
    // Nobody else leads while a request is on its way to one that stands still.
    let group = Group::start_with(&[("CHRONOS_RAFT__ELECTION_TIMEOUT", "3s")]);
    let leader = group.leader();
    let (follower, third) = ((leader + 1) % 3, (leader + 2) % 3);
    group.until_ready(leader);
    // The one that is to take over stands still: it may do so whenever it goes on. At first nobody knows that it does.
    let nodes = addresses(&group, &[leader, third]);
    let told = until("the transfer is begun", || {
        group.node(follower).signal(Signal::STOP);
        let (is_well, told) = chronos(&["admin", "--leader", &nodes, "transfer", "--to", &name(follower)]);
        group.node(follower).signal(Signal::CONT);
        assert!(!is_well, "{told}");
        if told.contains("it cannot take over") || told.contains("no leader") { Err(told) } else { Ok(told) }
    });
    assert!(told.contains("08007") && told.contains("has not taken over in time"), "{told}");
    // And the leader, under a request that was handed on to it.
    (0..3).for_each(|at| group.until_ready(at));
    let leader = group.leader();
    let (asked, other) = ((leader + 1) % 3, (leader + 2) % 3);
    group.node(leader).signal(Signal::STOP);
    let nodes = addresses(&group, &[asked, other]);
    let (is_well, told) = chronos(&["admin", "--leader", &nodes, "remove-node", "node9"]);
    group.node(leader).signal(Signal::CONT);
    // Whoever leads by then would say that there is no such member.
    assert!(!is_well && told.contains("08007") && told.contains("look at the members"), "{told}");
}

#[test]
fn each_node_is_asked_once_whoever_beside_it_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let alone = lonely_with(directory.path(), &[("CHRONOS_LOG_FILE", log.to_str().unwrap()), ("RUST_LOG", "info")]);
    let away: Vec<String> = free_ports(2).iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let nodes = format!("{},{},{}", away[0], alone.grpc, away[1]);
    let (is_well, told) = chronos(&["admin", "--leader", &nodes, "transfer"]);
    assert!(!is_well && told.contains("no leader"), "{told}");
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(said.matches("audit_admin").count(), 1, "{said}");
    let (is_well, told) = chronos(&["admin", "--leader", &away.join(","), "transfer"]);
    assert!(!is_well && away.iter().all(|address| told.contains(address)), "{told}");
}

#[test]
fn whoever_is_asked_for_the_members_shows_how_far_each_is() {
    let group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let leader = group.leader();
    let follower = addresses(&group, &[(leader + 1) % 3]);
    until("each member has its state", || {
        let (is_well, told) = chronos(&["admin", "--leader", &follower, "members"]);
        let states = [("leads", 1), ("follows", 2)];
        let is_shown =
            states.iter().all(|(state, count)| told.lines().filter(|line| line.ends_with(state)).count() == *count);
        if is_well && is_shown { Ok(()) } else { Err(told) }
    });
    let (_, told) = chronos(&["admin", "--leader", &follower, "members", "--json"]);
    let members: Json = serde_json::from_str(&told).unwrap();
    for member in members["members"].as_array().unwrap() {
        let leads = member["leads"] == json!(true);
        assert!(member["matched"].is_u64() && member["problem"] == json!(""), "{member}");
        assert_eq!(
            (&member["flow"], member["command_version"].is_u64()),
            (&json!(if leads { "" } else { "replicate" }), !leads)
        );
    }
    // One that does not answer is named, and what is known shown.
    (0..3).filter(|at| *at != (leader + 1) % 3).for_each(|at| group.node(at).signal(Signal::STOP));
    let (is_well, told) = chronos(&["admin", "--leader", &follower, "members"]);
    (0..3).filter(|at| *at != (leader + 1) % 3).for_each(|at| group.node(at).signal(Signal::CONT));
    assert!(is_well && told.contains(&format!("only the leader knows, {}", name(leader))), "{told}");
}

/// One of two, whose other one never comes.
fn lonely(directory: &Path) -> crate::process::Node {
    lonely_with(directory, &[])
}

fn lonely_with(directory: &Path, settings: &[(&str, &str)]) -> crate::process::Node {
    let ports = free_ports(2);
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(["node", "--id", "node1", "--address", &format!("127.0.0.1:{}", ports[0])]);
    command.args(["--peers", &format!("node2=127.0.0.1:{}", ports[1]), "--data-dir"]).arg(directory);
    command.env("RUST_LOG", "error").env("CHRONOS_HTTP__ADDRESS", "127.0.0.1:0");
    command.envs(settings.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    crate::process::Node::spawn_as(command, directory, "node1")
}

#[test]
fn an_import_goes_on_where_its_leader_dies() {
    const ROWS: i64 = 100_000;
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)");
    let leader = group.leader();
    let nodes = addresses(&group, &[leader, (leader + 1) % 3, (leader + 2) % 3]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(["import", "--table", "t", "--batch-rows", "200", "--leader", &nodes, "-"]);
    let mut import = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The last row is kept back until the leader is gone: before that the import cannot end.
    let mut input = import.stdin.take().unwrap();
    let (go, may_end) = std::sync::mpsc::channel::<()>();
    let writing = std::thread::spawn(move || {
        let row = |id: i64| format!("{id},row {id}\n");
        let most: String = (0..ROWS - 1).map(row).collect();
        input.write_all(b"id,v\n").and_then(|()| input.write_all(most.as_bytes())).unwrap();
        may_end.recv().unwrap();
        input.write_all(row(ROWS - 1).as_bytes()).unwrap();
    });
    let stale = json!({ "sql": "SELECT COUNT(*) FROM t", "consistency": "stale" }).to_string();
    let other = (leader + 1) % 3;
    let patience = Patience::new();
    loop {
        let (status, answer) = group.node(other).post_sql(&stale);
        if status == 200 && answer["rows"][0][0].as_i64().unwrap() > 2000 {
            break;
        }
        patience.spend(|| answer.to_string());
    }
    group.kill(leader);
    let (_, landed) = group.node(other).post_sql(&stale);
    assert!(landed["rows"][0][0].as_i64().unwrap() < ROWS - 1, "all of it was there before the kill: {landed}");
    go.send(()).unwrap();
    writing.join().unwrap();
    let output = import.wait_with_output().unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && told.contains(", 0 rejected"), "{told}");
    assert_eq!(group.number(other, "SELECT COUNT(*) FROM t"), ROWS);
    println!("{told}");
}
