//! A long INSERT in which some rows are more than literals: `DEFAULT`, `now()`, `1 + 1`, `TIMESTAMP '…'`, comments.
//!
//! Parsing all of such a text takes some hundred times its bytes, so one `now()` among 100,000 rows made it too long. Here
//! the rows of literals are read as always, and each of the others by itself the general way: it becomes an
//! [excerpt](super::excerpt), which costs as much as a short statement.
//!
//! * Values, coercions and errors are those of the general way, because it is the general way that gives them.
//! * Of several mistakes the first one of the text is reported.
//! * Where the text shows no mistake and is not understood all the same, the answer is none, and all of it is left to the
//!   general way, which reads what it has memory for.

use super::excerpt::{Excerpts, Parsing, Piece, Rest, behind_values, skip_space};
use super::{Behind, LiteralInsert, Place, ROWS_RESERVED, Sink, defaults, row};
use crate::Result;
use crate::sql::bind::{BindContext, BoundInsert, targets};
use crate::sql::catalog::Table;
use crate::sql::scanner::Scanner;
use crate::sql::statement::{Insert, InsertSource};
use std::sync::Arc;

/// Bytes of text from which on rows are read one by one where not all of them are literals. What is shorter is parsed
/// as a whole: it takes no memory that is counted.
pub const MIXED_BYTES_MIN: usize = 64 << 10;

/// An INSERT of which the rows are still text.
pub struct MixedInsert<'a> {
    literals: LiteralInsert<'a>,
    /// Where its first row begins and ends.
    first: (usize, usize),
    excerpts: Excerpts<'a>,
}

impl<'a> MixedInsert<'a> {
    /// Reads what stands before the rows, and the first of them; none where that is not understood.
    ///
    /// # Errors
    /// What is wrong with it, as of a short statement.
    pub fn begin(sql: &'a str, context: &BindContext<'a>, parsing: Parsing) -> Result<Option<MixedInsert<'a>>> {
        let excerpts = Excerpts { sql, context: *context, parsing };
        let Some(from) = behind_values(sql) else { return Ok(None) };
        let (piece, end) = excerpts.row(from, from);
        let plain = LiteralInsert::begin(sql, context).filter(LiteralInsert::has_plain_first_row);
        let literals = match plain {
            Some(literals) => Some(literals),
            None => match excerpts.bind(piece) {
                Ok(Some((insert, bound))) => headed(&excerpts, &insert, &bound, from),
                Ok(None) => None,
                // What is wrong with it may be how the second row differs from it.
                Err(error) => return excerpts.bind(excerpts.with_next_row(piece)).and(Err(error)),
            },
        };
        let Some(literals) = literals else { return Ok(None) };
        let Some(end) = end else { return Ok(None) };
        Ok(Some(MixedInsert { literals, first: (from, end), excerpts }))
    }

    /// Where to.
    pub fn table(&self) -> &Arc<Table> {
        &self.literals.table
    }

    /// Bytes of the whole text.
    pub fn text_bytes(&self) -> usize {
        self.excerpts.sql.len()
    }

    /// Where the first row begins.
    pub fn first(&self) -> Place {
        self.literals.first
    }

    /// Reads rows from a place on, at most so many, until they take so many bytes of the text, and moves it behind them;
    /// none where they are not understood.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn rows(&self, at: &mut Place, rows_max: usize, text_bytes_max: usize) -> Result<Option<BoundInsert>> {
        self.literals.read(at, rows_max, text_bytes_max, Some(self))
    }

    /// Reads the rows that begin at these bytes, in this order.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn rows_at(&self, places: impl ExactSizeIterator<Item = u32>) -> Result<Option<BoundInsert>> {
        let rows = places.len();
        let mut sinks = self.literals.sinks(rows.min(ROWS_RESERVED));
        for (read, at) in places.enumerate() {
            if row(&mut Scanner::at(self.excerpts.sql, at as usize), &mut sinks).is_none() {
                sinks.iter_mut().for_each(|sink| sink.column.truncate(read));
                let Some(_) = self.odd_row(at as usize, &mut sinks)? else { return Ok(None) };
            }
        }
        Ok(self.literals.bound(sinks, rows))
    }

    /// Reads a row that is more than literals, and gives where it ends; none where it is not understood.
    pub(super) fn odd_row(&self, from: usize, sinks: &mut [Sink<'_>]) -> Result<Option<usize>> {
        let Some((bound, end)) = self.general_row(from)? else { return Ok(None) };
        for (&target, sink) in self.literals.targets.iter().zip(sinks) {
            sink.column.extend(&bound.columns[target], 0, 1);
        }
        Ok(Some(end))
    }

    /// What stands behind a row beside a comma or a semicolon, and where that ends; none where it is not understood.
    pub(super) fn odd_end(&self, from: usize) -> Result<Option<(Behind, usize)>> {
        let bytes = self.excerpts.sql.as_bytes();
        let mut at = skip_space(bytes, from);
        if bytes.get(at) == Some(&b',') {
            return Ok(Some((Behind::Row, at + 1)));
        }
        while bytes.get(at) == Some(&b';') {
            at = skip_space(bytes, at + 1);
        }
        if at == bytes.len() {
            return Ok(Some((Behind::End, at)));
        }
        // The first row stands for all of them.
        self.excerpts.bind(self.excerpts.piece(self.first.1, from, Rest::More)).map(|_| None)
    }

    /// Reads a row the general way: its values, and where it ends.
    fn general_row(&self, from: usize) -> Result<Option<(BoundInsert, usize)>> {
        let (piece, end) = self.excerpts.row(self.first.0, from);
        if let Some(end) = end
            && let Ok(Some((insert, bound))) = self.excerpts.bind(piece)
            && width(&insert) == Some(self.literals.targets.len())
        {
            return Ok(Some((bound, end)));
        }
        if end.is_none() && piece.from != from {
            return self.excerpts.bind(piece).map(|_| None);
        }
        // What is wrong with it may be how it differs from the first row, so that one stands before it.
        let with_first = Piece { kept: self.first.1, from: from - 1, ..piece };
        let behind_comma = from > self.first.1;
        self.excerpts.bind(if behind_comma { with_first } else { piece }).map(|_| None)
    }
}

impl LiteralInsert<'_> {
    fn has_plain_first_row(&self) -> bool {
        self.rows(&mut self.first.clone(), 1, usize::MAX).is_some()
    }
}

/// The INSERT whose head and first row were read the general way.
fn headed<'a>(excerpts: &Excerpts<'a>, insert: &Insert, bound: &BoundInsert, from: usize) -> Option<LiteralInsert<'a>> {
    let mut targets = targets(insert.columns.as_deref(), &bound.table).ok()?;
    // Without a list of columns there may be fewer values than columns: the others have their defaults.
    targets.truncate(width(insert)?);
    let defaults = defaults(&bound.table, &targets, &excerpts.context)?;
    let first = Place::At(u32::try_from(from).ok()?);
    Some(LiteralInsert { sql: excerpts.sql, table: Arc::clone(&bound.table), targets, defaults, first })
}

/// How many values the one row of a statement has; none where it has no row, or more of them.
fn width(insert: &Insert) -> Option<usize> {
    match &insert.source {
        InsertSource::Values(rows) if rows.len() == 1 => rows.first().map(Vec::len),
        InsertSource::Values(_) | InsertSource::Defaults => None,
    }
}
