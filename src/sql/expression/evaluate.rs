//! Walks the tree: evaluates the inputs of a node, then runs its kernel.

use super::arithmetic::{self, Operation};
use super::logic::Connective;
use super::{BinaryOperator, Budget, Expression, Function, Portions, Selection, UnaryOperator, ValueSet};
use super::{cast, compare, conditional, functions, like, logic};
use crate::error::{Error, Result};
use crate::sql::batch::{Batch, Column};
use crate::sql::value::{DataType, Value};
use std::sync::Arc;

impl Expression {
    /// The value of each row. A column of the input is handed out as it is, without a copy.
    ///
    /// # Errors
    /// What the statement's author did: 22012, 22003, 22P02 and their like, for rows that reach the node alone.
    pub fn evaluate(&self, input: &Batch) -> Result<Arc<Column>> {
        self.evaluate_within(input, &Budget::default())
    }

    /// The same as a part of an evaluation, whose other parts are held meanwhile.
    ///
    /// # Errors
    /// Those of [`Expression::evaluate`], and 54000 where the budget is exceeded.
    pub fn evaluate_within(&self, input: &Batch, budget: &Budget) -> Result<Arc<Column>> {
        let before = budget.used();
        let column = self.compute(input, budget)?;
        let is_shared = matches!(self, Expression::Column { .. } | Expression::Constant { .. });
        budget.settle(before, if is_shared { 0 } else { column.byte_len() })?;
        Ok(column)
    }

    fn compute(&self, input: &Batch, budget: &Budget) -> Result<Arc<Column>> {
        let rows = input.rows;
        match self {
            Expression::Constant { value, data_type } => {
                Ok(Arc::new(Column::constant(value.clone(), *data_type, rows)))
            }
            Expression::Column { index, name, .. } => input.columns.get(*index).cloned().ok_or_else(|| {
                Error::internal(format!("column \"{name}\" is not in a batch of {}", input.columns.len()))
            }),
            Expression::Unary { operator: UnaryOperator::Negate, input: operand } => {
                arithmetic::negate(&*operand.evaluate_within(input, budget)?, rows)
            }
            Expression::Unary { operator: UnaryOperator::Not, input: operand } => {
                logic::not(&*operand.evaluate_within(input, budget)?, rows)
            }
            Expression::Binary { operator, left, right } => binary(*operator, left, right, input, budget),
            Expression::IsNull { input: operand, negated } => {
                Ok(logic::is_null(&*operand.evaluate_within(input, budget)?, *negated, rows))
            }
            Expression::Like { input: operand, pattern, escape, case_insensitive, negated } => {
                let (text, pattern) =
                    (operand.evaluate_within(input, budget)?, pattern.evaluate_within(input, budget)?);
                like::evaluate(
                    &text,
                    &pattern,
                    like::Options { escape: *escape, case_insensitive: *case_insensitive },
                    *negated,
                    rows,
                )
            }
            Expression::InList { input: operand, list, negated } => {
                let operand = operand.evaluate_within(input, budget)?;
                compare::in_list(&operand, &all(list, input, budget)?, *negated, rows)
            }
            Expression::InSet { input: operand, sets, list, negated } => {
                let operand = operand.evaluate_within(input, budget)?;
                in_set(&operand, sets, &all(list, input, budget)?, *negated, rows)
            }
            Expression::Case { branches, otherwise, data_type } => {
                conditional::case(branches, otherwise, *data_type, (input, budget))
            }
            Expression::Cast { input: operand, to } => {
                cast::evaluate(operand.evaluate_within(input, budget)?, *to, rows, budget)
            }
            Expression::Call { function: Function::Coalesce, arguments, data_type } => {
                conditional::coalesce(arguments, *data_type, (input, budget))
            }
            Expression::Call { function, arguments, data_type } => {
                functions::call(*function, &all(arguments, input, budget)?, *data_type, rows)
            }
        }
    }

    /// The value of an expression over no columns: a folded constant, a DEFAULT, a cell of VALUES.
    ///
    /// # Errors
    /// As [`Expression::evaluate`].
    pub fn evaluate_constant(&self) -> Result<Value> {
        if let Expression::Constant { value, .. } = self {
            return Ok(value.clone());
        }
        Ok(self.evaluate(&Batch { columns: Vec::new(), rows: 1 })?.value(0))
    }

    /// The rows for which a BOOL expression is true.
    ///
    /// # Errors
    /// As [`Expression::evaluate`].
    pub fn select(&self, input: &Batch) -> Result<Selection> {
        let mut portions = Portions::new(input.clone());
        let mut selected = Vec::new();
        let mut at = 0;
        while let Some((part, column)) = portions.next(|part, budget| self.evaluate_within(part, budget))? {
            let selection = Selection::of(&column);
            if part.rows == input.rows {
                return Ok(selection);
            }
            match selection {
                Selection::All => selected.extend(at..at + part.rows as u32),
                Selection::Rows(rows) => selected.extend(rows.into_iter().map(|row| at + row)),
            }
            at += part.rows as u32;
        }
        Ok(if selected.len() == input.rows { Selection::All } else { Selection::Rows(selected) })
    }

