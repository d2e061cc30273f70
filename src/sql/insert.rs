//! `INSERT INTO t [(columns)] VALUES (literal, …), …` straight from bytes to columns.
//!
//! This is what gateways send all day, a thousand rows at a time, and the general way (tokens, a tree, a bound
//! expression a cell) takes microseconds a value. Here one scanner reads each literal as its column's type and pushes
//! it onto the column; nothing is allocated for a row.
//!
//! * A text of many megabytes is read some rows at a time, so its rows need not all be in memory beside it. In such a
//!   text, a row that is more than literals is read by itself the general way: see [`MixedInsert`].
//! * Whatever is not understood, and whatever is wrong, is not decided here: the answer is none and the general way
//!   decides. So there is one source of errors, and one meaning: where this gives rows, the general way gives the same.
//! * Understood are: INT and FLOAT as numbers, TEXT as `'…'`, TIMESTAMP as `'…'`, BOOL as `TRUE` and `FALSE`,
//!   BLOB as `X'…'`, and NULL.

mod excerpt;
mod mixed;

pub use excerpt::Parsing;
pub use mixed::{MIXED_BYTES_MIN, MixedInsert};

use crate::Result;
use crate::sql::batch::{Column, ColumnBuilder};
use crate::sql::bind::{BindContext, BoundInsert, check_column, evaluate_default};
use crate::sql::catalog::{ColumnDefinition, Table};
use crate::sql::scanner::Scanner;
use crate::sql::value::Value;
use std::sync::Arc;

/// Bytes that a row takes at least, `(1),`: with the size of the text it bounds the room that is reserved.
const ROW_BYTES_MIN: usize = 4;

/// Rows that room is reserved for at the beginning; more grow by doubling.
const ROWS_RESERVED: usize = 1_024;

/// Binds an INSERT of literals; none where the statement is anything else, or wrong.
pub fn bind_literal_insert(sql: &str, context: &BindContext<'_>) -> Option<BoundInsert> {
    let insert = LiteralInsert::begin(sql, context)?;
    let mut at = insert.first;
    let bound = insert.rows(&mut at, usize::MAX, usize::MAX)?;
    (at == Place::End).then_some(bound)
}

/// An INSERT of literals of which the rows are still text: they are read some at a time, as often as they are needed.
pub struct LiteralInsert<'a> {
    sql: &'a str,
    /// Where to.
    pub table: Arc<Table>,
    /// The columns that values are given for, by their positions in the table.
    targets: Vec<usize>,
    /// What stands in the others.
    defaults: Vec<Option<Value>>,
    /// The first row.
    first: Place,
}

/// Where in the text a row begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this byte, with space before it.
    At(u32),
    /// Behind the last row; nothing follows the statement.
    End,
}

impl<'a> LiteralInsert<'a> {
    /// Reads what stands before the rows; none where that is not understood.
    pub fn begin(sql: &'a str, context: &BindContext<'_>) -> Option<LiteralInsert<'a>> {
        let mut scanner = Scanner::begin(sql)?;
        scanner.keyword(b"insert")?;
        scanner.keyword(b"into")?;
        let table = context.catalog.table(scanner.name()?.as_str())?;
        let targets = targets(&mut scanner, table)?;
        scanner.keyword(b"values")?;
        let defaults = defaults(table, &targets, context)?;
        let first = Place::At(u32::try_from(scanner.position()).ok()?);
        Some(LiteralInsert { sql, table: Arc::clone(table), targets, defaults, first })
    }

    /// Reads rows from a place on, at most so many, until they take so many bytes of the text, and moves it behind them;
    /// none where they are not understood.
    pub fn rows(&self, at: &mut Place, rows_max: usize, text_bytes_max: usize) -> Option<BoundInsert> {
        // What reads literals makes no errors.
        self.read(at, rows_max, text_bytes_max, None).ok().flatten()
    }

    /// Reads rows; those that are more than literals the way that is given, if one is.
    fn read(
        &self,
        at: &mut Place,
        rows_max: usize,
        text_bytes_max: usize,
        odd: Option<&MixedInsert<'_>>,
    ) -> Result<Option<BoundInsert>> {
        let Place::At(from) = *at else { return Ok(None) };
        let mut scanner = Scanner::at(self.sql, from as usize);
        let reserved = (self.sql.len() / ROW_BYTES_MIN).min(ROWS_RESERVED).min(rows_max);
        let mut sinks = self.sinks(reserved);
        let (mut rows, mut next) = (0, Behind::Row);
        while rows < rows_max && next == Behind::Row && scanner.position() - (from as usize) < text_bytes_max {
            let row_at = scanner.position();
            if row(&mut scanner, &mut sinks).is_none() {
                let Some(odd) = odd else { return Ok(None) };
                sinks.iter_mut().for_each(|sink| sink.column.truncate(rows));
                let Some(end) = odd.odd_row(row_at, &mut sinks)? else { return Ok(None) };
                scanner.go_to(end);
            }
            rows += 1;
            let end = scanner.position();
            next = if let Some(next) = behind(&mut scanner) {
                next
            } else {
                let Some(odd) = odd else { return Ok(None) };
                let Some((next, behind)) = odd.odd_end(end)? else { return Ok(None) };
                scanner.go_to(behind);
                next
            };
        }
        *at = match next {
            Behind::Row => Place::At(scanner.position() as u32),
            Behind::End => Place::End,
        };
        Ok(self.bound(sinks, rows))
    }

    /// True where all rows are literals. Few of them are in memory at once.
    pub fn is_plain(&self) -> bool {
        let mut at = self.first;
        while at != Place::End {
            if self.rows(&mut at, ROWS_RESERVED, usize::MAX).is_none() {
                return false;
            }
        }
        true
    }

    fn sinks(&self, reserved: usize) -> Vec<Sink<'_>> {
        self.targets.iter().map(|&index| Sink::new(&self.table.columns[index], reserved)).collect()
    }

    fn bound(&self, sinks: Vec<Sink<'_>>, rows: usize) -> Option<BoundInsert> {
        let mut columns: Vec<Option<Arc<Column>>> = vec![None; self.table.columns.len()];
        for (&index, sink) in self.targets.iter().zip(sinks) {
            columns[index] = Some(Arc::new(sink.column.finish()));
        }
        let columns = columns.into_iter().enumerate().map(|(index, column)| match column {
            Some(column) => Some(column),
            None => default(&self.table.columns[index], &self.table, self.defaults[index].clone()?, rows),
        });
        let columns = columns.collect::<Option<Vec<Arc<Column>>>>()?;
        Some(BoundInsert { table: Arc::clone(&self.table), columns, rows })
    }
}

