//! From text to [`Statement`]: the only door to `sqlparser`, whose types end here.
//!
//! ```text
//! text -> scan (size) -> tokens -> guard (nesting) -> rewrite (TTL) -> misread -> parser -> kept -> our statement
//! ```
//!
//! The parser knows fifty dialects; we know one. So every field of each node that is accepted is looked at, and what
//! has no place in [`Statement`] is refused by name (0A000) with its position, never dropped. What the parser itself has
//! dropped, `kept` finds.
//!
//! * No text, however hostile, makes the process panic or run out of stack: size, number of tokens, nesting and
//!   length of operator chains are bounded before the parser, which recurses, sees them.
//! * Statements that we do not have at all are refused by their first word, so the parser's code for them never runs.
//! * A position is the number of a character in the text, counted from 1.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the parser's enums are not ours: whatever is not named is refused"
)]

mod call;
mod definition;
mod dispatch;
mod expression;
mod guard;
mod kept;
mod lists;
mod literal;
mod misread;
mod printable;
mod query;
mod rewrite;
mod scan;
mod type_name;
mod write;

use crate::error::{Error, Result, SqlState};
use crate::sql::memory::{Counted, QueryMemory};
use crate::sql::statement::{Expr, Name, Statement};
use lists::Lists;
use sqlparser::ast;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};
use std::sync::Arc;

pub use rewrite::parse_duration;
pub use scan::{Split, first_word, split};
pub(in crate::sql) use scan::{lexeme, unended};

/// Bytes a name has at most, as in PostgreSQL: file names, metrics and tables on a terminal rest on it.
pub const NAME_BYTES_MAX: usize = 63;

/// Tokens a statement has at most, whatever memory there is. An INSERT of literals and a long IN list, which are what
/// grows large in practice, do not come this way.
const TOKENS_MAX: usize = 1 << 20;

/// Bytes that a token takes while a statement is parsed, in the list of tokens and in the tree: measured on lists of
/// numbers.
const TOKEN_BYTES: usize = 375;

/// Bytes of a token that is space, which is in no tree.
const SPACE_BYTES: usize = 90;

/// Bytes of text from which on parsing it is counted: below, it takes less than 24 MB at the very worst, and some 100 KB
/// as a rule.
const COUNTED_BYTES_MIN: usize = 64 << 10;

/// What a statement may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseLimits {
    /// Bytes of text.
    pub bytes_max: usize,
    /// Levels of nesting, in parentheses and in expressions.
    pub depth_max: usize,
}

impl Default for ParseLimits {
    /// 16 MiB, as `limits.statement_bytes_max`; 128 levels, which fit a quarter of a 2 MiB stack.
    fn default() -> ParseLimits {
        ParseLimits { bytes_max: 16 << 20, depth_max: 128 }
    }
}

impl ParseLimits {
    /// Refuses a text that is too long, with 54000, and one with the character NUL, with 22021: no text has it, as in
    /// PostgreSQL, so no program that ends strings with it reads half of one.
    pub fn check_text(&self, sql: &str) -> Result<()> {
        if sql.len() <= self.bytes_max {
            let Some(at) = sql.find('\0') else { return Ok(()) };
            let position = sql[..at].chars().count() + 1;
            let message = "the character NUL (0x00) cannot stand in text";
            return Err(Error::invalid(SqlState::INVALID_ENCODING, message).at(position as u32));
        }
        let message = format!("the statement is {} bytes long, the limit is {}", sql.len(), self.bytes_max);
        Err(Error::limit(SqlState::LIMIT_EXCEEDED, message)
            .hint("send it in parts, or raise limits.statement_bytes_max"))
    }
}

/// Reads one statement; a trailing `;` and comments are fine.
///
/// Errors: 42601 where it does not parse, 0A000 for what is known and not supported, 54000 and 54001 for limits,
/// and those of single literals and names (22003, 42622, …).
pub fn parse(sql: &str, limits: &ParseLimits) -> Result<Statement> {
    parse_within(sql, limits, None)
}

/// [`parse`], which takes the memory that a long text needs out of an account first: that of its tokens until they are
/// parsed, and that of its long lists for as long as they live.
///
/// # Errors
/// Those of `parse`, and 53200 where the account has not enough.
pub fn parse_within(sql: &str, limits: &ParseLimits, memory: Option<&Arc<QueryMemory>>) -> Result<Statement> {
    limits.check_text(sql)?;
    let refused = |error: Error| error.context(format_args!("parsing a statement of {} bytes", sql.len()));
    let (lists, shorter) = Lists::take_out(sql, memory).map_err(refused)?.unzip();
    let mut counted = Counted::new(memory);
    let sql = shorter.as_deref().unwrap_or(sql);
    if scan::count_tokens(sql, TOKENS_MAX).is_none() {
        let message = format!("the statement has more than {TOKENS_MAX} tokens");
        return Err(Error::limit(SqlState::LIMIT_EXCEEDED, message).hint("send it in parts"));
    }
    if sql.len() >= COUNTED_BYTES_MIN {
        let (tokens, spaces) = scan::tokens_and_spaces(sql);
        counted.set(tokens * TOKEN_BYTES + spaces * SPACE_BYTES).map_err(refused)?;
    }
    let translator = Translator { positions: Positions::of(sql), depth_max: limits.depth_max, lists };
    let tokens = translator.one_statement(translator.tokenize(sql)?)?;
    let refused = |(error, span): (Error, Span)| error.at(translator.position(span));
    let longest = guard::check(&tokens, limits.depth_max).map_err(refused)?;
    translator.statement(tokens, longest).map_err(printable::plain_error)
}

