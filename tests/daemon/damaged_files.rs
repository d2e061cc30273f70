//! Snapshots and exports of a database whose files have rotted: nothing unusable is made in silence, and what can be read
//! is saved.

use super::process::Node;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn chronos(inside: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHRONOS_")) {
        command.env_remove(name);
    }
    command.args(arguments).env("RUST_LOG", "error").current_dir(inside).output().unwrap()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn succeeds(inside: &Path, arguments: &[&str]) -> String {
    let output = chronos(inside, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", told(&output));
    told(&output)
}

/// Runs what must fail, for damage, and name it.
fn names_damage(inside: &Path, arguments: &[&str]) -> String {
    let output = chronos(inside, arguments);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
    assert!(told.contains("(XX001)") && told.contains(".blk"), "{arguments:?}: {told}");
    told
}

/// A database `d` with a table of 20,000 rows, sealed: with a key and two indexes, or without.
fn database(inside: &Path, define: &[&str]) {
    let mut arguments = vec!["single-node", "--data-dir", "d"];
    define.iter().for_each(|statement| arguments.extend(["-e", statement]));
    succeeds(inside, &arguments);
    let rows: Vec<String> = (0..20_000).map(|id| format!("{id},{}.5,{}", id * 7919 % 20_000, id % 100)).collect();
    std::fs::write(inside.join("t.csv"), format!("id,v,kind\n{}\n", rows.join("\n"))).unwrap();
    succeeds(inside, &["import", "t.csv", "--data-dir", "d"]);
}

const INDEXED: [&str; 3] = [
    "CREATE TABLE t (id INT PRIMARY KEY, v FLOAT, kind INT)",
    "CREATE INDEX by_v ON t (v)",
    "CREATE INDEX by_kind ON t (kind)",
];

/// The largest sealed file below a directory: the one with the rows.
fn sealed(directory: &Path) -> PathBuf {
    let files = std::fs::read_dir(directory.join("state")).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|ending| ending == "blk"))
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap()
}

fn flip(path: &Path, at: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at as usize] ^= 0x10;
    // In place: a backup of a running node is a second name of the same file.
    let mut file = std::fs::File::options().write(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
}

#[test]
fn a_flipped_byte_anywhere_in_a_sealed_file_is_named_by_create_verify_and_restore() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path();
    database(inside, &INDEXED);
    let create = ["snapshot", "create", "--data-dir", "d", "--output", "s.snap"];
    let verify = ["snapshot", "verify", "--input", "s.snap"];
    let restore = ["snapshot", "restore", "--data-dir", "to/deep", "--input", "s.snap"];
    succeeds(inside, &create);
    assert!(
        inside.join("s.snap").metadata().unwrap().len() < 2 << 20,
        "neither the reserve nor the hot store is in it"
    );
    assert!(succeeds(inside, &verify).starts_with("t: 20000 rows\n"));
    succeeds(inside, &restore);
    let restored: BTreeSet<_> = std::fs::read_dir(inside.join("to/deep/local/state"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(restored.iter().all(|name| name == "CURRENT" || Path::new(name).extension().is_some()), "{restored:?}");
    std::fs::remove_dir_all(inside.join("to")).unwrap();

    let path = sealed(&inside.join("d/local"));
    let bytes = path.metadata().unwrap().len();
    let mut taken = 0;
    for place in 0..19 {
        std::fs::remove_file(inside.join("s.snap")).unwrap();
        let at = 8 + place * (bytes - 9) / 18;
        flip(&path, at);
        let named = names_damage(inside, &create);
        let is_offered = named.contains("--no-verify-checksums");
        assert!(!inside.join("s.snap").exists() && !inside.join("s.snap.partial").exists(), "{at}");
        // Without its footer a file cannot be opened at all, and that is what the error says.
        if is_offered {
            taken += 1;
            succeeds(inside, &[&create[..], &["--no-verify-checksums"]].concat());
            names_damage(inside, &verify);
            assert!(!inside.join("s.snap.verify").exists());
            assert!(names_damage(inside, &restore).contains("--no-verify-checksums"));
            assert!(!inside.join("to").exists(), "nothing is left behind");
        } else {
            assert!(place > 14, "{at} of {bytes}: {named}");
            std::fs::write(inside.join("s.snap"), "").unwrap();
        }
        flip(&path, at);
    }
    assert!(taken > 14, "{taken}");
    std::fs::remove_file(inside.join("s.snap")).unwrap();
    succeeds(inside, &create);
    succeeds(inside, &verify);
}

#[test]
fn a_damaged_snapshot_is_restored_where_that_is_wanted_and_serves_what_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path();
    database(inside, &INDEXED[..1]);
    let path = sealed(&inside.join("d/local"));
    flip(&path, path.metadata().unwrap().len() / 2);
    succeeds(inside, &["snapshot", "create", "--data-dir", "d", "--output", "s.snap", "--no-verify-checksums"]);
    succeeds(inside, &["snapshot", "restore", "--data-dir", "to", "--input", "s.snap", "--no-verify-checksums"]);
    let query = |sql: &str| chronos(inside, &["single-node", "--data-dir", "to", "--format", "csv", "-e", sql]);
    assert_eq!(told(&query("SELECT v FROM t WHERE id = 1")), "v\n7919.5\n");
    let refused = query("SELECT SUM(v) FROM t");
    assert!(!refused.status.success() && told(&refused).contains("(XX001)"), "{}", told(&refused));
}

