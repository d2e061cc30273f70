//! What actors publish for all to read: taking it is a clone of an `Arc`, not a message.
//!
//! It outlives restarts: while an actor is away, the last thing it said stands.

use crate::actors::figures::StorageStatus;
use crate::actors::janitor::compare::Comparison;
use crate::actors::messages::{Content, SyncReport};
use arc_swap::ArcSwap;
use chronos::clock::Monotonic;
use chronos::error::{Error, Result};
use chronos::ids::LogIndex;
use chronos::raft::{HardState, MemberRole, NodeId, Outcast, Role, Status};
use chronos::storage::scrub::ScrubReport;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;
use tokio::time::Instant;

/// Where the consensus stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftReport {
    /// Role, term and positions.
    pub status: Status,
    /// True where statements can be served at the default consistency.
    pub serves: bool,
}

/// Why a node without room cannot answer, while its leader is there.
const STARVES: &str = "this node is short of disk (storage.disk_reserve), and what it has falls behind the leader: free space, \
                       and it catches up";

impl RaftReport {
    /// Why statements cannot be answered now at the default consistency, here or with the help of a leader that can be
    /// reached; none where they can.
    pub fn obstacle(&self, is_linked: impl Fn(&NodeId) -> bool) -> Option<String> {
        let status = &self.status;
        if self.serves {
            return None;
        }
        if let Some(outcast) = self.outcast() {
            return Some(outcast);
        }
        if let Some(refusal) = self.witness_refusal() {
            return Some(refusal.message().to_owned());
        }
        match &status.leader {
            Some(_) if status.role == Role::Leader => {
                Some(format!("this node leads, and does not know yet what is committed (term {})", status.term))
            }
            Some(leader) if status.membership.members.len() > 1 => {
                if !is_linked(leader) {
                    return Some(format!("the leader {leader} cannot be reached (term {})", status.term));
                }
                status.starves.then(|| STARVES.to_owned())
            }
            Some(_) | None => Some(format!("no leader (term {})", status.term)),
        }
    }

    /// Members that are short of disk by their own last word, which only their leader knows.
    pub fn short_of_disk(&self) -> impl Iterator<Item = &NodeId> {
        self.status.peers.iter().filter(|peer| peer.is_disk_low).map(|peer| &peer.id)
    }

    /// Who leads, and where: another node, never this one, which may lead and not serve yet, or any more.
    pub fn leads_elsewhere(&self) -> Option<(&NodeId, &str)> {
        let leader = self.status.leader.as_ref().filter(|_| self.status.role != Role::Leader)?;
        let address = &self.status.membership.get(leader)?.address;
        (!address.is_empty()).then_some((leader, address))
    }

    /// Why nothing can be read here, where this node has no rows: who has them, and where.
    pub fn witness_refusal(&self) -> Option<Error> {
        if !self.status.is_witness {
            return None;
        }
        let members = self.status.membership.members.iter();
        let full = members.filter(|(_, member)| member.role == MemberRole::Voter);
        let full: Vec<String> = full.map(|(id, member)| format!("{id} ({})", member.address)).collect();
        let full = full.join(" or ");
        Some(Error::unavailable(format!("this node is a witness, which votes and has no rows: ask {full}")))
    }

    /// What the node of this name does in its group, as `/health` says it: those who do not vote and store everything are
    /// that before anything else.
    pub fn role_of(&self, id: &str) -> &'static str {
        let member = self.status.membership.get(&NodeId(id.to_owned()));
        match (member.map(|member| member.role), self.status.role) {
            (_, Role::Leader) => "Leader",
            (Some(MemberRole::Learner | MemberRole::LearningWitness | MemberRole::Observer), _) => "Learner",
            (Some(MemberRole::Witness), _) => "Witness",
            (Some(MemberRole::Voter) | None, role) => role_name(role),
        }
    }

    /// Members that do not understand the group's commands, each with the version that it knows: they run an older program.
    pub fn too_old(&self) -> impl Iterator<Item = (&NodeId, u8)> {
        let group = self.status.membership.command_version;
        let known = self.status.peers.iter().filter_map(|peer| Some((&peer.id, peer.command_version?)));
        known.filter(move |(_, version)| *version < group)
    }

    /// Why the group does not count this node, or not yet, where that is so.
    pub fn outcast(&self) -> Option<String> {
        match (self.status.outcast, self.status.quarantined_until) {
            (Some(Outcast::NewDisk), _) => Some("this node has a new disk: remove and re-add it".to_string()),
            (_, Some(HardState::DISMISSED)) => Some(
                "this node was removed from its group, or left out when that was recovered, and what it holds counts no \
                 more: added again, in whatever role, it needs a new disk (--clean)"
                    .to_string(),
            ),
            (Some(Outcast::Removed), _) => Some(
                "this node was removed from its group: added again, in whatever role, it needs a new disk (--clean)"
                    .to_string(),
            ),
            (Some(Outcast::Contradicted), _) => Some(
                "the leader has other entries than those that are committed here: some disk is an older copy of itself"
                    .to_string(),
            ),
            (None, Some(LogIndex(0..=1))) => Some(
                "this node has nothing of its group yet, as one that joins or has a new disk: it takes part once it has"
                    .to_string(),
            ),
            (None, Some(until)) => Some(format!("the log was damaged: it is fetched again up to entry {until}")),
            (None, None) if !self.status.awaited.is_empty() => {
                let awaited: Vec<&str> = self.status.awaited.iter().map(|id| id.0.as_str()).collect();
                Some(format!("the group begins once all of its members are there: waiting for {}", awaited.join(", ")))
            }
            (None, None) => None,
        }
    }
}

