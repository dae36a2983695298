//! Decides which web pages may call the public listener, before the caller is known.
//!
//! Without client keys, every request that arrives is sent with an upstream's credential. So a web page must not be able
//! to send one through the browser of a user: [`browser`](crate::browser) explains how such a request is
//! recognized. With client keys a page can do nothing without a key.
//!
//! `server.allow_origins` lists the origins whose pages may call the listener, with and without client keys. Their
//! preflight requests (<https://fetch.spec.whatwg.org/#cors-preflight-fetch>) are answered here, because a browser sends
//! no credential with them, and every answer names the origin.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
    },
    request::Parts,
    uri::Authority,
};

use super::received::ReceivedHead;
use crate::{
    browser::{SEC_FETCH_SITE, is_cross_site, is_this_machine, may_be_rebound},
    fault::Fault,
    proxy::text::truncated,
    state::Snapshot,
};

/// The methods that a page of an allowed origin may use.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// The response headers that a page may read in addition to those that every page may read.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, x-steadfast-upstream, x-steadfast-route, retry-after, retry-after-ms, x-ratelimit-limit-requests, \
     x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, \
     x-ratelimit-reset-tokens, openai-model, openai-processing-ms, openai-version, x-codex-turn-state",
);
/// The time in seconds for which a browser may remember the answer to a preflight request.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// A page of the internet asks whether it may call a private address (<https://wicg.github.io/private-network-access/>).
const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// The web page that sent a request.
#[derive(Debug)]
pub(in crate::proxy) enum WebPage {
    /// No page that has to be told anything: the client is not a browser, or the answer is not meant for a page.
    None,
    /// No such page either, but the answer would be another one for a page of an allowed origin. A cache has to know.
    Other,
    /// A page of this origin, which is one of `server.allow_origins`.
    Allowed(Box<HeaderValue>),
}

/// Checks whether a web page sent a request, and whether it may.
///
/// # Errors
/// [`Fault::ForeignHost`] and [`Fault::CrossSite`].
#[inline]
pub(in crate::proxy) fn check(snapshot: &Snapshot, head: &ReceivedHead) -> Result<WebPage, Fault> {
    let headers = &head.parts.headers;
    let is_open = snapshot.access.is_open();
    if is_open && snapshot.pages.checks_host && has_reboundable_peer(head) && !names_this_machine(&head.parts) {
        return Err(Fault::ForeignHost);
    }
    match headers.get(ORIGIN) {
        None if !is_open || !headers.contains_key(SEC_FETCH_SITE) => Ok(WebPage::not_allowed(snapshot)),
        origin => check_page(snapshot, head, origin),
    }
}

/// Whether the name that the client has looked up could have been rebound. A browser cannot reach a Unix socket, and does
/// not accept the certificate of another name.
fn has_reboundable_peer(head: &ReceivedHead) -> bool {
    head.peer.address.is_some() && !head.peer.is_secure
}

/// Checks a request of a browser.
#[cold]
fn check_page(snapshot: &Snapshot, head: &ReceivedHead, origin: Option<&HeaderValue>) -> Result<WebPage, Fault> {
    let parts = &head.parts;
    let headers = &parts.headers;
    if let Some(origin) = origin
        && headers.get_all(ORIGIN).iter().count() == 1
        && snapshot.pages.allows(origin.as_bytes())
    {
        return Ok(WebPage::Allowed(Box::new(origin.clone())));
    }
    let is_refused = match snapshot.access.is_open() {
        // No page has the origin of this listener, which serves none. With `allow_anonymous` every `Host` is accepted, so a
        // page under a name that was rebound would look like such a page.
        true => is_cross_site(headers, &named_hosts(parts)) || has_reboundable_peer(head) && may_be_rebound(headers),
        false => is_preflight(parts),
    };
    if is_refused {
        let origin = origin.and_then(|origin| origin.to_str().ok());
        return Err(Fault::CrossSite {
            origin: origin.map(truncated),
        });
    }
    Ok(WebPage::not_allowed(snapshot))
}

