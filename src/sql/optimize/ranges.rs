//! Key ranges from conditions: composite prefixes, lists, intervals and ORs of them.
//!
//! ```text
//! key (a, b, c)    a IN (1, 2) AND b >= 5 AND d = 7
//! a: {1} {2}       -> prefixes 1, 2
//! b: [5 ..         -> 1.[5 ..   2.[5 ..        and here it ends: c would have to be looked for in each b
//! ```
//!
//! Law: a row that makes the condition true has its key within the ranges. Where each term of the condition is exact
//! on one of the columns used, also the reverse holds.

use super::pushdown::{conjuncts, disjuncts};
use super::spans::{Set, after, set_of};
use crate::sql::expression::{BinaryOperator, Expression};
use crate::storage::keys::{Key, KeyRange};

/// Ranges of one scan at most: beyond that a wider range is read. Equal to what an IN list may name.
const RANGES_MAX: usize = 10_000;

/// A column of a key: its position in the rows that the condition is over; none where those do not have it.
pub(super) type KeyColumn = Option<usize>;

/// Where the rows of a condition are.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Ascending and disjoint.
    pub(super) ranges: Vec<KeyRange>,
    /// Columns of the key, from the first, that the ranges are made of.
    pub(super) used: usize,
    /// How many of these have single values.
    pub(super) points: usize,
    /// Every span of the last column used has two ends.
    pub(super) bounded: bool,
    /// `terms[i]` of the condition holds for exactly the rows in the ranges' columns.
    pub(super) exact: Vec<bool>,
}

impl Found {
    /// True where the ranges say nothing.
    pub(super) fn is_all(&self) -> bool {
        self.ranges.len() == 1 && self.ranges[0] == KeyRange::all()
    }
}

/// The ranges of a key that hold every row for which all terms are true. `unique` says that the key's columns are all
/// of the key, so that values for each of them name one row.
pub(super) fn find(terms: &[Expression], key: &[KeyColumn], unique: bool) -> Found {
    let mut prefixes: Vec<Vec<u8>> = vec![Vec::new()];
    let mut found = Found { ranges: Vec::new(), used: 0, points: 0, bounded: true, exact: vec![false; terms.len()] };
    let mut last: Option<Set> = None;
    for column in key {
        let Some(column) = *column else { break };
        let Some(set) = set_of_terms(terms, column) else { break };
        if prefixes.len().saturating_mul(set.spans.len()) > RANGES_MAX {
            break;
        }
        found.used += 1;
        for (exact, term) in found.exact.iter_mut().zip(terms) {
            *exact |= set_of(term, column).is_some_and(|set| set.exact);
        }
        if !set.is_points() {
            last = Some(set);
            break;
        }
        found.points += 1;
        prefixes = product(&prefixes, &set, |prefix, span| [prefix, &span.from[..]].concat());
    }
    found.ranges = match &last {
        Some(set) => {
            found.bounded = set.spans.iter().all(super::spans::Span::is_bounded);
            product(&prefixes, set, |prefix, span| KeyRange {
                from: Key::new(&[prefix, &span.from[..]].concat()),
                to: match &span.to {
                    Some(to) => Some(Key::new(&[prefix, &to[..]].concat())),
                    None => after(prefix).map(|to| Key::new(&to)),
                },
            })
        }
        None if unique && found.points == key.len() => {
            prefixes.iter().map(|prefix| KeyRange::point(&Key::new(prefix))).collect()
        }
        None => prefixes.iter().map(|prefix| KeyRange::prefix(prefix)).collect(),
    };
    narrow_by_ors(&mut found, terms, key, unique);
    found
}

/// What all terms together say of a column; none where none says anything.
pub(super) fn set_of_terms(terms: &[Expression], column: usize) -> Option<Set> {
    let mut sets = terms.iter().filter_map(|term| set_of(term, column));
    let first = sets.next()?;
    Some(sets.fold(first, |so_far, set| so_far.intersect(&set)))
}

fn product<T>(prefixes: &[Vec<u8>], set: &Set, join: impl Fn(&[u8], &super::spans::Span) -> T) -> Vec<T> {
    prefixes.iter().flat_map(|prefix| set.spans.iter().map(|span| join(prefix, span)).collect::<Vec<T>>()).collect()
}

/// `(a = 1 AND b = 2) OR (a = 3 AND b > 4)`: each branch has ranges of its own, of which the rows are in one.
fn narrow_by_ors(found: &mut Found, terms: &[Expression], key: &[KeyColumn], unique: bool) {
    for term in terms {
        if !matches!(term, Expression::Binary { operator: BinaryOperator::Or, .. }) {
            continue;
        }
        let mut ranges = Vec::new();
        let mut used = 0;
        for branch in disjuncts(term) {
            let branch = find(&conjuncts(branch.clone()), key, unique);
            used = used.max(branch.used);
            if branch.is_all() || ranges.len() + branch.ranges.len() > RANGES_MAX {
                ranges.clear();
                used = 0;
                break;
            }
            ranges.extend(branch.ranges);
        }
        if used > 0 {
            found.ranges = intersect(&found.ranges, &union(ranges));
            found.used = found.used.max(used);
        }
    }
}

/// Brings ranges into order and joins those that overlap.
fn union(mut ranges: Vec<KeyRange>) -> Vec<KeyRange> {
    ranges.sort_by(|a, b| a.from.cmp(&b.from));
    let mut joined: Vec<KeyRange> = Vec::with_capacity(ranges.len());
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if last.to.as_ref().is_none_or(|to| range.from < *to) => {
                let further = match (&last.to, &range.to) {
                    (Some(to), Some(other)) => other > to,
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                if further {
                    last.to = range.to;
                }
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Keys that belong to both.
fn intersect(lefts: &[KeyRange], rights: &[KeyRange]) -> Vec<KeyRange> {
    let mut out = Vec::new();
    let (mut lefts, mut rights) = (lefts.iter().peekable(), rights.iter().peekable());
    while let (Some(left), Some(right)) = (lefts.peek(), rights.peek()) {
        let from = left.from.clone().max(right.from.clone());
        let (to, left_first) = match (&left.to, &right.to) {
            (Some(left), Some(right)) => (Some(left.min(right).clone()), left <= right),
            (Some(left), None) => (Some(left.clone()), true),
            (None, right) => (right.clone(), false),
        };
        let range = KeyRange { from, to };
        if !range.is_empty() {
            out.push(range);
        }
        if left_first {
            lefts.next()
        } else {
            rights.next()
        };
    }
    out
}
