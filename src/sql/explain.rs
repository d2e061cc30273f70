//! EXPLAIN: a bound statement as lines of text, one operator a line, its inputs below it.
//!
//! ```text
//! Limit 10
//!   Sort by temperature desc
//!     Scan sensors by primary key  (rows=12 time=0.104 ms calls=1)
//!       ranges: id = 7
//!       bounds: temperature >= 20
//!       filter: temperature > 20
//! ```
//!
//! * Operators are numbered in the order of their lines, as [`crate::sql::operator::Analysis`] numbers them.
//! * Expressions are SQL again, with the casts that binding put in.

mod keys;
mod sql_text;

use crate::sql::bind::{Bound, BoundDelete, BoundInsert, BoundUpdate, OutputColumn};
use crate::sql::catalog::Table;
use crate::sql::expression::Expression;
use crate::sql::operator::OperatorFigures;
use crate::sql::plan::{Access, Aggregate, Plan, SortKey};
use crate::sql::value::DataType;
use crate::storage::view::ZoneBound;
use std::fmt::Write as _;

pub use sql_text::to_sql;

/// The one column of an EXPLAIN's answer.
pub fn output_columns() -> Vec<OutputColumn> {
    vec![OutputColumn { name: "QUERY PLAN".to_owned(), data_type: DataType::Text }]
}

/// The lines for a bound statement. `figures` are those of the plan's operators where it was run, empty otherwise.
pub fn render(bound: &Bound, figures: &[OperatorFigures]) -> Vec<String> {
    let mut lines = Lines { done: Vec::new(), figures, next: 0 };
    lines.bound(bound);
    lines.done
}

/// The lines for a plan alone.
pub fn render_plan(plan: &Plan, figures: &[OperatorFigures]) -> Vec<String> {
    let mut lines = Lines { done: Vec::new(), figures, next: 0 };
    lines.plan(plan, 0);
    lines.done
}

struct Lines<'a> {
    done: Vec<String>,
    figures: &'a [OperatorFigures],
    /// The number of the next operator.
    next: usize,
}

