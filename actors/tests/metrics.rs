//! The metrics text of a running node against the rules that promtool checks, and the counts in it.

use crate::actors::tests::node::{Running, on_a_system};
use std::collections::BTreeMap;

/// Name of a sample: what stands before its labels or its value.
fn sample_name(line: &str) -> &str {
    line.split(['{', ' ']).next().unwrap()
}

/// Every rule of promtool's lint that this text could break.
fn check(text: &str) {
    let mut types = BTreeMap::new();
    let mut helped = Vec::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("a help has words");
            assert!(!words.is_empty() && !helped.contains(&name), "{line}");
            helped.push(name);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(helped.last(), Some(&name), "help comes first: {line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(!name.contains("millisecond") && !name.contains("kilobyte"), "base units: {line}");
            assert!(types.insert(name.to_string(), kind.to_string()).is_none(), "described twice: {line}");
            current = name.to_string();
        } else {
            assert!(!line.starts_with('#'), "nothing else is a comment: {line}");
            let name = sample_name(line);
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .filter(|_| types[&current] == "histogram")
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            assert_eq!(base, current, "a sample follows its description: {line}");
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}

/// The value of one sample.
fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == sample));
    let line = line.unwrap_or_else(|| panic!("{sample} is missing in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_text_keeps_the_rules_of_promtool_and_counts_what_was_done() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start(directory.path()).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        for id in 0..3 {
            node.execute(&format!("INSERT INTO t VALUES ({id})")).await.unwrap();
        }
        node.execute("SELECT nothing FROM t").await.unwrap_err();
        node.execute("INSERT INTO t VALUES (1)").await.unwrap_err();
        node.until_published().await;
        let text = node.router.render().await.unwrap();
        check(&text);
        for (sample, at_least) in [
            ("chronos_sql_requests_total{kind=\"read\"}", 1.0),
            ("chronos_sql_requests_total{kind=\"write\"}", 5.0),
            ("chronos_sql_duration_seconds_count{kind=\"write\"}", 5.0),
            ("chronos_sql_errors_total{kind=\"invalid\"}", 1.0),
            ("chronos_raft_term", 1.0),
            ("chronos_raft_role", 2.0),
            ("chronos_raft_commit_index", 5.0),
            ("chronos_raft_applied_index", 5.0),
            ("chronos_raft_elections_total", 1.0),
            ("chronos_raft_commit_duration_seconds_count", 4.0),
            ("chronos_wal_fsync_duration_seconds_count", 4.0),
            ("chronos_wal_entries_total", 4.0),
            ("chronos_wal_size_bytes", 1.0),
            ("chronos_wal_segments", 1.0),
            ("chronos_storage_apply_duration_seconds_count", 4.0),
            ("chronos_storage_commands_applied_total", 4.0),
            ("chronos_storage_memtable_bytes", 1.0),
            ("chronos_storage_disk_free_bytes", 1.0),
            ("process_cpu_seconds_total", 0.001),
            ("process_resident_memory_bytes", 1e6),
            ("process_open_fds", 3.0),
            ("process_start_time_seconds", 1.7e9),
        ] {
            assert!(value(&text, sample) >= at_least, "{sample} is {}", value(&text, sample));
        }
        // There from the start, and nothing has happened yet.
        for sample in [
            "chronos_actor_restarts_total{actor=\"storage\"}",
            "chronos_actor_mailbox_messages{actor=\"sync\"}",
            "chronos_sql_errors_total{kind=\"in_doubt\"}",
            "chronos_sync_pending_operations",
            "chronos_sync_pending_age_seconds",
            "chronos_sync_errors_total",
            "chronos_sync_dead_letters",
            "chronos_ttl_rows_expired_total",
            "chronos_scrub_damaged_blocks",
            "chronos_storage_disk_full",
            "chronos_connections_refused_total{door=\"grpc\"}",
        ] {
            assert!(value(&text, sample).abs() < f64::EPSILON, "{sample} is {}", value(&text, sample));
        }
        node.stop().await;
    });
}

#[test]
fn no_counter_goes_back_when_storage_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start(directory.path()).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        node.until_published().await;
        let before = node.router.render().await.unwrap();
        node.poison_storage().await;
        node.until_served().await;
        node.until_published().await;
        let after = node.router.render().await.unwrap();
        assert!(value(&after, "chronos_actor_restarts_total{actor=\"storage\"}") >= 1.0);
        for line in before.lines().filter(|line| line.contains("_total") || line.contains("_bucket")) {
            let Some((sample, then)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) else { continue };
            let then: f64 = then.parse().unwrap();
            assert!(value(&after, sample) >= then, "{sample} was {then} and is {}", value(&after, sample));
        }
        node.stop().await;
    });
}
