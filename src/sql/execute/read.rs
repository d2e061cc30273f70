//! Statements that read: a query as a stream of rows, and EXPLAIN.

use super::{Executor, Held, RowStream, Task};
use crate::hlc::Timestamp;
use crate::sql::batch::{Batch, Column, Strings, Values};
use crate::sql::bind::{Bound, OutputColumn};
use crate::sql::explain;
use crate::sql::operator::{self, Analysis};
use crate::sql::plan::Plan;
use crate::storage::view::View;
use crate::{Error, Result};
use std::sync::Arc;

impl Executor {
    pub(super) fn query(
        &self,
        bound: &Bound,
        view: &View,
        instant: Timestamp,
        task: &Task,
    ) -> Result<Option<RowStream>> {
        match bound {
            Bound::Query { plan, columns } => Ok(Some(self.stream(plan, columns.clone(), view, instant, task)?)),
            Bound::Explain { analyze, inner } => {
                let figures = if *analyze { self.analyze(inner, view, instant, task)? } else { Vec::new() };
                let lines = explain::render(inner, &figures);
                let text: Strings = lines.iter().map(String::as_bytes).collect();
                let batch = Batch::new(vec![Arc::new(Column::new(Values::Text(text)))], lines.len());
                let source = Box::new(Held::new(vec![batch]));
                Ok(Some(RowStream { columns: explain::output_columns(), source }))
            }
            Bound::Insert(_)
            | Bound::Update(_)
            | Bound::Delete(_)
            | Bound::CreateTable(_)
            | Bound::DropTable { .. }
            | Bound::CreateIndex(_)
            | Bound::DropIndex { .. } => Ok(None),
        }
    }

    fn stream(
        &self,
        plan: &Plan,
        columns: Vec<OutputColumn>,
        view: &View,
        instant: Timestamp,
        task: &Task,
    ) -> Result<RowStream> {
        let context = self.operators(view, instant, task, None);
        Ok(RowStream { columns, source: operator::build(plan, &context)? })
    }

    fn operators(
        &self,
        view: &View,
        instant: Timestamp,
        task: &Task,
        analysis: Option<Arc<Analysis>>,
    ) -> operator::Context {
        operator::Context {
            source: Arc::new(view.clone()),
            now_ms: instant.wall().0,
            memory: self.pool.query(self.limits.query_bytes_max),
            interrupt: task.check.clone(),
            analysis,
        }
    }

    /// Runs a query for its figures alone.
    fn analyze(
        &self,
        bound: &Bound,
        view: &View,
        instant: Timestamp,
        task: &Task,
    ) -> Result<Vec<operator::OperatorFigures>> {
        let Bound::Query { plan, .. } = bound else {
            return Err(Error::unsupported("EXPLAIN ANALYZE of a statement that writes is"));
        };
        let clock = self.clock.clone();
        let analysis = Arc::new(Analysis::new(plan, Box::new(move || clock.monotonic())));
        let context = self.operators(view, instant, task, Some(analysis.clone()));
        let mut operator = operator::build(plan, &context)?;
        while operator.next_batch()?.is_some() {}
        Ok(analysis.figures())
    }
}
