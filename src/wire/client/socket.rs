//! The socket of a connection to an upstream.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::{
    timers::write_stall::WriteStall,
    transport::{PeerState, Transport},
};

/// A transport to an upstream. If the upstream responds early and closes the connection, its response can still be
/// read.
pub(in crate::wire) struct UpstreamSocket {
    transport: Transport,
    stall: WriteStall,
    reads: Arc<ReadCounter>,
    /// Whether a write has failed because the upstream has closed its receiving side.
    is_write_closed: bool,
    /// Whether a byte may have been sent since [`begin_request`](Self::begin_request).
    may_have_sent: bool,
}

impl UpstreamSocket {
    /// A socket. Its writes fail once the upstream has read nothing for `stall`.
    pub fn new(transport: Transport, stall: Duration) -> Self {
        Self {
            transport,
            stall: WriteStall::new(stall),
            reads: Arc::default(),
            is_write_closed: false,
            may_have_sent: false,
        }
    }

    /// Counts the reads that returned bytes.
    pub fn reads(&self) -> Arc<ReadCounter> {
        self.reads.clone()
    }

    /// Marks that the bytes written from now on belong to a new request.
    pub fn begin_request(&mut self) {
        self.may_have_sent = false;
    }

    /// Whether the upstream may have received a byte of the current request. It has certainly received none if the system
    /// has accepted none. A byte that was accepted counts as received, because the upstream may have read it even if the
    /// connection was reset before it was acknowledged.
    pub fn may_have_sent(&self) -> bool {
        self.may_have_sent
    }

    /// Records the result of a write. A failed write to TLS may have sent records before it failed.
    fn record_write(&mut self, result: &Poll<io::Result<usize>>) {
        self.may_have_sent |= match result {
            Poll::Ready(Ok(count)) => *count > 0,
            Poll::Ready(Err(_)) => !matches!(self.transport, Transport::Tcp(_) | Transport::Unix(_)),
            Poll::Pending => false,
        };
    }

    /// Returns what is known of the upstream's sending side without reading.
    pub fn poll_peer(&self, cx: &mut Context<'_>) -> PeerState {
        self.transport.poll_peer(cx)
    }

    /// Turns the error of a write to a closed connection into a success with `discarded` bytes. The next read shows why
    /// the connection is closed, and may return a complete response before that.
    fn ignore_close<T>(&mut self, result: Poll<io::Result<T>>, discarded: T) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match result {
            Poll::Ready(Err(error)) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {
                self.is_write_closed = true;
                Poll::Ready(Ok(discarded))
            }
            result => result,
        }
    }
}

impl AsyncRead for UpstreamSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.reads.increment();
        } else if self.is_write_closed {
            // The system reports a reset only once, and the failed write has consumed it. So this is not an orderly end.
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for UpstreamSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.transport).poll_write(cx, buf);
        self.record_write(&result);
        let result = self.ignore_close(result, buf.len());
        self.stall.guard(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.transport).poll_write_vectored(cx, bufs);
        self.record_write(&result);
        let result = self.ignore_close(result, bufs.iter().map(|buf| buf.len()).sum());
        self.stall.guard(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.transport).poll_flush(cx);
        let result = self.ignore_close(result, ());
        self.stall.guard(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.transport).poll_shutdown(cx);
        self.stall.guard(cx, result)
    }
}

/// The number of reads on a connection that returned bytes. While the number does not change, no response has begun.
#[derive(Default)]
pub(in crate::wire) struct ReadCounter(AtomicU64);

impl ReadCounter {
    /// Adds one. A load and a store are enough, because only the socket writes the counter.
    fn increment(&self) {
        self.0.store(self.count().wrapping_add(1), Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixStream,
    };

    use super::*;

    #[tokio::test]
    async fn an_early_response_can_be_read_after_a_failed_write() {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        let mut socket = UpstreamSocket::new(Transport::Unix(near), Duration::from_secs(60));
        far.write_all(b"HTTP/1.1 413").await.expect("written");
        drop(far);
        socket.write_all(b"body").await.expect("the error is ignored");
        let mut read = vec![0; 64];
        assert_eq!(socket.read(&mut read).await.expect("the response"), 12);
        assert_eq!(socket.reads().count(), 1);
        let error = socket.read(&mut read).await.expect_err("no orderly end");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
