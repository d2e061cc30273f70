//! What goes wrong, and when it counts as met: once something has gone another way for it.
//!
//! A message was lost, doubled, overtaken, or held up by a cut; a machine stood still while something waited for it; a write
//! waited for a slow disk; a process died with something under way; a clock was moved, and something stamped by it or
//! compared with it, or runs at another rate, and something was decided by how much time had passed; a leader refused a write
//! or handed over for want of room; a place where a member
//! is reached was committed. What falls on a machine without a part in the group counts for nothing.

use super::agenda::Event;
use super::disk::Crash;
use super::network::Chance;
use super::world::World;
use chronos::raft::{Flow, MemberRole};

/// A kind of fault, or of work on the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    Loss,
    Duplication,
    Reordering,
    CutOneWay,
    Isolation,
    Bridge,
    Crash,
    CrashOfLeader,
    CrashOfAll,
    CrashThatKeeps,
    CrashWithAPrefix,
    CrashWithATornWrite,
    CrashWithReorderedPages,
    SlowDisk,
    SlowDisks,
    Stop,
    StopOfLeader,
    Suspend,
    ClockStep,
    ClockRate,
    Unreachable,
    Mend,
    Transfer,
    AddMember,
    RemoveMember,
    RemoveLeader,
    Witness,
    NewDisk,
    NewDisks,
    DamagedLog,
    Trim,
    TrimOfLeader,
    MovedAddress,
    StalledDisk,
    FullDisk,
    AskedWhenDeposed,
}

impl Fault {
    pub(super) const ALL: [Fault; 36] = [
        Fault::Loss,
        Fault::Duplication,
        Fault::Reordering,
        Fault::CutOneWay,
        Fault::Isolation,
        Fault::Bridge,
        Fault::Crash,
        Fault::CrashOfLeader,
        Fault::CrashOfAll,
        Fault::CrashThatKeeps,
        Fault::CrashWithAPrefix,
        Fault::CrashWithATornWrite,
        Fault::CrashWithReorderedPages,
        Fault::SlowDisk,
        Fault::SlowDisks,
        Fault::Stop,
        Fault::StopOfLeader,
        Fault::Suspend,
        Fault::ClockStep,
        Fault::ClockRate,
        Fault::Unreachable,
        Fault::Mend,
        Fault::Transfer,
        Fault::AddMember,
        Fault::RemoveMember,
        Fault::RemoveLeader,
        Fault::Witness,
        Fault::NewDisk,
        Fault::NewDisks,
        Fault::DamagedLog,
        Fault::Trim,
        Fault::TrimOfLeader,
        Fault::MovedAddress,
        Fault::StalledDisk,
        Fault::FullDisk,
        Fault::AskedWhenDeposed,
    ];

    /// True for what belongs to a storm; the rest needs a group that works, more often than not.
    fn is_chaos(self) -> bool {
        self < Fault::Transfer
    }
}

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    /// It had its effect at once.
    Landed,
    /// It counts once something has met it.
    Falling,
    /// It could not be struck now.
    Missed,
}

impl Blow {
    fn landed(has: bool) -> Blow {
        if has { Blow::Landed } else { Blow::Missed }
    }
}

/// Faults in an order of chance, each once before any comes again.
#[derive(Debug, Default)]
pub(super) struct Deck {
    chaos: Vec<Fault>,
    works: Vec<Fault>,
}

impl Deck {
    pub(super) fn draw(&mut self, is_chaos: bool, chance: &mut Chance) -> Option<Fault> {
        let cards = if is_chaos { &mut self.chaos } else { &mut self.works };
        if cards.is_empty() {
            cards.extend(Fault::ALL.into_iter().filter(|fault| fault.is_chaos() == is_chaos));
            // Rarely does another leader come in time.
            cards.extend((!is_chaos).then_some(Fault::AskedWhenDeposed));
        }
        let at = chance.below(cards.len() as u64) as usize;
        (!cards.is_empty()).then(|| cards.swap_remove(at))
    }

    /// It could not be done: its turn comes again.
    pub(super) fn put_back(&mut self, fault: Fault) {
        let cards = if fault.is_chaos() { &mut self.chaos } else { &mut self.works };
        cards.push(fault);
    }
}

impl World {
    /// A machine that the group counts, where there is one.
    fn member(&mut self) -> Option<usize> {
        let is_member = |host: &usize| {
            let this = &self.hosts[*host];
            let group = this.node.as_ref().map(chronos::raft::Node::membership);
            group.is_some_and(|group| group.get(&this.id).is_some() && !this.is_stranger(group))
        };
        let members: Vec<usize> = (0..self.hosts.len()).filter(is_member).collect();
        self.chance.pick(&members)
    }

    /// Half of the time whoever leads.
    fn leader_or(&mut self, host: usize) -> usize {
        self.leader().filter(|_| self.chance.one_in(2)).unwrap_or(host)
    }

