//! What went wrong in a handshake, in words that say what to do.
//!
//! The layers above TLS keep the text of an error and lose its type, so the text is what is looked at. A text that is not
//! known here is left as it is.

use std::error::Error;

/// What the library says, and what it means.
const MEANINGS: [(&str, &str); 14] = [
    ("invalid peer certificate: Expired", "the other side's certificate has expired"),
    ("invalid peer certificate: certificate expired", "the other side's certificate has expired"),
    ("invalid peer certificate: NotValidYet", "the other side's certificate is not valid yet: are the clocks right?"),
    (
        "invalid peer certificate: certificate not valid yet",
        "the other side's certificate is not valid yet: are the clocks right?",
    ),
    (
        "invalid peer certificate: NotValidForName",
        "the other side's certificate is for another name: see CHRONOS_TLS_DOMAIN",
    ),
    (
        "invalid peer certificate: certificate not valid for name",
        "the other side's certificate is for another name: see CHRONOS_TLS_DOMAIN",
    ),
    (
        "invalid peer certificate: UnknownIssuer",
        "the other side's certificate is signed by another authority than CHRONOS_TLS_CA_CERT",
    ),
    (
        "invalid peer certificate: BadSignature",
        "the other side's certificate is signed by another authority than CHRONOS_TLS_CA_CERT",
    ),
    ("received fatal alert: CertificateExpired", "the other side says that the certificate shown to it has expired"),
    ("received fatal alert: UnknownCA", "the other side does not know the authority of the certificate shown to it"),
    ("received fatal alert: DecryptError", "the other side does not know the authority of the certificate shown to it"),
    (
        "received fatal alert: CertificateRequired",
        "the other side asks for a certificate: set CHRONOS_TLS_CERT, _KEY and _CA_CERT",
    ),
    ("peer sent no certificates", "the other side has shown no certificate"),
    ("InvalidContentType", "the other side does not speak TLS"),
];

/// Says what a failed handshake means; none where it is something else.
pub fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(meant) = meaning(&error.to_string()) {
            return Some(meant);
        }
        cause = error.source();
    }
    None
}

fn meaning(text: &str) -> Option<String> {
    let (said, meant) = MEANINGS.iter().find(|(said, _)| text.contains(said))?;
    let details = &text[text.find(said)?..];
    Some(format!("{meant} ({details})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{AlertDescription, CertificateError};

    #[test]
    fn the_librarys_words_are_known() {
        for (error, says) in [
            (rustls::Error::InvalidCertificate(CertificateError::Expired), "has expired"),
            (rustls::Error::InvalidCertificate(CertificateError::NotValidYet), "not valid yet"),
            (rustls::Error::InvalidCertificate(CertificateError::NotValidForName), "another name"),
            (rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer), "another authority"),
            (rustls::Error::AlertReceived(AlertDescription::CertificateExpired), "has expired"),
            (rustls::Error::AlertReceived(AlertDescription::UnknownCA), "does not know the authority"),
            (rustls::Error::AlertReceived(AlertDescription::CertificateRequired), "asks for a certificate"),
            (rustls::Error::NoCertificatesPresented, "has shown no certificate"),
            (rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType), "does not speak TLS"),
        ] {
            let wrapped = std::io::Error::new(std::io::ErrorKind::InvalidData, error.clone());
            let told = explain(&wrapped).unwrap_or_else(|| panic!("{error}"));
            assert!(told.contains(says), "{told}");
        }
        assert_eq!(explain(&std::io::Error::other("disk full")), None);
    }
}
