//! The minimum rate of request bodies: too slow a body is answered with 408, no matter how it arrives.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::channel::Channel;
use hyper::body::Frame;
use tokio::net::TcpStream;

use crate::kit::{
    encoders,
    gateway::{Gateway, upstream, upstream_at},
    gateway_with_sim,
    h2::{self, Sender},
    sim, tls, until,
    upstream::serve_connections,
    wire::{self, End, RawResponse, Wire},
};

/// A window that is short enough for a test. The rate stays the default, 10 KiB a second.
const SHORT: &str = "[server]\nbody_rate_window = \"300ms\"\n";

/// A body of 100,000 bytes.
fn json_body() -> Vec<u8> {
    let text = "x".repeat(100_000 - 36);
    format!(r#"{{"model":"gpt-5.2","input":"{text}","n":1}}"#).into_bytes()
}

/// Sends `pieces` with a pause before each, until the gateway answers. Returns the answer.
async fn drip(wire: &mut Wire, pieces: impl Iterator<Item = Vec<u8>>, pause: Duration) -> RawResponse {
    for piece in pieces {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = wire.stream.readable() => break,
        }
        // The gateway may close the connection at any time.
        let _ = wire.stream.try_write(&piece);
    }
    wire.answer().await
}

/// Checks the answer to a body that is too slow, and that the connection ends.
async fn assert_too_slow(wire: &mut Wire, answer: &RawResponse, what: &str) {
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (408, "request_timeout"),
        "{what}"
    );
    assert!(answer.text().contains("server.min_body_rate"), "{what}: {answer:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{what}");
    wire.closing().await;
}

const BOUNDARY: &str = "b0undary";

/// A form whose file never ends.
fn form_head() -> Vec<u8> {
    format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n"
    )
    .into_bytes()
}

/// Returns the head of a request with these fields.
fn head(path: &str, fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n")
}

