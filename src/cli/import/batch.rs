//! Rows on their way: records of the file become `(1, 'x'),` and travel a statement at a time.
//!
//! * A batch ends at a number of rows or at a number of bytes, whichever comes first.
//! * Rows that can be seen to be bad here never reach the server; they travel beside the good ones, so that the reject
//!   file has one writer.

use super::super::Stop;
use super::infer::literal;
use super::shape::{Given, Shape};
use super::source::{Record, Source};
use std::ops::Range;

/// Text of one statement. Far below the server's limit of 16 MiB, and enough for thousands of rows.
const STATEMENT_BYTES_MAX: usize = 4 << 20;

/// A row that could not be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its line in the file.
    pub line: u64,
    /// Why.
    pub reason: String,
    /// As it stands in the file.
    pub raw: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    line: u64,
    tuple_end: usize,
    raw_end: usize,
}

/// Rows that make one statement.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    tuples: Vec<u8>,
    raw: Vec<u8>,
    rows: Vec<Row>,
    /// Rows that are not in it.
    pub rejected: Vec<Rejected>,
    /// Bytes of the file up to its end.
    pub position: u64,
}

impl Batch {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The statement for some of the rows.
    pub fn statement(&self, insert: &str, rows: Range<usize>) -> String {
        let begin = rows.start.checked_sub(1).map_or(0, |before| self.rows[before].tuple_end);
        let end = rows.end.checked_sub(1).map_or(0, |last| self.rows[last].tuple_end);
        let tuples = self.tuples[begin..end].strip_suffix(b",").unwrap_or_default();
        format!("{insert}{}", std::str::from_utf8(tuples).expect("every record was checked to be UTF-8"))
    }

    /// Row `i` as a rejected one.
    pub fn reject(&self, i: usize, reason: String) -> Rejected {
        let begin = i.checked_sub(1).map_or(0, |before| self.rows[before].raw_end);
        Rejected { line: self.rows[i].line, reason, raw: self.raw[begin..self.rows[i].raw_end].to_vec() }
    }

    /// First and last line of its rows.
    pub fn lines(&self) -> (u64, u64) {
        let line = |row: Option<&Row>| row.map_or(0, |row| row.line);
        (line(self.rows.first()), line(self.rows.last()))
    }

    fn push(&mut self, record: &Record, shape: &Shape, given: &Given) {
        let before = self.tuples.len();
        match tuple(&mut self.tuples, record, shape, given) {
            Ok(()) => {
                self.raw.extend_from_slice(record.raw);
                let (tuple_end, raw_end) = (self.tuples.len(), self.raw.len());
                self.rows.push(Row { line: record.line, tuple_end, raw_end });
            }
            Err(reason) => {
                self.tuples.truncate(before);
                self.rejected.push(Rejected { line: record.line, reason, raw: record.raw.to_vec() });
            }
        }
    }
}

/// Appends `(1,'x'),`; the error says why the record cannot be a row.
fn tuple(out: &mut Vec<u8>, record: &Record, shape: &Shape, given: &Given) -> Result<(), String> {
    let expected = shape.columns.len();
    if record.fields.len() != expected {
        return Err(format!("{} fields, expected {expected}", record.fields.len()));
    }
    record.check_utf8().map_err(|line| format!("not valid UTF-8 in line {line}"))?;
    out.push(b'(');
    for (i, column) in shape.columns.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let field = record.text(i);
        if given.is_null(field, || record.is_quoted(i)) {
            out.extend_from_slice(b"NULL");
            continue;
        }
        literal(out, field, column.data_type, given.timestamp_format.as_deref())
            .map_err(|error| format!("column {:?}: {error}", column.name))?;
    }
    out.extend_from_slice(b"),");
    Ok(())
}

/// The file as batches, in order.
pub struct Batches {
    source: Source,
    shape: Shape,
    given: Given,
    rows_max: usize,
    /// Why there are no more rows, once those before it are handed out.
    stop: Option<Stop>,
}

impl Batches {
    /// Begins at the first row.
    pub fn new(mut source: Source, shape: Shape, given: Given, rows_max: usize) -> Result<Batches, Stop> {
        if shape.skip_header {
            source.next()?;
        }
        Ok(Batches { source, shape, given, rows_max, stop: None })
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, Stop>;

    fn next(&mut self) -> Option<Result<Batch, Stop>> {
        if let Some(stop) = self.stop.take() {
            return Some(Err(stop));
        }
        let mut batch = Batch::default();
        // Rejected rows count too: a file of nothing else must not gather in memory.
        while batch.len() + batch.rejected.len() < self.rows_max && batch.tuples.len() < STATEMENT_BYTES_MAX {
            match self.source.next() {
                Ok(Some(record)) => batch.push(&record, &self.shape, &self.given),
                Ok(None) => break,
                Err(stop) if batch.len() + batch.rejected.len() == 0 => return Some(Err(stop)),
                Err(stop) => {
                    self.stop = Some(stop);
                    break;
                }
            }
        }
        batch.position = self.source.position();
        (batch.len() + batch.rejected.len() > 0).then_some(Ok(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(text: &[u8], rows_max: usize) -> Vec<Batch> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("x.csv");
        std::fs::write(&path, text).expect("writes");
        let given = Given { delimiter: b',', ..Given::default() };
        let input = super::super::input::Input::File(path);
        let shape = Shape::find(&input, &given, "x", None).expect("fits");
        let source = Source::new(input.bytes().expect("opens"), b',');
        let batches = Batches::new(source, shape, given, rows_max).expect("reads");
        batches.map(|batch| batch.expect("reads")).collect()
    }

    #[test]
    fn rows_become_statements() {
        let all = batches(b"a,b\n1,x\n2,\n3,\"\"\n", 2);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].statement("I ", 0..2), "I (1,'x'),(2,NULL)");
        assert_eq!(all[0].statement("I ", 1..2), "I (2,NULL)");
        assert_eq!(all[1].statement("I ", 0..1), "I (3,'')");
        assert_eq!(all[0].lines(), (2, 3));
        assert_eq!(
            all[0].reject(1, "why".to_owned()),
            Rejected { line: 3, reason: "why".to_owned(), raw: b"2,".to_vec() }
        );
    }

    #[test]
    fn bad_rows_are_set_aside_with_their_reason() {
        let all = batches(b"a,b\n1,x\n2\n3,\xff\n4,y\n", 100);
        assert_eq!(all[0].len(), 2);
        let reasons: Vec<(u64, &str)> = all[0].rejected.iter().map(|row| (row.line, row.reason.as_str())).collect();
        assert_eq!(reasons, [(3, "1 fields, expected 2"), (4, "not valid UTF-8 in line 4")]);
    }
}
