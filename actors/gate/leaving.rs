//! Long answers on their way out: written in pieces as the client takes them, in the place of the body that tonic made.
//!
//! * tonic would encode a whole message before it sends any of it. So a handler answers nothing, and leaves in the extensions
//!   what is to be sent: rows that are all here ([`Long`]), or that are still coming ([`Flowing`]).

use crate::actors::grpc::{Flowing, status};
use crate::actors::pieces::{Pieces, Sending};
use http_body::Frame;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, HeaderValue, Response};

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
pub(super) fn in_pieces(mut answer: Response<Body>, stall_max: Duration) -> Response<Body> {
    if let Some(flow) = answer.extensions_mut().remove::<Flowing>().and_then(|flowing| flowing.take()) {
        return answer.map(|_| Body::new(flow));
    }
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
