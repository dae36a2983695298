//! The labels of metric families: closed sets of values, so that an unknown label does not compile.
//!
//! A label takes bounded values only. It is never a client key, a session or a model.

use http::StatusCode;

use crate::{
    endpoint::Endpoint,
    fault::RejectReason,
    policy::{Route, Verdict, health::HealthState},
    state::BrakeKind,
};

/// The labels of one metric family: every combination of values has an index.
pub trait LabelSet: Copy + 'static {
    /// The number of combinations.
    const COUNT: usize;

    /// Returns every combination, in the order of their indexes.
    fn all() -> Vec<Self>;

    /// Returns the index of this combination: below [`COUNT`](Self::COUNT), and different for each.
    fn index(self) -> usize;

    /// Returns the name and the value of each label.
    fn pairs(self) -> Vec<(&'static str, &'static str)>;
}

/// The label set of a family that has one time series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLabels;

impl LabelSet for NoLabels {
    const COUNT: usize = 1;

    fn all() -> Vec<Self> {
        vec![Self]
    }

    #[inline]
    fn index(self) -> usize {
        0
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }
}

/// Makes an enum with `ALL` and `label()` the only label of a family.
macro_rules! label {
    ($name:literal, $values:ty) => {
        impl LabelSet for $values {
            const COUNT: usize = Self::ALL.len();

            fn all() -> Vec<Self> {
                Self::ALL.to_vec()
            }

            #[inline]
            fn index(self) -> usize {
                self as usize
            }

            fn pairs(self) -> Vec<(&'static str, &'static str)> {
                vec![($name, self.label())]
            }
        }
    };
}

label!("endpoint", Endpoint);
label!("outcome", ReloadOutcome);
label!("reason", BrakeKind);
label!("reason", FailoverReason);
label!("reason", RejectReason);
label!("route", Route);
label!("state", HealthState);
label!("status", StatusClass);

/// The labels of an answered request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLabels {
    /// The endpoint that the request called.
    pub endpoint: Endpoint,
    /// Why the request went to this upstream.
    pub route: Route,
    /// The class of the response's status.
    pub status: StatusClass,
}

impl LabelSet for RequestLabels {
    const COUNT: usize = Endpoint::COUNT * Route::COUNT * StatusClass::COUNT;

    fn all() -> Vec<Self> {
        let mut all = Vec::with_capacity(Self::COUNT);
        for endpoint in Endpoint::ALL {
            for route in Route::ALL {
                all.extend(StatusClass::ALL.map(|status| Self {
                    endpoint,
                    route,
                    status,
                }));
            }
        }
        all
    }

    #[inline]
    fn index(self) -> usize {
        (self.endpoint.index() * Route::COUNT + self.route.index()) * StatusClass::COUNT + self.status.index()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        [self.endpoint.pairs(), self.route.pairs(), self.status.pairs()].concat()
    }
}

/// The class of a status: its first digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// Below 300.
    Success,
    /// 300 to 399.
    Redirection,
    /// 400 to 499.
    ClientError,
    /// From 500.
    ServerError,
}

impl StatusClass {
    /// Every class, in the order of its discriminant.
    pub const ALL: [Self; 4] = [Self::Success, Self::Redirection, Self::ClientError, Self::ServerError];

    /// Returns the class of `status`.
    pub fn from_status(status: StatusCode) -> Self {
        match status.as_u16() {
            ..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }

    /// The value of the label `status`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

/// Why a request failed at an upstream, so that it may go to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailoverReason {
    /// The connection could not be established.
    Connect,
    /// The connection ended before the response head.
    Broken,
    /// The response head did not arrive in time.
    Timeout,
    /// The upstream answered with an error of its own.
    Failed,
    /// The upstream answered that a rate limit or quota is reached.
    Limited,
    /// The upstream refused the credential.
    Refused,
    /// The upstream does not have the model.
    ModelNotFound,
    /// The upstream does not have an object that the request names.
    ObjectNotFound,
}

impl FailoverReason {
    /// Every reason, in the order of its discriminant.
    pub const ALL: [Self; 8] = [
        Self::Connect,
        Self::Broken,
        Self::Timeout,
        Self::Failed,
        Self::Limited,
        Self::Refused,
        Self::ModelNotFound,
        Self::ObjectNotFound,
    ];

    /// Returns the reason for a failover after `verdict`; `None` if the answer is passed on.
    pub fn from_verdict(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Limited { .. } => Some(Self::Limited),
            Verdict::Refused | Verdict::Unauthorized => Some(Self::Refused),
            Verdict::Failed | Verdict::Looped => Some(Self::Failed),
            Verdict::ModelNotFound => Some(Self::ModelNotFound),
            Verdict::ObjectNotFound => Some(Self::ObjectNotFound),
            Verdict::Served | Verdict::Answered => None,
        }
    }

    /// The value of the label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Broken => "broken",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
            Self::Limited => "limited",
            Self::Refused => "refused",
            Self::ModelNotFound => "model_not_found",
            Self::ObjectNotFound => "object_not_found",
        }
    }
}

/// How a reload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// A new configuration is in force.
    Applied,
    /// The configuration is the same as before.
    Unchanged,
    /// The new configuration is invalid, so the old one stays in force.
    Refused,
}

impl ReloadOutcome {
    /// Every outcome, in the order of its discriminant.
    pub const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Refused];

    /// The value of the label `outcome`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn check<L: LabelSet + Debug>() {
        let indexes: Vec<usize> = L::all().into_iter().map(L::index).collect();
        assert_eq!(indexes, (0..L::COUNT).collect::<Vec<_>>());
        let names = |labels: L| labels.pairs().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        for labels in L::all() {
            assert_eq!(names(labels), names(L::all()[0]), "{labels:?}");
        }
    }

    #[test]
    fn indexes_follow_the_order_of_the_combinations() {
        check::<NoLabels>();
        check::<Endpoint>();
        check::<Route>();
        check::<StatusClass>();
        check::<RequestLabels>();
        check::<BrakeKind>();
        check::<FailoverReason>();
        check::<HealthState>();
        check::<RejectReason>();
        check::<ReloadOutcome>();
    }
}
