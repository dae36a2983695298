//! Which headers pass, and which end here.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST,
        PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};

use memchr::memmem::Finder;

use crate::{
    state::{Credential, Endpoint, Upstream},
    wire::Peer,
};

pub(super) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const TURN_STATE: HeaderName = HeaderName::from_static("x-codex-turn-state");
pub(super) const ROUTED_TO: HeaderName = HeaderName::from_static("x-steadfast-upstream");
pub(super) const ROUTED_BY: HeaderName = HeaderName::from_static("x-steadfast-route");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Meant for the next hop only (RFC 9110 section 7.6.1, and what older clients still send).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHORIZATION,
    PROXY_AUTHENTICATE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What a caller's own proxy says about it; an upstream need not know.
const ABOUT_CALLER: [HeaderName; 7] = [
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-real-ip"),
];

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
pub(super) struct CallersCredential {
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

/// Removes what was meant for this hop only, and what `Connection` names.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Leaves of a request's headers what any upstream may see.
///
/// The caller's credential comes back only where it is `wanted`: where some upstream is called with it.
pub(super) fn cleanse_request(headers: &mut HeaderMap, endpoint: Endpoint, wanted: bool) -> CallersCredential {
    strip_hop_by_hop(headers);
    for name in ABOUT_CALLER.iter().chain(&[EXPECT, ROUTED_TO, ROUTED_BY]) {
        headers.remove(name);
    }
    match endpoint {
        // Usage and response ids are read from these as they stream by.
        Endpoint::Responses | Endpoint::Compact | Endpoint::Response => {
            headers.remove(ACCEPT_ENCODING);
        }
        Endpoint::Models | Endpoint::ChatCompletions | Endpoint::Embeddings | Endpoint::Other => {}
    }
    if wanted {
        return CallersCredential::take(headers);
    }
    for name in CALLERS_PROOFS.iter().chain(&CALLERS_ACCOUNT) {
        headers.remove(name);
    }
    CallersCredential::default()
}

/// Adds what `upstream` is to see.
pub(super) fn address(headers: &mut HeaderMap, upstream: &Upstream, callers: &CallersCredential) {
    headers.insert(HOST, upstream.host.clone());
    match &upstream.credential {
        Credential::Own(authorization) => {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        Credential::Callers => callers.restore(headers),
    }
    for (name, value) in &upstream.headers {
        headers.insert(name.clone(), value.clone());
    }
}

/// Tells an upstream who calls, where the operator wants that.
pub(super) fn add_forwarded(headers: &mut HeaderMap, peer: Peer, host: Option<HeaderValue>) {
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
pub(super) fn cleanse_response(headers: &mut HeaderMap, upstream: &Upstream) {
    // Beside a coding a length says nothing, and it must not go on (RFC 9112 section 6.3, rule 3).
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    // An alternative service would lead the client past Steadfast; and what Steadfast says of its routes only it may say.
    for name in [&http::header::ALT_SVC, &ROUTED_TO, &ROUTED_BY] {
        headers.remove(name);
    }
    if matches!(upstream.credential, Credential::Own(_)) {
        // A cookie stands for the account's session there. An upstream that echoes its caller's headers shows the key.
        headers.remove(SET_COOKIE);
        headers.remove(AUTHORIZATION);
        headers.remove(X_API_KEY);
    }
    drop_echoes(headers, &upstream.confidential);
}

/// Removes headers whose value holds something confidential, under whatever name.
fn drop_echoes(headers: &mut HeaderMap, confidential: &[Finder<'static>]) {
    let echoes = |value: &HeaderValue| {
        confidential
            .iter()
            .any(|secret| secret.find(value.as_bytes()).is_some())
    };
    let names: Vec<HeaderName> = headers
        .iter()
        .filter(|(_, value)| echoes(value))
        .map(|(name, _)| name.clone())
        .collect();
    for name in names {
        headers.remove(name);
    }
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
        strip_hop_by_hop(&mut map);
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
    fn echoed_credentials_do_not_come_back() {
        let mut map = headers(&[("x-debug", "auth=sk-upstream-secret;"), ("x-ok", "sk-up")]);
        drop_echoes(&mut map, &[Finder::new("sk-upstream-secret")]);
        assert_eq!(names(&map), ["x-ok"]);
    }
}
