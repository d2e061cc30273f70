//! What a door may run by itself: statements so plain that handing them to another thread costs more than they do.
//!
//! * An INSERT of literals: its effects follow from its text, so it is proposed at once.
//! * A SELECT of one row by its primary key: one block read at most.
//!
//! Everything else, and an INSERT that met a conflict, goes the general way: it may wait for latches, read much, or
//! answer with an error that needs the whole grammar to explain.

use super::{Access, Answer, Executor, Group, Held, RowStream, Task, context, known, request_of};
use crate::Result;
use crate::error::Kind;
use crate::sql::evaluate::{Effects, check_parts, insert_effects};
use crate::sql::insert::bind_literal_insert;
use crate::sql::point::PointQuery;
use crate::storage::view::View;

/// Bytes of a statement that counts as brief. A thousand rows fit, and are scanned in some 50 us: what is longer would
/// keep the other connections of a door waiting.
pub const BRIEF_BYTES_MAX: usize = 64 << 10;

impl Executor {
    /// Runs a statement if it is brief; none where [`Executor::execute`] is to run it.
    pub async fn execute_brief(&self, group: &dyn Group, sql: &str, task: &Task) -> Option<Result<Answer>> {
        if sql.len() > BRIEF_BYTES_MAX {
            return None;
        }
        match point_query(group, sql).transpose() {
            Some(answer) => Some(answer),
            None => self.brief_insert(group, sql, task).await.transpose(),
        }
    }

    async fn brief_insert(&self, group: &dyn Group, sql: &str, task: &Task) -> Result<Option<Answer>> {
        // Refused the general way.
        if task.access == Access::ReadOnly {
            return Ok(None);
        }
        let Some(effects) = literal_insert(group, sql)? else { return Ok(None) };
        let request = request_of(task, sql);
        if known(group, request.as_ref())?.is_some() {
            return Ok(None);
        }
        match self.write(group, effects, request.as_ref()).await {
            Err(error) if error.kind() == Kind::Conflict || request.is_some() => Ok(None),
            settled => settled.map(|affected| Some(Answer::Done { affected })),
        }
    }
}

/// The effects of an INSERT of constants, straight from its text.
fn literal_insert(group: &dyn Group, sql: &str) -> Result<Option<(Effects, View)>> {
    let (view, instant) = (group.view()?, group.instant());
    let Some(insert) = bind_literal_insert(sql, &context(&view.catalog, instant)) else { return Ok(None) };
    let effects = insert_effects(&insert);
    // What is too long for an index is refused the general way.
    let has_place = check_parts(&insert.table, &effects.parts).is_ok();
    Ok(has_place.then_some((effects, view)))
}

/// The row that a SELECT by key asks for.
pub(super) fn point_query(group: &dyn Group, sql: &str) -> Result<Option<Answer>> {
    // The first letter decides most statements without a look at the view.
    if !sql.trim_ascii_start().starts_with(['s', 'S']) {
        return Ok(None);
    }
    let (view, instant) = (group.view()?, group.instant());
    let Some(query) = PointQuery::bind(sql, &view.catalog) else { return Ok(None) };
    let row = query.read(&view, instant)?;
    let source = Box::new(Held::new(row.into_iter().collect()));
    Ok(Some(Answer::Rows(RowStream { columns: query.columns(), source })))
}
