//! A disk with a log on it: what is durable, and what is on its way there.

use chronos::hlc::Timestamp;
use chronos::ids::LogIndex;
use chronos::raft::{Entry, Envelope, HardState, Membership, Payload, Position, Ready, Terms};
use std::collections::VecDeque;

/// What a state machine holds: enough to tell two apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    pub(super) applied: Position,
    /// Hash of everything applied, in order.
    pub(super) hash: u64,
    pub(super) hlc: Timestamp,
    pub(super) membership: Membership,
    /// A witness's: it knows who belongs to the group, and nothing else.
    pub(super) is_bare: bool,
}

impl State {
    /// What a witness keeps of it.
    pub(super) fn strip(&mut self) {
        self.hash = 0;
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
        let follows = self.entry(state.applied.index).is_some_and(|entry| entry.term == state.applied.term);
        if follows {
            self.trim(state);
        } else {
            self.entries.clear();
            self.snapshot = state;
        }
    }
}
