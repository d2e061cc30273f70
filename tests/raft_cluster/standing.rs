//! What a node says of itself and of its peers: role, lag, and whether it can answer.

use crate::group::{Group, name};
use crate::patience::{Patience, until};
use crate::process::body;
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use std::process::{Command, Stdio};

fn is_ready(group: &Group, at: usize) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    // Without a token, as a container's health check.
    command.args(["admin", "ready", "--leader", &group.node(at).grpc.to_string()]).env_remove("CHRONOS_AUTH_TOKEN");
    command.output().unwrap().status.success()
}

#[test]
fn a_leader_shows_how_far_the_others_are() {
    let group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let leader = group.leader();
    let stopped = (leader + 1) % 3;
    let lag = |of: usize| -> Option<f64> {
        let sample = format!("chronos_raft_peer_lag_entries{{peer=\"{}\"}} ", name(of));
        group.node(leader).get("/metrics").lines().find_map(|line| line.strip_prefix(&sample)?.parse().ok())
    };
    assert!(lag(leader).is_none() && lag((leader + 2) % 3).is_some());
    assert!(!group.node(stopped).get("/metrics").contains("chronos_raft_peer_lag_entries"));
    let commits = |at: usize| group.metric(at, "chronos_raft_commit_duration_seconds_count ");
    let (before, elsewhere) = (commits(leader), commits(stopped));
    group.node(stopped).signal(Signal::STOP);
    (0..20).for_each(|id| drop(group.sql(leader, &format!("INSERT INTO t VALUES ({id})"))));
    let patience = Patience::new();
    while lag(stopped).is_none_or(|entries| entries < 20.0) {
        patience.spend(|| format!("{:?}", lag(stopped)));
    }
    group.node(stopped).signal(Signal::CONT);
    while lag(stopped) != Some(0.0) {
        patience.spend(|| format!("{:?}", lag(stopped)));
    }
    assert!(commits(leader) >= before + 20.0 && commits(stopped) <= elsewhere, "it is the leader that times them");
}

#[test]
fn whether_a_node_can_answer_needs_no_token_to_be_known() {
    let tokens = [("CHRONOS_AUTH_TOKEN_ADMIN", "admin-s3cret"), ("CHRONOS_AUTH__CLUSTER_TOKEN", "cluster-s3cret")];
    let mut group = Group::start_with(&tokens);
    let patience = Patience::new();
    for at in 0..3 {
        while !is_ready(&group, at) {
            patience.spend(|| format!("{} is never ready", name(at)));
        }
    }
    group.kill(1);
    group.kill(2);
    let patience = Patience::new();
    while is_ready(&group, 0) || group.node(0).http("GET", "/ready", &[], b"").0 != 503 {
        patience.spend(|| "ready, and there is nobody to agree".to_string());
    }
}

#[test]
fn a_node_that_only_learns_says_so() {
    let mut group = Group::start();
    let observer = group.join_as("observer");
    let health: Json = serde_json::from_str(&group.node(observer).get("/health")).unwrap();
    assert_eq!((&health["role"], &health["status"]), (&json!("Learner"), &json!("ok")), "{health}");
    let status: Json = serde_json::from_str(&group.node(observer).get("/status")).unwrap();
    let own = status["members"].as_array().unwrap().iter().find(|member| member["id"] == json!(name(observer)));
    assert_eq!(own.unwrap()["role"], json!("Learner"), "{status}");
    let (_, answer) = group.node(group.leader()).http("GET", "/health", &[], b"");
    assert!(body(&answer).contains("\"role\":\"Leader\""), "{answer}");
}

