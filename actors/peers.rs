//! The way to the other nodes of the group: one stream a pair, both directions on it.
//!
//! ```text
//!   raft ── send ──> outbox of a peer: urgent | entries ──> link ──> PeerFrame stream ──> the peer's raft
//!   raft <── step ── inbound channel <───────────────────── link <──
//! ```
//!
//! Of each pair one dials, and the other one's messages go back on the same stream: a voter dials those who only learn,
//! which may not know the group yet, and between equals the one whose id sorts first. A link that
//! breaks is dialled again, after a pause that grows to two seconds and is drawn, so that nodes that lost each other
//! together do not come back together.
//!
//! * A heartbeat never waits behind entries: long messages travel in pieces of [`PART_BYTES`], and what is urgent goes
//!   between them.
//! * Without a link messages are dropped at once, and raft is told: what is old helps nobody.
//! * Both ends check that they are of one group, and who they are, before anything else. They also say where they are
//!   reached: whoever leads writes that down for the others, so a member may move.
//! * Where the one that should dial does not, for it does not know yet that it should, or that the other one has moved,
//!   the other one does, after a while. Of two links of a pair the newest is the one that counts.
//! * What waits is bounded: by raft's window for entries, by number for the rest.

pub mod compare;
pub mod dial;
mod frames;
mod install;
mod met;
pub mod service;
pub mod transfer;
mod witness;

use crate::actors::auth::{PeerGuard, Standing};
use crate::actors::tls::Material;
use chronos::clock::random_u64;
use chronos::error::{Error, Result};
use chronos::ids::{ClusterId, DiskId};
use chronos::raft::{Envelope, Membership, Message, NodeId};
use met::Met;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tonic::Request;
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;
use tracing::warn;

/// Bytes of a message that travel in one piece: a link of 1 MB/s is through with it in 64 ms, less than a heartbeat.
pub const PART_BYTES: usize = 64 << 10;

/// Messages without entries that wait for a link. They come at the pace of heartbeats and answers.
const URGENT_MAX: usize = 4096;

/// Bytes of entries that wait for a link: twice what raft lets be on its way, for one message is always let through.
const ENTRIES_BYTES_MAX: usize = 16 << 20;

/// Messages that wait for raft. A full channel stops reading from the link.
const INBOUND_MAX: usize = 1024;

/// What both ends of a link say of themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The group.
    pub cluster: ClusterId,
    /// The node.
    pub id: NodeId,
    /// Its disk.
    pub disk: DiskId,
    /// Where it says that it is reached; empty where it does not know.
    pub address: String,
    /// What it calls the group; empty where that has no name.
    pub cluster_name: String,
    /// The number of its process, as drawn when that started (met.rs); none where an older program does not say.
    pub life: Option<u64>,
}

#[cfg(test)]
impl Identity {
    /// A node of some group, on this disk.
    pub fn example(id: &str, disk: u128) -> Identity {
        Identity {
            cluster: ClusterId(7),
            id: NodeId(id.to_owned()),
            disk: DiskId(disk),
            address: String::new(),
            cluster_name: String::new(),
            life: None,
        }
    }
}

/// The other nodes, as this one reaches them.
#[derive(Default)]
pub struct Peers {
    outboxes: Mutex<BTreeMap<NodeId, Arc<Outbox>>>,
    /// Where messages go: to the present raft actor.
    inbound: Mutex<Option<mpsc::Sender<Envelope>>>,
    /// Known once storage has been opened.
    identity: Mutex<Option<Identity>>,
    /// How this node shows that it is one.
    guard: OnceLock<PeerGuard>,
    /// What the others have said of themselves on their newest link.
    met: Mutex<Met>,
    /// The number of this process, once it is drawn.
    life: OnceLock<u64>,
    /// Streams that others have opened here, which last as long as both nodes do.
    served: Arc<AtomicU64>,
}

