//! Named requests: asked for before they are executed, so that a repeated one is answered and not executed again.

use super::{Answer, Group, Task};
use crate::error::SqlState;
use crate::machine::{Recalled, Request, recall};
use crate::{Error, Result};

/// What was answered to a request before.
pub(super) fn known(group: &dyn Group, request: Option<&Request>) -> Result<Option<Recalled>> {
    match request {
        Some(request) => recall(request, &group.view()?, group.instant()),
        None => Ok(None),
    }
}

/// The answers of a batch that was executed before.
pub(super) fn known_batch(known: Recalled, statements: usize) -> Result<Vec<Answer>> {
    let affected = known.affected?;
    if known.counts.len() == statements {
        return Ok(known.counts.into_iter().map(|affected| Answer::Done { affected }).collect());
    }
    let message = format!("already applied: the batch took effect ({affected} rows), its answers are not kept");
    Err(Error::invalid(SqlState::REQUEST_APPLIED, message))
}

/// Rows that each statement affected; none where one of them answers rows, which are not kept.
pub(super) fn counts(answers: &[Answer]) -> Vec<u64> {
    let count = |answer: &Answer| match answer {
        Answer::Done { affected } => Some(*affected),
        Answer::Rows(_) => None,
    };
    answers.iter().map(count).collect::<Option<Vec<u64>>>().unwrap_or_default()
}

/// The name of a statement with the hash of what it asks.
pub(super) fn request_of(task: &Task, sql: &str) -> Option<Request> {
    named(task, &[sql], b"")
}

/// The same of a batch. What is kept of a statement answers no batch of that statement alone, so those two differ; more
/// statements than one are no statement anyhow.
pub(super) fn request_of_batch(task: &Task, statements: &[&str]) -> Option<Request> {
    named(task, statements, if statements.len() == 1 { b"batch" } else { b"" })
}

fn named(task: &Task, statements: &[&str], form: &[u8]) -> Option<Request> {
    let id = task.request.clone()?;
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for sql in statements {
        hasher.update(&(sql.len() as u64).to_le_bytes());
        hasher.update(sql.as_bytes());
    }
    hasher.update(form);
    Some(Request { id, fingerprint: hasher.digest(), counts: Vec::new() })
}
