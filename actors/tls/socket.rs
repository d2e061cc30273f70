//! A connection of the gRPC door, encrypted or not.
//!
//! The handshake is the first thing that reading or writing does, so it happens in the connection's own task, within the
//! time that its greeting has, and counted like any other: no queue of half-open handshakes stands before the door.
//!
//! Once the files have been read again, the client's certificate is looked at again, before anything more is read, and also
//! where there is nothing to read: who kept a connection open would otherwise outlive the authority that vouched for him,
//! and one who listens in silence may be sent a good deal.

use super::{Handshakes, Material, Tls, explain};
use arc_swap::ArcSwapOption;
use rustls::pki_types::{CertificateDer, UnixTime};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::Accept;
use tokio_rustls::server::TlsStream;
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
    Shaking(Box<Accept<TcpStream>>, Vouched),
    /// Encrypted, with a client that has shown its certificate.
    Secure(Box<TlsStream<TcpStream>>, Vouched, Reloads),
    /// Its handshake failed.
    Failed,
}

/// By what a client's certificate was looked at.
pub struct Vouched {
    tls: Arc<Tls>,
    by: ArcSwapOption<Material>,
}

impl Vouched {
    /// Of a connection whose certificate is still to be looked at.
    pub fn by_nothing(tls: Arc<Tls>) -> Vouched {
        Vouched { tls, by: ArcSwapOption::empty() }
    }

    /// Refuses a certificate that counts no more since the files were read again, and says why.
    pub fn look_again(&self, shown: &[CertificateDer<'_>]) -> Result<(), String> {
        let current = self.tls.material();
        if self.by.load().as_ref().is_some_and(|by| Arc::ptr_eq(&current, by)) {
            return Ok(());
        }
        if let [end, between @ ..] = shown
            && let Err(error) = current.clients.verify_client_cert(end, between, UnixTime::now())
        {
            return Err(explain(&error).unwrap_or_else(|| error.to_string()));
        }
        self.by.store(Some(current));
        Ok(())
    }

    /// The same for a connection of this door.
    fn check(&self, stream: &TlsStream<TcpStream>) -> io::Result<()> {
        self.look_again(stream.get_ref().1.peer_certificates().unwrap_or_default()).map_err(|why| {
            warn!("a gRPC connection is ended, its certificate counts no more: {why}");
            io::Error::new(io::ErrorKind::PermissionDenied, why)
        })
    }
}

/// Wakes whoever reads when the files have been read again.
pub struct Reloads(Pin<Box<dyn Future<Output = watch::Receiver<()>> + Send>>);

impl Reloads {
    fn after(mut seen: watch::Receiver<()>) -> Reloads {
        Reloads(Box::pin(async move {
            // Its sender lives as long as the certificates, which the connection holds.
            let _ = seen.changed().await;
            seen
        }))
    }

    /// From here on, the next one wakes the task.
    fn watch(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(seen) = self.0.as_mut().poll(context) {
            *self = Reloads::after(seen);
        }
    }
}

impl Socket {
    /// On an accepted connection.
    pub fn new(stream: TcpStream, tls: Option<&Handshakes>) -> Socket {
        match tls {
            None => Socket::Plain(stream),
            Some(handshakes) => {
                // Before the handshake looks: what is read in between is not missed.
                let by = ArcSwapOption::from(Some(handshakes.tls.material()));
                let vouched = Vouched { tls: handshakes.tls.clone(), by };
                Socket::Shaking(Box::new(handshakes.acceptor.accept(stream)), vouched)
            }
        }
    }

    fn poll_shaken(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Socket::Shaking(accept, _) = self else { return Poll::Ready(Ok(())) };
        match ready!(Pin::new(accept.as_mut()).poll(context)) {
            Ok(stream) => {
                if let Socket::Shaking(_, vouched) = std::mem::replace(self, Socket::Failed) {
                    let reloads = Reloads::after(vouched.tls.swaps.subscribe());
                    *self = Socket::Secure(Box::new(stream), vouched, reloads);
                }
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
            Socket::Secure(stream, vouched, reloads) => {
                // Before looking: what is read in between is not missed.
                reloads.watch(context);
                vouched.check(stream)?;
                Pin::new(stream.as_mut()).poll_read(context, buffer)
            }
            Socket::Shaking(..) | Socket::Failed => gone(),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_shaken(context))?;
        match &mut *self {
            Socket::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Secure(stream, ..) => Pin::new(stream.as_mut()).poll_write(context, bytes),
            Socket::Shaking(..) | Socket::Failed => gone(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_shaken(context))?;
        match &mut *self {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(context),
            Socket::Secure(stream, ..) => Pin::new(stream.as_mut()).poll_flush(context),
            Socket::Shaking(..) | Socket::Failed => gone(),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Secure(stream, ..) => Pin::new(stream.as_mut()).poll_shutdown(context),
            // There is nobody to say farewell to.
            Socket::Shaking(..) | Socket::Failed => Poll::Ready(Ok(())),
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
            Socket::Secure(stream, ..) => Pin::new(stream.as_mut()).poll_write_vectored(context, slices),
            Socket::Shaking(..) | Socket::Failed => gone(),
        }
    }

    /// Both kinds are.
    fn is_write_vectored(&self) -> bool {
        true
    }
}
