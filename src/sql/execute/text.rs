//! From a statement's text to what is bound, within the memory that texts may take.
//!
//! * A long INSERT of literals is never bound as a whole: its effects come slice by slice out of the text.
//! * Where such a text is wrong in several places, the first row that is wrong is reported, also where a later one is no
//!   SQL at all: a short text is parsed as a whole, and reports that one.
//! * What parsing a long text takes comes out of the pool that all queries share, and is refused before it is taken.

use super::{Executor, Task, context};
use crate::hlc::Timestamp;
use crate::ids::TableId;
use crate::sql::bind::{Bound, bind};
use crate::sql::evaluate::{ByRange, LONG_BYTES_MIN, LiteralSlices, Scanned, Slices};
use crate::sql::insert::{LiteralInsert, Place};
use crate::sql::optimize::optimize_bound;
use crate::sql::statement::Statement;
use crate::sql::translate::parse_within;
use crate::storage::view::View;
use crate::{Error, Result};

impl Executor {
    /// The table and the effects of an INSERT of literals that is too long to be read at once.
    pub(super) fn long_insert<'a>(
        &self,
        sql: &'a str,
        view: &'a View,
        instant: Timestamp,
        task: &'a Task,
    ) -> Result<Option<(TableId, Slices<'a>)>> {
        if sql.len() < LONG_BYTES_MIN {
            return Ok(None);
        }
        let Some(insert) = LiteralInsert::begin(sql, &context(&view.catalog, instant)) else { return Ok(None) };
        let id = insert.table.id;
        let evaluation = self.evaluation(view, instant, task, ByRange::Any);
        match LiteralSlices::scan(insert, &evaluation)? {
            Scanned::Rows(literals) => Ok(Some((id, evaluation.literals(literals)))),
            Scanned::Unknown(insert, at) => {
                self.check_row(&insert, at, view, instant)?;
                Ok(None)
            }
        }
    }

    /// The error of the first row of a long INSERT that is not understood, where it is one by itself: all of the text may
    /// be too long to be parsed for that.
    pub(super) fn check_row(
        &self,
        insert: &LiteralInsert<'_>,
        at: Place,
        view: &View,
        instant: Timestamp,
    ) -> Result<()> {
        if insert.text_bytes() >= LONG_BYTES_MIN
            && let Some((row, left_out)) = insert.not_understood(at)
        {
            self.bind(&row, &mut None, view, instant).map_err(|error: Error| error.moved(left_out as u32))?;
        }
        Ok(())
    }

    /// Binds a statement's text, which is parsed once.
    pub(super) fn bind(
        &self,
        sql: &str,
        parsed: &mut Option<Statement>,
        view: &View,
        instant: Timestamp,
    ) -> Result<Bound> {
        let statement = match parsed.take() {
            Some(statement) => statement,
            None => self.parse(sql)?,
        };
        let bound = bind(parsed.insert(statement), &context(&view.catalog, instant))?;
        Ok(optimize_bound(bound, view))
    }

    /// Parses a text. What a long one takes meanwhile comes out of the pool of all queries.
    pub(super) fn parse(&self, sql: &str) -> Result<Statement> {
        parse_within(sql, &self.limits.parse, Some(&self.pool.query(self.limits.query_bytes_max)))
    }
}
