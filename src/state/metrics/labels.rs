//! The values that labels take.

use http::StatusCode;

use crate::{
    endpoint::Endpoint,
    policy::{Route, Verdict},
};

/// The hundreds of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// Below 300.
    Success,
    /// 3xx
    Redirection,
    /// 4xx
    ClientError,
    /// From 500.
    ServerError,
}

impl StatusClass {
    pub(super) const ALL: [Self; 4] = [Self::Success, Self::Redirection, Self::ClientError, Self::ServerError];

    /// The class of `status`.
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            ..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }

    /// The label `status`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

/// Why a request went on from one upstream to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailoverReason {
    /// No connection came about.
    Connect,
    /// The connection ended before the response head.
    Broken,
    /// No response head came in time.
    Timeout,
    /// It answered that it works no more or not now.
    Failed,
    /// It answered that it has had enough.
    Limited,
    /// It answered that it does not take the credential.
    Refused,
}

impl FailoverReason {
    pub(super) const ALL: [Self; 6] = [
        Self::Connect,
        Self::Broken,
        Self::Timeout,
        Self::Failed,
        Self::Limited,
        Self::Refused,
    ];

    /// The reason that is in a verdict.
    pub fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Limited { .. } => Self::Limited,
            Verdict::Refused => Self::Refused,
            Verdict::Failed | Verdict::Served | Verdict::Answered => Self::Failed,
        }
    }

    /// The label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Broken => "broken",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
            Self::Limited => "limited",
            Self::Refused => "refused",
        }
    }
}

/// The labels of one answered request beside its upstream.
#[derive(Clone, Copy, Debug)]
pub struct RequestLabels {
    /// What was asked for.
    pub endpoint: Endpoint,
    /// Why this upstream.
    pub route: Route,
    /// How it was answered.
    pub status: StatusClass,
}

/// How a reload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// A new configuration took over.
    Applied,
    /// The configuration was what it had been.
    Unchanged,
    /// The new configuration was not valid, so the old one stayed.
    Refused,
}

impl ReloadOutcome {
    pub(super) const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Refused];

    /// The label `outcome`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}
