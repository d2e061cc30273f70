//! What actors publish for all to read: taking it is a clone of an `Arc`, not a message.
//!
//! It outlives restarts: while an actor is away, the last thing it said stands.

use crate::actors::figures::StorageStatus;
use crate::actors::messages::SyncReport;
use arc_swap::ArcSwap;
use chronos::error::{Error, Result};
use chronos::raft::{Outcast, Role, Status};
use chronos::storage::scrub::ScrubReport;
use std::sync::Arc;
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

impl RaftReport {
    /// True where statements can be answered at the default consistency: here, or with the leader's help.
    pub fn can_serve(&self) -> bool {
        let status = &self.status;
        let has_help = status.membership.members.len() > 1 && status.leader.is_some() && status.outcast.is_none();
        self.serves || has_help
    }

    /// Why the group does not count this node, or not yet, where that is so.
    pub fn outcast(&self) -> Option<String> {
        match (self.status.outcast, self.status.quarantined_until) {
            (Some(Outcast::NewDisk), _) => Some("this node has a new disk: remove and re-add it".to_string()),
            (Some(Outcast::Removed), _) => Some("this node was removed from its group".to_string()),
            (None, Some(until)) => Some(format!("the log was damaged: it is fetched again up to entry {until}")),
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
}

impl Default for Published {
    fn default() -> Published {
        let raft = RaftReport { status: Status::default(), serves: false };
        Published {
            raft: watch::Sender::new(Arc::new(raft)),
            storage: ArcSwap::default(),
            sync: ArcSwap::default(),
            scrub: ArcSwap::default(),
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

    /// How far the sync target is behind.
    pub fn sync(&self) -> Arc<SyncReport> {
        self.sync.load_full()
    }

    /// Publishes how far the sync target is behind.
    pub fn set_sync(&self, report: SyncReport) {
        self.sync.store(Arc::new(report));
    }
}
