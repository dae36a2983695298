//! What a request line asks for: one reading, or a refusal.
//!
//! An upstream may normalise a path in its own way. So nothing is normalised here: a target that two servers could read
//! differently (RFC 3986 sections 5.2.4 and 6.2.2, RFC 9112 section 3.2) is refused, and the rest is passed on as it came.

use http::{Method, Uri, uri::PathAndQuery};

use crate::{endpoint::Endpoint, fault::Fault, proxy::text::bounded};

/// An endpoint, and what of the path an upstream gets to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Target {
    pub endpoint: Endpoint,
    /// Path and query as they came.
    whole: PathAndQuery,
    /// Where in `whole` the part after `/v1` begins.
    tail: usize,
}

/// `POST /v1/responses/input_tokens` names no response: it counts what it carries.
const COUNT_TOKENS: &str = "input_tokens";

impl Target {
    /// The path after `/v1`, without the query.
    pub fn tail(&self) -> &str {
        self.whole.path().get(self.tail..).unwrap_or_default()
    }

    /// The query, without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.whole.query()
    }

    /// The response id of `/responses/{id}…`.
    pub fn response_id(&self) -> Option<&str> {
        if self.endpoint != Endpoint::Response {
            return None;
        }
        self.tail()
            .strip_prefix("/responses/")?
            .split('/')
            .next()
            .filter(|id| !id.is_empty() && *id != COUNT_TOKENS)
    }

    /// Whether a request with `method` asks for, or changes, nothing but the one response that it names.
    pub fn is_of_response(&self, method: &Method) -> bool {
        let Some(id) = self.response_id() else { return false };
        let below = self.tail().get("/responses/".len() + id.len()..).unwrap_or_default();
        match below {
            "" => *method == Method::GET || *method == Method::DELETE,
            "/cancel" => *method == Method::POST,
            "/input_items" => *method == Method::GET,
            _ => false,
        }
    }

    /// Whether it counts the tokens of what it carries.
    pub fn counts_tokens(&self) -> bool {
        self.tail().strip_prefix("/responses/") == Some(COUNT_TOKENS)
    }

    /// The model id of `/models/{id}`, which may itself have slashes.
    pub fn model_id(&self) -> Option<&str> {
        if self.endpoint != Endpoint::Models {
            return None;
        }
        self.tail().strip_prefix("/models/").filter(|id| !id.is_empty())
    }

    /// The target at an upstream whose base URL has the path `prefix`.
    pub fn at(&self, prefix: &str) -> Option<Uri> {
        let came_with = self.whole.path().get(..self.tail)?;
        if came_with == prefix {
            return Some(Uri::from(self.whole.clone()));
        }
        let rest = self.whole.as_str().get(self.tail..)?;
        let mut joined = String::with_capacity(prefix.len() + rest.len());
        joined.push_str(prefix);
        joined.push_str(rest);
        PathAndQuery::try_from(joined).ok().map(Uri::from)
    }
}

/// Reads the target of a request.
pub(in crate::proxy) fn read(method: &Method, uri: &Uri) -> Result<Target, Fault> {
    let whole = uri
        .path_and_query()
        .ok_or(Fault::AmbiguousTarget { problem: "has no path" })?;
    let path = whole.path();
    check_path(path)?;
    let tail = if path == "/v1" || path.starts_with("/v1/") {
        "/v1".len()
    } else {
        0
    };
    let rest = path.get(tail..).unwrap_or_default();
    let endpoint = endpoint(method, rest);
    // Without /v1 only what has an endpoint of its own is taken: a base URL written without /v1 works, a typo does not.
    if rest.len() < 2 || (tail == 0 && endpoint == Endpoint::Other) || rest.starts_with("/v1/") {
        return Err(Fault::UnknownPath {
            path: bounded(path),
            meant: meant(path),
        });
    }
    Ok(Target {
        endpoint,
        whole: whole.clone(),
        tail,
    })
}

