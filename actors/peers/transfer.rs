//! Bringing a snapshot to a member that needs what the log no longer has: the leader's side.
//!
//! ```text
//!   raft ── begin ──> thread: snapshot of the engine ─> dial ─> offer, manifest ─────> receiver
//!    ^                                                  <───── what it has already ──┘
//!    │                                                  ─> pieces of the rest ───────> checks, installs, starts
//!    └── Ended ──────────────────────────────────────── <───── up to where it has all ┘
//! ```
//!
//! The leader pushes, for it knows who needs what and when that ends; the receiver says where to begin, so a stream that
//! breaks goes on where it broke, with whoever leads then.
//!
//! * Each transfer has a thread with a runtime and a connection of its own: 100 MB/s beside the doors would be felt there.
//!   It yields: it gives way to everything else on the processor, and waits while entries wait for their link.
//! * The snapshot is what is sealed, where that is new enough: it must know the receiver as the member that it is. Only else
//!   is sealed for it, so one seal serves all who need it.
//! * It must know this node by its disk, too, or the receiver refuses what another one sends under its name.
//! * A witness is sent no rows (`witness`), so it must be known by its disk: its name may have been that of a member with
//!   rows, or be so again.
//! * While a transfer lives its files stay, and the log from its position on. Before it has one it keeps nothing that any
//!   peer that lags would not: it may come to none for as long as a member is away.
//! * A failure ends after a pause, so that what fails at once is not tried a thousand times a second. One that nobody wants
//!   any more ends at once, whatever it waits for; until its thread has, it counts as one.

mod out;

use super::dial::patient;
use super::witness::{self, Place};
use super::{Identity, Peers};
use crate::actors::proto::wire::SnapshotProgress;
use crate::actors::proto::wire::peer_service_client::PeerServiceClient;
use crate::actors::published::Published;
use crate::actors::route::Deadline;
use crate::actors::storage::Parts;
use chronos::error::{Error, Result};
use chronos::ids::{LogIndex, Term};
use chronos::raft::{Delivery, Flow, Member, MemberRole, Membership, NodeId, Peer};
use chronos::storage::engine::{Freshness, Keep};
use chronos::storage::snapshot::Snapshot;
use out::Out;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};
use tracing::{info, warn};

/// Transfers at once. Each takes a thread and some megabytes; who comes later is asked again by raft.
const TRANSFERS_MAX: usize = 2;

/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the receiver may say nothing while it is asked something: it may have to read what it has of a snapshot.
const ANSWER_WAIT: Duration = Duration::from_mins(2);

/// How long this node may take to apply what made the receiver a member.
const REACH_WAIT: Duration = Duration::from_secs(10);

/// Pieces between disk and connection.
const PIECES_AHEAD: usize = 4;

/// How much a transfer gives way to other threads of this machine, as `nice` counts.
pub(super) const NICE: i32 = 10;

/// The transfers of one raft actor.
pub struct Transfers {
    running: BTreeMap<NodeId, Running>,
    /// Members that have just installed a snapshot.
    landed: BTreeMap<NodeId, Landed>,
    /// What went wrong last: the same trouble for hours is one line.
    said: BTreeMap<NodeId, String>,
    ended: mpsc::UnboundedSender<Ended>,
    /// A place for each that may run, which its thread has until it ends.
    places: Arc<Semaphore>,
    /// Transfers begun so far.
    begun: u64,
    /// How a thread is begun.
    spawn: fn(Box<dyn FnOnce() + Send>) -> std::io::Result<()>,
}

/// One that is under way.
struct Running {
    number: u64,
    /// Gone with this: it is wanted no more.
    _wanted: oneshot::Sender<()>,
    /// Its position; 0 while it is not known.
    index: Arc<AtomicU64>,
}

impl Running {
    /// Its position, once it is known.
    fn index(&self) -> Option<LogIndex> {
        match self.index.load(Ordering::Acquire) {
            0 => None,
            index => Some(LogIndex(index)),
        }
    }
}

