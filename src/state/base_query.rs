//! The query of an upstream's base URL, which goes with each request.

use std::{borrow::Cow, fmt};

use http::{Uri, uri::PathAndQuery};

use crate::secret::Secret;

/// The query of a base URL, such as `api-version=2025-04-01-preview`. It may contain a secret, so `Debug` does not show it.
pub struct BaseQuery {
    text: Secret,
    /// The names of its parameters, decoded.
    names: Box<[Box<str>]>,
}

impl fmt::Debug for BaseQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BaseQuery(…)")
    }
}

impl BaseQuery {
    /// A query, without its question mark.
    pub fn new(text: Secret) -> Self {
        let names = parameters(text.expose()).map(|(name, _)| name.into()).collect();
        Self { text, names }
    }

    /// The target of a request: `path` below `prefix`, with this query and then the parameters of the `callers` query.
    /// `None` if the result is too long for a URI.
    ///
    /// A parameter of the caller that has the name of a configured one is left out: the operator decides, and two values
    /// would have no certain meaning. Names are compared without regard to case, because some servers read them so.
    pub fn target(&self, prefix: &str, path: &str, callers: Option<&str>) -> Option<Uri> {
        let query = self.text.expose();
        let added = callers.map_or(0, |callers| "&".len() + callers.len());
        let mut target = String::with_capacity(prefix.len() + path.len() + "?".len() + query.len() + added);
        target.push_str(prefix);
        target.push_str(path);
        target.push('?');
        target.push_str(query);
        let pieces = callers.into_iter().flat_map(|callers| callers.split('&'));
        for piece in pieces.filter(|piece| !piece.is_empty() && !self.names_parameter(piece)) {
            target.push('&');
            target.push_str(piece);
        }
        PathAndQuery::try_from(target).ok().map(Uri::from)
    }

    /// Whether `piece`, such as `name=value`, is a parameter with the name of a configured one.
    fn names_parameter(&self, piece: &str) -> bool {
        let name = form_urlencoded::parse(piece.as_bytes()).next().map(|(name, _)| name);
        name.is_some_and(|name| self.names.iter().any(|known| known.eq_ignore_ascii_case(&name)))
    }

    /// The values that can be credentials, by the names of their parameters: as they are written, and decoded.
    pub fn confidential(&self, names_credential: fn(&str) -> bool) -> Vec<String> {
        let mut values = Vec::new();
        for piece in self.text.expose().split('&') {
            let Some((name, value)) = parameters(piece).next() else {
                continue;
            };
            if names_credential(&name.to_ascii_lowercase()) {
                values.push(value.into_owned());
                values.extend(piece.split_once('=').map(|(_, written)| written.to_owned()));
            }
        }
        values.sort_unstable();
        values.dedup();
        values
    }
}

fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(query.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(configured: &str, callers: Option<&str>) -> String {
        let query = BaseQuery::new(Secret::new(configured));
        query.target("/v1", "/x", callers).expect("it fits").to_string()
    }

    #[test]
    fn the_configured_query_comes_first_and_wins() {
        for (configured, callers, expected) in [
            ("api-version=1", None, "/v1/x?api-version=1"),
            ("api-version=1", Some("a=b&c"), "/v1/x?api-version=1&a=b&c"),
            (
                "api-version=1",
                Some("a=b&api-version=2&c=d"),
                "/v1/x?api-version=1&a=b&c=d",
            ),
            ("api-version=1", Some("api%2Dversion=2"), "/v1/x?api-version=1"),
            ("api-version=1", Some("API-Version=2"), "/v1/x?api-version=1"),
            ("api%2Dversion=1", Some("api-version"), "/v1/x?api%2Dversion=1"),
            ("a+b=1", Some("a%20b=2&a=3"), "/v1/x?a+b=1&a=3"),
            ("a=1&b=2", Some("b=3&a=4&b=5"), "/v1/x?a=1&b=2"),
            ("a=1", Some("ab=2&b=a=1"), "/v1/x?a=1&ab=2&b=a=1"),
            ("a=1", Some(""), "/v1/x?a=1"),
            ("a=1", Some("x=%zz&y"), "/v1/x?a=1&x=%zz&y"),
        ] {
            assert_eq!(joined(configured, callers), expected);
        }
        let query = BaseQuery::new(Secret::new("a=1"));
        assert!(
            query.target("/v1", "/x", Some(&"x".repeat(1 << 16))).is_none(),
            "too long"
        );
    }

    #[test]
    fn values_that_can_be_credentials_are_found() {
        let query = BaseQuery::new(Secret::new("api-version=1&Key=a%2Fcanary&sig=x&access_token=t"));
        let found = query.confidential(|name| name.contains("key") || name.contains("token"));
        assert_eq!(found, ["a%2Fcanary", "a/canary", "t"]);
        assert!(!format!("{query:?}").contains("canary"));
    }
}