#[tokio::test]
async fn a_body_that_arrives_too_slowly_is_refused() {
    let (_sim, gateway) = gateway_with_sim(SHORT).await;
    let (json, length) = ("content-type: application/json", "content-length: 100000");
    let multipart = format!("content-type: multipart/form-data; boundary={BOUNDARY}");
    let plain = json_body();
    let words: String = (0..20_000_u32)
        .map(|number| format!("{:x} ", number.wrapping_mul(2_654_435_761)))
        .collect();
    let compressed = encoders::gzip(format!(r#"{{"model":"gpt-5.2","input":"{words}"}}"#).as_bytes());
    let chunked = |bytes: &[u8]| -> Vec<u8> { [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat() };
    for (what, head, begin, is_chunked) in [
        (
            "a kept body",
            head("/v1/responses", &[json, length]),
            &plain[..1000],
            false,
        ),
        (
            "a large beginning",
            head("/v1/responses", &[json, length]),
            &plain[..90_000],
            false,
        ),
        (
            "a chunked body",
            head("/v1/responses", &[json, "transfer-encoding: chunked"]),
            &plain[..1000],
            true,
        ),
        (
            "a compressed body",
            head("/v1/responses", &[json, "content-encoding: gzip", length]),
            &compressed[..1000],
            false,
        ),
        ("no byte at all", head("/v1/responses", &[json, length]), &[][..], false),
        (
            "a form that is passed on",
            head("/v1/files", &[&multipart, length]),
            &form_head(),
            false,
        ),
        (
            "a chunked form",
            head("/v1/files", &[&multipart, "transfer-encoding: chunked"]),
            &form_head(),
            true,
        ),
        (
            "a body of another type",
            head("/v1/files", &["content-type: application/octet-stream", length]),
            b"abc",
            false,
        ),
    ] {
        let mut wire = Wire::open(gateway.address).await;
        wire.send(head).await;
        match is_chunked {
            true => wire.send(chunked(begin)).await,
            false => wire.send(begin).await,
        }
        let piece = match is_chunked {
            true => chunked(b"x"),
            false => b"x".to_vec(),
        };
        let pieces = std::iter::repeat_n(piece, 1000);
        let answer = drip(&mut wire, pieces, Duration::from_millis(20)).await;
        assert_too_slow(&mut wire, &answer, what).await;
    }
    let reason = "steadfast_rejected_requests_total{reason=\"body_timeout\"}";
    gateway.metric_reaches(reason, 8.0).await;
    gateway.metric_reaches("steadfast_buffered_bytes", 0.0).await;
}

#[tokio::test]
async fn chunk_framing_is_no_part_of_the_body() {
    let (_sim, gateway) = gateway_with_sim(SHORT).await;
    let mut wire = Wire::open(gateway.address).await;
    wire.send(head(
        "/v1/responses",
        &["content-type: application/json", "transfer-encoding: chunked"],
    ))
    .await;
    // One byte of the body comes with 100 bytes of a chunk extension.
    let piece = format!("1;e={}\r\n \r\n", "x".repeat(100)).into_bytes();
    let answer = drip(&mut wire, std::iter::repeat_n(piece, 1000), Duration::from_millis(20)).await;
    assert_too_slow(&mut wire, &answer, "extensions").await;
}

#[tokio::test]
async fn a_pause_is_answered_with_408_no_matter_which_limit_ends_it() {
    for (idle, window) in [("100ms", "10s"), ("10s", "100ms"), ("100ms", "100ms")] {
        let limits = format!("[server]\nbody_rate_window = \"{window}\"\n[timeouts]\nidle = \"{idle}\"\n");
        let (_sim, gateway) = gateway_with_sim(&limits).await;
        for path in ["/v1/responses", "/v1/files"] {
            let mut wire = Wire::open(gateway.address).await;
            let fields = ["content-type: application/json", "content-length: 1000"];
            wire.send(head(path, &fields)).await;
            wire.send("{").await;
            let answer = wire.answer().await;
            assert_eq!((answer.status, answer.error_code().as_str()), (408, "request_timeout"));
            wire.closing().await;
        }
    }
}

/// Sends a slow body that is passed on, which must be answered with 408.
async fn assert_passing_is_too_slow(gateway: &Gateway) {
    let mut wire = Wire::open(gateway.address).await;
    let fields = ["content-type: application/octet-stream", "content-length: 100000"];
    wire.send(head("/v1/files", &fields)).await;
    let pieces = std::iter::repeat_n(b"x".to_vec(), 1000);
    let answer = drip(&mut wire, pieces, Duration::from_millis(20)).await;
    assert_too_slow(&mut wire, &answer, "passed on").await;
}

/// The upstream of a body that is passed on sees that the request was cancelled.
#[tokio::test]
async fn the_upstream_request_of_a_slow_body_is_cancelled() {
    let (ended, mut endings) = tokio::sync::mpsc::unbounded_channel();
    let address = serve_connections(move |mut wire| {
        let ended = ended.clone();
        async move {
            wire.head().await;
            let end = wire.closing().await;
            let _ = ended.send((end, wire.rest()));
        }
    })
    .await;
    let url = format!("http://{address}/v1");
    let gateway = Gateway::configured(&format!("{SHORT}{}", upstream_at("a", &url, ""))).await;
    assert_passing_is_too_slow(&gateway).await;
    let (end, rest) = endings.recv().await.expect("an ending");
    assert!(matches!(end, End::Closed | End::Reset), "{end:?}");
    assert!(!rest.is_empty() && rest.len() < 1000 && rest.bytes().all(|byte| byte == b'x'));
}

#[tokio::test]
async fn the_upstream_stream_of_a_slow_body_is_reset() {
    let identity = tls::identity(&["127.0.0.1"], &["h2"]);
    let (address, _connections) = tls::http2_upstream(&identity, |_: Request<Bytes>| Channel::new(1).1).await;
    let lines = format!("ca = {:?}\nhttp2 = true", identity.ca);
    let config = upstream_at("a", &format!("https://{address}/v1"), &lines);
    let gateway = Gateway::configured(&format!("{SHORT}{config}")).await;
    assert_passing_is_too_slow(&gateway).await;
}

#[tokio::test]
async fn a_slow_body_over_http2_is_refused_and_others_are_served() {
    let (_sim, gateway) = gateway_with_sim(SHORT).await;
    let stream = TcpStream::connect(gateway.address).await.expect("a connection");
    let mut sender: Sender<Channel<Bytes, Infallible>> = h2::start_http2(stream).await;
    for path in ["/v1/responses", "/v1/files"] {
        let (mut upload, body) = Channel::<Bytes, Infallible>::new(4);
        let request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/json")
            .body(body)
            .expect("a request");
        let answer = tokio::spawn(sender.send_request(request));
        for piece in json_body().chunks(10) {
            if answer.is_finished() || upload.send(Frame::data(Bytes::copy_from_slice(piece))).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let answer = answer.await.expect("a task").expect("an answer");
        let (status, text) = h2::read_whole(answer).await;
        assert_eq!(status, StatusCode::REQUEST_TIMEOUT, "{path}: {text}");
        assert!(text.contains("server.min_body_rate"), "{path}: {text}");
    }
    // The connection is still good for a whole body.
    let (mut upload, body) = Channel::<Bytes, Infallible>::new(4);
    let request = Request::post("http://localhost/v1/responses")
        .header("content-type", "application/json")
        .body(body)
        .expect("a request");
    let answer = tokio::spawn(sender.send_request(request));
    upload.send(Frame::data(json_body().into())).await.expect("sent");
    drop(upload);
    let answer = answer.await.expect("a task").expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_slow_but_legal_body_passes() {
    let (_sim, gateway) = gateway_with_sim("[server]\nmin_body_rate = \"1KiB\"\nbody_rate_window = \"1s\"\n").await;
    for framing in ["content-length: 100000", "transfer-encoding: chunked"] {
        let mut wire = Wire::open(gateway.address).await;
        wire.send(head("/v1/responses", &["content-type: application/json", framing]))
            .await;
        // The first part takes three windows at four times the rate.
        let body = json_body();
        let (slow, fast) = body.split_at(12_000);
        let is_chunked = framing.starts_with('t');
        let frame = |piece: &[u8]| match is_chunked {
            true => [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat(),
            false => piece.to_vec(),
        };
        for piece in slow.chunks(400) {
            wire.send(frame(piece)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        wire.send(frame(fast)).await;
        if is_chunked {
            wire.send("0\r\n\r\n").await;
        }
        assert_eq!(wire.answer().await.status, 200, "{framing}");
    }
}

#[tokio::test]
async fn a_short_body_and_a_minimum_of_zero_have_no_minimum_rate() {
    let (_sim, gateway) = gateway_with_sim(SHORT).await;
    // Each body is complete within the window, with far fewer bytes than the rate.
    let mut wire = Wire::open(gateway.address).await;
    for _ in 0..4 {
        let request = wire::post("/v1/responses", crate::kit::WHOLE);
        let (begin, end) = request.split_at(request.len() - 5);
        wire.send(begin).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        wire.send(end).await;
        assert_eq!(wire.answer().await.status, 200);
    }
    let (_sim, gateway) = gateway_with_sim("[server]\nmin_body_rate = 0\nbody_rate_window = \"1ms\"\n").await;
    let request = wire::post("/v1/responses", crate::kit::WHOLE);
    let (begin, end) = request.split_at(request.len() - 5);
    let mut wire = Wire::open(gateway.address).await;
    wire.send(begin).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    wire.send(end).await;
    assert_eq!(wire.answer().await.status, 200);
}

/// The time in which the request waits for its upstream does not count, and neither does the time before `100 Continue`.
#[tokio::test]
async fn the_time_in_which_the_gateway_does_not_read_does_not_count() {
    let address = serve_connections(|mut wire| async move {
        wire.head().await;
        // The upstream reads nothing for several windows.
        tokio::time::sleep(Duration::from_millis(1000)).await;
        wire.take(LARGE).await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    })
    .await;
    const LARGE: usize = 16 << 20;
    let url = format!("http://{address}/v1");
    let gateway = Gateway::configured(&format!("{SHORT}{}", upstream_at("a", &url, "max_in_flight = 1"))).await;
    let fields = [
        "content-type: application/octet-stream".to_owned(),
        format!("content-length: {LARGE}"),
        "expect: 100-continue".to_owned(),
    ];
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let upload = || async {
        let mut wire = Wire::open(gateway.address).await;
        wire.send(head("/v1/files", &fields)).await;
        wire.skip_to("HTTP/1.1 100 Continue\r\n\r\n").await;
        wire.send(vec![b'x'; LARGE]).await;
        wire.answer().await
    };
    // The second upload waits for the slot of the first, and is told to continue when it has got it.
    let (first, second) = tokio::join!(upload(), upload());
    assert_eq!((first.status, second.status), (200, 200), "{first:?} {second:?}");
}

#[tokio::test]
async fn a_reload_changes_the_rate_for_new_requests() {
    let sim = sim("a").await;
    let config = |rate: &str| {
        let window = "body_rate_window = \"300ms\"";
        format!("[server]\nmin_body_rate = \"{rate}\"\n{window}\n{}", upstream(&sim, ""))
    };
    let gateway = Gateway::configured(&config("0B")).await;
    let request = wire::post("/v1/responses", crate::kit::WHOLE);
    let (begin, end) = request.split_at(request.len() - 5);
    let mut before = Wire::open(gateway.address).await;
    before.send(begin).await;
    until("the body to arrive", || async {
        (gateway.metric("steadfast_buffered_bytes").await > 0.0).then_some(())
    })
    .await;
    gateway.write(&config("10KiB"));
    until("the reload", || async {
        let applied = gateway.metric("steadfast_reloads_total{outcome=\"applied\"}").await;
        (applied == 1.0).then_some(())
    })
    .await;
    let mut after = Wire::open(gateway.address).await;
    after.send(begin).await;
    let answer = after.answer().await;
    assert_too_slow(&mut after, &answer, "after the reload").await;
    before.send(end).await;
    assert_eq!(
        before.answer().await.status,
        200,
        "the request ends with the rate that it began with"
    );
}
