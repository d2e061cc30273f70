//! An answer in pieces: written as the client takes it, straight from the rows.
//!
//! ```text
//!   rows (held, counted) ── 16 KiB ──> one ready ──> connection ──> client
//!                              ^ the next one is written when the last one was taken
//! ```
//!
//! An answer that is encoded whole is there twice, and JSON or protobuf of it may be many times its rows.
//!
//! * A piece has [`PIECE_BYTES`] and what its last cell needs; a long text is written in parts, so that no cell makes a
//!   long piece.
//! * An answer that fits one piece is sent as it is: nothing waits for it, and nobody watches over it.
//! * The room of an answer is given back as its pieces leave the connection's buffers (room.rs), and all of it when its
//!   client has taken nothing for [`STALL_MAX`](crate::actors::rows::STALL_MAX): the rows go then, and the answer breaks
//!   off. That is watched until the last piece has left. A client that takes something each minute keeps its room.

mod place;
mod room;

use crate::actors::encode;
use crate::actors::format::Format;
use crate::actors::messages::Output;
use crate::actors::proto::message;
use crate::actors::rows::held_bytes;
use crate::actors::transit::SMALL_BYTES;
use actix_web::body::{BodySize, MessageBody};
use chronos::error::{Error, SqlState};
use chronos::sql::batch::Batch;
pub use place::Place;
use room::Room;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::codegen::Bytes;

/// Size of a piece: a frame of HTTP/2.
pub const PIECE_BYTES: usize = SMALL_BYTES;

/// An answer that is still to be written.
pub struct Pieces {
    format: Format,
    outputs: std::vec::IntoIter<Output>,
    current: Option<Current>,
    next: Step,
    room: Room,
}

/// What comes next, outside of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open,
    Result,
    Done,
}

/// The result that is being written, and the place in it.
struct Current {
    batches: std::vec::IntoIter<Batch>,
    batch: Option<Batch>,
    affected: u64,
    place: Place,
    /// No row was written before.
    is_first: bool,
}

impl Pieces {
    /// Results as they are to be written.
    pub fn new(format: Format, mut outputs: Vec<Output>) -> Pieces {
        let holds = outputs.iter_mut().map(|output| std::mem::take(&mut output.hold)).collect();
        let rows = outputs.iter().flat_map(|output| &output.batches).map(held_bytes).sum();
        let room = Room::new(holds, rows);
        Pieces { format, outputs: outputs.into_iter(), current: None, next: Step::Open, room }
    }

    /// True where nothing is left.
    pub fn is_done(&self) -> bool {
        self.next == Step::Done
    }

    /// The next piece, empty where nothing was left.
    pub fn piece(&mut self) -> Bytes {
        // Most answers are a row or two.
        let capacity = if self.next == Step::Open { 256 } else { PIECE_BYTES + PIECE_BYTES / 4 };
        let mut out = Vec::with_capacity(capacity);
        while out.len() < PIECE_BYTES && !self.is_done() {
            self.step(&mut out);
        }
        self.room.piece(out)
    }

    /// Gives the room back, for an answer that is small once it is written.
    pub fn give_back(&self) {
        self.room.give_back();
    }

    /// Sends it at the client's pace, behind a piece that is written already. Must be called on a runtime.
    pub fn send(self, first: Option<Bytes>, stall_max: Duration) -> Sending {
        let (sender, taken) = mpsc::channel(1);
        let is_whole = Arc::new(AtomicBool::new(false));
        let done = is_whole.clone();
        tokio::spawn(async move {
            let room = self.room.clone();
            if fill(self, &sender, stall_max).await {
                done.store(true, Ordering::Release);
            }
            // The end of it: without the sender nothing more is waited for.
            drop(sender);
            if !room.all_left(stall_max).await {
                // Pieces in buffers of the connection would keep it.
                room.give_back();
            }
        });
        Sending { first, taken, is_whole }
    }

