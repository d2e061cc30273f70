//! How an error is shown: what, its code, where in the statement, and what to do.
//!
//! ```text
//! error: column "temp" does not exist (42703)
//!   SELECT temp FROM sensors
//!          ^
//! hint: did you mean "temperature"?
//! ```

use chronos::Error;
use std::fmt::Write;
use unicode_width::UnicodeWidthChar;

/// Characters of a line that are shown around the position; a bulk INSERT is one line of a megabyte.
const SHOWN_CHARS_MAX: usize = 100;

/// The lines that tell a person what is wrong with `statement`.
pub fn describe(error: &Error, statement: &str) -> String {
    let mut out = format!("error: {} ({})\n", error.message(), error.sqlstate());
    if let Some((text, caret)) = error.position().and_then(|position| point(statement, position)) {
        let _ = writeln!(out, "  {text}\n  {caret}");
    }
    if let Some(hint) = error.hint_text() {
        let _ = writeln!(out, "hint: {hint}");
    }
    out
}

/// The line of the statement that holds character `position` (from 1), and a caret below it.
fn point(statement: &str, position: u32) -> Option<(String, String)> {
    let index = (position as usize).checked_sub(1)?;
    let chars: Vec<char> = statement.chars().collect();
    if index > chars.len() {
        return None;
    }
    let start = chars[..index].iter().rposition(|c| *c == '\n').map_or(0, |newline| newline + 1);
    let end = chars[index..].iter().position(|c| *c == '\n').map_or(chars.len(), |newline| index + newline);
    // A window around the position, so that the caret is in sight.
    let from = if index - start > SHOWN_CHARS_MAX / 2 { index - SHOWN_CHARS_MAX / 2 } else { start };
    let to = end.min(from + SHOWN_CHARS_MAX);
    let clean = |c: &char| if c.is_control() { ' ' } else { *c };
    let lead = if from > start { "..." } else { "" };
    let tail = if to < end { "..." } else { "" };
    let text: String = chars[from..to].iter().map(clean).collect();
    let before: usize = chars[from..index].iter().map(|c| clean(c).width().unwrap_or(0)).sum();
    Some((format!("{lead}{text}{tail}"), format!("{}^", " ".repeat(lead.len() + before))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos::error::SqlState;

    #[test]
    fn the_caret_stands_below_the_character() {
        let error = Error::invalid(SqlState::UNDEFINED_COLUMN, "column \"temp\" does not exist").at(8);
        assert_eq!(
            describe(&error, "SELECT temp FROM t"),
            "error: column \"temp\" does not exist (42703)\n  SELECT temp FROM t\n         ^\n"
        );
    }

    #[test]
    fn only_the_line_in_question_is_shown() {
        assert_eq!(point("SELECT\n\t日本, x\nFROM t", 13), Some((" 日本, x".to_owned(), "       ^".to_owned())));
        assert_eq!(point("a", 2), Some(("a".to_owned(), " ^".to_owned())));
        assert_eq!(point("a", 3), None);
        assert_eq!(point("a", 0), None);
    }

    #[test]
    fn a_long_line_is_cut_around_the_position() {
        let long = format!("{}HERE{}", "x".repeat(5000), "y".repeat(5000));
        let (text, caret) = point(&long, 5001).expect("inside");
        assert!(text.len() <= SHOWN_CHARS_MAX + 6);
        assert_eq!(&text[caret.len() - 1..caret.len() + 3], "HERE");
    }

    #[test]
    fn a_hint_has_its_own_line() {
        let error = Error::unavailable("no node answers").hint("is it running?");
        assert_eq!(describe(&error, ""), "error: no node answers (57P03)\nhint: is it running?\n");
    }
}
