//! TLS towards clients: the listener's certificate, and a connection whose first read shakes hands.

use std::{
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

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
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{Accept, server::TlsStream};

/// Why a certificate and a key make no TLS server. The texts are predicates whose subject is the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The certificates cannot be read.
    Certificate(String),
    /// The private key cannot be read.
    Key(String),
    /// The certificates of those who may vouch for clients cannot be read.
    Authority(String),
    /// The certificate was made for another key.
    Mismatch,
    /// The library has no entropy, or no version of TLS.
    Library(String),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(why) => write!(f, "the certificate's file {why}"),
            Self::Key(why) => write!(f, "the key's file {why}"),
            Self::Authority(why) => write!(f, "the file of client authorities {why}"),
            Self::Mismatch => f.write_str("the key does not fit the certificate"),
            Self::Library(why) => write!(f, "TLS cannot be set up: {why}"),
        }
    }
}

impl std::error::Error for IdentityError {}

/// How a listener proves who it is, and whom it lets in. It can be replaced: connections that stand go on as they began.
pub struct Identity(ArcSwap<ServerConfig>);

impl Identity {
    /// Begins with `config`.
    pub fn new(config: Arc<ServerConfig>) -> Arc<Self> {
        Arc::new(Self(ArcSwap::new(config)))
    }

