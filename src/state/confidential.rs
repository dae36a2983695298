//! The credentials that Steadfast sends to an upstream, and that the upstream's answers must not show to callers.

use std::{collections::BTreeSet, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::StatusCode;

use crate::{
    config::{self, ApiKey},
    scan::CredentialMasker,
};

use super::base_query::BaseQuery;

/// The minimum length in bytes of a credential that is masked in errors and removed from headers. A shorter text would
/// match by chance.
const SHORTEST_IN_ERRORS: usize = 8;
/// The minimum length in bytes of any credential that is masked in other bodies, which are mostly generated text. The keys of
/// hosted services are much longer. Shorter ones may be words such as `password` or `lm-studio` for servers that check no
/// key, and a model may write those words.
const LONG: usize = 16;
/// Longer texts that documentation recommends as the key for servers that check none. They are no credentials.
const PLACEHOLDERS: [&str; 4] = ["sk-no-key-required", "no-key-required", "not-required", "not-needed"];

/// The credentials of an upstream, compiled for the search in its answers. There are none if the upstream is called with
/// the caller's own credential only, which the caller may see.
///
/// The credentials are the key, and those among the configured headers and in the query of the base URL. A header's value
/// that was read from an environment variable or a file counts as one. The credential of a proxy is not among them: it is sent
/// only to the proxy, whose answers no caller receives.
pub struct Confidential {
    in_errors: Option<Arc<CredentialMasker>>,
    in_answers: Option<Arc<CredentialMasker>>,
}

impl Confidential {
    /// The credentials of an upstream that is `configured` with a `query` in its base URL.
    pub(super) fn new(configured: &config::Upstream, query: Option<&BaseQuery>) -> Self {
        let mut in_errors = credentials(configured, query);
        in_errors.retain(|text| text.len() >= SHORTEST_IN_ERRORS && !is_placeholder(text));
        let mut in_answers = in_errors.clone();
        in_answers.retain(|text| is_no_word(text));
        let is_same = in_errors == in_answers;
        let masker = CredentialMasker::new(in_errors).map(Arc::new);
        Self {
            in_answers: match is_same {
                true => masker.clone(),
                false => CredentialMasker::new(in_answers).map(Arc::new),
            },
            in_errors: masker,
        }
    }

    /// Whether there is no credential.
    pub fn is_empty(&self) -> bool {
        self.in_errors.is_none()
    }

    /// The masker of a body that comes with `status`; `None` if the body may pass as it is.
    pub fn masker_of_body(&self, status: StatusCode) -> Option<&Arc<CredentialMasker>> {
        match status.is_success() {
            true => self.in_answers.as_ref(),
            false => self.in_errors.as_ref(),
        }
    }

    /// Whether a header's value contains a credential.
    #[inline]
    pub fn is_in_header(&self, value: &[u8]) -> bool {
        self.in_errors.as_ref().is_some_and(|masker| masker.finds(value))
    }
}

/// Whether a model writes this text only if it repeats it.
fn is_no_word(text: &[u8]) -> bool {
    let has = |is_kind: fn(&u8) -> bool| text.iter().any(is_kind);
    text.len() >= LONG || text.starts_with(b"sk-") || has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
}

fn is_placeholder(text: &[u8]) -> bool {
    PLACEHOLDERS.iter().any(|placeholder| placeholder.as_bytes() == text)
}

/// The credentials of any length, each in all its parts.
fn credentials(configured: &config::Upstream, query: Option<&BaseQuery>) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    if let ApiKey::Key(key) = &configured.api_key {
        found.insert(key.expose().as_bytes().to_vec());
    }
    for (name, value) in &configured.headers {
        let (scheme, token) = scheme_and_token(value.as_bytes());
        let is_secret = names_credential(name.as_str()) || configured.referenced_headers.contains(name);
        if !is_secret && scheme.is_none() {
            continue;
        }
        found.insert(value.as_bytes().to_vec());
        found.insert(token.to_vec());
        if scheme == Some(AuthScheme::Basic)
            && let Ok(decoded) = BASE64_STANDARD.decode(token)
        {
            let password = decoded.splitn(2, |byte| *byte == b':').nth(1);
            found.extend(password.map(<[u8]>::to_vec));
            found.insert(decoded);
        }
    }
    let in_query = query.map_or_else(Vec::new, |query| query.confidential(names_query_credential));
    found.extend(in_query.into_iter().map(String::into_bytes));
    found
}

/// A scheme of authentication.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AuthScheme {
    Basic,
    Other,
}

