//! Latencies in buckets of about 1.6 % width, whatever their number.
//!
//! ```text
//! bucket = (powers of two above 32 us) * 64 + the six bits below the leading one
//! ```

use std::time::Duration;

/// Bits of a value that count below its leading one.
const STEP_BITS: usize = 6;

/// Buckets a power of two.
const STEPS: usize = 1 << STEP_BITS;

/// Powers of two: up to 2^37 microseconds, more than a day.
const POWERS: usize = 32;

/// Counts of latencies.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; STEPS * POWERS], total: 0, longest: Duration::ZERO }
    }
}

fn bucket(micros: u64) -> usize {
    if micros < STEPS as u64 {
        return micros as usize;
    }
    let shift = 63 - micros.leading_zeros() as usize - STEP_BITS;
    let step = (micros >> shift) as usize - STEPS;
    ((shift + 1) * STEPS + step).min(STEPS * POWERS - 1)
}

/// The largest value that falls into a bucket.
fn upper(bucket: usize) -> u64 {
    match bucket / STEPS {
        0 => bucket as u64,
        power => (((STEPS + bucket % STEPS + 1) as u64) << (power - 1)) - 1,
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, took: Duration) {
        self.counts[bucket(took.as_micros() as u64)] += 1;
        self.total += 1;
        self.longest = self.longest.max(took);
    }

    /// Counts all of another.
    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }

    /// How many.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The longest, exactly.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The latency that the given share of all did not exceed.
    pub fn percentile(&self, share: f64) -> Duration {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(upper(i)).min(self.longest);
            }
        }
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_a_bucket_that_holds_it() {
        let mut last = 0;
        for micros in (0..10_000).chain((10_000..10_000_000).step_by(997)) {
            let at = bucket(micros);
            assert!(at >= last && upper(at) >= micros, "{micros}");
            assert!(upper(at) - micros <= micros / 60, "{micros} in a bucket up to {}", upper(at));
            last = at;
        }
    }

    #[test]
    fn percentiles_are_within_a_bucket_of_the_truth() {
        let mut histogram = Histogram::default();
        (1..=10_000).for_each(|micros| histogram.add(Duration::from_micros(micros)));
        for share in [0.5, 0.99, 0.999] {
            let found = histogram.percentile(share).as_micros() as f64;
            assert!((found / (share * 10_000.0) - 1.0).abs() < 0.02, "{share}: {found}");
        }
        assert_eq!(histogram.percentile(1.0), Duration::from_millis(10));
        assert_eq!(Histogram::default().percentile(0.5), Duration::ZERO);
    }
}
