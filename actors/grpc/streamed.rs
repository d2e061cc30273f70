//! A streamed result as the body of its call: messages, written as the client takes them, straight from the rows.
//!
//! ```text
//!   [columns] [rows 0..980] [rows 0..975] [one row of 8 MB in 500 pieces] ... trailers
//! ```
//!
//! * The first message names the columns, the others have rows. An error in SQL is the last message; any other, and one
//!   that comes within a message, is the status of the call.
//! * A piece has [`PIECE_BYTES`] and what its last cell needs. A row is never there twice: neither as a message of the
//!   generated types nor as its bytes.
//! * The executor may take a batch back while it is being sent, and then says why (rows/load.rs).

use crate::actors::format::Format;
use crate::actors::grpc::{failure, status};
use crate::actors::pieces::{PIECE_BYTES, Place};
use crate::actors::proto::{self, Message, message};
use crate::actors::rows::{Parcel, Rows};
use chronos::error::{Error, SqlState};
use chronos::sql::batch::Batch;
use http_body::Frame;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tonic::Status;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, HeaderValue};

/// Size of a message of a streamed result: far below the 4 MiB that clients accept by default, far above a frame.
const STREAM_MESSAGE_BYTES: usize = 1 << 20;

/// Bytes of a frame's memory above its size: what its last cell may need.
const SPARE_BYTES: usize = PIECE_BYTES / 4;

/// The body of a call that streams rows.
pub struct Flow {
    rows: Rows,
    /// Bytes of one message at most.
    message_bytes_max: usize,
    /// What is written and not handed out.
    out: Vec<u8>,
    current: Option<Current>,
    /// A message is begun that will not be ended.
    is_torn: bool,
    trailers: Option<HeaderMap>,
    is_done: bool,
}

/// The batch that is being sent.
struct Current {
    parcel: Parcel,
    place: Place,
    /// The row behind the last one of the present message.
    message_end: usize,
}

/// A flow in the extensions of the empty answer that a handler leaves for the gate.
#[derive(Clone)]
pub struct Flowing(Arc<Mutex<Option<Flow>>>);

impl Flowing {
    /// For the gate.
    pub fn new(flow: Flow) -> Flowing {
        Flowing(Arc::new(Mutex::new(Some(flow))))
    }

    /// The flow, once.
    pub fn take(&self) -> Option<Flow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Flow {
    /// The messages of a result that is still coming, each of at most so many bytes.
    pub fn new(rows: Rows, message_bytes_max: usize) -> Flow {
        let mut out = Vec::with_capacity(256);
        append(&mut out, &proto::header(&rows.columns));
        Flow { rows, message_bytes_max, out, current: None, is_torn: false, trailers: None, is_done: false }
    }

    /// Writes on until there is a piece, or nothing at hand.
    fn write(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.out.len() < PIECE_BYTES && self.trailers.is_none() {
            if let Some(current) = &mut self.current {
                match current.write(&mut self.out, self.message_bytes_max) {
                    Some(Ok(true)) => {}
                    Some(Ok(false)) => self.current = None,
                    Some(Err(error)) => self.end(&error),
                    // Why, is the end of the stream.
                    None => {
                        self.is_torn = current.is_within_message();
                        self.current = None;
                    }
                }
                continue;
            }
            match self.rows.poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(parcel))) => self.current = Current::new(parcel),
                Poll::Ready(Some(Err(error))) => self.end(&error),
                Poll::Ready(None) if self.is_torn => self.end(&Error::internal("a batch was taken back at the end")),
                Poll::Ready(None) => self.trailers = Some(trailers(None)),
            }
        }
        Poll::Ready(())
    }

    fn end(&mut self, error: &Error) {
        self.current = None;
        let failed = if self.is_torn { Err(status(error)) } else { failure(error) };
        self.trailers = Some(match failed {
            Ok(message) => {
                append(&mut self.out, &message);
                trailers(None)
            }
            Err(status) => trailers(Some(&status)),
        });
    }
}

impl http_body::Body for Flow {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.is_done {
            return Poll::Ready(None);
        }
        let written = this.write(context);
        if !this.out.is_empty() {
            let next = Vec::with_capacity(this.capacity());
            let piece = std::mem::replace(&mut this.out, next);
            return Poll::Ready(Some(Ok(Frame::data(piece.into()))));
        }
        if written.is_pending() {
            return Poll::Pending;
        }
        this.is_done = true;
        Poll::Ready(Some(Ok(Frame::trailers(this.trailers.take().unwrap_or_default()))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_done
    }
}

impl Flow {
    /// Most answers are a row or two; a reader that waits needs nothing.
    fn capacity(&self) -> usize {
        if self.current.is_some() { PIECE_BYTES + SPARE_BYTES } else { 0 }
    }
}

impl Current {
    /// None for a batch without rows, and for one that was taken back before anybody saw it.
    fn new(parcel: Parcel) -> Option<Current> {
        let rows = parcel.look(|batch| batch.rows)?;
        (rows > 0).then_some(Current { parcel, place: Place::default(), message_end: 0 })
    }