#[test]
fn a_running_node_sends_no_damaged_snapshot_unless_asked_to() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path();
    database(inside, &INDEXED);
    let node = Node::start_local(&inside.join("d"));
    let leader = node.grpc.to_string();
    let path = sealed(&inside.join("d/local"));
    let create = ["snapshot", "create", "--leader", &leader, "--output", "s.snap"];
    // In a block of an index: rows come first.
    flip(&path, path.metadata().unwrap().len() * 3 / 4);
    let named = names_damage(inside, &create);
    assert!(named.contains("--no-verify-checksums"), "{named}");
    assert!(!inside.join("s.snap").exists() && !inside.join("s.snap.partial").exists());
    succeeds(inside, &[&create[..], &["--no-verify-checksums"]].concat());
    names_damage(inside, &["snapshot", "verify", "--input", "s.snap"]);
    flip(&path, path.metadata().unwrap().len() * 3 / 4);
    succeeds(inside, &[&create[..], &["--force"]].concat());
    succeeds(inside, &["snapshot", "verify", "--input", "s.snap"]);
}

/// The first numbers of the lines of a CSV file.
fn ids(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().next(), Some("id,v,kind"));
    text.lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect()
}

/// The ids of 0..20000 that are not there, as runs.
fn gaps(ids: &[u64]) -> Vec<std::ops::Range<u64>> {
    let known: BTreeSet<u64> = ids.iter().copied().collect();
    assert_eq!(known.len(), ids.len(), "no row is there twice");
    let mut gaps: Vec<std::ops::Range<u64>> = Vec::new();
    for id in (0..20_000).filter(|id| !known.contains(id)) {
        match gaps.last_mut() {
            Some(gap) if gap.end == id => gap.end += 1,
            _ => gaps.push(id..id + 1),
        }
    }
    gaps
}

#[test]
fn an_export_goes_on_behind_damaged_blocks_and_names_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path();
    database(inside, &INDEXED[..1]);
    let export = ["export", "--table", "t", "--data-dir", "d", "--output", "t.out"];
    let skip = [&export[..], &["--skip-damaged"]].concat();
    assert!(succeeds(inside, &skip).contains("nothing is damaged"));
    assert_eq!(ids(&inside.join("t.out")), (0..20_000).collect::<Vec<u64>>());
    std::fs::remove_file(inside.join("t.out")).unwrap();

    let path = sealed(&inside.join("d/local"));
    let bytes = path.metadata().unwrap().len();
    flip(&path, bytes / 4);
    flip(&path, bytes / 2);
    names_damage(inside, &export);
    assert!(!inside.join("t.out").exists());
    let output = chronos(inside, &skip);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let gaps = gaps(&ids(&inside.join("t.out")));
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    for gap in &gaps {
        let rows = gap.end - gap.start;
        assert!(rows <= 2048, "a block");
        let line = format!("missing: id from {} to {} ({rows} rows): ", gap.start, gap.end - 1);
        assert!(told.contains(&line) && told.contains(".blk at "), "{line}: {told}");
    }
    let lost: u64 = gaps.iter().map(|gap| gap.end - gap.start).sum();
    let closing = format!("{} rows are written; {lost} rows in 2 blocks cannot be read\n", 20_000 - lost);
    assert!(told.ends_with(&closing), "{told}");

    let refused = chronos(inside, &["export", "--table", "t", "--skip-damaged", "--leader", "127.0.0.1:8000"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--leader"), "by name");
    let absent = chronos(inside, &["export", "--table", "u", "--data-dir", "d", "--skip-damaged"]);
    assert!(!absent.status.success() && String::from_utf8_lossy(&absent.stderr).contains("(42P01)"));
}

#[test]
fn an_export_of_a_table_without_a_key_says_when_the_missing_rows_were_inserted() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path();
    database(inside, &["CREATE TABLE t (id INT, v FLOAT, kind INT)"]);
    let path = sealed(&inside.join("d/local"));
    flip(&path, path.metadata().unwrap().len() / 2);
    let output = chronos(inside, &["export", "--table", "t", "--data-dir", "d", "--output", "t.out", "--skip-damaged"]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let gaps = gaps(&ids(&inside.join("t.out")));
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(told.contains("missing: rows inserted from 20") && told.contains("(2048 rows): "), "{told}");
}

#[test]
fn a_query_is_exported_without_a_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path();
    database(inside, &INDEXED[..1]);
    let sql = "SELECT COUNT(*) AS n, MAX(kind) AS k FROM t";
    let output = chronos(inside, &["export", "--query", sql, "--data-dir", "d", "--id", "local"]);
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()), (Some(0), "n,k\n20000,99\n"));
    let nowhere = chronos(inside, &["export", "--query", sql, "--data-dir", "nowhere"]);
    assert!(!nowhere.status.success() && !inside.join("nowhere").exists(), "an export makes no database");
}
