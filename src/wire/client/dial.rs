//! Connections to an upstream: name resolution, TCP with happy eyeballs, TLS.

use std::{fmt, sync::Arc, time::Duration};

use http::{Uri, uri::Authority};
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::GaiResolver},
    rt::TokioIo,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service as _;

use crate::wire::{client::socket::UpstreamSocket, transport::Transport};

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
pub(in crate::wire) struct Dialer {
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
    pub(in crate::wire) fn new(target: &Target, limit: Duration, stall: Duration) -> Result<Self, DialError> {
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
        Ok(Self {
            connector: connector(GaiResolver::new(), limit),
            uri,
            tls,
            limit,
            stall,
        })
    }

    /// How long a connection may take to come about.
    pub(in crate::wire) fn limit(&self) -> Duration {
        self.limit
    }

    /// Opens a connection. `true` beside it says that the upstream chose HTTP/2.
    pub(in crate::wire) async fn dial(&self) -> Result<(UpstreamSocket, bool), DialError> {
        tokio::time::timeout(self.limit, self.connect())
            .await
            .unwrap_or(Err(DialError::Timeout(self.limit)))
    }

    async fn connect(&self) -> Result<(UpstreamSocket, bool), DialError> {
        let mut connector = self.connector.clone();
        let stream: TokioIo<TcpStream> = connector
            .call(self.uri.clone())
            .await
            .map_err(|error| self.unconnected(&error))?;
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

    fn unconnected(&self, error: &(dyn std::error::Error + 'static)) -> DialError {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        let is_late = |cause: &(dyn std::error::Error + 'static)| {
            cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
        };
        if causes.any(is_late) {
            return DialError::Timeout(self.limit);
        }
        DialError::Connect(root_cause(error))
    }
}

/// Connects within `limit`. Each address of a name gets its share of that, so that a dead one leaves time for the next.
fn connector<R>(resolver: R, limit: Duration) -> HttpConnector<R> {
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(60)));
    connector.set_connect_timeout(Some(limit));
    connector
}

/// The innermost error: "Connection refused" rather than "tcp connect error".
pub(in crate::wire) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
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
    use socket2::{Domain, Socket, Type};

    use super::*;

    /// Every name has these addresses.
    #[derive(Clone)]
    struct Everywhere(Vec<SocketAddr>);

    impl tower_service::Service<Name> for Everywhere {
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

    /// A listener whose queue is full: whoever else connects gets no answer.
    fn blackhole() -> (Socket, Vec<std::net::TcpStream>, SocketAddr) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any: SocketAddr = ([127, 0, 0, 2], 0).into();
        listener.bind(&any.into()).expect("a free port");
        listener.listen(0).expect("it listens");
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
        assert!(waiting.len() < 16, "its queue is full");
        // One port for both, as the connector takes it from the URI.
        let alive = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], dead.port())))
            .await
            .expect("free there too");
        let limit = Duration::from_secs(1);
        let addresses = Everywhere(vec![dead, alive.local_addr().expect("bound")]);
        let uri = Uri::try_from(format!("http://it:{}/", dead.port())).expect("a URI");
        let dialled = tokio::time::timeout(limit, connector(addresses, limit).call(uri)).await;
        dialled.expect("in time").expect("the second answers");
    }
}
