//! What requests share: the compiled configuration, what outlives it, and the metrics.

mod live;
mod meter;
mod roster;
mod snapshot;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

pub use live::{Lease, Live};
pub use meter::{Endpoint, FailoverReason, Gauge, Meter, RequestLabels, StatusClass, UpstreamMeter};
pub use roster::{Patient, Roster};
pub use snapshot::{CompileError, Credential, Eligibility, Limits, Snapshot, Upstream};

use crate::{config::Config, tick::Clock};

/// Everything that requests and operators share. There is one in a process.
pub struct House {
    /// Loaded once a request: a request ends on the configuration that it began with.
    snapshot: ArcSwap<Snapshot>,
    /// What outlives a snapshot.
    pub roster: Roster,
    /// The metrics.
    pub meter: Meter,
    /// Where ticks come from.
    pub clock: Clock,
    /// One permit for each byte of request body that may be held.
    pub buffers: Arc<Semaphore>,
    /// Open client connections.
    pub connections: Arc<AtomicUsize>,
    buffer_bytes: usize,
    ready: AtomicBool,
    cutting: AtomicBool,
}

impl House {
    /// Compiles `config` and sets up everything around it.
    ///
    /// # Errors
    /// When an upstream cannot be set up; see [`CompileError`].
    pub fn new(config: &Config) -> Result<Arc<Self>, CompileError> {
        let meter = Meter::new();
        let clock = Clock::start();
        let roster = Roster::new(&config.affinity, config.retry, clock);
        let snapshot = Snapshot::compile(config, &roster, &meter)?;
        let buffer_bytes = usize::try_from(config.server.buffered_bodies)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Ok(Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            roster,
            meter,
            clock,
            buffers: Arc::new(Semaphore::new(buffer_bytes)),
            connections: Arc::default(),
            buffer_bytes,
            ready: AtomicBool::new(true),
            cutting: AtomicBool::new(false),
        }))
    }

    /// The configuration of this moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Bytes of request bodies held at this moment.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer_bytes.saturating_sub(self.buffers.available_permits())
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

    /// The metrics in Prometheus' text format, with the gauges of this moment.
    pub fn scrape(&self) -> String {
        self.meter.scrape(&[
            (meter::Level::Pins, self.roster.pins.len()),
            (meter::Level::Connections, self.connections.load(Ordering::Relaxed)),
            (meter::Level::BufferedBytes, self.buffered_bytes()),
            (meter::Level::Waiting, self.roster.waiting()),
        ])
    }
}
