//! The facts of a turn, read from an HTTP request.

use http::{HeaderMap, HeaderName};

use crate::{
    ids::ObjectId,
    proxy::{
        request::{admit::Admitted, inspect::Inspected},
        turn::facts::{HeaderLookup, NamedState, SessionFacts, TurnFacts},
    },
    scan::{EncodingKind, RequestFacts},
    wire::Framing,
};

/// The facts of a request whose body has been inspected.
#[inline]
pub(in crate::proxy) fn turn_facts<'a>(
    admitted: &'a Admitted<'_>,
    inspected: &'a Inspected,
) -> TurnFacts<'a, impl HeaderLookup<'a>> {
    from_parts(admitted, &inspected.facts, inspected.decompressed)
}

/// The facts of a request. Its body has a length of `body_bytes` after decompression, and contains `facts`.
#[inline]
pub(in crate::proxy) fn from_parts<'a>(
    admitted: &'a Admitted<'_>,
    facts: &'a RequestFacts,
    body_bytes: u64,
) -> TurnFacts<'a, impl HeaderLookup<'a>> {
    TurnFacts {
        group: admitted.caller.group,
        endpoint: admitted.target.endpoint,
        model: facts.model.as_deref(),
        prompt_bytes: body_bytes,
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

/// The length in bytes that an uncompressed body will have once it is read, if the head gives it; otherwise 0. The length of
/// a form says little about its texts, because most of it is files.
pub(in crate::proxy) fn announced_body_bytes(admitted: &Admitted<'_>) -> u64 {
    match admitted.framing {
        Framing::Length(length)
            if admitted.is_inspected() && admitted.form.is_none() && admitted.coding == EncodingKind::Identity =>
        {
            length
        }
        Framing::Length(_) | Framing::Chunked | Framing::None => 0,
    }
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
        scan::{BodyInspector, Encoding, NamedObject, ReferenceKind, RequestScanRules},
        wire::Replay,
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

    /// What remains of a prompt's length if the decompressor still holds a part of it.
    const TOLERANCE: f64 = 0.01;

    #[test]
    fn a_compressed_prompt_is_as_long_as_the_same_prompt_without_compression() {
        let snapshot = kit::snapshot(kit::OPEN);
        let words: String = (0..100_000).map(|number| format!("word {number} ")).collect();
        let plain = format!(r#"{{"model":"gpt-5.2","input":"{words}"}}"#).into_bytes();
        let compressed = zstd::encode_all(&*plain, 3).expect("writing to memory succeeds");
        assert!(plain.len() > 1_000_000 && compressed.len() < plain.len() / 2);
        for (coding, kind, body) in [
            ("identity", EncodingKind::Identity, &plain),
            ("zstd", EncodingKind::Known(Encoding::Zstd), &compressed),
        ] {
            let framing = Framing::Length(body.len() as u64);
            let request = Request::post("/v1/responses").header("host", "gateway.test");
            let request = request.header("content-encoding", coding).body(()).expect("a request");
            let admitted = kit::admit(&snapshot, request, framing).expect("a good head");
            let mut inspector = BodyInspector::new(kind, u64::MAX, RequestScanRules::default()).expect("an inspector");
            body.chunks(16_384)
                .for_each(|chunk| inspector.feed(chunk).expect("a good body"));
            let inspected = Inspected {
                body: Replay::empty(framing),
                decompressed: inspector.decompressed(),
                facts: inspector.finish().expect("a good body"),
            };
            let length = turn_facts(&admitted, &inspected).prompt_bytes as f64;
            assert!(length >= plain.len() as f64 * (1.0 - TOLERANCE), "{coding}: {length}");
            assert!(length <= plain.len() as f64, "{coding}: {length}");
        }
    }

    #[test]
    fn a_body_is_announced_only_where_its_length_is_that_of_its_text() {
        let snapshot = kit::snapshot(kit::OPEN);
        for (path, coding, framing, expected) in [
            ("/v1/responses", "identity", Framing::Length(400), 400),
            ("/v1/responses", "gzip", Framing::Length(400), 0),
            ("/v1/responses", "identity", Framing::Chunked, 0),
            ("/v1/responses", "identity", Framing::None, 0),
            ("/v1/files", "identity", Framing::Length(400), 0),
        ] {
            let request = Request::post(path).header("host", "gateway.test");
            let request = request.header("content-encoding", coding).body(()).expect("a request");
            let admitted = kit::admit(&snapshot, request, framing).expect("a good head");
            assert_eq!(announced_body_bytes(&admitted), expected, "{path} {coding} {framing:?}");
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
