//! The wires between nodes: each direction of each pair on its own.

use super::faults::Fault;
use std::collections::{BTreeMap, BTreeSet};

/// Chance, by splitmix64.
#[derive(Clone, Debug)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub(super) fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    pub(super) fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len() as u64) as usize].clone())
    }
}

#[derive(Debug, Default)]
pub(super) struct Network {
    /// (from, to) that do not get through, and whose work that is.
    pub(super) cut: BTreeMap<(usize, usize), Fault>,
    /// Hosts that nothing reaches, and that reach nobody, until then.
    pub(super) apart: BTreeMap<usize, u64>,
    /// Of a thousand messages, so many are lost.
    pub(super) loss: u64,
    /// Of a thousand messages, so many arrive twice.
    pub(super) duplication: u64,
    /// Microseconds that a message takes at most beside the least: those behind it may overtake it.
    pub(super) spread: u64,
    /// What has been struck and has not had an effect yet.
    armed: BTreeSet<Fault>,
    /// Messages so far, for their numbers.
    sent: u64,
    /// The highest number that has arrived, of each direction.
    arrived: BTreeMap<(usize, usize), u64>,
    /// What has, since somebody looked.
    pub(super) met: Vec<Fault>,
}

/// Microseconds that every message takes.
const LEAST: u64 = 200;

impl Network {
    /// A fault counts once a message has met it.
    pub(super) fn arm(&mut self, fault: Fault) {
        self.armed.insert(fault);
    }

    fn meet(&mut self, fault: Fault) {
        if self.armed.remove(&fault) {
            self.met.push(fault);
        }
    }

    /// When a message arrives, for each time that it does, the first one first.
    pub(super) fn arrivals(&mut self, from: usize, to: usize, now: u64, chance: &mut Chance) -> Vec<u64> {
        if let Some(fault) = self.cut.get(&(from, to)).copied() {
            self.meet(fault);
            return Vec::new();
        }
        if [from, to].iter().any(|host| self.apart.get(host).is_some_and(|until| now < *until)) {
            return Vec::new();
        }
        if chance.below(1000) < self.loss {
            self.meet(Fault::Loss);
            return Vec::new();
        }
        let times = if chance.below(1000) < self.duplication { 2 } else { 1 };
        if times == 2 {
            self.meet(Fault::Duplication);
        }
        let mut arrivals: Vec<u64> = (0..times).map(|_| now + LEAST + chance.below(self.spread.max(100))).collect();
        arrivals.sort_unstable();
        arrivals
    }

    pub(super) fn number(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// The message of this number has arrived: after a later one, where the way was not the same for both.
    pub(super) fn arrive(&mut self, way: (usize, usize), number: u64) {
        let highest = self.arrived.entry(way).or_insert(number);
        if number < *highest {
            self.meet(Fault::Reordering);
        } else {
            *highest = number;
        }
    }

    /// True where something is wrong with it.
    pub(super) fn is_hurt(&self) -> bool {
        !self.cut.is_empty() || self.loss + self.duplication + self.spread > 0
    }

    /// All is whole again, but for messages out of order where none has been yet: while nobody leads few are sent.
    pub(super) fn mend(&mut self) {
        let last = std::mem::take(self);
        let goes_on = last.armed.contains(&Fault::Reordering);
        *self = Network {
            apart: last.apart,
            spread: if goes_on { last.spread } else { 0 },
            armed: goes_on.then_some(Fault::Reordering).into_iter().collect(),
            sent: last.sent,
            arrived: last.arrived,
            met: last.met,
            ..Network::default()
        };
    }

    /// All is whole again.
    pub(super) fn mend_for_good(&mut self) {
        self.armed.clear();
        self.mend();
        self.apart.clear();
    }
}
