//! The room of a request on its way in: it grows with what has come, and counts whole only once enough of it has.
//!
//! ```text
//!   up to 16 KiB ── free, counted by number
//!     | more
//!     v
//!   begins ── announced up to 256 KiB: room among modest requests ──────────────────────────────────> whole
//!          ── above, or unknown: room on trial, up to 64 KiB ── waits in turn for all of it ── comes ─> whole
//!                                                                                    | slow
//!                                                                                    v
//!                                                             has what it has sent, grows or fails ──> whole
//! ```
//!
//! A length is a promise, and costs its client nothing. Room that is taken for it is paid by all others: six clients that
//! announced 16 MiB and sent a byte a second once kept everybody waiting for half a minute.
//!
//! * Those who begin have room of their own, beside the account: [`Side::Modest`] and [`Side::Trial`] in transit.rs. So
//!   who waits for the account holds nothing of it, and no two can wait for each other.
//! * Where that is full, a request takes all of its room from the account, in turn, as if its trial were over.
//! * Who was let in has room for all of it, and comes to its end whoever comes after.
//! * Who is slow then (pace.rs) keeps what it has used. It never waits again, since it holds what others wait for: it
//!   grows, or fails with 53200, like one that never said how long it is.
//! * What is whole moves to the account where there is room at once, so that statements that run long do not keep others
//!   from beginning.

use crate::actors::transit::{Hold, SMALL_BYTES, Side, SmallPlace, Transit};
use chronos::error::Result;
use std::sync::Arc;

/// Requests of up to this length are modest.
pub const MODEST_BYTES: usize = 256 << 10;

/// What a larger one sends before it gets room for all of it: more than a client has on its way when it first stops.
pub const TRIAL_BYTES: usize = 64 << 10;

/// Room is taken in steps of this size: a frame of HTTP/2, so that not each byte asks for the lock.
const STEP_BYTES: usize = SMALL_BYTES;

/// A request that is coming.
#[derive(Debug)]
pub struct Entry {
    transit: Arc<Transit>,
    hold: Hold,
    stage: Stage,
    place: Option<SmallPlace>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has what it sent, beside the account.
    Begins,
    /// It has room for all that it announced.
    Promised,
    /// It has what it sent, in the account.
    Grows,
}

/// What a request needs to be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: what is here has its room.
    Nothing,
    /// So many bytes, in turn; then [`Entry::let_in`].
    Turn(usize),
}

impl Entry {
    /// Of a request of which nothing is here.
    pub fn new(transit: Arc<Transit>) -> Entry {
        Entry { transit, hold: Hold::nothing(), stage: Stage::Begins, place: None }
    }

    /// So much is here, of what was announced.
    ///
    /// # Errors
    ///
    /// 53200, retryable, where one that is slow or of unknown length has no room for more.
    pub fn grow(&mut self, announced: Option<usize>, arrived: usize) -> Result<Need> {
        let step = arrived.next_multiple_of(STEP_BYTES).min(announced.unwrap_or(usize::MAX));
        match self.stage {
            Stage::Promised => {}
            Stage::Grows => self.hold.reach(step)?,
            Stage::Begins if arrived <= SMALL_BYTES => {}
            Stage::Begins => {
                let (side, most) = match announced {
                    Some(bytes) if bytes <= MODEST_BYTES => (Side::Modest, MODEST_BYTES),
                    Some(_) | None => (Side::Trial, TRIAL_BYTES),
                };
                if self.hold.bytes() == 0 {
                    self.hold = self.transit.nothing_yet(side);
                }
                if arrived > most || self.hold.reach(step).is_err() {
                    return Ok(Need::Turn(announced.unwrap_or(arrived)));
                }
                self.place = None;
            }
        }
        Ok(Need::Nothing)
    }

    /// It has its room in the account now: for all of it, where its length is known.
    pub fn let_in(&mut self, announced: Option<usize>, hold: Hold) {
        self.hold = hold;
        self.stage = if announced.is_some() { Stage::Promised } else { Stage::Grows };
        self.place = None;
    }

    /// True until it is let in: nothing should be set aside for the length that it announced.
    pub fn begins(&self) -> bool {
        self.stage == Stage::Begins
    }

    /// It was looked for, and is not all here. What has no room counts by number.
    ///
    /// # Errors
    ///
    /// Overloaded, where too many are half here.
    pub fn is_late(&mut self) -> Result<()> {
        if self.place.is_none() && self.hold.bytes() == 0 {
            self.place = Some(self.transit.half_small()?);
        }
        Ok(())
    }

    /// It comes too slowly for the room it has: what it has not used is given back.
    pub fn slow_down(&mut self, arrived: usize) {
        match self.stage {
            Stage::Begins | Stage::Grows => {}
            Stage::Promised => {
                self.hold.shrink_to(arrived.next_multiple_of(STEP_BYTES));
                self.stage = Stage::Grows;
            }
        }
    }

