//! Waiting for other processes: by looking again, with a limit.

use chronos::clock::{Clock, Monotonic, SystemClock};
use std::time::Duration;

/// How long anything here may take before the test gives up: far above what it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait between two looks: short beside an election, and long enough to leave the processors to the nodes.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until there is what is waited for, and gives it; fails with what was seen last.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = SystemClock.monotonic() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(SystemClock.monotonic() < end, "waited for {PATIENCE:?} until {what}: {seen}"),
        }
        pause();
    }
}

/// The patience of a loop that looks in its own way.
pub struct Patience(Monotonic);

impl Patience {
    /// As long as anything here may take.
    pub fn new() -> Patience {
        Patience(SystemClock.monotonic() + PATIENCE)
    }

    /// Once more, after a pause; fails with what was seen where there is none left.
    pub fn spend(&self, seen: impl FnOnce() -> String) {
        assert!(SystemClock.monotonic() < self.0, "waited for {PATIENCE:?}: {}", seen());
        pause();
    }
}

/// Lets others work.
pub fn pause() {
    pause_for(PAUSE);
}

/// As long as something takes that a test stands in for.
pub fn pause_for(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "other processes are waited for, which nothing here is told of")]
    std::thread::sleep(time);
}
