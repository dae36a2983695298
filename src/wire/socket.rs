//! One socket type for every transport, with the two time limits that hyper does not have.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Version;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, Sleep},
};
use tokio_rustls::client::TlsStream;

/// What bytes travel over.
pub(super) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A transport whose writes fail once the peer has read nothing for `stall`.
///
/// The timer exists only while a write is blocked, so a peer that keeps up costs nothing.
pub(super) struct Socket {
    transport: Transport,
    stall: Duration,
    blocked: Option<Pin<Box<Sleep>>>,
    activity: Option<Arc<Activity>>,
    arrivals: Option<Arc<Arrivals>>,
    /// The peer reads no more. What it said before is still to be read: an answer that it gave early.
    deaf: bool,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.activity.as_ref().is_some_and(|activity| activity.ends_in_reset())
            && let Transport::Tcp(tcp) = &self.transport
        {
            // An error means that the peer was faster.
            let _ = tcp.set_zero_linger();
        }
    }
}

impl Socket {
    pub(super) fn new(transport: Transport, stall: Duration) -> Self {
        Self {
            transport,
            stall,
            blocked: None,
            activity: None,
            arrivals: None,
            deaf: false,
        }
    }

    /// Reports the arrival of bytes to `activity`.
    pub(super) fn watched(mut self, activity: Arc<Activity>) -> Self {
        self.activity = Some(activity);
        self
    }

    /// Counts the arrival of bytes in `arrivals`.
    pub(super) fn counted(mut self, arrivals: Arc<Arrivals>) -> Self {
        self.arrivals = Some(arrivals);
        self
    }

    /// Swallows what is written to an upstream that has closed its side: the reading side finds out why, and may find
    /// an answer there first.
    fn heard<T>(&mut self, result: Poll<io::Result<T>>, swallowed: T) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match result {
            Poll::Ready(Err(error))
                if self.activity.is_none() && matches!(error.kind(), BrokenPipe | ConnectionReset) =>
            {
                self.deaf = true;
                Poll::Ready(Ok(swallowed))
            }
            result => result,
        }
    }

    /// Turns a blocked write into an error once it has been blocked for too long.
    fn guard<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.blocked = None;
            return result;
        }
        let stall = self.stall;
        let timer = self.blocked.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        self.blocked = None;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads nothing")))
    }
}

/// Calls one method of whichever transport this is.
macro_rules! on_transport {
    ($socket:expr, $inner:ident => $call:expr) => {
        match &mut $socket.transport {
            Transport::Tcp($inner) => $call,
            Transport::Unix($inner) => $call,
            Transport::Tls($inner) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(on_transport!(self, inner => Pin::new(inner).poll_read(cx, buf)))?;
        if self.deaf && buf.filled().len() == before {
            // The failed write has used the error up; this is no orderly end.
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if buf.filled().len() > before {
            if let Some(activity) = &self.activity {
                activity.bytes_arrived();
            }
            if let Some(arrivals) = &self.arrivals {
                arrivals.add();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = on_transport!(self, inner => Pin::new(inner).poll_write(cx, buf));
        let result = self.heard(result, buf.len());
        self.guard(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = on_transport!(self, inner => Pin::new(inner).poll_write_vectored(cx, bufs));
        let result = self.heard(result, bufs.iter().map(|buf| buf.len()).sum());
        self.guard(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Tcp(inner) => inner.is_write_vectored(),
            Transport::Unix(inner) => inner.is_write_vectored(),
            Transport::Tls(inner) => inner.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = on_transport!(self, inner => Pin::new(inner).poll_flush(cx));
        let result = self.heard(result, ());
        self.guard(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = on_transport!(self, inner => Pin::new(inner).poll_shutdown(cx));
        self.guard(cx, result)
    }
}

/// How often bytes have arrived from an upstream: a request whose count has not moved has not been answered at all.
#[derive(Default)]
pub(super) struct Arrivals(AtomicU64);

impl Arrivals {
    /// There is one writer, the socket, so this need not be one operation.
    fn add(&self) {
        self.0.store(self.count().wrapping_add(1), Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a client's connection is doing, so that a slow head and an idle connection have limits of their own.
///
/// One atomic holds it: `BUSY`, or when the present wait began, in milliseconds, with the kind of wait in the lowest bit.
pub(super) struct Activity {
    start: Instant,
    state: AtomicU64,
    /// The answer ends where the connection does, so only a reset tells a broken one from a whole one.
    until_close: AtomicBool,
    broke: AtomicBool,
}

const BUSY: u64 = u64::MAX;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// A request is being handled.
    No,
    /// For the rest of a request head, since this long.
    Head(Duration),
    /// For another request, since this long.
    Request(Duration),
}

impl Activity {
    /// A connection that was just accepted: its first head is due.
    pub(super) fn accepted() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            state: AtomicU64::new(0),
            until_close: AtomicBool::new(false),
            broke: AtomicBool::new(false),
        })
    }

    fn elapsed_millis(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(0)
    }

    fn bytes_arrived(&self) {
        let state = self.state.load(Ordering::Relaxed);
        let waits_for_request = state != BUSY && state & 1 == 1;
        if waits_for_request {
            self.state.store(self.elapsed_millis() << 1, Ordering::Relaxed);
        }
    }

    pub(super) fn request_began(&self, version: Version) {
        self.until_close.store(version == Version::HTTP_10, Ordering::Relaxed);
        self.state.store(BUSY, Ordering::Relaxed);
    }

    pub(super) fn answer_broke(&self) {
        self.broke.store(true, Ordering::Relaxed);
    }

    fn ends_in_reset(&self) -> bool {
        let is_cut = self.broke.load(Ordering::Relaxed) || self.state.load(Ordering::Relaxed) == BUSY;
        is_cut && self.until_close.load(Ordering::Relaxed)
    }

    pub(super) fn request_ended(&self) {
        self.state.store(self.elapsed_millis() << 1 | 1, Ordering::Relaxed);
    }

    pub(super) fn waiting(&self) -> Waiting {
        let state = self.state.load(Ordering::Relaxed);
        if state == BUSY {
            return Waiting::No;
        }
        let since = Duration::from_millis(self.elapsed_millis().saturating_sub(state >> 1));
        if state & 1 == 1 {
            Waiting::Request(since)
        } else {
            Waiting::Head(since)
        }
    }
}
