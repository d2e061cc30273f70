//! The side of a link that is dialled.

use super::frames::{Arriving, outgoing};
use super::install::Installs;
use super::{Identity, Linked, Peers, Served, described};
use crate::actors::proto::wire::peer_service_server::{PeerService, PeerServiceServer};
use crate::actors::proto::wire::{ContentRequest, ContentResponse, SnapshotPiece, SnapshotProgress};
use crate::actors::proto::wire::{IdentifyRequest, IdentifyResponse, PeerFrame, PeerHello, peer_frame::Frame};
use crate::actors::published::Published;
use crate::actors::router::Router;
use crate::actors::transit::Line;
use chronos::error::{Error, Result, SqlState};
use chronos::ids::{ClusterId, DiskId};
use chronos::raft::{NodeId, WIRE_VERSION};
use futures_util::stream::{BoxStream, StreamExt};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::warn;

/// Bytes of a frame: a piece, and what is around it.
const FRAME_BYTES_MAX: usize = super::PART_BYTES + 4096;

/// The peers' door.
pub struct PeerDoor {
    pub(super) peers: Arc<Peers>,
    pub(super) published: Arc<Published>,
    installs: Arc<Installs>,
}

/// The service that other nodes call.
pub fn service(peers: Arc<Peers>, published: Arc<Published>, router: Router) -> PeerServiceServer<PeerDoor> {
    let installs = Arc::new(Installs::new(router, published.clone()));
    PeerServiceServer::new(PeerDoor { peers, published, installs }).max_decoding_message_size(FRAME_BYTES_MAX)
}

/// What this node says of itself to another one.
pub(super) fn hello(identity: &Identity, to: &NodeId, published: &Published) -> PeerFrame {
    PeerFrame { frame: Some(Frame::Hello(hello_to(identity, to, published))) }
}

/// The same, for other streams.
pub(super) fn hello_to(identity: &Identity, to: &NodeId, published: &Published) -> PeerHello {
    PeerHello {
        version: u32::from(WIRE_VERSION),
        cluster_id: identity.cluster.0.to_be_bytes().to_vec(),
        node_id: identity.id.0.clone(),
        disk_id: identity.disk.0.to_be_bytes().to_vec(),
        to: to.0.clone(),
        members: described(&published.raft().status.membership),
        address: identity.address.clone(),
        cluster_name: identity.cluster_name.clone(),
        life: identity.life.unwrap_or(0),
    }
}

/// That another node belongs to a group of another name.
pub(super) fn differently_named(other: &str, theirs: &str, own: &str) -> String {
    let named = |name: &str| if name.is_empty() { "has no name".to_owned() } else { format!("is called {name:?}") };
    format!("the group of {other} {}, and that of this node {}", named(theirs), named(own))
}

/// Who is at the other end, or why it is not to be talked to.
pub(super) fn check(frame: Option<PeerFrame>, own: &Identity, published: &Published) -> Result<Identity> {
    let hello = match frame {
        Some(PeerFrame { frame: Some(Frame::Hello(hello)) }) => Some(hello),
        Some(PeerFrame { frame: Some(Frame::Part(_)) | None }) | None => None,
    };
    check_hello(hello, own, published)
}

/// The same, for other streams.
pub(super) fn check_hello(hello: Option<PeerHello>, own: &Identity, published: &Published) -> Result<Identity> {
    let refused = |text: String| Error::invalid(SqlState::PROTOCOL_VIOLATION, text);
    let hello = hello.ok_or_else(|| refused("a link begins with a hello".to_owned()))?;
    if hello.version != u32::from(WIRE_VERSION) {
        let text = format!("{} speaks version {}, {} speaks {WIRE_VERSION}", hello.node_id, hello.version, own.id);
        return Err(refused(text).hint("run the same chronos on both"));
    }
    let number = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).map(u128::from_be_bytes);
    let (Ok(cluster), Ok(disk)) = (number(&hello.cluster_id), number(&hello.disk_id)) else {
        return Err(refused("a hello's ids have sixteen bytes".to_owned()));
    };
    if ClusterId(cluster) != own.cluster && hello.cluster_name != own.cluster_name {
        let text = differently_named(&hello.node_id, &hello.cluster_name, &own.cluster_name);
        return Err(refused(text).hint("start both with one cluster.name, the one that is wrong with --clean"));
    }
    if ClusterId(cluster) != own.cluster {
        let text = format!(
            "{} and {} were not started as one group: [{}] there, [{}] here",
            hello.node_id,
            own.id,
            hello.members,
            described(&published.raft().status.membership)
        );
        return Err(refused(text).hint("start both with the same members, the one that is wrong with --clean"));
    }
    if hello.to != own.id.0 {
        return Err(refused(format!("{} looks for {} here, and this is {}", hello.node_id, hello.to, own.id)));
    }
    let (cluster, id, disk) = (ClusterId(cluster), NodeId(hello.node_id), DiskId(disk));
    let life = (hello.life > 0).then_some(hello.life);
    Ok(Identity { cluster, id, disk, address: hello.address, cluster_name: hello.cluster_name, life })
}

