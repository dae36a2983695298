//! How long a session waits for its own upstream before it leaves.
//!
//! Leaving costs the whole prompt: another account has to read it from the start. Waiting is the better deal for as long
//! as that reading would take (the ski rental rule: rent for as long as buying costs, and the bill is at most twice that
//! of somebody who knew the future; Karlin et al., *Competitive snoopy caching*, 1988).

use std::time::Duration;

use super::tokens::BYTES_PER_TOKEN;

/// What a session's patience is reckoned by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The least.
    pub wait: Duration,
    /// How fast another upstream would read the prompt, in tokens a second. At 0 it never would.
    pub reread_rate: u32,
    /// The most. It prevails over `wait`.
    pub wait_max: Duration,
}

impl Patience {
    /// How long a session waits whose request's body has this many bytes, uncompressed.
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
    fn as_long_as_reading_again_would_take() {
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
        fn more_to_read_is_never_less_patience(
            bytes: u64, more: u64, reread_rate: u32, wait in 0u64..100, wait_max in 0u64..100,
        ) {
            let patience = Patience { wait: secs(wait), reread_rate, wait_max: secs(wait_max) };
            let waits = patience.of_session(bytes);
            prop_assert!(waits <= secs(wait_max) && waits >= secs(wait.min(wait_max)));
            prop_assert!(waits <= patience.of_session(bytes.saturating_add(more)));
            // In floating point, and only where that is exact enough.
            let exact = bytes as f64 / 4.0 / f64::from(reread_rate);
            if exact > wait as f64 + 0.001 && exact < wait_max as f64 - 0.001 {
                prop_assert!((waits.as_secs_f64() - exact).abs() < 0.001);
            }
        }
    }
}
