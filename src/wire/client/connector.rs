//! Connects to an upstream over TCP with happy eyeballs (RFC 8305), and watches over the connection.

use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;

/// How a connection is found dead if the upstream has vanished without closing it, for example because its host lost
/// power. A request that waits on such a connection fails then, and does not wait for the time limit of its response.
#[derive(Clone, Copy)]
pub(super) struct TcpLiveness {
    /// The time without any segment from the upstream after which the kernel probes it (TCP keepalive).
    idle: Duration,
    /// The time between two probes.
    interval: Duration,
    /// The number of probes without an answer after which the connection is dead.
    probes: u32,
}

impl TcpLiveness {
    /// A dead connection is found within a minute.
    pub const DEFAULT: Self = Self {
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
pub(super) fn connector<R>(resolver: R, limit: Duration, liveness: TcpLiveness) -> HttpConnector<R> {
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

    use http::Uri;
    use hyper_util::client::legacy::connect::dns::Name;
    use socket2::{Domain, SockRef, Socket, Type};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };
    use tower_service::Service as _;

    use super::*;
    use crate::wire::{
        client::{resolver::SystemResolver, socket::UpstreamSocket},
        transport::Transport,
    };

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
        let mut connector = connector(SystemResolver, Duration::from_secs(10), liveness);
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
