//! Evaluation of writes: from a bound statement and a read view to effects with preconditions.
//!
//! Runs on the leader, under the statement's limits. What comes out is row images, so applying them needs no SQL; and it
//! comes out in slices, so neither does a statement about a million rows need memory for a million rows.

mod insert;
mod key_size;
mod literals;
mod rows;
mod slices;

use crate::error::SqlState;
use crate::machine::{Effect, NewIndex, NewTable, Part, RowSet, TableWrite};
use crate::sql::bind::{Bound, BoundDelete, BoundInsert};
use crate::sql::catalog::Table;
use crate::storage::keys::KeyRange;
use crate::storage::view::{ScanItem, ScanRequest, View};
use crate::{Error, Result};
use insert::InsertSlices;
use rows::{RowReader, Selection};
use slices::Source;
use std::task::Poll;

pub use key_size::{KEY_BYTES_MAX, check_parts};
pub use literals::{LONG_BYTES_MIN, LiteralSlices};
pub use slices::Slices;

/// Rows read for one step of an evaluation.
const STEP_ROWS: usize = 1024;

/// Batches read, or blocks counted, after which others have their turn: about a millisecond, beside which the turn costs
/// nothing.
const YIELD_STEPS: usize = 4;

/// Bytes of rows looked up for one step, about; a scan bounds its batches alike.
const STEP_BYTES: usize = 1 << 20;

/// Bytes that apply takes for a row beside its values: its key, its stamp, its places in the staged write and in the
/// memtable. Measured on rows of a key and two numbers.
const ROW_BYTES: usize = 128;

/// What a writing statement comes to.
#[derive(Debug, Default)]
pub struct Effects {
    /// What to propose; nothing, where the statement changes nothing.
    pub parts: Vec<Part>,
    /// Rows that the client is told of.
    pub affected: u64,
}

/// What an evaluation may use.
#[derive(Clone, Copy)]
pub struct Evaluation<'a> {
    /// What it reads.
    pub view: &'a View,
    /// Milliseconds: rows expire by it.
    pub now_ms: u64,
    /// Which rows may be deleted by key range.
    pub by_range: ByRange,
    /// Bytes of effects at most.
    pub effects_bytes_max: usize,
    /// Bytes of memory that a slice of them should take; all of it in one where there is no limit.
    pub slice_bytes_max: usize,
    /// Bytes of memory that effects which cannot be cut may take.
    pub whole_bytes_max: usize,
    /// Asked once a step: an error ends the evaluation.
    pub check: &'a (dyn Fn() -> Result<()> + Send + Sync),
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

impl<'a> Evaluation<'a> {
    /// All effects of a statement at once, as a batch needs them; queries are not its business.
    pub async fn run(self, bound: &'a Bound) -> Result<Effects> {
        let mut slices = Evaluation { slice_bytes_max: usize::MAX, ..self }.slices(bound).await?;
        Ok(slices.next_slice().await?.unwrap_or_default())
    }

