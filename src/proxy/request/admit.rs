//! The first stage: may this request come in, judged by its head alone. No body is read, and no `100 Continue` sent.

use http::{
    HeaderMap, HeaderValue, Method,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, UPGRADE},
    request::Parts,
};

use crate::proxy::{
    request::caller::{self, Caller},
    request::headers::{self, CallersCredential, TURN_STATE, X_REQUEST_ID},
    request::host,
    request::target::{self, Target},
    text::copied,
    turn::turn_state::{self, TurnState},
};
use crate::{
    endpoint::Endpoint,
    fault::Fault,
    scan::{Encoding, EncodingKind},
    state::Snapshot,
    wire::{Framing, Peer},
};

/// A request whose sender is known, and what it asks for.
pub(in crate::proxy) struct Identified<'a> {
    pub caller: Caller<'a>,
    pub target: Target,
}

/// A request whose head is in order.
pub(in crate::proxy) struct Admitted<'a> {
    pub caller: Caller<'a>,
    pub method: Method,
    pub target: Target,
    /// What of the headers any upstream may see.
    pub headers: HeaderMap,
    pub callers: CallersCredential,
    pub framing: Framing,
    /// How the body is compressed.
    pub coding: EncodingKind,
    pub is_json: bool,
    pub turn_state: Option<TurnState>,
}

impl Admitted<'_> {
    /// Whether the body is looked into: where an upstream will read JSON, and where we can.
    pub fn is_inspected(&self) -> bool {
        if self.framing == Framing::None || self.coding == EncodingKind::Unknown {
            return false;
        }
        match self.target.endpoint {
            Endpoint::Responses | Endpoint::Compact | Endpoint::ChatCompletions | Endpoint::Embeddings => true,
            Endpoint::Response | Endpoint::Models | Endpoint::Other => self.is_json,
        }
    }
}

/// Tells who sends a request, at the second `now` of Unix time, and what it asks for.
pub(in crate::proxy) fn identify<'a>(snapshot: &'a Snapshot, parts: &Parts, now: u64) -> Result<Identified<'a>, Fault> {
    target::check_method(&parts.method)?;
    host::check(parts.version, &parts.uri, &parts.headers)?;
    let target = target::read(&parts.method, &parts.uri)?;
    let caller = caller::identify(snapshot, &parts.headers, now)?;
    Ok(Identified { caller, target })
}

/// Judges a request by its head.
pub(in crate::proxy) fn admit<'a>(
    snapshot: &'a Snapshot,
    identified: Identified<'a>,
    parts: Parts,
    framing: Framing,
    peer: Peer,
) -> Result<Admitted<'a>, Fault> {
    let Identified { caller, target } = identified;
    let Parts {
        method, mut headers, ..
    } = parts;
    caller::may_call(caller.group, &method, &target)?;
    if target.endpoint == Endpoint::Responses && method == Method::GET && wants_websocket(&headers) {
        return Err(Fault::WebSocketUnsupported);
    }
    if let Framing::Length(length) = framing
        && length > snapshot.limits.max_body
    {
        return Err(Fault::BodyTooLarge {
            limit: snapshot.limits.max_body,
        });
    }
    let host = headers.get(HOST).cloned();
    let callers = headers::cleanse_request(&mut headers, target.endpoint, snapshot.has_passthrough);
    // Only now: a field that `Connection` names is gone, and the upstream reads the body without it.
    let coding = coding(&headers);
    // Whichever of several an upstream goes by.
    let is_json = headers.get_all(CONTENT_TYPE).iter().any(names_json);
    if snapshot.forwarded {
        headers::add_forwarded(&mut headers, peer, host);
    }
    let namespace = caller.group.namespace;
    let sealed = headers.remove(TURN_STATE);
    let turn_state = sealed.and_then(|sealed| {
        let seal_of = |issuer| snapshot.upstream_of(issuer).map(|upstream| &upstream.seal);
        turn_state::unseal(&sealed, namespace, seal_of)
    });
    Ok(Admitted {
        caller,
        method,
        target,
        headers,
        callers,
        framing,
        coding,
        is_json,
        turn_state,
    })
}

/// The caller's request id, or one made for it; the request carries it from here on.
pub(in crate::proxy) fn request_id(headers: &mut HeaderMap) -> HeaderValue {
    const LONGEST: usize = 128;
    if let Some(id) = headers.get(X_REQUEST_ID)
        && !id.is_empty()
        && id.len() <= LONGEST
        && id.as_bytes().iter().all(u8::is_ascii_graphic)
    {
        let id = copied(id);
        // Also where it stood twice: what is logged is what the upstream gets.
        headers.insert(X_REQUEST_ID, id.clone());
        return id;
    }
    let made = made_id(fastrand::u128(..));
    headers.insert(X_REQUEST_ID, made.clone());
    made
}

/// `req_` and 32 hexadecimal digits.
fn made_id(number: u128) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"req_00000000000000000000000000000000";
    for (place, shift) in text.iter_mut().skip("req_".len()).zip((0..128).step_by(4).rev()) {
        *place = DIGITS[(number >> shift) as usize & 0xf];
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("req_"))
}

fn coding(headers: &HeaderMap) -> EncodingKind {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => EncodingKind::Identity,
        (Some(coding), None) => coding.to_str().map_or(EncodingKind::Unknown, Encoding::from_header),
        (Some(_), Some(_)) => EncodingKind::Unknown,
    }
}

fn wants_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).iter().any(|value| {
        value.to_str().is_ok_and(|value| {
            value
                .split(',')
                .any(|name| name.trim().eq_ignore_ascii_case("websocket"))
        })
    })
}

/// `application/json`, or any type with the suffix `+json` (RFC 6839); also in a list, which a type should not be.
pub(in crate::proxy) fn names_json(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().split(|byte| *byte == b',').any(is_json_type)
}

fn is_json_type(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next();
    let essence = essence.unwrap_or_default().trim_ascii();
    let suffix = essence
        .len()
        .checked_sub("+json".len())
        .and_then(|at| essence.get(at..));
    essence.eq_ignore_ascii_case(b"application/json")
        || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn request_ids_are_kept_or_made() {
        let mut given = headers(&[("x-request-id", "abc-1")]);
        assert_eq!(request_id(&mut given), "abc-1");
        for unusable in ["", "a b"] {
            let mut map = headers(&[("x-request-id", unusable)]);
            let made = request_id(&mut map);
            assert!(
                made.to_str().is_ok_and(|id| id.len() == 36 && id.starts_with("req_")),
                "{made:?}"
            );
            assert_eq!(map.get(X_REQUEST_ID), Some(&made));
        }
    }

    #[test]
    fn a_made_id_has_its_number_in_it() {
        for number in [0, 1, 0xabc, u128::MAX, u128::MAX / 7] {
            assert_eq!(made_id(number), format!("req_{number:032x}").as_str());
        }
    }

    #[test]
    fn json_is_told_by_its_type() {
        for (value, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.x+json", true),
            ("multipart/form-data; boundary=x", false),
            ("application/jsonl", false),
            ("text/plain, application/json", true),
            ("text/plain;charset=utf-8,application/json;x", true),
        ] {
            assert_eq!(names_json(&HeaderValue::from_static(value)), json, "{value}");
        }
    }
}
