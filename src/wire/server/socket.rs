//! A client's connection.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::wire::{
    server::activity::Activity,
    timers::write_stall::Stall,
    transport::{PeerSide, Transport},
};

/// How often a client is looked for whose unread bytes hide whether it is there.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A transport that tells its [`Activity`] what happens on it, and closes as that says.
pub(in crate::wire) struct ClientSocket {
    transport: Transport,
    stall: Stall,
    activity: Arc<Activity>,
    look_again: Option<Pin<Box<Sleep>>>,
}

impl ClientSocket {
    pub fn new(transport: Transport, stall: Duration, activity: Arc<Activity>) -> Self {
        Self {
            transport,
            stall: Stall::after(stall),
            activity,
            look_again: None,
        }
    }

    /// Limits a blocked write, and tells of it: bytes that are still to be sent keep a connection from being idle.
    fn guard<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let was_blocked = self.stall.is_blocked();
        let result = self.stall.guard(cx, result);
        match (was_blocked, self.stall.is_blocked()) {
            (false, true) => self.activity.write_blocked(),
            // After an error the bytes stay unsent.
            (true, false) if matches!(result, Poll::Ready(Ok(_))) => self.activity.write_went_on(),
            _ => {}
        }
        result
    }

    /// Whether the client has gone; the task is woken when it goes. Bytes that nobody reads yet may hide it: then
    /// it is looked for again after a while.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        match self.transport.poll_peer(cx) {
            PeerSide::Closed => return true,
            PeerSide::Quiet => self.look_again = None,
            PeerSide::Unread => {
                let timer = self
                    .look_again
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_AGAIN)));
                if timer.as_mut().poll(cx).is_ready() {
                    timer.as_mut().reset(Instant::now() + LOOK_AGAIN);
                    // Registers the task for the new time.
                    let _ = timer.as_mut().poll(cx);
                }
            }
        }
        false
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        if self.activity.ends_in_reset() {
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
