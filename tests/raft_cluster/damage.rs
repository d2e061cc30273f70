//! A member whose copy is damaged, or differs, is brought the group's.

use crate::group::{Group, name};
use crate::patience::Patience;
use crate::process::body;
use chronos::ids::Term;
use chronos::raft::{Entry, HardState};
use chronos::storage::directory::Database as Directory;
use chronos::storage::engine::salt;
use chronos::storage::files::{Files, SystemFiles};
use chronos::storage::wal::{Wal, WalOptions};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Logs short enough that what was damaged cannot be had from them.
const SHORT_LOGS: [(&str, &str); 4] = [
    ("CHRONOS_STORAGE__SEAL_WAL_BYTES", "4MiB"),
    ("CHRONOS_STORAGE__SEGMENT_BYTES", "1MiB"),
    ("CHRONOS_STORAGE__DISK_RESERVE", "1MiB"),
    ("CHRONOS_RAFT__LOG_KEEP_BYTES_MAX", "0B"),
];

fn look_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Patience::new();
    while !is_so() {
        patience.spend(|| what.to_string());
    }
}

/// Writes more than a log keeps.
fn fill(group: &Group) {
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, note TEXT)");
    for from in 0..24 {
        let note = format!("{from}").repeat(400 / format!("{from}").len());
        let tuples: Vec<String> = (0..1000).map(|i| format!("({}, '{note}{i}')", from * 1000 + i)).collect();
        group.sql(0, &format!("INSERT INTO t VALUES {}", tuples.join(", ")));
    }
    group.agree();
}

fn state(group: &Group, at: usize) -> PathBuf {
    group.path().join(name(at)).join("state")
}

fn largest_block_file(state: &Path) -> PathBuf {
    let paths = std::fs::read_dir(state).unwrap().map(|entry| entry.unwrap().path());
    let sealed = paths.filter(|path| path.extension().is_some_and(|end| end == "blk"));
    sealed.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut content = std::fs::read(path).unwrap();
    content[at] ^= 1;
    std::fs::write(path, content).unwrap();
}

fn health(group: &Group, at: usize) -> Json {
    serde_json::from_str(body(&group.node(at).http("GET", "/health", &[], b"").1)).unwrap()
}

#[test]
fn a_follower_with_a_damaged_block_or_current_is_brought_a_snapshot() {
    let mut group = Group::start_with(&SHORT_LOGS);
    fill(&group);
    let in_block: fn(&Path) = |state| flip(&largest_block_file(state), 100);
    let damages: [(&str, fn(&Path)); 3] = [
        ("a block that is read", in_block),
        ("a block that apply needs", in_block),
        ("CURRENT", |state| flip(&state.join("CURRENT"), 20)),
    ];
    for (at, (what, damage)) in damages.into_iter().enumerate() {
        let follower = (group.leader() + 1) % 3;
        assert!(group.nodes[follower].take().unwrap().terminate().success());
        group.sql(group.leader(), &format!("INSERT INTO t VALUES ({}, 'meanwhile')", 1_000_000 + at));
        damage(&state(&group, follower));
        group.restart(follower);
        if what.contains("apply") {
            group.sql(group.leader(), "UPDATE t SET note = 'changed' WHERE id % 1000 = 7");
        }
        look_until(&format!("{what}: it goes on with what is damaged"), || {
            if what.contains("read") {
                // Whoever looks at all of it meets the block.
                let _ = group.node(follower).http("GET", "/status", &[], b"");
            }
            group.path().join(name(follower)).join("state-damaged").exists()
        });
        group.node(follower).until_ready();
        group.agree();
        look_until(&format!("{what}: it is not whole again"), || health(&group, follower)["status"] == json!("ok"));
        assert!(!group.path().join(name(follower)).join("state-damaged").exists(), "{what}");
        assert_eq!(group.number(follower, "SELECT COUNT(*) FROM t WHERE id >= 0 AND id < 24000"), 24_000);
    }
}

