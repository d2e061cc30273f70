//! What must hold, seen from outside all nodes.

use super::disk::State;
use super::ledger::Command;
use chronos::hlc::Timestamp;
use chronos::ids::{DiskId, LogIndex, Term};
use chronos::raft::{Entry, NodeId, Payload, Position};
use std::collections::BTreeMap;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

#[derive(Debug, Default)]
pub(super) struct Checks {
    leaders: BTreeMap<Term, usize>,
    votes: BTreeMap<(DiskId, Term), u64>,
    /// To whom a disk has said that it votes for it.
    promised: BTreeMap<(DiskId, Term), NodeId>,
    /// The term of what is committed, and in whose term somebody first said so.
    committed: BTreeMap<LogIndex, (Term, Term)>,
    /// (hash of the entry, term before it, stamp), by position and term.
    entries: BTreeMap<(LogIndex, Term), (u64, Term, Timestamp)>,
    /// What was applied at a position, and the hash of the state after it.
    applied: BTreeMap<LogIndex, (Term, u64)>,
    /// Where the first entry of a write is, by session and sequence.
    places: BTreeMap<(u32, u32), LogIndex>,
    /// The highest position that a client knows of, from a finished read or write.
    known: LogIndex,
    /// Since when which position was known.
    history: Vec<(u64, LogIndex)>,
}

impl Checks {
    /// True where that is news.
    pub(super) fn leads(&mut self, host: usize, term: Term) -> bool {
        let is_news = !self.leaders.contains_key(&term);
        let leader = *self.leaders.entry(term).or_insert(host);
        assert_eq!(leader, host, "two leaders in term {term}");
        is_news
    }

    /// The newest term that anybody has led.
    pub(super) fn newest_term(&self) -> Term {
        self.leaders.last_key_value().map_or(Term(0), |(term, _)| *term)
    }

    /// Who leads a term, or led it.
    pub(super) fn leader_of(&self, term: Term) -> Option<usize> {
        self.leaders.get(&term).copied()
    }

    /// A disk holds a vote.
    pub(super) fn votes(&mut self, disk: DiskId, term: Term, vote: u64) {
        let first = *self.votes.entry((disk, term)).or_insert(vote);
        assert_eq!(first, vote, "{disk} votes twice in term {term}");
    }

    /// A vote may leave: by now it is durable that it was given in that term, and to whom, which is the only one in it.
    /// `stands_for` tells whether the number of a candidate is one of whom it is for.
    pub(super) fn promises(&mut self, (disk, term): (DiskId, Term), to: &NodeId, stands_for: impl Fn(u64) -> bool) {
        let durable = self.votes.get(&(disk, term)).copied();
        assert!(durable.is_some(), "{disk} votes in term {term} and has not written that down");
        assert!(durable.is_some_and(stands_for), "{disk} tells {to} of a vote in term {term} that was for another");
        let first = self.promised.entry((disk, term)).or_insert_with(|| to.clone());
        assert_eq!(first, to, "{disk} tells two candidates of term {term} that it votes for them");
    }

    /// Somebody holds an entry of `term` at `index` for committed, in a later or the same term `at`.
    pub(super) fn commits(&mut self, index: LogIndex, term: Term, at: Term) {
        let (first, _) = *self.committed.entry(index).or_insert((term, at));
        assert_eq!(first, term, "an entry of term {term} is committed at {index}, where one of term {first} was");
    }

    /// What a leader of `term` must have: all that was committed in terms before.
    pub(super) fn committed_before(&self, term: Term) -> impl Iterator<Item = (LogIndex, Term)> + '_ {
        self.committed.iter().filter(move |(_, (_, at))| *at < term).map(|(index, (of, _))| (*index, *of))
    }

    /// An entry is in somebody's log, behind one of `previous`.
    pub(super) fn holds(&mut self, entry: &Entry, previous: Term) {
        let hash = xxh3_64(&entry.payload) ^ entry.hlc.0;
        let this = (hash, previous, entry.hlc);
        let first = *self.entries.entry((entry.index, entry.term)).or_insert(this);
        assert_eq!(first, this, "entry {} of term {} is not the same everywhere", entry.index, entry.term);
        if let Some((_, _, before)) = self.entries.get(&(entry.index.previous(), previous)) {
            assert!(entry.hlc > *before, "the stamp of entry {} is not above the one before", entry.index);
        }
    }

    pub(super) fn applies(&mut self, position: Position, hash: u64, payload: &Payload<'_>) {
        if let Payload::Command(command) = payload {
            let Command { session, sequence, .. } = Command::decode(command);
            self.places.entry((session, sequence)).or_insert(position.index);
        }
        let first = *self.applied.entry(position.index).or_insert((position.term, hash));
        assert_eq!(first, (position.term, hash), "entry {} is not the same for all who apply it", position.index);
    }

    /// Where writes were applied, by session and sequence.
    pub(super) fn places(&self) -> &BTreeMap<(u32, u32), LogIndex> {
        &self.places
    }

    pub(super) fn restored(&self, state: &State) {
        if state.applied.index.0 > 0 && !state.is_bare {
            let known = self.applied.get(&state.applied.index).copied();
            assert_eq!(known, Some((state.applied.term, state.hash)), "a snapshot of what nobody applied");
        }
    }

    /// What a client that begins now must find.
    pub(super) fn known(&self) -> LogIndex {
        self.known
    }

    /// A write that was begun when clients knew `known` has its answer.
    pub(super) fn written(&mut self, at: Position, known: LogIndex, now: u64) {
        assert!(at.index > known, "a write at {} was asked for when {known} was known", at.index);
        let term = self.applied.get(&at.index).map(|applied| applied.0);
        assert_eq!(term, Some(at.term), "an acknowledged write is not what was applied at {}", at.index);
        if at.index > self.known {
            self.known = at.index;
            self.history.push((now, at.index));
        }
    }

    /// A read that was begun when clients knew `known` has seen everything up to `seen`.
    pub(super) fn read(&mut self, seen: LogIndex, known: LogIndex, how: &str) {
        assert!(seen >= known, "a {how} read saw {seen}, and {known} was known when it was asked for");
        self.known = self.known.max(seen);
    }

    /// A read of a view that is `age` old at most, by a clock that runs up to a twentieth faster or slower.
    pub(super) fn read_stale(&self, seen: LogIndex, now: u64, age: Duration) {
        let at = now.saturating_sub((age + age / 20).as_micros() as u64);
        let before = self.history.partition_point(|(since, _)| *since < at);
        let known = before.checked_sub(1).map_or(LogIndex(0), |last| self.history[last].1);
        assert!(seen >= known, "a view said to be {age:?} old saw {seen}, and {known} was known by then");
    }
}
