//! A disk with a log on it: what is durable, and what is on its way there.

use super::ledger::{Command, Ledger};
use super::network::Chance;
use chronos::hlc::Timestamp;
use chronos::ids::LogIndex;
use chronos::ids::Term;
use chronos::raft::{Entry, Envelope, HardState, Membership, Payload, Position, Ready, Terms};
use std::collections::VecDeque;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a state machine holds: enough to tell two apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    pub(super) applied: Position,
    /// Hash of everything applied, in order.
    pub(super) hash: u64,
    pub(super) hlc: Timestamp,
    pub(super) membership: Membership,
    /// What clients have written.
    pub(super) ledger: Ledger,
    /// A witness's: it knows who belongs to the group, and nothing else.
    pub(super) is_bare: bool,
}

impl State {
    /// Takes in an entry; says what a client is told of it.
    pub(super) fn take(&mut self, entry: &Entry, payload: &Payload<'_>) -> Option<u64> {
        let answer = match payload {
            Payload::Command(command) => self.ledger.take(&Command::decode(command)),
            Payload::Noop | Payload::Membership(_) => None,
        };
        self.hash = xxh3_64_with_seed(&entry.payload, self.hash ^ entry.term.0) ^ answer.unwrap_or(0);
        answer
    }

    /// What a witness keeps of it.
    pub(super) fn strip(&mut self) {
        self.hash = 0;
        self.ledger = Ledger::default();
        self.is_bare = true;
    }
}

/// One request to the log.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) hard_state: Option<HardState>,
    pub(super) entries: Vec<Entry>,
    pub(super) after_persist: Vec<Envelope>,
    pub(super) commit_on_persist: bool,
}

impl Write {
    pub(super) fn of(ready: &mut Ready) -> Write {
        Write {
            hard_state: ready.hard_state.take(),
            entries: std::mem::take(&mut ready.entries),
            after_persist: std::mem::take(&mut ready.after_persist),
            commit_on_persist: ready.commit_on_persist,
        }
    }
}

/// What becomes of what was written and not fdatasynced when a machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// Nothing of it is there.
    Lose,
    /// The process died alone: the page cache has it all.
    Keep,
    /// Some of it is there, up to some batch.
    Prefix,
    /// Some of it, and the last batch in part.
    Tear,
    /// A later batch is there, and an earlier one is not.
    Reorder,
}

impl Crash {
    pub(super) const ALL: [Crash; 5] = [Crash::Lose, Crash::Keep, Crash::Prefix, Crash::Tear, Crash::Reorder];

    /// Batches that must be under way for it to differ from another.
    pub(super) fn needs(self) -> usize {
        match self {
            Crash::Lose | Crash::Keep | Crash::Tear => 1,
            Crash::Prefix | Crash::Reorder => 2,
        }
    }
}

/// What is left of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Whole,
    InPart,
    Nothing,
}

#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    /// The state up to which the log was trimmed.
    pub(super) snapshot: State,
    /// Entries after the snapshot.
    pub(super) entries: VecDeque<Entry>,
    /// It was there from the first entry on, which names no disks.
    pub(super) is_founder: bool,
    /// Asked for and not durable.
    pub(super) queue: VecDeque<Write>,
    /// Of those, so many are written and wait for one fdatasync.
    pub(super) under_way: usize,
}

impl Disk {
    /// The disk of a new member: the first entry of all, or nothing at all.
    pub(super) fn format(bootstrap: Option<Entry>) -> Disk {
        let mut disk = Disk::default();
        if let Some(entry) = bootstrap {
            disk.hard_state.term = entry.term;
            if let Payload::Membership(membership) = Payload::decode(&entry.payload).unwrap() {
                disk.hard_state.membership = membership.encode();
            }
            disk.entries.push_back(entry);
            disk.is_founder = true;
        } else {
            // Who joins decides nothing before it has what the group has.
            disk.hard_state.quarantined_until = Some(LogIndex(1));
        }
        disk
    }

    pub(super) fn last(&self) -> Position {
        self.entries.back().map_or(self.snapshot.applied, |entry| Position { index: entry.index, term: entry.term })
    }

