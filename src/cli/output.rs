//! Results as text: aligned tables, CSV, JSON lines. All three stream.
//!
//! * A table measures its first rows and keeps those widths; a later, wider value only pushes its own line.
//! * CSV writes NULL as an empty field and an empty string as `""`, so that an import reads back what was exported.
//! * JSON writes one object a line; of columns with one name the later ones get a number. Numbers that JSON cannot write (NaN, infinities) are strings.

use super::session::{Column, Sink};
use chronos::sql::text;
use chronos::sql::value::{DataType, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use unicode_width::UnicodeWidthStr;

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns with a header and a count.
    #[default]
    Table,
    /// Comma-separated, with a header.
    Csv,
    /// One object a line.
    Json,
}

/// Rows measured before the first is written: enough to align any page of output, little to hold.
const MEASURED_ROWS_MAX: usize = 1000;

/// Bytes held while measuring, whatever the number of rows.
const MEASURED_BYTES_MAX: usize = 4 << 20;

/// Writes one result to `out`.
pub struct Writer<'a> {
    out: &'a mut dyn Write,
    format: Format,
    columns: Vec<Column>,
    /// Their names in JSON.
    names: Vec<String>,
    /// Rows waiting for their widths; none once the widths are fixed.
    waiting: Option<Vec<Vec<String>>>,
    waiting_bytes: usize,
    /// One line, reused from row to row.
    line: Vec<u8>,
    widths: Vec<usize>,
    rows: u64,
}

impl<'a> Writer<'a> {
    /// A writer for one result.
    pub fn new(out: &'a mut dyn Write, format: Format) -> Writer<'a> {
        Writer {
            out,
            format,
            columns: Vec::new(),
            names: Vec::new(),
            waiting: Some(Vec::new()),
            waiting_bytes: 0,
            line: Vec::new(),
            widths: Vec::new(),
            rows: 0,
        }
    }

    /// True where the result had columns, so that its rows count, and not those it wrote.
    pub fn has_columns(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Rows written so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes what still waits. To be called where the statement ended, also where it ended in an error: then the rows
    /// before it are shown, and without any there is no header either.
    pub fn finish(&mut self, failed: bool) -> io::Result<()> {
        if self.format == Format::Table && self.has_columns() && !(failed && self.rows == 0) {
            self.settle()?;
        }
        Ok(())
    }

    /// Fixes the widths and writes the header and the rows that waited.
    fn settle(&mut self) -> io::Result<()> {
        let Some(rows) = self.waiting.take() else { return Ok(()) };
        let names: Vec<String> = self.columns.iter().map(|column| printable(&column.name)).collect();
        self.widths = (0..names.len())
            .map(|i| {
                let cells = rows.iter().map(|row| row[i].width());
                cells.chain([names[i].width(), 1]).max().unwrap_or(1)
            })
            .collect();
        let mut line = String::new();
        for (i, name) in names.iter().enumerate() {
            let gap = self.widths[i].saturating_sub(name.width());
            separate(&mut line, i, " | ");
            // The last column needs no blanks behind it.
            let right = if i + 1 == names.len() { 0 } else { gap - gap / 2 };
            pad(&mut line, gap / 2, name, right);
        }
        writeln!(self.out, " {line}")?;
        let rule: Vec<String> = self.widths.iter().map(|width| "-".repeat(width + 2)).collect();
        writeln!(self.out, "{}", rule.join("+"))?;
        rows.iter().try_for_each(|row| self.aligned(row))
    }

    fn aligned(&mut self, cells: &[String]) -> io::Result<()> {
        let mut line = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let gap = self.widths[i].saturating_sub(cell.width());
            separate(&mut line, i, " | ");
            match (is_number(self.columns[i].data_type), i + 1 == cells.len()) {
                (true, _) => pad(&mut line, gap, cell, 0),
                (false, false) => pad(&mut line, 0, cell, gap),
                (false, true) => line.push_str(cell),
            }
        }
        writeln!(self.out, " {line}")
    }

    fn table_row(&mut self, row: &[Value]) -> io::Result<()> {
        let cells: Vec<String> = row
            .iter()
            .map(|value| match value {
                Value::Text(text) => printable(text),
                Value::Null
                | Value::Bool(_)
                | Value::Int(_)
                | Value::Float(_)
                | Value::Blob(_)
                | Value::Timestamp(_) => text::format(value),
            })
            .collect();
        let Some(waiting) = &mut self.waiting else { return self.aligned(&cells) };
        self.waiting_bytes += cells.iter().map(String::len).sum::<usize>();
        waiting.push(cells);
        if waiting.len() >= MEASURED_ROWS_MAX || self.waiting_bytes >= MEASURED_BYTES_MAX {
            self.settle()?;
        }
        Ok(())
    }

    fn csv_row(&mut self, row: &[Value]) -> io::Result<()> {
        self.line.clear();
        for (i, value) in row.iter().enumerate() {
            if i > 0 {
                self.line.push(b',');
            }
            match value {
                Value::Text(text) => csv_field(&mut self.line, text),
                Value::Null => {}
                Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Blob(_) | Value::Timestamp(_) => {
                    text::append(&mut self.line, value);
                }
            }
        }
        // An empty line would be no row at all, so a lone NULL is the one that is written out.
        if row.len() == 1 && self.line.is_empty() {
            self.line.extend_from_slice(b"NULL");
        }
        self.line.push(b'\n');
        self.out.write_all(&self.line)
    }

    fn json_row(&mut self, row: &[Value]) -> io::Result<()> {
        self.line.clear();
        for (i, value) in row.iter().enumerate() {
            self.line.push(if i == 0 { b'{' } else { b',' });
            self.line.extend_from_slice(json_string(&self.names[i]).as_bytes());
            self.line.push(b':');
            match value {
                Value::Null => self.line.extend_from_slice(b"null"),
                Value::Bool(_) | Value::Int(_) => text::append(&mut self.line, value),
                Value::Float(number) if number.is_finite() => text::append(&mut self.line, value),
                Value::Text(text) => self.line.extend_from_slice(json_string(text).as_bytes()),
                Value::Float(_) | Value::Blob(_) | Value::Timestamp(_) => {
                    self.line.extend_from_slice(json_string(&text::format(value)).as_bytes());
                }
            }
        }
        self.line.extend_from_slice(b"}\n");
        self.out.write_all(&self.line)
    }
}

impl Sink for Writer<'_> {
    fn head(&mut self, columns: &[Column]) -> io::Result<()> {
        self.columns = columns.to_vec();
        self.names = distinct(columns);
        if self.format == Format::Csv {
            let mut line = Vec::new();
            for (i, column) in columns.iter().enumerate() {
                if i > 0 {
                    line.push(b',');
                }
                csv_field(&mut line, &column.name);
            }
            line.push(b'\n');
            self.out.write_all(&line)?;
        }
        Ok(())
    }

