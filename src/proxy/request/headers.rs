//! The headers of a request, on their way from the client to an upstream.
//!
//! [`cleanse_request`] runs once per request and leaves the headers that every upstream may receive.
//! [`set_upstream_headers`] runs once per attempt and adds what one upstream needs; before the next attempt
//! [`UpstreamHeaders::undo`] takes that back.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT_ENCODING, AUTHORIZATION, COOKIE, EXPECT, Entry, HOST},
};

use crate::{
    endpoint::Endpoint,
    proxy::headers::{HOP, ROUTED_BY, ROUTED_TO, TURN_STATE, X_API_KEY, X_REQUEST_ID, is_hop_by_hop, strip},
    state::{Credential, Upstream},
    wire::Peer,
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Whether a field describes the client. A proxy in front of Steadfast may have set it, and upstreams do not need it.
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

/// Whether a field makes some servers use another method or path than the ones that Steadfast has checked. Rails, Express
/// and ASP.NET read the first three, IIS and Symfony the others.
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

/// Whether a name is a field that Steadfast removes or sets, written with underscores. CGI makes the same variable name
/// of `_` and `-` (RFC 3875 section 4.1.18), and servers with an interface like CGI's read both names as one field.
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
        || is_one_of(&[X_REQUEST_ID, TURN_STATE, EXPECT, ROUTED_TO, ROUTED_BY, HOP])
        || is_one_of(&CALLERS_PROOFS)
        || is_one_of(&CALLERS_ACCOUNT)
}

/// The fields that prove the caller's identity.
const CALLERS_PROOFS: [HeaderName; 3] = [AUTHORIZATION, X_API_KEY, COOKIE];

/// The fields that name the caller's own account. An upstream that is called with another account's credential would
/// refuse a request with them.
const CALLERS_ACCOUNT: [HeaderName; 3] = [
    HeaderName::from_static("openai-organization"),
    HeaderName::from_static("openai-project"),
    HeaderName::from_static("chatgpt-account-id"),
];

/// What happens to the caller's own credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum CredentialHandling {
    /// The credential is removed from the request, and kept for upstreams that are called with it.
    SetAside,
    /// The credential is removed from the request, because no upstream is called with it.
    Discard,
}

/// The caller's own credential, taken out of a request. Only an upstream that is configured to be called with it receives
/// it.
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

    /// Whether the caller sent a key.
    pub fn is_present(&self) -> bool {
        self.proofs.contains_key(AUTHORIZATION) || self.proofs.contains_key(X_API_KEY)
    }

    /// Puts all fields of the credential back into `headers`.
    fn restore(&self, headers: &mut HeaderMap) {
        for (name, value) in self.proofs.iter().chain(&self.account) {
            headers.append(name.clone(), value.clone());
        }
    }
}

fn move_all(from: &mut HeaderMap, to: &mut HeaderMap, name: &HeaderName) {
    if let Entry::Occupied(entry) = from.entry(name) {
        let (name, values) = entry.remove_entry_mult();
        for value in values {
            to.append(name.clone(), value);
        }
    }
}

/// Removes the headers that not every upstream may receive. Returns the caller's credential if it is to be set aside.
pub(in crate::proxy) fn cleanse_request(
    headers: &mut HeaderMap,
    endpoint: Endpoint,
    credential: CredentialHandling,
) -> CallersCredential {
    let drops_accept_encoding = endpoint.drops_accept_encoding();
    let discards_credential = credential == CredentialHandling::Discard;
    strip(headers, |name, _| {
        is_about_caller(name.as_str())
            || is_override(name.as_str())
            || is_disguised(name.as_str())
            || [EXPECT, ROUTED_TO, ROUTED_BY].contains(name)
            || (drops_accept_encoding && name == ACCEPT_ENCODING)
            || (discards_credential && (CALLERS_PROOFS.contains(name) || CALLERS_ACCOUNT.contains(name)))
    });
    match credential {
        CredentialHandling::SetAside => CallersCredential::take(headers),
        CredentialHandling::Discard => CallersCredential::default(),
    }
}

