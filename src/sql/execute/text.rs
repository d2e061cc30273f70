//! From a statement's text to what is bound, within the memory that texts may take.
//!
//! * A long INSERT is never bound as a whole: its effects come slice by slice out of the text.
//! * Where such a text is wrong in several places, the first row that is wrong is reported, also where a later one is no
//!   SQL at all: a short text is parsed as a whole, and reports that one.
//! * What parsing a long text takes comes out of the pool that all queries share, and is refused before it is taken.

use super::{Executor, Task, context};
use crate::error::SqlState;
use crate::hlc::Timestamp;
use crate::ids::TableId;
use crate::sql::bind::{Bound, bind};
use crate::sql::evaluate::{ByRange, LONG_BYTES_MIN, LiteralSlices, Slices};
use crate::sql::insert::{MIXED_BYTES_MIN, MixedInsert, Parsing, bind_literal_insert};
use crate::sql::optimize::optimize_bound;
use crate::sql::statement::Statement;
use crate::sql::translate::{lexeme, parse_within, unended};
use crate::storage::view::View;
use crate::{Error, Result};

impl Executor {
    /// An INSERT of literals that is short enough to be read at once.
    pub(super) fn short_insert(sql: &str, view: &View, instant: Timestamp) -> Option<Bound> {
        let is_short = sql.len() < LONG_BYTES_MIN;
        is_short.then(|| bind_literal_insert(sql, &context(&view.catalog, instant))).flatten().map(Bound::Insert)
    }

    /// The table and the effects of an INSERT that is too long to be read or parsed at once.
    pub(super) async fn long_insert<'a>(
        &self,
        sql: &'a str,
        view: &'a View,
        instant: Timestamp,
        task: &'a Task,
    ) -> Result<Option<(TableId, Slices<'a>)>> {
        let Some(insert) = self.mixed_insert(sql, view, instant)? else { return Ok(None) };
        let (id, evaluation) = (insert.table().id, self.evaluation(view, instant, task, ByRange::Any));
        let slices = LiteralSlices::scan(insert, &evaluation).await?;
        Ok(slices.map(|slices| (id, evaluation.literals(slices))))
    }

    /// The rows of a long INSERT, all at once.
    pub(super) async fn whole_insert(
        &self,
        sql: &str,
        view: &View,
        instant: Timestamp,
        task: &Task,
    ) -> Result<Option<Bound>> {
        let Some(insert) = self.mixed_insert(sql, view, instant)? else { return Ok(None) };
        let evaluation = self.evaluation(view, instant, task, ByRange::Any);
        Ok(LiteralSlices::whole(&insert, &evaluation).await?.map(Bound::Insert))
    }

    fn mixed_insert<'a>(&self, sql: &'a str, view: &'a View, instant: Timestamp) -> Result<Option<MixedInsert<'a>>> {
        if sql.len() < MIXED_BYTES_MIN {
            return Ok(None);
        }
        let memory = Some(self.pool.query(self.limits.query_bytes_max));
        let parsing = Parsing { limits: self.limits.parse, memory };
        MixedInsert::begin(sql, &context(&view.catalog, instant), parsing)
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

    /// Parses a text. What a long one takes meanwhile comes out of the pool of all queries; where that is too much, and
    /// its beginning shows a mistake, that is said instead.
    pub(super) fn parse(&self, sql: &str) -> Result<Statement> {
        let parse =
            |sql: &str| parse_within(sql, &self.limits.parse, Some(&self.pool.query(self.limits.query_bytes_max)));
        parse(sql).map_err(|error| match error.sqlstate() {
            SqlState::OUT_OF_MEMORY | SqlState::LIMIT_EXCEEDED => mistake(sql, parse).unwrap_or(error),
            _ => error,
        })
    }
}

/// Lexemes at the beginning of a text in which a mistake is looked for, and as many behind them, so that one which the cut
/// makes is told from it.
const BEGINNING_LEXEMES: usize = 512;

/// What is wrong with a text that is too long to be parsed, as far as its beginning shows it: a word that is none, a
/// statement that there is not, a string without end.
fn mistake(sql: &str, parse: impl Fn(&str) -> Result<Statement>) -> Option<Error> {
    let (bytes, characters) = (sql.as_bytes(), |to: usize| sql[..to].chars().count() as u32);
    if let Some(open) = unended(bytes, 0) {
        return parse(&sql[open..]).err().map(|error| error.moved(|position| position + characters(open)));
    }
    let behind = |from: usize| (0..BEGINNING_LEXEMES).fold(from, |at, _| lexeme_end(bytes, at));
    let middle = behind(0);
    let error = parse(&sql[..behind(middle)]).err()?;
    let is_of_text = matches!(error.sqlstate(), SqlState::SYNTAX_ERROR | SqlState::FEATURE_NOT_SUPPORTED);
    (is_of_text && error.position().is_some_and(|position| position <= characters(middle))).then_some(error)
}

fn lexeme_end(bytes: &[u8], at: usize) -> usize {
    if at < bytes.len() { lexeme(bytes, at).1 } else { at }
}
