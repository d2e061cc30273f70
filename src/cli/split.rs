//! Cuts text into statements at each `;` that is not inside a string, a quoted name or a comment.
//!
//! * Input may come in pieces: what is not finished stays in the [`Splitter`] until its `;` arrives.
//! * A statement keeps its text as typed, without the `;`, so positions in errors fit what the user sees.
//! * Comments and blank space alone are not a statement.
//! * Where a statement could begin, `\` begins a line for the program itself, which ends where the line ends.

/// One statement and where it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The text, without surrounding blanks and without `;`.
    pub text: String,
    /// The line of its first character, counted from 1 over everything that was pushed.
    pub line: usize,
}

impl Statement {
    /// True for a line that is for the program itself, and not for the database.
    pub fn is_backslash(&self) -> bool {
        self.text.starts_with('\\')
    }
}

/// Largest unfinished statement. The server's own limit is at most 256 MiB; an unclosed quote in a large file would
/// otherwise gather all of it.
pub const UNFINISHED_BYTES_MAX: usize = 256 << 20;

/// What the scanner is inside of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Nothing,
    /// `'...'`; a doubled quote closes and opens again, which comes to the same.
    String,
    /// `"..."`
    Name,
    /// `-- ...` to the end of the line
    LineComment,
    /// `/* ... */`, which nest as in `PostgreSQL`
    BlockComment(u32),
    /// `\dt` to the end of the line
    Backslash,
}

/// Gathers text and hands out finished statements.
#[derive(Debug)]
pub struct Splitter {
    buffer: String,
    /// Bytes of `buffer` already looked at.
    scanned: usize,
    inside: Inside,
    /// Line of the first byte of `buffer`.
    line: usize,
    /// True once something other than blanks and comments was seen in `buffer`.
    content: bool,
}

impl Default for Splitter {
    fn default() -> Splitter {
        Splitter { buffer: String::new(), scanned: 0, inside: Inside::Nothing, line: 1, content: false }
    }
}

impl Splitter {
    /// Adds text; the statements it completes are handed to `each` in order.
    pub fn push(&mut self, text: &str) -> Vec<Statement> {
        self.buffer.push_str(text);
        let mut statements = Vec::new();
        let mut start = 0;
        let mut at = self.scanned;
        let bytes = self.buffer.as_bytes();
        while at < bytes.len() {
            let next = bytes.get(at + 1).copied();
            // A two-byte mark split between two pushes waits for its second half.
            if next.is_none() && needs_next(self.inside, bytes[at]) {
                break;
            }
            if self.inside == Inside::Nothing && bytes[at] == b'\\' && !self.content {
                self.inside = Inside::Backslash;
                self.content = true;
                // A comment before it is no part of it, only of the count of lines.
                self.line += newlines(&self.buffer[start..at]);
                start = at;
            }
            let (inside, step) = advance(self.inside, bytes[at], next);
            if self.inside == Inside::Backslash && inside == Inside::Nothing {
                statements.extend(cut(&self.buffer[start..at], &mut self.line, self.content));
                start = at;
                self.content = false;
            } else if self.inside == Inside::Nothing && inside == Inside::Nothing {
                if bytes[at] == b';' {
                    statements.extend(cut(&self.buffer[start..at], &mut self.line, self.content));
                    start = at + 1;
                    self.content = false;
                } else if !bytes[at].is_ascii_whitespace() {
                    self.content = true;
                }
            } else if matches!(inside, Inside::String | Inside::Name) {
                self.content = true;
            }
            self.inside = inside;
            at += step;
        }
        self.scanned = at - start;
        self.buffer.drain(..start);
        statements
    }

    /// Takes what is left at the end of the input as a statement without its `;`.
    pub fn finish(&mut self) -> Option<Statement> {
        // A `-` or `/` held back for its second half turns out to be content.
        let content = self.content || self.scanned < self.buffer.len();
        let rest = std::mem::take(self);
        let mut line = rest.line;
        cut(&rest.buffer, &mut line, content)
    }

    /// True while nothing but blanks and finished comments is waiting.
    pub fn is_blank(&self) -> bool {
        !self.content && self.inside == Inside::Nothing && self.scanned == self.buffer.len()
    }

    /// True where the waiting text is longer than any statement may be.
    pub fn is_too_long(&self) -> bool {
        self.buffer.len() > UNFINISHED_BYTES_MAX
    }

    /// Forgets what is waiting.
    pub fn clear(&mut self) {
        *self = Splitter { line: self.line, ..Splitter::default() };
    }
}

fn needs_next(inside: Inside, byte: u8) -> bool {
    match inside {
        Inside::Nothing => matches!(byte, b'-' | b'/'),
        Inside::BlockComment(_) => matches!(byte, b'*' | b'/'),
        Inside::String | Inside::Name | Inside::LineComment | Inside::Backslash => false,
    }
}

