//! A streamed result as messages.
//!
//! * The first message names the columns, the others have rows; an error is the last one.
//! * A message is made when the one before it was taken: a batch is not there twice.

use crate::actors::grpc::failure;
use crate::actors::proto::{self, wire};
use crate::actors::rows::Rows;
use chronos::sql::batch::Batch;
use futures_util::stream::{self, Stream, StreamExt};
use std::sync::Arc;
use tonic::Status;

/// Size of a message of a streamed result: far below the 4 MiB that clients accept by default, far above a frame.
pub const STREAM_MESSAGE_BYTES: usize = 1 << 20;

/// The messages of a result that is still coming: the columns first, then rows; an error is the last one.
pub fn stream_rows(rows: Rows) -> impl stream::Stream<Item = Result<wire::SqlResponse, Status>> + Send + 'static {
    let header = stream::iter([Ok(proto::header(&rows.columns))]);
    let batches = stream::unfold(rows, |mut rows| async move {
        let messages = match rows.next().await? {
            Ok(batch) => messages_of(batch).map(Ok).left_stream(),
            Err(error) => stream::iter([failure(&error)]).right_stream(),
        };
        Some((messages, rows))
    });
    header.chain(batches.flatten())
}

/// A batch in messages that any client accepts, each made when the one before it was taken.
pub fn messages_of(batch: Batch) -> impl Stream<Item = wire::SqlResponse> + Send + 'static {
    let bytes: usize = batch.columns.iter().map(|column| column.byte_len()).sum();
    let rows_a_message = match bytes {
        // Rows of a megabyte and more go one by one.
        _ if bytes > STREAM_MESSAGE_BYTES => (batch.rows * STREAM_MESSAGE_BYTES / bytes).max(1),
        _ => batch.rows.max(1),
    };
    let messages = (0..batch.rows).step_by(rows_a_message).map(move |from| {
        let to = (from + rows_a_message).min(batch.rows);
        if to - from == batch.rows {
            return proto::rows(&batch);
        }
        let columns = batch.columns.iter().map(|column| Arc::new(column.slice(from, to))).collect();
        proto::rows(&Batch { columns, rows: to - from })
    });
    stream::iter(messages)
}
