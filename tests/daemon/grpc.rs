//! The gRPC door of a real node.

use crate::process::wire::sql_service_client::SqlServiceClient;
use crate::process::wire::value::Value;
use crate::process::wire::{self, BatchRequest, SqlRequest, SqlResponse};
use crate::process::{Node, wait};
use tonic::transport::Channel;
use tonic::{Code, Request};

async fn run(client: &mut SqlServiceClient<Channel>, sql: &str) -> SqlResponse {
    client.execute_sql(SqlRequest { sql: sql.into() }).await.unwrap().into_inner()
}

fn value(response: &SqlResponse, row: usize, column: usize) -> Value {
    response.rows[row].values[column].value.clone().unwrap()
}

#[test]
fn a_statement_answers_rows_counts_and_errors_with_their_place() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    wait(async {
        let mut client = node.client().await;
        assert!(run(&mut client, "CREATE TABLE sensors (id INT, temperature FLOAT, place TEXT)").await.success);
        let written = run(&mut client, "INSERT INTO sensors VALUES (1, 25.5, 'a'), (2, NULL, 'b')").await;
        assert_eq!((written.success, written.affected), (true, 2), "{}", written.error);
        let read = run(&mut client, "SELECT id, temperature, place FROM sensors ORDER BY id").await;
        assert_eq!(read.columns, ["id", "temperature", "place"]);
        assert_eq!(read.types, ["INT", "FLOAT", "TEXT"]);
        assert_eq!(value(&read, 0, 1), Value::FloatValue(25.5));
        assert_eq!(value(&read, 1, 1), Value::NullValue(true));
        assert_eq!(value(&read, 1, 2), Value::StringValue("b".into()));
        let failed = run(&mut client, "SELECT id, nothing FROM sensors").await;
        assert_eq!(
            (failed.success, failed.sqlstate.as_str(), failed.position),
            (false, "42703", 12),
            "{}",
            failed.error
        );
        let failed = run(&mut client, "SELEKT 1").await;
        assert_eq!(
            (failed.success, failed.sqlstate.as_str(), failed.position),
            (false, "42601", 1),
            "{}",
            failed.error
        );
    });
}

#[test]
fn a_result_streams_with_its_columns_first() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    wait(async {
        let mut client = node.client().await;
        run(&mut client, "CREATE TABLE t (id INT PRIMARY KEY, words TEXT)").await;
        let words = "w".repeat(1000);
        for part in 0..10 {
            let rows: Vec<String> = (0..1000).map(|i| format!("({}, '{words}')", part * 1000 + i)).collect();
            let written = run(&mut client, &format!("INSERT INTO t VALUES {}", rows.join(","))).await;
            assert!(written.success, "{}", written.error);
        }
        let request = SqlRequest { sql: "SELECT id, words FROM t".into() };
        let mut stream = client.query_sql(request).await.unwrap().into_inner();
        let header = stream.message().await.unwrap().unwrap();
        assert_eq!(header.columns, ["id", "words"]);
        let (mut rows, mut largest) = (0, 0);
        while let Some(message) = stream.message().await.unwrap() {
            assert!(message.success, "{}", message.error);
            rows += message.rows.len();
            largest = largest.max(prost::Message::encoded_len(&message));
        }
        assert_eq!(rows, 10_000);
        assert!(largest < 4 << 20, "a message of {largest} bytes is refused by clients with default limits");
        let failed = client.query_sql(SqlRequest { sql: "SELECT * FROM nowhere".into() }).await.unwrap();
        let message = failed.into_inner().message().await.unwrap().unwrap();
        assert_eq!((message.success, message.sqlstate.as_str()), (false, "42P01"));
    });
}

#[test]
fn a_batch_is_all_or_nothing_and_names_the_statement() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    wait(async {
        let mut client = node.client().await;
        run(&mut client, "CREATE TABLE t (id INT PRIMARY KEY)").await;
        let batch = |texts: &[&str]| BatchRequest { sql: texts.iter().map(ToString::to_string).collect() };
        let done = client.execute_batch(batch(&["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)"])).await;
        let done = done.unwrap().into_inner();
        assert_eq!(done.responses.iter().map(|one| one.affected).collect::<Vec<u64>>(), [1, 1]);
        let failed = client.execute_batch(batch(&["INSERT INTO t VALUES (3)", "INSERT INTO t VALUES (x)"])).await;
        let failed = failed.unwrap().into_inner();
        assert_eq!((failed.responses.len(), failed.responses[0].success, failed.failed), (1, false, 1));
        let count = run(&mut client, "SELECT COUNT(*) FROM t").await;
        assert_eq!(value(&count, 0, 0), Value::IntValue(2));
    });
}

