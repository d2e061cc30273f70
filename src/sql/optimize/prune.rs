//! Reads only the columns that something looks at.
//!
//! Law: an operator's output depends on the input columns that its expressions name, and on no others. So the columns
//! asked for from above, and those that the node itself names, are all that its input must hand out.

use super::width;
use crate::sql::bind::children;
use crate::sql::expression::Expression;
use crate::sql::plan::Plan;

/// The same plan over fewer columns.
pub(super) fn prune(plan: Plan) -> Plan {
    let wanted = (0..width(&plan)).collect();
    let (plan, moved) = narrow(plan, wanted);
    debug_assert!(moved.iter().enumerate().all(|(from, to)| Some(from) == *to), "a result keeps its columns");
    plan
}

/// Where each column went; none where it is no longer there.
type Moved = Vec<Option<usize>>;

/// The plan with at least the columns `wanted`, each once, and where they went.
fn narrow(plan: Plan, wanted: Vec<usize>) -> (Plan, Moved) {
    match plan {
        Plan::Values { rows, types } => {
            let moved = (0..types.len()).map(Some).collect();
            (Plan::Values { rows, types }, moved)
        }
        Plan::Scan { table, access, columns, bounds, mut filter } => {
            // Wanted columns first, in the order wanted: a projection that only picks columns then has nothing to do.
            let mut kept = wanted;
            add_columns(&mut kept, filter.as_ref());
            let mut moved = vec![None; columns.len()];
            for (to, &from) in kept.iter().enumerate() {
                moved[from] = Some(to);
            }
            if let Some(filter) = &mut filter {
                shift(filter, &moved);
            }
            let columns = kept.iter().map(|&from| columns[from]).collect();
            (Plan::Scan { table, access, columns, bounds, filter }, moved)
        }
        Plan::Filter { input, mut predicate } => {
            let mut wanted = wanted;
            add_columns(&mut wanted, [&predicate]);
            let (input, moved) = narrow(*input, wanted);
            shift(&mut predicate, &moved);
            (Plan::Filter { input: Box::new(input), predicate }, moved)
        }
        Plan::Project { input, expressions } => project(*input, expressions, &wanted),
        Plan::Aggregate { input, mut group, mut aggregates } => {
            let mut inner = Vec::new();
            let arguments = aggregates.iter().filter_map(|aggregate| aggregate.argument.as_ref());
            add_columns(&mut inner, group.iter().chain(arguments));
            let (input, moved) = narrow(*input, inner);
            let arguments = aggregates.iter_mut().filter_map(|aggregate| aggregate.argument.as_mut());
            for expression in group.iter_mut().chain(arguments) {
                shift(expression, &moved);
            }
            let same = (0..group.len() + aggregates.len()).map(Some).collect();
            (Plan::Aggregate { input: Box::new(input), group, aggregates }, same)
        }
        Plan::Sort { input, mut keys, limit } => {
            let mut wanted = wanted;
            add_columns(&mut wanted, keys.iter().map(|key| &key.expression));
            let (input, moved) = narrow(*input, wanted);
            for key in &mut keys {
                shift(&mut key.expression, &moved);
            }
            (Plan::Sort { input: Box::new(input), keys, limit }, moved)
        }
        Plan::Limit { input, limit, offset } => {
            let (input, moved) = narrow(*input, wanted);
            (Plan::Limit { input: Box::new(input), limit, offset }, moved)
        }
        Plan::Distinct { input } => {
            // Every column decides whether two rows are equal.
            let all = (0..width(&input)).collect();
            let (input, moved) = narrow(*input, all);
            (Plan::Distinct { input: Box::new(input) }, moved)
        }
    }
}

/// Drops projected columns that nobody wants, and the projection where it hands on its input as it is.
fn project(input: Plan, expressions: Vec<Expression>, wanted: &[usize]) -> (Plan, Moved) {
    let mut moved = vec![None; expressions.len()];
    let mut kept = Vec::with_capacity(wanted.len());
    for (from, expression) in expressions.into_iter().enumerate().filter(|(from, _)| wanted.contains(from)) {
        moved[from] = Some(kept.len());
        kept.push(expression);
    }
    let mut inner = Vec::new();
    add_columns(&mut inner, &kept);
    let (input, below) = narrow(input, inner);
    for expression in &mut kept {
        shift(expression, &below);
    }
    let same = kept.len() == width(&input)
        && kept.iter().enumerate().all(|(i, kept)| matches!(kept, Expression::Column { index, .. } if *index == i));
    let plan = if same { input } else { Plan::Project { input: Box::new(input), expressions: kept } };
    (plan, moved)
}

/// Adds the columns that expressions name, in the order in which they do.
fn add_columns<'a>(to: &mut Vec<usize>, of: impl IntoIterator<Item = &'a Expression>) {
    for expression in of {
        expression.for_each_column(&mut |index| {
            if !to.contains(&index) {
                to.push(index);
            }
        });
    }
}

/// Renames columns to where they went.
fn shift(expression: &mut Expression, moved: &[Option<usize>]) {
    if let Expression::Column { index, .. } = expression {
        *index = moved[*index].expect("a column that is named was asked for");
        return;
    }
    for child in children(expression) {
        shift(child, moved);
    }
}
