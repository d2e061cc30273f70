//! Folding: what reads no column is computed once, before the first row.

use crate::sql::bind::children;
use crate::sql::expression::{BinaryOperator, Expression, UnaryOperator};
use crate::sql::value::{DataType, Value};

/// `TRUE` or `FALSE`.
pub(super) fn truth(value: bool) -> Expression {
    Expression::Constant { value: Value::Bool(value), data_type: DataType::Bool }
}

/// The same expression with its constant parts computed.
///
/// Law: evaluation is a function of the input alone, so a part without input has one value. A part whose value is an
/// error stays as it is, so the error is raised for the rows that reach it, and for no others.
pub fn fold(mut expression: Expression) -> Expression {
    for child in children(&mut expression) {
        let inner = std::mem::replace(child, truth(true));
        *child = fold(inner);
    }
    let expression = push_not(simplify_logic(expression));
    if matches!(expression, Expression::Constant { .. } | Expression::Column { .. }) {
        return expression;
    }
    let mut expression = expression;
    if !children(&mut expression).iter().all(|child| matches!(child, Expression::Constant { .. })) {
        return expression;
    }
    let data_type = expression.data_type();
    match expression.evaluate_constant() {
        Ok(value) => Expression::Constant { value, data_type },
        Err(_) => expression,
    }
}

/// Law: TRUE is the unit of AND and FALSE of OR; FALSE absorbs AND and TRUE absorbs OR, whatever the other side is,
/// NULL included.
fn simplify_logic(expression: Expression) -> Expression {
    let Expression::Binary { operator: operator @ (BinaryOperator::And | BinaryOperator::Or), left, right } =
        expression
    else {
        return expression;
    };
    let unit = operator == BinaryOperator::And;
    match (known(&left), known(&right)) {
        (Some(value), _) => {
            if value == unit {
                *right
            } else {
                truth(!unit)
            }
        }
        (None, Some(value)) => {
            if value == unit {
                *left
            } else {
                truth(!unit)
            }
        }
        (None, None) => Expression::Binary { operator, left, right },
    }
}

fn known(expression: &Expression) -> Option<bool> {
    match expression {
        Expression::Constant { value: Value::Bool(value), .. } => Some(*value),
        _ => None,
    }
}

/// Law: De Morgan's, and that each comparison has an opposite: `NOT a < b` is `a >= b`, as the order of values is
/// total and NULL stays NULL. So that conditions show their comparisons to the search for keys.
fn push_not(expression: Expression) -> Expression {
    match expression {
        Expression::Unary { operator: UnaryOperator::Not, input } => negated(*input),
        other => other,
    }
}

fn negated(expression: Expression) -> Expression {
    match expression {
        Expression::Unary { operator: UnaryOperator::Not, input } => *input,
        Expression::IsNull { input, negated } => Expression::IsNull { input, negated: !negated },
        Expression::InList { input, list, negated } => Expression::InList { input, list, negated: !negated },
        Expression::InSet { input, sets, list, negated } => Expression::InSet { input, sets, list, negated: !negated },
        Expression::Like { input, pattern, escape, case_insensitive, negated } => {
            Expression::Like { input, pattern, escape, case_insensitive, negated: !negated }
        }
        Expression::Binary { operator, left, right } => match opposite(operator) {
            Some(operator @ (BinaryOperator::And | BinaryOperator::Or)) => {
                let (left, right) = (Box::new(negated(*left)), Box::new(negated(*right)));
                Expression::Binary { operator, left, right }
            }
            Some(operator) => Expression::Binary { operator, left, right },
            None => not(Expression::Binary { operator, left, right }),
        },
        other => not(other),
    }
}

fn not(input: Expression) -> Expression {
    Expression::Unary { operator: UnaryOperator::Not, input: Box::new(input) }
}

fn opposite(operator: BinaryOperator) -> Option<BinaryOperator> {
    match operator {
        BinaryOperator::Equal => Some(BinaryOperator::NotEqual),
        BinaryOperator::NotEqual => Some(BinaryOperator::Equal),
        BinaryOperator::Less => Some(BinaryOperator::GreaterOrEqual),
        BinaryOperator::LessOrEqual => Some(BinaryOperator::Greater),
        BinaryOperator::Greater => Some(BinaryOperator::LessOrEqual),
        BinaryOperator::GreaterOrEqual => Some(BinaryOperator::Less),
        BinaryOperator::NotDistinct => Some(BinaryOperator::Distinct),
        BinaryOperator::Distinct => Some(BinaryOperator::NotDistinct),
        BinaryOperator::And => Some(BinaryOperator::Or),
        BinaryOperator::Or => Some(BinaryOperator::And),
        BinaryOperator::Add
        | BinaryOperator::Subtract
        | BinaryOperator::Multiply
        | BinaryOperator::Divide
        | BinaryOperator::Modulo
        | BinaryOperator::Concatenate => None,
    }
}
