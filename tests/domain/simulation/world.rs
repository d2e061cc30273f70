//! Everything there is: the hosts, the wires, the clients, and what happens when.

use super::agenda::{Agenda, Event};
use super::checks::Checks;
use super::disk::Disk;
use super::faults::{Deck, Fault};
use super::host::Host;
use super::network::{Chance, Network};
use chronos::ids::{DiskId, LogIndex, Term};
use chronos::raft::{Entry, Envelope, Load, Member, MemberRole, Membership, NodeId, Position, Role, bootstrap};
use std::collections::{BTreeMap, BTreeSet};

/// What a run was.
pub(super) struct Report {
    pub(super) events: u64,
    pub(super) faults: BTreeSet<Fault>,
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
    faults: BTreeSet<Fault>,
    counts: BTreeMap<&'static str, u64>,
    trace: u64,
    pub(super) talks: bool,
    pub(super) asks: u64,
    /// Writes acknowledged so far.
    pub(super) acknowledged: u64,
    /// A leader is asked to hand over until then.
    pub(super) transfer_until: u64,
    /// Of which term, and to whom.
    pub(super) transfer: Option<(Term, usize)>,
    storm: bool,
    mended: bool,
}

/// Microseconds between two looks at the clock.
const TICK: u64 = 50_000;

/// What everything may take once it is mended.
const RECOVERY: u64 = 60_000_000;

/// Microseconds of the first calm: a group elects a leader, and clients find it.
const FIRST_CALM: u64 = 1_800_000;

