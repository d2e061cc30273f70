//! Rows by key: keys that stand in the statement, or that an index scan finds.
//!
//! * Rows come in the order of their keys in the list or of their entries in the index.
//! * A key without a row gives nothing: it was deleted, or it has expired.

use super::filter::keep;
use super::source::{BatchSource, PointSource};
use super::{Context, LOOKUPS_MAX, Operator, pause};
use crate::error::{Error, Result};
use crate::ids::ColumnId;
use crate::sql::batch::{Batch, ColumnBuilder};
use crate::sql::catalog::Table;
use crate::sql::expression::Expression;
use crate::sql::value::{DataType, Value};
use crate::storage::keys::{self, Key};
use std::collections::VecDeque;
use std::sync::Arc;

/// Where keys come from.
pub(super) enum Keys {
    /// From the statement.
    Listed(VecDeque<Key>),
    /// From an index.
    Index(IndexKeys),
}

/// Entries of an index, of which the columns are the table's key.
pub(super) struct IndexKeys {
    entries: Box<dyn BatchSource>,
    /// The batch at hand and its next row.
    current: Option<(Batch, usize)>,
}

impl IndexKeys {
    pub(super) fn new(entries: Box<dyn BatchSource>) -> IndexKeys {
        IndexKeys { entries, current: None }
    }

    /// The next keys, at most so many; none at the end.
    fn next(&mut self, count: usize) -> Result<Option<Vec<Vec<u8>>>> {
        let (batch, from) = match self.current.take() {
            Some(current) => current,
            None => match self.entries.next_batch()? {
                Some(scanned) => (scanned.batch, 0),
                None => return Ok(None),
            },
        };
        let to = batch.rows.min(from + count);
        let mut keys = Vec::with_capacity(to - from);
        for row in from..to {
            let mut key = Vec::with_capacity(32);
            batch.columns.iter().for_each(|column| keys::push_cell(&mut key, column, row));
            keys.push(key);
        }
        if to < batch.rows {
            self.current = Some((batch, to));
        }
        Ok(Some(keys))
    }
}

/// Looks up rows, at most [`LOOKUPS_MAX`] a call.
pub(super) struct Lookup {
    keys: Keys,
    points: Box<dyn PointSource>,
    types: Vec<DataType>,
    expired_below_ms: u64,
    filter: Option<Expression>,
    context: Context,
}

impl Lookup {
    pub(super) fn new(
        table: &Table,
        columns: &[ColumnId],
        keys: Keys,
        filter: Option<Expression>,
        context: &Context,
    ) -> Result<Lookup> {
        let layout = table.layout();
        let types = columns
            .iter()
            .map(|&id| {
                let slot = layout.slot(id).ok_or_else(|| {
                    Error::internal(format!("column {id} does not belong to table \"{}\"", table.name))
                })?;
                Ok(layout.columns[slot].data_type)
            })
            .collect::<Result<Vec<DataType>>>()?;
        Ok(Lookup {
            keys,
            points: context.source.points(table.keyspace, columns)?,
            types,
            expired_below_ms: table.expired_below(context.now_ms),
            filter,
            context: context.clone(),
        })
    }

    fn rows<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Batch> {
        let mut columns: Vec<ColumnBuilder> =
            self.types.iter().map(|&data_type| ColumnBuilder::new(data_type, keys.len())).collect();
        let mut rows = 0;
        for key in keys {
            let Some(found) = self.points.get(key.as_ref())? else { continue };
            if found.stamp.created_ms < self.expired_below_ms {
                continue;
            }
            let Some(values) = found.values else { continue };
            columns
                .iter_mut()
                .zip(&values)
                .for_each(|(column, value): (&mut ColumnBuilder, &Value)| column.push(value));
            rows += 1;
        }
        if rows == 0 {
            return Ok(pause());
        }
        Ok(Batch { columns: columns.into_iter().map(|column| Arc::new(column.finish())).collect(), rows })
    }
}

impl Operator for Lookup {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        (self.context.interrupt)()?;
        let batch = match &mut self.keys {
            Keys::Listed(keys) if keys.is_empty() => return Ok(None),
            Keys::Listed(keys) => {
                let count = keys.len().min(LOOKUPS_MAX);
                let keys: Vec<Key> = keys.drain(..count).collect();
                let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
                self.rows(&keys)?
            }
            Keys::Index(entries) => match entries.next(LOOKUPS_MAX)? {
                Some(keys) => self.rows(&keys)?,
                None => return Ok(None),
            },
        };
        match &self.filter {
            Some(filter) if batch.rows > 0 => Ok(Some(keep(batch, filter)?)),
            Some(_) | None => Ok(Some(batch)),
        }
    }
}
