//! Opens connections to an upstream: name resolution, TCP with happy eyeballs (RFC 8305), a tunnel through a proxy if
//! there is one, and TLS.

use std::{
    error::Error,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{
    Uri,
    uri::{Authority, Scheme},
};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service as _;

use crate::wire::{
    client::{
        connector::{TcpLiveness, connector},
        proxy::{ProxyTarget, ProxyTunnel, host_without_brackets},
        resolver::{SystemResolver, addresses_of},
        socket::UpstreamSocket,
    },
    error_cause::root_cause,
    server::reserve,
    shortage::{Shortage, missing_for},
    transport::Transport,
};

/// The upstream that connections are opened to.
#[derive(Clone, Debug)]
pub struct DialTarget {
    /// The host and port, as in the base URL.
    pub authority: Authority,
    /// The TLS configuration of an https upstream; `None` for http.
    pub tls: Option<Arc<ClientConfig>>,
}

/// The reasons why no connection could be opened. The upstream's HTTP server has not seen the request, so the request
/// can safely be sent again.
#[derive(Debug)]
pub enum DialError {
    /// The host name does not resolve, or no address accepts the connection.
    Connect(String),
    /// The proxy cannot be reached, or it has opened no tunnel to the upstream.
    Proxy {
        /// The host and the port of the proxy.
        proxy: Authority,
        /// What happened, as a predicate with the proxy as its subject.
        why: String,
    },
    /// The upstream's certificate is not trusted, or the TLS handshake failed otherwise.
    Tls(String),
    /// The connection was not open within this time.
    Timeout(Duration),
    /// The HTTP/2 handshake on the new connection failed.
    Handshake(String),
    /// This process or its machine lacks something for a connection. The upstream is not the cause.
    Shortage(Shortage),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "cannot connect: {why}"),
            Self::Proxy { proxy, why } => write!(f, "the proxy {proxy} {why}"),
            Self::Tls(why) => write!(f, "TLS failed: {why}"),
            Self::Timeout(limit) => write!(f, "no connection was opened within {} ms", limit.as_millis()),
            Self::Handshake(why) => write!(f, "the HTTP/2 handshake failed: {why}"),
            Self::Shortage(shortage) => shortage.fmt(f),
        }
    }
}

impl Error for DialError {}

impl DialError {
    /// The shortage that `error` names, or else what `other` makes of the text of its innermost cause.
    pub(super) fn of_error(error: &(dyn Error + 'static), other: impl FnOnce(String) -> Self) -> Self {
        match Shortage::of_error(error) {
            Some(shortage) => Self::Shortage(shortage),
            None => other(root_cause(error)),
        }
    }
}

/// The version of HTTP that a connection uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum HttpProtocol {
    Http1,
    Http2,
}

/// Opens connections to one upstream.
pub(in crate::wire) struct Dialer {
    connector: HttpConnector<SystemResolver>,
    /// The base URL of the upstream, without a path.
    uri: Uri,
    /// The proxy, and the host and the port of the upstream, to which it is asked for a tunnel; `None` if connections are
    /// direct.
    proxy: Option<Box<(ProxyTarget, Authority)>>,
    /// The TLS configuration and the name that the certificate is checked against; `None` for http.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The maximum time to open a connection.
    limit: Duration,
    /// The maximum time for which a write may be blocked because the upstream reads nothing.
    stall: Duration,
}

impl Dialer {
    /// A dialer that gives up after `limit`. A connection that it opens fails once the upstream has read nothing for
    /// `stall`.
    ///
    /// # Errors
    /// If the host of an https upstream is not a name that a certificate can be checked against.
    pub fn new(
        target: &DialTarget,
        proxy: Option<ProxyTarget>,
        limit: Duration,
        stall: Duration,
    ) -> Result<Self, DialError> {
        let scheme = if target.tls.is_some() { "https" } else { "http" };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(target.authority.clone())
            .path_and_query("/")
            .build()
            .expect("a scheme, an authority and a path make a URI");
        let tls = match &target.tls {
            Some(config) => {
                let host = host_without_brackets(&target.authority).to_owned();
                let name = ServerName::try_from(host).map_err(|error| DialError::Tls(error.to_string()))?;
                Some((TlsConnector::from(config.clone()), name))
            }
            None => None,
        };
        Ok(Self {
            connector: connector(SystemResolver, limit, TcpLiveness::DEFAULT),
            uri,
            proxy: proxy.map(|proxy| Box::new((proxy, with_port(target)))),
            tls,
            limit,
            stall,
        })
    }

    /// The maximum time to open a connection.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Opens a connection, and returns it with the version of HTTP that the upstream has chosen.
    pub async fn dial(&self) -> Result<(UpstreamSocket, HttpProtocol), DialError> {
        tokio::time::timeout(self.limit, self.connect())
            .await
            .unwrap_or(Err(DialError::Timeout(self.limit)))
    }