/// The scheme with which a value begins if it is a known one, and the rest of the value.
fn scheme_and_token(value: &[u8]) -> (Option<AuthScheme>, &[u8]) {
    const SCHEMES: [(&str, AuthScheme); 5] = [
        ("basic", AuthScheme::Basic),
        ("bearer", AuthScheme::Other),
        ("token", AuthScheme::Other),
        ("key", AuthScheme::Other),
        ("apikey", AuthScheme::Other),
    ];
    let mut parts = value.splitn(2, |byte| *byte == b' ');
    let (Some(name), Some(token)) = (parts.next(), parts.next()) else {
        return (None, value);
    };
    let known = SCHEMES
        .iter()
        .find(|(scheme, _)| name.eq_ignore_ascii_case(scheme.as_bytes()));
    match known {
        Some((_, scheme)) => (Some(*scheme), token.trim_ascii()),
        None => (None, value),
    }
}

/// Whether a header of this name, in lower case, carries a credential. Other headers, such as `content-type`, may appear
/// in responses.
fn names_credential(name: &str) -> bool {
    const WORDS: [&str; 9] = [
        "key",
        "token",
        "secret",
        "auth",
        "cookie",
        "password",
        "passwd",
        "credential",
        "signature",
    ];
    WORDS.iter().any(|word| name.contains(word))
}

/// Whether a parameter of this name, in lower case, carries a credential; `sig` is a signature of Azure.
fn names_query_credential(name: &str) -> bool {
    names_credential(name) || name == "sig"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    fn confidential(key: &str, settings: &str) -> Confidential {
        let text = "[[upstream]]\nname = \"a\"\nbase_url = \"http://a.test/v1\"\napi_key = \"env:KEY\"\n";
        let text = match settings {
            "" => text.to_owned(),
            settings => text.replace("base_url = \"http://a.test/v1\"\n", settings),
        };
        let env = |name: &str| {
            Some(match name {
                "KEY" => key.to_owned(),
                name => format!("value of {name}"),
            })
        };
        let config = Config::from_toml(&text, "test.toml", &env, &Overrides::default()).expect("valid");
        let configured = &config.upstreams[0];
        let query = configured.base_url.query().cloned().map(BaseQuery::new);
        Confidential::new(configured, query.as_ref())
    }

    #[test]
    fn every_form_of_a_credential_is_confidential() {
        let settings = concat!(
            "base_url = \"http://a.test/v1?api-version=2025-04-01-preview&sig=signature%2Fof%2Bazure\"\n",
            "headers = { \"api-key\" = \"key-for-azure-0123\", \"x-gateway\" = \"Bearer token-of-gateway-1\", ",
            "\"x-tenant\" = \"env:TENANT_ID\", \"x-proxy-auth\" = \"Basic dXNlcjpwYXNzd29yZC1vZi11c2Vy\", \"x-region\" = \"a-region-of-this-name\" }\n",
        );
        let confidential = confidential("sk-upstream-0123456789", settings);
        for (text, expected) in [
            ("sk-upstream-0123456789", true),
            ("Bearer sk-upstream-0123456789", true),
            ("key-for-azure-0123", true),
            ("token-of-gateway-1", true),
            ("Basic dXNlcjpwYXNzd29yZC1vZi11c2Vy", true),
            ("dXNlcjpwYXNzd29yZC1vZi11c2Vy", true),
            ("user:password-of-user", true),
            ("password-of-user", true),
            ("signature/of+azure", true),
            ("signature%2Fof%2Bazure", true),
            ("value of TENANT_ID", true),
            ("a-region-of-this-name", false),
            ("2025-04-01-preview", false),
            ("sk-upstream-012345678", false),
        ] {
            assert_eq!(confidential.is_in_header(text.as_bytes()), expected, "{text}");
            let masker = confidential.masker_of_body(StatusCode::OK).expect("credentials");
            assert_eq!(masker.finds(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn short_keys_and_placeholders_are_not_masked_in_generated_text() {
        for (key, in_errors, in_answers) in [
            ("EMPTY", false, false),
            ("ollama", false, false),
            ("lm-studio", true, false),
            ("sk-no-key-required", false, false),
            ("sk-0123456789012", true, true),
            ("sk-012345678901", true, true),
            ("sk-secret", true, true),
            ("sk-key", false, false),
            ("password", true, false),
            ("12345678", true, false),
            ("pass12345", true, true),
        ] {
            let confidential = confidential(key, "");
            let is_masked = |status| confidential.masker_of_body(status).is_some();
            assert_eq!(is_masked(StatusCode::OK), in_answers, "{key}");
            assert_eq!(is_masked(StatusCode::BAD_REQUEST), in_errors, "{key}");
            assert_eq!(is_masked(StatusCode::FOUND), in_errors, "{key}");
            assert_eq!(confidential.is_empty(), !in_errors, "{key}");
            assert_eq!(confidential.is_in_header(key.as_bytes()), in_errors, "{key}");
        }
    }
}
