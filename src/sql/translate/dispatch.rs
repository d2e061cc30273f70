//! Which statement it is, and what must not reach the parser.

use super::kept::Words;
use super::{Translator, guard, misread, rewrite, word};
use crate::error::{Error, Result, SqlState};
use crate::sql::statement::{Name, Statement};
use sqlparser::ast;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Statements of PostgreSQL that are refused by name; anything else is a syntax error.
const KNOWN_STATEMENTS: [&str; 38] = [
    "ABORT",
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CALL",
    "CHECKPOINT",
    "CLOSE",
    "CLUSTER",
    "COMMENT",
    "COMMIT",
    "COPY",
    "DEALLOCATE",
    "DECLARE",
    "DISCARD",
    "DO",
    "END",
    "EXECUTE",
    "FETCH",
    "GRANT",
    "IMPORT",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MERGE",
    "MOVE",
    "NOTIFY",
    "PREPARE",
    "REFRESH",
    "REINDEX",
    "RELEASE",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SET",
    "START",
    "TRUNCATE",
    "VACUUM",
];

/// Functions whose arguments have a grammar of their own, which we do not have.
pub(super) const OWN_GRAMMAR: [Keyword; 8] = [
    Keyword::CONVERT,
    Keyword::EXTRACT,
    Keyword::OVERLAY,
    Keyword::POSITION,
    Keyword::STRUCT,
    Keyword::SUBSTR,
    Keyword::SUBSTRING,
    Keyword::TRIM,
];

const SET_OPERATIONS: [Keyword; 3] = [Keyword::UNION, Keyword::INTERSECT, Keyword::EXCEPT];

impl Translator {
    /// Dispatches on the first word, so that only statements we have reach the parser. `longest` is the longest chain of
    /// operators in them.
    pub(super) fn statement(&self, tokens: Vec<TokenWithSpan>, longest: usize) -> Result<Statement> {
        match word(&tokens, 0).as_str() {
            "SHOW" => self.show(&tokens),
            "DESCRIBE" | "DESC" => self.describe(&tokens),
            "EXPLAIN" => self.explain(tokens, longest),
            "SELECT" | "VALUES" | "INSERT" | "UPDATE" | "DELETE" | "CREATE" | "DROP" => self.parsed(tokens, longest),
            "WITH" => Err(self.refuse("WITH queries are", tokens[0].span)),
            "TABLE" => Err(self.refuse("TABLE as a query is", tokens[0].span).hint("write SELECT * FROM")),
            "" if tokens[0].token == Token::LParen => {
                Err(self.refuse("queries in parentheses and set operations are", tokens[0].span))
            }
            "SET" if matches!(word(&tokens, 1).as_str(), "CONSISTENCY" | "MAX_STALENESS") => {
                let setting = word(&tokens, 1).to_ascii_lowercase();
                let refused = self.refuse(format_args!("SET {setting} is"), tokens[0].span);
                Err(refused.hint(format!(
                    "there is no session here to keep it: send it with each request, as x-chronos-{} to gRPC or \
                     \"{setting}\" to POST /sql; chronos client does so after SET {setting}",
                    setting.replace('_', "-")
                )))
            }
            first if KNOWN_STATEMENTS.contains(&first) => {
                Err(self.refuse(format_args!("{first} statements are"), tokens[0].span))
            }
            _ => Err(self.unexpected(&tokens[0], "a statement")),
        }
    }

    fn parsed(&self, mut tokens: Vec<TokenWithSpan>, longest: usize) -> Result<Statement> {
        match word(&tokens, 0).as_str() {
            "CREATE" => {
                self.check_create(&tokens)?;
                if longest > guard::PRINTED_MAX {
                    return Err(self.at(guard::too_long_to_keep(), tokens[0].span.start));
                }
                rewrite::ttl(&mut tokens);
            }
            "DROP" if !matches!(word(&tokens, 1).as_str(), "TABLE" | "INDEX") => {
                return Err(match word(&tokens, 1).as_str() {
                    "" => self.syntax_error_at(tokens.get(1).or(tokens.last()), "TABLE or INDEX"),
                    what => self.refuse(format_args!("DROP {what} is"), tokens[0].span),
                });
            }
            _ => {}
        }
        self.check_numbers(&tokens)?;
        self.check_sources(&tokens)?;
        misread::check(&tokens).map_err(|(error, span)| self.at(error, span.start))?;
        let words = if longest > guard::PRINTED_MAX { Words::default() } else { Words::of(&tokens) };
        let mut parser = self.parser(tokens);
        let statement = parser.parse_statement().map_err(|error| self.syntax(&error))?;
        self.expect_end(&mut parser)?;
        let lost = words.lost(&statement);
        let translated = self.translated(statement)?;
        // What is refused by its own name has been by now.
        match lost {
            None => Ok(translated),
            Some((words, span)) => Err(self.refuse(format_args!("{words} here is"), span)),
        }
    }

