//! Batches that read and run on another node, in turn.
//!
//! Each takes the longest answer there is before it is handed on, and has it until that node has answered. A slow leader
//! would soon have all the room of this node's own answers, with nothing in it.

use super::line::Waiting;
use super::{Side, Transit, WAITING_MAX};
use crate::actors::route::Deadline;
use chronos::error::Result;
use std::sync::atomic::AtomicUsize;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The turn, and how many wait for it.
#[derive(Debug)]
pub(super) struct Away {
    turn: Semaphore,
    waiting: AtomicUsize,
}

/// The turn of a batch. Dropping it lets the next one go.
#[derive(Debug)]
pub struct AwayTurn<'a> {
    _turn: SemaphorePermit<'a>,
}

impl Default for Away {
    fn default() -> Away {
        Away { turn: Semaphore::new(1), waiting: AtomicUsize::new(0) }
    }
}

impl Transit {
    /// The turn to take room for an answer from another node, and to wait for that answer; waited for at most until
    /// `deadline`.
    ///
    /// # Errors
    ///
    /// 53200, retryable, where it does not come in time, or too many wait for it.
    pub async fn turn_away(&self, deadline: Deadline) -> Result<AwayTurn<'_>> {
        if let Ok(turn) = self.away.turn.try_acquire() {
            return Ok(AwayTurn { _turn: turn });
        }
        let _waiting = Waiting::enter(&self.away.waiting, WAITING_MAX).ok_or_else(|| self.full(Side::Answer))?;
        match tokio::time::timeout_at(deadline.instant(), self.away.turn.acquire()).await {
            Ok(Ok(turn)) => Ok(AwayTurn { _turn: turn }),
            // It is never closed; and who waits too long is told the same.
            Ok(Err(_)) | Err(_) => Err(self.full(Side::Answer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos::error::SqlState;
    use futures_util::FutureExt;
    use std::time::Duration;

    #[test]
    fn one_has_the_turn_and_the_next_gets_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let transit = Transit::new(4 << 20, 1 << 20, 1 << 20);
            let first = transit.turn_away(Deadline::after(Duration::ZERO)).await.unwrap();
            let late = transit.turn_away(Deadline::after(Duration::from_millis(5))).await.unwrap_err();
            assert!(late.is_retryable() && late.sqlstate() == SqlState::OUT_OF_MEMORY, "{late}");
            let later = || Deadline::after(Duration::from_mins(1));
            let mut wait: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(transit.turn_away(later()))).collect();
            assert!(wait.iter_mut().all(|one| one.now_or_never().is_none()));
            transit.turn_away(later()).now_or_never().expect("too many wait").unwrap_err();
            drop(first);
            wait.remove(0).await.unwrap();
        });
    }
}
