//! The terms of the log: which entry has which, without the entries.
//!
//! Raft asks for the term of an old entry with every append it checks. Terms only rise along the log, so a run of
//! equal terms is one pair, and the pairs are as many as there were leaders, not entries.
//!
//! * `previous.index` <= `last`; every index in between has a term, and so has `previous` itself.
//! * Runs are ascending in index and term; the first begins at `previous.index + 1` or below.

use super::Position;
use crate::ids::{LogIndex, Term};

/// Terms by index.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    previous: Position,
    /// (first index, term) of each run.
    runs: Vec<(LogIndex, Term)>,
    last: LogIndex,
}

impl Terms {
    /// A log that has nothing after `previous`.
    pub fn after(previous: Position) -> Terms {
        Terms { previous, runs: Vec::new(), last: previous.index }
    }

    /// The position before the first entry.
    pub fn previous(&self) -> Position {
        self.previous
    }

    /// The last position; the one before the first entry where there is none.
    pub fn last(&self) -> Position {
        Position { index: self.last, term: self.term(self.last).unwrap_or(self.previous.term) }
    }

    /// The term of an entry, or of the position before the first.
    pub fn term(&self, index: LogIndex) -> Option<Term> {
        if index == self.previous.index {
            return Some(self.previous.term);
        }
        if index < self.previous.index || index > self.last {
            return None;
        }
        let run = self.runs.partition_point(|(first, _)| *first <= index);
        self.runs.get(run.checked_sub(1)?).map(|(_, term)| *term)
    }

    /// Adds the next entry; false where its term is below the last one, which no log may hold.
    #[must_use]
    pub fn push(&mut self, term: Term) -> bool {
        let newest = self.last().term;
        self.last = self.last.next();
        if self.runs.is_empty() || term > newest {
            self.runs.push((self.last, term));
        }
        term >= newest
    }

    /// Forgets everything after `last`, which is not before `previous`.
    pub fn truncate(&mut self, last: LogIndex) {
        self.last = last.max(self.previous.index).min(self.last);
        while self.runs.last().is_some_and(|(first, _)| *first > self.last) {
            self.runs.pop();
        }
    }

    /// Forgets everything up to `previous`, which is in the log.
    pub fn trim(&mut self, previous: Position) {
        self.previous = previous;
        let gone = self.runs.partition_point(|(first, _)| *first <= previous.index.next());
        self.runs.drain(..gone.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_answer_like_a_list() {
        let list: [u64; 9] = [1, 1, 1, 3, 3, 4, 9, 9, 9];
        let mut terms = Terms::default();
        for term in list {
            assert!(terms.push(Term(term)));
        }
        for trim in 0..list.len() {
            for last in trim..=list.len() {
                let mut terms = terms.clone();
                let term_at = |i: usize| if i == 0 { Term(0) } else { Term(list[i - 1]) };
                terms.trim(Position { index: LogIndex(trim as u64), term: term_at(trim) });
                terms.truncate(LogIndex(last as u64));
                for i in 0..12 {
                    let known = (trim..=last).contains(&i).then(|| term_at(i));
                    assert_eq!(terms.term(LogIndex(i as u64)), known, "trim {trim}, last {last}, index {i}");
                }
                assert!(terms.push(Term(9)));
                assert_eq!(terms.last(), Position { index: LogIndex(last as u64 + 1), term: Term(9) });
            }
        }
        assert!(!terms.push(Term(8)));
    }
}
