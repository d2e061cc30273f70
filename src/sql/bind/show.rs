//! SHOW TABLES and DESCRIBE: queries over what the catalog says.
//!
//! DESCRIBE answers one row a column, and nothing else, so that a program can count on it. What is said of the table or of
//! several columns stands in the row of each column that it concerns: an index with all its columns, the TTL in every row.

use super::source::table;
use super::{BindContext, Bound, OutputColumn};
use crate::error::Result;
use crate::sql::catalog::{ColumnDefinition, Index, IndexState, Table};
use crate::sql::expression::Expression;
use crate::sql::plan::Plan;
use crate::sql::statement::Name;
use crate::sql::value::{DataType, Value};
use std::time::Duration;

/// One row a table, by name.
pub(super) fn tables(context: &BindContext<'_>) -> Bound {
    let mut names: Vec<&str> = context.catalog.tables().map(|table| table.name.as_str()).collect();
    names.sort_unstable();
    rows(&["table_name"], names.into_iter().map(|name| vec![text(name)]).collect())
}

/// One row a column, in order: name, type as declared, whether NULL is allowed, part of the key, default, the indexes that it
/// is in, and the table's TTL.
pub(super) fn columns(name: &Name, context: &BindContext<'_>) -> Result<Bound> {
    let table = table(name, context)?;
    let ttl = table.ttl.map_or(Value::Null, |ttl| Value::Text(duration(ttl)));
    let described = table
        .columns
        .iter()
        .map(|column| {
            let in_key = table.primary_key.contains(&column.id);
            let indexed = table.indexes.iter().any(|index| index.columns.contains(&column.id));
            let key = match (in_key, indexed) {
                (true, _) => text("primary"),
                (false, true) => text("index"),
                (false, false) => Value::Null,
            };
            vec![
                text(&column.name),
                text(&column.declared_type),
                text(if column.not_null { "NO" } else { "YES" }),
                key,
                column.default.as_deref().map_or(Value::Null, text),
                indexes(table, column),
                ttl.clone(),
            ]
        })
        .collect();
    Ok(rows(&["column_name", "data_type", "is_nullable", "key", "column_default", "indexes", "ttl"], described))
}

/// `by_temp (temp), by_both (temp, id)`: the indexes that a column is in, each with its columns in their order. NULL where it
/// is in none.
fn indexes(table: &Table, column: &ColumnDefinition) -> Value {
    let names = |index: &Index| {
        let names = index.columns.iter().filter_map(|id| table.column_by_id(*id)).map(|column| column.name.as_str());
        let built = match index.state {
            IndexState::Ready => "",
            IndexState::Building { .. } => " building",
        };
        format!("{} ({}){built}", index.name, names.collect::<Vec<&str>>().join(", "))
    };
    let found: Vec<String> =
        table.indexes.iter().filter(|index| index.columns.contains(&column.id)).map(names).collect();
    if found.is_empty() { Value::Null } else { Value::Text(found.join(", ")) }
}

/// `7d`, `90m`: in the largest unit that it is a whole number of, as it may be written in `WITH TTL=`.
fn duration(ttl: Duration) -> String {
    let seconds = ttl.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60)];
    let (unit, length) = units.into_iter().find(|(_, length)| seconds.is_multiple_of(*length)).unwrap_or(("s", 1));
    format!("{}{unit}", seconds / length)
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn rows(names: &[&str], rows: Vec<Vec<Value>>) -> Bound {
    let constant = |value| Expression::Constant { value, data_type: DataType::Text };
    let rows = rows.into_iter().map(|row| row.into_iter().map(constant).collect()).collect();
    let column = |name: &&str| OutputColumn { name: (*name).to_owned(), data_type: DataType::Text };
    let columns = names.iter().map(column).collect();
    Bound::Query { plan: Plan::Values { rows, types: vec![DataType::Text; names.len()] }, columns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::translate::parse_duration;

    #[test]
    fn a_ttl_is_written_as_it_is_read() {
        for (text, seconds) in [("7d", 604_800), ("36h", 129_600), ("90m", 5_400), ("61s", 61), ("1d", 86_400)] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
            assert_eq!(parse_duration(text).unwrap(), Duration::from_secs(seconds));
        }
    }
}
