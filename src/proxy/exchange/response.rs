//! Builds the response for the caller from an upstream's.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, Version};

use crate::{
    ids::Namespace,
    policy::Route,
    proxy::{
        exchange::{
            body::{RelayedBody, ResponseBody},
            late_failure::LateFailureWatch,
            peek::PeekedResponse,
            rate_limit_headers,
            response_headers::cleanse_response,
        },
        headers::{ROUTED_BY, ROUTED_TO, TURN_STATE, X_REQUEST_ID},
        identity::RequestIdentity,
        request_end::RequestEnd,
        turn::{attempts::TurnAnswer, confirm::OwnerRecorder, turn_state, verdict::VerdictRules},
    },
    scan::MaskedBody,
    state::{Gateway, Snapshot, Upstream},
};

#[cfg(test)]
mod tests;

/// Builds the caller's response: its head, and a body that ends the request with `end`.
pub(in crate::proxy) fn build(
    gateway: &Arc<Gateway>,
    snapshot: &Snapshot,
    served: TurnAnswer<'_, PeekedResponse>,
    identity: RequestIdentity<'_>,
    mut end: RequestEnd,
) -> Response<ResponseBody> {
    let origin = ResponseOrigin {
        upstream: served.upstream,
        route: served.route,
        namespace: served.namespace,
    };
    let peeked = served.answer.response;
    let (mut parts, relay) = peeked.response.into_parts();
    parts.version = Version::HTTP_11;
    let upstream_request_id = origin.rewrite_headers(&mut parts.headers, snapshot, identity);
    end.log()
        .record_upstream_answer(origin.upstream, origin.route, parts.status, upstream_request_id);
    end.mark_answered(parts.status);
    let owner = match peeked.reader {
        Some(_) => OwnerRecorder::new(gateway, origin.namespace, origin.upstream.id, peeked.content),
        None => None,
    };
    let masker = origin.upstream.confidential.masker_of_body(parts.status);
    let rules = VerdictRules::new(peeked.endpoint, None, origin.upstream);
    let body = RelayedBody {
        relay,
        reader: peeked.reader,
        pieces_read: peeked.pieces_read,
        mask: masker.map(|masker| MaskedBody::new(masker.clone())),
        ending: None,
        owner,
        delimiter: peeked.delimiter,
        late_failure: LateFailureWatch::new(peeked.endpoint, peeked.model, rules, gateway.clock),
        lease: served.lease,
        session: served.session,
        bytes_out: 0,
        end: Some(end),
    };
    Response::from_parts(parts, ResponseBody::relayed(body))
}

/// The origin of a response, and the group of the caller that receives it.
struct ResponseOrigin<'a> {
    upstream: &'a Upstream,
    route: Route,
    /// The namespace of the caller's group.
    namespace: Namespace,
}

impl ResponseOrigin<'_> {
    /// Changes the upstream's response headers into the caller's. Returns the upstream's request id, unless it is missing or
    /// contains a credential: such an id is removed from the response, and must not be logged.
    fn rewrite_headers<'h>(
        &self,
        headers: &'h mut HeaderMap,
        snapshot: &Snapshot,
        identity: RequestIdentity<'_>,
    ) -> Option<&'h HeaderValue> {
        // An id that is removed below because it contains a credential is not replaced by another one.
        let has_request_id = headers.contains_key(X_REQUEST_ID);
        cleanse_response(headers, self.upstream);
        rate_limit_headers::replace_with_callers(headers, identity.key.map(|key| &**key));
        if let Some(issued) = headers.remove(TURN_STATE) {
            let sealed = turn_state::seal(self.upstream.id, &self.upstream.seal, self.namespace, issued.as_bytes());
            let sealed = HeaderValue::from_maybe_shared(Bytes::from(sealed));
            headers.insert(
                TURN_STATE,
                sealed.expect("ASCII text before a header value is a header value"),
            );
        }
        if !has_request_id {
            headers.insert(X_REQUEST_ID, identity.id);
        }
        if snapshot.route_headers {
            headers.insert(ROUTED_TO, self.upstream.name_header.clone());
            headers.insert(ROUTED_BY, HeaderValue::from_static(self.route.label()));
        }
        headers.get(X_REQUEST_ID).filter(|_| has_request_id)
    }
}
