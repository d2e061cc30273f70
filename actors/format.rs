//! How an answer is written: JSON for scripts, CSV for tables, protobuf for everybody else.
//!
//! * A long text is written in parts, so that no cell makes a long piece: a value of 11 MB is never there twice.
//! * A part never ends within a character.

use crate::actors::encode::{self, Cell};
use crate::actors::proto::message;
use chronos::sql::batch::Batch;

/// A longer text is written in parts of this size, which escaping may make six times as long.
pub const PART_BYTES: usize = 8 << 10;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An object.
    Json,
    /// An object with the results of a batch.
    JsonBatch,
    /// Lines.
    Csv,
    /// A message of gRPC.
    Message,
    /// A message of gRPC that answers a batch.
    MessageBatch,
}

impl Format {
    /// Stands between two cells of a row.
    pub fn separate(self, out: &mut Vec<u8>) {
        match self {
            Format::Json | Format::JsonBatch | Format::Csv => out.push(b','),
            Format::Message | Format::MessageBatch => {}
        }
    }

    /// Ends a row.
    pub fn end_row(self, out: &mut Vec<u8>) {
        match self {
            Format::Json | Format::JsonBatch => out.push(b']'),
            Format::Csv => out.extend_from_slice(b"\r\n"),
            Format::Message | Format::MessageBatch => {}
        }
    }

    /// Begins a row.
    pub fn begin_row(self, out: &mut Vec<u8>, batch: &Batch, row: usize, is_first: bool) {
        match self {
            Format::Json | Format::JsonBatch => out.extend_from_slice(if is_first { b"[" } else { b",[" }),
            Format::Csv => {}
            Format::Message | Format::MessageBatch => message::open_row(out, batch, row),
        }
    }

    /// Writes a cell, or the part of it from `from` on; answers where the next part begins, 0 at the end.
    pub fn cell(self, out: &mut Vec<u8>, cell: &Cell, from: usize) -> usize {
        let (Cell::Text(long) | Cell::Blob(long)) = cell else {
            self.short(out, cell);
            return 0;
        };
        if long.len() <= PART_BYTES {
            self.short(out, cell);
            return 0;
        }
        let is_blob = matches!(cell, Cell::Blob(_));
        if from == 0 {
            match self {
                Format::Json | Format::JsonBatch | Format::Csv => out.push(b'"'),
                Format::Message | Format::MessageBatch => message::open_cell(out, cell),
            }
            if is_blob {
                self.part(out, b"\\x");
            }
        }
        let to = part_end(long, from);
        if is_blob {
            // Digits need no escaping anywhere.
            encode::hex(out, &long[from..to]);
        } else {
            self.part(out, &long[from..to]);
        }
        if to < long.len() {
            return to;
        }
        match self {
            Format::Json | Format::JsonBatch | Format::Csv => out.push(b'"'),
            Format::Message | Format::MessageBatch => {}
        }
        0
    }

    fn short(self, out: &mut Vec<u8>, cell: &Cell) {
        match self {
            Format::Json | Format::JsonBatch => encode::json_cell(out, cell),
            Format::Csv => encode::csv_cell(out, cell),
            Format::Message | Format::MessageBatch => {
                message::open_cell(out, cell);
                if matches!(cell, Cell::Text(_) | Cell::Blob(_) | Cell::Timestamp(_)) {
                    cell.append(out);
                }
            }
        }
    }

    /// A part of a text, escaped as the format wants it between quotes.
    fn part(self, out: &mut Vec<u8>, text: &[u8]) {
        match self {
            Format::Json | Format::JsonBatch => encode::json_escaped(out, text),
            Format::Csv => encode::csv_escaped(out, text),
            Format::Message | Format::MessageBatch => out.extend_from_slice(text),
        }
    }
}

/// Where a part ends: never within a character.
fn part_end(text: &[u8], from: usize) -> usize {
    let mut to = (from + PART_BYTES).min(text.len());
    while to < text.len() && to > from + 1 && text[to] & 0xc0 == 0x80 {
        to -= 1;
    }
    to
}
