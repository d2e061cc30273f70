//! Some rows of a batch: what CASE, COALESCE, AND and OR evaluate, and how the answers come together again.

use super::Expression;
use super::operand::mask;
use crate::error::Result;
use crate::sql::batch::{Batch, Column, ColumnBuilder, Values};
use crate::sql::value::{DataType, Value};
use std::sync::Arc;

/// Which rows of a batch make a predicate true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Every row: nothing needs copying.
    All,
    /// These rows, ascending; perhaps none.
    Rows(Vec<u32>),
}

impl Selection {
    /// The rows where a BOOL column is true; NULL is not.
    pub fn of(predicate: &Column) -> Selection {
        let (values, nulls) = match predicate {
            Column::Constant { value: Value::Bool(true), .. } => return Selection::All,
            Column::Constant { .. } => return Selection::Rows(Vec::new()),
            Column::Vector { values: Values::Bool(values), nulls } => (values, nulls),
            Column::Vector { .. } => panic!("a predicate is BOOL, got {}", predicate.data_type()),
        };
        let count = match nulls {
            None => values.iter().filter(|value| **value).count(),
            Some(nulls) => values.iter().zip(nulls).filter(|(value, null)| **value && !**null).count(),
        };
        if count == values.len() {
            return Selection::All;
        }
        // Every row is written and the end moves on only past those that count: no branch to mispredict.
        let mut rows = vec![0; count + 1];
        let mut end = 0;
        for (i, &value) in values.iter().enumerate() {
            rows[end] = i as u32;
            end += usize::from(value & !nulls.as_ref().is_some_and(|nulls| nulls[i]));
        }
        rows.truncate(count);
        Selection::Rows(rows)
    }

    /// A batch of the rows selected; the batch itself where that is all.
    pub fn apply(&self, batch: Batch) -> Batch {
        match self {
            Selection::All => batch,
            Selection::Rows(rows) => batch.gather(rows),
        }
    }
}

/// The rows named of a batch, with those columns alone that the expressions look at. The others are NULL: they keep
/// the positions of the rest.
pub(super) fn restrict(input: &Batch, rows: &[u32], expressions: &[&Expression]) -> Batch {
    let mut wanted = vec![false; input.columns.len()];
    for expression in expressions {
        expression.for_each_column(&mut |index| wanted[index] = true);
    }
    let absent = Arc::new(Column::constant(Value::Null, DataType::Bool, rows.len()));
    let columns = input
        .columns
        .iter()
        .zip(wanted)
        .map(|(column, wanted)| if wanted { Arc::new(column.gather(rows)) } else { Arc::clone(&absent) })
        .collect();
    Batch { columns, rows: rows.len() }
}

/// Answers for parts of a batch, each with the rows it answers; together they answer each row once.
pub(super) struct Pieces {
    data_type: DataType,
    rows: usize,
    /// Where each row's answer stands among all answers, end to end.
    source: Vec<u32>,
    answers: Vec<Arc<Column>>,
    answered: usize,
}

impl Pieces {
    /// No answer yet to any of `rows` rows.
    pub(super) fn new(data_type: DataType, rows: usize) -> Pieces {
        Pieces { data_type, rows, source: vec![0; rows], answers: Vec::new(), answered: 0 }
    }

    /// Adds the answers for the rows named.
    pub(super) fn push(&mut self, rows: &[u32], answers: Arc<Column>) {
        assert!(rows.len() == answers.len(), "each row named has an answer");
        for (&row, position) in rows.iter().zip(self.answered as u32..) {
            self.source[row as usize] = position;
        }
        self.answered += rows.len();
        self.answers.push(answers);
    }

    /// One column of all answers.
    pub(super) fn finish(mut self) -> Arc<Column> {
        assert!(self.answered == self.rows, "each row is answered once");
        // One piece that answers all rows named them in order.
        if self.answers.len() == 1 {
            return self.answers.remove(0);
        }
        let mut all = ColumnBuilder::new(self.data_type, self.rows);
        self.answers.iter().for_each(|answers| all.extend(answers, 0, answers.len()));
        Arc::new(all.finish().gather(&self.source))
    }
}

/// A BOOL column with some rows replaced.
pub(super) fn overlay(column: &Column, rows: &[u32], answers: &Column) -> Result<Arc<Column>> {
    let super::operand::Side::Many(values) = super::operand::bools(column)? else {
        return Ok(Arc::new(answers.clone()));
    };
    let (mut values, mut nulls) = (values.to_vec(), mask(column).map(<[bool]>::to_vec));
    let replaced = super::operand::bools(answers)?;
    for (i, &row) in rows.iter().enumerate() {
        let null = answers.is_null(i);
        values[row as usize] = replaced.get(i) && !null;
        if null || nulls.is_some() {
            nulls.get_or_insert_with(|| vec![false; values.len()])[row as usize] = null;
        }
    }
    Ok(match nulls {
        Some(nulls) => Arc::new(Column::with_nulls(Values::Bool(values), nulls)),
        None => Arc::new(Column::new(Values::Bool(values))),
    })
}
