//! Part of the first stage: finds out which client sends a request.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};

use crate::{
    fault::{Fault, KeyProblem},
    proxy::headers::X_API_KEY,
    state::{ClientKey, Group, RateLimits, Snapshot},
};

/// The client that sends a request.
#[derive(Clone)]
pub(in crate::proxy) struct Caller<'a> {
    /// The client key that the request carries. `None` if the configuration has no client keys.
    pub key: Option<&'a Arc<ClientKey>>,
    /// The group that the key belongs to.
    pub group: &'a Arc<Group>,
}

impl Caller<'_> {
    /// The rate limits of the caller's key, if it has any.
    pub fn rate_limits(&self) -> Option<&Arc<RateLimits>> {
        self.key?.rate_limits.as_ref()
    }
}

/// Finds out which client sends a request with these headers. `now` is the Unix time in seconds, at which the client key
/// must be valid.
///
/// # Errors
/// If the configuration has client keys, and the request carries none of them or one that is not valid now.
pub(in crate::proxy) fn identify<'a>(
    snapshot: &'a Snapshot,
    headers: &HeaderMap,
    now: u64,
) -> Result<Caller<'a>, Fault> {
    let access = &snapshot.access;
    if access.is_open() {
        let group = access.anonymous();
        return Ok(Caller { key: None, group });
    }
    let key = access
        .find(presented_key(headers)?, now)
        .map_err(|problem| Fault::InvalidKey { problem })?;
    Ok(Caller {
        key: Some(key),
        group: &key.group,
    })
}

/// The client key that a request presents: the token of `Authorization: Bearer`, else the value of `x-api-key`.
fn presented_key(headers: &HeaderMap) -> Result<&[u8], Fault> {
    const UNREADABLE: Fault = Fault::InvalidKey {
        problem: KeyProblem::Unknown,
    };
    let authorization = single(headers, AUTHORIZATION)?;
    if let Some(key) = authorization.and_then(bearer) {
        return Ok(key);
    }
    match single(headers, X_API_KEY)? {
        Some(key) => Ok(key.as_bytes().trim_ascii()),
        None if authorization.is_some() => Err(UNREADABLE),
        None => Err(Fault::MissingKey),
    }
}

/// The value of a field that must not be repeated: servers differ in which of two values they use.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&HeaderValue>, Fault> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Fault::InvalidKey {
            problem: KeyProblem::Unknown,
        }),
    }
}

/// The token after the scheme `Bearer`, which is not case-sensitive (RFC 9110 section 11.1, RFC 6750 section 2.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{
        headers::tests::headers,
        request::kit::{self, GROUPS, OPEN},
    };

    #[test]
    fn the_key_is_read_from_one_field() {
        for (sent, key) in [
            (&[("authorization", "Bearer k1")] as &[_], Some("k1")),
            (&[("authorization", "bearer  k1 ")], Some("k1")),
            (&[("authorization", "Bearer k1"), ("x-api-key", "k2")], Some("k1")),
            (&[("authorization", "Basic k1"), ("x-api-key", "k2")], Some("k2")),
            (&[("x-api-key", " k2 ")], Some("k2")),
            (&[("authorization", "Bearer k1"), ("authorization", "Bearer k1")], None),
            (&[("x-api-key", "k2"), ("x-api-key", "k3")], None),
            (&[("authorization", "Basic k1")], None),
            (&[("authorization", "Bearerk1")], None),
            (&[("authorization", "")], None),
            (&[], None),
        ] {
            assert_eq!(presented_key(&headers(sent)).ok(), key.map(str::as_bytes), "{sent:?}");
        }
        assert_eq!(presented_key(&headers(&[])), Err(Fault::MissingKey));
    }

    #[test]
    fn a_key_decides_the_group() {
        let snapshot = kit::snapshot(GROUPS);
        let invalid = |problem| Err(Fault::InvalidKey { problem });
        for (key, expected) in [
            ("key-alone", Ok("alone")),
            ("key-shared", Ok("shared")),
            ("key-expired", invalid(KeyProblem::Expired)),
            ("key-disabled", invalid(KeyProblem::Disabled)),
            ("key-unknown", invalid(KeyProblem::Unknown)),
            ("", invalid(KeyProblem::Unknown)),
        ] {
            let caller = identify(&snapshot, &headers(&[("x-api-key", key)]), 2_000_000_000);
            let group = caller.map(|caller| caller.group.name.to_string());
            assert_eq!(group, expected.map(str::to_owned), "{key}");
        }
    }

    #[test]
    fn without_configured_keys_every_client_is_admitted() {
        let snapshot = kit::snapshot(OPEN);
        for sent in [&[][..], &[("authorization", "Bearer a"), ("authorization", "Bearer b")]] {
            let caller = identify(&snapshot, &headers(sent), 0).expect("an open gateway");
            assert!(caller.key.is_none() && caller.rate_limits().is_none() && caller.group.name.is_empty());
        }
    }
}
