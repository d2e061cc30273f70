//! The Raft log against a plain vector: whatever is appended, replaced, trimmed and read again after a restart, the log on
//! disk says what the vector says, and so do the terms that consensus keeps of it.
//!
//! `cargo test --test raft_log_proptest`

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use chronos::hlc::Timestamp;
use chronos::ids::{LogIndex, Term};
use chronos::raft::{Entry, HardState, Position, Terms};
use chronos::storage::faults::Disk;
use chronos::storage::wal::{Wal, WalOptions};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/db/raft";

/// Small segments, so that a short history has many.
const OPTIONS: WalOptions = WalOptions { segment_bytes: 4096, spares_max: 2, salt: 7 };

/// What happens to a log.
#[derive(Clone, Debug)]
enum Step {
    /// So many entries of so many bytes follow, of a term so much later.
    Append { entries: usize, bytes: usize, later: u64 },
    /// A later leader replaces the last ones.
    Replace { back: u64, entries: usize },
    /// What is before goes.
    Trim { keep: u64 },
    /// A snapshot stands for everything up to a place behind the end.
    Reset { ahead: u64 },
    /// The process stops and starts again.
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6_usize, 0..700_usize, 0..2_u64).prop_map(|(entries, bytes, later)| Step::Append { entries, bytes, later }),
        2 => (1..6_u64, 1..4_usize).prop_map(|(back, entries)| Step::Replace { back, entries }),
        1 => (0..12_u64).prop_map(|keep| Step::Trim { keep }),
        1 => (0..3_u64).prop_map(|ahead| Step::Reset { ahead }),
        2 => Just(Step::Reopen),
    ]
}

/// The vector: entry i of the log is `entries[i - previous.index - 1]`.
#[derive(Default)]
struct Model {
    previous: Position,
    entries: Vec<Entry>,
    term: u64,
}

impl Model {
    fn last(&self) -> Position {
        self.entries.last().map_or(self.previous, |entry| Position { index: entry.index, term: entry.term })
    }

    fn new_entries(&self, count: usize, bytes: usize) -> Vec<Entry> {
        let first = self.last().index.0 + 1;
        let entry = |index: u64| Entry {
            index: LogIndex(index),
            term: Term(self.term),
            hlc: Timestamp(index * 1000 + self.term),
            payload: vec![index as u8; bytes].into(),
        };
        (first..first + count as u64).map(entry).collect()
    }

    fn term(&self, index: LogIndex) -> Option<Term> {
        if index == self.previous.index {
            return Some(self.previous.term);
        }
        self.entries.iter().find(|entry| entry.index == index).map(|entry| entry.term)
    }
}

struct Log {
    disk: Disk,
    wal: Wal,
    terms: Terms,
    model: Model,
}

impl Log {
    fn new() -> Log {
        let disk = Disk::new();
        let wal = Wal::create(Arc::new(disk.clone()), Path::new(DIR), OPTIONS).unwrap().wal;
        Log { disk, wal, terms: Terms::default(), model: Model { term: 1, ..Model::default() } }
    }

    fn append(&mut self, entries: Vec<Entry>) {
        let hard_state = HardState { term: Term(self.model.term), ..HardState::default() };
        self.wal.append(&entries, Some(&hard_state)).unwrap();
        self.wal.sync().unwrap();
        for entry in &entries {
            assert!(self.terms.push(entry.term));
        }
        self.model.entries.extend(entries);
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Append { entries, bytes, later } => {
                self.model.term += later;
                self.append(self.model.new_entries(entries, bytes));
            }
            Step::Replace { back, entries } => {
                let kept = self.model.entries.len().saturating_sub(back as usize);
                self.model.entries.truncate(kept);
                self.terms.truncate(self.model.last().index);
                self.model.term += 1;
                self.append(self.model.new_entries(entries, 10));
            }
            Step::Trim { keep } => {
                let below = LogIndex(self.model.last().index.0.saturating_sub(keep) + 1);
                self.wal.trim(below).unwrap();
                // Segments go whole: how far is the log's business, but never beyond what was asked for.
                let previous = self.wal.previous();
                assert!(previous == self.model.previous || previous.index < below);
                assert_eq!(Some(previous.term), self.model.term(previous.index));
                self.model.entries.retain(|entry| entry.index > previous.index);
                self.model.previous = previous;
                self.terms.trim(previous);
            }
            Step::Reset { ahead } => {
                let previous =
                    Position { index: LogIndex(self.model.last().index.0 + ahead), term: Term(self.model.term) };
                self.wal.reset(previous, None).unwrap();
                self.model.entries.clear();
                self.model.previous = previous;
                self.terms = Terms::after(previous);
            }
            Step::Reopen => {
                let recovered = Wal::open(Arc::new(self.disk.clone()), Path::new(DIR), OPTIONS).unwrap();
                assert_eq!((recovered.previous, recovered.last), (self.model.previous, self.model.last()));
                self.wal = recovered.wal;
            }
        }
    }

    /// The log says what the vector says.
    fn check(&self) {
        let (previous, last) = (self.model.previous, self.model.last());
        assert_eq!((self.wal.previous(), self.wal.last()), (previous, last));
        assert_eq!((self.terms.previous(), self.terms.last()), (previous, last));
        for index in (previous.index.0.saturating_sub(2)..last.index.0 + 3).map(LogIndex) {
            let term = self.model.term(index);
            assert_eq!((self.wal.term(index), self.terms.term(index)), (term, term), "entry {index}");
        }
        let mut read = Vec::new();
        self.wal
            .replay(previous.index.next(), last.index, |entry| {
                read.push(entry);
                Ok(())
            })
            .unwrap();
        assert_eq!(read, self.model.entries);
        if let Some(middle) = self.model.entries.get(self.model.entries.len() / 2) {
            let some = self.wal.read(middle.index, 1).unwrap();
            assert_eq!(some.first(), Some(middle), "at least one, however large");
            assert!(self.wal.read(previous.index, 1).is_err(), "what was trimmed is no empty answer");
        }
        assert!(self.wal.read(last.index.next(), 1).unwrap().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_vector(steps in prop::collection::vec(step(), 1..40)) {
        let mut log = Log::new();
        for step in &steps {
            log.take(step);
            log.check();
        }
    }
}
