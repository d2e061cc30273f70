//! A member whose disk is short of room: it follows, and does not lead while another one can.

use crate::group::{Group, name};
use crate::patience::until;
use crate::process::{Node, body};
use crate::skipped::skipped;
use serde_json::{Value as Json, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Starts a node that is not there, on a disk that has less room than it is to keep back: more than any test machine has.
fn start_full(group: &mut Group, at: usize) {
    let mut command = group.command(at, &[]);
    command.env("CHRONOS_STORAGE__DISK_RESERVE", "1 TB").env("CHRONOS_LOG_FILE", group.path().join("full.log"));
    group.nodes[at] = Some(Node::spawn_as(command, group.path(), &name(at)));
}

fn until_leads(group: &Group, at: usize) {
    until(&format!("{} leads", name(at)), || {
        let role = get(group, at, "/health")["role"].clone();
        if role == json!("Leader") { Ok(()) } else { Err(role.to_string()) }
    });
}

fn get(group: &Group, at: usize, path: &str) -> Json {
    serde_json::from_str(&group.node(at).get(path)).unwrap()
}

#[test]
fn a_leader_that_is_short_of_disk_hands_over_and_writes_go_on_through_any_node() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let full = group.leader();
    let (heir, third) = ((full + 1) % 3, (full + 2) % 3);
    // What the heir lacks keeps it from being elected: the full one must lead first.
    group.kill(heir);
    group.sql(full, "INSERT INTO t VALUES (1)");
    group.kill(third);
    group.kill(full);
    start_full(&mut group, full);
    group.restart(heir);
    until_leads(&group, heir);
    let log = std::fs::read_to_string(group.path().join("full.log")).unwrap();
    assert!(log.contains("this node leads, and is short of disk"), "{log}");
    group.until_ready(full);
    group.sql(heir, "INSERT INTO t VALUES (2)");
    group.sql(full, "INSERT INTO t VALUES (3)");
    group.restart(third);
    group.until_ready(third);
    group.sql(third, "INSERT INTO t VALUES (4)");
    for at in 0..3 {
        assert_eq!(group.number(at, "SELECT COUNT(*) FROM t"), 4, "at {}", name(at));
    }
    // It keeps up, so it is ready; and whoever leads says what is wrong with it.
    assert_eq!(get(&group, full, "/ready"), json!({ "ready": true }));
    let leader =
        until("another one leads", || Some(group.leader()).filter(|at| *at != full).ok_or("it does".to_owned()));
    let health = get(&group, leader, "/health");
    let told = format!("{} is short of disk", name(full));
    assert!(health["status"] == json!("degraded") && health["reason"].as_str().unwrap().contains(&told), "{health}");
    let members = get(&group, leader, "/admin/members");
    let of =
        |id: String| members["members"].as_array().unwrap().iter().find(|member| member["id"] == json!(id)).unwrap();
    assert!(of(name(full))["problem"].as_str().unwrap().starts_with(&told), "{members}");
    assert_eq!(of(name(third))["problem"], json!(""));
    // Nobody makes it lead by mistake.
    let to = json!({ "to": name(full) }).to_string();
    let (status, answer) = group.node(leader).http("POST", "/admin/transfer", &[], to.as_bytes());
    assert!(status == 503 && body(&answer).contains(&told), "{status} {answer}");
    // With room it may again.
    group.kill(full);
    group.restart(full);
    group.until_ready(full);
    until("it is let lead", || {
        let (status, answer) = group.node(leader).http("POST", "/admin/transfer", &[], to.as_bytes());
        if status == 200 { Ok(()) } else { Err(answer) }
    });
    until_leads(&group, full);
}

/// A file system of its own, which takes 64 MB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this user may not mount one.
    fn mount(at: &Path) -> Option<SmallDisk> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=64m", "none"]).arg(at);
        let mounted = command.output().is_ok_and(|output| output.status.success());
        mounted.then(|| SmallDisk(at.to_owned()))
    }

    /// Takes all the room that there is.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It may still be in use, where the test has failed.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[test]
fn a_follower_that_a_full_disk_keeps_from_following_is_not_ready_until_there_is_room() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, text TEXT)");
    let follower = (group.leader() + 1) % 3;
    group.kill(follower);
    // The same copy, on a small disk.
    let (directory, aside) = (group.directory(follower), group.path().join("aside"));
    std::fs::rename(&directory, &aside).unwrap();
    std::fs::create_dir(&directory).unwrap();
    let Some(disk) = SmallDisk::mount(&directory) else {
        return skipped("this user may not mount a small disk");
    };
    let copied = Command::new("cp").arg("-a").arg(aside.join(".")).arg(&directory).status().unwrap();
    assert!(copied.success());
    let mut command = group.command(follower, &[]);
    command.env("CHRONOS_STORAGE__DISK_RESERVE", "2 MB").env("CHRONOS_STORAGE__SEGMENT_BYTES", "1 MiB");
    group.nodes[follower] = Some(Node::spawn_as(command, group.path(), &name(follower)));
    group.until_ready(follower);
    let filler = disk.fill();
    // More than the log's spare segments take.
    let text = "x".repeat(200_000);
    (0..60).for_each(|id| drop(group.sql(group.leader(), &format!("INSERT INTO t VALUES ({id}, '{text}')"))));
    group.until_readiness(follower, "this node is short of disk");
    assert_eq!(group.number(group.leader(), "SELECT COUNT(*) FROM t"), 60, "the others go on");
    std::fs::remove_file(filler).unwrap();
    group.until_ready(follower);
    assert_eq!(group.number(follower, "SELECT COUNT(*) FROM t"), 60);
    group.kill(follower);
}
