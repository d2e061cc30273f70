//! Effects slice by slice: a statement that touches every row of a table must not hold them all in memory.
//!
//! Each slice is what one step of apply takes, and no key is in two of them. So they can be checked and applied one after
//! another, and the memory of a statement is that of a slice, here and on every replica.
//!
//! * What cannot be cut is one slice: definitions, ranges of keys, and an UPDATE of key columns, whose new keys may be
//!   other rows' old ones. Its size has a limit of its own.

use super::insert::InsertSlices;
use super::key_size::{check_parts, check_update};
use super::literals::LiteralSlices;
use super::rows::{RowReader, Selection, Step};
use super::{Effects, Evaluation, ROW_BYTES, STEP_BYTES, too_much, write};
use crate::Result;
use crate::error::{Error, SqlState};
use crate::ids::ColumnId;
use crate::machine::{Effect, KeySet, RowSet};
use crate::sql::batch::{Batch, Column, ColumnBuilder};
use crate::sql::bind::{BoundUpdate, check_column};
use crate::sql::catalog::{Layout, Table};
use crate::sql::expression::Budget;
use crate::storage::keys::Key;
use std::sync::Arc;

/// The effects of one statement, to be taken slice by slice.
pub struct Slices<'a> {
    pub(super) evaluation: Evaluation<'a>,
    pub(super) source: Source<'a>,
    /// Bytes and rows of the slices taken so far.
    pub(super) bytes: usize,
    pub(super) rows: usize,
}

/// Where slices come from.
pub(super) enum Source<'a> {
    Whole(Option<Effects>),
    Insert(InsertSlices),
    Literals(LiteralSlices<'a>),
    Update { update: &'a BoundUpdate, rows: RowReader<'a>, moves: bool, left: Option<Computed> },
    Delete { table: Arc<Table>, rows: RowReader<'a> },
}

impl<'a> Source<'a> {
    pub(super) fn update(update: &'a BoundUpdate, evaluation: &Evaluation<'a>) -> Result<Source<'a>> {
        let (table, filter) = (&update.table, update.filter.as_ref());
        let selection = Selection { table, access: &update.access, bounds: &update.bounds, filter };
        let rows = RowReader::new(&selection, evaluation.view, evaluation.now_ms)?;
        let moves = update.assignments.iter().any(|(id, _)| table.primary_key.contains(id));
        Ok(Source::Update { update, rows, moves, left: None })
    }
}

impl Slices<'_> {
    /// The next slice; none at the end. A statement that changes nothing has none. Where much is read for it, others have
    /// their turn meanwhile.
    pub async fn next_slice(&mut self) -> Result<Option<Effects>> {
        (self.evaluation.check)()?;
        let (bytes, rows) = (self.bytes, self.rows);
        let evaluation = &self.evaluation;
        match &mut self.source {
            Source::Whole(effects) => Ok(effects.take()),
            Source::Insert(insert) => {
                evaluation.within(insert.bytes(), insert.rows())?;
                let effects = insert.next();
                effects.iter().try_for_each(|effects| check_parts(insert.table(), &effects.parts))?;
                Ok(effects)
            }
            Source::Literals(literals) => {
                let effects = literals.next(evaluation.slice_bytes_max).await?;
                evaluation.within(literals.bytes, literals.rows)?;
                effects.iter().try_for_each(|effects| check_parts(literals.table(), &effects.parts))?;
                Ok(effects)
            }
            Source::Update { update, rows: reader, moves, left } => {
                let mut written = Written::new(&update.table.layout());
                while !evaluation.is_full(written.bytes, written.created_ms.len(), *moves)? {
                    let mut computed = match left.take() {
                        Some(computed) => computed,
                        None => match reader.next(evaluation.check).await? {
                            Some(step) => Computed::of(update, vec![step])?,
                            None => break,
                        },
                    };
                    written.take(&mut computed, *moves);
                    evaluation.within(bytes + written.bytes, rows + written.created_ms.len())?;
                    *left = computed.left(update)?;
                }
                (self.bytes, self.rows) = (bytes + written.bytes, rows + written.created_ms.len());
                let effects = written.into_effects(&update.table, *moves);
                let (table, assignments) = (&update.table, &update.assignments);
                effects.iter().try_for_each(|effects| check_update(table, &effects.parts, assignments))?;
                Ok(effects)
            }
            Source::Delete { table, rows: reader } => {
                let (mut doomed, mut taken) = (Vec::new(), 0);
                while !evaluation.is_full(taken, doomed.len(), false)?
                    && let Some(step) = reader.next(evaluation.check).await?
                {
                    doomed.extend((0..step.batch.rows).map(|row| Key::new(step.keys.get(row))));
                    taken += step.keys.byte_len();
                    evaluation.within(bytes + taken, rows + doomed.len())?;
                }
                (self.bytes, self.rows) = (bytes + taken, rows + doomed.len());
                let affected = doomed.len() as u64;
                let parts = vec![write(table, Effect::Delete { keys: KeySet(doomed) })];
                Ok((affected > 0).then_some(Effects { parts, affected }))
            }
        }
    }
}

