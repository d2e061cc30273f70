//! Who leads, who agrees, and what is demanded once everything is mended.

use super::agenda::Event;
use super::host::Host;
use super::world::World;
use chronos::ids::{LogIndex, Term};
use chronos::raft::Role;

/// What everything may take once it is mended.
const RECOVERY: u64 = 60_000_000;

/// How often an operator looks whether a member is to be removed.
const OPERATOR: u64 = 1_000_000;

/// Writes that must succeed once everything is mended.
const PROOF_OF_LIFE: u64 = 20;

impl World {
    /// Everything is mended: the group must elect a leader, take writes, and agree. Once it takes writes, an operator removes
    /// who has lost its disk: until then a witness may have to wait with what that one could need.
    pub(super) fn recover(&mut self) -> u64 {
        self.mended = true;
        self.mend_network();
        self.network.apart.clear();
        for host in 0..self.hosts.len() {
            self.hosts[host].stopped_until = 0;
            self.hosts[host].doomed = None;
            self.hosts[host].stalled_until = 0;
            self.put_back(host);
            self.schedule(self.now + 1000, Event::Start { host });
        }
        let (until, mut looks_at) = (self.now + RECOVERY, self.now);
        let mut happened = 0;
        let goal = self.acknowledged + PROOF_OF_LIFE;
        while self.acknowledged < goal || !self.agrees() {
            assert!(
                self.now < until,
                "no progress, or no agreement, a minute after everything was mended:\n{}",
                self.describe()
            );
            happened += u64::from(self.next());
            if self.acknowledged >= goal && self.now >= looks_at {
                looks_at = self.now + OPERATOR;
                self.remove_a_stranger();
            }
        }
        happened
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
            self.check_completeness(host, term);
            self.ask_the_deposed(term);
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
