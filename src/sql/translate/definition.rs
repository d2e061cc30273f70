//! CREATE TABLE and CREATE INDEX.

use super::{Translator, parse_duration, place, printable};
use crate::error::{Error, Result, SqlState};
use crate::sql::statement::{ColumnSpecification, CreateIndex, CreateTable, DefaultExpression, Name, Statement};
use sqlparser::ast::helpers::stmt_create_table::CreateTableBuilder;
use sqlparser::ast::{self, ColumnOption, SqlOption, TableConstraint};
use std::time::Duration;

impl Translator {
    pub(super) fn create_table(&self, create: ast::CreateTable) -> Result<Statement> {
        self.check_table_clauses(&create)?;
        let name = self.object(create.name)?;
        let ttl = self.table_options(create.table_options, &name)?;
        let mut primary_keys = Vec::new();
        let columns = create
            .columns
            .into_iter()
            .map(|column| self.column(column, &mut primary_keys))
            .collect::<Result<Vec<ColumnSpecification>>>()?;
        for constraint in create.constraints {
            primary_keys.push(self.constraint(constraint, &name)?);
        }
        let if_not_exists = create.if_not_exists;
        Ok(Statement::CreateTable(CreateTable { name, columns, primary_keys, ttl, if_not_exists }))
    }

    /// The parser has sixty clauses here. Instead of asking for each, what we read is put into a new statement, and
    /// whatever makes that one differ from the old is not ours.
    fn check_table_clauses(&self, create: &ast::CreateTable) -> Result<()> {
        let position = self.object(create.name.clone())?.position;
        let refuse = |what: &str| Err(place(Error::unsupported(what), position));
        if create.query.is_some() {
            return refuse("CREATE TABLE AS is");
        }
        if create.like.is_some() || create.clone.is_some() {
            return refuse("CREATE TABLE LIKE is");
        }
        if create.inherits.is_some() || create.partition_of.is_some() || create.partition_by.is_some() {
            return refuse("inheritance and partitions of tables are");
        }
        if create.on_commit.is_some() {
            return refuse("ON COMMIT is");
        }
        let ours = CreateTableBuilder::new(create.name.clone())
            .if_not_exists(create.if_not_exists)
            .columns(create.columns.clone())
            .constraints(create.constraints.clone())
            .table_options(create.table_options.clone())
            .hive_formats(create.hive_formats.clone())
            .build();
        // The parser makes an empty one of these for every table.
        let no_formats = create.hive_formats.as_ref().is_none_or(|formats| {
            formats.row_format.is_none()
                && formats.serde_properties.is_none()
                && formats.storage.is_none()
                && formats.location.is_none()
        });
        if ours != *create || !no_formats {
            return refuse("a clause of this CREATE TABLE is");
        }
        Ok(())
    }

    fn table_options(&self, options: ast::CreateTableOptions, table: &Name) -> Result<Option<Duration>> {
        let options = match options {
            ast::CreateTableOptions::None => return Ok(None),
            ast::CreateTableOptions::With(options) => options,
            ast::CreateTableOptions::Options(_)
            | ast::CreateTableOptions::Plain(_)
            | ast::CreateTableOptions::TableProperties(_) => {
                return Err(place(Error::unsupported("table options outside WITH (...) are"), table.position));
            }
        };
        let mut ttl = None;
        for option in options {
            let SqlOption::KeyValue { key, value } = option else {
                return Err(place(Error::unsupported(format_args!("table option {option} is")), table.position));
            };
            let span = key.span;
            let key = self.name(key)?;
            if key.text != "ttl" {
                return Err(self.refuse(format_args!("table option \"{}\" is", key.text), span));
            }
            if ttl.is_some() {
                let error = Error::invalid(SqlState::SYNTAX_ERROR, "ttl is given more than once");
                return Err(self.at(error, span.start));
            }
            ttl = Some(Self::ttl(value, &key)?);
        }
        Ok(ttl)
    }

    fn ttl(value: ast::Expr, key: &Name) -> Result<Duration> {
        let malformed = || {
            let error = Error::invalid(SqlState::INVALID_PARAMETER, "ttl must be a duration");
            place(error.hint("a number and a unit: s, m, h, d or w, as in 7d"), key.position)
        };
        let text = match value {
            ast::Expr::Value(value) => match value.value {
                ast::Value::SingleQuotedString(text) => printable::plain(text),
                _ => return Err(malformed()),
            },
            _ => return Err(malformed()),
        };
        let ttl = parse_duration(&text).map_err(|error| place(error, key.position))?;
        if ttl.is_zero() {
            let error = Error::invalid(SqlState::INVALID_PARAMETER, "ttl must be longer than nothing");
            return Err(place(error.hint("leave it out to keep rows for ever"), key.position));
        }
        Ok(ttl)
    }

