//! Expressions: from the parser's to ours.
//!
//! Chains of AND and OR become one node; other nodes are counted in depth, so what follows may recurse.

use super::{Translator, guard, place};
use crate::error::{Error, Result, SqlState};
use crate::sql::expression::{BinaryOperator, UnaryOperator};
use crate::sql::statement::{Call, Expr, Literal, Name, Node, Test};
use sqlparser::ast::{self, Spanned};

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
    fn node(&self, mut expression: ast::Expr, mut depth: usize) -> Result<Expr> {
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
            ast::Expr::BinaryOp { left, op: ast::BinaryOperator::And, right } => {
                let operands = self.chain(&ast::BinaryOperator::And, *left, *right, depth)?;
                Ok(Expr { position: operands[0].position, node: Node::And(operands) })
            }
            ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Or, right } => {
                let operands = self.chain(&ast::BinaryOperator::Or, *left, *right, depth)?;
                Ok(Expr { position: operands[0].position, node: Node::Or(operands) })
            }
            ast::Expr::BinaryOp { left, op, right } => {
                let operator = self.binary_operator(&op, &left)?;
                self.binary(operator, left, right, depth)
            }
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
            ast::Expr::InList { expr, list, negated } => {
                let input = self.boxed(expr, depth)?;
                let list = self.nodes(list, depth)?;
                Ok(Expr { position: input.position, node: Node::InList { input, list, negated } })
            }
            ast::Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                self.like(*expr, *pattern, escape_char, (false, negated), depth)
            }
            ast::Expr::ILike { negated, any: false, expr, pattern, escape_char } => {
                self.like(*expr, *pattern, escape_char, (true, negated), depth)
            }
            ast::Expr::Case { case_token, end_token: _, operand, conditions, else_result } => {
                let branches = conditions
                    .into_iter()
                    .map(|branch| Ok((self.node(branch.condition, depth)?, self.node(branch.result, depth)?)))
                    .collect::<Result<Vec<(Expr, Expr)>>>()?;
                let operand = operand.map(|operand| self.boxed(operand, depth)).transpose()?;
                let otherwise = else_result.map(|otherwise| self.boxed(otherwise, depth)).transpose()?;
                let position = self.position(case_token.0.span);
                Ok(Expr { position, node: Node::Case { operand, branches, otherwise } })
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

    /// A value; `negative` where a minus stands before it.
    fn value(&self, value: ast::ValueWithSpan, negative: bool) -> Result<Expr> {
        let position = self.position(value.span);
        let width = value.span.end.column.saturating_sub(value.span.start.column);
        let literal = match value.value {
            ast::Value::Null => Literal::Null,
            ast::Value::Boolean(value) => Literal::Bool(value),
            ast::Value::Number(digits, false) => number(&digits, negative).map_err(|error| place(error, position))?,
            ast::Value::SingleQuotedString(text)
            | ast::Value::EscapedStringLiteral(text)
            | ast::Value::UnicodeStringLiteral(text) => Literal::Quoted(text),
            ast::Value::DollarQuotedString(text) => Literal::Quoted(text.value),
            // `0x1F` arrives as the same token as `X'1F'`, one character shorter.
            ast::Value::HexStringLiteral(digits) if width == digits.len() as u64 + 2 => {
                return Err(place(Error::unsupported("hexadecimal integers are"), position));
            }
            ast::Value::HexStringLiteral(digits) => Literal::Blob(bytes_of_hex(&digits).ok_or_else(|| {
                let message = format!("X'{digits}' is not pairs of hexadecimal digits");
                place(Error::invalid(SqlState::INVALID_TEXT, message), position)
            })?),
            ast::Value::Placeholder(name) => {
                return Err(place(Error::unsupported(format_args!("parameters ({name}) are")), position));
            }
            ast::Value::SingleQuotedByteStringLiteral(_) => {
                return Err(place(Error::unsupported("bit strings are"), position));
            }
            ast::Value::NationalStringLiteral(_) => {
                return Err(place(Error::unsupported("national strings (N'...') are"), position));
            }
            other => return Err(place(Error::unsupported(format_args!("literals like {other} are")), position)),
        };
        Ok(Expr { node: Node::Literal(literal), position })
    }

    fn typed_string(&self, typed: ast::TypedString) -> Result<Expr> {
        let position = self.position(typed.value.span);
        if typed.uses_odbc_syntax {
            return Err(place(Error::unsupported("ODBC literals are"), position));
        }
        let to = self.type_name(&typed.data_type, position)?;
        let input = Box::new(self.value(typed.value, false)?);
        Ok(Expr { node: Node::Cast { input, to }, position })
    }

    fn interval(&self, interval: ast::Interval) -> Result<Expr> {
        let position = self.position(interval.value.span());
        let refuse = || place(Error::unsupported("this form of INTERVAL is"), position);
        let ast::Interval {
            value,
            leading_field,
            leading_precision: None,
            last_field: None,
            fractional_seconds_precision: None,
        } = interval
        else {
            return Err(refuse());
        };
        let ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::SingleQuotedString(text), .. }) = *value else {
            return Err(refuse());
        };
        let text = leading_field.map_or(text.clone(), |field| format!("{text} {field}"));
        let duration = super::parse_duration(&text).map_err(|error| place(error, position))?;
        Ok(Expr { node: Node::Interval(duration.as_micros() as i64), position })
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
        let pattern = Box::new(self.node(pattern, depth)?);
        let escape = match escape {
            None => Some('\\'),
            Some(escape) => {
                let escape = self.node(*escape, depth)?;
                let invalid =
                    Error::invalid(SqlState::INVALID_ESCAPE, "the escape string must be empty or one character");
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

    fn rounding(&self, name: &str, input: ast::Expr, field: &ast::CeilFloorKind, depth: usize) -> Result<Expr> {
        let input = self.node(input, depth)?;
        let plain = ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime);
        if *field != plain {
            return Err(place(Error::unsupported(format_args!("{name} with a scale or a unit is")), input.position));
        }
        // The parser does not keep the place of these two names; the argument's is near enough.
        let name = Name { text: name.to_owned(), position: input.position };
        let position = input.position;
        Ok(Expr { position, node: Node::Call(Call { name, distinct: false, star: false, arguments: vec![input] }) })
    }

    fn function(&self, function: ast::Function, depth: usize) -> Result<Expr> {
        let ast::Function { name, uses_odbc_syntax, parameters, args, within_group, filter, null_treatment, over } =
            function;
        let name = self.object(name)?;
        let refuse = |what: &str| Err(place(Error::unsupported(what), name.position));
        if over.is_some() {
            return refuse("window functions are");
        }
        if filter.is_some() {
            return refuse("FILTER on aggregates is");
        }
        if !within_group.is_empty() {
            return refuse("WITHIN GROUP is");
        }
        if null_treatment.is_some() {
            return refuse("IGNORE NULLS and RESPECT NULLS are");
        }
        if uses_odbc_syntax || parameters != ast::FunctionArguments::None {
            return refuse("this form of function call is");
        }
        let (mut distinct, mut star, mut arguments) = (false, false, Vec::new());
        match args {
            ast::FunctionArguments::None => {}
            ast::FunctionArguments::Subquery(_) => return refuse("subqueries are"),
            ast::FunctionArguments::List(list) => {
                if !list.clauses.is_empty() {
                    return refuse("clauses within a function call (ORDER BY, LIMIT, SEPARATOR) are");
                }
                distinct = list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct);
                for argument in list.args {
                    match argument {
                        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(argument)) => {
                            arguments.push(self.node(argument, depth)?);
                        }
                        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard) => star = true,
                        ast::FunctionArg::Unnamed(_) => return refuse("t.* as an argument is"),
                        ast::FunctionArg::Named { .. } | ast::FunctionArg::ExprNamed { .. } => {
                            return refuse("named arguments are");
                        }
                    }
                }
            }
        }
        if star && (distinct || !arguments.is_empty()) {
            return Err(place(Error::invalid(SqlState::SYNTAX_ERROR, "* stands alone in count(*)"), name.position));
        }
        let position = name.position;
        Ok(Expr { position, node: Node::Call(Call { name, distinct, star, arguments }) })
    }

    fn refused_expression(&self, expression: &ast::Expr) -> Error {
        let what = match expression {
            ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => "subqueries are",
            ast::Expr::AnyOp { .. } | ast::Expr::AllOp { .. } => "ANY and ALL are",
            ast::Expr::Like { .. } | ast::Expr::ILike { .. } => "LIKE ANY is",
            ast::Expr::SimilarTo { .. } => "SIMILAR TO is",
            ast::Expr::RLike { .. } => "RLIKE is",
            ast::Expr::Extract { .. } => "EXTRACT is",
            ast::Expr::Position { .. } => "POSITION is",
            ast::Expr::Substring { .. } => "SUBSTRING is",
            ast::Expr::Trim { .. } => "TRIM is",
            ast::Expr::Overlay { .. } => "OVERLAY is",
            ast::Expr::Collate { .. } => "COLLATE is",
            ast::Expr::AtTimeZone { .. } => "AT TIME ZONE is",
            ast::Expr::Tuple(_) | ast::Expr::Struct { .. } => "rows as values are",
            ast::Expr::Array(_) => "arrays are",
            ast::Expr::CompoundFieldAccess { .. } | ast::Expr::JsonAccess { .. } => "access to parts of a value is",
            ast::Expr::GroupingSets(_) | ast::Expr::Cube(_) | ast::Expr::Rollup(_) => {
                "GROUPING SETS, CUBE and ROLLUP are"
            }
            ast::Expr::Cast { .. } | ast::Expr::Convert { .. } => "this form of cast is",
            ast::Expr::IsJson { .. } => "IS JSON is",
            ast::Expr::IsNormalized { .. } => "IS NORMALIZED is",
            _ => "this form of expression is",
        };
        self.refuse(what, expression.span())
    }

    /// A number of rows or the like where the parser gives an expression.
    pub(super) fn optional(&self, expression: Option<ast::Expr>) -> Result<Option<Expr>> {
        expression.map(|expression| self.expression(expression)).transpose()
    }
}

/// Reads a number: without a point and an exponent it is an INT.
fn number(digits: &str, negative: bool) -> Result<Literal> {
    let mut text = String::with_capacity(digits.len() + 1);
    if negative {
        text.push('-');
    }
    text.extend(digits.chars().filter(|&char| char != '_'));
    let out_of_range = |data_type: &str| {
        Error::invalid(SqlState::NUMERIC_OUT_OF_RANGE, format!("value \"{text}\" is out of range for type {data_type}"))
    };
    if digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') {
        return text.parse().map(Literal::Int).map_err(|_| out_of_range("INT"));
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Literal::Float(value)),
        _ => Err(out_of_range("FLOAT")),
    }
}

fn bytes_of_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.as_bytes().chunks(2).map(|pair| Some(digit(&pair[0])? << 4 | digit(&pair[1])?)).collect()
}
