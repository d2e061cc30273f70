//! Requests and answers on their way, many at once: what they hold together is bounded, and comes back.

use crate::process::wire::SqlRequest;
use crate::process::{Node, body, unchunked, wait};
use futures_util::future::Either;
use rustix::net::{AddressFamily, SocketType, sockopt};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use tonic::Code;
use tonic::transport::Channel;

/// Room for two requests, or two answers, of 2 MiB and more.
const SETTINGS: [(&str, &str); 3] = [
    ("CHRONOS_LIMITS__STATEMENT_BYTES_MAX", "3 MiB"),
    ("CHRONOS_LIMITS__RESPONSE_BYTES_MAX", "3 MiB"),
    ("CHRONOS_LIMITS__IN_FLIGHT_BYTES_MAX", "8 MiB"),
];

/// What a node may take in all: a debug build with its share of caches, and the account.
const PEAK_BYTES_MAX: u64 = 128 << 20;

const SELECT: &str = r#"{"sql": "SELECT id, words FROM t"}"#;

/// A node with a table whose rows make an answer of more than 2 MB.
fn start(settings: &[(&'static str, &'static str)]) -> (tempfile::TempDir, Node) {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_with(directory.path(), &[&SETTINGS, settings].concat());
    node.until_ready();
    node.post_sql(r#"{"sql": "CREATE TABLE t (id INT PRIMARY KEY, words TEXT)"}"#);
    let rows: Vec<String> = (0..1000).map(|id| format!("({id}, '{}')", "w".repeat(2000))).collect();
    let (status, written) = node.post_sql(&format!(r#"{{"sql": "INSERT INTO t VALUES {}"}}"#, rows.join(",")));
    assert_eq!(status, 200, "{written}");
    until_nothing_is_held(&node);
    (directory, node)
}

fn held(node: &Node) -> u64 {
    used(node, "limits.in_flight_bytes_max")
}

fn used(node: &Node, limit: &str) -> u64 {
    let status: Value = serde_json::from_str(&node.get("/status")).unwrap();
    let limit = &status["limits"][limit];
    assert!(limit["max"].as_u64() >= limit["now"].as_u64(), "{limit}");
    limit["now"].as_u64().unwrap()
}

fn until_nothing_is_held(node: &Node) {
    while held(node) > 0 {
        std::thread::yield_now();
    }
}

/// A connection that takes some kilobytes and no more as long as nobody reads.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    TcpStream::from(socket)
}

fn post(stream: &mut TcpStream, announced: usize, sent: &[u8]) {
    let head = format!("POST /sql HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-length: {announced}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // A node that has no room closes, and what was on its way is lost.
    let _ = stream.write_all(sent);
}

/// Status and JSON of what comes.
fn answer(stream: &mut TcpStream) -> (u16, Value) {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = unchunked(&bytes);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{text:?}"));
    (status, serde_json::from_str(body(&text)).unwrap_or_else(|error| panic!("{error}: {text}")))
}

fn small_statements_go_on(node: &Node) {
    assert_eq!(node.post_sql(r#"{"sql": "INSERT INTO t VALUES (-1, '')"}"#).0, 200);
    assert_eq!(node.post_sql(r#"{"sql": "DELETE FROM t WHERE id = -1"}"#).0, 200);
    wait(async {
        let mut client = node.client().await;
        let counted = client.execute_sql(SqlRequest { sql: "SELECT COUNT(*) FROM t".into() }).await.unwrap();
        assert!(counted.into_inner().success);
    });
}

#[test]
fn answers_that_nobody_fetches_leave_room_and_memory_for_others() {
    let (_directory, node) = start(&[]);
    let mut clients: Vec<TcpStream> = (0..100).map(|_| narrow(node.http)).collect();
    clients.iter_mut().for_each(|client| post(client, SELECT.len(), SELECT.as_bytes()));
    // Whoever asks behind them is told so, and may try again.
    let (status, refused) = loop {
        let (status, answered) = node.http("POST", "/sql", &[], SELECT.as_bytes());
        if status != 200 {
            break (status, answered);
        }
        // On a busy machine the first ones are given up before the last ones are answered.
        assert!(clients.len() < 400, "nobody is refused");
        let mut client = narrow(node.http);
        post(&mut client, SELECT.len(), SELECT.as_bytes());
        clients.push(client);
    };
    assert_eq!(status, 503, "{refused}");
    assert!(refused.to_lowercase().contains("retry-after: 1"), "{refused}");
    assert!(refused.contains("53200") && refused.contains("limits.in_flight_bytes_max (8388608)"), "{refused}");
    assert!(held(&node) > 2_000_000);
    small_statements_go_on(&node);
    let metrics = node.get("/metrics");
    assert!(metrics.lines().any(|line| line.starts_with("chronos_in_flight_bytes ")), "{metrics}");
    let mut statuses = Vec::new();
    for mut client in clients {
        let (status, answer) = answer(&mut client);
        match status {
            // One that had to wait for a processor may see what the small statements wrote.
            200 => assert!(answer["rows"].as_array().is_some_and(|rows| rows.len() >= 1000)),
            503 => assert_eq!(answer["sqlstate"], "53200"),
            other => panic!("{other}: {answer}"),
        }
        statuses.push(status);
    }
    assert!(statuses.contains(&200) && statuses.contains(&503), "{statuses:?}");
    until_nothing_is_held(&node);
    assert!(node.peak_bytes() < PEAK_BYTES_MAX, "{}", node.peak_bytes());
}

#[test]
fn clients_that_go_away_take_their_answers_with_them() {
    let (_directory, node) = start(&[]);
    let mut clients: Vec<TcpStream> = (0..4).map(|_| narrow(node.http)).collect();
    clients.iter_mut().for_each(|client| post(client, SELECT.len(), SELECT.as_bytes()));
    while held(&node) == 0 {
        std::thread::yield_now();
    }
    drop(clients);
    until_nothing_is_held(&node);
}

#[test]
fn bodies_that_are_sent_by_halves_lose_their_place_to_whole_ones() {
    let (_directory, node) = start(&[("CHRONOS_LIMITS__STATEMENT_TIMEOUT", "3s")]);
    let half = vec![b' '; 1 << 20];
    let mut clients: Vec<TcpStream> = (0..30).map(|_| TcpStream::connect(node.http).unwrap()).collect();
    for client in &mut clients[..25] {
        post(client, 2 << 20, &half[..128 << 10]);
    }
    // Small ones by halves, and a length that nobody says.
    clients[25..29].iter_mut().for_each(|client| post(client, 1000, b"{"));
    let chunked =
        "POST /sql HTTP/1.1\r\nhost: node\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n100000\r\n";
    clients[29].write_all(chunked.as_bytes()).unwrap();
    clients[29].write_all(&half[..100 << 10]).unwrap();
    while held(&node) < 4 << 20 {
        std::thread::yield_now();
    }
    let calls: Vec<TcpStream> = (0..10).map(|_| half_call(node.grpc, EXECUTE, 2 << 20)).collect();
    small_statements_go_on(&node);
    // Whoever has it whole waits for its turn, and is served.
    let rows: Vec<String> = (2000..3000).map(|id| format!("({id}, '{}')", "w".repeat(2000))).collect();
    let insert = format!("INSERT INTO t VALUES {}", rows.join(","));
    loop {
        let (status, written) = node.post_sql(&serde_json::json!({ "sql": insert }).to_string());
        match status {
            200 => break,
            // It stood behind as many as may wait, or behind others for all of its time.
            503 => assert_eq!(written["sqlstate"], "53200"),
            other => panic!("{other}: {written}"),
        }
    }
    let mut statuses = Vec::new();
    for mut client in clients {
        let (status, answer) = answer(&mut client);
        match status {
            408 => assert_eq!(answer["sqlstate"], "57014"),
            503 => assert_eq!(answer["sqlstate"], "53200"),
            other => panic!("{other}: {answer}"),
        }
        statuses.push(status);
    }
    assert!(statuses[25..29].iter().all(|status| *status == 408), "{statuses:?}");
    assert!(statuses[..25].contains(&408), "{statuses:?}");
    until_nothing_is_held(&node);
    // The same at the other door, over connections that stay open.
    let mut more: Vec<TcpStream> = (0..2).map(|_| half_call(node.grpc, EXECUTE, 2 << 20)).collect();
    small_statements_go_on(&node);
    more.iter_mut().for_each(until_answered);
    until_nothing_is_held(&node);
    drop((calls, more));
    assert!(node.peak_bytes() < PEAK_BYTES_MAX, "{}", node.peak_bytes());
}

#[test]
fn senders_that_drip_keep_nobody_waiting() {
    let (_directory, node) = start(&[("CHRONOS_LIMITS__STATEMENT_TIMEOUT", "5min")]);
    let mut dripping: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(node.http).unwrap()).collect();
    dripping.iter_mut().for_each(|client| post(client, 3 << 20, &vec![b' '; 20_000]));
    let mut calls: Vec<TcpStream> = (0..60).map(|_| half_call(node.grpc, EXECUTE, 3 << 20)).collect();
    small_statements_go_on(&node);
    assert_eq!(held(&node), 0, "what is announced is not here");
    let insert = |id: usize, bytes: usize| format!("INSERT INTO t VALUES ({id}, '{}')", "w".repeat(bytes));
    wait(async {
        let mut client = node.client().await;
        let sql = insert(20_000, 20_000);
        assert!(client.execute_sql(SqlRequest { sql }).await.unwrap().into_inner().success);
        // More than there is room for, all at once, and each has its turn.
        let honest = (0..30).map(async |id| {
            let sql = insert(30_000 + id, 600_000);
            node.client().await.execute_sql(SqlRequest { sql }).await.unwrap().into_inner()
        });
        for answer in futures_util::future::join_all(honest).await {
            assert!(answer.success, "{}", answer.error);
        }
    });
    let body = serde_json::json!({ "sql": insert(20_001, 20_000) }).to_string();
    assert_eq!(node.post_sql(&body).0, 200);
    // They had no less time than before; nobody waited for their end.
    for client in &mut dripping {
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        client.set_nonblocking(false).unwrap();
    }
    for mut client in dripping {
        let (status, told) = answer(&mut client);
        assert_eq!((status, told["sqlstate"].as_str()), (408, Some("57014")), "{told}");
        assert!(told["error"].as_str().is_some_and(|text| text.contains("limits.statement_timeout")), "{told}");
    }
    calls.iter_mut().for_each(until_answered);
    until_nothing_is_held(&node);
    assert!(node.peak_bytes() < PEAK_BYTES_MAX, "{}", node.peak_bytes());
}

const EXECUTE: &str = "/raft.SqlService/ExecuteSql";

/// A call that announces a message of so many bytes and sends the beginning, in frames of HTTP/2 made by hand.
fn half_call(address: SocketAddr, path: &str, announced: u32) -> TcpStream {
    fn frame(kind: u8, flags: u8, stream: u8, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], content].concat()
    }
    // Of HPACK: POST and http by number, the others spelt out.
    let mut head = vec![0x83, 0x86];
    for (name, value) in
        [(":path", path), (":authority", "node"), ("content-type", "application/grpc"), ("te", "trailers")]
    {
        head.push(0);
        for text in [name, value] {
            head.push(text.len() as u8);
            head.extend_from_slice(text.as_bytes());
        }
    }
    let begun = vec![b' '; announced as usize / 2];
    let message = [&[0][..], &announced.to_be_bytes(), &begun[..begun.len().min(10_000)]].concat();
    let mut stream = TcpStream::connect(address).unwrap();
    let greeting = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(4, 0, 0, &[])].concat();
    stream.write_all(&[greeting, frame(1, 4, 1, &head), frame(0, 0, 1, &message)].concat()).unwrap();
    stream
}

/// Waits for the end of the answer to such a call.
fn until_answered(stream: &mut TcpStream) {
    const HEADERS: u8 = 1;
    const END_STREAM: u8 = 1;
    let mut head = [0; 9];
    while head[3] != HEADERS || head[4] & END_STREAM == 0 {
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut content = vec![0; length as usize];
        stream.read_exact(&mut content).unwrap();
    }
}

#[test]
fn no_service_takes_long_messages_or_waits_for_half_ones() {
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    let (_directory, node) = start(&[("CHRONOS_LIMITS__STATEMENT_TIMEOUT", "1s")]);
    let channel = async || Channel::from_shared(format!("http://{}", node.grpc)).unwrap().connect().await.unwrap();
    let question = |bytes: usize| tonic_reflection::pb::v1::ServerReflectionRequest {
        host: "h".repeat(bytes),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let refused_by_name = |status: tonic::Status| {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("this service takes 16379"), "{status}");
    };
    wait(async {
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel().await);
        let asked = tonic_health::pb::HealthCheckRequest { service: "s".repeat(17 << 10) };
        refused_by_name(health.check(asked).await.unwrap_err());
        let mut reflection =
            tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel().await);
        let (ask, questions) = tokio::sync::mpsc::channel(1);
        let questions = tokio_stream::wrappers::ReceiverStream::new(questions);
        ask.send(question(0)).await.unwrap();
        let mut answers = reflection.server_reflection_info(questions).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().is_some());
        for path in [
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/raft.AdminService/CreateSnapshot",
            "/raft.SyncStatusService/GetSyncStatus",
        ] {
            until_answered(&mut half_call(node.grpc, path, 1 << 10));
        }
        // That took seconds, in which reflection had its connection open and said nothing.
        ask.send(question(10)).await.unwrap();
        assert!(answers.message().await.unwrap().is_some());
        ask.send(question(17 << 10)).await.unwrap();
        // The service tells nobody what became of its questions: it ends.
        assert!(answers.message().await.map_or(true, |answer| answer.is_none()));
    });
}

