//! Definitions: what CREATE and DROP do to the catalog.

use super::command::{NewIndex, NewTable};
use crate::error::SqlState;
use crate::ids::{IndexId, LogIndex, SchemaVersion, TableId};
use crate::sql::catalog::{Catalog, Index, IndexState, Table};
use crate::{Error, Result};

/// Tables at most: each costs memory in the catalog, which every view and state record holds.
pub const TABLES_MAX: usize = 10_000;

/// Indexes of one table at most: each write maintains all of them.
pub const INDEXES_MAX: usize = 64;

/// What a definition did: nothing, where `IF NOT EXISTS` found it done.
pub(super) fn create_table(catalog: &mut Catalog, new: &NewTable) -> Result<()> {
    if catalog.table(&new.name).is_some() {
        return if new.if_not_exists && new.expected.is_some() {
            // Later parts were bound to the columns of this definition, not to those of the table that is there.
            Err(Error::conflict("the table was created meanwhile"))
        } else if new.if_not_exists {
            Ok(())
        } else {
            Err(Error::invalid(SqlState::DUPLICATE_TABLE, format!("table \"{}\" already exists", new.name)))
        };
    }
    if catalog.tables().count() >= TABLES_MAX {
        return Err(Error::invalid(SqlState::LIMIT_EXCEEDED, format!("there are {TABLES_MAX} tables already")));
    }
    let (id, keyspace) = catalog.allocate_table();
    if new.expected.is_some_and(|expected| expected != id) {
        return Err(Error::conflict("another table was created meanwhile"));
    }
    catalog.put(Table {
        id,
        name: new.name.clone(),
        schema: SchemaVersion(1),
        keyspace,
        columns: new.columns.clone(),
        primary_key: new.primary_key.clone(),
        ttl: new.ttl,
        expired_below_ms: 0,
        floor: LogIndex(0),
        indexes: Vec::new(),
    });
    Ok(())
}

pub(super) fn drop_table(catalog: &mut Catalog, id: TableId) -> Result<()> {
    // The statement named a table; that it is gone by now is another statement's doing.
    catalog.remove(id).map(drop).ok_or_else(|| Error::conflict("the table was dropped meanwhile"))
}

pub(super) fn create_index(catalog: &mut Catalog, new: &NewIndex) -> Result<()> {
    if catalog.index(&new.name).is_some() {
        return if new.if_not_exists {
            Ok(())
        } else {
            Err(Error::invalid(SqlState::DUPLICATE_TABLE, format!("index \"{}\" already exists", new.name)))
        };
    }
    let table = catalog.table_by_id(new.table).filter(|table| table.schema == new.schema);
    let Some(table) = table else {
        return Err(Error::conflict("the table was changed since the statement was planned"));
    };
    if table.indexes.len() >= INDEXES_MAX {
        let message = format!("table \"{}\" has {INDEXES_MAX} indexes already", table.name);
        return Err(Error::invalid(SqlState::LIMIT_EXCEEDED, message));
    }
    let mut table = (**table).clone();
    let (id, keyspace) = catalog.allocate_index();
    table.indexes.push(Index {
        id,
        name: new.name.clone(),
        keyspace,
        columns: new.columns.clone(),
        unique: false,
        state: IndexState::Building { done_below: Vec::new() },
    });
    replace(catalog, table);
    Ok(())
}

pub(super) fn drop_index(catalog: &mut Catalog, id: IndexId) -> Result<()> {
    let (mut table, at) = find_index(catalog, id)?;
    table.indexes.remove(at);
    replace(catalog, table);
    Ok(())
}

/// Notes how far an index is built. Writers maintain it from its first moment, so the definition that they are bound to
/// is the same before and after: a long build must not make every one of them evaluate again.
pub(super) fn set_index_state(catalog: &mut Catalog, id: IndexId, state: IndexState) -> Result<()> {
    let (mut table, at) = find_index(catalog, id)?;
    table.indexes[at].state = state;
    catalog.put(table);
    Ok(())
}

fn find_index(catalog: &Catalog, id: IndexId) -> Result<(Table, usize)> {
    let found = catalog.tables().find_map(|table| {
        let at = table.indexes.iter().position(|index| index.id == id)?;
        Some(((**table).clone(), at))
    });
    found.ok_or_else(|| Error::conflict("the index was dropped meanwhile"))
}

/// Puts a changed definition in the place of the old; commands bound to the old one conflict.
pub(super) fn replace(catalog: &mut Catalog, mut table: Table) {
    table.schema = SchemaVersion(table.schema.0 + 1);
    catalog.put(table);
}
