//! Requests that ended before they were any: their heads could not be read.

/// Why a connection was closed on a client that had begun a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The head is no HTTP/1, or contradicts itself about the body's length.
    BadHead,
    /// The head is longer, or has more fields, than is read.
    HeadTooLarge,
    /// The head did not arrive in time.
    SlowHead,
    /// The client speaks HTTP/2, which is not spoken here.
    Http2,
}

impl Refusal {
    /// Why hyper gave a connection up, where that was for a request's head.
    pub(super) fn of(error: &hyper::Error) -> Option<Self> {
        if error.is_parse_too_large() {
            Some(Self::HeadTooLarge)
        } else if error.is_parse_version_h2() {
            Some(Self::Http2)
        } else {
            error.is_parse().then_some(Self::BadHead)
        }
    }

    /// The status that the client was sent, if any.
    pub fn status(self) -> Option<u16> {
        match self {
            Self::BadHead => Some(400),
            Self::HeadTooLarge => Some(431),
            Self::SlowHead | Self::Http2 => None,
        }
    }

    /// A stable word for it.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadHead => "bad_head",
            Self::HeadTooLarge => "head_too_large",
            Self::SlowHead => "slow_head",
            Self::Http2 => "http2",
        }
    }
}
