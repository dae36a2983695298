//! The request line: the method of a request, and the endpoint that it calls.

use http::{Method, Uri, uri::PathAndQuery};

use super::{object_path::ObjectPath, path};
use crate::{
    endpoint::{Endpoint, EndpointClass},
    fault::Fault,
    ids::ObjectId,
    proxy::text::truncated,
    state::Upstream,
};

/// The target of a request (RFC 9112 section 3.2): its endpoint, its path and its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct RequestTarget {
    pub endpoint: Endpoint,
    /// The path and the query as they were received.
    path_and_query: PathAndQuery,
    /// The byte offset in the path at which the part after `/v1` begins: 0 if the path has no `/v1`.
    tail_start: usize,
}

/// `/v1/responses/input_tokens` counts the tokens of its body.
const COUNT_TOKENS: &str = "input_tokens";

impl RequestTarget {
    /// The path after `/v1`, without the query.
    pub fn tail(&self) -> &str {
        &self.path_and_query.path()[self.tail_start..]
    }

    /// The query without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.path_and_query.query()
    }

    /// The path, split into its collection and the objects that it names.
    pub fn object_path(&self) -> ObjectPath<'_> {
        ObjectPath::new(self.tail())
    }

    /// The objects that a request with this method names in its path, the outermost first.
    #[inline]
    pub fn objects(&self, method: &Method) -> [Option<ObjectId>; 3] {
        match self.endpoint.class() {
            EndpointClass::Objects => self.object_path().objects(method),
            _ => [None; 3],
        }
    }

    /// Whether a request with this method reads or changes only the one response that its path names.
    pub fn is_of_response(&self, method: &Method) -> bool {
        if self.endpoint != Endpoint::Response {
            return false;
        }
        let Some(id) = self.object_path().id(method) else {
            return false;
        };
        match &self.tail()["/responses/".len() + id.len()..] {
            "" => *method == Method::GET || *method == Method::DELETE,
            "/cancel" => *method == Method::POST,
            "/input_items" => *method == Method::GET,
            _ => false,
        }
    }

    /// Whether the request counts the tokens of its body.
    pub fn counts_tokens(&self) -> bool {
        self.tail().strip_prefix("/responses/") == Some(COUNT_TOKENS)
    }

    /// Whether a form that is sent to the path names its model. The paths of images and audio have their own endpoints.
    pub fn takes_model_in_form(&self) -> bool {
        match self.endpoint {
            Endpoint::Images | Endpoint::Audio => true,
            Endpoint::Other => is_below(self.tail(), "/videos") || matches!(self.tail(), "/moderations" | "/rerank"),
            _ => false,
        }
    }

    /// The id of the model that the path names, as in `/models/{id}`. It is still percent-encoded and may contain slashes.
    pub fn model_id(&self) -> Option<&str> {
        if self.endpoint != Endpoint::Models {
            return None;
        }
        self.tail().strip_prefix("/models/").filter(|id| !id.is_empty())
    }

    /// The target at `upstream`. `None` if the result is too long for a URI.
    pub fn uri_at(&self, upstream: &Upstream) -> Option<Uri> {
        match &upstream.query {
            None => self.uri_with_prefix(&upstream.prefix),
            Some(query) => query.target(&upstream.prefix, self.tail(), self.query()),
        }
    }

    /// The target at an upstream whose base URL has the path `prefix` and no query.
    fn uri_with_prefix(&self, prefix: &str) -> Option<Uri> {
        let (received_prefix, rest) = self.path_and_query.as_str().split_at(self.tail_start);
        if received_prefix == prefix {
            return Some(Uri::from(self.path_and_query.clone()));
        }
        let mut joined = String::with_capacity(prefix.len() + rest.len());
        joined.push_str(prefix);
        joined.push_str(rest);
        PathAndQuery::try_from(joined).ok().map(Uri::from)
    }
}

