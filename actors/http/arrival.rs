//! The body of a request as it comes.
//!
//! ```text
//!   content-length ── too long? 413 ── above 16 KiB: room for all of it, or wait ──> read ──> whole
//!   chunked ── 16 KiB free, and where more follows: room, or wait ──> read, with more room as it grows ──> whole
//! ```
//!
//! * Until there is room nothing is read, and the client's socket fills.
//! * Nobody waits for what may never come. Answers can take all but a statement's room, so what a body has beyond that,
//!   where JSON makes it so long, is there at once or it fails with 53200. A chunked body waits in turn for its first
//!   bytes, since it holds nothing then; from there on it grows or fails. Taking the longest there is for it would let
//!   one `curl -T -` that trickles shut out all others.
//! * A body that is silent for too long, or takes longer than a statement may, loses its room and its connection.
//! * Its memory is taken as it is filled: pages that nothing was written to are none.

use crate::actors::grpc::Limits;
use crate::actors::route::Deadline;
use crate::actors::transit::{Hold, SILENCE_MAX, SMALL_BYTES, Side, Transit, too_slow};
use actix_web::body::{BodySize, MessageBody};
use actix_web::error::PayloadError;
use actix_web::web::{Bytes, Payload};
use chronos::error::Error;
use futures_util::{FutureExt, StreamExt};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Why a body was not read to its end.
#[derive(Debug)]
pub enum Broken {
    /// It is, or would be, longer than this.
    TooLong(usize),
    /// It did not come in time.
    TooSlow(Error),
    /// There is no room for it.
    NoRoom(Error),
    /// The connection broke, or the body is malformed.
    Malformed(String),
}

/// Reads a body of at most `bytes_max`; `announced` is what its head says of it.
pub async fn read(
    payload: &mut Payload,
    announced: Option<usize>,
    bytes_max: usize,
    limits: &Limits,
    transit: &Arc<Transit>,
) -> Result<(Vec<u8>, Hold), Broken> {
    if announced.is_some_and(|bytes| bytes > bytes_max) {
        return Err(Broken::TooLong(bytes_max));
    }
    let deadline = Deadline::after(limits.request_timeout);
    let mut hold = Hold::nothing();
    if let Some(bytes) = announced.filter(|bytes| *bytes > SMALL_BYTES) {
        let sure = bytes.min(transit.sure_request_bytes());
        hold = transit.admit(Side::Request, sure, deadline).await.map_err(Broken::NoRoom)?;
        hold.reach(bytes).map_err(Broken::NoRoom)?;
    }
    let mut body = Vec::with_capacity(announced.unwrap_or(0));
    let mut late = None;
    loop {
        let next = if let Some(next) = payload.next().now_or_never() {
            next
        } else {
            if late.is_none() && body.len() <= SMALL_BYTES && announced.is_none_or(|bytes| bytes <= SMALL_BYTES) {
                late = Some(transit.half_small().map_err(Broken::NoRoom)?);
            }
            wait(payload, deadline, limits.request_timeout).await?
        };
        let Some(chunk) = next else { break };
        let chunk = chunk.map_err(|error| Broken::Malformed(error.to_string()))?;
        let bytes = body.len() + chunk.len();
        if bytes > bytes_max {
            return Err(Broken::TooLong(bytes_max));
        }
        if announced.is_none() && bytes > SMALL_BYTES {
            if body.len() <= SMALL_BYTES {
                hold = transit.admit(Side::Request, bytes, deadline).await.map_err(Broken::NoRoom)?;
            }
            hold.reach(bytes).map_err(Broken::NoRoom)?;
        }
        body.extend_from_slice(&chunk);
    }
    hold.shrink_to(body.len());
    Ok((body, hold))
}

/// The answer to a body that was not read to its end. It keeps the rest of the body: of one that is let go, the server
/// would read on and on, where it came in chunks, to use the connection again.
pub struct Unread {
    answer: Option<Bytes>,
    _rest: Payload,
}

impl Unread {
    /// This answer, whatever is left.
    pub fn new(answer: Vec<u8>, rest: Payload) -> Unread {
        Unread { answer: Some(answer.into()), _rest: rest }
    }
}

impl MessageBody for Unread {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.answer.as_ref().map_or(0, Bytes::len) as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(self.answer.take().map(Ok))
    }
}

type Chunk = Option<Result<Bytes, PayloadError>>;

async fn wait(payload: &mut Payload, deadline: Deadline, limit: Duration) -> Result<Chunk, Broken> {
    let patience = SILENCE_MAX.min(deadline.left());
    let next = tokio::time::timeout(patience, payload.next()).await;
    next.map_err(|_| Broken::TooSlow(too_slow(limit)))
}
