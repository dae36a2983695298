//! What outlives a snapshot: what each upstream is doing, where sessions are pinned, and who owns which state.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{metrics::Metrics, rate_limits::RateLimitTable, upstream_state::UpstreamState};
use crate::{
    config,
    ids::UpstreamId,
    policy::{Owners, Pins, RetryBudget},
    tick::Clock,
};

/// How long it is remembered who owns a response or an encrypted item: as long as the longest prompt cache retention.
const OWNED_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How many requests may wait for their upstreams: each holds its body and its client's connection.
const WAITING: usize = 4096;

/// What outlives a snapshot.
pub struct RuntimeState {
    /// Session → the upstream where its cache is.
    pub pins: Pins,
    /// Response id or encrypted item → the upstream that made it.
    pub owners: Owners,
    /// How many requests may be sent once more.
    pub retries: Mutex<RetryBudget>,
    /// What client keys have used.
    pub rate_limits: RateLimitTable,
    waiting: Arc<AtomicUsize>,
    clock: Clock,
    upstreams: Mutex<HashMap<UpstreamId, Arc<UpstreamState>>>,
}

/// The permission to wait; given back when it is dropped.
pub struct WaitPermit(Arc<AtomicUsize>);

impl Drop for WaitPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl RuntimeState {
    /// Empty tables, as large as configured.
    pub fn new(affinity: &config::AffinitySettings, retry: config::RetrySettings, clock: Clock) -> Self {
        Self {
            pins: Pins::new(affinity.capacity, affinity.idle),
            owners: Owners::new(affinity.capacity, OWNED_FOR),
            retries: Mutex::new(RetryBudget::new(retry.budget)),
            rate_limits: RateLimitTable::new(clock),
            waiting: Arc::default(),
            clock,
            upstreams: Mutex::default(),
        }
    }

    /// Makes the tables as large as configured; what does not fit is forgotten, the longest unused first.
    pub fn resize(&self, affinity: &config::AffinitySettings) {
        self.pins.resize(affinity.capacity, affinity.idle);
        self.owners.resize(affinity.capacity, OWNED_FOR);
    }

    /// What the upstream called `name` is doing, whichever snapshot asks.
    pub fn state(&self, id: UpstreamId, name: &Arc<str>, metrics: &Metrics) -> Arc<UpstreamState> {
        let mut upstreams = self.upstreams.lock();
        upstreams
            .entry(id)
            .or_insert_with(|| UpstreamState::new(name, metrics.upstream(name), self.clock))
            .clone()
    }

    /// What the upstream `id` is doing, if it ever was configured.
    pub fn find(&self, id: UpstreamId) -> Option<Arc<UpstreamState>> {
        self.upstreams.lock().get(&id).cloned()
    }

    /// Requests that wait for an upstream at this moment.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// The permission to wait, while there are not too many who do.
    pub fn wait_permit(&self) -> Option<WaitPermit> {
        let more = |waiting| (waiting < WAITING).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(WaitPermit(self.waiting.clone()))
    }
}
