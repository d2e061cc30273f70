//! The body of a request as it comes.
//!
//! ```text
//!   content-length ── too long? 413 ── begins (entry.rs) ── above 64 KiB: room for all of it, or wait ──> read ──> whole
//!   chunked ── begins, and where more follows: room, or wait ──> read, with more room as it grows ──> whole
//! ```
//!
//! * A body takes room as it comes, and is not read further until it has it: the client's socket fills.
//! * Nobody waits for what may never come. Answers can take all but a statement's room, so what a body has beyond that,
//!   where JSON makes it so long, is there at once or it fails with 53200. A chunked body waits in turn for what is above
//!   64 KiB; from there on it grows or fails. Taking the longest there is for it would let one `curl -T -` that trickles
//!   shut out all others.
//! * A body that is silent or drips for too long, or takes longer than a statement may, loses its room and its connection:
//!   see pace.rs.
//! * Its memory is taken as it is filled: pages that nothing was written to are none.

use crate::actors::entry::{Entry, MODEST_BYTES, Need};
use crate::actors::grpc::Limits;
use crate::actors::pace::{Gait, Pace, too_slow};
use crate::actors::route::Deadline;
use crate::actors::transit::{Hold, SMALL_BYTES, Side, Transit};
use actix_web::body::{BodySize, MessageBody};
use actix_web::error::PayloadError;
use actix_web::web::{Bytes, Payload};
use chronos::error::Error;
use futures_util::{FutureExt, StreamExt};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;

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
    let is_sure = |bytes: usize| bytes <= transit.sure_request_bytes();
    if announced.is_some_and(|bytes| !is_sure(bytes) && transit.is_too_full_for(bytes)) {
        // So it would be told later, after all that it sends.
        return Err(Broken::NoRoom(transit.full(Side::Request)));
    }
    let mut arriving = Arriving {
        announced,
        body: Vec::with_capacity(announced.unwrap_or(0).min(SMALL_BYTES)),
        entry: Entry::new(transit.clone()),
        pace: Pace::begin(limits.request_timeout, Instant::now()),
        deadline: Deadline::after(limits.request_timeout),
    };
    while let Some(chunk) = arriving.next(payload, limits).await? {
        let bytes = arriving.body.len() + chunk.len();
        if bytes > bytes_max {
            return Err(Broken::TooLong(bytes_max));
        }
        arriving.enter(&chunk, transit).await?;
    }
    let hold = arriving.entry.whole(arriving.body.len());
    Ok((arriving.body, hold))
}

/// A body, and what it is read by.
struct Arriving {
    announced: Option<usize>,
    body: Vec<u8>,
    entry: Entry,
    pace: Pace,
    deadline: Deadline,
}

impl Arriving {
    /// The next chunk, none at the end.
    async fn next(&mut self, payload: &mut Payload, limits: &Limits) -> Result<Option<Bytes>, Broken> {
        let next = match payload.next().now_or_never() {
            Some(next) => next,
            None => self.wait(payload, limits).await?,
        };
        next.transpose().map_err(|error| Broken::Malformed(error.to_string()))
    }

    async fn wait(&mut self, payload: &mut Payload, limits: &Limits) -> Result<Chunk, Broken> {
        self.entry.is_late().map_err(Broken::NoRoom)?;
        loop {
            if let Ok(next) = tokio::time::timeout_at(self.pace.next_look(), payload.next()).await {
                return Ok(next);
            }
            match self.pace.look(Instant::now()) {
                Gait::Steady => {}
                Gait::Slow => self.entry.slow_down(self.body.len()),
                Gait::Lost => return Err(Broken::TooSlow(too_slow(limits.request_timeout))),
            }
        }
    }

    /// Takes a chunk in, once there is room for it.
    async fn enter(&mut self, chunk: &[u8], transit: &Arc<Transit>) -> Result<(), Broken> {
        let arrived = self.body.len() + chunk.len();
        self.pace.came(self.announced, arrived, Instant::now());
        if let Need::Turn(bytes) = self.entry.grow(self.announced, arrived).map_err(Broken::NoRoom)? {
            let (asked, sure) = (Instant::now(), bytes.min(transit.sure_request_bytes()));
            let mut hold = transit.admit(Side::Request, sure, self.deadline).await.map_err(Broken::NoRoom)?;
            hold.reach(bytes).map_err(Broken::NoRoom)?;
            self.entry.let_in(self.announced, hold);
            self.pace.resume(asked, Instant::now());
        }
        if let Some(bytes) = self.announced
            && (bytes <= MODEST_BYTES || !self.entry.begins())
        {
            self.body.reserve_exact(bytes.saturating_sub(self.body.len()));
        }
        self.body.extend_from_slice(chunk);
        Ok(())
    }
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
