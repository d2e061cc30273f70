//! The body of a request as it comes: what tonic sees of it, and when.
//!
//! * tonic sets memory aside for the length that it reads. So it sees nothing of a long message that has not got its room:
//!   the first 64 KiB of it at most wait here.
//! * One that waits leaves what follows it in the window that all of its connection share: see `Line`, transit/line.rs.
//! * One that is not here keeps its place for a while without a byte, and for a statement's time in all: see pace.rs.

use super::framing::{Framing, Messages, Wrong};
use super::{Room, Terms};
use crate::actors::entry::{Entry, MODEST_BYTES, Need};
use crate::actors::grpc::status;
use crate::actors::pace::{Gait, Pace, too_slow};
use crate::actors::route::Deadline;
use crate::actors::transit::{Hold, Line};
use chronos::config::ENVELOPE_BYTES_MAX;
use chronos::error::{Error, Result, SqlState};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body::Frame;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;

/// The body of a request as it comes.
pub(super) struct Arriving {
    body: Body,
    terms: Arc<Terms>,
    room: Room,
    line: Line,
    framing: Framing,
    entry: Entry,
    /// The beginning of a long message that has no room yet.
    kept: Vec<u8>,
    /// It waits for room, since then; what it waits for comes behind what is kept.
    waiting: Option<(BoxFuture<'static, Result<Hold>>, Instant)>,
    /// Since the first look that found it incomplete.
    late: Option<Late>,
}

/// One that is late.
struct Late {
    pace: Pace,
    look: Pin<Box<Sleep>>,
}

impl Arriving {
    /// Of a call of which nothing is here.
    pub(super) fn new(body: Body, terms: Arc<Terms>, room: Room, line: Line) -> Arriving {
        let (framing, entry) = (Framing::new(terms.messages), Entry::new(terms.transit.clone()));
        Arriving { body, terms, room, line, framing, entry, kept: Vec::new(), waiting: None, late: None }
    }

    /// Takes a frame in: what goes on to tonic, where that is something.
    fn enter(&mut self, data: Bytes) -> Result<Option<Bytes>, Status> {
        self.framing.look(&data).map_err(|wrong| match wrong {
            Wrong::TooLong(bytes) => too_long(bytes, self.terms.messages),
            Wrong::OneTooMany => Status::invalid_argument("a call has one message"),
        })?;
        if data.is_empty() {
            // As many clients end a call; the message may have gone on with its room.
            return Ok(Some(data));
        }
        let (announced, arrived) = (self.framing.announced(), self.framing.arrived());
        if let Some(late) = &mut self.late {
            late.pace.came(announced, arrived, Instant::now());
        }
        match self.entry.grow(announced, arrived).map_err(|error| status(&error))? {
            Need::Turn(bytes) => {
                self.kept.extend_from_slice(&data);
                let (transit, line) = (self.terms.transit.clone(), self.line.clone());
                let deadline = Deadline::after(self.terms.limits.request_timeout);
                let admitted = async move { transit.admit_from(&line, bytes, deadline).await };
                self.waiting = Some((admitted.boxed(), Instant::now()));
                self.watch();
                Ok(None)
            }
            Need::Nothing if self.entry.begins() && announced.is_some_and(|bytes| bytes > MODEST_BYTES) => {
                self.kept.extend_from_slice(&data);
                Ok(None)
            }
            Need::Nothing => Ok(Some(self.leave(data))),
        }
    }

    /// A frame on its way on; with the last one, the room of the message goes to whoever gets it.
    fn leave(&mut self, data: Bytes) -> Bytes {
        if self.framing.is_whole() {
            self.room.keep(self.entry.whole(self.framing.arrived()));
        }
        data
    }

    /// It has its room.
    fn let_in(&mut self, hold: Hold, asked: Instant) -> Bytes {
        self.entry.let_in(self.framing.announced(), hold);
        if let Some(late) = &mut self.late {
            late.pace.resume(asked, Instant::now());
            late.look.as_mut().reset(late.pace.next_look());
        }
        let kept = std::mem::take(&mut self.kept);
        self.leave(kept.into())
    }

    /// From now on its pace counts, if it did not before.
    fn watch(&mut self) {
        let (limit, framing) = (self.terms.limits.request_timeout, &self.framing);
        self.late.get_or_insert_with(|| {
            let now = Instant::now();
            let mut pace = Pace::begin(limit, now);
            pace.came(framing.announced(), framing.arrived(), now);
            pace.resume(now, now);
            Late { look: Box::pin(tokio::time::sleep_until(pace.next_look())), pace }
        });
    }