#[tonic::async_trait]
impl PeerService for PeerDoor {
    async fn identify(&self, request: Request<IdentifyRequest>) -> Result<Response<IdentifyResponse>, Status> {
        let own = self.peers.identity().ok_or_else(|| Status::unavailable("the node is starting"))?;
        let asker = <[u8; 16]>::try_from(request.into_inner().disk_id.as_slice()).map(u128::from_be_bytes);
        let status = &self.published.raft().status;
        Ok(Response::new(IdentifyResponse {
            cluster_id: own.cluster.0.to_be_bytes().to_vec(),
            node_id: own.id.0,
            members: described(&status.membership),
            disk_id: own.disk.0.to_be_bytes().to_vec(),
            cluster_name: own.cluster_name,
            dismissed: asker.is_ok_and(|disk| status.dismissed.contains(&DiskId(disk))),
        }))
    }

    async fn content(&self, request: Request<ContentRequest>) -> Result<Response<ContentResponse>, Status> {
        let answer = super::compare::answer(&self.peers, &self.published, request.into_inner());
        answer.map(Response::new).map_err(|error| Status::failed_precondition(error.to_string()))
    }

    type InstallStream = BoxStream<'static, Result<SnapshotProgress, Status>>;

    async fn install(
        &self,
        request: Request<Streaming<SnapshotPiece>>,
    ) -> Result<Response<Self::InstallStream>, Status> {
        let own = self.peers.identity().ok_or_else(|| Status::unavailable("the node is starting"))?;
        let installs = self.installs.clone();
        let revoked = self.peers.accepted(request.metadata());
        // What is there, and how it ended.
        let (answers, answered) = mpsc::channel(2);
        tokio::spawn(async move {
            let last = match installs.take(&own, request.into_inner(), &answers, revoked).await {
                Ok(index) => Ok(SnapshotProgress { have: Vec::new(), installed: index.0 }),
                Err(error) => {
                    warn!(%error, "a snapshot was not taken");
                    Err(Status::failed_precondition(error.to_string()))
                }
            };
            // A sender that has gone is no leader any more, or asks again.
            let _ = answers.send(last).await;
        });
        let served = self.peers.serve();
        let sent = ReceiverStream::new(answered).map(move |answer| {
            // It lives as long as the stream.
            let _: &Served = &served;
            answer
        });
        Ok(Response::new(sent.boxed()))
    }

    type LinkStream = BoxStream<'static, Result<PeerFrame, Status>>;

    async fn link(&self, request: Request<Streaming<PeerFrame>>) -> Result<Response<Self::LinkStream>, Status> {
        let own = self.peers.identity().ok_or_else(|| Status::unavailable("the node is starting"))?;
        let refused = self.peers.accepted(request.metadata());
        // It may announce another address, or the same as one that it was copied from.
        let place = request
            .extensions()
            .get::<Line>()
            .and_then(Line::machine)
            .map_or_else(String::new, |ip| ip.to_canonical().to_string());
        let mut frames = request.into_inner();
        let from = check(frames.message().await?, &own, &self.published).map_err(|error| {
            warn!(%error, "a node was refused");
            Status::failed_precondition(error.to_string())
        })?;
        self.peers.meet(&from, &place);
        let outbox = self.peers.outbox(&from.id);
        let linked = Linked::new(&outbox);
        let (open, opened) = oneshot::channel();
        let _ = open.send(linked.link);
        let served = self.peers.serve();
        let sent = outgoing(hello(&own, &from.id, &self.published), outbox, opened).map(move |frame| {
            // It lives as long as the stream.
            let _: &Served = &served;
            Ok(frame)
        });
        let peers = self.peers.clone();
        tokio::spawn(async move {
            let _linked = linked;
            let mut arriving = Arriving::default();
            let mut refused = std::pin::pin!(refused);
            loop {
                let frame = tokio::select! {
                    error = &mut refused => {
                        warn!(%error, peer = %from.id, "a link is ended: it would not be taken any more");
                        break;
                    }
                    frame = frames.message() => frame,
                };
                let Ok(Some(frame)) = frame else { break };
                if let Err(error) = arriving.deliver(frame, &from, &peers).await {
                    warn!(%error, peer = %from.id, "a link is given up");
                    break;
                }
            }
        });
        Ok(Response::new(sent.boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_speaks_another_version_is_refused_by_name() {
        let own = |id: &str| Identity { life: Some(3), ..Identity::example(id, 1) };
        let (a, b, published) = (own("a"), own("b"), Published::default());
        let hello = hello_to(&a, &b.id, &published);
        assert_eq!(check_hello(Some(hello.clone()), &b, &published).unwrap(), a);
        for version in [u32::from(WIRE_VERSION) + 1, 0] {
            let told = check_hello(Some(PeerHello { version, ..hello.clone() }), &b, &published).unwrap_err();
            let says = format!("a speaks version {version}, b speaks {WIRE_VERSION}");
            assert!(told.message() == says && told.hint_text().unwrap().contains("same chronos"), "{told}");
        }
        assert!(check_hello(None, &b, &published).is_err());
    }
}
