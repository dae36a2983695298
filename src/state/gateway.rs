//! Everything that requests and operators share: the snapshot, the runtime state and the metrics of one process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{CompileError, Metrics, RuntimeState, Shrinking, Snapshot, buffers::Buffers, metrics};
use crate::{config::Config, tick::Clock};

/// Everything that requests and operators share. There is one in a process.
pub struct Gateway {
    /// Loaded once a request: a request ends on the configuration that it began with.
    snapshot: ArcSwap<Snapshot>,
    /// What outlives a snapshot.
    pub runtime: RuntimeState,
    /// The metrics.
    pub metrics: Metrics,
    /// Where ticks come from.
    pub clock: Clock,
    /// One permit for each byte of request body that may be held.
    pub buffers: Arc<Semaphore>,
    room: Buffers,
    reloading: Mutex<()>,
    /// Open client connections.
    pub connections: Arc<AtomicUsize>,
    ready: AtomicBool,
    cutting: AtomicBool,
}

impl Gateway {
    /// Compiles `config` and sets up everything around it.
    ///
    /// # Errors
    /// When an upstream cannot be set up; see [`CompileError`].
    pub fn new(config: &Config) -> Result<Arc<Self>, CompileError> {
        let metrics = Metrics::new();
        let clock = Clock::start();
        let runtime = RuntimeState::new(&config.affinity, config.retry, clock);
        let snapshot = Snapshot::compile(config, &runtime, &metrics, None)?;
        snapshot.take_effect();
        let room = Buffers::new(&config.server);
        Ok(Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            runtime,
            metrics,
            clock,
            buffers: room.permits().clone(),
            room,
            reloading: Mutex::default(),
            connections: Arc::default(),
            ready: AtomicBool::new(true),
            cutting: AtomicBool::new(false),
        }))
    }

    /// Compiles `config` and lets it take over. Requests that run end on the configuration that they began with; pins, cooldowns,
    /// counts, and the connections to upstreams that are reached as before, go on. Blocks for as long as it takes to
    /// read the platform's certificates, and to drop pins where there may be fewer from now on.
    ///
    /// Returns the room for bodies that is yet to be given up, where there was more of it.
    ///
    /// # Errors
    /// When an upstream cannot be set up; then nothing has changed.
    pub fn reload(&self, config: &Config) -> Result<Option<Shrinking>, CompileError> {
        let _alone = self.reloading.lock();
        let snapshot = Snapshot::compile(config, &self.runtime, &self.metrics, Some(&self.snapshot()))?;
        snapshot.take_effect();
        self.snapshot.store(Arc::new(snapshot));
        self.runtime.resize(&config.affinity);
        self.runtime.retries.lock().set_share(config.retry.budget);
        Ok(self.room.resize(&config.server))
    }

    /// The operator has read the configuration again, though it is the same: a credential that was refused may be good now.
    pub fn reprobe(&self) {
        for upstream in self.snapshot().upstreams() {
            upstream.state.reloaded();
        }
    }

    /// The configuration of this moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Bytes of request bodies held at this moment; while a reload makes the room smaller, at most this many.
    pub fn buffered_bytes(&self) -> usize {
        self.room.held()
    }

    /// Whether new requests are welcome.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Whether what still runs is being cut.
    pub fn is_cutting(&self) -> bool {
        self.cutting.load(Ordering::Relaxed)
    }

    /// What ends from now on was cut by us.
    pub fn cut(&self) {
        self.cutting.store(true, Ordering::Relaxed);
    }

    /// Tells load balancers to send no more.
    pub fn leave(&self) {
        self.ready.store(false, Ordering::Relaxed);
    }

    /// What has to be done each second: what is over is forgotten and said, and the retry budget hears of the requests.
    pub fn settle(&self) {
        for upstream in self.snapshot().upstreams() {
            upstream.state.settle();
        }
        let requests = self.metrics.forwarded();
        self.runtime.rate_limits.forget_unused();
        self.runtime.retries.lock().sample(self.clock.now(), requests);
    }

    /// The metrics in Prometheus' text format, with the gauges of this moment.
    pub fn scrape(&self) -> String {
        let now = self.clock.now();
        let snapshot = self.snapshot();
        let upstreams = snapshot.upstreams().iter().map(|upstream| {
            let status = upstream.state.status();
            let cooldown = status.until.map_or(Duration::ZERO, |until| until.since(now));
            (&*upstream.name, status.state, cooldown)
        });
        self.metrics.show_upstreams(upstreams);
        self.metrics.scrape(&[
            (metrics::Level::Pins, self.runtime.pins.len()),
            (metrics::Level::Connections, self.connections.load(Ordering::Relaxed)),
            (metrics::Level::BufferedBytes, self.buffered_bytes()),
            (metrics::Level::Waiting, self.runtime.waiting()),
        ])
    }
}
