//! Taking a snapshot from a leader: the receiver's side of `transfer`.
//!
//! ```text
//!   stream ── offer, manifest ──> checks ── pieces ──(4)──> thread: files in snapshots/install-...
//!     ^                                                        │ complete
//!     └── installed <── storage and raft have started again <──┴── storage: Install
//! ```
//!
//! * One at a time. The newest offer counts: whoever brought the one before has lost its stream, or its lead.
//! * A leader of an older term is refused, and what is not ahead of this node is answered with where it stands. Storage
//!   asks both once more, under the lock that raft appends under.
//! * The sender's disk must be the one that its name has, by this node's log and by the snapshot itself: a copy of an old disk,
//!   or one that was removed, must not put its state in the place of what is committed here. A leader that was removed and
//!   added again behind the end of this node's log shows so in the snapshot, which names its old disk as removed.
//! * What is for another disk that had this node's name is refused: it may be a witness's, which has no rows.
//! * Each piece has a checksum, each file a hash; what is there when the stream breaks is where the next one goes on.

use super::service::check_hello;
use super::transfer::NICE;
use super::{Identity, PART_BYTES};
use crate::actors::messages::Install;
use crate::actors::proto::wire::{
    SnapshotData, SnapshotHave, SnapshotOffer, SnapshotPiece, SnapshotProgress, snapshot_piece::Piece,
};
use crate::actors::published::Published;
use crate::actors::route::Deadline;
use crate::actors::router::Router;
use chronos::error::{Error, Result, SqlState};
use chronos::ids::{LogIndex, Term};
use chronos::raft::{Membership, Status};
use chronos::storage::files::SystemFiles;
use chronos::storage::snapshot::{Have, MANIFEST_BYTES_MAX, Manifest, Staged, Staging};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, mpsc, oneshot};
use tonic::Streaming;
use tracing::info;

/// Pieces between connection and disk.
const PIECES_AHEAD: usize = 4;

/// How long the sender may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How long storage may take to install, and to start again.
const INSTALL_WAIT: Duration = Duration::from_mins(2);

/// How often it is looked whether storage has started again.
const LOOK: Duration = Duration::from_millis(5);

/// What takes snapshots in.
pub struct Installs {
    router: Router,
    published: Arc<Published>,
    /// Counts offers: only the newest one counts.
    offers: AtomicU64,
    offered: Notify,
    /// Held by whoever writes.
    place: Arc<Mutex<()>>,
}

/// A file's next piece.
struct Next {
    file: u32,
    offset: u64,
    data: Vec<u8>,
}

impl Installs {
    /// For a node whose actors are reached so.
    pub fn new(router: Router, published: Arc<Published>) -> Installs {
        Installs { router, published, offers: AtomicU64::new(0), offered: Notify::new(), place: Arc::default() }
    }

    /// Takes one snapshot, unless its sender is `revoked` before all of it has come; gives up to where this node has
    /// everything then.
    pub async fn take(
        &self,
        own: &Identity,
        mut pieces: Streaming<SnapshotPiece>,
        answers: &mpsc::Sender<Result<SnapshotProgress, tonic::Status>>,
        revoked: impl Future<Output = Error>,
    ) -> Result<LogIndex> {
        let Some(Piece::Offer(offer)) = next(&mut pieces).await? else {
            return Err(wrong("a snapshot begins with an offer"));
        };
        let from = check_hello(offer.hello.clone(), own, &self.published)?;
        let term = Term(offer.term);
        let present = self.published.raft();
        if term < present.status.term {
            let text = format!("{} led term {term}, and this is term {}", from.id, present.status.term);
            return Err(Error::invalid(SqlState::NOT_IN_STATE, text));
        }
        let turn = self.offers.fetch_add(1, Ordering::AcqRel) + 1;
        self.offered.notify_waiters();
        let manifest = manifest(&mut pieces, &offer).await?;
        let group = manifest.group()?;
        check_sender(&from, &present.status, &group)?;
        check_receiver(own, &group)?;
        let position = manifest.position;
        if position.index <= present.status.committed {
            return Ok(present.status.committed);
        }
        let place = self.place.clone().lock_owned().await;
        // The one before may have brought it.
        let committed = self.published.raft().status.committed;
        if position.index <= committed {
            return Ok(committed);
        }
        info!(from = %from.id, index = position.index.0, bytes = manifest.bytes(), "taking a snapshot");
        let (staged, place) = tokio::select! {
            staged = self.stage(manifest, place, pieces, answers) => staged?,
            error = revoked => return Err(error),
            () = self.superseded(turn) => return Err(Error::unavailable("another snapshot is offered")),
        };
        let deadline = Deadline::after(INSTALL_WAIT);
        self.router.routes().storage.ask(Install { staged, term }, deadline).await?;
        drop(place);
        self.started(position.index, deadline).await?;
        Ok(position.index)
    }

