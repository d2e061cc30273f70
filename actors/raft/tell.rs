//! What operators find in the log of a node about its group: who leads, who is missing, whose clock or program is wrong.

use super::{Raft, Seed};
use crate::actors::peers::described;
use crate::actors::published::RaftReport;
use chronos::raft::{Member, Membership, NodeId, Role};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tracing::{info, warn};

/// How often a group that cannot begin says whom it waits for.
const AWAITED_LINE: Duration = Duration::from_secs(10);

impl Seed {
    /// Warns, once, where the operator names other members than the log: those of the log count.
    pub(super) fn compare(&self, membership: &Membership) {
        if let Some(configured) = &self.configured
            && differs(configured, membership, &self.config.id)
            && !self.has_compared.swap(true, Ordering::AcqRel)
        {
            warn!(
                named = described(configured),
                members = described(membership),
                "--peers differs from the members of the group, which count: it only begins a group, and admin add-node and \
                 remove-node change one"
            );
        }
    }
}

/// True where two lists name other members, or other places of others than this node, which may have moved.
pub(super) fn differs(configured: &Membership, membership: &Membership, own: &NodeId) -> bool {
    let places = |list: &Membership| -> BTreeMap<NodeId, String> {
        let place = |(id, member): (&NodeId, &Member)| {
            (id.clone(), if id == own { String::new() } else { member.address.clone() })
        };
        list.members.iter().map(place).collect()
    };
    // Who joins, or has just begun, has nothing to compare with.
    !membership.members.is_empty() && places(configured) != places(membership)
}

impl Raft {
    /// What operators want to find in the log: who leads, and since when.
    pub(super) fn tell(&self, report: &RaftReport) {
        let before = self.seed.published.raft();
        let (old, new) = (&before.status, &report.status);
        if old.leader != new.leader && new.membership.members.len() > 1 {
            match &new.leader {
                Some(leader) if *leader == self.seed.config.id => info!(term = %new.term, "this node leads"),
                Some(leader) => info!(%leader, term = %new.term, "follows a leader"),
                None => info!(term = %new.term, "no leader"),
            }
        }
        if old.outcast != new.outcast
            && new.outcast.is_some()
            && let Some(outcast) = report.outcast()
        {
            warn!("{outcast}");
        }
        for (peer, version) in report.too_old().filter(|old| before.too_old().all(|known| known != *old)) {
            warn!(
                %peer,
                version,
                group = new.membership.command_version,
                "a member does not understand the group's commands: it stops at the first of them, and is not promoted; start \
                 a newer chronos there"
            );
        }
        for peer in new.replaced.iter().filter(|peer| !old.replaced.contains(peer)) {
            warn!(%peer, "a member has a new disk, and does not count: remove it, and add it again");
        }
        for peer in report.short_of_disk().filter(|peer| before.short_of_disk().all(|known| known != *peer)) {
            warn!(%peer, "a member is short of disk (storage.disk_reserve): free space there");
        }
        if new.is_disk_low && new.role == Role::Leader && !(old.is_disk_low && old.role == Role::Leader) {
            warn!(
                "this node leads, and is short of disk (storage.disk_reserve): it refuses writes that grow; another one takes \
                 over where it can"
            );
        }
        if new.starves && !old.starves {
            warn!("this node is short of disk (storage.disk_reserve), and has fallen behind the leader");
        }
        if old.clock_off.is_none()
            && let Some(ahead_ms) = new.clock_off
        {
            warn!(
                ahead_ms,
                "this node leads, and the others' clocks are far ahead of its own, or behind it: set its clock; another \
                 one takes over where it can"
            );
        }
    }

    /// Records how long what is committed by now took since it was proposed.
    pub(super) fn time_commits(&mut self) {
        if self.node.role() != Role::Leader {
            self.proposed.clear();
        }
        let committed = self.node.committed();
        if self.proposed.front().is_none_or(|(index, _)| *index > committed) {
            return;
        }
        let now = self.seed.clock.monotonic();
        while let Some((_, since)) = self.proposed.pop_front_if(|(index, _)| *index <= committed) {
            self.seed.counters.commits().record(now.saturating_sub(since));
        }
    }

    /// A group begins with all of its members, so whoever is missing is named.
    pub(super) fn tell_awaited(&mut self) {
        let (awaited, now) = (self.node.awaited(), self.seed.clock.monotonic());
        if self.node.leader().is_some() {
            self.begins = None;
        } else if !awaited.is_empty() {
            let since = *self.begins.get_or_insert(now);
            if now >= since + AWAITED_LINE {
                self.begins = Some(now);
                let awaited: Vec<&str> = awaited.iter().map(|id| id.0.as_str()).collect();
                info!(missing = awaited.join(","), "the group begins once all of its members are there");
            }
        }
    }
}
