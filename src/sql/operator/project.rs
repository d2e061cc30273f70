//! Computed columns. A bare column passes through without a copy.
//!
//! Rows whose values are too large together come in several batches.

use super::Operator;
use crate::error::Result;
use crate::sql::batch::Batch;
use crate::sql::expression::{Expression, Portions, evaluate_all};

pub(super) struct Project {
    input: Box<dyn Operator>,
    expressions: Vec<Expression>,
    /// Rows of which some are still to be computed.
    portions: Option<Portions>,
}

impl Project {
    pub(super) fn new(input: Box<dyn Operator>, expressions: Vec<Expression>) -> Project {
        Project { input, expressions, portions: None }
    }

    fn compute(&mut self) -> Result<Option<Batch>> {
        let Some(portions) = &mut self.portions else { return Ok(None) };
        let computed = portions.next(|part, budget| evaluate_all(&self.expressions, part, budget))?;
        if portions.is_done() {
            self.portions = None;
        }
        Ok(computed.map(|(part, columns)| Batch::new(columns, part.rows)))
    }
}

impl Operator for Project {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        if let Some(batch) = self.compute()? {
            return Ok(Some(batch));
        }
        match self.input.next_batch()? {
            Some(batch) if batch.rows > 0 => {
                self.portions = Some(Portions::new(batch));
                self.compute()
            }
            other => Ok(other),
        }
    }
}
