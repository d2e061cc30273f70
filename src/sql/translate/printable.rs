//! What the parser's tree prints reads back as the same tree.
//!
//! The tree is printed twice: `kept` looks for words in it, and a DEFAULT is stored as it prints. The parser's printer
//! does not know who wrote a string, so it takes a quote behind a backslash for one that is escaped already: `'it\''s'`
//! prints as `'it\'s'`, which ends in the middle. Neither is a sign kept apart from the next: `- -1` prints as a comment.
//!
//! ```text
//! 'it\''s'   -> tokens: it\'s -> it␀b␀qs -> parser -> tree -> plain: it\'s
//!                                                       '---> print: 'it␀b␀qs' -> written: 'it\''s'
//! ```
//!
//! * Before the parser sees them, the characters that printing may go wrong about are replaced by two others, the first
//!   of them NUL, which no text of ours has (`ParseLimits::check_text`).
//! * Whatever leaves the tree, or an error that repeats a part of it, passes `plain`.
//! * Strings of other kinds (`$$…$$`, `U&'…'`, `X'…'`) print as they were, or as what reads back as the same.

use super::scan;
use crate::error::Error;
use sqlparser::tokenizer::{Token, TokenWithSpan};
use std::borrow::Cow;
use std::fmt::Display;

/// A character, what stands for it behind a NUL, and how it is written in quotes.
type Mark = (char, char, &'static str);

const QUOTE: Mark = ('\'', 'q', "''");
const BACKSLASH: Mark = ('\\', 'b', "\\");
const ESCAPED_BACKSLASH: Mark = ('\\', 'e', "\\\\");
const DOUBLE_QUOTE: Mark = ('"', 'd', "\"\"");

/// Takes the characters out of strings and quoted names that would not print as they were written.
pub(super) fn hide(tokens: &mut [TokenWithSpan]) {
    for token in tokens {
        match &mut token.token {
            Token::SingleQuotedString(text) => replace(text, [QUOTE, BACKSLASH]),
            Token::EscapedStringLiteral(text) => replace(text, [QUOTE, ESCAPED_BACKSLASH]),
            Token::Word(word) if word.quote_style.is_some() => replace(&mut word.value, [DOUBLE_QUOTE, BACKSLASH]),
            _ => {}
        }
    }
}

fn replace(text: &mut String, marks: [Mark; 2]) {
    if !text.contains(marks.map(|(char, ..)| char)) {
        return;
    }
    let mut hidden = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        match marks.iter().find(|(marked, ..)| *marked == char) {
            Some((_, mark, _)) => hidden.extend(['\0', *mark]),
            None => hidden.push(char),
        }
    }
    *text = hidden;
}

/// What was hidden in a text, as `show` has it.
fn shown(text: &str, show: impl Fn(Mark) -> Cow<'static, str>) -> Cow<'_, str> {
    if !text.contains('\0') {
        return Cow::Borrowed(text);
    }
    let mut parts = text.split('\0');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut chars = part.chars();
        let mark = chars.next();
        let marks = [QUOTE, BACKSLASH, ESCAPED_BACKSLASH, DOUBLE_QUOTE];
        if let Some(found) = marks.into_iter().find(|(_, hidden, _)| Some(*hidden) == mark) {
            whole.push_str(&show(found));
        }
        whole.push_str(chars.as_str());
    }
    Cow::Owned(whole)
}

/// What a string or a name of the tree says.
pub(super) fn plain(text: String) -> String {
    let shown = shown(&text, |(char, ..)| Cow::Owned(char.to_string()));
    if let Cow::Owned(plain) = shown { plain } else { text }
}

/// An error that may repeat what was hidden.
pub(super) fn plain_error(error: Error) -> Error {
    let hidden = |text: &str| text.contains('\0');
    if !hidden(error.message()) && !error.hint_text().is_some_and(hidden) {
        return error;
    }
    let mut made = Error::new(error.kind(), error.sqlstate(), plain(error.message().to_owned()));
    if let Some(position) = error.position() {
        made = made.at(position);
    }
    match error.hint_text() {
        Some(hint) => made.hint(plain(hint.to_owned())),
        None => made,
    }
}

/// What a part of the tree prints, with spaces between its signs. What is hidden stays so: no quote in it is any other
/// than one around a string or a name.
pub(super) fn print(node: &impl Display) -> String {
    let text = node.to_string();
    let bytes = text.as_bytes();
    let is_sign = |at: usize| matches!(bytes.get(at), Some(b'+' | b'-'));
    let (mut apart, mut copied, mut at) = (String::new(), 0, 0);
    while at < bytes.len() {
        if is_sign(at) {
            at += 1;
            if is_sign(at) {
                apart.push_str(&text[copied..at]);
                apart.push(' ');
                copied = at;
            }
        } else {
            at = scan::lexeme(bytes, at).1;
        }
    }
    if copied == 0 {
        return text;
    }
    apart.push_str(&text[copied..]);
    apart
}

/// A part of the tree as text that reads back as the same.
pub(super) fn written(node: &impl Display) -> String {
    shown(&print(node), |(.., written)| Cow::Borrowed(written)).into_owned()
}
