//! Checks that every server finds the same host in a request.

use http::{HeaderMap, Uri, Version, header::HOST, uri::Authority};

use crate::fault::Fault;

/// Checks that a request names exactly one valid host (RFC 9112 section 3.2): one `Host` field from HTTP/1.1 on, equal to
/// the authority of the target if the target has one. Over HTTP/2 that is `:authority` (RFC 9113 section 8.3.1).
///
/// # Errors
/// [`Fault::BadHost`] or [`Fault::AmbiguousTarget`].
pub(in crate::proxy) fn check(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Fault> {
    let refuse = |problem| Err(Fault::BadHost { problem });
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return refuse("appears more than once"),
        (None, _) if version > Version::HTTP_10 => return refuse("is missing"),
        (None, _) => None,
        (Some(host), None) if uri.authority().is_none() && is_plain_name(host.as_bytes()) => return Ok(()),
        (Some(host), None) => match host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) {
            Some(host) if is_host(&host) => Some(host),
            _ => return refuse("is not a valid host"),
        },
    };
    let Some(named) = uri.authority() else { return Ok(()) };
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Fault::AmbiguousTarget {
            problem: "has a scheme other than http or https",
        });
    }
    if named.as_str().contains('@') {
        return Err(Fault::AmbiguousTarget {
            problem: "contains user information",
        });
    }
    match host {
        Some(host) if !host.as_str().eq_ignore_ascii_case(named.as_str()) => Err(Fault::AmbiguousTarget {
            problem: "names a host other than the Host header",
        }),
        _ => Ok(()),
    }
}

/// Whether a host has only letters, digits, dots and dashes. That is the usual case, and needs no parser.
fn is_plain_name(host: &[u8]) -> bool {
    !host.is_empty()
        && host
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

/// Whether an authority is a host with at most a port. The parser also accepts user information, and any text as a port.
fn is_host(authority: &Authority) -> bool {
    match authority.as_str().strip_prefix(authority.host()) {
        Some("" | ":") => true,
        Some(after) => after.starts_with(':') && !after.contains('@') && authority.port_u16().is_some(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(version: Version, uri: &str, hosts: &[&str]) -> Result<(), Fault> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().expect("a header value"));
        }
        check(version, &uri.parse().expect("a URI"), &headers)
    }

    #[test]
    fn one_valid_host_is_accepted() {
        for (uri, host) in [
            ("/v1/models", "a"),
            ("/v1/models", "a-1.example"),
            ("/v1/models", "a:1"),
            ("/v1/models", "a:"),
            ("/v1/models", "[::1]:80"),
            ("http://a:1/v1/models", "A:1"),
            ("https://a/v1/models", "a"),
        ] {
            assert_eq!(checked(Version::HTTP_11, uri, &[host]), Ok(()), "{uri} {host}");
        }
    }

    #[test]
    fn only_http_1_0_may_omit_the_host() {
        assert_eq!(checked(Version::HTTP_10, "/", &[]), Ok(()));
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let problem = "is missing";
            assert_eq!(
                checked(version, "/", &[]),
                Err(Fault::BadHost { problem }),
                "{version:?}"
            );
        }
    }

    #[test]
    fn several_or_invalid_hosts_are_refused() {
        for hosts in [
            &["a", "a"][..],
            &["a b"],
            &["a/b"],
            &["u@a"],
            &[""],
            &["a:b"],
            &["a:65536"],
            &["\u{e9}"],
        ] {
            let refused = checked(Version::HTTP_11, "/", hosts);
            assert!(matches!(refused, Err(Fault::BadHost { .. })), "{hosts:?}: {refused:?}");
        }
    }

    #[test]
    fn a_target_that_names_another_host_is_refused() {
        for uri in ["http://b/", "http://a:1/", "http://u:p@a/", "ftp://a/"] {
            let refused = checked(Version::HTTP_11, uri, &["a"]);
            assert!(
                matches!(refused, Err(Fault::AmbiguousTarget { .. })),
                "{uri}: {refused:?}"
            );
        }
    }
}
