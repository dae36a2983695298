//! The socket of a client's connection, which keeps the connection's [`Activity`] up to date.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
    time::{Instant, Sleep},
};

use crate::wire::{
    server::{activity::Activity, handle::DrainMode, service::Peer},
    timers::write_stall::WriteStall,
    transport::{PeerState, Transport},
};

/// How often a client with unread bytes is checked. Unread bytes hide whether the client has closed the connection.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// A client's connection that is about to be served.
pub(in crate::wire) struct ServedConnection {
    pub socket: ClientSocket,
    pub peer: Peer,
    pub activity: Arc<Activity>,
    /// Completes when the connection is to end, with the manner in which it is to end.
    pub drain: oneshot::Receiver<DrainMode>,
}

/// A connection that begins with the preface of HTTP/2, after HTTP/1.1 has read that.
pub(in crate::wire) struct Http2Preface {
    pub socket: ClientSocket,
    /// The bytes that the client has sent, beginning with the preface.
    pub read: Bytes,
    pub drain: oneshot::Receiver<DrainMode>,
}

/// A transport that records blocked writes in its [`Activity`], and that closes with a reset if the activity requires
/// it.
pub(in crate::wire) struct ClientSocket {
    transport: Transport,
    stall: WriteStall,
    activity: Arc<Activity>,
    /// The timer of the next check; `None` while the client has no unread bytes.
    next_check: Option<Pin<Box<Sleep>>>,
}

impl ClientSocket {
    /// A socket. Its writes fail once the client has read nothing for `stall`.
    pub fn new(transport: Transport, stall: Duration, activity: Arc<Activity>) -> Self {
        Self {
            transport,
            stall: WriteStall::new(stall),
            activity,
            next_check: None,
        }
    }

    /// Limits the time of a blocked write, and records it, because a connection with bytes to send is not idle.
    fn guard<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let was_blocked = self.stall.is_blocked();
        let result = self.stall.guard(cx, result);
        match (was_blocked, self.stall.is_blocked()) {
            (false, true) => self.activity.record_write_blocked(),
            // After an error, the bytes remain unsent.
            (true, false) if matches!(result, Poll::Ready(Ok(_))) => self.activity.record_write_progress(),
            _ => {}
        }
        result
    }

    /// Records that the client of an HTTP/2 connection has sent bytes.
    pub fn record_read(&self) {
        self.activity.record_read();
    }

    /// Whether the client has closed the connection. The task is woken when that happens. Unread bytes may hide the
    /// close. In that case the task is also woken for another check after [`CHECK_PERIOD`].
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> bool {
        match self.transport.poll_peer(cx) {
            PeerState::Closed => return true,
            PeerState::Quiet => self.next_check = None,
            PeerState::Unread => {
                let timer = self
                    .next_check
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(CHECK_PERIOD)));
                if timer.as_mut().poll(cx).is_ready() {
                    timer.as_mut().reset(Instant::now() + CHECK_PERIOD);
                    // This registers the task with the timer. The timer has just been set, so it is pending.
                    let _ = timer.as_mut().poll(cx);
                }
            }
        }
        false
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        if self.activity.must_reset() {
            self.transport.reset_on_close();
        }
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.transport).poll_write(cx, buf);
        self.guard(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.transport).poll_write_vectored(cx, bufs);
        self.guard(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.transport).poll_flush(cx);
        self.guard(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.transport).poll_shutdown(cx);
        self.guard(cx, result)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixStream,
    };

    use super::*;
    use crate::wire::server::activity::ConnectionWait;

    #[tokio::test]
    async fn a_blocked_write_is_recorded_until_the_client_reads() {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        let activity = Activity::accepted();
        let mut socket = ClientSocket::new(Transport::Unix(near), Duration::from_secs(60), activity.clone());
        let waits = || activity.current_wait(Instant::now()) != ConnectionWait::None;
        let piece = vec![b'x'; 1 << 20];
        let blocked = tokio::time::timeout(Duration::from_millis(50), socket.write_all(&piece)).await;
        assert!(blocked.is_err() && !waits());
        assert!(far.read(&mut vec![0; 4 << 20]).await.is_ok_and(|count| count > 0));
        poll_fn(|cx| Pin::new(&mut socket).poll_write(cx, b"x"))
            .await
            .expect("written");
        assert!(waits());
    }
}
