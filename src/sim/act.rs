//! Faults on demand: what can be done to a request, from its first byte to the last of its response.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use super::head::ReceivedHead;

/// How a connection is broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Orderly on TCP's level: what was sent arrives, then the end. Over TLS without `close_notify`.
    Fin,
    /// With a TCP reset; what the kernel has not sent yet is lost.
    Reset,
}

/// How a request's body is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Read {
    /// As fast as it comes.
    #[default]
    Eager,
    /// At most about `bytes` per `every`.
    Slow {
        /// Bytes per interval, at least 1.
        bytes: usize,
        /// The interval.
        every: Duration,
    },
    /// Not at all. With [`ScriptedAnswer::Usual`] there is then no answer either.
    Never,
}

/// A response in a test's own words.
#[derive(Clone, Debug)]
pub struct Fixed {
    /// The status.
    pub status: StatusCode,
    /// Headers beside `content-length`, which hyper sets for a body of one piece.
    pub headers: HeaderMap,
    /// The body: one piece goes with `content-length`, several go chunked at the account's pace.
    pub pieces: Vec<Bytes>,
}

/// The request that [`ScriptedAnswer::Custom`] answers.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its head.
    pub head: ReceivedHead,
    /// Its body as sent.
    pub body: Bytes,
}

/// Makes a response from a request.
pub type CustomAnswer = dyn Fn(&Received) -> Fixed + Send + Sync;

/// What a request is answered with.
#[derive(Clone, Default)]
pub enum ScriptedAnswer {
    /// What the account would say anyway.
    #[default]
    Usual,
    /// What the account would say, with these output items. Missing ids are filled in.
    Items(Vec<Value>),
    /// This response, whatever was asked.
    Fixed(Fixed),
    /// The response that this function makes.
    Custom(Arc<CustomAnswer>),
    /// These bytes instead of a response; then the connection closes.
    Raw(Bytes),
    /// Nothing; the connection closes.
    Close(Close),
    /// Nothing; the connection stays open.
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

/// A place in a response's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// After that many events (pieces, where the response is no stream of events).
    Events(usize),
    /// After that many bytes.
    Bytes(usize),
}

/// What becomes of a connection after a complete response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// It stays open.
    #[default]
    KeepAlive,
    /// It closes as announced with `connection: close`.
    Announced,
    /// It closes unannounced, so that a pooled connection goes stale.
    Silent,
}

/// All that can be done to a request. The default does nothing: what is set is what differs.
#[derive(Clone, Debug, Default)]
pub struct Act {
    /// How the body is read.
    pub read: Read,
    /// Wait between the end of the request and the response's head.
    pub delay: Duration,
    /// The response.
    pub answer: ScriptedAnswer,
    /// Where the response's body is cut off, and how.
    pub cut: Option<(Point, Close)>,
    /// Where the response's body stops, the connection staying open.
    pub stall: Option<Point>,
    /// The body goes out in pieces of at most this many bytes (at least 1), whatever the borders of events.
    pub split: Option<usize>,
    /// The connection's fate.
    pub after: After,
}

impl Act {
    /// Answers with a status and a JSON body.
    pub fn reply(status: StatusCode, json: &Value) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let pieces = vec![Bytes::from(json.to_string())];
        Self::answer(ScriptedAnswer::Fixed(Fixed {
            status,
            headers,
            pieces,
        }))
    }

    /// Answers 200 with these events, each given as its JSON, as the whole stream.
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

    /// Answers as told.
    pub fn answer(answer: ScriptedAnswer) -> Self {
        Self {
            answer,
            ..Self::default()
        }
    }

    /// Cuts the response's body off.
    pub fn cut(at: Point, how: Close) -> Self {
        Self {
            cut: Some((at, how)),
            ..Self::default()
        }
    }

    /// Stops in the middle of the response's body.
    pub fn stall(at: Point) -> Self {
        Self {
            stall: Some(at),
            ..Self::default()
        }
    }

    /// Waits before the response's head.
    pub fn delay(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    /// Adds a response header to an [`ScriptedAnswer::Fixed`]; changes nothing on another.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if let ScriptedAnswer::Fixed(fixed) = &mut self.answer {
            fixed.headers.append(name, value);
        }
        self
    }
}
