//! The first stage: decides from a request's head alone whether the request is admitted.
//!
//! [`identify`] finds out which endpoint the request calls and which client sends it; [`admit`] checks the rest of the
//! head and prepares it for upstreams. The body is not read yet, and no `100 Continue` has been sent.

use http::{
    HeaderMap, HeaderValue, Method,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HOST},
    request::Parts,
};

use crate::proxy::{
    headers::{TURN_STATE, names_json},
    request::{
        accept_encoding,
        answer_content::answer_content,
        caller::{self, Caller},
        form::{self, ReceivedForm},
        headers::{self, CallersCredential, CredentialHandling},
        hops, host, path_access,
        received::ReceivedHead,
        target::{self, RequestTarget},
        upgrade::wants_websocket,
    },
    turn::turn_state,
};
use crate::{
    endpoint::Inspection,
    fault::Fault,
    ids::UpstreamId,
    scan::{Encoding, EncodingKind, FormExtent},
    state::{Group, Snapshot},
    wire::{ClientNetwork, Framing},
};

/// A request whose caller and target are known.
pub(in crate::proxy) struct Identified<'a> {
    pub caller: Caller<'a>,
    pub target: RequestTarget,
    head: ReceivedHead,
}

/// A request whose head is in order.
pub(in crate::proxy) struct Admitted<'a> {
    pub caller: Caller<'a>,
    /// The network that the client belongs to.
    pub network: ClientNetwork,
    pub method: Method,
    pub target: RequestTarget,
    /// The headers that every upstream may receive.
    pub headers: HeaderMap,
    /// The request's id. The field `x-request-id` in `headers` has the same value.
    pub request_id: HeaderValue,
    /// The caller's own credential, for upstreams that are called with it.
    pub callers: CallersCredential,
    /// How the body is delimited.
    pub framing: Framing,
    /// How the body is compressed.
    pub coding: EncodingKind,
    /// Whether the content type is JSON.
    pub is_json: bool,
    /// The form in the body, if fields of it are read.
    pub form: Option<Box<ReceivedForm>>,
    /// The turn state that the client returned, if a configured upstream issued it to the caller's group.
    pub turn_state: Option<ReturnedTurnState>,
}

/// A turn state that the client returned, without its seal.
pub(in crate::proxy) struct ReturnedTurnState {
    /// The upstream that issued it.
    pub issuer: UpstreamId,
    /// The value that the upstream issued, byte for byte.
    pub value: HeaderValue,
}

impl Admitted<'_> {
    /// Whether the body is inspected: an upstream will read it as JSON or as a form, and Steadfast can decompress it.
    pub fn is_inspected(&self) -> bool {
        if self.framing == Framing::None || self.coding == EncodingKind::Unknown {
            return false;
        }
        match self.target.endpoint.inspection() {
            Inspection::Always => true,
            Inspection::IfJson => self.is_json,
            Inspection::Forms | Inspection::Fields => {
                self.is_json || self.form.as_ref().is_some_and(|form| form.extent == FormExtent::Whole)
            }
        }
    }
}

/// Checks that a request has a method that is passed on, that every server finds the same host in it, and that it has not
/// passed through this gateway before.
///
/// A request that comes back is refused before its client key is checked: it carries the credential of the upstream, and a
/// refused credential would disable that upstream.
///
/// # Errors
/// If the method or the host is not acceptable, or if an upstream leads back to this gateway.
#[inline]
pub(in crate::proxy) fn check_head(snapshot: &Snapshot, head: &ReceivedHead) -> Result<(), Fault> {
    let parts = &head.parts;
    target::check_method(&parts.method)?;
    host::check(parts.version, &parts.uri, &parts.headers)?;
    hops::check(snapshot, &parts.headers)
}

/// Finds out which endpoint a request calls and which client sends it. `now` is the Unix time in seconds, at which
/// client keys must be valid. [`check_head`] must have accepted the head.
///
/// # Errors
/// If the target or the client key is not acceptable, or if a client with a valid key asks for a WebSocket at a target that
/// is not acceptable.
pub(in crate::proxy) fn identify(snapshot: &Snapshot, head: ReceivedHead, now: u64) -> Result<Identified<'_>, Fault> {
    let parts = &head.parts;
    let target = match target::read(&parts.method, &parts.uri) {
        Ok(target) => target,
        Err(_) if wants_websocket(parts) => {
            caller::identify(snapshot, &parts.headers, now)?;
            return Err(Fault::WebSocketUnsupported);
        }
        Err(fault) => return Err(fault),
    };
    let caller = caller::identify(snapshot, &parts.headers, now)?;
    Ok(Identified { caller, target, head })
}

