//! SELECT and VALUES.

use super::{Translator, place};
use crate::error::{Error, Result, SqlState};
use crate::sql::statement::{Expr, Name, OrderItem, Query, QueryBody, Select, SelectItem, TableReference};
use sqlparser::ast::{self, SetExpr};
use sqlparser::tokenizer::Span;

impl Translator {
    pub(super) fn query(&self, query: ast::Query) -> Result<Query> {
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
        let position = self.body_position(&body);
        let refuse = |what: &str| Err(place(Error::unsupported(what), position));
        if with.is_some() {
            return refuse("WITH queries are");
        }
        if fetch.is_some() {
            return refuse("FETCH FIRST is");
        }
        if !locks.is_empty() {
            return refuse("FOR UPDATE and FOR SHARE are");
        }
        if for_clause.is_some() || settings.is_some() || format_clause.is_some() || !pipe_operators.is_empty() {
            return refuse("a clause of this query is");
        }
        let order = self.order(order_by, position)?;
        let (limit, offset) = self.limit(limit_clause, position)?;
        let body = match *body {
            SetExpr::Select(select) => QueryBody::Select(Box::new(self.select(*select)?)),
            SetExpr::Values(values) => QueryBody::Values(self.rows(values, position)?),
            SetExpr::Query(_) => return refuse("queries in parentheses are"),
            SetExpr::SetOperation { op, .. } => return refuse(&format!("{op} is")),
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                return refuse("writes within a query are");
            }
            SetExpr::Table(_) => return refuse("TABLE as a query is"),
        };
        Ok(Query { body, order, limit, offset })
    }

    fn body_position(&self, body: &SetExpr) -> u32 {
        match body {
            SetExpr::Select(select) => self.position(select.select_token.0.span),
            SetExpr::SetOperation { left, .. } => self.body_position(left),
            _ => 1,
        }
    }

    /// The rows of a VALUES. An error that is about all of them points at `position`.
    pub(super) fn rows(&self, values: ast::Values, position: u32) -> Result<Vec<Vec<Expr>>> {
        if values.explicit_row || values.value_keyword {
            return Err(place(Error::unsupported("VALUE and VALUES ROW(...) are"), position));
        }
        values.rows.into_iter().map(|row| self.expressions(row.content)).collect()
    }

    fn select(&self, select: ast::Select) -> Result<Select> {
        let ast::Select {
            select_token,
            // Hints are comments.
            optimizer_hints: _,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        let span = select_token.0.span;
        let refuse = |what: &str| Err(self.refuse(what, span));
        if into.is_some() {
            return refuse("SELECT INTO is");
        }
        if !named_window.is_empty() || qualify.is_some() {
            return refuse("window functions are");
        }
        if top.is_some() {
            return refuse("TOP is");
        }
        let foreign = select_modifiers.is_some()
            || exclude.is_some()
            || !lateral_views.is_empty()
            || prewhere.is_some()
            || !connect_by.is_empty()
            || !cluster_by.is_empty()
            || !distribute_by.is_empty()
            || !sort_by.is_empty()
            || value_table_mode.is_some()
            || flavor != ast::SelectFlavor::Standard;
        if foreign {
            return refuse("a clause of this SELECT is");
        }
        let distinct = match distinct {
            None | Some(ast::Distinct::All) => false,
            Some(ast::Distinct::Distinct) => true,
            Some(ast::Distinct::On(_)) => return refuse("DISTINCT ON is"),
        };
        let items = projection.into_iter().map(|item| self.item(item)).collect::<Result<Vec<SelectItem>>>()?;
        if items.is_empty() {
            return Err(self.at(Error::invalid(SqlState::SYNTAX_ERROR, "the select list is empty"), span.start));
        }
        Ok(Select {
            distinct,
            items,
            from: self.from(from, span)?,
            filter: self.optional(selection)?,
            group: self.group(group_by, span)?,
            having: self.optional(having)?,
        })
    }

    fn item(&self, item: ast::SelectItem) -> Result<SelectItem> {
        match item {
            ast::SelectItem::UnnamedExpr(expression) => {
                Ok(SelectItem::Expression { expression: self.expression(expression)?, alias: None })
            }
            ast::SelectItem::ExprWithAlias { expr, alias } => {
                // The parser takes a string for a name; nothing in the dialect does.
                if alias.quote_style == Some('\'') {
                    let message = format!("syntax error at or near \"'{}'\"", alias.value);
                    let error = Error::invalid(SqlState::SYNTAX_ERROR, message).hint("a name is quoted with \"");
                    return Err(place(error, self.position(alias.span)));
                }
                Ok(SelectItem::Expression { expression: self.expression(expr)?, alias: Some(self.name(alias)?) })
            }
            ast::SelectItem::ExprWithAliases { expr, .. } => {
                let position = self.expression(expr)?.position;
                Err(place(Error::unsupported("several aliases of one column are"), position))
            }
            ast::SelectItem::Wildcard(options) => {
                let position = self.wildcard(&options)?;
                Ok(SelectItem::Wildcard { table: None, position })
            }
            ast::SelectItem::QualifiedWildcard(kind, options) => {
                self.wildcard(&options)?;
                match kind {
                    ast::SelectItemQualifiedWildcardKind::ObjectName(name) => {
                        let table = self.object(name)?;
                        Ok(SelectItem::Wildcard { position: table.position, table: Some(table) })
                    }
                    ast::SelectItemQualifiedWildcardKind::Expr(_) => {
                        Err(self.refuse("* of an expression is", options.wildcard_token.0.span))
                    }
                }
            }
        }
    }

    fn wildcard(&self, options: &ast::WildcardAdditionalOptions) -> Result<u32> {
        let ast::WildcardAdditionalOptions {
            wildcard_token,
            opt_ilike,
            opt_exclude,
            opt_except,
            opt_replace,
            opt_rename,
            opt_alias,
        } = options;
        let plain = opt_ilike.is_none()
            && opt_exclude.is_none()
            && opt_except.is_none()
            && opt_replace.is_none()
            && opt_rename.is_none()
            && opt_alias.is_none();
        if plain {
            Ok(self.position(wildcard_token.0.span))
        } else {
            Err(self.refuse("options of * (EXCEPT, REPLACE, RENAME, an alias) are", wildcard_token.0.span))
        }
    }

    fn from(&self, from: Vec<ast::TableWithJoins>, span: Span) -> Result<Option<TableReference>> {
        let mut tables = from.into_iter();
        match (tables.next(), tables.next()) {
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(self.refuse("joins are", span)),
            (Some(table), None) => Ok(Some(self.table(table, span)?)),
        }
    }

    /// One table with its alias: where a statement reads from or writes to.
    pub(super) fn table(&self, table: ast::TableWithJoins, span: Span) -> Result<TableReference> {
        if !table.joins.is_empty() {
            return Err(self.refuse("joins are", span));
        }
        let (name, alias, plain) = match table.relation {
            ast::TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                if args.is_some() {
                    return Err(self.refuse("functions as tables are", span));
                }
                if sample.is_some() {
                    return Err(self.refuse("TABLESAMPLE is", span));
                }
                let plain = with_hints.is_empty()
                    && version.is_none()
                    && !with_ordinality
                    && partitions.is_empty()
                    && json_path.is_none()
                    && index_hints.is_empty();
                (self.object(name)?, alias, plain)
            }
            ast::TableFactor::Derived { .. } => return Err(self.refuse("subqueries in FROM are", span)),
            ast::TableFactor::NestedJoin { .. } => return Err(self.refuse("joins are", span)),
            ast::TableFactor::TableFunction { .. }
            | ast::TableFactor::Function { .. }
            | ast::TableFactor::UNNEST { .. } => return Err(self.refuse("functions as tables are", span)),
            _ => return Err(self.refuse("this form of FROM is", span)),
        };
        if !plain {
            return Err(place(Error::unsupported("options of a table in FROM are"), name.position));
        }
        let alias = alias.map(|alias| self.table_alias(alias)).transpose()?;
        Ok(TableReference { name, alias })
    }

    fn table_alias(&self, alias: ast::TableAlias) -> Result<Name> {
        let ast::TableAlias { explicit: _, name, columns, at } = alias;
        let name = self.name(name)?;
        if !columns.is_empty() || at.is_some() {
            return Err(place(Error::unsupported("column aliases of a table are"), name.position));
        }
        Ok(name)
    }

    fn group(&self, group: ast::GroupByExpr, span: Span) -> Result<Vec<Expr>> {
        match group {
            ast::GroupByExpr::Expressions(expressions, modifiers) if modifiers.is_empty() => {
                self.expressions(expressions)
            }
            ast::GroupByExpr::Expressions(..) => Err(self.refuse("GROUP BY ... WITH is", span)),
            ast::GroupByExpr::All(_) => Err(self.refuse("GROUP BY ALL is", span)),
        }
    }

    fn order(&self, order: Option<ast::OrderBy>, position: u32) -> Result<Vec<OrderItem>> {
        let Some(ast::OrderBy { kind, interpolate }) = order else { return Ok(Vec::new()) };
        let items = match kind {
            ast::OrderByKind::Expressions(items) if interpolate.is_none() => items,
            ast::OrderByKind::Expressions(_) => return Err(place(Error::unsupported("INTERPOLATE is"), position)),
            ast::OrderByKind::All(_) => return Err(place(Error::unsupported("ORDER BY ALL is"), position)),
        };
        items.into_iter().map(|item| self.order_item(item)).collect()
    }

    fn order_item(&self, item: ast::OrderByExpr) -> Result<OrderItem> {
        let ast::OrderByExpr { expr, options: ast::OrderByOptions { sort, nulls_first }, with_fill } = item;
        let expression = self.expression(expr)?;
        let refuse = |what: &str| Err(place(Error::unsupported(what), expression.position));
        if with_fill.is_some() {
            return refuse("WITH FILL is");
        }
        let descending = match sort {
            None | Some(ast::OrderBySort::Asc) => false,
            Some(ast::OrderBySort::Desc) => true,
            Some(ast::OrderBySort::Using(_)) => return refuse("ORDER BY ... USING is"),
        };
        Ok(OrderItem { expression, descending, nulls_first })
    }

    fn limit(&self, limit: Option<ast::LimitClause>, position: u32) -> Result<(Option<Expr>, Option<Expr>)> {
        match limit {
            None => Ok((None, None)),
            Some(ast::LimitClause::LimitOffset { limit, offset, limit_by }) => {
                if !limit_by.is_empty() {
                    return Err(place(Error::unsupported("LIMIT ... BY is"), position));
                }
                Ok((self.optional(limit)?, self.optional(offset.map(|offset| offset.value))?))
            }
            Some(ast::LimitClause::OffsetCommaLimit { .. }) => {
                Err(place(Error::unsupported("LIMIT with a comma is"), position).hint("write LIMIT n OFFSET m"))
            }
        }
    }
}
