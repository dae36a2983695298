//! The cooldowns of an upstream and of its models, each of which begins when a request is limited.

use std::time::Duration;

use super::{
    attempt::Attempt,
    jitter::jittered,
    status::{Reason, Transition},
};
use crate::{
    ids::ModelKey,
    policy::verdict::{LimitCause, Scope},
    tick::Tick,
};

/// The minimum time until a reset that an upstream names. Clocks differ, and a request before that time gains nothing.
pub const RESET_MIN: Duration = Duration::from_millis(500);
/// The maximum time until a reset that an upstream names. Weekly quotas exist; a longer time is a mistake.
pub const RESET_MAX: Duration = Duration::from_secs(7 * 86_400);
/// The length of the first cooldown if the upstream names no reset, up to a quarter longer or shorter.
pub const COOLDOWN: Duration = Duration::from_secs(1);
/// The maximum length of a cooldown if the upstream names no reset.
pub const COOLDOWN_MAX: Duration = Duration::from_secs(300);
/// The time between two early probes of a limited upstream, and between the beginning of a cooldown and the first of
/// them. There is none within this time before the end of the cooldown.
pub const EARLY_PROBE: Duration = Duration::from_secs(60);
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
    /// The last success that proved a limit wrong.
    disproof: Option<Disproof>,
}

/// A success of a request that was sent while a limit was said to hold. Limits that are reported for requests that were
/// sent before this success are not believed.
#[derive(Clone, Copy, Debug)]
struct Disproof {
    at: Tick,
    model: Option<ModelKey>,
}

/// What an answer says about a limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct LimitReport {
    /// The time until the limit resets; `None` if the upstream did not name it.
    pub(super) reset: Option<Duration>,
    pub(super) scope: Scope,
    pub(super) cause: LimitCause,
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
    cause: LimitCause,
    /// When the last early probe was sent, or when the cooldown began.
    probed: Tick,
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
            disproof: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.upstream.is_none() && self.models.is_empty()
    }

    /// Returns when requests for `model` may be sent again, and the cause of the limit that ends last; `None` if a request
    /// may be sent now: no limit applies to it, or it may be an early probe of all limits that do.
    pub(super) fn until(&self, model: Option<ModelKey>, now: Tick) -> Option<(Tick, LimitCause)> {
        let model = model.and_then(|model| self.get(Scope::Model(model)));
        let applies = [self.upstream, model].into_iter().flatten();
        let applies = applies.filter(|limit| now < limit.until);
        if applies.clone().all(|limit| limit.is_probe_due(now)) {
            return None;
        }
        let last = applies.max_by_key(|limit| limit.until)?;
        Some((last.until, last.cause))
    }

    /// Records that a request for `model` is sent now. It is the early probe of each limit whose probe is due. Returns whether
    /// there is such a limit.
    pub(super) fn claim_early_probes(&mut self, model: Option<ModelKey>, now: Tick) -> bool {
        let mut is_early_probe = false;
        let models = self.models.iter_mut().filter(|(limited, _)| Some(*limited) == model);
        for limit in self.upstream.iter_mut().chain(models.map(|(_, limit)| limit)) {
            if limit.is_probe_due(now) {
                limit.probed = now;
                is_early_probe = true;
            }
        }
        is_early_probe
    }

    /// Returns the end of the upstream's own cooldown, and its reason; `None` if the upstream is not cooling down.
    pub(super) fn of_upstream(&self, now: Tick) -> Option<(Tick, Reason)> {
        let limit = self.upstream.filter(|limit| now < limit.until)?;
        let reason = match limit.is_named {
            true => Reason::LimitNamed,
            false => Reason::LimitUnnamed,
        };
        Some((limit.until, reason))
    }

    /// Returns the number of models that are cooling down, and the latest end of their cooldowns.
    pub(super) fn cooling_models(&self, now: Tick) -> (usize, Option<Tick>) {
        let ends = self.models.iter().map(|(_, limit)| limit.until);
        let cooling = ends.filter(|until| now < *until);
        (cooling.clone().count(), cooling.max())
    }

    /// Records that a request was served. Every cooldown that applies to the request, and that began before the request
    /// was sent, is over. Returns the scope of one cooldown whose end is to be reported; the upstream's own is preferred.
    ///
    /// A request that was sent during the cooldown proves the limit wrong, so that the limits of requests sent before
    /// are old news. A request that was sent after the end proves nothing: the upstream may serve it and limit the next.
    pub(super) fn end_by_success(&mut self, attempt: Attempt, now: Tick) -> Option<Scope> {
        let model = attempt.request.model.map(Scope::Model);
        let mut ended = None;
        for scope in [Some(Scope::Upstream), model].into_iter().flatten() {
            let Some(limit) = self.get(scope).filter(|limit| limit.since < attempt.began) else {
                continue;
            };
            self.set(scope, None);
            if attempt.began < limit.until {
                self.disproof = Some(Disproof {
                    at: now,
                    model: attempt.request.model,
                });
            }
            ended = ended.or(limit.is_unreported.then_some(scope));
        }
        ended
    }

    /// Records that a request was limited. Returns a transition if a cooldown begins or its end moves noticeably.
    pub(super) fn record_limit(
        &mut self,
        attempt: Attempt,
        report: LimitReport,
        now: Tick,
        random: u64,
    ) -> Option<Transition> {
        let LimitReport { reset, scope, cause } = report;
        if self.is_old_news(attempt, scope) {
            return None;
        }
        let known = self.get(scope);
        let limit = match reset {
            Some(reset) => Cooldown::named(known, attempt, reset, now),
            None => Cooldown::unnamed(known, attempt, now, random),
        }?;
        let limit = Cooldown { cause, ..limit };
        self.set(scope, Some(limit));
        let (until, named) = (limit.until, limit.is_named);
        let before = known.map(|known| known.until).filter(|before| now < *before);
        let moved = before.map(|before| before.since(until).max(until.since(before)));
        moved
            .is_none_or(|moved| moved > WORTH_TELLING)
            .then_some(Transition::Cooling {
                until,
                scope,
                cause,
                named,
                endpoint: attempt.request.endpoint,
            })
    }

    /// Whether a later request shows that the limit of this scope does not hold, or no longer.
    fn is_old_news(&self, attempt: Attempt, scope: Scope) -> bool {
        self.disproof.is_some_and(|disproof| {
            let concerns = match scope {
                Scope::Upstream => true,
                Scope::Model(model) => disproof.model == Some(model),
            };
            concerns && attempt.began <= disproof.at
        })
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
            cause: LimitCause::Rate,
            probed: Self::probed(known, now),
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
            cause: LimitCause::Rate,
            probed: Self::probed(known, now),
            is_unreported: true,
            unnamed: before.saturating_add(1),
        })
    }

    /// When the last early probe was sent: a cooldown that goes on keeps that moment.
    fn probed(known: Option<Self>, now: Tick) -> Tick {
        known
            .filter(|known| now < known.until)
            .map_or(now, |known| known.probed)
    }

    /// Whether a request that is sent now may be an early probe: limits are often lifted before the named moment.
    fn is_probe_due(&self, now: Tick) -> bool {
        self.until.since(now) > EARLY_PROBE && now.since(self.probed) >= EARLY_PROBE
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
