//! What users may write and the grammar cannot read: `WITH TTL=7d`, a sign behind an operator, names like `interval`.
//!
//! ```text
//! WITH TTL = 7 d                 -> WITH (TTL = '7d')
//! WITH TTL = INTERVAL '7 days'   -> WITH (TTL = '7 days')
//! WITH (ttl = 7d)                -> WITH (ttl = '7d')
//! x>-1                           -> x > - 1
//! -+1                            -> - + 1
//! SELECT interval FROM t         -> SELECT "interval" FROM t
//! INSERT INTO position (a)       -> INSERT INTO "position" (a)
//! DROP INDEX CONCURRENTLY i      -> DROP INDEX i
//! x ISNULL                       -> x IS NULL
//! x NOTNULL                      -> x IS NOT NULL
//! 'a'                            -> 'ab'
//! 'b'
//! ```
//!
//! Of the TTL, only tokens directly after `WITH` or `WITH (` change, and only in a `CREATE TABLE`: nothing else can mean that.

use super::dispatch::OWN_GRAMMAR;
use super::{made, word};
use crate::error::{Error, Result, SqlState};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};
use std::time::Duration;

/// Takes signs off the end of operators. As in PostgreSQL no operator ends in a sign, but for those with one of
/// `~ ! @ # % ^ & | ?`; the tokeniser takes `>-` for one operator.
pub(super) fn signs(tokens: &mut Vec<TokenWithSpan>) {
    let mut at = 0;
    while at < tokens.len() {
        if let Token::CustomBinaryOperator(operator) = &tokens[at].token
            && let Some(parts) = without_signs(operator)
        {
            let mut start = tokens[at].span.start;
            let parts = parts.into_iter().map(|(token, width)| {
                let mut end = start;
                end.column += width;
                let span = Span { start, end };
                start = end;
                made(token, span)
            });
            let parts: Vec<TokenWithSpan> = parts.collect();
            let count = parts.len();
            tokens.splice(at..=at, parts);
            at += count;
        } else {
            at += 1;
        }
    }
}

/// The operator and its signs, each with its width; none where it is no operator of ours with signs behind.
fn without_signs(operator: &str) -> Option<Vec<(Token, u64)>> {
    let head = operator.trim_end_matches(['+', '-']);
    let token = match head {
        // The parser reads `- -` as two signs, and so it does `-` and `+` once they are apart.
        "" => return Some(operator.chars().map(|sign| (sign_token(sign), 1)).collect()),
        "<" => Token::Lt,
        ">" => Token::Gt,
        "<=" => Token::LtEq,
        ">=" => Token::GtEq,
        "<>" | "!=" => Token::Neq,
        "=" => Token::Eq,
        "*" => Token::Mul,
        "/" => Token::Div,
        "%" => Token::Mod,
        "||" => Token::StringConcat,
        _ => return None,
    };
    let signs = operator[head.len()..].chars();
    let signs = signs.map(|sign| (sign_token(sign), 1));
    Some(std::iter::once((token, head.len() as u64)).chain(signs).collect())
}

fn sign_token(sign: char) -> Token {
    if sign == '-' { Token::Minus } else { Token::Plus }
}

/// Puts names into quotes that the parser takes for the beginning of something else. In PostgreSQL they are words that
/// may name columns and tables, and they begin something only before a parenthesis or a value.
pub(super) fn names(tokens: &mut [TokenWithSpan]) {
    for at in 1..tokens.len() {
        let Token::Word(found) = &tokens[at].token else { continue };
        if found.quote_style.is_none() && is_name(tokens, at, found.keyword) {
            let name = found.value.to_ascii_lowercase();
            tokens[at].token = Token::make_word(&name, Some('"'));
        }
    }
}

/// What other databases write between INTERVAL and its value, or behind it.
const UNITS: [&str; 6] = ["YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND"];

