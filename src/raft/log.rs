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

    /// True where the entry is here, or the last one that was trimmed.
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

    use proptest::prelude::*;

    /// The vector: entry i of the log is `entries[i - previous - 1]`.
    struct Vector {
        previous: u64,
        previous_term: u64,
        entries: Vec<Entry>,
        persisted: u64,
    }

    impl Vector {
        fn last(&self) -> u64 {
            self.previous + self.entries.len() as u64
        }

        fn term(&self, index: u64) -> Option<u64> {
            match index.checked_sub(self.previous)? {
                0 => Some(self.previous_term),
                at => self.entries.get(at as usize - 1).map(|entry| entry.term.0),
            }
        }

        /// Whether what was read from `from` on is the vector's, at least one and no more bytes than asked for.
        fn check(&self, found: &Found, from: u64, bytes_max: usize, log: &Log) {
            let wanted = &self.entries[(from.saturating_sub(self.previous + 1) as usize).min(self.entries.len())..];
            match found {
                Found::Trimmed => assert!(from <= self.previous && from <= self.last()),
                Found::OnDisk => assert!(log.tail.front().is_none_or(|first| first.index.0 > from)),
                Found::Entries(read) if from > self.last() => assert!(read.is_empty()),
                Found::Entries(read) => {
                    let bytes: usize = read.iter().map(size).sum();
                    assert!(!read.is_empty() && wanted.starts_with(read));
                    assert!(read.len() == 1 || bytes <= bytes_max);
                    let next = wanted.get(read.len()).map_or(0, size);
                    assert!(next == 0 || bytes + next > bytes_max, "there was room for one more");
                }
            }
        }

        fn agreeable(&self, index: u64, term: u64) -> (u64, u64) {
            let end = index.min(self.last());
            let at = (self.previous..=end).rev().find(|at| self.term(*at).is_some_and(|known| known <= term));
            let at = at.unwrap_or(end.min(self.previous));
            (at, self.term(at).unwrap_or(0))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_log_is_a_vector(
            steps in prop::collection::vec((0..6_u8, 0..9_u64, 0..300_usize), 1..60),
            bytes_max in 100..1500_usize,
        ) {
            let mut log = Log::new(Terms::default(), bytes_max);
            let mut vector = Vector { previous: 0, previous_term: 0, entries: Vec::new(), persisted: 0 };
            let mut term = 1;
            for (step, number, bytes) in steps {
                match step {
                    0..=2 => {
                        term += u64::from(number == 0);
                        let index = vector.last() + 1;
                        let payload = vec![index as u8; bytes].into();
                        let entry = Entry { payload, ..entry(index, term) };
                        vector.entries.push(entry.clone());
                        log.push(entry);
                    }
                    3 => {
                        let from = (vector.last() + 1).saturating_sub(number).max(vector.previous + 1);
                        log.truncate(LogIndex(from));
                        vector.entries.truncate((from - vector.previous - 1) as usize);
                        vector.persisted = vector.persisted.min(from - 1);
                        term += 1;
                    }
                    4 => {
                        // What is persisted may have been replaced meanwhile.
                        let index = vector.last().saturating_sub(number);
                        let told = vector.term(index).unwrap_or(0) + u64::from(bytes < 30);
                        let counts = vector.term(index) == Some(told);
                        assert_eq!(log.persist(Position { index: LogIndex(index), term: Term(told) }), counts);
                        vector.persisted = if counts { vector.persisted.max(index) } else { vector.persisted };
                    }
                    _ => {
                        let index = vector.last().saturating_sub(number);
                        let of = vector.term(index);
                        log.trim(Position { index: LogIndex(index), term: Term(of.unwrap_or(0)) });
                        if let Some(of) = of.filter(|_| index > vector.previous) {
                            vector.entries.drain(..(index - vector.previous) as usize);
                            (vector.previous, vector.previous_term) = (index, of);
                        }
                    }
                }
                assert_eq!((log.previous().index.0, log.last().index.0), (vector.previous, vector.last()));
                assert_eq!(log.persisted().0, vector.persisted);
                assert!(log.tail_bytes() <= bytes_max || log.tail.len() == 1);
                assert_eq!(log.tail_bytes(), log.tail.iter().map(size).sum::<usize>());
                for index in vector.previous.saturating_sub(2)..vector.last() + 3 {
                    assert_eq!(log.term(LogIndex(index)).map(|term| term.0), vector.term(index));
                    vector.check(&log.read(LogIndex(index), bytes_max / 2), index, bytes_max / 2, &log);
                    for told in [term.saturating_sub(2), term] {
                        let agreed = log.agreeable(LogIndex(index), Term(told));
                        assert_eq!((agreed.index.0, agreed.term.0), vector.agreeable(index, told));
                    }
                }
            }
        }
    }
}
