//! Who leads, who agrees, and what is demanded once everything is mended.

use super::agenda::Event;
use super::faults::Fault;
use super::host::Host;
use super::world::World;
use chronos::ids::{LogIndex, Term};
use chronos::raft::{Member, Node, NodeId, Role};

/// What everything may take once it is mended.
const RECOVERY: u64 = 60_000_000;

/// How often an operator looks whether a member is to be removed.
const OPERATOR: u64 = 1_000_000;

/// Writes that must succeed once everything is mended.
const PROOF_OF_LIFE: u64 = 20;

/// What reads of each level are counted as: of each one must be answered then, by a lease where there can be one.
const READS: [[&str; 2]; 3] = [
    ["reads at the leader", "reads at followers"],
    ["lease reads", ""],
    ["stale reads at the leader", "stale reads at others"],
];

impl World {
    /// Everything is mended: the group must elect a leader, take writes, and agree. Once it takes writes, an operator removes
    /// who has lost its disk: until then a witness may have to wait with what that one could need.
    pub(super) fn recover(&mut self) {
        self.mended = true;
        self.mend_network();
        self.network.mend_for_good();
        for host in 0..self.hosts.len() {
            self.hosts[host].stopped_until = 0;
            self.wake(host);
            self.hosts[host].doomed = None;
            self.hosts[host].stalled_until = 0;
            self.put_back(host);
            self.schedule(self.now + 1000, Event::Start { host });
        }
        let (until, mut looks_at) = (self.now + RECOVERY, self.now);
        let goal = self.acknowledged + PROOF_OF_LIFE;
        let answered = |this: &World| READS.map(|level| level.into_iter().map(|reads| this.times(reads)).sum::<u64>());
        let before = answered(self);
        let is_read = |this: &World| {
            let answered = answered(this).into_iter().zip(before).map(|(now, before)| now > before);
            answered
                .zip([false, this.has_stepped_aside(), false])
                .all(|(is_answered, is_let_off)| is_answered || is_let_off)
        };
        while self.acknowledged < goal || !is_read(self) || !self.agrees() {
            assert!(
                self.now < until,
                "no progress, or no agreement, a minute after everything was mended: {} writes too few, reads {:?}, settled \
                 {:?}\n{}",
                goal.saturating_sub(self.acknowledged),
                answered(self),
                self.settled,
                self.describe()
            );
            self.next();
            if self.acknowledged >= goal && self.now >= looks_at {
                looks_at = self.now + OPERATOR;
                self.remove_a_stranger();
            }
        }
    }

    /// In a term in which somebody was told to stand no lease holds any more: reads are answered by a round then.
    fn has_stepped_aside(&self) -> bool {
        self.leader().is_some_and(|leader| self.hosts[leader].leads(self.hosts[leader].stepped_aside_in))
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

    /// True where a leader serves clients, and all members that may take part have what it has: the same applied, up to
    /// what is just on its way, and nothing that they are still on their way to.
    fn agrees(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Some(node) = self.hosts[leader].node.as_ref().filter(|node| node.serves()) else { return false };
        if node.status().peers.iter().any(|peer| peer.is_disk_low) {
            // Its leader has yet to hear that there is room again.
            return false;
        }
        let goal = LogIndex(node.committed().0.saturating_sub(30));
        let group = node.membership();
        // A witness may let go of what it keeps for others, so it does not stay full.
        let lets_go = |node: &Node| !node.is_witness() || (node.held() >= goal && !node.status().log_is_full);
        let is_there = |(id, member): (&NodeId, &Member)| {
            let Some(host) = self.index(id).map(|host| &self.hosts[host]).filter(|host| !host.is_stranger(group))
            else {
                // It has lost its disk, and an operator removes it.
                return false;
            };
            let has_arrived = member.role.promoted().is_none() && member.disk.is_some() && !host.is_quarantined();
            has_arrived && host.state.applied.index >= goal && host.node.as_ref().is_some_and(lets_go)
        };
        let is_settled = |host: &Host| host.disk.newest_membership() == *group && self.settled.1 == *group;
        group.members.iter().all(is_there) && is_settled(&self.hosts[leader])
    }

    /// Takes note of how far anybody has applied, and of what that says of the group.
    pub(super) fn note_settled(&mut self, host: usize) {
        let state = &self.hosts[host].state;
        if state.applied.index <= self.settled.0 {
            return;
        }
        self.settled.0 = state.applied.index;
        if state.membership != self.settled.1 {
            self.settled.1 = state.membership.clone();
            let group = &self.settled.1;
            let says = |host: &Host, address: &String| group.get(&host.id).is_some_and(|is| is.address == *address);
            let met = self.hosts.iter_mut().filter(|host| host.address.as_ref().is_some_and(|at| says(host, at)));
            let met = met.map(|host| host.address = None).count();
            (0..met).for_each(|_| self.meet(Fault::MovedAddress));
        }
    }

    /// Takes note of a leader that is new.
    pub(super) fn note_leader(&mut self, host: usize, term: Term) {
        if self.checks.leads(host, term) {
            self.count("leaders");
            self.check_completeness(host, term);
            self.depose(term);
            self.tell_addresses(host);
            if self.transfer.take_if(|(of, heir)| *heir == host && term > *of).is_some() {
                self.count("transfers");
            }
            if self.hosts[host].is_witness() {
                self.count("witnesses that led");
            }
        }
    }

    /// A leader has all that was committed before its term (the thesis' leader completeness).
    fn check_completeness(&self, host: usize, term: Term) {
        let this = &self.hosts[host];
        for (index, of) in self.checks.committed_before(term) {
            let is_there = index <= this.disk.snapshot.applied.index || this.disk.newest_term(index) == Some(of);
            assert!(
                is_there,
                "{} leads term {term}, and lacks entry {index} of term {of}, which is committed",
                this.id
            );
        }
    }
}
