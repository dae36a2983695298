//! The head of a request that reached the account.

use http::{HeaderMap, Method};

/// A request's head, as rules see it.
#[derive(Clone, Debug)]
pub struct ReceivedHead {
    /// The method.
    pub method: Method,
    /// Path and query as they stood in the request line.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
    /// Which connection it came on, counted from 1.
    pub connection: u64,
    /// Which request of that connection it is, counted from 1: over 1 means that the connection was reused.
    pub nth: u64,
}

impl ReceivedHead {
    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(self.target.as_str(), |(path, _)| path)
    }
}
