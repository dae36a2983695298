//! The maximum age of a pooled connection.
//!
//! A connection stays with the address that its host name had when it was opened. So connections are replaced from time
//! to time: only a new connection follows a change of the name (as with `max_connection_duration` of Envoy and
//! `keepalive_time` of nginx).

use std::{ops::Range, time::Duration};

use tokio::time::Instant;

/// The age of a connection, as a fraction of the configured one. Connections that were opened together do not expire
/// together, so that not all of them are opened again at the same time.
const JITTER: Range<f64> = 0.9..1.1;

/// A time that no process reaches.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The maximum age of the connections of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) struct ConnectionAge(Option<Duration>);

impl ConnectionAge {
    /// Connections carry no new request after about `age`; `None` means that their age has no limit.
    pub fn new(age: Option<Duration>) -> Self {
        Self(age)
    }

    /// The time after which a connection that is opened now carries no new request.
    pub fn expiry(self) -> Instant {
        let after = self.0.map_or(NEVER, |age| {
            age.mul_f64(JITTER.start + (JITTER.end - JITTER.start) * fastrand::f64())
        });
        Instant::now() + after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_that_are_opened_together_expire_at_different_times() {
        let age = Duration::from_secs(600);
        let now = Instant::now();
        let ages: Vec<Duration> = (0..200).map(|_| ConnectionAge::new(Some(age)).expiry() - now).collect();
        let (least, most) = (ages.iter().min().expect("some"), ages.iter().max().expect("some"));
        assert!(*least >= age.mul_f64(0.9) && *least < age.mul_f64(0.95), "{least:?}");
        assert!(*most <= age.mul_f64(1.1) && *most > age.mul_f64(1.05), "{most:?}");
        assert!(ConnectionAge::new(None).expiry() - now > Duration::from_secs(1 << 29));
    }
}