/// Reads the target of a request.
///
/// # Errors
/// If servers could read the path differently, or if no endpoint has this path.
pub(in crate::proxy) fn read(method: &Method, uri: &Uri) -> Result<RequestTarget, Fault> {
    let path_and_query = uri
        .path_and_query()
        .ok_or(Fault::AmbiguousTarget { problem: "has no path" })?;
    let path = path_and_query.path();
    path::check(path)?;
    let tail_start = if path == "/v1" || path.starts_with("/v1/") {
        "/v1".len()
    } else {
        0
    };
    let tail = &path[tail_start..];
    let endpoint = endpoint(method, tail);
    // A path without /v1 is accepted only if it has an endpoint of its own: a base URL that is written without /v1 works, and
    // a misspelt path is refused.
    if tail.len() < 2 || (tail_start == 0 && endpoint == Endpoint::Other) || tail.starts_with("/v1/") {
        return Err(Fault::UnknownPath {
            path: truncated(path),
            suggestion: suggestion(path),
        });
    }
    Ok(RequestTarget {
        endpoint,
        path_and_query: path_and_query.clone(),
        tail_start,
    })
}

/// The endpoint of a path, whose part after `/v1` is `tail`.
fn endpoint(method: &Method, tail: &str) -> Endpoint {
    match tail {
        "/responses" => Endpoint::Responses,
        "/responses/compact" if method == Method::POST => Endpoint::Compact,
        "/models" => Endpoint::Models,
        // The older endpoint streams and reports its usage as the newer one does.
        "/chat/completions" | "/completions" => Endpoint::ChatCompletions,
        "/messages" => Endpoint::Messages,
        "/embeddings" => Endpoint::Embeddings,
        _ if tail.starts_with("/responses/") => Endpoint::Response,
        _ if tail.starts_with("/models/") => Endpoint::Models,
        _ if is_below(tail, "/images") => Endpoint::Images,
        _ if is_below(tail, "/audio") => Endpoint::Audio,
        _ if is_below(tail, "/organization") => Endpoint::Administration,
        _ => Endpoint::Other,
    }
}

/// Whether `tail` is the path `parent`, or a path below it.
fn is_below(tail: &str, parent: &str) -> bool {
    let rest = tail.strip_prefix(parent);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Checks that a method is one of those that are passed on. Method names are case-sensitive (RFC 9110 section 9.1), but some
/// servers ignore case, so a method in lower case is refused.
///
/// # Errors
/// [`Fault::BadMethod`] for every other method.
pub(in crate::proxy) fn check_method(method: &Method) -> Result<(), Fault> {
    match *method {
        Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::HEAD | Method::OPTIONS => {
            Ok(())
        }
        Method::CONNECT => Err(Fault::BadMethod {
            problem: "CONNECT is not supported, because Steadfast is not a forward proxy",
        }),
        Method::TRACE => Err(Fault::BadMethod {
            problem: "TRACE is not supported, because its response would show credentials",
        }),
        _ if method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) => Err(Fault::BadMethod {
            problem: "method names are case-sensitive and must be in upper case",
        }),
        _ => Err(Fault::BadMethod {
            problem: "this method is not supported",
        }),
    }
}

