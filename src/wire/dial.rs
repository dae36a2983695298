//! Connections to an upstream: name resolution, TCP with happy eyeballs, TLS.

use std::{fmt, sync::Arc, time::Duration};

use http::{Uri, uri::Authority};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service as _;

use super::{transport::Transport, upstream_socket::UpstreamSocket};

/// Whom to call.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host and port as they stand in the base URL.
    pub authority: Authority,
    /// The TLS configuration of an https upstream.
    pub tls: Option<Arc<ClientConfig>>,
}

/// Why no connection came about. None of these reached the upstream's HTTP server, so each is safe to retry.
#[derive(Debug)]
pub enum DialError {
    /// The name does not resolve, or nobody answers there.
    Connect(String),
    /// The upstream's certificate is not trusted, or TLS failed otherwise.
    Tls(String),
    /// Nobody answered in time.
    Timeout(Duration),
    /// HTTP could not begin on the new connection.
    Handshake(String),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "cannot connect: {why}"),
            Self::Tls(why) => write!(f, "TLS failed: {why}"),
            Self::Timeout(limit) => write!(f, "no connection within {} ms", limit.as_millis()),
            Self::Handshake(why) => write!(f, "HTTP could not begin: {why}"),
        }
    }
}

impl std::error::Error for DialError {}

/// Dials one upstream.
pub struct Dialer {
    connector: HttpConnector,
    uri: Uri,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    limit: Duration,
    stall: Duration,
}

impl Dialer {
    /// A dialer that gives up after `limit`, whose connections fail once the upstream has read nothing for `stall`.
    ///
    /// # Errors
    /// When the host is no name that TLS can verify.
    pub fn new(target: &Target, limit: Duration, stall: Duration) -> Result<Self, DialError> {
        let scheme = if target.tls.is_some() { "https" } else { "http" };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(target.authority.clone())
            .path_and_query("/")
            .build()
            .map_err(|error| DialError::Connect(error.to_string()))?;
        let tls = match &target.tls {
            Some(config) => {
                let host = target
                    .authority
                    .host()
                    .trim_start_matches('[')
                    .trim_end_matches(']')
                    .to_owned();
                let name = ServerName::try_from(host).map_err(|error| DialError::Tls(error.to_string()))?;
                Some((TlsConnector::from(config.clone()), name))
            }
            None => None,
        };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(Duration::from_secs(60)));
        Ok(Self {
            connector,
            uri,
            tls,
            limit,
            stall,
        })
    }

    /// Opens a connection. `true` beside it says that the upstream chose HTTP/2.
    pub(super) async fn dial(&self) -> Result<(UpstreamSocket, bool), DialError> {
        tokio::time::timeout(self.limit, self.connect())
            .await
            .unwrap_or(Err(DialError::Timeout(self.limit)))
    }

    async fn connect(&self) -> Result<(UpstreamSocket, bool), DialError> {
        let mut connector = self.connector.clone();
        let stream: TokioIo<TcpStream> = connector
            .call(self.uri.clone())
            .await
            .map_err(|error| DialError::Connect(root_cause(&error)))?;
        let stream = stream.into_inner();
        let (transport, http2) = match &self.tls {
            None => (Transport::Tcp(stream), false),
            Some((connector, name)) => {
                let stream = connector
                    .connect(name.clone(), stream)
                    .await
                    .map_err(|error| DialError::Tls(error.to_string()))?;
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                (Transport::Tls(Box::new(stream)), http2)
            }
        };
        Ok((UpstreamSocket::new(transport, self.stall), http2))
    }
}

/// The innermost error: "Connection refused" rather than "tcp connect error".
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
