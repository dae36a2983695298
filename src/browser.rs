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
    let site = headers.get(SEC_FETCH_SITE);
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return true;
    }
    let is_own = |origin: &HeaderValue| {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        authority.is_some_and(|(_, authority)| own.iter().any(|own| own.as_str().eq_ignore_ascii_case(authority)))
    };
    headers.contains_key(ORIGIN) && !headers.get_all(ORIGIN).iter().all(is_own)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_cross_site(&headers, &own), expected, "{lines:?}");
        }
    }
}
