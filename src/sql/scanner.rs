//! Reads the tokens of plain statements straight from their bytes: keywords, names, literals.
//!
//! What gateways send all day are a few shapes, a thousand rows or one key at a time; the general way (tokens, a tree,
//! a bound expression a cell) takes microseconds a value. [`super::insert`] and [`super::point`] read those shapes
//! with this, in tens of nanoseconds a value.
//!
//! * Each step is none where anything but the plain form stands. Nothing is decided here, and no error is made here:
//!   the general way decides, so there is one source of errors and one meaning.

use crate::sql::batch::{Strings, Values};
use crate::sql::bind::is_longer;
use crate::sql::text::parse_timestamp;
use crate::sql::translate::NAME_BYTES_MAX;

/// Powers of ten that FLOAT holds exactly: `digits / 10^k` is then rounded once, which is correct rounding
/// (W. D. Clinger, How to Read Floating Point Numbers Accurately, 1990, section 3).
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Reads bytes; each step is none where something else stands there.
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Begins at the first byte of a statement; none where it has a NUL, which is refused the general way (see
    /// `ParseLimits::check_text`).
    pub(super) fn begin(sql: &'a str) -> Option<Scanner<'a>> {
        (!sql.contains('\0')).then(|| Scanner::at(sql, 0))
    }

    /// Goes on at a byte of a statement that was read before.
    pub(super) fn at(sql: &'a str, at: usize) -> Scanner<'a> {
        Scanner { bytes: sql.as_bytes(), at }
    }

    /// Goes on at another byte.
    pub(super) fn go_to(&mut self, at: usize) {
        self.at = at;
    }

    /// The byte that comes next, by its number.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The byte that comes next, space included.
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Goes on to what is not space.
    pub(super) fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    /// Takes a punctuation mark, with space before it.
    pub(super) fn punctuation(&mut self, mark: u8) -> Option<()> {
        self.skip_space();
        (self.peek()? == mark).then(|| self.at += 1)
    }

    /// Takes a word in any case, with space before it.
    pub(super) fn keyword(&mut self, lower: &[u8]) -> Option<()> {
        self.skip_space();
        let word = self.bytes.get(self.at..self.at + lower.len())?;
        if !word.eq_ignore_ascii_case(lower) || self.bytes.get(self.at + lower.len()).is_some_and(|&b| is_word(b)) {
            return None;
        }
        self.at += lower.len();
        Some(())
    }

    /// Takes a name, folded. Words of the grammar are left to the parser, which knows where they may stand.
    pub(super) fn name(&mut self) -> Option<String> {
        self.skip_space();
        let rest = &self.bytes[self.at..];
        let (name, taken) = if rest.first() == Some(&b'"') {
            let end = rest[1..].iter().position(|&byte| byte == b'"')? + 1;
            (std::str::from_utf8(&rest[1..end]).ok()?.to_owned(), end + 1)
        } else {
            let end = rest.iter().position(|&byte| !is_word(byte)).unwrap_or(rest.len());
            let name = std::str::from_utf8(&rest[..end]).ok()?.to_ascii_lowercase();
            if !rest.first()?.is_ascii_alphabetic() || !name.is_ascii() || is_reserved(&name) {
                return None;
            }
            (name, end)
        };
        self.at += taken;
        // A dot would make it a qualified name, another quote an escaped one.
        let plain = !matches!(self.peek(), Some(b'.' | b'"' | b'$'));
        (plain && !name.is_empty() && name.len() <= NAME_BYTES_MAX).then_some(name)
    }

    /// Nothing follows but a semicolon.
    pub(super) fn end(&mut self) -> Option<()> {
        self.skip_space();
        if self.peek() == Some(b';') {
            self.at += 1;
            self.skip_space();
        }
        (self.at == self.bytes.len()).then_some(())
    }

    /// Reads one literal of the type that `values` has and pushes it; NULL is none here. Texts of more characters than
    /// `length_max` are left to the general way.
    pub(super) fn literal(&mut self, values: &mut Values, length_max: Option<u32>) -> Option<()> {
        match values {
            Values::Int(values) => values.push(self.integer()?),
            Values::Float(values) => values.push(self.float()?),
            Values::Text(strings) => self.quoted(|text| {
                if length_max.is_some_and(|length_max| is_longer(text, length_max)) {
                    return None;
                }
                strings.push(text);
                Some(())
            })?,
            Values::Timestamp(values) => {
                let micros = self.quoted(|text| parse_timestamp(std::str::from_utf8(text).ok()?).ok())?;
                values.push(micros);
            }
            Values::Bool(values) => {
                let value = matches!(self.peek()?, b't' | b'T');
                self.keyword(if value { b"true" } else { b"false" })?;
                values.push(value);
            }
            Values::Blob(strings) => self.blob(strings)?,
        }
        Some(())
    }

    /// Takes a minus that a digit follows. `--` is a comment, and `- 5` is rare.
    fn sign(&mut self) -> bool {
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        negative
    }

    /// The digits from here: their value and how many they are. None where that does not fit 64 bits unsigned.
    fn digits(&mut self, mut value: u64) -> Option<(u64, usize)> {
        let from = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
            self.at += 1;
        }
        Some((value, self.at - from))
    }

    fn integer(&mut self) -> Option<i64> {
        let negative = self.sign();
        let (value, count) = self.digits(0)?;
        if count == 0 || self.peek().is_some_and(is_of_number) {
            return None;
        }
        signed(value, negative)
    }

    fn float(&mut self) -> Option<f64> {
        let from = self.at;
        let negative = self.sign();
        let (whole, count) = self.digits(0)?;
        if count == 0 {
            return None;
        }
        if !self.peek().is_some_and(is_of_number) {
            // Without a point it is an integer, which is cast: `-0` is 0.
            return signed(whole, negative).map(|value| value as f64);
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            let before = self.at;
            if let Some((digits, count)) = self.digits(whole)
                && !self.peek().is_some_and(is_of_number)
            {
                if count == 0 {
                    return None;
                }
                if digits < 1 << 53 && count < EXACT_POWERS.len() {
                    let value = digits as f64 / EXACT_POWERS[count];
                    return Some(if negative { -value } else { value });
                }
            }
            self.at = before;
        }
        self.long_float(from)
    }

    /// A number with an exponent or many digits.
    fn long_float(&mut self, from: usize) -> Option<f64> {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            let before = self.at;
            while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                self.at += 1;
            }
            if self.at == before {
                return None;
            }
        }
        let text = &self.bytes[from..self.at];
        // `5.` and `5.e3` are left to the parser.
        if self.peek().is_some_and(is_of_number)
            || text.windows(2).any(|pair| pair[0] == b'.' && !pair[1].is_ascii_digit())
        {
            return None;
        }
        let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
        value.is_finite().then_some(value)
    }

    /// Hands over what is between quotes, doubled ones made single.
    fn quoted<T>(&mut self, take: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        if self.peek()? != b'\'' {
            return None;
        }
        let from = self.at + 1;
        let length = self.bytes[from..].iter().position(|&byte| byte == b'\'')?;
        let mut end = from + length;
        if self.bytes.get(end + 1) != Some(&b'\'') {
            self.at = end + 1;
            return take(&self.bytes[from..end]);
        }
        let mut text = self.bytes[from..end].to_vec();
        while self.bytes.get(end + 1) == Some(&b'\'') {
            text.push(b'\'');
            let next = end + 2;
            end = next + self.bytes[next..].iter().position(|&byte| byte == b'\'')?;
            text.extend_from_slice(&self.bytes[next..end]);
        }
        self.at = end + 1;
        take(&text)
    }

    fn blob(&mut self, strings: &mut Strings) -> Option<()> {
        if !matches!(self.peek()?, b'x' | b'X') {
            return None;
        }
        self.at += 1;
        let bytes = self.quoted(|digits| {
            let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
            if !digits.len().is_multiple_of(2) {
                return None;
            }
            digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect::<Option<Vec<u8>>>()
        })?;
        strings.push(&bytes);
        Some(())
    }
}

fn signed(value: u64, negative: bool) -> Option<i64> {
    if negative { 0_i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// What would make a number longer, or wrong.
fn is_of_number(byte: u8) -> bool {
    byte == b'.' || is_word(byte)
}

/// Words that cannot be a name, or mean something else, between INTO and VALUES; and the tests for NULL, which are names
/// nowhere.
fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 14] = [
        "as",
        "default",
        "from",
        "into",
        "isnull",
        "notnull",
        "only",
        "overriding",
        "overwrite",
        "select",
        "set",
        "table",
        "values",
        "with",
    ];
    RESERVED.contains(&name)
}
