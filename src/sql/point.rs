//! `SELECT columns FROM t WHERE key = literal [AND …]` straight from bytes to a row.
//!
//! What a gateway's readers ask all day: one row by its whole primary key. The general way (tokens, a tree, a plan,
//! operators over batches) takes some 20 us for it, most of them before the first byte is read; this takes below one,
//! so that a door answers by itself and no thread is woken.
//!
//! ```text
//!   SELECT * | column, …  FROM table  WHERE key column = literal AND …  [;]
//!      └ each a name of the table        └ every column of the primary key, each once
//! ```
//!
//! * Whatever is not understood, and whatever is wrong, is not decided here: the answer is none and the general way
//!   decides. Where this gives rows, the general way gives the same.
//! * A literal is read as its column's type. One that a comparison would have to convert is left to the general way.

use crate::error::Result;
use crate::hlc::Timestamp;
use crate::ids::ColumnId;
use crate::sql::batch::{Batch, Column, Values};
use crate::sql::bind::OutputColumn;
use crate::sql::catalog::{Catalog, ColumnDefinition, Table};
use crate::sql::scanner::Scanner;
use crate::sql::value::Value;
use crate::storage::keys;
use crate::storage::view::View;
use std::sync::Arc;

/// Integers up to this have their own FLOAT, so that reading one as FLOAT compares as it does.
const FLOAT_EXACT_MAX: f64 = 9_007_199_254_740_991.0;

/// Columns of a list at most; longer ones are not what this is for.
const COLUMNS_MAX: usize = 64;

/// Words that mean something in an expression, though a quoted column may be called so.
const EXPRESSION_WORDS: [&str; 36] = [
    "all",
    "and",
    "any",
    "array",
    "between",
    "case",
    "cast",
    "collate",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "distinct",
    "else",
    "end",
    "exists",
    "false",
    "in",
    "interval",
    "is",
    "like",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "or",
    "session_user",
    "some",
    "top",
    "trim",
    "true",
    "user",
    "where",
];

/// A read of one row.
#[derive(Clone, Debug)]
pub struct PointQuery {
    table: Arc<Table>,
    /// Encoded primary key.
    key: Vec<u8>,
    /// Positions in the table of the columns wanted.
    columns: Vec<usize>,
}

impl PointQuery {
    /// Binds a read of one row by its primary key; none where the statement is anything else, or wrong.
    pub fn bind(sql: &str, catalog: &Catalog) -> Option<PointQuery> {
        let mut scanner = Scanner::begin(sql)?;
        scanner.keyword(b"select")?;
        let selected = select_list(&mut scanner)?;
        scanner.keyword(b"from")?;
        let table = catalog.table(&scanner.name()?)?;
        if table.has_row_id() {
            return None;
        }
        let columns = match selected {
            Selected::Named(names) => names.iter().map(|name| position(table, name)).collect::<Option<Vec<usize>>>()?,
            Selected::All => (0..table.columns.len()).collect(),
        };
        scanner.keyword(b"where")?;
        let key = key(&mut scanner, table)?;
        scanner.end()?;
        Some(PointQuery { table: Arc::clone(table), key, columns })
    }

    /// Names and types of the result.
    pub fn columns(&self) -> Vec<OutputColumn> {
        self.definitions()
            .map(|column| OutputColumn { name: column.name.clone(), data_type: column.data_type })
            .collect()
    }

    /// The row, as of a view and an instant; none where there is none, or it has expired.
    pub fn read(&self, view: &View, instant: Timestamp) -> Result<Option<Batch>> {
        let ids: Vec<ColumnId> = self.definitions().map(|column| column.id).collect();
        let Some(found) = view.get(self.table.keyspace, &self.key, &ids)? else { return Ok(None) };
        let alive = found.stamp.created_ms >= self.table.expired_below(instant.wall().0);
        let Some(values) = found.values.filter(|_| alive) else { return Ok(None) };
        let columns = values.into_iter().zip(self.definitions());
        let columns = columns.map(|(value, column)| Arc::new(Column::constant(value, column.data_type, 1)));
        Ok(Some(Batch { columns: columns.collect(), rows: 1 }))
    }

    fn definitions(&self) -> impl Iterator<Item = &ColumnDefinition> {
        self.columns.iter().map(|&position| &self.table.columns[position])
    }
}

fn position(table: &Table, name: &str) -> Option<usize> {
    table.columns.iter().position(|column| column.name == name)
}

/// A name that is a column wherever an expression may stand.
fn column_name(scanner: &mut Scanner<'_>) -> Option<String> {
    scanner.name().filter(|name| !EXPRESSION_WORDS.contains(&name.as_str()))
}

/// What stands between SELECT and FROM.
enum Selected {
    All,
    Named(Vec<String>),
}

fn select_list(scanner: &mut Scanner<'_>) -> Option<Selected> {
    if scanner.punctuation(b'*').is_some() {
        return Some(Selected::All);
    }
    let mut names = vec![column_name(scanner)?];
    while scanner.punctuation(b',').is_some() {
        names.push(column_name(scanner)?);
    }
    (names.len() <= COLUMNS_MAX).then_some(Selected::Named(names))
}

/// The encoded key that the condition asks for, where it names each of its columns once.
fn key(scanner: &mut Scanner<'_>, table: &Table) -> Option<Vec<u8>> {
    let mut parts: Vec<Option<Values>> = table.primary_key.iter().map(|_| None).collect();
    for condition in 0..table.primary_key.len() {
        if condition > 0 {
            scanner.keyword(b"and")?;
        }
        let column = &table.columns[position(table, &column_name(scanner)?)?];
        let place = table.primary_key.iter().position(|id| *id == column.id)?;
        scanner.punctuation(b'=')?;
        scanner.skip_space();
        let mut values = Values::with_capacity(column.data_type, 1);
        scanner.literal(&mut values, None)?;
        if parts[place].replace(values).is_some() {
            return None;
        }
    }
    let mut key = Vec::new();
    for values in parts {
        let value = values?.get(0);
        if matches!(value, Value::Float(value) if value.abs() > FLOAT_EXACT_MAX) {
            return None;
        }
        keys::push(&mut key, &value);
    }
    Some(key)
}
