//! Where the names of columns come from: the one table of a statement, under the name that the statement gives it.

use super::BindContext;
use super::constant::place;
use crate::error::{Error, Result, SqlState};
use crate::sql::catalog::Table;
use crate::sql::expression::Expression;
use crate::sql::plan::{Access, Plan};
use crate::sql::statement::{Name, TableReference};
use crate::sql::suggest;
use crate::storage::keys::KeyRange;
use std::sync::Arc;

/// The table of a name.
pub(super) fn table<'a>(name: &Name, context: &BindContext<'a>) -> Result<&'a Arc<Table>> {
    context.catalog.table(&name.text).ok_or_else(|| unknown_table(name, context))
}

fn unknown_table(name: &Name, context: &BindContext<'_>) -> Error {
    let message = format!("table \"{}\" does not exist", name.text);
    let error = place(Error::invalid(SqlState::UNDEFINED_TABLE, message), name.position);
    match suggest::hint(&name.text, context.catalog.tables().map(|table| table.name.as_str())) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The error of a column that a table does not have.
pub(super) fn unknown_column(name: &Name, message: String, table: &Table) -> Error {
    let error = place(Error::invalid(SqlState::UNDEFINED_COLUMN, message), name.position);
    match suggest::hint(&name.text, table.columns.iter().map(|column| column.name.as_str())) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// A table in scope.
pub(super) struct Source {
    pub(super) table: Arc<Table>,
    /// What the statement calls it.
    pub(super) name: String,
}

impl Source {
    pub(super) fn of(reference: &TableReference, context: &BindContext<'_>) -> Result<Source> {
        let table = Arc::clone(table(&reference.name, context)?);
        let name = reference.alias.as_ref().map_or_else(|| table.name.clone(), |alias| alias.text.clone());
        Ok(Source { table, name })
    }

    /// Checks the `t` of `t.c`.
    pub(super) fn check_qualifier(&self, qualifier: &Name) -> Result<()> {
        if qualifier.text == self.name {
            return Ok(());
        }
        let message = format!("missing FROM-clause entry for table \"{}\"", qualifier.text);
        let error = place(Error::invalid(SqlState::UNDEFINED_TABLE, message), qualifier.position);
        Err(match () {
            () if qualifier.text == self.table.name => {
                error.hint(format!("the table is called \"{}\" here", self.name))
            }
            () => suggest::hint(&qualifier.text, [self.name.as_str()]).map_or(error.clone(), |hint| error.hint(hint)),
        })
    }

    /// The position of a column in the table.
    pub(super) fn find(&self, qualifier: Option<&Name>, name: &Name) -> Result<usize> {
        if let Some(qualifier) = qualifier {
            self.check_qualifier(qualifier)?;
        }
        self.table.columns.iter().position(|column| column.name == name.text).ok_or_else(|| {
            let message = match qualifier {
                Some(qualifier) => format!("column {}.{} does not exist", qualifier.text, name.text),
                None => format!("column \"{}\" does not exist", name.text),
            };
            unknown_column(name, message, &self.table)
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.table.column(name).is_some()
    }

    /// The column at a position, read from a batch of all columns in table order.
    pub(super) fn column(&self, index: usize) -> Expression {
        let column = &self.table.columns[index];
        Expression::Column { index, data_type: column.data_type, name: column.name.clone() }
    }

    /// All rows with all columns in table order.
    pub(super) fn scan(&self) -> Plan {
        Plan::Scan {
            table: Arc::clone(&self.table),
            access: Access::Primary { ranges: vec![KeyRange::all()] },
            columns: self.table.columns.iter().map(|column| column.id).collect(),
            bounds: Vec::new(),
            filter: None,
        }
    }
}
