//! Evaluation of writes: from a bound statement and a read view to effects with preconditions.
//!
//! Runs on the leader, under the statement's limits, before anything is proposed. What comes out is row images, so
//! applying them needs no SQL.

use crate::error::SqlState;
use crate::ids::{ColumnId, LogIndex};
use crate::machine::{Effect, KeySet, NewIndex, NewTable, Part, RowSet, TableWrite};
use crate::sql::batch::{Batch, Column, ColumnBuilder, Strings};
use crate::sql::bind::{Bound, BoundDelete, BoundInsert, BoundUpdate, check_column};
use crate::sql::catalog::{Layout, Table};
use crate::sql::expression::Expression;
use crate::sql::plan::Access;
use crate::sql::value::Value;
use crate::storage::keys::{self, Key, KeyRange};
use crate::storage::rows::Metadata;
use crate::storage::view::{ScanRequest, View, ZoneBound};
use crate::{Error, Result};
use std::sync::Arc;

/// Rows read for one step of an evaluation.
const STEP_ROWS: usize = 1024;

/// What a writing statement comes to.
#[derive(Debug, Default)]
pub struct Effects {
    /// What to propose; nothing, where the statement changes nothing.
    pub parts: Vec<Part>,
    /// Rows that the client is told of.
    pub affected: u64,
}

/// What an evaluation may use.
pub struct Evaluation<'a> {
    /// What it reads.
    pub view: &'a View,
    /// Milliseconds: rows expire by it.
    pub now_ms: u64,
    /// Which rows may be deleted by key range.
    pub by_range: ByRange,
    /// Bytes of effects at most.
    pub effects_bytes_max: usize,
    /// Asked once a step: an error ends the evaluation.
    pub check: &'a dyn Fn() -> Result<()>,
}

/// Which rows a DELETE may end by key range: such an end hides only what has a lower position than itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByRange {
    /// Any: the command will stand above everything that the view holds.
    Any,
    /// Those below the view's own position, which is the one that a batch gives to its effects as long as it is a draft.
    Older,
    /// None: the batch has written rows of that position itself.
    Never,
}

