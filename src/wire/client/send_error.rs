//! The reasons why a request to an upstream has no response head.

use std::{error::Error, fmt, io, time::Duration};

use crate::wire::{body::framing::BodyError, client::dial::DialError, error_cause::root_cause};

/// The reasons why a request to an upstream has no response head.
#[derive(Debug)]
pub enum SendError {
    /// No connection could be opened.
    Dial(DialError),
    /// The upstream sent no response head within this time.
    Timeout(Duration),
    /// The request body ended early. The upstream is not at fault.
    Body(BodyError),
    /// The upstream closed the connection, or its response is not valid HTTP. The text says which of these happened.
    Broken(String),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::Timeout(limit) => write!(f, "no response head within {} ms", limit.as_millis()),
            Self::Body(error) => error.fmt(f),
            Self::Broken(why) => write!(f, "the connection broke: {why}"),
        }
    }
}

impl Error for SendError {}

impl From<&hyper::Error> for SendError {
    fn from(error: &hyper::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(body) = error.downcast_ref::<BodyError>() {
                return Self::Body(body.clone());
            }
            cause = error.source();
        }
        Self::Broken(root_cause(error))
    }
}

/// Whether the error means that an HTTP/2 upstream has not processed the request, so that it can be sent again in any
/// case (RFC 9113 section 8.7): the upstream has refused the stream, or the last stream in its `GOAWAY` frame came before
/// this one. The h2 library reports a `GOAWAY` frame only to the streams after that last one.
pub(in crate::wire) fn is_unprocessed(error: &hyper::Error) -> bool {
    let h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    h2.is_some_and(|error| {
        let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (is_refused || error.is_go_away())
    })
}

/// Whether the error means that the connection was closed, as opposed to a violation of the protocol.
pub(in crate::wire) fn is_closed(error: &hyper::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let is_reset = io.is_some_and(|io| {
        matches!(
            io.kind(),
            BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected
        )
    });
    is_reset || error.is_incomplete_message() || error.is_canceled() || error.is_closed()
}