    /// True where some row could raise an error. What cannot may be evaluated for rows that do not need it.
    pub fn may_fail(&self) -> bool {
        match self {
            Expression::Constant { .. } | Expression::Column { .. } => false,
            Expression::Unary { operator, input } => match operator {
                UnaryOperator::Negate => true,
                UnaryOperator::Not => input.may_fail(),
            },
            Expression::Binary { operator, left, right } => {
                // Strings of absurd length make `||` fail; evaluated where they are not needed, they would too.
                Operation::of(*operator).is_some()
                    || *operator == BinaryOperator::Concatenate
                    || left.may_fail()
                    || right.may_fail()
            }
            Expression::IsNull { input, .. } => input.may_fail(),
            Expression::Like { input, pattern, .. } => {
                // A constant pattern that is malformed fails too, but on every row alike.
                input.may_fail() || !matches!(**pattern, Expression::Constant { .. })
            }
            Expression::InList { input, list, .. } | Expression::InSet { input, list, .. } => {
                input.may_fail() || list.iter().any(Expression::may_fail)
            }
            Expression::Case { branches, otherwise, .. } => {
                otherwise.may_fail() || branches.iter().any(|(when, then)| when.may_fail() || then.may_fail())
            }
            Expression::Cast { input, to } => input.may_fail() || cast::may_fail(input.data_type(), *to),
            Expression::Call { function, arguments, .. } => {
                functions::may_fail(*function) || arguments.iter().any(Expression::may_fail)
            }
        }
    }

    /// Tells of each column of the input that the expression looks at; of some more than once.
    pub fn for_each_column(&self, tell: &mut impl FnMut(usize)) {
        match self {
            Expression::Constant { .. } => {}
            Expression::Column { index, .. } => tell(*index),
            Expression::Unary { input, .. } | Expression::IsNull { input, .. } | Expression::Cast { input, .. } => {
                input.for_each_column(tell);
            }
            Expression::Binary { left, right, .. } => {
                left.for_each_column(tell);
                right.for_each_column(tell);
            }
            Expression::Like { input, pattern, .. } => {
                input.for_each_column(tell);
                pattern.for_each_column(tell);
            }
            Expression::InList { input, list, .. } | Expression::InSet { input, list, .. } => {
                input.for_each_column(tell);
                for item in list {
                    item.for_each_column(tell);
                }
            }
            Expression::Case { branches, otherwise, .. } => {
                for (when, then) in branches {
                    when.for_each_column(tell);
                    then.for_each_column(tell);
                }
                otherwise.for_each_column(tell);
            }
            Expression::Call { arguments, .. } => {
                for argument in arguments {
                    argument.for_each_column(tell);
                }
            }
        }
    }
}

/// The values of several expressions over the same rows.
fn all(expressions: &[Expression], input: &Batch, budget: &Budget) -> Result<Vec<Arc<Column>>> {
    expressions.iter().map(|expression| expression.evaluate_within(input, budget)).collect()
}

/// Membership in sets of constants, which are looked up, and in a list, which is compared with.
fn in_set(
    operand: &Column,
    sets: &[Arc<ValueSet>],
    list: &[Arc<Column>],
    negated: bool,
    rows: usize,
) -> Result<Arc<Column>> {
    if let ([set], []) = (sets, list) {
        return set.look_up(operand, negated, rows);
    }
    let mut found = compare::in_list(operand, list, false, rows)?;
    for set in sets {
        found = logic::either(&found, &*set.look_up(operand, false, rows)?, rows)?;
    }
    if negated { logic::not(&found, rows) } else { Ok(found) }
}

fn binary(
    operator: BinaryOperator,
    left: &Expression,
    right: &Expression,
    input: &Batch,
    budget: &Budget,
) -> Result<Arc<Column>> {
    if operator == BinaryOperator::And {
        return logic::connect(Connective::And, left, right, (input, budget));
    }
    if operator == BinaryOperator::Or {
        return logic::connect(Connective::Or, left, right, (input, budget));
    }
    let (left, right) = (left.evaluate_within(input, budget)?, right.evaluate_within(input, budget)?);
    same_type(&left, &right)?;
    match (Operation::of(operator), operator) {
        (Some(operation), _) => arithmetic::binary(operation, &left, &right, input.rows),
        (None, BinaryOperator::Concatenate) => functions::concatenate(&left, &right, input.rows, budget),
        (None, _) => compare::binary(operator, &left, &right, input.rows),
    }
}

fn same_type(left: &Column, right: &Column) -> Result<()> {
    let (left, right): (DataType, DataType) = (left.data_type(), right.data_type());
    if left == right {
        return Ok(());
    }
    Err(Error::internal(format!("the binder left {left} beside {right}")))
}
