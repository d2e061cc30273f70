//! The operators' commands, and those that load, against a group whose nodes come and go.

use crate::group::{Group, name};
use crate::patience::{Patience, until};
use crate::process::free_ports;
use serde_json::{Value as Json, json};
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
    let (is_well, told) = admin(&["transfer", "--to", &name(follower)], &addresses(&group, &[third]));
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

/// One of two, whose other one never comes.
fn lonely(directory: &Path) -> crate::process::Node {
    let ports = free_ports(2);
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(["node", "--id", "node1", "--address", &format!("127.0.0.1:{}", ports[0])]);
    command.args(["--peers", &format!("node2=127.0.0.1:{}", ports[1]), "--data-dir"]).arg(directory);
    command.env("RUST_LOG", "error").env("CHRONOS_HTTP__ADDRESS", "127.0.0.1:0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    crate::process::Node::spawn_as(command, directory, "node1")
}

#[test]
fn an_import_goes_on_where_its_leader_dies() {
    const ROWS: i64 = 100_000;
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)");
    let file = group.path().join("t.csv");
    let rows: Vec<String> = (0..ROWS).map(|id| format!("{id},row {id}")).collect();
    std::fs::write(&file, format!("id,v\n{}\n", rows.join("\n"))).unwrap();
    let leader = group.leader();
    let nodes = addresses(&group, &[leader, (leader + 1) % 3, (leader + 2) % 3]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(["import", "--table", "t", "--batch-rows", "200", "--leader", &nodes]).arg(&file);
    let mut import = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let other = (leader + 1) % 3;
    let patience = Patience::new();
    loop {
        let stale = json!({ "sql": "SELECT COUNT(*) FROM t", "consistency": "stale" }).to_string();
        let (status, answer) = group.node(other).post_sql(&stale);
        if status == 200 && answer["rows"][0][0].as_i64().unwrap() > 2000 {
            break;
        }
        assert!(import.try_wait().unwrap().is_none(), "it has ended before");
        patience.spend(|| answer.to_string());
    }
    group.kill(leader);
    let output = import.wait_with_output().unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && told.contains(", 0 rejected"), "{told}");
    assert_eq!(group.number(other, "SELECT COUNT(*) FROM t"), ROWS);
    println!("{told}");
}
