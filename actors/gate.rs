//! The gate in front of the gRPC services: it lets messages in as there is room, and long answers out in pieces.
//!
//! ```text
//!   DATA ── length prefix ── too long? refused by name
//!                         ── above 16 KiB: room for all of it, or wait ──> tonic: decode ──> statement
//!                         ── small: on its way at once
//!   answer ── fits a piece? as tonic encodes it ── else: pieces from the rows (pieces.rs), then the trailers
//! ```
//!
//! tonic gathers a whole message before anybody may look at it, and a whole answer before it sends it. Here the bytes
//! pass on their way in, so the length is known from the first five, before the rest is read.
//!
//! * A message has its room from its fifth byte on. Whoever runs its statement takes the room along ([`Room::take`]): a
//!   call may end long before, at its deadline or with its client, and the text would be there uncounted.
//! * One that waits leaves what follows it in the window that all of its connection share: see `Line` in transit.rs.
//! * One that is not here keeps its place for [`SILENCE_MAX`] without a byte, and for a statement's time in all.
//! * A call has one message: what follows it is refused, since it would pass uncounted. Only reflection has many, each
//!   of them small; between them it may be silent for as long as its connection lives.

mod framing;

use crate::actors::grpc::{Limits, status};
use crate::actors::pieces::{Pieces, Sending};
use crate::actors::route::Deadline;
use crate::actors::transit::{Hold, Line, SILENCE_MAX, SmallPlace, Transit, too_slow};
use chronos::config::ENVELOPE_BYTES_MAX;
use chronos::error::{Error, Result, SqlState};
pub use framing::Messages;
use framing::{Framing, Wrong};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::codegen::{Bytes, Service};
use tonic::server::NamedService;

/// A service behind the gate.
#[derive(Clone)]
pub struct Gate<S> {
    inner: S,
    terms: Arc<Terms>,
}

/// What the gate goes by.
struct Terms {
    transit: Arc<Transit>,
    limits: Limits,
    messages: Messages,
}

impl<S> Gate<S> {
    /// In front of a service, for these messages.
    pub fn new(inner: S, transit: Arc<Transit>, limits: Limits, messages: Messages) -> Gate<S> {
        Gate { inner, terms: Arc::new(Terms { transit, limits, messages }) }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let room = Room::default();
        request.extensions_mut().insert(room.clone());
        // The listener gives every connection one.
        let line = request.extensions().get().cloned().unwrap_or_else(|| Line::new(1));
        let arriving = |body| Body::new(Arriving::new(body, self.terms.clone(), room.clone(), line));
        let answer = self.inner.call(request.map(arriving));
        let stall_max = self.terms.limits.stall_max;
        Box::pin(async move {
            let answer = answer.await;
            drop(room);
            answer.map(|answer| in_pieces(answer, stall_max))
        })
    }
}

/// The room of a request: its body puts it here, its handler finds it in the extensions. What nobody takes ends with
/// the call.
#[derive(Clone, Default)]
pub struct Room(Arc<Mutex<Hold>>);

impl Room {
    /// The room, for whoever has the statement.
    pub fn take(&self) -> Hold {
        std::mem::take(&mut *self.lock())
    }

    fn keep(&self, hold: Hold) {
        *self.lock() = hold;
    }

    fn lock(&self) -> MutexGuard<'_, Hold> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of a request as it comes.
struct Arriving {
    body: Body,
    terms: Arc<Terms>,
    room: Room,
    line: Line,
    framing: Framing,
    /// A frame that waits for room, with all that will follow it.
    waiting: Option<(BoxFuture<'static, Result<Hold>>, Bytes)>,
    /// Since the first look that found it incomplete.
    late: Option<Late>,
}

struct Late {
    silence: Pin<Box<Sleep>>,
    until: Instant,
    _place: Option<SmallPlace>,
}

impl Arriving {
    fn new(body: Body, terms: Arc<Terms>, room: Room, line: Line) -> Arriving {
        let framing = Framing::new(terms.messages);
        Arriving { body, terms, room, line, framing, waiting: None, late: None }
    }

    /// Looks at a frame; how much room its message needs, where that is known by now and not before.
    fn look(&mut self, data: &[u8]) -> Result<Option<usize>, Status> {
        self.framing.look(data).map_err(|wrong| match wrong {
            Wrong::TooLong(bytes) => too_long(bytes, self.terms.messages),
            Wrong::OneTooMany => Status::invalid_argument("a call has one message"),
        })
    }

    /// Nothing is here: from now on it is late.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        let limit = self.terms.limits.request_timeout;
        if self.framing.is_between() {
            // Nothing is half here.
            self.late = None;
            return Ok(());
        }
        if self.late.is_none() {
            // What is known to be larger has its room.
            let place = (!self.framing.is_large()).then(|| self.terms.transit.half_small()).transpose();
            let place = place.map_err(|error| status(&error))?;
            let silence = Box::pin(tokio::time::sleep(SILENCE_MAX.min(limit)));
            self.late = Some(Late { silence, until: Instant::now() + limit, _place: place });
        }
        let Some(late) = &mut self.late else { return Ok(()) };
        match late.silence.as_mut().poll(context) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(status(&too_slow(limit))),
        }
    }

