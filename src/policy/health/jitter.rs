//! Random variation of a duration, so that upstreams which failed together do not return together.

use std::time::Duration;

use crate::policy::hash::unit;

/// Returns `base`, up to a quarter longer or shorter. `random` is 64 uniformly random bits.
pub(super) fn jittered(base: Duration, random: u64) -> Duration {
    base.mul_f64(0.75 + unit(random) / 2.0)
}
