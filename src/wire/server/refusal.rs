//! Requests that ended before they were any: their heads could not be read.

/// Why a connection is closed on a client that had begun a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The head is no HTTP/1.
    BadHead {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The head does not say where its body ends, or says it twice.
    BadFraming {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The head is longer, or has more fields, than is read.
    HeadTooLarge,
    /// The head did not arrive in time.
    SlowHead,
}