impl Evaluation<'_> {
    /// Evaluates a statement that writes; queries are not its business.
    pub fn run(&self, bound: &Bound) -> Result<Effects> {
        match bound {
            Bound::Insert(insert) => Ok(insert_effects(insert)),
            Bound::Update(update) => self.update(update),
            Bound::Delete(delete) => self.delete(delete),
            Bound::CreateTable(create) => Ok(Effects {
                parts: vec![Part::CreateTable(NewTable {
                    name: create.definition.name.clone(),
                    columns: create.definition.columns.clone(),
                    primary_key: create.definition.primary_key.clone(),
                    ttl: create.definition.ttl,
                    if_not_exists: create.if_not_exists,
                    expected: None,
                })],
                affected: 0,
            }),
            Bound::DropTable { tables } => {
                let parts = tables.iter().map(|&table| Part::DropTable { table }).collect();
                Ok(Effects { parts, affected: 0 })
            }
            Bound::CreateIndex(create) if create.unique => Err(Error::unsupported("UNIQUE indexes are")),
            Bound::CreateIndex(create) => Ok(Effects {
                parts: vec![Part::CreateIndex(NewIndex {
                    name: create.name.clone(),
                    table: create.table.id,
                    schema: create.table.schema,
                    columns: create.columns.clone(),
                    if_not_exists: create.if_not_exists,
                })],
                affected: 0,
            }),
            Bound::DropIndex { indexes } => {
                let parts = indexes.iter().map(|&(_, index)| Part::DropIndex { index }).collect();
                Ok(Effects { parts, affected: 0 })
            }
            Bound::Query { .. } | Bound::Explain { .. } => {
                Err(Error::internal("a query was given to the evaluation of writes"))
            }
        }
    }

    fn update(&self, update: &BoundUpdate) -> Result<Effects> {
        let table = &update.table;
        let layout = table.layout();
        let visible = layout.columns.len() - table.columns.len();
        let moves = update.assignments.iter().any(|(id, _)| table.primary_key.contains(id));
        let mut written = Written::new(&layout);
        let rows = Rows { table, access: &update.access, bounds: &update.bounds, filter: update.filter.as_ref() };
        self.each(&rows, &layout, |batch, keys, metadata| {
            let input = Batch::new(batch.columns[visible..].to_vec(), batch.rows);
            let mut columns = batch.columns.clone();
            for (id, expression) in &update.assignments {
                let slot = layout.slot(*id).expect("assignments name columns of their table");
                let values = expression.evaluate(&input)?;
                let column = table.column_by_id(*id).expect("assignments name columns of their table");
                check_column(column, table, &values)?;
                columns[slot] = values;
            }
            written.add(&columns, keys, metadata, batch.rows, moves);
            written.check(self.effects_bytes_max)
        })?;
        Ok(written.into_effects(table, moves))
    }

    fn delete(&self, delete: &BoundDelete) -> Result<Effects> {
        let table = &delete.table;
        let rows = Rows { table, access: &delete.access, bounds: &delete.bounds, filter: delete.filter.as_ref() };
        let whole = delete
            .exact_ranges
            .as_ref()
            .filter(|ranges| table.indexes.is_empty() || ranges.as_slice() == [KeyRange::all()]);
        if let Some(ranges) = whole
            && self.may_delete_by_range(table, ranges)?
        {
            let affected = self.count(table, ranges)?;
            // A few rows are deleted by key: each range delete costs every later read a look.
            if affected > STEP_ROWS as u64 {
                let effects =
                    ranges.iter().map(|range| Effect::DeleteRange { from: range.from.clone(), to: range.to.clone() });
                return Ok(Effects { parts: effects.map(|effect| write(table, effect)).collect(), affected });
            }
        }
        let key_layout = table.layout();
        let (mut doomed, mut bytes) = (Vec::new(), 0);
        self.each(&rows, &key_layout, |batch, keys, _| {
            doomed.extend((0..batch.rows).map(|row| Key::new(keys.get(row))));
            bytes += keys.byte_len();
            within(bytes, doomed.len(), self.effects_bytes_max)
        })?;
        let affected = doomed.len() as u64;
        let parts =
            if doomed.is_empty() { vec![] } else { vec![write(table, Effect::Delete { keys: KeySet(doomed) })] };
        Ok(Effects { parts, affected })
    }

    fn may_delete_by_range(&self, table: &Table, ranges: &[KeyRange]) -> Result<bool> {
        let older = |range| Ok(!self.view.changed_since(table.keyspace, range, self.view.version.previous())?);
        match self.by_range {
            ByRange::Any => Ok(true),
            ByRange::Older => ranges.iter().try_fold(true, |all, range| Ok(all && older(range)?)),
            ByRange::Never => Ok(false),
        }
    }

    fn count(&self, table: &Table, ranges: &[KeyRange]) -> Result<u64> {
        let mut scanner = self.view.scan(ScanRequest {
            keyspace: table.keyspace,
            ranges: ranges.to_vec(),
            columns: vec![],
            bounds: vec![],
            expired_below_ms: table.expired_below(self.now_ms),
            with_keys: false,
            batch_rows: STEP_ROWS,
        })?;
        let mut count = 0;
        while let Some(batch) = scanner.next_batch()? {
            (self.check)()?;
            count += batch.batch.rows as u64;
        }
        Ok(count)
    }

    /// Calls `visit` with the rows that pass, all columns of the layout, a step at a time.
    fn each(
        &self,
        rows: &Rows<'_>,
        layout: &Layout,
        mut visit: impl FnMut(&Batch, &Strings, &Metadata) -> Result<()>,
    ) -> Result<()> {
        let hidden = layout.columns.len() - rows.table.columns.len();
        let columns: Vec<ColumnId> = layout.columns.iter().map(|column| column.id).collect();
        let mut step = |batch: &Batch, keys: &Strings, metadata: &Metadata| {
            (self.check)()?;
            let Some(filter) = rows.filter else { return visit(batch, keys, metadata) };
            let verdict = filter.evaluate(&Batch::new(batch.columns[hidden..].to_vec(), batch.rows))?;
            let passing: Vec<u32> =
                (0..batch.rows as u32).filter(|&row| verdict.value(row as usize) == Value::Bool(true)).collect();
            if passing.is_empty() {
                return Ok(());
            }
            let keys: Strings = passing.iter().map(|&row| keys.get(row as usize)).collect();
            let mut kept = Metadata::default();
            passing.iter().for_each(|&row| kept.push(metadata.stamp(row as usize), false));
            visit(&batch.gather(&passing), &keys, &kept)
        };
        match rows.access {
            Access::Primary { ranges } => {
                let mut scanner = self.view.scan(ScanRequest {
                    keyspace: rows.table.keyspace,
                    ranges: ranges.clone(),
                    columns,
                    bounds: rows.bounds.to_vec(),
                    expired_below_ms: rows.table.expired_below(self.now_ms),
                    with_keys: true,
                    batch_rows: STEP_ROWS,
                })?;
                while let Some(batch) = scanner.next_batch()? {
                    let (keys, metadata) = batch.keys.expect("keys were asked for");
                    step(&batch.batch, &keys, &metadata)?;
                }
                Ok(())
            }
            Access::Index { index, ranges } => {
                let index = rows.table.indexes.iter().find(|known| known.id == *index);
                let index = index.ok_or_else(|| Error::conflict("the index was dropped meanwhile"))?;
                let entries = rows.table.index_layout(index);
                let mut scanner = self.view.scan(ScanRequest {
                    keyspace: index.keyspace,
                    ranges: ranges.clone(),
                    columns: rows.table.key_columns(),
                    bounds: vec![],
                    expired_below_ms: rows.table.expired_below(self.now_ms),
                    with_keys: false,
                    batch_rows: STEP_ROWS,
                })?;
                debug_assert!(rows.table.key_columns().iter().all(|id| entries.slot(*id).is_some()));
                while let Some(batch) = scanner.next_batch()? {
                    let (rows, keys, metadata) = self.look_up(rows.table, layout, &batch.batch)?;
                    step(&rows, &keys, &metadata)?;
                }
                Ok(())
            }
        }
    }

    /// The rows whose key columns stand in `entries`.
    fn look_up(&self, table: &Table, layout: &Layout, entries: &Batch) -> Result<(Batch, Strings, Metadata)> {
        let ids: Vec<ColumnId> = layout.columns.iter().map(|column| column.id).collect();
        let mut builders: Vec<ColumnBuilder> =
            layout.columns.iter().map(|column| ColumnBuilder::new(column.data_type, entries.rows)).collect();
        let (mut found_keys, mut metadata) = (Strings::default(), Metadata::default());
        let mut key = Vec::new();
        for row in 0..entries.rows {
            key.clear();
            entries.columns.iter().for_each(|column| keys::push_cell(&mut key, column, row));
            let Some(found) = self.view.get(table.keyspace, &key, &ids)? else { continue };
            let Some(values) = found.values else { continue };
            builders.iter_mut().zip(&values).for_each(|(builder, value)| builder.push(value));
            found_keys.push(&key);
            metadata.push(found.stamp, false);
        }
        let columns = builders.into_iter().map(|builder| Arc::new(builder.finish())).collect();
        Ok((Batch::new(columns, metadata.len()), found_keys, metadata))
    }
}