    fn column(&self, column: ast::ColumnDef, primary_keys: &mut Vec<Vec<Name>>) -> Result<ColumnSpecification> {
        let name = self.name(column.name)?;
        let type_name = self.type_name(&column.data_type, name.position)?;
        let refuse = |what: &str| Err(place(Error::unsupported(what), name.position));
        let (mut not_null, mut null, mut default) = (false, false, None);
        for option in column.options {
            match option.option {
                ColumnOption::Null => null = true,
                ColumnOption::NotNull => not_null = true,
                ColumnOption::Default(expression) => {
                    if default.is_some() {
                        let message = format!("column \"{}\" has more than one default", name.text);
                        return Err(place(Error::invalid(SqlState::SYNTAX_ERROR, message), name.position));
                    }
                    let text = printable::written(&expression);
                    default = Some(DefaultExpression { expression: self.expression(expression)?, text });
                }
                ColumnOption::PrimaryKey(key) => {
                    self.check_key(&key, name.position)?;
                    primary_keys.push(vec![name.clone()]);
                }
                ColumnOption::Unique(_) => {
                    return refuse("UNIQUE constraints are");
                }
                ColumnOption::ForeignKey(_) => return refuse("foreign keys are"),
                ColumnOption::Check(_) => return refuse("CHECK constraints are"),
                ColumnOption::Generated { .. } | ColumnOption::Identity(_) => {
                    return refuse("generated and identity columns are");
                }
                ColumnOption::Collation(_) | ColumnOption::CharacterSet(_) => return refuse("COLLATE is"),
                other => return refuse(&format!("column option {other} is")),
            }
        }
        Ok(ColumnSpecification { name, type_name, not_null, null, default })
    }

    fn constraint(&self, constraint: TableConstraint, table: &Name) -> Result<Vec<Name>> {
        let refuse = |what: &str| Err(place(Error::unsupported(what), table.position));
        match constraint {
            TableConstraint::PrimaryKey(key) => {
                self.check_key(&key, table.position)?;
                key.columns.into_iter().map(|column| self.index_column(column)).collect()
            }
            TableConstraint::Unique(_) => refuse("UNIQUE constraints are"),
            TableConstraint::ForeignKey(_) => refuse("foreign keys are"),
            TableConstraint::Check(_) => refuse("CHECK constraints are"),
            TableConstraint::Exclude(_) => refuse("EXCLUDE constraints are"),
            TableConstraint::Index(_) | TableConstraint::FulltextOrSpatial(_) => {
                refuse("indexes within CREATE TABLE are")
            }
            TableConstraint::PrimaryKeyUsingIndex(_) | TableConstraint::UniqueUsingIndex(_) => {
                refuse("constraints USING INDEX are")
            }
        }
    }

    /// A primary key is its columns. Its name, which nothing can refer to here, is the one thing that may be given
    /// beside them.
    fn check_key(&self, key: &ast::PrimaryKeyConstraint, position: u32) -> Result<()> {
        let ast::PrimaryKeyConstraint {
            name,
            index_name,
            index_type,
            columns: _,
            include,
            index_options,
            characteristics,
        } = key;
        if let Some(name) = name {
            self.name(name.clone())?;
        }
        let plain = index_name.is_none()
            && index_type.is_none()
            && include.is_empty()
            && index_options.is_empty()
            && characteristics.is_none();
        if plain { Ok(()) } else { Err(place(Error::unsupported("options of a PRIMARY KEY are"), position)) }
    }

    /// A column of a key or an index: a name, ascending, NULLS LAST.
    fn index_column(&self, column: ast::IndexColumn) -> Result<Name> {
        let ast::IndexColumn { column: ast::OrderByExpr { expr, options, with_fill }, operator_class } = column;
        let name = match expr {
            ast::Expr::Identifier(ident) => self.name(ident)?,
            other => {
                use sqlparser::ast::Spanned;
                return Err(self.refuse("indexes on expressions are", other.span()));
            }
        };
        let refuse = |what: &str| Err(place(Error::unsupported(what), name.position));
        match options.sort {
            None | Some(ast::OrderBySort::Asc) => {}
            Some(ast::OrderBySort::Desc) => return refuse("descending index columns are"),
            Some(ast::OrderBySort::Using(_)) => return refuse("ORDER BY ... USING is"),
        }
        if options.nulls_first == Some(true) {
            return refuse("NULLS FIRST in an index is");
        }
        if with_fill.is_some() || operator_class.is_some() {
            return refuse("operator classes are");
        }
        Ok(name)
    }

    pub(super) fn create_index(&self, create: ast::CreateIndex) -> Result<Statement> {
        let ast::CreateIndex {
            name,
            table_name,
            using,
            columns,
            unique,
            // Every index is built without blocking writers: the word asks for what happens anyway.
            concurrently: _,
            r#async,
            if_not_exists,
            include,
            nulls_distinct,
            with,
            predicate,
            index_options,
            alter_options,
        } = create;
        let table = self.object(table_name)?;
        let name = name.map(|name| self.object(name)).transpose()?;
        let refuse = |what: &str| Err(place(Error::unsupported(what), table.position));
        if !matches!(using, None | Some(ast::IndexType::BTree)) {
            return refuse("index methods other than btree are");
        }
        if !include.is_empty() {
            return refuse("INCLUDE in an index is");
        }
        if nulls_distinct == Some(false) {
            return refuse("NULLS NOT DISTINCT is");
        }
        if predicate.is_some() {
            return refuse("partial indexes are");
        }
        if r#async || !with.is_empty() || !index_options.is_empty() || !alter_options.is_empty() {
            return refuse("options of an index are");
        }
        if if_not_exists && name.is_none() {
            let error = Error::invalid(SqlState::SYNTAX_ERROR, "CREATE INDEX IF NOT EXISTS needs the index's name");
            return Err(place(error, table.position));
        }
        let columns = columns.into_iter().map(|column| self.index_column(column)).collect::<Result<Vec<Name>>>()?;
        Ok(Statement::CreateIndex(CreateIndex { name, table, columns, unique, if_not_exists }))
    }
}