/// Whether a browser asks in advance if a page may send a request. Such a request is not meant for an upstream.
fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

impl WebPage {
    fn not_allowed(snapshot: &Snapshot) -> Self {
        match snapshot.pages.allows_some() {
            true => Self::Other,
            false => Self::None,
        }
    }

    /// The headers of the answer, if the request is a preflight request of an allowed page.
    #[inline]
    pub fn preflight(&self, parts: &Parts) -> Option<HeaderMap> {
        let is_answered = matches!(self, Self::Allowed(_)) && is_preflight(parts);
        is_answered.then(|| preflight_headers(&parts.headers))
    }

    /// Adds the headers that let the page read the answer. If pages of some origins are allowed, an upstream's own rules
    /// for pages are removed, because they would allow others.
    #[inline]
    pub fn expose(&self, headers: &mut HeaderMap) {
        match self {
            Self::None => {}
            Self::Other => hide(headers),
            Self::Allowed(origin) => expose_to(headers, origin),
        }
    }
}

#[cold]
fn expose_to(headers: &mut HeaderMap, origin: &HeaderValue) {
    hide(headers);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}

/// Lets no page read the answer, and tells caches that it depends on the page
/// (<https://fetch.spec.whatwg.org/#cors-protocol-and-http-caches>).
fn hide(headers: &mut HeaderMap) {
    for name in [
        ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_EXPOSE_HEADERS,
    ] {
        headers.remove(name);
    }
    headers.append(VARY, HeaderValue::from_static("origin"));
}

/// The headers of the answer to the preflight request of an allowed page, without those of [`WebPage::expose`].
fn preflight_headers(request: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    // A page may send every header, because it may send the same request from another client.
    if let Some(wanted) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE);
    if request.contains_key(REQUEST_PRIVATE_NETWORK) {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    headers.append(
        VARY,
        HeaderValue::from_static("access-control-request-method, access-control-request-headers"),
    );
    headers
}

/// Whether every host that a request names is this machine. A `Host` that is missing or invalid is refused later, where
/// the version of HTTP requires one.
fn names_this_machine(parts: &Parts) -> bool {
    let is_local = |host: &HeaderValue| host.to_str().is_ok_and(|host| is_this_machine(without_port(host)));
    parts.headers.get_all(HOST).iter().all(is_local)
        && parts.uri.authority().is_none_or(|named| is_this_machine(named.host()))
}