    /// Something came.
    fn heard(&mut self) {
        if let Some(late) = &mut self.late {
            late.silence.as_mut().reset((Instant::now() + SILENCE_MAX).min(late.until));
        }
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            if let Some((admitted, data)) = &mut this.waiting {
                let admitted = ready!(admitted.poll_unpin(context));
                let data = std::mem::take(data);
                this.waiting = None;
                this.room.keep(admitted.map_err(|error| status(&error))?);
                this.heard();
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            let frame = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(end) => return Poll::Ready(end),
                Poll::Pending => {
                    this.poll_late(context)?;
                    return Poll::Pending;
                }
            };
            this.heard();
            let Some(data) = frame.data_ref() else { return Poll::Ready(Some(Ok(frame))) };
            match this.look(data)? {
                None => return Poll::Ready(Some(Ok(frame))),
                Some(bytes) => {
                    let (transit, line, data) = (this.terms.transit.clone(), this.line.clone(), data.clone());
                    let deadline = Deadline::after(this.terms.limits.request_timeout);
                    let admitted = async move { transit.admit_from(&line, bytes, deadline).await };
                    this.waiting = Some((admitted.boxed(), data));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

fn too_long(bytes: usize, messages: Messages) -> Status {
    let bytes_max = messages.bytes_max();
    let message = match messages {
        Messages::Statement(_) => {
            let statement_bytes_max = bytes_max - ENVELOPE_BYTES_MAX as usize;
            format!("the message has {bytes} bytes, limits.statement_bytes_max is {statement_bytes_max}")
        }
        Messages::Question | Messages::Questions => {
            format!("the message has {bytes} bytes, this service takes {bytes_max}")
        }
    };
    let mut status = status(&Error::limit(SqlState::LIMIT_EXCEEDED, message.clone()));
    let metadata = std::mem::take(status.metadata_mut());
    status = Status::with_metadata(tonic::Code::ResourceExhausted, message, metadata);
    status
}

/// An answer whose rows are written as they are taken; a handler leaves it in the extensions of an empty one.
#[derive(Clone)]
pub struct Long(Arc<Mutex<Option<(usize, Pieces)>>>);

impl Long {
    /// A message of so many bytes.
    pub fn new(bytes: usize, pieces: Pieces) -> Long {
        Long(Arc::new(Mutex::new(Some((bytes, pieces)))))
    }
}

/// Puts the pieces of a long answer in the place of its body.
fn in_pieces(mut answer: Response<Body>, stall_max: Duration) -> Response<Body> {
    let Some(Long(left)) = answer.extensions_mut().remove::<Long>() else { return answer };
    let left = left.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((bytes, pieces)) = left else { return answer };
    let mut prefix = vec![0];
    prefix.extend_from_slice(&(bytes as u32).to_be_bytes());
    let leaving = Leaving { pieces: pieces.send(Some(prefix.into()), stall_max), is_done: false };
    answer.map(|_| Body::new(leaving))
}

/// A long answer on its way: prefix, pieces, trailers.
struct Leaving {
    pieces: Sending,
    is_done: bool,
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        let frame = match ready!(self.pieces.poll_piece(context)) {
            Some(Ok(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
            Some(Err(error)) => Err(status(&error)),
            None => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Ok(Frame::trailers(trailers))
            }
        };
        self.is_done = true;
        Poll::Ready(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;
    use std::future::{poll_fn, ready};

    const MIB: usize = 1 << 20;

    fn limits() -> Limits {
        Limits {
            statement_bytes_max: MIB,
            response_bytes_max: MIB,
            in_flight_bytes_max: 4 * MIB,
            request_timeout: Duration::from_mins(1),
            connections: 1,
            stall_max: Duration::from_secs(1),
        }
    }

    fn on_a_runtime<F: Future>(work: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    fn statement() -> Messages {
        Messages::Statement(MIB + ENVELOPE_BYTES_MAX as usize)
    }

    /// A message of this length, and a kilobyte of it.
    fn begun(length: u32) -> Body {
        let message = [&[0][..], &length.to_be_bytes(), &[b' '; 1 << 10]].concat();
        Body::new(String::from_utf8(message).unwrap())
    }

    #[test]
    fn what_is_too_long_is_refused_by_name() {
        on_a_runtime(async {
            for (messages, named) in [(statement(), "limits.statement_bytes_max"), (Messages::Question, "16379")] {
                let transit = limits().transit();
                let terms = Arc::new(Terms { transit, limits: limits(), messages });
                let mut body = Arriving::new(begun(2 << 20), terms, Room::default(), Line::new(1));
                let refused = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await.unwrap().unwrap_err();
                assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
                assert!(refused.message().contains(named), "{refused}");
                assert_eq!(refused.metadata().get("x-chronos-sqlstate").unwrap(), "54000");
            }
        });
    }

    /// A service that reads the first frame, takes the room along or not, and answers never.
    #[derive(Clone)]
    struct Silent {
        takes: bool,
        taken: Arc<Mutex<Hold>>,
    }

    impl Service<Request<Body>> for Silent {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, mut request: Request<Body>) -> Self::Future {
            let this = self.clone();
            Box::pin(async move {
                let frame = poll_fn(|context| Pin::new(request.body_mut()).poll_frame(context)).await;
                frame.unwrap().unwrap();
                if this.takes {
                    *this.taken.lock().unwrap() = request.extensions().get::<Room>().unwrap().take();
                }
                std::future::pending().await
            })
        }
    }

    #[test]
    fn room_that_was_taken_along_outlives_the_call() {
        on_a_runtime(async {
            for takes in [false, true] {
                let transit = limits().transit();
                let service = Silent { takes, taken: Arc::default() };
                let mut gate = Gate::new(service.clone(), transit.clone(), limits(), statement());
                let call = gate.call(Request::new(begun(1 << 20)));
                let ready = futures_util::future::select(call, ready(())).await;
                assert!(transit.used() > MIB);
                drop((ready, gate));
                assert_eq!(transit.used() > 0, takes);
                drop(service);
                assert_eq!(transit.used(), 0);
            }
        });
    }
}
