//! Gives the names of a statement their meaning: tables and columns from the catalog, a type for every expression.
//!
//! What comes out needs no names: a query is a plan; a write is values or expressions over the table's columns, cast
//! to what the columns hold, and checked as far as that can be done before rows are read.
//!
//! ```text
//! Statement -> bind -> Bound::Query(plan)             -> optimize -> operators
//!                   -> Bound::Insert(columns)         -> effects
//!                   -> Bound::Update, Bound::Delete   -> scan of `access` under `filter` -> effects
//!                   -> Bound::CreateTable, …          -> commands
//! ```
//!
//! * Binding reads the catalog and the instant of the context, nothing else: equal inputs give equal results.
//! * A quoted literal and NULL have no type until their neighbour gives them one; after binding everything has.
//! * A name that is not known is answered with its position and the nearest name that is.

#![expect(clippy::wildcard_enum_match_arm, reason = "where one shape is special all others are alike")]

mod coercion;
mod constant;
mod definition;
mod expression;
mod function;
mod grouping;
mod query;
mod show;
mod source;
mod write;

use crate::error::{Error, Result};
use crate::ids::{ColumnId, IndexId, KeyspaceId, SchemaVersion, TableId};
use crate::sql::batch::Column;
use crate::sql::catalog::{Catalog, ColumnDefinition, Table};
use crate::sql::expression::Expression;
use crate::sql::insert::bind_literal_insert;
use crate::sql::optimize::{Unknown, optimize_bound};
use crate::sql::plan::{Access, Plan};
use crate::sql::statement::Statement;
use crate::sql::translate::{ParseLimits, parse};
use crate::sql::value::DataType;
use crate::storage::keys::KeyRange;
use crate::storage::view::ZoneBound;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use coercion::symbol;
pub(crate) use expression::balanced;
pub(crate) use grouping::children;
pub use write::{check_column, evaluate_default};
pub(crate) use write::{is_longer, targets};

/// What a statement is bound against.
#[derive(Clone, Copy, Debug)]
pub struct BindContext<'a> {
    /// The tables there are.
    pub catalog: &'a Catalog,
    /// The statement's instant, microseconds since 1970-01-01: what `now()` is.
    pub now_us: i64,
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputColumn {
    /// What a client sees above it.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
}

/// A statement whose names are resolved.
#[derive(Clone, Debug)]
pub enum Bound {
    /// Rows to compute. `SHOW` and `DESCRIBE` are plans over values.
    Query {
        /// How.
        plan: Plan,
        /// What the columns are called.
        columns: Vec<OutputColumn>,
    },
    /// Rows to insert.
    Insert(BoundInsert),
    /// Rows to change.
    Update(BoundUpdate),
    /// Rows to remove.
    Delete(BoundDelete),
    /// A table to make.
    CreateTable(BoundCreateTable),
    /// Tables to remove, each once. Empty where `IF EXISTS` found none.
    DropTable {
        /// Which ones.
        tables: Vec<TableId>,
    },
    /// An index to make.
    CreateIndex(BoundCreateIndex),
    /// Indexes to remove, each once. Empty where `IF EXISTS` found none.
    DropIndex {
        /// Which ones, with their tables.
        indexes: Vec<(TableId, IndexId)>,
    },
    /// A statement to explain; see [`crate::sql::explain`].
    Explain {
        /// Run it too.
        analyze: bool,
        /// Which statement.
        inner: Box<Bound>,
    },
}

/// Rows to insert, column by column.
#[derive(Clone, Debug)]
pub struct BoundInsert {
    /// Into which table.
    pub table: Arc<Table>,
    /// One for each column of the table, in its order: cast, defaults filled in, NOT NULL and lengths checked.
    pub columns: Vec<Arc<Column>>,
    /// How many rows.
    pub rows: usize,
}

/// Rows to change.
#[derive(Clone, Debug)]
pub struct BoundUpdate {
    /// Of which table.
    pub table: Arc<Table>,
    /// How the rows are reached.
    pub access: Access,
    /// Lets blocks be skipped.
    pub bounds: Vec<ZoneBound>,
    /// Which rows; over all columns of the table in table order.
    pub filter: Option<Expression>,
    /// What is set, over the same columns and of the column's type. NOT NULL and lengths are checked of the computed
    /// values, by [`check_column`].
    pub assignments: Vec<(ColumnId, Expression)>,
}

