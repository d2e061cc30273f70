//! The metrics text against the rules that promtool checks.

use crate::actors::metrics::{Metrics, Work};
use chronos::error::Error;
use std::collections::BTreeMap;
use std::time::Duration;

/// Name of a sample: what stands before its labels or its value.
fn sample_name(line: &str) -> &str {
    line.split(['{', ' ']).next().unwrap()
}

#[test]
fn the_text_keeps_the_rules_of_promtool() {
    let metrics = Metrics::new(1_700_000_000_000);
    metrics.statement(Work::Read, Duration::from_micros(70), None);
    metrics.statement(Work::Write, Duration::from_millis(3), Some(&Error::conflict("again")));
    metrics.restarted("raft");
    let text = metrics.render().unwrap();
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
    for line in [
        "chronos_sql_requests_total{kind=\"read\"} 1",
        "chronos_sql_requests_total{kind=\"write\"} 1",
        "chronos_sql_errors_total{kind=\"conflict\"} 1",
        "chronos_actor_restarts_total{actor=\"raft\"} 1",
        "chronos_raft_term 0",
        "chronos_raft_role 0",
        "chronos_storage_size_bytes 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is missing in\n{text}");
    }
}
