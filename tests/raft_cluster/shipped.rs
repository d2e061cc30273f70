//! The files that the repository has to start a group with, started: only ports and directories are others.

use crate::group::{alone, name};
use crate::patience::until;
use crate::process::Node;
use crate::process::free_ports;
use crate::skipped::skipped;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn quiet(mut command: Command) -> Command {
    command.env("RUST_LOG", "error").env("CHRONOS_HTTP__ADDRESS", "127.0.0.1:0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a client command of a file, as it stands there but for the ports, with a statement.
fn client(words: &str, sql: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().skip(1).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_chronos")).args(words).args(["-e", sql]).output().unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{sql}: {told}");
    told
}

/// Both files say how a client comes in.
fn client_line(text: &str) -> String {
    let at = text.find("chronos client").unwrap();
    text[at..].split(['\n', '`']).next().unwrap().to_owned()
}

#[test]
fn the_three_files_of_a_group_on_one_machine_start_one() {
    let _turn = alone();
    let (directory, ports) = (tempfile::tempdir().unwrap(), free_ports(3));
    let moved = |text: &str| {
        (0..3).fold(text.to_owned(), |text, at| {
            text.replace(&format!("127.0.0.1:800{at}"), &format!("127.0.0.1:{}", ports[at]))
        })
    };
    let nodes: Vec<Node> = (0..3)
        .map(|at| {
            let text = moved(&read(&format!("config/cluster/{}.toml", name(at))));
            let data = format!("data_dir = {:?}", directory.path());
            assert_eq!(text.matches("data_dir = \"data\"").count(), 1, "{text}");
            let file = directory.path().join(format!("{}.toml", name(at)));
            std::fs::write(&file, text.replace("data_dir = \"data\"", &data)).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
            command.args(["node", "--config"]).arg(&file);
            Node::spawn_as(quiet(command), directory.path(), &name(at))
        })
        .collect();
    nodes.iter().for_each(Node::until_ready);
    let line = moved(&client_line(&read("config/cluster/node1.toml")));
    client(&line, "CREATE TABLE t (id INT PRIMARY KEY)");
    client(&line, "INSERT INTO t VALUES (7)");
    for node in &nodes {
        let (status, answer) = node.post_sql(r#"{"sql": "SELECT id FROM t"}"#);
        assert_eq!((status, &answer["rows"][0][0]), (200, &serde_json::json!(7)), "{answer}");
    }
}

#[test]
fn as_they_stand_the_files_serve_on_the_ports_that_they_promise() {
    let _turn = alone();
    let ports: Vec<u16> = (8000..8003).chain(9000..9003).collect();
    // Until the nodes take them they stay free, as far as this process can see to it.
    let free: Result<Vec<TcpListener>, std::io::Error> =
        ports.iter().map(|port| TcpListener::bind(("127.0.0.1", *port))).collect();
    match free {
        Ok(free) => drop(free),
        Err(error) => {
            skipped(&format!("one of the ports {ports:?}, which the files name, is taken: {error}"));
            return;
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let nodes: Vec<Node> = (0..3)
        .map(|at| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("config/cluster/{}.toml", name(at)));
            command.args(["node", "--config"]).arg(file).current_dir(directory.path()).env("RUST_LOG", "error");
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            Node::spawn_as(command, &directory.path().join("data"), &name(at))
        })
        .collect();
    nodes.iter().for_each(Node::until_ready);
    let served: Vec<u16> =
        nodes.iter().map(|node| node.grpc.port()).chain(nodes.iter().map(|node| node.http.port())).collect();
    assert_eq!(served, ports);
    client(&client_line(&read("config/cluster/node1.toml")), "CREATE TABLE t (id INT PRIMARY KEY)");
    // The containers' are those too, as this machine has them.
    let text = read("docker-compose.yml");
    for at in 0..3 {
        assert!(text.contains(&format!("[\"127.0.0.1:800{at}:8000\", \"127.0.0.1:900{at}:9000\"]")), "{text}");
    }
}

#[test]
fn docker_compose_understands_the_file_of_the_containers() {
    let compose = |token: Option<&str>| {
        let mut command = Command::new("docker-compose");
        command.args(["-f", "docker-compose.yml", "config"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        command.env_remove("CLUSTER_TOKEN").envs(token.map(|token| ("CLUSTER_TOKEN", token)));
        command.stdin(Stdio::null()).output()
    };
    let checked = match compose(Some("what was exported")) {
        Ok(checked) => checked,
        Err(error) => {
            skipped(&format!("docker-compose cannot be started: {error}"));
            return;
        }
    };
    let told = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(checked.status.success() && told.matches("what was exported").count() == 3, "{told}");
    // A port of the group is never open, not even by oversight.
    let refused = compose(None).unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("set a long random text"), "{told}");
}

#[test]
fn the_commands_of_the_containers_start_a_group() {
    let _turn = alone();
    let (directory, ports) = (tempfile::tempdir().unwrap(), free_ports(3));
    let text = read("docker-compose.yml");
    // Each service's command, folded as YAML folds it: from `>-` to the next key.
    let commands: Vec<String> = text
        .split("command: >-\n")
        .skip(1)
        .map(|rest| rest.lines().take_while(|line| line.starts_with("      ")).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(commands.len(), 3, "{text}");
    let reached = |at: usize| format!("127.0.0.1:{}", ports[at]);
    let nodes: Vec<Node> = commands
        .iter()
        .enumerate()
        .map(|(at, command)| {
            // Its own address within its container, and the names by which the others reach it there.
            let own =
                command.replace("0.0.0.0:8000", &reached(at)).replace("/data", directory.path().to_str().unwrap());
            let moved = (0..3).fold(own, |text, at| text.replace(&format!("{}:8000", name(at)), &reached(at)));
            assert!(!moved.contains("8000 ") && !moved.ends_with(":8000"), "{moved}");
            let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
            command.args(moved.split_whitespace()).env("CHRONOS_AUTH__CLUSTER_TOKEN", "what was exported");
            Node::spawn_as(quiet(command), directory.path(), &name(at))
        })
        .collect();
    nodes.iter().for_each(Node::until_ready);
    // The shell in which the group was begun has the variable that the file asks for.
    let variable = text.split("${").nth(1).unwrap().split(':').next().unwrap();
    assert!(text.contains(&format!("export {variable}=")), "{variable}");
    assert!(!variable.starts_with("CHRONOS_"), "chronos would take {variable} for a setting that it does not know");
    let line = (0..3).fold(client_line(&text), |line, at| line.replace(&format!("127.0.0.1:800{at}"), &reached(at)));
    client(&line, "CREATE TABLE t (id INT PRIMARY KEY)");
    client(&line, "INSERT INTO t VALUES (7)");
    assert!(client(&line, "SELECT id FROM t").contains(" 7"));
}

/// The words of an instruction of the Dockerfile in its JSON form, from its keyword on.
fn instruction(text: &str, keyword: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(keyword)).collect();
    assert_eq!(lines.len(), 1, "{keyword} in {text}");
    let list = lines[0].find('[').map(|at| &lines[0][at..]);
    serde_json::from_str(list.expect(keyword)).unwrap_or_else(|error| panic!("{error}: {}", lines[0]))
}

#[test]
fn the_image_starts_a_node_that_its_health_check_finds() {
    let _turn = alone();
    let (directory, port) = (tempfile::tempdir().unwrap(), free_ports(1)[0]);
    let text = read("Dockerfile");
    let reached = format!("127.0.0.1:{port}");
    // As the image puts them together: what CMD says is what ENTRYPOINT is given.
    let (entry, started) = (instruction(&text, "ENTRYPOINT"), instruction(&text, "CMD"));
    assert_eq!(entry, ["chronos"], "where the binary lies is on the path");
    assert!(text.contains("/usr/local/bin/chronos\n"), "{text}");
    let volume = text.lines().find_map(|line| line.strip_prefix("VOLUME ")).unwrap();
    assert!(started.contains(&volume.to_owned()), "what is written outside of {volume} is lost: {started:?}");
    // Everybody reaches what listens everywhere, and the health check what it names: one port, which is told to the world.
    let ports = [8000, 8000 + chronos::config::HTTP_PORT_OFFSET];
    assert!(text.contains(&format!("\nEXPOSE {} {}\n", ports[0], ports[1])), "{text}");
    let moved = |words: &[String]| -> Vec<String> {
        let word = |word: &String| match word.as_str() {
            "0.0.0.0:8000" | "127.0.0.1:8000" => reached.clone(),
            word if word == volume => directory.path().to_str().unwrap().to_owned(),
            word => word.to_owned(),
        };
        words.iter().map(word).collect()
    };
    let check = instruction(&text, "HEALTHCHECK");
    assert_eq!(check[0], entry[0]);
    let is_healthy = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
        // As in the container, without anybody's token.
        command.args(&moved(&check)[1..]).env_remove("CHRONOS_AUTH_TOKEN");
        let output = command.output().unwrap();
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        if output.status.success() { Ok(told) } else { Err(told) }
    };
    assert!(is_healthy().is_err(), "nobody is there yet");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(moved(&started)).env("CHRONOS_AUTH_TOKEN_ADMIN", "what was passed with -e");
    let node = Node::spawn_as(quiet(command), directory.path(), "node1");
    assert_eq!(node.grpc.to_string(), reached);
    until("it is healthy", is_healthy);
    // The signal that the file names is the one that ends a node well.
    assert!(text.contains("\nSTOPSIGNAL SIGTERM\n"), "{text}");
    let status = node.terminate();
    assert!(status.success() && is_healthy().is_err(), "{status}");
}
