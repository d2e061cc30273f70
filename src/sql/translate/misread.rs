//! What the parser would read as something else than PostgreSQL does, found among the tokens and refused by name.
//!
//! ```text
//! FROM ONLY t                 the table "only", called t
//! ORDER BY ALL                the column "all"
//! INSERT INTO t OVERRIDING …  the table t, called overriding
//! a INT AUTO_INCREMENT        a column without it
//! ```
//!
//! Each of these words is reserved in PostgreSQL or stands where only a clause of ours that is not there can be meant;
//! in quotes it is a name, as everywhere.

use super::word;
use crate::error::{Error, SqlState};
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

/// Refuses the first of them; says where it stands.
pub(super) fn check(tokens: &[TokenWithSpan]) -> Result<(), (Error, Span)> {
    if word(tokens, 0) == "CREATE" && word(tokens, 1) == "TABLE" {
        column_options(tokens)?;
    }
    for at in 0..tokens.len() {
        let Token::Word(first) = &tokens[at].token else { continue };
        if first.quote_style.is_some() {
            continue;
        }
        // Most words are none of these, so they are told apart before anything is copied.
        let refused = match first.value.len() {
            2 if is(&first.value, "BY") => after_by(tokens, at),
            4 if is(&first.value, "FROM") && !is_comparison(tokens, at) => only(tokens, at + 1),
            4 if is(&first.value, "JOIN") => only(tokens, at + 1),
            4 if is(&first.value, "TEXT") => text_with_length(tokens, at),
            6 if is(&first.value, "UPDATE") && at == 0 => only(tokens, at + 1),
            6 if is(&first.value, "VALUES") => row(tokens, at + 1),
            6 if is(&first.value, "FILTER") => half_a_filter(tokens, at),
            10 if is(&first.value, "OVERRIDING") => overriding(tokens, at),
            _ => None,
        };
        if let Some(refused) = refused {
            return Err(refused);
        }
    }
    Ok(())
}

/// Refuses options of columns that other databases have. The parser reads these words and forgets them, so where more
/// stands behind them its error would name that.
fn column_options(tokens: &[TokenWithSpan]) -> Result<(), (Error, Span)> {
    let (mut depth, mut references) = (0_usize, false);
    for (at, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Comma if depth == 1 => references = false,
            _ => {}
        }
        let first = word(tokens, at);
        if depth != 1 || first.is_empty() {
            continue;
        }
        let before = word(tokens, at - 1);
        let begins = matches!(tokens[at - 1].token, Token::LParen | Token::Comma);
        references |= first == "REFERENCES";
        let what = match first.as_str() {
            "CONSTRAINT" | "DEFAULT" | "REFERENCES" => continue,
            _ if begins || matches!(before.as_str(), "CONSTRAINT" | "DEFAULT" | "REFERENCES") => continue,
            "AUTO_INCREMENT" | "AUTOINCREMENT" => first.as_str(),
            "IDENTITY" if before != "AS" => "IDENTITY",
            "ON" if !references && word(tokens, at + 1) == "UPDATE" => "ON UPDATE",
            "AS" if before != "ALWAYS" && opens(tokens, at + 1) => "AS (...) for a column",
            _ => continue,
        };
        return Err((Error::unsupported(format_args!("{what} is")), token.span));
    }
    Ok(())
}

fn is(word: &str, wanted: &str) -> bool {
    word.eq_ignore_ascii_case(wanted)
}

fn opens(tokens: &[TokenWithSpan], at: usize) -> bool {
    tokens.get(at).is_some_and(|token| token.token == Token::LParen)
}

/// `IS [NOT] DISTINCT FROM`, behind which stands a value.
fn is_comparison(tokens: &[TokenWithSpan], from: usize) -> bool {
    let before = |back: usize| from.checked_sub(back).map_or(String::new(), |at| word(tokens, at));
    before(1) == "DISTINCT" && (before(2) == "IS" || (before(2) == "NOT" && before(3) == "IS"))
}

fn only(tokens: &[TokenWithSpan], at: usize) -> Option<(Error, Span)> {
    (word(tokens, at) == "ONLY").then(|| {
        let error = Error::unsupported("ONLY is");
        (error.hint("no table inherits from another; a table of that name is \"only\", in quotes"), tokens[at].span)
    })
}

/// `ORDER BY ALL`, and `GROUP BY ()`, of which the parser makes no grouping at all.
fn after_by(tokens: &[TokenWithSpan], by: usize) -> Option<(Error, Span)> {
    let clause = by.checked_sub(1).map_or(String::new(), |at| word(tokens, at));
    let behind = tokens.get(by + 1)?;
    match clause.as_str() {
        "ORDER" if word(tokens, by + 1) == "ALL" => Some((Error::unsupported("ORDER BY ALL is"), behind.span)),
        "GROUP" if opens(tokens, by + 1) && tokens.get(by + 2).is_some_and(|token| token.token == Token::RParen) => {
            Some((Error::unsupported("GROUP BY () is"), behind.span))
        }
        _ => None,
    }
}

/// `TEXT(5)` as a type: behind `::`, behind the AS of a CAST, or in a definition.
fn text_with_length(tokens: &[TokenWithSpan], at: usize) -> Option<(Error, Span)> {
    let (Token::Number(length, _), Token::RParen) = (&tokens.get(at + 2)?.token, &tokens.get(at + 3)?.token) else {
        return None;
    };
    let before = at.checked_sub(1)?;
    let is_type = tokens[before].token == Token::DoubleColon
        || word(tokens, before) == "AS"
        || (word(tokens, 0) == "CREATE" && matches!(tokens[before].token, Token::Word(_)));
    (is_type && opens(tokens, at + 1)).then(|| {
        let error = Error::unsupported(format_args!("type TEXT({length}) is"));
        (error.hint(format!("TEXT has no limit; with one it is VARCHAR({length})")), tokens[at].span)
    })
}

fn row(tokens: &[TokenWithSpan], at: usize) -> Option<(Error, Span)> {
    let refused = word(tokens, at) == "ROW" && opens(tokens, at + 1);
    refused.then(|| (Error::unsupported("VALUES ROW(...) is"), tokens[at].span))
}

/// `FILTER` behind a call and without its parenthesis: the parser reads the word and goes on.
fn half_a_filter(tokens: &[TokenWithSpan], at: usize) -> Option<(Error, Span)> {
    let behind_call = at.checked_sub(1).is_some_and(|before| tokens[before].token == Token::RParen);
    if !behind_call || opens(tokens, at + 1) {
        return None;
    }
    let error = Error::invalid(SqlState::SYNTAX_ERROR, "syntax error at or near \"FILTER\"");
    Some((error.hint("expected FILTER (WHERE ...), or AS before a name"), tokens[at].span))
}

fn overriding(tokens: &[TokenWithSpan], at: usize) -> Option<(Error, Span)> {
    let refused = word(tokens, 0) == "INSERT"
        && matches!(word(tokens, at + 1).as_str(), "SYSTEM" | "USER")
        && word(tokens, at + 2) == "VALUE";
    refused.then(|| (Error::unsupported("OVERRIDING is"), tokens[at].span))
}