/// A stream that another node has opened, for as long as this lives.
pub struct Served(Arc<AtomicU64>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What waits for one peer.
#[derive(Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    /// The link that may take from here; 0 where there is none.
    link: u64,
    links: u64,
    urgent: VecDeque<Envelope>,
    entries: VecDeque<Envelope>,
    entries_bytes: usize,
}

impl Peers {
    /// How this node shows that it belongs to the group; said once, before any door opens.
    pub fn set_guard(&self, guard: PeerGuard) {
        let _ = self.guard.set(guard);
    }

    /// Where and how to connect to another node.
    pub fn endpoint(&self, address: &str) -> Result<Endpoint> {
        self.guard.get().ok_or_else(|| Error::unavailable("the node is starting"))?.endpoint(address)
    }

    /// By what the certificates of the nodes are looked at that this node dials now.
    pub fn material(&self) -> Option<Arc<Material>> {
        self.guard.get().and_then(PeerGuard::material)
    }

    /// True where whoever was taken by that would be taken now.
    pub fn trusts(&self, known_by: Option<&Material>) -> bool {
        self.guard.get().is_none_or(|guard| guard.trusts(known_by))
    }

    /// Shows that a call comes from a node of the group.
    pub fn sign<T>(&self, request: &mut Request<T>) -> Result<()> {
        self.guard.get().map_or(Ok(()), |guard| guard.sign(request))
    }

    /// Waits until a link that was opened with this metadata would not be taken any more, and says why not.
    fn accepted(&self, shown: &MetadataMap) -> impl Future<Output = Error> + use<> {
        Peers::lost(self.guard.get().map(|guard| guard.accepted(shown)))
    }

    /// The same for what this node shows, and for whom it takes.
    fn dialled(&self, shows: &MetadataMap) -> impl Future<Output = Error> + use<> {
        Peers::lost(self.guard.get().map(|guard| guard.dialled(shows)))
    }

