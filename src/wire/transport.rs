//! What bytes travel over: one type for every kind of connection.

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

use crate::wire::tls::server::ServerTls;

/// What is known of the peer without reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum PeerSide {
    /// Nothing is there to be read; the task is woken when that changes.
    Quiet,
    /// Bytes are there to be read. What comes after them wakes nobody until they are.
    Unread,
    /// It has closed its side, perhaps behind bytes that are still unread.
    Closed,
}

/// A connection of any kind.
pub(in crate::wire) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    ServerTls(Box<ServerTls>),
}

impl Transport {
    /// Makes closing a reset, where the transport knows resets.
    pub fn reset_on_close(&self) {
        let tcp = match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::ServerTls(tls) => tls.tcp(),
            Self::Unix(_) | Self::Tls(_) => None,
        };
        // An error means that the peer was faster.
        let _ = tcp.map(TcpStream::set_zero_linger);
    }

    /// Looks whether the peer has closed its side; as a rule without a system call.
    pub fn poll_peer(&self, cx: &mut Context<'_>) -> PeerSide {
        match self {
            Self::Tcp(tcp) => tcp_peer(cx, tcp),
            Self::Unix(unix) => peer_side(cx, |cx| unix.poll_read_ready(cx), unix.ready(Interest::READABLE)),
            Self::Tls(tls) => tcp_peer(cx, tls.get_ref().0),
            Self::ServerTls(tls) => match tls.tcp() {
                Some(tcp) => tcp_peer(cx, tcp),
                None => PeerSide::Closed,
            },
        }
    }
}

/// A read that filled its buffer leaves the socket marked as readable: then only looking tells.
fn tcp_peer(cx: &mut Context<'_>, tcp: &TcpStream) -> PeerSide {
    let side = peer_side(cx, |cx| tcp.poll_read_ready(cx), tcp.ready(Interest::READABLE));
    if side != PeerSide::Unread {
        return side;
    }
    let mut byte = [0];
    match tcp.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
        Poll::Pending => PeerSide::Quiet,
        Poll::Ready(Ok(1..)) => PeerSide::Unread,
        Poll::Ready(Ok(0) | Err(_)) => PeerSide::Closed,
    }
}

/// Only `ready` tells bytes from an end, and only `poll_read_ready` stays registered once polled.
fn peer_side(
    cx: &mut Context<'_>,
    poll_read_ready: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<()>>,
    ready: impl Future<Output = io::Result<Ready>>,
) -> PeerSide {
    if poll_read_ready(cx).is_pending() {
        return PeerSide::Quiet;
    }
    match pin!(ready).poll(cx) {
        Poll::Ready(Ok(ready)) if ready.is_read_closed() => PeerSide::Closed,
        _ => PeerSide::Unread,
    }
}

/// Calls one method of whichever transport this is.
macro_rules! on_transport {
    ($transport:expr, $inner:ident => $call:expr) => {
        match $transport {
            Transport::Tcp($inner) => $call,
            Transport::Unix($inner) => $call,
            Transport::Tls($inner) => $call,
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