    fn step(&mut self, out: &mut Vec<u8>) {
        if let Some(current) = &mut self.current {
            if !current.step(self.format, &self.room, out) {
                self.current = None;
            }
            return;
        }
        match (self.next, self.outputs.next()) {
            (Step::Open, first) => {
                if self.format == Format::JsonBatch {
                    out.extend_from_slice(br#"{"results":["#);
                }
                self.next = Step::Result;
                self.begin(first, out);
            }
            (Step::Result, Some(output)) => {
                if self.format == Format::JsonBatch {
                    out.push(b',');
                }
                self.begin(Some(output), out);
            }
            (Step::Result, None) => {
                if self.format == Format::JsonBatch {
                    out.extend_from_slice(b"]}");
                }
                self.next = Step::Done;
            }
            (Step::Done, _) => {}
        }
    }

    fn begin(&mut self, output: Option<Output>, out: &mut Vec<u8>) {
        let Some(output) = output else { return };
        match self.format {
            Format::Json | Format::JsonBatch => encode::json_head(out, &output.columns),
            Format::Csv => encode::csv_head(out, &output.columns),
            Format::Message => message::head(out, &output),
            Format::MessageBatch => {
                message::open(out, &output);
                message::head(out, &output);
            }
        }
        let (batches, affected) = (output.batches.into_iter(), output.affected);
        self.current = Some(Current { batches, batch: None, affected, place: Place::default(), is_first: true });
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.room.no_more_rows();
    }
}

/// Puts one piece after the other where the connection takes them; false where it did not take them all.
async fn fill(mut pieces: Pieces, sender: &mpsc::Sender<Bytes>, stall_max: Duration) -> bool {
    while !pieces.is_done() {
        match tokio::time::timeout(stall_max, sender.send(pieces.piece())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return false,
            Err(_) => {
                tracing::info!("an answer was given up: its client took nothing for {stall_max:?}");
                // Pieces in buffers of the connection would keep it.
                pieces.give_back();
                return false;
            }
        }
    }
    true
}

impl Current {
    /// Writes a cell, or what stands around cells; false at the end.
    fn step(&mut self, format: Format, room: &Room, out: &mut Vec<u8>) -> bool {
        let Some(batch) = &self.batch else {
            self.batch = self.batches.next();
            self.place = Place::default();
            if self.batch.is_none() && matches!(format, Format::Json | Format::JsonBatch) {
                encode::json_tail(out, self.affected);
            }
            return self.batch.is_some();
        };
        if self.place.row() == batch.rows {
            // Its memory goes; that of the next one is counted already.
            room.written(held_bytes(batch));
            self.batch = None;
            return true;
        }
        self.place.step(format, batch, self.is_first, out);
        self.is_first = false;
        true
    }
}

/// An answer that is being sent.
pub struct Sending {
    first: Option<Bytes>,
    taken: mpsc::Receiver<Bytes>,
    is_whole: Arc<AtomicBool>,
}

impl Sending {
    /// The next piece, none at the end; an error where it ends too early.
    pub fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        self.taken.poll_recv(context).map(|piece| match piece {
            Some(piece) => Some(Ok(piece)),
            None if self.is_whole.load(Ordering::Acquire) => None,
            None => {
                let message = "the answer was given up: nothing of it was taken for too long";
                Some(Err(Error::limit(SqlState::QUERY_CANCELED, message)))
            }
        })
    }
}

