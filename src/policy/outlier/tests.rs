//! Tests of the outlier detection.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

mod speed;
mod success_rate;

fn at(secs: u64) -> Tick {
    Tick::ZERO.after(Duration::from_secs(secs))
}

fn counts(failed: u64, total: u64) -> OutcomeCounts {
    OutcomeCounts {
        succeeded: total - failed,
        failed,
    }
}
