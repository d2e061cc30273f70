//! The log as the core sees it: the term of every entry, and the newest entries themselves.
//!
//! ```text
//!   previous                  first in the tail                 persisted        last
//!      │  terms alone, entries on disk │  entries, for peers that follow closely │
//! ```
//!
//! Entries are shared with the log thread's queue, so the tail costs their bytes once. What a lagging peer needs from
//! before the tail is read from the disk.
//!
//! Invariants:
//!
//! * the tail has no gap and ends at `last`
//! * the tail has at most `bytes_max` bytes, and the newest entry

use crate::ids::{LogIndex, Term};
use crate::raft::Entry;
use crate::storage::wal::{Position, Terms};
use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Log {
    terms: Terms,
    tail: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
    persisted: LogIndex,
}

/// Where entries are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Here.
    Entries(Vec<Entry>),
    /// On disk.
    OnDisk,
    /// Nowhere any more: a snapshot holds what they did.
    Trimmed,
}

impl Log {
    /// The log of a disk: everything in it is durable.
    pub(super) fn new(terms: Terms, bytes_max: usize) -> Log {
        let persisted = terms.last().index;
        Log { terms, tail: VecDeque::new(), bytes: 0, bytes_max, persisted }
    }

    pub(super) fn previous(&self) -> Position {
        self.terms.previous()
    }

    pub(super) fn last(&self) -> Position {
        self.terms.last()
    }

    pub(super) fn persisted(&self) -> LogIndex {
        self.persisted
    }

    pub(super) fn term(&self, index: LogIndex) -> Option<Term> {
        self.terms.term(index)
    }

    /// True where the entry is here, or lies in the part that was applied and trimmed.
    pub(super) fn has(&self, position: Position) -> bool {
        self.term(position.index) == Some(position.term)
    }

    /// Adds the next entry.
    pub(super) fn push(&mut self, entry: Entry) {
        assert!(entry.index == self.last().index.next(), "entry {} leaves a gap", entry.index);
        let rises = self.terms.push(entry.term);
        assert!(rises, "the term falls at entry {}", entry.index);
        self.bytes += size(&entry);
        self.tail.push_back(entry);
        while self.bytes > self.bytes_max && self.tail.len() > 1 {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.tail.pop_front() {
            self.bytes -= size(&first);
        }
    }

    /// Nobody follows: the disk has it all.
    pub(super) fn forget_tail(&mut self) {
        self.tail = VecDeque::new();
        self.bytes = 0;
    }

    /// Takes back everything from `from` on.
    pub(super) fn truncate(&mut self, from: LogIndex) {
        self.terms.truncate(from.previous());
        while self.tail.back().is_some_and(|entry| entry.index >= from) {
            if let Some(entry) = self.tail.pop_back() {
                self.bytes -= size(&entry);
            }
        }
        self.persisted = self.persisted.min(from.previous());
    }

    /// The disk holds everything up to this entry; false where another one has taken its place meanwhile.
    pub(super) fn persist(&mut self, position: Position) -> bool {
        let counts = self.has(position);
        if counts {
            self.persisted = self.persisted.max(position.index);
        }
        counts
    }

    /// The disk has let go of everything up to `position`.
    pub(super) fn trim(&mut self, position: Position) {
        if self.has(position) && position.index > self.previous().index {
            self.terms.trim(position);
            while self.tail.front().is_some_and(|entry| entry.index <= position.index) {
                self.drop_first();
            }
        }
    }

    /// Bytes of the entries in memory.
    pub(super) fn tail_bytes(&self) -> usize {
        self.bytes
    }

    /// Entries from `from` on, at least one and about `bytes_max` bytes; none where the log ends before.
    pub(super) fn read(&self, from: LogIndex, bytes_max: usize) -> Found {
        if from > self.last().index {
            return Found::Entries(Vec::new());
        }
        if from <= self.previous().index {
            return Found::Trimmed;
        }
        let Some(first) = self.tail.front().map(|entry| entry.index).filter(|first| *first <= from) else {
            return Found::OnDisk;
        };
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let is_first = bytes == 0;
            bytes += size(entry);
            is_first || bytes <= bytes_max
        };
        Found::Entries(self.tail.iter().skip((from.0 - first.0) as usize).take_while(fits).cloned().collect())
    }

    /// The last position not after `index` whose term is not above `term`: the earliest place at which two logs that
    /// differ at `index` can agree.
    pub(super) fn agreeable(&self, index: LogIndex, term: Term) -> Position {
        let mut at = index.min(self.last().index);
        loop {
            match self.term(at) {
                Some(known) if known > term && at > self.previous().index => at = at.previous(),
                Some(known) => return Position { index: at, term: known },
                // Trimmed: there is nothing to compare with, and the answer leads to a snapshot.
                None => return Position { index: at, term: Term(0) },
            }
        }
    }
}

fn size(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlc::Timestamp;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index: LogIndex(index), term: Term(term), hlc: Timestamp(index), payload: [0; 100].as_slice().into() }
    }

    fn log(terms: &[u64]) -> Log {
        let mut log = Log::new(Terms::default(), 3 * size(&entry(1, 1)));
        terms.iter().enumerate().for_each(|(i, &term)| log.push(entry(i as u64 + 1, term)));
        log
    }

    #[test]
    fn the_tail_is_bounded_and_the_rest_is_on_disk() {
        let log = log(&[1, 1, 1, 2, 2]);
        assert_eq!(log.read(LogIndex(2), 1000), Found::OnDisk);
        assert_eq!(log.read(LogIndex(3), 1), Found::Entries(vec![entry(3, 1)]));
        assert_eq!(log.read(LogIndex(4), 1000), Found::Entries(vec![entry(4, 2), entry(5, 2)]));
        assert_eq!(log.read(LogIndex(6), 1000), Found::Entries(vec![]));
    }

    #[test]
    fn what_was_replaced_is_not_persisted() {
        let mut log = log(&[1, 1, 1]);
        log.truncate(LogIndex(3));
        log.push(entry(3, 2));
        assert!(!log.persist(Position { index: LogIndex(3), term: Term(1) }));
        assert_eq!(log.persisted(), LogIndex(0));
        assert!(log.persist(Position { index: LogIndex(3), term: Term(2) }));
        assert_eq!(log.persisted(), LogIndex(3));
    }

    #[test]
    fn logs_agree_at_the_last_entry_of_no_higher_term() {
        let log = log(&[1, 1, 3, 3, 5]);
        let at = |index, term| log.agreeable(LogIndex(index), Term(term)).index.0;
        assert_eq!((at(9, 5), at(4, 5), at(5, 4), at(5, 2), at(5, 0)), (5, 4, 4, 2, 0));
    }

    #[test]
    fn a_trimmed_log_keeps_the_term_before_its_first_entry() {
        let mut log = log(&[1, 1, 2, 2]);
        log.trim(Position { index: LogIndex(3), term: Term(2) });
        assert_eq!(log.read(LogIndex(3), 1), Found::Trimmed);
        assert_eq!((log.term(LogIndex(3)), log.term(LogIndex(2))), (Some(Term(2)), None));
        assert_eq!(log.read(LogIndex(4), 1), Found::Entries(vec![entry(4, 2)]));
    }
}
