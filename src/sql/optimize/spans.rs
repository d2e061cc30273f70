//! Which values of one column a condition admits: spans of encoded key components.
//!
//! ```text
//! bytes   01 ......................... 02          FF ....
//!         [ every value that is not NULL )          [ NULL )
//!              [ 01 v .. , 01 v + 1 )   one value: the bytes that begin with its encoding
//! ```
//!
//! Encoded values compare as the values do and none is a prefix of another, so sets of values are sets of byte
//! strings, and need no other arithmetic than comparing bytes and counting the last one up.
//!
//! * Spans of a set are ascending and disjoint.
//! * A set admits every value for which the condition is true. It is *exact* where it admits no others.

use super::pushdown::disjuncts;
use crate::sql::expression::{BinaryOperator, Expression, UnaryOperator, ValueSet};
use crate::sql::value::{DataType, Value};
use crate::storage::keys;

/// Spans of one set at most. Longer IN lists become the one span around them: so many seeks are no better than a scan.
const SPANS_MAX: usize = 10_000;

/// Integers beyond this are not all FLOATs.
const EXACT_MAX: f64 = 9_007_199_254_740_991.0;

/// A run of values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    /// First encoding that belongs.
    pub(super) from: Vec<u8>,
    /// First encoding that no longer belongs; none is after everything.
    pub(super) to: Option<Vec<u8>>,
    /// Holds exactly one value.
    pub(super) point: bool,
    /// No value is below this, where that is a value.
    pub(super) low: Option<Value>,
    /// No value is above this.
    pub(super) high: Option<Value>,
}

/// What a condition says of one column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Set {
    pub(super) spans: Vec<Span>,
    /// True for exactly these values.
    pub(super) exact: bool,
}

const NOT_NULL_FROM: [u8; 1] = [0x01];
const NOT_NULL_TO: [u8; 1] = [0x02];
const NULL_FROM: [u8; 1] = [0xFF];

/// The first byte string above all that begin with `prefix`.
pub(super) fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = prefix.to_vec();
    while let Some(last) = bytes.pop() {
        if last < 0xFF {
            bytes.push(last + 1);
            return Some(bytes);
        }
    }
    None
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    keys::push(&mut bytes, value);
    bytes
}

impl Span {
    fn not_null() -> Span {
        Span { from: NOT_NULL_FROM.to_vec(), to: Some(NOT_NULL_TO.to_vec()), point: false, low: None, high: None }
    }

    fn null() -> Span {
        Span { from: NULL_FROM.to_vec(), to: None, point: true, low: None, high: None }
    }

    fn point(value: &Value) -> Span {
        let from = encoded(value);
        let to = after(&from);
        Span { from, to, point: true, low: Some(value.clone()), high: Some(value.clone()) }
    }

    fn low(value: &Value, included: bool) -> Span {
        let bytes = encoded(value);
        let from = if included { Some(bytes) } else { after(&bytes) };
        Span { from: from.unwrap_or(bytes_of_end()), low: Some(value.clone()), ..Span::not_null() }
    }

    fn high(value: &Value, included: bool) -> Span {
        let bytes = encoded(value);
        let to = if included { after(&bytes) } else { Some(bytes) };
        Span { to, high: Some(value.clone()), ..Span::not_null() }
    }

    /// Texts that begin with `prefix`: their encodings do, but for the end mark.
    fn prefix(prefix: &str) -> Span {
        let mut from = encoded(&Value::Text(prefix.to_owned()));
        from.truncate(from.len() - 2);
        let to = after(&from);
        Span { from, to, point: false, low: Some(Value::Text(prefix.to_owned())), high: None }
    }

    pub(super) fn is_null(&self) -> bool {
        self.from == NULL_FROM
    }

    /// True where both ends are set by the condition.
    pub(super) fn is_bounded(&self) -> bool {
        self.point || (self.from != NOT_NULL_FROM && self.to.as_deref() != Some(&NOT_NULL_TO[..]))
    }