#[test]
fn an_observer_stays_one_and_a_learner_becomes_a_voter_whoever_names_them() {
    let role = |group: &Group, at: usize| {
        let members: Json = serde_json::from_str(&group.node(group.leader()).get("/admin/members")).unwrap();
        let member = members["members"].as_array().unwrap().iter().find(|member| member["id"] == json!(name(at)));
        member.unwrap()["role"].as_str().unwrap().to_owned()
    };
    let until_role = |group: &Group, at: usize, wanted: &str| {
        until(&format!("{} is {wanted}", name(at)), || {
            let role = role(group, at);
            if role == wanted { Ok(()) } else { Err(role) }
        });
    };
    // By an operator.
    let mut group = Group::start();
    let learner = group.join_as("learner");
    until_role(&group, learner, "voter");
    drop(group);
    // By a file, which the group begins with.
    let group = Group::start_beside("learner", &[]);
    until_role(&group, 2, "voter");
    drop(group);
    let group = Group::start_beside("observer", &[]);
    group.sql(2, "CREATE TABLE t (id INT PRIMARY KEY)");
    group.sql(2, "INSERT INTO t VALUES (1)");
    group.agree();
    assert_eq!((role(&group, 2).as_str(), group.number(2, "SELECT COUNT(*) FROM t")), ("observer", 1));
}

#[test]
fn members_that_are_configured_and_are_not_those_of_the_group_are_named() {
    let mut group = Group::start();
    let fourth = group.join_as("observer");
    let start = |group: &mut Group, at: usize| {
        let log = group.path().join(format!("{}.log", name(at)));
        group.kill(at);
        let mut command = group.command(at, &[]);
        command.env("CHRONOS_LOG_FILE", &log);
        group.nodes[at] = Some(crate::process::Node::spawn_as(command, group.path(), &name(at)));
        group.node(at).until_ready();
        log
    };
    let log = start(&mut group, 0);
    let patience = Patience::new();
    loop {
        let said = std::fs::read_to_string(&log).unwrap();
        let told: Vec<&str> = said.lines().filter(|line| line.contains("are not those of the group")).collect();
        if let [told] = told[..] {
            assert!(told.contains(&format!("{}=", name(fourth))), "{told}");
            break;
        }
        assert!(told.is_empty(), "{said}");
        patience.spend(|| said.clone());
    }
    // Until it is as it was.
    let remove = json!({ "remove": name(fourth) }).to_string();
    loop {
        let (status, answer) = group.node(group.leader()).http("POST", "/admin/members", &[], remove.as_bytes());
        if status == 200 {
            break;
        }
        assert!(status == 503, "{answer}");
        patience.spend(|| answer.clone());
    }
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let log = start(&mut group, 2);
    group.sql(2, "INSERT INTO t VALUES (1)");
    let said = std::fs::read_to_string(log).unwrap();
    assert!(!said.contains("are not those of the group"), "{said}");
}

#[test]
fn a_node_that_grew_into_a_group_is_told_that_it_takes_nobody_for_a_member() {
    let directory = tempfile::tempdir().unwrap();
    let (log, ports) = (directory.path().join("node.log"), crate::process::free_ports(1));
    let start = |settings: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
        command.args(["node", "--id", "node1", "--address", &format!("127.0.0.1:{}", ports[0])]);
        command.arg("--data-dir").arg(directory.path()).envs(settings.iter().copied());
        command.env("CHRONOS_LOG_FILE", &log).env("RUST_LOG", "warn").env("CHRONOS_HTTP__ADDRESS", "127.0.0.1:0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        crate::process::Node::spawn_as(command, directory.path(), "node1")
    };
    let node = start(&[]);
    node.until_ready();
    let add = json!({ "add": { "id": "node2", "address": "127.0.0.1:1", "role": "observer" } }).to_string();
    let (status, answer) = node.http("POST", "/admin/members", &[], add.as_bytes());
    assert_eq!(status, 200, "{answer}");
    node.terminate();
    let warned = || std::fs::read_to_string(&log).unwrap().contains("no other node would be taken for a member");
    assert!(!warned());
    // Its settings name nobody, so nothing was wrong with them.
    let tokens = [("CHRONOS_AUTH_TOKEN_ADMIN", "admin-s3cret")];
    let node = start(&tokens);
    let patience = Patience::new();
    while !warned() {
        patience.spend(|| std::fs::read_to_string(&log).unwrap());
    }
    drop(node);
}
