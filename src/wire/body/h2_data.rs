//! The data of an HTTP/2 stream that hyper reads, with a limit on pauses.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::wire::{
    body::framing::{BodyError, response_may_have_body},
    error_cause::root_cause,
    limits::{MAX_TRAILER_BYTES, written_size},
    timers::wait_timeout::WaitTimeout,
};

/// Whether a message may have a body, given its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum H2Content {
    /// The message has a body, which may be empty. Its end is the END_STREAM flag, and nothing else.
    Allowed,
    /// The message has no body, so it is complete with its head.
    Excluded,
}

impl H2Content {
    /// The content of a response with this status to a request with this method.
    pub fn of_response(method: &Method, status: StatusCode) -> Self {
        match response_may_have_body(method, status) {
            true => Self::Allowed,
            false => Self::Excluded,
        }
    }
}

/// Reads the next piece of data, or `None` at the end. The sender may pause for `idle`.
///
/// hyper also reports `None` if the sender has reset the stream with NO_ERROR, or refuses the stream by a `GOAWAY` frame with
/// NO_ERROR, before the end of the message. Such a message is not complete, so it ends in an error here.
///
/// Trailers are dropped. The decisions about the request were made without them, so no recipient after Steadfast may
/// use them (RFC 9110 section 6.5.1).
pub(in crate::wire) fn poll_h2_data(
    incoming: &mut Incoming,
    timeout: &mut WaitTimeout,
    content: H2Content,
    cx: &mut Context<'_>,
    idle: Duration,
) -> Poll<Option<Result<Bytes, BodyError>>> {
    let broken = |why: String| Poll::Ready(Some(Err(BodyError::Broken(why))));
    loop {
        let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) else {
            ready!(timeout.poll(cx, idle));
            return Poll::Ready(Some(Err(BodyError::Idle(idle))));
        };
        timeout.reset();
        match frame {
            None if incoming.is_end_stream() || content == H2Content::Excluded => return Poll::Ready(None),
            None => return broken("the stream was reset with NO_ERROR before the end of the body".to_owned()),
            Some(Err(error)) => return broken(root_cause(&error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => return Poll::Ready(Some(Ok(data))),
                Err(frame) => {
                    let size = frame.trailers_ref().map_or(0, written_size);
                    if size > MAX_TRAILER_BYTES {
                        return broken("the trailers are too long".to_owned());
                    }
                }
            },
        }
    }
}
