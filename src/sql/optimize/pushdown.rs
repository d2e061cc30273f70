//! Brings conditions to where rows come from.

use super::each_input;
use crate::sql::bind::{balanced, children};
use crate::sql::expression::{BinaryOperator, Expression};
use crate::sql::plan::Plan;

/// The terms that are joined by AND at the top of a condition.
pub fn conjuncts(condition: Expression) -> Vec<Expression> {
    split(condition, BinaryOperator::And)
}

/// The terms that are joined by OR at the top of a condition.
pub(super) fn disjuncts(condition: &Expression) -> Vec<&Expression> {
    let (mut open, mut terms) = (vec![condition], Vec::new());
    while let Some(condition) = open.pop() {
        match condition {
            Expression::Binary { operator: BinaryOperator::Or, left, right } => open.extend([&**right, &**left]),
            term => terms.push(term),
        }
    }
    terms
}

fn split(condition: Expression, by: BinaryOperator) -> Vec<Expression> {
    let (mut open, mut terms) = (vec![condition], Vec::new());
    while let Some(condition) = open.pop() {
        match condition {
            Expression::Binary { operator, left, right } if operator == by => open.extend([*right, *left]),
            term => terms.push(term),
        }
    }
    terms
}

/// The condition that all terms hold; none where there is no term.
pub fn conjoin(terms: Vec<Expression>) -> Option<Expression> {
    (!terms.is_empty()).then(|| balanced(BinaryOperator::And, terms))
}

/// Moves conditions down.
///
/// Law: a filter over a scan drops the same rows within it; two filters are one of both. A term of HAVING that looks
/// at group columns alone has one value for all rows of a group, so it drops the group's rows before they are grouped
/// as well as the group after. Without group columns there is one group even of no rows, so nothing is moved.
pub(super) fn push_filters(plan: Plan) -> Plan {
    let plan = each_input(plan, &push_filters);
    let Plan::Filter { input, predicate } = plan else { return plan };
    match *input {
        Plan::Scan { table, access, columns, bounds, filter } => {
            let filter = conjoin(filter.into_iter().chain([predicate]).flat_map(conjuncts).collect());
            Plan::Scan { table, access, columns, bounds, filter }
        }
        Plan::Filter { input, predicate: inner } => {
            let both = conjoin([inner, predicate].into_iter().flat_map(conjuncts).collect());
            push_filters(match both {
                Some(predicate) => Plan::Filter { input, predicate },
                None => *input,
            })
        }
        Plan::Aggregate { input, group, aggregates } if !group.is_empty() => {
            let (movable, kept): (Vec<Expression>, Vec<Expression>) =
                conjuncts(predicate).into_iter().partition(|term| is_of_groups(term, group.len()));
            let moved = movable.into_iter().map(|mut term| {
                substitute(&mut term, &group);
                term
            });
            let input = match conjoin(moved.collect()) {
                Some(predicate) => Box::new(push_filters(Plan::Filter { input, predicate })),
                None => input,
            };
            let plan = Plan::Aggregate { input, group, aggregates };
            match conjoin(kept) {
                Some(predicate) => Plan::Filter { input: Box::new(plan), predicate },
                None => plan,
            }
        }
        input => Plan::Filter { input: Box::new(input), predicate },
    }
}

/// True where a term reads group columns, and nothing else. One that reads no column at all stays where it is.
fn is_of_groups(term: &Expression, groups: usize) -> bool {
    let (mut any, mut all) = (false, true);
    term.for_each_column(&mut |index| {
        any = true;
        all &= index < groups;
    });
    any && all
}

/// Puts expressions in the place of columns.
fn substitute(term: &mut Expression, by: &[Expression]) {
    if let Expression::Column { index, .. } = term {
        *term = by[*index].clone();
        return;
    }
    for child in children(term) {
        substitute(child, by);
    }
}
