//! `INSERT INTO t [(columns)] VALUES (literal, …), …` straight from bytes to columns.
//!
//! This is what gateways send all day, a thousand rows at a time, and the general way (tokens, a tree, a bound
//! expression a cell) takes microseconds a value. Here one scanner reads each literal as its column's type and pushes
//! it onto the column; nothing is allocated for a row.
//!
//! * A text of many megabytes is read some rows at a time, so its rows need not all be in memory beside it.
//! * Whatever is not understood, and whatever is wrong, is not decided here: the answer is none and the general way
//!   decides. So there is one source of errors, and one meaning: where this gives rows, the general way gives the same.
//! * Understood are: INT and FLOAT as numbers, TEXT as `'…'`, TIMESTAMP as `'…'`, BOOL as `TRUE` and `FALSE`,
//!   BLOB as `X'…'`, and NULL.

use crate::sql::batch::{Column, Values};
use crate::sql::bind::{BindContext, BoundInsert, check_column, evaluate_default};
use crate::sql::catalog::{ColumnDefinition, Table};
use crate::sql::scanner::Scanner;
use crate::sql::translate::lexeme;
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
        let mut scanner = Scanner::new(sql);
        scanner.keyword(b"insert")?;
        scanner.keyword(b"into")?;
        let table = context.catalog.table(scanner.name()?.as_str())?;
        let targets = targets(&mut scanner, table)?;
        scanner.keyword(b"values")?;
        let given = |index: usize| targets.contains(&index);
        let default = |(index, definition): (usize, &ColumnDefinition)| {
            if given(index) { Some(None) } else { evaluate_default(definition, context).ok().map(Some) }
        };
        let defaults = table.columns.iter().enumerate().map(default).collect::<Option<Vec<Option<Value>>>>()?;
        let first = Place::At(u32::try_from(scanner.position()).ok()?);
        Some(LiteralInsert { sql, table: Arc::clone(table), targets, defaults, first })
    }

    /// Bytes of the whole text.
    pub fn text_bytes(&self) -> usize {
        self.sql.len()
    }

    /// Where the first row begins.
    pub fn first(&self) -> Place {
        self.first
    }

    /// Reads rows from a place on, at most so many, until they take so many bytes of the text, and moves it behind them;
    /// none where they are not understood.
    pub fn rows(&self, at: &mut Place, rows_max: usize, text_bytes_max: usize) -> Option<BoundInsert> {
        let Place::At(from) = *at else { return None };
        let mut scanner = Scanner::at(self.sql, from as usize);
        let reserved = (self.sql.len() / ROW_BYTES_MIN).min(ROWS_RESERVED).min(rows_max);
        let mut sinks = self.sinks(reserved);
        let (mut rows, mut is_last) = (0, false);
        while rows < rows_max && !is_last && scanner.position() - (from as usize) < text_bytes_max {
            row(&mut scanner, &mut sinks)?;
            rows += 1;
            is_last = scanner.punctuation(b',').is_none();
        }
        *at = if is_last {
            scanner.end()?;
            Place::End
        } else {
            Place::At(scanner.position() as u32)
        };
        self.bound(sinks, rows)
    }

    /// A place from which on some row is not understood; none where all are. Few of them are in memory at once.
    pub fn unknown(&self) -> Option<Place> {
        let mut at = self.first;
        while at != Place::End {
            if self.rows(&mut at, ROWS_RESERVED, usize::MAX).is_none() {
                return Some(at);
            }
        }
        None
    }

    /// Reads the rows that begin at these bytes, in this order.
    pub fn rows_at(&self, places: impl ExactSizeIterator<Item = u32>) -> Option<BoundInsert> {
        let rows = places.len();
        let mut sinks = self.sinks(rows.min(ROWS_RESERVED));
        for at in places {
            row(&mut Scanner::at(self.sql, at as usize), &mut sinks)?;
        }
        self.bound(sinks, rows)
    }

    /// The statement with one row alone, the first from a place on that is not understood, and how many characters of the
    /// whole text stand between what comes before the rows and it. None where there is no such row.
    pub fn not_understood(&self, mut at: Place) -> Option<(String, usize)> {
        while self.rows(&mut at, 1, usize::MAX).is_some() {}
        let (Place::At(first), Place::At(from)) = (self.first, at) else { return None };
        let (first, from) = (first as usize, from as usize);
        let end = end_of_row(self.sql.as_bytes(), from)?;
        let left_out = self.sql[first..from].chars().count();
        Some((format!("{}{}", &self.sql[..first], &self.sql[from..end]), left_out))
    }

    fn sinks(&self, reserved: usize) -> Vec<Sink<'_>> {
        self.targets.iter().map(|&index| Sink::new(&self.table.columns[index], reserved)).collect()
    }

    fn bound(&self, sinks: Vec<Sink<'_>>, rows: usize) -> Option<BoundInsert> {
        let mut columns: Vec<Option<Arc<Column>>> = vec![None; self.table.columns.len()];
        for (&index, sink) in self.targets.iter().zip(sinks) {
            columns[index] = Some(Arc::new(sink.finish()));
        }
        let columns = columns.into_iter().enumerate().map(|(index, column)| match column {
            Some(column) => Some(column),
            None => default(&self.table.columns[index], &self.table, self.defaults[index].clone()?, rows),
        });
        let columns = columns.collect::<Option<Vec<Arc<Column>>>>()?;
        Some(BoundInsert { table: Arc::clone(&self.table), columns, rows })
    }
}

/// A column that the statement does not name.
fn default(definition: &ColumnDefinition, table: &Table, value: Value, rows: usize) -> Option<Arc<Column>> {
    let column = Column::constant(value, definition.data_type, rows);
    check_column(definition, table, &column).ok()?;
    Some(Arc::new(column))
}

/// One column on its way.
struct Sink<'a> {
    definition: &'a ColumnDefinition,
    values: Values,
    nulls: Option<Vec<bool>>,
}

impl<'a> Sink<'a> {
    fn new(definition: &'a ColumnDefinition, reserved: usize) -> Sink<'a> {
        Sink { definition, values: Values::with_capacity(definition.data_type, reserved), nulls: None }
    }

    /// Takes a literal, or NULL where the column may be.
    fn take(&mut self, scanner: &mut Scanner<'_>) -> Option<()> {
        if matches!(scanner.peek()?, b'n' | b'N') {
            scanner.keyword(b"null")?;
            return self.push_null();
        }
        scanner.literal(&mut self.values, self.definition.length_max)?;
        if let Some(nulls) = &mut self.nulls {
            nulls.push(false);
        }
        Some(())
    }

    fn push_null(&mut self) -> Option<()> {
        if self.definition.not_null {
            return None;
        }
        let rows = self.values.len();
        let nulls = self.nulls.get_or_insert_default();
        nulls.resize(rows, false);
        nulls.push(true);
        self.values.push_zero();
        Some(())
    }

    fn finish(self) -> Column {
        match self.nulls {
            Some(mut nulls) => {
                nulls.resize(self.values.len(), false);
                Column::with_nulls(self.values, nulls)
            }
            None => Column::new(self.values),
        }
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

/// Where the parentheses of a row are closed that begins at `at`, with space before it.
fn end_of_row(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    while at < bytes.len() {
        let (is_space, end) = lexeme(bytes, at);
        match bytes[at] {
            b'(' => depth += 1,
            b')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 && !is_space {
            return Some(end);
        }
        at = end;
    }
    None
}
