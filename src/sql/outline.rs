//! A statement as one line of a log: bounded, printable, and where that is asked for without its values.
//!
//! * A line stays one line: whatever is no visible character becomes a space, so nobody writes lines of their own into a log.
//! * Comments are left out with the values: people put anything there.
//! * What does not lex is taken for a value: a string without its end hides all that follows it.

use crate::sql::translate::lexeme;
use std::fmt::Write;

/// What becomes of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// They are shown.
    Shown,
    /// Each is a question mark.
    Hidden,
}

/// The statement as one line of at most about `bytes_max` bytes; what is longer says how long it is.
pub fn outline(sql: &str, bytes_max: usize, values: Values) -> String {
    let text = sql.trim();
    let mut out = String::with_capacity(text.len().min(bytes_max) + 32);
    let seen = match values {
        Values::Shown => show(text, bytes_max, &mut out),
        Values::Hidden => hide(text, bytes_max, &mut out),
    };
    if seen < text.len() {
        let _ = write!(out, "... ({} bytes)", sql.len());
    }
    out
}

/// Writes characters; gives the bytes of the text that were looked at.
fn show(text: &str, bytes_max: usize, out: &mut String) -> usize {
    for (at, c) in text.char_indices() {
        if out.len() + c.len_utf8() > bytes_max {
            return at;
        }
        out.push(if c.is_control() || c.is_whitespace() || is_direction(c) { ' ' } else { c });
    }
    text.len()
}

/// Marks that make a terminal show a line in another order than it has.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes lexemes, each value as `?`.
fn hide(text: &str, bytes_max: usize, out: &mut String) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let (is_space, end) = lexeme(bytes, at);
        let piece = text.get(at..end).unwrap_or("?");
        let shown = if is_space {
            " "
        } else if is_value(piece) {
            "?"
        } else {
            piece
        };
        if out.len() + shown.len() > bytes_max {
            return at;
        }
        if !(is_space && out.ends_with(' ')) {
            show(shown, usize::MAX, out);
        }
        at = end;
    }
    bytes.len()
}

/// Strings of every kind, and what begins as a number does. `X'..'` is a word and a string.
fn is_value(piece: &str) -> bool {
    let bytes = piece.as_bytes();
    match bytes {
        [b'\'' | b'0'..=b'9', ..] | [b'e' | b'E', b'\'', ..] => true,
        [b'$', rest @ ..] => !rest.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_and_is_cut() {
        assert_eq!(outline(" SELECT\n 1\r\u{1b}[2J ", 100, Values::Shown), "SELECT  1  [2J");
        assert_eq!(outline("SELECT 'äää'", 10, Values::Shown), "SELECT 'ä... (15 bytes)");
        assert_eq!(outline("SELECT 1, 2, 3", 9, Values::Hidden), "SELECT ?,... (14 bytes)");
    }

    #[test]
    fn no_value_is_left() {
        for (sql, line) in [
            (
                "INSERT INTO t2 VALUES (1, 'secret', -2.5e3, X'00', TRUE)",
                "INSERT INTO t2 VALUES (?, ?, -?.?, X?, TRUE)",
            ),
            (
                "SELECT \"My Col\" FROM t WHERE a = E'it\\'s' -- secret\n AND b = $tag$ secret $tag$",
                "SELECT \"My Col\" FROM t WHERE a = ? AND b = ?",
            ),
            ("SELECT 'it''s secret", "SELECT ?"),
            ("SELECT /* secret */ 1", "SELECT ?"),
        ] {
            let hidden = outline(sql, 1000, Values::Hidden);
            assert!(!hidden.contains("secret"), "{hidden}");
            assert_eq!(hidden, line);
        }
    }
}
