//! The request that each upstream gets, and the result that is reported to the attempt loop.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http_body_util::BodyExt as _;

use super::*;
use crate::{
    ids::Namespace,
    proxy::{request::kit, testing, turn::turn_state},
    scan::RequestFacts,
    state::{Gateway, Snapshot},
    wire::{Framing, KeptBodyBuilder},
};

/// Two upstreams: `a` calls the model by another name, and `p` is called with the caller's credential.
const UPSTREAMS: &str = r#"
[[upstream]]
name = "a"
base_url = "http://a.test/base/v1"
api_key = "env:A_KEY"
headers = { "x-account" = "one" }
models = { "gpt-5.2" = "deployment-1" }

[[upstream]]
name = "p"
base_url = "http://p.test/v1"
api_key = "passthrough"
"#;

const BODY: &str = r#"{"model":"gpt-5.2","input":"hi"}"#;

/// A request to `path` with these header fields.
struct SenderInput<'a> {
    path: &'a str,
    fields: &'a [(&'a str, &'a str)],
}

impl SenderInput<'_> {
    fn sender(&self, gateway: &Gateway, snapshot: &Snapshot) -> HttpSender {
        let mut request = Request::post(self.path);
        for (name, value) in self.fields {
            request = request.header(*name, *value);
        }
        let request = request.header("host", "gateway.test").body(()).expect("a request");
        let framing = Framing::Length(BODY.len() as u64);
        let admitted = kit::admit(snapshot, request, framing).expect("a good head");
        let mut keep = KeptBodyBuilder::default();
        keep.push(Bytes::from_static(BODY.as_bytes()));
        let inspected = Inspected {
            facts: RequestFacts {
                model: Some("gpt-5.2".to_owned()),
                model_at: Some(9..18),
                ..RequestFacts::default()
            },
            body: Replay::kept(keep.finish(None), framing),
            decompressed: BODY.len() as u64,
        };
        HttpSender::new(admitted, inspected, snapshot.limits, gateway.clock)
    }
}

fn gateway() -> (Arc<Gateway>, Arc<Snapshot>) {
    let gateway = testing::configured(UPSTREAMS);
    let snapshot = gateway.snapshot();
    (gateway, snapshot)
}

#[tokio::test]
async fn the_request_is_addressed_to_one_upstream_after_the_other() {
    let (gateway, snapshot) = gateway();
    let [a, p] = snapshot.upstreams() else {
        panic!("two upstreams")
    };
    let sending = SenderInput {
        path: "/v1/responses?x=1",
        fields: &[("authorization", "Bearer callers"), ("x-account", "callers")],
    };
    let mut sender = sending.sender(&gateway, &snapshot);
    let head = |sender: &HttpSender| {
        let headers = sender.request.headers();
        let field = |name: &str| headers[name].to_str().expect("text").to_owned();
        let uri = sender.request.uri().to_string();
        [
            uri,
            field(HOST.as_str()),
            field(AUTHORIZATION.as_str()),
            field("x-account"),
        ]
    };
    let for_a = ["/base/v1/responses?x=1", "a.test", "Bearer sk-secret-of-A_KEY", "one"];
    let for_p = ["/v1/responses?x=1", "p.test", "Bearer callers", "callers"];
    for (upstream, expected) in [(a, for_a), (p, for_p), (a, for_a)] {
        assert_eq!(sender.address(upstream), Ok(()));
        assert_eq!(head(&sender), expected);
    }
}

