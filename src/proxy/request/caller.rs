//! Part of the first stage: who calls, and what that caller may do by the head of its request.
//!
//! A group that may use some models only, or whose accounts others use too, may call only what can be judged: where which
//! model is run stands in the body, and where nothing but what the request carries is read or changed. What else an account
//! holds (files, stored completions, fine-tuned models) belongs to all who call it.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, header::AUTHORIZATION};

use crate::proxy::{
    request::admit::Admitted, request::headers::X_API_KEY, request::inspect::Inspected, request::target::Target,
    text::bounded,
};
use crate::{
    endpoint::Endpoint,
    fault::{Fault, KeyProblem},
    state::{ClientKey, Group, RateLimits, Snapshot},
    wire::Framing,
};

/// Who calls.
#[derive(Clone)]
pub(in crate::proxy) struct Caller<'a> {
    /// What it has shown; none where anybody may call.
    pub key: Option<&'a Arc<ClientKey>>,
    pub group: &'a Arc<Group>,
}

impl Caller<'_> {
    /// What its key may use, where that is limited.
    pub fn rate_limits(&self) -> Option<&Arc<RateLimits>> {
        self.key?.rate_limits.as_ref()
    }
}

/// Tells who sends a request, at the second `now` of Unix time.
///
/// # Errors
/// Where a client key is needed, and there is none that is good.
pub(in crate::proxy) fn identify<'a>(
    snapshot: &'a Snapshot,
    headers: &HeaderMap,
    now: u64,
) -> Result<Caller<'a>, Fault> {
    let access = &snapshot.access;
    if access.is_open() {
        let group = access.anybody();
        return Ok(Caller { key: None, group });
    }
    let shown = shown(headers)?;
    let key = access
        .find(shown, now)
        .map_err(|problem| Fault::InvalidKey { problem })?;
    Ok(Caller {
        key: Some(key),
        group: &key.group,
    })
}

/// What is shown as a client key: as `Authorization: Bearer`, else as `x-api-key`.
fn shown(headers: &HeaderMap) -> Result<&[u8], Fault> {
    const UNREADABLE: Fault = Fault::InvalidKey {
        problem: KeyProblem::Unknown,
    };
    let authorization = single(headers, AUTHORIZATION)?;
    if let Some(key) = authorization.and_then(bearer) {
        return Ok(key);
    }
    match single(headers, X_API_KEY)? {
        Some(key) => Ok(key.as_bytes().trim_ascii()),
        None if authorization.is_some() => Err(UNREADABLE),
        None => Err(Fault::MissingKey),
    }
}

/// The value of a field that may stand once: which of two is meant is anybody's guess.
fn single(headers: &HeaderMap, name: http::HeaderName) -> Result<Option<&HeaderValue>, Fault> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Fault::InvalidKey {
            problem: KeyProblem::Unknown,
        }),
    }
}

/// The token behind the scheme, whose name has no case (RFC 9110 section 11.1, RFC 6750 section 2.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Whether `group` can do harm by calling what cannot be judged.
fn is_confined(group: &Group) -> bool {
    group.shares_accounts || !group.models.is_all()
}

/// Whether `group` may call this path, by itself.
///
/// # Errors
/// Where it may not.
pub(in crate::proxy) fn may_call(group: &Group, method: &Method, target: &Target) -> Result<(), Fault> {
    if !is_confined(group) {
        return Ok(());
    }
    let is_post = method == Method::POST;
    let is_judged = match target.endpoint {
        Endpoint::Responses | Endpoint::Compact | Endpoint::ChatCompletions | Endpoint::Embeddings => is_post,
        Endpoint::Response => target.is_of_response(method) || is_post && target.counts_tokens(),
        Endpoint::Models => method == Method::GET,
        Endpoint::Other => is_post && is_stateless(target.tail()),
    };
    if is_judged {
        return Ok(());
    }
    Err(Fault::PathForbidden {
        path: format!("{method} {}", bounded(target.tail())),
        why: match group.shares_accounts {
            true => "it could reach what other groups hold in the same accounts",
            false => "which model it would use cannot be told",
        },
    })
}

/// Paths that read and change nothing but what the request carries, and that name their model in it.
fn is_stateless(tail: &str) -> bool {
    matches!(
        tail,
        "/moderations"
            | "/rerank"
            | "/images/generations"
            | "/images/edits"
            | "/images/variations"
            | "/audio/speech"
            | "/audio/transcriptions"
            | "/audio/translations"
    )
}

/// Whether `group` may use the model that the request's body names: the one that an upstream will read.
///
/// # Errors
/// Where it may not, where no model can be read, or where the body could hide whose response it goes on with.
pub(in crate::proxy) fn may_use(
    snapshot: &Snapshot,
    admitted: &Admitted<'_>,
    inspected: &Inspected,
) -> Result<(), Fault> {
    let (group, target) = (admitted.caller.group, &admitted.target);
    // What names a response runs no model of its own.
    if target.is_of_response(&admitted.method) || target.endpoint == Endpoint::Models {
        return Ok(());
    }
    let is_read = admitted.is_inspected();
    if !is_read && hides_response(admitted) {
        return Err(Fault::PathForbidden {
            path: format!("{} {}", admitted.method, bounded(target.tail())),
            why: "its body cannot be looked into, and could name a response of another group",
        });
    }
    if group.models.is_all() {
        return Ok(());
    }
    if !is_read {
        let problem = "the body of this request cannot be looked into";
        return Err(Fault::ModelUnreadable { problem });
    }
    match &inspected.facts.model {
        Some(model) if group.models.matches(model) => Ok(()),
        Some(model) => Err(Fault::ModelForbidden {
            model: bounded(model),
            allowed: snapshot.models_of(group),
        }),
        None => {
            let problem = "this request names none";
            Err(Fault::ModelUnreadable { problem })
        }
    }
}

/// Whether a body that is not looked into may name the response of another group.
fn hides_response(admitted: &Admitted<'_>) -> bool {
    let may_name_one = matches!(
        admitted.target.endpoint,
        Endpoint::Responses | Endpoint::Compact | Endpoint::Response
    );
    may_name_one && admitted.caller.group.shares_accounts && admitted.framing != Framing::None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn a_key_is_read_from_one_place() {
        for (sent, key) in [
            (&[("authorization", "Bearer k1")] as &[_], Some("k1")),
            (&[("authorization", "bearer  k1 ")], Some("k1")),
            (&[("authorization", "Bearer k1"), ("x-api-key", "k2")], Some("k1")),
            (&[("authorization", "Basic k1"), ("x-api-key", "k2")], Some("k2")),
            (&[("x-api-key", "k2")], Some("k2")),
            (&[("authorization", "Bearer k1"), ("authorization", "Bearer k1")], None),
            (&[("x-api-key", "k2"), ("x-api-key", "k3")], None),
            (&[("authorization", "Basic k1")], None),
            (&[("authorization", "Bearerk1")], None),
            (&[], None),
        ] {
            assert_eq!(shown(&headers(sent)).ok(), key.map(str::as_bytes), "{sent:?}");
        }
        assert_eq!(shown(&headers(&[])), Err(Fault::MissingKey));
    }
}
