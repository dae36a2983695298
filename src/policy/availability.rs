//! The availability of an upstream: whether it can take a request now.

use super::verdict::LimitCause;
use crate::tick::Tick;

/// Whether an upstream can take a request now, and the reason if it cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// The upstream takes the request. The request may be the probe that is due.
    Ready,
    /// All slots are taken, or other requests wait for the free ones. [`Health`](super::Health) has no knowledge of
    /// slots and never returns this value.
    Full,
    /// The upstream has reached a limit.
    Cooling {
        /// When the limit ends.
        until: Tick,
        /// The kind of the limit.
        cause: LimitCause,
    },
    /// The upstream failed several times in a row, or more often than the others.
    Ejected {
        /// The earliest moment for the next probe.
        until: Tick,
    },
    /// The upstream refused its credential.
    Disabled {
        /// The earliest moment for the next probe.
        until: Tick,
    },
    /// The operator has ordered the upstream to take no requests.
    Draining,
}
