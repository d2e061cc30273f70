//! Hybrid logical clock (Kulkarni, Demirbas, Madappa, Avva, Leone: "Logical Physical Clocks", 2014).
//!
//! A stamp is physical time with a counter below it, so stamps of one group are ordered like its log and still say when.
//!
//! ```text
//!   63                          16 15           0
//!  +------------------------------+--------------+
//!  | milliseconds since 1970      | counter      |   a full counter carries into the milliseconds
//!  +------------------------------+--------------+
//! ```
//!
//! * A clock never gives the same stamp twice and never a lower one, whatever the wall clock does.
//! * Its high-water mark is recovered from the state record and the log, so a restart does not go back either.
//! * Between nodes the origin uid breaks ties; it is not part of the 64 bits.

use crate::clock::Wall;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A packed stamp: sorts, compares and compresses as one integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

/// Bits below the milliseconds.
const COUNTER_BITS: u32 = 16;

impl Timestamp {
    /// The first stamp of a millisecond.
    pub fn at(wall: Wall) -> Timestamp {
        Timestamp(wall.0 << COUNTER_BITS)
    }

    /// The physical part.
    pub fn wall(self) -> Wall {
        Wall(self.0 >> COUNTER_BITS)
    }

    /// The counter within the millisecond.
    pub fn counter(self) -> u16 {
        self.0 as u16
    }

    /// The next stamp; a full counter carries into the milliseconds.
    #[must_use]
    pub fn next(self) -> Timestamp {
        Timestamp(self.0 + 1)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall().0, self.counter())
    }
}

/// The clock of one node: the highest stamp given or seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hlc {
    high: Timestamp,
}

impl Hlc {
    /// A clock that goes on above `high`, the mark recovered from disk.
    pub fn recover(high: Timestamp) -> Hlc {
        Hlc { high }
    }

    /// The highest stamp given or seen.
    pub fn high(&self) -> Timestamp {
        self.high
    }

    /// A new stamp, strictly above all before it.
    pub fn tick(&mut self, wall: Wall) -> Timestamp {
        self.high = Timestamp::at(wall).max(self.high.next());
        self.high
    }

    /// Takes note of a stamp seen elsewhere: every later `tick` is above it.
    pub fn merge(&mut self, seen: Timestamp) {
        self.high = self.high.max(seen);
    }
}