/// The headers that [`set_upstream_headers`] has set for one upstream.
#[derive(Default)]
pub(in crate::proxy) struct UpstreamHeaders {
    /// The configured headers by name, each with the values that the request had before.
    configured: Vec<(HeaderName, Vec<HeaderValue>)>,
    /// Whether the caller's own credential is among the headers.
    has_callers_credential: bool,
}

impl UpstreamHeaders {
    /// Takes the headers back. `Host` and the configured `Authorization` stay, because every call of
    /// [`set_upstream_headers`] replaces them.
    pub fn undo(&mut self, headers: &mut HeaderMap) {
        for (name, values) in self.configured.drain(..) {
            headers.remove(&name);
            for value in values {
                headers.append(name.clone(), value);
            }
        }
        if self.has_callers_credential {
            for name in CALLERS_PROOFS.iter().chain(&CALLERS_ACCOUNT) {
                headers.remove(name);
            }
        }
    }
}

/// Sets the headers that `upstream` needs: its host, the credential that it is called with, and its configured headers.
pub(in crate::proxy) fn set_upstream_headers(
    headers: &mut HeaderMap,
    upstream: &Upstream,
    callers: &CallersCredential,
) -> UpstreamHeaders {
    headers.insert(HOST, upstream.host.clone());
    let mut set = UpstreamHeaders::default();
    match &upstream.credential {
        Credential::Own(authorization) => {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        Credential::Callers => {
            headers.remove(AUTHORIZATION);
            callers.restore(headers);
            set.has_callers_credential = true;
        }
    }
    for (name, value) in &upstream.headers {
        let replaced: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
        headers.insert(name.clone(), value.clone());
        set.configured.push((name.clone(), replaced));
    }
    set
}

/// Adds the `X-Forwarded-…` fields that describe the client. The caller does this if `server.forwarded` is true. `host`
/// is the `Host` that the client sent.
pub(in crate::proxy) fn add_forwarded(headers: &mut HeaderMap, peer: Peer, host: Option<HeaderValue>) {
    if let Some(address) = peer.address {
        let address = HeaderValue::try_from(address.ip().to_string());
        headers.insert(X_FORWARDED_FOR, address.expect("the text of an address is ASCII"));
    }
    let proto = if peer.is_secure { "https" } else { "http" };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    if let Some(host) = host {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{
        headers::tests::{headers, names},
        request::kit::snapshot,
    };

    const CALLERS_FIELDS: [(&str, &str); 5] = [
        ("authorization", "Bearer caller"),
        ("x-api-key", "caller"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("openai-organization", "org-caller"),
    ];

    #[test]
    fn a_credential_that_is_set_aside_leaves_the_request_and_can_return() {
        let mut map = headers(&CALLERS_FIELDS);
        let callers = cleanse_request(&mut map, Endpoint::Responses, CredentialHandling::SetAside);
        assert!(map.is_empty() && callers.is_present());
        callers.restore(&mut map);
        assert_eq!(
            names(&map),
            ["authorization", "cookie", "openai-organization", "x-api-key"]
        );
        assert_eq!(map.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    }

    #[test]
    fn a_credential_that_is_discarded_cannot_return() {
        let mut map = headers(&CALLERS_FIELDS);
        let callers = cleanse_request(&mut map, Endpoint::Responses, CredentialHandling::Discard);
        callers.restore(&mut map);
        assert!(map.is_empty() && !callers.is_present());
    }

    #[test]
    fn only_a_key_counts_as_a_credential() {
        for (name, is_key) in [
            ("authorization", true),
            ("x-api-key", true),
            ("cookie", false),
            ("openai-organization", false),
        ] {
            let mut map = headers(&[(name, "x")]);
            let callers = cleanse_request(&mut map, Endpoint::Other, CredentialHandling::SetAside);
            assert_eq!(callers.is_present(), is_key, "{name}");
        }
    }

    #[test]
    fn accept_encoding_passes_only_where_responses_are_not_read() {
        for endpoint in Endpoint::ALL {
            let mut map = headers(&[("accept-encoding", "gzip")]);
            cleanse_request(&mut map, endpoint, CredentialHandling::Discard);
            assert_eq!(map.is_empty(), endpoint.is_usage_read(), "{endpoint:?}");
        }
    }

    #[test]
    fn fields_about_the_client_overrides_and_disguises_are_removed() {
        for name in [
            "connection",
            "te",
            "expect",
            "x-steadfast-upstream",
            "x-steadfast-route",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-server",
            "x-real-ip",
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
            "x-original-url",
            "x-rewrite-url",
            "x-forwarded-uri",
            "x-forwarded-prefix",
            "x_original_url",
            "x_forwarded_for",
            "transfer_encoding",
            "content_length",
            "content_type",
            "x_request_id",
            "x_codex_turn_state",
            "x_api_key",
            "chatgpt_account_id",
            "steadfast_hop",
        ] {
            let mut map = headers(&[(name, "1"), ("x-stainless-lang", "python"), ("session_id", "s")]);
            cleanse_request(&mut map, Endpoint::ChatCompletions, CredentialHandling::Discard);
            assert_eq!(names(&map), ["session_id", "x-stainless-lang"], "{name}");
        }
    }

    #[test]
    fn the_headers_of_one_upstream_do_not_reach_the_next() {
        let snapshot = snapshot(
            r#"
            [[upstream]]
            name = "callers"
            base_url = "http://one.example/v1"
            api_key = "passthrough"
            headers = { "openai-beta" = "configured", "x-extra" = "1" }
            [[upstream]]
            name = "own"
            base_url = "http://two.example/v1"
            api_key = "env:KEY"
            "#,
        );
        let [one, two] = snapshot.upstreams() else {
            panic!("the configuration has two upstreams")
        };
        let mut map = headers(&CALLERS_FIELDS);
        map.append("openai-beta", HeaderValue::from_static("a"));
        map.append("openai-beta", HeaderValue::from_static("b"));
        let callers = cleanse_request(&mut map, Endpoint::Responses, CredentialHandling::SetAside);

        let mut set = set_upstream_headers(&mut map, one, &callers);
        assert_eq!(map[HOST], "one.example");
        assert_eq!(map[AUTHORIZATION], "Bearer caller");
        assert_eq!(map.get_all("openai-beta").iter().collect::<Vec<_>>(), ["configured"]);
        assert_eq!(map["x-extra"], "1");

        set.undo(&mut map);
        set_upstream_headers(&mut map, two, &callers);
        assert_eq!(names(&map), ["authorization", "host", "openai-beta"]);
        assert_eq!(map[HOST], "two.example");
        assert_eq!(map[AUTHORIZATION], "Bearer sk-upstream");
        assert_eq!(map.get_all("openai-beta").iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn forwarded_fields_describe_the_client() {
        for (address, is_secure, host, expected) in [
            (
                Some("10.0.0.1:9"),
                false,
                Some("h"),
                [Some("10.0.0.1"), Some("http"), Some("h")],
            ),
            (Some("[::1]:9"), true, None, [Some("::1"), Some("https"), None]),
            (None, true, None, [None, Some("https"), None]),
        ] {
            let mut map = HeaderMap::new();
            let address = address.map(|address| address.parse().expect("a socket address"));
            add_forwarded(
                &mut map,
                Peer { address, is_secure },
                host.map(HeaderValue::from_static),
            );
            let sent = [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST]
                .map(|name| map.get(name).map(|value| value.to_str().expect("ASCII")));
            assert_eq!(sent, expected);
        }
    }
}
