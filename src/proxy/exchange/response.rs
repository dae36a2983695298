//! The last stage: learn from the response head, and hand the body to the caller.

use http::{HeaderValue, Response, Version};

use crate::proxy::{
    exchange::body::{Learn, Outgoing, Stream},
    exchange::forward::Exchange,
    exchange::peek::Answer,
    request::headers::{self, ROUTED_BY, ROUTED_TO, TURN_STATE, X_REQUEST_ID},
    request_log::RequestLog,
    turn::pick::Pinning,
    turn::turn_state,
};
use crate::{
    endpoint::Endpoint,
    policy::Verdict,
    state::{Gateway, Snapshot},
};

/// Turns an upstream's answer into the caller's.
pub(in crate::proxy) fn settle(snapshot: &Snapshot, exchange: Exchange<'_>, mut log: RequestLog) -> Response<Outgoing> {
    if exchange.answer.verdict == Verdict::Served {
        confirm(&exchange, log.gateway());
    }
    let Exchange {
        answer,
        upstream,
        route,
        lease,
        namespace,
        ..
    } = exchange;
    let Answer {
        response,
        reader,
        pieces_read,
        is_unframed,
        ..
    } = answer;
    let upstream_request_id = response.headers().get(X_REQUEST_ID);
    let has_request_id = upstream_request_id.is_some();
    log.answered(
        &upstream.state,
        &upstream.name,
        route,
        response.status(),
        upstream_request_id,
    );

    let (mut parts, relay) = response.into_parts();
    let names_response = !matches!(log.endpoint, Some(Endpoint::ChatCompletions | Endpoint::Embeddings));
    let must_be_whole = is_unframed && reader.is_some();

    parts.version = Version::HTTP_11;
    headers::cleanse_response(&mut parts.headers, upstream);
    log.show_limits(&mut parts.headers);
    if let Some(issued) = parts.headers.remove(TURN_STATE)
        && let Some(sealed) = turn_state::seal(upstream.id, &upstream.seal, namespace, &issued)
    {
        parts.headers.insert(TURN_STATE, sealed);
    }
    if !has_request_id {
        parts.headers.insert(X_REQUEST_ID, log.request_id.clone());
    }
    if snapshot.route_headers {
        parts.headers.insert(ROUTED_TO, upstream.name_header.clone());
        parts.headers.insert(ROUTED_BY, HeaderValue::from_static(route.label()));
    }
    let learn = (reader.is_some() && names_response).then_some(Learn {
        namespace,
        upstream: upstream.id,
        has_id: false,
    });
    let stream = Stream {
        relay,
        reader,
        pieces_read,
        learn,
        must_be_whole,
        lease,
    };
    Response::from_parts(parts, Outgoing::stream(stream, log))
}

/// The session's cache is now where it was served.
fn confirm(exchange: &Exchange<'_>, gateway: &Gateway) {
    let (Some(key), Pinning::From(seen)) = (exchange.affinity.key, exchange.pinning) else {
        return;
    };
    let upstream = exchange.upstream.id;
    let standing = gateway.runtime.pins.confirm(key, seen, upstream, gateway.clock.now());
    if let Some(left) = seen.filter(|seen| *seen != upstream && standing == upstream)
        && let Some(left) = gateway.runtime.find(left)
    {
        left.metrics.count_moved();
    }
}