    /// Nothing is here: it is late.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        let limit = self.terms.limits.request_timeout;
        if self.framing.is_between() {
            // Nothing is half here.
            self.late = None;
            return Ok(());
        }
        if !self.framing.is_whole() {
            self.entry.is_late().map_err(|error| status(&error))?;
        }
        self.watch();
        let Some(late) = &mut self.late else { return Ok(()) };
        while late.look.as_mut().poll(context).is_ready() {
            match late.pace.look(Instant::now()) {
                Gait::Steady => {}
                Gait::Slow => self.entry.slow_down(self.framing.arrived()),
                Gait::Lost => return Err(status(&too_slow(limit))),
            }
            late.look.as_mut().reset(late.pace.next_look());
        }
        Ok(())
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            if let Some((admitted, asked)) = &mut this.waiting {
                let asked = *asked;
                let admitted = ready!(admitted.poll_unpin(context));
                this.waiting = None;
                let hold = admitted.map_err(|error| status(&error))?;
                return Poll::Ready(Some(Ok(Frame::data(this.let_in(hold, asked)))));
            }
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(data) = this.enter(data)? {
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                    }
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                // The end of a message that is not whole: tonic finds the words for it.
                Poll::Ready(None) if !this.kept.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.kept).into()))));
                }
                Poll::Ready(end) => return Poll::Ready(end),
                Poll::Pending => {
                    this.poll_late(context)?;
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.kept.is_empty() && self.body.is_end_stream()
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

#[cfg(test)]
mod tests {
    use super::super::tests::{begun, limits, on_a_runtime, statement};
    use super::*;
    use http_body::Body as _;
    use std::future::poll_fn;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_is_too_long_is_refused_by_name() {
        on_a_runtime(async {
            for (messages, named) in [(statement(), "limits.statement_bytes_max"), (Messages::Question, "16379")] {
                let transit = limits().transit();
                let terms = Arc::new(Terms { transit, limits: limits(), messages });
                let mut body = Arriving::new(begun(2 << 20, 1 << 10), terms, Room::default(), Line::new(1));
                let refused = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await.unwrap().unwrap_err();
                assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
                assert!(refused.message().contains(named), "{refused}");
                assert_eq!(refused.metadata().get("x-chronos-sqlstate").unwrap(), "54000");
            }
        });
    }

    /// A body in these frames.
    struct Frames(std::collections::VecDeque<Bytes>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }
    }

    #[test]
    fn a_long_message_goes_on_as_it_came_and_takes_its_room_once() {
        on_a_runtime(async {
            for length in [100, 30_000, 200_000, MIB] {
                let message = [&[0][..], &(length as u32).to_be_bytes(), &vec![b' '; length]].concat();
                let frames = message.chunks(10_000).chain([&[][..]]).map(Bytes::copy_from_slice).collect();
                let (transit, room) = (limits().transit(), Room::default());
                let terms = Arc::new(Terms { transit: transit.clone(), limits: limits(), messages: statement() });
                let mut body = Arriving::new(Body::new(Frames(frames)), terms, room.clone(), Line::new(1));
                let mut passed = Vec::new();
                while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                    passed.extend_from_slice(&frame.unwrap().into_data().unwrap());
                }
                assert_eq!(passed, message);
                let held = if length < 16 << 10 { 0 } else { message.len() };
                let taken = room.take();
                assert_eq!((taken.bytes(), transit.used()), (held, held), "{length}");
                drop(taken);
                assert_eq!(transit.used(), 0);
            }
        });
    }

    #[test]
    fn nothing_is_set_aside_for_a_long_message_that_has_only_begun() {
        on_a_runtime(async {
            let (transit, room) = (limits().transit(), Room::default());
            let terms = Arc::new(Terms { transit: transit.clone(), limits: limits(), messages: statement() });
            let mut body = Arriving::new(begun(1 << 20, 60_000), terms, room, Line::new(1));
            // What is here comes out where nothing follows, and not before.
            let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await.unwrap().unwrap();
            assert_eq!((frame.into_data().unwrap().len(), transit.used()), (60_005, 0));
        });
    }
}
