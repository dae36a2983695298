//! A certificate and its private key: that of a listener, or the one that is shown to an upstream.

use std::{fmt, sync::Arc};

use rustls::{
    Error, InconsistentKeys,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};

/// The reasons why a certificate and its private key cannot be used. Each text is a predicate with the file as its
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

/// A certificate that is shown to upstreams which ask for one (mutual TLS), with its private key.
#[derive(Clone)]
pub struct ClientIdentity(pub(in crate::wire) Arc<SingleCertAndKey>);

/// `Debug` shows nothing of the key.
impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(…)")
    }
}

/// Reads the chain in `certificates` (PEM, the client's own certificate first) and its private `key` (PEM: PKCS #8,
/// PKCS #1 or SEC 1, not encrypted).
///
/// # Errors
/// If a file is invalid, or if the private key and the certificate do not match.
pub fn client_identity(certificates: &[u8], key: &[u8]) -> Result<ClientIdentity, IdentityError> {
    let certified_key = certified_key(certificates, key)?;
    Ok(ClientIdentity(Arc::new(SingleCertAndKey::from(certified_key))))
}

/// Reads a chain of certificates and the private key of the first of them.
pub(in crate::wire) fn certified_key(certificates: &[u8], key: &[u8]) -> Result<CertifiedKey, IdentityError> {
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
