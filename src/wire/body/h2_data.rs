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

/// The data of a message on an HTTP/2 stream.
///
/// hyper also reports the end of the data if the sender has reset the stream with NO_ERROR, or refuses the stream by a
/// `GOAWAY` frame with NO_ERROR, before the end of the message. Such a message is not complete, so it ends in an error here.
///
/// The data that completes the announced length is held back until the end of the message has arrived. A recipient over
/// HTTP/1.1 takes a message of full length for whole, and would not see that its sender has broken it off.
pub(in crate::wire) struct H2Data {
    incoming: Incoming,
    timeout: WaitTimeout,
    /// The data that is held back. It is boxed, because few senders end a message apart from its data, and a body is as large
    /// as its largest kind.
    held: Option<Box<Bytes>>,
}

impl H2Data {
    pub fn new(incoming: Incoming) -> Self {
        Self {
            incoming,
            timeout: WaitTimeout::default(),
            held: None,
        }
    }

    /// Reads the next piece, or `None` at the end. The sender may pause for `idle`.
    ///
    /// Trailers are dropped. The decisions about the request were made without them, so no recipient after Steadfast may
    /// use them (RFC 9110 section 6.5.1).
    pub fn poll_next(
        &mut self,
        content: H2Content,
        cx: &mut Context<'_>,
        idle: Duration,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        let broken = |why: String| Poll::Ready(Some(Err(BodyError::Broken(why))));
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                ready!(self.timeout.poll(cx, idle));
                return Poll::Ready(Some(Err(BodyError::Idle(idle))));
            };
            self.timeout.reset();
            match frame {
                None if self.incoming.is_end_stream() || content == H2Content::Excluded => {
                    return Poll::Ready(self.held.take().map(|held| Ok(*held)));
                }
                None => return broken("the stream was reset with NO_ERROR before the end of the body".to_owned()),
                Some(Err(error)) => return broken(root_cause(&error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() && self.lacks_only_its_end() => self.held = Some(Box::new(data)),
                    Ok(data) if data.is_empty() && self.held.is_some() => {}
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

    /// Reads and drops data that has arrived, without a limit on pauses. Returns its size, or `None` at the end or after an
    /// error.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        let frame = frame.and_then(Result::ok);
        Poll::Ready(frame.map(|frame| frame.data_ref().map_or(0, |data| data.len() as u64)))
    }

    /// Whether the end of the message has arrived, and all of its data has been read.
    pub fn is_end(&self) -> bool {
        self.held.is_none() && self.incoming.is_end_stream()
    }

    /// The number of bytes that are still to be read, if it is known.
    pub fn exact_length(&self) -> Option<u64> {
        let rest = self.incoming.size_hint().exact()?;
        Some(rest + self.held.as_ref().map_or(0, |held| held.len() as u64))
    }

    /// Whether all announced data has arrived, but not the end of the message.
    fn lacks_only_its_end(&self) -> bool {
        self.incoming.size_hint().exact() == Some(0) && !self.incoming.is_end_stream()
    }
}
