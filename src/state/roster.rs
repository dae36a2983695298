//! What outlives a snapshot: what each upstream is doing, where sessions are pinned, and who owns which response.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::meter::{Meter, UpstreamMeter};
use crate::{
    config,
    ids::UpstreamId,
    policy::{Owners, Pins},
};

/// How long a response id is remembered: as long as the longest prompt cache retention.
const OWNED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// What outlives a snapshot.
pub struct Roster {
    /// Session → the upstream where its cache is.
    pub pins: Pins,
    /// Response id → the upstream that made it.
    pub owners: Owners,
    upstreams: Mutex<HashMap<UpstreamId, Arc<Live>>>,
}

/// What one upstream is doing.
///
/// Aligned away from the reference counts that an `Arc` keeps before it: each request changes those, and all read this.
#[repr(align(128))]
pub struct Live {
    /// What it counts; the number of requests in flight is among it.
    pub meter: Arc<UpstreamMeter>,
}

impl Live {
    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.meter.in_flight.get()).unwrap_or(0)
    }
}

impl Roster {
    /// Empty tables, as large as configured.
    pub fn new(affinity: &config::Affinity) -> Self {
        Self {
            pins: Pins::new(affinity.capacity, affinity.idle),
            owners: Owners::new(affinity.capacity, OWNED_FOR),
            upstreams: Mutex::default(),
        }
    }

    /// Makes the tables as large as configured; what does not fit is forgotten, the longest unused first.
    pub fn resize(&self, affinity: &config::Affinity) {
        self.pins.resize(affinity.capacity, affinity.idle);
        self.owners.resize(affinity.capacity, OWNED_FOR);
    }

    /// What the upstream called `name` is doing, whichever snapshot asks.
    pub fn live(&self, id: UpstreamId, name: &str, meter: &Meter) -> Arc<Live> {
        let mut upstreams = self.upstreams.lock();
        upstreams
            .entry(id)
            .or_insert_with(|| {
                Arc::new(Live {
                    meter: meter.upstream(name),
                })
            })
            .clone()
    }
}
