//! Cuts text into statements at each `;` that is not inside a string, a quoted name or a comment.
//!
//! * Input may come in pieces: what is not finished stays in the [`Splitter`] until its `;` arrives, and nothing of it is
//!   looked at twice. Whole texts are cut by `chronos::sql::translate::split`; a test holds both to the same answer.
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
    /// A number, or a name without quotes: an `e` or a `$` in it begins nothing.
    Word,
    /// `'...'`; a doubled quote closes and opens again, which comes to the same.
    String,
    /// `E'...'`, in which a backslash takes the next character with it.
    Escaped,
    /// `$tag$...$tag$`
    Dollar,
    /// `"..."`
    Name,
    /// `-- ...` to the end of the line
    LineComment,
    /// `/* ... */`, which nest as in `PostgreSQL`
    BlockComment(u32),
    /// `\dt` to the end of the line
    Backslash,
}

impl Inside {
    /// True where a `;` ends a statement.
    fn is_open(self) -> bool {
        matches!(self, Inside::Nothing | Inside::Word)
    }
}

/// Gathers text and hands out finished statements.
#[derive(Debug)]
pub struct Splitter {
    buffer: String,
    /// Bytes of `buffer` already looked at.
    scanned: usize,
    inside: Inside,
    /// The `$tag$` that it is inside of, or was last.
    tag: String,
    /// Line of the first byte of `buffer`.
    line: usize,
    /// True once something other than blanks and comments was seen in `buffer`.
    content: bool,
}

