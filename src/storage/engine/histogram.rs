//! A histogram of durations in a fixed number of counters.
//!
//! Disk calls take from microseconds to minutes, and what matters is their tail. So the buckets double: 24 of them reach
//! from 16 microseconds to more than two minutes, each figure being off by a factor of two at most.
//!
//! * Recording is three additions without a lock; a reader may see a duration counted and not yet summed.
//! * Every duration is in exactly one bucket; the last one has no upper end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper end of the first bucket: no fdatasync of ours was seen to take less.
const FIRST_MICROS: u64 = 16;

/// Buckets with an upper end: the last of them, 134 s, is beyond what `disk_stall_max` lets any call take by default.
const BUCKETS: usize = 24;

/// Durations, counted by their size.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS + 1],
    sum_micros: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Upper end of each bucket (inclusive) and how many durations were in it or below, ascending. Those above the last
    /// end are in `count` alone.
    pub buckets: Vec<(Duration, u64)>,
    /// All durations.
    pub count: u64,
    /// Their sum.
    pub sum: Duration,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (0..BUCKETS).find(|&bucket| micros <= upper_micros(bucket)).unwrap_or(BUCKETS);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn distribution(&self) -> Distribution {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BUCKETS);
        for (bucket, counter) in self.counts.iter().enumerate() {
            count += counter.load(Ordering::Relaxed);
            if bucket < BUCKETS {
                buckets.push((Duration::from_micros(upper_micros(bucket)), count));
            }
        }
        Distribution { buckets, count, sum: Duration::from_micros(self.sum_micros.load(Ordering::Relaxed)) }
    }
}

impl Distribution {
    /// This and another one together: where the same part has counted in an earlier life.
    #[must_use]
    pub fn plus(&self, other: &Distribution) -> Distribution {
        // What nobody has counted yet has no buckets either.
        let buckets = match (self.buckets.is_empty(), other.buckets.is_empty()) {
            (true, _) => other.buckets.clone(),
            (false, true) => self.buckets.clone(),
            (false, false) => self.buckets.iter().zip(&other.buckets).map(|(a, b)| (a.0, a.1 + b.1)).collect(),
        };
        Distribution { buckets, count: self.count + other.count, sum: self.sum + other.sum }
    }
}

fn upper_micros(bucket: usize) -> u64 {
    FIRST_MICROS << bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_the_bucket_whose_end_it_does_not_exceed() {
        let histogram = Histogram::default();
        for micros in [0, 16, 17, 100_000, u64::from(u32::MAX)] {
            histogram.record(Duration::from_micros(micros));
        }
        let found = histogram.distribution();
        assert_eq!(found.count, 5);
        assert_eq!(found.sum, Duration::from_micros(100_033 + u64::from(u32::MAX)));
        let below =
            |micros: u64| found.buckets.iter().find(|(end, _)| end.as_micros() >= u128::from(micros)).unwrap().1;
        assert_eq!((below(16), below(17), below(100_000)), (2, 3, 4));
        assert_eq!(found.buckets.last().unwrap().1, 4, "what is above the last end is in the count alone");
        let both = found.plus(&found);
        assert_eq!((both.count, both.sum, both.buckets[0]), (10, 2 * found.sum, (Duration::from_micros(16), 4)));
        assert_eq!(Distribution::default().plus(&found), found);
        assert_eq!(found.plus(&Distribution::default()), found);
    }
}