#[test]
fn a_statement_that_runs_keeps_its_room_when_its_client_has_gone() {
    const LONG: u64 = 512 << 10;
    let (_directory, node) = start(&[]);
    // Two megabytes are compared so many times: it ends with the node. A long list is in memory for as long as it runs.
    let slow = vec!["words LIKE '%w%w%w%w%x'"; 1000].join(", ");
    let list = (0..100_000).map(|id| id.to_string()).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT {slow} FROM t WHERE id + 0 IN ({list})");
    wait(async {
        let mut client = node.client().await;
        let mut leaving = node.client().await;
        let asked = leaving.execute_sql(SqlRequest { sql: sql.clone() });
        let begun = async {
            while held(&node) < LONG {
                tokio::task::yield_now().await;
            }
            // It has begun once it has memory of its own.
            while used(&node, "limits.query_memory_bytes") == 0 {
                tokio::task::yield_now().await;
            }
        };
        match futures_util::future::select(Box::pin(asked), Box::pin(begun)).await {
            Either::Left((answer, _)) => panic!("{answer:?}"),
            Either::Right(_) => {}
        }
        drop(leaving);
        for _ in 0..10 {
            // The door runs this one itself, whoever keeps the executors busy.
            let brief = SqlRequest { sql: "SELECT id FROM t WHERE id = 1".into() };
            client.execute_sql(brief).await.unwrap();
        }
    });
    assert!(held(&node) > LONG, "{}", held(&node));
    assert!(used(&node, "limits.query_memory_bytes") > 0);
}