/// Which rows an UPDATE or DELETE is about.
struct Rows<'a> {
    table: &'a Table,
    access: &'a Access,
    bounds: &'a [ZoneBound],
    filter: Option<&'a Expression>,
}

/// New versions of rows, gathered step by step.
struct Written {
    columns: Vec<(ColumnId, ColumnBuilder)>,
    created_ms: Vec<u64>,
    /// Keys of the versions that end, where the key itself changes.
    ended: Vec<Key>,
    bytes: usize,
}

impl Written {
    fn new(layout: &Layout) -> Written {
        let columns = layout.columns.iter().map(|column| (column.id, ColumnBuilder::new(column.data_type, 0)));
        Written { columns: columns.collect(), created_ms: vec![], ended: vec![], bytes: 0 }
    }

    fn add(&mut self, columns: &[Arc<Column>], keys: &Strings, metadata: &Metadata, rows: usize, moves: bool) {
        for ((_, builder), column) in self.columns.iter_mut().zip(columns) {
            builder.extend(column, 0, rows);
            self.bytes += column.byte_len();
        }
        self.created_ms.extend_from_slice(&metadata.created_ms);
        self.bytes += rows * 8;
        if moves {
            self.ended.extend((0..rows).map(|row| Key::new(keys.get(row))));
            self.bytes += keys.byte_len();
        }
    }

    fn check(&self, bytes_max: usize) -> Result<()> {
        within(self.bytes, self.created_ms.len(), bytes_max)
    }

    fn into_effects(self, table: &Table, moves: bool) -> Effects {
        let rows = self.created_ms.len();
        if rows == 0 {
            return Effects::default();
        }
        let columns = self.columns.into_iter().map(|(id, builder)| (id, Arc::new(builder.finish()))).collect();
        let set = RowSet { columns, rows };
        // A row whose key changes ends under the old key and begins, at its age, under the new one.
        let parts = if moves {
            vec![
                write(table, Effect::Delete { keys: KeySet(self.ended) }),
                write(table, Effect::Insert { rows: set, created_ms: Some(self.created_ms) }),
            ]
        } else {
            vec![write(table, Effect::Replace { rows: set, created_ms: self.created_ms })]
        };
        Effects { parts, affected: rows as u64 }
    }
}

/// The effects of an INSERT of constants, which needs no view.
pub fn insert_effects(insert: &BoundInsert) -> Effects {
    if insert.rows == 0 {
        return Effects::default();
    }
    let ids = insert.table.columns.iter().map(|column| column.id);
    let rows = RowSet { columns: ids.zip(insert.columns.iter().cloned()).collect(), rows: insert.rows };
    Effects {
        parts: vec![write(&insert.table, Effect::Insert { rows, created_ms: None })],
        affected: insert.rows as u64,
    }
}

fn write(table: &Table, effect: Effect) -> Part {
    Part::Write(TableWrite { table: table.id, schema: table.schema, effect })
}

fn within(bytes: usize, rows: usize, bytes_max: usize) -> Result<()> {
    if bytes <= bytes_max { Ok(()) } else { Err(too_much(bytes_max, rows as u64)) }
}

/// Why a statement or batch with more effects than the limit is not proposed.
pub fn too_much(bytes_max: usize, rows: u64) -> Error {
    let message = format!(
        "the statement writes more than limits.statement_effects_max, {bytes_max} bytes ({rows} rows so far): \
         split it by key ranges"
    );
    Error::limit(SqlState::LIMIT_EXCEEDED, message)
}

/// The position that effects computed at `view` were read at.
pub fn read_index(view: &View) -> LogIndex {
    view.version
}
