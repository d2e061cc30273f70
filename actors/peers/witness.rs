//! What a witness is sent instead of a snapshot with rows: position, term and group.
//!
//! It takes the place of entries in the witness's log, which others may need of it. So it is sent only once every member
//! that has rows, or is about to vote with them, has those entries durably, or had them before it lost its disk, or is to be
//! removed. Where somebody lacks what was sealed long ago the transfer fails at once, and is tried again; behind a fresh seal
//! it waits for them, which takes no longer than a message.

use super::transfer::Order;
use chronos::error::{Error, Result};
use chronos::ids::LogIndex;
use chronos::storage::engine::BACKUP_PREFIX;
use chronos::storage::files::{Files, SystemFiles};
use chronos::storage::snapshot::Snapshot;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long one attempt waits for the others.
const OTHERS_WAIT: Duration = Duration::from_secs(10);

/// Directories so far: an earlier attempt may still be reading its own.
static DIRECTORIES: AtomicU64 = AtomicU64::new(0);

/// Where such a snapshot lies while it is sent. What a crash leaves of it goes at the next start, as of a backup.
pub struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        // A failure here costs an empty directory until the next start.
        let _ = SystemFiles.remove_dir(&self.0);
    }
}

/// What is sent in the place of a snapshot, and where it lies: the place comes first, so that it goes last.
pub async fn stripped(snapshot: &Snapshot, order: &Order) -> Result<(Place, Snapshot)> {
    held(order, snapshot.manifest.position.index).await?;
    let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
    let name = format!("{BACKUP_PREFIX}for-witness-{}-{number}", order.peer);
    let place = Place(order.parts.directory()?.join("snapshots").join(name));
    let files: Arc<dyn Files> = Arc::new(SystemFiles);
    let bare = snapshot.for_witness(&files, &place.0)?;
    Ok((place, bare))
}

/// Refused where somebody with rows lacks some of the log up to there.
pub fn check(order: &Order, index: LogIndex) -> Result<()> {
    if order.published.raft().status.once_held >= index { Ok(()) } else { Err(lacking(order)) }
}

fn lacking(order: &Order) -> Error {
    Error::unavailable(format!(
        "{} is a witness, and some member with rows lacks entries that it would have to let go of: one that does not come \
         back is to be removed first",
        order.peer
    ))
}

/// Waits until everybody with rows has the log up to there.
async fn held(order: &Order, index: LogIndex) -> Result<()> {
    let mut reports = order.published.watch_raft();
    let held = reports.wait_for(|report| report.status.once_held >= index);
    match tokio::time::timeout(OTHERS_WAIT, held).await {
        Ok(_) => Ok(()),
        Err(_) => Err(lacking(order)),
    }
}
