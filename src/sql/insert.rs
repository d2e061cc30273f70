//! `INSERT INTO t [(columns)] VALUES (literal, …), …` straight from bytes to columns.
//!
//! This is what gateways send all day, a thousand rows at a time, and the general way (tokens, a tree, a bound
//! expression a cell) takes microseconds a value. Here one scanner reads each literal as its column's type and pushes
//! it onto the column; nothing is allocated for a row.
//!
//! * Whatever is not understood, and whatever is wrong, is not decided here: the answer is none and the general way
//!   decides. So there is one source of errors, and one meaning: where this gives rows, the general way gives the same.
//! * Understood are: INT and FLOAT as numbers, TEXT as `'…'`, TIMESTAMP as `'…'`, BOOL as `TRUE` and `FALSE`,
//!   BLOB as `X'…'`, and NULL.

use crate::error::Result;
use crate::sql::batch::{Column, Strings, Values};
use crate::sql::bind::{BindContext, BoundInsert, check_column, evaluate_default, is_longer};
use crate::sql::catalog::{ColumnDefinition, Table};
use crate::sql::text::parse_timestamp;
use crate::sql::translate::NAME_BYTES_MAX;
use std::sync::Arc;

/// Bytes that a row takes at least, `(1),`: with the size of the text it bounds the room that is reserved.
const ROW_BYTES_MIN: usize = 4;

/// Rows that room is reserved for at the beginning; more grow by doubling.
const ROWS_RESERVED: usize = 1_024;

/// Powers of ten that FLOAT holds exactly: `digits / 10^k` is then rounded once, which is correct rounding
/// (W. D. Clinger, How to Read Floating Point Numbers Accurately, 1990, section 3).
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Binds an INSERT of literals; none where the statement is anything else, or wrong.
///
/// # Errors
/// None of its own. The signature leaves room for limits.
pub fn bind_literal_insert(sql: &str, context: &BindContext<'_>) -> Option<Result<BoundInsert>> {
    let mut scanner = Scanner { bytes: sql.as_bytes(), at: 0 };
    scanner.keyword(b"insert")?;
    scanner.keyword(b"into")?;
    let table = context.catalog.table(scanner.name()?.as_str())?;
    let targets = scanner.targets(table)?;
    scanner.keyword(b"values")?;
    let reserved = (sql.len() / ROW_BYTES_MIN).min(ROWS_RESERVED);
    let mut sinks: Vec<Sink<'_>> = targets.iter().map(|&index| Sink::new(&table.columns[index], reserved)).collect();
    let rows = scanner.rows(&mut sinks)?;
    scanner.end()?;
    let mut columns: Vec<Option<Arc<Column>>> = vec![None; table.columns.len()];
    for (index, sink) in targets.into_iter().zip(sinks) {
        columns[index] = Some(Arc::new(sink.finish()));
    }
    let columns = columns.into_iter().zip(&table.columns).map(|(column, definition)| match column {
        Some(column) => Some(column),
        None => default(definition, table, rows, context),
    });
    Some(Ok(BoundInsert { table: Arc::clone(table), columns: columns.collect::<Option<Vec<Arc<Column>>>>()?, rows }))
}

/// A column that the statement does not name.
fn default(
    definition: &ColumnDefinition,
    table: &Table,
    rows: usize,
    context: &BindContext<'_>,
) -> Option<Arc<Column>> {
    let value = evaluate_default(definition, context).ok()?;
    let column = Column::constant(value, definition.data_type, rows);
    check_column(definition, table, &column).ok()?;
    Some(Arc::new(column))
}

/// One column on its way.
struct Sink<'a> {
    definition: &'a ColumnDefinition,
    values: Values,
    nulls: Option<Vec<bool>>,
}

