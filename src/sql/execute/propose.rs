//! From effects to an outcome: one command, or staged parts where it would be too large.

use super::{Executor, Group, Task};
use crate::error::Kind;
use crate::machine::{Body, Command, Effect, Outcome, Part, Request, Transaction, push_frame};
use crate::sql::bind::Bound;
use crate::sql::catalog::IndexState;
use crate::sql::evaluate::{self, Effects, Slices};
use crate::storage::view::View;
use crate::{Error, Result, clock};
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

/// Bytes of one staged part: enough that its fdatasync is small beside writing it, little enough that the copies which
/// it needs on its way (command, log, memtable) do not matter.
const PART_BYTES: usize = 1 << 20;

/// Stages that wait to be abandoned. What is beyond ends when a new term begins.
const ABANDONED_MAX: usize = 1024;

/// Rows that one command adds to an index: a few milliseconds of apply, during which nothing else is applied.
const BACKFILL_ROWS: u32 = 4000;

impl Executor {
    /// Proposes effects and waits for their outcome.
    pub(super) async fn write(
        &self,
        group: &dyn Group,
        (effects, view): (Effects, View),
        request: Option<&Request>,
    ) -> Result<u64> {
        // Without a name to remember nothing is to be done, and nobody could tell that it was not.
        if effects.parts.is_empty() && request.is_none() {
            return Ok(effects.affected);
        }
        if effects.parts.iter().any(grows) {
            group.check_space()?;
        }
        let transaction = Transaction { read_index: view.version, parts: effects.parts };
        let mut command = Command {
            request: request.cloned(),
            origin: group.origin(),
            affected: effects.affected,
            body: Body::Transaction(transaction),
        };
        let encoded = command.encode();
        if encoded.len() <= self.limits.command_bytes_max.min(self.limits.effects_bytes_max) {
            return Ok(outcome(group.propose(encoded)).await?.affected);
        }
        if encoded.len() > self.limits.effects_bytes_max {
            return Err(evaluate::too_much(self.limits.effects_bytes_max, effects.affected));
        }
        drop(encoded);
        // Taken out, so that the rows go before their bytes do.
        let body = std::mem::replace(&mut command.body, Body::Abandon { stage: 0 });
        let Body::Transaction(transaction) = body else { unreachable!("it was built above") };
        let mut staging = self.staging(group)?;
        staging.push(transaction).await?;
        command.body = staging.finish().await?;
        let affected = outcome(group.propose(command.encode())).await?.affected;
        staging.settle();
        Ok(affected)
    }

    /// Proposes effects slice by slice, as one command, and waits for their outcome.
    pub(super) async fn write_slices(
        &self,
        group: &dyn Group,
        mut slices: Slices<'_>,
        view: &View,
        request: Option<&Request>,
    ) -> Result<u64> {
        let first = slices.next_slice().await?.unwrap_or_default();
        let Some(second) = slices.next_slice().await? else {
            return self.write(group, (first, view.clone()), request).await;
        };
        if first.parts.iter().any(grows) {
            group.check_space()?;
        }
        let mut staging = self.staging(group)?;
        let mut affected = 0;
        let mut taken = [first, second].into_iter();
        loop {
            let slice = match taken.next() {
                Some(slice) => Some(slice),
                None => slices.next_slice().await?,
            };
            let Some(slice) = slice else { break };
            affected += slice.affected;
            staging.push(Transaction { read_index: view.version, parts: slice.parts }).await?;
            if staging.bytes > self.limits.effects_bytes_max {
                return Err(evaluate::too_much(self.limits.effects_bytes_max, affected));
            }
        }
        let body = staging.finish().await?;
        let command = Command { request: request.cloned(), origin: group.origin(), affected, body };
        let affected = outcome(group.propose(command.encode())).await?.affected;
        staging.settle();
        Ok(affected)
    }

    fn staging<'a>(&'a self, group: &'a dyn Group) -> Result<Staging<'a>> {
        let left = std::mem::take(&mut *self.abandoned.lock().unwrap_or_else(PoisonError::into_inner));
        left.into_iter().for_each(|stage| abandon(group, stage, &self.abandoned));
        Ok(Staging {
            group,
            stage: clock::random_u128()?,
            part_bytes: PART_BYTES.min(self.limits.command_bytes_max / 2),
            parts: 0,
            pending: Vec::new(),
            bytes: 0,
            settled: false,
            abandoned: &self.abandoned,
        })
    }

