//! What requests share: the compiled configuration, what outlives it, and the metrics.

mod access;
mod buffers;
mod gateway;
mod metrics;
mod rate_limits;
mod runtime;
mod snapshot;
mod striped;
mod upstream;
mod upstream_state;

pub use access::{Access, ClientKey, Group};
pub use buffers::Shrinking;
pub use gateway::Gateway;
pub use metrics::{
    FailoverReason, Gauge, GroupMetrics, Metrics, ReloadOutcome, RequestLabels, StatusClass, UpstreamMetrics,
};
pub use rate_limits::{Permit, RateLimits};
pub use runtime::{RuntimeState, WaitPermit};
pub use snapshot::{CompileError, Eligibility, Limits, Snapshot};
pub use upstream::{Credential, Upstream};
pub use upstream_state::{Lease, UpstreamState};
