//! The gRPC door's connections: bounded, prepared, and counted for as long as they live.
//!
//! ```text
//!   accept ── fewer than limits.connections? ──no──> a reserved place (reserve.rs)? ──no──> closed, counted as refused
//!                   | yes                              | yes
//!                   v
//!   Nagle off ── counted ── handshake of TLS, HTTP/2's first bytes, all within [`GREETING_WAIT`] ── served
//! ```
//!
//! * One too many is not left in the kernel's queue: its client learns at once that it must wait or go elsewhere, on a
//!   reserved place by name, and where those are taken too by the end of its connection.
//! * A connection that never says anything is no connection: without a limit in time, a thousand of them would shut out
//!   everybody, since keep-alive pings begin only after the greeting.
//! * An accept that fails is tried again a moment later. The server would take it for the end of the listener, and a
//!   process short of file descriptors for a second would never serve again.
//! * A connection whose client takes nothing of what waits for it ends by itself ([`end_stalled`]), at the HTTP door too.
//! * Nagle's algorithm is off: `Server::tcp_nodelay` is ignored when the listener is ours, and the price was a p99 of
//!   44 ms.

pub mod reserve;

use crate::actors::metrics::{Connection, Door, Metrics};
use crate::actors::tls::{Handshakes, Socket};
use crate::actors::transit::Line;
use chronos::error::{Error, Result};
use futures_util::Stream;
use reserve::{Place, Reserve, TRIAL};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

/// How long a client may take for its greeting. On the worst line it is a few round trips after the handshake of TCP.
const GREETING_WAIT: Duration = Duration::from_secs(10);

/// The greeting of HTTP/2: 24 bytes of preface and an empty SETTINGS frame (RFC 9113, section 3.4).
const GREETING_BYTES: usize = 24 + 9;

/// One line in the log for so many refused connections: a flood of them must not become a flood of lines.
const REFUSED_PER_LINE: u64 = 1000;

/// The wait after an accept that failed: nearly always for want of file descriptors, which somebody must close first.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Lets the kernel end a connection whose other side takes nothing of what waits for it: nobody at the door is woken
/// for it, whatever is being sent. Connections have it from their listener.
pub fn end_stalled(listener: &std::net::TcpListener, stall_max: Duration) -> Result<()> {
    rustix::net::sockopt::set_tcp_user_timeout(listener, stall_max.as_millis() as u32)
        .map_err(|error| Error::io("limit how long a connection may stall", &error.into()))
}

/// Accepted connections.
pub struct Incoming {
    listener: TcpListener,
    /// Nothing is accepted before this.
    pause: Option<Pin<Box<Sleep>>>,
    connections_max: u64,
    /// Requests of one connection that may wait for room.
    waiting_max: usize,
    metrics: Arc<Metrics>,
    tls: Option<Handshakes>,
    reserve: Reserve,
}

impl Incoming {
    /// Accepts on a listener, at most so many at a time beside those on reserved places, each with so many requests that wait for room.
    pub fn new(listener: TcpListener, connections_max: usize, waiting_max: usize, metrics: Arc<Metrics>) -> Incoming {
        let connections_max = connections_max as u64;
        let reserve = Reserve::default();
        Incoming { listener, pause: None, connections_max, waiting_max, metrics, tls: None, reserve }
    }

    /// With the handshake of TLS first, where there is one.
    pub fn encrypted(self, tls: Option<Handshakes>) -> Incoming {
        Incoming { tls, ..self }
    }

    fn admit(&self, stream: TcpStream, from: IpAddr) -> Option<Admitted> {
        let door = self.metrics.door(Door::Grpc);
        // Those on reserved places are beside the others: however many they are, clients keep theirs.
        let place = if door.open().saturating_sub(self.reserve.taken()) < self.connections_max {
            None
        } else if let Some(place) = self.reserve.take() {
            Some(Arc::new(place))
        } else {
            refuse(&self.metrics);
            return None;
        };
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "a connection was gone before it was served");
            return None;
        }
        let greeting = Some(Greeting { missing: GREETING_BYTES, until: Box::pin(tokio::time::sleep(GREETING_WAIT)) });
        let trial = place.clone().map(|place| {
            let until = Box::pin(tokio::time::sleep(TRIAL));
            Trial { place, until, metrics: self.metrics.clone() }
        });
        let line = Line::new(self.waiting_max).on(place).coming_from(from);
        let stream = Socket::new(stream, self.tls.as_ref());
        Some(Admitted { stream, greeting, trial, line, _counted: self.metrics.connected(Door::Grpc) })
    }
}