    fn is_within_message(&self) -> bool {
        !self.place.begins_row() || self.place.row() < self.message_end
    }

    /// Writes a piece; false at the end of the batch, none where the batch was taken back.
    fn write(&mut self, out: &mut Vec<u8>, message_bytes_max: usize) -> Option<Result<bool, Error>> {
        let Current { parcel, place, message_end } = self;
        parcel.look(|batch| {
            while out.len() < PIECE_BYTES {
                if place.row() == batch.rows {
                    return Ok(false);
                }
                if place.begins_row() && place.row() == *message_end {
                    *message_end = open(out, batch, place.row(), message_bytes_max)?;
                }
                place.step(Format::Message, batch, false, out);
            }
            Ok(true)
        })
    }
}

/// Begins the message of the row `from` and of those behind it that fit; gives the row behind the last of them. Rows of one
/// batch may differ much in size, so each is measured: one of a megabyte and more goes alone.
fn open(out: &mut Vec<u8>, batch: &Batch, from: usize, bytes_max: usize) -> Result<usize, Error> {
    let head = proto::wire::SqlResponse { success: true, ..Default::default() };
    let (mut bytes, mut to) = (head.encoded_len(), from);
    while to < batch.rows {
        let row = message::rows_len(batch, to, to + 1);
        if to > from && bytes + row > STREAM_MESSAGE_BYTES {
            break;
        }
        (bytes, to) = (bytes + row, to + 1);
    }
    if bytes > bytes_max {
        let message = format!("a row of the result has {bytes} bytes, a message may have {bytes_max}");
        return Err(Error::limit(SqlState::LIMIT_EXCEEDED, message)
            .hint("ask for fewer columns, or raise limits.response_bytes_max"));
    }
    prefix(out, bytes);
    head.encode(out).expect("a vector takes all bytes");
    Ok(to)
}

/// A whole message.
fn append(out: &mut Vec<u8>, message: &proto::wire::SqlResponse) {
    prefix(out, message.encoded_len());
    message.encode(out).expect("a vector takes all bytes");
}

/// What gRPC has in front of a message: that it is not compressed, and its length.
fn prefix(out: &mut Vec<u8>, bytes: usize) {
    out.push(0);
    out.extend_from_slice(&(bytes as u32).to_be_bytes());
}

fn trailers(status: Option<&Status>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let added = status.is_some_and(|status| status.add_header(&mut trailers).is_ok());
    if !added {
        // A status that no header can carry is unknown.
        let code = if status.is_some() { "2" } else { "0" };
        trailers.insert("grpc-status", HeaderValue::from_static(code));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos::sql::batch::ColumnBuilder;
    use chronos::sql::value::{DataType, Value};

    fn batch(lengths: impl Iterator<Item = usize>) -> Batch {
        let mut column = ColumnBuilder::new(DataType::Text, 0);
        lengths.for_each(|length| column.push(&Value::Text("v".repeat(length))));
        let column = column.finish();
        let rows = column.len();
        Batch::new(vec![Arc::new(column)], rows)
    }

    /// Rows and bytes of each message.
    fn sent(batch: Batch, bytes_max: usize) -> Result<Vec<(usize, usize)>, Error> {
        let mut current = Current::new(Parcel::new(batch)).unwrap();
        let (mut all, mut piece) = (Vec::new(), Vec::new());
        while current.write(&mut piece, bytes_max).unwrap()? {
            all.append(&mut piece);
        }
        all.append(&mut piece);
        let (mut rest, mut messages) = (&all[..], Vec::new());
        while let Some((head, behind)) = rest.split_first_chunk::<5>() {
            let [_, length @ ..] = *head;
            let (message, behind) = behind.split_at(u32::from_be_bytes(length) as usize);
            messages.push((proto::wire::SqlResponse::decode(message).unwrap().rows.len(), message.len()));
            rest = behind;
        }
        Ok(messages)
    }

    #[test]
    fn rows_of_one_batch_that_differ_much_are_sent_in_messages_of_their_size() {
        // As they come out of a sort.
        let large = STREAM_MESSAGE_BYTES * 3 / 2;
        let messages = sent(batch((0..100).map(|row| if row < 4 { large } else { 10 })), 2 << 20).unwrap();
        assert_eq!(messages.iter().map(|(rows, _)| *rows).collect::<Vec<usize>>(), [1, 1, 1, 1, 96]);
        let even = sent(batch((0..3000).map(|_| 1000)), 2 << 20).unwrap();
        assert_eq!(even.iter().map(|(rows, _)| rows).sum::<usize>(), 3000);
        assert!(even.len() == 3 && even.iter().all(|(_, bytes)| *bytes <= STREAM_MESSAGE_BYTES), "{even:?}");
    }

    #[test]
    fn a_row_that_no_message_may_have_is_refused_by_its_size() {
        let refused = sent(batch([10, 3 << 20].into_iter()), 2 << 20).unwrap_err();
        assert_eq!(refused.sqlstate(), SqlState::LIMIT_EXCEEDED);
        assert!(refused.message().contains("a row of the result has 31457"), "{refused}");
    }
}
