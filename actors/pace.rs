//! The pace at which a request comes, and what becomes of one that is slow.
//!
//! * A request up to 16 KiB may be silent for [`SILENCE_MAX`]. Of a larger one [`CRUMB_BYTES`] come in that time: at less,
//!   not even 16 KiB would come within the time that a statement has by default.
//! * All of it comes within the time that a statement has.
//! * One that came slower for [`STRIDE`] than it must to be here in time is called slow. Room that it does not use is for
//!   others then (entry.rs); a far client whose first second is slow, as TCP begins, is not sent away for it.
//! * Who has waited for room for [`BRIEF`] has filled its socket meanwhile, if it has anything to send. So it is looked at
//!   after as short a time: a queue of those who announce and send nothing passes in seconds.

use crate::actors::transit::SMALL_BYTES;
use chronos::error::{Error, SqlState};
use std::time::Duration;
use tokio::time::Instant;

/// How long a request may be silent before it is whole: on the worst line, the time that a lost packet takes.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What comes of a large request within [`SILENCE_MAX`] at least.
const CRUMB_BYTES: usize = 4 << 10;

/// How often the pace is looked at: long enough for a packet that is sent once more.
const STRIDE: Duration = Duration::from_millis(500);

/// The first such look after a wait for room: many times what bytes need that are in the socket already.
const BRIEF: Duration = Duration::from_millis(100);

/// What a look at the pace finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gait {
    /// It comes, or has time left to begin.
    Steady,
    /// At this pace it will not be here in time.
    Slow,
    /// It has had its time.
    Lost,
}

/// The pace of one request.
#[derive(Debug)]
pub struct Pace {
    limit: Duration,
    until: Instant,
    announced: Option<usize>,
    arrived: usize,
    /// The silence counts from here.
    heard: Mark,
    /// The stride counts from here.
    stride: Mark,
    /// How long the present one is.
    stride_time: Duration,
}

/// How much was here, when.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    arrived: usize,
}

impl Pace {
    /// Of a request that has so much time from now on, and of which nothing is here.
    pub fn begin(limit: Duration, now: Instant) -> Pace {
        let mark = Mark { at: now, arrived: 0 };
        Pace { limit, until: now + limit, announced: None, arrived: 0, heard: mark, stride: mark, stride_time: STRIDE }
    }

    /// So much of it is here by now.
    pub fn came(&mut self, announced: Option<usize>, arrived: usize, now: Instant) {
        let is_next = arrived < self.arrived;
        (self.announced, self.arrived) = (announced, arrived);
        if is_next {
            // Another one of its call has begun.
            self.resume(now, now);
        }
        let is_small = announced.unwrap_or(arrived) <= SMALL_BYTES;
        if is_small || arrived - self.heard.arrived >= CRUMB_BYTES {
            self.heard = Mark { at: now, arrived };
        }
    }

    /// It was not read since then; that was not its fault.
    pub fn resume(&mut self, since: Instant, now: Instant) {
        let mark = Mark { at: now, arrived: self.arrived };
        (self.heard, self.stride) = (mark, mark);
        self.stride_time = if now - since >= BRIEF { BRIEF } else { STRIDE };
    }

    /// When to look again, whatever comes until then.
    pub fn next_look(&self) -> Instant {
        self.until.min(self.heard.at + SILENCE_MAX).min(self.stride.at + self.stride_time)
    }

    /// Looks at it, at that time.
    pub fn look(&mut self, now: Instant) -> Gait {
        if now >= self.until.min(self.heard.at + SILENCE_MAX) {
            return Gait::Lost;
        }
        if now < self.stride.at + self.stride_time {
            return Gait::Steady;
        }
        let came = (self.arrived - self.stride.arrived) as u128;
        let due = self.announced.unwrap_or(0) as u128 * (now - self.stride.at).as_millis();
        self.stride = Mark { at: now, arrived: self.arrived };
        self.stride_time = STRIDE;
        if came * self.limit.as_millis() < due { Gait::Slow } else { Gait::Steady }
    }
}

/// Why a request that did not come in time is given up.
pub fn too_slow(limit: Duration) -> Error {
    let silence = SILENCE_MAX.min(limit);
    let message = format!(
        "the request did not arrive: nothing of it came for {silence:?}, or of a large one less than {CRUMB_BYTES} \
         bytes, or not all of it within limits.statement_timeout ({limit:?})"
    );
    Error::limit(SqlState::QUERY_CANCELED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);
    const MIB: usize = 1 << 20;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_small_request_is_lost_when_it_is_silent_and_a_large_one_when_it_drips() {
        let start = Instant::now();
        for (announced, outcome) in [(1000, Gait::Steady), (16 * MIB, Gait::Lost)] {
            let mut pace = Pace::begin(LIMIT, start);
            for second in 1..10 {
                pace.came(Some(announced), second as usize * 100, start + seconds(second));
            }
            let gait = pace.look(start + SILENCE_MAX);
            assert!(gait == outcome || (gait, outcome) == (Gait::Slow, Gait::Steady), "{announced}: {gait:?}");
            assert_eq!(pace.look(start + seconds(9) + SILENCE_MAX), Gait::Lost);
        }
    }

    #[test]
    fn a_request_that_would_be_late_is_slow_and_one_in_time_is_not() {
        let start = Instant::now();
        for (each, gait) in [(MIB / 4, Gait::Slow), (MIB / 2, Gait::Steady)] {
            let mut pace = Pace::begin(LIMIT, start);
            for stride in 1..20_u32 {
                let now = start + STRIDE * stride;
                pace.came(Some(20 * MIB), each * stride as usize, now);
                assert_eq!(pace.next_look(), now);
                assert_eq!(pace.look(now), gait, "after {stride} strides");
                assert!(pace.next_look() > now);
            }
            assert_eq!(pace.look(start + LIMIT), Gait::Lost, "it has no more time than a statement");
        }
    }

    #[test]
    fn what_was_not_read_is_not_late() {
        let start = Instant::now();
        let mut pace = Pace::begin(LIMIT, start);
        pace.came(Some(MIB), 100_000, start);
        pace.resume(start, start + seconds(20));
        assert_eq!(pace.look(start + seconds(20)), Gait::Steady);
        // It has had time to fill its socket, and is looked at soon: but for once.
        let soon = start + seconds(20) + BRIEF;
        assert_eq!(pace.next_look(), soon);
        let mut empty = Pace { ..pace };
        assert_eq!(empty.look(soon), Gait::Slow);
        pace.came(Some(MIB), 200_000, start + seconds(20));
        assert_eq!(pace.look(soon), Gait::Steady);
        assert_eq!(pace.next_look(), soon + STRIDE);
        pace.resume(soon, soon);
        assert_eq!(pace.next_look(), soon + STRIDE, "one that has not waited");
    }
}
