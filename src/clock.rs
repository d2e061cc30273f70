//! Time and chance enter here and nowhere else.
//!
//! Everything below takes a [`Clock`] or a reading of it, so that a test can replay a year in a second and a
//! simulation is a function of its seed.
//!
//! * [`Clock::wall`] may jump either way; only [`crate::hlc`] makes order of it.
//! * [`Clock::monotonic`] counts suspended time too (`CLOCK_BOOTTIME`), so that a lease does not outlive a closed lid.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Milliseconds of wall time since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Wall(pub u64);

/// Time since some fixed point before the process began.
pub type Monotonic = Duration;

/// Where a component reads the time.
pub trait Clock: Send + Sync {
    /// The wall clock, as the machine believes it.
    fn wall(&self) -> Wall;
    /// Time that never goes back and counts suspends.
    fn monotonic(&self) -> Monotonic;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Wall {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
        let now = std::time::SystemTime::now();
        // A clock set before 1970 reads as 1970: the hybrid clock then goes on from its high-water mark.
        Wall(now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
    }

    fn monotonic(&self) -> Monotonic {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

/// A clock that a test moves by hand; both readings advance together unless set apart.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that reads `wall`.
    pub fn new(wall: Wall) -> ManualClock {
        ManualClock { wall_ms: AtomicU64::new(wall.0), monotonic_ms: AtomicU64::new(0) }
    }

    /// Moves both readings forward.
    pub fn advance(&self, by: Duration) {
        self.wall_ms.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
        self.monotonic_ms.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }

    /// Steps the wall clock alone, as an operator or NTP would.
    pub fn set_wall(&self, wall: Wall) {
        self.wall_ms.store(wall.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Wall {
        Wall(self.wall_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Monotonic {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}

/// 64 bits from the operating system, for identities and seeds.
pub fn random_u64() -> crate::Result<u64> {
    getrandom::u64().map_err(|error| crate::Error::internal(format!("cannot draw random bits: {error}")))
}

/// 128 bits from the operating system.
pub fn random_u128() -> crate::Result<u128> {
    Ok(u128::from(random_u64()?) << 64 | u128::from(random_u64()?))
}
