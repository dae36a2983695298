//! TLS towards upstreams: rustls, the platform's roots, and an upstream's own authority beside them.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Why no TLS configuration could be made.
#[derive(Debug)]
pub enum TlsError {
    /// The PEM text holds no certificate, or a broken one.
    BadAuthority(String),
    /// The platform has no usable root certificates, and no authority was configured.
    NoRoots(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadAuthority(why) => write!(f, "the certificate authority cannot be read: {why}"),
            Self::NoRoots(why) => write!(
                f,
                "no root certificates were found on this machine ({why}); install ca-certificates, or set ca"
            ),
        }
    }
}

impl std::error::Error for TlsError {}

/// A client configuration that trusts the platform's roots and the certificates in `authority` (PEM), and offers
/// HTTP/1.1, preceded by HTTP/2 where `http2` is set.
///
/// # Errors
/// When `authority` is no PEM certificate, or when nothing at all would be trusted.
pub fn client_config(authority: Option<&[u8]>, http2: bool) -> Result<Arc<ClientConfig>, TlsError> {
    let (mut roots, problem) = platform_roots();
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
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::NoRoots(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = if http2 {
        vec![b"h2".to_vec(), b"http/1.1".to_vec()]
    } else {
        vec![b"http/1.1".to_vec()]
    };
    Ok(Arc::new(config))
}

/// Reading the platform's roots takes tens of milliseconds, so it is done once, and only when there is an https upstream.
fn platform_roots() -> (RootCertStore, String) {
    static ROOTS: OnceLock<(RootCertStore, String)> = OnceLock::new();
    ROOTS
        .get_or_init(|| {
            let loaded = rustls_native_certs::load_native_certs();
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(loaded.certs);
            let problem = loaded
                .errors
                .first()
                .map_or_else(|| "none installed".to_owned(), ToString::to_string);
            (roots, problem)
        })
        .clone()
}
