//! The command line as a shell meets it: what it prints, where, and with which exit code.

mod backslashes;
mod starts;
mod values;

use crate::process::Node;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a run came to.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn command(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHRONOS_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().expect("ended by itself"),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

fn run_in(directory: &Path, arguments: &[&str]) -> Ran {
    ran(command(arguments, directory).output().expect("starts"))
}

fn run(arguments: &[&str]) -> Ran {
    run_in(&std::env::temp_dir(), arguments)
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// An address where nobody listens: taken and given back.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

#[test]
fn a_file_that_cannot_be_read_is_refused_before_anything_runs() {
    let inside = directory();
    let nobody = nobody();
    for (file, says) in [("nosuch.sql", "cannot read nosuch.sql: "), (".", ". is a directory")] {
        for run in [
            &["client", "--leader", &nobody, "-e", "SELECT 1", "-f", file][..],
            &["single-node", "--data-dir", "d", "-e", "SELECT 1", "-f", file],
            &["import", "--data-dir", "d", "--table", "t", file],
        ] {
            let refused = run_in(inside.path(), run);
            assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{run:?}");
            assert!(refused.err.starts_with(says), "{run:?}: {}", refused.err);
        }
    }
    assert!(!inside.path().join("d").exists(), "nothing was made");
}

#[test]
fn a_word_of_its_own_ends_a_script_as_it_ends_the_prompt() {
    let inside = directory();
    let script = "SELECT 1 AS one;\n-- done\nEXIT\nSELECT 2 AS two;\n";
    std::fs::write(inside.path().join("s.sql"), script).expect("writes");
    let arguments = ["single-node", "--data-dir", "d", "--format", "csv"];
    for ran in [
        run_in(inside.path(), &[&arguments[..], &["-f", "s.sql"]].concat()),
        run_with(inside.path(), &arguments, script.replace("EXIT", "quit ;").as_bytes()),
    ] {
        assert_eq!((ran.code, ran.out.as_str()), (0, "one\n1\n"), "{}", ran.err);
    }
    let inside_of_one = run_with(inside.path(), &arguments, b"SELECT 1 AS\nquit\n;\n");
    assert_eq!((inside_of_one.code, inside_of_one.out.as_str()), (0, "quit\n1\n"), "{}", inside_of_one.err);
}

#[test]
fn every_level_of_help_shows_an_example() {
    let levels: [&[&str]; 9] = [
        &[],
        &["node"],
        &["client"],
        &["single-node"],
        &["import"],
        &["export"],
        &["config"],
        &["config", "check"],
        &["bench"],
    ];
    for level in levels {
        let help = run(&[level, &["--help"]].concat());
        assert_eq!(help.code, 0, "{level:?}");
        assert!(help.out.contains("Example") && help.out.contains("  chronos "), "{level:?}: {}", help.out);
    }
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for arguments in [
        &["nonsense"][..],
        &["node", "--adress", "127.0.0.1:1"],
        &["node", "--id", "a/b"],
        &["node", "--address", "localhost"],
        &["node", "--sync-batch-size", "0"],
        &["node", "--config", "does-not-exist.toml"],
        &["client", "--leader", "nowhere"],
        &["import"],
        &["import", "does-not-exist.csv"],
        &["export"],
        &[],
    ] {
        let wrong = run(arguments);
        assert_eq!(wrong.code, 2, "{arguments:?}: {}", wrong.err);
        assert!(!wrong.err.is_empty() && wrong.out.is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_is_not_there_yet_is_refused_at_start_by_name() {
    let inside = directory();
    for (arguments, says) in [
        (&["--sync-target", "http://127.0.0.1:8000"][..], "flag --sync-target: sync.target"),
        (&["--sync-batch-size", "7"], "flag --sync-batch-size: sync.batch_size"),
    ] {
        let refused = run_in(inside.path(), &[&["node", "--address", "127.0.0.1:0"], arguments].concat());
        assert_eq!(refused.code, 2);
        assert!(refused.err.contains(says) && refused.err.contains("not supported by this version"), "{}", refused.err);
    }
    assert!(!inside.path().join("data").exists(), "nothing was made");
}

#[test]
fn wrong_peers_are_named() {
    for (peers, says) in [
        ("node1=127.0.0.1:8001", "is this node itself"),
        ("node2=127.0.0.1:8000", "has the address of this node itself"),
        ("node2=a:1,node2=b:1", "named twice"),
        ("node2", "is not ID=HOST:PORT"),
        ("node2=0.0.0.0:8001", "0.0.0.0:8001 is where a node may listen"),
        ("node2=[::]:8001", "[::]:8001 is where a node may listen"),
        ("node2=127.0.0.1:0", "has port 0"),
    ] {
        let wrong = run(&["node", "--peers", peers]);
        assert_eq!(wrong.code, 2);
        assert!(wrong.err.contains(says), "{peers}: {}", wrong.err);
    }
    let wrong = run(&["node", "--advertise", "0.0.0.0:8000", "--peers", "node2=127.0.0.1:8001"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("node.advertise: 0.0.0.0:8000 is where a node may listen"), "{}", wrong.err);
}

#[test]
fn the_default_configuration_checks_out() {
    let inside = directory();
    let default = run(&["config", "default"]);
    assert_eq!(default.code, 0);
    std::fs::write(inside.path().join("c.toml"), &default.out).expect("writes");
    let check = run_in(inside.path(), &["config", "check", "c.toml"]);
    assert_eq!((check.code, check.out.as_str()), (0, "c.toml: ok\n"));
}

#[test]
fn a_configuration_with_a_typo_is_refused_with_its_line() {
    let inside = directory();
    std::fs::write(inside.path().join("c.toml"), "[node]\n\nadress = \"127.0.0.1:8000\"\n").expect("writes");
    let check = run_in(inside.path(), &["config", "check", "c.toml"]);
    assert_eq!(check.code, 1);
    assert_eq!(check.err, "c.toml:3: unknown setting \"node.adress\", did you mean \"address\"?\n");
    assert_eq!(run_in(inside.path(), &["node", "--config", "c.toml"]).code, 2);
}

#[test]
fn the_origin_of_each_setting_is_shown() {
    let inside = directory();
    std::fs::write(inside.path().join("c.toml"), "[node]\nid = \"edge1\"\n").expect("writes");
    let arguments = ["config", "show", "--origin", "--config", "c.toml", "--address", "127.0.0.1:7000"];
    let mut show = command(&arguments, inside.path());
    let shown = ran(show.env("CHRONOS_LOG_MAX_FILES", "7").output().expect("starts"));
    assert_eq!(shown.code, 0, "{}", shown.err);
    for (setting, origin) in [
        ("node.id = \"edge1\"", "# c.toml:2"),
        ("node.address = \"127.0.0.1:7000\"", "# flag --address"),
        ("log.max_files = 7", "# environment CHRONOS_LOG_MAX_FILES"),
        ("limits.mailbox = 1024", "# default"),
    ] {
        let line = shown.out.lines().find(|line| line.starts_with(setting)).expect(setting);
        assert!(line.ends_with(origin), "{line}");
    }
}

#[test]
fn a_client_without_a_node_says_so() {
    let (first, second) = (nobody(), nobody());
    let failed = run(&["client", "--leader", &format!("{first},{second}"), "-e", "SELECT 1"]);
    assert_eq!(failed.code, 1);
    assert!(failed.err.starts_with("error: no node answers: "), "{}", failed.err);
    assert!(failed.err.contains(&first) && failed.err.contains(&second), "{}", failed.err);
    assert!(failed.out.is_empty());
}

/// Runs statements on the embedded engine through a pipe.
fn piped(directory: &Path, arguments: &[&str], input: &str) -> Ran {
    let all = [&["single-node", "--data-dir", "d"], arguments].concat();
    let mut child = command(&all, directory);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("reads its input");
    ran(child.wait_with_output().expect("ends"))
}

const SENSORS: &str = "CREATE TABLE sensors (id INT, name TEXT, temperature FLOAT);\n\
                       INSERT INTO sensors VALUES (1, 'a;b', 25.5),\n (2, NULL, 30);\n";

#[test]
fn a_pipe_gets_plain_output_without_prompt() {
    let inside = directory();
    let ran = piped(inside.path(), &[], &format!("{SENSORS}SELECT * FROM sensors ORDER BY id"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().map(str::trim_end).collect();
    assert_eq!(
        lines,
        [
            "OK",
            "2 rows inserted",
            " id | name | temperature",
            "----+------+-------------",
            "  1 | a;b  |        25.5",
            "  2 | NULL |          30",
            "(2 rows)",
        ]
    );
}

#[test]
fn the_first_error_ends_a_script_with_its_place() {
    let inside = directory();
    let ran = piped(inside.path(), &[], "CREATE TABLE t (a INT);\n\nSELECT nothing\nFROM t;\nCREATE TABLE u (a INT);");
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("standard input, statement 2, line 3: "), "{}", ran.err);
    assert!(ran.err.contains("(42703)") && ran.err.contains("\n  SELECT nothing\n         ^"), "{}", ran.err);
    assert_eq!(ran.out, "OK\n");
    let after = piped(inside.path(), &["--format", "csv"], "SHOW TABLES");
    assert!(after.out.contains('t') && !after.out.contains("\nu"), "{}", after.out);
}

#[test]
fn statements_of_flags_and_files_run_in_order() {
    let inside = directory();
    std::fs::write(inside.path().join("s.sql"), SENSORS).expect("writes");
    let arguments = ["single-node", "--data-dir", "d", "-f", "s.sql", "--format", "csv"];
    assert_eq!(run_in(inside.path(), &arguments).code, 0);
    let two = ["single-node", "--data-dir", "d", "--format", "csv", "-e", "SELECT 1 AS a; SELECT 2 AS b", "-e"];
    let ran = run_in(inside.path(), &[&two[..], &["SELECT COUNT(*) AS n FROM sensors"]].concat());
    assert_eq!((ran.code, ran.out.as_str()), (0, "a\n1\nb\n2\nn\n2\n"));
}

#[test]
fn a_database_gets_another_name_only_when_it_is_asked_for() {
    let inside = directory();
    assert_eq!(piped(inside.path(), &[], SENSORS).code, 0);
    let asked = |arguments: &[&str]| {
        let count = ["-e", "SELECT COUNT(*) AS n FROM sensors", "--format", "csv"];
        run_in(inside.path(), &[&["single-node", "--data-dir"], arguments, &count].concat())
    };
    let refused = asked(&["d/local", "--id", "gateway"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("belongs to node \"local\", not \"gateway\""), "{}", refused.err);
    assert!(refused.err.contains("--rename"), "{}", refused.err);
    let nothing = asked(&["d", "--id", "gateway", "--rename"]);
    assert_eq!(nothing.code, 1, "there is nothing to rename: {}", nothing.out);
    for _ in 0..2 {
        let renamed = asked(&["d/local", "--id", "gateway", "--rename"]);
        assert_eq!((renamed.code, renamed.out.as_str()), (0, "n\n2\n"), "{}", renamed.err);
    }
    let beside = asked(&["d", "--id", "gateway"]);
    assert_eq!(beside.code, 1, "no second database of that name: {}", beside.out);
    assert!(beside.err.contains("the database of node \"gateway\" is d/local"), "{}", beside.err);
    // From the sealed files and from the log alone: its name is in both.
    assert_eq!(asked(&["d/local", "--id", "gateway"]).out, "n\n2\n");
    assert_eq!(asked(&["d/local", "--id", "local"]).code, 1);
}

/// A node under a name that its directory did not have, killed before anything is sealed.
#[test]
fn a_renamed_node_is_known_by_its_name_after_a_kill() {
    let inside = directory();
    assert_eq!(piped(inside.path(), &[], SENSORS).code, 0);
    let (parent, path) = (inside.path().join("d"), inside.path().join("d/node1"));
    std::fs::rename(parent.join("local"), &path).expect("moves");
    let start = |arguments: &[&str]| {
        let mut command = super::process::command(&path, super::process::FREE);
        command.args(arguments);
        super::process::Node::spawn(command, &parent)
    };
    let renamed = start(&["--rename"]);
    renamed.until_ready();
    renamed.kill();
    let node = start(&[]);
    let counted = node.post_sql(r#"{"sql": "SELECT COUNT(*) AS n FROM sensors"}"#);
    assert_eq!(counted.0, 200, "{}", counted.1);
    assert!(node.get("/status").contains("\"node1\""));
}

fn import(directory: &Path, arguments: &[&str]) -> Ran {
    run_in(directory, &[&["import", "--data-dir", "d"], arguments].concat())
}

fn query(directory: &Path, sql: &str) -> String {
    let ran = run_in(directory, &["single-node", "--data-dir", "d", "--format", "csv", "-e", sql]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    ran.out
}

#[test]
fn a_csv_file_becomes_a_table() {
    let inside = directory();
    let text = "ts,Device Id,value,ok\n2024-01-01 00:00:00,7,1.5,true\n2024-01-01 00:05:00,8,,false\n";
    std::fs::write(inside.path().join("Readings.csv"), text).expect("writes");
    let ran = import(inside.path(), &["Readings.csv"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.starts_with("imported 2 rows into readings in ") && ran.out.ends_with(", 0 rejected\n"),
        "{}",
        ran.out
    );
    let rows = query(inside.path(), "SELECT * FROM readings ORDER BY device_id");
    assert_eq!(rows, "ts,device_id,value,ok\n2024-01-01 00:00:00,7,1.5,true\n2024-01-01 00:05:00,8,,false\n");
}

#[test]
fn a_header_that_does_not_fit_is_refused_until_columns_are_named() {
    let inside = directory();
    let text = "\"date\",\"Temperature\"\n\"1\",\"2015-02-04 17:51:00\",23.18\n\"2\",\"2015-02-04 17:51:59\",23.15\n";
    std::fs::write(inside.path().join("o.txt"), text).expect("writes");
    let refused = import(inside.path(), &["o.txt"]);
    assert_eq!((refused.code, refused.err.as_str()), (1, "header names 2 columns, line 2 has 3\n"));
    let ran = import(inside.path(), &["o.txt", "--columns", "id,date,temperature"]);
    assert!(ran.err.contains("line 1 is taken for a header"), "{}", ran.err);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(query(inside.path(), "SELECT COUNT(*) AS n, MAX(temperature) AS t FROM o"), "n,t\n2,23.18\n");
}

#[test]
fn bad_rows_are_kept_with_line_and_reason() {
    let inside = directory();
    std::fs::write(inside.path().join("b.csv"), b"id,x\n1,1.5\n2,warm,3\n3,\xff\n1,9.5\n4,2.5\n").expect("writes");
    let key = ["b.csv", "--types", "id=INT,x=FLOAT", "--primary-key", "id"];
    let ran = import(inside.path(), &[&key[..], &["--reject", "bad.csv"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.starts_with("imported 2 rows into b in ") && ran.out.ends_with(", 3 rejected\n"), "{}", ran.out);
    let bad = String::from_utf8_lossy(&std::fs::read(inside.path().join("bad.csv")).expect("is there")).into_owned();
    let lines: Vec<&str> = bad.lines().collect();
    assert_eq!(lines[0], "line,reason,id,x");
    assert!(lines.iter().any(|line| line.starts_with("3,") && line.ends_with(",2,warm,3")), "{bad}");
    assert!(lines.iter().any(|line| line.starts_with("4,not valid UTF-8 in line 4,3,")), "{bad}");
    assert!(lines.iter().any(|line| line.starts_with("5,") && line.ends_with(",1,9.5")), "{bad}");
}

#[test]
fn a_file_that_ends_inside_quotes_is_refused_with_what_is_in_already() {
    let inside = directory();
    std::fs::write(inside.path().join("new.csv"), "a,b\n1,x\n2,\"y\n3,z\n").expect("writes");
    let ran = import(inside.path(), &["new.csv"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{}", ran.err);
    assert!(ran.err.contains("stopped after 0 rows") && ran.err.contains("line 3: a quote opens"), "{}", ran.err);
    assert!(!inside.path().join("d").exists(), "nothing was made");
    // Where the types are known, the file is read once: the rows before it are in.
    query(inside.path(), "CREATE TABLE new (a INT, b TEXT)");
    let ran = import(inside.path(), &["new.csv"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{}", ran.err);
    assert!(ran.err.contains("stopped after 1 rows") && ran.err.contains("line 3: a quote opens"), "{}", ran.err);
    assert_eq!(query(inside.path(), "SELECT * FROM new"), "a,b\n1,x\n");
    let node = Node::start(&inside.path().join("n"));
    node.until_ready();
    let leader = node.grpc.to_string();
    let arguments = ["import", "--leader", &leader, "--types", "INT,TEXT", "new.csv"];
    let ran = run_in(inside.path(), &arguments);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("stopped after 1 rows") && ran.err.contains("line 3: a quote opens"), "{}", ran.err);
    assert!(node.post_sql(r#"{"sql": "SELECT COUNT(*) AS n FROM new"}"#).1.to_string().contains("[[1]]"));
}

#[test]
fn rejected_rows_without_a_reject_file_fail_the_import() {
    let inside = directory();
    std::fs::write(inside.path().join("b.csv"), "id\n1\n2,3\n").expect("writes");
    let ran = import(inside.path(), &["b.csv"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("line 3: 2 fields, expected 1"), "{}", ran.err);
    assert!(ran.out.contains("imported 1 rows into b in ") && ran.out.ends_with(", 1 rejected\n"), "{}", ran.out);
}

#[test]
fn a_snapshot_brings_back_what_it_holds() {
    let inside = directory();
    assert_eq!(piped(inside.path(), &[], SENSORS).code, 0);
    let create = ["snapshot", "create", "--data-dir", "d", "--output", "s.snap"];
    let created = run_in(inside.path(), &create);
    assert_eq!(created.code, 0, "{}", created.err);
    let again = run_in(inside.path(), &create);
    assert_eq!((again.code, again.err.as_str()), (1, "s.snap exists: --force overwrites it\n"));
    let verified = run_in(inside.path(), &["snapshot", "verify", "--input", "s.snap"]);
    assert_eq!(verified.code, 0, "{}", verified.err);
    assert!(verified.out.starts_with("sensors: 2 rows\nverified s.snap: local, "), "{}", verified.out);
    assert!(!inside.path().join("s.snap.verify").exists());

    assert_eq!(piped(inside.path(), &[], "DELETE FROM sensors").code, 0);
    let restore = ["snapshot", "restore", "--data-dir", "d", "--input", "s.snap"];
    assert_eq!(run_in(inside.path(), &restore).code, 1);
    assert_eq!(query(inside.path(), "SELECT COUNT(*) AS n FROM sensors"), "n\n0\n");
    let forced = run_in(inside.path(), &[&restore[..], &["--force"]].concat());
    assert_eq!(forced.code, 0, "{}", forced.err);
    assert_eq!(query(inside.path(), "SELECT COUNT(*) AS n FROM sensors"), "n\n2\n");
}

#[test]
fn a_damaged_snapshot_is_refused_before_anything_is_touched() {
    let inside = directory();
    assert_eq!(piped(inside.path(), &[], SENSORS).code, 0);
    assert_eq!(run_in(inside.path(), &["snapshot", "create", "--data-dir", "d", "--output", "s.snap"]).code, 0);
    let path = inside.path().join("s.snap");
    let mut bytes = std::fs::read(&path).expect("is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("writes");
    let verified = run_in(inside.path(), &["snapshot", "verify", "--input", "s.snap"]);
    assert_eq!(verified.code, 1);
    assert!(verified.err.contains("(XX001)"), "{}", verified.err);
    let restored = run_in(inside.path(), &["snapshot", "restore", "--data-dir", "other", "--input", "s.snap"]);
    assert_eq!(restored.code, 1);
    assert!(!inside.path().join("other").exists());
}

/// Runs a command with something on its standard input.
fn run_with(directory: &Path, arguments: &[&str], input: &[u8]) -> Ran {
    let mut command = command(arguments, directory);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let writer = {
        let input = input.to_vec();
        // A command that refuses its arguments reads nothing.
        std::thread::spawn(move || drop(stdin.write_all(&input)))
    };
    let output = child.wait_with_output().expect("ends");
    writer.join().expect("writes");
    ran(output)
}

#[test]
fn standard_input_is_imported_also_beyond_what_is_kept_of_it() {
    let directory = directory();
    let data = ["--data-dir", "data"];
    // Three MiB; only at the end a value that the beginning does not let expect, and one that fits.
    let rows: Vec<String> = (0..100_000).map(|i| format!("{i},\"name, {i}\",{}", i * 10)).collect();
    let csv = format!("id,name,v\n{}\n100000,last,later\n100001,end,7\n", rows.join("\n"));
    assert!(csv.len() > 2 << 20);
    let all = [&["import", "-", "--table", "t", "--reject", "bad.csv"][..], &data].concat();
    let imported = run_with(directory.path(), &all, csv.as_bytes());
    assert_eq!(imported.code, 0, "{}", imported.err);
    assert!(imported.out.contains("imported 100001 rows") && imported.out.contains("1 rejected"), "{}", imported.out);
    let bad = std::fs::read_to_string(directory.path().join("bad.csv")).expect("rejected rows");
    assert!(bad.contains("100002,") && bad.contains("100000,last,later"), "{bad}");
    let few = [&["import", "-", "--table", "few"][..], &data].concat();
    assert_eq!(run_with(directory.path(), &few, b"a,b\n1,x\n2,y").code, 0);
    let asked = [&["single-node", "--format", "csv", "-e", "SELECT SUM(v) FROM t; SELECT b FROM few"][..], &data];
    let counted = run_in(directory.path(), &asked.concat());
    assert!(counted.out.contains("49999500007") && counted.out.contains("x\ny\n"), "{}", counted.out);
    let nameless = run_with(directory.path(), &[&["import", "-"][..], &data].concat(), b"a\n1\n");
    assert!(nameless.code == 2 && nameless.err.contains("--table"), "{}", nameless.err);
}

#[test]
fn an_import_that_is_refused_leaves_no_database_behind() {
    let directory = directory();
    let at = |path: &str| directory.path().join(path);
    std::fs::write(at("short.csv"), "a,b\n1,2,3\n").expect("writes");
    std::fs::write(at("fine.csv"), "a,b\n1,2\n").expect("writes");
    let refused: [&[&str]; 3] = [
        &["import", "short.csv", "--data-dir", "data"],
        &["import", "fine.csv", "--data-dir", "data", "--primary-key", "c"],
        &["import", "fine.csv", "--data-dir", "data/deep", "--id", "x", "--types", "INT"],
    ];
    for arguments in refused {
        let run = run_in(directory.path(), arguments);
        assert_ne!(run.code, 0, "{arguments:?}");
        assert!(!at("data/local").exists() && !at("data/deep").exists(), "{arguments:?}: {}", run.err);
    }
    assert!(!at("data").exists() || std::fs::read_dir(at("data")).expect("reads").next().is_none());
    // One that was there stays.
    assert_eq!(run_in(directory.path(), &["import", "fine.csv", "--data-dir", "data"]).code, 0);
    assert_ne!(run_in(directory.path(), &["import", "short.csv", "--data-dir", "data"]).code, 0);
    assert!(at("data/local/CLUSTER").exists());
}

#[test]
fn a_table_without_a_key_keeps_the_order_of_the_file() {
    let inside = directory();
    let node = Node::start(&inside.path().join("n"));
    node.until_ready();
    let rows: Vec<String> = (0..20_000).map(|row| row.to_string()).collect();
    let rows = format!("{}\n", rows.join("\n"));
    std::fs::write(inside.path().join("o.csv"), format!("n\n{rows}")).expect("writes");
    let leader = node.grpc.to_string();
    let ran = run_in(inside.path(), &["import", "--leader", &leader, "--batch-rows", "100", "o.csv"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let ran = run_in(inside.path(), &["client", "--leader", &leader, "--format", "csv", "-e", "SELECT n FROM o"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out == format!("n\n{rows}"), "the rows are not in the order of the file");
}

#[test]
fn a_client_on_the_http_port_is_told_so() {
    let inside = directory();
    let node = Node::start(&inside.path().join("n"));
    node.until_ready();
    let http = node.http.to_string();
    for statement in ["SELECT 1", "CREATE TABLE t (a INT)"] {
        let ran = run_in(inside.path(), &["client", "--leader", &http, "-e", statement]);
        assert_eq!(ran.code, 1, "{}", ran.err);
        assert!(ran.err.contains(&format!("{http} looks like an HTTP port")), "{}", ran.err);
    }
}

#[test]
fn a_statement_behind_a_comment_is_counted_as_any() {
    let inside = directory();
    let arguments = ["single-node", "--data-dir", "d", "-e", "CREATE TABLE t (id INT PRIMARY KEY)", "-e"];
    let ran = run_in(inside.path(), &[&arguments[..], &["-- c\nINSERT INTO t VALUES (1)"]].concat());
    assert_eq!((ran.code, ran.out.as_str()), (0, "OK\n1 row inserted\n"), "{}", ran.err);
}
