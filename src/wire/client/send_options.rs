//! The time limits of a request to an upstream, and whether it may be sent again.

use std::time::Duration;

/// How a request is sent to an upstream.
#[derive(Clone, Copy, Debug)]
pub struct SendOptions {
    /// The maximum time from the end of the request to the response head.
    pub head: Duration,
    /// The maximum pause between two pieces of a body, in either direction.
    pub idle: Duration,
    /// Whether the request may be sent again although the upstream may have begun to process it. Any other request is
    /// sent again only if it is certain that the upstream has not begun it.
    pub is_repeatable: bool,
}
