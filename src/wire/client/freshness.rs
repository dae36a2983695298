//! The freshness of a pooled connection: how likely it is that the connection is still open.
//!
//! An upstream may close an idle connection at any time, and this side learns of the close only after a while. A
//! request that is written in between fails although nothing is wrong with the request or the upstream.

use std::time::Duration;

use crate::wire::client::send_options::SendOptions;

/// The time after which a closed connection is known to be closed. It covers the time in which the news of the close
/// travels one way, and in which a written request and its answer travel both ways.
pub(in crate::wire) const CLOSE_DETECTION: Duration = Duration::from_secs(1);

/// How likely it is that a connection is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum ConnectionFreshness {
    /// The connection was opened for this request.
    New,
    /// A request is in progress on the connection, or the last request ended within [`CLOSE_DETECTION`]. An HTTP/1.1
    /// connection must also have carried two requests already.
    RecentlyUsed,
    /// The upstream may have closed the connection while it was idle.
    MaybeStale,
}

impl ConnectionFreshness {
    /// Whether a request is sent again on a new connection if this connection turns out to be closed. The upstream may
    /// have begun the request, but that is unlikely on a connection that was idle.
    pub fn may_resend(self, options: SendOptions) -> bool {
        match self {
            Self::New => false,
            Self::RecentlyUsed => options.is_repeatable,
            Self::MaybeStale => true,
        }
    }
}

/// The pooled connections that a request may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum CheckoutPolicy {
    /// Every connection that is not known to be closed.
    AnyOpen,
    /// A connection that is [recently used](ConnectionFreshness::RecentlyUsed), because the body cannot be sent again.
    RecentlyUsedOnly,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_resent_if_the_upstream_has_most_likely_not_begun_it() {
        let options = |is_repeatable| SendOptions {
            head: Duration::ZERO,
            idle: Duration::ZERO,
            is_repeatable,
        };
        for (freshness, is_repeatable, expected) in [
            (ConnectionFreshness::New, true, false),
            (ConnectionFreshness::RecentlyUsed, true, true),
            (ConnectionFreshness::RecentlyUsed, false, false),
            (ConnectionFreshness::MaybeStale, false, true),
        ] {
            assert_eq!(freshness.may_resend(options(is_repeatable)), expected, "{freshness:?}");
        }
    }
}
