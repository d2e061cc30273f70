//! Finds where lexemes end, without making tokens: to split scripts and to bound the size of a statement.
//!
//! PostgreSQL's lexical rules as far as they hide a semicolon: `'…'` with `''`, `E'…'` with backslashes, `"…"`,
//! `$tag$…$tag$`, `--` to the end of the line, and `/* … */`, which nests.
//!
//! * Every byte belongs to exactly one lexeme; a lexeme is never empty, so a scan ends.
//! * Lexemes end at character boundaries: only ASCII bytes end one.

/// What a lexeme is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lexeme {
    /// White space and comments.
    Space,
    /// A semicolon.
    Semicolon,
    /// Anything that the parser sees.
    Token,
    /// A string, a quoted name or a comment that does not end.
    Open,
}

/// A script cut into statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// Statements that a semicolon ended, without it; empty ones are left out.
    pub statements: Vec<&'a str>,
    /// What follows the last semicolon; empty where that is nothing but space and comments.
    pub rest: &'a str,
}

impl<'a> Split<'a> {
    /// All statements, the last one with or without its semicolon: what a script means.
    pub fn all(self) -> Vec<&'a str> {
        let Split { mut statements, rest } = self;
        if !rest.is_empty() {
            statements.push(rest);
        }
        statements
    }
}

/// The word that a statement begins with, behind space, comments and parentheses; empty where it begins with none.
pub fn first_word(sql: &str) -> &str {
    let (bytes, mut at) = (sql.as_bytes(), 0);
    while at < bytes.len() {
        let (lexeme, end) = next(bytes, at);
        match lexeme {
            Lexeme::Space => at = end,
            Lexeme::Token if bytes[at] == b'(' => at = end,
            Lexeme::Token if is_word(bytes[at]) => return &sql[at..end],
            Lexeme::Token | Lexeme::Semicolon | Lexeme::Open => break,
        }
    }
    ""
}

/// Cuts a text at the semicolons that end statements: not those in strings, quoted names and comments.
pub fn split(sql: &str) -> Split<'_> {
    let bytes = sql.as_bytes();
    let (mut statements, mut from, mut at, mut empty) = (Vec::new(), 0, 0, true);
    while at < bytes.len() {
        let (lexeme, end) = next(bytes, at);
        match lexeme {
            Lexeme::Space => {}
            Lexeme::Token | Lexeme::Open => empty = false,
            Lexeme::Semicolon => {
                if !empty {
                    statements.push(sql[from..at].trim());
                }
                (from, empty) = (end, true);
            }
        }
        at = end;
    }
    Split { statements, rest: if empty { "" } else { sql[from..].trim() } }
}

/// How many tokens a text has, none where there are more than `limit`.
pub(super) fn count_tokens(sql: &str, limit: usize) -> Option<usize> {
    // A text shorter than the limit cannot have more tokens than that, which spares most statements the scan.
    if sql.len() <= limit {
        return Some(sql.len());
    }
    let bytes = sql.as_bytes();
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        let (lexeme, end) = next(bytes, at);
        // The tokeniser makes tokens of white space too, and drops them only at the end.
        count += if lexeme == Lexeme::Space { end - at } else { 1 };
        if count > limit {
            return None;
        }
        at = end;
    }
    Some(count)
}

/// How many tokens a text has, and how many beside them that are space.
pub(super) fn tokens_and_spaces(sql: &str) -> (usize, usize) {
    let bytes = sql.as_bytes();
    let (mut at, mut tokens, mut spaces) = (0, 0, 0);
    while at < bytes.len() {
        let (is_space, end) = lexeme(bytes, at);
        tokens += usize::from(!is_space);
        spaces += usize::from(is_space);
        at = end;
    }
    (tokens, spaces)
}

/// Whether the lexeme at `at` is space, and where it ends.
pub(in crate::sql) fn lexeme(bytes: &[u8], at: usize) -> (bool, usize) {
    let (lexeme, end) = next(bytes, at);
    (lexeme == Lexeme::Space, end)
}

/// Where a string, a quoted name or a comment begins that does not end; from `at` on, which is outside of any.
pub(in crate::sql) fn unended(bytes: &[u8], mut at: usize) -> Option<usize> {
    while at < bytes.len() {
        let (lexeme, end) = next(bytes, at);
        if lexeme == Lexeme::Open {
            return Some(at);
        }
        at = end;
    }
    None
}

