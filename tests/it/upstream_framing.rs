//! The framing of responses over HTTP/1.1 (RFC 9112 section 6.3). A connection on which the end of a response is not
//! certain carries no further request, because the next response on it could belong to another caller.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::kit::{
    gateway::{Gateway, upstream_at},
    upstream::{request, serve_connections},
    wire::{End, RawResponse, Wire},
};

/// A response that belongs to another caller.
const FOREIGN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nforeign";

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";

/// How a caller must see a response, and whether its connection may carry another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// A whole response with this body, whose connection is used again.
    Reused(&'static str),
    /// A whole response with this body, whose connection is not used again.
    Closed(&'static str),
    /// 502, or a response that is broken off. The connection is not used again.
    Failed,
}
use Expected::{Closed, Failed, Reused};

struct Row {
    method: &'static str,
    /// The bytes that the upstream sends.
    sent: &'static str,
    expected: Expected,
}

const fn get(sent: &'static str, expected: Expected) -> Row {
    Row {
        method: "GET",
        sent,
        expected,
    }
}

const fn head(sent: &'static str, expected: Expected) -> Row {
    Row {
        method: "HEAD",
        sent,
        expected,
    }
}

const ROWS: &[Row] = &[
    get("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", Reused("hello")),
    get("HTTP/1.1 200 OK\r\nContent-Length:\t5 \r\n\r\nhello", Reused("hello")),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Reused("hello"),
    ),
    get(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked \r\n\r\n5;a=b\r\nhello\r\n0;c\r\nx-a: 1\r\n\r\n",
        Reused("hello"),
    ),
    get(
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello",
        Reused("hello"),
    ),
    // The chunks count, whatever the length says (RFC 9112 section 6.3, rule 3).
    get(
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Closed("hello"),
    ),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Closed("hello"),
    ),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 99\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Closed("hello"),
    ),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Closed("hello"),
    ),
    get(
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Closed("hello"),
    ),
    // HTTP/1.0 has no transfer codings (section 6.1).
    get(
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Closed("hello"),
    ),
    get(
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Closed("hello"),
    ),
    get(
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\nhello",
        Failed,
    ),
    get(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
        Closed("hello"),
    ),
    // A length or a coding that two readers could understand differently.
    get(
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        Failed,
    ),
    get("HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\nhello", Failed),
    get("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello", Failed),
    get("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello", Failed),
    get("HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello", Failed),
    get("HTTP/1.1 200 OK\r\ncontent-length: 0x5\r\n\r\nhello", Failed),
    get("HTTP/1.1 200 OK\r\ncontent-length: 5 5\r\n\r\nhello", Failed),
    get("HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\nhello", Failed),
    get("HTTP/1.1 200 OK\r\ncontent-length : 5\r\n\r\nhello", Failed),
    get("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n 0\r\n\r\nhello", Failed),
    get(
        "HTTP/1.1 200 OK\r\nx-a: 1\r\n content-length: 3\r\ncontent-length: 5\r\n\r\nhello",
        Failed,
    ),
    get(
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nhello",
        Failed,
    ),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Failed,
    ),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Failed,
    ),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Failed,
    ),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\ncontent-length: 5\r\n\r\nhello",
        Failed,
    ),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\ncontent-length: 5\r\n\r\nhello",
        Failed,
    ),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\x0b\r\ncontent-length: 5\r\n\r\nhello",
        Failed,
    ),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding:\r\n chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Failed,
    ),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
        Failed,
    ),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        Failed,
    ),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloo\r\n0\r\n\r\n",
        Failed,
    ),
    // A line feed without a carriage return may be a part of a value for the upstream.
    get(
        "HTTP/1.1 200 OK\r\nx-a: 1\ncontent-length: 5\r\n\r\nhello",
        Closed("hello"),
    ),
    // Bytes after the end of a response.
    get("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello\r\n", Closed("hello")),
    get(
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nforeign",
        Closed("hello"),
    ),
    get(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nforeign",
        Closed("hello"),
    ),
    // A response that has no body must not have one.
    get("HTTP/1.1 204 No Content\r\n\r\n", Reused("")),
    get("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", Reused("")),
    get("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", Closed("")),
    get("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello", Closed("")),
    get(
        "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
        Closed(""),
    ),
    get(
        "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        Closed(""),
    ),
    get("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", Reused("")),
    get(
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nhello",
        Closed(""),
    ),
    get(
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        Closed(""),
    ),
    head("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Reused("")),
    head("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Reused("")),
    head("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", Closed("")),
    head(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
        Closed(""),
    ),
    head(
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n",
        Closed(""),
    ),
    head(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        Closed(""),
    ),
    head(
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        Failed,
    ),
    // Interim responses have no body.
    get(
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        Reused("hello"),
    ),
    get(
        "HTTP/1.1 103 Early Hints\r\ncontent-length: 5\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        Closed("hello"),
    ),
    get(
        "HTTP/1.1 103 Early Hints\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        Failed,
    ),
    get(
        "HTTP/1.1 100 Continue\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        Failed,
    ),
];

/// Sends the row's request. A response to HEAD, 204 or 304 has no body.
async fn ask(gateway: &Gateway, row: &Row, version: &str) -> RawResponse {
    let mut wire = Wire::open(gateway.address).await;
    wire.send(format!(
        "{} /v1/x HTTP/{version}\r\nhost: localhost\r\n\r\n",
        row.method
    ))
    .await;
    wire.answer_to(row.method).await
}

fn check(row: &Row, answer: &RawResponse) -> Result<(), String> {
    let is_right = match row.expected {
        Reused(body) | Closed(body) => {
            let statuses = [200, 204, 304];
            let has_both = answer.header("content-length").is_some() && answer.header("transfer-encoding").is_some();
            statuses.contains(&answer.status)
                && answer.text() == body
                && !matches!(answer.end, End::Cut | End::Reset)
                && !has_both
        }
        Failed => answer.status == 502 || matches!(answer.end, End::Cut | End::Reset),
    };
    match is_right {
        true => Ok(()),
        false => Err(format!("{:?}: expected {:?}, got {answer:?}", row.sent, row.expected)),
    }
}

/// Serves a connection that begins with the response of a row, and counts its other requests. All other responses are
/// [`GOOD`].
async fn serve_row(mut wire: Wire, sent: &str, reused: &AtomicUsize) {
    request(&mut wire).await;
    wire.send(sent).await;
    while wire.has_request().await {
        reused.fetch_add(1, Ordering::SeqCst);
        wire.send(GOOD).await;
    }
}

/// Sends the row's request, and then others. Returns whether its connection has carried another request.
async fn is_reused(row: &'static Row) -> Result<bool, String> {
    let reused = Arc::new(AtomicUsize::new(0));
    let (count, connections) = (reused.clone(), AtomicUsize::new(0));
    let address = serve_connections(move |wire| {
        let count = count.clone();
        let is_first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            match is_first {
                true => serve_row(wire, row.sent, &count).await,
                false => serve_row(wire, GOOD, &AtomicUsize::new(0)).await,
            }
        }
    })
    .await;
    let upstream = upstream_at("a", &format!("http://{address}/v1"), "");
    let gateway = Gateway::configured(&format!("[timeouts]\nidle = \"1s\"\n{upstream}")).await;
    check(row, &ask(&gateway, row, "1.1").await)?;
    for _ in 0..2 {
        let answer = ask(&gateway, &get("", Reused("good")), "1.1").await;
        if answer.text() != "good" {
            return Err(format!("{:?}: the next response is {answer:?}", row.sent));
        }
    }
    Ok(reused.load(Ordering::SeqCst) > 0)
}

