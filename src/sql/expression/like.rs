//! LIKE and ILIKE.
//!
//! A pattern is compiled once for a batch where it is constant. Most patterns are one of four shapes that need no
//! matcher: `abc`, `abc%`, `%abc`, `%abc%`. The others run a matcher that remembers only the last `%`: when a later
//! part fails, an earlier `%` need not try again, since whatever it could skip more of, the last one can as well. So
//! the time is at most text times pattern, and nothing recurses.
//!
//! * `_` is one character, not one byte.
//! * The escape character makes the next one literal; a pattern that ends in it is 22025.

use super::functions::append_lower;
use super::operand::{all_null, finish, is_constant, is_null_constant, marked, mask, strings, union};
use crate::error::{Error, Result, SqlState};
use crate::sql::batch::{Column, Values};
use crate::sql::value::DataType;
use std::sync::Arc;

/// How a pattern is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Makes the next character literal; none where there is no escape.
    pub escape: Option<char>,
    /// Case does not count.
    pub case_insensitive: bool,
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    shape: Shape,
    case_insensitive: bool,
}

#[derive(Clone, Debug)]
enum Shape {
    Equal(Vec<u8>),
    Begins(Vec<u8>),
    Ends(Vec<u8>),
    Contains(Vec<u8>),
    Any(Vec<Token>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    Character,
    Run,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// 22025 where it ends in its escape character.
    pub fn compile(pattern: &str, options: Options) -> Result<Pattern> {
        let mut tokens = Vec::with_capacity(pattern.len());
        let mut utf8 = [0; 4];
        let mut characters = pattern.chars();
        let mut lower = Vec::new();
        while let Some(c) = characters.next() {
            let literal = match c {
                c if Some(c) == options.escape => characters.next().ok_or_else(ends_in_escape)?,
                '%' => {
                    // A run of runs is one.
                    if tokens.last() != Some(&Token::Run) {
                        tokens.push(Token::Run);
                    }
                    continue;
                }
                '_' => {
                    tokens.push(Token::Character);
                    continue;
                }
                c => c,
            };
            let literal = literal.encode_utf8(&mut utf8).as_bytes();
            if options.case_insensitive {
                lower.clear();
                append_lower(&mut lower, literal);
                tokens.extend(lower.iter().map(|&byte| Token::Byte(byte)));
            } else {
                tokens.extend(literal.iter().map(|&byte| Token::Byte(byte)));
            }
        }
        Ok(Pattern { shape: Shape::of(tokens), case_insensitive: options.case_insensitive })
    }

    /// True where the whole text matches. `buffer` is room that the caller keeps between calls.
    pub fn matches(&self, text: &[u8], buffer: &mut Vec<u8>) -> bool {
        if !self.case_insensitive {
            return self.shape.matches(text);
        }
        buffer.clear();
        append_lower(buffer, text);
        self.shape.matches(buffer)
    }
}

fn ends_in_escape() -> Error {
    Error::invalid(SqlState::INVALID_ESCAPE, "LIKE pattern must not end with escape character")
}

impl Shape {
    fn of(tokens: Vec<Token>) -> Shape {
        let literal = |tokens: &[Token]| -> Option<Vec<u8>> {
            tokens
                .iter()
                .map(|token| match token {
                    Token::Byte(byte) => Some(*byte),
                    Token::Character | Token::Run => None,
                })
                .collect()
        };
        let simple = match &tokens[..] {
            [Token::Run, inner @ .., Token::Run] => literal(inner).map(Shape::Contains),
            [Token::Run, inner @ ..] => literal(inner).map(Shape::Ends),
            [inner @ .., Token::Run] => literal(inner).map(Shape::Begins),
            inner => literal(inner).map(Shape::Equal),
        };
        simple.unwrap_or(Shape::Any(tokens))
    }

    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Shape::Equal(literal) => text == literal,
            Shape::Begins(literal) => text.starts_with(literal),
            Shape::Ends(literal) => text.ends_with(literal),
            Shape::Contains(literal) => contains(text, literal),
            Shape::Any(tokens) => run(tokens, text),
        }
    }
}

/// Looks for the first byte, then compares the rest: literals are short.
fn contains(text: &[u8], literal: &[u8]) -> bool {
    let Some((&first, rest)) = literal.split_first() else { return true };
    let mut text = text;
    while let Some(at) = text.iter().position(|&byte| byte == first) {
        text = &text[at + 1..];
        if text.starts_with(rest) {
            return true;
        }
    }
    false
}

/// The matcher of patterns of any shape.
fn run(tokens: &[Token], text: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    // The token after the last `%`, and where in the text it was tried last.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let stepped = match tokens.get(token) {
            None if at == text.len() => return true,
            Some(Token::Run) => {
                token += 1;
                if token == tokens.len() {
                    return true;
                }
                retry = Some((token, at));
                continue;
            }
            Some(Token::Character) if at < text.len() => character_bytes(text, at),
            Some(Token::Byte(byte)) if text.get(at) == Some(byte) => 1,
            None | Some(Token::Character | Token::Byte(_)) => 0,
        };
        if stepped > 0 {
            token += 1;
            at += stepped;
            continue;
        }
        match retry {
            Some((after, tried)) if tried < text.len() => {
                let next = tried + character_bytes(text, tried);
                retry = Some((after, next));
                (token, at) = (after, next);
            }
            Some(_) | None => return false,
        }
    }
}

/// Bytes of the character that begins at `at`.
fn character_bytes(text: &[u8], at: usize) -> usize {
    1 + text[at + 1..].iter().take_while(|&&byte| byte & 0xC0 == 0x80).count()
}

/// `text LIKE pattern` for each row.
pub(super) fn evaluate(
    text: &Column,
    pattern: &Column,
    options: Options,
    negated: bool,
    rows: usize,
) -> Result<Arc<Column>> {
    if is_null_constant(text) || is_null_constant(pattern) {
        return Ok(all_null(DataType::Bool, rows));
    }
    let nulls = union(mask(text), mask(pattern));
    let constant = is_constant(text) && is_constant(pattern);
    let (texts, patterns) = (strings(text)?, strings(pattern)?);
    let compile = |pattern: &[u8]| Pattern::compile(&String::from_utf8_lossy(pattern), options);
    let mut buffer = Vec::new();
    let visited = if constant { 1 } else { rows };
    let mut values = Vec::with_capacity(visited);
    if is_constant(pattern) {
        let pattern = compile(patterns.get(0))?;
        values.extend((0..visited).map(|i| pattern.matches(texts.get(i), &mut buffer) != negated));
    } else {
        // Patterns of a column repeat often; compiling is what costs.
        let mut last: Option<(&[u8], Pattern)> = None;
        for i in 0..visited {
            if marked(nulls.as_deref(), i) {
                values.push(false);
                continue;
            }
            let pattern = match last.take() {
                Some((source, pattern)) if source == patterns.get(i) => pattern,
                Some(_) | None => compile(patterns.get(i))?,
            };
            values.push(pattern.matches(texts.get(i), &mut buffer) != negated);
            last = Some((patterns.get(i), pattern));
        }
    }
    Ok(finish(Values::Bool(values), nulls, constant, rows))
}