    fn translated(&self, statement: ast::Statement) -> Result<Statement> {
        match statement {
            ast::Statement::Query(query) => Ok(Statement::Query(Box::new(self.query(*query)?))),
            ast::Statement::Insert(insert) => self.insert(insert),
            ast::Statement::Update(update) => self.update(update),
            ast::Statement::Delete(delete) => self.delete(delete),
            ast::Statement::CreateTable(create) => self.create_table(create),
            ast::Statement::CreateIndex(create) => self.create_index(create),
            ast::Statement::Drop {
                object_type,
                if_exists,
                names,
                cascade: _,
                restrict: _,
                purge,
                temporary,
                table,
            } => {
                // Nothing depends on a table or an index but what goes with it: CASCADE and RESTRICT do the same.
                if purge || temporary || table.is_some() {
                    return Err(Error::unsupported("this form of DROP is").at(1));
                }
                let names = names.into_iter().map(|name| self.object(name)).collect::<Result<Vec<Name>>>()?;
                match object_type {
                    ast::ObjectType::Table => Ok(Statement::DropTable { names, if_exists }),
                    ast::ObjectType::Index => Ok(Statement::DropIndex { names, if_exists }),
                    other => Err(Error::unsupported(format_args!("DROP {other} is")).at(1)),
                }
            }
            _ => Err(Error::unsupported("this statement is").at(1)),
        }
    }

    /// `CREATE` is followed by what we can create, and by what it is called if we cannot.
    fn check_create(&self, tokens: &[TokenWithSpan]) -> Result<()> {
        let words: Vec<String> = (1..tokens.len().min(6)).map(|i| word(tokens, i)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["TABLE" | "INDEX", ..] | ["UNIQUE", "INDEX", ..] => Ok(()),
            ["OR", "REPLACE", ..] => Err(self.refuse("CREATE OR REPLACE is", tokens[0].span)),
            ["GLOBAL" | "LOCAL" | "TEMP" | "TEMPORARY", ..] => Err(self.refuse("temporary tables are", tokens[1].span)),
            ["UNLOGGED", ..] => Err(self.refuse("UNLOGGED tables are", tokens[1].span)),
            ["" | "UNIQUE", ..] | [] => Err(self.syntax_error_at(tokens.get(1), "TABLE or INDEX")),
            [what, ..] => Err(self.refuse(format_args!("CREATE {what} is"), tokens[0].span)),
        }
    }

    fn show(&self, tokens: &[TokenWithSpan]) -> Result<Statement> {
        match (word(tokens, 1).as_str(), word(tokens, 2).as_str()) {
            ("TABLES", "") => {
                self.ends_after(tokens, 2)?;
                Ok(Statement::ShowTables)
            }
            ("TABLES", clause @ ("FROM" | "IN" | "LIKE" | "WHERE")) => {
                Err(self.refuse(format_args!("SHOW TABLES {clause} is"), tokens[2].span))
            }
            ("TABLES", _) => Err(self.unexpected(&tokens[2], "the end of the statement")),
            ("COLUMNS", "FROM" | "IN") => Ok(Statement::ShowColumns(self.only_name(tokens, 3)?)),
            ("COLUMNS", _) => Err(self.syntax_error_at(tokens.get(2), "FROM and a table")),
            ("", _) => Err(self.syntax_error_at(tokens.get(1), "TABLES or COLUMNS")),
            (what, _) => Err(self.refuse(format_args!("SHOW {what} is"), tokens[0].span)),
        }
    }

    fn describe(&self, tokens: &[TokenWithSpan]) -> Result<Statement> {
        Ok(Statement::ShowColumns(self.only_name(tokens, 1)?))
    }

    fn explain(&self, mut tokens: Vec<TokenWithSpan>, longest: usize) -> Result<Statement> {
        if tokens.get(1).is_some_and(|token| token.token == Token::LParen) {
            return Err(self.refuse("EXPLAIN options in parentheses are", tokens[1].span));
        }
        let analyze = word(&tokens, 1) == "ANALYZE";
        let prefix = 1 + usize::from(analyze);
        match word(&tokens, prefix).as_str() {
            "SELECT" | "VALUES" | "INSERT" | "UPDATE" | "DELETE" => {
                let position = self.position(tokens[prefix].span);
                tokens.drain(..prefix);
                Ok(Statement::Explain { analyze, position, inner: Box::new(self.parsed(tokens, longest)?) })
            }
            "WITH" => Err(self.refuse("WITH queries are", tokens[prefix].span)),
            "TABLE" => Err(self.refuse("TABLE as a query is", tokens[prefix].span).hint("write SELECT * FROM")),
            "VERBOSE" => Err(self.refuse("EXPLAIN VERBOSE is", tokens[prefix].span)),
            what if !what.is_empty() && KNOWN_STATEMENTS.contains(&what) => {
                Err(self.refuse(format_args!("EXPLAIN of {what} is"), tokens[prefix].span))
            }
            _ => Err(self.syntax_error_at(tokens.get(prefix), "SELECT, VALUES, INSERT, UPDATE or DELETE")),
        }
    }

