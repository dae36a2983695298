//! Everything that requests and operators share: the snapshot, the runtime state and the metrics of one process.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{CompileError, Metrics, RuntimeState, Snapshot, buffers};
use crate::{
    config::Config,
    tick::Clock,
    wire::{BodyMemory, ConnectionCounts},
};

/// Everything that requests and operators share. There is one per process.
pub struct Gateway {
    /// The current snapshot. It is loaded once per request, so that a request ends with the configuration with which it
    /// began.
    snapshot: ArcSwap<Snapshot>,
    /// The state that outlives a snapshot.
    pub runtime: RuntimeState,
    /// The metrics of all requests together.
    pub metrics: Metrics,
    /// The source of all ticks.
    pub clock: Clock,
    /// The memory for the request bodies of all callers.
    pub body_memory: Arc<BodyMemory>,
    /// Held during a reload, so that reloads run one after the other.
    reloading: Mutex<()>,
    /// The numbers of client connections to the public listeners.
    pub connections: Arc<ConnectionCounts>,
    /// The numbers of client connections to the admin listener.
    pub admin_connections: Arc<ConnectionCounts>,
    is_ready: AtomicBool,
    is_aborting: AtomicBool,
}

impl Gateway {
    /// Compiles `config` and sets up everything around it.
    ///
    /// # Errors
    /// If an upstream cannot be set up; see [`CompileError`].
    pub fn new(config: &Config) -> Result<Arc<Self>, CompileError> {
        let clock = Clock::start();
        let runtime = RuntimeState::new(&config.affinity, config.retry, clock);
        let snapshot = Snapshot::compile(config, &runtime, None)?;
        runtime.apply(&snapshot);
        Ok(Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            runtime,
            metrics: Metrics::default(),
            clock,
            body_memory: BodyMemory::new(buffers::memory_limits(&config.server)),
            reloading: Mutex::default(),
            connections: Arc::default(),
            admin_connections: Arc::default(),
            is_ready: AtomicBool::new(true),
            is_aborting: AtomicBool::new(false),
        }))
    }

    /// Compiles `config` and replaces the current snapshot.
    ///
    /// Running requests end on the snapshot that they began with. Pins, cooldowns and counters survive, and so do the
    /// connections to upstreams whose connection settings have not changed. This function blocks: it may read the
    /// platform's certificates, and it drops pins if the table becomes smaller.
    ///
    /// # Errors
    /// If an upstream cannot be set up. In that case the current snapshot and its limits stay in force.
    pub fn reload(&self, config: &Config) -> Result<(), CompileError> {
        let _one_at_a_time = self.reloading.lock();
        let snapshot = Snapshot::compile(config, &self.runtime, Some(&self.snapshot()))?;
        self.runtime.apply(&snapshot);
        self.snapshot.store(Arc::new(snapshot));
        self.runtime.resize(&config.affinity);
        self.runtime.retries.set_share(config.retry.budget);
        self.runtime.brakes.clear();
        self.body_memory.set_limits(buffers::memory_limits(&config.server));
        Ok(())
    }

    /// Makes a probe due now at every disabled upstream, and ends the brakes of sessions and pools. The caller does this when
    /// the operator has ordered a reload and the configuration has not changed, because the upstreams may accept the same
    /// credential and serve the same requests now.
    pub fn probe_credentials(&self) {
        self.runtime.brakes.clear();
        self.runtime.probe_credentials(&self.snapshot());
    }

    /// The current snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The number of bytes of request bodies that are held in memory.
    pub fn buffered_bytes(&self) -> usize {
        self.body_memory.held()
    }

    /// Whether load balancers may send new requests.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Relaxed)
    }

    /// Makes the readiness probe fail from now on, so that load balancers send no more requests.
    pub fn mark_not_ready(&self) {
        self.is_ready.store(false, Relaxed);
    }

    /// Whether the requests that still run are being aborted, because the grace time of the drain is over.
    pub fn is_aborting(&self) -> bool {
        self.is_aborting.load(Relaxed)
    }

    /// Records that requests which end from now on are aborted by this process.
    pub fn mark_aborting(&self) {
        self.is_aborting.store(true, Relaxed);
    }

    /// Must be called once per second. Ends cooldowns whose time is over, compares the upstreams with each other, drops
    /// the usage and the accounts of client keys that are no longer configured and the failures of sessions that are over, and gives the
    /// retry budget the number of requests.
    pub fn tick_second(&self) {
        let snapshot = self.snapshot();
        for upstream in snapshot.upstreams() {
            upstream.state.end_cooldowns();
        }
        self.runtime.detect_outliers(&snapshot);
        self.runtime.rate_limits.drop_unused();
        self.runtime.body_accounts.drop_unused();
        self.runtime.brakes.drop_forgotten();
        self.runtime.retries.sample();
    }
}
