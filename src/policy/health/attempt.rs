//! A request that was sent to an upstream and has no verdict yet.

use super::status::HealthState;
use crate::{policy::request_class::RequestClass, tick::Tick};

/// A request that was sent to an upstream, with the facts on which the effect of its verdict depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an attempt ends in `Health::observe` or `Health::abandon`; otherwise its probe blocks other probes for a while"]
pub struct Attempt {
    /// When the request was sent.
    pub(super) began: Tick,
    /// The part of the upstream that the request needs.
    pub(super) request: RequestClass,
    /// The state of the upstream that the request probes: ejected, disabled or cooling. `None` for most requests.
    pub(super) probed: Option<HealthState>,
}

impl Attempt {
    /// An attempt on an upstream whose health [is plain](super::Health::is_plain). It equals the result of
    /// [`Health::begin`](super::Health::begin) in that case, but needs no access to the health and so no lock.
    pub fn plain(request: RequestClass, now: Tick) -> Self {
        Self {
            began: now,
            request,
            probed: None,
        }
    }

    /// When the request was sent.
    pub fn began(self) -> Tick {
        self.began
    }

    /// The part of the upstream that the request needs.
    pub fn request(self) -> RequestClass {
        self.request
    }

    /// Whether the request is the probe of an ejected or disabled upstream, whose verdict decides for other requests
    /// whether the upstream works.
    pub fn is_probe(self) -> bool {
        matches!(self.probed, Some(HealthState::Ejected | HealthState::Disabled))
    }

    /// The state of the upstream that the request probes. In addition to the ejected and disabled states, a long cooldown
    /// is probed before its end.
    pub fn probed(self) -> Option<HealthState> {
        self.probed
    }
}