    fn intersect(&self, other: &Span) -> Option<Span> {
        let (from, low) = if self.from >= other.from { (&self.from, &self.low) } else { (&other.from, &other.low) };
        let (to, high) = match (&self.to, &other.to) {
            (Some(a), Some(b)) if a <= b => (Some(a), &self.high),
            (Some(a), None) => (Some(a), &self.high),
            (_, b) => (b.as_ref(), &other.high),
        };
        if to.is_some_and(|to| to <= from) {
            return None;
        }
        let point = self.point || other.point;
        Some(Span { from: from.clone(), to: to.cloned(), point, low: low.clone(), high: high.clone() })
    }
}

/// Above every value that is not NULL.
fn bytes_of_end() -> Vec<u8> {
    NOT_NULL_TO.to_vec()
}

impl Set {
    fn exactly(spans: Vec<Span>) -> Set {
        Set { spans, exact: true }
    }

    fn none() -> Set {
        Set { spans: Vec::new(), exact: true }
    }

    /// True where every span is one value, so that the next column of a key can be looked at.
    pub(super) fn is_points(&self) -> bool {
        self.spans.iter().all(|span| span.point)
    }

    /// Values that both admit.
    pub(super) fn intersect(self, other: &Set) -> Set {
        let exact = self.exact && other.exact;
        let mut spans = Vec::new();
        let (mut a, mut b) = (0, 0);
        while let (Some(left), Some(right)) = (self.spans.get(a), other.spans.get(b)) {
            spans.extend(left.intersect(right));
            let left_ends_first = match (&left.to, &right.to) {
                (Some(left), Some(right)) => left <= right,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if left_ends_first { a += 1 } else { b += 1 }
        }
        Set { spans, exact }
    }

    /// Values that one of them admits.
    fn union(self, other: Set) -> Set {
        let exact = self.exact && other.exact;
        Set::of(self.spans.into_iter().chain(other.spans).collect(), exact)
    }

    /// Brings spans into order and joins those that overlap. Neighbours stay apart: single values are worth more.
    fn of(mut spans: Vec<Span>, exact: bool) -> Set {
        spans.sort_by(|a, b| a.from.cmp(&b.from));
        let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match joined.last_mut() {
                Some(last) if last.to.as_ref().is_none_or(|to| span.from < *to) => last.join(span),
                _ => joined.push(span),
            }
        }
        if joined.len() <= SPANS_MAX {
            return Set { spans: joined, exact };
        }
        let last = joined.pop();
        let first = joined.swap_remove(0);
        let around = match last {
            Some(last) => Span { to: last.to, point: false, high: last.high, ..first },
            None => first,
        };
        Set { spans: vec![around], exact: false }
    }
}

