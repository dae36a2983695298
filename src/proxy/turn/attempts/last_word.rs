//! Chooses the answer for the caller if no upstream has served its request.

use super::sender::UpstreamAnswer;
use crate::{
    fault::Fault,
    ids::Namespace,
    policy::{MemberIndex, Route},
    proxy::turn::{
        outlook::{Obstacle, Outlook},
        pick::{FailureEvidence, Turn},
    },
    state::{ClassSession, FailoverReason, Lease, Upstream},
};

/// The answer that a turn ends with.
pub(in crate::proxy) struct TurnAnswer<'a, R> {
    pub answer: UpstreamAnswer<R>,
    pub upstream: &'a Upstream,
    /// Why the turn went to this upstream.
    pub route: Route,
    /// The namespace of the caller's group.
    pub namespace: Namespace,
    /// The session of the request. It avoids the upstream if the response fails after its first output.
    pub session: Option<ClassSession>,
    /// The slot at the upstream, held until the response ends. `None` for an error that was kept while other upstreams were
    /// tried: a request that waits for another slot must not hold one.
    pub lease: Option<Lease>,
}

/// A failed attempt.
pub(super) struct FailedAttempt<'a, R> {
    pub upstream: &'a Upstream,
    pub index: MemberIndex,
    /// Why the request may go to another upstream; `None` if it may not.
    pub failover: Option<FailoverReason>,
    pub kind: FailureKind,
    pub last_word: LastWord<'a, R>,
}

/// What a failed attempt says about its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The upstream has failed.
    Failed,
    /// The upstream has reached a limit. The turn waits for its reset if no other upstream serves it.
    LimitedForNow,
    /// The upstream is limited for longer, or refuses its credential.
    Refused,
    /// The upstream does not have an object that the request names.
    NotFound,
    /// The upstream does not have the model.
    ModelNotFound,
    /// Nothing: the upstream has not answered in time and may be working on the request, or the caller's body has ended
    /// early.
    Unclear,
    /// Nothing: the request cannot be sent to this upstream, or to no upstream at the moment.
    NotSent,
}

impl<R> FailedAttempt<'_, R> {
    /// This attempt after `earlier` ones. If an upstream without the model was asked last, an earlier answer says more: its
    /// upstream has the model, and may serve it later.
    pub fn after(mut self: Box<Self>, earlier: Option<Box<Self>>) -> Box<Self> {
        if let (LastWord::ModelNotFound(_), Some(earlier)) = (&self.last_word, earlier) {
            self.last_word = earlier.last_word;
        }
        self
    }
}

impl FailureKind {
    /// Whether sending the request to another upstream costs a retry of the budget. An upstream that is limited, refuses its
    /// credential or lacks the model has done no work and gets no more such requests, so that such failures cannot multiply the
    /// load.
    pub fn costs_retry(self) -> bool {
        match self {
            Self::Failed | Self::Unclear | Self::NotSent => true,
            Self::LimitedForNow | Self::Refused | Self::NotFound | Self::ModelNotFound => false,
        }
    }

    /// Whether the attempt counts towards `retry.attempts`. An upstream without the model has done nothing, and each upstream is
    /// asked once at most.
    pub fn counts(self) -> bool {
        self != Self::ModelNotFound
    }

    /// What the failure says about the other upstreams and the next request.
    pub fn evidence(self) -> FailureEvidence {
        match self {
            Self::Failed => FailureEvidence::Failed,
            Self::LimitedForNow | Self::Refused | Self::NotFound | Self::ModelNotFound => FailureEvidence::Refused,
            Self::Unclear | Self::NotSent => FailureEvidence::Unclear,
        }
    }
}

/// The answer for the caller if no other upstream gives a better one.
pub(super) enum LastWord<'a, R> {
    /// The upstream's own error.
    Answer(Box<TurnAnswer<'a, R>>),
    /// The upstream's answer that it does not have the model.
    ModelNotFound(Box<TurnAnswer<'a, R>>),
    /// An error from Steadfast.
    Fault(Fault),
    /// The upstream has reached a limit. Its own answer is not kept: it concerns one account of several, names no time
    /// that clients understand, or names one at which another account can serve long before.
    Limited,
    /// The upstream, whose name is shown to callers if it is here, has refused its configured credential. Its own answer
    /// is not kept: it concerns a credential that is not the caller's.
    Refused(Option<String>),
}

/// Chooses the most useful answer for the caller, given the last failed attempt: the upstream's own error, the time at
/// which a limit resets, or the reason why there is no upstream.
pub(super) fn last_word<'a, R>(
    last: Option<LastWord<'a, R>>,
    turn: &Turn<'_>,
) -> Result<Box<TurnAnswer<'a, R>>, Fault> {
    let outlook = turn.outlook();
    let is_limited = matches!(
        outlook,
        Some(Outlook {
            obstacle: Obstacle::Limit(_),
            ..
        })
    );
    let fault = turn.fault_of(outlook);
    let retry = outlook.map(|outlook| outlook.retry).unwrap_or_default();
    match last {
        Some(LastWord::Answer(kept)) => Ok(kept),
        // An upstream that is known to have the model cannot take the request now, but may be able to do so later.
        Some(LastWord::ModelNotFound(_))
            if turn.is_model_known() && outlook.is_some_and(|outlook| outlook.obstacle != Obstacle::None) =>
        {
            Err(fault)
        }
        Some(LastWord::ModelNotFound(kept)) => Ok(kept),
        // Other upstreams may work meanwhile, so the caller may come back soon. It is told of a limit of the kind that
        // clients wait out.
        Some(LastWord::Limited) if outlook.is_some_and(|outlook| outlook.obstacle == Obstacle::None) => {
            Err(Fault::UpstreamsRateLimited {
                resets_in: retry,
                is_owned: turn.is_owned(),
            })
        }
        Some(LastWord::Refused(upstream)) if !is_limited => Err(Fault::CredentialRefused { upstream, retry }),
        Some(LastWord::Fault(own)) => match own {
            Fault::UpstreamUnreachable { .. } | Fault::UpstreamBroken { .. } if is_limited => Err(fault),
            own => Err(own),
        },
        None | Some(LastWord::Limited | LastWord::Refused(_)) => Err(fault),
    }
}