    /// It is all here: its room, for whoever has it now. The next one of its call begins anew.
    pub fn whole(&mut self, bytes: usize) -> Hold {
        self.place = None;
        let mut hold = std::mem::take(&mut self.hold);
        hold.shrink_to(bytes);
        match std::mem::replace(&mut self.stage, Stage::Begins) {
            Stage::Begins if hold.bytes() > 0 => self.transit.take(Side::Request, bytes).unwrap_or(hold),
            Stage::Begins | Stage::Promised | Stage::Grows => hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::route::Deadline;
    use futures_util::FutureExt;
    use std::time::Duration;

    const MIB: usize = 1 << 20;

    /// Room for two requests of 16 MiB.
    fn transit() -> Arc<Transit> {
        Transit::new(48 * MIB, 16 * MIB, 16 * MIB)
    }

    fn let_in(transit: &Arc<Transit>, entry: &mut Entry, announced: Option<usize>, bytes: usize) -> Option<()> {
        let admitted = transit.admit(Side::Request, bytes, Deadline::after(Duration::ZERO));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let hold = runtime.block_on(async { admitted.now_or_never() })?.ok()?;
        entry.let_in(announced, hold);
        Some(())
    }

    #[test]
    fn announcements_take_no_room_from_others() {
        let transit = transit();
        let mut dripping: Vec<Entry> = (0..1000).map(|_| Entry::new(transit.clone())).collect();
        for entry in &mut dripping {
            assert_eq!(entry.grow(Some(16 * MIB), 10_000).unwrap(), Need::Nothing);
            entry.is_late().unwrap();
        }
        assert_eq!(transit.used(), 0);
        let mut modest = Entry::new(transit.clone());
        assert_eq!(modest.grow(Some(20_000), 20_000).unwrap(), Need::Nothing);
        assert_eq!(modest.whole(20_000).bytes(), 20_000);
    }

    #[test]
    fn modest_requests_pass_when_all_other_room_is_taken() {
        let transit = transit();
        let all = transit.take(Side::Request, transit.request_bytes_max()).unwrap();
        let mut trials: Vec<Entry> = (0..1000).map(|_| Entry::new(transit.clone())).collect();
        let waits = |need: &Need| matches!(need, Need::Turn(_));
        let needs: Vec<Need> =
            trials.iter_mut().map(|entry| entry.grow(Some(16 * MIB), TRIAL_BYTES).unwrap()).collect();
        assert!(needs.iter().any(waits) && !needs.iter().all(waits));
        let mut modest = Entry::new(transit.clone());
        assert_eq!(modest.grow(Some(MODEST_BYTES), 30_000).unwrap(), Need::Nothing);
        assert_eq!(modest.grow(Some(MODEST_BYTES), MODEST_BYTES).unwrap(), Need::Nothing);
        let whole = modest.whole(MODEST_BYTES);
        assert_eq!((whole.bytes(), transit.used()), (MODEST_BYTES, all.bytes()));
        drop(all);
        assert_eq!(transit.used(), 0);
        // One that runs is in the account where that has room, and keeps nobody from beginning.
        let mut modest = Entry::new(transit.clone());
        modest.grow(Some(MODEST_BYTES), MODEST_BYTES).unwrap();
        let _running = modest.whole(MODEST_BYTES);
        assert_eq!(transit.used(), MODEST_BYTES);
    }

    #[test]
    fn after_its_trial_a_request_has_room_for_all_of_it_until_it_is_slow() {
        let transit = transit();
        let announced = Some(16 * MIB);
        let mut entry = Entry::new(transit.clone());
        assert_eq!(entry.grow(announced, TRIAL_BYTES).unwrap(), Need::Nothing);
        assert_eq!(entry.grow(announced, TRIAL_BYTES + 1).unwrap(), Need::Turn(16 * MIB));
        let_in(&transit, &mut entry, announced, 16 * MIB).unwrap();
        let mut second = Entry::new(transit.clone());
        second.grow(announced, TRIAL_BYTES + 1).unwrap();
        let_in(&transit, &mut second, announced, 16 * MIB).unwrap();
        let mut third = Entry::new(transit.clone());
        assert!(let_in(&transit, &mut third, announced, 16 * MIB).is_none());
        entry.slow_down(TRIAL_BYTES + 1);
        assert_eq!(transit.used(), 16 * MIB + TRIAL_BYTES + STEP_BYTES);
        // It grows while there is room, and fails where others have it.
        assert_eq!(entry.grow(announced, MIB).unwrap(), Need::Nothing);
        assert_eq!(transit.used(), 17 * MIB);
        let others = transit.take(Side::Request, transit.request_bytes_max() - 17 * MIB).unwrap();
        assert!(entry.grow(announced, MIB + 1).unwrap_err().is_retryable());
        assert_eq!(second.grow(announced, 16 * MIB).unwrap(), Need::Nothing);
        drop((entry, second, others));
        assert_eq!(transit.used(), 0);
    }

    #[test]
    fn a_request_of_unknown_length_has_what_it_has_sent() {
        let transit = transit();
        let mut entry = Entry::new(transit.clone());
        assert_eq!(entry.grow(None, TRIAL_BYTES).unwrap(), Need::Nothing);
        let arrived = TRIAL_BYTES + 5;
        assert_eq!(entry.grow(None, arrived).unwrap(), Need::Turn(arrived));
        let_in(&transit, &mut entry, None, arrived).unwrap();
        entry.grow(None, MIB).unwrap();
        assert_eq!(transit.used(), MIB);
        assert_eq!(entry.whole(MIB - 7).bytes(), MIB - 7);
    }
}
