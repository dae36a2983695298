//! The freshness of a pooled connection: how likely it is that the connection is still open.
//!
//! An upstream may close an idle connection at any time, and this side learns of the close only after a while. A
//! request that is written in between fails although nothing is wrong with the request or the upstream.

use std::time::Duration;

use crate::wire::{body::replay::Replay, client::send_options::SendOptions};

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
    /// The only request on the HTTP/1.1 connection ended within [`CLOSE_DETECTION`]. Some upstreams close a connection
    /// after its first request without announcing it.
    RecentlyOpened,
    /// The upstream may have closed the connection while it was idle.
    MaybeStale,
}

/// The pooled connections that a request may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum CheckoutPolicy {
    /// Every connection that is not known to be closed, because the request may be sent again.
    AnyOpen,
    /// A connection whose last request ended within [`CLOSE_DETECTION`], because the request may be sent again only if
    /// nothing of it has been sent.
    NotIdle,
    /// A connection that is [recently used](ConnectionFreshness::RecentlyUsed), because the body can be sent only once.
    RecentlyUsedOnly,
}

impl CheckoutPolicy {
    /// Whether a request may use a connection of this freshness.
    pub fn allows(self, freshness: ConnectionFreshness) -> bool {
        match freshness {
            ConnectionFreshness::New | ConnectionFreshness::RecentlyUsed => true,
            ConnectionFreshness::RecentlyOpened => self != Self::RecentlyUsedOnly,
            ConnectionFreshness::MaybeStale => self == Self::AnyOpen,
        }
    }
}

/// Whether a request that has failed can be sent again on a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum Resend {
    /// The upstream has certainly not begun the request.
    Safe,
    /// The connection had most likely been closed before, and a second processing does no harm.
    Harmless,
    /// The upstream may have begun the request, or the request cannot be sent again.
    No,
}

/// What is known of a request that has no response head.
#[derive(Clone, Copy, Debug)]
pub(in crate::wire) struct SendEvidence {
    /// Whether the upstream has certainly not begun the request.
    pub is_unprocessed: bool,
    /// Whether the connection closed within [`CLOSE_DETECTION`] and without a byte of a response.
    pub is_closed: bool,
}

impl SendEvidence {
    /// Whether the request with `body` can be sent again after it has failed on a connection of this freshness.
    pub fn resend(self, body: &Replay, freshness: ConnectionFreshness, options: SendOptions) -> Resend {
        if !body.is_sendable() {
            return Resend::No;
        }
        let was_closed = self.is_closed && freshness != ConnectionFreshness::New;
        match self.is_unprocessed {
            true => Resend::Safe,
            false if was_closed && options.is_repeatable => Resend::Harmless,
            false => Resend::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::body::framing::Framing;

    #[test]
    fn a_request_that_is_not_repeatable_is_sent_again_only_if_it_was_not_processed() {
        let resend = |is_unprocessed, freshness, is_repeatable| {
            let options = SendOptions {
                head: Duration::ZERO,
                idle: Duration::ZERO,
                is_repeatable,
            };
            let is_closed = true;
            let evidence = SendEvidence {
                is_unprocessed,
                is_closed,
            };
            evidence.resend(&Replay::empty(Framing::None), freshness, options)
        };
        for freshness in [ConnectionFreshness::RecentlyUsed, ConnectionFreshness::MaybeStale] {
            assert_eq!(resend(false, freshness, false), Resend::No);
            assert_eq!(resend(false, freshness, true), Resend::Harmless);
            assert_eq!(resend(true, freshness, false), Resend::Safe);
        }
        assert_eq!(resend(false, ConnectionFreshness::New, true), Resend::No);
        assert_eq!(resend(true, ConnectionFreshness::New, false), Resend::Safe);
    }

    #[test]
    fn a_request_that_can_be_lost_uses_no_idle_connection() {
        use ConnectionFreshness::{MaybeStale, New, RecentlyOpened, RecentlyUsed};
        let allowed = |policy: CheckoutPolicy| {
            [New, RecentlyUsed, RecentlyOpened, MaybeStale].map(|freshness| policy.allows(freshness))
        };
        assert_eq!(allowed(CheckoutPolicy::AnyOpen), [true; 4]);
        assert_eq!(allowed(CheckoutPolicy::NotIdle), [true, true, true, false]);
        assert_eq!(allowed(CheckoutPolicy::RecentlyUsedOnly), [true, true, false, false]);
    }
}