fn endpoint(method: &Method, rest: &str) -> Endpoint {
    let post = method == Method::POST;
    match rest {
        "/responses" => Endpoint::Responses,
        "/responses/compact" if post => Endpoint::Compact,
        "/models" => Endpoint::Models,
        // The older form streams and counts as the newer does.
        "/chat/completions" | "/completions" => Endpoint::ChatCompletions,
        "/embeddings" => Endpoint::Embeddings,
        _ if rest.starts_with("/responses/") => Endpoint::Response,
        _ if rest.starts_with("/models/") => Endpoint::Models,
        _ => Endpoint::Other,
    }
}

fn check_path(path: &str) -> Result<(), Fault> {
    const CONTROL: &str = "has an encoded control character in its path";
    let refuse = |problem| Err(Fault::AmbiguousTarget { problem });
    if !path.starts_with('/') {
        return refuse("is not an absolute path");
    }
    let bytes = path.as_bytes();
    if memchr::memmem::find(bytes, b"//").is_some() {
        return refuse("has an empty path segment (//)");
    }
    if memchr::memchr3(b'\\', b'#', b';', bytes).is_some() {
        return refuse("has a character that servers read differently in a path (\\, # or ;)");
    }
    let mut has_encoded_slash = false;
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'%', rest) {
        rest = rest.get(at + 1..).unwrap_or_default();
        match rest.get(..2) {
            Some(b"2e" | b"2E") => return refuse("has an encoded dot (%2e) in its path"),
            Some(b"5c" | b"5C") => return refuse("has an encoded backslash (%5c) in its path"),
            Some([b'0' | b'1', digit]) if digit.is_ascii_hexdigit() => return refuse(CONTROL),
            Some(b"7f" | b"7F") => return refuse(CONTROL),
            Some(b"2f" | b"2F") => has_encoded_slash = true,
            Some(b"25")
                if rest
                    .get(2..4)
                    .is_some_and(|more| more.iter().all(u8::is_ascii_hexdigit)) =>
            {
                return refuse("has something encoded twice (%25) in its path");
            }
            Some([high, low]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {}
            _ => return refuse("has a percent sign that encodes nothing"),
        }
    }
    if !path.is_ascii() {
        return refuse("has a character in its path that has to be percent-encoded");
    }
    // Lax decoders find dots and slashes in overlong forms (RFC 3629 section 10).
    if percent_encoding::percent_decode_str(path).decode_utf8().is_err() {
        return refuse("has encoded bytes in its path that are no UTF-8");
    }
    if has_dot_segment(path) {
        return refuse("has a dot segment (. or ..) in its path");
    }
    // A server that decodes %2f before it looks for segments must find none that we did not see.
    if has_encoded_slash {
        let decoded = path.replace("%2f", "/").replace("%2F", "/");
        if has_dot_segment(&decoded) || decoded.contains("//") {
            return refuse("has a dot segment or an empty one behind an encoded slash (%2f)");
        }
    }
    Ok(())
}

fn has_dot_segment(path: &str) -> bool {
    path.split('/').any(|segment| segment == "." || segment == "..")
}

/// The methods that are passed on. Method names are case-sensitive (RFC 9110 section 9.1), and some servers forget it.
pub(in crate::proxy) fn check_method(method: &Method) -> Result<(), Fault> {
    match *method {
        Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::HEAD | Method::OPTIONS => {
            Ok(())
        }
        Method::CONNECT => Err(Fault::BadMethod {
            problem: "is CONNECT, and this is not a forward proxy",
        }),
        Method::TRACE => Err(Fault::BadMethod {
            problem: "is TRACE, which would show credentials",
        }),
        _ if method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) => Err(Fault::BadMethod {
            problem: "is not in capitals",
        }),
        _ => Err(Fault::BadMethod {
            problem: "is none of GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS",
        }),
    }
}