/// The board that all of it hangs on.
pub struct Published {
    // Watched, not only read: statements wait for a leader.
    raft: watch::Sender<Arc<RaftReport>>,
    storage: ArcSwap<StorageStatus>,
    sync: ArcSwap<SyncReport>,
    scrub: ArcSwap<ScrubReport>,
    contents: ArcSwap<Vec<Content>>,
    // Watched: whoever asks for it waits a moment for a newer one.
    content: watch::Sender<Option<Content>>,
    comparison: ArcSwap<Comparison>,
    /// Microseconds of the monotonic clock until which this node holds a lease; 0 for none.
    lease_until: AtomicU64,
}

impl Default for Published {
    fn default() -> Published {
        let raft = RaftReport { status: Status::default(), serves: false };
        Published {
            raft: watch::Sender::new(Arc::new(raft)),
            storage: ArcSwap::default(),
            sync: ArcSwap::default(),
            scrub: ArcSwap::default(),
            contents: ArcSwap::default(),
            content: watch::Sender::new(None),
            comparison: ArcSwap::default(),
            lease_until: AtomicU64::new(0),
        }
    }
}

/// As `/health` spells a role.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "Follower",
        Role::Candidate => "Candidate",
        Role::Leader => "Leader",
    }
}

impl Published {
    /// Where the consensus stands.
    pub fn raft(&self) -> Arc<RaftReport> {
        self.raft.borrow().clone()
    }

    /// Publishes where the consensus stands.
    pub fn set_raft(&self, report: RaftReport) {
        self.raft.send_replace(Arc::new(report));
    }

    /// Where the consensus stands, from here on.
    pub fn watch_raft(&self) -> watch::Receiver<Arc<RaftReport>> {
        self.raft.subscribe()
    }

