//! TLS towards clients: the configuration of a listener, and the check of client certificates.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};

use crate::wire::tls::{
    handshake_log::HandshakeLog,
    identity::{IdentityError, certified_key},
};

/// The TLS identity of a listener: its certificate, its private key, and the client certificates that it accepts.
///
/// It can be replaced while the listener runs. Connections that are open keep the configuration that they began with.
pub struct TlsIdentity {
    config: ArcSwap<ServerConfig>,
    /// Logs the handshakes that fail, on all listeners with this identity together.
    failures: HandshakeLog,
}

impl TlsIdentity {
    /// An identity that uses `config`.
    pub fn new(config: Arc<ServerConfig>) -> Arc<Self> {
        Arc::new(Self {
            config: ArcSwap::new(config),
            failures: HandshakeLog::default(),
        })
    }

    /// Uses `config` for every handshake from now on.
    ///
    /// Session tickets that were issued before become invalid, because their encryption keys belong to the old
    /// configuration. Otherwise a client that was admitted earlier could resume its session, and its certificate would
    /// not be checked again.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.config.store(config);
    }

    pub(in crate::wire) fn load(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    pub(in crate::wire) fn failures(&self) -> &HandshakeLog {
        &self.failures
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity(…)")
    }
}

/// Builds the TLS configuration of a server.
///
/// The server presents the chain in `certificates` (PEM, its own certificate first) and signs with `key` (PEM: PKCS #8,
/// PKCS #1 or SEC 1, not encrypted). It accepts TLS 1.2 and 1.3, offers HTTP/2 and HTTP/1.1, and resumes sessions with
/// tickets. With `client_ca` (PEM), it accepts only clients with a certificate that one of these authorities has signed.
///
/// # Errors
/// If a file is invalid, or if the private key and the certificate do not match.
pub fn server_config(
    certificates: &[u8],
    key: &[u8],
    client_ca: Option<&[u8]>,
) -> Result<Arc<ServerConfig>, IdentityError> {
    let certified_key = certified_key(certificates, key)?;
    let verifier = match client_ca {
        Some(authorities) => client_verifier(authorities)?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the ring provider supports TLS 1.2 and TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new().map_err(|error| IdentityError::Library(error.to_string()))?;
    Ok(Arc::new(config))
}

fn client_verifier(authorities: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, IdentityError> {
    let invalid = |why: String| IdentityError::Authority(format!("holds an invalid certificate: {why}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
        roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
    }
    if roots.is_empty() {
        let why = "holds no certificate; it must be in PEM form";
        return Err(IdentityError::Authority(why.to_owned()));
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
        .build()
        .map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;

    use super::*;

    fn certificate_and_key() -> (String, String) {
        let pair = generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    }

    fn error_of(certificates: &str, key: &str) -> IdentityError {
        server_config(certificates.as_bytes(), key.as_bytes(), None).expect_err("refused")
    }

    #[test]
    fn a_certificate_and_its_key_are_accepted_and_others_are_not() {
        let (certificate, key) = certificate_and_key();
        let (other, other_key) = certificate_and_key();
        let config = server_config(certificate.as_bytes(), key.as_bytes(), None).expect("they fit");
        assert!(config.ticketer.enabled());
        // A chain begins with the server's own certificate. Text between the sections is allowed, and one file may hold
        // the chain and the key.
        let both = format!("subject=a\n{certificate}{other}{key}");
        assert!(server_config(both.as_bytes(), both.as_bytes(), None).is_ok());
        assert_eq!(error_of(&certificate, &other_key), IdentityError::Mismatch);
        assert_eq!(
            error_of(&format!("{other}{certificate}"), &key),
            IdentityError::Mismatch
        );
    }

    #[test]
    fn an_error_says_what_is_wrong_with_a_file_without_quoting_it() {
        let (certificate, key) = certificate_and_key();
        let cut = &key[..key.len() / 2];
        let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        let broken = certificate.replace("MII", "AAA");
        for (certificates, key, expected) in [
            ("", key.as_str(), "the certificate file holds no certificate; "),
            (&key, &key, "the certificate file holds no certificate; "),
            (&broken, &key, "the certificate file holds an invalid certificate: "),
            (
                &certificate,
                &certificate,
                "the private key file holds no private key; ",
            ),
            (
                &certificate,
                &encrypted,
                "the private key file holds an encrypted key; ",
            ),
            (&certificate, cut, "the private key file holds a broken private key; "),
        ] {
            let text = error_of(certificates, key).to_string();
            assert!(text.starts_with(expected), "{text}");
            assert!(!text.contains(&key[40..60]), "{text}");
        }
    }
}
