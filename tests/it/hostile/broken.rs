//! Bodies that turn bad after forwarding has begun: their upstream must not take them for whole ones.

use socket2::SockRef;

use super::{head, house};
use crate::kit::{until, until_true, wire::Wire};

/// How a body that began well goes on.
#[derive(Clone, Copy)]
enum GoesOn {
    /// With these bytes.
    With(&'static [u8]),
    /// With more of it than any body may have.
    TooLong,
    /// Not at all: the client ends its side.
    Ended,
    /// Not at all: the client resets the connection.
    Reset,
}

use GoesOn::{Ended, Reset, TooLong, With};

const CHUNKED: &str = "transfer-encoding: chunked";
const LENGTH: &str = "content-length: 100";

/// What it is, its framing, how it goes on, and what the client hears, if it is still there.
const CASES: [(&str, &str, GoesOn, &str); 14] = [
    ("a size that is none", CHUNKED, With(b"zz\r\n"), "incomplete_body"),
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
    (
        "a last chunk that is none",
        CHUNKED,
        With(b"0\r\n\n"),
        "incomplete_body",
    ),
    (
        "a trailer that is none",
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
async fn a_body_that_turns_bad_under_way_never_looks_whole() {
    let (recorder, gateway) = super::house_with("[timeouts]\nidle = \"500ms\"\n").await;
    for (number, (what, framing, goes_on, code)) in CASES.into_iter().enumerate() {
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
        match goes_on {
            With(bytes) => wire.send(bytes).await,
            TooLong => {
                // It may be turned away before all of it is read.
                for _ in 0..80 {
                    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut wire.stream, chunk.as_bytes()).await;
                }
            }
            Ended => tokio::io::AsyncWriteExt::shutdown(&mut wire.stream)
                .await
                .expect("a socket"),
            Reset => SockRef::from(&wire.stream)
                .set_linger(Some(std::time::Duration::ZERO))
                .expect("a socket"),
        }
        match (goes_on, code) {
            (Reset, _) => drop(wire),
            (_, "") => {
                tokio::io::AsyncWriteExt::shutdown(&mut wire.stream)
                    .await
                    .expect("a socket");
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

/// The same while an upstream has answered already: what it made of half a body is not passed off as an answer to all of it.
#[tokio::test]
async fn nothing_more_is_sent_once_the_client_is_known_to_be_wrong() {
    let (recorder, gateway) = house().await;
    let mut wire = Wire::open(gateway.address).await;
    let head = head("POST /v1/files HTTP/1.1", &["content-type: text/plain", CHUNKED]);
    // All in one write: what is in order and what is not arrive together.
    wire.send(head + "5\r\nfirst\r\n-1\r\nlater\r\n0\r\n\r\n").await;
    assert_eq!(wire.answer().await.error_code(), "incomplete_body");
    wire.closing().await;
    assert!(recorder.take().iter().all(|message| !message.is_whole));
    assert!(!recorder.has_read(b"later") && !recorder.has_read(b"0\r\n\r\n"));
}
