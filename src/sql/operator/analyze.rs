//! EXPLAIN ANALYZE: calls, rows and time of each operator.
//!
//! Figures are numbered as the plan is printed: a node before its inputs. An operator's time contains that of its
//! inputs; the printer subtracts.

use super::Operator;
use crate::clock::Monotonic;
use crate::error::Result;
use crate::sql::batch::Batch;
use crate::sql::plan::Plan;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where figures are collected while a plan runs.
pub struct Analysis {
    now: Box<dyn Fn() -> Monotonic + Send + Sync>,
    operators: Vec<Counters>,
}

#[derive(Default)]
struct Counters {
    calls: AtomicU64,
    rows: AtomicU64,
    nanos: AtomicU64,
}

/// What one operator did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperatorFigures {
    /// How often it was asked for a batch. 0 where an operator above did its work itself.
    pub calls: u64,
    /// Rows that it gave.
    pub rows: u64,
    /// Time within its calls, its inputs' included.
    pub time: Duration,
}

impl Analysis {
    /// Counters for each node of a plan, timed by `now`.
    pub fn new(plan: &Plan, now: Box<dyn Fn() -> Monotonic + Send + Sync>) -> Analysis {
        Analysis { now, operators: (0..count(plan)).map(|_| Counters::default()).collect() }
    }

    /// The figures, in the plan's pre-order.
    pub fn figures(&self) -> Vec<OperatorFigures> {
        let read = |counters: &Counters| OperatorFigures {
            calls: counters.calls.load(Ordering::Relaxed),
            rows: counters.rows.load(Ordering::Relaxed),
            time: Duration::from_nanos(counters.nanos.load(Ordering::Relaxed)),
        };
        self.operators.iter().map(read).collect()
    }
}

/// Nodes of a plan.
fn count(plan: &Plan) -> usize {
    match plan {
        Plan::Values { .. } | Plan::Scan { .. } => 1,
        Plan::Filter { input, .. }
        | Plan::Project { input, .. }
        | Plan::Aggregate { input, .. }
        | Plan::Sort { input, .. }
        | Plan::Limit { input, .. }
        | Plan::Distinct { input } => 1 + count(input),
    }
}

/// An operator that is watched.
pub(super) struct Measured {
    operator: Box<dyn Operator>,
    number: usize,
    analysis: Arc<Analysis>,
}

impl Measured {
    pub(super) fn new(operator: Box<dyn Operator>, number: usize, analysis: Arc<Analysis>) -> Measured {
        Measured { operator, number, analysis }
    }
}

impl Operator for Measured {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let began = (self.analysis.now)();
        let batch = self.operator.next_batch();
        let spent = (self.analysis.now)().saturating_sub(began);
        // A plan that is not the one analysed has more nodes than counters; its figures are lost, nothing else.
        if let Some(counters) = self.analysis.operators.get(self.number) {
            counters.calls.fetch_add(1, Ordering::Relaxed);
            counters.nanos.fetch_add(spent.as_nanos() as u64, Ordering::Relaxed);
            if let Ok(Some(batch)) = &batch {
                counters.rows.fetch_add(batch.rows as u64, Ordering::Relaxed);
            }
        }
        batch
    }
}