    fn row(&mut self, row: &[Value]) -> io::Result<()> {
        self.rows += 1;
        match self.format {
            Format::Table => self.table_row(row),
            Format::Csv => self.csv_row(row),
            Format::Json => self.json_row(row),
        }
    }
}

/// The names of the columns, each once: an object has no room for two of a name. The second `a` is `a_2`, or what comes
/// after it where a column has that name.
fn distinct(columns: &[Column]) -> Vec<String> {
    let mut taken: BTreeSet<String> = columns.iter().map(|column| column.name.clone()).collect();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    columns
        .iter()
        .map(|column| {
            let count = seen.entry(&column.name).or_insert(0);
            *count += 1;
            if *count == 1 {
                return column.name.clone();
            }
            loop {
                let name = format!("{}_{count}", column.name);
                if taken.insert(name.clone()) {
                    return name;
                }
                *count += 1;
            }
        })
        .collect()
}

fn is_number(data_type: Option<DataType>) -> bool {
    match data_type {
        Some(DataType::Int | DataType::Float) => true,
        Some(DataType::Bool | DataType::Text | DataType::Blob | DataType::Timestamp) | None => false,
    }
}

fn separate(line: &mut String, i: usize, with: &str) {
    if i > 0 {
        line.push_str(with);
    }
}

fn pad(line: &mut String, left: usize, text: &str, right: usize) {
    line.extend(std::iter::repeat_n(' ', left));
    line.push_str(text);
    line.extend(std::iter::repeat_n(' ', right));
}

