//! Header names and rules that requests and responses share: which fields belong to one connection only.

use http::{HeaderMap, HeaderName, HeaderValue, header::CONNECTION};

pub(in crate::proxy) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub(in crate::proxy) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Codex' turn state: a value that an upstream issues with a response and expects back during the same turn.
pub(in crate::proxy) const TURN_STATE: HeaderName = HeaderName::from_static("x-codex-turn-state");
/// The upstream that served the request. Steadfast sets it on responses if `server.route_headers` is true.
pub(in crate::proxy) const ROUTED_TO: HeaderName = HeaderName::from_static("x-steadfast-upstream");
/// The reason why that upstream was chosen. Steadfast sets it on responses if `server.route_headers` is true.
pub(in crate::proxy) const ROUTED_BY: HeaderName = HeaderName::from_static("x-steadfast-route");

/// The gateways that a request has passed through, see `request/hops`.
pub(in crate::proxy) const HOP: HeaderName = HeaderName::from_static("steadfast-hop");

/// Whether a field is for the next hop only (RFC 9110 section 7.6.1). The list has all fields that the RFC names, and
/// those that older clients still send.
pub(in crate::proxy) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "proxy-authenticate"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Removes the hop-by-hop fields, the fields that `Connection` names, and every other field for which `is_dropped` is
/// true. All are found in one pass, because most of the names in question are not in the map.
pub(in crate::proxy) fn strip(headers: &mut HeaderMap, is_dropped: impl Fn(&HeaderName, &HeaderValue) -> bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    let found: Vec<HeaderName> = headers
        .iter()
        .filter(|(name, value)| is_hop_by_hop(name.as_str()) || is_dropped(name, value))
        .map(|(name, _)| name.clone())
        .collect();
    for name in named.iter().chain(&found) {
        headers.remove(name);
    }
}

/// Whether a content type is `application/json` or has the suffix `+json` (RFC 6839). The header should contain one
/// type. If it contains a list, one JSON type in the list is enough.
pub(in crate::proxy) fn names_json(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().split(|byte| *byte == b',').any(is_json_type)
}

fn is_json_type(content_type: &[u8]) -> bool {
    let mut parts = content_type.split(|byte| *byte == b';');
    let essence = parts.next().expect("a split has at least one part").trim_ascii();
    let suffix = essence.last_chunk::<{ "+json".len() }>();
    essence.eq_ignore_ascii_case(b"application/json")
        || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json"))
}

#[cfg(test)]
pub(in crate::proxy) mod tests {
    use super::*;

    /// A map of these fields.
    pub(in crate::proxy) fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(
                name.parse::<HeaderName>().expect("a header name"),
                value.parse().expect("a header value"),
            );
        }
        map
    }

    /// The names in a map, sorted.
    pub(in crate::proxy) fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn hop_by_hop_fields_are_removed() {
        let mut map = headers(&[
            ("connection", "close, X-Secret-Hop"),
            ("connection", "x-other-hop, not a name"),
            ("x-secret-hop", "1"),
            ("x-other-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("proxy-authenticate", "Basic"),
            ("te", "trailers"),
            ("trailer", "x-late"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("session-id", "s"),
        ]);
        strip(&mut map, |_, _| false);
        assert_eq!(names(&map), ["session-id"]);
    }

    #[test]
    fn other_fields_are_removed_by_name_or_by_value() {
        let mut map = headers(&[("x-a", "1"), ("x-b", "2"), ("x-c", "3")]);
        strip(&mut map, |name, value| name == "x-a" || value == "2");
        assert_eq!(names(&map), ["x-c"]);
    }

    #[test]
    fn json_content_types_are_recognised() {
        for (value, is_json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.x+json", true),
            ("+JSON", true),
            ("json", false),
            ("", false),
            ("multipart/form-data; boundary=x", false),
            ("multipart/form-data; boundary=application/json", false),
            ("application/jsonl", false),
            ("text/plain, application/json", true),
            ("text/plain;charset=utf-8,application/json;x", true),
        ] {
            assert_eq!(names_json(&HeaderValue::from_static(value)), is_json, "{value}");
        }
    }
}