/// What stands in the columns that no values are given for; none where one of them has no value.
fn defaults(table: &Table, targets: &[usize], context: &BindContext<'_>) -> Option<Vec<Option<Value>>> {
    let default = |(index, definition): (usize, &ColumnDefinition)| {
        if targets.contains(&index) { Some(None) } else { evaluate_default(definition, context).ok().map(Some) }
    };
    table.columns.iter().enumerate().map(default).collect()
}

/// A column that the statement does not name.
fn default(definition: &ColumnDefinition, table: &Table, value: Value, rows: usize) -> Option<Arc<Column>> {
    let column = Column::constant(value, definition.data_type, rows);
    check_column(definition, table, &column).ok()?;
    Some(Arc::new(column))
}

/// What stands behind a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// A comma, and then a row.
    Row,
    /// Nothing more.
    End,
}

/// One column on its way.
struct Sink<'a> {
    definition: &'a ColumnDefinition,
    column: ColumnBuilder,
}

impl<'a> Sink<'a> {
    fn new(definition: &'a ColumnDefinition, reserved: usize) -> Sink<'a> {
        Sink { definition, column: ColumnBuilder::new(definition.data_type, reserved) }
    }

    /// Takes a literal, or NULL where the column may be.
    fn take(&mut self, scanner: &mut Scanner<'_>) -> Option<()> {
        if matches!(scanner.peek()?, b'n' | b'N') {
            scanner.keyword(b"null")?;
            if self.definition.not_null {
                return None;
            }
            self.column.push_null();
            return Some(());
        }
        scanner.literal(self.column.values_mut(), self.definition.length_max)
    }
}

/// The columns that values are given for, by their positions in the table.
fn targets(scanner: &mut Scanner<'_>, table: &Table) -> Option<Vec<usize>> {
    scanner.skip_space();
    if scanner.peek()? != b'(' {
        return Some((0..table.columns.len()).collect());
    }
    scanner.punctuation(b'(')?;
    let mut targets: Vec<usize> = Vec::with_capacity(table.columns.len());
    loop {
        let name = scanner.name()?;
        let index = table.columns.iter().position(|column| column.name == name)?;
        if targets.contains(&index) {
            return None;
        }
        targets.push(index);
        if scanner.punctuation(b',').is_none() {
            scanner.punctuation(b')')?;
            return Some(targets);
        }
    }
}

/// Reads one row.
fn row(scanner: &mut Scanner<'_>, sinks: &mut [Sink<'_>]) -> Option<()> {
    let last = sinks.len().checked_sub(1)?;
    scanner.punctuation(b'(')?;
    for (i, sink) in sinks.iter_mut().enumerate() {
        scanner.skip_space();
        sink.take(scanner)?;
        scanner.punctuation(if i == last { b')' } else { b',' })?;
    }
    Some(())
}

/// Reads what stands behind a row.
fn behind(scanner: &mut Scanner<'_>) -> Option<Behind> {
    if scanner.punctuation(b',').is_some() {
        return Some(Behind::Row);
    }
    scanner.end()?;
    Some(Behind::End)
}