impl MessageBody for Sending {
    type Error = Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        self.poll_piece(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::format::PART_BYTES;
    use crate::actors::messages::OutputColumn;
    use crate::actors::proto::{self, Message, wire};
    use crate::actors::tests::patience::until;
    use crate::actors::transit::{Hold, Transit};
    use chronos::sql::batch::{Column, ColumnBuilder};
    use chronos::sql::value::{DataType, Value};

    /// Every type with and without NULL, texts around the length of a part, a repeated value.
    fn output() -> Output {
        let long = |unit: &str, bytes: usize| Value::Text(unit.repeat(bytes / unit.len() + 1));
        let columns = [
            (DataType::Int, vec![Value::Int(i64::MIN), Value::Null, Value::Int(300)]),
            (DataType::Float, vec![Value::Float(f64::NAN), Value::Float(0.5), Value::Null]),
            (DataType::Bool, vec![Value::Bool(true), Value::Bool(false), Value::Null]),
            (DataType::Timestamp, vec![Value::Timestamp(1), Value::Null, Value::Timestamp(1_700_000_000_000_000)]),
            (
                DataType::Text,
                vec![Value::Text(String::new()), long("\"é\n,", 3 * PART_BYTES), long("日本", PART_BYTES)],
            ),
            (DataType::Blob, vec![Value::Blob(vec![7; 5 * PART_BYTES]), Value::Null, Value::Blob(vec![0, 255])]),
        ];
        let names = columns.iter().map(|(data_type, _)| OutputColumn { name: "n,\"".into(), data_type: *data_type });
        let names: Vec<OutputColumn> =
            names.chain([OutputColumn { name: "c".into(), data_type: DataType::Text }]).collect();
        let built = columns.into_iter().map(|(data_type, values)| {
            let mut column = ColumnBuilder::new(data_type, values.len());
            values.iter().for_each(|value| column.push(value));
            Arc::new(column.finish())
        });
        let repeated = Column::constant(Value::Text("again".into()), DataType::Text, 3);
        let batch = Batch::new(built.chain([Arc::new(repeated)]).collect(), 3);
        Output { columns: names, batches: vec![batch.clone(), batch], affected: 3, hold: Hold::nothing() }
    }

    fn written(format: Format, outputs: Vec<Output>) -> Vec<u8> {
        let mut pieces = Pieces::new(format, outputs);
        let mut all = Vec::new();
        while !pieces.is_done() {
            let piece = pieces.piece();
            assert!(piece.len() <= PIECE_BYTES + 6 * PART_BYTES + 64, "a piece of {} bytes", piece.len());
            all.extend_from_slice(&piece);
        }
        assert!(pieces.piece().is_empty());
        all
    }

    #[test]
    fn a_message_in_pieces_is_the_message_of_the_generated_types() {
        for output in [Output::done(7), output()] {
            let expected = proto::response(&output);
            assert_eq!(message::len(&output), expected.encoded_len());
            let read = wire::SqlResponse::decode(written(Format::Message, vec![output]).as_slice()).unwrap();
            assert_eq!(format!("{read:?}"), format!("{expected:?}"));
        }
        let outputs = || vec![output(), Output::done(1), output()];
        let expected = wire::BatchResponse { responses: outputs().iter().map(proto::response).collect(), failed: 0 };
        assert_eq!(message::batch_len(&outputs()), expected.encoded_len());
        let read = wire::BatchResponse::decode(written(Format::MessageBatch, outputs()).as_slice()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{expected:?}"));
    }

    #[test]
    fn json_and_csv_in_pieces_are_read_as_what_was_written() {
        let read: serde_json::Value = serde_json::from_slice(&written(Format::Json, vec![output()])).unwrap();
        assert_eq!(read["rows"].as_array().unwrap().len(), 6);
        assert_eq!(read["rows"][1][4].as_str().unwrap(), "\"é\n,".repeat(3 * PART_BYTES / 5 + 1));
        assert_eq!(read["rows"][2][4].as_str().unwrap(), "日本".repeat(PART_BYTES / 6 + 1));
        assert_eq!(read["rows"][0][5].as_str().unwrap(), format!("\\x{}", "07".repeat(5 * PART_BYTES)));
        assert_eq!(read["affected"], 3);
        let batch = written(Format::JsonBatch, vec![output(), Output::done(1)]);
        let batch: serde_json::Value = serde_json::from_slice(&batch).unwrap();
        assert_eq!(batch["results"][0], read);
        assert_eq!(batch["results"][1]["affected"], 1);
        let empty: serde_json::Value = serde_json::from_slice(&written(Format::JsonBatch, vec![])).unwrap();
        assert_eq!(empty, serde_json::json!({ "results": [] }));
        let lines = written(Format::Csv, vec![output()]);
        let mut reader = csv::Reader::from_reader(lines.as_slice());
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 6);
        assert_eq!(&rows[1][4], "\"é\n,".repeat(3 * PART_BYTES / 5 + 1));
        assert_eq!(&rows[0][5], format!("\\x{}", "07".repeat(5 * PART_BYTES)));
    }

    fn on_a_runtime<F: Future>(work: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    async fn next(sending: &mut Sending) -> Option<Result<Bytes, Error>> {
        std::future::poll_fn(|context| sending.poll_piece(context)).await
    }

    fn held(transit: &Arc<Transit>) -> Pieces {
        let mut output = output();
        output.hold = transit.answer();
        output.hold.reach(output.batches.iter().map(held_bytes).sum()).unwrap();
        Pieces::new(Format::Json, vec![output])
    }

    #[test]
    fn room_is_given_back_as_pieces_leave() {
        on_a_runtime(async {
            let transit = Transit::new(4 << 20, 1 << 20, 1 << 20);
            let mut sending = held(&transit).send(None, Duration::from_mins(1));
            let (mut last, mut before, mut all) = (None, transit.used(), Vec::new());
            while let Some(piece) = next(&mut sending).await {
                last = Some(piece.unwrap());
                assert!((1..=before).contains(&transit.used()), "{} after {before}", transit.used());
                before = transit.used();
                all.push(before);
            }
            all.dedup();
            assert!(all.len() > 3, "not all at once: {all:?}");
            let last = last.unwrap();
            assert_eq!(transit.used(), last.len(), "a piece is still on its way");
            drop(last);
            assert_eq!(transit.used(), 0);
        });
    }

    #[test]
    fn a_client_that_stops_at_the_last_piece_keeps_no_room() {
        on_a_runtime(async {
            for taken in [false, true] {
                let transit = Transit::new(4 << 20, 1 << 20, 1 << 20);
                let mut sending = held(&transit).send(None, Duration::from_millis(20));
                let mut kept = Vec::new();
                while !sending.is_whole.load(Ordering::Acquire) {
                    kept = vec![next(&mut sending).await.unwrap().unwrap()];
                    tokio::task::yield_now().await;
                }
                if taken {
                    // It is in a buffer of the connection, which ends there.
                    kept.extend(next(&mut sending).await.map(Result::unwrap));
                    assert!(next(&mut sending).await.is_none());
                }
                assert!(transit.used() > 0 && transit.used() <= 2 * (PIECE_BYTES + 6 * PART_BYTES));
                until(async || transit.used() == 0).await;
                drop((kept, sending));
            }
        });
    }

    #[test]
    fn an_answer_that_nobody_takes_gives_its_room_back_and_breaks_off() {
        on_a_runtime(async {
            let transit = Transit::new(4 << 20, 1 << 20, 1 << 20);
            let mut sending = held(&transit).send(None, Duration::from_millis(20));
            let first = next(&mut sending).await.unwrap().unwrap();
            until(async || transit.used() == 0).await;
            let mut end = next(&mut sending).await.unwrap();
            while end.is_ok() {
                end = next(&mut sending).await.unwrap();
            }
            assert_eq!(end.unwrap_err().sqlstate(), SqlState::QUERY_CANCELED);
            drop(first);
        });
    }

    #[test]
    fn an_answer_whose_client_has_gone_gives_its_room_back() {
        on_a_runtime(async {
            let transit = Transit::new(4 << 20, 1 << 20, 1 << 20);
            let mut sending = held(&transit).send(None, Duration::from_mins(1));
            drop(next(&mut sending).await);
            drop(sending);
            until(async || transit.used() == 0).await;
        });
    }
}
