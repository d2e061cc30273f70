//! COUNT, MIN and MAX of a whole table or key range, from what is known of blocks without decoding them.
//!
//! A scan gives the summary of a block instead of its rows where no other level overlaps it, nothing in it is a
//! tombstone or has expired, and the key range holds all of it. Its row count, and the zones of its columns, then say
//! what these aggregates ask; blocks for which they do not are read like any.
//!
//! * Zones of numbers, booleans and timestamps hold values that are there; those of strings are bounds, and not used.
//! * A block older than a column knows no zone for it and is read.

use super::accumulator::Accumulator;
use super::grouping::{Assignment, Run};
use super::scan::{Target, is_point, start};
use super::source::BatchSource;
use super::{Context, Operator, pause};
use crate::error::Result;
use crate::ids::ColumnId;
use crate::sql::batch::{BATCH_ROWS_MAX, Batch, Column};
use crate::sql::expression::Expression;
use crate::sql::plan::{Access, Aggregate, AggregateFunction, Plan};
use crate::sql::value::{DataType, Value};
use crate::storage::level::Summary;
use crate::storage::view::ScanItem;
use std::sync::Arc;

pub(super) struct Summarised {
    /// None once it has ended.
    source: Option<Box<dyn BatchSource>>,
    aggregates: Vec<Running>,
    handed_out: bool,
    context: Context,
}

struct Running {
    accumulator: Accumulator,
    asks: Asks,
    /// Position of the argument among the columns scanned; none for `COUNT(*)`.
    argument: Option<usize>,
}

/// What an aggregate asks of a summary.
#[derive(Clone, Copy)]
enum Asks {
    Rows,
    Values { slot: usize },
    Least { slot: usize, data_type: DataType },
    Greatest { slot: usize, data_type: DataType },
}

/// The operator for an aggregate over a scan, where summaries answer it; none where they do not.
pub(super) fn build(
    input: &Plan,
    group: &[Expression],
    aggregates: &[Aggregate],
    context: &Context,
) -> Result<Option<Box<dyn Operator>>> {
    let Plan::Scan { table, access: Access::Primary { ranges }, columns, bounds, filter: None } = input else {
        return Ok(None);
    };
    if !group.is_empty() || !bounds.is_empty() || ranges.iter().all(is_point) {
        return Ok(None);
    }
    let layout = table.layout();
    let slot = |index: usize| columns.get(index).and_then(|&id: &ColumnId| layout.slot(id));
    let mut running = Vec::with_capacity(aggregates.len());
    for aggregate in aggregates {
        let Some((asks, argument)) = asks(aggregate, slot) else { return Ok(None) };
        let mut accumulator = Accumulator::new(aggregate)?;
        accumulator.resize(1);
        running.push(Running { accumulator, asks, argument });
    }
    let target = Target { keyspace: table.keyspace, ranges, columns, bounds: Vec::new() };
    let source = Some(start(table, target, context, BATCH_ROWS_MAX)?);
    Ok(Some(Box::new(Summarised { source, aggregates: running, handed_out: false, context: context.clone() })))
}

fn asks(aggregate: &Aggregate, slot: impl Fn(usize) -> Option<usize>) -> Option<(Asks, Option<usize>)> {
    let (index, data_type) = match &aggregate.argument {
        None => return Some((Asks::Rows, None)),
        Some(Expression::Column { index, data_type, .. }) => (*index, *data_type),
        Some(_) => return None,
    };
    let slot = slot(index)?;
    let exact = !matches!(data_type, DataType::Text | DataType::Blob);
    // DISTINCT changes nothing about an extreme.
    match aggregate.function {
        AggregateFunction::Count if !aggregate.distinct => Some((Asks::Values { slot }, Some(index))),
        AggregateFunction::Min if exact => Some((Asks::Least { slot, data_type }, Some(index))),
        AggregateFunction::Max if exact => Some((Asks::Greatest { slot, data_type }, Some(index))),
        AggregateFunction::Count
        | AggregateFunction::Sum
        | AggregateFunction::Avg
        | AggregateFunction::Min
        | AggregateFunction::Max => None,
    }
}

impl Asks {
    /// The answer of a summary as a column of as many values as count; none where the summary does not know.
    fn answer(self, summary: &Summary) -> Option<Column> {
        // Only blocks without tombstones are summarised; this keeps the count right if that ever changes.
        let rows = (summary.rows - summary.tombstones) as usize;
        match self {
            Asks::Rows => Some(Column::constant(Value::Bool(true), DataType::Bool, rows)),
            Asks::Values { slot } => {
                let present = rows.checked_sub(summary.zones.get(slot)?.nulls as usize)?;
                Some(Column::constant(Value::Bool(true), DataType::Bool, present))
            }
            Asks::Least { slot, data_type } => {
                Some(Column::constant(summary.zones.get(slot)?.min.clone(), data_type, 1))
            }
            Asks::Greatest { slot, data_type } => {
                Some(Column::constant(summary.zones.get(slot)?.max.clone(), data_type, 1))
            }
        }
    }
}

impl Summarised {
    /// True where the summary answered every aggregate.
    fn take_summary(&mut self, summary: &Summary) -> bool {
        let answers: Option<Vec<Column>> = self.aggregates.iter().map(|running| running.asks.answer(summary)).collect();
        let Some(answers) = answers else { return false };
        for (running, answer) in self.aggregates.iter_mut().zip(&answers) {
            running.accumulator.update(Some(answer), &whole(answer.len()));
        }
        true
    }

    fn take_rows(&mut self, batch: &Batch) {
        for running in &mut self.aggregates {
            let argument = running.argument.map(|index| &*batch.columns[index]);
            running.accumulator.update(argument, &whole(batch.rows));
        }
    }
}

fn whole(rows: usize) -> Assignment {
    Assignment::Runs(vec![Run { group: 0, from: 0, to: rows as u32 }])
}

impl Operator for Summarised {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        (self.context.interrupt)()?;
        let Some(source) = &mut self.source else {
            if std::mem::replace(&mut self.handed_out, true) {
                return Ok(None);
            }
            let columns = self
                .aggregates
                .iter()
                .map(|running| running.accumulator.finish(0, 1).map(Arc::new))
                .collect::<Result<Vec<Arc<Column>>>>()?;
            return Ok(Some(Batch { columns, rows: 1 }));
        };
        match source.next_summary()? {
            None => self.source = None,
            Some(ScanItem::Batch(scanned)) => self.take_rows(&scanned.batch),
            Some(ScanItem::Summary(summary)) => {
                if !self.take_summary(&summary)
                    && let Some(source) = &mut self.source
                    && let Some(scanned) = source.read_summarised()?
                {
                    self.take_rows(&scanned.batch);
                }
            }
        }
        Ok(Some(pause()))
    }
}
