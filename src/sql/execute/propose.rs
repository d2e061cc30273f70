//! From effects to an outcome: one command, or staged parts where it would be too large.

use super::{Executor, Group, Task};
use crate::machine::{Body, Command, Effect, Outcome, Part, Request, Transaction};
use crate::sql::bind::Bound;
use crate::sql::catalog::IndexState;
use crate::sql::evaluate::{self, Effects};
use crate::storage::view::View;
use crate::{Error, Result, clock};
use tokio::sync::oneshot;

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
        let stage = clock::random_u128()?;
        let Body::Transaction(transaction) = &command.body else { unreachable!("it was built above") };
        let bytes = postcard::to_stdvec(transaction).expect("a transaction has a plain encoding");
        let mut parts = 0;
        for chunk in bytes.chunks(self.limits.command_bytes_max / 2) {
            let part = Command {
                request: None,
                origin: group.origin(),
                affected: 0,
                body: Body::Stage { stage, part: parts, bytes: chunk.to_vec() },
            };
            if let Err(error) = outcome(group.propose(part.encode())).await {
                abandon(group, stage);
                return Err(error);
            }
            parts += 1;
        }
        command.body = Body::Commit { stage, parts };
        let settled = outcome(group.propose(command.encode())).await;
        if settled.is_err() {
            abandon(group, stage);
        }
        Ok(settled?.affected)
    }

    /// Fills the index that a statement has made, step by step.
    pub(super) async fn build_indexes(&self, group: &dyn Group, bound: &Bound, task: &Task) -> Result<()> {
        let Bound::CreateIndex(create) = bound else { return Ok(()) };
        loop {
            (task.check)()?;
            let catalog = group.view()?.catalog.clone();
            let Some((_, index)) = catalog.index(&create.name) else {
                return Err(Error::conflict(format!("index \"{}\" was dropped while it was built", create.name)));
            };
            let Some(body) = next_backfill(index) else { return Ok(()) };
            let command = Command { request: None, origin: group.origin(), affected: 0, body };
            match outcome(group.propose(command.encode())).await {
                // Someone else took this step.
                Err(error) if error.is_retryable() => {}
                settled => {
                    settled?;
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

/// Forgets the parts of a command that will not be. Nobody waits for it.
fn abandon(group: &dyn Group, stage: u128) {
    let body = Body::Abandon { stage };
    drop(group.propose(Command { request: None, origin: group.origin(), affected: 0, body }.encode()));
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
