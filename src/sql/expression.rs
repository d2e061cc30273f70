//! Bound expressions: every name is a column position, every node has a type.
//!
//! * The binder inserts casts, so both sides of a comparison or of arithmetic have one type.
//! * NULL follows three-valued logic: AND, OR and NOT as tables of truth, everything else NULL in, NULL out,
//!   where a node does not say otherwise.
//!
//! Evaluation is by columns: a node's kernel is a loop over typed slices, so that the price of walking
//! the tree is paid once a batch. What may raise an error is evaluated only for rows that reach it. What it holds is
//! bounded (budget.rs).

mod arithmetic;
mod budget;
pub mod cast;
mod compare;
mod conditional;
mod evaluate;
mod functions;
pub mod like;
mod logic;
mod operand;
mod rows;
mod set;

pub use budget::{Budget, Portions, VALUE_BYTES_MAX, evaluate_all};
pub use cast::{can_cast, cast_value};
pub use rows::Selection;
pub use set::ValueSet;

use crate::sql::value::{DataType, Value};
use std::sync::Arc;

/// An expression over the columns of one input batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// A value; a NULL has a type too.
    Constant {
        /// The value.
        value: Value,
        /// Its type.
        data_type: DataType,
    },
    /// A column of the input.
    Column {
        /// Position in the input batch.
        index: usize,
        /// Its type.
        data_type: DataType,
        /// Its name, for EXPLAIN and messages.
        name: String,
    },
    /// `-x`, `NOT x`
    Unary {
        /// What to do.
        operator: UnaryOperator,
        /// To what.
        input: Box<Expression>,
    },
    /// `a + b`, `a = b`, `a AND b`, `a || b`, …
    Binary {
        /// What to do.
        operator: BinaryOperator,
        /// Left side, of the same type as the right one.
        left: Box<Expression>,
        /// Right side.
        right: Box<Expression>,
    },
    /// `x IS NULL`; never NULL itself.
    IsNull {
        /// What is looked at.
        input: Box<Expression>,
        /// `IS NOT NULL`
        negated: bool,
    },
    /// `x LIKE pattern`; both sides TEXT.
    Like {
        /// What is matched.
        input: Box<Expression>,
        /// `%` any run, `_` any character.
        pattern: Box<Expression>,
        /// The escape character, `\` by default; none where it was set to the empty string.
        escape: Option<char>,
        /// `ILIKE`
        case_insensitive: bool,
        /// `NOT LIKE`
        negated: bool,
    },
    /// `x IN (a, b, …)`; NULL where nothing equals and something is NULL.
    InList {
        /// What is looked for.
        input: Box<Expression>,
        /// Among what, all of the input's type.
        list: Vec<Expression>,
        /// `NOT IN`
        negated: bool,
    },
    /// `x IN (1, 2, …)` of many constants, none of them NULL, and of what else stands in the list. What is looked for is
    /// there once: a copy for each part would be twice as many in each list that looks for the answer of another one.
    InSet {
        /// What is looked for.
        input: Box<Expression>,
        /// Among which constants, all of the input's type; at least one set.
        sets: Vec<Arc<ValueSet>>,
        /// And among what else, of the same type.
        list: Vec<Expression>,
        /// `NOT IN`
        negated: bool,
    },
    /// `CASE WHEN … THEN … ELSE … END`; a branch is evaluated only for the rows that reach it.
    Case {
        /// Condition and result, in order.
        branches: Vec<(Expression, Expression)>,
        /// The ELSE, NULL where there was none.
        otherwise: Box<Expression>,
        /// Type of every result.
        data_type: DataType,
    },
    /// `CAST(x AS type)`, `x::type`, and what the binder inserts.
    Cast {
        /// What is cast.
        input: Box<Expression>,
        /// To which type.
        to: DataType,
    },
    /// A function of its arguments.
    Call {
        /// Which one.
        function: Function,
        /// Arguments, cast to what the function takes.
        arguments: Vec<Expression>,
        /// Type of the result.
        data_type: DataType,
    },
}

/// Operators of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOperator {
    /// `-x`
    Negate,
    /// `NOT x`
    Not,
}

/// Operators of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOperator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`; integers truncate
    Divide,
    /// `%`
    Modulo,
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `IS NOT DISTINCT FROM`: equality that takes NULL for a value; never NULL itself
    NotDistinct,
    /// `IS DISTINCT FROM`
    Distinct,
    /// `AND`
    And,
    /// `OR`
    Or,
    /// `||`
    Concatenate,
}

/// Scalar functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// First argument that is not NULL.
    Coalesce,
    /// NULL where both are equal, else the first.
    NullIf,
    /// Absolute value.
    Abs,
    /// Characters of a TEXT, bytes of a BLOB.
    Length,
    /// The first characters of a TEXT, as many as the second argument says: what a cast to `VARCHAR(n)` leaves.
    Left,
    /// Lower case.
    Lower,
    /// Upper case.
    Upper,
    /// Rounded to the nearest (half to even for FLOAT, as PostgreSQL's float8).
    Round,
    /// Largest whole number not above.
    Floor,
    /// Smallest whole number not below.
    Ceil,
    /// Square root.
    Sqrt,
}

impl Expression {
    /// The name of the column that it is, where it is no more than that.
    pub fn column_name(&self) -> Option<&str> {
        match self {
            Expression::Column { name, .. } => Some(name),
            Expression::Constant { .. }
            | Expression::Unary { .. }
            | Expression::Binary { .. }
            | Expression::IsNull { .. }
            | Expression::Like { .. }
            | Expression::InList { .. }
            | Expression::InSet { .. }
            | Expression::Case { .. }
            | Expression::Cast { .. }
            | Expression::Call { .. } => None,
        }
    }

    /// The type of the result.
    pub fn data_type(&self) -> DataType {
        match self {
            Expression::Constant { data_type, .. }
            | Expression::Column { data_type, .. }
            | Expression::Case { data_type, .. }
            | Expression::Call { data_type, .. } => *data_type,
            Expression::Cast { to, .. } => *to,
            Expression::Unary { operator: UnaryOperator::Negate, input } => input.data_type(),
            Expression::Unary { operator: UnaryOperator::Not, .. }
            | Expression::IsNull { .. }
            | Expression::Like { .. }
            | Expression::InList { .. }
            | Expression::InSet { .. } => DataType::Bool,
            Expression::Binary { operator, left, .. } => match operator {
                BinaryOperator::Add
                | BinaryOperator::Subtract
                | BinaryOperator::Multiply
                | BinaryOperator::Divide
                | BinaryOperator::Modulo
                | BinaryOperator::Concatenate => left.data_type(),
                BinaryOperator::Equal
                | BinaryOperator::NotEqual
                | BinaryOperator::Less
                | BinaryOperator::LessOrEqual
                | BinaryOperator::Greater
                | BinaryOperator::GreaterOrEqual
                | BinaryOperator::NotDistinct
                | BinaryOperator::Distinct
                | BinaryOperator::And
                | BinaryOperator::Or => DataType::Bool,
            },
        }
    }
}
