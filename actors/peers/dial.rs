//! The side of a link that dials, and keeps dialling.

use super::frames::{Arriving, outgoing};
use super::service::{check, differently_named, hello};
use super::{Identity, Linked, Peers};
use crate::actors::auth::PeerGuard;
use crate::actors::proto::wire::IdentifyRequest;
use crate::actors::proto::wire::peer_service_client::PeerServiceClient;
use crate::actors::published::Published;
use chronos::clock::random_u64;
use chronos::error::{Error, Result, SqlState};
use chronos::ids::{ClusterId, DiskId, Term};
use chronos::raft::{Envelope, Membership, Message, NodeId, Status};
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, info, warn};

/// The pause before the first redial, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long connecting may take, with the look-up of a name and the handshake of TLS: a process that stands still takes
/// connections, and says nothing in them.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// How long a node may take to say who it is.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// A link that is silent for so long is asked whether it lives; heartbeats keep a healthy one from it.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// How long a link to a removed member is kept: it may lead until its removal is committed.
const REMOVED_WAIT: Duration = Duration::from_secs(10);

/// How often the links are looked at without news.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long this node waits to be dialled where the other one should dial, beside as much again by chance: longer than the
/// other one pauses, so that the two dial at once only where something is wrong.
const DIALLED_WAIT: Duration = Duration::from_secs(3);

/// How often it is looked whether a link is there.
const LOOK: Duration = Duration::from_millis(250);

/// What a peer may send that is not read yet: an answer to a statement that was handed on.
const WINDOW_BYTES: u32 = 4 << 20;

/// The same on a link, which is as much as the other direction has (grpc.rs). What is sent and not read lies before every
/// heartbeat: on a line of 1 MB/s that is 130 ms, and some seconds with the window of an answer, by which time somebody
/// else stands. It is enough for 100 MB/s within a site and 10 MB/s at 10 ms.
const LINK_WINDOW_BYTES: u32 = 128 << 10;

/// Keeps a link to every other member, for as long as it is polled.
pub async fn keep_links(peers: Arc<Peers>, published: Arc<Published>) {
    let mut reports = published.watch_raft();
    let mut links = Links::default();
    loop {
        let membership = reports.borrow_and_update().status.membership.clone();
        if let Some(own) = peers.identity() {
            links.follow(&membership, &own, &peers, &published);
            peers.retain(&membership);
        }
        // Links to those who were removed end in their time.
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_AGAIN, reports.changed()).await {
            return;
        }
    }
}

/// The links that are kept, with the address that each goes to. Ended when dropped.
#[derive(Default)]
struct Links {
    kept: BTreeMap<NodeId, Kept>,
}

struct Kept {
    address: String,
    task: AbortHandle,
    /// Since when its node is no member.
    removed: Option<Instant>,
}

impl Links {
    fn follow(&mut self, membership: &Membership, own: &Identity, peers: &Arc<Peers>, published: &Arc<Published>) {
        self.kept.retain(|id, kept| {
            let stays = match membership.get(id) {
                Some(member) => {
                    kept.removed = None;
                    // Where it has moved, the old link leads nowhere.
                    member.address == kept.address
                }
                // Its removal counts from the append on, and is committed with what is still said to it.
                None => kept.removed.get_or_insert_with(Instant::now).elapsed() < REMOVED_WAIT,
            };
            if !stays {
                kept.task.abort();
            }
            stays
        });
        for (id, member) in membership.members.iter().filter(|(id, _)| **id != own.id) {
            if !self.kept.contains_key(id) && !member.address.is_empty() {
                let task = keep(id.clone(), member.address.clone(), own.clone(), peers.clone(), published.clone());
                let task = tokio::spawn(task).abort_handle();
                self.kept.insert(id.clone(), Kept { address: member.address.clone(), task, removed: None });
            }
        }
    }
}

/// True where `own` is the one of the two that dials first.
fn dials(membership: &Membership, own: &NodeId, other: &NodeId) -> bool {
    match (membership.is_voter(own), membership.is_voter(other)) {
        (true, false) => true,
        (false, true) => false,
        (true, true) | (false, false) => own < other,
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.kept.values().for_each(|kept| kept.task.abort());
    }
}

async fn keep(id: NodeId, address: String, own: Identity, peers: Arc<Peers>, published: Arc<Published>) {
    let mut attempts = Attempts { pauses: Pauses { next: PAUSE_MIN }, said: None };
    let mut has_asked = false;
    // Nobody is dialled by a node that stops.
    while peers.identity().is_some() {
        if is_to_ask(has_asked, &published.raft().status) {
            inquire(&id, &address, &own, &peers).await;
            has_asked = true;
        }
        turn(&id, &own, &peers, &published).await;
        let ended = link((&id, &address), &own, &peers, &published, attempts.said.as_deref()).await;
        tokio::time::sleep(attempts.ended((&id, &address), ended, random_u64().unwrap_or(0))).await;
    }
}

