//! The nearest known name, for `did you mean "…"`.
//!
//! Damerau-Levenshtein distance with adjacent swaps (the optimal string alignment form), which is what fingers do.
//! A name is near where at most a third of it is wrong; further off a guess only distracts.

/// Names longer than this are not compared: the longest allowed identifier, and the table stays small.
const BYTES_MAX: usize = 63;

/// The candidate closest to `name`, if one is close. Of equally close ones the first.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > BYTES_MAX {
        return None;
    }
    let lower = name.to_lowercase();
    let allowed = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= BYTES_MAX)
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|&(distance, candidate)| distance <= allowed && distance < candidate.chars().count())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// The sentence for an error's hint.
pub fn hint<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, candidates).map(|candidate| format!("did you mean \"{candidate}\"?"))
}

/// How many insertions, deletions, replacements and swaps of neighbours turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_name() {
        let names = ["temperature", "humidity", "id"];
        assert_eq!(nearest("temprature", names), Some("temperature"));
        assert_eq!(nearest("TEMPERATURE", names), Some("temperature"));
        assert_eq!(nearest("humidtiy", names), Some("humidity"));
        assert_eq!(nearest("di", names), Some("id"));
    }

    #[test]
    fn a_different_word_finds_nothing() {
        assert_eq!(nearest("pressure", ["temperature", "humidity", "id"]), None);
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(nearest("", ["id"]), None);
    }
}
