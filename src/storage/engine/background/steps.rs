//! Steps of the wall clock, for the log of the node: stamps never go back, but what rows expire by is this clock.
//!
//! * Behind the highest stamp, new rows are stamped as if no time passed, until the clock has caught up.
//! * A jump ahead is one against the clock that only counts: a machine that was idle for a week has not jumped.

use crate::clock::{Monotonic, Wall};
use std::time::Duration;

/// Further behind is more than what clocks that are kept in time differ by.
const BEHIND_MAX: Duration = Duration::from_mins(1);

/// Further ahead, and rows of a day expire at once.
const AHEAD_MAX: Duration = Duration::from_hours(24);

/// Told again after this time at the earliest.
const SAY_EVERY: Duration = Duration::from_mins(10);

/// What is odd about the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is so far behind the highest stamp.
    Behind(Duration),
    /// It went so much further than the time that passed.
    Ahead(Duration),
}

/// What was seen of the clocks.
#[derive(Default)]
pub(super) struct Steps {
    last: Option<(Wall, Monotonic)>,
    told: Option<Monotonic>,
}

impl Steps {
    /// Looks at both clocks and at the highest stamp; gives what is to be said about them, not too often.
    pub(super) fn look(&mut self, wall: Wall, now: Monotonic, highest: Wall) -> Option<Step> {
        let before = self.last.replace((wall, now));
        let ahead = before.and_then(|(before, then)| {
            let went = Duration::from_millis(wall.0.saturating_sub(before.0));
            went.checked_sub(now.saturating_sub(then)).filter(|ahead| *ahead > AHEAD_MAX)
        });
        if let Some(ahead) = ahead {
            // Each jump is news.
            return Some(Step::Ahead(ahead));
        }
        let behind = Duration::from_millis(highest.0.saturating_sub(wall.0));
        if behind <= BEHIND_MAX {
            self.told = None;
            return None;
        }
        if self.told.is_some_and(|told| now.saturating_sub(told) < SAY_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(Step::Behind(behind))
    }
}

impl Step {
    /// Writes it to the log.
    pub(super) fn warn(self) {
        match self {
            Step::Behind(by) => tracing::warn!(
                seconds = by.as_secs(),
                "the clock is behind the highest stamp: new rows are stamped later than it says, and expire later"
            ),
            Step::Ahead(by) => tracing::warn!(
                seconds = by.as_secs(),
                "the clock has jumped ahead: rows with a TTL expire by it, and stamps do not go back with it"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Wall = Wall(1_700_000_000_000);

    fn later(wall: Wall, seconds: u64) -> Wall {
        Wall(wall.0 + seconds * 1000)
    }

    #[test]
    fn a_clock_behind_the_stamps_is_told_now_and_then() {
        let (mut steps, mut now) = (Steps::default(), Monotonic::default());
        assert_eq!(steps.look(NOON, now, later(NOON, 60)), None, "a minute is allowed");
        let behind = Some(Step::Behind(Duration::from_secs(61)));
        let highest = later(NOON, 61);
        assert_eq!(steps.look(NOON, now, highest), behind);
        now += Duration::from_secs(599);
        assert_eq!(steps.look(NOON, now, highest), None, "once in ten minutes");
        now += Duration::from_secs(1);
        assert_eq!(steps.look(NOON, now, highest), behind);
        assert_eq!(steps.look(highest, now, highest), None);
        assert_eq!(steps.look(NOON, now, highest), behind, "it had caught up in between");
    }

    #[test]
    fn a_jump_ahead_is_told_and_time_that_passes_is_not() {
        let (mut steps, mut now) = (Steps::default(), Monotonic::default());
        assert_eq!(steps.look(NOON, now, NOON), None);
        now += Duration::from_hours(200);
        let next = later(NOON, 200 * 3600);
        assert_eq!(steps.look(next, now, NOON), None, "the machine was on all the while");
        let jumped = later(next, 25 * 3600);
        assert_eq!(steps.look(jumped, now, NOON), Some(Step::Ahead(Duration::from_hours(25))));
        assert_eq!(steps.look(later(jumped, 24 * 3600), now, NOON), None, "a day is allowed");
    }
}
