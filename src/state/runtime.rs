//! The state that outlives a snapshot: the state of each upstream, pins, owners, what is known about models, rate limits and
//! the retry budget.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::HeaderValue;
use parking_lot::Mutex;

use super::{
    brakes::Brakes, buffers::BodyAccounts, deferred_charges::DeferredCharges, metrics::GroupMetrics,
    model_knowledge::ModelKnowledge, model_times::ModelTimes, rate_limits::RateLimitTable,
    retry_budget::SharedRetryBudget, upstream_state::UpstreamState,
};
use crate::{
    config,
    ids::UpstreamId,
    policy::{EjectionCap, Owners, Pins},
    tick::Clock,
};

/// The time for which the owner of an object or of an encrypted item is kept: the longest retention of a prompt cache.
const OWNER_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// The time for which an object is not searched for again after no upstream had it.
const ABSENCE: Duration = Duration::from_secs(60);
/// The maximum number of objects whose absence is remembered.
const MAX_ABSENT: usize = 16_384;
/// The maximum number of requests that wait for upstreams. Each of them holds its body and its client's connection.
const MAX_WAITING: usize = 4096;

/// The state that outlives a snapshot. There is one per process.
pub struct RuntimeState {
    /// The upstream that has the prompt cache of each session.
    pub pins: Pins,
    /// The upstream that made each object and encrypted item.
    pub owners: Owners,
    /// The objects and encrypted items, and the sets of them that one request named, that no upstream had when they were
    /// searched for lately. Each has the upstream that was asked first. An owner that is recorded later counts more.
    pub absent: Owners,
    /// The retry budget. It limits how many requests may be sent again.
    pub retries: SharedRetryBudget,
    /// The brakes of sessions and pools whose requests fail at every upstream.
    pub brakes: Brakes,
    /// The usage of the limits of client keys.
    pub rate_limits: RateLimitTable,
    /// The request bodies in memory, by the callers that sent them.
    pub body_accounts: BodyAccounts,
    /// The charges of responses that are being made in the background.
    pub deferred_charges: DeferredCharges,
    /// What is known about the models of each account.
    pub models: ModelKnowledge,
    /// The typical time to the first output of each model at all upstreams.
    pub model_times: ModelTimes,
    /// Whether any upstream is slower than the others, by the latest comparison.
    pub(super) has_slow_upstream: AtomicBool,
    /// The number of [`WaitPermit`]s that are in use.
    waiting: Arc<AtomicUsize>,
    /// The marker of this gateway on the requests that it sends: a random id of 16 hexadecimal digits.
    pub(super) hop: HeaderValue,
    pub(super) clock: Clock,
    /// Bounds how many upstreams are ejected at the same time.
    pub(super) ejections: Arc<Mutex<EjectionCap>>,
    /// The state of each upstream by its id. Upstreams that a reload has removed stay here, so that their counts are
    /// kept.
    upstreams: Mutex<HashMap<UpstreamId, Arc<UpstreamState>>>,
    /// The metrics of each group by its name. Groups that a reload has removed stay here, so that their counts are
    /// kept.
    groups: Mutex<HashMap<Arc<str>, Arc<GroupMetrics>>>,
}

/// The permission of one request to wait for an upstream. Dropping it gives it back.
pub struct WaitPermit(Arc<AtomicUsize>);

impl Drop for WaitPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl RuntimeState {
    /// Makes empty tables of the configured sizes.
    pub fn new(affinity: &config::AffinitySettings, retry: config::RetrySettings, clock: Clock) -> Self {
        Self {
            pins: Pins::new(affinity.capacity, affinity.idle),
            owners: Owners::new(affinity.capacity, OWNER_RETENTION),
            absent: Owners::new(MAX_ABSENT, ABSENCE),
            retries: SharedRetryBudget::new(retry.budget, clock),
            brakes: Brakes::new(clock),
            rate_limits: RateLimitTable::new(clock),
            body_accounts: BodyAccounts::default(),
            deferred_charges: DeferredCharges::default(),
            models: ModelKnowledge::default(),
            model_times: ModelTimes::default(),
            has_slow_upstream: AtomicBool::new(false),
            waiting: Arc::default(),
            hop: HeaderValue::try_from(format!("{:016x}", fastrand::u64(..)))
                .expect("digits are valid in a header value"),
            clock,
            ejections: Arc::new(Mutex::new(EjectionCap::new(0, 0.0))),
            upstreams: Mutex::default(),
            groups: Mutex::default(),
        }
    }

    /// Changes the sizes of the tables. Entries that do not fit are dropped, the least recently used first.
    pub(super) fn resize(&self, affinity: &config::AffinitySettings) {
        self.pins.resize(affinity.capacity, affinity.idle);
        self.owners.resize(affinity.capacity, OWNER_RETENTION);
    }

    /// Returns the state of the upstream `id`, which is new if the upstream was never configured before.
    pub(super) fn upstream_state_or_new(&self, id: UpstreamId, name: &Arc<str>) -> Arc<UpstreamState> {
        let mut upstreams = self.upstreams.lock();
        let state = upstreams.entry(id);
        state
            .or_insert_with(|| UpstreamState::new(name, self.clock, &self.ejections))
            .clone()
    }

    /// Returns the state of the upstream `id`, if it was ever configured.
    pub fn upstream_state(&self, id: UpstreamId) -> Option<Arc<UpstreamState>> {
        self.upstreams.lock().get(&id).cloned()
    }

    /// Returns the state of every upstream that was ever configured.
    pub(super) fn upstream_states(&self) -> Vec<Arc<UpstreamState>> {
        self.upstreams.lock().values().cloned().collect()
    }

    /// Returns the metrics of the group called `name`, which are new if the group was never configured before.
    pub(super) fn group_metrics_or_new(&self, name: &Arc<str>) -> Arc<GroupMetrics> {
        self.groups.lock().entry(name.clone()).or_default().clone()
    }

    /// Returns the name and the metrics of every group that was ever configured.
    pub(super) fn group_metrics(&self) -> Vec<(Arc<str>, Arc<GroupMetrics>)> {
        let groups = self.groups.lock();
        groups
            .iter()
            .map(|(name, metrics)| (name.clone(), metrics.clone()))
            .collect()
    }

    /// The number of requests that wait for an upstream.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Returns the permission to wait, unless too many requests wait already.
    pub fn wait_permit(&self) -> Option<WaitPermit> {
        let more = |waiting| (waiting < MAX_WAITING).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(WaitPermit(self.waiting.clone()))
    }
}
