//! Bounds what a recursive parser would choke on, looking at the tokens alone.
//!
//! Two shapes grow a parser's stack: nesting (`((((`), and chains (`a + a + a + …`), whose tree leans to the left as
//! deep as the chain is long and is torn down recursively. The parser counts its own recursion, but not chains.

use crate::error::{Error, SqlState};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

/// Operators and keywords in one expression at most, over all open levels of nesting. Tearing down a tree of this
/// depth takes below 1 MiB of stack; a condition of 2,000 terms still passes.
const CHAIN_MAX: usize = 4_000;

/// Operators in one expression at most where it is printed, as a DEFAULT is: printing takes a level of recursion for each, and
/// some 1.5 KiB of stack for a level where nothing is optimized.
pub(super) const PRINTED_MAX: usize = 500;

/// The error of an expression in a definition that has more than [`PRINTED_MAX`].
pub(super) fn too_long_to_keep() -> Error {
    Error::limit(SqlState::TOO_COMPLEX, format!("an expression in a definition has more than {PRINTED_MAX} operators"))
}

/// The error of a statement that nests deeper than allowed.
pub(super) fn too_deep(depth_max: usize) -> Error {
    Error::limit(SqlState::TOO_COMPLEX, format!("the statement is nested more than {depth_max} levels deep"))
}

/// Refuses nesting beyond `depth_max` and chains beyond [`CHAIN_MAX`]; says where. The longest chain there is.
pub(super) fn check(tokens: &[TokenWithSpan], depth_max: usize) -> Result<usize, (Error, Span)> {
    // Length of the chain at each open level, and of all together.
    let mut levels = vec![0_usize];
    let (mut total, mut longest) = (0, 0);
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                if levels.len() > depth_max {
                    return Err((too_deep(depth_max), token.span));
                }
                levels.push(0);
            }
            Token::RParen | Token::RBracket | Token::RBrace if levels.len() > 1 => {
                total -= levels.pop().unwrap_or(0);
            }
            Token::Comma => total -= levels.last_mut().map_or(0, std::mem::take),
            operator if is_operator(operator) => {
                if let Some(chain) = levels.last_mut() {
                    *chain += 1;
                }
                total += 1;
                longest = longest.max(total);
                if total > CHAIN_MAX {
                    let message = format!("an expression has more than {CHAIN_MAX} operators");
                    let error = Error::limit(SqlState::TOO_COMPLEX, message).hint("use an IN list, or a batch");
                    return Err((error, token.span));
                }
            }
            _ => {}
        }
    }
    Ok(longest)
}

/// Anything but names and values.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword,
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::Placeholder(_) => false,
        _ => true,
    }
}
