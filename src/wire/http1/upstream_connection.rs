//! An HTTP/1.1 connection to an upstream, which carries one exchange at a time.

use std::task::Context;

use tokio::time::Instant;

use crate::wire::{
    client::socket::UpstreamSocket,
    http1::codec::{read_buffer::ReadBuffer, write_buffer::WriteBuffer},
    timers::wait_timeout::WaitTimeout,
    transport::PeerState,
};

/// A connection to an upstream, between two exchanges or inside one.
pub(in crate::wire) struct UpstreamConnection {
    pub socket: UpstreamSocket,
    pub read_buffer: ReadBuffer,
    pub write_buffer: WriteBuffer,
    pub timeout: WaitTimeout,
    /// Whether the connection has carried an exchange before the current one.
    pub is_reused: bool,
    /// The time after which the connection carries no further exchange. The current one may end.
    pub expires: Instant,
}

impl UpstreamConnection {
    /// A connection that has carried no exchange yet, and that carries none after `expires`.
    pub fn new(socket: UpstreamSocket, expires: Instant) -> Box<Self> {
        Box::new(Self {
            socket,
            read_buffer: ReadBuffer::default(),
            write_buffer: WriteBuffer::default(),
            timeout: WaitTimeout::default(),
            is_reused: false,
            expires,
        })
    }

    /// Whether the connection can carry another exchange, unless it was closed without this side knowing it yet. A
    /// connection cannot be used again after the upstream has closed its side or has sent bytes without a request.
    pub fn is_open(&self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.read_buffer.pending.is_empty() && self.socket.poll_peer(&mut cx) == PeerState::Quiet
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::UnixStream;

    use super::*;
    use crate::wire::transport::Transport;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_connection_is_open_until_the_upstream_closes_or_sends() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let connection = UpstreamConnection::new(
            UpstreamSocket::new(Transport::Unix(near), LIMIT),
            Instant::now() + LIMIT,
        );
        assert!(connection.is_open());
        drop(far);
        let closed = async {
            while connection.is_open() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, closed).await.expect("the close is noticed");
    }
}
