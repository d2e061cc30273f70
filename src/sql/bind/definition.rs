//! Definitions: tables and indexes that are made and removed.

use super::constant::place;
use super::source::{table, unknown_column};
use super::write::bind_default;
use super::{BindContext, Bound, BoundCreateIndex, BoundCreateTable, TableDefinition};
use crate::error::{Error, Result, SqlState};
use crate::ids::{ColumnId, IndexId, TableId};
use crate::sql::catalog::{ColumnDefinition, Table};
use crate::sql::statement::{ColumnSpecification, CreateIndex, CreateTable, Name};
use crate::sql::suggest;
use crate::sql::translate::NAME_BYTES_MAX;
use std::sync::Arc;

/// Columns of a table at most, as in PostgreSQL: a definition travels with every change of the catalog.
const COLUMNS_MAX: usize = 1_600;

/// Columns of a key at most, as in PostgreSQL.
const KEY_COLUMNS_MAX: usize = 32;

pub(super) fn create_table(create: &CreateTable, context: &BindContext<'_>) -> Result<BoundCreateTable> {
    let name = &create.name;
    let exists = context.catalog.table(&name.text).is_some();
    if exists && !create.if_not_exists {
        let message = format!("table \"{}\" already exists", name.text);
        return Err(place(Error::invalid(SqlState::DUPLICATE_TABLE, message), name.position));
    }
    let definition_error =
        |message: String| Err(place(Error::invalid(SqlState::INVALID_TABLE_DEFINITION, message), name.position));
    if create.columns.is_empty() {
        return definition_error(format!("table \"{}\" has no columns", name.text));
    }
    if create.columns.len() > COLUMNS_MAX {
        let message =
            format!("table \"{}\" has {} columns, the limit is {COLUMNS_MAX}", name.text, create.columns.len());
        return Err(place(Error::limit(SqlState::LIMIT_EXCEEDED, message), name.position));
    }
    let mut columns: Vec<ColumnDefinition> = Vec::with_capacity(create.columns.len());
    for specification in &create.columns {
        if columns.iter().any(|column| column.name == specification.name.text) {
            return Err(specified_twice(&specification.name));
        }
        let id = ColumnId(columns.len() as u16 + 1);
        columns.push(column(id, specification, &name.text, context)?);
    }
    let primary_key = match create.primary_keys.as_slice() {
        [] => Vec::new(),
        [key] => primary_key(key, &mut columns)?,
        [_, _, ..] => {
            return definition_error(format!("multiple primary keys for table \"{}\" are not allowed", name.text));
        }
    };
    let definition = TableDefinition { name: name.text.clone(), columns, primary_key, ttl: create.ttl };
    Ok(BoundCreateTable { definition, if_not_exists: create.if_not_exists, exists })
}

fn specified_twice(name: &Name) -> Error {
    let message = format!("column \"{}\" specified more than once", name.text);
    place(Error::invalid(SqlState::DUPLICATE_COLUMN, message), name.position)
}

fn column(
    id: ColumnId,
    specification: &ColumnSpecification,
    table: &str,
    context: &BindContext<'_>,
) -> Result<ColumnDefinition> {
    let name = &specification.name;
    if specification.null && specification.not_null {
        let message =
            format!("conflicting NULL/NOT NULL declarations for column \"{}\" of table \"{table}\"", name.text);
        return Err(place(Error::invalid(SqlState::SYNTAX_ERROR, message), name.position));
    }
    let definition = ColumnDefinition {
        id,
        name: name.text.clone(),
        data_type: specification.type_name.data_type,
        declared_type: specification.type_name.declared.clone(),
        length_max: specification.type_name.length_max,
        not_null: specification.not_null,
        default: specification.default.as_ref().map(|default| default.text.clone()),
    };
    if let Some(default) = &specification.default {
        bind_default(&default.expression, &definition, context)?;
    }
    Ok(definition)
}

/// Finds the key's columns, which are NOT NULL from here on.
fn primary_key(key: &[Name], columns: &mut [ColumnDefinition]) -> Result<Vec<ColumnId>> {
    check_key_length(key)?;
    let mut ids: Vec<ColumnId> = Vec::with_capacity(key.len());
    for name in key {
        let Some(index) = columns.iter().position(|column| column.name == name.text) else {
            let message = format!("column \"{}\" named in key does not exist", name.text);
            let error = place(Error::invalid(SqlState::UNDEFINED_COLUMN, message), name.position);
            return Err(match suggest::hint(&name.text, columns.iter().map(|column| column.name.as_str())) {
                Some(hint) => error.hint(hint),
                None => error,
            });
        };
        if ids.contains(&columns[index].id) {
            let message = format!("column \"{}\" appears twice in primary key constraint", name.text);
            return Err(place(Error::invalid(SqlState::DUPLICATE_COLUMN, message), name.position));
        }
        columns[index].not_null = true;
        ids.push(columns[index].id);
    }
    Ok(ids)
}

