//! Certificates of an authority of our own, and a server that speaks HTTP/2.

use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, channel::Channel};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use super::gateway::scratch;

/// A server's certificate, and who vouches for it.
pub struct Identity {
    pub config: Arc<ServerConfig>,
    /// The authority's certificate as a PEM file.
    pub ca: PathBuf,
    /// The server's own as a PEM file.
    pub cert: PathBuf,
    /// Its key as a PEM file.
    pub key: PathBuf,
    /// The names that clients asked for.
    pub asked: Arc<Mutex<Vec<Option<String>>>>,
}

#[derive(Debug)]
struct Noting {
    key: Arc<CertifiedKey>,
    asked: Arc<Mutex<Vec<Option<String>>>>,
}

impl ResolvesServerCert for Noting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.asked.lock().push(hello.server_name().map(str::to_owned));
        Some(self.key.clone())
    }
}

/// A certificate for `names` from an authority made for it; `alpn` in the server's order.
pub fn identity(names: &[&str], alpn: &[&str]) -> Identity {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("a key");
    let root = authority.self_signed(&authority_key).expect("a certificate");
    let folder = scratch();
    let written = |name: &str, pem: String| {
        let path = folder.join(name);
        std::fs::write(&path, pem).expect("a writable folder");
        path
    };
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let issuer = Issuer::new(authority, authority_key);
    let leaf = CertificateParams::new(names)
        .expect("names")
        .signed_by(&key, &issuer)
        .expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let secret = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
    let files = [
        ("ca.pem", root.pem()),
        ("cert.pem", leaf.pem()),
        ("key.pem", key.serialize_pem()),
    ];
    let [ca, cert, key_file] = files.map(|(name, pem)| written(name, pem));
    let key = Arc::new(CertifiedKey::from_der(chain, secret, &provider).expect("they match"));
    let asked: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Noting {
            key,
            asked: asked.clone(),
        }));
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Identity {
        config: Arc::new(config),
        ca,
        cert,
        key: key_file,
        asked,
    }
}

impl Identity {
    /// The line of `[server]` that shows it to clients.
    pub fn shown(&self) -> String {
        format!("tls = {{ cert = {:?}, key = {:?} }}\n", self.cert, self.key)
    }

    /// A client's configuration that trusts the authority and offers HTTP/2 and HTTP/1.1.
    pub fn trusting(&self) -> Arc<ClientConfig> {
        self.client(&["h2", "http/1.1"], None)
    }

    /// The same, offering these protocols.
    pub fn offering(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        self.client(alpn, None)
    }

    /// The same, showing the certificate of `client`.
    pub fn showing(&self, client: &Self) -> Arc<ClientConfig> {
        self.client(&["h2"], Some(client))
    }

    fn client(&self, alpn: &[&str], shown: Option<&Self>) -> Arc<ClientConfig> {
        let ca = CertificateDer::from_pem_file(&self.ca).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(ca).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let chain = vec![CertificateDer::from_pem_file(&client.cert).expect("a certificate")];
                let key = PrivateKeyDer::from_pem_file(&client.key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("they fit")
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// A connection with TLS.
pub async fn call(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(config.clone());
    connector.connect(address.ip().into(), tcp).await
}

/// An upstream that speaks HTTP/2 only: each request is answered with the body that `answer` makes of it.
/// Returns its address and the count of its connections.
pub async fn http2_upstream<F>(identity: &Identity, answer: F) -> (SocketAddr, Arc<Mutex<usize>>)
where
    F: Fn(Request<Bytes>) -> Channel<Bytes, std::io::Error> + Clone + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let acceptor = TlsAcceptor::from(identity.config.clone());
    let connections: Arc<Mutex<usize>> = Arc::default();
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            *count.lock() += 1;
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body
                            .collect()
                            .await
                            .map(http_body_util::Collected::to_bytes)
                            .unwrap_or_default();
                        let response = Response::builder().header("content-type", "text/event-stream");
                        Ok::<_, Infallible>(
                            response
                                .body(answer(Request::from_parts(head, body)))
                                .expect("a response"),
                        )
                    }
                });
                let _ = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(tls), service)
                    .await;
            });
        }
    });
    (address, connections)
}