#[test]
fn long_answers_over_grpc_are_whole_or_refused_by_name() {
    let (_directory, node) = start(&[]);
    let answered = wait(async {
        let calls = (0..32).map(|_| async {
            let mut client = node.client().await;
            client.execute_sql(SqlRequest { sql: "SELECT id, words FROM t".into() }).await
        });
        futures_util::future::join_all(calls).await
    });
    let mut whole = 0;
    for answer in answered {
        match answer {
            Ok(answer) => {
                let rows = answer.into_inner().rows;
                assert_eq!(rows.len(), 1000);
                whole += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert_eq!(status.metadata().get("x-chronos-sqlstate").unwrap(), "53200");
                assert!(status.message().contains("limits.in_flight_bytes_max"), "{status}");
            }
        }
    }
    assert!(whole > 0);
    until_nothing_is_held(&node);
    assert!(node.peak_bytes() < PEAK_BYTES_MAX, "{}", node.peak_bytes());
}

#[test]
fn a_batch_that_reads_waits_for_its_room_before_it_writes() {
    let (_directory, node) = start(&[]);
    wait(async {
        let calls = (0..8).map(|id| {
            let node = &node;
            async move {
                let sql = vec![format!("INSERT INTO t VALUES ({}, '')", 5000 + id), "SELECT * FROM t".to_string()];
                node.client()
                    .await
                    .execute_batch(crate::process::wire::BatchRequest { sql })
                    .await
                    .unwrap()
                    .into_inner()
            }
        });
        for answer in futures_util::future::join_all(calls).await {
            assert!(answer.responses[0].success && answer.responses[0].affected == 1, "{:?}", answer.responses[0]);
            assert!(answer.responses[1].rows.len() > 1000);
        }
    });
    until_nothing_is_held(&node);
}

