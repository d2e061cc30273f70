//! The gate in front of the gRPC services: it lets messages in as there is room, and long answers out in pieces.
//!
//! ```text
//!   DATA ── length prefix ── too long? refused by name
//!                         ── above 256 KiB: kept until it is let in (arriving.rs) ──> tonic: decode ──> statement
//!                         ── modest: on its way at once
//!   answer ── fits a piece? as tonic encodes it ── else: pieces from the rows (pieces.rs), then the trailers
//! ```
//!
//! tonic gathers a whole message before anybody may look at it, and a whole answer before it sends it. Here the bytes
//! pass on their way in, so the length is known from the first five, before the rest is read.
//!
//! * A message has its room as it comes. Whoever runs its statement takes the room along ([`Room::take`]): a call may end
//!   long before, at its deadline or with its client, and the text would be there uncounted.
//! * A call has one message: what follows it is refused, since it would pass uncounted. Only reflection has many, each
//!   of them small; between them it may be silent for as long as its connection lives.

mod arriving;
mod framing;
mod leaving;

use crate::actors::grpc::Limits;
use crate::actors::transit::{Hold, Line, Transit};
use arriving::Arriving;
pub use framing::Messages;
use futures_util::future::BoxFuture;
pub use leaving::Long;
use leaving::in_pieces;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
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

#[cfg(test)]
mod tests {
    use super::*;
    use chronos::config::ENVELOPE_BYTES_MAX;
    use http_body::Body as _;
    use std::future::{poll_fn, ready};
    use std::pin::Pin;
    use std::time::Duration;

    const MIB: usize = 1 << 20;

    pub(super) fn limits() -> Limits {
        Limits {
            statement_bytes_max: MIB,
            response_bytes_max: MIB,
            in_flight_bytes_max: 4 * MIB,
            request_timeout: Duration::from_mins(1),
            connections: 1,
            stall_max: Duration::from_secs(1),
        }
    }

    pub(super) fn on_a_runtime<F: Future>(work: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    pub(super) fn statement() -> Messages {
        Messages::Statement(MIB + ENVELOPE_BYTES_MAX as usize)
    }

    /// A message of this length, and so much of it.
    pub(super) fn begun(length: u32, here: usize) -> Body {
        let message = [&[0][..], &length.to_be_bytes(), &vec![b' '; here]].concat();
        Body::new(String::from_utf8(message).unwrap())
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
                let call = gate.call(Request::new(begun(1 << 20, 1 << 20)));
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
