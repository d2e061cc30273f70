//! Rows that stand in the statement.

use super::Operator;
use crate::error::Result;
use crate::sql::batch::{BATCH_ROWS_MAX, Batch, ColumnBuilder};
use crate::sql::expression::Expression;
use crate::sql::value::DataType;
use std::collections::VecDeque;
use std::sync::Arc;

pub(super) struct Values {
    batches: VecDeque<Batch>,
}

impl Values {
    /// Evaluates the rows: they are in memory already, and the statement's size bounds them.
    pub(super) fn new(rows: &[Vec<Expression>], types: &[DataType]) -> Result<Values> {
        let batches = rows.chunks(BATCH_ROWS_MAX).map(|rows| batch(rows, types)).collect::<Result<_>>()?;
        Ok(Values { batches })
    }
}

fn batch(rows: &[Vec<Expression>], types: &[DataType]) -> Result<Batch> {
    let mut columns: Vec<ColumnBuilder> =
        types.iter().map(|&data_type| ColumnBuilder::new(data_type, rows.len())).collect();
    for row in rows {
        assert!(row.len() == columns.len(), "each row of VALUES has an expression for each column");
        for (column, expression) in columns.iter_mut().zip(row) {
            if let Expression::Constant { value, .. } = expression {
                column.push(value);
            } else {
                column.push(&expression.evaluate_constant()?);
            }
        }
    }
    Ok(Batch { columns: columns.into_iter().map(|column| Arc::new(column.finish())).collect(), rows: rows.len() })
}

impl Operator for Values {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        Ok(self.batches.pop_front())
    }
}