impl Span {
    /// Grows to hold a span that begins within this one.
    fn join(&mut self, other: Span) {
        let same = self.from == other.from && self.to == other.to;
        self.point &= same;
        let further = match (&self.to, &other.to) {
            (Some(to), Some(other)) => other > to,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if further {
            self.to = other.to;
            self.high = other.high;
        }
    }
}

/// The values of a column for which a condition can be true; none where it says nothing of the column.
pub(super) fn set_of(condition: &Expression, column: usize) -> Option<Set> {
    match condition {
        Expression::Constant { value: Value::Bool(true), .. } => None,
        Expression::Constant { .. } => Some(Set::none()),
        Expression::Column { index, .. } if *index == column => {
            Some(Set::exactly(vec![Span::point(&Value::Bool(true))]))
        }
        Expression::Unary { operator: UnaryOperator::Not, input } if is_column(input, column) => {
            Some(Set::exactly(vec![Span::point(&Value::Bool(false))]))
        }
        Expression::IsNull { input, negated } if is_column(input, column) => {
            Some(Set::exactly(vec![if *negated { Span::not_null() } else { Span::null() }]))
        }
        Expression::Binary { operator: BinaryOperator::And, left, right } => {
            match (set_of(left, column), set_of(right, column)) {
                (Some(left), Some(right)) => Some(left.intersect(&right)),
                (Some(one), None) | (None, Some(one)) => Some(Set { exact: false, ..one }),
                (None, None) => None,
            }
        }
        Expression::Binary { operator: BinaryOperator::Or, .. } => {
            let mut all = disjuncts(condition).into_iter().map(|term| set_of(term, column));
            let first = all.next()??;
            all.try_fold(first, |so_far, term| Some(so_far.union(term?)))
        }
        Expression::Binary { operator, left, right } => comparison(*operator, left, right, column),
        Expression::InList { input, list, negated: false } => listed(input, list, column),
        Expression::InSet { input, sets, list, negated: false } => {
            let mut all = listed(input, list, column)?;
            for set in sets {
                all = all.union(among(input, set, column)?);
            }
            Some(all)
        }
        Expression::Like { input, pattern, escape, case_insensitive: false, negated: false } => {
            let Expression::Constant { value: Value::Text(pattern), .. } = &**pattern else { return None };
            if !is_column(input, column) {
                return None;
            }
            like(pattern, *escape)
        }
        Expression::Column { .. }
        | Expression::Unary { .. }
        | Expression::IsNull { .. }
        | Expression::Like { .. }
        | Expression::InList { .. }
        | Expression::InSet { .. }
        | Expression::Case { .. }
        | Expression::Cast { .. }
        | Expression::Call { .. } => None,
    }
}

/// The values of a list of constants.
fn listed(input: &Expression, list: &[Expression], column: usize) -> Option<Set> {
    let mut spans = Vec::with_capacity(list.len());
    for item in list {
        let Expression::Constant { value, .. } = item else { return None };
        spans.extend(compared(BinaryOperator::Equal, input, value, column)?.spans);
    }
    Some(Set::of(spans, true))
}

/// The values of a set; where they are too many for a seek each, what lies between the least and the greatest.
fn among(input: &Expression, set: &ValueSet, column: usize) -> Option<Set> {
    if set.len() > SPANS_MAX {
        let from = compared(BinaryOperator::GreaterOrEqual, input, &set.value(0), column)?;
        let to = compared(BinaryOperator::LessOrEqual, input, &set.value(set.len() - 1), column)?;
        return Some(Set { exact: false, ..from.intersect(&to) });
    }
    let mut spans = Vec::with_capacity(set.len());
    for i in 0..set.len() {
        spans.extend(compared(BinaryOperator::Equal, input, &set.value(i), column)?.spans);
    }
    Some(Set::of(spans, true))
}

fn is_column(expression: &Expression, column: usize) -> bool {
    matches!(expression, Expression::Column { index, .. } if *index == column)
}

fn comparison(operator: BinaryOperator, left: &Expression, right: &Expression, column: usize) -> Option<Set> {
    match (left, right) {
        (_, Expression::Constant { value, .. }) => compared(operator, left, value, column),
        (Expression::Constant { value, .. }, _) => compared(turned(operator)?, right, value, column),
        _ => None,
    }
}

/// `5 < x` is `x > 5`.
fn turned(operator: BinaryOperator) -> Option<BinaryOperator> {
    match operator {
        BinaryOperator::Equal | BinaryOperator::NotEqual | BinaryOperator::NotDistinct | BinaryOperator::Distinct => {
            Some(operator)
        }
        BinaryOperator::Less => Some(BinaryOperator::Greater),
        BinaryOperator::LessOrEqual => Some(BinaryOperator::GreaterOrEqual),
        BinaryOperator::Greater => Some(BinaryOperator::Less),
        BinaryOperator::GreaterOrEqual => Some(BinaryOperator::LessOrEqual),
        BinaryOperator::Add
        | BinaryOperator::Subtract
        | BinaryOperator::Multiply
        | BinaryOperator::Divide
        | BinaryOperator::Modulo
        | BinaryOperator::And
        | BinaryOperator::Or
        | BinaryOperator::Concatenate => None,
    }
}

/// `x operator value`, where `x` is the column or, as an INT, its cast to FLOAT.
fn compared(operator: BinaryOperator, x: &Expression, value: &Value, column: usize) -> Option<Set> {
    match x {
        Expression::Column { index, .. } if *index == column => of_value(operator, value),
        Expression::Cast { input, to: DataType::Float }
            if is_column(input, column) && input.data_type() == DataType::Int =>
        {
            match value {
                Value::Float(value) => of_float(operator, *value),
                _ => of_value(operator, value),
            }
        }
        _ => None,
    }
}

fn of_value(operator: BinaryOperator, value: &Value) -> Option<Set> {
    let spans = match (operator, value) {
        (BinaryOperator::NotDistinct, Value::Null) => vec![Span::null()],
        (BinaryOperator::Distinct, Value::Null) => vec![Span::not_null()],
        // Any other comparison with NULL is NULL, which no row passes.
        (
            BinaryOperator::Equal
            | BinaryOperator::NotEqual
            | BinaryOperator::Less
            | BinaryOperator::LessOrEqual
            | BinaryOperator::Greater
            | BinaryOperator::GreaterOrEqual,
            Value::Null,
        ) => Vec::new(),
        (BinaryOperator::Equal | BinaryOperator::NotDistinct, value) => vec![Span::point(value)],
        (BinaryOperator::Less, value) => vec![Span::high(value, false)],
        (BinaryOperator::LessOrEqual, value) => vec![Span::high(value, true)],
        (BinaryOperator::Greater, value) => vec![Span::low(value, false)],
        (BinaryOperator::GreaterOrEqual, value) => vec![Span::low(value, true)],
        (
            BinaryOperator::NotEqual
            | BinaryOperator::Distinct
            | BinaryOperator::Add
            | BinaryOperator::Subtract
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
            | BinaryOperator::And
            | BinaryOperator::Or
            | BinaryOperator::Concatenate,
            _,
        ) => return None,
    };
    let spans = spans.into_iter().filter(|span| span.to.as_ref().is_none_or(|to| *to > span.from)).collect();
    Some(Set::exactly(spans))
}

/// An INT column against a FLOAT. Casting is monotone, and exact up to 2^53: there the bound is an integer too.
fn of_float(operator: BinaryOperator, value: f64) -> Option<Set> {
    let whole = |value: f64| Value::Int(value as i64);
    if value.is_nan() || value.is_infinite() {
        let above_all = value.is_nan() || value > 0.0;
        let holds = match operator {
            BinaryOperator::Equal | BinaryOperator::NotDistinct => false,
            BinaryOperator::Less | BinaryOperator::LessOrEqual => above_all,
            BinaryOperator::Greater | BinaryOperator::GreaterOrEqual => !above_all,
            _ => return None,
        };
        return if holds { Some(Set::exactly(vec![Span::not_null()])) } else { Some(Set::none()) };
    }
    if value.abs() > EXACT_MAX {
        return None;
    }
    match operator {
        BinaryOperator::Equal | BinaryOperator::NotDistinct if value.fract() == 0.0 => {
            of_value(BinaryOperator::Equal, &whole(value))
        }
        BinaryOperator::Equal | BinaryOperator::NotDistinct => Some(Set::none()),
        BinaryOperator::Less | BinaryOperator::GreaterOrEqual => of_value(operator, &whole(value.ceil())),
        BinaryOperator::LessOrEqual | BinaryOperator::Greater => of_value(operator, &whole(value.floor())),
        _ => None,
    }
}

/// `LIKE 'x%'`: what stands before the first wildcard is a prefix of every match.
fn like(pattern: &str, escape: Option<char>) -> Option<Set> {
    let mut prefix = String::new();
    let mut chars = pattern.chars();
    loop {
        match chars.next() {
            None => return Some(Set::exactly(vec![Span::point(&Value::Text(prefix))])),
            // A pattern that ends in its escape character is an error, which evaluation raises.
            Some(char) if Some(char) == escape => prefix.push(chars.next()?),
            Some('%') => {
                let exact = chars.all(|char| char == '%');
                return (!prefix.is_empty()).then(|| Set { spans: vec![Span::prefix(&prefix)], exact });
            }
            Some('_') => {
                return (!prefix.is_empty()).then(|| Set { spans: vec![Span::prefix(&prefix)], exact: false });
            }
            Some(char) => prefix.push(char),
        }
    }
}
