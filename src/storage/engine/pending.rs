//! Entries that are durable and not yet committed: between the log thread, which adds them, and raft, which says how far
//! the group has come.
//!
//! A commit names position and term. Where the log still holds another entry there, the one that replaces it is on its
//! way to the disk, and nothing is applied before it has arrived: with the same term at one position, all before is the
//! same (log matching, thesis 3.5).
//!
//! Invariants:
//!
//! * `entries` follow `applied_to` without a gap; what does not fit is on disk, and is read back from there
//! * what is taken was durable and is committed, in order, once

use super::Waiting;
use crate::ids::LogIndex;
use crate::raft::{Entry, Position};
use std::collections::{BTreeMap, VecDeque};

/// Bytes of entries kept here. A follower whose leader is slow to commit reads the rest from its disk.
const BYTES_MAX: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Pending {
    /// The last entry that was taken.
    taken: LogIndex,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Who waits for entries, on whatever side of the memory they are.
    waiting: BTreeMap<LogIndex, Waiting>,
    /// The end of the durable log.
    durable: Position,
    committed: Position,
}

/// What can be applied now.
pub(super) enum Taken {
    /// These.
    Entries(Vec<(Entry, Option<Waiting>)>),
    /// Entries that only the disk has, from here to there.
    OnDisk(LogIndex, LogIndex),
    /// Nothing.
    Nothing,
}

impl Pending {
    /// What a start finds: a log that ends at `durable`, of which everything up to `applied` is applied.
    pub(super) fn new(applied: LogIndex, durable: Position) -> Pending {
        Pending { taken: applied, durable, ..Pending::default() }
    }

    /// These are durable now. They follow the log, or take the place of its end.
    pub(super) fn persisted(&mut self, entries: Vec<(Entry, Option<Waiting>)>) {
        for (entry, waiting) in entries {
            if entry.index <= self.durable.index {
                self.truncate(entry.index);
            }
            self.durable = Position { index: entry.index, term: entry.term };
            if let Some(waiting) = waiting {
                self.waiting.insert(entry.index, waiting);
            }
            if self.end() == entry.index && self.bytes < BYTES_MAX {
                self.bytes += entry.payload.len();
                self.entries.push_back(entry);
            }
        }
    }

    /// The position after the last entry that is here.
    fn end(&self) -> LogIndex {
        LogIndex(self.taken.0 + self.entries.len() as u64 + 1)
    }

