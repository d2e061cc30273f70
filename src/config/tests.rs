//! Loading, tested by what a person would write.

use super::*;
use std::collections::BTreeMap;

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn from_file(text: &str) -> Result<Loaded, String> {
    load(&Sources { file: Some(("c.toml", text)), ..Sources::default() }).map_err(|problems| problems.to_string())
}

fn from_environment(pairs: &[(&str, &str)]) -> Result<Loaded, String> {
    load(&Sources { environment: environment(pairs), ..Sources::default() }).map_err(|problems| problems.to_string())
}

fn flag(flag: &'static str, section: &'static str, name: &'static str, value: &str) -> Flag {
    Flag { flag, section, name, value: value.to_owned() }
}

#[test]
fn the_default_file_is_the_defaults() {
    let loaded = from_file(&default_file()).expect("the default file is valid");
    assert_eq!(loaded.config, Config::default());
    loaded.supported().expect("the defaults are supported");
}

#[test]
fn the_file_in_the_repository_is_what_the_program_prints() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/chronos.toml");
    let written = std::fs::read_to_string(path).expect("config/chronos.toml is there");
    assert_eq!(written, default_file(), "run: chronos config default > config/chronos.toml");
}

#[test]
fn the_edge_profile_is_valid() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/edge.toml");
    let loaded = from_file(&std::fs::read_to_string(path).expect("config/edge.toml is there")).expect("valid");
    assert_eq!(loaded.config.storage.memory_bytes_max, Bytes(48_000_000));
    loaded.supported().expect("supported");
}

#[test]
fn the_later_place_wins_and_is_named() {
    let text = "[node]\nid = \"a\"\naddress = \"127.0.0.1:1000\"\ndata_dir = \"here\"\n";
    let loaded = load(&Sources {
        file: Some(("c.toml", text)),
        environment: environment(&[("CHRONOS_NODE__ID", "b"), ("CHRONOS_NODE__ADDRESS", "127.0.0.1:2000")]),
        flags: vec![flag("--id", "node", "id", "c")],
        peers: None,
    })
    .expect("valid");
    assert_eq!(loaded.config.node.id.as_str(), "c");
    assert_eq!(loaded.config.node.address.port, 2000);
    assert_eq!(loaded.origin("node", "id").to_string(), "flag --id");
    assert_eq!(loaded.origin("node", "address").to_string(), "environment CHRONOS_NODE__ADDRESS");
    assert_eq!(loaded.origin("node", "data_dir").to_string(), "c.toml:4");
    assert_eq!(loaded.origin("ttl", "cleanup_interval_secs").to_string(), "default");
}

