//! Leaders that have a successor and do not know it: what they may still believe, and what they are asked.
//!
//! A lease is proof that there is nobody else. So where a term has a leader, no earlier one may answer a read by its lease,
//! by its own clock, then or ever after; and that is looked at in everybody when a leader is elected, and in each after all
//! that happens to it: in between, time alone ends a lease.
//!
//! And they are asked. One that stands still when its successor is elected does not go on before that one has acknowledged
//! a write, so that there is something to miss; then clients and operators are the first that it hears, before what has
//! come meanwhile.

use super::agenda::Event;
use super::faults::Fault;
use super::world::World;
use chronos::ids::Term;
use chronos::raft::Role;

/// Microseconds that a leader stands still at most for its successor to acknowledge a write.
const PATIENCE: u64 = 4_000_000;

impl World {
    /// A machine stands still until then, if it does not longer already.
    pub(super) fn keep_still(&mut self, host: usize, until: u64) {
        self.hosts[host].stopped_until = self.hosts[host].stopped_until.max(until);
        self.schedule(self.hosts[host].stopped_until, Event::Wake { host });
    }

    /// A machine goes on, where nothing else keeps it, with what has come meanwhile.
    pub(super) fn wake(&mut self, host: usize) {
        if self.hosts[host].stopped_until <= self.now {
            let held = std::mem::take(&mut self.hosts[host].held);
            held.into_iter().for_each(|event| self.schedule(self.now, event));
        }
    }

    /// Those who lead by their own word, of terms before this one.
    fn deposed(&self, term: Term) -> Vec<usize> {
        let is_deposed = |host: &usize| {
            let is_earlier = |node: &chronos::raft::Node| node.role() == Role::Leader && node.term() < term;
            self.hosts[*host].node.as_ref().is_some_and(is_earlier)
        };
        (0..self.hosts.len()).filter(is_deposed).collect()
    }

    /// There is a leader of this term. An operator may still talk to an earlier one that has not heard of it: what that one
    /// begins must come to nothing.
    pub(super) fn depose(&mut self, term: Term) {
        for host in self.deposed(term) {
            self.check_lease(host);
            if self.mended {
                continue;
            }
            if self.hosts[host].stopped_until > self.now {
                self.keep_still(host, self.now + PATIENCE);
            } else {
                self.ask_for_changes(host);
                self.ask_everything(host);
            }
        }
    }

    /// A leader of this term has acknowledged a write: earlier ones are asked for what they do not know.
    pub(super) fn ask_who_was_deposed(&mut self, term: Term) {
        if self.mended {
            return;
        }
        for host in self.deposed(term) {
            let own = self.hosts[host].node.as_ref().map_or(Term(0), chronos::raft::Node::term);
            if self.hosts[host].asked_in < own {
                self.hosts[host].asked_in = own;
                self.schedule(self.now, Event::Deposed { host });
            }
        }
    }

    /// False where it has heard of its successor meanwhile.
    pub(super) fn ask_the_deposed(&mut self, host: usize) -> bool {
        let is_deposed = self.deposed(self.checks.newest_term()).contains(&host);
        if is_deposed {
            if self.hosts[host].stopped_until > self.now {
                self.hosts[host].stopped_until = self.now;
                self.meet(Fault::AskedWhenDeposed);
            }
            self.count("leaders asked for what their successors had acknowledged");
            self.ask_everything(host);
            self.ask_for_changes(host);
        }
        self.wake(host);
        is_deposed
    }

    /// Who could answer a read by its lease leads the newest term that anybody has led.
    pub(super) fn check_lease(&self, host: usize) {
        let this = &self.hosts[host];
        let (own, newest) = (this.node.as_ref().map(chronos::raft::Node::term), self.checks.newest_term());
        assert!(
            own.is_none_or(|own| own >= newest) || !this.may_read_by_lease(self.now),
            "{} holds a lease in term {own:?}, and term {newest} has a leader",
            this.id
        );
    }
}
