//! Stale reads of a stated age, and who may answer them.

use crate::group::{Group, name};
use crate::patience::Patience;
use crate::process::wait;
use crate::process::wire::SqlRequest;
use rustix::process::Signal;
use serde_json::json;
use std::process::Command;
use tonic::{Code, Request};

fn client(address: &str, statements: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.args(["client", "--leader", address]);
    command.args(statements.iter().flat_map(|sql| ["-e", sql]));
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_stale_read_may_say_how_old_is_too_old() {
    let group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let read = |at: usize, age: &str| {
        let sql = "SELECT COUNT(*) FROM t";
        group.node(at).post_sql(&json!({ "sql": sql, "consistency": "stale", "max_staleness": age }).to_string())
    };
    for at in 0..3 {
        let patience = Patience::new();
        // A node that has just started has heard nothing yet.
        while read(at, "30s").0 != 200 {
            patience.spend(|| format!("{}: {}", name(at), read(at, "30s").1));
        }
        let (status, refused) = read(at, "0s");
        assert!(status == 503 && refused.to_string().contains("max_staleness is 0s"), "{status} {refused}");
    }
    let both = json!({ "sql": "SELECT 1", "consistency": "lease", "max_staleness": "1s" }).to_string();
    assert_eq!(group.node(0).post_sql(&both).0, 400);
    let (status, refused) = group.node(0).post_sql(r#"{"sql": "SET consistency = 'stale'"}"#);
    assert!(status == 400 && refused.to_string().contains("SET consistency is not supported"), "{refused}");
    // One of three is left: what it has grows old.
    let alone = (group.leader() + 1) % 3;
    (0..3).filter(|at| *at != alone).for_each(|at| group.node(at).signal(Signal::STOP));
    let patience = Patience::new();
    loop {
        let (status, answer) = read(alone, "1s");
        if status == 503 {
            assert!(answer.to_string().contains("ms old, max_staleness is 1s"), "{answer}");
            break;
        }
        patience.spend(|| format!("what nobody confirms stays fresh: {answer}"));
    }
    assert_eq!(read(alone, "1h").0, 200);
    let address = group.node(alone).grpc.to_string();
    wait(async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut client = crate::process::Client::new(endpoint.connect().await.unwrap());
        for (age, expected) in [("1s", Some(Code::Unavailable)), ("1h", None), ("soon", Some(Code::InvalidArgument))] {
            let mut request = Request::new(SqlRequest { sql: "SELECT COUNT(*) FROM t".into() });
            request.metadata_mut().insert("x-chronos-max-staleness", age.parse().unwrap());
            assert_eq!(client.execute_sql(request).await.err().map(|status| status.code()), expected, "{age}");
        }
    });
    // The client is a session, and keeps what is set.
    let (is_read, told) = client(&address, &["SET consistency = 'stale'", "SELECT COUNT(*) AS n FROM t"]);
    assert!(is_read && told.contains("(1 row)"), "{told}");
    let too_old = ["SET max_staleness = '1s'", "SELECT COUNT(*) AS n FROM t"];
    let (is_read, told) = client(&address, &too_old);
    assert!(!is_read && told.contains("max_staleness is 1s"), "{told}");
    let reset = ["SET consistency TO stale", "SET consistency = DEFAULT", "SELECT COUNT(*) AS n FROM t"];
    let (is_read, told) = client(&address, &reset);
    assert!(!is_read && told.contains("no leader"), "{told}");
    (0..3).filter(|at| *at != alone).for_each(|at| group.node(at).signal(Signal::CONT));
}

#[test]
fn every_level_of_consistency_is_taken_by_grpc_on_a_follower() {
    const LEVELS: [&str; 3] = ["stale", "lease", "linearizable"];
    let group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    let follower = (group.leader() + 1) % 3;
    let address = format!("http://{}", group.node(follower).grpc);
    wait(async {
        let mut client = crate::process::Client::connect(address).await.unwrap();
        let asked = |level: &str, sql: &str| {
            let mut request = Request::new(SqlRequest { sql: sql.into() });
            request.metadata_mut().insert("x-chronos-consistency", level.parse().unwrap());
            request
        };
        for (done, level) in LEVELS.into_iter().enumerate() {
            // A write is handed on with its level, and takes effect whatever that is.
            let write = format!("INSERT INTO t VALUES ({done})");
            let written = client.execute_sql(asked(level, &write)).await.unwrap().into_inner();
            assert!(written.success && written.affected == 1, "{level}: {written:?}");
            let read = client.execute_sql(asked(level, "SELECT COUNT(*) FROM t")).await.unwrap().into_inner();
            let counted = read.rows[0].values[0].value.clone();
            // Only a stale read may miss what was answered before.
            let all = Some(crate::process::wire::value::Value::IntValue(done as i64 + 1));
            assert!(read.success && (level == "stale" || counted == all), "{level}: {read:?}");
        }
        let refused = client.execute_sql(asked("fresh", "SELECT 1")).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        // Without the others, what is here is all that can be read.
        (0..3).filter(|at| *at != follower).for_each(|at| group.node(at).signal(Signal::STOP));
        for level in LEVELS {
            let answer = client.execute_sql(asked(level, "SELECT COUNT(*) FROM t")).await;
            let expected = (level != "stale").then_some(Code::Unavailable);
            assert_eq!(answer.err().map(|status| status.code()), expected, "{level}");
            let mut rows = match client.query_sql(asked(level, "SELECT id FROM t")).await {
                Ok(rows) => rows.into_inner(),
                Err(status) => {
                    assert_eq!(Some(status.code()), expected, "{level}");
                    continue;
                }
            };
            assert_eq!(rows.message().await.err().map(|status| status.code()), expected, "{level}, streamed");
        }
        (0..3).filter(|at| *at != follower).for_each(|at| group.node(at).signal(Signal::CONT));
    });
}