/// A member that has installed a snapshot, and fetches what came after it.
struct Landed {
    index: LogIndex,
    /// The end of the log by then. Behind it, it lags like any other.
    goal: LogIndex,
}

/// One has ended.
pub struct Ended {
    peer: NodeId,
    outcome: Result<LogIndex>,
    /// Which one.
    number: u64,
    /// False where it had no place.
    was_begun: bool,
}

/// What a transfer needs.
pub struct Order {
    /// To whom.
    pub peer: NodeId,
    /// What the group says of it.
    pub member: Member,
    /// What is committed by now, and with it what made the peer a member. The end of the log may wait for this very peer.
    pub committed: LogIndex,
    /// In which term.
    pub term: Term,
    /// The engine.
    pub parts: Arc<Parts>,
    /// The links.
    pub peers: Arc<Peers>,
    /// What the group is.
    pub published: Arc<Published>,
}

impl Transfers {
    /// None so far; what becomes of each is told on the channel that comes with it.
    pub fn new() -> (Transfers, mpsc::UnboundedReceiver<Ended>) {
        // Bounded by the transfers that run.
        let (ended, endings) = mpsc::unbounded_channel();
        let transfers = Transfers {
            running: BTreeMap::new(),
            landed: BTreeMap::new(),
            said: BTreeMap::new(),
            ended,
            places: Arc::new(Semaphore::new(TRANSFERS_MAX)),
            begun: 0,
            spawn: |run| std::thread::Builder::new().name("snapshot-send".to_string()).spawn(run).map(|_| ()),
        };
        (transfers, endings)
    }

    /// Begins one. Where that cannot be, it ends as if it had failed.
    pub fn begin(&mut self, order: Order) {
        self.begun += 1;
        let (number, index) = (self.begun, Arc::new(AtomicU64::new(0)));
        let (wanted, unwanted) = oneshot::channel();
        // The one before it is wanted no more.
        self.running.insert(order.peer.clone(), Running { number, index: index.clone(), _wanted: wanted });
        let place = self.places.clone().try_acquire_owned().ok();
        let unstarted = Ended { peer: order.peer.clone(), outcome: Ok(LogIndex(0)), number, was_begun: true };
        let told = self.ended.clone();
        // Only a thread that has begun can panic.
        let run = move || {
            let telling = Telling::new(order.peer.clone(), number, told);
            run(telling, Sent { order, index, place }, unwanted);
        };
        if let Err(error) = (self.spawn)(Box::new(run)) {
            let ended = Ended { outcome: Err(Error::io("start a thread for a snapshot", &error)), ..unstarted };
            let told = self.ended.clone();
            tokio::spawn(async move {
                tokio::time::sleep(PAUSE).await;
                // As of one that has run.
                let _ = told.send(ended);
            });
        }
    }

    /// What became of one, where it still is the one that counts: the log ends at `last` by then, and what comes up to there
    /// its receiver still has to be sent.
    pub fn end(&mut self, ended: Ended, last: LogIndex) -> Option<(NodeId, Delivery)> {
        let counts = |running: &Running| running.number == ended.number;
        if !self.running.get(&ended.peer).is_some_and(counts) {
            return None;
        }
        self.running.remove(&ended.peer);
        match ended.outcome {
            Ok(index) => {
                info!(peer = %ended.peer, index = index.0, "a snapshot has arrived");
                self.said.remove(&ended.peer);
                self.landed.insert(ended.peer.clone(), Landed { index, goal: last });
                Some((ended.peer, Delivery::Installed(index)))
            }
            Err(error) => {
                let text = error.to_string();
                if self.said.get(&ended.peer) != Some(&text) {
                    warn!(peer = %ended.peer, %error, "a snapshot did not arrive, trying again");
                    self.said.insert(ended.peer.clone(), text);
                }
                Some((ended.peer, if ended.was_begun { Delivery::Failed } else { Delivery::Postponed }))
            }
        }
    }

