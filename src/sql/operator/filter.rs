//! Rows that make a predicate true. Most filters are part of a scan; this one stands above aggregates (HAVING).

use super::{Operator, pause};
use crate::error::Result;
use crate::sql::batch::Batch;
use crate::sql::expression::Expression;

pub(super) struct Filter {
    input: Box<dyn Operator>,
    predicate: Expression,
}

impl Filter {
    pub(super) fn new(input: Box<dyn Operator>, predicate: Expression) -> Filter {
        Filter { input, predicate }
    }
}

impl Operator for Filter {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        match self.input.next_batch()? {
            Some(batch) if batch.rows > 0 => Ok(Some(keep(batch, &self.predicate)?)),
            other => Ok(other),
        }
    }
}

/// The rows of a batch that make a predicate true; a pause where there is none.
pub(super) fn keep(batch: Batch, predicate: &Expression) -> Result<Batch> {
    let kept = predicate.select(&batch)?.apply(batch);
    Ok(if kept.rows == 0 { pause() } else { kept })
}