    async fn lost(standing: Option<Standing>) -> Error {
        match standing {
            Some(mut standing) => standing.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Refuses to expect another node where none would be taken for a peer.
    pub fn check_expected(&self) -> Result<()> {
        self.guard.get().map_or(Ok(()), PeerGuard::check_expected)
    }

    /// Who this node is.
    pub fn set_identity(&self, identity: Identity) {
        *lock(&self.identity) = Some(identity);
    }

    /// Who this node is; none before storage has been opened.
    pub fn identity(&self) -> Option<Identity> {
        lock(&self.identity).clone()
    }

    /// Gives the present raft actor its messages from here on; the one before it gets none any more.
    pub fn open_inbound(&self) -> mpsc::Receiver<Envelope> {
        let (sender, receiver) = mpsc::channel(INBOUND_MAX);
        *lock(&self.inbound) = Some(sender);
        receiver
    }

    /// Hands a message to raft; waits while it has too many.
    async fn deliver(&self, envelope: Envelope) {
        let inbound = lock(&self.inbound).clone();
        if let Some(inbound) = inbound {
            // A raft actor that is gone has a successor soon, and its peers say everything again.
            let _ = inbound.send(envelope).await;
        }
    }

    /// Sends a message where there is a link, and room; false where it was dropped.
    pub fn send(&self, envelope: Envelope) -> bool {
        let outbox = self.outbox(&envelope.to);
        let mut queue = lock(&outbox.queue);
        if queue.link == 0 {
            return false;
        }
        let bytes = envelope.entry_bytes();
        if bytes == 0 && !matches!(envelope.message, Message::Append { .. }) {
            if queue.urgent.len() >= URGENT_MAX {
                return false;
            }
            queue.urgent.push_back(envelope);
        } else {
            if queue.entries_bytes > 0 && queue.entries_bytes + bytes > ENTRIES_BYTES_MAX {
                return false;
            }
            queue.entries_bytes += bytes;
            queue.entries.push_back(envelope);
        }
        drop(queue);
        outbox.filled.notify_one();
        true
    }

    /// The number of this process, the same for as long as it lives.
    pub fn life(&self) -> Result<u64> {
        // 0 stands for none.
        let drawn = random_u64()?.max(1);
        Ok(*self.life.get_or_init(|| drawn))
    }

    /// Takes note of what a peer says of itself, on a link from or to this place.
    fn meet(&self, peer: &Identity, place: &str) {
        let copied = lock(&self.met).note(peer, place, Instant::now());
        if let Some(copied) = copied {
            warn!(peer = %peer.id, "{copied}");
        }
    }

    /// That a node is there twice, where that is so: its disk was copied.
    pub fn copied(&self, id: &NodeId) -> Option<String> {
        lock(&self.met).copied(id, Instant::now()).map(str::to_owned)
    }

    /// The same of whichever node.
    pub fn alarm(&self) -> Option<String> {
        lock(&self.met).first_copied(Instant::now()).map(str::to_owned)
    }

    /// Calls `tell` with what the others have said of themselves: on which disk they are, and where they are reached.
    pub fn for_each_met(&self, tell: impl FnMut(&NodeId, DiskId, &str)) {
        lock(&self.met).for_each(tell);
    }

    /// True where entries wait for a link.
    fn is_behind(&self) -> bool {
        lock(&self.outboxes).values().any(|outbox| !lock(&outbox.queue).entries.is_empty())
    }

    /// True where a link to the peer is up.
    pub fn is_linked(&self, id: &NodeId) -> bool {
        lock(&self.outboxes).get(id).is_some_and(|outbox| lock(&outbox.queue).link != 0)
    }

    fn outbox(&self, id: &NodeId) -> Arc<Outbox> {
        lock(&self.outboxes).entry(id.clone()).or_default().clone()
    }

    /// Counts a stream that another node has opened.
    fn serve(&self) -> Served {
        self.served.fetch_add(1, Ordering::Relaxed);
        Served(self.served.clone())
    }

    /// Streams that others have opened here: each has a connection of its own.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Ends all links, and makes and takes no new ones: the node stops.
    pub fn close(&self) {
        *lock(&self.identity) = None;
        lock(&self.outboxes).values().for_each(|outbox| outbox.end());
    }

    /// Forgets what is kept for nodes that are no members.
    fn retain(&self, membership: &Membership) {
        lock(&self.outboxes).retain(|id, outbox| membership.get(id).is_some() || lock(&outbox.queue).link != 0);
        lock(&self.met).retain(|id| membership.get(id).is_some() || self.is_linked(id));
    }
}

impl Outbox {
    /// A link is up: what waits is its, and what waited for another is dropped.
    fn connect(&self) -> u64 {
        let mut queue = lock(&self.queue);
        queue.links += 1;
        *queue = Queue { link: queue.links, links: queue.links, ..Queue::default() };
        self.filled.notify_waiters();
        queue.link
    }

    fn end(&self) {
        let mut queue = lock(&self.queue);
        *queue = Queue { links: queue.links, ..Queue::default() };
        self.filled.notify_waiters();
    }

    /// A link is down; no news where another one has taken its place.
    fn disconnect(&self, link: u64) {
        let mut queue = lock(&self.queue);
        if queue.link == link {
            *queue = Queue { links: queue.links, ..Queue::default() };
            self.filled.notify_waiters();
        }
    }
}

/// A link that is up, for as long as this lives.
struct Linked {
    outbox: Arc<Outbox>,
    link: u64,
}

impl Linked {
    fn new(outbox: &Arc<Outbox>) -> Linked {
        Linked { outbox: outbox.clone(), link: outbox.connect() }
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.outbox.disconnect(self.link);
    }
}

/// The members as people write them.
pub fn described(membership: &Membership) -> String {
    let member = |(id, member): (&NodeId, &chronos::raft::Member)| format!("{id}={}", member.address);
    membership.members.iter().map(member).collect::<Vec<String>>().join(",")
}

/// No code panics while it holds such a lock, so a poisoned one still guards whole values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
