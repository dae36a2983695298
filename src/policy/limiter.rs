//! The rate limits of one client key: requests per minute, tokens per minute, and requests at the same time.
//!
//! # A sliding window
//!
//! The guarantee is that *no* span of a minute admits more than the limit. A token bucket (or the equivalent GCRA,
//! which the crate `governor` implements) does not give this guarantee: a full bucket admits its whole burst at once
//! and then refills, which is nearly twice the limit in the first minute. A counter that starts anew with each minute
//! admits twice the limit around the turn of the minute. So the limiter remembers each amount with its time until it is
//! a minute old (a *sliding window log*). A denial can therefore name to the second when there is capacity again.
//!
//! Memory is bounded by joining amounts that are close together in time into one entry. The entry is dropped when its
//! youngest part is a minute old: up to a quarter of a second late, and never early.
//!
//! # Tokens
//!
//! The cost of a request is known only when the request is over. The request is admitted by an estimate. Afterwards,
//! an excess of the estimate is returned to the moment that was charged, and a shortfall is charged to the present
//! moment. So the real use can exceed the limit once, by the error of the estimate, and later requests wait longer
//! for it.

mod window;

#[cfg(test)]
mod tests;

use std::time::Duration;

use self::window::Window;
pub use self::window::in_units;
use crate::{fault::LimitKind, tick::Tick};

/// The time after which a request that was denied for concurrency may try again. It is a guess, because the end of the
/// running requests is not known.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The limits of a client key. `None` means that there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// The maximum number of requests in any span of 60 s.
    pub requests_per_minute: Option<u32>,
    /// The maximum number of tokens in any span of 60 s.
    pub tokens_per_minute: Option<u64>,
    /// The maximum number of requests at the same time.
    pub max_concurrent: Option<u32>,
}

impl Quota {
    /// Whether the key has no limit at all.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// The reason why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The limit that is reached. If several limits are reached, this is the one with the longest `retry_after`.
    pub limit: LimitKind,
    /// The amount that the limit allows.
    pub allowed: u64,
    /// The time after which the same request is admitted, if no other request comes before it.
    pub retry_after: Duration,
}

/// An admitted request. It counts as running until it is [finished](Limiter::finish).
#[derive(Debug)]
#[must_use = "an admission counts as running until `Limiter::finish`"]
pub struct Admission {
    tokens: u64,
    charged_at: Tick,
}

impl Admission {
    /// The number of tokens that are charged for the request.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }
}

/// The charge of a request that has ended and whose cost is not known yet.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenCharge {
    tokens: u64,
    charged_at: Tick,
}

/// The use of one limit per minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitUsage {
    /// The amount that is allowed per minute.
    pub limit: u64,
    /// The amount that is left now.
    pub remaining: u64,
    /// The time until the whole amount is available again, if no request comes.
    pub reset: Duration,
}

/// The use of the limits per minute. A value is `None` if the key has no such limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaUsage {
    /// The use of the limit on requests.
    pub requests: Option<LimitUsage>,
    /// The use of the limit on tokens.
    pub tokens: Option<LimitUsage>,
}

/// The limits of one client key, and its use of them.
#[derive(Debug, Default)]
pub struct Limiter {
    quota: Quota,
    requests: Window,
    tokens: Window,
    running: u32,
}

impl Limiter {
    /// Creates a limiter for a key that has used nothing yet.
    pub fn new(quota: Quota) -> Self {
        Self {
            quota,
            ..Self::default()
        }
    }

    /// The limits of the key.
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// Changes the limits. The requests and tokens that the key has used still count.
    pub fn set_quota(&mut self, quota: Quota) {
        self.quota = quota;
    }

    /// The number of requests that were admitted and are not finished.
    pub fn running(&self) -> u32 {
        self.running
    }

    /// Admits a request that will probably cost `tokens` tokens. A request that costs more than the whole limit is
    /// admitted when no tokens are in use.
    ///
    /// # Errors
    ///
    /// A [`Denial`] if a limit is reached. In that case nothing is charged.
    pub fn admit(&mut self, tokens: u64, now: Tick) -> Result<Admission, Denial> {
        let tokens = self.bounded(tokens);
        let concurrent = self.quota.max_concurrent.filter(|limit| self.running >= *limit);
        let denials = [
            concurrent.map(|limit| Denial {
                limit: LimitKind::Concurrent,
                allowed: u64::from(limit),
                retry_after: LOOK_AGAIN,
            }),
            self.denial(LimitKind::Requests, 1, now),
            self.denial(LimitKind::Tokens, tokens, now),
        ];
        if let Some(denial) = denials.into_iter().flatten().max_by_key(|denial| denial.retry_after) {
            return Err(denial);
        }
        self.running += 1;
        if self.quota.requests_per_minute.is_some() {
            self.requests.add(1, now);
        }
        Ok(Admission {
            tokens,
            charged_at: self.charge(tokens, now),
        })
    }

