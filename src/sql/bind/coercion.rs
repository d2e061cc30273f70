//! How types meet: PostgreSQL's rules, for six types.
//!
//! * A quoted literal or NULL takes the type of what it meets; of nothing, it is TEXT.
//! * INT becomes FLOAT where it meets one. Nothing else changes its type without being asked, but into a column:
//!   there FLOAT is rounded to INT, and anything becomes TEXT ([`assign`]).

use super::constant::place;
use crate::error::{Error, Result, SqlState};
use crate::sql::expression::{BinaryOperator, Expression};
use crate::sql::value::{DataType, Value};

/// A bound expression on its way.
#[derive(Clone, Debug)]
pub(super) struct Typed {
    pub(super) expression: Expression,
    /// A quoted literal or NULL that no neighbour has given a type yet; counts as TEXT where none does.
    pub(super) untyped: bool,
    pub(super) position: u32,
}

impl Typed {
    pub(super) fn new(expression: Expression, position: u32) -> Typed {
        Typed { expression, untyped: false, position }
    }

    pub(super) fn constant(value: Value, data_type: DataType, position: u32) -> Typed {
        Typed::new(Expression::Constant { value, data_type }, position)
    }

    pub(super) fn untyped(value: Value, position: u32) -> Typed {
        Typed { untyped: true, ..Typed::constant(value, DataType::Text, position) }
    }

    pub(super) fn data_type(&self) -> DataType {
        self.expression.data_type()
    }

    /// The type for messages.
    pub(super) fn type_name(&self) -> String {
        if self.untyped { "unknown".to_owned() } else { self.data_type().to_string() }
    }

    /// As a type that the rules above allow; the caller has made sure of that.
    pub(super) fn into_type(self, to: DataType) -> Result<Expression> {
        let from = self.data_type();
        match self.expression {
            Expression::Constant { value, .. } if self.untyped || from == DataType::Int && to == DataType::Float => {
                let value =
                    crate::sql::expression::cast_value(&value, to).map_err(|error| place(error, self.position))?;
                Ok(Expression::Constant { value, data_type: to })
            }
            expression if from == to => Ok(expression),
            expression => Ok(Expression::Cast { input: Box::new(expression), to }),
        }
    }

    /// True where the rules allow this as a `to` without being asked.
    pub(super) fn fits(&self, to: DataType) -> bool {
        self.untyped || self.data_type() == to || (self.data_type() == DataType::Int && to == DataType::Float)
    }

    /// As a condition: `what` is the clause.
    pub(super) fn into_condition(self, what: &str) -> Result<Expression> {
        if !self.fits(DataType::Bool) {
            let message = format!("argument of {what} must be type BOOL, not type {}", self.data_type());
            return Err(place(Error::invalid(SqlState::DATATYPE_MISMATCH, message), self.position));
        }
        self.into_type(DataType::Bool)
    }
}

/// The type in which values of two types meet.
fn common_of(a: DataType, b: DataType) -> Option<DataType> {
    match (a, b) {
        _ if a == b => Some(a),
        (DataType::Int, DataType::Float) | (DataType::Float, DataType::Int) => Some(DataType::Float),
        _ => None,
    }
}

/// The type in which all meet: TEXT where none has one. Or the two that do not meet.
pub(super) fn common<'a>(all: impl IntoIterator<Item = &'a Typed>) -> Result<DataType, (&'a Typed, DataType)> {
    let mut found = None;
    for typed in all.into_iter().filter(|typed| !typed.untyped) {
        found = Some(match found {
            None => typed.data_type(),
            Some(so_far) => common_of(so_far, typed.data_type()).ok_or((typed, so_far))?,
        });
    }
    Ok(found.unwrap_or(DataType::Text))
}

/// All in their common type; `what` names the construct: `CASE`, `COALESCE`.
pub(super) fn unify(what: &str, all: Vec<Typed>) -> Result<(Vec<Expression>, DataType)> {
    let data_type = common(&all).map_err(|(typed, so_far)| {
        let message = format!("{what} types {so_far} and {} cannot be matched", typed.data_type());
        place(Error::invalid(SqlState::DATATYPE_MISMATCH, message), typed.position)
    })?;
    let all = all.into_iter().map(|typed| typed.into_type(data_type)).collect::<Result<Vec<Expression>>>()?;
    Ok((all, data_type))
}

