//! Bodies that become invalid after forwarding has begun. The upstream must not take them for whole bodies.

use socket2::SockRef;

use super::kit::{head, recorded_gateway};
use crate::kit::{until, until_true, wire::Wire};

/// How a body continues after a valid beginning.
#[derive(Clone, Copy)]
enum Continuation {
    /// The body continues with these bytes.
    With(&'static [u8]),
    /// The body continues with more data than the maximum body size.
    TooLong,
    /// The client ends its sending side.
    Ended,
    /// The client resets the connection.
    Reset,
}

use Continuation::{Ended, Reset, TooLong, With};

const CHUNKED: &str = "transfer-encoding: chunked";
const LENGTH: &str = "content-length: 100";

/// The name, the framing, how the body continues, and the error code that the client receives if it is still
/// connected.
const CASES: [(&str, &str, Continuation, &str); 14] = [
    ("an invalid size", CHUNKED, With(b"zz\r\n"), "incomplete_body"),
    (
        "a size over 64 bits",
        CHUNKED,
        With(b"10000000000000000\r\n"),
        "incomplete_body",
    ),
    (
        "a chunk that is too long",
        CHUNKED,
        With(b"1\r\nab\r\n0\r\n\r\n"),
        "incomplete_body",
    ),
    ("a bare LF", CHUNKED, With(b"1\na\r\n0\r\n\r\n"), "incomplete_body"),
    (
        "a request for a size",
        CHUNKED,
        With(b"GET / HTTP/1.1\r\n\r\n"),
        "incomplete_body",
    ),
    ("an invalid last chunk", CHUNKED, With(b"0\r\n\n"), "incomplete_body"),
    (
        "an invalid trailer",
        CHUNKED,
        With(b"0\r\nGET / HTTP/1.1\r\n\r\n"),
        "incomplete_body",
    ),
    ("too many chunks", CHUNKED, TooLong, "request_too_large"),
    ("an end between chunks", CHUNKED, Ended, "incomplete_body"),
    ("an end in the last chunk", CHUNKED, With(b"0\r\n"), ""),
    ("a reset between chunks", CHUNKED, Reset, ""),
    ("an end before the length", LENGTH, Ended, "incomplete_body"),
    ("a reset before the length", LENGTH, Reset, ""),
    ("silence before the length", LENGTH, With(b"x"), "request_timeout"),
];

#[tokio::test]
async fn a_body_that_becomes_invalid_never_looks_whole() {
    let (recorder, gateway) = super::kit::recorded_gateway_with("[timeouts]\nidle = \"500ms\"\n").await;
    for (number, (what, framing, continuation, code)) in CASES.into_iter().enumerate() {
        let mut wire = Wire::open(gateway.address).await;
        let begun = format!("begun {number:04}");
        let head = head("POST /v1/files HTTP/1.1", &["content-type: text/plain", framing]);
        let first = if framing == CHUNKED {
            format!("a\r\n{begun}\r\n")
        } else {
            begun.clone()
        };
        wire.send(head + &first).await;
        until_true(what, || recorder.has_read(begun.as_bytes())).await;
        match continuation {
            With(bytes) => wire.send(bytes).await,
            TooLong => {
                // The gateway may refuse the body before it has read all of it.
                for _ in 0..80 {
                    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut wire.stream, chunk.as_bytes()).await;
                }
            }
            Ended => tokio::io::AsyncWriteExt::shutdown(&mut wire.stream)
                .await
                .expect("a socket call succeeds"),
            Reset => SockRef::from(&wire.stream)
                .set_linger(Some(std::time::Duration::ZERO))
                .expect("a socket call succeeds"),
        }
        match (continuation, code) {
            (Reset, _) => drop(wire),
            (_, "") => {
                tokio::io::AsyncWriteExt::shutdown(&mut wire.stream)
                    .await
                    .expect("a socket call succeeds");
                assert_eq!(wire.answer().await.error_code(), "incomplete_body", "{what}");
            }
            _ => assert_eq!(wire.answer().await.error_code(), code, "{what}"),
        }
        let seen = until(what, || {
            let seen = recorder.take();
            std::future::ready((!seen.is_empty()).then_some(seen))
        })
        .await;
        assert_eq!(seen.len(), 1, "{what}: {seen:?}");
        assert!(!seen[0].is_whole, "{what}: {seen:?}");
        let body = String::from_utf8_lossy(&seen[0].body);
        assert!(body.contains(&begun) && !body.contains("\r\n0\r\n"), "{what}: {seen:?}");
    }
}

/// The upstream has already responded to a part of the body. That response must not be returned as the response to the
/// whole request.
#[tokio::test]
async fn nothing_is_forwarded_after_an_invalid_chunk() {
    let (recorder, gateway) = recorded_gateway().await;
    let mut wire = Wire::open(gateway.address).await;
    let head = head("POST /v1/files HTTP/1.1", &["content-type: text/plain", CHUNKED]);
    // The valid and the invalid part arrive together, in one write.
    wire.send(head + "5\r\nfirst\r\n-1\r\nlater\r\n0\r\n\r\n").await;
    assert_eq!(wire.answer().await.error_code(), "incomplete_body");
    wire.closing().await;
    assert!(recorder.take().iter().all(|message| !message.is_whole));
    assert!(!recorder.has_read(b"later") && !recorder.has_read(b"0\r\n\r\n"));
}
