//! Requests that are refused because their heads cannot be parsed or do not arrive in time.

/// The reason why the head of a request is refused. A connection of HTTP/1.1 is closed after the response. A connection of
/// HTTP/2 stays open, because its frames show where the next request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadRefusal {
    /// The head is not valid HTTP/1.
    BadHead {
        /// What is wrong with the head.
        problem: &'static str,
    },
    /// The head does not define unambiguously where its body ends.
    BadFraming {
        /// What is wrong with the framing, as a predicate of the request.
        problem: &'static str,
    },
    /// The head is longer than allowed, or has too many fields.
    HeadTooLarge,
    /// The head did not arrive in time.
    SlowHead,
}
