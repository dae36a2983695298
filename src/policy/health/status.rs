//! Health as others see it: operators, metrics, and whoever must choose the least bad.

use std::fmt;

use super::{Health, HealthPhase};
use crate::policy::verdict::Scope;
use crate::{ids::ModelKey, tick::Tick};

/// What an upstream is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HealthState {
    /// It takes requests.
    Ready,
    /// It is limited as a whole.
    Cooling,
    /// It did not work, and no probe has yet said that it does.
    Ejected,
    /// It refused our credential, and no probe has yet said that it takes it.
    Disabled,
    /// The operator wants it to take nothing.
    Draining,
}

impl HealthState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Ready,
        Self::Cooling,
        Self::Ejected,
        Self::Disabled,
        Self::Draining,
    ];

    /// The metric label `state`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Cooling => "cooling",
            Self::Ejected => "ejected",
            Self::Disabled => "disabled",
            Self::Draining => "draining",
        }
    }
}

/// Why an upstream is in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Requests failed one after the other.
    ConsecutiveFailures,
    /// It named the moment when its limit resets.
    LimitNamed,
    /// It is limited and did not say for how long.
    LimitUnnamed,
    /// It refused our credential.
    CredentialRefused,
    /// The operator said so.
    Operator,
}

impl Reason {
    /// In a word, for programs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::LimitNamed => "limit_named",
            Self::LimitUnnamed => "limit_unnamed",
            Self::CredentialRefused => "credential_refused",
            Self::Operator => "operator",
        }
    }
}

/// The whole of an upstream's health, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthStatus {
    /// What it is.
    pub state: HealthState,
    /// Why; `None` if it is ready.
    pub reason: Option<Reason>,
    /// When it is back, or when the next probe is due (which may have passed, if nobody came).
    pub until: Option<Tick>,
    /// How many requests have failed in a row.
    pub failures: u32,
    /// How many of its models are cooling, apart from the rest.
    pub cooling_models: usize,
    /// When the last of them is back.
    pub models_until: Option<Tick>,
}

/// How bad it would be to send a request to an upstream that should get none; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Badness {
    /// It is back at that moment.
    Back(Tick),
    /// It does not work, and a probe is under way to see whether that still holds.
    Probing(Tick),
    /// It refused our credential.
    Disabled(Tick),
}

/// What has become of an upstream: a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "a variant's line says what its fields are")]
pub enum Transition {
    /// It does not work: `failures` in a row. Probed at `until`.
    Ejected { until: Tick, failures: u32 },
    /// It is limited until then; `named` if it said so itself. Also when a cooldown that is under way changes its end.
    Cooling { until: Tick, scope: Scope, named: bool },
    /// That cooldown is over.
    CooldownOver { scope: Scope },
    /// It refused our credential.
    Disabled,
    /// A request was answered: it is no longer ejected or disabled.
    Recovered { from: HealthState },
    /// The operator took it out.
    Drained,
    /// The operator put it back.
    Enabled,
}

impl Transition {
    /// In a word, for programs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ejected { .. } => "ejected",
            Self::Cooling { .. } => "cooling",
            Self::CooldownOver { .. } => "cooldown_over",
            Self::Disabled => "disabled",
            Self::Recovered { .. } => "recovered",
            Self::Drained => "drained",
            Self::Enabled => "enabled",
        }
    }
}

/// The moments in it are left out: whoever prints it has the clock to say how far off they are.
impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = |scope| if scope == Scope::Upstream { "" } else { " for one model" };
        match *self {
            Self::Ejected { failures, .. } => write!(f, "ejected after {failures} failures in a row"),
            Self::Cooling { scope, named: true, .. } => {
                write!(f, "limited{} until a moment that it named", whose(scope))
            }
            Self::Cooling { scope, .. } => write!(f, "limited{} and named no end", whose(scope)),
            Self::CooldownOver { scope } => write!(f, "cooldown over{}", whose(scope)),
            Self::Disabled => f.write_str("disabled: it refuses the credential"),
            Self::Recovered { from } => write!(f, "works again, was {}", from.label()),
            Self::Drained => f.write_str("draining: takes no more requests"),
            Self::Enabled => f.write_str("enabled by the operator"),
        }
    }
}

impl Health {
    /// What to show of it at `now`.
    pub fn describe(&self, now: Tick) -> HealthStatus {
        let (cooling_models, models_until) = self.cooldowns.models(now);
        let limit = self.cooldowns.upstream(now);
        let (state, reason, until) = match &self.phase {
            _ if self.is_draining => (HealthState::Draining, Some(Reason::Operator), None),
            HealthPhase::Out(outage) => (outage.state(), Some(outage.reason()), Some(outage.next_probe())),
            HealthPhase::Working { .. } => match limit {
                Some((until, true)) => (HealthState::Cooling, Some(Reason::LimitNamed), Some(until)),
                Some((until, false)) => (HealthState::Cooling, Some(Reason::LimitUnnamed), Some(until)),
                None => (HealthState::Ready, None, None),
            },
        };
        HealthStatus {
            state,
            reason,
            until,
            failures: self.failures(),
            cooling_models,
            models_until,
        }
    }

    /// How bad it would be to send it a request for `model` now, though it is not ready; `None` if that is out of the
    /// question.
    pub fn badness(&self, model: Option<ModelKey>, now: Tick) -> Option<Badness> {
        if self.is_draining {
            return None;
        }
        let cooling = self.cooldowns.until(model, now).unwrap_or(now);
        Some(match &self.phase {
            HealthPhase::Out(outage) => outage.badness(outage.next_probe().max(cooling), now),
            HealthPhase::Working { .. } => Badness::Back(cooling),
        })
    }

    fn failures(&self) -> u32 {
        match &self.phase {
            HealthPhase::Working { failures, .. } => *failures,
            HealthPhase::Out(outage) => outage.failures(),
        }
    }
}