    pub(super) fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let first = self.entries.front()?.index;
        index.0.checked_sub(first.0).and_then(|at| self.entries.get(at as usize))
    }

    pub(super) fn terms(&self) -> Terms {
        let mut terms = Terms::after(self.snapshot.applied);
        for entry in &self.entries {
            assert!(terms.push(entry.term));
        }
        terms
    }

    pub(super) fn memberships(&self) -> Vec<(LogIndex, Membership)> {
        let membership = |entry: &Entry| match Payload::decode(&entry.payload).unwrap() {
            Payload::Membership(membership) => Some((entry.index, membership)),
            Payload::Noop | Payload::Command(_) => None,
        };
        self.entries.iter().filter_map(membership).collect()
    }

    /// The log thread takes what waits, as one batch after the other for one fdatasync.
    pub(super) fn gather(&mut self) -> usize {
        self.under_way = self.queue.len();
        self.under_way
    }

    /// True where entries from `from` on take the place of some that are not durable yet.
    pub(super) fn is_replaced_in_queue(&self, from: LogIndex) -> bool {
        self.queue.iter().filter_map(|write| write.entries.last()).any(|last| last.index >= from)
    }

    /// The term of an entry as the node has it: what waits for the disk counts.
    pub(super) fn newest_term(&self, index: LogIndex) -> Option<Term> {
        for write in self.queue.iter().rev() {
            match (write.entries.first(), write.entries.last()) {
                (Some(_), Some(last)) if index > last.index => return None,
                (Some(first), Some(_)) if index >= first.index => {
                    return Some(write.entries[(index.0 - first.index.0) as usize].term);
                }
                _ => {}
            }
        }
        self.durable_term(index)
    }

    /// The term of what is on the disk at a position, or was when the log was trimmed there.
    pub(super) fn durable_term(&self, index: LogIndex) -> Option<Term> {
        let trimmed = self.snapshot.applied;
        if index == trimmed.index { Some(trimmed.term) } else { self.entry(index).map(|entry| entry.term) }
    }

    /// The power goes, or the process: what recovery finds of the batches under way, which is those before the first one
    /// that does not validate. What waited for them was in memory.
    pub(super) fn crash(&mut self, how: Crash, chance: &mut Chance) -> Vec<Write> {
        let count = std::mem::take(&mut self.under_way) as u64;
        // The newest term and vote go with the first batch of a gathered write.
        let newest = self.queue.iter().take(count as usize).filter_map(|write| write.hard_state.clone()).next_back();
        let mut left = vec![Left::Whole; count as usize];
        let at = chance.below(count) as usize;
        match how {
            Crash::Lose => left.fill(Left::Nothing),
            Crash::Keep => {}
            Crash::Prefix => left[at.max(1)..].fill(Left::Nothing),
            Crash::Tear => {
                left[at..].fill(Left::Nothing);
                left[at] = Left::InPart;
            }
            Crash::Reorder => left[at.min(count as usize - 2)] = Left::Nothing,
        }
        let whole = left.iter().take_while(|left| **left == Left::Whole).count();
        let writes = (0..whole).filter_map(|_| self.complete()).collect();
        if whole > 0
            && let Some(newest) = newest
        {
            self.hard_state = newest;
        }
        self.queue.clear();
        writes
    }

    /// The oldest request becomes durable.
    pub(super) fn complete(&mut self) -> Option<Write> {
        let mut write = self.queue.pop_front()?;
        if let Some(hard_state) = &write.hard_state {
            assert!(hard_state.term >= self.hard_state.term, "the term falls on disk");
            self.hard_state = hard_state.clone();
        }
        for entry in &mut write.entries {
            if entry.index <= self.last().index {
                assert!(
                    self.hard_state.term > self.last().term,
                    "entry {} is replaced and no later term is known",
                    entry.index
                );
                self.entries.retain(|old| old.index < entry.index);
            }
            assert_eq!(entry.index, self.last().index.next(), "a gap in the log");
            self.entries.push_back(entry.clone());
        }
        Some(write)
    }

    /// Everything up to `state` is in a snapshot.
    pub(super) fn trim(&mut self, state: State) {
        while self.entries.front().is_some_and(|entry| entry.index <= state.applied.index) {
            self.entries.pop_front();
        }
        self.snapshot = state;
    }

    pub(super) fn newest_membership(&self) -> Membership {
        let later = self.memberships().pop().map(|(_, membership)| membership);
        later.unwrap_or_else(|| self.snapshot.membership.clone())
    }

    /// Term and vote are written with the newest membership of the log.
    pub(super) fn note_membership(&mut self) {
        self.hard_state.membership = self.newest_membership().encode();
    }

    /// Another node's snapshot takes the place of what is here.
    pub(super) fn install(&mut self, state: State) {
        self.queue.clear();
        self.under_way = 0;
        let follows = self.entry(state.applied.index).is_some_and(|entry| entry.term == state.applied.term);
        if follows {
            self.trim(state);
        } else {
            self.entries.clear();
            self.snapshot = state;
        }
    }
}