fn is_name(tokens: &[TokenWithSpan], at: usize, found: Keyword) -> bool {
    let next = tokens.get(at + 1).map(|token| &token.token);
    let calls = matches!(next, Some(Token::LParen));
    match found {
        Keyword::TRIM | Keyword::UNNEST if !calls => true,
        Keyword::TOP => !calls && !matches!(next, Some(Token::Number(..))),
        Keyword::INTERVAL => {
            let is_value = matches!(
                next,
                Some(
                    Token::LParen
                        | Token::Number(..)
                        | Token::SingleQuotedString(_)
                        | Token::EscapedStringLiteral(_)
                        | Token::UnicodeStringLiteral(_)
                        | Token::NationalStringLiteral(_)
                        | Token::DollarQuotedString(_)
                )
            );
            let is_unit = UNITS.contains(&word(tokens, at + 1).as_str());
            // Behind the name of a column it is its type.
            let is_defined = word(tokens, 0) == "CREATE" && matches!(tokens[at - 1].token, Token::Word(_));
            let is_type = tokens[at - 1].token == Token::DoubleColon || word(tokens, at - 1) == "AS" || is_defined;
            !is_value && !is_unit && !is_type
        }
        Keyword::DIRECTORY | Keyword::LOCAL => {
            let goes_on = calls || matches!(word(tokens, at + 1).as_str(), "VALUES" | "DEFAULT");
            goes_on && is_inserted_into(tokens, at)
        }
        found if OWN_GRAMMAR.contains(&found) => is_inserted_into(tokens, at) || is_defined(tokens, at),
        _ => false,
    }
}

/// The table of an INSERT.
fn is_inserted_into(tokens: &[TokenWithSpan], at: usize) -> bool {
    at >= 2 && word(tokens, at - 1) == "INTO" && word(tokens, at - 2) == "INSERT"
}

/// The table of a CREATE TABLE or of a CREATE INDEX.
fn is_defined(tokens: &[TokenWithSpan], at: usize) -> bool {
    let is_table = word(tokens, 1) == "TABLE" && (at == 2 || (at == 5 && word(tokens, 4) == "EXISTS"));
    word(tokens, 0) == "CREATE" && (is_table || word(tokens, at - 1) == "ON")
}

/// Leaves out the CONCURRENTLY of a DROP INDEX, which the parser does not know: no writer waits for it anyway.
pub(super) fn concurrently(tokens: &mut Vec<TokenWithSpan>) {
    let drops = word(tokens, 0) == "DROP" && word(tokens, 1) == "INDEX" && word(tokens, 2) == "CONCURRENTLY";
    if drops && matches!(tokens.get(3).map(|token| &token.token), Some(Token::Word(_))) {
        tokens.remove(2);
    }
}

/// `ISNULL` behind an operand, which the parser takes for an alias, and `NOTNULL`, which it knows and prints as two words.
/// They are reserved words: only behind `AS` or a point they may be names.
pub(super) fn null_tests(tokens: &mut Vec<TokenWithSpan>) {
    let mut at = 1;
    while at < tokens.len() {
        let named = word(tokens, at - 1) == "AS" || tokens[at - 1].token == Token::Period;
        let words: &[&str] = match word(tokens, at).as_str() {
            "ISNULL" if !named => &["IS", "NULL"],
            "NOTNULL" if !named => &["IS", "NOT", "NULL"],
            _ => &[],
        };
        if !words.is_empty() {
            let span = tokens[at].span;
            tokens.splice(at..=at, words.iter().map(|word| made(Token::make_keyword(word), span)));
        }
        at += 1;
    }
}

/// Joins string literals that only blanks with a line break part, as the standard says. Two on one line are an error,
/// which names the second: the parser would take it for an alias.
pub(super) fn join_strings(tokens: &mut Vec<TokenWithSpan>) -> std::result::Result<(), TokenWithSpan> {
    let mut at = 1;
    while at < tokens.len() {
        if let Token::SingleQuotedString(second) = &tokens[at].token
            && let Token::SingleQuotedString(first) = &tokens[at - 1].token
        {
            if tokens[at].span.start.line == tokens[at - 1].span.end.line {
                return Err(tokens[at].clone());
            }
            let joined = Token::SingleQuotedString(format!("{first}{second}"));
            let span = Span { start: tokens[at - 1].span.start, end: tokens[at].span.end };
            tokens.splice(at - 1..=at, [made(joined, span)]);
        } else {
            at += 1;
        }
    }
    Ok(())
}

