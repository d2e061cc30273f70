//! What evaluating expressions over a batch may hold: the columns of nodes that are computed and still needed.
//!
//! ```text
//!   v || (w || x)       batch of 300 rows: v, w, x are storage's    w || x: 9 MB    v || …: 20 MB     of 32 MiB
//! ```
//!
//! A batch is bounded by what storage reads at once, but a value may grow with every node, and a statement may have
//! thousands of nodes.
//!
//! * A column of the input counts nothing, since it is shared, and neither does a constant, which is as long as it stands
//!   in the statement: `limits.statement_bytes_max` bounds it. A result counts until the node above has used it.
//! * A kernel that may grow its input asks before it allocates ([`Budget::check`]).
//! * What is too much for many rows may do for fewer: whoever can take rows in parts cuts the batch ([`Portions`]), down
//!   to one row. Only then is it an error, 54000.
//! * No value is longer than [`VALUE_BYTES_MAX`], however few rows there are.

use super::Expression;
use crate::error::{Error, Result, SqlState};
use crate::sql::batch::{Batch, Column};
use std::cell::Cell;
use std::sync::Arc;

/// Bytes of one computed value: what one answer has by default, and a statement's text.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Bytes of all columns of one evaluation: a longest value, and the two of half its length that it was made of.
const EVALUATION_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX;

/// The account of one evaluation.
#[derive(Debug, Default)]
pub struct Budget {
    used: Cell<usize>,
    is_exceeded: Cell<bool>,
}

/// Bytes that are counted until this is dropped.
pub(super) struct Held<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    /// Bytes of columns that are still needed.
    pub(super) fn used(&self) -> usize {
        self.used.get()
    }

    /// True after an error that fewer rows might not raise.
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded.get()
    }

    /// Asks for a column of so many bytes before it is made.
    ///
    /// # Errors
    /// 54000 where it would be too much.
    pub(super) fn check(&self, bytes: usize) -> Result<()> {
        if self.used.get().saturating_add(bytes) <= EVALUATION_BYTES_MAX {
            return Ok(());
        }
        self.is_exceeded.set(true);
        let message = format!("the values of an expression take more than {EVALUATION_BYTES_MAX} bytes for one row");
        Err(Error::limit(SqlState::LIMIT_EXCEEDED, message))
    }

    /// Counts a node's result of so many bytes in the place of what was counted since `before`.
    pub(super) fn settle(&self, before: usize, bytes: usize) -> Result<()> {
        self.check(bytes)?;
        self.used.set(before + bytes);
        Ok(())
    }

    /// Counts a copy of some rows.
    pub(super) fn hold(&self, bytes: usize) -> Result<Held<'_>> {
        self.check(bytes)?;
        self.used.set(self.used.get() + bytes);
        Ok(Held { budget: self, bytes })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // A node settles to what was counted before it, which includes this.
        self.budget.used.set(self.budget.used.get() - self.bytes);
    }
}

/// A value that is longer than any.
pub(super) fn check_value(bytes: usize) -> Result<()> {
    if bytes <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let message = format!("a value of {bytes} bytes is computed, the longest has {VALUE_BYTES_MAX}");
    Err(Error::limit(SqlState::LIMIT_EXCEEDED, message))
}

/// A batch whose rows are computed in as few parts as the budget allows.
pub struct Portions {
    batch: Batch,
    at: usize,
    /// Rows of the next part at most.
    rows: usize,
}

impl Portions {
    /// All rows of a batch.
    pub fn new(batch: Batch) -> Portions {
        let rows = batch.rows;
        Portions { batch, at: 0, rows }
    }

    /// True where no row is left.
    pub fn is_done(&self) -> bool {
        self.at == self.batch.rows
    }

