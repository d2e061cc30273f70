//! Starts that are refused: by name, and before anything is made or removed.

use super::{command, directory, query, ran, run_in};

#[test]
fn clean_removes_a_database_of_another_name_only_where_it_is_named() {
    let inside = directory();
    query(inside.path(), "CREATE TABLE t (id INT PRIMARY KEY)");
    let start = ["node", "--data-dir", "d", "--address", "127.0.0.1:0", "--clean"];
    let ran = run_in(inside.path(), &start);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(
        ran.err.contains("--clean would remove \"local\", the only database in d, and not \"node1\""),
        "{}",
        ran.err
    );
    assert_eq!(query(inside.path(), "SELECT COUNT(*) AS n FROM t"), "n\n0\n");
}

#[test]
fn clean_removes_nothing_where_the_node_cannot_start() {
    let inside = directory();
    query(inside.path(), "CREATE TABLE t (id INT PRIMARY KEY)");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let start = ["node", "--data-dir", "d", "--id", "local", "--clean", "--address"];
    let ran = run_in(inside.path(), &[&start[..], &[&address, "--force"]].concat());
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("another process uses the port"), "{}", ran.err);
    assert_eq!(query(inside.path(), "SELECT COUNT(*) AS n FROM t"), "n\n0\n");
    // A group that cannot be asked is no reason either.
    let joining = ["--join", "--peers", &format!("node2={address}")];
    let free = [&start[..], &["127.0.0.1:0", "--advertise", "127.0.0.1:1"], &joining].concat();
    drop(taken);
    let ran = run_in(inside.path(), &free);
    assert_ne!(ran.code, 0, "{}", ran.err);
    assert_eq!(query(inside.path(), "SELECT COUNT(*) AS n FROM t"), "n\n0\n");
}

#[test]
fn config_check_names_what_only_a_start_would_find_out() {
    let inside = directory();
    let text = "[auth]\ntoken_admin_file = \"no.token\"\n[tls]\ncert = \"no.pem\"\nkey = \"no.key\"\nca_cert = \"no.ca\"\n[log]\nlevel = \"inof\"\n[sync]\nbatch_size = 7\n";
    std::fs::write(inside.path().join("c.toml"), text).expect("writes");
    let checked = run_in(inside.path(), &["config", "check", "c.toml"]);
    assert_eq!(checked.code, 1, "{}", checked.err);
    let expected = [
        "c.toml:2: auth.token_admin_file: cannot read no.token: ",
        "c.toml:4: tls.cert: cannot read no.pem: ",
        "c.toml:5: tls.key: cannot read no.key: ",
        "c.toml:6: tls.ca_cert: cannot read no.ca: ",
        "c.toml:8: log.level: \"inof\" is neither a level",
        "c.toml:10: sync.batch_size (7): synchronisation is not supported",
    ];
    assert_eq!(checked.err.lines().count(), expected.len(), "{}", checked.err);
    assert!(checked.err.lines().zip(expected).all(|(line, begin)| line.starts_with(begin)), "{}", checked.err);
    let mut wrong = command(&["node", "--data-dir", "d", "--address", "127.0.0.1:0"], inside.path());
    for (name, value, says) in [
        ("RUST_LOG", "wran", "environment RUST_LOG: log.level: \"wran\" is neither a level"),
        ("CHRONOS_NOPE", "1", "environment CHRONOS_NOPE: unknown"),
    ] {
        wrong.env_remove("RUST_LOG").env(name, value);
        let refused = ran(wrong.output().expect("starts"));
        assert_eq!(refused.code, 2, "{}", refused.err);
        assert!(refused.err.contains(says), "{}", refused.err);
    }
    assert!(!inside.path().join("d").exists(), "nothing was made");
}
