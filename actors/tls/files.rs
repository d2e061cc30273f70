//! The three files and the name that go with them, as one side of a connection needs them.
//!
//! The daemon and the client commands read the same settings by the same names, so what is wrong is said in the same words.

use super::refused;
use chronos::config;
use chronos::error::{Error, Result};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::path::Path;
use std::time::Duration;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// How long the handshake of a connection that this side makes may take: what `connect_timeout` of the transport limits is
/// only that of TCP, which a process that stands still has no part in.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(3);

/// What the files held.
#[derive(Clone)]
pub struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca_cert: Vec<u8>,
    /// The name that the other side's certificate must carry.
    pub domain: String,
}

impl Files {
    /// Reads them; none where the settings name none. One without the others was refused before.
    pub fn read(settings: &config::Tls) -> Result<Option<Files>> {
        let (Some(cert), Some(key), Some(ca_cert)) = (&settings.cert, &settings.key, &settings.ca_cert) else {
            return Ok(None);
        };
        let files = Files {
            cert: read("tls.cert", cert)?,
            key: read("tls.key", key)?,
            ca_cert: read("tls.ca_cert", ca_cert)?,
            domain: settings.domain.clone(),
        };
        // Each by its name, whoever uses them later.
        files.chain()?;
        files.key()?;
        files.roots()?;
        Ok(Some(files))
    }

    /// True where certificate, key and authority are byte for byte the other one's.
    pub fn hold_the_same_as(&self, other: &Files) -> bool {
        (&self.cert, &self.key, &self.ca_cert) == (&other.cert, &other.key, &other.ca_cert)
    }

    /// The certificate, and those between it and the authority.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>> {
        certificates("tls.cert", &self.cert)
    }

    /// The private key.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| refused(format!("tls.key holds no private key in PEM: {error}")))
    }

    /// The certificates of the authority.
    pub fn authorities(&self) -> Result<Vec<CertificateDer<'static>>> {
        certificates("tls.ca_cert", &self.ca_cert)
    }

    /// The authority.
    pub fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for certificate in self.authorities()? {
            roots.add(certificate).map_err(|error| refused(format!("tls.ca_cert: {error}")))?;
        }
        Ok(roots)
    }

    /// For a connection to another node.
    pub fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca_cert))
            .identity(Identity::from_pem(&self.cert, &self.key))
            .domain_name(self.domain.clone())
            .timeout(HANDSHAKE_WAIT)
    }
}

/// Without what is in them: one of them is a private key.
impl fmt::Debug for Files {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Files").field("domain", &self.domain).finish_non_exhaustive()
    }
}

fn read(name: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io(format_args!("read {name} {}", path.display()), &error))
}

fn certificates(name: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(refused(format!("{name} holds no certificate in PEM"))),
        Err(error) => Err(refused(format!("{name}: {error}"))),
    }
}
