//! A CSV file as records, each with its line number and its bytes as they stand in the file.
//!
//! ```text
//! file ──> Tee (keeps the bytes since the last record) ──> csv::Reader ──> fields
//!             └──────────────────────────────────────────────────────────> raw bytes, line number
//! ```
//!
//! The parser drops what two later questions need: was an empty field quoted (an empty string) or not (NULL), and what
//! exactly stood in a line that is rejected.
//!
//! * Lines are counted from 1, as editors do, also inside quoted fields.
//! * A file that ends inside a quoted field was cut off, or lacks a quote: what follows the quote may be many rows, and is
//!   none. The parser would hand it out as the last field.

use super::super::Stop;
use super::input::Bytes;
use csv::ByteRecord;
use std::io::{self, Read};

/// Largest record. A quote left open would otherwise swallow the rest of the file into memory.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// Passes a file on and keeps what was read since the last record began.
struct Tee {
    file: Box<dyn Read + Send>,
    kept: Vec<u8>,
    /// Offset in the file of `kept[0]`.
    begin: u64,
    /// True once nothing follows.
    is_at_end: bool,
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.kept.len() > RECORD_BYTES_MAX {
            let mib = RECORD_BYTES_MAX >> 20;
            return Err(io::Error::other(format!("a record of more than {mib} MiB: is a quote left open?")));
        }
        let count = self.file.read(buffer)?;
        self.kept.extend_from_slice(&buffer[..count]);
        self.is_at_end = count == 0;
        Ok(count)
    }
}

/// Reads records one after another.
pub struct Source {
    reader: csv::Reader<Tee>,
    record: ByteRecord,
    delimiter: u8,
    /// Line of the next byte to parse.
    line: u64,
    /// Bytes of `kept` that belong to records before the present one.
    done: usize,
    size: Option<u64>,
    /// Where the bytes break off; a record that ends there may not be whole.
    breaks_off: Option<u64>,
}

/// One record.
pub struct Record<'a> {
    /// The fields, unquoted.
    pub fields: &'a ByteRecord,
    /// The bytes in the file, without the line end.
    pub raw: &'a [u8],
    /// The line it begins on.
    pub line: u64,
    delimiter: u8,
}

impl Source {
    /// Reads records from these bytes.
    pub fn new(bytes: Bytes, delimiter: u8) -> Source {
        let Bytes { reader: file, size, breaks_off } = bytes;
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .buffer_capacity(64 << 10)
            .from_reader(Tee { file, kept: Vec::new(), begin: 0, is_at_end: false });
        Source { reader, record: ByteRecord::new(), delimiter, line: 1, done: 0, size, breaks_off }
    }

    /// How many bytes there are, where that is known.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Bytes parsed so far.
    pub fn position(&self) -> u64 {
        self.reader.position().byte()
    }

    /// The next record, or none at the end.
    pub fn next(&mut self) -> Result<Option<Record<'_>>, Stop> {
        let tee = self.reader.get_mut();
        tee.kept.drain(..self.done);
        tee.begin += self.done as u64;
        self.done = 0;
        let line = self.line;
        let more = self
            .reader
            .read_byte_record(&mut self.record)
            .map_err(|error| Stop::Message(format!("record at line {line}: {error}")))?;
        if !more {
            return Ok(None);
        }
        let end = self.reader.position().byte();
        if self.breaks_off.is_some_and(|at| end >= at) {
            return Ok(None);
        }
        let tee = self.reader.get_ref();
        self.done = (end - tee.begin) as usize;
        let taken = &tee.kept[..self.done];
        let blank = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let lead = taken.iter().take_while(|byte| blank(byte)).count();
        let tail = taken[lead..].iter().rev().take_while(|byte| blank(byte)).count();
        let first = line + newlines(&taken[..lead]);
        self.line += newlines(taken);
        let raw = &taken[lead..taken.len() - tail];
        // Only a record that the end of the file has ended can be open.
        if tee.is_at_end
            && let Some(at) = open_quote(&taken[lead..], self.delimiter)
        {
            let line = first + newlines(&taken[lead..lead + at]);
            return Err(Stop::Message(format!(
                "line {line}: a quote opens and does not close before the end of the file: the file is cut off, or a \" is \
                 missing"
            )));
        }
        Ok(Some(Record { fields: &self.record, raw, line: first, delimiter: self.delimiter }))
    }
}