impl Stream for Incoming {
    type Item = io::Result<Admitted>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
            }
            match self.listener.poll_accept(context) {
                Poll::Ready(Ok((stream, from))) => {
                    if let Some(admitted) = self.admit(stream, from.ip()) {
                        return Poll::Ready(Some(Ok(admitted)));
                    }
                }
                Poll::Ready(Err(error)) => {
                    warn!(%error, "a gRPC connection could not be accepted");
                    self.pause = Some(Box::pin(tokio::time::sleep(RETRY_AFTER)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// What is still to come of a greeting, and until when.
struct Greeting {
    missing: usize,
    until: Pin<Box<Sleep>>,
}

/// A connection on a reserved place, which must show until then that it is a peer's.
struct Trial {
    place: Arc<Place>,
    until: Pin<Box<Sleep>>,
    metrics: Arc<Metrics>,
}

impl Drop for Trial {
    fn drop(&mut self) {
        if !self.place.is_peer() {
            refuse(&self.metrics);
        }
    }
}

/// Counts a connection that found the door full.
fn refuse(metrics: &Metrics) {
    let door = metrics.door(Door::Grpc);
    if door.refused().is_multiple_of(REFUSED_PER_LINE) {
        warn!(open = door.open(), "limits.connections is reached: gRPC connections are refused");
    }
    door.refuse();
}

/// A connection that is served.
pub struct Admitted {
    stream: Socket,
    greeting: Option<Greeting>,
    trial: Option<Trial>,
    line: Line,
    _counted: Connection,
}

impl Connected for Admitted {
    type ConnectInfo = Line;

    fn connect_info(&self) -> Line {
        self.line.clone()
    }
}

impl AsyncRead for Admitted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(trial) = &mut self.trial {
            if trial.place.is_peer() {
                self.trial = None;
            } else if trial.until.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(greeting) = &mut self.greeting {
            greeting.missing = greeting.missing.saturating_sub(buffer.filled().len() - before);
            if greeting.missing == 0 {
                self.greeting = None;
            } else if read.is_pending() && greeting.until.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::auth::Role;
    use rustix::net::{AddressFamily, SocketType, sockopt};
    use std::io::Write;

    #[test]
    fn a_connection_whose_client_takes_nothing_ends_by_itself() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        end_stalled(&listener, Duration::from_millis(100)).unwrap();
        let client = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_recv_buffer_size(&client, 4096).unwrap();
        rustix::net::connect(&client, &listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        // Waits in the kernel once its buffer is full: nothing else would end it.
        let error = loop {
            if let Err(error) = server.write_all(&[0; 1 << 14]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_peer_on_a_reserved_place_takes_none_from_clients() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let incoming = Incoming::new(listener, 2, 1, Arc::new(Metrics::new(0)));
            let mut clients = Vec::new();
            let mut admitted = async || {
                clients.push(TcpStream::connect(address).await.unwrap());
                let (stream, from) = incoming.listener.accept().await.unwrap();
                incoming.admit(stream, from.ip()).unwrap()
            };
            let is_reserved = |admitted: &Admitted| admitted.line.place().is_some();
            let ordinary = [admitted().await, admitted().await];
            assert!(!ordinary.iter().any(is_reserved));
            let peers = [admitted().await, admitted().await];
            for peer in &peers {
                peer.line.place().unwrap().admit(Role::Peer).unwrap();
            }
            // The clients go, the peers stay: both places are for clients again.
            drop(ordinary);
            let again = [admitted().await, admitted().await];
            assert!(!again.iter().any(is_reserved));
            assert!(is_reserved(&admitted().await), "and no more than both");
        });
    }
}
