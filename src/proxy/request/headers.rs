//! Which headers pass, and which end here.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCEPT_ENCODING, ALT_SVC, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, SET_COOKIE,
        TRANSFER_ENCODING,
    },
};

use memchr::memmem::Finder;

use crate::{
    endpoint::Endpoint,
    state::{Credential, Upstream},
    wire::Peer,
};

pub(in crate::proxy) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub(in crate::proxy) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(in crate::proxy) const TURN_STATE: HeaderName = HeaderName::from_static("x-codex-turn-state");
pub(in crate::proxy) const ROUTED_TO: HeaderName = HeaderName::from_static("x-steadfast-upstream");
pub(in crate::proxy) const ROUTED_BY: HeaderName = HeaderName::from_static("x-steadfast-route");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Meant for the next hop only (RFC 9110 section 7.6.1, and what older clients still send).
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "proxy-authenticate"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// What a caller's own proxy says about it; an upstream need not know.
fn is_about_caller(name: &str) -> bool {
    matches!(
        name,
        "forwarded"
            | "x-forwarded-for"
            | "x-forwarded-proto"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-server"
            | "x-real-ip"
    )
}

/// Has some servers take another method or path than those that were judged (Rails, Express and ASP.NET the first three,
/// IIS and Symfony the others).
fn is_override(name: &str) -> bool {
    matches!(
        name,
        "x-http-method-override"
            | "x-http-method"
            | "x-method-override"
            | "x-original-url"
            | "x-rewrite-url"
            | "x-forwarded-uri"
            | "x-forwarded-prefix"
    )
}

/// Whether it is, for servers that take underscores in a name for dashes, a field that ends here or is set here. CGI and
/// what descends from it (RFC 3875 section 4.1.18) make one variable of both.
fn is_disguised(name: &str) -> bool {
    if !name.contains('_') {
        return false;
    }
    let plain = name.replace('_', "-");
    let is_one_of = |names: &[HeaderName]| names.iter().any(|name| *name == plain.as_str());
    is_hop_by_hop(&plain)
        || is_about_caller(&plain)
        || is_override(&plain)
        || plain.starts_with("content-")
        || is_one_of(&[X_REQUEST_ID, TURN_STATE, EXPECT, ROUTED_TO, ROUTED_BY])
        || is_one_of(&CALLERS_PROOFS)
        || is_one_of(&CALLERS_ACCOUNT)
}

/// Proves who the caller is.
const CALLERS_PROOFS: [HeaderName; 3] = [AUTHORIZATION, X_API_KEY, COOKIE];

/// Names the caller's own account: with another account's credential an upstream would refuse it.
const CALLERS_ACCOUNT: [HeaderName; 3] = [
    HeaderName::from_static("openai-organization"),
    HeaderName::from_static("openai-project"),
    HeaderName::from_static("chatgpt-account-id"),
];

/// What a caller sent to prove who it is. It leaves the request here, and returns only for an upstream that is
/// configured to be called with it.
#[derive(Default)]
pub(in crate::proxy) struct CallersCredential {
    proofs: HeaderMap,
    account: HeaderMap,
}

impl CallersCredential {
    fn take(headers: &mut HeaderMap) -> Self {
        let mut taken = Self::default();
        for name in &CALLERS_PROOFS {
            move_all(headers, &mut taken.proofs, name);
        }
        for name in &CALLERS_ACCOUNT {
            move_all(headers, &mut taken.account, name);
        }
        taken
    }

    /// Whether the caller proved anything.
    pub fn is_present(&self) -> bool {
        self.proofs.contains_key(AUTHORIZATION) || self.proofs.contains_key(X_API_KEY)
    }

    /// Puts everything back.
    pub fn restore(&self, headers: &mut HeaderMap) {
        for (name, value) in self.proofs.iter().chain(&self.account) {
            headers.append(name.clone(), value.clone());
        }
    }
}

fn move_all(from: &mut HeaderMap, to: &mut HeaderMap, name: &HeaderName) {
    if let http::header::Entry::Occupied(entry) = from.entry(name) {
        let (name, values) = entry.remove_entry_mult();
        for value in values {
            to.append(name.clone(), value);
        }
    }
}

/// Removes what was meant for this hop only, what `Connection` names, and what else `is_dropped`: found in one pass,
/// because most of what could be there is not.
fn strip(headers: &mut HeaderMap, is_dropped: impl Fn(&HeaderName, &HeaderValue) -> bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    let found: Vec<HeaderName> = headers
        .iter()
        .filter(|(name, value)| is_hop_by_hop(name.as_str()) || is_dropped(name, value))
        .map(|(name, _)| name.clone())
        .collect();
    for name in named.iter().chain(&found) {
        headers.remove(name);
    }
}

/// Leaves of a request's headers what any upstream may see.
///
/// The caller's credential comes back only where it is `wanted`: where some upstream is called with it.
pub(in crate::proxy) fn cleanse_request(
    headers: &mut HeaderMap,
    endpoint: Endpoint,
    wanted: bool,
) -> CallersCredential {
    let drops_accept_encoding = endpoint.drops_accept_encoding();
    strip(headers, |name, _| {
        is_about_caller(name.as_str())
            || is_override(name.as_str())
            || is_disguised(name.as_str())
            || [EXPECT, ROUTED_TO, ROUTED_BY].contains(name)
            || (drops_accept_encoding && name == ACCEPT_ENCODING)
            || (!wanted && (CALLERS_PROOFS.contains(name) || CALLERS_ACCOUNT.contains(name)))
    });
    if wanted {
        CallersCredential::take(headers)
    } else {
        CallersCredential::default()
    }
}

