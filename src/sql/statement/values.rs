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
    /// Integers, in order: what a column of them is looked up in as it is.
    Ints(Arc<ValueSet>),
    /// `'…'`, of no type until their neighbour gives them one.
    Quoted {
        /// As they were written, in their order.
        strings: Strings,
        /// What they take.
        counted: Counted,
    },
}

impl Literals {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Literals::Ints(set) => set.len(),
            Literals::Quoted { strings, .. } => strings.len(),
        }
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Literal `i` as an expression, at the place of the list.
    pub fn expression(&self, i: usize, position: u32) -> Expr {
        let literal = match self {
            Literals::Ints(set) => {
                let Value::Int(value) = set.value(i) else { unreachable!("a list of integers holds nothing else") };
                Literal::Int(value)
            }
            Literals::Quoted { strings, .. } => Literal::Quoted(String::from_utf8_lossy(strings.get(i)).into_owned()),
        };
        Expr { node: Node::Literal(literal), position }
    }
}
