//! The commented default file: every setting with its reason and its default.

use super::setting::{Config, Known, SECTIONS, SETTINGS};
use super::unit::{Raw, Setting};
use std::fmt::Write;

const HEAD: &str = "\
# ChronosDB: every setting, its default and the reason for it. `chronos config default` prints this file.
#
# Later wins: this file < environment < flags. Any setting may also be given as CHRONOS_<SECTION>__<KEY>, for example
# CHRONOS_STORAGE__MEMORY_BYTES_MAX=\"48 MB\". `chronos config check FILE` checks a file, `chronos config show --origin`
# says where each value comes from. Sizes: \"64 MiB\" (1024 based), \"64 MB\" (1000 based). Durations: \"100ms\", \"5s\", \"10min\", \"1h\", \"7d\".
";

const CLUSTER: &str = "
# The members of the Raft group, this node among them, the same on all. Without any, the node is a group of its own.
# A role is \"voter\"; \"witness\", which votes and keeps the log without any rows, the small third beside two that have
# the data; \"learner\", which becomes a voter once it has caught up; or \"observer\", which has the data and never votes.
# [[cluster.members]]
# id = \"node1\"
# address = \"127.0.0.1:8000\"
# role = \"voter\"
";

/// The text of `config/chronos.toml`.
pub fn default_file() -> String {
    let config = Config::default();
    let mut out = HEAD.to_owned();
    for section in SECTIONS {
        out.push('\n');
        comment(&mut out, section.docs);
        let _ = writeln!(out, "[{}]", section.name);
        for known in SETTINGS.iter().filter(|known| known.section == section.name) {
            setting(&mut out, known, &config);
        }
        if section.name == "cluster" {
            out.push_str(CLUSTER);
        }
    }
    out
}

fn comment(out: &mut String, docs: &[&str]) {
    for line in docs {
        let _ = writeln!(out, "#{line}");
    }
}

fn setting(out: &mut String, known: &Known, config: &Config) {
    comment(out, known.docs);
    let _ = match config.toml(known.section, known.name) {
        Some(value) => writeln!(out, "{} = {value}", known.name),
        None => writeln!(out, "# {} = {}", known.name, example(known)),
    };
}

/// The example in the notation of its type; every setting without a default takes a string.
fn example(known: &Known) -> String {
    String::read(&Raw::Text(known.example.to_owned())).ok().and_then(|text| text.toml()).unwrap_or_default()
}
