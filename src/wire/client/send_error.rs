//! Why there is no response head.

use std::{error::Error, fmt, io, time::Duration};

use crate::wire::{
    body::relay::BodyError,
    client::dial::{DialError, root_cause},
};

/// Why there is no response head.
#[derive(Debug)]
pub enum SendError {
    /// No connection came about.
    Dial(DialError),
    /// The upstream sent no head in time.
    Timeout(Duration),
    /// The request body ended before its end; the upstream did nothing wrong.
    Body(BodyError),
    /// The upstream closed the connection, or answered something that is not HTTP.
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
        Self::Broken(without_debug_data(root_cause(error)))
    }
}

/// Drops what an upstream says in HTTP/2's last frame (the debug data of `GOAWAY`, RFC 9113 section 6.8): it may quote the
/// request. The library shows it behind the reason, as a literal of bytes in parentheses.
fn without_debug_data(mut text: String) -> String {
    if let Some(at) = text.find(" (b\"") {
        text.truncate(at);
    }
    text
}

/// Whether the connection was closed, rather than used for something that is not HTTP.
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
