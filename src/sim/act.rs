//! Scripted behaviour: everything that a script can do to a request, from its first byte to the last byte of its
//! response.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use super::head::RecordedHead;

/// The manner in which a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The connection closes in order at the level of TCP: the bytes that were sent arrive, then the end of the stream.
    /// Over TLS no `close_notify` is sent.
    Fin,
    /// The connection ends with a TCP reset. Bytes that the kernel has not sent yet are lost.
    Reset,
}

/// How the account reads a request's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Read {
    /// The body is read as fast as it arrives.
    #[default]
    Eager,
    /// The body is read slowly: about `bytes` in each interval `every` at most.
    Slow {
        /// The number of bytes per interval, at least 1.
        bytes: usize,
        /// The length of the interval.
        every: Duration,
    },
    /// The body is not read. With [`ScriptedAnswer::Usual`] there is no answer either.
    Never,
}

/// A response that a test writes itself.
#[derive(Clone, Debug)]
pub struct Fixed {
    /// The status of the response.
    pub status: StatusCode,
    /// The headers, except `content-length`, which hyper sets for a body of one piece.
    pub headers: HeaderMap,
    /// The body. One piece is sent with `content-length`; several pieces are sent chunked at the account's pace.
    pub pieces: Vec<Bytes>,
}

/// The request that a [`ScriptedAnswer::Custom`] answers.
#[derive(Clone, Debug)]
pub struct Received {
    /// The head of the request.
    pub head: RecordedHead,
    /// The body of the request as sent.
    pub body: Bytes,
}

/// A function that makes a response from a request.
pub type CustomAnswer = dyn Fn(&Received) -> Fixed + Send + Sync;

/// The answer to a request.
#[derive(Clone, Default)]
pub enum ScriptedAnswer {
    /// The usual answer of the account.
    #[default]
    Usual,
    /// The usual answer of the account with these output items. Missing ids are filled in.
    Items(Vec<Value>),
    /// This response, for every request.
    Fixed(Fixed),
    /// The response that this function returns.
    Custom(Arc<CustomAnswer>),
    /// These bytes instead of a response. Then the connection closes.
    Raw(Bytes),
    /// No answer. The connection closes in this manner.
    Close(Close),
    /// No answer. The connection stays open.
    Never,
}

impl fmt::Debug for ScriptedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Usual => "Usual",
            Self::Items(_) => "Items",
            Self::Fixed(_) => "Fixed",
            Self::Custom(_) => "Custom",
            Self::Raw(_) => "Raw",
            Self::Close(_) => "Close",
            Self::Never => "Never",
        })
    }
}

/// A position in a response's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The position after this many events (or pieces, if the response is not a stream of events).
    Events(usize),
    /// The position after this many bytes.
    Bytes(usize),
}

/// The fate of a connection after a complete response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// The connection stays open.
    #[default]
    KeepAlive,
    /// The connection closes, as `connection: close` announces.
    Announced,
    /// The connection closes without announcement, so a pooled connection becomes stale.
    Silent,
}

/// Everything that a script can do to a request. The default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Act {
    /// How the body of the request is read.
    pub read: Read,
    /// The time between the end of the request and the head of the response.
    pub delay: Duration,
    /// The answer.
    pub answer: ScriptedAnswer,
    /// Where the body of the response is cut off, and how the connection closes there.
    pub cut: Option<(Point, Close)>,
    /// Where the body of the response stops while the connection stays open.
    pub stall: Option<Point>,
    /// The maximum size in bytes (at least 1) of the pieces in which the body is sent. The boundaries of events do not
    /// matter.
    pub split: Option<usize>,
    /// The fate of the connection after the response.
    pub after: After,
    /// How long the background response or the batch that the request begins is in progress; `None` for the account's
    /// [configured](super::SimConfig::background) time.
    pub background: Option<Duration>,
}

impl Act {
    /// Answers with this status and this JSON body.
    pub fn reply(status: StatusCode, json: &Value) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let pieces = vec![Bytes::from(json.to_string())];
        Self::answer(ScriptedAnswer::Fixed(Fixed {
            status,
            headers,
            pieces,
        }))
    }

    /// Answers 200 with a stream of exactly these events, each given as its JSON.
    pub fn events(events: &[Value]) -> Self {
        let headers = HeaderMap::from_iter([(
            CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        )]);
        let event = |data: &Value| {
            format!(
                "event: {}\ndata: {data}\n\n",
                data["type"].as_str().unwrap_or("message")
            )
        };
        let pieces = events.iter().map(|data| Bytes::from(event(data))).collect();
        let status = StatusCode::OK;
        Self::answer(ScriptedAnswer::Fixed(Fixed {
            status,
            headers,
            pieces,
        }))
    }

    /// Answers with `answer`.
    pub fn answer(answer: ScriptedAnswer) -> Self {
        Self {
            answer,
            ..Self::default()
        }
    }

    /// Cuts the body of the response off.
    pub fn cut(at: Point, how: Close) -> Self {
        Self {
            cut: Some((at, how)),
            ..Self::default()
        }
    }

    /// Stops in the middle of the response's body, and keeps the connection open.
    pub fn stall(at: Point) -> Self {
        Self {
            stall: Some(at),
            ..Self::default()
        }
    }

    /// Waits before the head of the response.
    pub fn delay(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    /// Adds a response header to a [`ScriptedAnswer::Fixed`]. It does not change other answers.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if let ScriptedAnswer::Fixed(fixed) = &mut self.answer {
            fixed.headers.append(name, value);
        }
        self
    }
}
