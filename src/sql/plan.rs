//! Plans: a tree of operators, each of which turns the batches of its input into batches.

use crate::ids::{ColumnId, IndexId};
use crate::sql::catalog::Table;
use crate::sql::expression::Expression;
use crate::sql::value::DataType;
use crate::storage::keys::KeyRange;
use crate::storage::view::ZoneBound;
use std::sync::Arc;

/// One operator with its inputs.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Rows that stand in the statement; `SELECT 1` is one row of no columns under a projection.
    Values {
        /// Each row has one expression a column, over no input.
        rows: Vec<Vec<Expression>>,
        /// Types of the columns.
        types: Vec<DataType>,
    },
    /// Rows of a table, in key order of the keyspace that `access` reads.
    Scan {
        /// Which table.
        table: Arc<Table>,
        /// By which keyspace and key ranges.
        access: Access,
        /// Columns handed out, in this order; hidden row id columns may be among them.
        columns: Vec<ColumnId>,
        /// Bounds on columns that let whole blocks be skipped; `filter` still holds them exactly.
        bounds: Vec<ZoneBound>,
        /// Rows that do not make this true are dropped; over `columns`.
        filter: Option<Expression>,
    },
    /// Rows that make `predicate` true.
    Filter {
        /// Where rows come from.
        input: Box<Plan>,
        /// What they must make true.
        predicate: Expression,
    },
    /// Computed columns.
    Project {
        /// Where rows come from.
        input: Box<Plan>,
        /// One for each output column.
        expressions: Vec<Expression>,
    },
    /// Groups, one output row each: group columns first, then aggregates. Without group columns there is one row always.
    Aggregate {
        /// Where rows come from.
        input: Box<Plan>,
        /// Group columns.
        group: Vec<Expression>,
        /// Aggregates.
        aggregates: Vec<Aggregate>,
    },
    /// Rows in order; stable. With `limit`, only the first so many are kept.
    Sort {
        /// Where rows come from.
        input: Box<Plan>,
        /// Sort keys, most significant first.
        keys: Vec<SortKey>,
        /// How many of the first rows are wanted.
        limit: Option<u64>,
    },
    /// The rows from `offset`, at most `limit`.
    Limit {
        /// Where rows come from.
        input: Box<Plan>,
        /// At most so many.
        limit: Option<u64>,
        /// After so many.
        offset: u64,
    },
    /// Each distinct row once (NULL equals NULL).
    Distinct {
        /// Where rows come from.
        input: Box<Plan>,
    },
}

/// How a scan reaches rows.
#[derive(Clone, Debug)]
pub enum Access {
    /// Through the table's own keys: ascending, disjoint ranges. The whole table is one range.
    Primary {
        /// Which keys.
        ranges: Vec<KeyRange>,
    },
    /// Through a secondary index, then a look-up of each row, unless the index holds every column asked for.
    Index {
        /// Which index.
        index: IndexId,
        /// Which index keys: ascending, disjoint ranges.
        ranges: Vec<KeyRange>,
    },
}

/// One aggregate.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Which one.
    pub function: AggregateFunction,
    /// Over what; none for `COUNT(*)`.
    pub argument: Option<Expression>,
    /// Each distinct value once.
    pub distinct: bool,
    /// Type of the result.
    pub data_type: DataType,
}

/// Aggregate functions. All but COUNT skip NULL and are NULL over nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateFunction {
    /// How many rows, or how many values that are not NULL.
    Count,
    /// The sum: INT for INT (22003 on overflow), FLOAT for FLOAT.
    Sum,
    /// The mean, FLOAT.
    Avg,
    /// The least.
    Min,
    /// The greatest.
    Max,
}

/// One key of an order.
#[derive(Clone, Debug, PartialEq)]
pub struct SortKey {
    /// What is compared.
    pub expression: Expression,
    /// Greatest first.
    pub descending: bool,
    /// NULLs first; PostgreSQL's default is last for ascending, first for descending.
    pub nulls_first: bool,
}