impl Default for Splitter {
    fn default() -> Splitter {
        let (buffer, tag) = (String::new(), String::new());
        Splitter { buffer, scanned: 0, inside: Inside::Nothing, tag, line: 1, content: false }
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
            if self.inside.is_open() && bytes[at] == b'\\' && !self.content {
                self.inside = Inside::Backslash;
                self.content = true;
                // A comment before it is no part of it, only of the count of lines.
                self.line += newlines(&self.buffer[start..at]);
                start = at;
            }
            // What a mark of several bytes is may have to wait for the rest of it.
            let Some((inside, step)) = advance(self.inside, &self.tag, &bytes[at..]) else { break };
            if self.inside == Inside::Backslash && inside == Inside::Nothing {
                statements.extend(cut(&self.buffer[start..at], &mut self.line, self.content));
                start = at;
                self.content = false;
            } else if self.inside.is_open() && inside.is_open() {
                if bytes[at] == b';' {
                    statements.extend(cut(&self.buffer[start..at], &mut self.line, self.content));
                    start = at + 1;
                    self.content = false;
                } else if !bytes[at].is_ascii_whitespace() {
                    self.content = true;
                }
            } else if matches!(inside, Inside::String | Inside::Escaped | Inside::Dollar | Inside::Name) {
                self.content = true;
                if inside == Inside::Dollar && self.inside != Inside::Dollar {
                    self.buffer[at..at + step].clone_into(&mut self.tag);
                }
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
        // What is held back for its second half turns out to be content; an open comment is to be complained of.
        let is_commented = matches!(self.inside, Inside::BlockComment(_));
        let content = self.content || is_commented || self.scanned < self.buffer.len();
        let rest = std::mem::take(self);
        let mut line = rest.line;
        cut(&rest.buffer, &mut line, content)
    }

    /// True while nothing but blanks and finished comments is waiting.
    pub fn is_blank(&self) -> bool {
        !self.content && self.inside.is_open() && self.scanned == self.buffer.len()
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

/// What the scanner is inside of after what `bytes` begin with, and how many of them that is; none where more must come
/// to tell. They are not empty.
fn advance(inside: Inside, tag: &str, bytes: &[u8]) -> Option<(Inside, usize)> {
    let next = || bytes.get(1).copied();
    let step = match (inside, bytes[0]) {
        (Inside::Nothing | Inside::Word, _) => return begin(inside, bytes),
        (Inside::Escaped, b'\\') => next().map(|_| 2)?,
        (Inside::Escaped, b'\'') if next()? == b'\'' => 2,
        (Inside::Dollar, b'$') if bytes.starts_with(tag.as_bytes()) => return Some((Inside::Nothing, tag.len())),
        (Inside::Dollar, b'$') if tag.as_bytes().starts_with(bytes) => return None,
        (Inside::BlockComment(depth), b'/') if next()? == b'*' => return Some((Inside::BlockComment(depth + 1), 2)),
        (Inside::BlockComment(1), b'*') if next()? == b'/' => return Some((Inside::Nothing, 2)),
        (Inside::BlockComment(depth), b'*') if next()? == b'/' => return Some((Inside::BlockComment(depth - 1), 2)),
        (Inside::String | Inside::Escaped, b'\'')
        | (Inside::Name, b'"')
        | (Inside::LineComment | Inside::Backslash, b'\n') => return Some((Inside::Nothing, 1)),
        (
            Inside::String
            | Inside::Escaped
            | Inside::Dollar
            | Inside::Name
            | Inside::LineComment
            | Inside::BlockComment(_)
            | Inside::Backslash,
            _,
        ) => 1,
    };
    Some((inside, step))
}

/// The same outside of quotes and comments.
fn begin(inside: Inside, bytes: &[u8]) -> Option<(Inside, usize)> {
    let next = || bytes.get(1).copied();
    let begun = match bytes[0] {
        b'\'' => (Inside::String, 1),
        b'"' => (Inside::Name, 1),
        b'-' if next()? == b'-' => (Inside::LineComment, 2),
        b'/' if next()? == b'*' => (Inside::BlockComment(1), 2),
        b'$' if inside == Inside::Nothing => match dollar_tag(bytes)? {
            0 => (Inside::Nothing, 1),
            length => (Inside::Dollar, length),
        },
        b'e' | b'E' if inside == Inside::Nothing && next()? == b'\'' => (Inside::Escaped, 2),
        byte if is_word(byte) || byte == b'$' => (Inside::Word, 1),
        _ => (Inside::Nothing, 1),
    };
    Some(begun)
}

/// How long the `$tag$` is that `bytes` begin with, 0 where it is none: a tag does not begin with a digit. None where its
/// end is still to come.
fn dollar_tag(bytes: &[u8]) -> Option<usize> {
    let end = 1 + bytes[1..].iter().position(|byte| !is_word(*byte))?;
    let is_tag = bytes[end] == b'$' && !bytes[1].is_ascii_digit();
    Some(if is_tag { end + 1 } else { 0 })
}

/// Bytes of words; those of other alphabets are all above ASCII.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
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
    use proptest::prelude::*;

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
    fn a_semicolon_in_a_string_of_any_kind_ends_nothing() {
        let whole =
            [r"E'it\'s; fine'", r"e'\\'", "$$a;b$$", "$t$ $$; $t $t$", r"'\'", "'a'E';'''", "E''';'", "$é$;$é$"];
        for text in whole {
            assert_eq!(split(&format!("{text}; b")), [text, "b"]);
        }
        // An e or a dollar within a word begins no string, and neither does a parameter.
        for text in [r"name'\'", r"1e'\'", "a$b$", "$1", "$1$", "$", "$ $a", "é$b$"] {
            assert_eq!(split(&format!("{text};b;c$b$")), [text, "b", "c$b$"]);
        }
    }

    proptest! {
        #[test]
        fn a_script_in_pieces_is_cut_as_a_whole_text_is(
            parts in prop::collection::vec(
                prop::sample::select(&[
                    ";", "'", "''", "\"", "E'", "e", r"\'", r"\\", "$", "$$", "$t$", "1", "é", " ", "\n", "--", "-", "/*",
                    "*/", "/", "*", "x", "_",
                ][..]),
                0..40,
            ),
            size in 1_usize..6,
        ) {
            // One that begins with a backslash would be a line for the program itself.
            let text = format!("x{}", parts.concat().replace(';', ";x"));
            let chars: Vec<char> = text.chars().collect();
            let mut splitter = Splitter::default();
            let pieces = chars.chunks(size).map(|piece| piece.iter().collect::<String>());
            let mut all: Vec<Statement> = pieces.flat_map(|piece| splitter.push(&piece)).collect();
            all.extend(splitter.finish());
            let all: Vec<&str> = all.iter().map(|statement| statement.text.as_str()).collect();
            prop_assert_eq!(all, chronos::sql::translate::split(&text).all());
        }
    }

    #[test]
    fn blanks_and_comments_alone_are_no_statement() {
        assert_eq!(split(" ; -- nothing\n; /* here */ ;\n"), Vec::<String>::new());
        assert_eq!(split("a; /* not ended"), ["a", "/* not ended"], "which is to be complained of");
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
