//! Bound expressions as SQL.

#![expect(clippy::wildcard_enum_match_arm, reason = "where one shape needs no parentheses all others are alike")]

use crate::sql::bind::symbol;
use crate::sql::expression::{BinaryOperator, Expression, Function, UnaryOperator, ValueSet};
use crate::sql::value::{DataType, Value};

/// Values of a long list that are shown.
const SHOWN_MAX: usize = 100;

/// The expression as SQL, with parentheses wherever nesting could be misread.
pub fn to_sql(expression: &Expression) -> String {
    match expression {
        Expression::Constant { value, .. } => value_to_sql(value),
        Expression::Column { name, .. } => name.clone(),
        Expression::Unary { operator: UnaryOperator::Negate, input } => format!("-{}", nested(input)),
        Expression::Unary { operator: UnaryOperator::Not, input } => format!("NOT {}", nested(input)),
        Expression::Binary { operator: operator @ (BinaryOperator::And | BinaryOperator::Or), .. } => {
            let mut terms = Vec::new();
            chain(expression, *operator, &mut terms);
            terms.join(&format!(" {} ", symbol(*operator)))
        }
        Expression::Binary { operator, left, right } => {
            format!("{} {} {}", nested(left), symbol(*operator), nested(right))
        }
        Expression::IsNull { input, negated } => {
            format!("{} IS {}NULL", nested(input), if *negated { "NOT " } else { "" })
        }
        Expression::Like { input, pattern, escape, case_insensitive, negated } => {
            let not = if *negated { "NOT " } else { "" };
            let like = if *case_insensitive { "ILIKE" } else { "LIKE" };
            let escape = match escape {
                Some('\\') => String::new(),
                Some(escape) => format!(" ESCAPE {}", value_to_sql(&Value::Text(escape.to_string()))),
                None => " ESCAPE ''".to_owned(),
            };
            format!("{} {not}{like} {}{escape}", nested(input), nested(pattern))
        }
        Expression::InList { input, list, negated } => {
            format!("{} {}IN ({})", nested(input), if *negated { "NOT " } else { "" }, listed(list))
        }
        Expression::InSet { input, sets, list, negated } => {
            let mut parts: Vec<String> = sets.iter().map(|set| shown(set)).collect();
            if !list.is_empty() {
                parts.push(listed(list));
            }
            format!("{} {}IN ({})", nested(input), if *negated { "NOT " } else { "" }, parts.join(", "))
        }
        Expression::Case { branches, otherwise, .. } => {
            let branches: Vec<String> =
                branches.iter().map(|(when, then)| format!("WHEN {} THEN {}", to_sql(when), to_sql(then))).collect();
            format!("CASE {} ELSE {} END", branches.join(" "), to_sql(otherwise))
        }
        Expression::Cast { input, to } => format!("{}::{to}", nested(input)),
        Expression::Call { function, arguments, .. } => format!("{}({})", name_of(*function), listed(arguments)),
    }
}

/// The first values of a set.
fn shown(set: &ValueSet) -> String {
    let shown: Vec<String> = (0..set.len().min(SHOWN_MAX)).map(|i| value_to_sql(&set.value(i))).collect();
    let more = if set.len() > SHOWN_MAX { format!(", … {} in all", set.len()) } else { String::new() };
    shown.join(", ") + &more
}

/// Terms of one operator, whose tree is balanced, as the flat list that was written.
fn chain(expression: &Expression, of: BinaryOperator, terms: &mut Vec<String>) {
    match expression {
        Expression::Binary { operator, left, right } if *operator == of => {
            chain(left, of, terms);
            chain(right, of, terms);
        }
        other => terms.push(match other {
            Expression::Binary { operator: BinaryOperator::And | BinaryOperator::Or, .. } => nested(other),
            _ => to_sql(other),
        }),
    }
}

fn nested(expression: &Expression) -> String {
    match expression {
        Expression::Constant { .. } | Expression::Column { .. } | Expression::Call { .. } | Expression::Cast { .. } => {
            to_sql(expression)
        }
        Expression::Unary { .. }
        | Expression::Binary { .. }
        | Expression::IsNull { .. }
        | Expression::Like { .. }
        | Expression::InList { .. }
        | Expression::InSet { .. }
        | Expression::Case { .. } => format!("({})", to_sql(expression)),
    }
}

fn listed(expressions: &[Expression]) -> String {
    let expressions: Vec<String> = expressions.iter().map(to_sql).collect();
    expressions.join(", ")
}

fn name_of(function: Function) -> &'static str {
    match function {
        Function::Coalesce => "coalesce",
        Function::NullIf => "nullif",
        Function::Abs => "abs",
        Function::Length => "length",
        Function::Left => "left",
        Function::Lower => "lower",
        Function::Upper => "upper",
        Function::Round => "round",
        Function::Floor => "floor",
        Function::Ceil => "ceil",
        Function::Sqrt => "sqrt",
    }
}

/// A value as a literal.
pub(super) fn value_to_sql(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Timestamp(_) => format!("{} '{value}'", DataType::Timestamp),
        Value::Blob(bytes) => {
            let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            format!("X'{}'", digits.concat())
        }
        Value::Bool(value) => if *value { "TRUE" } else { "FALSE" }.to_owned(),
        Value::Null | Value::Int(_) | Value::Float(_) => value.to_string(),
    }
}
