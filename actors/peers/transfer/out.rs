//! The pieces of a snapshot on their way to its receiver: an offer, the manifest, and every file from where it has it.
//!
//! * It gives way to entries that wait for a link, but never for long: under any load it comes to its end.

use super::super::service::hello_to;
use super::super::{Identity, PART_BYTES, Peers};
use super::Order;
use crate::actors::proto::wire::{SnapshotData, SnapshotOffer, SnapshotPiece, SnapshotProgress, snapshot_piece::Piece};
use chronos::error::{Error, Result};
use chronos::storage::snapshot::Snapshot;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long one piece may wait until it can be sent.
const PIECE_WAIT: Duration = Duration::from_secs(30);

/// How long a piece waits for entries that wait for their link, and how often it looks: so 13 MB/s go on under any load.
const YIELD_MAX: Duration = Duration::from_millis(5);
const YIELD_STEP: Duration = Duration::from_millis(1);

/// The way to the receiver.
pub(super) struct Out<'a> {
    pub(super) pieces: mpsc::Sender<SnapshotPiece>,
    pub(super) peers: &'a Peers,
}

impl Out<'_> {
    /// Says what is to come.
    pub(super) async fn begin(&self, order: &Order, own: &Identity, snapshot: &Snapshot) -> Result<()> {
        let manifest = snapshot.manifest.encode();
        let offer = SnapshotOffer {
            hello: Some(hello_to(own, &order.peer, &order.published)),
            term: order.term.0,
            manifest_bytes: manifest.len() as u64,
        };
        self.send(Piece::Offer(offer)).await?;
        for (at, part) in manifest.chunks(PART_BYTES).enumerate() {
            self.data(0, (at * PART_BYTES) as u64, part.to_vec()).await?;
        }
        Ok(())
    }

    /// Every file from where the receiver has it.
    pub(super) async fn files(&self, snapshot: &Snapshot, progress: &SnapshotProgress) -> Result<()> {
        for have in &progress.have {
            let file = snapshot.file(have.file)?;
            let mut at = have.bytes;
            while at < file.bytes {
                let mut data = vec![0; (file.bytes - at).min(PART_BYTES as u64) as usize];
                file.read_at(&mut data, at)?;
                let end = at + data.len() as u64;
                self.give_way().await;
                self.data(have.file, at, data).await?;
                at = end;
            }
        }
        Ok(())
    }

    /// Waits while entries wait, but not for long.
    async fn give_way(&self) {
        let mut waited = Duration::ZERO;
        while waited < YIELD_MAX && self.peers.is_behind() {
            tokio::time::sleep(YIELD_STEP).await;
            waited += YIELD_STEP;
        }
    }

    async fn data(&self, file: u32, offset: u64, data: Vec<u8>) -> Result<()> {
        self.send(Piece::Data(SnapshotData { file, offset, crc: crc32c::crc32c(&data), data })).await
    }

    async fn send(&self, piece: Piece) -> Result<()> {
        match tokio::time::timeout(PIECE_WAIT, self.pieces.send(SnapshotPiece { piece: Some(piece) })).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error::unavailable("the connection has ended")),
            Err(_) => Err(Error::unavailable(format!("nothing was taken for {PIECE_WAIT:?}"))),
        }
    }
}