/// The host of `host:port`.
fn without_port(host: &str) -> &str {
    let port_at = match host.rfind(']') {
        Some(bracket) => bracket + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    &host[..port_at]
}

fn named_hosts(parts: &Parts) -> Vec<Authority> {
    let hosts = parts.headers.get_all(HOST).iter();
    let hosts = hosts.filter_map(|host| host.to_str().ok()?.parse().ok());
    hosts.chain(parts.uri.authority().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use http::Request;

    use super::*;
    use crate::{
        proxy::request::kit::{self, GROUPS, OPEN},
        wire::{Framing, Peer},
    };

    const ALLOWING: &str = "[server]\nallow_origins = [\"https://app.example\"]\n";

    fn checked(configuration: &str, lines: &[(&str, &str)]) -> Result<WebPage, Fault> {
        let snapshot = kit::snapshot(configuration);
        let peer = Peer {
            address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000))),
            is_secure: false,
        };
        let request = lines
            .iter()
            .fold(Request::options("/v1/responses"), |request, (name, value)| {
                request.header(*name, *value)
            });
        let parts = request.body(()).expect("a request").into_parts().0;
        check(&snapshot, &ReceivedHead::new(parts, Framing::None, peer))
    }

    #[test]
    fn without_client_keys_only_local_hosts_and_pages_are_served() {
        let host = ("host", "127.0.0.1:8080");
        for (lines, expected) in [
            (&[host][..], None),
            (&[("host", "localhost")], None),
            (&[("host", "[::1]:8080")], None),
            (&[host, ("origin", "http://127.0.0.1:8080")], None),
            (&[host, ("sec-fetch-site", "none")], None),
            (&[("host", "evil.example")], Some("host_not_allowed")),
            (&[("host", "evil.example:8080")], Some("host_not_allowed")),
            (&[("host", "localhost.evil.example")], Some("host_not_allowed")),
            (&[("host", "10.0.0.1")], Some("host_not_allowed")),
            (&[host, ("host", "evil.example")], Some("host_not_allowed")),
            (&[host, ("origin", "https://evil.example")], Some("origin_not_allowed")),
            (&[host, ("origin", "null")], Some("origin_not_allowed")),
            (&[host, ("origin", "http://127.0.0.1:3000")], Some("origin_not_allowed")),
            (&[host, ("sec-fetch-site", "cross-site")], Some("origin_not_allowed")),
            (&[host, ("sec-fetch-site", "same-site")], Some("origin_not_allowed")),
        ] {
            let code = checked(OPEN, lines).err().map(|fault| fault.code());
            assert_eq!(code, expected, "{lines:?}");
        }
    }

    #[test]
    fn an_open_gateway_for_other_machines_refuses_pages_whose_name_could_be_rebound() {
        let anonymous = format!("[server]\nallow_anonymous = true\n{OPEN}");
        for (host, origin, expected) in [
            ("steadfast.internal", None, None),
            ("evil.example", Some("http://evil.example"), Some("origin_not_allowed")),
            (
                "evil.example:8080",
                Some("http://evil.example:8080"),
                Some("origin_not_allowed"),
            ),
            // A page over HTTPS has a certificate for its name.
            ("app.example", Some("https://app.example"), None),
            ("10.0.0.5:8080", Some("http://10.0.0.5:8080"), None),
        ] {
            let mut lines = vec![("host", host)];
            lines.extend(origin.map(|origin| ("origin", origin)));
            let code = checked(&anonymous, &lines).err().map(|fault| fault.code());
            assert_eq!(code, expected, "{lines:?}");
        }
    }

    #[test]
    fn with_client_keys_only_preflight_requests_of_other_pages_are_refused() {
        let host = ("host", "gateway.example");
        let origin = ("origin", "https://evil.example");
        let preflight = ("access-control-request-method", "POST");
        for (lines, expected) in [
            (&[host][..], None),
            (&[host, origin], None),
            (&[host, ("sec-fetch-site", "cross-site")], None),
            (&[host, origin, preflight], Some("origin_not_allowed")),
        ] {
            let code = checked(GROUPS, lines).err().map(|fault| fault.code());
            assert_eq!(code, expected, "{lines:?}");
        }
    }

    #[test]
    fn only_pages_of_allowed_origins_may_read_the_answer() {
        for configuration in [OPEN, GROUPS] {
            let configuration = format!("{ALLOWING}{configuration}");
            for (origin, is_allowed) in [
                ("https://app.example", true),
                ("https://APP.example", true),
                ("http://app.example", false),
                ("https://app.example:8443", false),
                ("https://app.example.evil.example", false),
            ] {
                let lines = [
                    ("host", "localhost"),
                    ("origin", origin),
                    ("sec-fetch-site", "cross-site"),
                ];
                let page = checked(&configuration, &lines);
                let mut headers = HeaderMap::new();
                if let Ok(page) = &page {
                    page.expose(&mut headers);
                }
                let allowed = headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value == origin);
                assert_eq!(allowed, is_allowed.then_some(true), "{origin}: {page:?}");
                assert_eq!(headers.contains_key(VARY), page.is_ok(), "{origin}: {page:?}");
            }
            let twice = [
                ("host", "localhost"),
                ("origin", "https://app.example"),
                ("origin", "https://evil.example"),
            ];
            let page = checked(&configuration, &twice);
            assert!(!matches!(page, Ok(WebPage::Allowed(_))), "{page:?}");
        }
    }
}
