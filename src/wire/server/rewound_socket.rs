//! A client's socket from which bytes were read before hyper serves it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::server::socket::ClientSocket;

/// A socket that returns again the first bytes that were read from it.
pub(in crate::wire) struct RewoundSocket {
    /// The bytes that have been read already and are returned first.
    read: Bytes,
    socket: ClientSocket,
}

impl RewoundSocket {
    /// A socket that returns the bytes of `read` first.
    pub fn new(read: Bytes, socket: ClientSocket) -> Self {
        Self { read, socket }
    }
}

impl AsyncRead for RewoundSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let count = self.read.len().min(buf.remaining());
            buf.put_slice(&self.read[..count]);
            self.read.advance(count);
            if self.read.is_empty() {
                // An empty slice would keep the whole buffer alive, which many connections share.
                self.read = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_ready() {
            self.socket.record_read();
        }
        read
    }
}

impl AsyncWrite for RewoundSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixStream,
    };

    use super::*;
    use crate::wire::{server::activity::Activity, transport::Transport};

    #[tokio::test]
    async fn the_bytes_that_were_read_come_first() {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        let socket = ClientSocket::new(Transport::Unix(near), Duration::from_secs(60), Activity::accepted());
        let mut socket = RewoundSocket::new(Bytes::from_static(b"PRI * HTTP"), socket);
        far.write_all(b"/2.0").await.expect("written");
        let mut read = vec![0; 14];
        socket.read_exact(&mut read).await.expect("all bytes");
        assert_eq!(read, b"PRI * HTTP/2.0");
    }
}