#[test]
fn a_named_request_is_executed_once() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    wait(async {
        let mut client = node.client().await;
        run(&mut client, "CREATE TABLE t (id INT)").await;
        for _ in 0..3 {
            let mut request = Request::new(SqlRequest { sql: "INSERT INTO t VALUES (1)".into() });
            request.metadata_mut().insert("x-chronos-client-id", "edge1".parse().unwrap());
            request.metadata_mut().insert("x-chronos-sequence", "1".parse().unwrap());
            assert_eq!(client.execute_sql(request).await.unwrap().into_inner().affected, 1);
        }
        let count = run(&mut client, "SELECT COUNT(*) FROM t").await;
        assert_eq!(value(&count, 0, 0), Value::IntValue(1));
    });
}

#[test]
fn limits_and_deadlines_are_told_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    wait(async {
        let mut client = node.client().await;
        let long = format!("SELECT '{}'", "x".repeat(16 << 20));
        let refused = run(&mut client, &long).await;
        assert_eq!((refused.success, refused.sqlstate.as_str()), (false, "54000"), "{}", refused.error);
        let longer = SqlRequest { sql: format!("SELECT '{}'", "x".repeat(17 << 20)) };
        let refused = client.execute_sql(longer).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("limits.statement_bytes_max"), "{refused}");
        assert_eq!(refused.metadata().get("x-chronos-sqlstate").unwrap(), "54000");
        let deep = run(&mut client, &format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000))).await;
        assert!(!deep.success && !deep.sqlstate.is_empty(), "{}", deep.error);
        // A write waits for the disk at least, so it cannot be done before its deadline.
        let mut late = Request::new(SqlRequest { sql: "CREATE TABLE late (id INT)".into() });
        late.metadata_mut().insert("grpc-timeout", "1n".parse().unwrap());
        let code = client.execute_sql(late).await.unwrap_err().code();
        let told = [Code::DeadlineExceeded, Code::Unavailable, Code::Cancelled, Code::Unknown];
        assert!(told.contains(&code), "{code:?}");
        assert!(run(&mut client, "SELECT 1").await.success, "the node lives on");
    });
}

#[test]
fn the_standard_services_answer() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    wait(async {
        let _serves = node.client().await;
        let channel = Channel::from_shared(format!("http://{}", node.grpc)).unwrap().connect().await.unwrap();
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
        let serving = tonic_health::pb::health_check_response::ServingStatus::Serving as i32;
        let services = ["Admin", "Health", "Sql", "Sync", "SyncStatus"].map(|name| format!("raft.{name}Service"));
        for service in services.into_iter().chain([String::new()]) {
            let asked = tonic_health::pb::HealthCheckRequest { service };
            while health.check(asked.clone()).await.map_or(0, |answer| answer.into_inner().status) != serving {}
        }
        let mut connectivity = wire::health_service_client::HealthServiceClient::new(channel.clone());
        let state = connectivity.get_connectivity(wire::HealthRequest {}).await.unwrap().into_inner().state;
        assert_eq!(state, "Connected");
        let mut progress = wire::sync_status_service_client::SyncStatusServiceClient::new(channel.clone());
        let status = progress.get_sync_status(wire::SyncStatusRequest {}).await.unwrap().into_inner();
        assert_eq!(status, wire::SyncStatusResponse::default());
        let mut sync = wire::sync_service_client::SyncServiceClient::new(channel.clone());
        let refused = sync.sync(wire::SyncRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        let mut reflection =
            tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
        let list = tonic_reflection::pb::v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices(
                String::new(),
            )),
        };
        let mut answers = reflection.server_reflection_info(tokio_stream::once(list)).await.unwrap().into_inner();
        let listed = format!("{:?}", answers.message().await.unwrap().unwrap());
        assert!(listed.contains("raft.SqlService") && listed.contains("grpc.health.v1.Health"), "{listed}");
    });
}
