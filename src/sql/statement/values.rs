//! Many literals of one kind, in a list: as few bytes as they need.

use super::{Expr, Literal, Node};
use crate::sql::batch::Strings;
use crate::sql::expression::ValueSet;
use crate::sql::memory::Counted;
use crate::sql::value::Value;
use std::sync::Arc;

/// The literals of a long list.
#[derive(Debug, PartialEq)]
pub enum Literals {
    /// Integers, or numbers with a point, in order: what a column of them is looked up in as it is.
    Numbers(Arc<ValueSet>),
    /// `'…'`, of no type until their neighbour gives them one.
    Quoted {
        /// As they were written, in their order.
        strings: Strings,
        /// Where each of them stands.
        positions: Vec<u32>,
        /// What they take.
        counted: Counted,
    },
}

impl Literals {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Literals::Numbers(set) => set.len(),
            Literals::Quoted { strings, .. } => strings.len(),
        }
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Literal `i` as an expression, at its own place, or at that of the list where none is known.
    pub fn expression(&self, i: usize, list_position: u32) -> Expr {
        let (literal, position) = match self {
            Literals::Numbers(set) => match set.value(i) {
                Value::Int(value) => (Literal::Int(value), list_position),
                Value::Float(value) => (Literal::Float(value), list_position),
                Value::Null | Value::Bool(_) | Value::Text(_) | Value::Blob(_) | Value::Timestamp(_) => {
                    unreachable!("a list of numbers holds nothing else")
                }
            },
            Literals::Quoted { strings, positions, .. } => {
                (Literal::Quoted(String::from_utf8_lossy(strings.get(i)).into_owned()), positions[i])
            }
        };
        Expr { node: Node::Literal(literal), position }
    }
}
