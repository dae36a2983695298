//! Descriptions of an upstream's health for operators, for metrics, and for the choice of the least bad upstream.

use std::fmt;

use crate::{policy::verdict::Scope, tick::Tick};

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
            Self::LimitNamed => "limit_named",
            Self::LimitUnnamed => "limit_unnamed",
            Self::CredentialRefused => "credential_refused",
            Self::Operator => "operator",
        }
    }
}

/// A summary of an upstream's health, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// How bad it would be to send a request to an upstream that is not ready. The smallest value is the best choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Badness {
    /// The upstream is expected to take requests again at this moment.
    Back(Tick),
    /// The upstream does not work, and a probe is in flight to see whether that is still so. The moment is as in
    /// [`Badness::Back`].
    Probing(Tick),
    /// The upstream refused its credential.
    Disabled(Tick),
}

/// A change of an upstream's health, which is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the comment of a variant describes its fields")]
pub enum Transition {
    /// The upstream failed `failures` times in a row. It is probed at `until`.
    Ejected { until: Tick, failures: u32 },
    /// The upstream is limited until `until`; `named` tells whether it named that moment itself. Also reported when
    /// the end of a cooldown changes.
    Cooling { until: Tick, scope: Scope, named: bool },
    /// The cooldown of this scope is over.
    CooldownOver { scope: Scope },
    /// The upstream refused its credential.
    Disabled,
    /// The upstream answered a request, so it is no longer ejected or disabled.
    Recovered { from: HealthState },
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
        let target = |scope| if scope == Scope::Upstream { "" } else { " for one model" };
        match *self {
            Self::Ejected { failures, .. } => write!(f, "ejected after {failures} failures in a row"),
            Self::Cooling { scope, named: true, .. } => {
                write!(f, "limited{} until the moment that the upstream named", target(scope))
            }
            Self::Cooling { scope, .. } => write!(f, "limited{}, and the upstream named no end", target(scope)),
            Self::CooldownOver { scope } => write!(f, "cooldown over{}", target(scope)),
            Self::Disabled => f.write_str("disabled: the upstream refuses the credential"),
            Self::Recovered { from } => write!(f, "works again, was {}", from.label()),
            Self::Drained => f.write_str("draining: the upstream takes no more requests"),
            Self::Enabled => f.write_str("enabled by the operator"),
        }
    }
}