    /// Does something to the group.
    pub(super) fn strike(&mut self, fault: Fault) -> Blow {
        let Some(host) = self.member() else { return Blow::Missed };
        let has = match fault {
            Fault::Loss => {
                self.network.loss = 20 + self.chance.below(300);
                return self.hurt(fault);
            }
            Fault::Duplication => {
                self.network.duplication = 20 + self.chance.below(300);
                return self.hurt(fault);
            }
            Fault::Reordering => {
                self.network.spread = 1000 + self.chance.below(100_000);
                return self.hurt(fault);
            }
            Fault::CutOneWay => return self.cut_one_way(fault, host),
            Fault::Isolation => {
                let ways = (0..self.hosts.len()).flat_map(|other| [(host, other), (other, host)]).collect();
                return self.cut(fault, ways);
            }
            Fault::Bridge => return self.bridge(fault, host),
            Fault::CrashThatKeeps => return self.doom((fault, Crash::Keep), host),
            Fault::CrashWithAPrefix => return self.doom((fault, Crash::Prefix), host),
            Fault::CrashWithATornWrite => return self.doom((fault, Crash::Tear), host),
            Fault::CrashWithReorderedPages => return self.doom((fault, Crash::Reorder), host),
            Fault::Crash => self.crash(host, Crash::Lose),
            Fault::CrashOfAll => self.crash_all(),
            Fault::CrashOfLeader => self.leader().is_some_and(|leader| self.crash(leader, Crash::Lose)),
            Fault::SlowDisk => {
                let host = self.leader_or(host);
                self.hosts[host].slow_disk = 1000 + self.chance.below(1_500_000);
                self.hosts[host].slowed_by = Some(fault);
                return Blow::Falling;
            }
            Fault::SlowDisks => {
                let slow = 1000 + self.chance.below(300_000);
                for other in &mut self.hosts {
                    (other.slow_disk, other.slowed_by) = (slow, Some(fault));
                }
                return Blow::Falling;
            }
            Fault::Stop => return self.stop(fault, host, 2_000_000),
            Fault::StopOfLeader => {
                let Some(leader) = self.leader() else { return Blow::Missed };
                return self.stop(fault, leader, 1_500_000);
            }
            Fault::Suspend => return self.stop(fault, host, 5_000_000),
            Fault::ClockStep => {
                self.hosts[host].wall_offset = self.chance.below(7_200_000) as i64 - 3_600_000;
                self.hosts[host].stepped_by = Some(fault);
                return Blow::Falling;
            }
            Fault::ClockRate => return self.drift(fault, host),
            Fault::StalledDisk => return self.stall(fault),
            Fault::FullDisk => return self.fill(fault, host),
            Fault::Unreachable => self.tell_unreachable(),
            Fault::Transfer => self.transfer(),
            Fault::AddMember => {
                let observes = self.chance.one_in(4);
                self.add(if observes { MemberRole::Observer } else { MemberRole::Voter })
            }
            Fault::Witness => self.add(MemberRole::Witness),
            Fault::RemoveMember => self.remove(false),
            Fault::RemoveLeader => self.remove(true),
            Fault::NewDisk => self.replace_disk(host),
            Fault::NewDisks => self.take_disks_out(),
            Fault::DamagedLog => self.damage(host),
            Fault::Trim => {
                // Whoever else is trimmed, witnesses let go of what they may.
                let witnesses: Vec<usize> = (0..self.hosts.len()).filter(|at| self.hosts[*at].is_witness()).collect();
                witnesses.into_iter().filter(|at| *at != host).for_each(|at| {
                    self.trim(at);
                });
                self.trim(host)
            }
            Fault::TrimOfLeader => self.leader().is_some_and(|leader| self.trim(leader)),
            Fault::MovedAddress => return self.move_member(host),
            Fault::AskedWhenDeposed => {
                // It stands still until there is another: an operator talks to it then.
                let Some(leader) = self.leader_in_office() else { return Blow::Missed };
                self.stop(fault, leader, 2_000_000);
                self.hosts[leader].stopped_by = None;
                self.keep_still(leader, self.hosts[leader].stopped_until + 1_000_000);
                return Blow::Falling;
            }
            Fault::Mend => {
                let was_hurt = self.network.is_hurt();
                self.mend_network();
                was_hurt
            }
        };
        Blow::landed(has)
    }

    fn cut_one_way(&mut self, fault: Fault, host: usize) -> Blow {
        let other = self.member().map(|other| self.leader_or(other)).filter(|other| *other != host);
        let Some(other) = other else { return Blow::Missed };
        let way = if self.chance.one_in(2) { (host, other) } else { (other, host) };
        self.cut(fault, vec![way])
    }

    /// Two sides that see each other only through one host in the middle.
    fn bridge(&mut self, fault: Fault, middle: usize) -> Blow {
        let sides: Vec<bool> = self.hosts.iter().map(|_| self.chance.one_in(2)).collect();
        let others: Vec<usize> = (0..self.hosts.len()).filter(|host| *host != middle).collect();
        let ways = others.iter().flat_map(|a| others.iter().map(|b| (*a, *b)));
        let ways = ways.filter(|(a, b)| sides[*a] != sides[*b]).collect();
        self.cut(fault, ways)
    }

