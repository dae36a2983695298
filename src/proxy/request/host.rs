//! Whom a request is for: one host, whoever reads it.

use http::{HeaderMap, Uri, Version, header::HOST, uri::Authority};

use crate::fault::Fault;

/// RFC 9112 section 3.2: exactly one valid `Host` from HTTP/1.1 on, equal to the authority of an absolute target; over HTTP/2
/// that is `:authority` (RFC 9113 section 8.3.1).
pub(in crate::proxy) fn check(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Fault> {
    let refuse = |problem| Err(Fault::BadHost { problem });
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return refuse("stands twice"),
        (None, _) if version > Version::HTTP_10 => return refuse("is missing"),
        (None, _) => None,
        (Some(host), None) if uri.authority().is_none() && is_plain_name(host.as_bytes()) => return Ok(()),
        (Some(host), None) => match host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) {
            Some(host) if is_host(&host) => Some(host),
            _ => return refuse("is not a host"),
        },
    };
    let Some(named) = uri.authority() else { return Ok(()) };
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Fault::AmbiguousTarget {
            problem: "has another scheme than http or https",
        });
    }
    if named.as_str().contains('@') {
        return Err(Fault::AmbiguousTarget {
            problem: "carries user information",
        });
    }
    match host {
        Some(host) if !host.as_str().eq_ignore_ascii_case(named.as_str()) => Err(Fault::AmbiguousTarget {
            problem: "names another authority than the Host header",
        }),
        _ => Ok(()),
    }
}

/// What is a host whoever reads it: letters, digits, dots and dashes.
fn is_plain_name(host: &[u8]) -> bool {
    !host.is_empty()
        && host
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

/// A host with at most a port: the parser also takes user information, and anything for a port.
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

    #[test]
    fn hosts_are_checked() {
        let check = |uri: &str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, host.parse().expect("a value"));
            }
            super::check(Version::HTTP_11, &uri.parse().expect("a URI"), &headers)
        };
        assert_eq!(check("/v1/models", &["a:1"]), Ok(()));
        assert_eq!(check("http://a:1/v1/models", &["A:1"]), Ok(()));
        for (uri, hosts) in [
            ("/", &[][..]),
            ("/", &["a", "a"]),
            ("/", &["a b"]),
            ("/", &["a/b"]),
            ("/", &["u@a"]),
            ("/", &[""]),
            ("http://b/", &["a"]),
            ("http://u:p@a/", &["a"]),
        ] {
            assert!(check(uri, hosts).is_err(), "{uri} {hosts:?}");
        }
    }
}
