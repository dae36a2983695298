//! The cooldowns of an upstream and of its models, each of which begins when a request is limited.

use std::time::Duration;

use super::{attempt::Attempt, jitter::jittered, status::Transition};
use crate::{ids::ModelKey, policy::verdict::Scope, tick::Tick};

/// The minimum time until a reset that an upstream names. Clocks differ, and a request before that time gains nothing.
pub const RESET_MIN: Duration = Duration::from_millis(500);
/// The maximum time until a reset that an upstream names. Weekly quotas exist; a longer time is a mistake.
pub const RESET_MAX: Duration = Duration::from_secs(7 * 86_400);
/// The length of the first cooldown if the upstream names no reset, up to a quarter longer or shorter.
pub const COOLDOWN: Duration = Duration::from_secs(1);
/// The maximum length of a cooldown if the upstream names no reset.
pub const COOLDOWN_MAX: Duration = Duration::from_secs(300);
/// The maximum number of models whose cooldowns are remembered. Beyond it, the cooldown that ends first is forgotten.
pub const MODELS_MAX: usize = 16;

/// The time after the end of a cooldown without a named reset during which it still makes the next one longer.
pub(super) const BACKOFF_MEMORY: Duration = Duration::from_secs(300);
/// A cooldown's end that moves by no more than this is not reported, because the change is not worth a line in a log.
const WORTH_TELLING: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) struct Cooldowns {
    /// The upstream's own cooldown.
    upstream: Option<Cooldown>,
    /// The cooldowns of single models, at most [`MODELS_MAX`] of them.
    models: Vec<(ModelKey, Cooldown)>,
    /// When a success last ended a cooldown. Verdicts on requests that were sent before have no effect on cooldowns.
    cleared: Option<Tick>,
}

/// A cooldown. It is remembered for some time after its end.
#[derive(Clone, Copy, Debug)]
struct Cooldown {
    /// When the cooldown began or was last confirmed.
    since: Tick,
    /// When the cooldown ends.
    until: Tick,
    /// Whether the upstream named the end.
    is_named: bool,
    /// Whether the end of the cooldown is still to be reported.
    is_unreported: bool,
    /// The number of cooldowns without a named reset in a row.
    unnamed: u32,
}

