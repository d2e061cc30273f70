//! What a door runs by itself: brief statements, on its own thread.
//!
//! ```text
//!   door ── SELECT by key ── view ── answer                            no hop
//!   door ── INSERT of literals ── Propose ──> raft ──> log ──> state ──> door     four
//! ```
//!
//! Two hops less than through an executor: under load each is a queue, and for a client alone the wake-up of a sleeping
//! thread. `chronos bench` measures what a statement takes.
//!
//! * Only while the node serves: whoever must wait for a leader or a restart waits in an executor.
//! * What is begun here and met a conflict goes on in an executor, which may hold latches. So does what came to its answer
//!   without committing anything, in a group of several: only there it can wait for the others' word.
//! * A statement that panics here is an error of that statement, as on an executor.

use crate::actors::member::{Member, Seed, guarded, task};
use crate::actors::messages::{Consistency, Freshness, Output, Statement, Terms};
use crate::actors::rows::held_bytes;
use chronos::error::Result;
use chronos::sql::batch::Batch;
use chronos::sql::execute::{Answer, BRIEF_BYTES_MAX};
use std::path::PathBuf;
use std::sync::Arc;

/// A door's own way to run statements.
pub struct Front {
    seed: Arc<Seed>,
}

impl Front {
    /// On what executors share.
    pub fn new(seed: Arc<Seed>) -> Front {
        Front { seed }
    }

    /// Where snapshots of this node are taken in.
    pub fn snapshots(&self) -> Result<PathBuf> {
        Ok(self.seed.parts.directory()?.join("snapshots"))
    }

    /// Runs a statement if it is brief and the node serves; none where an executor is to run it.
    pub async fn execute(&self, statement: &Statement, terms: &Terms) -> Option<Result<Output>> {
        if statement.sql.len() > BRIEF_BYTES_MAX || !statement.parameters.is_empty() {
            return None;
        }
        let raft = self.seed.published.raft();
        if !raft.serves || !self.seed.raft.is_live() {
            return None;
        }
        // In a group of several a read needs the others' word, and one of a certain age raft's: both are waited for in an
        // executor.
        let is_alone = raft.status.membership.members.len() <= 1;
        let Freshness { consistency, max_staleness } = terms.freshness;
        let waits = max_staleness.is_some() || (!is_alone && consistency != Consistency::Stale);
        if waits && !statement.may_write() {
            return None;
        }
        let member = Member::new(&self.seed, self.seed.parts.lent().ok()?, terms);
        let task = task(terms);
        let running = self.seed.library.execute_brief(&member, &statement.sql, &task);
        let running = guarded(&statement.sql, async { running.await.transpose() });
        match tokio::time::timeout_at(terms.deadline.instant(), running).await {
            Ok(answer) if !is_alone && statement.may_write() && member.needs_word(&answer) => None,
            Ok(answer) => answer.and_then(|answer| answer.map(|one| whole(one, &self.seed)).transpose()).transpose(),
            Err(_) => Some(Err(member.late())),
        }
    }
}

/// A brief answer has one row at most.
fn whole(answer: Answer, seed: &Seed) -> Result<Output> {
    match answer {
        Answer::Done { affected } => Ok(Output::done(affected)),
        Answer::Rows(mut rows) => {
            let batches: Vec<Batch> = rows.next_batch()?.into_iter().collect();
            let mut hold = seed.transit.answer();
            hold.reach(batches.iter().map(held_bytes).sum())?;
            Ok(Output { columns: rows.columns, batches, affected: 0, hold })
        }
    }
}
