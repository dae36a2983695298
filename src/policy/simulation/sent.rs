//! A request that was sent to a simulated upstream.

use super::upstream::Evidence;
use crate::{
    endpoint::EndpointClass,
    policy::{Attempt, Route, Verdict},
    tick::Tick,
};

/// A request that was sent, and the verdict that it will get.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentRequest {
    pub to: usize,
    pub at: Tick,
    pub route: Route,
    pub attempt: Attempt,
    pub verdict: Verdict,
    pub evidence: Evidence,
    /// The verdict at the end of the stream, if it breaks off.
    pub late: Option<Verdict>,
}

impl SentRequest {
    pub(super) fn is_generation(&self) -> bool {
        self.attempt.request().endpoint == EndpointClass::Generation
    }
}
