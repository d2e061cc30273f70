//! What this disk is for, whether it has room, and what a witness does with its log.
//!
//! A node that joins reads its group's log from the beginning, and only somewhere in it what it is itself. A witness must
//! not apply what clients wrote before that, and a member with rows must miss nothing. So nothing is applied before a
//! committed membership names this disk. A state that is not empty has been through that.
//!
//! A witness then applies positions alone, for good, and keeps its log for the others:
//!
//! ```text
//!   kept ──────────── what a member with rows lacks ────────────────────────────────┐
//!   let go of ──────> what all of them have, and the own (empty) state covers       │
//!                                                raft.witness_log_bytes_max ────> takes no more, and says so
//! ```

use super::Raft;
use chronos::error::Error;
use chronos::ids::LogIndex;
use chronos::raft::{MemberRole, Position, Ready, Role};
use chronos::storage::engine::{Freshness, Handle};
use std::sync::atomic::Ordering;
use tracing::{info, warn};

/// What is known of it.
#[derive(Default)]
pub(super) struct Duty {
    is_known: bool,
    /// Committed, and not handed on before that is known.
    waiting: Option<Position>,
    /// Committed, and handed on with entries.
    riding: Option<Position>,
    /// The log of this witness has reached its limit.
    is_full: bool,
    /// What it keeps for the others, as the engine was told.
    kept_from: LogIndex,
}

/// Bytes of entries with which a follower's log thread is told what is committed by now: a statement or two. More, and
/// this thread applies while that one waits for the disk.
const RIDE_BYTES_MAX: usize = 512;

impl Raft {
    /// Has what is committed applied behind these entries, where they are few and a leader waits for them: nobody waits for
    /// what is applied here, and where all nodes share a processor, as two cores of a virtual machine may do for one
    /// client, the acknowledgement comes 20 us sooner. What does not go along is given back.
    pub(super) fn ride(&mut self, committed: Option<Position>, ready: &mut Ready) -> Option<Position> {
        let bytes: usize = ready.entries.iter().map(|entry| entry.payload.len()).sum();
        let is_lone = !ready.entries.is_empty() && bytes <= RIDE_BYTES_MAX;
        let is_next = self.duty.is_known && self.duty.waiting.is_none();
        if !is_lone || !is_next || self.node.role() != Role::Follower {
            return committed;
        }
        ready.committed = committed;
        self.duty.riding = committed.or(self.duty.riding);
        None
    }

    /// Has applied what went along with entries, where the disk does not get on with them.
    pub(super) fn alight(&mut self) {
        let applied = self.node.applied_index();
        let riding = self.duty.riding.take().filter(|position| position.index > applied);
        self.commit(riding);
    }

    /// Has applied what is committed, once it is known how.
    pub(super) fn commit(&mut self, committed: Option<Position>) {
        self.duty.waiting = committed.or(self.duty.waiting);
        if self.duty.waiting.is_none() {
            return;
        }
        if !self.duty.is_known {
            self.learn_duty();
        }
        if self.duty.is_known
            && let Some(position) = self.duty.waiting.take()
        {
            let _ = self.seed.parts.commit(self.ticket, position);
        }
        if committed.is_some() {
            self.answer_changes();
        }
    }

    /// Finds out what this disk is for, as far as that is committed.
    pub(super) fn learn_duty(&mut self) {
        let Ok(lent) = self.seed.parts.lent() else { return };
        let is_bare = lent.handle.is_witness();
        match self.node.duty() {
            Some(role) if role.is_witness() => {
                if !is_bare {
                    info!("this node is a witness: it keeps the log, and no rows");
                    lent.handle.become_witness();
                }
                self.duty.is_known = true;
            }
            Some(_) if is_bare => {
                // Only a disk whose removal is long forgotten can come here.
                lent.condemn(Error::damaged("the state of a witness, under a member that is to have rows"));
            }
            Some(_) => self.duty.is_known = true,
            None => {
                let is_alone = self.node.membership().is_only(&self.seed.config.id)
                    && self.node.status().quarantined_until.is_none();
                self.duty.is_known |= is_alone || self.node.applied_index() > LogIndex(0);
            }
        }
    }

    /// Tells the core whether the disk is short of room: by the same word by which writes are refused.
    pub(super) fn watch_room(&mut self) {
        // While storage is away the last word stands.
        if let Ok(handle) = self.seed.parts.handle() {
            self.node.set_disk_low(handle.counters().is_disk_full());
        }
    }

    /// What a witness does with its log as time passes. Often: between two looks it takes more.
    pub(super) fn watch_log(&mut self) {
        // By what is committed for this disk: a joiner under a witness's name may be about to be a voter.
        if !self.node.duty().is_some_and(MemberRole::is_witness) {
            return;
        }
        let Ok(handle) = self.seed.parts.handle() else { return };
        let bytes = handle.counters().segment_bytes.load(Ordering::Relaxed);
        let bytes_max = self.seed.witness_log_bytes_max;
        let is_full = bytes >= bytes_max;
        if is_full != self.duty.is_full {
            self.duty.is_full = is_full;
            self.node.set_log_full(is_full);
            if is_full {
                warn!(
                    bytes,
                    bytes_max,
                    "the log of this witness has reached raft.witness_log_bytes_max: it counts towards no commit until \
                     the members with rows have caught up"
                );
            } else {
                info!(bytes, "the log of this witness has room again");
            }
        }
    }

    /// Lets go of what nobody needs of this witness any more.
    pub(super) fn release_log(&mut self) {
        self.learn_duty();
        let Ok(handle) = self.seed.parts.handle() else { return };
        if !handle.is_witness() {
            return;
        }
        let held = self.node.held();
        if self.duty.kept_from != held.next() {
            self.duty.kept_from = held.next();
            handle.keep_for_others(held.next());
        }
        self.cover(&handle, held);
    }

    /// Seals the state of this witness where only that keeps half of what its log may have. It costs next to nothing: there
    /// are no rows in it.
    fn cover(&self, handle: &Handle, held: LogIndex) {
        let counters = handle.counters();
        let bytes = counters.segment_bytes.load(Ordering::Relaxed);
        let covered = counters.birth.load(Ordering::Relaxed);
        if bytes >= self.seed.witness_log_bytes_max / 2 && held.min(self.node.applied_index()).0 > covered {
            // It is the seal that is wanted, and not what could be sent of it.
            drop(handle.snapshot(Freshness::Now));
        }
    }
}
