//! Certificates: those of this node, and the authority by which it knows others.
//!
//! ```text
//!   files ── prepare ──> Material ──(swap)──> resolver and verifier ──> every handshake from then on, gRPC and HTTP
//!                            └──> what a connection to another node shows and asks for
//! ```
//!
//! * gRPC asks for a certificate and ends the handshake without one. HTTP asks too, and serves without one what is open.
//! * Files are read again when that is asked for. What is wrong with them leaves everything as it was. Connections of the
//!   gRPC door stay for as long as their certificates count; requests on those of HTTP are refused from then on.
//! * No session is resumed: a resumed one shows no certificate, and would outlive the authority that vouched for it.
//! * A node whose certificate another authority has signed, or whose key is another's, does not start: nobody would talk to
//!   it, and each client would find its own words for that. One whose certificate has expired starts and says so, for its
//!   clock may be what is wrong. While it runs, what has expired is not taken in the place of what has not; but one that is
//!   in use and expires stands in the way of no other setting.

mod files;
mod outgoing;
mod socket;
mod words;

use arc_swap::ArcSwap;
use chronos::clock::{Clock, SystemClock};
use chronos::config;
use chronos::error::{Error, Result, SqlState};
pub use files::Files;
pub use outgoing::wants_tls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
pub use socket::{Socket, Vouched};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tonic::transport::ClientTlsConfig;
pub use words::explain;

/// What HTTP/2 is called in a handshake (RFC 9113, section 3.2).
const HTTP2: &[u8] = b"h2";

/// What was read from the files, checked.
#[derive(Clone)]
pub struct Material {
    files: Files,
    authorities: Vec<CertificateDer<'static>>,
    key: Arc<CertifiedKey>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Material {
    /// Reads the files that the settings name; none where they name none. A node that starts uses none yet.
    ///
    /// # Errors
    ///
    /// What cannot be read or does not belong together, by name; of what is to replace what is in use, also what has expired.
    pub fn read(settings: &config::Tls, in_use: Option<&Material>) -> Result<Option<Material>> {
        let Some(files) = Files::read(settings)? else { return Ok(None) };
        let expired = match in_use {
            Some(material) if !files.hold_the_same_as(&material.files) => Expired::Refused,
            // Nothing gets worse by it.
            Some(_) | None => Expired::Told,
        };
        Material::of(files, expired).map(Some)
    }

    fn of(files: Files, expired: Expired) -> Result<Material> {
        let provider = Arc::new(ring::default_provider());
        let (chain, roots) = (files.chain()?, Arc::new(files.roots()?));
        let wrong = |what: &str, error: &dyn fmt::Display| refused(format!("{what}: {error}"));
        let key = CertifiedKey::from_der(chain, files.key()?, &provider)
            .map_err(|error| wrong("tls.key does not belong to tls.cert", &error))?;
        check_own(&files, &key, &roots, expired)?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| wrong("tls.ca_cert", &error))?;
        let authorities = files.authorities()?;
        Ok(Material { files, authorities, key: Arc::new(key), clients })
    }

    /// True where every authority of the other one's counts here too.
    pub fn trusts_all_of(&self, other: &Material) -> bool {
        std::ptr::eq(self, other) || other.authorities.iter().all(|authority| self.authorities.contains(authority))
    }
}

/// What becomes of a certificate of the node's own that is not valid now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expired {
    /// A node that has no clock yet starts all the same.
    Told,
    /// It has others, which may work.
    Refused,
}

/// Refuses a certificate that every other side would refuse; one that others may well take is only spoken about.
fn check_own(files: &Files, key: &CertifiedKey, roots: &Arc<RootCertStore>, expired: Expired) -> Result<()> {
    let provider = Arc::new(ring::default_provider());
    let name = ServerName::try_from(files.domain.clone())
        .map_err(|_| refused(format!("tls.domain: {:?} is no name that a certificate could carry", files.domain)))?;
    let wrong = |error: &dyn fmt::Display| refused(format!("tls.ca_cert: {error}"));
    let server = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
    let server = server.build().map_err(|error| wrong(&error))?;
    let client = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider);
    let client = client.build().map_err(|error| wrong(&error))?;
    let now = UnixTime::since_unix_epoch(Duration::from_millis(SystemClock.wall().0));
    let [end, between @ ..] = key.cert.as_slice() else { return Err(refused("tls.cert has no certificate".into())) };
    judge(expired, now, |now| server.verify_server_cert(end, between, &name, &[], now).map(drop))?;
    judge(expired, now, |now| client.verify_client_cert(end, between, now).map(drop))
}

