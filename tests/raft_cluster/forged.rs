//! A snapshot by one that is not the member whose name it has.

use crate::group::{Group, name};
use crate::process::wait;
use crate::process::wire::peer_service_client::PeerServiceClient;
use crate::process::wire::snapshot_piece::Piece;
use crate::process::wire::{IdentifyRequest, IdentifyResponse, PeerHello, SnapshotData, SnapshotOffer, SnapshotPiece};
use chronos::ids::{LogIndex, Term};
use chronos::raft::{Member, Membership, NodeId, Position, WIRE_VERSION};
use chronos::storage::current::SealedName;
use chronos::storage::entry;
use chronos::storage::snapshot::{FileEntry, Manifest};
use tonic::transport::Channel;

async fn connect(group: &Group, at: usize) -> PeerServiceClient<Channel> {
    PeerServiceClient::connect(format!("http://{}", group.node(at).grpc)).await.unwrap()
}

/// A snapshot far ahead of everything, by whoever knows the group.
fn manifest() -> Vec<u8> {
    let members = (0..3).map(|at| (NodeId(name(at)), Member::default()));
    let run = vec![SealedName { number: 1, from: entry::start(), to: None }];
    let manifest = Manifest {
        position: Position { index: LogIndex(1_000_000), term: Term(500) },
        membership: Membership::of(members).encode(),
        runs: vec![run],
        files: vec![FileEntry { number: 1, bytes: 100, identity: 5 }],
    };
    manifest.encode()
}

/// What the receiver says to a snapshot that `leader` seems to bring, on that disk: the error, or what it has of it.
async fn offer(
    group: &Group,
    (leader, to): (usize, usize),
    known: &IdentifyResponse,
    disk: &[u8],
) -> Result<u64, String> {
    let manifest = manifest();
    let hello = PeerHello {
        version: u32::from(WIRE_VERSION),
        cluster_id: known.cluster_id.clone(),
        node_id: name(leader),
        disk_id: disk.to_vec(),
        to: name(to),
        ..PeerHello::default()
    };
    let offer = SnapshotOffer { hello: Some(hello), term: 1000, manifest_bytes: manifest.len() as u64 };
    let data = SnapshotData { file: 0, offset: 0, crc: crc32c::crc32c(&manifest), data: manifest };
    let pieces = [Piece::Offer(offer), Piece::Data(data)].map(|piece| SnapshotPiece { piece: Some(piece) });
    let mut answers = connect(group, to).await.install(tokio_stream::iter(pieces)).await.unwrap().into_inner();
    match answers.message().await {
        Ok(progress) => Ok(progress.unwrap().have.iter().map(|have| have.bytes).sum()),
        Err(status) => Err(status.message().to_owned()),
    }
}

#[test]
fn a_snapshot_by_another_disk_than_the_members_is_refused_by_name() {
    let group = Group::start();
    group.sql(0, "CREATE TABLE t (id INT PRIMARY KEY)");
    group.sql(0, "INSERT INTO t VALUES (1)");
    let (leader, to) = (group.leader(), (group.leader() + 1) % 3);
    wait(async {
        let known = connect(&group, leader).await.identify(IdentifyRequest::default()).await.unwrap().into_inner();
        let refused = offer(&group, (leader, to), &known, &[9; 16]).await.unwrap_err();
        let says = format!("a snapshot by {}, whose disk is not the one that it has in the group", name(leader));
        assert!(refused.contains(&says), "{refused}");
        // On its own disk it is taken, as far as it comes.
        assert_eq!(offer(&group, (leader, to), &known, &known.disk_id).await, Ok(0));
    });
    (0..3).for_each(|at| assert_eq!(group.number(at, "SELECT COUNT(*) FROM t"), 1));
    group.agree();
}
