//! How long work that failed is left alone. Trying again costs: a merge that meets a damaged block reads its inputs anew.

use crate::clock::Monotonic;
use crate::error::Result;
use std::time::Duration;

/// The first pause: as often as an idle background thread looks for work.
const FIRST: Duration = Duration::from_secs(5);

/// Doublings of it at most: some five minutes, in which an operator who has made room does not wait long, and within
/// which reading 32 MiB in vain does not count.
const DOUBLINGS_MAX: u32 = 6;

/// The pause after a failure; longer after each one that follows.
#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Monotonic,
}

impl Backoff {
    /// True where it may be tried again, or for the first time.
    pub(super) fn is_over(&self, now: Monotonic) -> bool {
        self.failures == 0 || now >= self.until
    }

    /// True where the last try failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Notes how a try ended.
    pub(super) fn note<T>(&mut self, now: Monotonic, what: &str, outcome: &Result<T>) {
        let Err(error) = outcome else {
            self.failures = 0;
            return;
        };
        let pause = FIRST * (1 << self.failures.min(DOUBLINGS_MAX));
        self.failures = self.failures.saturating_add(1);
        self.until = now + pause;
        tracing::warn!(%error, seconds = pause.as_secs(), "{what} failed and will be tried again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_pause_doubles_up_to_some_minutes_and_ends_with_success() {
        let (mut backoff, mut now) = (Backoff::default(), Monotonic::default());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert!(backoff.is_over(now));
            backoff.note::<()>(now, "work", &Err(Error::internal("no")));
            let from = now;
            while !backoff.is_over(now) {
                now += Duration::from_secs(1);
            }
            pauses.push(now.saturating_sub(from).as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 320, 320]);
        backoff.note(now, "work", &Ok(()));
        assert!(!backoff.is_failing() && backoff.is_over(Monotonic::default()));
    }
}