/// The endpoint whose name stands in a path that is none.
fn meant(path: &str) -> &'static str {
    const NAMED: [(&str, &str); 10] = [
        ("compact", "/v1/responses/compact"),
        ("chat", "/v1/chat/completions"),
        ("completion", "/v1/chat/completions"),
        ("embed", "/v1/embeddings"),
        ("model", "/v1/models"),
        ("respon", "/v1/responses"),
        ("file", "/v1/files"),
        ("batch", "/v1/batches"),
        ("conversation", "/v1/conversations"),
        ("moderation", "/v1/moderations"),
    ];
    let path = path.to_ascii_lowercase();
    NAMED
        .iter()
        .find(|(word, _)| path.contains(word))
        .map_or("/v1/responses", |(_, endpoint)| endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Result<Target, Fault> {
        read(&Method::POST, &path.parse().expect("a URI"))
    }

    #[test]
    fn endpoints_have_one_name_with_and_without_v1() {
        for (path, endpoint) in [
            ("/responses", Endpoint::Responses),
            ("/responses/compact", Endpoint::Compact),
            ("/responses/resp_1/cancel", Endpoint::Response),
            ("/models", Endpoint::Models),
            ("/models/org/name", Endpoint::Models),
            ("/chat/completions", Endpoint::ChatCompletions),
            ("/completions", Endpoint::ChatCompletions),
            ("/embeddings", Endpoint::Embeddings),
        ] {
            for prefix in ["", "/v1"] {
                let target = target(&format!("{prefix}{path}?a=b")).expect(path);
                assert_eq!(
                    (target.endpoint, target.tail(), target.query()),
                    (endpoint, path, Some("a=b"))
                );
                assert_eq!(target.at("/v1").expect("fits").to_string(), format!("/v1{path}?a=b"));
                assert_eq!(
                    target.at("/openai/v1").expect("fits").to_string(),
                    format!("/openai/v1{path}?a=b")
                );
                assert_eq!(target.at("").expect("fits").to_string(), format!("{path}?a=b"));
            }
        }
        assert_eq!(target("/v1/files").expect("other").endpoint, Endpoint::Other);
        assert_eq!(
            target("/v1/responses/r-1/input_items").expect("one").response_id(),
            Some("r-1")
        );
        assert_eq!(
            target("/v1/models/org%2Fname").expect("one").model_id(),
            Some("org%2Fname")
        );
    }

    #[test]
    fn unknown_paths_name_what_was_meant() {
        for (path, meant) in [
            ("/", "/v1/responses"),
            ("/v1", "/v1/responses"),
            ("/v1/", "/v1/responses"),
            ("/v1/v1/responses", "/v1/responses"),
            ("/api/v1/chat/completions", "/v1/chat/completions"),
            ("/v1beta/models", "/v1/models"),
            ("/files", "/v1/files"),
        ] {
            assert_eq!(
                target(path),
                Err(Fault::UnknownPath {
                    path: path.to_owned(),
                    meant
                })
            );
        }
    }

    #[test]
    fn paths_with_two_readings_are_refused() {
        for path in [
            "/v1/../admin",
            "/v1/./responses",
            "/v1/responses/..",
            "/v1/%2e%2e/x",
            "/v1/a%2Eb",
            "/v1//responses",
            "//v1/responses",
            "/v1/a%5cb",
            "/v1/a%00",
            "/v1/a%1f",
            "/v1/a%7f",
            "/v1/..%2fadmin",
            "/v1/x/..%2F..%2Fadmin",
            "/v1/x%2f.",
            "/v1/x%2f/y",
            "/v1/a%",
            "/v1/a%zz",
            "/v1/a;b=c",
            "/v1/%252e%252e/x",
            "/v1/a%252Fb",
            "/v1/%c0%ae%c0%ae/x",
            "/v1/%e0%80%af",
            "/v1/a%ff",
            "/v1/a\u{e9}",
        ] {
            assert!(matches!(target(path), Err(Fault::AmbiguousTarget { .. })), "{path}");
        }
    }
}