impl Lines<'_> {
    fn push(&mut self, depth: usize, text: &str) {
        self.done.push(format!("{:indent$}{text}", "", indent = depth * 2));
    }

    /// A line of an operator, with its figures.
    fn operator(&mut self, depth: usize, mut text: String) {
        if let Some(figures) = self.figures.get(self.next) {
            let millis = figures.time.as_secs_f64() * 1e3;
            // Writing to a string does not fail.
            let _ = write!(text, "  (rows={} time={millis:.3} ms calls={})", figures.rows, figures.calls);
        }
        self.next += 1;
        self.push(depth, &text);
    }

    fn bound(&mut self, bound: &Bound) {
        match bound {
            Bound::Query { plan, .. } => self.plan(plan, 0),
            Bound::Insert(BoundInsert { table, rows, .. }) => {
                self.push(0, &format!("Insert into {}", table.name));
                self.push(1, &format!("Values: {rows} {}", if *rows == 1 { "row" } else { "rows" }));
            }
            Bound::Update(BoundUpdate { table, access, bounds, filter, assignments }) => {
                self.push(0, &format!("Update {}", table.name));
                for (column, expression) in assignments {
                    let name = table.column_by_id(*column).map_or("?", |column| column.name.as_str());
                    self.push(1, &format!("set: {name} = {}", to_sql(expression)));
                }
                self.scan(table, access, bounds, filter.as_ref(), 1);
            }
            Bound::Delete(BoundDelete { table, access, bounds, filter, exact_ranges }) => {
                let how = if exact_ranges.is_some() { " by range" } else { "" };
                self.push(0, &format!("Delete from {}{how}", table.name));
                self.scan(table, access, bounds, filter.as_ref(), 1);
            }
            Bound::Explain { inner, .. } => self.bound(inner),
            Bound::CreateTable(create) => self.push(0, &format!("Create table {}", create.definition.name)),
            Bound::DropTable { tables } => self.push(0, &format!("Drop {} tables", tables.len())),
            Bound::CreateIndex(create) => self.push(0, &format!("Create index {}", create.name)),
            Bound::DropIndex { indexes } => self.push(0, &format!("Drop {} indexes", indexes.len())),
        }
    }

    fn plan(&mut self, plan: &Plan, depth: usize) {
        match plan {
            Plan::Values { rows, .. } => {
                self.operator(
                    depth,
                    format!("Values: {} {}", rows.len(), if rows.len() == 1 { "row" } else { "rows" }),
                );
            }
            Plan::Scan { table, access, columns, bounds, filter } => {
                let _ = columns;
                self.scan(table, access, bounds, filter.as_ref(), depth);
            }
            Plan::Filter { input, predicate } => {
                self.operator(depth, format!("Filter {}", to_sql(predicate)));
                self.plan(input, depth + 1);
            }
            Plan::Project { input, expressions } => {
                self.operator(depth, format!("Project {}", listed(expressions)));
                self.plan(input, depth + 1);
            }
            Plan::Aggregate { input, group, aggregates } => {
                let mut text = "Aggregate".to_owned();
                if !aggregates.is_empty() {
                    let aggregates: Vec<String> = aggregates.iter().map(aggregate).collect();
                    let _ = write!(text, " {}", aggregates.join(", "));
                }
                if !group.is_empty() {
                    let _ = write!(text, " by {}", listed(group));
                }
                self.operator(depth, text);
                self.plan(input, depth + 1);
            }
            Plan::Sort { input, keys, limit } => {
                let keys: Vec<String> = keys.iter().map(sort_key).collect();
                let first = limit.map_or(String::new(), |limit| format!(", first {limit}"));
                self.operator(depth, format!("Sort by {}{first}", keys.join(", ")));
                self.plan(input, depth + 1);
            }
            Plan::Limit { input, limit, offset } => {
                let mut text = "Limit".to_owned();
                if let Some(limit) = limit {
                    let _ = write!(text, " {limit}");
                }
                if *offset > 0 {
                    let _ = write!(text, " offset {offset}");
                }
                self.operator(depth, text);
                self.plan(input, depth + 1);
            }
            Plan::Distinct { input } => {
                self.operator(depth, "Distinct".to_owned());
                self.plan(input, depth + 1);
            }
        }
    }

    fn scan(
        &mut self,
        table: &Table,
        access: &Access,
        bounds: &[ZoneBound],
        filter: Option<&Expression>,
        depth: usize,
    ) {
        let (how, columns, ranges) = match access {
            Access::Primary { ranges } => {
                let how = if table.has_row_id() { "row id".to_owned() } else { "primary key".to_owned() };
                (how, table.key_columns(), ranges)
            }
            Access::Index { index, ranges } => match table.indexes.iter().find(|known| known.id == *index) {
                Some(index) => {
                    let columns = table.index_layout(index).columns.iter().map(|column| column.id).collect();
                    (format!("index {}", index.name), columns, ranges)
                }
                None => (format!("index {index}"), Vec::new(), ranges),
            },
        };
        self.operator(depth, format!("Scan {} by {how}", table.name));
        if let Some(text) = keys::ranges(ranges, &columns, table) {
            self.push(depth + 1, &format!("ranges: {text}"));
        }
        if !bounds.is_empty() {
            let bounds: Vec<String> = bounds.iter().map(|bound| bound_text(bound, table)).collect();
            self.push(depth + 1, &format!("bounds: {}", bounds.join(" AND ")));
        }
        if let Some(filter) = filter {
            self.push(depth + 1, &format!("filter: {}", to_sql(filter)));
        }
    }
}

fn listed(expressions: &[Expression]) -> String {
    let expressions: Vec<String> = expressions.iter().map(to_sql).collect();
    expressions.join(", ")
}

fn aggregate(aggregate: &Aggregate) -> String {
    let name = format!("{:?}", aggregate.function).to_lowercase();
    let distinct = if aggregate.distinct { "DISTINCT " } else { "" };
    let argument = aggregate.argument.as_ref().map_or_else(|| "*".to_owned(), to_sql);
    format!("{name}({distinct}{argument})")
}

fn sort_key(key: &SortKey) -> String {
    let direction = if key.descending { " desc" } else { "" };
    let nulls = match (key.descending, key.nulls_first) {
        (false, true) => " nulls first",
        (true, false) => " nulls last",
        (false, false) | (true, true) => "",
    };
    format!("{}{direction}{nulls}", to_sql(&key.expression))
}

fn bound_text(bound: &ZoneBound, table: &Table) -> String {
    let name = table.column_by_id(bound.column).map_or("?", |column| column.name.as_str());
    let value = |value| sql_text::value_to_sql(value);
    match (&bound.min, &bound.max) {
        (Some(min), Some(max)) if min == max => format!("{name} = {}", value(min)),
        (Some(min), Some(max)) => format!("{name} BETWEEN {} AND {}", value(min), value(max)),
        (Some(min), None) => format!("{name} >= {}", value(min)),
        (None, Some(max)) => format!("{name} <= {}", value(max)),
        (None, None) => format!("{name} IS NOT NULL"),
    }
}
