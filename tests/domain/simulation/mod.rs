//! A group of nodes in one thread, driven by one seed: what happens, when, and what goes wrong.
//!
//! ```text
//!   world ── events by time ──> host: node + disk + state machine ──> network: delay, loss, duplication, partitions
//!     │            ^                    │                                          │
//!   faults ────────┘                  checks: what must hold after every event  <──┘
//!   clients ── writes, reads ─────────> ledger ── answers ──> history: one order explains them all
//! ```
//!
//! A run is a function of its seed. Time is simulated, so a minute of a group takes milliseconds.
//!
//! Kept after every event:
//!
//! * a term has at most one leader, and no disk votes twice in one, or says so before it has written down for whom
//! * what is acknowledged is on the disk of who says so, and the same as at the leader
//! * nobody can answer a read by a lease once a later term has a leader (`deposed`)
//! * a leader has all that was committed in terms before its own
//! * an entry is the same wherever its position and term are, and so is all before it
//! * what one node holds for committed no other entry takes the place of, and every node applies the same; nothing is
//!   applied that is not durable where it is
//! * what a witness lets go of, all full voters have, or had
//! * a stamp is above every one before it
//! * real time is kept: no read is older than what was known when it was asked for, and no write has its place before
//!
//! At the end everything is mended, and the group must make progress and agree, and nobody may be on the way to something
//! for ever: out of a quarantine, to a vote, to another leader, to where a witness may let go of its log (`recovery`). Then
//! one order must explain all answers that clients were given, by value: those of registers and of a bank, with retries and
//! with answers that never came (`history`).
//!
//! A fault counts where it had an effect (`faults`), and an event where somebody took notice of it: what is put off until a
//! machine goes on, is lost, or comes to one that is down is none, nor is a look at the clock that leads to nothing.
//!
//! What this does not show, and what does:
//!
//! * What nodes apply is a `ledger` of its own, which knows a retry by session and number. The sessions of the product are
//!   judged in `statements::requests`, from `a_repeated_request_is_not_executed_again_and_answers_the_same` to
//!   `sessions_have_a_ceiling_and_eviction_makes_room`, and across leaders in
//!   `tests/raft_cluster/doubt.rs`: `a_session_that_repeats_its_sequence_has_each_write_once`.
//! * That two states are the same is judged by a running hash of the payloads and answers, not of tables and rows: two
//!   that apply the same entries in another way are for the engine's tests to find.
//! * A read by a lease is one event, so no node stands still between its look at the clock and its answer. That is
//!   `a_leader_that_stood_still_serves_no_old_reads` in `tests/raft_cluster/main.rs` and
//!   `a_leader_that_was_succeeded_answers_nothing_from_what_it_had` in `stale.rs` there, with processes that are stopped.
//!
//! `CHRONOS_SEEDS=100000 cargo test --release --no-default-features --test domain simulation -- --nocapture` runs many,
//! from `CHRONOS_FIRST_SEED` on;
//! `CHRONOS_SEED=17` runs one again, and prints what happens in it.

mod agenda;
mod checks;
mod clients;
mod deposed;
mod disk;
mod disks;
mod effects;
mod faults;
mod history;
mod host;
mod ledger;
mod network;
mod operators;
mod recovery;
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

/// Of those that somebody took notice of, at least so many: a run is lengthened until they are.
const EVENTS_FLOOR: u64 = 2000;

/// Seeds among which shares say something.
const SHARES_FROM: u64 = 100;

/// Of a hundred seeds, in how many each fault has an effect at least.
const FAULT_FLOOR: u64 = 10;

/// Of a hundred seeds, in how many each thing must happen at least: a simulation in which nothing works shows nothing.
const FLOORS: [(&str, u64); 35] = [
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
    ("snapshots installed", 60),
    ("snapshots in place of a log that has all", 8),
    ("joiners caught up", 80),
    ("quarantines left", 40),
    ("transfers", 50),
    ("transfers that failed", 10),
    ("leaders that removed themselves", 50),
    ("witnesses that led", 15),
    ("writes that a witness refused", 10),
    ("logs of witnesses that were trimmed", 8),
    ("logs of witnesses that were full", 15),
    ("disks put back", 50),
    ("groups without a majority of disks", 30),
    ("leaders that handed over for their clock", 10),
    ("leaders that handed over for their disk", 10),
    ("writes refused for a full disk", 10),
    ("leaders", 100),
    ("writes asked for again", 80),
    ("writes whose outcome nobody knows", 60),
    ("histories with a last look", 95),
    ("requests that share an fdatasync", 60),
    ("groups with different election timeouts", 30),
    ("leaders asked for what their successors had acknowledged", 10),
    ("members removed that had lost their disk", 45),
    ("observers added", 10),
];

/// What runs have met.
#[derive(Default)]
struct Tally {
    seeds: u64,
    events: u64,
    /// Of one seed.
    fewest: u64,
    /// How often in all, and in how many seeds.
    faults: BTreeMap<Fault, (u64, u64)>,
    counts: BTreeMap<&'static str, (u64, u64)>,
}

impl Tally {
    fn run(&mut self, seed: u64) {
        let report = World::new(seed).run(EVENTS, EVENTS_FLOOR);
        self.fewest = if self.seeds == 0 { report.events } else { self.fewest.min(report.events) };
        self.seeds += 1;
        self.events += report.events;
        for (fault, times) in report.faults {
            let (all, seeds) = self.faults.entry(fault).or_default();
            *all += times;
            *seeds += 1;
        }
        for (what, count) in report.counts {
            let (all, seeds) = self.counts.entry(what).or_default();
            *all += count;
            *seeds += 1;
        }
    }

    fn print(&self) {
        println!("{} seeds, {} events, {} or more in each", self.seeds, self.events, self.fewest);
        self.faults.iter().for_each(|(fault, met)| println!("  {fault:?}: {} in {} seeds", met.0, met.1));
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
        if seeds < SHARES_FROM {
            return;
        }
        for fault in Fault::ALL {
            let met = tally.faults.get(&fault).map_or(0, |(_, seeds)| *seeds);
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
    let first = World::new(7).run(EVENTS, EVENTS_FLOOR);
    let second = World::new(7).run(EVENTS, EVENTS_FLOOR);
    assert_eq!((first.trace, first.events), (second.trace, second.events));
}