/// Reads one expression: the text of a DEFAULT.
pub fn parse_expression(sql: &str, limits: &ParseLimits) -> Result<Expr> {
    limits.check_text(sql)?;
    let translator = Translator { positions: Positions::of(sql), depth_max: limits.depth_max, lists: None };
    let tokens = translator.tokenize(sql)?;
    guard::check(&tokens, limits.depth_max).map_err(|(error, span)| error.at(translator.position(span)))?;
    translator.check_numbers(&tokens)?;
    translator.check_sources(&tokens)?;
    let mut parser = translator.parser(tokens);
    let parsed = parser.parse_expr().map_err(|error| translator.syntax(&error));
    let ended = parsed.and_then(|expression| translator.expect_end(&mut parser).map(|()| expression));
    ended.and_then(|expression| translator.expression(expression)).map_err(printable::plain_error)
}

/// Turns the parser's tree into ours; knows where in the text a token stood.
struct Translator {
    positions: Positions,
    depth_max: usize,
    /// Lists that were taken out of the text.
    lists: Option<Lists>,
}

/// Where each line begins, in characters.
struct Positions {
    line_starts: Vec<u32>,
    /// The place after the last character, where something is missing.
    end: u32,
}

impl Positions {
    fn of(sql: &str) -> Positions {
        let mut line_starts = vec![0];
        if sql.contains('\n') {
            let lines = sql.chars().enumerate().filter(|&(_, char)| char == '\n');
            line_starts.extend(lines.map(|(i, _)| i as u32 + 1));
        }
        Positions { line_starts, end: sql.chars().count() as u32 + 1 }
    }

    /// The character's number, from 1; 0 where the parser made the place up.
    fn of_location(&self, location: Location) -> u32 {
        match usize::try_from(location.line).ok().and_then(|line| self.line_starts.get(line.checked_sub(1)?)) {
            Some(start) => start + location.column as u32,
            None => 0,
        }
    }
}

/// The dialect; it has no state.
const DIALECT: PostgreSqlDialect = PostgreSqlDialect {};

impl Translator {
    fn position(&self, span: Span) -> u32 {
        self.whole(self.positions.of_location(span.start))
    }

    /// A position in the text as it was given, with its lists.
    fn whole(&self, position: u32) -> u32 {
        self.lists.as_ref().map_or(position, |lists| lists.position(position))
    }

    fn tokenize(&self, sql: &str) -> Result<Vec<TokenWithSpan>> {
        let mut tokens = Tokenizer::new(&DIALECT, sql).tokenize_with_location().map_err(|error| {
            self.at(
                Error::invalid(SqlState::SYNTAX_ERROR, lower_first(error.message.trim_end_matches('.'))),
                error.location,
            )
        })?;
        tokens.retain(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
        rewrite::signs(&mut tokens);
        rewrite::names(&mut tokens);
        rewrite::concurrently(&mut tokens);
        rewrite::null_tests(&mut tokens);
        rewrite::join_strings(&mut tokens).map_err(|second| self.unexpected(&second, "an operator or a comma"))?;
        Ok(tokens)
    }

    /// Takes trailing semicolons off, and refuses no statement and more than one.
    fn one_statement(&self, mut tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
        while tokens.last().is_some_and(|token| token.token == Token::SemiColon) {
            tokens.pop();
        }
        if tokens.is_empty() {
            return Err(Error::invalid(SqlState::SYNTAX_ERROR, "the statement is empty"));
        }
        if let Some(semicolon) = tokens.iter().position(|token| token.token == Token::SemiColon) {
            let error = Error::invalid(SqlState::SYNTAX_ERROR, "more than one statement in one request")
                .hint("send them one by one, or as a batch, which is applied as a whole or not at all");
            return Err(self.at(error, tokens[semicolon + 1].span.start));
        }
        Ok(tokens)
    }

    fn parser(&self, mut tokens: Vec<TokenWithSpan>) -> Parser<'static> {
        printable::hide(&mut tokens);
        // A level of parentheses takes the parser two levels of recursion at most.
        Parser::new(&DIALECT).with_recursion_limit(self.depth_max * 2 + 16).with_tokens_with_locations(tokens)
    }