    /// The effects of an INSERT of which the rows are still text.
    pub fn literals(self, literals: LiteralSlices<'a>) -> Slices<'a> {
        Slices { evaluation: self, source: Source::Literals(literals), bytes: 0, rows: 0 }
    }

    /// The effects of a statement, to be taken slice by slice. Where all of a table is read before the first one, others
    /// have their turn in between.
    pub async fn slices(self, bound: &'a Bound) -> Result<Slices<'a>> {
        let source = match bound {
            Bound::Insert(insert) => {
                Source::Insert(InsertSlices::new(insert.clone(), self.slice_bytes_max, self.whole_bytes_max)?)
            }
            Bound::Update(update) => Source::update(update, &self)?,
            Bound::Delete(delete) => self.delete(delete).await?,
            Bound::CreateIndex(create) => {
                let effects = definition(bound)?;
                self.check_index(create).await?;
                Source::Whole(Some(effects))
            }
            Bound::CreateTable(_) | Bound::DropTable { .. } | Bound::DropIndex { .. } => {
                Source::Whole(Some(definition(bound)?))
            }
            Bound::Query { .. } | Bound::Explain { .. } => {
                return Err(Error::internal("a query was given to the evaluation of writes"));
            }
        };
        Ok(Slices { evaluation: self, source, bytes: 0, rows: 0 })
    }

    async fn delete(&self, delete: &'a BoundDelete) -> Result<Source<'a>> {
        let table = &delete.table;
        let whole = delete
            .exact_ranges
            .as_ref()
            .filter(|ranges| table.indexes.is_empty() || ranges.as_slice() == [KeyRange::all()]);
        if let Some(ranges) = whole
            && self.may_delete_by_range(table, ranges)?
        {
            let affected = self.count(table, ranges).await?;
            // A few rows are deleted by key: each range delete costs every later read a look.
            if affected > STEP_ROWS as u64 {
                let effects =
                    ranges.iter().map(|range| Effect::DeleteRange { from: range.from.clone(), to: range.to.clone() });
                let parts = effects.map(|effect| write(table, effect)).collect();
                return Ok(Source::Whole(Some(Effects { parts, affected })));
            }
        }
        let (access, bounds, filter) = (&delete.access, &delete.bounds, delete.filter.as_ref());
        let rows = RowReader::new(&Selection { table, access, bounds, filter }, self.view, self.now_ms)?;
        Ok(Source::Delete { table: table.clone(), rows })
    }

    fn may_delete_by_range(&self, table: &Table, ranges: &[KeyRange]) -> Result<bool> {
        let older = |range| Ok(!self.view.changed_since(table.keyspace, range, self.view.version.previous())?);
        match self.by_range {
            ByRange::Any => Ok(true),
            ByRange::Older => ranges.iter().try_fold(true, |all, range| Ok(all && older(range)?)),
            ByRange::Never => Ok(false),
        }
    }

    async fn count(&self, table: &Table, ranges: &[KeyRange]) -> Result<u64> {
        let mut scanner = self.view.scan(ScanRequest {
            keyspace: table.keyspace,
            ranges: ranges.to_vec(),
            columns: vec![],
            bounds: vec![],
            expired_below_ms: table.expired_below(self.now_ms),
            with_keys: false,
            batch_rows: STEP_ROWS,
        })?;
        let (mut count, mut steps) = (0, 0_usize);
        while let Some(item) = scanner.next_summary()? {
            (self.check)()?;
            steps += 1;
            count += match item {
                // Most blocks are counted without being read.
                ScanItem::Summary(summary) => u64::from(summary.rows - summary.tombstones),
                ScanItem::Batch(found) => found.batch.rows as u64,
            };
            if steps.is_multiple_of(YIELD_STEPS) {
                give_way().await;
            }
        }
        Ok(count)
    }
}

/// Lets whatever else runs on this thread have its turn, in any runtime.
async fn give_way() {
    let mut given = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn definition(bound: &Bound) -> Result<Effects> {
    let parts = match bound {
        Bound::CreateTable(create) => vec![Part::CreateTable(NewTable {
            name: create.definition.name.clone(),
            columns: create.definition.columns.clone(),
            primary_key: create.definition.primary_key.clone(),
            ttl: create.definition.ttl,
            if_not_exists: create.if_not_exists,
            expected: None,
        })],
        Bound::DropTable { tables } => tables.iter().map(|&table| Part::DropTable { table }).collect(),
        Bound::CreateIndex(create) => vec![Part::CreateIndex(NewIndex {
            name: create.name.clone(),
            table: create.table.id,
            schema: create.table.schema,
            columns: create.columns.clone(),
            if_not_exists: create.if_not_exists,
        })],
        Bound::DropIndex { indexes } => indexes.iter().map(|&(_, index)| Part::DropIndex { index }).collect(),
        Bound::Insert(_) | Bound::Update(_) | Bound::Delete(_) | Bound::Query { .. } | Bound::Explain { .. } => {
            return Err(Error::internal("a statement about rows was given for a definition"));
        }
    };
    Ok(Effects { parts, affected: 0 })
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

/// Why a statement or batch with more effects than the limit is not proposed.
pub fn too_much(bytes_max: usize, rows: u64) -> Error {
    let message = format!(
        "the statement writes more than limits.statement_effects_max, {bytes_max} bytes ({rows} rows so far): \
         split it by key ranges"
    );
    Error::limit(SqlState::LIMIT_EXCEEDED, message)
}
