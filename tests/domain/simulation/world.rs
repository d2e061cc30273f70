//! Everything there is: the hosts, the wires, the clients, and what happens when.

use super::agenda::{Agenda, Event};
use super::checks::Checks;
use super::clients::Writer;
use super::disk::Disk;
use super::faults::{Blow, Deck, Fault};
use super::history::History;
use super::host::Host;
use super::network::{Chance, Network};
use chronos::ids::{DiskId, LogIndex, Term};
use chronos::raft::{Delivery, Entry, Member, MemberRole, Membership, NodeId, bootstrap};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a run was.
pub(super) struct Report {
    /// Things that happened to somebody before everything was mended.
    pub(super) events: u64,
    /// How often each fault had an effect.
    pub(super) faults: BTreeMap<Fault, u64>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// Hash of all that happened.
    pub(super) trace: u64,
}

pub(super) struct World {
    seed: u64,
    pub(super) now: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) network: Network,
    pub(super) chance: Chance,
    pub(super) bootstrap: Entry,
    /// Disks so far, for their numbers.
    pub(super) disks: u128,
    pub(super) checks: Checks,
    agenda: Agenda,
    pub(super) deck: Deck,
    faults: BTreeMap<Fault, u64>,
    counts: BTreeMap<&'static str, u64>,
    trace: u64,
    pub(super) talks: bool,
    pub(super) asks: u64,
    pub(super) writers: Vec<Writer>,
    /// Sessions so far, for their numbers.
    pub(super) sessions: u32,
    pub(super) history: History,
    /// How far anybody has applied, and the group there.
    pub(super) settled: (LogIndex, Membership),
    /// Writes acknowledged so far.
    pub(super) acknowledged: u64,
    /// A leader is asked to hand over until then.
    pub(super) transfer_until: u64,
    /// Of which term, and to whom.
    pub(super) transfer: Option<(Term, usize)>,
    storm: bool,
    pub(super) mended: bool,
}

/// Microseconds between two looks at the clock.
const TICK: u64 = 50_000;

/// A run in which so much comes to so little has died.
const EVENTS_MAX: u64 = 1_000_000;

