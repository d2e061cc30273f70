//! `chronos admin recover`: one copy goes on alone where the group cannot, and nobody beside it.

use crate::group::{Group, name};
use crate::patience::until;
use crate::process::Node;
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::Command;

/// Exit code and what it says.
fn recover(group: &Group, more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(["admin", "recover", "--id", &name(0), "--data-dir"]).arg(group.path()).args(more);
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn rows(group: &Group, from: i64, to: i64) {
    (from..to).for_each(|id| drop(group.sql(0, &format!("INSERT INTO t VALUES ({id}, 'row {id}')"))));
}

/// Overwrites a place in the log that others follow.
fn damage_log(directory: &Path) {
    let segments = std::fs::read_dir(directory.join("raft")).unwrap().map(|entry| entry.unwrap().path());
    let newest = segments.filter(|path| path.extension().is_some_and(|end| end == "wal")).max().unwrap();
    let mut content = std::fs::read(&newest).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap();
    content[end - end / 4..][..300].iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(newest, content).unwrap();
}

/// Starts a node that logs to a file; gives what it has said once it serves.
fn start_logged(group: &mut Group, at: usize) -> String {
    let log = group.path().join("started.log");
    let _ = std::fs::remove_file(&log);
    let mut command = group.command(at, &[]);
    command.env("CHRONOS_LOG_FILE", &log);
    group.nodes[at] = Some(Node::spawn_as(command, group.path(), &name(at)));
    group.until_ready(at);
    std::fs::read_to_string(&log).unwrap()
}

/// Empties a member's directory and adds it again.
fn add_again(group: &mut Group, at: usize) {
    std::fs::remove_dir_all(group.directory(at)).unwrap();
    let add = json!({ "add": { "id": name(at), "address": group.address(at), "role": "voter" } }).to_string();
    until("it is added", || match group.node(0).http("POST", "/admin/members", &[], add.as_bytes()) {
        (200, _) => Ok(()),
        (_, answer) => Err(answer),
    });
    let command = group.command(at, &["--join"]);
    group.nodes[at] = Some(Node::spawn_as(command, group.path(), &name(at)));
    group.until_ready(at);
}

fn voters(group: &Group) -> Vec<String> {
    let members: Json = serde_json::from_str(&group.node(0).get("/admin/members")).unwrap();
    let voters = members["members"].as_array().unwrap().iter().filter(|member| member["role"] == json!("voter"));
    voters.map(|member| member["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn one_whole_copy_goes_on_where_two_of_three_are_damaged() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, note TEXT)");
    rows(&group, 0, 60);
    group.agree();
    (0..3).for_each(|at| group.kill(at));
    [1, 2].into_iter().for_each(|at| damage_log(&group.directory(at)));
    (0..3).for_each(|at| group.restart(at));
    [1, 2].into_iter().for_each(|at| group.until_readiness(at, "the log was damaged"));
    let (status, answer) = group.node(0).post_sql(r#"{"sql": "INSERT INTO t VALUES (1000, 'no')"}"#);
    assert_eq!(status, 503, "nobody is elected by one of three: {answer}");

    let (code, told) = recover(&group, &["--accept-loss"]);
    assert!(code == Some(1) && told.contains("is in use by process"), "{code:?} {told}");
    group.kill(0);
    let (code, told) = recover(&group, &[]);
    assert_eq!(code, Some(1), "{told}");
    for says in
        ["its log ends at entry", "node2, node3: none of them may run again", "nothing was changed", "first stop"]
    {
        assert!(told.contains(says), "{says}: {told}");
    }
    let (code, told) = recover(&group, &["--accept-loss"]);
    assert!(code == Some(1) && told.contains("something answers at node2"), "{code:?} {told}");
    [1, 2].into_iter().for_each(|at| group.kill(at));
    let (code, facts) = recover(&group, &["--json"]);
    let facts: Json = serde_json::from_str(facts.lines().next().unwrap()).unwrap();
    assert_eq!((code, &facts["left_out"], &facts["damage"]), (Some(1), &json!(["node2", "node3"]), &Json::Null));
    let (code, told) = recover(&group, &["--accept-loss"]);
    assert!(code == Some(0) && told.contains("node1 is a group of its own now"), "{code:?} {told}");
    let (code, told) = recover(&group, &["--accept-loss"]);
    assert!(code == Some(0) && told.contains("there is nothing to recover"), "{code:?} {told}");

    let said = start_logged(&mut group, 0);
    assert!(said.contains("audit_recover") && said.contains("may be among it"), "{said}");
    assert_eq!(group.number(0, "SELECT COUNT(*) FROM t WHERE id < 60"), 60, "all that was acknowledged is here");
    group.kill(0);
    let said = start_logged(&mut group, 0);
    assert!(!said.contains("audit_recover"), "it is said once: {said}");
    rows(&group, 60, 70);
    [1, 2].into_iter().for_each(|at| add_again(&mut group, at));
    until("all three vote", || match voters(&group) {
        voters if voters.len() == 3 => Ok(()),
        voters => Err(format!("{voters:?}")),
    });
    group.sql(2, "INSERT INTO t VALUES (70, 'at a new one')");
    group.agree();
    assert_eq!(group.number(1, "SELECT COUNT(*) FROM t"), 71);
    // And it survives what a group of three does.
    group.kill(0);
    until("the two go on", || match group.node(1).post_sql(r#"{"sql": "INSERT INTO t VALUES (71, 'x')"}"#) {
        (200, _) => Ok(()),
        (_, answer) => Err(answer.to_string()),
    });
}

#[test]
fn old_members_on_their_old_disks_elect_nobody_and_count_for_nothing() {
    // They have more time to ask than two busy processors take.
    let mut group = Group::start_with(&[("CHRONOS_RAFT__ELECTION_TIMEOUT", "1s")]);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, note TEXT)");
    rows(&group, 0, 10);
    group.agree();
    (0..3).for_each(|at| group.kill(at));
    let (code, told) = recover(&group, &["--accept-loss"]);
    assert_eq!(code, Some(0), "{told}");
    group.restart(0);
    group.until_ready(0);
    rows(&group, 10, 20);
    // Two whole copies: the majority of the group as they know it.
    let write = r#"{"sql": "INSERT INTO t VALUES (2000, 'beside')"}"#;
    [1, 2].into_iter().for_each(|at| group.restart(at));
    for round in ["asked", "remembered"] {
        for at in [1, 2] {
            until("it is told that it was left out", || {
                let (status, answer) = group.node(at).post_sql(write);
                assert_eq!(status, 503, "{round}: {answer}");
                let (_, readiness) = group.node(at).http("GET", "/ready", &[], b"");
                if readiness.contains("left out when that was recovered") { Ok(()) } else { Err(readiness) }
            });
        }
        if round == "asked" {
            assert_eq!(voters(&group), ["node1"]);
            rows(&group, 20, 25);
            // Nobody is there to ask.
            (0..3).for_each(|at| group.kill(at));
            [1, 2].into_iter().for_each(|at| group.restart(at));
        }
    }
    [1, 2].into_iter().for_each(|at| group.kill(at));
    group.restart(0);
    group.until_ready(0);
    assert_eq!(group.number(0, "SELECT COUNT(*) FROM t"), 25);
    [1, 2].into_iter().for_each(|at| add_again(&mut group, at));
    group.agree();
    assert_eq!(group.number(2, "SELECT COUNT(*) FROM t"), 25);
}

#[test]
fn the_last_copy_counts_although_nothing_of_its_log_but_the_state_can_be_read() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, note TEXT)");
    rows(&group, 0, 60);
    group.agree();
    (0..3).for_each(|at| assert!(group.nodes[at].take().unwrap().terminate().success()));
    let segments = std::fs::read_dir(group.directory(0).join("raft")).unwrap().map(|entry| entry.unwrap().path());
    let segments: Vec<_> = segments.filter(|path| path.extension().is_some_and(|end| end == "wal")).collect();
    let [only] = &segments[..] else { panic!("a clean stop leaves one segment: {segments:?}") };
    let mut content = std::fs::read(only).unwrap();
    content.iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(only, content).unwrap();
    let (code, told) = recover(&group, &[]);
    assert!(code == Some(1) && told.contains("nothing was changed"), "{told}");
    assert!(!told.contains("empty directory"), "the last copy is not to be thrown away: {told}");
    let (code, facts) = recover(&group, &["--json"]);
    let facts: Json = serde_json::from_str(facts.lines().next().unwrap()).unwrap();
    assert_eq!((code, &facts["left_out"]), (Some(1), &json!(["node2", "node3"])), "{facts}");
    assert!(facts["reach"].as_u64() >= Some(60) && facts["reach"] == facts["committed_at_least"], "{facts}");
    let (code, told) = recover(&group, &["--accept-loss"]);
    let kept = format!("with what it had up to entry {}: start it", facts["reach"]);
    assert!(code == Some(0) && told.contains(&kept), "{kept}: {code:?} {told}");
    let said = start_logged(&mut group, 0);
    assert!(said.contains("audit_recover"), "{said}");
    assert_eq!(group.number(0, "SELECT COUNT(*) FROM t"), 60);
    rows(&group, 60, 70);
}

