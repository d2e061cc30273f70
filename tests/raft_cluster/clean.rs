//! `--clean` where others count on the disk.

use crate::group::{Group, name};
use crate::patience::Patience;
use std::io::Read;
use std::process::{Command, Stdio};

/// The error of a process that is to end by itself.
fn refusal(mut command: Command) -> String {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let patience = Patience::new();
    while child.try_wait().unwrap().is_none() {
        patience.spend(|| {
            child.kill().unwrap();
            "it has started, and the data is gone".to_string()
        });
    }
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    told
}

#[test]
fn a_member_of_a_group_is_cleaned_only_by_force() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    group.sql(0, "INSERT INTO t VALUES (1)");
    group.kill(1);
    let told = refusal(group.command(1, &["--clean"]));
    assert!(told.contains("a member of the group node1, node2, node3") && told.contains("--force"), "{told}");
    let mut alone = Command::new(env!("CARGO_BIN_EXE_chronos"));
    alone.args(["node", "--id", &name(1), "--address", "127.0.0.1:0", "--clean", "--data-dir"]).arg(group.path());
    let told = refusal(alone);
    assert!(told.contains("a member of the group"), "what counts is the log, not --peers: {told}");
    group.restart(1);
    group.node(1).until_ready();
    assert_eq!(group.number(1, "SELECT COUNT(*) FROM t"), 1);
    group.agree();
    // A log that cannot be read may be anybody's.
    group.kill(1);
    let log = group.path().join(name(1)).join("raft");
    for entry in std::fs::read_dir(&log).unwrap() {
        std::fs::write(entry.unwrap().path(), [7; 9000]).unwrap();
    }
    let told = refusal(group.command(1, &["--clean"]));
    assert!(told.contains("cannot be told") && told.contains("--force"), "{told}");
    let forced = group.command(1, &["--clean", "--force"]);
    group.nodes[1] = Some(crate::process::Node::spawn_as(forced, group.path(), &name(1)));
    let patience = Patience::new();
    while !group.node(1).http("GET", "/ready", &[], b"").1.contains("new disk") {
        patience.spend(String::new);
    }
}