    /// This node leads no more: whoever does sees to it.
    pub fn cancel(&mut self) {
        self.running.clear();
        self.landed.clear();
        self.said.clear();
    }

    /// What of the log the peers may need.
    pub fn keep(&mut self, peers: &[Peer]) -> Keep {
        let of = |id: &NodeId| peers.iter().find(|peer| peer.id == *id);
        self.said.retain(|id, _| of(id).is_some());
        self.landed.retain(|id, landed| of(id).is_some_and(|peer| peer.matched < landed.goal));
        let mut keep = Keep::default();
        for peer in peers {
            let running = self.running.get(&peer.id).filter(|_| peer.flow == Flow::Snapshot);
            match (running.map(Running::index), self.landed.get(&peer.id)) {
                (Some(Some(index)), _) => keep.pinned.push(index.next()),
                (_, Some(landed)) => keep.pinned.push(landed.index.max(peer.matched).next()),
                (Some(None) | None, None) => keep.lagging.push(peer.matched.next()),
            }
        }
        keep
    }
}

/// Tells what becomes of a transfer when its thread is done, and also where that panics: raft would otherwise wait for it,
/// and the peer be sent nothing, for as long as this node leads.
struct Telling {
    ended: Option<Ended>,
    told: mpsc::UnboundedSender<Ended>,
}

impl Telling {
    fn new(peer: NodeId, number: u64, told: mpsc::UnboundedSender<Ended>) -> Telling {
        let outcome = Err(Error::internal("the thread that sends a snapshot panicked"));
        Telling { ended: Some(Ended { peer, outcome, number, was_begun: true }), told }
    }

    fn outcome(&mut self, outcome: Result<LogIndex>, was_begun: bool) {
        if let Some(ended) = &mut self.ended {
            (ended.outcome, ended.was_begun) = (outcome, was_begun);
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            // A raft actor that is gone has a successor, which finds out by itself.
            let _ = self.told.send(ended);
        }
    }
}

/// What a thread has of its transfer.
struct Sent {
    order: Order,
    /// Where its position is told.
    index: Arc<AtomicU64>,
    /// None where there was none left.
    place: Option<OwnedSemaphorePermit>,
}

fn run(mut telling: Telling, sent: Sent, unwanted: oneshot::Receiver<()>) {
    // Where it is refused the transfer runs like everything else.
    let _ = rustix::process::nice(NICE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(while_wanted(unwanted, async {
            let outcome = match sent.place {
                Some(_) => send(&sent.order, &sent.index).await,
                None => Err(Error::overloaded(format!("{TRANSFERS_MAX} others are being sent"))),
            };
            if outcome.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
            outcome
        })),
        Err(error) => Err(Error::io("start a runtime for a snapshot", &error)),
    };
    let was_begun = sent.place.is_some();
    // Its place is free again before its end is told.
    drop(sent);
    telling.outcome(outcome, was_begun);
}

/// Does it until it is done, or not wanted any more.
async fn while_wanted<T>(unwanted: oneshot::Receiver<()>, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        outcome = work => outcome,
        _ = unwanted => Err(Error::unavailable("this node leads no more")),
    }
}

/// Sends a snapshot; gives up to where the receiver has everything.
async fn send(order: &Order, index: &AtomicU64) -> Result<LogIndex> {
    let own = order.peers.identity().ok_or_else(|| Error::unavailable("the node is starting"))?;
    let (_place, snapshot) = take(order, &own, index).await?;
    let failed = |what: &dyn std::fmt::Display| Error::unavailable(format!("{}: {what}", order.member.address));
    let endpoint = patient(order.peers.endpoint(&order.member.address)?);
    let channel = endpoint.connect().await.map_err(|error| failed(&error))?;
    let (pieces, sent) = mpsc::channel(PIECES_AHEAD);
    let mut request = Request::new(ReceiverStream::new(sent));
    order.peers.sign(&mut request)?;
    let answered = PeerServiceClient::new(channel).install(request).await;
    let mut answers = answered.map_err(|status| failed(&status.message()))?.into_inner();
    info!(
        peer = %order.peer,
        index = snapshot.manifest.position.index.0,
        bytes = snapshot.manifest.bytes(),
        "sending a snapshot"
    );
    let out = Out { pieces, peers: &order.peers };
    // Why the other end takes no more is what it said last.
    let sent = match out.begin(order, &own, &snapshot).await {
        Ok(()) => match answer(&mut answers).await {
            Ok(first) if first.have.is_empty() => return Ok(LogIndex(first.installed)),
            Ok(first) => out.files(&snapshot, &first).await,
            Err(refused) => Err(refused),
        },
        Err(gone) => Err(gone),
    };
    drop(out);
    match (sent, answer(&mut answers).await) {
        (Ok(()), last) => last.map(|last| LogIndex(last.installed)),
        (Err(_), Err(refused)) => Err(failed(&refused)),
        (Err(error), Ok(_)) => Err(error),
    }
}

