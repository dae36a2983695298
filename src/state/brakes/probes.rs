//! The brakes that one request is the probe of.

use crate::policy::brake::Probe;

/// The brakes that one request is the probe of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    pub(super) session: Option<Probe>,
    pub(super) pool: Option<Probe>,
}

impl Probes {
    /// Whether the request is the probe of any brake. Such a request is sent once only.
    pub fn has_any(self) -> bool {
        self.session.is_some() || self.pool.is_some()
    }
}
