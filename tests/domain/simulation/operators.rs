//! What operators do to a group while it works, and while it does not.

use super::agenda::Event;
use super::faults::Blow;
use super::host::Host;
use super::world::World;
use chronos::raft::{Change, MemberRole};

impl World {
    pub(super) fn transfer(&mut self) -> bool {
        let Some(leader) = self.leader() else { return false };
        self.transfer_from(leader)
    }

    fn transfer_from(&mut self, leader: usize) -> bool {
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

    pub(super) fn add(&mut self, role: MemberRole) -> bool {
        self.leader_in_office().is_some_and(|leader| self.add_at(leader, role))
    }

    fn add_at(&mut self, leader: usize, role: MemberRole) -> bool {
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
        self.count_all("observers added", u64::from(role == MemberRole::Observer));
        true
    }

    pub(super) fn remove(&mut self, is_leader: bool) -> bool {
        self.leader_in_office().is_some_and(|leader| self.remove_at(leader, is_leader))
    }

    fn remove_at(&mut self, leader: usize, is_leader: bool) -> bool {
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

    /// Removes a member that has lost its disk.
    pub(super) fn remove_a_stranger(&mut self) {
        // A machine that nobody counts may know of a later term than whoever leads.
        let Some(leader) = self.leader() else { return };
        let Some(node) = &self.hosts[leader].node else { return };
        let group = node.membership();
        let is_lost = |host: &&Host| group.get(&host.id).is_some() && host.is_stranger(group);
        if let Some(id) = self.hosts.iter().find(is_lost).map(|host| host.id.clone()) {
            let is_done = self.change(leader, &Change::Remove { id });
            self.count_all("members removed that had lost their disk", u64::from(is_done));
        }
    }

    fn change(&mut self, leader: usize, change: &Change) -> bool {
        let now = self.hosts[leader].now(self.now);
        let Some(node) = &mut self.hosts[leader].node else { return false };
        let done = node.change(change, now).is_ok();
        self.pump(leader);
        done
    }

    /// An operator asks for the one or the other.
    pub(super) fn ask_for_changes(&mut self, host: usize) {
        let first = self.chance.below(3);
        let is_taken = (first..first + 3).any(|what| match what % 3 {
            0 => self.add_at(host, MemberRole::Voter),
            1 => self.remove_at(host, false),
            _ => self.transfer_from(host),
        });
        self.count_all("changes that a deposed leader began", u64::from(is_taken));
    }

    /// A member is reached elsewhere from now on, and says so to whoever leads, until that is committed.
    pub(super) fn move_member(&mut self, host: usize) -> Blow {
        let Some(leader) = self.leader_in_office().filter(|leader| *leader != host) else { return Blow::Missed };
        let Some(node) = &self.hosts[leader].node else { return Blow::Missed };
        if node.membership().get(&self.hosts[host].id).is_none() {
            return Blow::Missed;
        }
        self.hosts[host].address = Some(format!("{host}:{}", 2 + self.chance.below(1000)));
        self.tell_addresses(leader);
        Blow::Falling
    }

    pub(super) fn tell_addresses(&mut self, leader: usize) {
        for host in (0..self.hosts.len()).filter(|host| *host != leader) {
            let (id, disk) = (self.hosts[host].id.clone(), self.hosts[host].disk_id);
            let address = self.hosts[host].address.clone();
            if let (Some(node), Some(address)) = (&mut self.hosts[leader].node, address) {
                node.reached_at(&id, disk, &address);
            }
        }
    }
}
