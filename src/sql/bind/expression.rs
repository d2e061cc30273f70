//! Expressions: names become columns, literals get types, operators get casts.

use super::BindContext;
use super::coercion::{Typed, binary, common, no_operator, not_unique, symbol, unify};
use super::constant::{evaluate, is_constant, place};
use super::source::Source;
use crate::error::{Error, Result, SqlState};
use crate::sql::batch::ColumnBuilder;
use crate::sql::expression::{BinaryOperator, Expression, Function, UnaryOperator, ValueSet, can_cast};
use crate::sql::memory::Counted;
use crate::sql::plan::Aggregate;
use crate::sql::statement::{Expr, Literal, Literals, Node, Test};
use crate::sql::suggest;
use crate::sql::value::{DataType, Value};
use std::sync::Arc;

/// Columns from this index on stand for aggregates until grouping is resolved. A table has far fewer columns.
pub(super) const FIRST_AGGREGATE: usize = 1 << 30;

/// Constants of an IN list from which on they are put in order once, rather than hashed for each batch.
const SET_VALUES_MIN: usize = 64;

/// What an aggregate means where it stands.
pub(super) enum Aggregates {
    /// Nothing: it is refused, naming the clause.
    Refused(&'static str),
    /// A column of the groups, collected here.
    Collected(Vec<Aggregate>),
}

/// Binds the expressions of one clause or of several that share aggregates.
pub(super) struct Binder<'a> {
    pub(super) context: &'a BindContext<'a>,
    pub(super) source: Option<&'a Source>,
    pub(super) aggregates: Aggregates,
    /// Within the argument of an aggregate.
    pub(super) within_aggregate: bool,
    /// Where each column outside aggregates was first named, for the grouping error.
    pub(super) references: Vec<(usize, u32)>,
}