    /// Waits until a later offer has come.
    async fn superseded(&self, turn: u64) {
        loop {
            let mut offered = std::pin::pin!(self.offered.notified());
            offered.as_mut().enable();
            if self.offers.load(Ordering::Acquire) != turn {
                return;
            }
            offered.await;
        }
    }

    /// Brings the files to the disk. The place is given back by whoever writes, once that has ended.
    async fn stage(
        &self,
        manifest: Manifest,
        place: OwnedMutexGuard<()>,
        mut pieces: Streaming<SnapshotPiece>,
        answers: &mpsc::Sender<Result<SnapshotProgress, tonic::Status>>,
    ) -> Result<(Staged, OwnedMutexGuard<()>)> {
        let directory = self.router.snapshots()?;
        let (data, arrived) = mpsc::channel(PIECES_AHEAD);
        let (tell, told) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("snapshot-take".to_string())
            .spawn(move || {
                // Whoever waited and has gone needs no answer.
                let _ = end.send(write(&directory, manifest, tell, arrived).map(|staged| (staged, place)));
            })
            .map_err(|error| Error::io("start the snapshot thread", &error))?;
        let lost = || Error::internal("the thread that takes a snapshot has ended");
        let Ok(have) = told.await else { return ended.await.map_err(|_| lost())? };
        let have = have.iter().map(|have| SnapshotHave { file: have.number, bytes: have.bytes }).collect();
        let gone = |_| Error::unavailable("the sender has gone");
        answers.send(Ok(SnapshotProgress { have, installed: 0 })).await.map_err(gone)?;
        let mut ended = std::pin::pin!(ended);
        loop {
            let piece = tokio::select! {
                staged = &mut ended => return staged.map_err(|_| lost())?,
                piece = next(&mut pieces) => piece?,
            };
            let Some(piece) = piece else { break };
            let Piece::Data(SnapshotData { file, offset, crc, data: bytes }) = piece else {
                return Err(wrong("a snapshot has one offer"));
            };
            check_piece(&bytes, crc)?;
            if data.send(Next { file, offset, data: bytes }).await.is_err() {
                break;
            }
        }
        drop(data);
        ended.await.map_err(|_| lost())?
    }

