//! A connection of the gRPC door, encrypted or not.
//!
//! The handshake is the first thing that reading or writing does, so it happens in the connection's own task, within the
//! time that its greeting has, and counted like any other: no queue of half-open handshakes stands before the door.

use super::explain;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tracing::{debug, warn};

/// One line in the log for so many failed handshakes: a scanner must not fill the disk.
const FAILED_PER_LINE: u64 = 1000;

/// Handshakes that failed since the process began.
static FAILED: AtomicU64 = AtomicU64::new(0);

/// A connection.
pub enum Socket {
    /// As it is.
    Plain(TcpStream),
    /// In its handshake.
    Shaking(Box<Accept<TcpStream>>),
    /// Encrypted, with a client that has shown its certificate.
    Secure(Box<TlsStream<TcpStream>>),
    /// Its handshake failed.
    Failed,
}

impl Socket {
    /// On an accepted connection.
    pub fn new(stream: TcpStream, tls: Option<&TlsAcceptor>) -> Socket {
        match tls {
            None => Socket::Plain(stream),
            Some(acceptor) => Socket::Shaking(Box::new(acceptor.accept(stream))),
        }
    }

    fn poll_shaken(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Socket::Shaking(accept) = self else { return Poll::Ready(Ok(())) };
        match ready!(Pin::new(accept.as_mut()).poll(context)) {
            Ok(stream) => {
                *self = Socket::Secure(Box::new(stream));
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                *self = Socket::Failed;
                let why = explain(&error).unwrap_or_else(|| error.to_string());
                if FAILED.fetch_add(1, Ordering::Relaxed).is_multiple_of(FAILED_PER_LINE) {
                    warn!("a TLS handshake failed at the gRPC door: {why} (one line for {FAILED_PER_LINE} of them)");
                } else {
                    debug!("a TLS handshake failed at the gRPC door: {why}");
                }
                Poll::Ready(Err(error))
            }
        }
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_shaken(context))?;
        match &mut *self {
            Socket::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Socket::Secure(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
            Socket::Shaking(_) | Socket::Failed => gone(),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_shaken(context))?;
        match &mut *self {
            Socket::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Secure(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
            Socket::Shaking(_) | Socket::Failed => gone(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_shaken(context))?;
        match &mut *self {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(context),
            Socket::Secure(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            Socket::Shaking(_) | Socket::Failed => gone(),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Secure(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            // There is nobody to say farewell to.
            Socket::Shaking(_) | Socket::Failed => Poll::Ready(Ok(())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_shaken(context))?;
        match &mut *self {
            Socket::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Socket::Secure(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, slices),
            Socket::Shaking(_) | Socket::Failed => gone(),
        }
    }

    /// Both kinds are.
    fn is_write_vectored(&self) -> bool {
        true
    }
}