impl<'a> Binder<'a> {
    /// A binder for a clause without aggregates.
    pub(super) fn plain(context: &'a BindContext<'a>, source: Option<&'a Source>, clause: &'static str) -> Binder<'a> {
        let aggregates = Aggregates::Refused(clause);
        Binder { context, source, aggregates, within_aggregate: false, references: Vec::new() }
    }

    /// A condition: `clause` is its name in messages.
    pub(super) fn condition(&mut self, expr: &Expr, clause: &str) -> Result<Expression> {
        self.expression(expr)?.into_condition(clause)
    }

    pub(super) fn expression(&mut self, expr: &Expr) -> Result<Typed> {
        let position = expr.position;
        match &expr.node {
            Node::Literal(literal) => Ok(literal_value(literal, position)),
            Node::Interval(_) => {
                Err(place(Error::unsupported("INTERVAL values other than beside a timestamp are"), position))
            }
            Node::Column { table, name } => {
                let Some(source) = self.source else {
                    let message = format!("column \"{}\" does not exist", name.text);
                    return Err(place(Error::invalid(SqlState::UNDEFINED_COLUMN, message), position));
                };
                let index = source.find(table.as_ref(), name)?;
                if !self.within_aggregate && !self.references.iter().any(|&(known, _)| known == index) {
                    self.references.push((index, position));
                }
                Ok(Typed::new(source.column(index), position))
            }
            Node::Default => {
                let message = "DEFAULT is not allowed in this context";
                Err(place(Error::invalid(SqlState::SYNTAX_ERROR, message), position))
            }
            Node::Unary { operator, input } => self.unary(*operator, input, position),
            Node::Binary { operator, left, right } => self.binary(*operator, left, right, position),
            Node::And(operands) => self.logical(BinaryOperator::And, operands, position),
            Node::Or(operands) => self.logical(BinaryOperator::Or, operands, position),
            Node::Is { input, test, negated } => self.is(input, *test, *negated, position),
            Node::Between { input, low, high, negated } => self.between(input, low, high, *negated, position),
            Node::InList { input, list, negated } => self.in_list(input, list, *negated, position),
            Node::InSet { input, sets, list, negated } => self.in_set(input, (sets, list), *negated, position),
            Node::Like { input, pattern, escape, case_insensitive, negated } => {
                let (input, pattern) = (self.expression(input)?, self.expression(pattern)?);
                if !input.fits(DataType::Text) || !pattern.fits(DataType::Text) {
                    let symbol = if *case_insensitive { "ILIKE" } else { "LIKE" };
                    return Err(no_operator(symbol, &input, &pattern, position));
                }
                let expression = Expression::Like {
                    input: Box::new(input.into_type(DataType::Text)?),
                    pattern: Box::new(pattern.into_type(DataType::Text)?),
                    escape: *escape,
                    case_insensitive: *case_insensitive,
                    negated: *negated,
                };
                Ok(Typed::new(expression, position))
            }
            Node::Case { operand, branches, otherwise } => {
                self.case(operand.as_deref(), branches, otherwise.as_deref(), position)
            }
            Node::Cast { input, to } => {
                let input = self.expression(input)?;
                let cast = Self::cast(input, to.data_type, position)?;
                Ok(match to.length_max {
                    Some(length_max) => cut(cast, length_max),
                    None => cast,
                })
            }
            Node::Call(call) => self.call(call, position),
        }
    }

    fn cast(input: Typed, to: DataType, position: u32) -> Result<Typed> {
        if input.untyped {
            return Ok(Typed::new(input.into_type(to)?, position));
        }
        if !can_cast(input.data_type(), to) {
            let message = format!("cannot cast type {} to {to}", input.data_type());
            return Err(place(Error::invalid(SqlState::CANNOT_COERCE, message), position));
        }
        Ok(Typed::new(input.into_type(to)?, position))
    }

    fn unary(&mut self, operator: UnaryOperator, input: &Expr, position: u32) -> Result<Typed> {
        let input = self.expression(input)?;
        let input = match operator {
            UnaryOperator::Not => input.into_condition("NOT")?,
            UnaryOperator::Negate => {
                if input.untyped {
                    return Err(not_unique("- unknown", position));
                }
                if !matches!(input.data_type(), DataType::Int | DataType::Float) {
                    let message = format!("operator does not exist: - {}", input.type_name());
                    return Err(place(Error::invalid(SqlState::UNDEFINED_FUNCTION, message), position));
                }
                input.expression
            }
        };
        Ok(Typed::new(Expression::Unary { operator, input: Box::new(input) }, position))
    }

    fn binary(&mut self, operator: BinaryOperator, left: &Expr, right: &Expr, position: u32) -> Result<Typed> {
        match (operator, &left.node, &right.node) {
            (BinaryOperator::Add, Node::Interval(interval), _) => self.shifted(right, *interval, position),
            (BinaryOperator::Add, _, Node::Interval(interval)) => self.shifted(left, *interval, position),
            (BinaryOperator::Subtract, _, Node::Interval(interval)) => self.shifted(left, -*interval, position),
            _ => {
                let (left, right) = (self.expression(left)?, self.expression(right)?);
                let difference = operator == BinaryOperator::Subtract
                    && left.data_type() == DataType::Timestamp
                    && right.data_type() == DataType::Timestamp;
                if difference {
                    return Err(place(Error::unsupported("the difference of timestamps (an INTERVAL) is"), position));
                }
                binary(operator, left, right, position)
            }
        }
    }

    /// A timestamp moved by an interval: of a known instant, as in `now() - INTERVAL '1 hour'`.
    fn shifted(&mut self, instant: &Expr, by_us: i64, position: u32) -> Result<Typed> {
        let instant = self.expression(instant)?;
        if !instant.untyped && instant.data_type() != DataType::Timestamp {
            let message = format!("operator does not exist: {} + INTERVAL", instant.type_name());
            return Err(place(Error::invalid(SqlState::UNDEFINED_FUNCTION, message), position));
        }
        let expression = instant.into_type(DataType::Timestamp)?;
        if !is_constant(&expression) {
            return Err(place(Error::unsupported("a column plus or minus an INTERVAL is"), position)
                .hint("move the INTERVAL to the side of now()"));
        }
        let value = match evaluate(&expression, position)? {
            Value::Timestamp(instant) => Value::Timestamp(instant.checked_add(by_us).ok_or_else(|| {
                place(Error::invalid(SqlState::DATETIME_OVERFLOW, "timestamp out of range"), position)
            })?),
            null => null,
        };
        Ok(Typed::constant(value, DataType::Timestamp, position))
    }

    /// AND and OR of many: a balanced tree, as both are associative, so that its depth is the logarithm.
    fn logical(&mut self, operator: BinaryOperator, operands: &[Expr], position: u32) -> Result<Typed> {
        let operands = operands
            .iter()
            .map(|operand| self.condition(operand, symbol(operator)))
            .collect::<Result<Vec<Expression>>>()?;
        Ok(Typed::new(balanced(operator, operands), position))
    }

    fn is(&mut self, input: &Expr, test: Test, negated: bool, position: u32) -> Result<Typed> {
        let input = self.expression(input)?;
        let truth = |input: Typed, value: bool, clause: &str| -> Result<Expression> {
            let operator = if negated { BinaryOperator::Distinct } else { BinaryOperator::NotDistinct };
            let right = Expression::Constant { value: Value::Bool(value), data_type: DataType::Bool };
            Ok::<Expression, Error>(Expression::Binary {
                operator,
                left: Box::new(input.into_condition(clause)?),
                right: Box::new(right),
            })
        };
        let expression = match test {
            Test::Null => Expression::IsNull { input: Box::new(input.expression), negated },
            Test::Unknown => Expression::IsNull { input: Box::new(input.into_condition("IS UNKNOWN")?), negated },
            Test::True => truth(input, true, "IS TRUE")?,
            Test::False => truth(input, false, "IS FALSE")?,
        };
        Ok(Typed::new(expression, position))
    }

    /// `x >= low AND x <= high`, and the opposite of each where negated.
    fn between(&mut self, input: &Expr, low: &Expr, high: &Expr, negated: bool, position: u32) -> Result<Typed> {
        let input = self.expression(input)?;
        let (low, high) = (self.expression(low)?, self.expression(high)?);
        let (above, below, both) = if negated {
            (BinaryOperator::Less, BinaryOperator::Greater, BinaryOperator::Or)
        } else {
            (BinaryOperator::GreaterOrEqual, BinaryOperator::LessOrEqual, BinaryOperator::And)
        };
        let left = binary(above, input.clone(), low, position)?;
        let right = binary(below, input, high, position)?;
        binary(both, left, right, position)
    }

    fn in_list(&mut self, input: &Expr, list: &[Expr], negated: bool, position: u32) -> Result<Typed> {
        let input = self.expression(input)?;
        let list = list.iter().map(|item| self.expression(item)).collect::<Result<Vec<Typed>>>()?;
        let data_type = common(std::iter::once(&input).chain(&list))
            .map_err(|(item, _)| no_operator("=", &input, item, item.position))?;
        let input = Box::new(input.into_type(data_type)?);
        Ok(Typed::new(among(input, list, data_type, negated)?, position))
    }

    /// What is looked for in a long list: among its literals, each bound by itself, as together they would take a
    /// hundred times the room; or among what else it has.
    fn in_set(
        &mut self,
        input: &Expr,
        (sets, list): (&[(Arc<Literals>, u32)], &[Expr]),
        negated: bool,
        position: u32,
    ) -> Result<Typed> {
        let input = self.expression(input)?;
        let firsts = sets.iter().map(|(values, at)| self.expression(&values.expression(0, *at)));
        let firsts = firsts.collect::<Result<Vec<Typed>>>()?;
        let list = list.iter().map(|item| self.expression(item)).collect::<Result<Vec<Typed>>>()?;
        let data_type = common(std::iter::once(&input).chain(&firsts).chain(&list))
            .map_err(|(item, _)| no_operator("=", &input, item, item.position))?;
        let input = Box::new(input.into_type(data_type)?);
        let sets = sets.iter().map(|(values, at)| self.value_set(values, *at, data_type));
        let mut sets = sets.collect::<Result<Vec<Arc<ValueSet>>>>()?;
        let mut list = into_types(list, data_type)?;
        if let Some(set) = set_of(&list, data_type) {
            sets.push(set);
            list.clear();
        }
        Ok(Typed::new(Expression::InSet { input, sets, list, negated }, position))
    }

    /// Literals of one kind as values of a type. What is wrong with a number is said at the list's place.
    fn value_set(&mut self, values: &Literals, at: u32, data_type: DataType) -> Result<Arc<ValueSet>> {
        let mut counted = match values {
            Literals::Numbers(set) if data_type == set.data_type() => return Ok(Arc::clone(set)),
            Literals::Numbers(set) => set.counted().beside(),
            Literals::Quoted { strings, counted, .. } if data_type == DataType::Text => {
                let mut counted = counted.beside();
                counted.set(ValueSet::strings_bytes(strings))?;
                return Ok(Arc::new(ValueSet::of_texts(strings, counted)));
            }
            Literals::Quoted { counted, .. } => counted.beside(),
        };
        counted.set(set_bytes(values, data_type))?;
        let mut column = ColumnBuilder::new(data_type, values.len());
        for i in 0..values.len() {
            let item = self.expression(&values.expression(i, at))?.into_type(data_type)?;
            column.push(&evaluate(&item, at)?);
        }
        Ok(Arc::new(ValueSet::of(column.finish(), counted)))
    }

    fn case(
        &mut self,
        operand: Option<&Expr>,
        branches: &[(Expr, Expr)],
        otherwise: Option<&Expr>,
        position: u32,
    ) -> Result<Typed> {
        // Each WHEN is compared by itself, so a literal operand cannot wait for one of them to give it a type.
        let operand = operand.map(|operand| self.expression(operand)).transpose()?;
        let operand = operand.map(|operand| Typed { untyped: false, ..operand });
        let (mut conditions, mut results) = (Vec::new(), Vec::new());
        for (when, then) in branches {
            conditions.push(match &operand {
                None => self.condition(when, "CASE/WHEN")?,
                Some(operand) => {
                    let when = self.expression(when)?;
                    binary(BinaryOperator::Equal, operand.clone(), when, position)?.expression
                }
            });
            results.push(self.expression(then)?);
        }
        results.push(match otherwise {
            Some(otherwise) => self.expression(otherwise)?,
            None => Typed::untyped(Value::Null, position),
        });
        let (mut results, data_type) = unify("CASE", results)?;
        let otherwise = Box::new(results.pop().expect("the ELSE was pushed last"));
        let branches = conditions.into_iter().zip(results).collect();
        Ok(Typed::new(Expression::Case { branches, otherwise, data_type }, position))
    }
}

