//! Room that was taken, and who has it: it goes back when it is dropped, on every way that an error or a cancelled call takes.

use super::{SMALL_BYTES, Side, Transit};
use chronos::error::Result;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Room that something on its way has. Dropping it gives the room back.
#[derive(Debug)]
pub struct Hold {
    /// None where it holds nothing and never will.
    transit: Option<Arc<Transit>>,
    side: Side,
    bytes: usize,
}

impl Hold {
    /// What something small holds.
    pub const fn nothing() -> Hold {
        Hold { transit: None, side: Side::Request, bytes: 0 }
    }

    /// Of one side, for so many bytes that were taken.
    pub(super) fn of(transit: &Arc<Transit>, side: Side, bytes: usize) -> Hold {
        Hold { transit: Some(transit.clone()), side, bytes }
    }

    /// Takes what is missing to so many bytes in all; small amounts are free.
    ///
    /// # Errors
    ///
    /// 53200, retryable, where there is no room.
    pub fn reach(&mut self, bytes: usize) -> Result<()> {
        let Some(transit) = self.transit.as_ref().filter(|_| bytes > SMALL_BYTES.max(self.bytes)) else {
            return Ok(());
        };
        if !transit.add(self.side, bytes - self.bytes) {
            return Err(transit.full(self.side));
        }
        self.bytes = bytes;
        Ok(())
    }

    /// What it has.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what is above so many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        if bytes < self.bytes
            && let Some(transit) = &self.transit
        {
            transit.give(self.side, self.bytes - bytes);
            self.bytes = bytes;
        }
    }
}

impl Default for Hold {
    fn default() -> Hold {
        Hold::nothing()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// The place of a small request that is half here.
#[derive(Debug)]
pub struct SmallPlace(Arc<Transit>);

impl SmallPlace {
    /// One that was counted.
    pub(super) fn of(transit: &Arc<Transit>) -> SmallPlace {
        SmallPlace(transit.clone())
    }
}

impl Drop for SmallPlace {
    fn drop(&mut self) {
        self.0.small.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_small_answer_is_free_and_a_larger_one_counts_whole() {
        let transit = Transit::new(2 * MIB, MIB / 2, MIB);
        let mut answer = transit.answer();
        answer.reach(SMALL_BYTES).unwrap();
        assert_eq!(transit.used(), 0);
        answer.reach(SMALL_BYTES + 1).unwrap();
        assert_eq!(transit.used(), SMALL_BYTES + 1);
        answer.shrink_to(7);
        assert_eq!(transit.used(), 7);
        drop(answer);
        assert_eq!(transit.used(), 0);
    }
}
