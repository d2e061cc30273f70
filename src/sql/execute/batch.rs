//! A batch in the making: what its statements did so far, seen only by themselves.
//!
//! Effects go into a memtable of the batch's own, which later statements read in front of everything else. Its rows
//! carry the read position as their version, so they count as read, not as someone else's change.

use super::{Answer, Executor, Group, RowStream, Task, context};
use crate::error::SqlState;
use crate::hlc::Timestamp;
use crate::ids::{OriginUid, TableId};
use crate::machine::{Effect, Part, preview};
use crate::sql::batch::{Batch, Column, Values};
use crate::sql::bind::{Bound, bind};
use crate::sql::catalog::{Catalog, ROW_ID_COLUMNS};
use crate::sql::evaluate::{ByRange, Effects};
use crate::sql::insert::{LiteralInsert, bind_literal_insert};
use crate::sql::operator::Operator;
use crate::sql::optimize::optimize_bound;
use crate::sql::statement::Statement;
use crate::sql::value::{DataType, Value};
use crate::storage::memtable::Memtable;
use crate::storage::view::View;
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a batch's texts of which the trees are kept from their parsing to their execution: a tree takes up to sixty
/// times its text.
const KEPT_TEXT_BYTES_MAX: usize = 256 << 10;

/// Ordinals of hidden row ids that a leader draws ahead of the log: their high bit keeps them apart from those that
/// apply draws, and within one instant of one process no two are the same.
const DRAWN_ORDINAL: i64 = 1 << 32;

/// Bytes that the end of a statement without rows takes in an answer at most: a sign of success, a number of ten bytes,
/// and what stands in front of them. Thousands of them are no small answer.
const DONE_BYTES: usize = 16;

static NEXT_ORDINAL: AtomicU32 = AtomicU32::new(0);

/// What a batch did so far.
pub(super) struct Draft {
    base: View,
    catalog: Arc<Catalog>,
    scratch: Arc<Memtable>,
    instant: Timestamp,
    origin: OriginUid,
    parts: Vec<Part>,
    affected: u64,
    /// Bytes of what its statements answered.
    answered_bytes: usize,
}

impl Draft {
    pub(super) fn new(base: View, instant: Timestamp, origin: OriginUid) -> Draft {
        let catalog = base.catalog.clone();
        Draft {
            base,
            catalog,
            scratch: Arc::new(Memtable::new()),
            instant,
            origin,
            parts: vec![],
            affected: 0,
            answered_bytes: 0,
        }
    }

    /// What the next statement reads.
    fn view(&self) -> View {
        self.base.with_memtable(self.scratch.clone()).with_catalog(self.catalog.clone())
    }

    fn add(&mut self, effects: Effects) -> Result<()> {
        self.affected += effects.affected;
        for mut part in effects.parts {
            self.settle(&mut part);
            let done = preview(&part, &self.catalog, &self.view(), self.instant, self.origin)?;
            self.catalog = done.catalog;
            done.staged.write(&self.scratch);
            self.parts.push(part);
        }
        Ok(())
    }

    /// Draws what later statements may refer to: the identity of a new table, the row ids of new rows.
    fn settle(&self, part: &mut Part) {
        match part {
            Part::CreateTable(new) if self.catalog.table(&new.name).is_none() => {
                new.expected = Some((*self.catalog).clone().allocate_table().0);
            }
            Part::Write(write) => {
                let has_row_id = self.catalog.table_by_id(write.table).is_some_and(|table| table.has_row_id());
                if let (true, Effect::Insert { rows, .. }) = (has_row_id, &mut write.effect)
                    && rows.column(ROW_ID_COLUMNS[0]).is_none()
                {
                    let constant = |value| Arc::new(Column::constant(Value::Int(value), DataType::Int, rows.rows));
                    let ordinals = (0..rows.rows)
                        .map(|_| DRAWN_ORDINAL | i64::from(NEXT_ORDINAL.fetch_add(1, Ordering::Relaxed)))
                        .collect();
                    let drawn = [
                        constant(self.instant.0 as i64),
                        constant(self.origin.0 as i64),
                        Arc::new(Column::new(Values::Int(ordinals))),
                    ];
                    rows.columns.extend(ROW_ID_COLUMNS.into_iter().zip(drawn));
                }
            }
            Part::CreateTable(_) | Part::DropTable { .. } | Part::CreateIndex(_) | Part::DropIndex { .. } => {}
        }
    }

    /// The tables it writes to: what to latch if someone else wrote to them first.
    pub(super) fn tables(&self) -> Vec<TableId> {
        let table = |part: &Part| match part {
            Part::Write(write) => Some(write.table),
            Part::CreateTable(_) | Part::DropTable { .. } | Part::CreateIndex(_) | Part::DropIndex { .. } => None,
        };
        self.parts.iter().filter_map(table).collect()
    }

    pub(super) fn into_effects(self) -> Effects {
        Effects { parts: self.parts, affected: self.affected }
    }
}

