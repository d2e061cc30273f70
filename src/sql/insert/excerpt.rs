//! Pieces of a long INSERT, read the general way as statements of their own.
//!
//! ```text
//! INSERT INTO t VALUES (1, 'a'), … 60,000 rows …, (2, 1 + 'x'), …
//! └──────── kept ─────┘                         └─ from..to ─┘        -> INSERT INTO t VALUES (2, 1 + 'x')
//! ```
//!
//! A row means the same whatever rows stand around it, so its values, and what is wrong with it, are those of the piece.
//! The position of an error is that in the whole text.

use crate::sql::bind::{BindContext, Bound, BoundInsert, bind};
use crate::sql::memory::QueryMemory;
use crate::sql::statement::{Insert, Statement};
use crate::sql::translate::{ParseLimits, lexeme, parse_within, unended};
use crate::{Error, Result};
use std::sync::Arc;

/// Lexemes of a piece that is not known to be whole: a mistake shows in the first few.
const LEXEMES_MAX: usize = 1_024;

/// Within which limits pieces are parsed.
#[derive(Clone, Debug)]
pub struct Parsing {
    /// Of the text.
    pub limits: ParseLimits,
    /// Of memory.
    pub memory: Option<Arc<QueryMemory>>,
}

/// The text from which pieces are taken.
pub(super) struct Excerpts<'a> {
    pub(super) sql: &'a str,
    pub(super) context: BindContext<'a>,
    pub(super) parsing: Parsing,
}

/// A piece: the text up to one byte, and then from another one on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) kept: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) rest: Rest,
}

/// What the text has behind a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing that belongs to it.
    None,
    /// More, so that a piece that ends too early says nothing.
    More,
    /// More, and no parenthesis that closes what the piece has open: both end too early.
    Open,
}

impl Excerpts<'_> {
    /// As much from `from` on as shows a mistake, up to a parenthesis that closes: there the text ends too.
    pub(super) fn piece(&self, kept: usize, from: usize, rest: Rest) -> Piece {
        let (bytes, mut at, mut closed) = (self.sql.as_bytes(), from, None);
        for _ in 0..LEXEMES_MAX {
            if at == bytes.len() {
                return Piece { kept, from, to: at, rest: Rest::None };
            }
            let end = lexeme(bytes, at).1;
            closed = if bytes[at] == b')' { Some(end) } else { closed };
            at = end;
        }
        Piece { kept, from, to: closed.unwrap_or(at), rest }
    }

    /// The piece of a row that begins at `from`, behind what is `kept`, and where that is known to end.
    pub(super) fn row(&self, kept: usize, from: usize) -> (Piece, Option<usize>) {
        let bytes = self.sql.as_bytes();
        if let Some(to) = row_end(bytes, from) {
            return (Piece { kept, from, to, rest: Rest::None }, Some(to));
        }
        // A string that does not end is a mistake before all others: no token can be made of it.
        let piece = match unended(bytes, from) {
            Some(open) => Piece { kept, from: open, to: bytes.len(), rest: Rest::None },
            None => self.piece(kept, from, Rest::Open),
        };
        (piece, None)
    }

    /// The piece of a row and the one behind it, if there is one.
    pub(super) fn with_next_row(&self, piece: Piece) -> Piece {
        let bytes = self.sql.as_bytes();
        let comma = skip_space(bytes, piece.to);
        let next = (bytes.get(comma) == Some(&b',')).then(|| row_end(bytes, comma + 1)).flatten();
        next.map_or(piece, |to| Piece { to, ..piece })
    }

    /// What a piece says; none where that is nothing about the whole text.
    pub(super) fn bind(&self, piece: Piece) -> Result<Option<(Insert, BoundInsert)>> {
        let text = format!("{}{}", &self.sql[..piece.kept], &self.sql[piece.from..piece.to]);
        let bound = parse_within(&text, &self.parsing.limits, self.parsing.memory.as_ref())
            .and_then(|statement| bind(&statement, &self.context).map(|bound| (statement, bound)));
        match bound {
            Ok((Statement::Insert(insert), Bound::Insert(bound))) => Ok(Some((insert, bound))),
            Ok(_) => Ok(None),
            Err(error) => self.placed(piece, &text, error).map_or(Ok(None), Err),
        }
    }

    /// An error of a piece, with its place in the whole text.
    fn placed(&self, piece: Piece, text: &str, error: Error) -> Option<Error> {
        let characters = |text: &str| text.chars().count() as u32;
        let ends_early = error.position().is_some_and(|position| position > characters(text));
        if ends_early && piece.rest == Rest::More {
            return None;
        }
        let (kept, end) = (characters(&self.sql[..piece.kept]), characters(self.sql) + 1);
        let left_out = characters(&self.sql[piece.kept..piece.from]);
        Some(error.moved(|position| match () {
            () if ends_early && piece.rest == Rest::Open => end,
            () if position > kept => position + left_out,
            () => position,
        }))
    }
}

