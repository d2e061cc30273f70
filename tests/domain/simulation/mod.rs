//! A group of nodes in one thread, driven by one seed: what happens, when, and what goes wrong.
//!
//! ```text
//!   world ── events by time ──> host: node + disk + state machine ──> network: delay, loss, duplication, partitions
//!     │            ^                    │                                          │
//!   faults ────────┘                  checks: what must hold after every event  <──┘
//! ```
//!
//! A run is a function of its seed. Time is simulated, so a minute of a group takes milliseconds.
//!
//! Kept after every event:
//!
//! * a term has at most one leader, and no disk votes twice in one
//! * an entry is the same wherever its position and term are, and so is all before it
//! * what is committed stays, and every node applies the same; nothing is applied that is not durable where it is
//! * a stamp is above every one before it
//! * reads and writes are linearizable: every write has its place in one log, so it is enough that real time is kept
//!
//! At the end everything is mended, and the group must make progress and agree.
//!
//! `CHRONOS_SEEDS=100000 cargo test --release --no-default-features --test domain simulation -- --nocapture` runs many,
//! from `CHRONOS_FIRST_SEED` on;
//! `CHRONOS_SEED=17` runs one again, and prints what happens in it.

mod agenda;
mod checks;
mod clients;
mod disk;
mod effects;
mod faults;
mod host;
mod network;
mod world;

use chronos::clock::{Clock, SystemClock};
use faults::Fault;
use std::collections::BTreeMap;
use std::time::Duration;
use world::World;

/// Seeds that always run.
const FIXED: u64 = 150;

/// What fresh seeds may take.
const TIME_BOX: Duration = Duration::from_secs(5);

/// Events of a run before everything is mended: about ten seconds of a group, so three storms or more.
const EVENTS: u64 = 5000;

/// Of a hundred seeds, in how many each fault is struck at least.
const FAULT_FLOOR: u64 = 60;

/// Of a hundred seeds, in how many each thing must happen at least: a simulation in which nothing works shows nothing.
const FLOORS: [(&str, u64); 24] = [
    ("writes acknowledged", 95),
    ("forwarded writes taken", 90),
    ("reads at the leader", 95),
    ("reads at followers", 90),
    ("lease reads", 90),
    ("stale reads at the leader", 90),
    ("stale reads at others", 80),
    ("reads during transfers", 10),
    ("writes that a leader refused", 20),
    ("loads from disk", 80),
    ("snapshots installed", 80),
    ("joiners caught up", 80),
    ("quarantines left", 40),
    ("transfers", 50),
    ("transfers that failed", 10),
    ("leaders that removed themselves", 50),
    ("witnesses that led", 15),
    ("writes that a witness refused", 10),
    ("logs of witnesses that were trimmed", 15),
    ("logs of witnesses that were full", 15),
    ("disks put back", 50),
    ("groups without a majority of disks", 30),
    ("leaders that handed over for their clock", 10),
    ("leaders", 100),
];

/// What runs have met.
#[derive(Default)]
struct Tally {
    seeds: u64,
    events: u64,
    faults: BTreeMap<Fault, u64>,
    /// How often in all, and in how many seeds.
    counts: BTreeMap<&'static str, (u64, u64)>,
}

impl Tally {
    fn run(&mut self, seed: u64) {
        let report = World::new(seed).run(EVENTS);
        self.seeds += 1;
        self.events += report.events;
        for fault in report.faults {
            *self.faults.entry(fault).or_default() += 1;
        }
        for (what, count) in report.counts {
            let (all, seeds) = self.counts.entry(what).or_default();
            *all += count;
            *seeds += 1;
        }
    }

    fn print(&self) {
        println!("{} seeds, {} events", self.seeds, self.events);
        self.faults.iter().for_each(|(fault, seeds)| println!("  {fault:?} in {seeds} seeds"));
        self.counts.iter().for_each(|(what, count)| println!("  {what}: {} in {} seeds", count.0, count.1));
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

#[test]
fn a_fixed_set_of_seeds_keeps_every_rule() {
    let mut tally = Tally::default();
    if let Some(seed) = number("CHRONOS_SEED") {
        tally.run(seed);
        tally.print();
    } else {
        let seeds = number("CHRONOS_SEEDS").unwrap_or(FIXED);
        let first = number("CHRONOS_FIRST_SEED").unwrap_or(0);
        (first..first + seeds).for_each(|seed| tally.run(seed));
        tally.print();
        for fault in Fault::ALL {
            let met = tally.faults.get(&fault).copied().unwrap_or(0);
            assert!(met * 100 >= tally.seeds * FAULT_FLOOR, "{fault:?} was met in {met} seeds of {}", tally.seeds);
        }
        for (what, floor) in FLOORS {
            let met = tally.counts.get(what).map_or(0, |(_, seeds)| *seeds);
            assert!(met * 100 >= tally.seeds * floor, "{what} were met in {met} seeds of {}", tally.seeds);
        }
    }
}

#[test]
fn fresh_seeds_keep_every_rule() {
    let first = chronos::clock::random_u64().unwrap();
    println!("seeds from {first} on");
    let mut tally = Tally::default();
    let begin = SystemClock.monotonic();
    while SystemClock.monotonic() < begin + TIME_BOX {
        tally.run(first.wrapping_add(tally.seeds));
    }
    tally.print();
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = World::new(7).run(EVENTS);
    let second = World::new(7).run(EVENTS);
    assert_eq!((first.trace, first.events), (second.trace, second.events));
}
