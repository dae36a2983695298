//! TLS towards upstreams: rustls with the platform's root certificates, and optionally a private certificate authority.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::wire::{shortage::Shortage, tls::identity::ClientIdentity};

/// The reasons why no TLS configuration for an upstream could be built.
#[derive(Debug)]
pub enum TlsError {
    /// The PEM text of the certificate authority holds no certificate, or an invalid one.
    BadAuthority(String),
    /// The platform has no usable root certificates, and no certificate authority is configured.
    NoRoots(String),
    /// The platform's root certificates could not be read, because this process lacks file descriptors or memory.
    UnreadRoots(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadAuthority(why) => write!(f, "the certificate authority cannot be read: {why}"),
            Self::NoRoots(why) => write!(
                f,
                "no root certificates were found on this machine ({why}); install ca-certificates, or set ca"
            ),
            Self::UnreadRoots(why) => write!(
                f,
                "the root certificates of this machine cannot be read at the moment ({why}); try again"
            ),
        }
    }
}

impl std::error::Error for TlsError {}

/// The versions of HTTP that a TLS client offers in its handshake (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersions {
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2, and HTTP/1.1 for a server that does not support it.
    Http2AndHttp1,
}

/// Builds a TLS configuration that trusts the platform's root certificates and the certificates in `authority` (PEM), and
/// that offers the HTTP `versions`. With an `identity`, its certificate is shown to a server that asks for one.
///
/// # Errors
/// If `authority` holds no valid PEM certificate, or if no root certificate is trusted at all.
pub fn client_config(
    authority: Option<&[u8]>,
    versions: HttpVersions,
    identity: Option<ClientIdentity>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let (mut roots, problem) = platform_roots()?;
    if let Some(pem) = authority {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| TlsError::BadAuthority(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| TlsError::BadAuthority(error.to_string()))?;
        }
        if roots.len() == before {
            return Err(TlsError::BadAuthority("it holds no PEM certificate".to_owned()));
        }
    }
    if roots.is_empty() {
        return Err(TlsError::NoRoots(problem));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the ring provider supports TLS 1.2 and TLS 1.3")
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(ClientIdentity(resolver)) => builder.with_client_cert_resolver(resolver),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match versions {
        HttpVersions::Http2AndHttp1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        HttpVersions::Http1 => vec![b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}

/// The platform's root certificates, and a text that says why there are none. Reading them takes tens of milliseconds,
/// so they are read once per process, when the first https upstream is configured.
///
/// # Errors
/// If there was no file descriptor left to read all of them. They are read again then.
fn platform_roots() -> Result<(RootCertStore, String), TlsError> {
    static ROOTS: Mutex<Option<(RootCertStore, String)>> = Mutex::new(None);
    let mut kept = ROOTS.lock();
    if let Some(roots) = &*kept {
        return Ok(roots.clone());
    }
    let loaded = rustls_native_certs::load_native_certs();
    let lacks = |error: &&rustls_native_certs::Error| Shortage::of_error(*error).is_some_and(Shortage::ends_by_closing);
    if let Some(error) = loaded.errors.iter().find(lacks) {
        return Err(TlsError::UnreadRoots(error.to_string()));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    let problem = loaded
        .errors
        .first()
        .map_or_else(|| "none are installed".to_owned(), ToString::to_string);
    Ok(kept.insert((roots, problem)).clone())
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;

    use super::*;

    #[test]
    fn the_offered_versions_are_named_in_order_of_preference() {
        let made = generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
        let authority = made.cert.pem();
        let offered = |versions| {
            let config = client_config(Some(authority.as_bytes()), versions, None).expect("a configuration");
            config.alpn_protocols.clone()
        };
        assert_eq!(offered(HttpVersions::Http1), [b"http/1.1".to_vec()]);
        assert_eq!(
            offered(HttpVersions::Http2AndHttp1),
            [b"h2".to_vec(), b"http/1.1".to_vec()]
        );
    }

    #[test]
    fn an_authority_without_a_certificate_is_an_error() {
        let error = client_config(Some(b"no certificate"), HttpVersions::Http1, None).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "the certificate authority cannot be read: it holds no PEM certificate"
        );
    }
}
