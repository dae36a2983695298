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