#[test]
fn a_field_twice_in_a_body_is_refused() {
    let (_directory, node) = start(&[]);
    let (status, refused) = node.post_sql(r#"{"sql": "DELETE FROM t", "sql": "SELECT 1"}"#);
    assert_eq!(status, 400);
    assert!(refused["error"].as_str().is_some_and(|text| text.contains("\"sql\" is there twice")), "{refused}");
}

#[test]
fn requests_that_wait_beside_each_other_do_not_starve_those_that_have_room() {
    let (_directory, node) = start(&[]);
    let answered = wait(async {
        let client = node.client().await;
        let rows =
            |call: usize| (0..800).map(move |row| format!("({}, '{}')", 10_000 + 1000 * call + row, "w".repeat(1300)));
        let calls = (0..20).map(|call| {
            let mut client = client.clone();
            let sql = format!("INSERT INTO t VALUES {}", rows(call).collect::<Vec<_>>().join(","));
            assert!(sql.len() > 1 << 20);
            async move { client.execute_sql(SqlRequest { sql }).await }
        });
        let small = async {
            for _ in 0..20 {
                let mut client = client.clone();
                let read = client.execute_sql(SqlRequest { sql: "SELECT id FROM t WHERE id = 1".into() }).await;
                assert!(read.unwrap().into_inner().success);
            }
        };
        futures_util::future::join(futures_util::future::join_all(calls), small).await.0
    });
    let mut written = 0;
    for answer in answered {
        match answer {
            Ok(answer) => {
                let answer = answer.into_inner();
                assert_eq!((answer.success, answer.affected), (true, 800), "{}", answer.error);
                written += 1;
            }
            // More than may wait on one connection.
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert_eq!(status.metadata().get("x-chronos-sqlstate").unwrap(), "53200");
                assert!(status.message().contains("limits.in_flight_bytes_max"), "{status}");
            }
        }
    }
    assert!(written >= 15, "{written}");
    until_nothing_is_held(&node);
    assert!(node.peak_bytes() < PEAK_BYTES_MAX, "{}", node.peak_bytes());
}