    async fn connect(&self) -> Result<(UpstreamSocket, HttpProtocol), DialError> {
        let (transport, protocol) = match &self.proxy {
            None => {
                let stream = self.connect_tcp(&self.uri).await?;
                self.begin(stream, Transport::Tcp, Transport::Tls).await?
            }
            // A tunnel is rare, and its future is large.
            Some(proxy) => Box::pin(self.connect_through(&proxy.0, &proxy.1)).await?,
        };
        Ok((UpstreamSocket::new(transport, self.stall), protocol))
    }

    async fn connect_tcp(&self, uri: &Uri) -> Result<TcpStream, DialError> {
        let mut connector = self.connector.clone();
        let stream: Result<TokioIo<TcpStream>, _> = connector.call(uri.clone()).await;
        let failed = match stream {
            Ok(stream) if reserve::refill() => return Ok(stream.into_inner()),
            Ok(stream) => return Err(give_way(stream)),
            Err(error) => (self.connect_error(&error), root_cause(&error)),
        };
        match failed {
            // The future is boxed, because shortages are rare.
            (DialError::Shortage(Shortage::Ports), why) => Err(Box::pin(explain_unavailable(uri, why)).await),
            (error, _) => Err(error),
        }
    }

    async fn connect_through(
        &self,
        proxy: &ProxyTarget,
        upstream: &Authority,
    ) -> Result<(Transport, HttpProtocol), DialError> {
        let failed = |why| DialError::Proxy {
            proxy: proxy.address.clone(),
            why,
        };
        let stream = self.connect_tcp(&proxy.uri()).await.map_err(|error| match error {
            DialError::Connect(why) => failed(format!("cannot be reached: {why}")),
            error => error,
        })?;
        match proxy.open_tunnel(stream, upstream).await.map_err(failed)? {
            ProxyTunnel::Tcp(stream) => self.begin(stream, Transport::Tcp, Transport::Tls).await,
            ProxyTunnel::Tls(stream) => self.begin(*stream, plain_in_tls, Transport::TlsInTls).await,
        }
    }

    /// Begins TLS on `stream` if the upstream uses it. `plain` and `tls` make a transport of the stream without and with
    /// TLS.
    async fn begin<S>(
        &self,
        stream: S,
        plain: fn(S) -> Transport,
        tls: fn(Box<TlsStream<S>>) -> Transport,
    ) -> Result<(Transport, HttpProtocol), DialError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some((connector, name)) = &self.tls else {
            return Ok((plain(stream), HttpProtocol::Http1));
        };
        let stream = connector
            .connect(name.clone(), stream)
            .await
            .map_err(|error| DialError::of_error(&error, |_| DialError::Tls(error.to_string())))?;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => HttpProtocol::Http2,
            _ => HttpProtocol::Http1,
        };
        Ok((tls(Box::new(stream)), protocol))
    }

    fn connect_error(&self, error: &(dyn Error + 'static)) -> DialError {
        if is_timeout(error) {
            return DialError::Timeout(self.limit);
        }
        DialError::of_error(error, DialError::Connect)
    }
}

/// Closes a new connection, so that the reserve of descriptors can be refilled. The caller gets the error of a dial without
/// descriptors.
fn give_way(stream: TokioIo<TcpStream>) -> DialError {
    drop(stream);
    reserve::refill();
    DialError::Shortage(Shortage::Descriptors)
}

/// The reason for the error `why`, which may mean that there is no local port for `uri`, or that its address cannot be
/// reached from this machine.
async fn explain_unavailable(uri: &Uri, why: String) -> DialError {
    match missing_for(addresses(uri).await) {
        Some(shortage) => DialError::Shortage(shortage),
        None => DialError::Connect(why),
    }
}

/// Whether `error` is caused by an operation that has taken too long.
fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The addresses to which a connector connects for `uri`, with its port or the one of its scheme. There are none if its host
/// is not found.
async fn addresses(uri: &Uri) -> Vec<SocketAddr> {
    let host = uri.host().expect("the URI is made of an authority");
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    let port = uri.port_u16().unwrap_or(default);
    let found = match host.parse::<IpAddr>() {
        Ok(literal) => vec![SocketAddr::new(literal, port)],
        Err(_) => addresses_of(host.to_owned()).await.unwrap_or_default(),
    };
    found
        .into_iter()
        .map(|address| SocketAddr::new(address.ip(), port))
        .collect()
}

/// The transport of an http upstream behind a proxy that is called over TLS.
fn plain_in_tls(stream: TlsStream<TcpStream>) -> Transport {
    Transport::Tls(Box::new(stream))
}

/// The host and the port of the upstream, the default port included.
fn with_port(target: &DialTarget) -> Authority {
    if target.authority.port().is_some() {
        return target.authority.clone();
    }
    let port = if target.tls.is_some() { 443 } else { 80 };
    let text = format!("{}:{port}", target.authority.host());
    text.parse().expect("a host and a port make an authority")
}
