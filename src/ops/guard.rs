//! Who may ask the operator's side: whoever shows the token, or, where there is none, whoever sits at this machine. Never a
//! page of another site in the operator's browser.
//!
//! Loopback keeps other machines out, but not the pages that a browser on this one has open. A page may send requests
//! anywhere; what tells on it are the headers that the browser writes, and that no script can change:
//!
//! - `Origin` and `Sec-Fetch-Site` say which site a request comes from.
//! - `Host` says which name the browser looked up. A page that has its own name answered with 127.0.0.1 (DNS rebinding) is
//!   of the same site as what it then reads, but its name stays in `Host`. Addresses and `localhost` cannot be rebound.
//!
//! Caddy's and Syncthing's admin sides check the same. A token is something that no page knows, so behind one every `Host`
//! is good: a pod's address, a service's name.

use std::net::{IpAddr, Ipv6Addr};

use http::{
    HeaderMap, HeaderValue, Request, StatusCode, Version,
    header::{AUTHORIZATION, HOST, ORIGIN},
    uri::Authority,
};
use subtle::ConstantTimeEq as _;

use crate::secret::Secret;

/// Lets the operator in.
pub(super) struct Guard {
    token: Option<Secret>,
}

/// Why a request does not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Barred {
    /// It shows no token, or another one.
    NoToken,
    /// It calls this machine by a name that anyone could have pointed here.
    ForeignHost,
    /// It has no host, or several.
    BadHost,
    /// A page of another site sent it.
    Elsewhere,
}

impl Barred {
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::ForeignHost | Self::Elsewhere => StatusCode::FORBIDDEN,
            Self::BadHost => StatusCode::BAD_REQUEST,
        }
    }

    /// What to do about it.
    pub fn message(self) -> &'static str {
        match self {
            Self::NoToken => "Send the admin token as Authorization: Bearer.",
            Self::ForeignHost => {
                "Without an admin token, only localhost and loopback addresses are answered as Host: any other name might be \
                 a web page's that was pointed here. Call http://127.0.0.1 or http://localhost with the admin port, or set \
                 admin.token and send it."
            }
            Self::BadHost => "Send exactly one valid Host.",
            Self::Elsewhere => "A page of another site sent this through your browser. Send it from a command line.",
        }
    }
}

impl Guard {
    /// A guard that asks for `token`; without one, the address must be loopback.
    pub fn new(token: Option<Secret>) -> Self {
        Self { token }
    }

    /// Judges a request by its head.
    ///
    /// # Errors
    /// Whatever keeps it out.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), Barred> {
        let named = named_hosts(request)?;
        match &self.token {
            Some(token) if !shows(request.headers(), token) => return Err(Barred::NoToken),
            None if !named.iter().all(|host| is_this_machine(host.host())) => return Err(Barred::ForeignHost),
            _ => {}
        }
        if is_from_elsewhere(request.headers(), &named) {
            return Err(Barred::Elsewhere);
        }
        Ok(())
    }
}

/// The hosts that a request names: in its target and in `Host`, which stands there exactly once (RFC 9112 section 3.2). No
/// browser speaks HTTP/1.0, which may go without.
fn named_hosts<B>(request: &Request<B>) -> Result<Vec<Authority>, Barred> {
    let mut named: Vec<Authority> = request.uri().authority().cloned().into_iter().collect();
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(Barred::BadHost),
        (Some(host), None) => {
            let host = host.to_str().ok().and_then(|host| host.parse().ok());
            named.push(host.ok_or(Barred::BadHost)?);
        }
        (None, None) if request.version() == Version::HTTP_11 => return Err(Barred::BadHost),
        (None, None) => {}
    }
    if named.iter().any(|host| host.as_str().contains('@')) {
        return Err(Barred::BadHost);
    }
    Ok(named)
}

fn shows(headers: &HeaderMap, token: &Secret) -> bool {
    let shown = headers
        .get(AUTHORIZATION)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    // The scheme's name has no case (RFC 9110 section 11.1).
    let (scheme, shown) = shown.split_at_checked("Bearer ".len()).unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(shown.ct_eq(token.expose().as_bytes()))
}

/// Whether `host` means this machine whatever any name server says.
fn is_this_machine(host: &str) -> bool {
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

/// Whether a page of another site sent this through the operator's browser (<https://fetch.spec.whatwg.org/#origin-header>,
/// <https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header>). Another port of this machine is another site too.
fn is_from_elsewhere(headers: &HeaderMap, own: &[Authority]) -> bool {
    let site = headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return true;
    }
    let is_own = |origin: &HeaderValue| {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        authority.is_some_and(|(_, authority)| own.iter().any(|own| own.as_str().eq_ignore_ascii_case(authority)))
    };
    !headers.get_all(ORIGIN).iter().all(is_own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(target: &str, lines: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get(target);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn only_what_cannot_be_rebound_is_this_machine() {
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
    fn every_host_that_is_named_counts() {
        let guard = Guard::new(None);
        for (target, lines, expected) in [
            ("/", &[("host", "127.0.0.1:9090")][..], Ok(())),
            ("/", &[("host", "localhost")], Ok(())),
            ("/", &[("host", "[::1]:1")], Ok(())),
            ("/", &[("host", "evil.example")], Err(Barred::ForeignHost)),
            ("/", &[("host", "evil.example:9090")], Err(Barred::ForeignHost)),
            (
                "http://evil.example/",
                &[("host", "localhost")],
                Err(Barred::ForeignHost),
            ),
            (
                "http://localhost/",
                &[("host", "evil.example")],
                Err(Barred::ForeignHost),
            ),
            ("http://localhost/", &[("host", "localhost")], Ok(())),
            (
                "/",
                &[("host", "localhost"), ("host", "localhost")],
                Err(Barred::BadHost),
            ),
            ("/", &[("host", "evil.example@localhost")], Err(Barred::BadHost)),
            ("/", &[("host", "")], Err(Barred::BadHost)),
            ("/", &[("host", "local host")], Err(Barred::BadHost)),
            ("/", &[], Err(Barred::BadHost)),
        ] {
            assert_eq!(guard.check(&asked(target, lines)), expected, "{target} {lines:?}");
        }
        let mut old = asked("/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(guard.check(&old), Ok(()));
        // As it comes over HTTP/2: the host stands in the target alone.
        let mut new = asked("http://localhost:9090/", &[]);
        *new.version_mut() = Version::HTTP_2;
        assert_eq!(guard.check(&new), Ok(()));
    }

    #[test]
    fn a_token_makes_every_host_good_but_no_foreign_page() {
        let guard = Guard::new(Some(Secret::new("t0ken")));
        let host = ("host", "steadfast.monitoring.svc:9090");
        let token = ("authorization", "Bearer t0ken");
        for (lines, expected) in [
            (&[host, token][..], Ok(())),
            (&[host], Err(Barred::NoToken)),
            (&[host, ("authorization", "Bearer t0kem")], Err(Barred::NoToken)),
            (
                &[host, token, ("origin", "http://steadfast.monitoring.svc:9090")],
                Ok(()),
            ),
            (
                &[host, token, ("origin", "https://evil.example")],
                Err(Barred::Elsewhere),
            ),
            (&[host, token, ("origin", "null")], Err(Barred::Elsewhere)),
            (&[host, token, ("sec-fetch-site", "same-site")], Err(Barred::Elsewhere)),
            (&[host, token, ("sec-fetch-site", "none")], Ok(())),
        ] {
            assert_eq!(guard.check(&asked("/", lines)), expected, "{lines:?}");
        }
    }
}
