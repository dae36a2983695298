//! What a client key may still use: asked before a request goes on, and told on every answer.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::{request::admit::Admitted, request_log::RequestLog};
use crate::{
    fault::Fault,
    policy::{
        limiter::{Denial, LimitUsage},
        tokens,
    },
    scan::{EncodingKind, Usage},
    state::{ClientKey, Permit},
    wire::Framing,
};

/// About how many bytes of an event stream are a token: each comes in an event of its own, with much around it.
const STREAMED_BYTES_PER_TOKEN: u64 = 256;

const X_RATELIMIT: &str = "x-ratelimit-";
/// Limit, remaining and reset.
const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Lets an admitted request in, if its key's limits do; what its body will cost is estimated from the length that it names.
///
/// # Errors
/// Where a limit is reached.
pub(in crate::proxy) fn enter(admitted: &Admitted<'_>, log: &mut RequestLog) -> Result<(), Fault> {
    let Some(rate_limits) = admitted.caller.rate_limits() else {
        return Ok(());
    };
    let tokens = match admitted.framing {
        Framing::Length(length) if admitted.is_inspected() && admitted.coding == EncodingKind::Identity => {
            tokens::estimated(length)
        }
        _ => 0,
    };
    log.permit = Some(rate_limits.admit(tokens).map_err(fault)?);
    Ok(())
}

/// Now that the body has been read: it has `bytes`, decompressed.
///
/// # Errors
/// Where it is more than was estimated, and a limit is reached by that.
pub(in crate::proxy) fn correct(admitted: &Admitted<'_>, bytes: u64, log: &mut RequestLog) -> Result<(), Fault> {
    match &mut log.permit {
        Some(permit) if admitted.is_inspected() => permit.correct_estimate(tokens::estimated(bytes)).map_err(fault),
        _ => Ok(()),
    }
}

fn fault(denial: Denial) -> Fault {
    Fault::RateLimited {
        kind: denial.limit,
        limit: denial.allowed,
        retry: denial.retry_after,
    }
}

/// The request is over: its permit is given back, and what it used is counted. Where that is not known, it is as much as was
/// estimated, and what `streamed` bytes of an answer stand for: who leaves a stream before its end has had what came.
pub(in crate::proxy) fn settle(permit: Permit, usage: Option<Usage>, was_served: bool, streamed: u64) {
    match usage {
        Some(usage) => permit.charge(usage.total()),
        None if was_served => permit.charge_estimate(streamed / STREAMED_BYTES_PER_TOKEN),
        None => permit.charge(0),
    }
}

/// Tells on an answer what is left of the limits of `key`, instead of what an upstream tells of its own.
pub(in crate::proxy) fn show(headers: &mut HeaderMap, key: &ClientKey) {
    let theirs: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(X_RATELIMIT))
        .cloned()
        .collect();
    for name in theirs {
        headers.remove(name);
    }
    let Some(rate_limits) = &key.rate_limits else { return };
    let used = rate_limits.used();
    for (names, usage) in [(&REQUESTS, used.requests), (&TOKENS, used.tokens)] {
        if let Some(usage) = usage {
            insert(headers, names, &usage);
        }
    }
}

fn insert(headers: &mut HeaderMap, [limit, remaining, reset]: &[HeaderName; 3], usage: &LimitUsage) {
    headers.insert(limit, HeaderValue::from(usage.limit));
    headers.insert(remaining, HeaderValue::from(usage.remaining));
    if let Ok(value) = HeaderValue::try_from(crate::policy::limiter::in_units(usage.reset)) {
        headers.insert(reset, value);
    }
}
