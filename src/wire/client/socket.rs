//! A connection to an upstream.

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
    timers::write_stall::Stall,
    transport::{PeerSide, Transport},
};

/// A transport whose peer may answer early and close: what it said stays to be read.
pub(in crate::wire) struct UpstreamSocket {
    transport: Transport,
    stall: Stall,
    arrivals: Arc<Arrivals>,
    /// The peer reads no more. What it said before is still to be read: an answer that it gave early.
    deaf: bool,
}

impl UpstreamSocket {
    pub fn new(transport: Transport, stall: Duration) -> Self {
        Self {
            transport,
            stall: Stall::after(stall),
            arrivals: Arc::default(),
            deaf: false,
        }
    }

    /// What counts the bytes that arrive.
    pub fn arrivals(&self) -> Arc<Arrivals> {
        self.arrivals.clone()
    }

    /// What is known of the upstream without reading.
    pub fn poll_peer(&self, cx: &mut Context<'_>) -> PeerSide {
        self.transport.poll_peer(cx)
    }

    /// Swallows what is written to an upstream that has closed its side: the reading side finds out why, and may find
    /// an answer there first.
    fn heard<T>(&mut self, result: Poll<io::Result<T>>, swallowed: T) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match result {
            Poll::Ready(Err(error)) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {
                self.deaf = true;
                Poll::Ready(Ok(swallowed))
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
            self.arrivals.add();
        } else if self.deaf {
            // The failed write has used the error up; this is no orderly end.
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for UpstreamSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.transport).poll_write(cx, buf);
        let result = self.heard(result, buf.len());
        self.stall.guard(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.transport).poll_write_vectored(cx, bufs);
        let result = self.heard(result, bufs.iter().map(|buf| buf.len()).sum());
        self.stall.guard(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.transport).poll_flush(cx);
        let result = self.heard(result, ());
        self.stall.guard(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.transport).poll_shutdown(cx);
        self.stall.guard(cx, result)
    }
}

/// How often bytes have arrived from an upstream: a request whose count has not moved has not been answered at all.
#[derive(Default)]
pub(in crate::wire) struct Arrivals(AtomicU64);

impl Arrivals {
    /// There is one writer, the socket, so this need not be one operation.
    fn add(&self) {
        self.0.store(self.count().wrapping_add(1), Ordering::Relaxed);
    }

    pub(in crate::wire) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
