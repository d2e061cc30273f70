//! What becomes of disks: new ones, empty ones, damaged ones, and logs that are let go of.

use super::agenda::Event;
use super::disk::Disk;
use super::host::Host;
use super::world::World;
use chronos::ids::{DiskId, LogIndex};
use chronos::raft::{MemberRole, Membership, NodeId, Payload, Position};

/// Microseconds in which a leader, which may have stood still, has heard that a member's quarantine is over.
const HEARD_WITHIN: u64 = 6_000_000;

impl World {
    /// An empty disk in a machine that is to join.
    pub(super) fn format(&mut self, host: usize) {
        self.hosts[host].crash();
        self.disks += 1;
        self.hosts[host].disk_id = DiskId(self.disks);
        self.hosts[host].disk = Disk::format(None);
        self.hosts[host].has_new_disk = false;
        self.hosts[host].was_damaged = false;
        self.hosts[host].was_away = false;
        self.hosts[host].shelf = None;
        self.hosts[host].address = None;
        self.schedule(self.now + 1000, Event::Start { host });
    }

    /// True where those whose disks are whole still decide, with one more of them gone. With fewer an operator would
    /// decide what to give up.
    pub(super) fn can_lose(&self, membership: &Membership, one_more: Option<usize>) -> bool {
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
    pub(super) fn replace_disk(&mut self, host: usize) -> bool {
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
    pub(super) fn take_disks_out(&mut self) -> bool {
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
    pub(super) fn put_back(&mut self, host: usize) -> bool {
        let Some((id, disk)) = self.hosts[host].shelf.take() else { return false };
        let this = &mut self.hosts[host];
        this.crash();
        (this.disk_id, this.disk, this.has_new_disk) = (id, disk, false);
        this.was_away = true;
        this.disk.queue.clear();
        this.disk.under_way = 0;
        self.count("disks put back");
        self.schedule(self.now + 1000, Event::Start { host });
        true
    }

    /// Sectors go bad in the middle of a log: what is behind them is given up, and the member is in quarantine.
    pub(super) fn damage(&mut self, host: usize) -> bool {
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
    pub(super) fn trim(&mut self, host: usize) -> bool {
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

    /// A witness is to give up its log for a snapshot: every full voter of what is settled has all that is in that on its
    /// disk, or has lost its log, or an operator has said that it goes. That is judged by what there is, whatever the
    /// leader holds for true.
    pub(super) fn check_that_voters_had(&self, leader: usize, at: Position) {
        let group = self.hosts[leader].node.as_ref().map(chronos::raft::Node::membership);
        let stays = |id: &NodeId| group.is_some_and(|group| group.get(id).is_some());
        let full = self.settled.1.members.iter().filter(|(id, member)| member.role == MemberRole::Voter && stays(id));
        for host in full.filter_map(|(id, _)| self.index(id)) {
            let this = &self.hosts[host];
            let is_just_healed = this.healed_at.is_some_and(|at| self.now < at + HEARD_WITHIN);
            let is_lost = is_just_healed
                || this.is_quarantined()
                || this.was_damaged
                || this.was_away
                || this.is_stranger(&self.settled.1);
            let has_it =
                this.disk.snapshot.applied.index >= at.index || this.disk.durable_term(at.index) == Some(at.term);
            let last = this.disk.last();
            assert!(
                has_it || is_lost,
                "a witness gives up its log for a snapshot at {at:?}, and {} has {last:?}",
                this.id
            );
        }
    }

    /// What a witness lets go of, every full voter has on its disk, but for what a disk has lost since. Its own log may be
    /// too short to know of one that is gone for good.
    fn check_that_others_have(&self, witness: usize, index: LogIndex) {
        let membership = self.hosts[witness].disk.newest_membership();
        let is_full = |membership: &Membership, id: &NodeId| {
            membership.get(id).is_some_and(|member| member.role == MemberRole::Voter)
        };
        let stays = |id: &&NodeId| is_full(&self.settled.1, id);
        let full = membership.members.keys().filter(|id| is_full(&membership, id)).filter(stays);
        for host in full.filter_map(|id| self.index(id)) {
            let this = &self.hosts[host];
            let lost_it = this.is_stranger(&membership) || this.is_quarantined() || this.was_damaged;
            let last = this.disk.last().index;
            assert!(lost_it || last >= index, "a witness lets go of entry {index}, and {} has {last}", this.id);
        }
    }
}
