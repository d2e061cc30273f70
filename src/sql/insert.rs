//! `INSERT INTO t [(columns)] VALUES (literal, …), …` straight from bytes to columns.
//!
//! This is what gateways send all day, a thousand rows at a time, and the general way (tokens, a tree, a bound
//! expression a cell) takes microseconds a value. Here one scanner reads each literal as its column's type and pushes
//! it onto the column; nothing is allocated for a row.
//!
//! * Whatever is not understood, and whatever is wrong, is not decided here: the answer is none and the general way
//!   decides. So there is one source of errors, and one meaning: where this gives rows, the general way gives the same.
//! * Understood are: INT and FLOAT as numbers, TEXT as `'…'`, TIMESTAMP as `'…'`, BOOL as `TRUE` and `FALSE`,
//!   BLOB as `X'…'`, and NULL.

use crate::sql::batch::{Column, Values};
use crate::sql::bind::{BindContext, BoundInsert, check_column, evaluate_default};
use crate::sql::catalog::{ColumnDefinition, Table};
use crate::sql::scanner::Scanner;
use std::sync::Arc;

/// Bytes that a row takes at least, `(1),`: with the size of the text it bounds the room that is reserved.
const ROW_BYTES_MIN: usize = 4;

/// Rows that room is reserved for at the beginning; more grow by doubling.
const ROWS_RESERVED: usize = 1_024;

/// Binds an INSERT of literals; none where the statement is anything else, or wrong.
pub fn bind_literal_insert(sql: &str, context: &BindContext<'_>) -> Option<BoundInsert> {
    let mut scanner = Scanner::new(sql);
    scanner.keyword(b"insert")?;
    scanner.keyword(b"into")?;
    let table = context.catalog.table(scanner.name()?.as_str())?;
    let targets = targets(&mut scanner, table)?;
    scanner.keyword(b"values")?;
    let reserved = (sql.len() / ROW_BYTES_MIN).min(ROWS_RESERVED);
    let mut sinks: Vec<Sink<'_>> = targets.iter().map(|&index| Sink::new(&table.columns[index], reserved)).collect();
    let rows = rows(&mut scanner, &mut sinks)?;
    scanner.end()?;
    let mut columns: Vec<Option<Arc<Column>>> = vec![None; table.columns.len()];
    for (index, sink) in targets.into_iter().zip(sinks) {
        columns[index] = Some(Arc::new(sink.finish()));
    }
    let columns = columns.into_iter().zip(&table.columns).map(|(column, definition)| match column {
        Some(column) => Some(column),
        None => default(definition, table, rows, context),
    });
    Some(BoundInsert { table: Arc::clone(table), columns: columns.collect::<Option<Vec<Arc<Column>>>>()?, rows })
}

/// A column that the statement does not name.
fn default(
    definition: &ColumnDefinition,
    table: &Table,
    rows: usize,
    context: &BindContext<'_>,
) -> Option<Arc<Column>> {
    let value = evaluate_default(definition, context).ok()?;
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

/// Reads all rows; how many there are.
fn rows(scanner: &mut Scanner<'_>, sinks: &mut [Sink<'_>]) -> Option<usize> {
    let last = sinks.len().checked_sub(1)?;
    let mut rows = 0;
    loop {
        scanner.punctuation(b'(')?;
        for (i, sink) in sinks.iter_mut().enumerate() {
            scanner.skip_space();
            sink.take(scanner)?;
            scanner.punctuation(if i == last { b')' } else { b',' })?;
        }
        rows += 1;
        if scanner.punctuation(b',').is_none() {
            return Some(rows);
        }
    }
}
