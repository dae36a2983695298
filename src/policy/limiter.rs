//! The limits of one client key: requests a minute, tokens a minute, requests at a time.
//!
//! # A window that slides
//!
//! What is promised is: in *no* span of a minute is more let in than the limit. A token bucket (or its twin GCRA, which the
//! crate `governor` has) does not keep that: full, it lets its whole burst in at once and then refills, which is nearly
//! twice the limit in the first minute. A counter that starts anew with each minute lets the double in around the turn. So
//! each amount is remembered with its time until it is a minute old (a *sliding window log*), and a refusal knows to the
//! second when there will be room.
//!
//! Memory is bounded by joining what comes close together into one entry, which leaves when its youngest part may: late by at
//! most a quarter of a second, and never early.
//!
//! # Tokens
//!
//! What a request costs is known when it is over. It is let in by an estimate; afterwards what was too much goes back to the
//! moment that it was charged to, and what was too little is charged to the present one. So real use may go over the limit
//! once, by as much as an estimate was wrong, and the next requests wait the longer.

mod window;

#[cfg(test)]
mod tests;

use std::time::Duration;

use self::window::Window;
pub use self::window::in_units;
use crate::{fault::LimitKind, tick::Tick};

/// When one of many requests at a time ends is not known; this is when to look again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a key may use. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests in any span of 60 s.
    pub requests_per_minute: Option<u32>,
    /// Tokens in any span of 60 s.
    pub tokens_per_minute: Option<u64>,
    /// Requests at a time.
    pub max_concurrent: Option<u32>,
}

impl Quota {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The limit that is reached; of several, the one that lasts longest.
    pub limit: LimitKind,
    /// How much it allows.
    pub allowed: u64,
    /// When the same request is let in, if nobody else comes before.
    pub retry_after: Duration,
}

/// A request that was let in. It holds a place until it is [finished](Limiter::finish).
#[derive(Debug)]
#[must_use = "an admission holds a place until it is settled"]
pub struct Admission {
    tokens: u64,
    charged_at: Tick,
}

impl Admission {
    /// How many tokens have been charged for it.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }
}

/// How far a limit has been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitUsage {
    /// How much is allowed in a minute.
    pub limit: u64,
    /// How much is left of it now.
    pub remaining: u64,
    /// When all of it will be there again, if nobody comes.
    pub reset: Duration,
}

/// How far the limits by the minute have been used; `None` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaUsage {
    /// Requests.
    pub requests: Option<LimitUsage>,
    /// Tokens.
    pub tokens: Option<LimitUsage>,
}

/// The limits of one key, and what it has used.
#[derive(Debug, Default)]
pub struct Limiter {
    quota: Quota,
    requests: Window,
    tokens: Window,
    running: u32,
}

impl Limiter {
    /// Nothing has been used yet.
    pub fn new(quota: Quota) -> Self {
        Self {
            quota,
            ..Self::default()
        }
    }

    /// What may be used.
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// Allows more or less from now on; what has been used stays used.
    pub fn set_quota(&mut self, quota: Quota) {
        self.quota = quota;
    }

    /// How many requests have been let in and not been settled.
    pub fn running(&self) -> u32 {
        self.running
    }

    /// Lets a request in that will probably cost `tokens`. One that costs more than the whole limit is let in when
    /// nothing of that is used.
    ///
    /// # Errors
    /// Where a limit is reached; then nothing is charged.
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

    /// The request turns out to cost probably `tokens`: that much is charged to this moment instead of what was before.
    ///
    /// # Errors
    /// Where the limit is reached by that; then the charge stays what it was.
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

    /// The request is over, and has cost `actual` tokens: where that is not known, what was estimated.
    pub fn finish(&mut self, admission: Admission, actual: Option<u64>, now: Tick) {
        self.running = self.running.saturating_sub(1);
        let actual = actual.unwrap_or(admission.tokens);
        match actual.checked_sub(admission.tokens) {
            Some(more) => {
                self.charge(more, now);
            }
            None => self.tokens.remove(admission.tokens - actual, admission.charged_at),
        }
    }

    /// How far the limits have been used.
    pub fn usage(&mut self, now: Tick) -> QuotaUsage {
        let meter = |window: &mut Window, limit: u64| {
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
                .map(|limit| meter(&mut self.requests, u64::from(limit))),
            tokens: self.quota.tokens_per_minute.map(|limit| meter(&mut self.tokens, limit)),
        }
    }

    fn bounded(&self, tokens: u64) -> u64 {
        tokens.min(self.quota.tokens_per_minute.unwrap_or(u64::MAX))
    }

    /// Charges to this moment, and returns which that is.
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
        let retry_after = window.room_in(amount, allowed, now)?;
        Some(Denial {
            limit,
            allowed,
            retry_after,
        })
    }
}