#[test]
fn a_typo_is_an_error_with_its_line_and_a_suggestion() {
    for (text, says) in [
        ("[node]\nadress = \"a:1\"\n", "c.toml:2: unknown setting \"node.adress\", did you mean \"address\"?"),
        ("[nod]\nid = \"a\"\n", "c.toml:1: unknown section \"[nod]\", did you mean \"node\"?"),
        ("\nid = \"a\"\n", "c.toml:2: \"id\" stands outside a section, did you mean \"node.id\"?"),
        ("[node]\nmailbox = 5\n", "unknown setting \"node.mailbox\", did you mean \"limits.mailbox\"?"),
        ("[cluster]\nname = \"a b\"\n", "c.toml:2: cluster.name: \"a b\" is not the name of a group"),
        ("[cluster]\nmember = 1\n", "c.toml:2: unknown setting \"cluster.member\", did you mean \"members\"?"),
        ("[storage]\n\nmemory_bytes_max = \"64 MX\"\n", "c.toml:3: storage.memory_bytes_max: \"64 MX\" is not a size"),
        ("[limits]\nmailbox = 1\n", "c.toml:2: limits.mailbox: 1 is not between 16 and 65536"),
        ("[limits]\nstatement_timeout = 5\n", "c.toml:2: limits.statement_timeout: 5 is not a duration"),
        ("[sync]\ninterval_secs = true\n", "c.toml:2: sync.interval_secs: a boolean is not a whole number"),
        ("[node]\nid = \"a\nb\"\n", "c.toml:2: "),
        ("[node]\nid = \"a\"\nid = \"b\"\n", "c.toml:3: duplicate key"),
    ] {
        let error = from_file(text).expect_err(text);
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn all_problems_are_reported_together() {
    let error = from_file("[node]\nid = \"a/b\"\nadress = \"x\"\n[sync]\nbatch_size = 0\n").expect_err("wrong");
    assert_eq!(error.lines().count(), 3, "{error}");
}

#[test]
fn the_variables_of_the_seed_keep_their_names() {
    let loaded = from_environment(&[
        ("CHRONOS_LOG_FILE", "x.log"),
        ("CHRONOS_LOG_MAX_SIZE_MB", "7"),
        ("CHRONOS_LOG_MAX_FILES", "2"),
        ("RUST_LOG", "chronos=debug"),
        ("CHRONOS_AUTH_TOKEN", "the client's"),
        ("CHRONOS_LIMITS__MAILBOX", "1000"),
        ("CHRONOS_TLS_CERT", ""),
        ("CHRONOS_SEED", "42"),
        ("PATH", "/bin"),
    ])
    .expect("valid");
    assert_eq!(loaded.config.log.file.as_deref(), Some(std::path::Path::new("x.log")));
    assert_eq!((loaded.config.log.max_size_mb, loaded.config.log.max_files), (7, 2));
    assert_eq!(loaded.config.log.level, "chronos=debug");
    assert_eq!(loaded.config.limits.mailbox, 1000);
    assert_eq!(loaded.config.tls.cert, None);
}

#[test]
fn a_mistyped_variable_is_an_error() {
    let error = from_environment(&[("CHRONOS_NODE__ADRESS", "a:1")]).expect_err("typo");
    assert!(error.contains("environment CHRONOS_NODE__ADRESS: unknown setting"), "{error}");
    let error = from_environment(&[("CHRONOS_LOG_FIEL", "x")]).expect_err("typo");
    assert!(error.contains("did you mean \"CHRONOS_LOG_FILE\"?"), "{error}");
}

#[test]
fn a_variable_that_nobody_reads_is_an_error() {
    for (name, says) in [
        ("CHRONOS_NOPE", "unknown variable: a setting's is CHRONOS_<SECTION>__<KEY>"),
        ("CHRONOS_CLUSTER_TOKEN", "unknown variable, did you mean \"CHRONOS_AUTH__CLUSTER_TOKEN\"?"),
        ("CHRONOS_DATA_DIR", "unknown variable, did you mean \"CHRONOS_NODE__DATA_DIR\"?"),
        ("CHRONOS_PORTS", "unknown variable"),
        ("CHRONOS_PORT_NUMBER", "unknown variable"),
        ("CHRONOS_PORT", "unknown variable"),
        ("CHRONOS_NAME", "unknown variable"),
        ("CHRONOS_SERVICE", "unknown variable"),
    ] {
        let error = from_environment(&[(name, "1")]).expect_err(name);
        assert!(error.starts_with(&format!("environment {name}: {says}")), "{error}");
    }
    from_environment(&[
        ("CHRONOS_PORT", "tcp://10.0.0.1:8000"),
        ("CHRONOS_SERVICE_HOST", "10.0.0.1"),
        ("CHRONOS_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("CHRONOS_EDGE_SERVICE_PORT_GRPC", "8000"),
        ("CHRONOS_SERVICE_SERVICE_HOST", "10.0.0.1"),
        ("CHRONOS_PORT_X_SERVICE_PORT", "8000"),
        ("CHRONOS_EDGE_PORT", "udp://10.0.0.1:8000"),
        ("CHRONOS_NAME", "/gateway/chronos"),
        ("CHRONOS_ENV_PATH", "/bin"),
        ("CHRONOS_CRASH_ROUNDS", "7"),
        ("CHRONOSPHERE", "x"),
    ])
    .expect("what nobody has chosen is passed over");
}

#[test]
fn a_contradiction_is_told_where_one_of_its_settings_stands_and_all_in_the_order_of_lines() {
    let text = "[tls]\n\nkey = \"k\"\n[raft]\nelection_timeout = \"1s\"\nheartbeat = \"900ms\"\n[node]\naddress = \"127.0.0.1:65000\"\n";
    let error = from_file(text).expect_err("three contradictions");
    let lines: Vec<&str> = error.lines().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(lines, ["c.toml:3", "c.toml:6", "c.toml:8"], "{error}");
    let member = |id: u8| format!("[[cluster.members]]\nid = \"node{id}\"\naddress = \"10.0.0.{id}:8000\"\n");
    let group = format!("{}{}[auth]\ntoken_admin = \"t\"\n", member(1), member(2));
    assert!(from_file(&group).expect_err("no cluster token").starts_with("c.toml:8: auth.cluster_token must be set"));
    let environment = from_environment(&[("CHRONOS_RAFT__HEARTBEAT", "400ms")]).expect_err("too slow");
    assert!(environment.starts_with("environment CHRONOS_RAFT__HEARTBEAT: raft.heartbeat (400ms)"), "{environment}");
}

#[test]
fn a_mistyped_variable_gets_the_nearest_name() {
    for (name, says) in [
        ("CHRONOS_NODE__ADRESS", "unknown setting \"node.adress\", did you mean \"CHRONOS_NODE__ADDRESS\"?"),
        ("CHRONOS_STORAG__MEMORY_BYTES_MAX", "did you mean \"CHRONOS_STORAGE__MEMORY_BYTES_MAX\"?"),
        // A slip in each part, and the right key in the wrong section.
        ("CHRONOS_STROAGE__MEMORY_BYTE_MAX", "did you mean \"CHRONOS_STORAGE__MEMORY_BYTES_MAX\"?"),
        ("CHRONOS_NODE__MAILBOX", "did you mean \"CHRONOS_LIMITS__MAILBOX\"?"),
        ("CHRONOS_STORAG__X", "unknown setting \"storag.x\": no section \"storag\", did you mean \"storage\"?"),
        ("CHRONOS_STORAGE__COLOUR", "unknown setting \"storage.colour\""),
        // One underscore where there must be two.
        ("CHRONOS_STORAGE_MEMORY_BYTES_MAX", "did you mean \"CHRONOS_STORAGE__MEMORY_BYTES_MAX\"?"),
    ] {
        let error = from_environment(&[(name, "1")]).expect_err(name);
        assert!(error.starts_with(&format!("environment {name}: unknown ")) && error.ends_with(says), "{error}");
    }
}

#[test]
fn what_this_version_cannot_do_is_refused_by_name() {
    let refused = |sources: Sources| load(&sources).expect("valid").supported().expect_err("refused").to_string();
    let target = flag("--sync-target", "sync", "target", "http://cloud:8000");
    let sync = refused(Sources { flags: vec![target], ..Sources::default() });
    assert!(sync.contains("flag --sync-target: sync.target (\"http://cloud:8000\")"), "{sync}");
    let interval = flag("--sync-interval-secs", "sync", "interval_secs", "7");
    let sync = refused(Sources { flags: vec![interval], ..Sources::default() });
    assert!(sync.contains("flag --sync-interval-secs: sync.interval_secs (7): synchronisation is not"), "{sync}");
    let usual = flag("--sync-interval-secs", "sync", "interval_secs", "5");
    let loaded = load(&Sources { flags: vec![usual], ..Sources::default() }).expect("valid");
    loaded.supported().expect("the default asks for nothing");
}

#[test]
fn members_of_a_file_name_this_node_and_nobody_twice() {
    let own = "[[cluster.members]]\nid = \"node1\"\naddress = \"127.0.0.1:8000\"\n";
    from_file(own).expect("valid").supported().expect("a group of one is supported");
    let other = "[[cluster.members]]\nid = \"node2\"\naddress = \"127.0.0.1:8001\"\nrole = \"voter\"\n";
    assert!(from_file(other).expect_err("not this node").contains("does not name this node"));
    assert!(from_file(&format!("{own}{own}")).expect_err("twice").contains("c.toml:4"));
    from_file(&format!("{own}{other}")).expect("valid").supported().expect("a group of two is supported");
    let witness = other.replace("voter", "witness");
    from_file(&format!("{own}{witness}")).expect("valid").supported().expect("one with the data and a witness");
    let alone = own.replace("address", "role = \"witness\"\naddress");
    assert!(from_file(&format!("{alone}{witness}")).expect_err("no data").contains("has no voter"));
    for nowhere in ["0.0.0.0:8001", "[::]:8001", "127.0.0.1:0"] {
        let nobody = format!("{own}{}", other.replace("127.0.0.1:8001", nowhere));
        let error = from_file(&nobody).expect_err(nowhere);
        assert!(error.contains(&format!("c.toml:6: cluster.members.address: {nowhere}")), "{error}");
    }
    let role = own.replace("address", "role = \"boss\"\naddress");
    assert!(from_file(&role).expect_err("role").contains("is not one of voter, learner, witness, observer"));
}

#[test]
fn contradictions_are_found() {
    for (text, says) in [
        ("[node]\naddress = \"127.0.0.1:65000\"\n", "leaves no room for the HTTP port"),
        ("[tls]\ncert = \"c\"\n", "missing: key, ca_cert"),
        ("[auth]\ntoken_admin = \"a\"\ntoken_admin_file = \"f\"\n", "auth.token_admin and auth.token_admin_file"),
        ("[auth]\ntoken_admin = \"a\"\ntoken_readonly = \"a\"\n", "token_admin and auth.token_readonly are the same"),
        ("[http]\nmetrics_open = \"yes\"\n", "http.metrics_open: \"yes\" is not true or false"),
        ("[storage]\nsegment_bytes = \"128 MiB\"\n", "is more than storage.seal_wal_bytes"),
        ("[raft]\nwitness_log_bytes_max = \"63 MiB\"\n", "is less than 4 times storage.segment_bytes (16 MiB)"),
        ("[http]\naddress = \"127.0.0.1:8000\"\n", "are both 127.0.0.1:8000"),
        ("[node]\nadvertise = \"0.0.0.0:8000\"\n", "c.toml:2: node.advertise: 0.0.0.0:8000 is where a node may listen"),
        ("[node]\nadvertise = \"[::]:8000\"\n", "node.advertise: [::]:8000 is where a node may listen"),
        ("[node]\nadvertise = \"a:0\"\n", "node.advertise: a:0 has port 0"),
        (
            "[raft]\nelection_timeout = \"5s\"\nclock_drift_max = \"5s\"\n",
            "raft.clock_drift_max (5s) is not more than raft.election_timeout (5s)",
        ),
        (
            "[raft]\nheartbeat = \"101ms\"\n",
            "raft.heartbeat (101ms) is more than a fifth of raft.election_timeout (500ms)",
        ),
        ("[raft]\nelection_timeout = \"499ms\"\n", "is not between 500ms and 1min"),
        (
            "[limits]\nin_flight_bytes_max = \"32 MiB\"\n",
            "limits.in_flight_bytes_max (32 MiB) has no room for one request and one answer: it is at least \
             limits.statement_bytes_max (16 MiB) + limits.response_bytes_max (16 MiB) + 64 KiB",
        ),
    ] {
        let error = from_file(text).expect_err(text);
        assert!(error.contains(says), "{text}: {error}");
    }
}

/// A group of two at an address, with more settings.
fn group(address: &str, more: &str) -> Result<Loaded, String> {
    let member = |id: u8| format!("[[cluster.members]]\nid = \"node{id}\"\naddress = \"10.0.0.{id}:8000\"\n");
    from_file(&format!("[node]\naddress = \"{address}\"\n{}{}{more}", member(1), member(2)))
}

#[test]
fn a_group_on_a_network_knows_its_members_or_does_not_start() {
    let error = group("10.0.0.1:8000", "").expect_err("open to everybody");
    assert!(error.contains("auth.cluster_token") && error.contains("tls.cert"), "{error}");
    group("10.0.0.1:8000", "[auth]\ncluster_token = \"s\"\n").expect("a shared secret");
    group("10.0.0.1:8000", "[auth]\ncluster_token_file = \"f\"\n").expect("a shared secret");
    group("10.0.0.1:8000", "[tls]\ncert = \"c\"\nkey = \"k\"\nca_cert = \"a\"\n").expect("certificates");
    // Clients have certificates too: where tokens tell what they may, one of them would make a peer of a reader.
    let certified = "[tls]\ncert = \"c\"\nkey = \"k\"\nca_cert = \"a\"\n";
    for (address, tokens, more) in [
        ("10.0.0.1:8000", "token_admin = \"t\"\n", certified),
        ("127.0.0.1:8000", "token_readonly = \"t\"\n", ""),
        ("127.0.0.1:8000", "token_admin_file = \"f\"\n", ""),
    ] {
        let error = group(address, &format!("[auth]\n{tokens}{more}")).expect_err("anybody is a peer");
        assert!(error.contains("auth.cluster_token must be set"), "{error}");
        group(address, &format!("[auth]\ncluster_token = \"s\"\n{tokens}{more}")).expect("nodes have a token too");
    }
    let loopback = group("127.0.0.1:8000", "").expect("a laptop").config;
    assert!(loopback.warnings().iter().any(|line| line.contains("auth.cluster_token")), "{:?}", loopback.warnings());
}

#[test]
fn no_two_tokens_are_the_same() {
    let all = ["token_admin", "token_readonly", "cluster_token"];
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let error =
            from_file(&format!("[auth]\n{} = \"s\"\n{} = \"s\"\n", all[one], all[other])).expect_err("the same");
        assert!(error.contains(&format!("auth.{} and auth.{} are the same", all[one], all[other])), "{error}");
    }
}

#[test]
fn what_is_open_to_a_network_is_said() {
    let warnings = |text: &str| from_file(text).expect(text).config.warnings();
    assert!(warnings("").is_empty(), "loopback");
    let open = "[node]\naddress = \"0.0.0.0:8000\"\n";
    assert!(warnings(open).concat().contains("AUTHENTICATION IS OFF"), "{:?}", warnings(open));
    let http = "[http]\naddress = \"0.0.0.0:9000\"\n";
    assert!(warnings(http).concat().contains("AUTHENTICATION IS OFF"), "{:?}", warnings(http));
    let token = format!("{open}[auth]\ntoken_admin = \"a\"\n");
    assert!(warnings(&token).concat().contains("travel in the clear"), "{:?}", warnings(&token));
    let both = format!("{token}[tls]\ncert = \"c\"\nkey = \"k\"\nca_cert = \"a\"\n");
    assert!(warnings(&both).is_empty(), "{:?}", warnings(&both));
    let reader = format!("{}[auth]\ntoken_readonly = \"a\"\n", "[node]\nid = \"a\"\n");
    assert!(warnings(&reader).concat().contains("nobody may write"), "{:?}", warnings(&reader));
}

#[test]
fn what_is_in_flight_follows_from_the_largest_request_and_answer() {
    let in_flight = |text: &str| from_file(text).expect(text).config.in_flight();
    assert_eq!(in_flight(""), Bytes(48 << 20));
    assert_eq!(in_flight("[limits]\nresponse_bytes_max = \"64 MiB\"\n"), Bytes(120 << 20));
    let small = "[limits]\nresponse_bytes_max = \"64 KiB\"\nstatement_bytes_max = \"64 KiB\"\n";
    assert_eq!(in_flight(small), Bytes(192 << 10));
    assert_eq!(in_flight("[limits]\nin_flight_bytes_max = \"40 MiB\"\n"), Bytes(40 << 20));
}

#[test]
fn a_node_of_a_group_listens_everywhere_where_it_says_how_it_is_reached() {
    let other = "[[cluster.members]]\nid = \"node2\"\naddress = \"10.0.0.2:8000\"\n";
    let own = "[[cluster.members]]\nid = \"node1\"\naddress = \"10.0.0.1:8000\"\n";
    for address in ["0.0.0.0:8000", "[::]:8000"] {
        let node = format!("[node]\naddress = \"{address}\"\n");
        from_file(&node).expect("a node alone is reached by clients, who know where");
        let error = from_file(&format!("{node}{own}{other}")).expect_err(address);
        assert!(error.contains("set node.advertise"), "{error}");
        let told = format!("{node}advertise = \"10.0.0.1:8000\"\n[auth]\ncluster_token = \"t\"\n{own}{other}");
        from_file(&told).expect("it says so");
    }
}

#[test]
fn http_listens_a_thousand_above() {
    let config = from_file("[node]\naddress = \"127.0.0.1:8001\"\n").expect("valid").config;
    assert_eq!(config.http_address().map(|address| address.to_string()), Some("127.0.0.1:9001".to_owned()));
    let free = from_file("[node]\naddress = \"127.0.0.1:0\"\n").expect("valid").config;
    assert_eq!(free.http_address().map(|address| address.port), Some(0));
}

#[test]
fn a_reserve_too_small_for_a_seal_is_told() {
    assert_eq!(Config::default().warnings(), Vec::<String>::new());
    let loaded = from_file("[storage]\ndisk_reserve = \"127 MiB\"\n").expect("allowed");
    let told = loaded.config.warnings();
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("storage.disk_reserve (127 MiB) is less than twice storage.seal_wal_bytes (64 MiB)"),
        "{told:?}"
    );
}