impl Cooldowns {
    pub(super) const fn new() -> Self {
        Self {
            upstream: None,
            models: Vec::new(),
            cleared: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.upstream.is_none() && self.models.is_empty()
    }

    /// Returns when requests for `model` may be sent again; `None` if they may be sent now.
    pub(super) fn until(&self, model: Option<ModelKey>, now: Tick) -> Option<Tick> {
        let model = model.and_then(|model| self.get(Scope::Model(model)));
        let ends = [self.upstream, model].into_iter().flatten().map(|limit| limit.until);
        ends.max().filter(|until| now < *until)
    }

    /// Returns the end of the upstream's own cooldown and whether the upstream named it; `None` if the upstream is
    /// not cooling down.
    pub(super) fn of_upstream(&self, now: Tick) -> Option<(Tick, bool)> {
        let limit = self.upstream.filter(|limit| now < limit.until)?;
        Some((limit.until, limit.is_named))
    }

    /// Returns the number of models that are cooling down, and the latest end of their cooldowns.
    pub(super) fn cooling_models(&self, now: Tick) -> (usize, Option<Tick>) {
        let ends = self.models.iter().map(|(_, limit)| limit.until);
        let cooling = ends.filter(|until| now < *until);
        (cooling.clone().count(), cooling.max())
    }

    /// Records that a request was served. Every cooldown that applies to the request, and that began before the request
    /// was sent, is over. Returns the scope of one cooldown that was in effect; the upstream's own is preferred.
    pub(super) fn end_by_success(&mut self, attempt: Attempt, now: Tick) -> Option<Scope> {
        let model = attempt.model.map(Scope::Model);
        let mut ended = None;
        for scope in [Some(Scope::Upstream), model].into_iter().flatten() {
            let Some(limit) = self.get(scope).filter(|limit| limit.since < attempt.began) else {
                continue;
            };
            self.set(scope, None);
            self.cleared = Some(now);
            ended = ended.or(limit.is_unreported.then_some(scope));
        }
        ended
    }

    /// Records that a request was limited. Returns a transition if a cooldown begins or its end moves noticeably.
    pub(super) fn record_limit(
        &mut self,
        attempt: Attempt,
        scope: Scope,
        reset: Option<Duration>,
        now: Tick,
        random: u64,
    ) -> Option<Transition> {
        if self.cleared.is_some_and(|cleared| attempt.began <= cleared) {
            return None;
        }
        let known = self.get(scope);
        let limit = match reset {
            Some(reset) => Cooldown::named(known, attempt, reset, now),
            None => Cooldown::unnamed(known, attempt, now, random),
        }?;
        self.set(scope, Some(limit));
        let (until, named) = (limit.until, limit.is_named);
        let before = known.map(|known| known.until).filter(|before| now < *before);
        let moved = before.map(|before| before.since(until).max(until.since(before)));
        moved
            .is_none_or(|moved| moved > WORTH_TELLING)
            .then_some(Transition::Cooling { until, scope, named })
    }

    /// Returns the scope of one cooldown that has ended and was not reported. When none is left to report, it forgets
    /// the cooldowns that need not be remembered.
    pub(super) fn expire(&mut self, now: Tick) -> Option<Scope> {
        let scopes = self
            .models
            .iter_mut()
            .map(|(model, limit)| (Scope::Model(*model), limit));
        let mut all = self
            .upstream
            .iter_mut()
            .map(|limit| (Scope::Upstream, limit))
            .chain(scopes);
        if let Some((scope, limit)) = all.find(|(_, limit)| limit.is_unreported && limit.until <= now) {
            limit.is_unreported = false;
            return Some(scope);
        }
        self.upstream = self.upstream.filter(|limit| !limit.is_forgotten(now));
        self.models.retain(|(_, limit)| !limit.is_forgotten(now));
        None
    }

    pub(super) fn clear(&mut self, now: Tick) {
        *self = Self {
            cleared: Some(now),
            ..Self::new()
        };
    }

    fn get(&self, scope: Scope) -> Option<Cooldown> {
        match scope {
            Scope::Upstream => self.upstream,
            Scope::Model(wanted) => self
                .models
                .iter()
                .find(|(model, _)| *model == wanted)
                .map(|(_, limit)| *limit),
        }
    }

    fn set(&mut self, scope: Scope, limit: Option<Cooldown>) {
        let Scope::Model(wanted) = scope else {
            self.upstream = limit;
            return;
        };
        self.models.retain(|(model, _)| *model != wanted);
        self.models.extend(limit.map(|limit| (wanted, limit)));
        if self.models.len() > MODELS_MAX {
            let ends = self.models.iter().enumerate().map(|(at, (_, limit))| (limit.until, at));
            let (_, first) = ends.min().expect("more than `MODELS_MAX` models are known");
            self.models.swap_remove(first);
        }
    }
}

impl Cooldown {
    /// The cooldown after `attempt` was limited with a named reset, given the `known` cooldown; `None` if it does not
    /// change.
    fn named(known: Option<Self>, attempt: Attempt, reset: Duration, now: Tick) -> Option<Self> {
        let until = now.after(reset.clamp(RESET_MIN, RESET_MAX));
        let is_news = known.is_none_or(|known| known.until < until || known.since < attempt.began);
        is_news.then_some(Self {
            since: now,
            until,
            is_named: true,
            is_unreported: true,
            unnamed: known.map_or(0, |known| known.unnamed),
        })
    }

    /// The cooldown after `attempt` was limited without a named reset. Only a request that was sent after the end of
    /// the last cooldown shows that the cooldown was too short.
    fn unnamed(known: Option<Self>, attempt: Attempt, now: Tick, random: u64) -> Option<Self> {
        if known.is_some_and(|known| attempt.began < known.until) {
            return None;
        }
        let before = known.map_or(0, |known| known.unnamed);
        let base = COOLDOWN.saturating_mul(1 << before.min(16)).min(COOLDOWN_MAX);
        Some(Self {
            since: now,
            until: now.after(jittered(base, random).min(COOLDOWN_MAX)),
            is_named: false,
            is_unreported: true,
            unnamed: before.saturating_add(1),
        })
    }

    fn is_forgotten(&self, now: Tick) -> bool {
        let memory = if self.unnamed > 0 {
            BACKOFF_MEMORY
        } else {
            Duration::ZERO
        };
        self.until.after(memory) <= now
    }
}