    fn truncate(&mut self, from: LogIndex) {
        assert!(from > self.taken, "entry {from} is applied, and another one would take its place");
        while self.entries.back().is_some_and(|entry| entry.index >= from) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= entry.payload.len();
            }
        }
        // Whoever waited learns that the outcome is in doubt.
        self.waiting.split_off(&from);
    }

    /// Everything up to here is committed.
    pub(super) fn commit(&mut self, position: Position) {
        if position.index > self.committed.index {
            self.committed = position;
        }
    }

    /// True where something durable and committed has not been taken yet.
    pub(super) fn has_more(&self) -> bool {
        self.committed.index > self.taken && self.committed.index <= self.durable.index
    }

    /// Takes what can be applied, up to the entry with which it has `room` bytes.
    pub(super) fn take(&mut self, room: usize) -> Taken {
        if !self.has_more() {
            return Taken::Nothing;
        }
        let until = self.committed.index;
        let count = (until.0 - self.taken.0) as usize;
        match self.entries.get(count - 1) {
            Some(last) if last.term != self.committed.term => Taken::Nothing,
            Some(_) => {
                let mut bytes = 0;
                let fits = |entry: &&Entry| {
                    let has_room = bytes < room;
                    bytes += entry.payload.len();
                    has_room
                };
                let count = self.entries.iter().take(count).take_while(fits).count();
                let entries: Vec<Entry> = self.entries.drain(..count).collect();
                self.bytes -= entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
                Taken::Entries(self.hand_out(entries))
            }
            None => Taken::OnDisk(self.taken.next(), until),
        }
    }

    /// The term that the entry at the commit position must have.
    pub(super) fn committed(&self) -> Position {
        self.committed
    }

    /// Takes entries that were read from the disk, the next ones that can be applied.
    pub(super) fn take_read(&mut self, entries: Vec<Entry>) -> Vec<(Entry, Option<Waiting>)> {
        let read = entries.len();
        for _ in 0..read.min(self.entries.len()) {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= entry.payload.len();
            }
        }
        self.hand_out(entries)
    }

    fn hand_out(&mut self, entries: Vec<Entry>) -> Vec<(Entry, Option<Waiting>)> {
        let hand_out = |entry: Entry| {
            assert!(entry.index == self.taken.next(), "entry {} does not follow {}", entry.index, self.taken);
            self.taken = entry.index;
            let waiting = self.waiting.remove(&entry.index);
            (entry, waiting)
        };
        entries.into_iter().map(hand_out).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlc::Timestamp;
    use crate::ids::Term;

    fn at(index: u64, term: u64) -> Position {
        Position { index: LogIndex(index), term: Term(term) }
    }

    fn entries(positions: &[(u64, u64)], bytes: usize) -> Vec<(Entry, Option<Waiting>)> {
        let entry = |&(index, term): &(u64, u64)| Entry {
            index: LogIndex(index),
            term: Term(term),
            hlc: Timestamp(index),
            payload: vec![0; bytes].into(),
        };
        positions.iter().map(|position| (entry(position), None)).collect()
    }

    fn taken(pending: &mut Pending) -> Vec<u64> {
        match pending.take(usize::MAX) {
            Taken::Entries(entries) => entries.iter().map(|(entry, _)| entry.index.0).collect(),
            Taken::OnDisk(..) => panic!("on disk"),
            Taken::Nothing => vec![],
        }
    }

    #[test]
    fn what_is_durable_and_committed_is_taken_once() {
        let mut pending = Pending::new(LogIndex(1), at(1, 1));
        pending.persisted(entries(&[(2, 1), (3, 1)], 1));
        assert_eq!(taken(&mut pending), []);
        pending.commit(at(4, 1));
        assert_eq!(taken(&mut pending), [], "4 is not durable");
        pending.persisted(entries(&[(4, 1), (5, 1)], 1));
        assert_eq!(taken(&mut pending), [2, 3, 4]);
        assert_eq!(taken(&mut pending), []);
    }

    #[test]
    fn no_more_is_taken_than_there_is_room_for_but_one_entry_at_least() {
        let mut pending = Pending::new(LogIndex(0), at(0, 0));
        pending.persisted(entries(&[(1, 1), (2, 1), (3, 1), (4, 1)], 100));
        pending.commit(at(4, 1));
        let mut take = |room| match pending.take(room) {
            Taken::Entries(entries) => entries.len(),
            Taken::OnDisk(..) | Taken::Nothing => 0,
        };
        assert_eq!((take(1), take(150), take(150), take(150)), (1, 2, 1, 0));
        assert!(!pending.has_more());
    }

    #[test]
    fn an_entry_that_is_about_to_be_replaced_is_not_taken() {
        let mut pending = Pending::new(LogIndex(1), at(1, 1));
        pending.persisted(entries(&[(2, 1), (3, 1)], 1));
        pending.commit(at(3, 2));
        assert_eq!(taken(&mut pending), [], "3 of term 1 is not what is committed");
        pending.persisted(entries(&[(3, 2)], 1));
        assert_eq!(taken(&mut pending), [2, 3]);
    }

    #[test]
    fn whoever_waits_for_an_entry_that_is_replaced_is_let_go() {
        let mut pending = Pending::new(LogIndex(0), at(0, 0));
        let (waiting, mut answer) = tokio::sync::oneshot::channel();
        let mut first = entries(&[(1, 1)], 1);
        first[0].1 = Some(waiting);
        pending.persisted(first);
        pending.persisted(entries(&[(1, 2)], 1));
        assert!(matches!(answer.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Closed)));
    }

    #[test]
    fn what_does_not_fit_is_read_from_the_disk() {
        let mut pending = Pending::new(LogIndex(0), at(0, 0));
        let all: Vec<(u64, u64)> = (1..=12).map(|index| (index, 1)).collect();
        pending.persisted(entries(&all, 1 << 20));
        assert_eq!(pending.entries.len(), 8);
        pending.commit(at(12, 1));
        let Taken::OnDisk(from, to) = pending.take(1) else { panic!("all in memory") };
        assert_eq!((from, to), (LogIndex(1), LogIndex(12)));
        let read = entries(&all, 1 << 20).into_iter().map(|(entry, _)| entry).collect();
        assert_eq!(pending.take_read(read).len(), 12);
        assert_eq!((pending.entries.len(), pending.bytes), (0, 0));
        pending.persisted(entries(&[(13, 1)], 1));
        pending.commit(at(13, 1));
        assert_eq!(taken(&mut pending), [13]);
    }
}