    fn cut(&mut self, fault: Fault, ways: Vec<(usize, usize)>) -> Blow {
        self.network.cut.extend(ways.into_iter().filter(|(from, to)| from != to).map(|way| (way, fault)));
        self.hurt(fault)
    }

    /// It counts once a message has met it.
    fn hurt(&mut self, fault: Fault) -> Blow {
        self.network.arm(fault);
        Blow::Falling
    }

    pub(super) fn mend_network(&mut self) {
        self.network.mend();
        for host in &mut self.hosts {
            // One that nothing has waited for stays slow, and one that has refused nothing stays full.
            if host.slowed_by.is_none() || self.mended {
                host.slow_disk = 0;
            }
            if host.filled_by.is_none() || self.mended {
                host.set_full(false);
            }
            if let Some(node) = &mut host.node {
                node.set_log_full(false);
            }
        }
    }

    /// The machine stands still, and its clocks go on. One that is suspended hears nothing meanwhile.
    fn stop(&mut self, fault: Fault, host: usize, longest: u64) -> Blow {
        let until = self.now + 100_000 + self.chance.below(longest);
        self.keep_still(host, until);
        self.hosts[host].stopped_by = Some(fault);
        self.hosts[host].sleeps = fault == Fault::Suspend;
        Blow::Falling
    }

    pub(super) fn crash(&mut self, host: usize, how: Crash) -> bool {
        let was_up = self.hosts[host].is_up();
        let how = if self.hosts[host].disk.under_way >= how.needs() { how } else { Crash::Lose };
        self.go_down(host, how);
        was_up
    }

    /// The power goes in all machines at once: each disk has something else of what was under way.
    fn crash_all(&mut self) -> bool {
        let mut was_up = 0;
        for host in 0..self.hosts.len() {
            let how = self.chance.pick(&Crash::ALL).unwrap_or(Crash::Lose);
            was_up += u64::from(self.crash(host, how));
        }
        was_up > 1
    }

    /// A machine goes down, with so much of what its disk was doing, and starts again after a while.
    pub(super) fn go_down(&mut self, host: usize, how: Crash) {
        if self.hosts[host].is_up() && self.hosts[host].disk.under_way > 0 {
            let was_quarantined = self.hosts[host].is_quarantined();
            let kept = self.hosts[host].disk.crash(how, &mut self.chance);
            for write in &kept {
                self.note_durable(host, was_quarantined, Some(write));
            }
        }
        self.hosts[host].crash();
        let after = self.now + 1000 + self.chance.below(1_500_000);
        self.schedule(after, Event::Start { host });
    }

    /// A machine is to go down in the middle of a write; its disk is slow until then, so that requests gather.
    fn doom(&mut self, end: (Fault, Crash), host: usize) -> Blow {
        let host = self.leader_or(host);
        self.hosts[host].doomed = Some(end);
        Blow::Falling
    }

    /// Less than the tenth that a lease allows for, both ways together. A clock keeps its rate for a life: a node that
    /// compares two readings must not see a jump.
    fn drift(&mut self, fault: Fault, host: usize) -> Blow {
        if self.hosts[host].is_up() {
            self.crash(host, Crash::Lose);
        }
        self.hosts[host].rate = self.chance.below(80_000) as i64 - 40_000;
        self.hosts[host].rated_by = Some(fault);
        Blow::Falling
    }

    /// A leader's disk does not answer for long, and the leader is told so. Or nobody tells it, and it is cut off as well:
    /// what it appends then waits for the disk while another leader goes on.
    fn stall(&mut self, fault: Fault) -> Blow {
        let Some(leader) = self.leader() else { return Blow::Missed };
        let now = self.hosts[leader].now(self.now);
        let apart = self.now + 1_500_000;
        self.hosts[leader].stalled_until = apart + 200_000 + self.chance.below(1_300_000);
        self.hosts[leader].stalled_by = Some(fault);
        if self.chance.one_in(2) {
            self.network.apart.insert(leader, apart);
        } else if let Some(node) = &mut self.hosts[leader].node {
            node.step_aside(now);
            self.pump(leader);
        }
        Blow::Falling
    }

    /// A machine's disk has less room than is to be kept back. It takes what a leader sends, and as a leader nothing of
    /// clients.
    fn fill(&mut self, fault: Fault, host: usize) -> Blow {
        let host = self.leader_or(host);
        self.hosts[host].set_full(true);
        self.hosts[host].filled_by = Some(fault);
        Blow::Falling
    }

    /// A leader that is short of disk has refused something for that, or steps aside.
    pub(super) fn note_full(&mut self, host: usize) {
        if let Some(fault) = self.hosts[host].filled_by.take() {
            self.meet(fault);
        }
    }

    /// A leader is told that a stream to a peer has broken: what was on its way may be lost.
    fn tell_unreachable(&mut self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Some(node) = &mut self.hosts[leader].node else { return false };
        let peers: Vec<_> = node.status().peers.into_iter().filter(|peer| peer.flow == Flow::Replicate).collect();
        let Some(peer) = self.chance.pick(&peers) else { return false };
        node.unreachable(&peer.id);
        self.pump(leader);
        true
    }
}