impl Evaluation<'_> {
    /// True where a slice holds enough; an error where it holds too much and cannot be cut.
    fn is_full(&self, bytes: usize, rows: usize, is_whole: bool) -> Result<bool> {
        let bytes = bytes + rows * ROW_BYTES;
        if (is_whole || self.slice_bytes_max == usize::MAX) && bytes > self.whole_bytes_max {
            let message = format!(
                "the effects of a batch, or of an UPDATE of key columns, must fit {} bytes of memory ({rows} rows so \
                 far): split it by key ranges",
                self.whole_bytes_max
            );
            return Err(Error::limit(SqlState::LIMIT_EXCEEDED, message));
        }
        Ok(!is_whole && bytes >= self.slice_bytes_max)
    }

    /// An error where the statement writes more than any may.
    fn within(&self, bytes: usize, rows: usize) -> Result<()> {
        if bytes <= self.effects_bytes_max { Ok(()) } else { Err(too_much(self.effects_bytes_max, rows as u64)) }
    }
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

    /// Takes rows over, as many as make a portion: one value may be repeated in all of them, and is written out here.
    fn take(&mut self, computed: &mut Computed, moves: bool) {
        let Computed { columns, step, at, rest: _ } = computed;
        let from = *at;
        let to = (from + computed_rows(columns, from, step.batch.rows)).min(step.batch.rows);
        for ((_, builder), column) in self.columns.iter_mut().zip(&*columns) {
            builder.extend(column, from, to);
            self.bytes += column.bytes_between(from, to);
        }
        self.created_ms.extend_from_slice(&step.metadata.created_ms[from..to]);
        self.bytes += (to - from) * 8;
        if moves {
            self.ended.extend((from..to).map(|row| Key::new(step.keys.get(row))));
            self.bytes += step.keys.bytes_between(from, to);
        }
        *at = to;
    }

    fn into_effects(self, table: &Table, moves: bool) -> Option<Effects> {
        let rows = self.created_ms.len();
        if rows == 0 {
            return None;
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
        Some(Effects { parts, affected: rows as u64 })
    }
}

/// New versions of the rows of a step, of which those from `at` on are still to be taken.
pub(super) struct Computed {
    columns: Vec<Arc<Column>>,
    step: Step,
    at: usize,
    /// Parts of the step that are still to be computed, the last one first: their values are too large together.
    rest: Vec<Step>,
}

impl Computed {
    /// The last one of `steps`, or as many of its rows as can be computed at once. There must be one.
    fn of(update: &BoundUpdate, mut steps: Vec<Step>) -> Result<Computed> {
        loop {
            let mut step = steps.pop().expect("whoever calls has a step, and a part of one is put back below");
            let budget = Budget::default();
            match compute(update, &step, &budget) {
                Ok(columns) => return Ok(Computed { columns, step, at: 0, rest: steps }),
                Err(_) if budget.is_exceeded() && step.batch.rows > 1 => {
                    let front = step.split_off_front(step.batch.rows / 2);
                    steps.extend([step, front]);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What is still to be taken.
    fn left(self, update: &BoundUpdate) -> Result<Option<Computed>> {
        if self.at < self.step.batch.rows {
            return Ok(Some(self));
        }
        if self.rest.is_empty() { Ok(None) } else { Computed::of(update, self.rest).map(Some) }
    }
}

/// The columns of a step with the values that an UPDATE assigns.
fn compute(update: &BoundUpdate, step: &Step, budget: &Budget) -> Result<Vec<Arc<Column>>> {
    let (table, layout) = (&update.table, update.table.layout());
    let visible = layout.columns.len() - table.columns.len();
    let input = Batch::new(step.batch.columns[visible..].to_vec(), step.batch.rows);
    let mut columns = step.batch.columns.clone();
    for (id, expression) in &update.assignments {
        let slot = layout.slot(*id).expect("assignments name columns of their table");
        let values = expression.evaluate_within(&input, budget)?;
        let column = table.column_by_id(*id).expect("assignments name columns of their table");
        check_column(column, table, &values)?;
        columns[slot] = values;
    }
    Ok(columns)
}

/// How many rows from `from` on make a portion of some `STEP_BYTES`: at least one.
fn computed_rows(columns: &[Arc<Column>], from: usize, to: usize) -> usize {
    let bytes: usize = columns.iter().map(|column| column.bytes_between(from, to)).sum();
    STEP_BYTES.div_ceil(bytes.div_ceil((to - from).max(1)).max(1))
}
