//! The time that a session waits for its own upstream before it moves to another one.
//!
//! Moving costs the whole prompt, because another account has to read it from the start. Waiting is cheaper as long as
//! it takes less time than that reading. A session therefore waits for at most the time of that reading. This is the
//! ski rental rule, by which the total cost is at most twice the cost of an optimal choice with knowledge of the future
//! (Karlin et al., *Competitive snoopy caching*, 1988).
//!
//! If no upstream can take a request, there is nothing to weigh: a caller that is refused has to wait as well, and many
//! callers give up instead. So every request then waits until the earliest limit resets, if it resets within `wait_max`.

use std::time::Duration;

use super::tokens::BYTES_PER_TOKEN;

/// The configuration from which a session's patience is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The minimum time to wait.
    pub wait: Duration,
    /// The rate in tokens per second at which another upstream reads a prompt. At 0, another upstream never finishes
    /// reading, so a session waits for `wait_max`.
    pub reread_rate: u32,
    /// The maximum time to wait, also for the reset of a limit if no upstream can take the request. It takes precedence
    /// over `wait`.
    pub wait_max: Duration,
}

impl Patience {
    /// Returns how long a session waits for its own upstream, given the number of bytes of the request body after
    /// decompression.
    pub fn of_session(&self, body_bytes: u64) -> Duration {
        let nanos = u128::from(body_bytes) * 1_000_000_000;
        let reread = match nanos.checked_div(u128::from(BYTES_PER_TOKEN) * u128::from(self.reread_rate)) {
            Some(nanos) => Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)),
            None => Duration::MAX,
        };
        reread.max(self.wait).min(self.wait_max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_session_waits_as_long_as_reading_the_prompt_again_takes() {
        let patience = Patience {
            wait: secs(2),
            reread_rate: 5_000,
            wait_max: secs(60),
        };
        for (bytes, wait) in [
            (0, 2_000),
            (40_000, 2_000),
            (40_020, 2_001),
            (200_000, 10_000),
            (1_000_000, 50_000),
            (1_200_000, 60_000),
            (u64::MAX, 60_000),
        ] {
            assert_eq!(patience.of_session(bytes), Duration::from_millis(wait), "{bytes}");
        }
        let never = Patience {
            reread_rate: 0,
            ..patience
        };
        assert_eq!(never.of_session(0), secs(60));
        let impatient = Patience {
            wait_max: secs(0),
            ..patience
        };
        assert_eq!(impatient.of_session(1_000_000), secs(0));
    }

    proptest! {
        #[test]
        fn a_longer_prompt_never_shortens_the_wait(
            bytes: u64, more: u64, reread_rate: u32, wait in 0u64..100, wait_max in 0u64..100,
        ) {
            let patience = Patience { wait: secs(wait), reread_rate, wait_max: secs(wait_max) };
            let waits = patience.of_session(bytes);
            prop_assert!(waits <= secs(wait_max) && waits >= secs(wait.min(wait_max)));
            prop_assert!(waits <= patience.of_session(bytes.saturating_add(more)));
            // The same formula in floating point, checked only where floating point is exact enough.
            let exact = bytes as f64 / 4.0 / f64::from(reread_rate);
            if exact > wait as f64 + 0.001 && exact < wait_max as f64 - 0.001 {
                prop_assert!((waits.as_secs_f64() - exact).abs() < 0.001);
            }
        }
    }
}