/// Checks the rest of a request's head and prepares it for upstreams.
///
/// # Errors
/// If the client asks for a WebSocket, if the caller's group may not call the path, if the body is too large, or if it is a
/// form whose boundary is not certain.
pub(in crate::proxy) fn admit<'a>(snapshot: &Snapshot, identified: Identified<'a>) -> Result<Admitted<'a>, Fault> {
    let Identified { caller, target, head } = identified;
    let ReceivedHead {
        parts,
        framing,
        peer,
        request_id,
    } = head;
    // Clients fall back to server-sent events at once after this answer only, so no other check of a request with a valid
    // key comes before it.
    if wants_websocket(&parts) {
        return Err(Fault::WebSocketUnsupported);
    }
    let Parts {
        method, mut headers, ..
    } = parts;
    path_access::check(caller.group, &method, &target)?;
    check_length(framing, snapshot.limits.max_body)?;
    let host = headers.get(HOST).cloned();
    let credential_handling = match snapshot.has_passthrough {
        true => CredentialHandling::SetAside,
        false => CredentialHandling::Discard,
    };
    let callers = headers::cleanse_request(&mut headers, target.endpoint, credential_handling);
    hops::mark(snapshot, &mut headers);
    accept_encoding::restrict(&mut headers, answer_content(&method, &target, None), snapshot);
    // The coding is read after the headers are cleansed. If `Connection` names `content-encoding`, the field has been
    // removed, and the upstream reads the body without it.
    let coding = coding(&headers);
    // An upstream may read any of several content types.
    let is_json = headers.get_all(CONTENT_TYPE).iter().any(names_json);
    let form = match is_json {
        true => None,
        false => form::read(&headers, &target, framing, coding)?,
    };
    if snapshot.forwarded {
        headers::add_forwarded(&mut headers, peer, host);
    }
    let turn_state = returned_turn_state(snapshot, caller.group, &mut headers);
    Ok(Admitted {
        caller,
        network: ClientNetwork::from(peer.address.map(|address| address.ip())),
        method,
        target,
        headers,
        request_id,
        callers,
        framing,
        coding,
        is_json,
        form,
        turn_state,
    })
}

/// Takes the turn state out of the headers. `None` if there is none, or if no configured upstream issued it to the group.
fn returned_turn_state(snapshot: &Snapshot, group: &Group, headers: &mut HeaderMap) -> Option<ReturnedTurnState> {
    let sealed = headers.remove(TURN_STATE)?;
    let seal_of = |issuer| snapshot.upstream_of(issuer).map(|upstream| &upstream.seal);
    let turn_state = turn_state::unseal(sealed.as_bytes(), group.namespace, seal_of)?;
    let value = HeaderValue::from_bytes(turn_state.value);
    Some(ReturnedTurnState {
        issuer: turn_state.issuer,
        value: value.expect("a part of a header value is valid in a header value"),
    })
}

/// Refuses a body whose `Content-Length` is over the limit of `max_body` bytes.
fn check_length(framing: Framing, max_body: u64) -> Result<(), Fault> {
    match framing {
        Framing::Length(length) if length > max_body => Err(Fault::BodyTooLarge { limit: max_body }),
        Framing::None | Framing::Length(_) | Framing::Chunked => Ok(()),
    }
}