/// Rows to remove.
#[derive(Clone, Debug)]
pub struct BoundDelete {
    /// Of which table.
    pub table: Arc<Table>,
    /// How the rows are reached.
    pub access: Access,
    /// Lets blocks be skipped.
    pub bounds: Vec<ZoneBound>,
    /// Which rows; over all columns of the table in table order.
    pub filter: Option<Expression>,
    /// Where the rows are exactly those of some ranges of the table's own keys: then nothing need be read. All keys
    /// where there is no WHERE.
    pub exact_ranges: Option<Vec<KeyRange>>,
}

/// A table to make.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundCreateTable {
    /// What it is.
    pub definition: TableDefinition,
    /// `IF NOT EXISTS`: a table of the name is no error, neither now nor when the command is applied.
    pub if_not_exists: bool,
    /// A table of the name exists (only with `if_not_exists`): nothing need be done.
    pub exists: bool,
}

/// A table without identities, which the catalog gives when the command is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct TableDefinition {
    /// Its name.
    pub name: String,
    /// Its columns. Their ids are assigned: 1 and up.
    pub columns: Vec<ColumnDefinition>,
    /// Columns of the primary key.
    pub primary_key: Vec<ColumnId>,
    /// Age at which rows expire.
    pub ttl: Option<Duration>,
}

impl TableDefinition {
    /// The table, under identities drawn from the catalog.
    pub fn into_table(self, id: TableId, keyspace: KeyspaceId) -> Table {
        Table {
            id,
            name: self.name,
            schema: SchemaVersion(1),
            keyspace,
            columns: self.columns,
            primary_key: self.primary_key,
            ttl: self.ttl,
            expired_below_ms: 0,
            floor: crate::ids::LogIndex(0),
            indexes: Vec::new(),
        }
    }
}

/// An index to make.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundCreateIndex {
    /// Its name.
    pub name: String,
    /// On which table.
    pub table: Arc<Table>,
    /// On which columns, in key order.
    pub columns: Vec<ColumnId>,
    /// `IF NOT EXISTS`: an index of the name is no error, neither now nor when the command is applied.
    pub if_not_exists: bool,
    /// An index of the name exists (only with `if_not_exists`): nothing need be done.
    pub exists: bool,
}

/// From text to bound and optimized statement, by the shortest way: an INSERT of literals never becomes a tree. Nothing
/// is known of the rows.
///
/// # Errors
/// Those of [`parse`] and [`bind`].
pub fn prepare(sql: &str, limits: &ParseLimits, context: &BindContext<'_>) -> Result<Bound> {
    limits.check_text(sql)?;
    if let Some(insert) = bind_literal_insert(sql, context) {
        return Ok(Bound::Insert(insert));
    }
    Ok(optimize_bound(bind(&parse(sql, limits)?, context)?, &Unknown))
}

/// Resolves a statement.
///
/// # Errors
/// 42P01, 42703 and 42704 for names that are not known, 42P07 and 42701 for ones that are taken, 42883, 42804 and
/// 42846 for types that do not fit, 42803 for grouping, the errors of values that stand in the statement, and those
/// of constraints that can be judged by the statement alone (23502, 22001).
pub fn bind(statement: &Statement, context: &BindContext<'_>) -> Result<Bound> {
    match statement {
        Statement::Query(query) => {
            let (plan, columns) = query::bind(query, context)?;
            Ok(Bound::Query { plan, columns })
        }
        Statement::Insert(insert) => Ok(Bound::Insert(write::insert(insert, context)?)),
        Statement::Update(update) => Ok(Bound::Update(write::update(update, context)?)),
        Statement::Delete(delete) => Ok(Bound::Delete(write::delete(delete, context)?)),
        Statement::CreateTable(create) => Ok(Bound::CreateTable(definition::create_table(create, context)?)),
        Statement::DropTable { names, if_exists } => definition::drop_tables(names, *if_exists, context),
        Statement::CreateIndex(create) => Ok(Bound::CreateIndex(definition::create_index(create, context)?)),
        Statement::DropIndex { names, if_exists } => definition::drop_indexes(names, *if_exists, context),
        Statement::ShowTables => Ok(show::tables(context)),
        Statement::ShowColumns(table) => show::columns(table, context),
        Statement::Explain { analyze, position, inner } => {
            if *analyze && !inner.is_read_only() {
                let error = Error::unsupported("EXPLAIN ANALYZE of a statement that writes is");
                return Err(constant::place(error, *position));
            }
            Ok(Bound::Explain { analyze: *analyze, inner: Box::new(bind(inner, context)?) })
        }
    }
}
