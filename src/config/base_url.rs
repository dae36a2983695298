//! The base URL of an upstream, to which the paths of requests are appended.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use http::uri::{Authority, Scheme};
use rustls::pki_types::ServerName;

/// A URL such as `https://host:port/prefix`: http or https, without user name, query and fragment. Its path is
/// unambiguous: every server finds the same segments in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    prefix: Box<str>,
}

impl BaseUrl {
    /// Parses a base URL.
    ///
    /// # Errors
    /// If the text is not such a URL. The message says what the text must be, as a predicate that follows the field's
    /// name. It does not repeat the URL, which may contain a secret.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = split_scheme(text).ok_or("must start with \"https://\" or \"http://\"")?;
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("contains a space or another character that is invalid in a URL".to_owned());
        }
        if rest.contains(['?', '#']) {
            return Err("must have no query (\"?\") and no fragment (\"#\")".to_owned());
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("must not contain a user name or password; give the credential as the API key".to_owned());
        }
        let authority = parse_authority(authority)
            .ok_or("must have a host, and may have a port from 1 to 65535, such as \"https://api.openai.com/v1\"")?;
        let prefix = path.strip_suffix('/').unwrap_or(path);
        if !prefix.split('/').skip(1).all(is_plain_segment) {
            return Err("must have a plain path: no \"//\", \".\", \"..\" or encoded dots and slashes".to_owned());
        }
        Ok(Self {
            scheme,
            authority,
            prefix: prefix.into(),
        })
    }

    /// Whether connections use TLS.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The scheme: http or https.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Host and port as written, which is the value of the `Host` header.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The host, which is resolved and compared with the certificate: a name or an IP address, without brackets.
    pub fn host(&self) -> &str {
        without_brackets(self.authority.host())
    }

    /// The port; without one, the default port of the scheme.
    pub fn port(&self) -> u16 {
        self.authority
            .port_u16()
            .unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    /// The path in front of the path of each request: empty, or with a slash at its start and none at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether the host is a name or an address of this machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        // RFC 6761 §6.3: localhost and its subdomains.
        let name = host
            .rsplit('.')
            .next()
            .is_some_and(|label| label.eq_ignore_ascii_case("localhost"));
        name || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

fn split_scheme(text: &str) -> Option<(Scheme, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Some((Scheme::HTTPS, rest)),
        "http" => Some((Scheme::HTTP, rest)),
        _ => None,
    }
}

fn parse_authority(text: &str) -> Option<Authority> {
    let authority: Authority = text.parse().ok()?;
    let host = authority.host();
    let valid_host = match host.strip_prefix('[') {
        Some(_) => without_brackets(host).parse::<Ipv6Addr>().is_ok(),
        None => ServerName::try_from(host).is_ok(),
    };
    let port = text.strip_prefix(host)?;
    let valid_port = port.is_empty()
        || port
            .strip_prefix(':')
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse::<u16>().ok())
            .is_some_and(|port| port != 0);
    (valid_host && valid_port).then_some(authority)
}

/// The host without the brackets of an IPv6 address.
fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// Whether a path segment is valid (RFC 3986 §3.3) and not changed by any normalisation.
fn is_plain_segment(segment: &str) -> bool {
    if segment.is_empty() || segment == "." || segment == ".." {
        return false;
    }
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte);
        let escape = byte == b'%' && {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            match (digit(bytes.next()), digit(bytes.next())) {
                (Some(high), Some(low)) => ![b'.', b'/', b'\\'].map(u32::from).contains(&(high * 16 + low)),
                _ => false,
            }
        };
        if !plain && !escape {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_of_a_url() {
        for (written, host, port, prefix, shown) in [
            (
                "https://api.openai.com/v1",
                "api.openai.com",
                443,
                "/v1",
                "https://api.openai.com/v1",
            ),
            (
                "https://api.openai.com/v1/",
                "api.openai.com",
                443,
                "/v1",
                "https://api.openai.com/v1",
            ),
            ("http://127.0.0.1:9001", "127.0.0.1", 9001, "", "http://127.0.0.1:9001"),
            ("HTTP://[::1]:80/", "::1", 80, "", "http://[::1]:80"),
            (
                "https://a_b.example/x%20y/z",
                "a_b.example",
                443,
                "/x%20y/z",
                "https://a_b.example/x%20y/z",
            ),
        ] {
            let url = BaseUrl::parse(written).unwrap();
            assert_eq!(
                (url.host(), url.port(), url.prefix()),
                (host, port, prefix),
                "{written}"
            );
            assert_eq!(url.to_string(), shown);
        }
    }

    #[test]
    fn invalid_urls_are_refused() {
        for (written, because) in [
            ("", "start with"),
            ("api.openai.com/v1", "start with"),
            ("ftp://a/v1", "start with"),
            ("unix:///run/a", "start with"),
            ("https://", "a host"),
            ("https:///v1", "a host"),
            ("https://a b/", "a space"),
            ("https://exämple.com/", "a space"),
            ("https://a/v1\n", "a space"),
            ("https://u:p@a/v1", "user name"),
            ("https://a:0/", "a port"),
            ("https://a:/", "a port"),
            ("https://a:65536/", "a port"),
            ("https://a:+1/", "a port"),
            ("https://a..b/", "a host"),
            ("https://[::1/", "a host"),
            ("https://[1]/", "a host"),
            ("https://[::1]x/", "a host"),
            ("https://1.2.3/", "a host"),
            ("https://a/v1?key=sk", "no query"),
            ("https://a/v1?", "no query"),
            ("https://a/v1#x", "no query"),
            ("https://a/..", "plain path"),
            ("https://a/b/../c", "plain path"),
            ("https://a/./b", "plain path"),
            ("https://a//b", "plain path"),
            ("https://a/b//", "plain path"),
            ("https://a/%2e%2E", "plain path"),
            ("https://a/b%2fc", "plain path"),
            ("https://a/%5c", "plain path"),
            ("https://a/%", "plain path"),
            ("https://a/%2", "plain path"),
            ("https://a/%zz", "plain path"),
            ("https://a/b\\c", "plain path"),
            ("https://a/{b}", "plain path"),
        ] {
            let error = BaseUrl::parse(written).expect_err(written);
            assert!(error.contains(because), "{written}: {error}");
        }
    }

    #[test]
    fn loopback_hosts_are_recognized() {
        for (written, expected) in [
            ("http://localhost:1", true),
            ("http://a.LOCALHOST", true),
            ("http://127.9.9.9", true),
            ("http://[::1]", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(BaseUrl::parse(written).unwrap().is_loopback(), expected, "{written}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_url_is_parsed_to_the_same_url(text in "https?://[a-z0-9.:\\[\\]@-]{0,12}(/[a-z%2.?#]{0,4}){0,3}/?") {
            if let Ok(url) = BaseUrl::parse(&text) {
                prop_assert_eq!(BaseUrl::parse(&url.to_string()), Ok(url.clone()));
                let uri: http::Uri = url.to_string().parse().unwrap();
                prop_assert_eq!(uri.authority(), Some(url.authority()));
                prop_assert_eq!(uri.path().trim_end_matches('/'), url.prefix());
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>()) {
            let _ = BaseUrl::parse(&text);
            let _ = BaseUrl::parse(&format!("http://{text}"));
        }
    }
}