/// The path that a caller probably meant: the one whose name occurs in the unknown `path`.
fn suggestion(path: &str) -> &'static str {
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

    fn target(path: &str) -> Result<RequestTarget, Fault> {
        read(&Method::POST, &path.parse().expect("a URI"))
    }

    #[test]
    fn an_endpoint_has_the_same_path_with_and_without_v1() {
        for (path, endpoint) in [
            ("/responses", Endpoint::Responses),
            ("/responses/compact", Endpoint::Compact),
            ("/responses/resp_1/cancel", Endpoint::Response),
            ("/models", Endpoint::Models),
            ("/models/org/name", Endpoint::Models),
            ("/chat/completions", Endpoint::ChatCompletions),
            ("/completions", Endpoint::ChatCompletions),
            ("/messages", Endpoint::Messages),
            ("/embeddings", Endpoint::Embeddings),
            ("/images/generations", Endpoint::Images),
            ("/audio/speech", Endpoint::Audio),
            ("/organization/users", Endpoint::Administration),
        ] {
            for prefix in ["", "/v1"] {
                let target = target(&format!("{prefix}{path}?a=b")).expect(path);
                assert_eq!(
                    (target.endpoint, target.tail(), target.query()),
                    (endpoint, path, Some("a=b"))
                );
                assert_eq!(
                    target.uri_with_prefix("/v1").expect("fits").to_string(),
                    format!("/v1{path}?a=b")
                );
                assert_eq!(
                    target.uri_with_prefix("/openai/v1").expect("fits").to_string(),
                    format!("/openai/v1{path}?a=b")
                );
                assert_eq!(
                    target.uri_with_prefix("").expect("fits").to_string(),
                    format!("{path}?a=b")
                );
            }
        }
        assert_eq!(target("/v1/files").expect("other").endpoint, Endpoint::Other);
    }

    #[test]
    fn an_unknown_path_is_refused_with_a_suggestion() {
        for (path, suggestion) in [
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
                    suggestion
                })
            );
        }
    }

    #[test]
    fn a_target_with_several_readings_is_refused() {
        for path in ["/v1/../admin", "/v1/responses/%2e", "*"] {
            assert!(matches!(target(path), Err(Fault::AmbiguousTarget { .. })), "{path}");
        }
    }

    #[test]
    fn operations_on_one_response_are_recognised() {
        for (method, path, is_of_response) in [
            (Method::GET, "/v1/responses/r-1", true),
            (Method::DELETE, "/v1/responses/r-1", true),
            (Method::POST, "/v1/responses/r-1", false),
            (Method::POST, "/v1/responses/r-1/cancel", true),
            (Method::GET, "/v1/responses/r-1/cancel", false),
            (Method::GET, "/v1/responses/r-1/input_items", true),
            (Method::GET, "/v1/responses/r-1/", false),
            (Method::GET, "/v1/responses/", false),
            (Method::GET, "/v1/responses/input_tokens", false),
            (Method::GET, "/v1/responses/compact", false),
            (Method::POST, "/v1/responses/compact", false),
            (Method::GET, "/v1/models/r-1", false),
            (Method::GET, "/v1/files/r-1", false),
        ] {
            let target = read(&method, &path.parse().expect("a URI")).expect(path);
            assert_eq!(target.is_of_response(&method), is_of_response, "{method} {path}");
        }
    }

    #[test]
    fn a_token_count_is_recognised() {
        for (path, expected) in [
            ("/v1/responses/input_tokens", true),
            ("/responses/input_tokens", true),
            ("/v1/responses/input_tokens/x", false),
            ("/v1/responses/r-1", false),
        ] {
            assert_eq!(target(path).expect(path).counts_tokens(), expected, "{path}");
        }
    }

    #[test]
    fn a_model_id_may_contain_slashes() {
        for (path, id) in [
            ("/v1/models/m", Some("m")),
            ("/v1/models/org/name", Some("org/name")),
            ("/v1/models/org%2Fname", Some("org%2Fname")),
            ("/v1/models/", None),
            ("/v1/models", None),
            ("/v1/files/m", None),
        ] {
            assert_eq!(target(path).expect(path).model_id(), id, "{path}");
        }
    }

    #[test]
    fn methods_are_checked() {
        for (method, problem) in [
            ("GET", None),
            ("POST", None),
            ("PUT", None),
            ("PATCH", None),
            ("DELETE", None),
            ("HEAD", None),
            ("OPTIONS", None),
            ("CONNECT", Some("CONNECT")),
            ("TRACE", Some("TRACE")),
            ("post", Some("upper case")),
            ("PROPFIND", Some("not supported")),
        ] {
            match (check_method(&method.parse().expect("a method")), problem) {
                (Ok(()), None) => {}
                (Err(Fault::BadMethod { problem: told }), Some(problem)) if told.contains(problem) => {}
                (checked, _) => panic!("{method}: {checked:?}"),
            }
        }
    }
}
