//! Expressions as a user wrote them: names without meaning yet, literals without type.

use super::{Literals, Name, TypeName};
use crate::sql::expression::{BinaryOperator, UnaryOperator};
use std::sync::Arc;

/// An expression with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub node: Node,
    /// Where it stands.
    pub position: u32,
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A value.
    Literal(Literal),
    /// `INTERVAL '…'` of fixed length, in microseconds.
    Interval(i64),
    /// `c` or `t.c`
    Column {
        /// The `t`.
        table: Option<Name>,
        /// The `c`.
        name: Name,
    },
    /// The keyword `DEFAULT`, where a value is inserted or set.
    Default,
    /// `-x`, `NOT x`
    Unary {
        /// What to do.
        operator: UnaryOperator,
        /// To what.
        input: Box<Expr>,
    },
    /// Arithmetic, comparison, `||`, `IS DISTINCT FROM`; never AND or OR.
    Binary {
        /// What to do.
        operator: BinaryOperator,
        /// Left side.
        left: Box<Expr>,
        /// Right side.
        right: Box<Expr>,
    },
    /// `a AND b AND c`
    And(Vec<Expr>),
    /// `a OR b OR c`
    Or(Vec<Expr>),
    /// `x IS [NOT] NULL / TRUE / FALSE / UNKNOWN`
    Is {
        /// What is looked at.
        input: Box<Expr>,
        /// What it is held against.
        test: Test,
        /// `NOT`
        negated: bool,
    },
    /// `x BETWEEN low AND high`
    Between {
        /// What is looked at.
        input: Box<Expr>,
        /// Not below this.
        low: Box<Expr>,
        /// Not above this.
        high: Box<Expr>,
        /// `NOT`
        negated: bool,
    },
    /// `x IN (…)`
    InList {
        /// What is looked for.
        input: Box<Expr>,
        /// Among what.
        list: Vec<Expr>,
        /// `NOT`
        negated: bool,
    },
    /// `x IN (1, 2, …)` of many literals
    InSet {
        /// What is looked for.
        input: Box<Expr>,
        /// Among which literals, and where each of the kinds begins.
        sets: Vec<(Arc<Literals>, u32)>,
        /// And among what else.
        list: Vec<Expr>,
        /// `NOT`
        negated: bool,
    },
    /// `x LIKE pattern`
    Like {
        /// What is matched.
        input: Box<Expr>,
        /// Against what.
        pattern: Box<Expr>,
        /// The escape character; none where it was set to the empty string.
        escape: Option<char>,
        /// `ILIKE`
        case_insensitive: bool,
        /// `NOT`
        negated: bool,
    },
    /// `CASE [operand] WHEN … THEN … ELSE … END`
    Case {
        /// What the WHENs are compared with.
        operand: Option<Box<Expr>>,
        /// WHEN and THEN.
        branches: Vec<(Expr, Expr)>,
        /// ELSE
        otherwise: Option<Box<Expr>>,
    },
    /// `CAST(x AS type)`, `x::type`
    Cast {
        /// What is cast.
        input: Box<Expr>,
        /// To what.
        to: TypeName,
    },
    /// `f(x, y)`
    Call(Call),
}

/// The call of a function or an aggregate.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Its name.
    pub name: Name,
    /// `DISTINCT`
    pub distinct: bool,
    /// `(*)`
    pub star: bool,
    /// Arguments.
    pub arguments: Vec<Expr>,
}

/// What `IS` tests for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// `IS NULL`
    Null,
    /// `IS TRUE`
    True,
    /// `IS FALSE`
    False,
    /// `IS UNKNOWN`: NULL of a BOOL
    Unknown,
}

/// A value as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `NULL`, of any type
    Null,
    /// `TRUE`, `FALSE`
    Bool(bool),
    /// `5`
    Int(i64),
    /// `5.0`, `5e3`
    Float(f64),
    /// `'…'`: of no type until its neighbour gives it one
    Quoted(String),
    /// `X'00'`
    Blob(Vec<u8>),
}