/// Text that cannot break a line or drive a terminal: control characters are escaped.
fn printable(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// A field of a CSV line. An empty string is quoted, since an empty field is NULL, and so is the word NULL.
pub fn csv_field(line: &mut Vec<u8>, text: &str) {
    let blank = text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']);
    if text.is_empty() || text == "NULL" || blank || text.contains(['"', ',', '\n', '\r', ';', '\t']) {
        line.push(b'"');
        line.extend_from_slice(text.replace('"', "\"\"").as_bytes());
        line.push(b'"');
    } else {
        line.extend_from_slice(text.as_bytes());
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(list: &[(&str, DataType)]) -> Vec<Column> {
        list.iter().map(|(name, data_type)| Column { name: (*name).to_owned(), data_type: Some(*data_type) }).collect()
    }

    fn written(format: Format, head: &[(&str, DataType)], rows: &[Vec<Value>]) -> String {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, format);
        writer.head(&columns(head)).expect("memory");
        for row in rows {
            writer.row(row).expect("memory");
        }
        writer.finish(false).expect("memory");
        String::from_utf8(out).expect("UTF-8")
    }

    const HEAD: [(&str, DataType); 3] = [("id", DataType::Int), ("name", DataType::Text), ("x", DataType::Float)];

    fn rows() -> Vec<Vec<Value>> {
        vec![
            vec![Value::Int(1), Value::Text("a,\"b\"".to_owned()), Value::Float(25.5)],
            vec![Value::Int(200), Value::Null, Value::Null],
            vec![Value::Int(3), Value::Text("日本\n".to_owned()), Value::Float(1.0)],
        ]
    }

    #[test]
    fn a_table_is_aligned_with_numbers_to_the_right() {
        let expected = " id  |  name  |  x  \n\
                        -----+--------+------\n\
                        \x20  1 | a,\"b\"  | 25.5\n\
                        \x20200 | NULL   | NULL\n\
                        \x20  3 | 日本\\n |    1\n";
        let shown = written(Format::Table, &HEAD, &rows());
        let trimmed: Vec<&str> = shown.lines().map(str::trim_end).collect();
        assert_eq!(trimmed, expected.lines().map(str::trim_end).collect::<Vec<_>>());
    }

    #[test]
    fn an_empty_table_has_its_header() {
        assert_eq!(written(Format::Table, &HEAD[..1], &[]), " id\n----\n");
    }

    #[test]
    fn csv_tells_null_from_an_empty_string() {
        let shown = written(
            Format::Csv,
            &HEAD[..2],
            &[
                vec![Value::Int(1), Value::Null],
                vec![Value::Int(2), Value::Text(String::new())],
                vec![Value::Int(3), Value::Text("a\"b".to_owned())],
            ],
        );
        assert_eq!(shown, "id,name\n1,\n2,\"\"\n3,\"a\"\"b\"\n");
    }

    #[test]
    fn json_names_every_column_once() {
        let head = [("a", DataType::Int), ("a", DataType::Int), ("a_2", DataType::Int), ("a", DataType::Int)];
        let row: Vec<Value> = (1..=4).map(Value::Int).collect();
        assert_eq!(written(Format::Json, &head, &[row]), "{\"a\":1,\"a_3\":2,\"a_2\":3,\"a_4\":4}\n");
    }

    #[test]
    fn json_is_one_object_a_line() {
        assert_eq!(
            written(Format::Json, &HEAD, &rows()[..2]),
            "{\"id\":1,\"name\":\"a,\\\"b\\\"\",\"x\":25.5}\n{\"id\":200,\"name\":null,\"x\":null}\n"
        );
        let nan = written(Format::Json, &HEAD[2..], &[vec![Value::Float(f64::NAN)]]);
        assert_eq!(nan, "{\"x\":\"NaN\"}\n");
    }

    #[test]
    fn a_long_result_streams_after_its_first_rows() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, Format::Table);
        writer.head(&columns(&HEAD[..1])).expect("memory");
        for i in 0..MEASURED_ROWS_MAX + 5 {
            writer.row(&[Value::Int(i as i64)]).expect("memory");
        }
        assert!(writer.waiting.is_none());
        writer.finish(false).expect("memory");
        assert_eq!(String::from_utf8(out).expect("UTF-8").lines().count(), MEASURED_ROWS_MAX + 7);
    }
}