    /// Waits until storage and raft go on from the snapshot.
    async fn started(&self, index: LogIndex, until: Deadline) -> Result<()> {
        while self.published.raft().status.applied < index {
            if until.left().is_zero() {
                return Err(Error::unavailable("this node has not started again yet"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Refuses a sender that is not the member whose name it has, by what is known `here` and by the group of the snapshot.
fn check_sender(from: &Identity, here: &Status, there: &Membership) -> Result<()> {
    let refused = |text: String| Err(Error::invalid(SqlState::NOT_IN_STATE, text));
    let bound =
        |group: &Membership| group.get(&from.id).and_then(|member| member.disk).filter(|disk| *disk != from.disk);
    if here.dismissed.contains(&from.disk) {
        return refused(format!("a snapshot by {}, on a disk that was removed from the group", from.id));
    }
    if bound(there).is_some() {
        return refused(format!("a snapshot by {0}, of a group in which {0} has another disk", from.id));
    }
    match bound(&here.membership) {
        Some(disk) if !there.removed.contains(&disk) => {
            refused(format!("a snapshot by {}, whose disk is not the one that it has in the group", from.id))
        }
        Some(_) | None => Ok(()),
    }
}

/// Refuses a snapshot whose group has another disk under this node's name, since a leader of before may not know of this
/// one, and one of a group that this disk was removed from.
fn check_receiver(own: &Identity, there: &Membership) -> Result<()> {
    if there.removed.contains(&own.disk) {
        let text = format!("a snapshot for {}, of a group from which this disk was removed", own.id);
        return Err(Error::invalid(SqlState::NOT_IN_STATE, text));
    }
    match there.get(&own.id).and_then(|member| member.disk) {
        Some(disk) if disk != own.disk => {
            let text = format!("a snapshot for {0}, of a group in which {0} has another disk than this one", own.id);
            Err(Error::invalid(SqlState::NOT_IN_STATE, text))
        }
        Some(_) | None => Ok(()),
    }
}

/// Writes pieces as they come, until all are there, or no more come.
fn write(
    snapshots: &Path,
    manifest: Manifest,
    tell: oneshot::Sender<Vec<Have>>,
    mut arrived: mpsc::Receiver<Next>,
) -> Result<Staged> {
    // Where it is refused this runs like everything else.
    let _ = rustix::process::nice(NICE);
    let mut staging = Staging::open(Arc::new(SystemFiles), snapshots, manifest)?;
    let _ = tell.send(staging.have().to_vec());
    while !staging.is_complete() {
        let Some(Next { file, offset, data }) = arrived.blocking_recv() else { break };
        staging.write(file, offset, &data)?;
    }
    staging.finish()
}

async fn manifest(pieces: &mut Streaming<SnapshotPiece>, offer: &SnapshotOffer) -> Result<Manifest> {
    if offer.manifest_bytes > MANIFEST_BYTES_MAX as u64 {
        return Err(wrong("the manifest of a snapshot is larger than any"));
    }
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < offer.manifest_bytes {
        match next(pieces).await? {
            Some(Piece::Data(data)) if data.file == 0 && data.offset == bytes.len() as u64 && !data.data.is_empty() => {
                check_piece(&data.data, data.crc)?;
                bytes.extend_from_slice(&data.data);
            }
            Some(Piece::Data(_) | Piece::Offer(_)) | None => {
                return Err(wrong("the manifest of a snapshot is missing"));
            }
        }
    }
    Manifest::decode(&bytes)
}

/// What comes next; none where the sender has sent all.
async fn next(pieces: &mut Streaming<SnapshotPiece>) -> Result<Option<Piece>> {
    match tokio::time::timeout(SILENCE_MAX, pieces.message()).await {
        Ok(Ok(Some(SnapshotPiece { piece: Some(piece) }))) => Ok(Some(piece)),
        Ok(Ok(Some(SnapshotPiece { piece: None }))) => Err(wrong("a piece of a snapshot is empty")),
        Ok(Ok(None)) => Ok(None),
        Ok(Err(status)) => Err(Error::unavailable(format!("the stream broke: {}", status.message()))),
        Err(_) => Err(Error::unavailable(format!("nothing came for {SILENCE_MAX:?}"))),
    }
}

fn check_piece(data: &[u8], crc: u32) -> Result<()> {
    if data.len() > PART_BYTES || crc32c::crc32c(data) != crc {
        return Err(Error::damaged("a piece of a snapshot was damaged on its way"));
    }
    Ok(())
}

fn wrong(text: &str) -> Error {
    Error::invalid(SqlState::PROTOCOL_VIOLATION, text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos::ids::DiskId;
    use chronos::raft::{Member, NodeId};

    fn group(disk: Option<u128>, removed: &[u128]) -> Membership {
        let member = Member { disk: disk.map(DiskId), ..Member::default() };
        let mut group = Membership::of([(NodeId("a".into()), member), (NodeId("b".into()), Member::default())]);
        group.removed = removed.iter().copied().map(DiskId).collect();
        group
    }

    #[test]
    fn a_snapshot_comes_from_the_disk_that_its_senders_name_has() {
        let from = Identity::example("a", 7);
        let check = |here: Membership, dismissed: &[u128], there: Membership| {
            let dismissed = dismissed.iter().copied().map(DiskId).collect();
            let here = Status { membership: here, dismissed, ..Status::default() };
            check_sender(&from, &here, &there).map_err(|error| error.message().to_owned())
        };
        check(Membership::default(), &[], group(Some(7), &[])).unwrap();
        check(group(Some(7), &[]), &[], group(Some(7), &[])).unwrap();
        // Added behind the position of the snapshot, or not written down yet.
        check(group(Some(7), &[]), &[], Membership::default()).unwrap();
        check(group(None, &[]), &[], group(None, &[])).unwrap();
        // Removed and added again behind the end of this log.
        check(group(Some(6), &[]), &[], group(Some(7), &[6])).unwrap();
        for (here, dismissed, there, says) in [
            (group(Some(6), &[]), vec![], group(Some(7), &[]), "whose disk is not the one that it has"),
            (group(Some(6), &[]), vec![], Membership::default(), "whose disk is not the one that it has"),
            (Membership::default(), vec![], group(Some(6), &[]), "of a group in which a has another disk"),
            (group(Some(8), &[7]), vec![7], group(Some(7), &[8]), "on a disk that was removed"),
        ] {
            let refused = check(here, &dismissed, there).unwrap_err();
            assert!(refused.contains(says), "{says}: {refused}");
        }
        // And is for the disk that the receiver's name has.
        check_receiver(&from, &group(Some(7), &[])).unwrap();
        check_receiver(&from, &group(None, &[])).unwrap();
        check_receiver(&from, &Membership::default()).unwrap();
        let refused = check_receiver(&from, &group(Some(6), &[])).unwrap_err();
        assert!(refused.message().contains("a has another disk than this one"), "{refused}");
        let refused = check_receiver(&from, &group(None, &[7])).unwrap_err();
        assert!(refused.message().contains("from which this disk was removed"), "{refused}");
    }
}