/// A snapshot that is new enough for its receiver, and holds what is for it. Its position is told as soon as it is known.
async fn take(order: &Order, own: &Identity, index: &AtomicU64) -> Result<(Option<Place>, Snapshot)> {
    let stopped = || Error::unavailable("storage is restarting");
    let lent = order.parts.lent()?;
    if lent.handle.is_witness() {
        return Err(Error::unavailable("this node is a witness: it has no rows to send"));
    }
    for freshness in [Freshness::Sealed, Freshness::Now] {
        if freshness == Freshness::Now {
            lent.reach(order.committed, Deadline::after(REACH_WAIT)).await?;
        }
        let taken = lent.handle.snapshot(freshness).await.map_err(|_| stopped())??;
        let Some(snapshot) = taken else { continue };
        let position = snapshot.manifest.position.index;
        if order.member.role.is_witness() && freshness == Freshness::Sealed {
            // Where somebody is far behind nothing newer would do, either, and sealing it anew each time costs everybody.
            witness::check(order, position)?;
        }
        if knows(&snapshot.manifest.group()?, order, own) {
            index.store(position.0, Ordering::Release);
            if order.member.role.is_witness() {
                let (place, bare) = witness::stripped(&snapshot, order).await?;
                return Ok((Some(place), bare));
            }
            return Ok((None, snapshot));
        }
    }
    Err(Error::unavailable("the group has changed again"))
}

/// True where the group of a snapshot has what made the receiver the member that it is. Without that it would start as
/// nobody, or as the one that its name stood for before. Where it is reached is another matter: that it has moved may not be
/// committed without it. So may, of a voter, its own addition: a voter reads that in the log, after a group that does not
/// name it. And the sender is the one that it is there, or the receiver takes it for a disk that came back (`install`).
fn knows(group: &Membership, order: &Order, own: &Identity) -> bool {
    let wanted = &order.member;
    let is_bare = wanted.role.is_witness();
    // The first voters' disks were not always written down.
    let may_lack_disk = wanted.role == MemberRole::Voter;
    let is_receiver = |member: &Member| {
        let is_disk = member.disk == wanted.disk || (member.disk.is_none() && may_lack_disk);
        member.role.is_witness() == is_bare && is_disk
    };
    let is_sender = |member: &Member| member.disk.is_none_or(|disk| disk == own.disk);
    // Of one voter it would be taken for the database of a single node, which starts alone.
    let is_before_it = wanted.role == MemberRole::Voter && group.voters().count() > 1;
    let is_removed = wanted.disk.is_some_and(|disk| group.removed.contains(&disk));
    group.get(&order.peer).map_or(is_before_it, is_receiver) && !is_removed && group.get(&own.id).is_none_or(is_sender)
}