    /// Shakes hands as `config` says from now on. Tickets of before open nothing: they are sealed with keys that went with
    /// the old configuration, or who was let in then would be let in without a look at its certificate.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.0.store(config);
    }

    pub(in crate::wire) fn load(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

/// A server that shows the certificates of `certificates` (PEM, its own first) and proves them with `key` (PEM: PKCS #8,
/// PKCS #1 or SEC 1, not encrypted). It speaks TLS 1.2 and 1.3 and, inside, HTTP/2 or 1.1; sessions resume by tickets. With
/// `client_ca` (PEM) only clients come in that show a certificate which one of these has signed.
///
/// # Errors
/// When one of the two is not what it has to be, or when they do not belong together.
pub fn server_config(
    certificates: &[u8],
    key: &[u8],
    client_ca: Option<&[u8]>,
) -> Result<Arc<ServerConfig>, IdentityError> {
    let library = |error: Error| IdentityError::Library(error.to_string());
    let identity = identity(certificates, key)?;
    let verifier = match client_ca {
        Some(authorities) => verifier(authorities)?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(library)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new().map_err(library)?;
    Ok(Arc::new(config))
}

fn verifier(authorities: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, IdentityError> {
    let unusable = |why: String| IdentityError::Authority(format!("holds an invalid certificate: {why}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        let why = "holds no certificate; it must be in PEM form";
        return Err(IdentityError::Authority(why.to_owned()));
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
        .build()
        .map_err(|error| unusable(error.to_string()))
}

fn identity(certificates: &[u8], key: &[u8]) -> Result<CertifiedKey, IdentityError> {
    let unreadable = |error: String| IdentityError::Certificate(format!("holds an invalid certificate: {error}"));
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(certificates) {
        chain.push(certificate.map_err(|error| unreadable(error.to_string()))?);
    }
    if chain.is_empty() {
        let why = "holds no certificate; it must be in PEM form";
        return Err(IdentityError::Certificate(why.to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| IdentityError::Key(no_key(key, &error)))?;
    let key = ring::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| IdentityError::Key(format!("holds a key that cannot be used: {error}")))?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
        Err(Error::InconsistentKeys(_)) => Err(IdentityError::Mismatch),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// Nothing of the file is shown: it may be half a key.
fn no_key(pem: &[u8], error: &pem::Error) -> String {
    let is_encrypted = memchr::memmem::find(pem, b"ENCRYPTED").is_some();
    match error {
        pem::Error::NoItemsFound if is_encrypted => {
            "holds an encrypted key; write it without its passphrase: openssl pkey -in KEY -out PLAIN".to_owned()
        }
        pem::Error::NoItemsFound => "holds no private key; it must be in PEM form".to_owned(),
        _ => "holds a broken private key; it must be in PEM form".to_owned(),
    }
}

/// A client's connection with TLS.
///
/// The handshake is driven by whoever reads, so it runs in the connection's own task, never where connections are
/// accepted, and it counts as part of the first request's head: its limit holds for both.
pub(in crate::wire) struct ServerTls {
    state: State,
    peer: SocketAddr,
}

enum State {
    Shaking(Accept<TcpStream>),
    Open(TlsStream<TcpStream>),
    /// The handshake failed.
    Failed,
}

impl ServerTls {
    pub fn new(accept: Accept<TcpStream>, peer: SocketAddr) -> Self {
        let state = State::Shaking(accept);
        Self { state, peer }
    }

    /// The connection below, while there is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.state {
            State::Shaking(accept) => accept.get_ref(),
            State::Open(stream) => Some(stream.get_ref().0),
            State::Failed => None,
        }
    }

    /// The stream, once hands are shaken.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TlsStream<TcpStream>>>> {
        if let State::Shaking(accept) = &mut self.state {
            match ready!(Pin::new(accept).poll(cx)) {
                Ok(stream) => self.state = State::Open(stream),
                Err(error) => {
                    tracing::debug!(peer = %self.peer, %error, "a TLS handshake failed");
                    self.state = State::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(match &mut self.state {
            State::Open(stream) => Ok(Pin::new(stream)),
            State::Shaking(_) | State::Failed => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

impl Drop for ServerTls {
    fn drop(&mut self) {
        if let State::Shaking(_) = self.state {
            tracing::debug!(peer = %self.peer, "a TLS handshake was cut before its end");
        }
    }
}

impl AsyncRead for ServerTls {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_read(cx, buf)
    }
}

impl AsyncWrite for ServerTls {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Open(stream) => Pin::new(stream).poll_flush(cx),
            // Nothing was written yet; what the handshake writes it flushes itself.
            State::Shaking(_) | State::Failed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Open(stream) => Pin::new(stream).poll_shutdown(cx),
            State::Shaking(accept) => match accept.get_mut() {
                Some(tcp) => Pin::new(tcp).poll_shutdown(cx),
                None => Poll::Ready(Ok(())),
            },
            State::Failed => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;

    use super::*;

    fn made() -> (String, String) {
        let made = generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn refused(certificates: &str, key: &str) -> IdentityError {
        server_config(certificates.as_bytes(), key.as_bytes(), None).expect_err("refused")
    }

    #[test]
    fn a_certificate_and_its_key() {
        let (certificate, key) = made();
        let (other, other_key) = made();
        let config = server_config(certificate.as_bytes(), key.as_bytes(), None).expect("they fit");
        assert!(config.ticketer.enabled());
        // A chain shows its own certificate first; text around the sections is allowed, and both may share a file.
        let both = format!("subject=a\n{certificate}{other}{key}");
        assert!(server_config(both.as_bytes(), both.as_bytes(), None).is_ok());
        assert_eq!(refused(&certificate, &other_key), IdentityError::Mismatch);
        assert_eq!(refused(&format!("{other}{certificate}"), &key), IdentityError::Mismatch);
    }

    #[test]
    fn what_is_no_certificate_or_no_key_is_said_without_showing_it() {
        let (certificate, key) = made();
        let cut = &key[..key.len() / 2];
        let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        let broken = certificate.replace("MII", "AAA");
        for (certificates, key, expected) in [
            ("", key.as_str(), "the certificate's file holds no certificate; "),
            (&key, &key, "the certificate's file holds no certificate; "),
            (&broken, &key, "the certificate's file holds an invalid certificate: "),
            (&certificate, &certificate, "the key's file holds no private key; "),
            (&certificate, &encrypted, "the key's file holds an encrypted key; "),
            (&certificate, cut, "the key's file holds a broken private key; "),
        ] {
            let said = refused(certificates, key).to_string();
            assert!(said.starts_with(expected), "{said}");
            assert!(!said.contains(&key[40..60]), "{said}");
        }
    }
}