/// Writes that must succeed once everything is mended.
const PROOF_OF_LIFE: u64 = 20;

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
            faults: BTreeSet::new(),
            counts: BTreeMap::new(),
            trace: seed,
            talks: std::env::var("CHRONOS_SEED").is_ok(),
            asks: 0,
            acknowledged: 0,
            transfer_until: 0,
            transfer: None,
            storm: false,
            mended: false,
        };
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
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if self.talks {
            println!("{} {}", self.now, what());
        }
    }

    /// Runs so many events with faults, then mends everything and demands progress.
    pub(super) fn run(mut self, events: u64) -> Report {
        let guard = Guard(self.seed);
        let mut happened = 0;
        while happened < events {
            self.next();
            happened += 1;
        }
        self.recover(&mut happened);
        std::mem::forget(guard);
        Report { events: happened, faults: self.faults, counts: self.counts, trace: self.trace }
    }

    fn next(&mut self) {
        let Some((at, event)) = self.agenda.next() else { panic!("nothing happens any more") };
        self.now = self.now.max(at);
        if let Some(host) = event.host()
            && self.hosts[host].stopped_until > self.now
        {
            // A machine that stands still takes what happens to it when it goes on; what is sent to one that sleeps is
            // lost.
            let is_lost = self.hosts[host].sleeps && matches!(event, Event::Deliver { .. } | Event::Forwarded { .. });
            if !is_lost {
                self.agenda.add(self.hosts[host].stopped_until, event);
            }
            return;
        }
        self.say(|| format!("{event:?}"));
        let mixed = (self.trace ^ self.now).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ event.digest();
        self.trace = mixed.rotate_left(23).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        self.happen(event);
    }

    /// The number of a host; none of a name that no machine has.
    pub(super) fn index(&self, id: &NodeId) -> Option<usize> {
        id.0.strip_prefix('n')?.parse().ok().filter(|host| *host < self.hosts.len())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick { host } => {
                let now = self.hosts[host].now(self.now);
                if let Some(node) = &mut self.hosts[host].node {
                    node.tick(now);
                }
                self.pump(host);
                self.schedule(self.now + TICK, Event::Tick { host });
            }
            Event::Deliver { to, disk, envelope } => {
                if self.hosts[to].disk_id == disk {
                    self.deliver(to, *envelope);
                }
            }
            Event::Persisted { host, life } => self.persisted(host, life),
            Event::Loaded { host, life, load } => self.loaded(host, life, &load),
            Event::Snapshot { from, to, disk, life, term, state } => {
                if self.hosts[to].disk_id == disk {
                    self.install(from, to, life, term, *state);
                } else {
                    let peer = self.hosts[to].id.clone();
                    self.schedule(self.now, Event::SnapshotEnded { host: from, life, peer, installed: None });
                }
            }
            Event::SnapshotEnded { host, life, peer, installed } => {
                let now = self.hosts[host].now(self.now);
                if self.hosts[host].life == life
                    && let Some(node) = &mut self.hosts[host].node
                {
                    node.snapshot_ended(&peer, installed, now);
                }
                self.pump(host);
            }
            Event::Start { host } => {
                if !self.hosts[host].is_up() {
                    let seed = self.chance.next();
                    self.hosts[host].start(seed, &mut self.checks);
                    self.pump(host);
                }
            }
            Event::PutBack { host } => self.put_back(host),
            Event::Forwarded { host, ask, known } => self.propose(host, ask, known, "forwarded writes taken"),
            Event::TransferDue { term } => {
                if self.transfer.take_if(|(of, _)| *of == term).is_some() {
                    self.count("transfers that failed");
                }
            }
            Event::Client => {
                self.ask();
                let next = self.now + 2000 + self.chance.below(20_000);
                self.schedule(next, Event::Client);
            }
            Event::Fault => self.go_wrong(),
            Event::Weather { storm } => self.turn(storm),
        }
    }

    /// Something goes wrong, if anything that is left can.
    fn go_wrong(&mut self) {
        if self.mended {
            return;
        }
        // In a storm what operators do goes on, only less often.
        let is_chaos = self.storm && !self.chance.one_in(5);
        if let Some(fault) = self.deck.draw(is_chaos, &mut self.chance) {
            if self.strike(fault) {
                self.faults.insert(fault);
                self.say(|| format!("{fault:?}"));
            } else {
                self.deck.put_back(fault);
            }
        }
        let pause = if self.storm { 20_000 + self.chance.below(80_000) } else { 30_000 + self.chance.below(120_000) };
        self.schedule(self.now + pause, Event::Fault);
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

    fn deliver(&mut self, host: usize, envelope: Envelope) {
        let now = self.hosts[host].now(self.now);
        if let Some(node) = &mut self.hosts[host].node {
            node.step(envelope, now);
            self.pump(host);
        }
    }

    fn persisted(&mut self, host: usize, life: u64) {
        if self.hosts[host].life != life {
            return;
        }
        self.hosts[host].disk_is_busy = false;
        let was_quarantined = self.hosts[host].disk.hard_state.quarantined_until.is_some();
        let Some(write) = self.hosts[host].disk.complete() else { return };
        let this = &self.hosts[host];
        if let Some(hard_state) = &write.hard_state
            && let Some(vote) = hard_state.vote
        {
            self.checks.votes(this.disk_id, hard_state.term, vote);
        }
        for entry in &write.entries {
            let before = entry.index.previous();
            let previous = this.disk.entry(before).map_or(this.disk.snapshot.applied.term, |entry| entry.term);
            self.checks.holds(entry, previous);
        }
        if was_quarantined && this.disk.hard_state.quarantined_until.is_none() {
            self.count(if self.hosts[host].was_damaged { "quarantines left" } else { "joiners caught up" });
            self.hosts[host].was_damaged = false;
        }
        let last = write.entries.last().map(|entry| Position { index: entry.index, term: entry.term });
        if let (Some(node), Some(last)) = (&mut self.hosts[host].node, last) {
            node.persisted(last);
        }
        if write.commit_on_persist
            && let Some(last) = last
        {
            self.hosts[host].commit(last);
        }
        for envelope in write.after_persist {
            if envelope.to == self.hosts[host].id {
                let now = self.hosts[host].now(self.now);
                if let Some(node) = &mut self.hosts[host].node {
                    node.step(envelope, now);
                }
            } else {
                self.send(host, envelope);
            }
        }
        self.apply(host);
        self.pump(host);
    }

    fn loaded(&mut self, host: usize, life: u64, load: &Load) {
        if self.hosts[host].life != life {
            return;
        }
        let now = self.hosts[host].now(self.now);
        let mut entries = Vec::new();
        let mut at = load.from;
        while let Some(entry) = self.hosts[host].disk.entry(at)
            && entries.len() < 4
        {
            entries.push(entry.clone());
            at = at.next();
        }
        if let Some(node) = &mut self.hosts[host].node {
            node.loaded(&load.peer, entries, now);
        }
        self.count("loads from disk");
        self.pump(host);
    }

    /// Everything is mended: the group must elect a leader, take writes, and agree.
    fn recover(&mut self, happened: &mut u64) {
        self.mended = true;
        self.mend_network();
        for host in 0..self.hosts.len() {
            self.hosts[host].stopped_until = 0;
            self.put_back(host);
            self.schedule(self.now + 1000, Event::Start { host });
        }
        let until = self.now + RECOVERY;
        let goal = self.acknowledged + PROOF_OF_LIFE;
        while self.acknowledged < goal || !self.agrees() {
            assert!(
                self.now < until,
                "no progress, or no agreement, a minute after everything was mended:\n{}",
                self.describe()
            );
            self.next();
            *happened += 1;
        }
    }

    fn describe(&self) -> String {
        let line = |host: &Host| {
            let status = host.node.as_ref().map(chronos::raft::Node::status);
            format!("{} new disk {} applied {:?}: {status:?}\n", host.id, host.has_new_disk, host.state.applied)
        };
        self.hosts.iter().map(line).collect()
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let term = |host: &usize| self.hosts[*host].node.as_ref().map(chronos::raft::Node::term);
        let leads = |host: &usize| self.hosts[*host].node.as_ref().is_some_and(|node| node.role() == Role::Leader);
        (0..self.hosts.len()).filter(leads).max_by_key(term)
    }

    /// The leader that an operator would ask: nobody knows of a later term.
    pub(super) fn leader_in_office(&self) -> Option<usize> {
        let term = |host: usize| self.hosts[host].node.as_ref().map(chronos::raft::Node::term);
        self.leader().filter(|leader| (0..self.hosts.len()).all(|host| term(host) <= term(*leader)))
    }

    /// True where all members that may take part have applied the same, up to the leader's last entry but what is just on
    /// its way.
    fn agrees(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Some(node) = &self.hosts[leader].node else { return false };
        let goal = LogIndex(node.committed().0.saturating_sub(30));
        let membership = node.membership();
        let is_there = |host: &Host| host.is_stranger(membership) || (host.is_up() && host.state.applied.index >= goal);
        membership.members.keys().filter_map(|id| self.index(id)).all(|host| is_there(&self.hosts[host]))
    }

    /// Takes note of a leader that is new.
    pub(super) fn note_leader(&mut self, host: usize, term: Term) {
        if self.checks.leads(host, term) {
            self.count("leaders");
            if self.transfer.take_if(|(of, heir)| *heir == host && term > *of).is_some() {
                self.count("transfers");
            }
            if self.hosts[host].is_witness() {
                self.count("witnesses that led");
            }
        }
    }
}

/// Names the seed of a run that failed.
struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        println!("failed: run it again with CHRONOS_SEED={}", self.0);
    }
}
