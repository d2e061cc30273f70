//! Operators: a plan at work. Each turns the batches of its input into batches; the caller pulls at the root.
//!
//! ```text
//!            next_batch()            next_batch()              next_batch()
//! caller ───────────────> Sort ───────────────> Aggregate ───────────────> Scan ──> Source (a read view)
//!        <───────────────      <───────────────           <───────────────
//!             Batch                  Batch                      Batch
//! ```
//!
//! * A call does bounded work: no operator takes more than one batch from its input, or looks up more than
//!   [`LOOKUPS_MAX`] rows, before it returns. Where that gives no row yet, it returns the empty batch, a *pause*: call
//!   again. `None` is the end, and is given again when asked again.
//! * So whoever pulls decides between calls whether to yield, and [`Context::interrupt`] is asked once a call and leaf.
//! * A batch that is not a pause has rows, at most [`BATCH_ROWS_MAX`](crate::sql::batch::BATCH_ROWS_MAX) of them.
//! * What an operator gathers is counted against the query's memory ([`crate::sql::memory`]).
//! * No clock is read here: EXPLAIN ANALYZE is given one.

mod accumulator;
mod aggregate;
mod analyze;
mod distinct;
mod filter;
mod grouping;
mod kernels;
mod limit;
mod lookup;
mod numbering;
mod project;
mod scan;
mod sort;
mod sorted;
mod source;
mod summary;
mod values;

pub use analyze::{Analysis, OperatorFigures};
pub use source::{BatchSource, PointSource, Source};

use crate::error::Result;
use crate::sql::batch::Batch;
use crate::sql::memory::QueryMemory;
use crate::sql::plan::Plan;
use std::sync::Arc;

/// Rows that one call looks up by key at most: each may read a block of each level.
pub const LOOKUPS_MAX: usize = 256;

/// What all operators of a query share.
#[derive(Clone)]
pub struct Context {
    /// Where rows are read from: a read view, or one with a transaction's own writes above it.
    pub source: Arc<dyn Source>,
    /// Physical part of the read instant (ms): rows expire by it, not by the node's clock.
    pub now_ms: u64,
    /// The query's account.
    pub memory: Arc<QueryMemory>,
    /// Fails where the query was cancelled or is past its deadline.
    pub interrupt: Arc<dyn Fn() -> Result<()> + Send + Sync>,
    /// Where EXPLAIN ANALYZE collects; none for other statements.
    pub analysis: Option<Arc<Analysis>>,
}

/// One node of a running plan.
pub trait Operator: Send {
    /// The next batch; an empty one is a pause, none the end.
    ///
    /// # Errors
    /// Those of the expressions and of storage, 53200 over the memory limit, 57014 where interrupted. After an error
    /// the operator is not asked again.
    fn next_batch(&mut self) -> Result<Option<Batch>>;
}

/// Makes a plan ready to run. Nothing is read yet.
///
/// # Errors
/// Those of constant expressions in the plan, and of starting a scan.
pub fn build(plan: &Plan, context: &Context) -> Result<Box<dyn Operator>> {
    Builder { context, built: 0 }.build(plan, None)
}

/// All rows of a plan, for statements whose result is known to be small; the caller does not yield in between.
///
/// # Errors
/// As [`Operator::next_batch`].
pub fn collect(operator: &mut dyn Operator) -> Result<Vec<Batch>> {
    let mut batches = Vec::new();
    while let Some(batch) = operator.next_batch()? {
        if batch.rows > 0 {
            batches.push(batch);
        }
    }
    Ok(batches)
}

/// "Nothing yet, call again."
fn pause() -> Batch {
    Batch::default()
}

/// Bytes that a batch holds.
fn batch_bytes(batch: &Batch) -> usize {
    batch.columns.iter().map(|column| column.byte_len()).sum()
}

/// Builds the tree from the root down, so that operators are numbered in the plan's pre-order.
struct Builder<'a> {
    context: &'a Context,
    built: usize,
}

impl Builder<'_> {
    /// `wanted` is how many rows the nodes above will take at most, where they say so.
    fn build(&mut self, plan: &Plan, wanted: Option<u64>) -> Result<Box<dyn Operator>> {
        let number = self.built;
        self.built += 1;
        let context = self.context;
        let operator: Box<dyn Operator> = match plan {
            Plan::Values { rows, types } => Box::new(values::Values::new(rows, types)?),
            Plan::Scan { table, access, columns, bounds, filter } => {
                let scan = scan::Request { table, access, columns, bounds, filter: filter.as_ref() };
                scan::build(scan, context, wanted)?
            }
            Plan::Filter { input, predicate } => {
                Box::new(filter::Filter::new(self.build(input, None)?, predicate.clone()))
            }
            Plan::Project { input, expressions } => {
                Box::new(project::Project::new(self.build(input, wanted)?, expressions.clone()))
            }
            Plan::Aggregate { input, group, aggregates } => {
                match summary::build(input, group, aggregates, context)? {
                    // The scan below is part of this operator then, and its number stays unused.
                    Some(operator) => {
                        self.built += 1;
                        operator
                    }
                    None => Box::new(aggregate::Aggregate::new(self.build(input, None)?, group, aggregates, context)?),
                }
            }
            Plan::Sort { input, keys, limit } => {
                Box::new(sort::Sort::new(self.build(input, None)?, keys.clone(), *limit, context))
            }
            Plan::Limit { input, limit, offset } => {
                let wanted = limit.map(|limit| limit.saturating_add(*offset));
                Box::new(limit::Limit::new(self.build(input, wanted)?, *limit, *offset))
            }
            Plan::Distinct { input } => Box::new(distinct::Distinct::new(self.build(input, None)?, context)),
        };
        Ok(match &context.analysis {
            Some(analysis) => Box::new(analyze::Measured::new(operator, number, Arc::clone(analysis))),
            None => operator,
        })
    }
}
