//! Who may do what in a group: at the leader, and at those that hand on to it.

use crate::group::Group;
use crate::process::wire::forward_service_client::ForwardServiceClient;
use crate::process::wire::peer_service_client::PeerServiceClient;
use crate::process::wire::{ForwardRequest, IdentifyRequest};
use crate::process::{Node, wait};
use serde_json::json;
use tonic::{Code, Request};

const SETTINGS: [(&str, &str); 3] = [
    ("CHRONOS_AUTH_TOKEN_ADMIN", "admin-s3cret"),
    ("CHRONOS_AUTH_TOKEN_READONLY", "reader-s3cret"),
    ("CHRONOS_AUTH__CLUSTER_TOKEN", "cluster-s3cret"),
];

const ADMIN: Option<&str> = Some("admin-s3cret");
const READER: Option<&str> = Some("reader-s3cret");

fn post(node: &Node, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
    let header = token.map(|token| format!("authorization: Bearer {token}"));
    let headers: Vec<&str> = header.iter().map(String::as_str).collect();
    node.http("POST", path, &headers, body.as_bytes())
}

fn sql(node: &Node, token: Option<&str>, sql: &str) -> (u16, String) {
    post(node, "/sql", token, &json!({ "sql": sql }).to_string())
}

#[test]
fn roles_hold_on_every_node_of_a_group() {
    let group = Group::start_with(&SETTINGS);
    let made = sql(group.node(0), ADMIN, "CREATE TABLE t (id INT PRIMARY KEY)");
    assert_eq!(made.0, 200, "{}", made.1);
    for at in 0..3 {
        let node = group.node(at);
        for write in [format!("INSERT INTO t VALUES ({at})"), format!("/* SELECT */ INSERT INTO t VALUES ({at})")] {
            assert_eq!(sql(node, None, &write).0, 401);
            assert_eq!(sql(node, READER, &write).0, 403);
        }
        let (status, answer) = sql(node, ADMIN, &format!("INSERT INTO t VALUES ({at})"));
        assert_eq!(status, 200, "{answer}");
        assert_eq!(sql(node, READER, "SELECT COUNT(*) FROM t").0, 200);
        for path in ["/admin/members", "/%61dmin/members", "/admin/transfer", "/admin/%74ransfer"] {
            for (token, expected) in [(None, 401), (READER, 403)] {
                assert_eq!(post(node, path, token, r#"{"remove": "node3"}"#).0, expected, "{path} by {token:?}");
            }
        }
        // Known to the leader, whoever it was that asked: it has no such member.
        let (status, answer) = post(node, "/%61dmin/members", ADMIN, r#"{"remove": "node9"}"#);
        assert!(status == 400 && answer.contains("node9"), "{status} {answer}");
    }
    // A node that does not lead hands an operator's word on.
    let (leader, other) = (group.leader(), (group.leader() + 1) % 3);
    let (status, answer) = post(group.node(other), "/admin/transfer", ADMIN, "{}");
    assert_eq!(status, 200, "{} was asked, {} led: {answer}", other + 1, leader + 1);
}

#[test]
fn only_members_are_peers_of_a_group() {
    let group = Group::start_with(&SETTINGS);
    let leader = group.leader();
    wait(async {
        let address = format!("http://{}", group.node(leader).grpc);
        let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        for token in [None, ADMIN, READER] {
            for shown in [None, Some("cluster-s3cre"), ADMIN] {
                let sign = |headers: &mut tonic::metadata::MetadataMap| {
                    if let Some(token) = token {
                        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
                    }
                    if let Some(shown) = shown {
                        headers.insert("x-chronos-cluster-token", shown.parse().unwrap());
                    }
                };
                let mut forward = Request::new(ForwardRequest {
                    sql: vec!["CREATE TABLE forged (id INT)".into()],
                    deadline_ms: 5000,
                    consistency: "linearizable".into(),
                    may_write: true,
                    ..ForwardRequest::default()
                });
                sign(forward.metadata_mut());
                let refused = ForwardServiceClient::new(channel.clone()).forward(forward).await.unwrap_err();
                assert_eq!(refused.code(), Code::Unauthenticated, "{token:?} {shown:?}: {refused}");
                let mut identify = Request::new(IdentifyRequest::default());
                sign(identify.metadata_mut());
                let refused = PeerServiceClient::new(channel.clone()).identify(identify).await.unwrap_err();
                assert_eq!(refused.code(), Code::Unauthenticated, "{token:?} {shown:?}: {refused}");
            }
        }
        // A member whose caller may only read says so by saying nothing.
        let mut reading = Request::new(ForwardRequest {
            sql: vec!["CREATE TABLE forged (id INT)".into()],
            deadline_ms: 5000,
            consistency: "linearizable".into(),
            ..ForwardRequest::default()
        });
        reading.metadata_mut().insert("x-chronos-cluster-token", "cluster-s3cret".parse().unwrap());
        let answer = ForwardServiceClient::new(channel).forward(reading).await.unwrap().into_inner();
        let refused: crate::process::wire::SqlResponse = prost::Message::decode(answer.responses[0].clone()).unwrap();
        assert_eq!(refused.sqlstate, "42501", "{refused:?}");
    });
    let (_, tables) = sql(group.node(leader), ADMIN, "SHOW TABLES");
    assert!(!tables.contains("forged"), "{tables}");
}
