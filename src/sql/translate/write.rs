//! INSERT, UPDATE and DELETE.

use super::{Translator, place};
use crate::error::{Error, Result, SqlState};
use crate::sql::statement::{Delete, Expr, Insert, InsertSource, Name, Statement, Update};
use sqlparser::ast::{self, SetExpr};

impl Translator {
    pub(super) fn insert(&self, insert: ast::Insert) -> Result<Statement> {
        self.refuse_insert_clauses(&insert)?;
        let ast::Insert { insert_token, table, columns, source, .. } = insert;
        let span = insert_token.0.span;
        let table = match table {
            ast::TableObject::TableName(name) => self.object(name)?,
            ast::TableObject::TableFunction(_) | ast::TableObject::TableQuery(_) => {
                return Err(self.refuse("INSERT into anything but a table is", span));
            }
        };
        let columns = columns.into_iter().map(|column| self.object(column)).collect::<Result<Vec<Name>>>()?;
        let columns = (!columns.is_empty()).then_some(columns);
        let source = match source {
            Some(query) => self.insert_source(*query, table.position)?,
            None => InsertSource::Defaults,
        };
        Ok(Statement::Insert(Insert { table, columns, source }))
    }

    /// Refuses the clauses that we do not have. All are named here, so that a new one of the parser's has to be decided.
    fn refuse_insert_clauses(&self, insert: &ast::Insert) -> Result<()> {
        let ast::Insert {
            insert_token,
            optimizer_hints: _,
            or,
            ignore,
            into,
            table: _,
            table_alias,
            columns: _,
            overwrite,
            source: _,
            assignments,
            partitioned,
            after_columns,
            has_table_keyword,
            on,
            returning,
            output,
            replace_into,
            priority,
            insert_alias,
            settings,
            format_clause,
            multi_table_insert_type,
            multi_table_into_clauses,
            multi_table_when_clauses,
            multi_table_else_clause,
        } = insert;
        let span = insert_token.0.span;
        let refuse = |what: &str| Err(self.refuse(what, span));
        if !*into {
            let message = "syntax error: INSERT without INTO";
            return Err(self.at(Error::invalid(SqlState::SYNTAX_ERROR, message), span.start));
        }
        if on.is_some() {
            return refuse("ON CONFLICT is");
        }
        if returning.is_some() || output.is_some() {
            return refuse("RETURNING is");
        }
        if table_alias.is_some() || insert_alias.is_some() {
            return refuse("an alias in INSERT is");
        }
        let foreign = or.is_some()
            || *ignore
            || *overwrite
            || !assignments.is_empty()
            || partitioned.is_some()
            || !after_columns.is_empty()
            || *has_table_keyword
            || *replace_into
            || priority.is_some()
            || settings.is_some()
            || format_clause.is_some()
            || multi_table_insert_type.is_some()
            || !multi_table_into_clauses.is_empty()
            || !multi_table_when_clauses.is_empty()
            || multi_table_else_clause.is_some();
        if foreign {
            return refuse("a clause of this INSERT is");
        }
        Ok(())
    }

    fn insert_source(&self, query: ast::Query, position: u32) -> Result<InsertSource> {
        let ast::Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        let plain = with.is_none()
            && order_by.is_none()
            && limit_clause.is_none()
            && fetch.is_none()
            && locks.is_empty()
            && for_clause.is_none()
            && settings.is_none()
            && format_clause.is_none()
            && pipe_operators.is_empty();
        match *body {
            SetExpr::Values(values) if plain => Ok(InsertSource::Values(self.rows(values, position)?)),
            SetExpr::Values(_) => Err(place(Error::unsupported("clauses after the VALUES of an INSERT are"), position)),
            _ => Err(place(Error::unsupported("INSERT ... SELECT is"), position)),
        }
    }

    pub(super) fn update(&self, update: ast::Update) -> Result<Statement> {
        let ast::Update {
            update_token,
            optimizer_hints: _,
            table,
            assignments,
            from,
            selection,
            returning,
            output,
            or,
            order_by,
            limit,
        } = update;
        let span = update_token.0.span;
        let refuse = |what: &str| Err(self.refuse(what, span));
        if from.is_some() {
            return refuse("UPDATE ... FROM is");
        }
        if returning.is_some() || output.is_some() {
            return refuse("RETURNING is");
        }
        if or.is_some() || !order_by.is_empty() || limit.is_some() {
            return refuse("OR, ORDER BY and LIMIT in UPDATE are");
        }
        let assignments = assignments
            .into_iter()
            .map(|assignment| match assignment.target {
                ast::AssignmentTarget::ColumnName(name) => Ok((self.object(name)?, self.expression(assignment.value)?)),
                ast::AssignmentTarget::Tuple(_) => Err(self.refuse("setting several columns at once is", span)),
            })
            .collect::<Result<Vec<(Name, Expr)>>>()?;
        let table = self.table(table, span)?;
        Ok(Statement::Update(Update { table, assignments, filter: self.optional(selection)? }))
    }

    pub(super) fn delete(&self, delete: ast::Delete) -> Result<Statement> {
        let ast::Delete {
            delete_token,
            optimizer_hints: _,
            tables,
            from,
            using,
            selection,
            returning,
            output,
            order_by,
            limit,
        } = delete;
        let span = delete_token.0.span;
        let refuse = |what: &str| Err(self.refuse(what, span));
        if using.is_some() {
            return refuse("DELETE ... USING is");
        }
        if returning.is_some() || output.is_some() {
            return refuse("RETURNING is");
        }
        if !order_by.is_empty() || limit.is_some() {
            return refuse("ORDER BY and LIMIT in DELETE are");
        }
        let ast::FromTable::WithFromKeyword(from) = from else {
            return refuse("DELETE without FROM is");
        };
        let mut from = from.into_iter();
        match (from.next(), from.next()) {
            (Some(table), None) if tables.is_empty() => {
                let table = self.table(table, span)?;
                Ok(Statement::Delete(Delete { table, filter: self.optional(selection)? }))
            }
            _ => refuse("DELETE from several tables is"),
        }
    }
}