/// Changes a text in one entry of a member's log, of the same length, so that all checksums fit: no disk does that, but
/// a wrong program, or memory, may.
fn falsify(group: &Group, at: usize, text: &[u8], by: &[u8]) {
    let files: Arc<dyn Files> = Arc::new(SystemFiles);
    let path = group.path().join(name(at));
    let identity = Directory::open(files.clone(), &path).unwrap().identity.clone();
    let options = WalOptions { salt: salt(&identity), ..WalOptions::default() };
    let mut log = Wal::open(files, &path.join("raft"), options).unwrap().wal;
    let mut entries = log.read(log.previous().index.next(), 64 << 20).unwrap();
    let found = |entry: &Entry| entry.payload.windows(text.len()).position(|window| window == text);
    let (first, place) = entries.iter().enumerate().find_map(|(at, entry)| Some((at, found(entry)?))).unwrap();
    let mut payload = entries[first].payload.to_vec();
    payload[place..place + by.len()].copy_from_slice(by);
    entries[first].payload = payload.into();
    // A log takes entries back only in a later term.
    let known = log.hard_state().cloned().unwrap();
    let hard_state = HardState { term: Term(known.term.0 + 1), vote: None, ..known };
    log.append(&entries[first..], Some(&hard_state)).unwrap();
    log.sync().unwrap();
    // What was applied of it is made anew from the log.
    for entry in std::fs::read_dir(state(group, at)).unwrap() {
        let _ = std::fs::remove_file(entry.unwrap().path().join("BOOT"));
    }
}

#[test]
fn a_copy_that_differs_is_an_alarm_and_the_minority_is_brought_the_groups() {
    let logs = tempfile::tempdir().unwrap();
    // All three write it, a line at a time.
    let log = &*logs.path().join("log").to_str().unwrap().to_owned().leak();
    let mut group = Group::start_with(&[("CHRONOS_RAFT__COMPARE_INTERVAL", "2s"), ("CHRONOS_LOG_FILE", log)]);
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY, note TEXT)");
    group.sql(0, "INSERT INTO t VALUES (1, 'what was written')");
    group.sql(0, "INSERT INTO t VALUES (2, 'and more')");
    group.agree();
    let follower = (group.leader() + 1) % 3;
    group.kill(follower);
    falsify(&group, follower, b"what was written", b"what was twisted");
    group.restart(follower);
    group.node(follower).until_ready();
    let stale = r#"{"sql": "SELECT note FROM t WHERE id = 1", "consistency": "stale"}"#;
    let note = |group: &Group| group.node(follower).post_sql(stale).1["rows"][0][0].clone();
    let mut alarms = [false; 3];
    let mut was_wrong = false;
    look_until("nobody sees that a copy differs", || {
        was_wrong |= note(&group) == json!("what was twisted");
        for (at, alarm) in alarms.iter_mut().enumerate() {
            *alarm |= health(&group, at).to_string().contains("differ");
        }
        alarms.iter().all(|alarm| *alarm)
    });
    assert!(was_wrong, "the copy was never wrong");
    let metrics = group.node(follower).get("/metrics");
    assert!(metrics.contains("chronos_copies_mismatches_total 1"), "{metrics}");
    let said = std::fs::read_to_string(log).unwrap();
    let is_alarm = |line: &&str| line.contains("ERROR") && line.contains("differ") && line.contains("at entry");
    let alarms: Vec<&str> = said.lines().filter(is_alarm).collect();
    let own = alarms.iter().filter(|line| line.contains("this node's copy differs from the group's")).count();
    let others = alarms.iter().filter(|line| line.contains(&format!("on {} differ", name(follower)))).count();
    assert!(own >= 1 && others >= 2, "{said}");
    look_until("the wrong copy stays", || note(&group) == json!("what was written"));
    group.agree();
    for at in 0..3 {
        look_until("the alarm stays", || health(&group, at)["status"] == json!("ok"));
        let metrics = group.node(at).get("/metrics");
        assert!(metrics.contains("chronos_copies_differing 0"), "{metrics}");
    }
}
