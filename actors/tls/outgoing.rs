//! Connections to a node, from the side that makes them.
//!
//! A client learns only after its own handshake that its certificate was refused: with TLS 1.3 the node looks at it while
//! the client already sends. What has been sent then looks as if it might have been heard, and why it was not is lost on
//! the way up. So a door is knocked at first, with nothing to say, and the node's answer is waited for.

use super::files::Files;
use super::{HTTP2, explain, refused};
use chronos::error::Result;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

/// The greeting of HTTP/2 (RFC 9113, section 3.4): the preface, and a SETTINGS frame of nothing.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What a record of TLS begins with that says what is wrong (RFC 8446, section 5.1).
const ALERT: u8 = 21;

/// True where a node that was spoken to in the clear answers in TLS.
pub async fn wants_tls(host: &str, port: u16) -> bool {
    let knocked = async {
        let mut stream = tokio::net::TcpStream::connect((host, port)).await?;
        stream.write_all(GREETING).await?;
        stream.read_u8().await
    };
    knocked.await.is_ok_and(|first| first == ALERT)
}

impl Files {
    fn dialling(&self) -> Result<(ClientConfig, ServerName<'static>)> {
        let name = ServerName::try_from(self.domain.clone())
            .map_err(|_| refused(format!("tls.domain: {:?} is no name that a certificate could carry", self.domain)))?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(format!("TLS: {error}")))?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(self.chain()?, self.key()?)
            .map_err(|error| refused(format!("tls.key does not belong to tls.cert: {error}")))?;
        Ok((config, name))
    }

    /// Knocks at the gRPC door of a node. Says why it is not opened.
    pub async fn knock(&self, host: &str, port: u16) -> Result<(), String> {
        let (mut config, name) = self.dialling().map_err(|error| error.to_string())?;
        config.alpn_protocols.push(HTTP2.to_vec());
        let knocked = async {
            let stream = tokio::net::TcpStream::connect((host, port)).await?;
            let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
            stream.write_all(GREETING).await?;
            stream.read_u8().await
        };
        knocked.await.map(drop).map_err(|error| why(&error))
    }

    /// An HTTPS connection on one of TCP.
    pub fn https(&self, stream: TcpStream) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let (config, name) = self.dialling().map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        Ok(StreamOwned::new(session, stream))
    }
}

fn why(error: &io::Error) -> String {
    // What does not speak TLS hangs up on it.
    let hung_up = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    explain(error).unwrap_or_else(|| {
        if hung_up.contains(&error.kind()) { format!("{error}: does it speak TLS?") } else { error.to_string() }
    })
}
