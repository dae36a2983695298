//! The byte stream under a connection: one type for TCP, Unix sockets and TLS on either side.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

use crate::wire::tls::server_stream::ServerTlsStream;

/// The state of the peer's sending side, as far as it is known without reading from the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum PeerState {
    /// There are no bytes to read. The task is woken when that changes.
    Quiet,
    /// There are bytes to read. Until they are read, bytes that arrive after them do not wake the task.
    Unread,
    /// The peer has closed its sending side, perhaps after bytes that are still unread.
    Closed,
}

/// A connected byte stream of any kind.
pub(in crate::wire) enum Transport {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
    /// TLS towards an upstream.
    Tls(Box<TlsStream<TcpStream>>),
    /// TLS towards an upstream, inside of TLS towards a proxy.
    TlsInTls(Box<TlsStream<TlsStream<TcpStream>>>),
    /// TLS towards a client.
    ServerTls(Box<ServerTlsStream>),
}

impl Transport {
    /// Makes the connection end with a TCP reset when it is closed, if the transport has resets.
    pub fn reset_on_close(&self) {
        let tcp = match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::ServerTls(tls) => tls.tcp(),
            Self::Unix(_) | Self::Tls(_) | Self::TlsInTls(_) => None,
        };
        // The call fails only if the peer has already closed the connection.
        let _ = tcp.map(TcpStream::set_zero_linger);
    }

    /// Checks whether the peer has closed its sending side. This needs a system call only when bytes are unread.
    pub fn poll_peer(&self, cx: &mut Context<'_>) -> PeerState {
        match self {
            Self::Tcp(tcp) => poll_tcp_peer(cx, tcp),
            Self::Unix(unix) => poll_peer_readiness(cx, |cx| unix.poll_read_ready(cx), unix.ready(Interest::READABLE)),
            Self::Tls(tls) => poll_tcp_peer(cx, tls.get_ref().0),
            Self::TlsInTls(tls) => poll_tcp_peer(cx, tls.get_ref().0.get_ref().0),
            Self::ServerTls(tls) => match tls.tcp() {
                Some(tcp) => poll_tcp_peer(cx, tcp),
                None => PeerState::Closed,
            },
        }
    }
}

/// Checks a TCP peer. After a read that filled its buffer, tokio still reports the socket as readable. In that case
/// only a peek shows whether there are bytes.
fn poll_tcp_peer(cx: &mut Context<'_>, tcp: &TcpStream) -> PeerState {
    let state = poll_peer_readiness(cx, |cx| tcp.poll_read_ready(cx), tcp.ready(Interest::READABLE));
    if state != PeerState::Unread {
        return state;
    }
    let mut byte = [0];
    match tcp.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
        Poll::Pending => PeerState::Quiet,
        Poll::Ready(Ok(1..)) => PeerState::Unread,
        Poll::Ready(Ok(0) | Err(_)) => PeerState::Closed,
    }
}

/// Polls the readiness of a socket in two ways, because each has a gap: only `ready` distinguishes bytes from a close,
/// and only `poll_read_ready` keeps the task registered after it is polled.
fn poll_peer_readiness(
    cx: &mut Context<'_>,
    poll_read_ready: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<()>>,
    ready: impl Future<Output = io::Result<Ready>>,
) -> PeerState {
    if poll_read_ready(cx).is_pending() {
        return PeerState::Quiet;
    }
    match pin!(ready).poll(cx) {
        Poll::Ready(Ok(ready)) if ready.is_read_closed() => PeerState::Closed,
        _ => PeerState::Unread,
    }
}

/// Calls the same method on the stream inside any variant.
macro_rules! on_transport {
    ($transport:expr, $inner:ident => $call:expr) => {
        match $transport {
            Transport::Tcp($inner) => $call,
            Transport::Unix($inner) => $call,
            Transport::Tls($inner) => $call,
            Transport::TlsInTls($inner) => $call,
            Transport::ServerTls($inner) => $call,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_transport!(self.get_mut(), inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_transport!(self.get_mut(), inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_transport!(self.get_mut(), inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        on_transport!(self, inner => inner.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_transport!(self.get_mut(), inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_transport!(self.get_mut(), inner => Pin::new(inner).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn tcp_pair() -> (Transport, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let far = TcpStream::connect(listener.local_addr().expect("bound"))
            .await
            .expect("it listens");
        let (near, _) = listener.accept().await.expect("a connection");
        (Transport::Tcp(near), far)
    }

    async fn reaches(transport: &Transport, wanted: PeerState) -> bool {
        let reached = poll_fn(|cx| {
            if transport.poll_peer(cx) == wanted {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        tokio::time::timeout(Duration::from_secs(5), reached).await.is_ok()
    }

    #[tokio::test]
    async fn a_tcp_peer_is_quiet_then_unread_then_closed() {
        let (mut near, mut far) = tcp_pair().await;
        assert!(reaches(&near, PeerState::Quiet).await);
        far.write_all(b"xy").await.expect("written");
        assert!(reaches(&near, PeerState::Unread).await);
        // The read fills its buffer, so tokio still reports the socket as readable.
        near.read_exact(&mut [0; 2]).await.expect("read");
        assert!(reaches(&near, PeerState::Quiet).await);
        drop(far);
        assert!(reaches(&near, PeerState::Closed).await);
    }

    #[tokio::test]
    async fn the_close_of_a_unix_peer_is_noticed() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let near = Transport::Unix(near);
        assert!(reaches(&near, PeerState::Quiet).await);
        drop(far);
        assert!(reaches(&near, PeerState::Closed).await);
    }
}