/// Where a quote opens that nothing closes, in the bytes of one record.
fn open_quote(record: &[u8], delimiter: u8) -> Option<usize> {
    /// The place in a field. A quote opens one only at its beginning, as for the parser.
    enum Place {
        Begin,
        Bare,
        Quoted(usize),
        /// Behind a quote inside: the end of what is quoted, unless another quote follows.
        Closed(usize),
    }
    let bytes = record.strip_prefix(b"\xef\xbb\xbf").unwrap_or(record);
    let mut place = Place::Begin;
    for (at, byte) in bytes.iter().enumerate() {
        place = match (place, *byte) {
            (Place::Begin, b'"') => Place::Quoted(at),
            (Place::Quoted(opened), b'"') => Place::Closed(opened),
            (Place::Closed(opened), b'"') | (Place::Quoted(opened), _) => Place::Quoted(opened),
            (Place::Begin | Place::Bare | Place::Closed(_), byte) if byte == delimiter => Place::Begin,
            (Place::Begin | Place::Bare | Place::Closed(_), _) => Place::Bare,
        };
    }
    match place {
        Place::Quoted(at) => Some(at + record.len() - bytes.len()),
        Place::Begin | Place::Bare | Place::Closed(_) => None,
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.split(|byte| *byte == b'\n').count() as u64 - 1
}

impl Record<'_> {
    /// The text of the record, or the line on which it stops being UTF-8.
    pub fn check_utf8(&self) -> Result<(), u64> {
        match std::str::from_utf8(self.raw) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.line + newlines(&self.raw[..error.valid_up_to()])),
        }
    }

    /// Field `i` as text. Only after [`Record::check_utf8`]: unquoting valid text leaves valid text.
    pub fn text(&self, i: usize) -> &str {
        self.fields.get(i).and_then(|field| std::str::from_utf8(field).ok()).unwrap_or("")
    }

    /// True where field `i` stands in quotes. Looked up only for fields that could be NULL, so it may walk the record.
    pub fn is_quoted(&self, i: usize) -> bool {
        let (mut at, mut inside, mut quoted, mut begins) = (0, false, false, true);
        for byte in self.raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(self.raw) {
            if *byte == self.delimiter && !inside {
                if at == i {
                    return quoted;
                }
                (at, quoted, begins) = (at + 1, false, true);
                continue;
            }
            if *byte == b'"' {
                quoted |= begins;
                inside = quoted && !inside;
            }
            begins = false;
        }
        at == i && quoted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(bytes: &[u8], breaks_off: Option<u64>) -> Source {
        let reader = Box::new(io::Cursor::new(bytes.to_vec()));
        Source::new(Bytes { reader, size: None, breaks_off }, b',')
    }

    #[test]
    fn a_record_where_the_bytes_break_off_does_not_count() {
        let mut cut = source(b"a,b\n1,2\n3,\"x\ny", Some(14));
        assert!(cut.next().expect("reads").is_some() && cut.next().expect("reads").is_some());
        assert!(cut.next().expect("reads").is_none(), "more of it may follow");
    }

    fn records(bytes: &[u8]) -> Vec<(u64, Vec<String>, String)> {
        let mut source = source(bytes, None);
        let mut all = Vec::new();
        while let Some(record) = source.next().expect("reads") {
            let fields = record.fields.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect();
            all.push((record.line, fields, String::from_utf8_lossy(record.raw).into_owned()));
        }
        all
    }

    #[test]
    fn a_file_that_ends_inside_quotes_is_refused_by_the_line_of_the_quote() {
        for (bytes, line) in [
            (&b"a,b\n1,2\n3,\"x\ny\n"[..], Some(3)),
            (b"a,b\n1,\"x\ny\"\n3,\"x", Some(4)),
            (b"a,b\n\"x\n\",\"\"\"", Some(3)),
            (b"\xef\xbb\xbf\"a", Some(1)),
            (b"a,b\n1,\"x\ny\"", None),
            (b"a,b\n1,\"\"\"\"", None),
            (b"a,b\n1,x\"y", None),
            (b"a,b\n1,\"x\"y\"z", None),
            (b"a,b\n1,\"\"", None),
        ] {
            let mut source = source(bytes, None);
            let end = loop {
                match source.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(Stop::Message(text)) => break Some(text),
                    Err(other) => panic!("{other:?}"),
                }
            };
            match (end, line) {
                (None, None) => {}
                (Some(text), Some(line)) => assert!(text.starts_with(&format!("line {line}: a quote opens")), "{text}"),
                (end, line) => panic!("{}: {end:?}, not {line:?}", String::from_utf8_lossy(bytes)),
            }
        }
    }

    #[test]
    fn records_know_their_line_and_their_bytes() {
        let all = records(b"a,b\r\n1,\"x\r\ny\"\r\n\r\n2,\"q\"\"q\"\n3,z");
        let lines: Vec<u64> = all.iter().map(|record| record.0).collect();
        assert_eq!(lines, [1, 2, 5, 6]);
        assert_eq!(all[1].1, ["1", "x\r\ny"]);
        assert_eq!(all[2].2, "2,\"q\"\"q\"");
        assert_eq!(all[3].2, "3,z");
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_first_field() {
        assert_eq!(records(b"\xef\xbb\xbfa,b\n")[0].1, ["a", "b"]);
    }

    #[test]
    fn a_long_file_keeps_its_line_numbers() {
        let lines: Vec<String> = (0..50_000).map(|i| format!("{i},{}", "x".repeat(i % 50))).collect();
        let text = lines.join("\n");
        let all = records(text.as_bytes());
        assert_eq!(all.len(), 50_000);
        assert!(all.iter().enumerate().all(|(i, record)| record.0 == i as u64 + 1 && record.1[0] == i.to_string()));
    }

    #[test]
    fn quotes_around_an_empty_field_are_seen() {
        let record = ByteRecord::from(vec!["", "", "a,b", "", "x"]);
        let raw = b",\"\",\"a,b\",,x";
        let record = Record { fields: &record, raw, line: 1, delimiter: b',' };
        assert_eq!((0..5).map(|i| record.is_quoted(i)).collect::<Vec<_>>(), [false, true, true, false, false]);
    }

    #[test]
    fn bytes_that_are_not_text_are_found_by_line() {
        let fields = ByteRecord::from(vec![b"a\n\xff".to_vec()]);
        let record = Record { fields: &fields, raw: b"\"a\n\xff\"", line: 7, delimiter: b',' };
        assert_eq!(record.check_utf8(), Err(8));
    }
}
