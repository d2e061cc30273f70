//! The Raft log against a plain vector: whatever is appended, replaced, trimmed and read again after a restart, the log on
//! disk says what the vector says, and so do the terms that consensus keeps of it. After a power cut it is what the vector
//! was at some time since the last fdatasync, term and vote included.
//!
//! `cargo test --test raft_log_proptest`

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use chronos::hlc::Timestamp;
use chronos::ids::{LogIndex, Term};
use chronos::raft::{Entry, HardState, Position, Terms};
use chronos::storage::faults::{Crash, Disk};
use chronos::storage::files::Files;
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
    /// So many entries of so many bytes follow, of a term so much later; with term and vote or without.
    Append { entries: usize, bytes: usize, later: u64, vote: Option<u64>, is_synced: bool },
    /// A later leader replaces the last ones.
    Replace { back: u64, entries: usize, is_synced: bool },
    /// What is before goes.
    Trim { keep: u64 },
    /// A snapshot stands for everything up to a place behind the end.
    Reset { ahead: u64 },
    /// The process stops and starts again.
    Reopen,
    /// The power goes.
    Crash { seed: u64, mode: Crash },
}

fn step() -> impl Strategy<Value = Step> {
    let append = (0..6_usize, 0..700_usize, 0..2_u64, prop::option::of(0..3_u64), any::<bool>());
    prop_oneof![
        6 => append.prop_map(|(entries, bytes, later, vote, is_synced)| {
            Step::Append { entries, bytes, later, vote, is_synced }
        }),
        2 => (1..6_u64, 1..4_usize, any::<bool>())
            .prop_map(|(back, entries, is_synced)| Step::Replace { back, entries, is_synced }),
        1 => (0..12_u64).prop_map(|keep| Step::Trim { keep }),
        1 => (0..3_u64).prop_map(|ahead| Step::Reset { ahead }),
        1 => Just(Step::Reopen),
        2 => (any::<u64>(), prop::sample::select(Crash::ALL.as_slice()))
            .prop_map(|(seed, mode)| Step::Crash { seed, mode }),
    ]
}

/// The vector: entry i of the log is `entries[i - previous.index - 1]`.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    previous: Position,
    entries: Vec<Entry>,
    hard_state: HardState,
}

impl Model {
    fn last(&self) -> Position {
        self.entries.last().map_or(self.previous, |entry| Position { index: entry.index, term: entry.term })
    }

    fn new_entries(&self, count: usize, bytes: usize) -> Vec<Entry> {
        let first = self.last().index.0 + 1;
        let entry = |index: u64| Entry {
            index: LogIndex(index),
            term: self.hard_state.term,
            hlc: Timestamp(index * 1000 + self.hard_state.term.0),
            payload: vec![index as u8; bytes].into(),
        };
        (first..first + count as u64).map(entry).collect()
    }

    fn trim(&mut self, previous: Position) {
        if previous.index > self.previous.index {
            self.entries.retain(|entry| entry.index > previous.index);
            self.previous = previous;
        }
    }

    fn trimmed(&self, previous: Position) -> Model {
        let mut trimmed = self.clone();
        trimmed.trim(previous);
        trimmed
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
    /// What a power cut may leave: the vector after each write since the last fdatasync, and as it was then.
    possible: Vec<Model>,
}

impl Log {
    fn new() -> Log {
        let disk = Disk::new();
        // Whose names the engine sees to.
        disk.create_dir(Path::new(DIR)).unwrap();
        ["/db", "/"].into_iter().for_each(|directory| disk.sync_dir(Path::new(directory)).unwrap());
        let mut wal = Wal::create(Arc::new(disk.clone()), Path::new(DIR), OPTIONS).unwrap().wal;
        let model = Model { hard_state: HardState { term: Term(1), ..HardState::default() }, ..Model::default() };
        wal.append(&[], Some(&model.hard_state)).unwrap();
        wal.sync().unwrap();
        Log { disk, wal, terms: Terms::default(), possible: vec![model.clone()], model }
    }