/// How the body is compressed, by its `content-encoding`. Several codings, or one that is not text, count as unknown.
fn coding(headers: &HeaderMap) -> EncodingKind {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => EncodingKind::Identity,
        (Some(coding), None) => coding.to_str().map_or(EncodingKind::Unknown, Encoding::from_header),
        (Some(_), Some(_)) => EncodingKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{
        endpoint::Endpoint,
        proxy::{
            headers::tests::{headers, names},
            request::kit::{self, GROUPS, OPEN},
        },
    };

    fn request(method: &str, uri: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(uri).body(()).expect("a request");
        *request.headers_mut() = headers(fields);
        request
    }

    #[test]
    fn an_admitted_request_has_the_values_of_its_head() {
        let snapshot = kit::snapshot(OPEN);
        let sent = [
            ("host", "h"),
            ("authorization", "Bearer caller"),
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("x-codex-turn-state", "not issued here"),
            ("x-request-id", "id-1"),
        ];
        let head = request("POST", "/v1/responses?a=b", &sent);
        let admitted = kit::admit(&snapshot, head, Framing::Length(2)).expect("an admitted request");
        assert_eq!(admitted.target.endpoint, Endpoint::Responses);
        assert_eq!(admitted.request_id, "id-1");
        assert_eq!(admitted.coding, EncodingKind::Known(Encoding::Gzip));
        assert!(admitted.is_json && admitted.turn_state.is_none() && !admitted.callers.is_present());
        let passed_on = [
            "content-encoding",
            "content-type",
            "host",
            "steadfast-hop",
            "x-request-id",
        ];
        assert_eq!(names(&admitted.headers), passed_on);
    }

    #[test]
    fn a_refused_request_has_the_first_fault_of_its_head() {
        let websocket: &[_] = &[("host", "h"), ("x-api-key", "key-alone"), ("upgrade", "websocket")];
        let shared: &[_] = &[("host", "h"), ("x-api-key", "key-shared")];
        let snapshot = kit::snapshot(GROUPS);
        for (method, uri, fields, length, code) in [
            ("TRACE", "/", &[][..], 0, "method_not_allowed"),
            ("GET", "/v1/../x", &[], 0, "bad_host"),
            ("GET", "/v1/../x", &[("host", "h")], 0, "ambiguous_target"),
            ("GET", "/unknown", &[("host", "h")], 0, "unknown_path"),
            ("GET", "/v1/files", &[("host", "h")], 0, "missing_api_key"),
            ("GET", "/v1/files", shared, u64::MAX, "path_not_allowed"),
            ("GET", "/v1/responses", websocket, u64::MAX, "websocket_unsupported"),
            ("POST", "/v1/responses", websocket, u64::MAX, "request_too_large"),
        ] {
            let refused = kit::admit(&snapshot, request(method, uri, fields), Framing::Length(length));
            assert_eq!(refused.err().map(|fault| fault.code()), Some(code), "{method} {uri}");
        }
    }

    #[test]
    fn a_field_that_connection_names_does_not_encode_the_body() {
        let snapshot = kit::snapshot(OPEN);
        let sent = [
            ("host", "h"),
            ("connection", "content-encoding"),
            ("content-encoding", "unheard-of"),
        ];
        let head = request("POST", "/v1/responses", &sent);
        let admitted = kit::admit(&snapshot, head, Framing::Chunked).expect("an admitted request");
        assert_eq!(admitted.coding, EncodingKind::Identity);
        assert!(admitted.is_inspected());
    }

    #[test]
    fn a_body_is_inspected_if_it_is_json_that_can_be_decompressed() {
        let snapshot = kit::snapshot(OPEN);
        let (json, text, unknown) = (
            [("host", "h"), ("content-type", "application/json")],
            [("host", "h"), ("content-type", "text/plain")],
            [("host", "h"), ("content-encoding", "unheard-of")],
        );
        for (uri, fields, framing, expected) in [
            ("/v1/responses", &text, Framing::Chunked, true),
            ("/v1/responses", &text, Framing::None, false),
            ("/v1/responses", &unknown, Framing::Chunked, false),
            ("/v1/files", &json, Framing::Length(1), true),
            ("/v1/files", &text, Framing::Length(1), false),
        ] {
            let admitted = kit::admit(&snapshot, request("POST", uri, fields), framing).expect("an admitted request");
            assert_eq!(admitted.is_inspected(), expected, "{uri} {fields:?} {framing:?}");
        }
    }

    #[test]
    fn a_content_length_over_the_limit_is_refused() {
        let refused = Err(Fault::BodyTooLarge { limit: 10 });
        for (framing, expected) in [
            (Framing::None, Ok(())),
            (Framing::Length(10), Ok(())),
            (Framing::Length(11), refused.clone()),
            (Framing::Length(u64::MAX), refused),
            (Framing::Chunked, Ok(())),
        ] {
            assert_eq!(check_length(framing, 10), expected, "{framing:?}");
        }
    }

    #[test]
    fn only_one_known_content_encoding_is_understood() {
        for (sent, expected) in [
            (&[][..], EncodingKind::Identity),
            (&[("content-encoding", "identity")], EncodingKind::Identity),
            (&[("content-encoding", "gzip")], EncodingKind::Known(Encoding::Gzip)),
            (&[("content-encoding", "unheard-of")], EncodingKind::Unknown),
            (&[("content-encoding", "gzip, zstd")], EncodingKind::Unknown),
            (
                &[("content-encoding", "gzip"), ("content-encoding", "gzip")],
                EncodingKind::Unknown,
            ),
            (&[("content-encoding", "\u{e9}")], EncodingKind::Unknown),
        ] {
            assert_eq!(coding(&headers(sent)), expected, "{sent:?}");
        }
    }
}