    /// Corrects the estimate of a request: `tokens` tokens are charged to this moment, in place of the earlier charge.
    ///
    /// # Errors
    ///
    /// A [`Denial`] if the correction exceeds the limit. In that case the earlier charge stays.
    pub fn recharge(&mut self, admission: &mut Admission, tokens: u64, now: Tick) -> Result<(), Denial> {
        let tokens = self.bounded(tokens);
        if tokens == admission.tokens {
            return Ok(());
        }
        self.tokens.remove(admission.tokens, admission.charged_at);
        if let Some(denial) = self.denial(LimitKind::Tokens, tokens, now) {
            self.tokens.restore(admission.tokens, admission.charged_at);
            return Err(denial);
        }
        admission.tokens = tokens;
        admission.charged_at = self.charge(tokens, now);
        Ok(())
    }

    /// Ends a request that has cost `actual` tokens; `None` means that the cost is not known and the estimate stands.
    pub fn finish(&mut self, admission: Admission, actual: Option<u64>, now: Tick) {
        let actual = actual.unwrap_or(admission.tokens);
        let charge = self.defer(admission, 0, now);
        self.settle(charge, actual, now);
    }

    /// Ends a request whose cost will be known later. Until then, the estimate and `more` tokens are charged.
    pub fn defer(&mut self, admission: Admission, more: u64, now: Tick) -> OpenCharge {
        self.running = self
            .running
            .checked_sub(1)
            .expect("every admission is counted, and is finished only once");
        let Admission { tokens, charged_at } = admission;
        if more == 0 {
            return OpenCharge { tokens, charged_at };
        }
        self.tokens.remove(tokens, charged_at);
        let tokens = tokens.saturating_add(more);
        let charged_at = self.charge(tokens, now);
        OpenCharge { tokens, charged_at }
    }

    /// Replaces a charge by the `actual` number of tokens. An excess is given back to the moment that was charged, which may
    /// be out of the window already; a shortfall is charged to this moment.
    pub fn settle(&mut self, charge: OpenCharge, actual: u64, now: Tick) {
        match actual.checked_sub(charge.tokens) {
            Some(more) => {
                self.charge(more, now);
            }
            None => self.tokens.remove(charge.tokens - actual, charge.charged_at),
        }
    }

    /// Returns the use of the limits at `now`.
    pub fn usage(&mut self, now: Tick) -> QuotaUsage {
        let usage_of = |window: &mut Window, limit: u64| {
            let (used, reset) = window.used(now);
            LimitUsage {
                limit,
                remaining: limit.saturating_sub(used),
                reset,
            }
        };
        QuotaUsage {
            requests: self
                .quota
                .requests_per_minute
                .map(|limit| usage_of(&mut self.requests, u64::from(limit))),
            tokens: self
                .quota
                .tokens_per_minute
                .map(|limit| usage_of(&mut self.tokens, limit)),
        }
    }

    fn bounded(&self, tokens: u64) -> u64 {
        tokens.min(self.quota.tokens_per_minute.unwrap_or(u64::MAX))
    }

    /// Charges `tokens` to this moment, and returns the moment under which the charge is remembered.
    fn charge(&mut self, tokens: u64, now: Tick) -> Tick {
        match self.quota.tokens_per_minute {
            Some(_) if tokens > 0 => self.tokens.add(tokens, now),
            _ => now,
        }
    }

    fn denial(&mut self, limit: LimitKind, amount: u64, now: Tick) -> Option<Denial> {
        let (window, allowed) = match limit {
            LimitKind::Requests => (&mut self.requests, self.quota.requests_per_minute.map(u64::from)),
            LimitKind::Tokens => (&mut self.tokens, self.quota.tokens_per_minute),
            LimitKind::Concurrent => return None,
        };
        let allowed = allowed?;
        let retry_after = window.time_until_free(amount, allowed, now)?;
        Some(Denial {
            limit,
            allowed,
            retry_after,
        })
    }
}
