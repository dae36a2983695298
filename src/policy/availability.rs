//! The availability of an upstream: whether it can take a request now.

use crate::tick::Tick;

/// Whether an upstream can take a request now, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// The upstream takes the request. The request may be the probe that is due.
    Ready,
    /// All slots are taken, or other requests wait for the free ones. [`Health`](super::Health) knows no slots and never
    /// returns this.
    Full,
    /// The upstream is limited.
    Cooling {
        /// When the limit ends.
        until: Tick,
    },
    /// The upstream does not work.
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
