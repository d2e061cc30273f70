//! Computed columns. A bare column passes through without a copy.

use super::Operator;
use crate::error::Result;
use crate::sql::batch::Batch;
use crate::sql::expression::Expression;

pub(super) struct Project {
    input: Box<dyn Operator>,
    expressions: Vec<Expression>,
}

impl Project {
    pub(super) fn new(input: Box<dyn Operator>, expressions: Vec<Expression>) -> Project {
        Project { input, expressions }
    }
}

impl Operator for Project {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        match self.input.next_batch()? {
            Some(batch) if batch.rows > 0 => {
                let columns = self
                    .expressions
                    .iter()
                    .map(|expression| expression.evaluate(&batch))
                    .collect::<Result<Vec<_>>>()?;
                Ok(Some(Batch::new(columns, batch.rows)))
            }
            other => Ok(other),
        }
    }
}
