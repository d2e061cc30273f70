//! Sums and extremes of slices: the loops below every aggregate.
//!
//! A FLOAT sum carries what each addition rounded away (Knuth's `TwoSum`; Neumaier, "Rundungsfehleranalyse einiger
//! Verfahren zur Summation endlicher Summen", 1974). So the result is nearly always the exact sum rounded once, and does
//! not depend on how rows were split into batches, runs and lanes. Eight lanes keep the processor busy: one alone would
//! wait for each addition.

use crate::sql::value::order_floats;
use std::cmp::Ordering;

const LANES: usize = 8;

/// A sum and what it lost by rounding.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FloatSum {
    sum: f64,
    lost: f64,
    /// Some value was an infinity or NaN: then the sum may be one, else it overflowed.
    special: bool,
}

impl FloatSum {
    /// Adds one value.
    pub(super) fn add(&mut self, value: f64) {
        let (sum, lost) = two_sum(self.sum, value);
        self.sum = sum;
        self.lost += lost;
        self.special |= !value.is_finite();
    }

    /// Adds a value so many times.
    pub(super) fn add_repeated(&mut self, value: f64, times: usize) {
        let times = times as f64;
        let product = value * times;
        // A product that overflows is an overflow, not an infinity that came in.
        let special = self.special | !value.is_finite();
        self.add(product);
        // The fused operation rounds once, at its end: so this is what the product lost.
        self.lost += value.mul_add(times, -product);
        self.special = special;
    }

    /// Adds every value of a slice.
    pub(super) fn add_all(&mut self, values: &[f64]) {
        let mut sums = [0.0; LANES];
        let mut losses = [0.0; LANES];
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                let (sum, lost) = two_sum(sums[lane], chunk[lane]);
                sums[lane] = sum;
                losses[lane] += lost;
            }
        }
        for (lane, &value) in rest.iter().enumerate() {
            let (sum, lost) = two_sum(sums[lane], value);
            sums[lane] = sum;
            losses[lane] += lost;
        }
        let mut part = FloatSum::default();
        for lane in 0..LANES {
            let (sum, lost) = two_sum(part.sum, sums[lane]);
            part.sum = sum;
            part.lost += lost + losses[lane];
        }
        // Looked for only where it can be: an infinity or NaN never leaves a sum again.
        part.special = !part.sum.is_finite() && values.iter().any(|value| !value.is_finite());
        let (sum, lost) = two_sum(self.sum, part.sum);
        self.sum = sum;
        self.lost += lost + part.lost;
        self.special |= part.special;
    }

    /// The sum; none where finite values overflowed.
    pub(super) fn value(&self) -> Option<f64> {
        if self.sum.is_finite() {
            return Some(self.sum + self.lost);
        }
        self.special.then_some(self.sum)
    }
}

/// The rounded sum and the exact rest. Of infinities the rest is NaN, and never looked at.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// The sum of integers; 2^64 of them fit.
pub(super) fn sum_integers(values: &[i64]) -> i128 {
    values.iter().map(|&value| i128::from(value)).sum()
}

/// Which end of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Least,
    Greatest,
}

impl End {
    /// True where a candidate with this order to the value at hand takes its place.
    pub(super) fn prefers(self, order: Ordering) -> bool {
        match self {
            End::Least => order == Ordering::Less,
            End::Greatest => order == Ordering::Greater,
        }
    }

    /// The extreme of a slice; none of an empty one.
    pub(super) fn of_integers(self, values: &[i64]) -> Option<i64> {
        match self {
            End::Least => values.iter().copied().min(),
            End::Greatest => values.iter().copied().max(),
        }
    }

    /// The extreme of a slice; none of an empty one.
    pub(super) fn of_floats(self, values: &[f64]) -> Option<f64> {
        let start = match self {
            End::Least => f64::INFINITY,
            End::Greatest => f64::NEG_INFINITY,
        };
        let better = |candidate: f64, held: f64| match self {
            End::Least => candidate < held,
            End::Greatest => candidate > held,
        };
        let mut held = [start; LANES];
        let mut nan = [false; LANES];
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                let value = chunk[lane];
                held[lane] = if better(value, held[lane]) { value } else { held[lane] };
                nan[lane] |= value.is_nan();
            }
        }
        for (lane, &value) in rest.iter().enumerate() {
            held[lane] = if better(value, held[lane]) { value } else { held[lane] };
            nan[lane] |= value.is_nan();
        }
        // NaN is above all, and rare: the slow way knows the order.
        if nan.contains(&true) {
            return values.iter().copied().reduce(|a, b| if self.prefers(order_floats(b, a)) { b } else { a });
        }
        if values.is_empty() {
            return None;
        }
        held.into_iter().reduce(|a, b| if better(b, a) { b } else { a })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_rounding_loses_is_carried() {
        let mut sum = FloatSum::default();
        sum.add_all(&[1e100, 1.0, -1e100]);
        assert_eq!(sum.value(), Some(1.0));
        let mut tenths = FloatSum::default();
        (0..1000).for_each(|_| tenths.add(0.1));
        let mut repeated = FloatSum::default();
        repeated.add_repeated(0.1, 1000);
        assert_eq!((tenths.value(), repeated.value()), (Some(100.0), Some(100.0)));
    }

    #[test]
    fn an_overflow_is_told_from_an_infinity() {
        let sum = |values: &[f64]| {
            let mut sum = FloatSum::default();
            sum.add_all(values);
            sum.value()
        };
        assert_eq!(sum(&[f64::MAX, f64::MAX]), None);
        assert_eq!(sum(&[f64::MAX, f64::INFINITY]), Some(f64::INFINITY));
        assert!(sum(&[f64::NEG_INFINITY, f64::INFINITY]).unwrap().is_nan());
        let mut repeated = FloatSum::default();
        repeated.add_repeated(f64::MAX, 2);
        assert_eq!(repeated.value(), None);
        let mut repeated = FloatSum::default();
        repeated.add_repeated(f64::INFINITY, 2);
        assert_eq!(repeated.value(), Some(f64::INFINITY));
    }

    proptest! {
        #[test]
        fn a_sum_does_not_depend_on_how_it_is_split(
            values in proptest::collection::vec(-1e9f64..1e9, 0..300), at in 0usize..300,
        ) {
            let (mut whole, mut parts) = (FloatSum::default(), FloatSum::default());
            whole.add_all(&values);
            let (a, b) = values.split_at(at.min(values.len()));
            parts.add_all(b);
            a.iter().for_each(|&value| parts.add(value));
            prop_assert_eq!(whole.value(), parts.value());
        }

        #[test]
        fn extremes_follow_the_order_of_floats(
            values in proptest::collection::vec(prop_oneof![any::<f64>(), Just(f64::NAN), Just(0.0), Just(-0.0)], 0..40),
        ) {
            let greatest = values.iter().copied().reduce(|a, b| if order_floats(b, a).is_gt() { b } else { a });
            let least = values.iter().copied().reduce(|a, b| if order_floats(b, a).is_lt() { b } else { a });
            let same = |a: Option<f64>, b: Option<f64>| match (a, b) {
                (Some(a), Some(b)) => order_floats(a, b).is_eq(),
                (a, b) => a.is_none() && b.is_none(),
            };
            prop_assert!(same(End::Greatest.of_floats(&values), greatest));
            prop_assert!(same(End::Least.of_floats(&values), least));
        }
    }
}
