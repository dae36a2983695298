//! Decides which requests may use the admin listener. If an admin token is configured, a request must carry it. If none
//! is configured, the request must call a loopback address. A request from a web page of another site is always
//! refused.
//!
//! [`browser`](crate::browser) explains how such a request is recognized. A page does not know the token, so with a token
//! every `Host` is accepted, such as a pod's address or a service's name.

use http::{
    HeaderMap, HeaderValue, Request, StatusCode, Version,
    header::{AUTHORIZATION, HOST},
    uri::Authority,
};
use subtle::ConstantTimeEq as _;

use crate::{
    browser::{is_cross_site, is_this_machine},
    secret::Secret,
};

/// Checks requests to the admin listener. See the [module](self).
pub(super) struct AdminGuard {
    token: Option<Secret>,
}

/// Why a request may not use the admin listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdminDenial {
    /// The request has no token, or a wrong one.
    NoToken,
    /// The `Host` is a name that could be the name of a web page's site.
    ForeignHost,
    /// The `Host` is missing, repeated or invalid.
    BadHost,
    /// A page of another site sent the request.
    CrossSite,
}

impl AdminDenial {
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::ForeignHost | Self::CrossSite => StatusCode::FORBIDDEN,
            Self::BadHost => StatusCode::BAD_REQUEST,
        }
    }

    /// The message for the caller: what is wrong, and what to do.
    pub fn message(self) -> &'static str {
        match self {
            Self::NoToken => "The admin token is missing or wrong. Send it as Authorization: Bearer TOKEN.",
            Self::ForeignHost => {
                "Without an admin token, Host must be localhost or a loopback address, because a web page may have any other \
                 name resolve to this machine. Call http://127.0.0.1 or http://localhost with the admin port, or set \
                 admin.token and send it."
            }
            Self::BadHost => "The Host header is missing, repeated or invalid. Send exactly one valid Host header.",
            Self::CrossSite => {
                "A web page of another site sent this request through your browser. Send it from a command line."
            }
        }
    }
}

impl AdminGuard {
    /// Makes a guard that requires `token`. If it is `None`, requests must call a loopback address.
    pub fn new(token: Option<Secret>) -> Self {
        Self { token }
    }

    /// Checks the head of a request.
    ///
    /// # Errors
    /// When the request may not use the admin listener.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), AdminDenial> {
        let named = named_hosts(request)?;
        match &self.token {
            Some(token) if !has_token(request.headers(), token) => return Err(AdminDenial::NoToken),
            None if !named.iter().all(|host| is_this_machine(host.host())) => return Err(AdminDenial::ForeignHost),
            _ => {}
        }
        if is_cross_site(request.headers(), &named) {
            return Err(AdminDenial::CrossSite);
        }
        Ok(())
    }
}

/// Returns the hosts in the target and in `Host`. An HTTP/1.1 request must have exactly one `Host` (RFC 9112 section 3.2).
/// HTTP/1.0 requests may have none, because no browser sends them.
fn named_hosts<B>(request: &Request<B>) -> Result<Vec<Authority>, AdminDenial> {
    let mut named: Vec<Authority> = request.uri().authority().cloned().into_iter().collect();
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(AdminDenial::BadHost),
        (Some(host), None) => {
            let host = host.to_str().ok().and_then(|host| host.parse().ok());
            named.push(host.ok_or(AdminDenial::BadHost)?);
        }
        (None, None) if request.version() == Version::HTTP_11 => return Err(AdminDenial::BadHost),
        (None, None) => {}
    }
    if named.iter().any(|host| host.as_str().contains('@')) {
        return Err(AdminDenial::BadHost);
    }
    Ok(named)
}

fn has_token(headers: &HeaderMap, token: &Secret) -> bool {
    let value = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let Some((scheme, sent)) = value.and_then(|value| value.split_at_checked("Bearer ".len())) else {
        return false;
    };
    // The name of the scheme is case-insensitive (RFC 9110 section 11.1).
    scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(sent.ct_eq(token.expose().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, lines: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get(target);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn every_host_in_the_request_is_checked() {
        let guard = AdminGuard::new(None);
        for (target, lines, expected) in [
            ("/", &[("host", "127.0.0.1:9090")][..], Ok(())),
            ("/", &[("host", "localhost")], Ok(())),
            ("/", &[("host", "[::1]:1")], Ok(())),
            ("/", &[("host", "evil.example")], Err(AdminDenial::ForeignHost)),
            ("/", &[("host", "evil.example:9090")], Err(AdminDenial::ForeignHost)),
            (
                "http://evil.example/",
                &[("host", "localhost")],
                Err(AdminDenial::ForeignHost),
            ),
            (
                "http://localhost/",
                &[("host", "evil.example")],
                Err(AdminDenial::ForeignHost),
            ),
            ("http://localhost/", &[("host", "localhost")], Ok(())),
            (
                "/",
                &[("host", "localhost"), ("host", "localhost")],
                Err(AdminDenial::BadHost),
            ),
            ("/", &[("host", "evil.example@localhost")], Err(AdminDenial::BadHost)),
            ("/", &[("host", "")], Err(AdminDenial::BadHost)),
            ("/", &[("host", "local host")], Err(AdminDenial::BadHost)),
            ("/", &[], Err(AdminDenial::BadHost)),
        ] {
            assert_eq!(guard.check(&request(target, lines)), expected, "{target} {lines:?}");
        }
        let mut old = request("/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(guard.check(&old), Ok(()));
        // Over HTTP/2 the host is in the target only.
        let mut new = request("http://localhost:9090/", &[]);
        *new.version_mut() = Version::HTTP_2;
        assert_eq!(guard.check(&new), Ok(()));
    }

    #[test]
    fn a_token_allows_every_host_but_no_page_of_another_site() {
        let guard = AdminGuard::new(Some(Secret::new("t0ken")));
        let host = ("host", "steadfast.monitoring.svc:9090");
        let token = ("authorization", "Bearer t0ken");
        for (lines, expected) in [
            (&[host, token][..], Ok(())),
            (&[host], Err(AdminDenial::NoToken)),
            (&[host, ("authorization", "Bearer t0kem")], Err(AdminDenial::NoToken)),
            (
                &[host, token, ("origin", "http://steadfast.monitoring.svc:9090")],
                Ok(()),
            ),
            (
                &[host, token, ("origin", "https://evil.example")],
                Err(AdminDenial::CrossSite),
            ),
            (&[host, token, ("origin", "null")], Err(AdminDenial::CrossSite)),
            (
                &[host, token, ("sec-fetch-site", "same-site")],
                Err(AdminDenial::CrossSite),
            ),
            (&[host, token, ("sec-fetch-site", "none")], Ok(())),
        ] {
            assert_eq!(guard.check(&request("/", lines)), expected, "{lines:?}");
        }
    }
}