    /// Fills the index that a statement has made, step by step.
    pub(super) async fn build_indexes(&self, group: &dyn Group, bound: &Bound, task: &Task) -> Result<()> {
        let Bound::CreateIndex(create) = bound else { return Ok(()) };
        // The definition has been committed: what keeps the rest from being done is no failure of the statement.
        let unfinished = |error: Error| match error.kind() {
            Kind::Unavailable | Kind::Overloaded | Kind::Limit => Error::in_doubt(format!(
                "in doubt: index \"{}\" is defined and will be built in the background: {error}",
                create.name
            )),
            Kind::Invalid | Kind::Conflict | Kind::InDoubt | Kind::Damaged | Kind::Io | Kind::Internal => error,
        };
        loop {
            (task.check)().map_err(unfinished)?;
            let catalog = group.view().map_err(unfinished)?.catalog.clone();
            let Some((_, index)) = catalog.index(&create.name) else {
                return Err(Error::conflict(format!("index \"{}\" was dropped while it was built", create.name)));
            };
            let Some(body) = next_backfill(index) else { return Ok(()) };
            let command = Command { request: None, origin: group.origin(), affected: 0, body };
            match outcome(group.propose(command.encode())).await {
                // Someone else took this step.
                Err(error) if error.kind() == Kind::Conflict => {}
                settled => {
                    settled.map_err(unfinished)?;
                }
            }
        }
    }
}

/// True where a part needs room. Deletes need some too, for a moment, but they are the way out: the reserve is for them.
fn grows(part: &Part) -> bool {
    match part {
        Part::CreateTable(_) | Part::CreateIndex(_) => true,
        Part::DropTable { .. } | Part::DropIndex { .. } => false,
        Part::Write(write) => match write.effect {
            Effect::Insert { .. } | Effect::Replace { .. } => true,
            Effect::Delete { .. } | Effect::DeleteRange { .. } => false,
        },
    }
}

/// A statement on its way into a stage. Dropped before it is settled, by an error or because nobody waits for the
/// statement any more, it is abandoned.
struct Staging<'a> {
    group: &'a dyn Group,
    stage: u128,
    part_bytes: usize,
    /// Parts proposed.
    parts: u32,
    /// Frames that are not proposed yet.
    pending: Vec<u8>,
    /// Bytes of all frames.
    bytes: usize,
    settled: bool,
    /// Where a stage goes that could not be abandoned at once.
    abandoned: &'a Mutex<Vec<u128>>,
}

/// Forgets the parts of a stage. Nobody waits for it; where it is refused at once, the next stage asks again.
fn abandon(group: &dyn Group, stage: u128, again: &Mutex<Vec<u128>>) {
    let command = Command { request: None, origin: group.origin(), affected: 0, body: Body::Abandon { stage } };
    if let Ok(Err(_)) = group.propose(command.encode()).try_recv() {
        let mut again = again.lock().unwrap_or_else(PoisonError::into_inner);
        if again.len() < ABANDONED_MAX {
            again.push(stage);
        }
    }
}

impl Staging<'_> {
    /// Adds one slice, or the whole of a transaction. A row may have megabytes: once it is encoded it is there once, and
    /// goes away part by part.
    async fn push(&mut self, transaction: Transaction) -> Result<()> {
        let before = self.pending.len();
        push_frame(&mut self.pending, &transaction);
        drop(transaction);
        self.bytes += self.pending.len() - before;
        let mut at = 0;
        while self.pending.len() - at >= self.part_bytes {
            let part = self.pending[at..at + self.part_bytes].to_vec();
            at += self.part_bytes;
            self.propose(part).await?;
        }
        self.pending.drain(..at);
        self.pending.shrink_to(self.part_bytes);
        Ok(())
    }

    /// Proposes what is left; gives what commits the stage.
    async fn finish(&mut self) -> Result<Body> {
        let rest = std::mem::take(&mut self.pending);
        if !rest.is_empty() {
            self.propose(rest).await?;
        }
        Ok(Body::Commit { stage: self.stage, parts: self.parts })
    }

    /// The commit was applied: nothing is left of the stage.
    fn settle(mut self) {
        self.settled = true;
    }

    async fn propose(&mut self, bytes: Vec<u8>) -> Result<()> {
        let body = Body::Stage { stage: self.stage, part: self.parts, bytes };
        let part = Command { request: None, origin: self.group.origin(), affected: 0, body }.encode();
        self.parts += 1;
        match outcome(self.group.propose(part)).await {
            // Without its commit a part is nothing.
            Err(error) if error.kind() == Kind::InDoubt => Err(Error::unavailable(
                "the node stopped while the statement was on its way: nothing took effect, retry",
            )),
            settled => settled.map(|_| ()),
        }
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        if !self.settled && self.parts > 0 {
            abandon(self.group, self.stage, self.abandoned);
        }
    }
}

/// The next step of an index that is being built; also what a new leader goes on with.
pub fn next_backfill(index: &crate::sql::catalog::Index) -> Option<Body> {
    match &index.state {
        IndexState::Building { done_below } => {
            Some(Body::Backfill { index: index.id, from: done_below.clone(), rows_max: BACKFILL_ROWS })
        }
        IndexState::Ready => None,
    }
}

/// The outcome of a proposal; a sender that is gone took the knowledge with it.
async fn outcome(receiver: oneshot::Receiver<Result<Outcome>>) -> Result<Outcome> {
    receiver.await.unwrap_or_else(|_| {
        Err(Error::in_doubt("in doubt: the node stopped before it knew the outcome; read before writing again"))
    })
}
