//! Descriptions of an upstream's health for operators and for metrics.

use std::fmt;

use crate::{
    endpoint::EndpointClass,
    policy::verdict::{LimitCause, Scope},
    tick::Tick,
};

/// The state of an upstream, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HealthState {
    /// The upstream takes requests.
    Ready,
    /// The upstream as a whole is limited.
    Cooling,
    /// The upstream failed, and no probe has shown yet that it works again.
    Ejected,
    /// The upstream refused its credential, and no probe has shown yet that it accepts the credential.
    Disabled,
    /// The operator has ordered the upstream to take no requests.
    Draining,
}

impl HealthState {
    /// All states, in the order of their declaration.
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

/// The reason for an upstream's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Several requests failed in a row.
    ConsecutiveFailures,
    /// More requests failed than at the other upstreams.
    SuccessRate,
    /// The upstream is limited and named the moment when the limit resets.
    LimitNamed,
    /// The upstream is limited and did not name the end of the limit.
    LimitUnnamed,
    /// The upstream refused its credential.
    CredentialRefused,
    /// The operator gave an order.
    Operator,
}

impl Reason {
    /// The reason in one word, for programs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::SuccessRate => "success_rate",
            Self::LimitNamed => "limit_named",
            Self::LimitUnnamed => "limit_unnamed",
            Self::CredentialRefused => "credential_refused",
            Self::Operator => "operator",
        }
    }
}

/// A summary of an upstream's health, for people. Where an upstream is cooling or ejected, the state is that of
/// generations; `classes` has the state of other endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthStatus {
    /// The state.
    pub state: HealthState,
    /// The reason for the state; `None` if the upstream is ready.
    pub reason: Option<Reason>,
    /// When the upstream takes requests again, or when the next probe is due. That moment may have passed, if no
    /// request has come since.
    pub until: Option<Tick>,
    /// The number of requests that have failed in a row.
    pub failures: u32,
    /// The number of models that are cooling down by themselves.
    pub cooling_models: usize,
    /// The latest end of the models' cooldowns.
    pub models_until: Option<Tick>,
    /// The other classes of endpoints for which the upstream is cooling or ejected.
    pub classes: Vec<ClassStatus>,
}

/// The state of an upstream for one class of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassStatus {
    /// The class.
    pub endpoint: EndpointClass,
    /// The state: cooling or ejected.
    pub state: HealthState,
    /// The reason for the state.
    pub reason: Reason,
    /// When the upstream takes these requests again, or when the next probe is due.
    pub until: Tick,
}

/// A change of an upstream's health, which is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the comment of a variant describes its fields")]
pub enum Transition {
    /// The upstream is ejected for these endpoints, after `failures` failures in a row. It is probed at `until`.
    Ejected {
        until: Tick,
        failures: u32,
        reason: Reason,
        endpoint: EndpointClass,
    },
    /// The upstream is limited for these endpoints until `until`; `named` tells whether it named that moment itself. Also
    /// reported when the end of a cooldown changes.
    Cooling {
        until: Tick,
        scope: Scope,
        cause: LimitCause,
        named: bool,
        endpoint: EndpointClass,
    },
    /// The cooldown of this scope is over.
    CooldownOver { scope: Scope, endpoint: EndpointClass },
    /// The upstream refused its credential.
    Disabled,
    /// The upstream answered a request, so it is no longer ejected or disabled.
    Recovered { from: HealthState, endpoint: EndpointClass },
    /// The operator drains the upstream.
    Drained,
    /// The operator has enabled the upstream.
    Enabled,
}

impl Transition {
    /// The transition in one word, for programs.
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

/// The text does not contain the moments: the code that prints it has the clock to tell how far away they are.
impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ejected {
                failures,
                reason,
                endpoint,
                ..
            } => {
                write!(f, "ejected{} ", Target(Scope::Upstream, endpoint))?;
                match reason {
                    Reason::SuccessRate => f.write_str("because more requests fail than at the other upstreams"),
                    _ => write!(f, "after {failures} failures in a row"),
                }
            }
            Self::Cooling {
                scope,
                cause,
                named,
                endpoint,
                ..
            } => {
                let what = match cause {
                    LimitCause::Rate => "limited",
                    LimitCause::Quota => "out of quota",
                };
                let end = match named {
                    true => " until the moment that the upstream named",
                    false => ", and the upstream named no end",
                };
                write!(f, "{what}{}{end}", Target(scope, endpoint))
            }
            Self::CooldownOver { scope, endpoint } => write!(f, "cooldown over{}", Target(scope, endpoint)),
            Self::Disabled => f.write_str("disabled: the upstream refuses the credential"),
            Self::Recovered { from, endpoint } => {
                write!(
                    f,
                    "works again{}, was {}",
                    Target(Scope::Upstream, endpoint),
                    from.label()
                )
            }
            Self::Drained => f.write_str("draining: the upstream takes no more requests"),
            Self::Enabled => f.write_str("enabled by the operator"),
        }
    }
}

/// The part of an upstream that a transition concerns, if that is not the whole upstream for generations.
struct Target(Scope, EndpointClass);

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Scope::Model(_) = self.0 {
            f.write_str(" for one model")?;
        }
        match self.1 {
            EndpointClass::Generation => Ok(()),
            endpoint => write!(f, " for requests of the class {}", endpoint.label()),
        }
    }
}