/// Rewrites the TTL clause of a CREATE TABLE, if it has one.
pub(super) fn ttl(tokens: &mut Vec<TokenWithSpan>) {
    let Some(with) = (0..tokens.len()).rev().find(|&at| word(tokens, at) == "WITH") else { return };
    let open = tokens.get(with + 1).is_some_and(|token| token.token == Token::LParen);
    let name = with + 1 + usize::from(open);
    if word(tokens, name) != "TTL" || tokens.get(name + 1).is_none_or(|token| token.token != Token::Eq) {
        return;
    }
    let value = name + 2;
    let (text, length) = match (tokens.get(value).map(|token| &token.token), tokens.get(value + 1).map(|t| &t.token)) {
        (Some(Token::Number(number, _)), Some(Token::Word(unit))) => (format!("{number}{}", unit.value), 2),
        (Some(Token::Word(interval)), Some(Token::SingleQuotedString(text)))
            if interval.value.eq_ignore_ascii_case("interval") =>
        {
            (text.clone(), 2)
        }
        (Some(Token::SingleQuotedString(text)), _) => (text.clone(), 1),
        // Wrong, and said so by the reader of durations rather than by the parser.
        (Some(Token::Number(number, _)), _) if !open => (number.clone(), 1),
        _ => return,
    };
    let span = tokens[value].span;
    tokens.splice(value..value + length, [made(Token::SingleQuotedString(text), span)]);
    if !open {
        tokens.insert(value + 1, made(Token::RParen, span));
        tokens.insert(name, made(Token::LParen, tokens[name].span));
    }
}

/// Reads `7d`, `7 days`, `1h 30m`, `90 minutes`: numbers, each with a unit of fixed length.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let malformed = || {
        Error::invalid(SqlState::INVALID_PARAMETER, format!("\"{text}\" is not a duration"))
            .hint("a number and a unit: s, m, h, d or w, as in 7d")
    };
    // Timestamps are milliseconds and microseconds in 64 bits; a longer duration would not survive being subtracted.
    let seconds_max = i64::MAX as u64 / 1_000_000;
    let too_long = || {
        Error::invalid(SqlState::INVALID_PARAMETER, format!("the duration \"{text}\" is out of range"))
            .hint(format!("at most {}d", seconds_max / 86_400))
    };
    let mut rest = text.trim();
    let mut seconds: u64 = 0;
    if rest.is_empty() {
        return Err(malformed());
    }
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit()).ok_or_else(malformed)?;
        let (number, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let letters = tail.find(|char: char| !char.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        if matches!(unit.to_ascii_lowercase().as_str(), "month" | "months" | "mon" | "mons" | "year" | "years") {
            return Err(Error::unsupported("durations of months and years are"));
        }
        let unit = unit_seconds(unit).ok_or_else(malformed)?;
        if number.is_empty() {
            return Err(malformed());
        }
        // Digits only, so it is their count that does not fit.
        let number: u64 = number.parse().map_err(|_| too_long())?;
        seconds = number.checked_mul(unit).and_then(|part| seconds.checked_add(part)).ok_or_else(too_long)?;
        rest = tail.trim_start();
    }
    if seconds > seconds_max {
        return Err(too_long());
    }
    Ok(Duration::from_secs(seconds))
}

fn unit_seconds(unit: &str) -> Option<u64> {
    match unit.to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => Some(1),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60),
        "h" | "hour" | "hours" => Some(3_600),
        "d" | "day" | "days" => Some(86_400),
        "w" | "week" | "weeks" => Some(604_800),
        _ => None,
    }
}