    /// The token `at` is a name and the last one.
    fn only_name(&self, tokens: &[TokenWithSpan], at: usize) -> Result<Name> {
        match tokens.get(at) {
            Some(TokenWithSpan { token: Token::Word(word), span }) => {
                self.ends_after(tokens, at + 1)?;
                self.fold(word.value.clone(), word.quote_style, *span)
            }
            other => Err(self.syntax_error_at(other, "a table")),
        }
    }

    fn ends_after(&self, tokens: &[TokenWithSpan], count: usize) -> Result<()> {
        tokens.get(count).map_or(Ok(()), |token| Err(self.unexpected(token, "the end of the statement")))
    }

    pub(super) fn expect_end(&self, parser: &mut Parser<'_>) -> Result<()> {
        let next = parser.next_token();
        match next.token {
            Token::EOF => Ok(()),
            Token::Word(ref word) if SET_OPERATIONS.contains(&word.keyword) => {
                Err(self.refuse("set operations are", next.span))
            }
            _ => Err(self.unexpected(&next, "the end of the statement")),
        }
    }

    /// A number that runs into a word, `7d`, would otherwise be read as `7 AS d`.
    pub(super) fn check_numbers(&self, tokens: &[TokenWithSpan]) -> Result<()> {
        for pair in tokens.windows(2) {
            let [number, next] = pair else { continue };
            let Token::Number(digits, _) = &number.token else { continue };
            if let (Token::Word(word), true) = (&next.token, number.span.end == next.span.start) {
                let message = format!("trailing junk after numeric literal at or near \"{digits}{}\"", word.value);
                return Err(self.at(Error::invalid(SqlState::SYNTAX_ERROR, message), number.span.start));
            }
        }
        Ok(())
    }

    /// Refuses what the parser cannot be trusted with, none of which is ours: a parenthesis after FROM and functions with
    /// a grammar of their own are tried in several ways one inside the other, which takes time exponential in their
    /// nesting, and each level of subqueries takes some 30 KiB of stack.
    pub(super) fn check_sources(&self, tokens: &[TokenWithSpan]) -> Result<()> {
        for (at, pair) in tokens.windows(2).enumerate() {
            let [first, next] = pair else { continue };
            if let Token::Word(word) = &first.token
                && word.quote_style.is_none()
                && next.token == Token::LParen
                && OWN_GRAMMAR.contains(&word.keyword)
            {
                return Err(self.refuse(format_args!("{} is", word.value.to_ascii_uppercase()), first.span));
            }
            if first.token == Token::LParen
                && matches!(&next.token, Token::Word(word) if word.quote_style.is_none()
                    && matches!(word.keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES))
            {
                return Err(self.refuse("subqueries are", next.span));
            }
            // A reserved word in PostgreSQL, so no column is meant.
            if matches!(&first.token, Token::Word(word) if word.quote_style.is_none() && word.keyword == Keyword::BETWEEN)
                && matches!(&next.token, Token::Word(word)
                    if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("SYMMETRIC"))
            {
                return Err(self.refuse("BETWEEN SYMMETRIC is", next.span));
            }
            let from = matches!(&first.token, Token::Word(word)
                if word.quote_style.is_none() && matches!(word.keyword, Keyword::FROM | Keyword::JOIN | Keyword::USING));
            if from && next.token == Token::LParen && !is_distinct(&tokens[..at]) {
                return Err(self.refuse("subqueries and joins in parentheses are", next.span));
            }
        }
        Ok(())
    }
}

/// True where a FROM after these is the one of `IS [NOT] DISTINCT FROM`; in `SELECT DISTINCT FROM` it begins a clause.
fn is_distinct(before: &[TokenWithSpan]) -> bool {
    let keyword = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    };
    match before {
        [.., is, not, distinct] if keyword(not) == Keyword::NOT => {
            keyword(is) == Keyword::IS && keyword(distinct) == Keyword::DISTINCT
        }
        [.., is, distinct] => keyword(is) == Keyword::IS && keyword(distinct) == Keyword::DISTINCT,
        _ => false,
    }
}
