//! The last stage: learn from the response head, and hand the body to the caller.

use http::{HeaderValue, Response, StatusCode, Version, header::CONTENT_TYPE};

use super::{
    admit::names_json,
    forward::Exchange,
    headers::{self, ROUTED_BY, ROUTED_TO, TURN_STATE, X_REQUEST_ID},
    journal::Journal,
    outgoing::{Learn, Outgoing, Stream},
    pick::Pinning,
    turn_state,
};
use crate::{
    scan::ResponseReader,
    state::{Endpoint, Snapshot},
    wire::Relay,
};

/// Turns an upstream's answer into the caller's.
pub(super) fn settle(snapshot: &Snapshot, exchange: Exchange<'_>, mut journal: Journal) -> Response<Outgoing> {
    let Exchange {
        response,
        upstream,
        route,
        affinity,
        pinning,
        in_flight,
    } = exchange;
    let status = response.status();
    let house = journal.house();
    if let (Some(key), Pinning::From(seen)) = (affinity.key, pinning)
        && status.is_success()
    {
        house.roster.pins.confirm(key, seen, upstream.id, house.clock.now());
    }
    let upstream_request_id = response.headers().get(X_REQUEST_ID);
    let has_request_id = upstream_request_id.is_some();
    journal.answered(&upstream.live, &upstream.name, route, status, upstream_request_id);

    let (mut parts, relay) = response.into_parts();
    let is_unframed = ends_with_connection(&parts, &relay);
    let reader = reader(&parts, journal.endpoint, is_unframed);
    let names_response = !matches!(journal.endpoint, Some(Endpoint::ChatCompletions));
    let must_be_whole = is_unframed && reader.is_some();

    parts.version = Version::HTTP_11;
    headers::cleanse_response(&mut parts.headers, upstream);
    if let Some(issued) = parts.headers.remove(TURN_STATE)
        && let Some(sealed) = turn_state::seal(upstream.id, &issued)
    {
        parts.headers.insert(TURN_STATE, sealed);
    }
    if !has_request_id {
        parts.headers.insert(X_REQUEST_ID, journal.request_id.clone());
    }
    if snapshot.route_headers {
        parts.headers.insert(ROUTED_TO, upstream.name_header.clone());
        parts.headers.insert(ROUTED_BY, HeaderValue::from_static(route.label()));
    }
    let learn = (reader.is_some() && names_response).then_some(Learn {
        namespace: snapshot.namespace,
        upstream: upstream.id,
    });
    let stream = Stream {
        relay,
        reader,
        learn,
        must_be_whole,
        _in_flight: in_flight,
    };
    Response::from_parts(parts, Outgoing::stream(stream, journal))
}

/// What reads the body as it passes: only where there is a response id to learn, or an end to see: SDKs close a stream
/// of chat completions at `[DONE]`, before its last chunk.
fn reader(head: &http::response::Parts, endpoint: Option<Endpoint>, is_unframed: bool) -> Option<ResponseReader> {
    let reads = match endpoint? {
        Endpoint::Responses | Endpoint::Compact | Endpoint::Response => true,
        Endpoint::ChatCompletions => is_events(head),
        Endpoint::Models | Endpoint::Embeddings | Endpoint::Other => false,
    };
    let is_plain = !head.headers.contains_key(http::header::CONTENT_ENCODING);
    if !reads || !is_plain || head.status != StatusCode::OK {
        return None;
    }
    match head.headers.get(CONTENT_TYPE) {
        _ if is_events(head) => Some(ResponseReader::events()),
        Some(content_type) if !names_json(content_type) => None,
        _ if is_unframed => Some(ResponseReader::json_to_end()),
        _ => Some(ResponseReader::json()),
    }
}

fn is_events(head: &http::response::Parts) -> bool {
    let content_type = head
        .headers
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    content_type
        .get(..17)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
}

/// Whether nothing but the end of the connection delimits the body (RFC 9112 section 6.3, rule 8).
fn ends_with_connection(head: &http::response::Parts, relay: &Relay) -> bool {
    use http_body::Body as _;
    head.version != Version::HTTP_2
        && relay.size_hint().exact().is_none()
        && !head.headers.contains_key(http::header::TRANSFER_ENCODING)
}
