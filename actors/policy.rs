//! When to restart, and when to stop trying.
//!
//! A crash is usually a poisoned request: gone with it, so the first restart is at once. A crash that comes back is
//! a broken machine: waiting longer each time keeps it from eating the processor, and ending the process hands the
//! question to the next supervisor up (systemd, Docker).
//!
//! * Only an actor's own end counts; restarts in its wake do not.
//! * [`Policy::health`] of life after a restart makes the next one immediate again.
//! * More than [`Policy::failures_max`] in any [`Policy::window`], of all actors together, is [`Decision::GiveUp`].

use chronos::clock::Monotonic;
use std::collections::VecDeque;
use std::time::Duration;

/// The numbers. A value, so that tests can loosen them.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Failures in `window` that are still answered with a restart.
    pub failures_max: usize,
    /// How far back failures count.
    pub window: Duration,
    /// An actor that lived this long was well: its next restart is immediate.
    pub health: Duration,
    /// Wait before the second restart in a row; doubles with each further one.
    pub backoff_first: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            failures_max: 5,
            window: Duration::from_secs(10),
            health: Duration::from_secs(1),
            // Short against the five seconds that a client waits, long against the 200 us that a restart takes.
            backoff_first: Duration::from_millis(20),
            backoff_max: Duration::from_secs(2),
        }
    }
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start again after this wait.
    Restart {
        /// How long.
        after: Duration,
    },
    /// End the process.
    GiveUp,
}

/// Failures so far: those of all actors in the window.
#[derive(Debug)]
pub struct Failures {
    policy: Policy,
    recent: VecDeque<Monotonic>,
}

/// Failures of one actor in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streak {
    failures: u32,
}

impl Failures {
    /// None yet.
    pub fn new(policy: Policy) -> Failures {
        Failures { policy, recent: VecDeque::new() }
    }

    /// Counts one failure of an actor that had lived for `lived`. `chance` is any 64 random bits.
    pub fn decide(&mut self, streak: &mut Streak, lived: Duration, now: Monotonic, chance: u64) -> Decision {
        while self.recent.front().is_some_and(|&at| at + self.policy.window < now) {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.policy.failures_max {
            return Decision::GiveUp;
        }
        self.recent.push_back(now);
        if lived >= self.policy.health {
            streak.failures = 0;
        }
        let after = self.backoff(streak.failures, chance);
        streak.failures = streak.failures.saturating_add(1);
        Decision::Restart { after }
    }

    /// Nothing for the first failure in a row, then doubling, each shortened by up to a half: actors that fell
    /// together should not rise together.
    fn backoff(&self, failures_before: u32, chance: u64) -> Duration {
        if failures_before == 0 {
            return Duration::ZERO;
        }
        let doubled = self.policy.backoff_first.saturating_mul(1 << (failures_before - 1).min(20));
        let longest = doubled.min(self.policy.backoff_max);
        let share = (chance >> 11) as f64 / (1u64 << 53) as f64;
        longest.mul_f64(0.5 + share / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restart(decision: Decision) -> Duration {
        match decision {
            Decision::Restart { after } => after,
            Decision::GiveUp => panic!("gave up"),
        }
    }

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_wait_longer() {
        let (mut failures, mut streak) = (Failures::new(Policy::default()), Streak::default());
        let brief = Duration::from_millis(1);
        let waits: Vec<Duration> =
            (0..5).map(|i| restart(failures.decide(&mut streak, brief, Duration::from_secs(i), u64::MAX))).collect();
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits.windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
    }

    #[test]
    fn a_second_of_health_makes_the_next_restart_immediate() {
        let (mut failures, mut streak) = (Failures::new(Policy::default()), Streak::default());
        for second in 0..3 {
            restart(failures.decide(&mut streak, Duration::ZERO, Duration::from_secs(second), 7));
        }
        let healthy = failures.decide(&mut streak, Duration::from_secs(1), Duration::from_secs(4), 7);
        assert_eq!(healthy, Decision::Restart { after: Duration::ZERO });
    }

    #[test]
    fn the_sixth_failure_in_ten_seconds_ends_it() {
        let (mut failures, mut streak) = (Failures::new(Policy::default()), Streak::default());
        for second in 0..5 {
            restart(failures.decide(&mut streak, Duration::ZERO, Duration::from_secs(second), 0));
        }
        assert_eq!(failures.decide(&mut streak, Duration::ZERO, Duration::from_secs(9), 0), Decision::GiveUp);
    }

    #[test]
    fn failures_spread_over_time_never_end_it() {
        let (mut failures, mut streak) = (Failures::new(Policy::default()), Streak::default());
        for i in 0..1000 {
            restart(failures.decide(&mut streak, Duration::from_secs(3), Duration::from_secs(3 * i), i));
        }
    }

    #[test]
    fn the_wait_is_between_half_and_the_whole_and_never_above_the_longest() {
        let failures = Failures::new(Policy::default());
        for n in 1..80 {
            let (low, high) = (failures.backoff(n, 0), failures.backoff(n, u64::MAX));
            assert!(low * 2 >= high && high <= Policy::default().backoff_max, "{n}: {low:?} {high:?}");
        }
    }
}
