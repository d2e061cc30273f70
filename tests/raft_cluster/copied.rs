//! A disk that is copied to a second machine: two nodes of one name and one disk id.

use crate::group::{Group, name};
use crate::patience::until;
use crate::process::{Node, free_ports};
use serde_json::Value as Json;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_disk_that_is_there_twice_is_told_with_both_addresses() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let (leader, copied) = (group.leader(), (group.leader() + 1) % 3);
    group.agree();
    // What it says from here on.
    group.kill(copied);
    let (shelf, port) = (group.path().join("copy"), free_ports(1)[0]);
    copy(&group.directory(copied), &shelf.join(name(copied)));
    group.restart(copied);
    group.until_ready(copied);
    let health = |at: usize| {
        let health: Json = serde_json::from_str(&group.node(at).get("/health")).unwrap();
        health["reason"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(health(leader), "", "it was only started again");
    let second = format!("127.0.0.1:{port}");
    let others = (0..3).filter(|at| *at != copied).map(|at| format!("{}={}", name(at), group.address(at)));
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(["node", "--id", &name(copied), "--address", &second]);
    command.args(["--peers", &others.collect::<Vec<_>>().join(",")]).arg("--data-dir").arg(&shelf);
    command.env("RUST_LOG", "warn").env("CHRONOS_HTTP__ADDRESS", "127.0.0.1:0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let twin = Node::spawn_as(command, &shelf, &name(copied));
    let told = until("the leader tells that there are two", || {
        let reason = health(leader);
        if reason.contains("is announced from two addresses") { Ok(reason) } else { Err(reason) }
    });
    assert!(told.starts_with(&name(copied)), "{told}");
    assert!(told.contains(&group.address(copied)) && told.contains(&second), "{told}");
    let members: Json = serde_json::from_str(&group.node(leader).get("/admin/members")).unwrap();
    let member = members["members"].as_array().unwrap().iter().find(|member| member["id"] == name(copied).as_str());
    assert_eq!(member.unwrap()["problem"], told.as_str(), "{members}");
    twin.kill();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