async fn answer(answers: &mut Streaming<SnapshotProgress>) -> Result<SnapshotProgress> {
    match tokio::time::timeout(ANSWER_WAIT, answers.message()).await {
        Ok(Ok(Some(progress))) => Ok(progress),
        Ok(Ok(None)) => Err(Error::unavailable("the receiver has ended the stream")),
        Ok(Err(status)) => Err(Error::unavailable(status.message().to_owned())),
        Err(_) => Err(Error::unavailable("the receiver does not answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::published::RaftReport;
    use chronos::ids::DiskId;
    use chronos::raft::Status;

    /// The sender.
    fn own() -> Identity {
        Identity::example("a", 7)
    }

    fn order(member: Member) -> Order {
        Order {
            peer: NodeId("b".into()),
            member,
            committed: LogIndex(7),
            term: Term(2),
            parts: Arc::default(),
            peers: Arc::default(),
            published: Arc::default(),
        }
    }

    #[test]
    fn a_snapshot_whose_thread_does_not_begin_has_failed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut transfers, mut endings) = Transfers::new();
            transfers.spawn = |_| Err(std::io::Error::other("no more threads"));
            transfers.begin(order(Member::default()));
            assert!(endings.try_recv().is_err(), "not before a pause");
            let ended = tokio::time::timeout(Duration::from_secs(20), endings.recv()).await.unwrap().unwrap();
            let peer = NodeId("b".into());
            assert_eq!(
                transfers.end(ended, LogIndex(7)),
                Some((peer.clone(), Delivery::Failed)),
                "so that raft asks again"
            );
            assert!(transfers.said[&peer].contains("start a thread for a snapshot"), "{:?}", transfers.said);
        });
    }

    #[test]
    fn a_transfer_whose_thread_panics_has_failed() {
        let (mut transfers, mut endings) = Transfers::new();
        transfers.spawn = |_| Ok(());
        transfers.begin(order(Member::default()));
        let peer = NodeId("b".into());
        let telling = Telling::new(peer.clone(), transfers.running[&peer].number, transfers.ended.clone());
        let thread = std::thread::spawn(move || {
            let _telling = telling;
            panic!("in the middle of a snapshot");
        });
        thread.join().unwrap_err();
        assert_eq!(
            transfers.end(endings.try_recv().unwrap(), LogIndex(7)),
            Some((peer, Delivery::Failed)),
            "so that raft asks again"
        );
    }

    #[test]
    fn what_is_not_wanted_any_more_has_its_place_until_its_thread_has_ended_and_that_is_soon() {
        use std::sync::Mutex;
        static THREADS: Mutex<Vec<Box<dyn FnOnce() + Send>>> = Mutex::new(Vec::new());
        let to = |name: &str| Order { peer: NodeId(name.into()), ..order(Member::default()) };
        let (mut transfers, mut endings) = Transfers::new();
        transfers.spawn = |run| {
            THREADS.lock().unwrap().push(run);
            Ok(())
        };
        ["b", "c"].into_iter().for_each(|name| transfers.begin(to(name)));
        transfers.cancel();
        transfers.begin(to("d"));
        let mut threads = std::mem::take(&mut *THREADS.lock().unwrap());
        threads.pop().unwrap()();
        let told = endings.try_recv().unwrap().outcome.unwrap_err();
        assert!(told.to_string().contains("2 others are being sent"), "{told}");
        threads.into_iter().for_each(|run| run());
        while let Ok(ended) = endings.try_recv() {
            assert!(ended.outcome.unwrap_err().to_string().contains("leads no more"));
        }
        assert_eq!(transfers.places.available_permits(), TRANSFERS_MAX);
        // Whatever it waits for.
        let (wanted, unwanted) = oneshot::channel();
        drop(wanted);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(while_wanted(unwanted, std::future::pending::<Result<()>>())).unwrap_err();
    }

    #[test]
    fn a_transfer_keeps_the_log_from_its_position_on_and_before_it_has_one_no_more_than_any_other() {
        let (mut transfers, _endings) = Transfers::new();
        transfers.spawn = |_| Ok(());
        transfers.begin(order(Member::default()));
        let peer = NodeId("b".into());
        let peers = [Peer {
            id: peer.clone(),
            matched: LogIndex(0),
            flow: Flow::Snapshot,
            silent: Duration::ZERO,
            command_version: None,
            is_disk_low: false,
        }];
        let keep = transfers.keep(&peers);
        assert_eq!((keep.pinned, keep.lagging), (vec![], vec![LogIndex(1)]));
        transfers.running[&peer].index.store(500, Ordering::Release);
        let keep = transfers.keep(&peers);
        assert_eq!((keep.pinned, keep.lagging), (vec![LogIndex(501)], vec![]));
    }

    #[test]
    fn a_witness_is_sent_nothing_while_somebody_with_rows_lacks_what_was_sealed() {
        let order = order(Member::default());
        let status = Status { once_held: LogIndex(5), ..Status::default() };
        order.published.set_raft(RaftReport { status, serves: true });
        witness::check(&order, LogIndex(5)).unwrap();
        let refused = witness::check(&order, LogIndex(6)).unwrap_err();
        assert!(refused.is_retryable() && refused.message().contains("is to be removed first"), "{refused}");
    }

    #[test]
    fn a_snapshot_knows_its_receiver_and_the_disk_of_its_sender() {
        let own = own();
        let receiver = Member { address: "b:1".into(), disk: Some(DiskId(8)), ..Member::default() };
        let order = order(receiver.clone());
        let member = |disk| Member { disk, ..Member::default() };
        let group = |sender: Option<Member>, receiver: Option<Member>| {
            let sender = sender.map(|member| (NodeId("a".into()), member));
            Membership::of(sender.into_iter().chain(receiver.map(|member| (NodeId("b".into()), member))))
        };
        let moved = Member { address: "b:0".into(), ..receiver.clone() };
        for (sender, receiver, is_known) in [
            (Some(member(Some(DiskId(7)))), Some(receiver.clone()), true),
            (Some(member(None)), Some(Member { disk: None, ..receiver.clone() }), true),
            (None, Some(receiver.clone()), true),
            (Some(member(Some(DiskId(7)))), Some(moved), true),
            (Some(member(Some(DiskId(7)))), None, false),
            // The sender was removed and added again behind it.
            (Some(member(Some(DiskId(6)))), Some(receiver), false),
        ] {
            let group = group(sender, receiver);
            assert_eq!(knows(&group, &order, &own), is_known, "{group:?}");
        }
    }

    #[test]
    fn a_voter_may_be_sent_what_comes_before_its_addition() {
        let own = own();
        let before = Membership::of(["a", "c"].map(|id| (NodeId(id.into()), Member::default())));
        for (role, is_known) in
            [(MemberRole::Voter, true), (MemberRole::Learner, false), (MemberRole::LearningWitness, false)]
        {
            let receiver = Member { role, disk: Some(DiskId(8)), ..Member::default() };
            let order = order(receiver);
            assert_eq!(knows(&before, &order, &own), is_known, "{role:?}");
            // Nor may it be one that was removed meanwhile.
            assert!(!knows(&Membership { removed: vec![DiskId(8)], ..before.clone() }, &order, &own));
        }
    }

    #[test]
    fn what_a_witness_is_sent_knows_its_disk_as_a_witness() {
        let own = own();
        let member = |role, disk| Member { role, disk, address: "b:1".into() };
        let group = |member| Membership::of([(NodeId("b".into()), member)]);
        let witness = order(member(MemberRole::Witness, Some(DiskId(8))));
        let learner = order(member(MemberRole::Learner, Some(DiskId(8))));
        for (role, disk, to_witness, to_learner) in [
            (MemberRole::LearningWitness, Some(DiskId(8)), true, false),
            // Its name alone: whose disk it was by then is not said.
            (MemberRole::LearningWitness, None, false, false),
            (MemberRole::LearningWitness, Some(DiskId(6)), false, false),
            (MemberRole::Learner, None, false, false),
            (MemberRole::Voter, Some(DiskId(8)), false, true),
        ] {
            let group = group(member(role, disk));
            let known = (knows(&group, &witness, &own), knows(&group, &learner, &own));
            assert_eq!(known, (to_witness, to_learner), "{group:?}");
        }
    }
}