impl Executor {
    /// Looks at all statements of a batch before any is executed: their trees, where they are short enough to be kept.
    /// An INSERT of literals has none.
    pub(super) fn look_through(
        &self,
        group: &dyn Group,
        texts: &[&str],
    ) -> Result<Vec<Option<Statement>>, (usize, Error)> {
        let (view, instant) = (group.view().map_err(|error| (0, error))?, group.instant());
        let keeps = texts.iter().map(|sql| sql.len()).sum::<usize>() <= KEPT_TEXT_BYTES_MAX;
        let tree = |sql: &str| {
            self.limits.parse.check_text(sql)?;
            if LiteralInsert::begin(sql, &context(&view.catalog, instant)).is_some_and(|insert| insert.is_plain()) {
                return Ok(None);
            }
            match self.parse(sql) {
                // It may be an INSERT, which takes no such memory when its turn comes.
                Err(error) if matches!(error.sqlstate(), SqlState::OUT_OF_MEMORY | SqlState::LIMIT_EXCEEDED) => {
                    Ok(None)
                }
                parsed => parsed.map(|statement| keeps.then_some(statement)),
            }
        };
        texts.iter().enumerate().map(|(at, sql)| tree(sql).map_err(|error| (at, error))).collect()
    }

    /// Runs the next statement of a batch, of which there may be a tree, on what the ones before it did.
    pub(super) async fn step(
        &self,
        draft: &mut Draft,
        (sql, tree): (&str, Option<&Statement>),
        task: &Task,
    ) -> Result<Answer> {
        (task.check)()?;
        let view = draft.view();
        let bound = self.bind_step((sql, tree), &view, draft.instant, task).await?;
        if let Some(stream) = self.query(&bound, &view, draft.instant, task)? {
            return self.hold(draft, stream);
        }
        task.access.check_write()?;
        if matches!(bound, Bound::CreateIndex(_)) {
            return Err(Error::invalid(
                SqlState::FEATURE_NOT_SUPPORTED,
                "CREATE INDEX cannot run inside a batch: it fills the index in steps of its own",
            ));
        }
        let has_written = draft.parts.iter().any(|part| matches!(part, Part::Write(_)));
        let by_range = if has_written { ByRange::Never } else { ByRange::Older };
        let effects = self.evaluation(&view, draft.instant, task, by_range).run(&bound).await?;
        let affected = effects.affected;
        self.count(draft, DONE_BYTES)?;
        draft.add(effects)?;
        // Its statements see each other, here and on every replica, so all of it must be in memory at once.
        if draft.scratch.bytes() > self.limits.whole_bytes_max {
            let message = format!(
                "the batch writes more than {} bytes of memory hold: send it in parts, or its statements one by one",
                self.limits.whole_bytes_max
            );
            return Err(Error::limit(SqlState::LIMIT_EXCEEDED, message));
        }
        Ok(Answer::Done { affected })
    }

    async fn bind_step(
        &self,
        (sql, tree): (&str, Option<&Statement>),
        view: &View,
        instant: Timestamp,
        task: &Task,
    ) -> Result<Bound> {
        let context = context(&view.catalog, instant);
        if let Some(tree) = tree {
            return Ok(optimize_bound(bind(tree, &context)?, view));
        }
        if let Some(insert) = bind_literal_insert(sql, &context) {
            return Ok(Bound::Insert(insert));
        }
        match self.whole_insert(sql, view, instant, task).await? {
            Some(insert) => Ok(insert),
            None => self.bind(sql, &mut None, view, instant),
        }
    }

    /// A later statement must not change what an earlier one answered, so its rows are taken now.
    fn hold(&self, draft: &mut Draft, mut stream: RowStream) -> Result<Answer> {
        let mut batches = Vec::new();
        self.count(draft, (self.limits.sent_bytes)(&stream.columns, &[]))?;
        while let Some(batch) = stream.next_batch()? {
            let held = batch.columns.iter().map(|column| column.byte_len()).sum::<usize>();
            self.count(draft, held.max((self.limits.sent_bytes)(&[], std::slice::from_ref(&batch))))?;
            batches.push(batch);
        }
        Ok(Answer::Rows(RowStream { columns: stream.columns, source: Box::new(Held::new(batches)) }))
    }

    /// Counts what a statement of the batch answers.
    fn count(&self, draft: &mut Draft, bytes: usize) -> Result<()> {
        draft.answered_bytes += bytes;
        let bytes_max = self.limits.batch_result_bytes_max;
        if draft.answered_bytes <= bytes_max {
            return Ok(());
        }
        let message = format!("the batch answers more than {bytes_max} bytes: send it in parts, or its queries alone");
        Err(Error::limit(SqlState::LIMIT_EXCEEDED, message))
    }
}

/// Rows that were computed before.
pub(super) struct Held {
    batches: std::vec::IntoIter<Batch>,
}

impl Held {
    pub(super) fn new(batches: Vec<Batch>) -> Held {
        Held { batches: batches.into_iter() }
    }
}

impl Operator for Held {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        Ok(self.batches.next())
    }
}