/// What [`address`] put in place of something else, or beside it.
#[derive(Default)]
pub(in crate::proxy) struct Addressed {
    /// The configured headers, and what the caller had there.
    configured: Vec<(HeaderName, Vec<HeaderValue>)>,
    has_callers: bool,
}

impl Addressed {
    /// Leaves of the head what any upstream may see; but for what every [`address`] replaces.
    pub fn undo(&mut self, headers: &mut HeaderMap) {
        for (name, values) in self.configured.drain(..) {
            headers.remove(&name);
            for value in values {
                headers.append(name.clone(), value);
            }
        }
        if self.has_callers {
            for name in CALLERS_PROOFS.iter().chain(&CALLERS_ACCOUNT) {
                headers.remove(name);
            }
        }
    }
}

/// Adds what `upstream` is to see.
pub(in crate::proxy) fn address(
    headers: &mut HeaderMap,
    upstream: &Upstream,
    callers: &CallersCredential,
) -> Addressed {
    headers.insert(HOST, upstream.host.clone());
    let mut addressed = Addressed::default();
    match &upstream.credential {
        Credential::Own(authorization) => {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        Credential::Callers => {
            headers.remove(AUTHORIZATION);
            callers.restore(headers);
            addressed.has_callers = true;
        }
    }
    for (name, value) in &upstream.headers {
        let replaced: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
        headers.insert(name.clone(), value.clone());
        addressed.configured.push((name.clone(), replaced));
    }
    addressed
}

/// Tells an upstream who calls, where the operator wants that.
pub(in crate::proxy) fn add_forwarded(headers: &mut HeaderMap, peer: Peer, host: Option<HeaderValue>) {
    if let Some(address) = peer.address
        && let Ok(value) = HeaderValue::try_from(address.ip().to_string())
    {
        headers.insert(X_FORWARDED_FOR, value);
    }
    let proto = if peer.is_secure { "https" } else { "http" };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    if let Some(host) = host {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// Leaves of a response's headers what the caller may see.
pub(in crate::proxy) fn cleanse_response(headers: &mut HeaderMap, upstream: &Upstream) {
    let is_own = matches!(upstream.credential, Credential::Own(_));
    // Beside a coding a length says nothing, and it must not go on (RFC 9112 section 6.3, rule 3).
    let is_coded = headers.contains_key(TRANSFER_ENCODING);
    strip(headers, |name, value| {
        // An alternative service would lead the client past Steadfast; and what Steadfast says of its routes only it may
        // say. A cookie stands for the account's session there.
        [ALT_SVC, ROUTED_TO, ROUTED_BY].contains(name)
            || (is_coded && name == CONTENT_LENGTH)
            || (is_own && [SET_COOKIE, AUTHORIZATION, X_API_KEY].contains(name))
            || is_echo(value, &upstream.confidential)
    });
}

/// Whether a value holds something confidential: an upstream that echoes its caller's headers shows the key.
fn is_echo(value: &HeaderValue, confidential: &[Finder<'static>]) -> bool {
    confidential
        .iter()
        .any(|secret| secret.find(value.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(
                name.parse::<HeaderName>().expect("a name"),
                value.parse().expect("a value"),
            );
        }
        map
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_for_this_hop_ends_here() {
        let mut map = headers(&[
            ("connection", "close, X-Secret-Hop"),
            ("connection", "x-other-hop"),
            ("x-secret-hop", "1"),
            ("x-other-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("session-id", "s"),
        ]);
        strip(&mut map, |_, _| false);
        assert_eq!(names(&map), ["session-id"]);
    }

    #[test]
    fn the_callers_credential_leaves_and_can_return() {
        let sent = [
            ("authorization", "Bearer caller"),
            ("x-api-key", "caller"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("openai-organization", "org-caller"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("expect", "100-continue"),
            ("accept-encoding", "gzip"),
            ("x-stainless-lang", "python"),
        ];
        let mut map = headers(&sent);
        let callers = cleanse_request(&mut map, Endpoint::Responses, true);
        assert_eq!(names(&map), ["x-stainless-lang"]);
        assert!(callers.is_present());
        callers.restore(&mut map);
        assert_eq!(
            names(&map),
            [
                "authorization",
                "cookie",
                "openai-organization",
                "x-api-key",
                "x-stainless-lang"
            ]
        );
        assert_eq!(map.get_all(COOKIE).iter().count(), 2);
        let mut other = headers(&sent);
        cleanse_request(&mut other, Endpoint::Other, false);
        assert_eq!(names(&other), ["accept-encoding", "x-stainless-lang"]);
    }

    #[test]
    fn nothing_makes_another_request_of_the_one_that_was_judged() {
        let mut map = headers(&[
            ("x-http-method-override", "DELETE"),
            ("x-http-method", "DELETE"),
            ("x-method-override", "DELETE"),
            ("x-original-url", "/v1/files"),
            ("x-rewrite-url", "/v1/files"),
            ("x_original_url", "/v1/files"),
            ("x-forwarded-uri", "/v1/files"),
            ("x-forwarded-prefix", "/v1/files"),
            ("x-stainless-lang", "python"),
        ]);
        cleanse_request(&mut map, Endpoint::ChatCompletions, false);
        assert_eq!(names(&map), ["x-stainless-lang"]);
    }

    #[test]
    fn echoed_credentials_do_not_come_back() {
        let mut map = headers(&[("x-debug", "auth=sk-upstream-secret;"), ("x-ok", "sk-up")]);
        strip(&mut map, |_, value| {
            is_echo(value, &[Finder::new("sk-upstream-secret")])
        });
        assert_eq!(names(&map), ["x-ok"]);
    }
}