/// The lexeme at `at` and where it ends.
fn next(bytes: &[u8], at: usize) -> (Lexeme, usize) {
    let peek = bytes.get(at + 1).copied();
    match bytes[at] {
        b';' => (Lexeme::Semicolon, at + 1),
        byte if byte.is_ascii_whitespace() => (Lexeme::Space, at + 1),
        b'-' if peek == Some(b'-') => {
            let line = bytes[at..].iter().position(|&byte| byte == b'\n');
            (Lexeme::Space, line.map_or(bytes.len(), |line| at + line + 1))
        }
        b'/' if peek == Some(b'*') => closed(comment_end(bytes, at), bytes, Lexeme::Space),
        b'\'' => closed(quoted_end(bytes, at, b'\''), bytes, Lexeme::Token),
        b'"' => closed(quoted_end(bytes, at, b'"'), bytes, Lexeme::Token),
        b'e' | b'E' if peek == Some(b'\'') => closed(escaped_end(bytes, at + 1), bytes, Lexeme::Token),
        b'$' => match dollar_tag(bytes, at) {
            Some(tag) => {
                let body = at + tag.len();
                let end = find(&bytes[body..], tag).map(|found| body + found + tag.len());
                closed(end, bytes, Lexeme::Token)
            }
            None => (Lexeme::Token, at + 1),
        },
        byte if is_word(byte) => {
            let word = bytes[at..].iter().position(|&byte| !is_word(byte) && byte != b'$');
            (Lexeme::Token, word.map_or(bytes.len(), |word| at + word))
        }
        _ => (Lexeme::Token, at + 1),
    }
}

fn closed(end: Option<usize>, bytes: &[u8], lexeme: Lexeme) -> (Lexeme, usize) {
    end.map_or((Lexeme::Open, bytes.len()), |end| (lexeme, end))
}

/// Bytes of words; those of other alphabets are all above ASCII.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn quoted_end(bytes: &[u8], at: usize, quote: u8) -> Option<usize> {
    let mut end = at + 1;
    loop {
        end += bytes.get(end..)?.iter().position(|&byte| byte == quote)? + 1;
        if bytes.get(end) != Some(&quote) {
            return Some(end);
        }
        end += 1;
    }
}

fn escaped_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut end = at + 1;
    loop {
        match bytes.get(end)? {
            b'\\' => end += 2,
            b'\'' if bytes.get(end + 1) == Some(&b'\'') => end += 2,
            b'\'' => return Some(end + 1),
            _ => end += 1,
        }
    }
}

fn comment_end(bytes: &[u8], at: usize) -> Option<usize> {
    let (mut end, mut depth) = (at + 2, 1);
    while depth > 0 {
        match (bytes.get(end)?, bytes.get(end + 1)?) {
            (b'*', b'/') => (depth, end) = (depth - 1, end + 2),
            (b'/', b'*') => (depth, end) = (depth + 1, end + 2),
            _ => end += 1,
        }
    }
    Some(end)
}

/// `$$` or `$tag$`; a tag does not begin with a digit, so `$1` is none.
fn dollar_tag(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = bytes[at + 1..].iter().position(|&byte| !is_word(byte))?;
    let tag = &bytes[at..=at + 1 + length];
    (tag.ends_with(b"$") && !tag[1].is_ascii_digit()).then_some(tag)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let start = from + haystack[from..].iter().position(|&byte| byte == needle[0])?;
        if haystack[start..].starts_with(needle) {
            return Some(start);
        }
        from = start + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_behind_what_says_nothing() {
        for (sql, word) in [
            ("select 1", "select"),
            ("\t\n ( (SELECT 1))", "SELECT"),
            ("/* app */ SELECT v FROM t", "SELECT"),
            ("-- one\n--two\n/* three */INSERT INTO t", "INSERT"),
            ("/* /* nested */ SELECT */ DROP TABLE t", "DROP"),
            ("/*/ SELECT", ""),
            ("/* SELECT 1", ""),
            ("-- SELECT 1", ""),
            ("; SELECT 1", ""),
            ("'SELECT' 1", ""),
            ("\"select\"", ""),
            ("selected", "selected"),
            ("", ""),
        ] {
            assert_eq!(first_word(sql), word, "{sql}");
        }
    }

    #[test]
    fn a_script_is_cut_at_semicolons_that_end_statements() {
        let script =
            "SELECT ';'; -- no; cut\nSELECT \"a;b\" ;/* ; /* ; */ ; */;; SELECT $x$;$x$, E'\\';', $$;$$; SELECT 1";
        let split = split(script);
        assert_eq!(split.statements, ["SELECT ';'", "-- no; cut\nSELECT \"a;b\"", "SELECT $x$;$x$, E'\\';', $$;$$"]);
        assert_eq!(split.rest, "SELECT 1");
    }

    #[test]
    fn what_is_still_open_is_rest() {
        assert_eq!(split("SELECT 'a;").rest, "SELECT 'a;");
        assert_eq!(split("SELECT 'it''s';  -- done").rest, "");
        assert_eq!(split("SELECT 1; /* open ;").rest, "/* open ;");
        assert_eq!(split("").all(), Vec::<&str>::new());
        assert_eq!(split("a;b").all(), ["a", "b"]);
        assert_eq!(split("SELECT é; SELECT ü;").statements, ["SELECT é", "SELECT ü"]);
    }
}
