//! The data of an HTTP/2 stream that hyper reads, with a limit on pauses.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;

use crate::wire::{body::framing::BodyError, error_cause::root_cause, timers::wait_timeout::WaitTimeout};

/// Reads the next piece of data, or `None` at the end. The sender may pause for `idle`.
///
/// Trailers are dropped. The decisions about the request were made without them, so no recipient after Steadfast may
/// use them (RFC 9110 section 6.5.1).
pub(in crate::wire) fn poll_h2_data(
    incoming: &mut Incoming,
    timeout: &mut WaitTimeout,
    cx: &mut Context<'_>,
    idle: Duration,
) -> Poll<Option<Result<Bytes, BodyError>>> {
    loop {
        let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) else {
            ready!(timeout.poll(cx, idle));
            return Poll::Ready(Some(Err(BodyError::Idle(idle))));
        };
        timeout.reset();
        match frame {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(BodyError::Broken(root_cause(&error))))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Some(Ok(data)));
                }
            }
        }
    }
}
