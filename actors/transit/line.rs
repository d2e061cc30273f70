//! Those who wait for room, counted: all of one side, and those of one connection.
//!
//! Streams of one HTTP/2 connection share its window. Those who wait leave their bytes in it, and must never fill it: those
//! who were let in would get nothing any more. So of one connection only as many wait as leave a part of it.

use crate::actors::incoming::reserve::Place;
use chronos::error::{Error, Kind, SqlState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A connection whose requests wait beside each other.
#[derive(Clone, Debug)]
pub struct Line {
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) waiting_max: usize,
    /// The reserved place that it has, where it has one.
    place: Option<Arc<Place>>,
    /// Who is at its other end, where that is known.
    from: Option<IpAddr>,
}

impl Line {
    /// A connection of whose requests so many may wait.
    pub fn new(waiting_max: usize) -> Line {
        Line { waiting: Arc::default(), waiting_max, place: None, from: None }
    }

    /// The same on a reserved place.
    pub fn on(self, place: Option<Arc<Place>>) -> Line {
        Line { place, ..self }
    }

    /// The same from a machine.
    pub fn coming_from(self, address: IpAddr) -> Line {
        Line { from: Some(address), ..self }
    }

    /// The machine at its other end, where that is known.
    pub fn machine(&self) -> Option<IpAddr> {
        self.from
    }

    /// The reserved place, where it has one.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_deref()
    }

    /// Why another one may not wait.
    pub(super) fn full(&self) -> Error {
        let message = format!(
            "limits.in_flight_bytes_max is reached, and {} requests of this connection wait for room already",
            self.waiting_max
        );
        Error::new(Kind::Overloaded, SqlState::OUT_OF_MEMORY, message)
            .hint("try again, or send fewer at once over one connection")
    }
}

/// One of those who wait.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    /// One more, below a limit.
    pub(super) fn enter(count: &AtomicUsize, max: usize) -> Option<Waiting<'_>> {
        enter(count, max).then(|| Waiting(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one more, below a limit.
pub(super) fn enter(count: &AtomicUsize, max: usize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < max).then_some(now + 1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::{Side, Transit};
    use super::*;
    use crate::actors::route::Deadline;
    use chronos::config::ENVELOPE_BYTES_MAX;
    use std::time::Duration;

    const MIB: usize = 1 << 20;

    fn on_a_runtime<F: Future>(work: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn of_one_connection_only_so_many_wait() {
        on_a_runtime(async {
            let transit = Transit::new(2 * MIB, MIB, MIB - ENVELOPE_BYTES_MAX as usize);
            let all = transit
                .admit(Side::Request, transit.request_bytes_max(), Deadline::after(Duration::from_millis(20)))
                .await
                .unwrap();
            let (line, other) = (Line::new(2), Line::new(2));
            let late = || Deadline::after(Duration::from_mins(1));
            let refused = async {
                tokio::task::yield_now().await;
                let refused = transit.admit_from(&line, MIB, late()).await.unwrap_err();
                assert_eq!((refused.kind(), refused.sqlstate()), (Kind::Overloaded, SqlState::OUT_OF_MEMORY));
                assert!(refused.is_retryable() && refused.to_string().contains("2 requests"), "{refused}");
                drop(all);
            };
            let ask = |line| transit.admit_from(line, MIB / 4, late());
            let (one, two, third, ()) = tokio::join!(ask(&line), ask(&line), ask(&other), refused);
            assert!(one.is_ok() && two.is_ok() && third.is_ok());
            assert_eq!(line.waiting.load(Ordering::Relaxed), 0);
        });
    }
}
