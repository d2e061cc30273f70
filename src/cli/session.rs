//! Where statements go: one trait, so the REPL, import and export serve a remote node and an embedded engine alike.
//!
//! ```text
//! repl, script, import, export ──statement──> Session ──> gRPC | embedded engine
//!                              <──head, rows── Sink
//! ```
//!
//! * Rows are handed over as they arrive; nobody gathers a result that was not asked to.
//! * [`Sink::head`] comes once, before the first row, and only for a statement that answers with columns.

use chronos::error::{Error, Result};
use chronos::sql::value::{DataType, Value};
use std::io;

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, where the server says.
    pub data_type: Option<DataType>,
}

/// Who takes a result.
pub trait Sink {
    /// The columns that follow.
    fn head(&mut self, columns: &[Column]) -> io::Result<()>;
    /// One row, as wide as the head.
    fn row(&mut self, row: &[Value]) -> io::Result<()>;
}

/// Runs statements one at a time.
pub trait Session {
    /// Runs one statement; answers how many rows it wrote.
    fn run(&mut self, statement: &str, sink: &mut dyn Sink) -> Result<u64>;
}

/// A result in memory, for the few answers that are known to be small.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
}

/// Rows a [`Table`] holds. It is for names of tables and columns; a million of them is a mistake.
const TABLE_ROWS_MAX: usize = 1_000_000;

impl Sink for Table {
    fn head(&mut self, columns: &[Column]) -> io::Result<()> {
        self.columns = columns.to_vec();
        Ok(())
    }

    fn row(&mut self, row: &[Value]) -> io::Result<()> {
        if self.rows.len() >= TABLE_ROWS_MAX {
            return Err(io::Error::other(format!("more than {TABLE_ROWS_MAX} rows to hold in memory")));
        }
        self.rows.push(row.to_vec());
        Ok(())
    }
}

/// Runs a statement whose answer is small.
pub fn fetch(session: &mut dyn Session, statement: &str) -> Result<Table> {
    let mut table = Table::default();
    session.run(statement, &mut table)?;
    Ok(table)
}

/// The names in the first column: what `SHOW TABLES` answers.
pub fn names(table: &Table) -> Vec<String> {
    table
        .rows
        .iter()
        .filter_map(|row| match row.first() {
            Some(Value::Text(name)) => Some(name.clone()),
            Some(
                Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Blob(_) | Value::Timestamp(_),
            )
            | None => None,
        })
        .collect()
}

/// A sink's failure as an error of the statement.
pub fn sink_error(error: &io::Error) -> Error {
    Error::io("write the result", error)
}

/// A name as SQL reads it back unchanged.
pub fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
