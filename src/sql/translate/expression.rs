//! Expressions: from the parser's to ours.
//!
//! Chains of AND and OR become one node; other nodes are counted in depth, so what follows may recurse.

use super::{Translator, guard, place};
use crate::error::{Error, Result, SqlState};
use crate::sql::expression::{BinaryOperator, UnaryOperator};
use crate::sql::statement::{Expr, Literal, Literals, Node, Test};
use sqlparser::ast::{self, Spanned};
use std::sync::Arc;

impl Translator {
    pub(super) fn expression(&self, expression: ast::Expr) -> Result<Expr> {
        self.node(expression, 0)
    }

    pub(super) fn expressions(&self, expressions: Vec<ast::Expr>) -> Result<Vec<Expr>> {
        expressions.into_iter().map(|expression| self.expression(expression)).collect()
    }

    fn boxed(&self, expression: Box<ast::Expr>, depth: usize) -> Result<Box<Expr>> {
        Ok(Box::new(self.node(*expression, depth)?))
    }

    fn nodes(&self, expressions: Vec<ast::Expr>, depth: usize) -> Result<Vec<Expr>> {
        expressions.into_iter().map(|expression| self.node(expression, depth)).collect()
    }

    /// One node. `depth` is that of its parent.
    pub(super) fn node(&self, mut expression: ast::Expr, mut depth: usize) -> Result<Expr> {
        depth += 1;
        if depth > self.depth_max {
            return Err(guard::too_deep(self.depth_max));
        }
        // Parentheses leave no trace: the tree has their meaning.
        while let ast::Expr::Nested(inner) = expression {
            expression = *inner;
        }
        match expression {
            ast::Expr::Identifier(ident) => self.identifier(ident),
            ast::Expr::CompoundIdentifier(parts) => self.qualified(parts),
            ast::Expr::Value(value) => self.value(value, false),
            ast::Expr::TypedString(typed) => self.typed_string(typed),
            ast::Expr::Interval(interval) => self.interval(interval),
            ast::Expr::UnaryOp { op, expr } => self.unary(op, expr, depth),
            ast::Expr::BinaryOp { left, op, right } => self.operation(&op, left, right, depth),
            ast::Expr::IsDistinctFrom(left, right) => self.binary(BinaryOperator::Distinct, *left, *right, depth),
            ast::Expr::IsNotDistinctFrom(left, right) => self.binary(BinaryOperator::NotDistinct, *left, *right, depth),
            ast::Expr::IsNull(input) => self.is(input, Test::Null, false, depth),
            ast::Expr::IsNotNull(input) => self.is(input, Test::Null, true, depth),
            ast::Expr::IsTrue(input) => self.is(input, Test::True, false, depth),
            ast::Expr::IsNotTrue(input) => self.is(input, Test::True, true, depth),
            ast::Expr::IsFalse(input) => self.is(input, Test::False, false, depth),
            ast::Expr::IsNotFalse(input) => self.is(input, Test::False, true, depth),
            ast::Expr::IsUnknown(input) => self.is(input, Test::Unknown, false, depth),
            ast::Expr::IsNotUnknown(input) => self.is(input, Test::Unknown, true, depth),
            ast::Expr::Between { expr, negated, low, high } => {
                let input = self.boxed(expr, depth)?;
                let (low, high) = (self.boxed(low, depth)?, self.boxed(high, depth)?);
                Ok(Expr { position: input.position, node: Node::Between { input, low, high, negated } })
            }
            ast::Expr::InList { expr, list, negated } => self.in_list(expr, list, negated, depth),
            ast::Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                self.like(*expr, *pattern, escape_char, (false, negated), depth)
            }
            ast::Expr::ILike { negated, any: false, expr, pattern, escape_char } => {
                self.like(*expr, *pattern, escape_char, (true, negated), depth)
            }
            ast::Expr::Case { case_token, end_token: _, operand, conditions, else_result } => {
                let node = self.case(operand, conditions, else_result, depth)?;
                Ok(Expr { position: self.position(case_token.0.span), node })
            }
            ast::Expr::Cast {
                kind: ast::CastKind::Cast | ast::CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
            } => {
                let input = self.boxed(expr, depth)?;
                let to = self.type_name(&data_type, input.position)?;
                Ok(Expr { position: input.position, node: Node::Cast { input, to } })
            }
            ast::Expr::Function(function) => self.function(function, depth),
            ast::Expr::Floor { expr, field } => self.rounding("floor", *expr, &field, depth),
            ast::Expr::Ceil { expr, field } => self.rounding("ceil", *expr, &field, depth),
            other => Err(self.refused_expression(&other)),
        }
    }

    /// A connective, which takes in all of its kind below it, or one operator with its two operands.
    fn operation(
        &self,
        operator: &ast::BinaryOperator,
        left: Box<ast::Expr>,
        right: Box<ast::Expr>,
        depth: usize,
    ) -> Result<Expr> {
        let connective = match operator {
            ast::BinaryOperator::And => Node::And,
            ast::BinaryOperator::Or => Node::Or,
            other => {
                let operator = self.binary_operator(other, &left)?;
                return self.binary(operator, left, right, depth);
            }
        };
        let operands = self.chain(operator, *left, *right, depth)?;
        Ok(Expr { position: operands[0].position, node: connective(operands) })
    }

    /// Membership in a list, of which some items may be whole lists of values.
    fn in_list(&self, input: Box<ast::Expr>, list: Vec<ast::Expr>, negated: bool, depth: usize) -> Result<Expr> {
        let input = self.boxed(input, depth)?;
        let position = input.position;
        let (sets, list) = self.lists_taken_out(list);
        let list = self.nodes(list, depth)?;
        let node = if sets.is_empty() {
            Node::InList { input, list, negated }
        } else {
            Node::InSet { input, sets, list, negated }
        };
        Ok(Expr { node, position })
    }

    fn case(
        &self,
        operand: Option<Box<ast::Expr>>,
        conditions: Vec<ast::CaseWhen>,
        otherwise: Option<Box<ast::Expr>>,
        depth: usize,
    ) -> Result<Node> {
        let branches = conditions
            .into_iter()
            .map(|branch| Ok((self.node(branch.condition, depth)?, self.node(branch.result, depth)?)))
            .collect::<Result<Vec<(Expr, Expr)>>>()?;
        let operand = operand.map(|operand| self.boxed(operand, depth)).transpose()?;
        let otherwise = otherwise.map(|otherwise| self.boxed(otherwise, depth)).transpose()?;
        Ok(Node::Case { operand, branches, otherwise })
    }

    /// The values whose names stand in a list, with their places, and what else stands there.
    fn lists_taken_out(&self, mut list: Vec<ast::Expr>) -> (Vec<(Arc<Literals>, u32)>, Vec<ast::Expr>) {
        let mut sets = Vec::new();
        if let Some(lists) = &self.lists {
            list.retain(|item| match item {
                ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Placeholder(name), span }) => {
                    let found = lists.find(name).map(|values| sets.push((values, self.position(*span))));
                    found.is_none()
                }
                _ => true,
            });
        }
        (sets, list)
    }

    fn identifier(&self, ident: ast::Ident) -> Result<Expr> {
        let is_default = ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default");
        let name = self.name(ident)?;
        let position = name.position;
        let node = if is_default { Node::Default } else { Node::Column { table: None, name } };
        Ok(Expr { node, position })
    }

    fn qualified(&self, mut parts: Vec<ast::Ident>) -> Result<Expr> {
        match (parts.pop(), parts.pop(), parts.pop()) {
            (Some(name), Some(table), None) => {
                let (table, name) = (self.name(table)?, self.name(name)?);
                Ok(Expr { position: table.position, node: Node::Column { table: Some(table), name } })
            }
            (Some(name), _, _) => Err(self.refuse("schema-qualified names are", name.span)),
            (None, _, _) => Err(Error::invalid(SqlState::SYNTAX_ERROR, "a name is missing")),
        }
    }

    fn unary(&self, operator: ast::UnaryOperator, input: Box<ast::Expr>, depth: usize) -> Result<Expr> {
        let operator = match operator {
            // A minus belongs to its number, so that the least integer can be written.
            ast::UnaryOperator::Minus => match *input {
                ast::Expr::Value(value) if matches!(value.value, ast::Value::Number(..)) => {
                    return self.value(value, true);
                }
                input => return self.negation(input, depth),
            },
            ast::UnaryOperator::Plus => return self.node(*input, depth),
            ast::UnaryOperator::Not => UnaryOperator::Not,
            other => return Err(self.refuse(format_args!("operator {other} is"), input.span())),
        };
        let input = self.boxed(input, depth)?;
        Ok(Expr { position: input.position, node: Node::Unary { operator, input } })
    }

    fn negation(&self, input: ast::Expr, depth: usize) -> Result<Expr> {
        let input = Box::new(self.node(input, depth)?);
        Ok(Expr { position: input.position, node: Node::Unary { operator: UnaryOperator::Negate, input } })
    }

    /// The operands of a chain of one operator, whose tree leans to the left.
    fn chain(
        &self,
        operator: &ast::BinaryOperator,
        mut left: ast::Expr,
        right: ast::Expr,
        depth: usize,
    ) -> Result<Vec<Expr>> {
        let mut operands = vec![right];
        loop {
            match left {
                ast::Expr::BinaryOp { left: further, op, right } if op == *operator => {
                    operands.push(*right);
                    left = *further;
                }
                last => {
                    operands.push(last);
                    break;
                }
            }
        }
        operands.reverse();
        self.nodes(operands, depth)
    }

    fn binary(
        &self,
        operator: BinaryOperator,
        left: impl Into<Box<ast::Expr>>,
        right: impl Into<Box<ast::Expr>>,
        depth: usize,
    ) -> Result<Expr> {
        let (left, right) = (self.boxed(left.into(), depth)?, self.boxed(right.into(), depth)?);
        Ok(Expr { position: left.position, node: Node::Binary { operator, left, right } })
    }

    fn binary_operator(&self, operator: &ast::BinaryOperator, left: &ast::Expr) -> Result<BinaryOperator> {
        Ok(match operator {
            ast::BinaryOperator::Plus => BinaryOperator::Add,
            ast::BinaryOperator::Minus => BinaryOperator::Subtract,
            ast::BinaryOperator::Multiply => BinaryOperator::Multiply,
            ast::BinaryOperator::Divide => BinaryOperator::Divide,
            ast::BinaryOperator::Modulo => BinaryOperator::Modulo,
            ast::BinaryOperator::StringConcat => BinaryOperator::Concatenate,
            ast::BinaryOperator::Eq => BinaryOperator::Equal,
            ast::BinaryOperator::NotEq => BinaryOperator::NotEqual,
            ast::BinaryOperator::Lt => BinaryOperator::Less,
            ast::BinaryOperator::LtEq => BinaryOperator::LessOrEqual,
            ast::BinaryOperator::Gt => BinaryOperator::Greater,
            ast::BinaryOperator::GtEq => BinaryOperator::GreaterOrEqual,
            other => return Err(self.refuse(format_args!("operator {other} is"), left.span())),
        })
    }

    fn is(&self, input: Box<ast::Expr>, test: Test, negated: bool, depth: usize) -> Result<Expr> {
        let input = self.boxed(input, depth)?;
        Ok(Expr { position: input.position, node: Node::Is { input, test, negated } })
    }

    fn like(
        &self,
        input: ast::Expr,
        pattern: ast::Expr,
        escape: Option<Box<ast::Expr>>,
        (case_insensitive, negated): (bool, bool),
        depth: usize,
    ) -> Result<Expr> {
        let input = Box::new(self.node(input, depth)?);
        let mut pattern = Box::new(self.node(pattern, depth)?);
        let escape = match escape {
            None => Some('\\'),
            Some(escape) => {
                let escape = self.node(*escape, depth)?;
                let invalid =
                    Error::invalid(SqlState::INVALID_ESCAPE, "the escape string must be empty or one character");
                if escape.node == Node::Literal(Literal::Null) {
                    // Of an unknown escape the answer is unknown, as of an unknown pattern.
                    pattern.node = Node::Literal(Literal::Null);
                    return Ok(Expr {
                        position: input.position,
                        node: Node::Like { input, pattern, escape: None, case_insensitive, negated },
                    });
                }
                let Node::Literal(Literal::Quoted(text)) = &escape.node else {
                    return Err(place(invalid, escape.position));
                };
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (first, None) => first,
                    (_, Some(_)) => return Err(place(invalid, escape.position)),
                }
            }
        };
        let position = input.position;
        Ok(Expr { position, node: Node::Like { input, pattern, escape, case_insensitive, negated } })
    }

    /// A number of rows or the like where the parser gives an expression.
    pub(super) fn optional(&self, expression: Option<ast::Expr>) -> Result<Option<Expr>> {
        expression.map(|expression| self.expression(expression)).transpose()
    }
}