/// What has become of the attempts at a link so far.
struct Attempts {
    pauses: Pauses,
    /// What was said of the newest one.
    said: Option<String>,
}

impl Attempts {
    /// Says how the newest one has ended; how long to pause before the next, as it is drawn.
    fn ended(&mut self, (id, address): (&NodeId, &str), ended: Result<Duration>, drawn: u64) -> Duration {
        let lasted = ended.as_ref().map_or(Duration::ZERO, |lasted| *lasted);
        match ended {
            Ok(lasted) if lasted > PAUSE_MAX => {
                info!(peer = %id, "the link has ended");
                self.said = None;
            }
            // The same trouble for hours is one line.
            Ok(_) if self.said.as_deref() == Some(ENDS_AT_ONCE) => {}
            Ok(_) => {
                info!(peer = %id, "the link has ended");
                self.said = Some(ENDS_AT_ONCE.to_owned());
            }
            Err(error) => {
                let text = error.to_string();
                if self.said.as_ref() != Some(&text) {
                    warn!(peer = %id, %address, %error, "no link, trying again");
                    self.said = Some(text);
                }
            }
        }
        self.pauses.after(lasted, drawn)
    }
}

/// What was said last of a link that ends soon after it has begun.
const ENDS_AT_ONCE: &str = "it ends at once";

/// How long is waited between two attempts at a link.
struct Pauses {
    next: Duration,
}

impl Pauses {
    /// The pause after an attempt, as it is drawn. Only a link that has lasted shows that the next one may: one with a node that
    /// belongs to the group no more begins well, and ends as soon as both have said who they are.
    fn after(&mut self, lasted: Duration, drawn: u64) -> Duration {
        let pause = if lasted > PAUSE_MAX { PAUSE_MIN } else { self.next };
        self.next = (pause * 2).min(PAUSE_MAX);
        pause / 2 + Duration::from_micros(drawn % pause.as_micros() as u64) / 2
    }
}

/// True where this node has not asked since it started, or hears nobody who would tell it that it is out. More often a
/// node that is down would cost a wait and a connection more before every attempt at a link.
fn is_to_ask(has_asked: bool, status: &Status) -> bool {
    !has_asked || status.leader.is_none()
}

/// Asks the other node whether this one still belongs to the group. Two that were left out when an operator recovered it
/// would elect one of them, each being the other's majority: so they ask before they have waited long enough to stand,
/// whoever dials whom. Nobody there, or nothing new, is no answer.
async fn inquire(id: &NodeId, address: &str, own: &Identity, peers: &Peers) {
    let asked = async {
        let channel = connect(peers.endpoint(address).ok()?).await.ok()?;
        let mut request = Request::new(IdentifyRequest { disk_id: own.disk.0.to_be_bytes().to_vec() });
        peers.sign(&mut request).ok()?;
        Some(PeerServiceClient::new(channel).identify(request).await.ok()?.into_inner())
    };
    let Ok(Some(answer)) = tokio::time::timeout(CONNECT_WAIT, asked).await else { return };
    let disk = <[u8; 16]>::try_from(answer.disk_id.as_slice()).map(u128::from_be_bytes);
    let is_same_group = answer.cluster_id == own.cluster.0.to_be_bytes() && answer.node_id == id.0;
    if let Ok(disk) = disk
        && answer.dismissed
        && is_same_group
    {
        let (from, to, disk) = (id.clone(), own.id.clone(), DiskId(disk));
        peers.deliver(Envelope { from, disk, to, term: Term(0), message: Message::Dismissed { disk: own.disk } }).await;
    }
}

