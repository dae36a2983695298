//! The self-signed certificate that the upstreams and the proxies present, and that a verifying proxy trusts.

use std::{fs, io, path::Path, sync::Arc};

use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Creates a certificate for 127.0.0.1 (ECDSA P-256) and writes `cert.pem` and `cert.pem.key` into `folder`. HAProxy
/// requires this name for the key.
pub fn acceptor(folder: &Path) -> io::Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).map_err(io::Error::other)?;
    fs::write(folder.join("cert.pem"), made.cert.pem())?;
    fs::write(folder.join("cert.pem.key"), made.signing_key.serialize_pem())?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(io::Error::other)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
        })
        .map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