/// What a verifier says of the node's own certificate, at its best moment where it is not valid now: whose it is shows then.
fn judge(expired: Expired, now: UnixTime, verify: impl Fn(UnixTime) -> Result<(), rustls::Error>) -> Result<()> {
    let Err(mut error) = verify(now) else { return Ok(()) };
    let mut best = None;
    if let rustls::Error::InvalidCertificate(
        CertificateError::ExpiredContext { not_after: moment, .. }
        | CertificateError::NotValidYetContext { not_before: moment, .. },
    ) = &error
    {
        best = Some(*moment);
    }
    if let Some(best) = best {
        match (verify(best), expired) {
            (Err(rustls::Error::InvalidCertificate(whose)), _) if is_foreign(&whose) => error = whose.into(),
            (Ok(()) | Err(_), Expired::Refused) => return Err(refused(format!("tls.cert: {}", said(&error)))),
            (Ok(()) | Err(_), Expired::Told) => {}
        }
    }
    if let rustls::Error::InvalidCertificate(whose) = &error
        && is_foreign(whose)
    {
        return Err(refused("the certificate in tls.cert is not signed by the authority in tls.ca_cert".to_owned()));
    }
    tracing::warn!("peers and clients with the same settings will refuse tls.cert: {}", said(&error));
    Ok(())
}

fn is_foreign(error: &CertificateError) -> bool {
    matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature)
}

/// Without that it is somebody's: it is this node's own.
fn said(error: &rustls::Error) -> String {
    if let rustls::Error::InvalidCertificate(error) = error { error.to_string() } else { error.to_string() }
}

fn refused(what: String) -> Error {
    Error::invalid(SqlState::CONFIG_ERROR, what)
}

/// The certificates of a running node.
pub struct Tls {
    current: ArcSwap<Material>,
    /// Told of each swap once it counts.
    swaps: watch::Sender<()>,
}

impl Tls {
    /// On what was read.
    pub fn new(material: Material) -> Arc<Tls> {
        Arc::new(Tls { current: ArcSwap::from_pointee(material), swaps: watch::Sender::new(()) })
    }

    /// From now on with these.
    pub fn swap(&self, material: Material) {
        self.current.store(Arc::new(material));
        self.swaps.send_replace(());
    }

    /// What counts at the moment.
    pub fn material(&self) -> Arc<Material> {
        self.current.load_full()
    }

    /// How gRPC shakes hands: a client without a certificate is not let in.
    pub fn grpc(self: &Arc<Tls>) -> Result<Handshakes> {
        let mut config = self.server(Proof::Required)?;
        config.alpn_protocols.push(HTTP2.to_vec());
        Ok(Handshakes { acceptor: TlsAcceptor::from(Arc::new(config)), tls: self.clone() })
    }

    /// How HTTP shakes hands: a certificate is asked for.
    pub fn http(self: &Arc<Tls>) -> Result<ServerConfig> {
        self.server(Proof::Wanted)
    }

    /// How a connection to another node is made, from what counts at the moment.
    pub fn client(&self) -> ClientTlsConfig {
        self.current.load().files.client()
    }

    fn server(self: &Arc<Tls>, proof: Proof) -> Result<ServerConfig> {
        let current = Current { tls: self.clone(), proof };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal(format!("TLS: {error}")))?
            .with_client_cert_verifier(Arc::new(current.clone()))
            .with_cert_resolver(Arc::new(current));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// How connections of the gRPC door shake hands, and what their certificates are looked at by afterwards.
pub struct Handshakes {
    /// Shakes hands.
    pub acceptor: TlsAcceptor,
    tls: Arc<Tls>,
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Required,
    Wanted,
}

/// Whatever the certificates are at the moment of a handshake.
#[derive(Clone)]
struct Current {
    tls: Arc<Tls>,
    proof: Proof,
}

impl Current {
    fn clients(&self) -> Arc<dyn ClientCertVerifier> {
        self.tls.current.load().clients.clone()
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Current").field("proof", &self.proof).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.tls.current.load().key.clone())
    }
}

impl ClientCertVerifier for Current {
    fn client_auth_mandatory(&self) -> bool {
        self.proof == Proof::Required
    }

    /// None: they are borrowed, and what they are borrowed from is swapped. Clients then show what they have.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.clients().verify_client_cert(end, between, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.clients().verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.clients().verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients().supported_verify_schemes()
    }
}
