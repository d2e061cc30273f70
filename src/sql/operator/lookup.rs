//! Rows by key: keys that stand in the statement, or that an index scan finds.
//!
//! * Rows come in the order of their keys in the list or of their entries in the index.
//! * A call ends early where the rows found are large: the keys that are left are looked up by the next one.
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
use std::ops::Deref;
use std::sync::Arc;

/// Bytes of rows that one call gives, about; a scan bounds its batches alike.
const LOOKUP_BYTES_MAX: usize = 1 << 20;

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
    /// Keys to be looked up next.
    keys: VecDeque<Vec<u8>>,
}

impl IndexKeys {
    pub(super) fn new(entries: Box<dyn BatchSource>) -> IndexKeys {
        IndexKeys { entries, current: None, keys: VecDeque::new() }
    }

    /// Makes sure that there are keys; false at the end.
    fn fill(&mut self) -> Result<bool> {
        if !self.keys.is_empty() {
            return Ok(true);
        }
        let (batch, from) = match self.current.take() {
            Some(current) => current,
            None => match self.entries.next_batch()? {
                Some(scanned) => (scanned.batch, 0),
                None => return Ok(false),
            },
        };
        let to = batch.rows.min(from + LOOKUPS_MAX);
        for row in from..to {
            let mut key = Vec::with_capacity(32);
            batch.columns.iter().for_each(|column| keys::push_cell(&mut key, column, row));
            self.keys.push_back(key);
        }
        if to < batch.rows {
            self.current = Some((batch, to));
        }
        Ok(true)
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

    /// The rows of the first keys, which are taken off the list.
    fn rows<K: Deref<Target = [u8]>>(&self, keys: &mut VecDeque<K>) -> Result<Batch> {
        let reserved = keys.len().min(LOOKUPS_MAX);
        let mut columns: Vec<ColumnBuilder> =
            self.types.iter().map(|&data_type| ColumnBuilder::new(data_type, reserved)).collect();
        let (mut rows, mut bytes) = (0, 0);
        for _ in 0..LOOKUPS_MAX {
            let Some(key) = keys.pop_front() else { break };
            let Some(found) = self.points.get(&key)? else { continue };
            if found.stamp.created_ms < self.expired_below_ms {
                continue;
            }
            let Some(values) = found.values else { continue };
            columns
                .iter_mut()
                .zip(&values)
                .for_each(|(column, value): (&mut ColumnBuilder, &Value)| column.push(value));
            rows += 1;
            bytes += values.iter().map(Value::byte_len).sum::<usize>();
            if bytes >= LOOKUP_BYTES_MAX {
                break;
            }
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
        // Taken out while it is worked on: what reads it borrows the operator.
        let mut keys = std::mem::replace(&mut self.keys, Keys::Listed(VecDeque::new()));
        let batch = match &mut keys {
            Keys::Listed(listed) => (!listed.is_empty()).then(|| self.rows(listed)).transpose()?,
            Keys::Index(entries) => entries.fill()?.then(|| self.rows(&mut entries.keys)).transpose()?,
        };
        self.keys = keys;
        match (&self.filter, batch) {
            (Some(filter), Some(batch)) if batch.rows > 0 => Ok(Some(keep(batch, filter)?)),
            (Some(_) | None, batch) => Ok(batch),
        }
    }
}
