//! A transport below hyper that can be cut at the moment that a script names.
//!
//! Hyper flushes its transport after it has written everything. A body that needs the connection cut after its latest
//! piece arms the [`ConnectionBreaker`] and waits. The next flush comes exactly after that piece, and cuts the
//! connection.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

use super::act::Close;

/// What to do with a connection instead of sending a response.
#[derive(Debug)]
pub(super) enum Takeover {
    /// Send these bytes, then close the connection.
    Raw(Bytes),
    /// Close the connection.
    Close(Close),
}

/// The handle through which a request's handler or body breaks its connection.
#[derive(Default)]
pub(super) struct ConnectionBreaker {
    armed: AtomicU8,
    takeover: Mutex<Option<Takeover>>,
    taken_over: Notify,
}

const UNARMED: u8 = 0;
const FIN: u8 = 1;
const RESET: u8 = 2;

impl ConnectionBreaker {
    /// Cuts the connection as soon as everything that hyper has passed on is written.
    pub(super) fn arm(&self, how: Close) {
        let armed = match how {
            Close::Fin => FIN,
            Close::Reset => RESET,
        };
        self.armed.store(armed, Ordering::Release);
    }

    fn armed(&self) -> Option<Close> {
        match self.armed.load(Ordering::Acquire) {
            UNARMED => None,
            FIN => Some(Close::Fin),
            _ => Some(Close::Reset),
        }
    }

    /// Takes the connection over from hyper at once.
    pub(super) fn take_over(&self, takeover: Takeover) {
        *self.takeover.lock() = Some(takeover);
        self.taken_over.notify_one();
    }

    /// Waits until the connection is taken over.
    pub(super) async fn taken_over(&self) -> Takeover {
        loop {
            self.taken_over.notified().await;
            if let Some(takeover) = self.takeover.lock().take() {
                return takeover;
            }
        }
    }
}

/// A socket with or without TLS.
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

/// Closes a socket in this manner. The caller drops the socket right after.
pub(super) fn close(tcp: &TcpStream, how: Close) {
    // An error here means that the peer has closed the connection first.
    let _ = match how {
        Close::Fin => SockRef::from(tcp).shutdown(Shutdown::Write),
        Close::Reset => tcp.set_zero_linger(),
    };
}

/// The transport that hyper uses.
pub(super) struct BreakableStream {
    socket: Socket,
    breaker: Arc<ConnectionBreaker>,
}

impl BreakableStream {
    pub(super) fn new(socket: Socket, breaker: Arc<ConnectionBreaker>) -> Self {
        Self { socket, breaker }
    }

    /// Closes the connection in the manner of `takeover`.
    pub(super) async fn end(mut self, takeover: Takeover) {
        let how = match takeover {
            Takeover::Close(how) => how,
            Takeover::Raw(bytes) => {
                // The write may fail because the peer has closed the connection. The error has no recipient then.
                let _ = self.write_all(&bytes).await;
                let _ = self.flush().await;
                Close::Fin
            }
        };
        close(self.socket.tcp(), how);
    }
}

impl AsyncRead for BreakableStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Socket::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for BreakableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Socket::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Socket::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Plain(tcp) => tcp.is_write_vectored(),
            Socket::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Socket::Tls(tls) => Pin::new(tls).poll_flush(cx),
        };
        ready!(flushed)?;
        let Some(how) = self.breaker.armed() else {
            return Poll::Ready(Ok(()));
        };
        close(self.socket.tcp(), how);
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Socket::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
