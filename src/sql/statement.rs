//! Statements as this database understands them: the parser's tree with everything foreign taken out.
//!
//! `translate` makes them, `bind` gives their names a meaning. What stands here is all there is: a clause without a
//! place in these types is refused by `translate`, so nothing that a user wrote is ever dropped in silence.
//!
//! * Names are folded: unquoted ones are in lower case, quoted ones as written.
//! * Every node that an error may point at has a position, counted in characters from 1; 0 is unknown.
//! * A chain of AND or OR is one node, so a condition of a thousand terms is not a thousand levels deep.

use crate::sql::expression::{BinaryOperator, UnaryOperator};
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
            Statement::Explain { analyze, inner } => !analyze || inner.is_read_only(),
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
    /// `UNIQUE`
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

/// An expression with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub node: Node,
    /// Where it stands.
    pub position: u32,
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A value.
    Literal(Literal),
    /// `INTERVAL '…'` of fixed length, in microseconds.
    Interval(i64),
    /// `c` or `t.c`
    Column {
        /// The `t`.
        table: Option<Name>,
        /// The `c`.
        name: Name,
    },
    /// The keyword `DEFAULT`, where a value is inserted or set.
    Default,
    /// `-x`, `NOT x`
    Unary {
        /// What to do.
        operator: UnaryOperator,
        /// To what.
        input: Box<Expr>,
    },
    /// Arithmetic, comparison, `||`, `IS DISTINCT FROM`; never AND or OR.
    Binary {
        /// What to do.
        operator: BinaryOperator,
        /// Left side.
        left: Box<Expr>,
        /// Right side.
        right: Box<Expr>,
    },
    /// `a AND b AND c`
    And(Vec<Expr>),
    /// `a OR b OR c`
    Or(Vec<Expr>),
    /// `x IS [NOT] NULL / TRUE / FALSE / UNKNOWN`
    Is {
        /// What is looked at.
        input: Box<Expr>,
        /// What it is held against.
        test: Test,
        /// `NOT`
        negated: bool,
    },
    /// `x BETWEEN low AND high`
    Between {
        /// What is looked at.
        input: Box<Expr>,
        /// Not below this.
        low: Box<Expr>,
        /// Not above this.
        high: Box<Expr>,
        /// `NOT`
        negated: bool,
    },
    /// `x IN (…)`
    InList {
        /// What is looked for.
        input: Box<Expr>,
        /// Among what.
        list: Vec<Expr>,
        /// `NOT`
        negated: bool,
    },
    /// `x LIKE pattern`
    Like {
        /// What is matched.
        input: Box<Expr>,
        /// Against what.
        pattern: Box<Expr>,
        /// The escape character; none where it was set to the empty string.
        escape: Option<char>,
        /// `ILIKE`
        case_insensitive: bool,
        /// `NOT`
        negated: bool,
    },
    /// `CASE [operand] WHEN … THEN … ELSE … END`
    Case {
        /// What the WHENs are compared with.
        operand: Option<Box<Expr>>,
        /// WHEN and THEN.
        branches: Vec<(Expr, Expr)>,
        /// ELSE
        otherwise: Option<Box<Expr>>,
    },
    /// `CAST(x AS type)`, `x::type`
    Cast {
        /// What is cast.
        input: Box<Expr>,
        /// To what.
        to: TypeName,
    },
    /// `f(x, y)`
    Call(Call),
}

/// The call of a function or an aggregate.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Its name.
    pub name: Name,
    /// `DISTINCT`
    pub distinct: bool,
    /// `(*)`
    pub star: bool,
    /// Arguments.
    pub arguments: Vec<Expr>,
}

/// What `IS` tests for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// `IS NULL`
    Null,
    /// `IS TRUE`
    True,
    /// `IS FALSE`
    False,
    /// `IS UNKNOWN`: NULL of a BOOL
    Unknown,
}

/// A value as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `NULL`, of any type
    Null,
    /// `TRUE`, `FALSE`
    Bool(bool),
    /// `5`
    Int(i64),
    /// `5.0`, `5e3`
    Float(f64),
    /// `'…'`: of no type until its neighbour gives it one
    Quoted(String),
    /// `X'00'`
    Blob(Vec<u8>),
}
