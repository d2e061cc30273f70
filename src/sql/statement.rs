//! Statements as this database understands them: the parser's tree with everything foreign taken out.
//!
//! `translate` makes them, `bind` gives their names a meaning. What stands here is all there is: a clause without a
//! place in these types is refused by `translate`, so nothing that a user wrote is ever dropped in silence.
//!
//! * Names are folded: unquoted ones are in lower case, quoted ones as written.
//! * Every node that an error may point at has a position, counted in characters from 1; 0 is unknown.
//! * A chain of AND or OR is one node, so a condition of a thousand terms is not a thousand levels deep.

mod expression;
mod values;

pub use expression::{Call, Expr, Literal, Node, Test};
pub use values::Literals;

use crate::sql::value::DataType;
use std::time::Duration;

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// `CREATE TABLE`
    CreateTable(CreateTable),
    /// `DROP TABLE a, b`
    DropTable {
        /// Which ones.
        names: Vec<Name>,
        /// `IF EXISTS`
        if_exists: bool,
    },
    /// `CREATE INDEX`
    CreateIndex(CreateIndex),
    /// `DROP INDEX a, b`
    DropIndex {
        /// Which ones.
        names: Vec<Name>,
        /// `IF EXISTS`
        if_exists: bool,
    },
    /// `INSERT`
    Insert(Insert),
    /// `UPDATE`
    Update(Update),
    /// `DELETE`
    Delete(Delete),
    /// `SELECT` or `VALUES`
    Query(Box<Query>),
    /// `SHOW TABLES`
    ShowTables,
    /// `SHOW COLUMNS FROM t`, `DESCRIBE t`, `DESC t`
    ShowColumns(Name),
    /// `EXPLAIN [ANALYZE] statement`
    Explain {
        /// Run it and tell rows and time.
        analyze: bool,
        /// Where the statement stands that is explained.
        position: u32,
        /// What is explained.
        inner: Box<Statement>,
    },
}

impl Statement {
    /// True where the statement changes nothing, so a read-only caller may send it. `EXPLAIN ANALYZE` runs its
    /// statement and is judged by it.
    pub fn is_read_only(&self) -> bool {
        match self {
            Statement::Query(_) | Statement::ShowTables | Statement::ShowColumns(_) => true,
            Statement::Explain { analyze, inner, position: _ } => !analyze || inner.is_read_only(),
            Statement::CreateTable(_)
            | Statement::DropTable { .. }
            | Statement::CreateIndex(_)
            | Statement::DropIndex { .. }
            | Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_) => false,
        }
    }
}

/// A name, folded, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// As it compares.
    pub text: String,
    /// Where it stands.
    pub position: u32,
}

/// A type as a user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeName {
    /// What it is here.
    pub data_type: DataType,
    /// As written, in upper case: `VARCHAR(20)`.
    pub declared: String,
    /// Characters at most, for `VARCHAR(n)`.
    pub length_max: Option<u32>,
}

/// `CREATE TABLE`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    /// Its name.
    pub name: Name,
    /// Its columns, in order.
    pub columns: Vec<ColumnSpecification>,
    /// `PRIMARY KEY (a, b)` clauses, also those written at a column. More than one is an error of binding.
    pub primary_keys: Vec<Vec<Name>>,
    /// `WITH TTL=…`
    pub ttl: Option<Duration>,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
}

/// One column of a `CREATE TABLE`.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnSpecification {
    /// Its name.
    pub name: Name,
    /// Its type.
    pub type_name: TypeName,
    /// `NOT NULL` was written.
    pub not_null: bool,
    /// `NULL` was written.
    pub null: bool,
    /// `DEFAULT expression`
    pub default: Option<DefaultExpression>,
}

/// A default: the expression and its text, which the catalog keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct DefaultExpression {
    /// What is evaluated.
    pub expression: Expr,
    /// SQL text of the same.
    pub text: String,
}

/// `CREATE INDEX`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateIndex {
    /// Its name; none asks for one made of table and columns.
    pub name: Option<Name>,
    /// On which table.
    pub table: Name,
    /// On which columns, in key order.
    pub columns: Vec<Name>,
    /// `UNIQUE`, which is refused once the names are known.
    pub unique: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
}

/// `INSERT INTO t (columns) VALUES …`
#[derive(Clone, Debug, PartialEq)]
pub struct Insert {
    /// Into which table.
    pub table: Name,
    /// Which columns; none means all in order.
    pub columns: Option<Vec<Name>>,
    /// What.
    pub source: InsertSource,
}

/// What an `INSERT` inserts.
#[derive(Clone, Debug, PartialEq)]
pub enum InsertSource {
    /// `VALUES (…), (…)`
    Values(Vec<Vec<Expr>>),
    /// `DEFAULT VALUES`: one row of defaults.
    Defaults,
}

/// `UPDATE t SET …`
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Which table.
    pub table: TableReference,
    /// What is set.
    pub assignments: Vec<(Name, Expr)>,
    /// Which rows.
    pub filter: Option<Expr>,
}

/// `DELETE FROM t`
#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    /// Which table.
    pub table: TableReference,
    /// Which rows.
    pub filter: Option<Expr>,
}

/// A table where rows come from.
#[derive(Clone, Debug, PartialEq)]
pub struct TableReference {
    /// The table.
    pub name: Name,
    /// What the statement calls it.
    pub alias: Option<Name>,
}

/// A query with its order and bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// What yields rows.
    pub body: QueryBody,
    /// `ORDER BY`
    pub order: Vec<OrderItem>,
    /// `LIMIT`
    pub limit: Option<Expr>,
    /// `OFFSET`
    pub offset: Option<Expr>,
}

/// What yields the rows of a query.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryBody {
    /// `SELECT`
    Select(Box<Select>),
    /// `VALUES`
    Values(Vec<Vec<Expr>>),
}

/// `SELECT`
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// `DISTINCT`
    pub distinct: bool,
    /// The output columns.
    pub items: Vec<SelectItem>,
    /// `FROM`; none is one row of no columns.
    pub from: Option<TableReference>,
    /// `WHERE`
    pub filter: Option<Expr>,
    /// `GROUP BY`
    pub group: Vec<Expr>,
    /// `HAVING`
    pub having: Option<Expr>,
}

/// One item of a select list.
#[derive(Clone, Debug, PartialEq)]
pub enum SelectItem {
    /// `*` or `t.*`
    Wildcard {
        /// The `t`.
        table: Option<Name>,
        /// Where it stands.
        position: u32,
    },
    /// An expression, with its `AS` name.
    Expression {
        /// What is computed.
        expression: Expr,
        /// What it is called.
        alias: Option<Name>,
    },
}

/// One item of an `ORDER BY`.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderItem {
    /// By what.
    pub expression: Expr,
    /// `DESC`
    pub descending: bool,
    /// `NULLS FIRST` or `NULLS LAST`, where written.
    pub nulls_first: Option<bool>,
}