/// Where the rows of an INSERT begin, as far as that can be told without its grammar, and without much space: every piece
/// is parsed behind what stands there.
pub(super) fn behind_values(sql: &str) -> Option<usize> {
    /// Those of a head at most: a table of a thousand columns has some four thousand in its list.
    const HEAD_LEXEMES_MAX: usize = 1 << 14;
    /// Space and comments in a head: a few lines about what the statement is for. A comment of megabytes before a million
    /// rows would be read a million times.
    const HEAD_SPACE_BYTES_MAX: usize = 4 << 10;
    let bytes = sql.as_bytes();
    let (mut at, mut words, mut in_list) = (skip_space(bytes, 0), 0, false);
    let mut space = at;
    while at < bytes.len() && words < HEAD_LEXEMES_MAX && space <= HEAD_SPACE_BYTES_MAX {
        let (_, end) = lexeme(bytes, at);
        let (word, next) = (&bytes[at..end], skip_space(bytes, end));
        space += next - end;
        if words == 0 && !word.eq_ignore_ascii_case(b"insert") {
            return None;
        }
        in_list = (in_list || word == b"(") && word != b")";
        // A column may have that name.
        let is_name = in_list && matches!(bytes.get(next), Some(b',' | b')'));
        let is_slip = !in_list && word.eq_ignore_ascii_case(b"value") && bytes.get(next) == Some(&b'(');
        if is_slip || (word.eq_ignore_ascii_case(b"values") && !is_name) {
            return Some(end);
        }
        (at, words) = (next, words + 1);
    }
    None
}

/// What stands behind space and comments.
pub(super) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        let (is_space, end) = lexeme(bytes, at);
        if !is_space {
            break;
        }
        at = end;
    }
    at
}

/// Where the parentheses of a row are closed that begins at `at`, with space before it; none where something else
/// stands there.
fn row_end(bytes: &[u8], at: usize) -> Option<usize> {
    let (mut at, mut depth) = (skip_space(bytes, at), 0_usize);
    if bytes.get(at) != Some(&b'(') {
        return None;
    }
    while at < bytes.len() {
        let end = lexeme(bytes, at).1;
        match bytes[at] {
            b'(' => depth += 1,
            b')' if depth == 1 => return Some(end),
            b')' => depth -= 1,
            _ => {}
        }
        at = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_with_much_space_is_left_to_the_general_way() {
        let with = |space: &str| format!("{space}INSERT INTO t {space} (a) VALUES (1)");
        for space in ["", " ", "-- what for\n", "/* what for */", &"/* x */ ".repeat(250), &" ".repeat(2000)] {
            let sql = with(space);
            assert_eq!(behind_values(&sql), Some(sql.len() - " (1)".len()), "{sql}");
        }
        // Each of a million odd rows would be parsed behind it.
        for space in [&format!("/*{}*/", "x".repeat(1 << 20)), &" ".repeat(1 << 20), &"-- x\n".repeat(1000)] {
            assert_eq!(behind_values(&with(space)), None);
        }
    }
}
