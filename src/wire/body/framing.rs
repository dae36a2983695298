//! The framing of bodies: how a body is delimited, whether a response has one, and the reasons why a body can end
//! early.

use std::{fmt, time::Duration};

use http::{HeaderMap, Method, StatusCode, header::CONTENT_LENGTH};

/// How a request body is delimited. The request to the upstream keeps the framing that the client chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// The reasons why a body ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// More than `limit` bytes arrived.
    TooLarge {
        /// The maximum body size in bytes.
        limit: u64,
    },
    /// No piece of the body arrived within this time.
    Idle(Duration),
    /// Fewer than `rate` bytes per second arrived for the time `window`.
    TooSlow {
        /// The minimum rate in bytes per second.
        rate: u32,
        /// The time over which the rate is measured.
        window: Duration,
    },
    /// The body could not be kept in memory.
    NoMemory(MemoryRefusal),
    /// The sender closed the connection, or its framing is invalid. The text says which of these happened.
    Broken(String),
}

/// The reasons why a request body gets no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryRefusal {
    /// The memory for bodies was full for too long.
    Full,
    /// The caller's bodies hold its share of the memory, and other callers wait for memory.
    ShareFull,
    /// The body had to give way to others, because the memory was full.
    Reclaimed,
}

impl fmt::Display for MemoryRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the memory for bodies is full",
            Self::ShareFull => "the caller's share of the memory for bodies is full",
            Self::Reclaimed => "the body had to give way to others",
        })
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "the body is larger than {limit} bytes"),
            Self::Idle(limit) => write!(f, "no piece of the body arrived for {} ms", limit.as_millis()),
            Self::TooSlow { rate, window } => {
                let window = window.as_millis();
                write!(
                    f,
                    "fewer than {rate} bytes of the body per second arrived for {window} ms"
                )
            }
            Self::NoMemory(refusal) => refusal.fmt(f),
            Self::Broken(why) => write!(f, "the body ended early: {why}"),
        }
    }
}

impl std::error::Error for BodyError {}

/// Whether a response may have a body, given the method of its request and its status (RFC 9110 sections 9.3.2 and 15).
pub(in crate::wire) fn response_may_have_body(method: &Method, status: StatusCode) -> bool {
    method != Method::HEAD
        && !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The length of a body that the headers of its message name, in bytes; `None` if they name none.
///
/// # Errors
/// If the headers name the length twice, or not as a plain decimal number. The text is a predicate of the message.
pub(in crate::wire) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => return Ok(None),
        (Some(length), None) => length.as_bytes(),
        (Some(_), Some(_)) => return Err("has Content-Length twice"),
    };
    let number = Some(length)
        .filter(|length| !length.is_empty() && length.iter().all(u8::is_ascii_digit))
        .and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
    number.map(Some).ok_or("has a Content-Length that is not a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_has_a_body_unless_its_method_or_status_excludes_one() {
        for (method, status, expected) in [
            (Method::GET, StatusCode::OK, true),
            (Method::POST, StatusCode::BAD_GATEWAY, true),
            (Method::HEAD, StatusCode::OK, false),
            (Method::GET, StatusCode::NO_CONTENT, false),
            (Method::GET, StatusCode::NOT_MODIFIED, false),
            (Method::GET, StatusCode::CONTINUE, false),
        ] {
            assert_eq!(response_may_have_body(&method, status), expected, "{method} {status}");
        }
    }
}