#[test]
fn bodies_that_have_no_room_for_long_keep_nobody_from_writing() {
    let (_directory, node) = start(&[("CHRONOS_LIMITS__STATEMENT_TIMEOUT", "5min")]);
    let head = "POST /sql HTTP/1.1\r\nhost: node\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n100000\r\n";
    let mut trickling = TcpStream::connect(node.http).unwrap();
    trickling.write_all(head.as_bytes()).unwrap();
    trickling.write_all(&vec![b' '; 100 << 10]).unwrap();
    while held(&node) < 64 << 10 {
        std::thread::yield_now();
    }
    assert!(held(&node) < 1 << 20, "it has what it has sent: {}", held(&node));
    // Answers that nobody fetches have more than the rest of what they may have.
    let mut clients: Vec<TcpStream> = (0..4).map(|_| narrow(node.http)).collect();
    clients.iter_mut().for_each(|client| post(client, SELECT.len(), SELECT.as_bytes()));
    while held(&node) < 7 << 19 {
        std::thread::yield_now();
    }
    // What answers may keep from it for ever fails, and does not stand before the others.
    let mut largest = TcpStream::connect(node.http).unwrap();
    post(&mut largest, 5 << 20, b"");
    let (status, refused) = answer(&mut largest);
    assert_eq!((status, refused["sqlstate"].as_str()), (503, Some("53200")), "{refused}");
    let insert = format!("INSERT INTO t VALUES (9000, '{}')", "w".repeat(64 << 10));
    let (status, written) = node.post_sql(&serde_json::json!({ "sql": insert }).to_string());
    assert_eq!(status, 200, "{written}");
    drop((trickling, clients));
    until_nothing_is_held(&node);
    // One that comes to its end is run.
    let mut chunked = TcpStream::connect(node.http).unwrap();
    chunked.write_all(head.replace("100000\r\n", "").as_bytes()).unwrap();
    let insert = format!("INSERT INTO t VALUES (9001, '{}')", "w".repeat(1 << 20));
    for part in serde_json::json!({ "sql": insert }).to_string().as_bytes().chunks(10_000) {
        chunked.write_all(format!("{:x}\r\n", part.len()).as_bytes()).unwrap();
        chunked.write_all(&[part, b"\r\n"].concat()).unwrap();
    }
    chunked.write_all(b"0\r\n\r\n").unwrap();
    let (status, written) = answer(&mut chunked);
    assert_eq!((status, written["affected"].as_u64()), (200, Some(1)), "{written}");
    until_nothing_is_held(&node);
}