/// Microseconds of the first calm: a group elects a leader, and clients find it.
const FIRST_CALM: u64 = 1_800_000;

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut chance = Chance(seed);
        // Two more machines than members, which may join later.
        let members = 3 + chance.below(3) as usize;
        let ids: Vec<NodeId> = (0..members + 2).map(|n| NodeId(format!("n{n}"))).collect();
        let witness = chance.one_in(3).then_some(members - 1);
        let member = |n: usize| {
            let role = if witness == Some(n) { MemberRole::Witness } else { MemberRole::Voter };
            Member { role, address: format!("{n}:1"), disk: None }
        };
        let membership = Membership::of(ids.iter().take(members).enumerate().map(|(n, id)| (id.clone(), member(n))));
        let bootstrap = bootstrap(&membership);
        let host = |(n, id): (usize, NodeId)| {
            let disk = Disk::format((n < members).then(|| bootstrap.clone()));
            Host::new(id, DiskId(n as u128 + 1), disk)
        };
        let hosts: Vec<Host> = ids.into_iter().enumerate().map(host).collect();
        let mut world = World {
            seed,
            now: 1_000_000,
            disks: hosts.len() as u128,
            hosts,
            network: Network::default(),
            chance,
            bootstrap,
            checks: Checks::default(),
            agenda: Agenda::default(),
            deck: Deck::default(),
            faults: BTreeMap::new(),
            counts: BTreeMap::new(),
            trace: seed,
            talks: std::env::var("CHRONOS_SEED").is_ok(),
            asks: 0,
            sessions: 1000,
            writers: Writer::all(),
            history: History::default(),
            settled: (LogIndex(0), membership),
            acknowledged: 0,
            transfer_until: 0,
            transfer: None,
            storm: false,
            mended: false,
        };
        // Half of the groups are not configured alike.
        if world.chance.one_in(2) {
            for host in &mut world.hosts {
                host.election_timeout = Duration::from_millis(500 + 100 * world.chance.below(5));
            }
            world.count("groups with different election timeouts");
        }
        for host in 0..world.hosts.len() {
            let (start, tick) = (world.chance.below(200_000), world.chance.below(TICK));
            world.schedule(world.now + start, Event::Start { host });
            world.schedule(world.now + tick, Event::Tick { host });
        }
        world.schedule(world.now + 1000, Event::Client);
        world.schedule(world.now + FIRST_CALM, Event::Fault);
        world.schedule(world.now + FIRST_CALM + 1_000_000, Event::Weather { storm: true });
        world
    }

    pub(super) fn schedule(&mut self, at: u64, event: Event) {
        self.agenda.add(at, event);
    }

    pub(super) fn count(&mut self, what: &'static str) {
        self.count_all(what, 1);
    }

    pub(super) fn count_all(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.counts.entry(what).or_default() += times;
        }
    }

    /// A fault has had an effect.
    pub(super) fn meet(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
        self.say(|| format!("met: {fault:?}"));
    }

    /// How often something was counted so far.
    pub(super) fn times(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if self.talks {
            println!("{} {}", self.now, what());
        }
    }

    /// Runs so many events with faults, and on until so many of them were taken notice of; then mends everything and
    /// demands progress.
    pub(super) fn run(mut self, events: u64, noticed: u64) -> Report {
        let (mut all, mut happened) = (0, 0);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while all < events || happened < noticed {
                all += 1;
                happened += u64::from(self.next());
                assert!(all < EVENTS_MAX, "only {happened} things happened to anybody, of {all}");
            }
            if all > events {
                self.count("runs that were lengthened");
            }
            self.recover();
            self.check_history();
        }));
        if let Err(panic) = outcome {
            println!("failed: run it again with CHRONOS_SEED={}; faults: {:?}", self.seed, self.faults);
            std::panic::resume_unwind(panic);
        }
        Report { events: happened, faults: self.faults, counts: self.counts, trace: self.trace }
    }

    /// Whatever is due; true where somebody took notice of it.
    pub(super) fn next(&mut self) -> bool {
        let Some((at, event)) = self.agenda.next() else { panic!("nothing happens any more") };
        self.now = self.now.max(at);
        if let Some(host) = event.host()
            && self.hosts[host].stopped_until > self.now
        {
            // A machine that stands still takes what happens to it when it goes on; what is sent to one that sleeps is
            // lost.
            let sleeps = self.hosts[host].sleeps;
            let is_lost = sleeps && matches!(event, Event::Deliver { .. } | Event::Forwarded { .. });
            if (is_lost || !sleeps)
                && self.hosts[host].is_up()
                && let Some(fault) = self.hosts[host].stopped_by.take()
            {
                self.meet(fault);
            }
            if !is_lost {
                self.hosts[host].held.push(event);
            }
            return false;
        }
        self.say(|| format!("{event:?}"));
        let mixed = (self.trace ^ self.now).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ event.digest();
        self.trace = mixed.rotate_left(23).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let happened = self.happen(event);
        for fault in std::mem::take(&mut self.network.met) {
            self.meet(fault);
        }
        happened
    }

    /// The number of a host; none of a name that no machine has.
    pub(super) fn index(&self, id: &NodeId) -> Option<usize> {
        id.0.strip_prefix('n')?.parse().ok().filter(|host| *host < self.hosts.len())
    }

    fn happen(&mut self, event: Event) -> bool {
        let is_up = event.host().is_some_and(|host| self.hosts[host].is_up());
        let is_of_now = |host: usize, life: u64| self.hosts[host].life == life && self.hosts[host].is_up();
        match event {
            Event::Tick { host } => {
                self.schedule(self.now + TICK, Event::Tick { host });
                self.tick(host)
            }
            Event::Deliver { to, disk, number, envelope } => {
                let arrives = is_up && self.hosts[to].disk_id == disk;
                if arrives {
                    self.deliver(to, number, *envelope);
                }
                arrives
            }
            Event::Persisted { host, life } => is_of_now(host, life) && self.persisted(host),
            Event::Loaded { host, life, load } => is_of_now(host, life) && self.loaded(host, &load),
            Event::Snapshot { from, to, disk, life, term, state, is_meant } => {
                if self.hosts[to].disk_id == disk {
                    self.install((from, life), to, term, *state, is_meant);
                } else {
                    let peer = self.hosts[to].id.clone();
                    self.schedule(self.now, Event::SnapshotEnded { host: from, life, peer, installed: None });
                }
                is_up
            }
            Event::SnapshotEnded { host, life, peer, installed } => {
                let counts = is_of_now(host, life);
                let now = self.hosts[host].now(self.now);
                if counts && let Some(node) = &mut self.hosts[host].node {
                    node.snapshot_ended(&peer, installed.map_or(Delivery::Failed, Delivery::Installed), now);
                }
                self.pump(host);
                counts
            }
            Event::Start { host } => {
                if !is_up {
                    let seed = self.chance.next();
                    self.hosts[host].start(seed, &mut self.checks);
                    self.pump(host);
                }
                !is_up && self.hosts[host].is_up()
            }
            Event::Wake { host } => {
                self.wake(host);
                false
            }
            Event::Deposed { host } => self.ask_the_deposed(host),
            Event::PutBack { host } => self.put_back(host),
            Event::Forwarded { host, client, command, known } => {
                self.propose(host, client, command, known, "forwarded writes taken")
            }
            Event::TransferDue { term } => {
                let failed = self.transfer.take_if(|(of, _)| *of == term).is_some();
                self.count_all("transfers that failed", u64::from(failed));
                failed
            }
            Event::Client => {
                let is_heard = self.ask();
                let next = self.now + 2000 + self.chance.below(20_000);
                self.schedule(next, Event::Client);
                is_heard
            }
            Event::Fault => self.go_wrong(),
            Event::Weather { storm } => {
                self.turn(storm);
                false
            }
        }
    }

    /// A node looks at its clock: false where that leads to nothing.
    fn tick(&mut self, host: usize) -> bool {
        let now = self.hosts[host].now(self.now);
        let Some(node) = &mut self.hosts[host].node else { return false };
        let before = node.role();
        node.tick(now);
        let is_other = node.role() != before;
        if is_other && let Some(fault) = self.hosts[host].rated_by.take() {
            self.meet(fault);
        }
        self.pump(host) || is_other
    }

    /// Something goes wrong, if anything that is left can.
    fn go_wrong(&mut self) -> bool {
        if self.mended {
            return false;
        }
        let mut happened = false;
        // In a storm what operators do goes on, only less often.
        let is_chaos = self.storm && !self.chance.one_in(5);
        if let Some(fault) = self.deck.draw(is_chaos, &mut self.chance) {
            let blow = self.strike(fault);
            match blow {
                Blow::Landed => self.meet(fault),
                Blow::Falling => self.say(|| format!("struck: {fault:?}")),
                Blow::Missed => self.deck.put_back(fault),
            }
            happened = blow != Blow::Missed;
        }
        let pause = if self.storm { 10_000 + self.chance.below(50_000) } else { 30_000 + self.chance.below(120_000) };
        self.schedule(self.now + pause, Event::Fault);
        happened
    }

    /// Storms are short, and all of the network is whole again behind them: a group that never has a leader shows nothing.
    fn turn(&mut self, storm: bool) {
        if self.mended {
            return;
        }
        self.storm = storm;
        if !storm {
            self.mend_network();
        }
        let lasts = if storm { 300_000 + self.chance.below(900_000) } else { 1_500_000 + self.chance.below(1_500_000) };
        self.schedule(self.now + lasts, Event::Weather { storm: !storm });
    }
}