/// Whether a value of a type is one of a list; constants are put in order.
fn among(input: Box<Expression>, list: Vec<Typed>, data_type: DataType, negated: bool) -> Result<Expression> {
    let list = into_types(list, data_type)?;
    Ok(match set_of(&list, data_type) {
        Some(set) => Expression::InSet { input, sets: vec![set], list: Vec::new(), negated },
        None => Expression::InList { input, list, negated },
    })
}

fn into_types(list: Vec<Typed>, data_type: DataType) -> Result<Vec<Expression>> {
    list.into_iter().map(|item| item.into_type(data_type)).collect()
}

/// The values of a list that is long, of constants, and has no NULL.
fn set_of(list: &[Expression], data_type: DataType) -> Option<Arc<ValueSet>> {
    let value = |item: &Expression| match item {
        Expression::Constant { value, .. } if !value.is_null() => Some(value.clone()),
        _ => None,
    };
    if list.len() < SET_VALUES_MIN {
        return None;
    }
    let values = list.iter().map(value).collect::<Option<Vec<Value>>>()?;
    let mut column = ColumnBuilder::new(data_type, values.len());
    values.iter().for_each(|value| column.push(value));
    Some(Arc::new(ValueSet::of(column.finish(), Counted::default())))
}

/// A cast to `VARCHAR(n)` cuts what is longer, and says nothing of it: so the standard wants it.
fn cut(text: Typed, length_max: u32) -> Typed {
    let length = Expression::Constant { value: Value::Int(i64::from(length_max)), data_type: DataType::Int };
    let arguments = vec![text.expression, length];
    let expression = Expression::Call { function: Function::Left, arguments, data_type: DataType::Text };
    Typed::new(expression, text.position)
}

