//! Tells why no upstream takes a turn, and when one may.
//!
//! The earliest moment at which a candidate may serve the turn decides. If a limit resets then, the caller is told of the
//! limit: its kind decides whether the client waits and comes back, or shows the limit to its user and gives up. If an
//! upstream that failed is probed then, or if a slot may be free, the caller is told that the upstreams are unavailable.
//! Upstreams that are disabled or draining need their operator, so they decide only if there are no others.

use std::time::Duration;

use crate::{
    fault::UnavailableCause,
    policy::{Availability, LimitCause},
    tick::Tick,
};

/// The delay after which a caller may retry, if it is not known when an upstream will be ready.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// A limit that resets later than this is treated as an exhausted quota, because no client waits for that long.
const LONGEST_RATE_LIMIT: Duration = Duration::from_secs(5 * 60);

/// When an upstream may serve a turn, and what stands against it until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outlook {
    /// The time until an upstream may serve the turn.
    pub retry: Duration,
    pub obstacle: Obstacle,
}

/// The reason why no upstream takes a turn now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The upstream that may serve the turn first has reached a limit.
    Limit(LimitCause),
    /// The upstreams do not take requests.
    Unavailable(UnavailableCause),
    /// There is an upstream that takes requests. The turn was not sent there, or it failed there.
    None,
}

impl Outlook {
    /// The outlook of a turn whose candidates have these availabilities at `now`; `None` if there is no candidate.
    pub fn new(candidates: impl Iterator<Item = Availability>, now: Tick) -> Option<Self> {
        let mut first = None::<(bool, Tick, Obstacle)>;
        let mut common = None::<UnavailableCause>;
        for availability in candidates {
            let (until, obstacle) = obstacle(availability, now);
            let needs_operator = matches!(
                obstacle,
                Obstacle::Unavailable(UnavailableCause::Disabled | UnavailableCause::Draining)
            );
            let cause = match obstacle {
                Obstacle::Unavailable(cause) => cause,
                Obstacle::Limit(_) | Obstacle::None => UnavailableCause::Mixed,
            };
            common = Some(match common {
                Some(other) if other != cause => UnavailableCause::Mixed,
                _ => cause,
            });
            if first.is_none_or(|(needs, earliest, _)| (needs_operator, until) < (needs, earliest)) {
                first = Some((needs_operator, until, obstacle));
            }
        }
        let (_, until, obstacle) = first?;
        let retry = until.since(now);
        Some(Self {
            retry,
            obstacle: match (obstacle, common) {
                (Obstacle::Limit(_), _) if retry > LONGEST_RATE_LIMIT => Obstacle::Limit(LimitCause::Quota),
                (Obstacle::Unavailable(_), Some(common)) => Obstacle::Unavailable(common),
                (obstacle, _) => obstacle,
            },
        })
    }
}

impl Outlook {
    /// Whether the health of the upstreams says when one of them may serve the turn. It does not while one of them takes
    /// requests, waits for a slot, or waits for its operator.
    pub fn is_known(self) -> bool {
        match self.obstacle {
            Obstacle::Limit(_) => true,
            Obstacle::Unavailable(cause) => !matches!(cause, UnavailableCause::Busy | UnavailableCause::Draining),
            Obstacle::None => false,
        }
    }
}

/// What stands against one upstream, and until when.
fn obstacle(availability: Availability, now: Tick) -> (Tick, Obstacle) {
    let soon = now.after(RETRY_AFTER);
    match availability {
        Availability::Ready => (soon, Obstacle::None),
        Availability::Full => (soon, Obstacle::Unavailable(UnavailableCause::Busy)),
        Availability::Cooling { until, cause } => (until, Obstacle::Limit(cause)),
        Availability::Ejected { until } => (until, Obstacle::Unavailable(UnavailableCause::Ejected)),
        Availability::Disabled { until } => (until, Obstacle::Unavailable(UnavailableCause::Disabled)),
        Availability::Draining => (soon, Obstacle::Unavailable(UnavailableCause::Draining)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;

    fn at(seconds: u64) -> Tick {
        Tick::ZERO.after(Duration::from_secs(NOW + seconds))
    }

    fn rate(seconds: u64) -> Availability {
        Availability::Cooling {
            until: at(seconds),
            cause: LimitCause::Rate,
        }
    }

    fn quota(seconds: u64) -> Availability {
        Availability::Cooling {
            until: at(seconds),
            cause: LimitCause::Quota,
        }
    }

    fn ejected(seconds: u64) -> Availability {
        Availability::Ejected { until: at(seconds) }
    }

    #[test]
    fn the_earliest_moment_at_which_a_candidate_may_serve_decides() {
        let disabled = Availability::Disabled { until: at(5) };
        let (full, draining) = (Availability::Full, Availability::Draining);
        let limit = Obstacle::Limit;
        let unavailable = Obstacle::Unavailable;
        for (candidates, seconds, obstacle) in [
            (vec![rate(30), rate(20)], 20, limit(LimitCause::Rate)),
            (vec![quota(30), rate(20)], 20, limit(LimitCause::Rate)),
            (vec![quota(20), rate(30)], 20, limit(LimitCause::Quota)),
            (vec![rate(300)], 300, limit(LimitCause::Rate)),
            (vec![rate(301)], 301, limit(LimitCause::Quota)),
            (vec![rate(30), ejected(20)], 20, unavailable(UnavailableCause::Mixed)),
            (vec![rate(20), ejected(30)], 20, limit(LimitCause::Rate)),
            (
                vec![ejected(30), ejected(20)],
                20,
                unavailable(UnavailableCause::Ejected),
            ),
            (vec![rate(30), full], 2, unavailable(UnavailableCause::Mixed)),
            (vec![full, full], 2, unavailable(UnavailableCause::Busy)),
            (vec![disabled, draining, rate(60)], 60, limit(LimitCause::Rate)),
            (vec![disabled, ejected(60)], 60, unavailable(UnavailableCause::Mixed)),
            (vec![disabled, disabled], 5, unavailable(UnavailableCause::Disabled)),
            (vec![draining], 2, unavailable(UnavailableCause::Draining)),
            (vec![disabled, draining], 2, unavailable(UnavailableCause::Mixed)),
            (vec![quota(3_600), Availability::Ready], 2, Obstacle::None),
        ] {
            let retry = Duration::from_secs(seconds);
            let outlook = Outlook::new(candidates.iter().copied(), at(0));
            assert_eq!(outlook, Some(Outlook { retry, obstacle }), "{candidates:?}");
        }
        assert_eq!(Outlook::new(std::iter::empty(), at(0)), None);
    }
}
