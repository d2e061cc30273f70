//! Calls, and the expressions that are refused by name.

use super::{Translator, place};
use crate::error::{Error, Result, SqlState};
use crate::sql::statement::{Call, Expr, Name, Node};
use sqlparser::ast::{self, Spanned};

impl Translator {
    pub(super) fn rounding(
        &self,
        name: &str,
        input: ast::Expr,
        field: &ast::CeilFloorKind,
        depth: usize,
    ) -> Result<Expr> {
        let input = self.node(input, depth)?;
        let plain = ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime);
        if *field != plain {
            return Err(place(Error::unsupported(format_args!("{name} with a scale or a unit is")), input.position));
        }
        // The parser does not keep the place of these two names; the argument's is near enough.
        let name = Name { text: name.to_owned(), position: input.position };
        let position = input.position;
        Ok(Expr { position, node: Node::Call(Call { name, distinct: false, star: false, arguments: vec![input] }) })
    }

    pub(super) fn function(&self, function: ast::Function, depth: usize) -> Result<Expr> {
        let ast::Function { name, uses_odbc_syntax, parameters, args, within_group, filter, null_treatment, over } =
            function;
        let name = self.object(name)?;
        let refuse = |what: &str| Err(place(Error::unsupported(what), name.position));
        if over.is_some() {
            return refuse("window functions are");
        }
        if filter.is_some() {
            return refuse("FILTER on aggregates is");
        }
        if !within_group.is_empty() {
            return refuse("WITHIN GROUP is");
        }
        if null_treatment.is_some() {
            return refuse("IGNORE NULLS and RESPECT NULLS are");
        }
        if uses_odbc_syntax || parameters != ast::FunctionArguments::None {
            return refuse("this form of function call is");
        }
        let (mut distinct, mut star, mut arguments) = (false, false, Vec::new());
        match args {
            ast::FunctionArguments::None => {}
            ast::FunctionArguments::Subquery(_) => return refuse("subqueries are"),
            ast::FunctionArguments::List(list) => {
                if !list.clauses.is_empty() {
                    return refuse("clauses within a function call (ORDER BY, LIMIT, SEPARATOR) are");
                }
                distinct = list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct);
                let of_all = list.duplicate_treatment.is_some();
                if of_all && list.args.contains(&ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard)) {
                    let message = "* stands alone in count(*)";
                    return Err(place(Error::invalid(SqlState::SYNTAX_ERROR, message), name.position));
                }
                for argument in list.args {
                    match argument {
                        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(argument)) => {
                            arguments.push(self.node(argument, depth)?);
                        }
                        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard) => star = true,
                        ast::FunctionArg::Unnamed(_) => return refuse("t.* as an argument is"),
                        ast::FunctionArg::Named { .. } | ast::FunctionArg::ExprNamed { .. } => {
                            return refuse("named arguments are");
                        }
                    }
                }
            }
        }
        if star && !arguments.is_empty() {
            return Err(place(Error::invalid(SqlState::SYNTAX_ERROR, "* stands alone in count(*)"), name.position));
        }
        let position = name.position;
        Ok(Expr { position, node: Node::Call(Call { name, distinct, star, arguments }) })
    }

    pub(super) fn refused_expression(&self, expression: &ast::Expr) -> Error {
        let what = match expression {
            ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => "subqueries are",
            ast::Expr::AnyOp { .. } | ast::Expr::AllOp { .. } => "ANY and ALL are",
            ast::Expr::Like { .. } | ast::Expr::ILike { .. } => "LIKE ANY is",
            ast::Expr::SimilarTo { .. } => "SIMILAR TO is",
            ast::Expr::RLike { .. } => "RLIKE is",
            ast::Expr::Extract { .. } => "EXTRACT is",
            ast::Expr::Position { .. } => "POSITION is",
            ast::Expr::Substring { .. } => "SUBSTRING is",
            ast::Expr::Trim { .. } => "TRIM is",
            ast::Expr::Overlay { .. } => "OVERLAY is",
            ast::Expr::Collate { .. } => "COLLATE is",
            ast::Expr::AtTimeZone { .. } => "AT TIME ZONE is",
            ast::Expr::Tuple(_) | ast::Expr::Struct { .. } => "rows as values are",
            ast::Expr::Array(_) => "arrays are",
            ast::Expr::CompoundFieldAccess { .. } | ast::Expr::JsonAccess { .. } => "access to parts of a value is",
            ast::Expr::GroupingSets(_) | ast::Expr::Cube(_) | ast::Expr::Rollup(_) => {
                "GROUPING SETS, CUBE and ROLLUP are"
            }
            ast::Expr::Cast { .. } | ast::Expr::Convert { .. } => "this form of cast is",
            ast::Expr::IsJson { .. } => "IS JSON is",
            ast::Expr::IsNormalized { .. } => "IS NORMALIZED is",
            _ => "this form of expression is",
        };
        let span = match expression {
            // The parser says no place for these.
            ast::Expr::RLike { expr, .. }
            | ast::Expr::AnyOp { left: expr, .. }
            | ast::Expr::AllOp { left: expr, .. } => expr.span(),
            other => other.span(),
        };
        self.refuse(what, span)
    }
}