    /// Waits until statements can be served at the default consistency, at most until `until`.
    pub async fn serving(&self, until: Instant) -> Result<()> {
        let mut raft = self.raft.subscribe();
        // The sender is ours, so only the time can run out.
        match tokio::time::timeout_at(until, raft.wait_for(|report| report.serves)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::unavailable(format!("no leader (term {})", self.raft().status.term))),
        }
    }

    /// Says until when this node holds a lease, before anything leaves that ends it.
    pub fn set_lease(&self, until: Option<Monotonic>) {
        let micros = until.map_or(0, |until| u64::try_from(until.as_micros()).unwrap_or(u64::MAX));
        self.lease_until.store(micros, Ordering::SeqCst);
    }

    /// True where no other node leads at `now`, by what raft has said last.
    pub fn holds_lease(&self, now: Monotonic) -> bool {
        now.as_micros() < u128::from(self.lease_until.load(Ordering::SeqCst))
    }

    /// How storage is.
    pub fn storage(&self) -> Arc<StorageStatus> {
        self.storage.load_full()
    }

    /// Publishes how storage is.
    pub fn set_storage(&self, status: StorageStatus) {
        self.storage.store(Arc::new(status));
    }

    /// What reading every block has found.
    pub fn scrub(&self) -> Arc<ScrubReport> {
        self.scrub.load_full()
    }

    /// Publishes what reading every block has found.
    pub fn set_scrub(&self, report: ScrubReport) {
        self.scrub.store(Arc::new(report));
    }

    /// What this copy hashes to at the positions at which copies are compared; the newest last.
    pub fn contents(&self) -> Arc<Vec<Content>> {
        self.contents.load_full()
    }

    /// Publishes the same.
    pub fn set_contents(&self, contents: Vec<Content>) {
        self.contents.store(Arc::new(contents));
    }

    /// The newest hash of the content that is known.
    pub fn content(&self) -> Option<Content> {
        *self.content.borrow()
    }

    /// The same, from here on.
    pub fn watch_content(&self) -> watch::Receiver<Option<Content>> {
        self.content.subscribe()
    }

    /// Publishes a hash of the content, unless a newer one is known.
    pub fn set_content(&self, content: Content) {
        self.content.send_if_modified(|known| {
            let is_newer = known.is_none_or(|known| known.index < content.index);
            if is_newer {
                *known = Some(content);
            }
            is_newer
        });
    }

    /// Forgets it: storage has been opened again, maybe on another copy.
    pub fn forget_content(&self) {
        self.content.send_replace(None);
    }

    /// What comparing copies has found.
    pub fn comparison(&self) -> Arc<Comparison> {
        self.comparison.load_full()
    }

    /// Publishes what comparing copies has found.
    pub fn set_comparison(&self, report: Comparison) {
        self.comparison.store(Arc::new(report));
    }

    /// How far the sync target is behind.
    pub fn sync(&self) -> Arc<SyncReport> {
        self.sync.load_full()
    }

    /// Publishes how far the sync target is behind.
    pub fn set_sync(&self, report: SyncReport) {
        self.sync.store(Arc::new(report));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos::raft::{Member, Membership};
    use std::time::Duration;

    #[test]
    fn a_lease_holds_until_its_end_or_until_it_is_given_up() {
        let (published, now) = (Published::default(), Duration::from_secs(5));
        assert!(!published.holds_lease(Duration::ZERO));
        published.set_lease(Some(now));
        assert!(published.holds_lease(Duration::from_secs(4)) && !published.holds_lease(now));
        published.set_lease(Some(Monotonic::MAX));
        assert!(published.holds_lease(Duration::from_hours(1_000_000)), "who decides alone has no end");
        published.set_lease(None);
        assert!(!published.holds_lease(now));
    }

    fn report(role: Role, leader: Option<&str>) -> RaftReport {
        let roles = [
            ("a", MemberRole::Voter),
            ("b", MemberRole::Voter),
            ("c", MemberRole::Learner),
            ("w", MemberRole::Witness),
        ];
        let members = roles.map(|(id, role)| (NodeId(id.into()), Member { role, ..Member::default() }));
        let leader = leader.map(|leader| NodeId(leader.into()));
        RaftReport {
            status: Status { role, leader, membership: Membership::of(members), ..Status::default() },
            serves: false,
        }
    }

    #[test]
    fn a_node_is_ready_where_it_or_a_leader_within_reach_can_answer() {
        let reached = |report: &RaftReport| report.obstacle(|_| true);
        let following = report(Role::Follower, Some("a"));
        assert_eq!(reached(&following), None);
        assert!(following.obstacle(|id| id.0 != "a").unwrap().contains("the leader a cannot be reached"));
        assert!(reached(&report(Role::Candidate, None)).unwrap().contains("no leader"));
        assert!(reached(&report(Role::Leader, Some("b"))).unwrap().contains("does not know yet"));
        let serving = RaftReport { serves: true, ..report(Role::Leader, Some("b")) };
        assert_eq!(serving.obstacle(|_| false), None);
        let mut starved = following.clone();
        starved.status.is_disk_low = true;
        assert_eq!(reached(&starved), None, "it takes what the leader sends");
        starved.status.starves = true;
        assert!(reached(&starved).unwrap().contains("short of disk"));
        let mut damaged = following.clone();
        damaged.status.quarantined_until = Some(LogIndex(7));
        assert!(reached(&damaged).unwrap().contains("fetched again up to entry 7"));
        let mut outcast = following;
        outcast.status.outcast = Some(Outcast::NewDisk);
        assert!(reached(&outcast).unwrap().contains("new disk"));
    }

    #[test]
    fn nothing_is_handed_on_to_this_node_itself() {
        let addressed = |role, leader| {
            let mut report = report(role, leader);
            for (id, member) in &mut report.status.membership.members {
                member.address = format!("{}:8000", id.0);
            }
            report
        };
        let following = addressed(Role::Follower, Some("b"));
        assert_eq!(following.leads_elsewhere(), Some((&NodeId("b".into()), "b:8000")));
        assert_eq!(addressed(Role::Leader, Some("b")).leads_elsewhere(), None, "it leads, and does not serve yet");
        assert_eq!(addressed(Role::Candidate, None).leads_elsewhere(), None);
        assert_eq!(addressed(Role::Follower, Some("x")).leads_elsewhere(), None, "nobody knows where x is");
        assert_eq!(report(Role::Follower, Some("b")).leads_elsewhere(), None, "b has not said where it is");
    }

    #[test]
    fn a_role_is_that_in_the_group_before_that_in_the_term() {
        let following = report(Role::Follower, Some("a"));
        assert_eq!(
            ["a", "b", "c", "w", "x"].map(|id| following.role_of(id)),
            ["Follower", "Follower", "Learner", "Witness", "Follower"]
        );
        assert_eq!(report(Role::Candidate, None).role_of("b"), "Candidate");
        assert_eq!(report(Role::Leader, Some("w")).role_of("w"), "Leader");
    }
}