/// Checks a row. A connection may not be ready for the next request just after its response, so a row whose connection
/// may be used again is tried several times.
async fn try_row(row: &'static Row) -> Result<(), String> {
    let may_be_reused = matches!(row.expected, Reused(_));
    let tries = if may_be_reused { 10 } else { 1 };
    for _ in 0..tries {
        if is_reused(row).await? == may_be_reused {
            return Ok(());
        }
    }
    Err(format!(
        "{:?}: the connection is used again: {}",
        row.sent, !may_be_reused
    ))
}

#[tokio::test]
async fn a_connection_is_used_again_only_if_the_end_of_its_response_is_certain() {
    let mut failed = Vec::new();
    for row in ROWS {
        failed.extend(try_row(row).await.err());
    }
    assert!(
        failed.is_empty(),
        "{} rows failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

/// The bytes after the end of a response arrive later than the response.
#[tokio::test]
async fn late_bytes_after_a_response_reach_no_other_caller() {
    let address = serve_connections(|mut wire| async move {
        request(&mut wire).await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        wire.send(FOREIGN).await;
        wire.closing().await;
    })
    .await;
    let gateway = Gateway::configured(&upstream_at("a", &format!("http://{address}/v1"), "")).await;
    for _ in 0..5 {
        let answer = ask(&gateway, &get("", Reused("hello")), "1.1").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn bytes_after_a_long_response_reach_no_other_caller() {
    let body = "x".repeat(300_000);
    let sent = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}{FOREIGN}",
        body.len()
    );
    let reused = Arc::new(AtomicUsize::new(0));
    let count = reused.clone();
    let address = serve_connections(move |wire| {
        let (count, sent) = (count.clone(), sent.clone());
        async move { serve_row(wire, &sent, &count).await }
    })
    .await;
    let gateway = Gateway::configured(&upstream_at("a", &format!("http://{address}/v1"), "")).await;
    for _ in 0..5 {
        let answer = ask(&gateway, &get("", Reused("")), "1.1").await;
        assert!(answer.status == 200 && answer.text() == body, "{}", answer.head);
    }
    assert_eq!(reused.load(Ordering::SeqCst), 0);
}

/// The upstream has not read the rest of the upload. It would take the next request for it.
#[tokio::test]
async fn a_connection_with_an_unfinished_upload_is_not_used_again() {
    for framing in ["content-length: 100000", "transfer-encoding: chunked"] {
        let address = serve_connections(|mut wire| async move {
            wire.head().await;
            wire.send(GOOD).await;
            // A second request would get no response.
            wire.closing().await;
        })
        .await;
        let gateway = Gateway::configured(&upstream_at("a", &format!("http://{address}/v1"), "")).await;
        let mut upload = Wire::open(gateway.address).await;
        let head = format!("POST /v1/x HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n");
        upload.send(head + "5\r\nhello\r\n").await;
        assert_eq!(upload.answer().await.text(), "good", "{framing}");
        let next = ask(&gateway, &get("", Reused("good")), "1.1").await;
        assert_eq!(next.text(), "good", "{framing}");
    }
}