/// An operator between two sides, which are brought to one type.
pub(super) fn binary(operator: BinaryOperator, left: Typed, right: Typed, position: u32) -> Result<Typed> {
    let data_type = match common([&left, &right]) {
        _ if operator == BinaryOperator::Concatenate => concatenated(&left, &right),
        Ok(data_type) if !(left.untyped && right.untyped && is_arithmetic(operator)) => Some(data_type),
        Ok(_) | Err(_) => None,
    };
    let Some(data_type) = data_type else {
        if left.untyped && right.untyped {
            return Err(not_unique(&format!("unknown {} unknown", symbol(operator)), position));
        }
        return Err(no_operator(symbol(operator), &left, &right, position));
    };
    let allowed = match operator {
        BinaryOperator::Add
        | BinaryOperator::Subtract
        | BinaryOperator::Multiply
        | BinaryOperator::Divide
        | BinaryOperator::Modulo => matches!(data_type, DataType::Int | DataType::Float),
        BinaryOperator::Concatenate
        | BinaryOperator::Equal
        | BinaryOperator::NotEqual
        | BinaryOperator::Less
        | BinaryOperator::LessOrEqual
        | BinaryOperator::Greater
        | BinaryOperator::GreaterOrEqual
        | BinaryOperator::NotDistinct
        | BinaryOperator::Distinct => true,
        BinaryOperator::And | BinaryOperator::Or => data_type == DataType::Bool,
    };
    if !allowed {
        return Err(no_operator(symbol(operator), &left, &right, position));
    }
    let (left, right) = (Box::new(left.into_type(data_type)?), Box::new(right.into_type(data_type)?));
    Ok(Typed::new(Expression::Binary { operator, left, right }, position))
}

fn is_arithmetic(operator: BinaryOperator) -> bool {
    matches!(
        operator,
        BinaryOperator::Add
            | BinaryOperator::Subtract
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
    )
}

/// `'a' || 1`: one TEXT side is enough, the other is then written as text. Bytes join bytes alone.
fn concatenated(left: &Typed, right: &Typed) -> Option<DataType> {
    let blob = |side: &Typed| side.data_type() == DataType::Blob;
    let text = |side: &Typed| side.data_type() == DataType::Text;
    match () {
        () if blob(left) && (blob(right) || right.untyped) || blob(right) && left.untyped => Some(DataType::Blob),
        () if text(left) || text(right) => Some(DataType::Text),
        () => None,
    }
}

/// The error of an operator that is not there for two types.
pub(super) fn no_operator(symbol: &str, left: &Typed, right: &Typed, position: u32) -> Error {
    let message = format!("operator does not exist: {} {symbol} {}", left.type_name(), right.type_name());
    place(Error::invalid(SqlState::UNDEFINED_FUNCTION, message), position)
        .hint("you might need to add explicit type casts")
}

/// The error of an operator between values of no type yet: several types would do.
pub(super) fn not_unique(what: &str, position: u32) -> Error {
    place(Error::invalid(SqlState::AMBIGUOUS_FUNCTION, format!("operator is not unique: {what}")), position)
        .hint("you might need to add explicit type casts")
}

/// How an operator is written.
pub(crate) fn symbol(operator: BinaryOperator) -> &'static str {
    match operator {
        BinaryOperator::Add => "+",
        BinaryOperator::Subtract => "-",
        BinaryOperator::Multiply => "*",
        BinaryOperator::Divide => "/",
        BinaryOperator::Modulo => "%",
        BinaryOperator::Equal => "=",
        BinaryOperator::NotEqual => "<>",
        BinaryOperator::Less => "<",
        BinaryOperator::LessOrEqual => "<=",
        BinaryOperator::Greater => ">",
        BinaryOperator::GreaterOrEqual => ">=",
        BinaryOperator::NotDistinct => "IS NOT DISTINCT FROM",
        BinaryOperator::Distinct => "IS DISTINCT FROM",
        BinaryOperator::And => "AND",
        BinaryOperator::Or => "OR",
        BinaryOperator::Concatenate => "||",
    }
}

/// As the value of a column: PostgreSQL's assignment casts. `what` is `expression` or `default expression`.
pub(super) fn assign(typed: Typed, column: &str, to: DataType, what: &str) -> Result<Expression> {
    let from = typed.data_type();
    let allowed = typed.fits(to) || to == DataType::Text || (from == DataType::Float && to == DataType::Int);
    if !allowed {
        let message = format!("column \"{column}\" is of type {to} but {what} is of type {from}");
        return Err(place(Error::invalid(SqlState::DATATYPE_MISMATCH, message), typed.position)
            .hint("rewrite or cast the expression"));
    }
    typed.into_type(to)
}
