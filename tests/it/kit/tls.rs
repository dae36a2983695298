//! Certificates of a test authority, and an upstream that uses HTTP/2.

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

/// A server certificate, its key and the authority that signed it.
pub struct TestIdentity {
    /// A server configuration that presents the certificate.
    pub config: Arc<ServerConfig>,
    /// The path of the authority's certificate (PEM).
    pub ca: PathBuf,
    /// The path of the server's certificate (PEM).
    pub cert: PathBuf,
    /// The path of the server's private key (PEM).
    pub key: PathBuf,
    /// The server name that each client sent, in order; `None` for a client that sent none.
    pub server_names: Arc<Mutex<Vec<Option<String>>>>,
}

/// Presents one certificate and records the server names that clients send.
#[derive(Debug)]
struct RecordingResolver {
    key: Arc<CertifiedKey>,
    server_names: Arc<Mutex<Vec<Option<String>>>>,
}

impl ResolvesServerCert for RecordingResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.server_names.lock().push(hello.server_name().map(str::to_owned));
        Some(self.key.clone())
    }
}

/// Creates a certificate for `names`, signed by a new authority. `alpn` lists the server's protocols in order of
/// preference.
pub fn identity(names: &[&str], alpn: &[&str]) -> TestIdentity {
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
    let key = Arc::new(CertifiedKey::from_der(chain, secret, &provider).expect("the certificate matches the key"));
    let server_names: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(RecordingResolver {
            key,
            server_names: server_names.clone(),
        }));
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TestIdentity {
        config: Arc::new(config),
        ca,
        cert,
        key: key_file,
        server_names,
    }
}

impl TestIdentity {
    /// Returns the line of `[server]` with which the gateway presents this certificate to clients.
    pub fn server_table(&self) -> String {
        format!("tls = {{ cert = {:?}, key = {:?} }}\n", self.cert, self.key)
    }

    /// Returns a client configuration that trusts the authority and offers HTTP/2 and HTTP/1.1.
    pub fn trusting(&self) -> Arc<ClientConfig> {
        self.client(&["h2", "http/1.1"], None)
    }

    /// Returns a client configuration that trusts the authority and offers these protocols.
    pub fn offering(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        self.client(alpn, None)
    }

    /// Returns a client configuration that trusts the authority and presents the certificate of `client`.
    pub fn presenting(&self, client: &Self) -> Arc<ClientConfig> {
        self.client(&["h2"], Some(client))
    }

    fn client(&self, alpn: &[&str], server_table: Option<&Self>) -> Arc<ClientConfig> {
        let ca = CertificateDer::from_pem_file(&self.ca).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(ca).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_root_certificates(roots);
        let mut config = match server_table {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let chain = vec![CertificateDer::from_pem_file(&client.cert).expect("a certificate")];
                let key = PrivateKeyDer::from_pem_file(&client.key).expect("a key");
                builder
                    .with_client_auth_cert(chain, key)
                    .expect("the certificate matches the key")
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// Opens a TLS connection.
pub async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(config.clone());
    connector.connect(address.ip().into(), tcp).await
}

/// Starts an upstream that uses HTTP/2 only and responds to each request with the body that `answer` returns. Returns
/// its address and a counter of its connections.
pub async fn http2_upstream<F>(identity: &TestIdentity, answer: F) -> (SocketAddr, Arc<Mutex<usize>>)
where
    F: Fn(Request<Bytes>) -> Channel<Bytes, std::io::Error> + Clone + Send + 'static,
{
    let respond = move |request: Request<Bytes>| {
        let response = Response::builder().header("content-type", "text/event-stream");
        response.body(answer(request)).expect("a response")
    };
    http2_upstream_with(identity, respond).await
}

/// Starts an upstream like [`http2_upstream`] that responds to each request with what `respond` returns.
pub async fn http2_upstream_with<F>(identity: &TestIdentity, respond: F) -> (SocketAddr, Arc<Mutex<usize>>)
where
    F: Fn(Request<Bytes>) -> Response<Channel<Bytes, std::io::Error>> + Clone + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let acceptor = TlsAcceptor::from(identity.config.clone());
    let connections: Arc<Mutex<usize>> = Arc::default();
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, respond) = (acceptor.clone(), respond.clone());
            *count.lock() += 1;
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let service = service_fn(move |request: Request<Incoming>| {
                    let respond = respond.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body
                            .collect()
                            .await
                            .map(http_body_util::Collected::to_bytes)
                            .unwrap_or_default();
                        Ok::<_, Infallible>(respond(Request::from_parts(head, body)))
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
