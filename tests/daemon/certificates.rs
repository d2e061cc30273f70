//! Authorities and certificates, made for one test.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use std::path::{Path, PathBuf};

/// An authority.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// How long a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Now,
    Past,
}

/// The files of one side of a connection.
#[derive(Clone)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// Writes a certificate with its key and this authority.
    pub fn write(&self, directory: &Path, name: &str, domain: &str, validity: Validity) -> Files {
        let mut params = CertificateParams::new(vec![domain.to_string()]).unwrap();
        if validity == Validity::Past {
            (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
        }
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        let path = |kind: &str| directory.join(format!("{name}.{kind}"));
        let files = Files { cert: path("pem"), key: path("key"), ca: path("ca") };
        std::fs::write(&files.cert, pem).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        std::fs::write(&files.ca, &self.pem).unwrap();
        files
    }
}

impl Files {
    /// The variables that name them.
    pub fn variables(&self) -> [(&'static str, &str); 3] {
        [
            ("CHRONOS_TLS_CERT", self.cert.to_str().unwrap()),
            ("CHRONOS_TLS_KEY", self.key.to_str().unwrap()),
            ("CHRONOS_TLS_CA_CERT", self.ca.to_str().unwrap()),
        ]
    }

    /// The same with another authority to know the other side by.
    pub fn trusting(&self, other: &Files) -> Files {
        Files { ca: other.ca.clone(), ..self.clone() }
    }

    /// Puts other certificates in the place of these.
    pub fn replace_with(&self, other: &Files) {
        for (from, to) in [(&other.cert, &self.cert), (&other.key, &self.key), (&other.ca, &self.ca)] {
            std::fs::copy(from, to).unwrap();
        }
    }
}
