//! A result as protobuf, written straight from its columns.
//!
//! The generated types would hold a result once more, at some 60 bytes a value before its text: an answer of 11 MB of
//! small numbers took 100 MB for the moment in which it was built. Here its length is counted first, since it stands in
//! front of it, and then it is written piece by piece.
//!
//! ```text
//!   SqlResponse = header by prost (columns, types, affected)  row  row  row ...
//!   row   = 22 length cell cell ...           field 4, repeated
//!   cell  = 0a length value                   field 1, repeated
//!   value = 0a length text | 10 varint | 19 eight bytes | 20 bool | 28 01       of the oneof
//! ```
//!
//! * What is written is what prost reads back: tested for every type against the generated types.

use crate::actors::encode::Cell;
use crate::actors::messages::{Output, OutputColumn};
use crate::actors::proto::{self, wire};
use chronos::sql::batch::Batch;
use chronos::sql::text;
use chronos::sql::value::Value;
use prost::Message;

/// Field and wire type of `SqlResponse.rows`.
const ROWS: u8 = 0x22;
/// Field and wire type of `Row.values`, and of `BatchResponse.responses`.
const FIRST: u8 = 0x0a;
const STRING: u8 = 0x0a;
/// Bytes of the length of a message.
const LENGTH_BYTES_MAX: usize = 5;
const INT: u8 = 0x10;
const FLOAT: u8 = 0x19;
const BOOL: u8 = 0x20;
const NULL: u8 = 0x28;

/// Bytes of a result as one message.
pub fn len(output: &Output) -> usize {
    header(output).encoded_len() + output.batches.iter().map(|batch| rows_len(batch, 0, batch.rows)).sum::<usize>()
}

/// Bytes of a result with these columns and rows within the answer to a batch, at most.
pub fn answer_len(columns: &[OutputColumn], batches: &[Batch]) -> usize {
    // Rows without columns are the next part of a result.
    let head = if columns.is_empty() { 0 } else { nested(proto::header(columns).encoded_len()) + LENGTH_BYTES_MAX };
    head + batches.iter().map(|batch| rows_len(batch, 0, batch.rows)).sum::<usize>()
}

/// Bytes of the rows `from..to` in a message.
pub fn rows_len(batch: &Batch, from: usize, to: usize) -> usize {
    (from..to).map(|row| nested(row_len(batch, row))).sum()
}

/// Bytes of results as the message that answers a batch.
pub fn batch_len(outputs: &[Output]) -> usize {
    outputs.iter().map(|output| nested(len(output))).sum()
}

/// Begins a result within the answer to a batch.
pub fn open(out: &mut Vec<u8>, output: &Output) {
    out.push(FIRST);
    prost::encoding::encode_varint(len(output) as u64, out);
}

/// Everything of a result but its rows.
pub fn head(out: &mut Vec<u8>, output: &Output) {
    header(output).encode(out).expect("a vector takes all bytes");
}

fn header(output: &Output) -> wire::SqlResponse {
    wire::SqlResponse { affected: output.affected, ..proto::header(&output.columns) }
}

/// Begins a row; its cells follow.
pub fn open_row(out: &mut Vec<u8>, batch: &Batch, row: usize) {
    out.push(ROWS);
    prost::encoding::encode_varint(row_len(batch, row) as u64, out);
}

/// A cell, without its text where that is written in parts.
pub fn open_cell(out: &mut Vec<u8>, cell: &Cell) {
    out.push(FIRST);
    prost::encoding::encode_varint(value_len(cell) as u64, out);
    match cell {
        Cell::Null => out.extend_from_slice(&[NULL, 1]),
        Cell::Bool(value) => out.extend_from_slice(&[BOOL, u8::from(*value)]),
        Cell::Int(value) => {
            out.push(INT);
            prost::encoding::encode_varint(*value as u64, out);
        }
        Cell::Float(value) => {
            out.push(FLOAT);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Cell::Text(_) | Cell::Blob(_) | Cell::Timestamp(_) => {
            out.push(STRING);
            prost::encoding::encode_varint(text_len(cell) as u64, out);
        }
    }
}

fn row_len(batch: &Batch, row: usize) -> usize {
    batch.columns.iter().map(|column| nested(value_len(&Cell::of(column, row)))).sum()
}

fn value_len(cell: &Cell) -> usize {
    match cell {
        Cell::Null | Cell::Bool(_) => 2,
        Cell::Int(value) => 1 + prost::encoding::encoded_len_varint(*value as u64),
        Cell::Float(_) => 9,
        Cell::Text(_) | Cell::Blob(_) | Cell::Timestamp(_) => nested(text_len(cell)),
    }
}

/// Bytes of a cell as text, where it travels as such.
fn text_len(cell: &Cell) -> usize {
    match cell {
        Cell::Text(text) => text.len(),
        // Two digits a byte, after `\x`.
        Cell::Blob(bytes) => 2 + 2 * bytes.len(),
        Cell::Timestamp(value) => {
            let mut written = Vec::with_capacity(32);
            text::append(&mut written, &Value::Timestamp(*value));
            written.len()
        }
        Cell::Null | Cell::Bool(_) | Cell::Int(_) | Cell::Float(_) => 0,
    }
}

/// Bytes of a field that has a length in front.
fn nested(len: usize) -> usize {
    1 + prost::encoding::encoded_len_varint(len as u64) + len
}