#[tokio::test]
async fn the_body_names_the_model_as_its_upstream_does() {
    let (gateway, snapshot) = gateway();
    let [a, p] = snapshot.upstreams() else {
        panic!("two upstreams")
    };
    for (upstream, expected) in [(a, BODY.replace("gpt-5.2", "deployment-1")), (p, BODY.to_owned())] {
        let sending = SenderInput {
            path: "/v1/responses",
            fields: &[("authorization", "Bearer callers")],
        };
        let mut sender = sending.sender(&gateway, &snapshot);
        for attempt in [a, upstream] {
            sender.address(attempt).expect("addressed");
        }
        let body = sender.request.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body, expected);
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_to_an_upstream_says_why() {
    let (gateway, snapshot) = gateway();
    let [a, p] = snapshot.upstreams() else {
        panic!("two upstreams")
    };
    let compressed = SenderInput {
        path: "/v1/responses",
        fields: &[("content-encoding", "gzip")],
    };
    let mut sender = compressed.sender(&gateway, &snapshot);
    let model = "gpt-5.2".to_owned();
    assert_eq!(sender.address(a), Err(Fault::RenameCompressed { model }));
    assert_eq!(sender.address(p), Err(Fault::MissingCredential));
}

#[tokio::test]
async fn turn_state_is_sent_to_its_issuer_only() {
    let (gateway, snapshot) = gateway();
    let [a, p] = snapshot.upstreams() else {
        panic!("two upstreams")
    };
    let value = HeaderValue::from_static("state-1");
    let namespace = Namespace::of_group("");
    let sealed = turn_state::seal(a.id, &a.seal, namespace, value.as_bytes());
    let sending = SenderInput {
        path: "/v1/responses",
        fields: &[
            ("authorization", "Bearer callers"),
            ("x-codex-turn-state", std::str::from_utf8(&sealed).expect("text")),
        ],
    };
    let mut sender = sending.sender(&gateway, &snapshot);
    for (upstream, expected) in [(a, Some(&value)), (p, None), (a, Some(&value))] {
        sender.address(upstream).expect("addressed");
        assert_eq!(sender.request.headers().get(TURN_STATE), expected);
    }
}

#[test]
fn generations_and_idempotent_requests_are_repeatable() {
    use Repeatability::{Once, Repeatable, Safe};
    for (method, path, expected) in [
        ("POST", "/v1/responses", Repeatable),
        ("POST", "/v1/responses/compact", Repeatable),
        ("POST", "/v1/responses/input_tokens", Repeatable),
        ("POST", "/v1/chat/completions", Repeatable),
        ("POST", "/v1/messages", Repeatable),
        ("POST", "/v1/embeddings", Repeatable),
        ("PATCH", "/v1/responses", Once),
        ("POST", "/v1/responses/resp_1/cancel", Once),
        ("POST", "/v1/chat/completions/chatcmpl-1", Once),
        ("POST", "/v1/files", Once),
        ("POST", "/v1/models/m", Once),
        ("POST", "/v1/anything", Once),
        ("PATCH", "/v1/anything", Once),
        ("PUT", "/v1/files/file-1", Repeatable),
        ("DELETE", "/v1/responses/resp_1", Repeatable),
        ("GET", "/v1/files", Safe),
        ("HEAD", "/v1/files", Safe),
        ("OPTIONS", "/v1/files", Safe),
    ] {
        let snapshot = gateway().1;
        let request = Request::builder().method(method).uri(path);
        let request = request.header("host", "gateway.test").body(()).expect("a request");
        let admitted = kit::admit(&snapshot, request, Framing::None).expect("a good head");
        assert_eq!(
            repeatability(&admitted.method, &admitted.target),
            expected,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn failures_to_send_are_reported_by_their_kind() {
    let (gateway, snapshot) = gateway();
    let upstream = &snapshot.upstreams()[0];
    let sender = SenderInput {
        path: "/v1/responses",
        fields: &[],
    }
    .sender(&gateway, &snapshot);
    let limit = std::time::Duration::from_secs(9);
    let reported = |error| format!("{:?}", sender.failure(error, upstream));
    assert_eq!(reported(SendError::Timeout(limit)), "Timeout(9s)");
    assert_eq!(reported(SendError::Broken("reset".to_owned())), "Broken");
    let dialled = |error| reported(SendError::Dial(error));
    assert_eq!(dialled(DialError::Connect("refused".to_owned())), "Unreachable");
    assert_eq!(
        dialled(DialError::Shortage(crate::wire::Shortage::Ports)),
        "Shortage(Ports)"
    );
    let body = crate::wire::BodyError::TooLarge { limit: 5 };
    assert_eq!(
        reported(SendError::Body(body)),
        "RequestBody(BodyTooLarge { limit: 5 })"
    );
}