    /// Has the values of the next rows computed, for as many as stay within the budget; none at the end.
    ///
    /// # Errors
    /// What `compute` fails with for a single row, or for a reason of its own.
    pub fn next<T>(&mut self, compute: impl Fn(&Batch, &Budget) -> Result<T>) -> Result<Option<(Batch, T)>> {
        while self.at < self.batch.rows {
            let to = (self.at + self.rows).min(self.batch.rows);
            let part = if to - self.at == self.batch.rows { self.batch.clone() } else { self.batch.slice(self.at, to) };
            let budget = Budget::default();
            match compute(&part, &budget) {
                Ok(computed) => {
                    self.at = to;
                    return Ok(Some((part, computed)));
                }
                Err(_) if budget.is_exceeded() && part.rows > 1 => self.rows = part.rows / 2,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The values of expressions, all of which are held together.
///
/// # Errors
/// As [`Expression::evaluate`], and 54000 where they exceed the budget.
pub fn evaluate_all(expressions: &[Expression], input: &Batch, budget: &Budget) -> Result<Vec<Arc<Column>>> {
    expressions.iter().map(|expression| expression.evaluate_within(input, budget)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::batch::ColumnBuilder;
    use crate::sql::expression::{BinaryOperator, Function, Selection};
    use crate::sql::value::{DataType, Value};

    fn texts(rows: usize, bytes: usize) -> Batch {
        let mut column = ColumnBuilder::new(DataType::Text, rows);
        (0..rows)
            .for_each(|row| column.push(&Value::Text(char::from(b'a' + row as u8 % 26).to_string().repeat(bytes))));
        Batch::new(vec![Arc::new(column.finish())], rows)
    }

    fn text() -> Expression {
        Expression::Column { index: 0, data_type: DataType::Text, name: "v".into() }
    }

    /// `v || v || …`, so many of them.
    fn repeated(times: usize) -> Expression {
        (1..times).fold(text(), |left, _| Expression::Binary {
            operator: BinaryOperator::Concatenate,
            left: Box::new(left),
            right: Box::new(text()),
        })
    }

    fn length(of: Expression) -> Expression {
        Expression::Call { function: Function::Length, arguments: vec![of], data_type: DataType::Int }
    }

    fn binary(operator: BinaryOperator, left: Expression, right: Expression) -> Expression {
        Expression::Binary { operator, left: Box::new(left), right: Box::new(right) }
    }

    #[test]
    fn a_value_longer_than_any_is_refused_however_few_rows_there_are() {
        let one = texts(1, VALUE_BYTES_MAX / 2);
        assert_eq!(repeated(2).evaluate(&one).unwrap().len(), 1);
        let error = repeated(3).evaluate(&one).unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::LIMIT_EXCEEDED);
        assert!(error.to_string().contains(&format!("a value of {} bytes", VALUE_BYTES_MAX / 2 * 3)), "{error}");
    }

    #[test]
    fn a_constant_is_as_long_as_the_statement_may_be() {
        let long =
            || Expression::Constant { value: Value::Text("c".repeat(3 * VALUE_BYTES_MAX)), data_type: DataType::Text };
        let one = texts(1, 1);
        assert_eq!(long().evaluate(&one).unwrap().len(), 1);
        assert_eq!(binary(BinaryOperator::Less, text(), long()).evaluate(&one).unwrap().value(0), Value::Bool(true));
    }

    #[test]
    fn what_a_node_has_used_counts_no_longer() {
        // Ten texts of 8 MiB are made, one after the other.
        let one = texts(1, VALUE_BYTES_MAX / 4);
        let sum = (0..10).fold(length(text()), |sum, _| binary(BinaryOperator::Add, sum, length(repeated(2))));
        assert_eq!(sum.evaluate(&one).unwrap().value(0), Value::Int((VALUE_BYTES_MAX / 4 * 21) as i64));
        // Side by side they are too much.
        let all: Vec<Expression> = (0..10).map(|_| repeated(2)).collect();
        let budget = Budget::default();
        assert_eq!(evaluate_all(&all, &one, &budget).unwrap_err().sqlstate(), SqlState::LIMIT_EXCEEDED);
        let list = Expression::InList { input: Box::new(text()), list: all, negated: false };
        assert_eq!(list.evaluate(&one).unwrap_err().sqlstate(), SqlState::LIMIT_EXCEEDED);
    }

    #[test]
    fn copies_of_rows_for_the_branches_of_nested_cases_count() {
        let two = texts(2, VALUE_BYTES_MAX / 4);
        let differs = || {
            binary(
                BinaryOperator::NotEqual,
                text(),
                Expression::Constant { value: Value::Text("a".repeat(VALUE_BYTES_MAX / 4)), data_type: DataType::Text },
            )
        };
        let nested = (0..12).fold(text(), |inner, _| Expression::Case {
            branches: vec![(differs(), inner)],
            otherwise: Box::new(Expression::Constant { value: Value::Null, data_type: DataType::Text }),
            data_type: DataType::Text,
        });
        assert_eq!(nested.evaluate(&two).map(|column| column.len()).unwrap(), 2);
        let budget = Budget::default();
        let held: Result<Vec<Held<'_>>> = (0..9).map(|_| budget.hold(VALUE_BYTES_MAX / 4)).collect();
        assert_eq!(held.err().map(|error| error.sqlstate()), Some(SqlState::LIMIT_EXCEEDED));
        assert_eq!(budget.used(), 0, "what was held has been given back");
    }

    #[test]
    fn rows_that_are_too_large_together_are_computed_in_parts() {
        let batch = texts(64, 64 << 10);
        let long = repeated(16);
        assert_eq!(long.evaluate(&batch).unwrap_err().sqlstate(), SqlState::LIMIT_EXCEEDED);
        let mut portions = Portions::new(batch.clone());
        let mut seen = 0;
        while let Some((part, column)) = portions.next(|part, budget| long.evaluate_within(part, budget)).unwrap() {
            assert!(column.byte_len() <= EVALUATION_BYTES_MAX);
            assert_eq!(part.columns[0].value(0), batch.columns[0].value(seen));
            seen += part.rows;
        }
        assert_eq!((seen, portions.is_done()), (64, true));
        let few = Expression::Constant { value: Value::Text("c".into()), data_type: DataType::Text };
        let selected = binary(BinaryOperator::Less, long, few).select(&batch).unwrap();
        let expected = (0..64).filter(|row| row % 26 < 2).collect();
        assert_eq!(selected, Selection::Rows(expected));
    }

    #[test]
    fn an_error_of_one_row_is_not_taken_for_too_many_rows() {
        let zero = Expression::Constant { value: Value::Int(0), data_type: DataType::Int };
        let failing = binary(BinaryOperator::Divide, length(text()), zero);
        let computed = Portions::new(texts(3, 1)).next(|part, budget| failing.evaluate_within(part, budget));
        assert_eq!(computed.unwrap_err().sqlstate(), SqlState::parse("22012"));
    }
}
