//! What stands between the commas of an IN list: literals, and whatever else.

use crate::sql::translate::scan;

/// A literal that is what it looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Plain<'a> {
    /// `5`, `-5`
    Int(i64),
    /// `5.0`, `-5e3`
    Float(f64),
    /// What stands between the quotes, as it was written.
    Quoted(&'a [u8]),
}

/// One item of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    /// Its value; none where the parser must look at it.
    pub(super) plain: Option<Plain<'a>>,
    /// Where it begins, behind the comma, and without the space behind that.
    pub(super) begin: usize,
    pub(super) from: usize,
    /// Where the comma or the parenthesis stands behind it.
    pub(super) end: usize,
}

/// Gives each item from `at` on, and where the parenthesis stands that closes the list; none where none does, or where
/// another list stands in this one: so no text is looked at more than twice, however its lists are nested.
pub(super) fn items<'a>(bytes: &'a [u8], mut at: usize, mut each: impl FnMut(Item<'a>)) -> Option<usize> {
    loop {
        let (begin, from) = (at, skip_space(bytes, at));
        let plain = plain(bytes, from).map(|(plain, end)| (plain, skip_space(bytes, end)));
        let (plain, end) = match plain {
            Some((plain, end)) if matches!(bytes.get(end), Some(b',' | b')')) => (Some(plain), end),
            Some(_) | None => (None, item_end(bytes, from)?),
        };
        each(Item { plain, begin, from, end });
        if bytes[end] == b')' {
            return Some(end);
        }
        at = end + 1;
    }
}

/// Where an item ends that begins at `at`.
fn item_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    while at < bytes.len() {
        let end = scan::lexeme(bytes, at).1;
        match bytes[at] {
            b',' | b')' if depth == 0 => return Some(at),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b';' => return None,
            _ if bytes[at..end].eq_ignore_ascii_case(b"in") => return None,
            _ => {}
        }
        at = end;
    }
    None
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes.get(at) {
            Some(byte) if byte.is_ascii_whitespace() => at += 1,
            Some(b'-' | b'/') => match scan::lexeme(bytes, at) {
                (true, end) => at = end,
                (false, _) => return at,
            },
            Some(_) | None => return at,
        }
    }
}

fn plain(bytes: &[u8], at: usize) -> Option<(Plain<'_>, usize)> {
    if bytes.get(at) == Some(&b'\'') { quoted(bytes, at) } else { number(bytes, at) }
}

/// A number as it is mostly written: what is longer than its type, or lacks a digit beside its point, is the parser's.
fn number(bytes: &[u8], at: usize) -> Option<(Plain<'_>, usize)> {
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let negative = bytes.get(at) == Some(&b'-');
    let whole = at + usize::from(negative);
    let mut end = whole + digits(whole.min(bytes.len()));
    if end == whole {
        return None;
    }
    let integer_end = end;
    if bytes.get(end) == Some(&b'.') {
        let count = digits(end + 1);
        if count == 0 {
            return None;
        }
        end += 1 + count;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let count = digits((end + 1 + sign).min(bytes.len()));
        if count == 0 {
            return None;
        }
        end += 1 + sign + count;
    }
    let text = std::str::from_utf8(&bytes[at..end]).ok()?;
    if end == integer_end {
        return text.parse().ok().map(|value| (Plain::Int(value), end));
    }
    let value: f64 = text.parse().ok()?;
    value.is_finite().then_some((Plain::Float(value), end))
}

fn quoted(bytes: &[u8], at: usize) -> Option<(Plain<'_>, usize)> {
    let mut end = at + 1;
    loop {
        end += bytes[end..].iter().position(|&byte| byte == b'\'')?;
        if bytes.get(end + 1) != Some(&b'\'') {
            return Some((Plain::Quoted(&bytes[at + 1..end]), end + 1));
        }
        end += 2;
    }
}