/// Waits until this node is to dial: at once where it is the one of the two that does, even beside a link that the other
/// one has dialled, which may have died unseen; otherwise once there has been none for a while.
async fn turn(id: &NodeId, own: &Identity, peers: &Peers, published: &Published) {
    let drawn = Duration::from_micros(random_u64().unwrap_or(0) % DIALLED_WAIT.as_micros() as u64);
    let mut unlinked: Option<Instant> = None;
    while !dials(&published.raft().status.membership, &own.id, id) {
        if peers.is_linked(id) {
            unlinked = None;
        } else if unlinked.get_or_insert_with(Instant::now).elapsed() >= DIALLED_WAIT + drawn {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A channel to another node, that lasts.
pub fn patient(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_WAIT)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
}

/// Connects, in [`CONNECT_WAIT`] at most; says why not.
pub async fn connect(endpoint: Endpoint) -> Result<Channel, String> {
    made(patient(endpoint)).await
}

async fn made(endpoint: Endpoint) -> Result<Channel, String> {
    match tokio::time::timeout(CONNECT_WAIT, endpoint.connect()).await {
        Ok(connected) => connected.map_err(|error| root(&error)),
        Err(_) => Err(format!("no connection within {CONNECT_WAIT:?}")),
    }
}

/// One link, from dialling to its end: how long it was there. `said` is what was said last of the one before.
async fn link(
    (id, address): (&NodeId, &str),
    own: &Identity,
    peers: &Arc<Peers>,
    published: &Arc<Published>,
    said: Option<&str>,
) -> Result<Duration> {
    // One frame: what is urgent is not to wait behind more of them.
    let (feed, sent) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(sent));
    peers.sign(&mut request)?;
    let lost = peers.dialled(request.metadata());
    let endpoint = patient(peers.endpoint(address)?)
        .initial_stream_window_size(LINK_WINDOW_BYTES)
        .initial_connection_window_size(LINK_WINDOW_BYTES);
    let channel = made(endpoint).await.map_err(|why| unreachable(id, address, &why))?;
    let outbox = peers.outbox(id);
    // Nothing is queued for the link before both have said who they are.
    let (open, opened) = tokio::sync::oneshot::channel::<u64>();
    let mut frames = outgoing(hello(own, id, published), outbox.clone(), opened);
    tokio::spawn(async move {
        while let Some(frame) = frames.next().await {
            if feed.send(frame).await.is_err() {
                return;
            }
        }
    });
    let answered = PeerServiceClient::new(channel).link(request).await;
    let mut frames = answered.map_err(|status| unreachable(id, address, status.message()))?.into_inner();
    let met = frames.message().await.map_err(|status| unreachable(id, address, status.message()))?;
    let from = check(met, own, published)?;
    if from.id != *id {
        return Err(unreachable(id, address, &format!("{} answers there", from.id)));
    }
    if peers.identity().is_none() {
        return Ok(Duration::ZERO);
    }
    peers.meet(&from, address);
    let linked = Linked::new(&outbox);
    let began = Instant::now();
    if said == Some(ENDS_AT_ONCE) {
        debug!(peer = %id, %address, "linked again");
    } else {
        info!(peer = %id, %address, "linked");
    }
    let _ = open.send(linked.link);
    let mut arriving = Arriving::default();
    let mut lost = std::pin::pin!(lost);
    loop {
        let frame = tokio::select! {
            error = &mut lost => {
                info!(peer = %id, %error, "the settings have changed: the link is dialled again");
                return Ok(began.elapsed());
            }
            frame = frames.message() => frame,
        };
        match frame {
            Ok(Some(frame)) => {
                arriving.deliver(frame, &from, peers).await?;
            }
            Ok(None) | Err(_) => return Ok(began.elapsed()),
        }
    }
}

/// Asks nodes, one after the other, to which group they belong.
///
/// # Errors
///
/// Of one that goes by another name than `name`, where one was given, and where nobody answers.
pub async fn identify(addresses: &[String], name: Option<&str>, guard: &PeerGuard) -> Result<ClusterId> {
    let mut last = Error::unavailable("--peers names nobody to join");
    for address in addresses {
        let asked = async {
            let refused = |why: &str| Error::unavailable(format!("{address}: {why}"));
            let channel = connect(guard.endpoint(address)?).await.map_err(|why| refused(&why))?;
            let mut request = Request::new(IdentifyRequest::default());
            guard.sign(&mut request)?;
            let mut peer = PeerServiceClient::new(channel);
            let answer = tokio::time::timeout(ANSWER_WAIT, peer.identify(request)).await;
            let answer = answer.map_err(|_| refused(&format!("no answer within {ANSWER_WAIT:?}")))?;
            let answer = answer.map_err(|status| refused(status.message()))?;
            let answer = answer.into_inner();
            if let Some(name) = name.filter(|name| *name != answer.cluster_name) {
                return Err(Error::invalid(
                    SqlState::CONFIG_ERROR,
                    differently_named(address, &answer.cluster_name, name),
                ));
            }
            let id = <[u8; 16]>::try_from(answer.cluster_id.as_slice());
            id.map(|id| ClusterId(u128::from_be_bytes(id)))
                .map_err(|_| Error::internal(format!("{address} answers with no cluster id")))
        };
        match asked.await {
            Ok(cluster) => return Ok(cluster),
            Err(error) if error.sqlstate() == SqlState::CONFIG_ERROR => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last.hint("is one of the nodes in --peers running?"))
}

fn unreachable(id: &NodeId, address: &str, why: &str) -> Error {
    Error::unavailable(format!("{id} at {address}: {why}"))
}

/// The deepest cause says most.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
