//! SHOW TABLES and DESCRIBE: queries over what the catalog says.

use super::source::table;
use super::{BindContext, Bound, OutputColumn};
use crate::error::Result;
use crate::sql::expression::Expression;
use crate::sql::plan::Plan;
use crate::sql::statement::Name;
use crate::sql::value::{DataType, Value};

/// One row a table, by name.
pub(super) fn tables(context: &BindContext<'_>) -> Bound {
    let mut names: Vec<&str> = context.catalog.tables().map(|table| table.name.as_str()).collect();
    names.sort_unstable();
    rows(&["table_name"], names.into_iter().map(|name| vec![text(name)]).collect())
}

/// One row a column, in order: name, type as declared, whether NULL is allowed, part of the key, default.
pub(super) fn columns(name: &Name, context: &BindContext<'_>) -> Result<Bound> {
    let table = table(name, context)?;
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
            ]
        })
        .collect();
    Ok(rows(&["column_name", "data_type", "is_nullable", "key", "column_default"], described))
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
