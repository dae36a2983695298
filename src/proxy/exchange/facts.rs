//! The facts of a turn, read from an HTTP request.

use http::{HeaderMap, HeaderName};

use crate::{
    ids::ObjectId,
    proxy::{
        request::admit::Admitted,
        turn::facts::{HeaderLookup, NamedState, SessionFacts, TurnFacts},
    },
    scan::RequestFacts,
};

/// The facts of a request. Its body costs as many tokens as `prompt_bytes` of text, and contains `facts`.
#[inline]
pub(in crate::proxy) fn from_parts<'a>(
    admitted: &'a Admitted<'_>,
    facts: &'a RequestFacts,
    prompt_bytes: u64,
) -> TurnFacts<'a, impl HeaderLookup<'a>> {
    TurnFacts {
        group: admitted.caller.group,
        endpoint: admitted.target.endpoint,
        model: facts.model.as_deref(),
        prompt_bytes,
        session: SessionFacts {
            texts: &facts.texts,
            header: |name: &HeaderName| single_value(&admitted.headers, name),
            content: facts.content,
        },
        named_state: NamedState {
            in_path: admitted
                .target
                .response_id()
                .map(|id| ObjectId::from_text(id.as_bytes())),
            in_body: &facts.named,
            turn_state_issuer: admitted.turn_state.as_ref().map(|state| state.issuer),
            encrypted: &facts.encrypted,
        },
    }
}

/// The number of bytes that the prompt has at least, before the body is read. The announced length of the body says nothing
/// about it, because the body may consist of images.
pub(in crate::proxy) fn least_prompt_bytes(admitted: &Admitted<'_>) -> u64 {
    u64::from(admitted.is_inspected())
}

/// The value of a header that is there exactly once and is UTF-8. If a header has two values, an upstream may read
/// either of them.
fn single_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => std::str::from_utf8(value.as_bytes()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;
    use crate::{
        endpoint::Endpoint,
        proxy::request::kit,
        scan::{NamedObject, ReferenceKind},
        wire::Framing,
    };

    #[test]
    fn the_facts_come_from_the_head_and_the_body() {
        let snapshot = kit::snapshot(kit::OPEN);
        let request = Request::post("/v1/responses/resp_1/cancel").header("host", "gateway.test");
        let request = request.header("session-id", "s1").body(()).expect("a request");
        let admitted = kit::admit(&snapshot, request, Framing::None).expect("a good head");
        let named = NamedObject {
            kind: ReferenceKind::PreviousResponse,
            id: ObjectId::from_text(b"resp_0"),
        };
        let body = RequestFacts {
            model: Some("gpt-5.2".to_owned()),
            named: vec![named],
            ..RequestFacts::default()
        };
        let facts = from_parts(&admitted, &body, 7);
        assert_eq!(
            (facts.endpoint, facts.model, facts.prompt_bytes),
            (Endpoint::Response, Some("gpt-5.2"), 7)
        );
        assert_eq!(
            (facts.session.header)(&HeaderName::from_static("session-id")),
            Some("s1")
        );
        let state = facts.named_state;
        assert_eq!(
            (state.in_path, state.in_body),
            (Some(ObjectId::from_text(b"resp_1")), &[named][..])
        );
        assert_eq!((state.turn_state_issuer, state.encrypted.len()), (None, 0));
    }

    #[test]
    fn a_body_that_is_read_has_a_prompt_of_unknown_length() {
        let snapshot = kit::snapshot(kit::OPEN);
        for (path, framing, expected) in [
            ("/v1/responses", Framing::Length(4_000_000), 1),
            ("/v1/responses", Framing::Chunked, 1),
            ("/v1/responses", Framing::None, 0),
            ("/v1/files", Framing::Length(400), 0),
        ] {
            let request = Request::post(path)
                .header("host", "gateway.test")
                .body(())
                .expect("a request");
            let admitted = kit::admit(&snapshot, request, framing).expect("a good head");
            assert_eq!(least_prompt_bytes(&admitted), expected, "{path} {framing:?}");
        }
    }

    #[test]
    fn a_header_counts_only_where_it_has_one_readable_value() {
        let name = HeaderName::from_static("session-id");
        let value = |values: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&name, HeaderValue::from_bytes(value).expect("a valid value"));
            }
            single_value(&headers, &name).map(str::to_owned)
        };
        assert_eq!(value(&[]), None);
        assert_eq!(value(&[b"s1"]).as_deref(), Some("s1"));
        assert_eq!(value(&[b"s1", b"s1"]), None);
        assert_eq!(value(&[b"\xe9"]), None);
        assert_eq!(value(&["é".as_bytes()]).as_deref(), Some("é"));
    }
}
