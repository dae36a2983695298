//! Recognizes requests that a web page sent through a browser.
//!
//! A loopback address keeps other machines out, but not the web pages that a browser on this machine has open. A page
//! can send requests to any address. The browser writes the following headers, and no script can change them. They show
//! which page sent the request:
//!
//! - `Origin` (<https://fetch.spec.whatwg.org/#origin-header>) and `Sec-Fetch-Site`
//!   (<https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header>) name the site that the request comes from.
//! - `Host` is the name that the browser looked up. With DNS rebinding, the name of a page's own site resolves to
//!   127.0.0.1. Its requests are then same-site, but `Host` still has that name. Addresses and `localhost` cannot be
//!   rebound.
//!
//! The admin interfaces of Caddy and Syncthing check the same headers.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue, header::ORIGIN, uri::Authority};

/// The relation of the page that sent a request to the site that the request calls.
pub const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether `host`, a host without a port, always means this machine, independent of name servers.
pub fn is_this_machine(host: &str) -> bool {
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = match bracketed {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => host.parse::<IpAddr>().ok(),
    };
    match address {
        Some(address) => address.to_canonical().is_loopback(),
        None => host.eq_ignore_ascii_case("localhost"),
    }
}

/// Whether a page of another site sent a request with these headers. `own` are the hosts that the request names. A page
/// on another port of this machine counts as another site.
pub fn is_cross_site(headers: &HeaderMap, own: &[Authority]) -> bool {
    let is_same_site = |site: &HeaderValue| site == "same-origin" || site == "none";
    let is_own = |origin: &HeaderValue| {
        authority_of(origin).is_some_and(|authority| own.iter().any(|own| own.as_str().eq_ignore_ascii_case(authority)))
    };
    !headers.get_all(SEC_FETCH_SITE).iter().all(is_same_site) || !headers.get_all(ORIGIN).iter().all(is_own)
}

/// The host and the port of an origin that is a website; `None` for other origins, such as that of a browser extension.
fn authority_of(origin: &HeaderValue) -> Option<&str> {
    let origin = origin.to_str().ok()?;
    origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
}

/// Whether a page under a name that may have been rebound sent a request with these headers. Only addresses and
/// `localhost` cannot be rebound, and names over HTTPS, because such a page would need a certificate for its name.
pub fn may_be_rebound(headers: &HeaderMap) -> bool {
    let may_be_rebound = |origin: &HeaderValue| {
        let authority = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
        let host = authority.and_then(|authority| authority.parse::<Authority>().ok());
        host.is_some_and(|named| !is_this_machine(named.host()) && !is_address(named.host()))
    };
    headers.get_all(ORIGIN).iter().any(may_be_rebound)
}

/// Whether `host`, a host without a port, is an IP address.
fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_localhost_and_loopback_addresses_are_this_machine() {
        for host in [
            "localhost",
            "LocalHost",
            "127.0.0.1",
            "127.9.8.7",
            "[::1]",
            "[0:0::1]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil-localhost",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "[fe80::1]",
            "[127.0.0.1]",
            "127.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "::1]",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_recognized_by_its_origin_or_its_fetch_site() {
        let own = ["127.0.0.1:8080".parse().expect("an authority")];
        for (lines, expected) in [
            (&[][..], false),
            (&[("origin", "http://127.0.0.1:8080")], false),
            (&[("origin", "http://127.0.0.1:3000")], true),
            (&[("origin", "https://evil.example")], true),
            (&[("origin", "null")], true),
            (
                &[("origin", "http://127.0.0.1:8080"), ("origin", "https://evil.example")],
                true,
            ),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "")], true),
            (&[("origin", "")], true),
            (&[("origin", "app://127.0.0.1:8080")], true),
        ] {
            assert_eq!(is_cross_site(&headers(lines), &own), expected, "{lines:?}");
        }
    }

    #[test]
    fn only_a_name_without_https_may_be_rebound() {
        for (origin, expected) in [
            ("http://evil.example", true),
            ("http://evil.example:8080", true),
            ("http://127.0.0.1.evil.example:8080", true),
            ("https://app.example", false),
            ("http://localhost:8080", false),
            ("http://10.0.0.5:8080", false),
            ("http://[fd00::1]:8080", false),
            ("null", false),
        ] {
            assert_eq!(may_be_rebound(&headers(&[("origin", origin)])), expected, "{origin}");
        }
        assert!(!may_be_rebound(&HeaderMap::new()));
    }
}
