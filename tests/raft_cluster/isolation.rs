//! Lines that break, and lines that are slow.

use crate::group::{Group, name};
use crate::patience::until;
use serde_json::{Value as Json, json};

/// Inserts by way of any of these nodes.
fn insert(group: &Group, nodes: &[usize], id: i64) {
    let sql = json!({ "sql": format!("INSERT INTO t VALUES ({id})") }).to_string();
    let mut turn = 0;
    until("a majority takes a write", || {
        turn += 1;
        match group.node(nodes[turn % nodes.len()]).post_sql(&sql) {
            (200, _) => Ok(()),
            // An attempt before was in doubt, and done.
            (400, answer) if answer["sqlstate"] == "23505" => Ok(()),
            (_, answer) => Err(answer.to_string()),
        }
    });
}

#[test]
fn a_node_that_is_cut_off_takes_nothing_and_comes_back_with_what_the_others_have() {
    let group = Group::start_behind_lines(&[("CHRONOS_LIMITS__STATEMENT_TIMEOUT", "5s")]);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    // First the one that leads, then one that does not.
    for round in 0..2 {
        let leader = group.leader();
        let alone = if round == 0 { leader } else { (leader + 1) % 3 };
        let others = [(alone + 1) % 3, (alone + 2) % 3];
        group.isolate(alone);
        let write = json!({ "sql": format!("INSERT INTO t VALUES ({})", 1000 + round) }).to_string();
        let (status, answer) = group.node(alone).post_sql(&write);
        let says_so = status == 503 || (status == 500 && answer["sqlstate"] == json!("08007"));
        assert!(says_so, "{} is alone: {status} {answer}", name(alone));
        for id in 0..5 {
            insert(&group, &others, 10 * round + id);
        }
        let read = r#"{"sql": "SELECT COUNT(*) FROM t"}"#;
        assert_ne!(group.node(alone).post_sql(read).0, 200, "it cannot know what the others have");
        let (status, answer) = group.node(alone).post_sql(&write);
        assert_ne!(status, 200, "{answer}");
        group.heal();
        (0..3).for_each(|at| group.until_ready(at));
        assert_eq!(group.number(alone, "SELECT COUNT(*) FROM t WHERE id < 1000"), 5 * (round + 1));
        assert_eq!(group.number(alone, "SELECT COUNT(*) FROM t WHERE id >= 1000"), 0, "nobody else has heard of it");
        group.agree();
    }
}

#[test]
fn a_slow_line_full_of_entries_elects_nobody() {
    // A line that is slower than any by as much as an election takes longer: what lies before a heartbeat takes the same part
    // of it, and nothing that this machine does beside it takes so long.
    let group = Group::start_behind_lines(&[("CHRONOS_RAFT__ELECTION_TIMEOUT", "2s")]);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)");
    // The others dial the third one: its entries go back on what they have dialled. And the other way round.
    for leads in [2, 0] {
        let transfer = json!({ "to": name(leads) }).to_string();
        until("it leads", || match group.node(leads).http("POST", "/admin/transfer", &[], transfer.as_bytes()) {
            (200, _) => Ok(()),
            _ if group.leader() == leads => Ok(()),
            (_, answer) => Err(answer),
        });
        let health = |at: usize| serde_json::from_str::<Json>(&group.node(at).get("/health")).unwrap();
        let term = health(leads)["term"].clone();
        group.slow_down(250_000);
        let mut state = 7_u64 + leads as u64;
        let mut letter = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'0' + (state >> 58) as u8)
        };
        for part in 0..2 {
            // What does not compress; '\'' is none of them.
            let words: String = (0..1_500_000).map(|_| letter()).map(|c| if c == '\'' { 'x' } else { c }).collect();
            group.sql(leads, &format!("INSERT INTO t VALUES ({}, '{words}')", leads * 10 + part));
        }
        group.slow_down(u64::MAX);
        assert_eq!((group.leader(), &health(leads)["term"]), (leads, &term), "somebody stood");
    }
}
