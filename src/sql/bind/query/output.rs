//! The columns of a query's output: what they hold, what they are called, and how ORDER BY and GROUP BY find them.

use super::super::constant::place;
use super::super::expression::Binder;
use super::COLUMNS_MAX;
use crate::error::{Error, Result, SqlState};
use crate::sql::expression::Expression;
use crate::sql::statement::{Expr, Literal, Node, Select, SelectItem};

/// One column of the output on its way.
pub(super) struct Output<'a> {
    pub(super) name: String,
    /// The expression as written; none for a column that `*` stands for.
    pub(super) written: Option<&'a Expr>,
    pub(super) expression: Expression,
}

/// The select list, `*` written out.
pub(super) fn outputs<'a>(select: &'a Select, binder: &mut Binder<'_>) -> Result<Vec<Output<'a>>> {
    let mut outputs = Vec::new();
    for item in &select.items {
        match item {
            SelectItem::Expression { expression: written, alias } => {
                let expression = binder.expression(written)?.expression;
                let name = alias.as_ref().map_or_else(|| output_name(written), |alias| alias.text.clone());
                outputs.push(Output { name, written: Some(written), expression });
            }
            SelectItem::Wildcard { table, position } => {
                let Some(source) = binder.source else {
                    let message = match table {
                        Some(table) => format!("missing FROM-clause entry for table \"{}\"", table.text),
                        None => "SELECT * with no tables specified is not valid".to_owned(),
                    };
                    let state = if table.is_some() { SqlState::UNDEFINED_TABLE } else { SqlState::SYNTAX_ERROR };
                    return Err(place(Error::invalid(state, message), *position));
                };
                if let Some(table) = table {
                    source.check_qualifier(table)?;
                }
                for (index, column) in source.table.columns.iter().enumerate() {
                    if !binder.references.iter().any(|&(known, _)| known == index) {
                        binder.references.push((index, *position));
                    }
                    let expression = source.column(index);
                    outputs.push(Output { name: column.name.clone(), written: None, expression });
                }
            }
        }
    }
    if outputs.len() > COLUMNS_MAX {
        let message = format!("the select list has {} columns, the limit is {COLUMNS_MAX}", outputs.len());
        return Err(Error::limit(SqlState::LIMIT_EXCEEDED, message));
    }
    Ok(outputs)
}

/// What a column of the output is called where nobody named it, as PostgreSQL does.
fn output_name(written: &Expr) -> String {
    strong_name(written).unwrap_or_else(|| match &written.node {
        Node::Cast { to, .. } => to.data_type.to_string().to_lowercase(),
        Node::Case { .. } => "case".to_owned(),
        Node::Literal(_)
        | Node::Interval(_)
        | Node::Column { .. }
        | Node::Default
        | Node::Unary { .. }
        | Node::Binary { .. }
        | Node::And(_)
        | Node::Or(_)
        | Node::Is { .. }
        | Node::Between { .. }
        | Node::InList { .. }
        | Node::InSet { .. }
        | Node::Like { .. }
        | Node::Call(_) => "?column?".to_owned(),
    })
}

fn strong_name(written: &Expr) -> Option<String> {
    match &written.node {
        Node::Column { name, .. } => Some(name.text.clone()),
        Node::Call(call) => Some(call.name.text.clone()),
        Node::Cast { input, .. } => strong_name(input),
        Node::Case { otherwise: Some(otherwise), .. } => strong_name(otherwise),
        Node::Literal(_)
        | Node::Interval(_)
        | Node::Default
        | Node::Unary { .. }
        | Node::Binary { .. }
        | Node::And(_)
        | Node::Or(_)
        | Node::Is { .. }
        | Node::Between { .. }
        | Node::InList { .. }
        | Node::InSet { .. }
        | Node::Like { .. }
        | Node::Case { otherwise: None, .. } => None,
    }
}

/// The number in `ORDER BY 2`, as an index of the output.
pub(super) fn ordinal(literal: &Literal, clause: &str, outputs: usize, position: u32) -> Result<Option<usize>> {
    match literal {
        Literal::Int(number) => match usize::try_from(*number) {
            Ok(number) if (1..=outputs).contains(&number) => Ok(Some(number - 1)),
            _ => {
                let message = format!("{clause} position {number} is not in select list");
                Err(place(Error::invalid(SqlState::INVALID_COLUMN_REFERENCE, message), position))
            }
        },
        Literal::Null | Literal::Bool(_) | Literal::Float(_) | Literal::Quoted(_) | Literal::Blob(_) => {
            let message = format!("non-integer constant in {clause}");
            Err(place(Error::invalid(SqlState::SYNTAX_ERROR, message), position))
        }
    }
}

/// The outputs that an alias or an unnamed column is called by; two different ones make the name ambiguous.
pub(super) fn named_output(name: &str, clause: &str, outputs: &[Output<'_>], position: u32) -> Result<Option<usize>> {
    let mut found: Option<usize> = None;
    for (index, output) in outputs.iter().enumerate().filter(|(_, output)| output.name == name) {
        match found {
            Some(known) if outputs[known].expression != output.expression => {
                let message = format!("{clause} \"{name}\" is ambiguous");
                return Err(place(Error::invalid(SqlState::AMBIGUOUS_COLUMN, message), position));
            }
            Some(_) => {}
            None => found = Some(index),
        }
    }
    Ok(found)
}
