//! Cooling down: the limits of an upstream and of its models.

use std::time::Duration;

use super::{Attempt, Transition, jittered};
use crate::policy::verdict::Scope;
use crate::{ids::ModelKey, tick::Tick};

/// The shortest time that a named reset can lie ahead: clocks differ, and nobody gains by asking sooner.
pub const RESET_MIN: Duration = Duration::from_millis(500);
/// The longest: weekly quotas exist, anything beyond is a mistake.
pub const RESET_MAX: Duration = Duration::from_secs(7 * 86_400);
/// How long the first cooldown lasts where no reset is named, give or take a quarter.
pub const COOLDOWN: Duration = Duration::from_secs(1);
/// How long a cooldown lasts at most where no reset is named.
pub const COOLDOWN_MAX: Duration = Duration::from_secs(300);
/// Of this many models a limit is remembered; beyond that the one that ends first is forgotten.
pub const MODELS_MAX: usize = 16;

/// How long after its end a cooldown without a named reset makes the next one longer.
pub(super) const BACKOFF_MEMORY: Duration = Duration::from_secs(300);
/// An end that moves by no more than this is not worth a line in a log.
const WORTH_TELLING: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) struct Cooldowns {
    upstream: Option<Cooldown>,
    /// At most [`MODELS_MAX`].
    models: Vec<(ModelKey, Cooldown)>,
    /// When a limit was last proved wrong: what was sent before says nothing on any.
    cleared: Option<Tick>,
}

/// A cooldown, and what remains to be known of it afterwards.
#[derive(Clone, Copy, Debug)]
struct Cooldown {
    /// When it was last confirmed.
    since: Tick,
    until: Tick,
    is_named: bool,
    /// Its end has not been reported.
    is_open: bool,
    /// How many cooldowns without a named reset there were in a row.
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

    /// When requests for `model` may go again; `None` if they may now.
    pub(super) fn until(&self, model: Option<ModelKey>, now: Tick) -> Option<Tick> {
        let model = model.and_then(|model| self.get(Scope::Model(model)));
        let ends = [self.upstream, model].into_iter().flatten().map(|limit| limit.until);
        ends.max().filter(|until| now < *until)
    }

    /// The end of the upstream's own cooldown and whether it was named, if it is under way.
    pub(super) fn upstream(&self, now: Tick) -> Option<(Tick, bool)> {
        let limit = self.upstream.filter(|limit| now < limit.until)?;
        Some((limit.until, limit.is_named))
    }

    /// How many models are cooling, and when the last of them is back.
    pub(super) fn models(&self, now: Tick) -> (usize, Option<Tick>) {
        let ends = self.models.iter().map(|(_, limit)| limit.until);
        let cooling = ends.filter(|until| now < *until);
        (cooling.clone().count(), cooling.max())
    }

    /// A request was served: whatever it was sent in spite of is over. Returns one cooldown that was under way, the
    /// upstream's own if it was.
    pub(super) fn succeeded(&mut self, attempt: Attempt, now: Tick) -> Option<Scope> {
        let model = attempt.model.map(Scope::Model);
        let mut ended = None;
        for scope in [Some(Scope::Upstream), model].into_iter().flatten() {
            let Some(limit) = self.get(scope).filter(|limit| limit.since < attempt.began) else {
                continue;
            };
            self.set(scope, None);
            self.cleared = Some(now);
            ended = ended.or(limit.is_open.then_some(scope));
        }
        ended
    }

    /// A request was limited.
    pub(super) fn limited(
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

    /// Reports one cooldown that has ended; when there is none left to report, forgets what needs no remembering.
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
        if let Some((scope, limit)) = all.find(|(_, limit)| limit.is_open && limit.until <= now) {
            limit.is_open = false;
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
            if let Some((_, first)) = ends.min() {
                self.models.swap_remove(first);
            }
        }
    }
}

impl Cooldown {
    /// What becomes of a `known` limit when `attempt` was told a reset; `None` if nothing does.
    fn named(known: Option<Self>, attempt: Attempt, reset: Duration, now: Tick) -> Option<Self> {
        let until = now.after(reset.clamp(RESET_MIN, RESET_MAX));
        let is_news = known.is_none_or(|known| known.until < until || known.since < attempt.began);
        is_news.then_some(Self {
            since: now,
            until,
            is_named: true,
            is_open: true,
            unnamed: known.map_or(0, |known| known.unnamed),
        })
    }

    /// The same when it was told none. Only what was sent after the last cooldown's end tells that it was too short.
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
            is_open: true,
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
