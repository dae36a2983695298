//! The parameters of a simulation, and the counts that it returns.

use std::{ops::AddAssign, time::Duration};

use crate::{endpoint::EndpointClass, policy::Patience, tick::Tick};

/// The time at which a simulation begins.
pub(super) const START: Duration = secs(1_000);
/// The classes of endpoints that requests call.
pub(super) const SIMULATED_CLASSES: [EndpointClass; 3] =
    [EndpointClass::Generation, EndpointClass::Images, EndpointClass::Objects];
/// The maximum number of attempts per request.
pub(super) const ATTEMPTS: u32 = 3;
/// The number of retries per request that the retry budget allows.
pub(super) const SHARE: f64 = 0.2;
/// The maximum share of the upstreams that are ejected at the same time.
pub(super) const MAX_EJECTED: f64 = 0.5;

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The parameters of a simulation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub seed: u64,
    /// The number of requests that arrive while the upstreams have trouble, and the length of that time.
    pub requests: u32,
    pub chaos: Duration,
    pub patience: Patience,
    /// Whether the upstreams have only slots and limits with a named end, and work otherwise.
    pub only_limits: bool,
    /// The only trouble; `None` for every kind of trouble.
    pub focus: Option<Focus>,
}

/// A single kind of trouble, which lasts for the whole time of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Focus {
    /// The first upstream fails this many requests of a hundred.
    HalfBroken { percent: u8 },
    /// The first upstream takes this many times as long as the others.
    Slow { factor: u32 },
    /// Some sessions send requests that every upstream fails.
    Poisoned,
}

impl Plan {
    /// A simulation with every kind of trouble.
    pub fn chaos(seed: u64) -> Self {
        // With few requests, the free retries always suffice.
        let is_storm = seed.is_multiple_of(10);
        Self {
            seed,
            requests: if is_storm { 1_200 } else { 150 },
            chaos: if is_storm { secs(15) } else { secs(150) },
            patience: Patience {
                wait: secs(2),
                reread_rate: 5_000,
                wait_max: secs(60),
            },
            only_limits: false,
            focus: None,
        }
    }

    /// Whether many requests arrive within a short time.
    pub fn is_storm(&self) -> bool {
        self.chaos < secs(60)
    }

    /// A simulation with one kind of trouble and enough traffic to notice it.
    pub fn focused(seed: u64, focus: Focus) -> Self {
        Self {
            requests: 800,
            chaos: secs(200),
            focus: Some(focus),
            ..Self::chaos(seed)
        }
    }
}

/// The number of times that each kind of event has happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SimulationCounts {
    pub requests: u64,
    pub served: u64,
    pub retries: u64,
    /// Retries that the budget did not allow.
    pub refused: u64,
    /// Probes of upstreams whose limits had not ended yet.
    pub early_probes: u64,
    /// Failures after which an upstream would have been ejected if fewer others had been.
    pub kept: u64,
    pub waits: u64,
    /// Sessions that moved to another upstream.
    pub moves: u64,
    pub probes: u64,
    pub ejections: u64,
    /// Ejections because of the success rate.
    pub outliers: u64,
    /// Failures that did not count, because no other upstream served the request.
    pub forgiven: u64,
    /// Streams that broke off after the first output.
    pub broken_off: u64,
    /// Requests that were sent to the first upstream before the first ejection.
    pub before_ejection: u64,
    /// Requests that were sent to another upstream than their own because that is slower.
    pub avoided: u64,
    pub cooldowns: u64,
    /// Ejections and cooldowns for other requests than generations.
    pub partial: u64,
    pub disabled: u64,
    /// Requests that had to stay within an organization.
    pub owned: u64,
    /// Requests that the client cancelled.
    pub left: u64,
    /// The size of all prompts that were read, in bytes.
    pub input_bytes: u64,
    /// The size of the prompts that were read from a cache, in bytes.
    pub cached_bytes: u64,
}

impl SimulationCounts {
    pub fn as_array(&mut self) -> [&mut u64; 22] {
        [
            &mut self.requests,
            &mut self.served,
            &mut self.retries,
            &mut self.refused,
            &mut self.early_probes,
            &mut self.kept,
            &mut self.waits,
            &mut self.moves,
            &mut self.probes,
            &mut self.ejections,
            &mut self.outliers,
            &mut self.forgiven,
            &mut self.broken_off,
            &mut self.before_ejection,
            &mut self.avoided,
            &mut self.cooldowns,
            &mut self.partial,
            &mut self.disabled,
            &mut self.owned,
            &mut self.left,
            &mut self.input_bytes,
            &mut self.cached_bytes,
        ]
    }
}

impl AddAssign for SimulationCounts {
    fn add_assign(&mut self, mut other: Self) {
        for (sum, count) in self.as_array().into_iter().zip(other.as_array()) {
            *sum += *count;
        }
    }
}

/// Converts a moment to seconds, for messages.
pub(super) fn seconds(tick: Tick) -> f64 {
    tick.since(Tick::ZERO).as_secs_f64()
}
