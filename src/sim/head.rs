//! The head of a request that reached the account.

use http::{HeaderMap, Method};

/// The head of a request that reached the account, as the conditions of rules receive it.
#[derive(Clone, Debug)]
pub struct RecordedHead {
    /// The method of the request.
    pub method: Method,
    /// The path and query as they are in the request line.
    pub target: String,
    /// The headers of the request.
    pub headers: HeaderMap,
    /// The number of the request's connection, counted from 1.
    pub connection: u64,
    /// The number of the request on its connection, counted from 1. A number over 1 means that the connection was
    /// reused.
    pub nth: u64,
}

impl RecordedHead {
    /// Returns the target without its query.
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(self.target.as_str(), |(path, _)| path)
    }

    /// Returns the query without its question mark, or the empty string.
    pub(super) fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }
}
