//! The body of a request on a client's HTTP/2 stream. The rest that the handler does not read is discarded.
//!
//! A server may respond before it has read the whole request, and then reset the stream with NO_ERROR (RFC 9113
//! section 8.1). But a client that is still sending can take the reset for a failure and lose the response: curl 7.88
//! fails with exit code 92. httpx reads no response before it has sent its body, so it waits forever once its window is
//! empty. Therefore the server continues to read after an early response, as it does on HTTP/1.1 connections, and the
//! stream is reset only when the client does not come to its end within the limits.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::sleep,
};

use crate::wire::body::{
    framing::BodyError,
    h2_data::{H2Content, H2Data},
};

/// How many bytes of a body are discarded if more of it is to come than [`MAX_DECLARED_REST`], or an unknown number.
const MAX_DISCARDED: u64 = 1 << 20;
/// A body of which at most so many bytes are to come, by its `Content-Length`, is discarded to its end. It is enough for
/// most prompts. Clients that send their whole body before they read need it.
const MAX_DECLARED_REST: u64 = 4 << 20;
/// The time for discarding after the end of the response.
const LINGER: Duration = Duration::from_secs(2);
/// The same time while the server shuts down.
const DRAINING_LINGER: Duration = Duration::from_millis(250);

/// The body of a request on an HTTP/2 stream. Its reader and its response share it.
pub(in crate::wire) struct H2RequestBody {
    /// `None` once the body has ended or no more of it is discarded.
    incoming: Mutex<Option<H2Data>>,
    /// Notified once, when the response has ended.
    responded: Notify,
    /// Whether the connection ends after the requests in progress.
    draining: Arc<watch::Sender<bool>>,
}

impl H2RequestBody {
    /// The body `incoming` on a connection that is `draining` or not.
    pub fn new(incoming: Incoming, draining: Arc<watch::Sender<bool>>) -> Arc<Self> {
        Arc::new(Self {
            incoming: Mutex::new(Some(H2Data::new(incoming))),
            responded: Notify::new(),
            draining,
        })
    }

    /// Records that the response has ended. From now on the time for discarding is limited.
    pub fn record_response_end(&self) {
        self.responded.notify_one();
    }

    /// Discards the rest of the body within the limits, and then gives up the stream. If the client has not ended the
    /// stream by then, `h2` resets it with NO_ERROR behind the last frame of the response.
    async fn discard(self: Arc<Self>) {
        tokio::select! {
            () = self.read_rest() => {}
            () = self.linger() => {}
        }
        *self.incoming.lock() = None;
    }

    /// Reads the body until it ends or fails, or until the limit on discarded bytes is reached. Each read lets the client
    /// send as many bytes more.
    async fn read_rest(&self) {
        let mut is_first = true;
        let mut limit = MAX_DISCARDED;
        std::future::poll_fn(|cx| {
            let mut incoming = self.incoming.lock();
            let Some(incoming) = &mut *incoming else {
                return Poll::Ready(());
            };
            if std::mem::take(&mut is_first)
                && let Some(rest) = incoming.exact_length()
                && rest <= MAX_DECLARED_REST
            {
                limit = rest.max(limit);
            }
            while let Poll::Ready(size) = incoming.poll_discard(cx) {
                let Some(size) = size else {
                    return Poll::Ready(());
                };
                limit = limit.saturating_sub(size);
                if incoming.is_end() || limit == 0 {
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        })
        .await;
    }

    /// Waits until the time for discarding has passed.
    async fn linger(&self) {
        self.responded.notified().await;
        let drained = async {
            let mut draining = self.draining.subscribe();
            // The sender cannot be dropped, because this body shares it.
            let _ = draining.wait_for(|is_draining| *is_draining).await;
        };
        tokio::select! {
            () = sleep(LINGER) => {}
            () = async { tokio::join!(sleep(DRAINING_LINGER), drained); } => {}
        }
    }
}

/// The reader of the body for the handler.
pub(in crate::wire) struct H2BodyReader(Arc<H2RequestBody>);

impl H2BodyReader {
    /// The only reader of `body`.
    pub fn new(body: Arc<H2RequestBody>) -> Self {
        Self(body)
    }

    /// Reads the next piece, and whether it is the last one. The client may pause for `idle`.
    pub fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        idle: Duration,
    ) -> Poll<(Option<Result<Bytes, BodyError>>, bool)> {
        let mut incoming = self.0.incoming.lock();
        let Some(body) = &mut *incoming else {
            return Poll::Ready((None, true));
        };
        let piece = std::task::ready!(body.poll_next(H2Content::Allowed, cx, idle));
        let is_end = piece.is_none() || body.is_end();
        if is_end {
            *incoming = None;
        }
        Poll::Ready((piece, is_end))
    }
}

impl Drop for H2BodyReader {
    fn drop(&mut self) {
        let is_unread = self.0.incoming.lock().is_some();
        // Without a runtime the process is about to end.
        if is_unread && let Ok(runtime) = Handle::try_current() {
            runtime.spawn(self.0.clone().discard());
        }
    }
}
