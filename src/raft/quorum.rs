//! Quorum arithmetic.

use crate::ids::LogIndex;

/// The highest position that at least `quorum` of the voters have, given what each has.
pub(super) fn agreed(positions: impl IntoIterator<Item = LogIndex>, quorum: usize) -> LogIndex {
    highest(positions, quorum).unwrap_or_default()
}

/// The greatest value that at least `quorum` of the given ones reach; none where there are fewer.
pub(super) fn highest<T: Ord + Copy>(values: impl IntoIterator<Item = T>, quorum: usize) -> Option<T> {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    quorum.checked_sub(1).and_then(|at| values.get(at).copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word by word: try every position.
    fn naive(positions: &[u64], quorum: usize) -> u64 {
        let reached = |position: u64| positions.iter().filter(|&&has| has >= position).count() >= quorum;
        (0..=positions.iter().copied().max().unwrap_or(0)).rev().find(|&position| reached(position)).unwrap_or(0)
    }

    proptest! {
        #[test]
        fn agreement_is_what_its_definition_says(positions in prop::collection::vec(0_u64..12, 1..8)) {
            let quorum = positions.len() / 2 + 1;
            let agreed = agreed(positions.iter().map(|&position| LogIndex(position)), quorum);
            prop_assert_eq!(agreed.0, naive(&positions, quorum));
        }
    }
}