/// Bytes that the values of a list take at most while they become a set of another type.
fn set_bytes(values: &Literals, data_type: DataType) -> usize {
    match (values, data_type) {
        // They grow by doubling, and are copied in order. No value is longer than its text.
        (Literals::Quoted { strings, .. }, DataType::Text | DataType::Blob) => 3 * ValueSet::strings_bytes(strings),
        (Literals::Numbers(_) | Literals::Quoted { .. }, _) => values.len() * size_of::<i64>(),
    }
}

fn literal_value(literal: &Literal, position: u32) -> Typed {
    match literal {
        Literal::Null => Typed::untyped(Value::Null, position),
        Literal::Quoted(text) => Typed::untyped(Value::Text(text.clone()), position),
        Literal::Bool(value) => Typed::constant(Value::Bool(*value), DataType::Bool, position),
        Literal::Int(value) => Typed::constant(Value::Int(*value), DataType::Int, position),
        Literal::Float(value) => Typed::constant(Value::Float(*value), DataType::Float, position),
        Literal::Blob(bytes) => Typed::constant(Value::Blob(bytes.clone()), DataType::Blob, position),
    }
}

/// Joins operands, at least one, by an associative operator, in their order.
pub(crate) fn balanced(operator: BinaryOperator, mut operands: Vec<Expression>) -> Expression {
    while operands.len() > 1 {
        let mut joined = Vec::with_capacity(operands.len().div_ceil(2));
        let mut rest = operands.into_iter();
        while let Some(left) = rest.next() {
            joined.push(match rest.next() {
                Some(right) => Expression::Binary { operator, left: Box::new(left), right: Box::new(right) },
                None => left,
            });
        }
        operands = joined;
    }
    operands.pop().expect("the parser makes no empty chain")
}

/// The hint for a function that is not known.
pub(super) fn nearest_function(name: &str) -> Option<String> {
    suggest::hint(name, super::function::NAMES)
}