/// What the scanner is inside of after `byte`, and how many bytes that took.
fn advance(inside: Inside, byte: u8, next: Option<u8>) -> (Inside, usize) {
    match (inside, byte, next) {
        (Inside::Nothing, b'\'', _) => (Inside::String, 1),
        (Inside::Nothing, b'"', _) => (Inside::Name, 1),
        (Inside::Nothing, b'-', Some(b'-')) => (Inside::LineComment, 2),
        (Inside::Nothing, b'/', Some(b'*')) => (Inside::BlockComment(1), 2),
        (Inside::String, b'\'', _) | (Inside::Name, b'"', _) | (Inside::LineComment | Inside::Backslash, b'\n', _) => {
            (Inside::Nothing, 1)
        }
        (Inside::BlockComment(depth), b'/', Some(b'*')) => (Inside::BlockComment(depth + 1), 2),
        (Inside::BlockComment(1), b'*', Some(b'/')) => (Inside::Nothing, 2),
        (Inside::BlockComment(depth), b'*', Some(b'/')) => (Inside::BlockComment(depth - 1), 2),
        (inside, _, _) => (inside, 1),
    }
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// Makes a statement of `text` and moves `line` past it.
fn cut(text: &str, line: &mut usize, content: bool) -> Option<Statement> {
    let trimmed = text.trim_start();
    let first = *line + newlines(&text[..text.len() - trimmed.len()]);
    *line += newlines(text);
    content.then(|| Statement { text: trimmed.trim_end().to_owned(), line: first })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut all = splitter.push(text);
        all.extend(splitter.finish());
        all.into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn a_semicolon_ends_a_statement_only_outside_of_quotes_and_comments() {
        assert_eq!(split("a; b ;c"), ["a", "b", "c"]);
        assert_eq!(
            split("x ';' \"a;b\" -- no; end\n /* ; /* ; */ ; */ y; z"),
            ["x ';' \"a;b\" -- no; end\n /* ; /* ; */ ; */ y", "z"]
        );
        assert_eq!(split("'it''s; fine';"), ["'it''s; fine'"]);
        assert_eq!(split("1 - 2; 3 / 4; -"), ["1 - 2", "3 / 4", "-"]);
    }

    #[test]
    fn blanks_and_comments_alone_are_no_statement() {
        assert_eq!(split(" ; -- nothing\n; /* here */ ;\n"), Vec::<String>::new());
    }

    #[test]
    fn pieces_of_any_size_give_the_same_statements() {
        let text = "INSERT INTO t VALUES ('a;''b', \"c\"); -- x;\nSELECT 1 /* ; */ ; 'é' ; tail";
        let whole = split(text);
        for size in 1..7 {
            let mut splitter = Splitter::default();
            let mut all = Vec::new();
            let mut rest = text;
            while !rest.is_empty() {
                let mut cut = size.min(rest.len());
                while !rest.is_char_boundary(cut) {
                    cut += 1;
                }
                all.extend(splitter.push(&rest[..cut]));
                rest = &rest[cut..];
            }
            all.extend(splitter.finish());
            assert_eq!(all.into_iter().map(|statement| statement.text).collect::<Vec<_>>(), whole);
        }
    }

    #[test]
    fn a_statement_knows_its_line() {
        let mut splitter = Splitter::default();
        let mut lines = splitter.push("a;\n\n  b\n  c;\nd;");
        lines.extend(splitter.push("\ne"));
        lines.extend(splitter.finish());
        assert_eq!(lines.iter().map(|statement| statement.line).collect::<Vec<_>>(), [1, 3, 5, 6]);
    }

    #[test]
    fn a_backslash_begins_a_line_of_its_own_where_a_statement_could_begin() {
        assert_eq!(split("\\d t\nSELECT 1; \\dt;\n2"), ["\\d t", "SELECT 1", "\\dt;", "2"]);
        assert_eq!(split("-- tables\n/* all */ \\dt"), ["\\dt"]);
        assert_eq!(split("\\d it's\n'\\d' \\ x\n\\y;"), ["\\d it's", "'\\d' \\ x\n\\y"]);
        let mut splitter = Splitter::default();
        assert!(splitter.push("-- one\n\\d").is_empty() && !splitter.is_blank());
        let ended = splitter.push("t\n\n\na;");
        assert_eq!(ended.iter().map(|s| (s.text.as_str(), s.line)).collect::<Vec<_>>(), [("\\dt", 2), ("a", 5)]);
        assert!(splitter.is_blank());
    }

    #[test]
    fn an_open_quote_is_not_blank() {
        let mut splitter = Splitter::default();
        assert!(splitter.push("SELECT 'a").is_empty());
        assert!(!splitter.is_blank());
        splitter.clear();
        assert!(splitter.is_blank());
    }
}
