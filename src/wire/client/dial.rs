//! Opens connections to an upstream: name resolution, TCP with happy eyeballs (RFC 8305), a tunnel through a proxy if
//! there is one, and TLS.

use std::{fmt, sync::Arc, time::Duration};

use http::{Uri, uri::Authority};
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::GaiResolver},
    rt::TokioIo,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service as _;

use crate::wire::{
    client::{
        proxy::{ProxyTarget, ProxyTunnel, host_without_brackets},
        socket::UpstreamSocket,
    },
    error_cause::root_cause,
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
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "cannot connect: {why}"),
            Self::Proxy { proxy, why } => write!(f, "the proxy {proxy} {why}"),
            Self::Tls(why) => write!(f, "TLS failed: {why}"),
            Self::Timeout(limit) => write!(f, "no connection was opened within {} ms", limit.as_millis()),
            Self::Handshake(why) => write!(f, "the HTTP/2 handshake failed: {why}"),
        }
    }
}

impl std::error::Error for DialError {}

/// The version of HTTP that a connection uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum HttpProtocol {
    Http1,
    Http2,
}

/// Opens connections to one upstream.
pub(in crate::wire) struct Dialer {
    connector: HttpConnector,
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
            connector: connector(GaiResolver::new(), limit, TcpLiveness::DEFAULT),
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
        let stream: TokioIo<TcpStream> = connector
            .call(uri.clone())
            .await
            .map_err(|error| self.connect_error(&error))?;
        Ok(stream.into_inner())
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
            .map_err(|error| DialError::Tls(error.to_string()))?;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => HttpProtocol::Http2,
            _ => HttpProtocol::Http1,
        };
        Ok((tls(Box::new(stream)), protocol))
    }

    fn connect_error(&self, error: &(dyn std::error::Error + 'static)) -> DialError {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        let is_timeout = |cause: &(dyn std::error::Error + 'static)| {
            cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
        };
        if causes.any(is_timeout) {
            return DialError::Timeout(self.limit);
        }
        DialError::Connect(root_cause(error))
    }
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

/// How a connection is found dead if the upstream has vanished without closing it, for example because its host lost
/// power. A request that waits on such a connection fails then, and does not wait for the time limit of its response.
#[derive(Clone, Copy)]
struct TcpLiveness {
    /// The time without any segment from the upstream after which the kernel probes it (TCP keepalive).
    idle: Duration,
    /// The time between two probes.
    interval: Duration,
    /// The number of probes without an answer after which the connection is dead.
    probes: u32,
}

impl TcpLiveness {
    /// A dead connection is found within a minute.
    const DEFAULT: Self = Self {
        idle: Duration::from_secs(30),
        interval: Duration::from_secs(10),
        probes: 3,
    };

    /// The maximum time for which the upstream may leave sent bytes unacknowledged, or its receive window closed
    /// (`TCP_USER_TIMEOUT`, RFC 5482). The kernel sends no keepalive probes while bytes are unacknowledged, and would
    /// send them again for about 15 minutes.
    fn unacknowledged(self) -> Duration {
        self.idle + self.interval * self.probes
    }
}

/// A connector that connects within `limit`. Each address of a name gets a share of that time. So an address that does
/// not answer leaves time for the next one.
fn connector<R>(resolver: R, limit: Duration, liveness: TcpLiveness) -> HttpConnector<R> {
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(liveness.idle));
    connector.set_keepalive_interval(Some(liveness.interval));
    connector.set_keepalive_retries(Some(liveness.probes));
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(liveness.unacknowledged()));
    connector.set_connect_timeout(Some(limit));
    connector
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::{Ready, ready},
        net::SocketAddr,
        task::{Context, Poll},
    };

    use hyper_util::client::legacy::connect::dns::Name;
    use socket2::{Domain, SockRef, Socket, Type};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Resolves every name to these addresses.
    #[derive(Clone)]
    struct FixedResolver(Vec<SocketAddr>);

    impl tower_service::Service<Name> for FixedResolver {
        type Response = std::vec::IntoIter<SocketAddr>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _name: Name) -> Self::Future {
            ready(Ok(self.0.clone().into_iter()))
        }
    }

    /// A listener with a full queue, so that further connection attempts are not answered.
    fn blackhole() -> (Socket, Vec<std::net::TcpStream>, SocketAddr) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any: SocketAddr = ([127, 0, 0, 2], 0).into();
        listener.bind(&any.into()).expect("a free port");
        listener.listen(0).expect("the socket listens");
        let address = listener
            .local_addr()
            .ok()
            .and_then(|bound| bound.as_socket())
            .expect("bound");
        let waiting =
            (0..16).map_while(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)).ok());
        let waiting = waiting.collect();
        (listener, waiting, address)
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_leaves_time_for_the_next() {
        let (_listener, waiting, dead) = blackhole();
        assert!(waiting.len() < 16, "the queue of the listener is full");
        // Both addresses have the same port, because the connector takes it from the URI.
        let alive = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], dead.port())))
            .await
            .expect("the port is free on the other address");
        let limit = Duration::from_secs(1);
        let addresses = FixedResolver(vec![dead, alive.local_addr().expect("bound")]);
        let uri = Uri::try_from(format!("http://it:{}/", dead.port())).expect("a URI");
        let dialled = tokio::time::timeout(limit, connector(addresses, limit, TcpLiveness::DEFAULT).call(uri)).await;
        dialled.expect("in time").expect("the second address answers");
    }

    /// Connects to a listener of its own. Returns both sides of the connection.
    async fn connected(liveness: TcpLiveness) -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let uri = Uri::try_from(format!("http://{address}/")).expect("a URI");
        let mut connector = connector(GaiResolver::new(), Duration::from_secs(10), liveness);
        let near = connector.call(uri).await.expect("the listener accepts").into_inner();
        let (far, _) = listener.accept().await.expect("a connection");
        (near, far)
    }

    #[tokio::test]
    async fn a_dead_connection_is_found_within_a_minute() {
        let (near, _far) = connected(TcpLiveness::DEFAULT).await;
        let socket = SockRef::from(&near);
        assert!(socket.keepalive().expect("known"));
        let (idle, interval) = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval());
        let (idle, interval) = (idle.expect("known"), interval.expect("known"));
        let probes = socket.tcp_keepalive_retries().expect("known");
        assert!(
            idle + interval * probes <= Duration::from_secs(60),
            "{idle:?} + {probes} * {interval:?}"
        );
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().expect("known"), Some(Duration::from_secs(60)));
    }

    /// The upstream's socket drops every segment that it receives, so it acknowledges nothing and closes nothing.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_upstream_that_vanishes_breaks_the_connection() {
        const LIVENESS: TcpLiveness = TcpLiveness {
            idle: Duration::from_secs(1),
            interval: Duration::from_secs(1),
            probes: 1,
        };
        for sent in [&b""[..], b"a request"] {
            let (near, far) = connected(LIVENESS).await;
            // BPF_RET with 0: keep no byte of a segment.
            let drop_all = socket2::SockFilter::new(0x06, 0, 0, 0);
            SockRef::from(&far).attach_filter(&[drop_all]).expect("a valid filter");
            let mut socket = UpstreamSocket::new(Transport::Tcp(near), Duration::from_secs(600));
            socket.write_all(sent).await.expect("the kernel takes the bytes");
            let read = socket.read_u8();
            let ended = tokio::time::timeout(Duration::from_secs(30), read).await;
            let error = ended
                .expect("the connection breaks in time")
                .expect_err("no byte arrives");
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{} bytes sent", sent.len());
        }
    }
}