    fn object(&self, name: ast::ObjectName) -> Result<Name> {
        let mut parts = name.0;
        match (parts.pop(), parts.pop()) {
            (Some(ast::ObjectNamePart::Identifier(ident)), None) => self.name(ident),
            (Some(ast::ObjectNamePart::Identifier(ident)), Some(_)) => {
                Err(self.refuse("schema-qualified names are", ident.span))
            }
            (Some(ast::ObjectNamePart::Function(function)), _) => {
                Err(self.refuse("names made by functions are", function.name.span))
            }
            (None, _) => Err(Error::invalid(SqlState::SYNTAX_ERROR, "a name is missing")),
        }
    }

    fn name(&self, ident: ast::Ident) -> Result<Name> {
        self.fold(ident.value, ident.quote_style, ident.span)
    }

    fn fold(&self, text: String, quote: Option<char>, span: Span) -> Result<Name> {
        let fail = |state, message: String| Err(self.at(Error::invalid(state, message), span.start));
        let mut text = printable::plain(text);
        if quote.is_none() {
            text.make_ascii_lowercase();
        }
        if text.is_empty() {
            return fail(SqlState::SYNTAX_ERROR, "a quoted name is empty".to_owned());
        }
        if text.len() > NAME_BYTES_MAX {
            let message = format!("name \"{text}\" is {} bytes long, the limit is {NAME_BYTES_MAX}", text.len());
            return fail(SqlState::NAME_TOO_LONG, message);
        }
        Ok(Name { text, position: self.position(span) })
    }

    fn at(&self, error: Error, location: Location) -> Error {
        place(error, self.whole(self.positions.of_location(location)))
    }

    fn refuse(&self, what: impl std::fmt::Display, span: Span) -> Error {
        self.at(Error::unsupported(what), span.start)
    }

    fn unexpected(&self, token: &TokenWithSpan, wanted: &str) -> Error {
        let message = format!("syntax error at or near \"{}\"", token.token);
        self.at(Error::invalid(SqlState::SYNTAX_ERROR, message).hint(format!("expected {wanted}")), token.span.start)
    }

    fn syntax_error_at(&self, token: Option<&TokenWithSpan>, wanted: &str) -> Error {
        match token {
            Some(token) => self.unexpected(token, wanted),
            None => self.at_end(wanted),
        }
    }

    /// The error of a statement that stops too early: it points behind the last character, as PostgreSQL's does.
    fn at_end(&self, wanted: &str) -> Error {
        let error = Error::invalid(SqlState::SYNTAX_ERROR, "syntax error at end of input");
        error.hint(format!("expected {wanted}")).at(self.whole(self.positions.end))
    }

    /// Reads the parser's error text, which is all that it tells: `Expected: a, found: b at Line: 1, Column: 2`.
    fn syntax(&self, error: &ParserError) -> Error {
        let text = match error {
            ParserError::RecursionLimitExceeded => return guard::too_deep(self.depth_max),
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        };
        let (text, location) = match text.rsplit_once(" at Line: ") {
            Some((text, place)) => (text, read_location(place)),
            None => (text.as_str(), None),
        };
        let error = match text.strip_prefix("Expected: ").and_then(|text| text.rsplit_once(", found: ")) {
            Some((wanted, "EOF")) => return self.at_end(&readable(wanted)),
            Some((wanted, found)) => {
                Error::invalid(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"{found}\""))
                    .hint(format!("expected {}", readable(wanted)))
            }
            None => {
                let text = text.strip_prefix("Expected ").map_or(lower_first(text), |text| format!("expected {text}"));
                Error::invalid(SqlState::SYNTAX_ERROR, format!("syntax error: {text}"))
            }
        };
        location.map_or(error.clone(), |location| self.at(error, location))
    }
}

/// Points the error at a position, where there is one.
fn place(error: Error, position: u32) -> Error {
    if position == 0 { error } else { error.at(position) }
}

/// The unquoted word at a place in upper case; empty where something else stands there.
fn word(tokens: &[TokenWithSpan], at: usize) -> String {
    match tokens.get(at).map(|token| &token.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
        _ => String::new(),
    }
}

fn read_location(text: &str) -> Option<Location> {
    let (line, column) = text.split_once(", Column: ")?;
    Some(Location { line: line.parse().ok()?, column: column.trim().parse().ok()? })
}

/// A punctuation mark is quoted, or it would look like one of the message's own.
fn readable(wanted: &str) -> String {
    let mark = !wanted.contains(|char: char| char.is_alphanumeric());
    if mark { format!("\"{wanted}\"") } else { wanted.to_owned() }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_lowercase().chain(chars).collect())
}

/// A token that came from nowhere in the text.
fn made(token: Token, span: Span) -> TokenWithSpan {
    TokenWithSpan { token, span }
}