    fn append(&mut self, entries: Vec<Entry>, hard_state: Option<&HardState>, is_synced: bool) {
        self.wal.append(&entries, hard_state).unwrap();
        for entry in &entries {
            assert!(self.terms.push(entry.term));
        }
        self.model.entries.extend(entries);
        self.possible.push(self.model.clone());
        if is_synced {
            self.sync();
        }
    }

    fn sync(&mut self) {
        self.wal.sync().unwrap();
        self.possible = vec![self.model.clone()];
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Append { entries, bytes, later, vote, is_synced } => {
                let is_news = later > 0 || vote.is_some();
                let known = &mut self.model.hard_state;
                if is_news {
                    *known = HardState {
                        term: Term(known.term.0 + later),
                        vote,
                        quarantined_until: vote.map(LogIndex),
                        membership: vec![later as u8; 9],
                    };
                }
                let hard_state = is_news.then(|| known.clone());
                self.append(self.model.new_entries(entries, bytes), hard_state.as_ref(), is_synced);
            }
            Step::Replace { back, entries, is_synced } => {
                let kept = self.model.entries.len().saturating_sub(back as usize);
                self.model.entries.truncate(kept);
                self.terms.truncate(self.model.last().index);
                self.model.hard_state =
                    HardState { term: Term(self.model.hard_state.term.0 + 1), ..HardState::default() };
                // What replaces begins a segment, which says the end before it, and the hard state.
                self.possible.push(self.model.clone());
                let hard_state = self.model.hard_state.clone();
                self.append(self.model.new_entries(entries, 10), Some(&hard_state), is_synced);
            }
            Step::Trim { keep } => {
                // The engine trims what it has sealed, which was durable before.
                self.sync();
                let below = LogIndex(self.model.last().index.0.saturating_sub(keep) + 1);
                self.wal.trim(below).unwrap();
                // Segments go whole: how far is the log's business, but never beyond what was asked for.
                let previous = self.wal.previous();
                assert!(previous == self.model.previous || previous.index < below);
                assert_eq!(Some(previous.term), self.model.term(previous.index));
                self.model.trim(previous);
                self.terms.trim(previous);
            }
            Step::Reset { ahead } => {
                let previous =
                    Position { index: LogIndex(self.model.last().index.0 + ahead), term: self.model.hard_state.term };
                self.wal.reset(previous, Some(&self.model.hard_state)).unwrap();
                self.model.entries.clear();
                self.model.previous = previous;
                self.terms = Terms::after(previous);
                self.possible = vec![self.model.clone()];
            }
            Step::Reopen => self.reopen(true),
            Step::Crash { seed, mode } => {
                self.disk = self.disk.crash(seed, mode);
                self.reopen(mode == Crash::Keep);
            }
        }
    }

    /// Starts from what is on the disk, which is one of what is possible, or all that was written.
    fn reopen(&mut self, is_whole: bool) {
        let recovered = Wal::open(Arc::new(self.disk.clone()), Path::new(DIR), OPTIONS).unwrap();
        let mut entries = Vec::new();
        let end = recovered.last.index;
        recovered
            .wal
            .replay(recovered.previous.index.next(), end, |entry| {
                entries.push(entry);
                Ok(())
            })
            .unwrap();
        let found =
            Model { previous: recovered.previous, entries, hard_state: recovered.hard_state.unwrap_or_default() };
        // The names of trimmed segments may be there still.
        let is_same = |model: &Model| {
            let mut found = found.clone();
            found.previous.index <= model.previous.index && {
                found.trim(model.previous);
                found == *model
            }
        };
        let which =
            self.possible.iter().map(|model| model.trimmed(self.model.previous)).rposition(|model| is_same(&model));
        let which = which.unwrap_or_else(|| panic!("{found:#?} is none of {:#?}", self.possible));
        let last = self.possible.len() - 1;
        assert!(!is_whole || which == last, "{which} of {last}, and nothing was lost");
        // What was found counts from here on, and is durable.
        self.model = found;
        self.terms = Terms::after(self.model.previous);
        assert!(self.model.entries.iter().all(|entry| self.terms.push(entry.term)));
        self.possible = vec![self.model.clone()];
        self.wal = recovered.wal;
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
