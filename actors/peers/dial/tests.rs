//! The dialling side alone: whom it asks, how long it pauses, and when it lets go of a link.

use super::*;
use crate::actors::auth::Guard;
use crate::actors::auth::tests::with;
use crate::actors::peers::service::hello_to;
use crate::actors::proto::wire::peer_service_server::{PeerService, PeerServiceServer};
use crate::actors::proto::wire::{ContentRequest, ContentResponse, SnapshotPiece, SnapshotProgress};
use crate::actors::proto::wire::{IdentifyResponse, PeerFrame, peer_frame::Frame};
use futures_util::stream::BoxStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Response, Status as Refusal, Streaming};

fn identity(id: &str) -> Identity {
    Identity::example(id, 1)
}

#[test]
fn who_hears_a_leader_asks_nobody_a_second_time_whether_it_is_out() {
    let led = Status { leader: Some(NodeId("a".into())), ..Status::default() };
    assert!(is_to_ask(false, &led) && is_to_ask(false, &Status::default()));
    assert!(is_to_ask(true, &Status::default()), "another may have come back that knows");
    assert!(!is_to_ask(true, &led));
}

#[test]
fn pauses_grow_until_a_link_has_lasted() {
    let mut pauses = Pauses { next: PAUSE_MIN };
    let mut longest = PAUSE_MIN;
    for attempt in 0..10 {
        // One that has ended at once is like one that never was.
        let lasted = if attempt % 2 == 0 { Duration::ZERO } else { Duration::from_millis(40) };
        let (mut again, mut least) = (Pauses { ..pauses }, Pauses { ..pauses });
        let pause = pauses.after(lasted, 0x1234_5678);
        assert_eq!(least.after(lasted, 0), longest / 2, "attempt {attempt}");
        assert!(pause >= longest / 2 && pause < longest, "attempt {attempt}: {pause:?}");
        assert_ne!(again.after(lasted, 0x0234_5679), pause, "it is drawn");
        longest = (longest * 2).min(PAUSE_MAX);
    }
    assert_eq!(longest, PAUSE_MAX);
    assert!(pauses.after(PAUSE_MAX, u64::MAX) >= PAUSE_MAX / 2, "not yet");
    assert!(pauses.after(Duration::from_secs(60), u64::MAX) < PAUSE_MIN);
    assert!(pauses.after(Duration::ZERO, u64::MAX) < PAUSE_MIN * 2, "and grows again");
}

#[test]
fn how_long_a_link_lasted_decides_how_long_is_waited_for_the_next() {
    let (id, drawn) = (NodeId("b".into()), 0x1234_5678);
    let mut attempts = Attempts { pauses: Pauses { next: PAUSE_MIN }, said: None };
    let mut ended = |ended| (attempts.ended((&id, "b:1"), ended, drawn), attempts.said.clone());
    let nobody = || Err(Error::unavailable("b at b:1: nobody there"));
    for _ in 0..5 {
        ended(nobody());
        let (_, said) = ended(Ok(Duration::from_millis(40)));
        assert_eq!(said.as_deref(), Some(ENDS_AT_ONCE));
    }
    let (pause, said) = ended(nobody());
    assert!(pause >= PAUSE_MAX / 2 && said.unwrap().contains("nobody there"), "{pause:?}");
    let (pause, said) = ended(Ok(Duration::from_secs(60)));
    assert!(pause < PAUSE_MIN && said.is_none(), "one that has lasted is dialled again at once: {pause:?}");
}

/// A node that takes a link, and keeps it whatever the other end shows.
struct Keeps(Identity);

#[tonic::async_trait]
impl PeerService for Keeps {
    async fn identify(&self, _: Request<IdentifyRequest>) -> Result<Response<IdentifyResponse>, Refusal> {
        Err(Refusal::unimplemented("not asked here"))
    }

    async fn content(&self, _: Request<ContentRequest>) -> Result<Response<ContentResponse>, Refusal> {
        Err(Refusal::unimplemented("not asked here"))
    }

    type InstallStream = BoxStream<'static, Result<SnapshotProgress, Refusal>>;

    async fn install(&self, _: Request<Streaming<SnapshotPiece>>) -> Result<Response<Self::InstallStream>, Refusal> {
        Err(Refusal::unimplemented("not asked here"))
    }

    type LinkStream = BoxStream<'static, Result<PeerFrame, Refusal>>;

    async fn link(&self, _: Request<Streaming<PeerFrame>>) -> Result<Response<Self::LinkStream>, Refusal> {
        let hello = Frame::Hello(hello_to(&self.0, &NodeId("a".into()), &Published::default()));
        let hello = PeerFrame { frame: Some(hello) };
        Ok(Response::new(tokio_stream::once(Ok(hello)).chain(futures_util::stream::pending()).boxed()))
    }
}

#[test]
fn who_has_dialled_lets_go_of_a_link_once_its_token_counts_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let settings = with(&[("cluster_token_file", file.to_str().unwrap())]);
    std::fs::write(&file, "old\n").unwrap();
    let guard = Guard::open(&settings).unwrap();
    let (peers, published) = (Arc::new(Peers::default()), Arc::new(Published::default()));
    let (own, other) = (identity("a"), identity("b"));
    peers.set_guard(PeerGuard::new(guard.clone()));
    peers.set_identity(own.clone());
    let work = async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = PeerServiceServer::new(Keeps(other.clone()));
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        let mut linked = std::pin::pin!(link((&other.id, &address), &own, &peers, &published, None));
        let (patience, moment) = (Duration::from_secs(10), Duration::from_millis(10));
        let mut ended_in = async |limit| tokio::time::timeout(limit, linked.as_mut()).await;
        while !peers.is_linked(&other.id) {
            assert!(ended_in(moment).await.is_err(), "it is there until something ends it");
        }
        let since = Instant::now();
        std::fs::write(&file, "old\nnew\n").unwrap();
        guard.reload(&settings).unwrap();
        assert!(ended_in(moment * 5).await.is_err(), "what it has shown still counts");
        std::fs::write(&file, "new\n").unwrap();
        let lasted = since.elapsed();
        guard.reload(&settings).unwrap();
        let ended = ended_in(patience).await.expect("the link is kept").unwrap();
        assert!(ended >= lasted && !peers.is_linked(&other.id), "{ended:?}");
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

#[test]
fn a_node_that_stops_dials_nobody() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (peers, published) = (Arc::new(Peers::default()), Arc::new(Published::default()));
    let own = identity("a");
    peers.set_identity(own.clone());
    peers.close();
    let dialling = keep(NodeId("b".into()), address, own, peers, published);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), dialling).await }).unwrap();
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody was dialled");
}
