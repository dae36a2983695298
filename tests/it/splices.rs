//! Sending a buffered body with one part replaced, over HTTP/1.1 and HTTP/2.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, channel::Channel};
use parking_lot::Mutex;
use steadfast::wire::{DialTarget, Framing, KeptBodyBuilder, Pool, Relay, Replay, SendOptions};

use crate::kit::{sim, tls};

/// The number of pieces of a body that is longer than the flow-control window of an HTTP/2 stream.
const PIECES: usize = 30;
const HEAD: &str = r#"{"model":"gpt-5","input":""#;

fn body() -> Vec<u8> {
    let mut body = HEAD.as_bytes().to_vec();
    body.resize(PIECES * 10_000, b'x');
    body.extend_from_slice(b"\"}");
    body
}

/// Returns a request with `body`, buffered in pieces as a client has sent them.
fn request(body: &[u8], framing: Framing) -> Request<Replay> {
    let mut keep = KeptBodyBuilder::default();
    for piece in body.chunks(10_000) {
        keep.push(Bytes::copy_from_slice(piece));
    }
    let mut request = Request::post("/v1/responses").header("host", "localhost");
    request = match framing {
        Framing::Length(length) => request.header("content-length", length),
        Framing::Chunked | Framing::None => request.header("transfer-encoding", "chunked"),
    };
    request
        .body(Replay::kept(keep.finish(None), framing))
        .expect("a valid request")
}

async fn send(pool: &Arc<Pool>, request: &mut Request<Replay>) {
    let limit = Duration::from_secs(20);
    let terms = SendOptions {
        head: limit,
        idle: limit,
        is_repeatable: true,
    };
    let answer: Response<Relay> = pool.send(request, terms).await.expect("a response");
    answer.into_body().collect().await.expect("a whole body");
}

/// Sends a body to `pool` several times, unchanged and with different replacements of its model. Checks each time what
/// the upstream has received.
async fn assert_replacements_arrive(pool: &Arc<Pool>, received: impl Fn() -> (HeaderMap, Vec<u8>)) {
    let body = body();
    let long = format!("\"{}\"", "m".repeat(3_000));
    for framing in [Framing::Length(body.len() as u64), Framing::Chunked] {
        let mut request = request(&body, framing);
        for name in [None, Some("\"gpt-7\""), Some("\"\""), Some(&long), None] {
            request.body_mut().restore();
            let mut expected = body.clone();
            if let Some(name) = name {
                let with = Bytes::copy_from_slice(name.as_bytes());
                request
                    .body_mut()
                    .splice(9..16, with)
                    .expect("the range is inside the body");
                expected.splice(9..16, name.bytes());
            }
            send(pool, &mut request).await;
            let (head, arrived) = received();
            assert!(arrived == expected, "{framing:?} {name:?}");
            let named = head
                .get("content-length")
                .map(|length| length.to_str().expect("digits").to_owned());
            let length = matches!(framing, Framing::Length(_)).then(|| expected.len().to_string());
            assert_eq!(named, length, "{framing:?}");
        }
    }
}

#[tokio::test]
async fn a_part_of_a_body_is_replaced_over_http_1_1() {
    let sim = sim("a").await;
    let target = DialTarget {
        authority: sim.address().to_string().parse().expect("an authority"),
        tls: None,
    };
    let limit = Duration::from_secs(20);
    let pool = Pool::new(&target, limit, limit).expect("a target");
    assert_replacements_arrive(&pool, || {
        let seen = sim.requests().pop().expect("a recorded request");
        (seen.headers, seen.body.to_vec())
    })
    .await;
}

#[tokio::test]
async fn a_part_of_a_body_is_replaced_over_http_2() {
    let identity = tls::identity(&["127.0.0.1"], &["h2"]);
    let seen: Arc<Mutex<Vec<Request<Bytes>>>> = Arc::default();
    let record = seen.clone();
    let (address, _) = tls::http2_upstream(&identity, move |request| {
        record.lock().push(request);
        Channel::new(1).1
    })
    .await;
    let target = DialTarget {
        authority: address.to_string().parse().expect("an authority"),
        tls: Some(identity.trusting()),
    };
    let limit = Duration::from_secs(20);
    let pool = Pool::new(&target, limit, limit).expect("a target");
    assert_replacements_arrive(&pool, || {
        let (head, body) = seen.lock().pop().expect("a recorded request").into_parts();
        (head.headers, body.to_vec())
    })
    .await;
}