fn check_key_length(key: &[Name]) -> Result<()> {
    if key.len() <= KEY_COLUMNS_MAX {
        return Ok(());
    }
    let message = format!("a key has {} columns, the limit is {KEY_COLUMNS_MAX}", key.len());
    Err(place(Error::limit(SqlState::LIMIT_EXCEEDED, message), key[KEY_COLUMNS_MAX].position))
}

pub(super) fn drop_tables(names: &[Name], if_exists: bool, context: &BindContext<'_>) -> Result<Bound> {
    let mut tables: Vec<TableId> = Vec::new();
    for name in names {
        match table(name, context) {
            Ok(found) if !tables.contains(&found.id) => tables.push(found.id),
            Ok(_) => {}
            Err(_) if if_exists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Bound::DropTable { tables })
}

pub(super) fn create_index(create: &CreateIndex, context: &BindContext<'_>) -> Result<BoundCreateIndex> {
    let table = table(&create.table, context)?;
    check_key_length(&create.columns)?;
    let mut columns: Vec<ColumnId> = Vec::with_capacity(create.columns.len());
    for name in &create.columns {
        let column = table
            .column(&name.text)
            .ok_or_else(|| unknown_column(name, format!("column \"{}\" does not exist", name.text), table))?;
        if columns.contains(&column.id) {
            return Err(specified_twice(name));
        }
        columns.push(column.id);
    }
    if create.unique {
        return Err(place(Error::unsupported("UNIQUE indexes are"), create.table.position));
    }
    let name = match &create.name {
        Some(name) => name.text.clone(),
        None => made_name(create, context),
    };
    let taken = context.catalog.index(&name).is_some();
    if taken && !create.if_not_exists {
        let position = create.name.as_ref().map_or(0, |name| name.position);
        let message = format!("index \"{name}\" already exists");
        return Err(place(Error::invalid(SqlState::DUPLICATE_TABLE, message), position));
    }
    Ok(BoundCreateIndex { name, table: Arc::clone(table), columns, if_not_exists: create.if_not_exists, exists: taken })
}

/// As PostgreSQL: table and columns, then `idx`, with a number where that is taken.
fn made_name(create: &CreateIndex, context: &BindContext<'_>) -> String {
    let mut stem = create.table.text.clone();
    for column in &create.columns {
        stem.push('_');
        stem.push_str(&column.text);
    }
    // Ten bytes are left for `_idx` and a number.
    while stem.len() > NAME_BYTES_MAX - 10 {
        stem.pop();
    }
    let mut name = format!("{stem}_idx");
    let mut number = 0_u64;
    while context.catalog.index(&name).is_some() {
        number += 1;
        name = format!("{stem}_idx{number}");
    }
    name
}

pub(super) fn drop_indexes(names: &[Name], if_exists: bool, context: &BindContext<'_>) -> Result<Bound> {
    let mut indexes: Vec<(TableId, IndexId)> = Vec::new();
    for name in names {
        match context.catalog.index(&name.text) {
            Some((table, index)) if !indexes.contains(&(table.id, index.id)) => indexes.push((table.id, index.id)),
            Some(_) => {}
            None if if_exists => {}
            None => return Err(unknown_index(name, context)),
        }
    }
    Ok(Bound::DropIndex { indexes })
}

fn unknown_index(name: &Name, context: &BindContext<'_>) -> Error {
    if context.catalog.table(&name.text).is_some() {
        let message = format!("\"{}\" is not an index", name.text);
        return place(Error::invalid(SqlState::WRONG_OBJECT_TYPE, message), name.position)
            .hint("use DROP TABLE to remove a table");
    }
    let message = format!("index \"{}\" does not exist", name.text);
    let error = place(Error::invalid(SqlState::UNDEFINED_OBJECT, message), name.position);
    let indexes = context.catalog.tables().flat_map(|table: &Arc<Table>| &table.indexes);
    match suggest::hint(&name.text, indexes.map(|index| index.name.as_str())) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