impl<'a> Sink<'a> {
    fn new(definition: &'a ColumnDefinition, reserved: usize) -> Sink<'a> {
        Sink { definition, values: Values::with_capacity(definition.data_type, reserved), nulls: None }
    }

    fn push_null(&mut self) -> Option<()> {
        if self.definition.not_null {
            return None;
        }
        let rows = self.values.len();
        let nulls = self.nulls.get_or_insert_default();
        nulls.resize(rows, false);
        nulls.push(true);
        self.values.push_zero();
        Some(())
    }

    fn finish(self) -> Column {
        match self.nulls {
            Some(mut nulls) => {
                nulls.resize(self.values.len(), false);
                Column::with_nulls(self.values, nulls)
            }
            None => Column::new(self.values),
        }
    }
}

/// Reads bytes; each step is none where something else stands there.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    /// Takes a punctuation mark, with space before it.
    fn punctuation(&mut self, mark: u8) -> Option<()> {
        self.skip_space();
        (self.peek()? == mark).then(|| self.at += 1)
    }

    /// Takes a word in any case, with space before it.
    fn keyword(&mut self, lower: &[u8]) -> Option<()> {
        self.skip_space();
        let word = self.bytes.get(self.at..self.at + lower.len())?;
        if !word.eq_ignore_ascii_case(lower) || self.bytes.get(self.at + lower.len()).is_some_and(|&b| is_word(b)) {
            return None;
        }
        self.at += lower.len();
        Some(())
    }

    /// Takes a name, folded. Words of the grammar are left to the parser, which knows where they may stand.
    fn name(&mut self) -> Option<String> {
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

    /// The columns that values are given for, by their positions in the table.
    fn targets(&mut self, table: &Table) -> Option<Vec<usize>> {
        self.skip_space();
        if self.peek()? != b'(' {
            return Some((0..table.columns.len()).collect());
        }
        self.at += 1;
        let mut targets: Vec<usize> = Vec::with_capacity(table.columns.len());
        loop {
            let name = self.name()?;
            let index = table.columns.iter().position(|column| column.name == name)?;
            if targets.contains(&index) {
                return None;
            }
            targets.push(index);
            self.skip_space();
            let mark = self.peek()?;
            self.at += 1;
            match mark {
                b',' => {}
                b')' => return Some(targets),
                _ => return None,
            }
        }
    }

    /// Reads all rows; how many there are.
    fn rows(&mut self, sinks: &mut [Sink<'_>]) -> Option<usize> {
        let last = sinks.len().checked_sub(1)?;
        let mut rows = 0;
        loop {
            self.punctuation(b'(')?;
            for (i, sink) in sinks.iter_mut().enumerate() {
                self.skip_space();
                self.literal(sink)?;
                self.punctuation(if i == last { b')' } else { b',' })?;
            }
            rows += 1;
            self.skip_space();
            if self.peek() != Some(b',') {
                return Some(rows);
            }
            self.at += 1;
        }
    }

    /// Nothing follows but a semicolon.
    fn end(&mut self) -> Option<()> {
        self.skip_space();
        if self.peek() == Some(b';') {
            self.at += 1;
            self.skip_space();
        }
        (self.at == self.bytes.len()).then_some(())
    }

    fn literal(&mut self, sink: &mut Sink<'_>) -> Option<()> {
        if matches!(self.peek()?, b'n' | b'N') {
            self.keyword(b"null")?;
            return sink.push_null();
        }
        match &mut sink.values {
            Values::Int(values) => values.push(self.integer()?),
            Values::Float(values) => values.push(self.float()?),
            Values::Text(strings) => {
                let length_max = sink.definition.length_max;
                self.quoted(|text| {
                    if length_max.is_some_and(|length_max| is_longer(text, length_max)) {
                        return None;
                    }
                    strings.push(text);
                    Some(())
                })?;
            }
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
        if let Some(nulls) = &mut sink.nulls {
            nulls.push(false);
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

/// Words that cannot be a name, or mean something else, between INTO and VALUES.
fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 12] = [
        "as",
        "default",
        "from",
        "into",
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
