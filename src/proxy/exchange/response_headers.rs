//! The headers of a response, on their way from the upstream to the caller.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ALT_SVC, AUTHORIZATION, CONTENT_LENGTH, SET_COOKIE, TRANSFER_ENCODING},
};

use crate::{
    proxy::headers::{HOP, ROUTED_BY, ROUTED_TO, X_API_KEY, strip},
    state::{Credential, Upstream},
};

/// With an alternative service the client would bypass Steadfast. Only Steadfast sets the route headers. The hop marker is
/// for gateways.
static PRIVATE: [HeaderName; 4] = [ALT_SVC, ROUTED_TO, ROUTED_BY, HOP];
/// A cookie belongs to a session of the upstream's account.
static PRIVATE_TO_ACCOUNT: [HeaderName; 3] = [SET_COOKIE, AUTHORIZATION, X_API_KEY];

/// Removes the headers that the caller must not receive.
pub(in crate::proxy) fn cleanse_response(headers: &mut HeaderMap, upstream: &Upstream) {
    remove_private(headers, &upstream.credential, |value| {
        upstream.confidential.is_in_header(value.as_bytes())
    });
}

/// Removes private headers, and those whose values `is_echo` recognizes: if an upstream echoes request headers in its
/// response, the caller must not see the key.
fn remove_private(headers: &mut HeaderMap, credential: &Credential, is_echo: impl Fn(&HeaderValue) -> bool) {
    let is_own = matches!(credential, Credential::Own(_));
    // A length beside a transfer coding has no meaning and must not be passed on (RFC 9112 section 6.3, rule 3).
    let is_coded = headers.contains_key(TRANSFER_ENCODING);
    strip(headers, |name, value| {
        PRIVATE.contains(name)
            || (is_coded && name == CONTENT_LENGTH)
            || (is_own && PRIVATE_TO_ACCOUNT.contains(name))
            || is_echo(value)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::headers::tests::{headers, names};

    const SENT: [(&str, &str); 10] = [
        ("alt-svc", "h3=\":443\""),
        ("x-steadfast-upstream", "other"),
        ("x-steadfast-route", "pin"),
        ("steadfast-hop", "0123456789abcdef"),
        ("set-cookie", "a=1"),
        ("authorization", "Bearer x"),
        ("x-api-key", "x"),
        ("x-debug", "auth=sk-upstream-secret;"),
        ("x-ok", "sk-up"),
        ("content-length", "2"),
    ];

    fn kept(credential: &Credential, fields: &[(&str, &str)]) -> Vec<String> {
        let mut map = headers(fields);
        remove_private(&mut map, credential, |value| {
            value.as_bytes().ends_with(b"sk-upstream-secret;")
        });
        names(&map).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn headers_of_a_configured_account_and_echoed_credentials_are_removed() {
        let own = Credential::Own(HeaderValue::from_static("Bearer sk-upstream-secret"));
        assert_eq!(kept(&own, &SENT), ["content-length", "x-ok"]);
    }

    #[test]
    fn a_caller_receives_the_headers_of_its_own_account() {
        let expected = ["authorization", "content-length", "set-cookie", "x-api-key", "x-ok"];
        assert_eq!(kept(&Credential::Callers, &SENT), expected);
    }

    #[test]
    fn a_length_beside_a_transfer_coding_is_removed() {
        let coded = [("transfer-encoding", "chunked"), ("content-length", "2")];
        assert_eq!(kept(&Credential::Callers, &coded), [""; 0]);
    }
}
