//! TLS towards clients: the listener's certificate and private key, and the check of client certificates.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    Error, InconsistentKeys, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};

/// The reasons why no TLS configuration for a listener could be built. Each text is a predicate with the file as its
/// subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The certificates cannot be read.
    Certificate(String),
    /// The private key cannot be read.
    Key(String),
    /// The certificate authorities for client certificates cannot be read.
    Authority(String),
    /// The certificate belongs to another private key.
    Mismatch,
    /// The TLS library cannot be set up: the system provides no random numbers.
    Library(String),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(why) => write!(f, "the certificate file {why}"),
            Self::Key(why) => write!(f, "the private key file {why}"),
            Self::Authority(why) => write!(f, "the file of client certificate authorities {why}"),
            Self::Mismatch => f.write_str("the private key does not match the certificate"),
            Self::Library(why) => write!(f, "TLS cannot be set up: {why}"),
        }
    }
}

impl std::error::Error for IdentityError {}

/// The TLS identity of a listener: its certificate, its private key, and the client certificates that it accepts.
///
/// It can be replaced while the listener runs. Connections that are open keep the configuration that they began with.
pub struct TlsIdentity(ArcSwap<ServerConfig>);

impl TlsIdentity {
    /// An identity that uses `config`.
    pub fn new(config: Arc<ServerConfig>) -> Arc<Self> {
        Arc::new(Self(ArcSwap::new(config)))
    }

    /// Uses `config` for every handshake from now on.
    ///
    /// Session tickets that were issued before become invalid, because their encryption keys belong to the old
    /// configuration. Otherwise a client that was admitted earlier could resume its session, and its certificate would
    /// not be checked again.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.0.store(config);
    }

    pub(in crate::wire) fn load(&self) -> Arc<ServerConfig> {
        self.0.load_full()
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

fn certified_key(certificates: &[u8], key: &[u8]) -> Result<CertifiedKey, IdentityError> {
    let invalid = |why: String| IdentityError::Certificate(format!("holds an invalid certificate: {why}"));
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(certificates) {
        chain.push(certificate.map_err(|error| invalid(error.to_string()))?);
    }
    if chain.is_empty() {
        let why = "holds no certificate; it must be in PEM form";
        return Err(IdentityError::Certificate(why.to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| IdentityError::Key(key_problem(key, &error)))?;
    let key = ring::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| IdentityError::Key(format!("holds a key that cannot be used: {error}")))?;
    let certified_key = CertifiedKey::new(chain, key);
    match certified_key.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified_key),
        Err(Error::InconsistentKeys(_)) => Err(IdentityError::Mismatch),
        Err(error) => Err(invalid(error.to_string())),
    }
}

/// Describes an unreadable private key. The text quotes nothing of the file, which may hold a part of a key.
fn key_problem(pem: &[u8], error: &pem::Error) -> String {
    let is_encrypted = memchr::memmem::find(pem, b"ENCRYPTED").is_some();
    match error {
        pem::Error::NoItemsFound if is_encrypted => {
            "holds an encrypted key; write it without its passphrase: openssl pkey -in KEY -out PLAIN".to_owned()
        }
        pem::Error::NoItemsFound => "holds no private key; it must be in PEM form".to_owned(),
        _ => "holds a broken private key; it must be in PEM form".to_owned(),
    }
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
