//! The data that requests share: the compiled configuration, the state that outlives it, and the metrics.
//!
//! - [`Snapshot`] is the configuration, compiled and immutable, with its [`Upstream`]s and its [`Access`] rules.
//! - [`RuntimeState`] outlives snapshots: the [`UpstreamState`] of each upstream, pins, owners, [`ModelKnowledge`],
//!   [`RateLimits`], [`DeferredCharges`], [`Brakes`] and the retry budget. Numbers that steer requests are counted here.
//! - [`Eligibility`] is the set of upstreams that may serve one request, by the snapshot and by what is known about models.
//! - [`Metrics`] are the numbers for operators. No decision reads them.
//! - [`Gateway`] holds all of them. There is one per process.
//!
//! `compiled_pool` compiles the upstreams of a snapshot, `apply` applies a new snapshot to the runtime state, `outliers`
//! compares the upstreams with each other, `buffers` has the accounts of the callers that share the memory for request
//! bodies, `confidential` finds an upstream's credentials in its answers, and `scrape` writes the metrics and the numbers of
//! the moment for Prometheus. `metrics` explains how to add a metric.

mod access;
mod apply;
mod base_query;
mod brakes;
mod buffers;
mod compiled_pool;
mod confidential;
mod deferred_charges;
mod eligibility;
mod gateway;
mod metrics;
mod model_knowledge;
mod model_times;
mod outliers;
mod rate_limits;
mod retry_budget;
mod runtime;
mod scrape;
mod snapshot;
mod striped;
mod upstream;
mod upstream_state;

pub use access::{Access, ClientKey, Group};
pub use base_query::BaseQuery;
pub use brakes::{
    BrakeAdmission, BrakeKeys, BrakeKind, BrakeRefusal, Brakes, ClassSession, PoolKey, Probes, SessionAge,
};
pub use buffers::BodyAccounts;
pub use compiled_pool::CompileError;
pub use confidential::Confidential;
pub use deferred_charges::DeferredCharges;
pub use eligibility::Eligibility;
pub use gateway::Gateway;
pub use metrics::{
    Counter, FailoverReason, GroupMetrics, Histogram, LabelSet, Metrics, NoLabels, ReloadOutcome, RequestLabels,
    StatusClass, TokenCounter, UpstreamMetrics,
};
pub use model_knowledge::{ConfiguredAccount, ModelKnowledge};
pub use model_times::ModelTimes;
pub use rate_limits::{DeferredCharge, Permit, RateLimitTable, RateLimits};
pub use retry_budget::SharedRetryBudget;
pub use runtime::{RuntimeState, WaitPermit};
pub use snapshot::{RequestLimits, Snapshot, WebPageRules};
pub use upstream::{Credential, Upstream};
pub use upstream_state::{Lease, UpstreamState, WithheldFailure};
