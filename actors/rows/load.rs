//! The room of a stream's large batches.
//!
//! ```text
//!   batch ── at most LARGE_BYTES ──> sent; two of them may wait at the door
//!         ── larger ── room ────────> sent; the next one is found when this one has left
//!                   ── no room, nothing sent yet ──> forgotten: the query begins anew once there is room
//!                   ── no room, rows were sent ────> sent beyond the account, one stream at a time
//! ```
//!
//! A row may have megabytes, and streams may be as many as connections: what their clients do not read is counted with
//! all other answers (transit.rs).
//!
//! * Room is for one batch, and stays with the stream from batch to batch, as the place beyond the account does: one that
//!   has begun goes on. With small rows it gives both back where somebody waits, and its client takes one or
//!   none for [`PATIENCE`].
//! * Whoever waits for room before its first row holds nothing: no batch, no operators, no view. So any number may wait.
//! * Whoever meets a batch larger than its room later on has that batch in hand. Of those only [`Transit::overdraw`]'s
//!   few wait, for the one place beyond the account: its owner waits for nobody, so no two wait for each other.
//! * A client that takes nothing for [`PATIENCE`] loses its stream where others wait for room; where nobody does it has
//!   as long as any other.

use super::Pace;
use super::parcel::{Parcel, Slot};
use crate::actors::route::Deadline;
use crate::actors::transit::{Hold, Overdraft, Side, Transit};
use chronos::error::{Error, Result, SqlState};
use chronos::sql::batch::Batch;
use std::sync::Arc;
use std::time::Duration;

/// Batches up to this size take nothing: what storage hands out at once of rows that are no larger than half of it.
const LARGE_BYTES: usize = 384 << 10;

/// How long a client may take nothing of a large batch while others wait for its room: some lost packets.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a stream may wait for room: until two dozen others that nobody reads have lost theirs.
const ROOM_WAIT_MAX: Duration = Duration::from_mins(2);

/// The room of one stream.
pub struct Load {
    transit: Arc<Transit>,
    hold: Hold,
    overdraft: Option<Overdraft>,
    /// The large batch that is on its way.
    slot: Option<Arc<Slot>>,
}

impl Load {
    /// None yet.
    pub fn new(transit: &Arc<Transit>) -> Load {
        Load { transit: transit.clone(), hold: Hold::nothing(), overdraft: None, slot: None }
    }

    /// Takes room for a batch of so many bytes, if there is some now.
    pub fn fits(&mut self, bytes: usize) -> bool {
        if bytes <= LARGE_BYTES {
            self.lend();
            return true;
        }
        let bytes = self.counted(bytes);
        if self.overdraft.is_some() {
            return true;
        }
        if self.hold.bytes() > 0 {
            return self.hold.reach(bytes).is_ok();
        }
        // A new one does not overtake those who wait.
        self.transit.admit_now(Side::Answer, bytes).map(|hold| self.hold = hold).is_some()
    }

    /// Gives everything back where somebody waits for it. No large batch may be on its way.
    pub fn lend(&mut self) {
        if self.transit.is_waited_for(Side::Answer) {
            (self.hold, self.overdraft) = (Hold::nothing(), None);
        }
    }

    /// How long a client may take nothing before others are looked at, where it loses its stream after `stall`.
    pub fn patience(stall: Duration) -> Duration {
        PATIENCE.min(stall / 4)
    }

    /// Waits for room for a batch of so many bytes, which is not here.
    ///
    /// # Errors
    /// 53200, retryable, where there is none in time.
    pub async fn wait(&mut self, bytes: usize, pace: &Pace) -> Result<()> {
        self.hold = Hold::nothing();
        self.hold = self.transit.admit(Side::Answer, self.counted(bytes), deadline(pace)).await?;
        Ok(())
    }

    /// Waits for the place beyond the account, for a batch that is here.
    ///
    /// # Errors
    /// 53200, retryable, where it does not come free in time, or too many wait for it.
    pub async fn overdraw(&mut self, pace: &Pace) -> Result<()> {
        self.overdraft = Some(self.transit.overdraw(deadline(pace)).await?);
        Ok(())
    }

    /// The batch as it goes, watched where it is large.
    pub fn parcel(&mut self, batch: Batch, bytes: usize) -> Parcel {
        let parcel = Parcel::new(batch);
        if bytes > LARGE_BYTES {
            self.slot = Some(parcel.slot());
        }
        parcel
    }

    /// Waits until the large batch before has left.
    ///
    /// # Errors
    /// 57014 where its reader takes nothing; the batch is gone then.
    pub async fn settled(&mut self, pace: &Pace) -> Result<()> {
        let Some(slot) = &self.slot else { return Ok(()) };
        let (mut looks, mut silent) = (slot.looks(), Duration::ZERO);
        loop {
            let step = pace.stall().min(PATIENCE);
            if tokio::time::timeout(step, slot.emptied()).await.is_ok() {
                break;
            }
            silent = if slot.looks() == looks { silent + step } else { Duration::ZERO };
            looks = slot.looks();
            if silent >= pace.stall_max || pace.is_over() {
                slot.empty();
                return Err(pace.stalled());
            }
            if silent >= PATIENCE && self.transit.is_waited_for(Side::Answer) {
                slot.empty();
                let message = format!("nothing of the answer was taken for {PATIENCE:?}, and others wait for its room");
                return Err(Error::limit(SqlState::QUERY_CANCELED, message)
                    .hint("read large rows as they come, or raise limits.in_flight_bytes_max"));
            }
        }
        self.slot = None;
        Ok(())
    }

    /// One batch that is larger than all room takes all of it.
    fn counted(&self, bytes: usize) -> usize {
        bytes.min(self.transit.answer_bytes_max())
    }
}

/// How long a stream waits for room.
fn deadline(pace: &Pace) -> Deadline {
    let latest = Deadline::after(ROOM_WAIT_MAX);
    pace.whole.map_or(latest, |whole| whole.min(latest))
}

impl Drop for Load {
    fn drop(&mut self) {
        // Room is never given back for what is still there: where the stream broke off, its last batch goes too.
        if let Some(slot) = &self.slot {
            slot.empty();
        }
    }
}
