//! What operators do to a group while it works, and while it does not.

use super::agenda::Event;
use super::faults::Fault;
use super::host::Host;
use super::world::World;
use chronos::ids::Term;
use chronos::raft::{Change, MemberRole, Role};

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
        let Some(leader) = self.leader_in_office() else { return };
        let Some(node) = &self.hosts[leader].node else { return };
        let group = node.membership();
        let is_lost = |host: &&Host| group.get(&host.id).is_some() && host.is_stranger(group);
        if let Some(id) = self.hosts.iter().find(is_lost).map(|host| host.id.clone()) {
            self.change(leader, &Change::Remove { id });
        }
    }

    fn change(&mut self, leader: usize, change: &Change) -> bool {
        let now = self.hosts[leader].now(self.now);
        let Some(node) = &mut self.hosts[leader].node else { return false };
        let done = node.change(change, now).is_ok();
        self.pump(leader);
        done
    }

    /// There is a leader of this term. An operator may still talk to an earlier one that has not heard of it: what that one
    /// begins must come to nothing.
    pub(super) fn ask_the_deposed(&mut self, term: Term) {
        let is_deposed = |host: &usize| {
            let is_earlier = |node: &chronos::raft::Node| node.role() == Role::Leader && node.term() < term;
            self.hosts[*host].node.as_ref().is_some_and(is_earlier)
        };
        let Some(host) = (0..self.hosts.len()).find(is_deposed) else { return };
        if self.mended {
            return;
        }
        // One that stood still goes on with what it is asked now, before it hears of anything.
        self.hosts[host].stopped_until = self.now;
        self.meet(Fault::AskedWhenDeposed);
        let first = self.chance.below(3);
        let is_taken = (first..first + 3).any(|what| match what % 3 {
            0 => self.add_at(host, MemberRole::Voter),
            1 => self.remove_at(host, false),
            _ => self.transfer_from(host),
        });
        self.count_all("changes that a deposed leader began", u64::from(is_taken));
        self.ask_everything(host);
    }

    /// A member is reached elsewhere from now on, and says so.
    pub(super) fn move_member(&mut self, host: usize) -> bool {
        let Some(leader) = self.leader_in_office().filter(|leader| *leader != host) else { return false };
        let (id, disk) = (self.hosts[host].id.clone(), self.hosts[host].disk_id);
        let address = format!("{host}:{}", 2 + self.chance.below(1000));
        let Some(node) = &mut self.hosts[leader].node else { return false };
        if node.membership().get(&id).is_none() {
            return false;
        }
        node.reached_at(&id, disk, &address);
        self.hosts[host].address = Some(address);
        true
    }
}