#[test]
fn the_last_copy_counts_although_its_newest_term_and_vote_cannot_be_read() {
    let mut group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, note TEXT)");
    rows(&group, 0, 60);
    group.agree();
    (0..3).for_each(|at| group.kill(at));
    let segments = std::fs::read_dir(group.directory(0).join("raft")).unwrap().map(|entry| entry.unwrap().path());
    let newest = segments.filter(|path| path.extension().is_some_and(|end| end == "wal")).max().unwrap();
    let mut content = std::fs::read(&newest).unwrap();
    damage_log(&group.directory(0));
    let (code, told) = recover(&group, &[]);
    for says in ["this copy reaches at least entry", "and may have lost", "on a copy of the directory"] {
        assert!(code == Some(1) && told.contains(says), "the hot store is of this boot: {says}: {told}");
    }
    content[60] ^= 1;
    std::fs::write(newest, content).unwrap();
    let (code, facts) = recover(&group, &["--json"]);
    let facts: Json = serde_json::from_str(facts.lines().next().unwrap()).unwrap();
    assert_eq!((code, &facts["term_is_certain"]), (Some(1), &json!(false)), "{facts}");
    assert!(facts["reach"].as_u64() >= Some(60) && facts["reach"] == facts["reached"], "{facts}");
    let (code, told) = recover(&group, &["--accept-loss"]);
    for says in
        ["its newest term and vote cannot be read", "this copy reaches entry", "node1 is a group of its own now"]
    {
        assert!(code == Some(0) && told.contains(says), "{says}: {code:?} {told}");
    }
    let said = start_logged(&mut group, 0);
    assert!(said.contains("audit_recover"), "{said}");
    assert_eq!(group.number(0, "SELECT COUNT(*) FROM t"), 60, "what can be read of its log is there");
    rows(&group, 60, 70);
}
