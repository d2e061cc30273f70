//! What goes wrong, and what operators do meanwhile.

use super::agenda::Event;
use super::disk::Disk;
use super::host::Host;
use super::network::Chance;
use super::world::World;
use chronos::ids::{DiskId, LogIndex};
use chronos::raft::{Change, MemberRole, Membership, NodeId, Payload};

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
    SlowDisk,
    SlowDisks,
    Stop,
    StopOfLeader,
    Suspend,
    ClockStep,
    ClockRate,
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
}

impl Fault {
    pub(super) const ALL: [Fault; 27] = [
        Fault::Loss,
        Fault::Duplication,
        Fault::Reordering,
        Fault::CutOneWay,
        Fault::Isolation,
        Fault::Bridge,
        Fault::Crash,
        Fault::CrashOfLeader,
        Fault::CrashOfAll,
        Fault::SlowDisk,
        Fault::SlowDisks,
        Fault::Stop,
        Fault::StopOfLeader,
        Fault::Suspend,
        Fault::ClockStep,
        Fault::ClockRate,
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
    ];

    /// True for what belongs to a storm; the rest needs a group that works, more often than not.
    fn is_chaos(self) -> bool {
        self < Fault::Transfer
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
    /// Does something to the group; false where it cannot be done now.
    pub(super) fn strike(&mut self, fault: Fault) -> bool {
        let hosts = self.hosts.len() as u64;
        let host = self.chance.below(hosts) as usize;
        match fault {
            Fault::Loss => self.network.loss = 20 + self.chance.below(300),
            Fault::Duplication => self.network.duplication = 20 + self.chance.below(300),
            Fault::Reordering => self.network.spread = 1000 + self.chance.below(100_000),
            Fault::CutOneWay => {
                let to = self.chance.below(hosts) as usize;
                self.network.cut.insert((host, to));
            }
            Fault::Isolation => {
                for other in 0..self.hosts.len() {
                    self.network.cut.extend([(host, other), (other, host)]);
                }
            }
            Fault::Bridge => {
                // Two sides that see each other only through one host in the middle.
                let sides: Vec<bool> = (0..hosts).map(|_| self.chance.one_in(2)).collect();
                for a in (0..self.hosts.len()).filter(|a| *a != host) {
                    for b in (0..self.hosts.len()).filter(|b| *b != host && sides[*b] != sides[a]) {
                        self.network.cut.insert((a, b));
                    }
                }
            }
            Fault::Crash => return self.crash(host),
            Fault::CrashOfAll => (0..self.hosts.len()).for_each(|host| {
                self.crash(host);
            }),
            Fault::CrashOfLeader => return self.leader().is_some_and(|leader| self.crash(leader)),
            Fault::SlowDisk => self.hosts[host].slow_disk = 1000 + self.chance.below(1_500_000),
            Fault::SlowDisks => {
                let slow = 1000 + self.chance.below(300_000);
                self.hosts.iter_mut().for_each(|host| host.slow_disk = slow);
            }
            Fault::Stop => self.stop(host, 2_000_000, false),
            Fault::StopOfLeader => {
                let Some(leader) = self.leader() else { return false };
                self.stop(leader, 1_500_000, false);
            }
            Fault::Suspend => self.stop(host, 5_000_000, true),
            Fault::ClockStep => {
                self.hosts[host].wall_offset = self.chance.below(7_200_000) as i64 - 3_600_000;
            }
            Fault::ClockRate => return self.drift(host),
            Fault::Transfer => return self.transfer(),
            Fault::AddMember => return self.add(MemberRole::Voter),
            Fault::Witness => return self.add(MemberRole::Witness),
            Fault::RemoveMember => return self.remove(false),
            Fault::RemoveLeader => return self.remove(true),
            Fault::NewDisk => return self.replace_disk(host),
            Fault::NewDisks => return self.take_disks_out(),
            Fault::DamagedLog => return self.damage(host),
            Fault::Trim => {
                // Whoever else is trimmed, witnesses let go of what they may.
                let witnesses: Vec<usize> = (0..self.hosts.len()).filter(|at| self.hosts[*at].is_witness()).collect();
                witnesses.into_iter().filter(|at| *at != host).for_each(|at| {
                    self.trim(at);
                });
                return self.trim(host);
            }
            Fault::TrimOfLeader => return self.leader().is_some_and(|leader| self.trim(leader)),
            Fault::Mend => self.mend_network(),
        }
        true
    }

    pub(super) fn mend_network(&mut self) {
        self.network.mend();
        for host in &mut self.hosts {
            host.slow_disk = 0;
            if let Some(node) = &mut host.node {
                node.set_log_full(false);
            }
        }
    }

    /// The machine stands still, and its clocks go on.
    fn stop(&mut self, host: usize, longest: u64, sleeps: bool) {
        self.hosts[host].stopped_until = self.now + 100_000 + self.chance.below(longest);
        self.hosts[host].sleeps = sleeps;
    }

    fn crash(&mut self, host: usize) -> bool {
        let was_up = self.hosts[host].is_up();
        self.hosts[host].crash();
        let after = self.now + 1000 + self.chance.below(1_500_000);
        self.schedule(after, Event::Start { host });
        was_up
    }

    /// Less than the tenth that a lease allows for, both ways together. A clock keeps its rate for a life: a node that
    /// compares two readings must not see a jump.
    fn drift(&mut self, host: usize) -> bool {
        if self.hosts[host].is_up() {
            self.crash(host);
        }
        self.hosts[host].rate = self.chance.below(80_000) as i64 - 40_000;
        true
    }

    fn transfer(&mut self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let to = self.hosts[self.chance.below(self.hosts.len() as u64) as usize].id.clone();
        let to = (!self.chance.one_in(3)).then_some(to);
        let now = self.hosts[leader].now(self.now);
        let Some(node) = &mut self.hosts[leader].node else { return false };
        let term = node.term();
        let asked = node.transfer(to.as_ref(), now);
        self.pump(leader);
        let Ok(to) = asked else { return false };
        self.transfer_until = self.now + 20_000;
        self.transfer = self.index(&to).map(|heir| (term, heir));
        self.schedule(self.now + 1_500_000, Event::TransferDue { term });
        true
    }

    fn add(&mut self, role: MemberRole) -> bool {
        let Some(leader) = self.leader_in_office() else { return false };
        let Some(node) = &self.hosts[leader].node else { return false };
        let membership = node.membership().clone();
        // One that was removed comes back with a new disk, as an operator would have it.
        // Nor does an operator clear a machine that counts by anybody's log: a change that is not committed may live on.
        let counts = |other: &Host, host: &Host| {
            other.disk.newest_membership().get(&host.id).is_some_and(|member| member.disk == Some(host.disk_id))
        };
        let is_out = |host: &usize| {
            let this = &self.hosts[*host];
            membership.get(&this.id).is_none() && !self.hosts.iter().any(|other| counts(other, this))
        };
        let Some(host) = (0..self.hosts.len()).find(is_out) else { return false };
        let change = Change::Add { id: self.hosts[host].id.clone(), address: format!("{host}:1"), role };
        if !self.change(leader, &change) {
            return false;
        }
        self.format(host);
        true
    }

    fn remove(&mut self, is_leader: bool) -> bool {
        let Some(leader) = self.leader_in_office() else { return false };
        let Some(node) = &self.hosts[leader].node else { return false };
        if node.membership().voters().count() <= 2 {
            return false;
        }
        let members: Vec<_> = node.membership().members.keys().cloned().collect();
        let Some(mut id) = self.chance.pick(&members) else { return false };
        if is_leader {
            id = self.hosts[leader].id.clone();
        }
        let change = Change::Remove { id };
        if !node.membership().changed(&change).is_ok_and(|next| self.can_lose(&next, None)) {
            return false;
        }
        let done = self.change(leader, &change);
        if done && is_leader {
            self.count("leaders that removed themselves");
        }
        done
    }

    fn change(&mut self, leader: usize, change: &Change) -> bool {
        let now = self.hosts[leader].now(self.now);
        let Some(node) = &mut self.hosts[leader].node else { return false };
        let done = node.change(change, now).is_ok();
        self.pump(leader);
        done
    }

    /// An empty disk in a machine that is to join.
    fn format(&mut self, host: usize) {
        self.hosts[host].crash();
        self.disks += 1;
        self.hosts[host].disk_id = DiskId(self.disks);
        self.hosts[host].disk = Disk::format(None);
        self.hosts[host].has_new_disk = false;
        self.hosts[host].was_damaged = false;
        self.hosts[host].shelf = None;
        self.schedule(self.now + 1000, Event::Start { host });
    }

    /// True where those whose disks are whole still decide, with one more of them gone. With fewer an operator would
    /// decide what to give up.
    fn can_lose(&self, membership: &Membership, one_more: Option<usize>) -> bool {
        let lost =
            |(n, host): &(usize, &Host)| host.is_stranger(membership) || host.is_quarantined() || Some(*n) == one_more;
        // Who learns may vote before its leader hears of the damage.
        let votes = |(n, host): &(usize, &Host)| {
            let is_hit = host.was_damaged || host.is_stranger(membership) || Some(*n) == one_more;
            membership
                .get(&host.id)
                .is_some_and(|member| member.role.votes() || (is_hit && member.role.promoted().is_some()))
        };
        let is_full = |(_, host): &(usize, &Host)| {
            membership.get(&host.id).is_some_and(|member| member.role == MemberRole::Voter)
        };
        let deciders: Vec<(usize, &Host)> = self.hosts.iter().enumerate().filter(votes).collect();
        let whole: Vec<&(usize, &Host)> = deciders.iter().filter(|decider| !lost(decider)).collect();
        // And one of them has more than the log.
        whole.len() > deciders.len() / 2 && whole.into_iter().any(is_full)
    }

    /// An operator puts an empty disk into a member's machine and starts it again with the same name: it must not count.
    fn replace_disk(&mut self, host: usize) -> bool {
        let Some(leader) = self.leader_in_office() else { return false };
        let Some(node) = &self.hosts[leader].node else { return false };
        let membership = node.membership();
        let settled = node.committed() >= node.last().index;
        if !self.can_lose(membership, Some(host)) || membership.get(&self.hosts[host].id).is_none() || !settled {
            return false;
        }
        if host == leader || !self.knows_of_a_group(&[host]) {
            return false;
        }
        self.empty(host);
        true
    }

    /// An empty disk in a machine that starts as it first did.
    fn empty(&mut self, host: usize) {
        let bootstrap = self.bootstrap.clone();
        self.format(host);
        self.hosts[host].disk = Disk::format(Some(bootstrap));
        self.hosts[host].has_new_disk = true;
    }

    /// True where one of the first members keeps a disk that knows of a group. Were all of them empty, they would be a new
    /// group by right: whatever was there, nobody of those that they know has it.
    fn knows_of_a_group(&self, without: &[usize]) -> bool {
        let first = self.first_membership();
        let mut keepers = first.members.keys().filter_map(|id| self.index(id)).filter(|host| !without.contains(host));
        keepers.any(|host| !self.hosts[host].has_new_disk && self.hosts[host].disk.last().index.0 > 1)
    }

    fn first_membership(&self) -> Membership {
        match Payload::decode(&self.bootstrap.payload).unwrap() {
            Payload::Membership(membership) => membership,
            Payload::Noop | Payload::Command(_) => panic!("the first entry is a membership"),
        }
    }

    /// Two or three machines start at once without their disks (a mount that is missing), with empty directories. What they
    /// held comes back later: until then nothing may be decided without it that needs it.
    fn take_disks_out(&mut self) -> bool {
        let is_whole = |host: &usize| {
            let this = &self.hosts[*host];
            this.is_bound() && !this.is_quarantined() && this.shelf.is_none() && !this.has_new_disk
        };
        let mut hosts: Vec<usize> = (0..self.hosts.len()).filter(is_whole).collect();
        let count = 2 + self.chance.below(2) as usize;
        while hosts.len() > count {
            let at = self.chance.below(hosts.len() as u64) as usize;
            hosts.swap_remove(at);
        }
        if hosts.len() < 2 || !self.knows_of_a_group(&hosts) {
            return false;
        }
        for &host in &hosts {
            let this = &mut self.hosts[host];
            let taken = (this.disk_id, std::mem::take(&mut this.disk));
            self.empty(host);
            self.hosts[host].shelf = Some(taken);
        }
        if !self.has_majority_of_disks() {
            self.count("groups without a majority of disks");
        }
        let after = self.now + 100_000 + self.chance.below(3_000_000);
        for host in hosts {
            let apart = self.chance.below(500_000);
            self.schedule(after + apart, Event::PutBack { host });
        }
        true
    }

    /// By the longest log that there is.
    fn has_majority_of_disks(&self) -> bool {
        let end = |host: &&Host| (host.disk.last().term, host.disk.last().index);
        let Some(longest) = self.hosts.iter().max_by_key(end) else { return false };
        let group = longest.disk.newest_membership();
        let whole =
            group.voters().filter_map(|id| self.index(id)).filter(|host| !self.hosts[*host].is_stranger(&group));
        whole.count() >= group.quorum()
    }

    /// The disk is there again, with all that was durable on it.
    pub(super) fn put_back(&mut self, host: usize) {
        let Some((id, disk)) = self.hosts[host].shelf.take() else { return };
        let this = &mut self.hosts[host];
        this.crash();
        (this.disk_id, this.disk, this.has_new_disk) = (id, disk, false);
        this.disk.queue.clear();
        self.count("disks put back");
        self.schedule(self.now + 1000, Event::Start { host });
    }

    /// Sectors go bad in the middle of a log: what is behind them is given up, and the member is in quarantine.
    fn damage(&mut self, host: usize) -> bool {
        let Some(leader) = self.leader_in_office().filter(|leader| *leader != host) else { return false };
        let Some(node) = &self.hosts[leader].node else { return false };
        let settled = node.committed() >= node.last().index;
        if !settled || !self.can_lose(node.membership(), Some(host)) || self.hosts[host].disk.entries.len() < 3 {
            return false;
        }
        let this = &mut self.hosts[host];
        this.crash();
        let last = this.disk.last().index;
        let kept = self.chance.below(this.disk.entries.len() as u64 - 1) as usize;
        this.disk.entries.truncate(kept);
        this.disk.hard_state.quarantined_until = Some(last);
        this.was_damaged = true;
        this.disk.note_membership();
        let after = self.now + 1000 + self.chance.below(500_000);
        self.schedule(after, Event::Start { host });
        true
    }

    /// A machine seals what it has applied and lets go of the log before.
    fn trim(&mut self, host: usize) -> bool {
        let this = &self.hosts[host];
        let state = this.state.clone();
        let first = LogIndex(this.disk.snapshot.applied.index.0 + 2);
        let held = this.node.as_ref().map_or(LogIndex(0), chronos::raft::Node::held);
        // A witness keeps what some full voter may still lack, and what it may have passed over by mistake.
        let may_need_it = this.is_witness() && !(this.is_bound() && this.state.is_bare && held >= state.applied.index);
        if may_need_it {
            self.fill_log(host);
        }
        let this = &self.hosts[host];
        if !this.is_up() || may_need_it || state.applied.index <= first {
            return false;
        }
        if this.is_witness() {
            self.check_that_others_have(host, state.applied.index);
            self.count("logs of witnesses that were trimmed");
        }
        let this = &mut self.hosts[host];
        this.disk.trim(state.clone());
        if let Some(node) = &mut this.node {
            node.trimmed(state.applied);
            node.set_log_full(false);
        }
        true
    }

    /// A witness that may let go of nothing comes to its limit, or is given more room.
    fn fill_log(&mut self, host: usize) {
        let Some(node) = &mut self.hosts[host].node else { return };
        let is_full = !node.status().log_is_full;
        node.set_log_full(is_full);
        if is_full {
            self.count("logs of witnesses that were full");
        }
    }

    /// What a witness lets go of, every full voter has on its disk, but for what a disk has lost since. Its own log may be
    /// too short to know of one that is gone for good.
    fn check_that_others_have(&self, witness: usize, index: LogIndex) {
        let membership = self.hosts[witness].disk.newest_membership();
        let furthest = self.hosts.iter().max_by_key(|host| host.state.applied.index);
        let is_full = |membership: &Membership, id: &NodeId| {
            membership.get(id).is_some_and(|member| member.role == MemberRole::Voter)
        };
        let stays = |id: &&NodeId| furthest.is_none_or(|host| is_full(&host.state.membership, id));
        let full = membership.members.keys().filter(|id| is_full(&membership, id)).filter(stays);
        for host in full.filter_map(|id| self.index(id)) {
            let this = &self.hosts[host];
            let lost_it = this.is_stranger(&membership) || this.is_quarantined() || this.was_damaged;
            let last = this.disk.last().index;
            assert!(lost_it || last >= index, "a witness lets go of entry {index}, and {} has {last}", this.id);
        }
    }
}
