//! Requests that an upstream may have begun when its connection closes. Those that must not be executed twice are sent
//! once.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::kit::{
    WHOLE,
    frames::{END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, serve_frames},
    gateway::{self, Gateway},
    tls,
    wire::{self, Wire},
};

/// The first lines of the requests that an upstream has read, in order.
type Log = Arc<Mutex<Vec<String>>>;

/// How an upstream ends a connection after it has read a request.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Fin,
    Reset,
}

/// The requests that may be executed only once: a method, a path and a body.
const ONCE: [(&str, &str, &str); 11] = [
    ("POST", "/v1/files", "{}"),
    ("POST", "/v1/batches", r#"{"input_file_id":"file-1"}"#),
    ("POST", "/v1/batches/batch_1/cancel", ""),
    ("POST", "/v1/vector_stores", r#"{"name":"n"}"#),
    ("POST", "/v1/conversations", "{}"),
    ("POST", "/v1/uploads/upload_1/complete", "{}"),
    ("POST", "/v1/responses/resp_1/cancel", ""),
    ("POST", "/v1/fine_tuning/jobs", "{}"),
    ("POST", "/v1/chat/completions/chatcmpl-1", r#"{"metadata":{}}"#),
    ("POST", "/v1/models/m/copy", "{}"),
    ("PATCH", "/v1/responses", WHOLE),
];

/// The requests that may be sent again.
const REPEATABLE: [(&str, &str, &str); 9] = [
    ("POST", "/v1/responses", WHOLE),
    ("POST", "/v1/responses/compact", WHOLE),
    ("POST", "/v1/responses/input_tokens", WHOLE),
    ("POST", "/v1/chat/completions", r#"{"model":"gpt-5.2","messages":[]}"#),
    ("POST", "/v1/embeddings", r#"{"model":"e","input":"hi"}"#),
    ("GET", "/v1/files", ""),
    ("DELETE", "/v1/files/file-1", ""),
    ("PUT", "/v1/files/file-1", "{}"),
    ("OPTIONS", "/v1/files", ""),
];

fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nidempotency-key: k1\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Reads one HTTP/1.1 request, and returns its first line; `None` at the end of the connection.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |digits| digits.parse().expect("a length"))];
    stream.read_exact(&mut body).await.ok()?;
    head.lines().next().map(str::to_owned)
}

/// Answers the first request of a connection, and ends the connection after the second one.
async fn close_at_second(mut stream: impl AsyncRead + AsyncWrite + Unpin, log: &Log) {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    for is_answered in [true, false] {
        let Some(line) = read_request(&mut stream).await else {
            return;
        };
        log.lock().push(line);
        if is_answered {
            stream.write_all(answer).await.expect("the peer reads");
        }
    }
}

/// An upstream on `listener` whose connections close at their second request.
async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, ending: Ending, log: Log) {
    while let Ok((mut tcp, _)) = listener.accept().await {
        let (log, tls) = (log.clone(), tls.clone());
        tokio::spawn(async move {
            if matches!(ending, Ending::Reset) {
                tcp.set_zero_linger().expect("an open socket");
            }
            match tls {
                None => close_at_second(&mut tcp, &log).await,
                Some(tls) => close_at_second(tls.accept(tcp).await.expect("a handshake"), &log).await,
            }
        });
    }
}

/// A gateway in front of an upstream whose connections close at their second request.
async fn gateway_before(ending: Ending, with_tls: bool) -> (Gateway, Log) {
    let log = Log::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (scheme, lines, acceptor) = if with_tls {
        let identity = tls::identity(&["127.0.0.1"], &["http/1.1"]);
        let acceptor = TlsAcceptor::from(identity.config.clone());
        ("https", format!("ca = {:?}", identity.ca), Some(acceptor))
    } else {
        ("http", String::new(), None)
    };
    tokio::spawn(serve(listener, acceptor, ending, log.clone()));
    // A second upstream shows that the request does not go elsewhere either.
    let tables = ["a", "b"].map(|name| gateway::upstream_at(name, &format!("{scheme}://{address}/v1"), &lines));
    (Gateway::configured(&tables.concat()).await, log)
}

/// Sends a request that uses a pooled connection whose upstream reads it and closes. Returns the status, and the
/// number of times that the upstream has read it.
async fn send_and_count(wire: &mut Wire, log: &Log, (method, path, body): (&str, &str, &str)) -> (u16, usize) {
    // Each upstream gets a connection that has carried one request.
    for session in 0..16 {
        let warm = format!(r#"{{"model":"gpt-5.2","input":"hi","prompt_cache_key":"s{session}"}}"#);
        wire.send(wire::post("/v1/responses", &warm)).await;
        assert_eq!(wire.answer().await.status, 200);
    }
    log.lock().clear();
    wire.send(request(method, path, body)).await;
    let answer = wire.answer_to(method).await;
    if answer.status >= 400 {
        assert_eq!((answer.status, answer.error_code().as_str()), (502, "upstream_broken"));
    }
    (answer.status, log.lock().len())
}

#[tokio::test]
async fn a_request_that_must_not_be_executed_twice_is_sent_once() {
    for ending in [Ending::Fin, Ending::Reset] {
        for with_tls in [false, true] {
            let (gateway, log) = gateway_before(ending, with_tls).await;
            let mut wire = Wire::open(gateway.address).await;
            let mut lost = 0;
            for case in ONCE {
                let (status, count) = send_and_count(&mut wire, &log, case).await;
                assert_eq!(count, 1, "{case:?}, {ending:?}, TLS: {with_tls}, status {status}");
                lost += usize::from(status == 502);
            }
            assert!(lost > 0, "some of the requests use a pooled connection");
        }
    }
}

#[tokio::test]
async fn a_request_that_may_be_executed_twice_is_sent_again() {
    for ending in [Ending::Fin, Ending::Reset] {
        let (gateway, log) = gateway_before(ending, false).await;
        let mut wire = Wire::open(gateway.address).await;
        for case in REPEATABLE {
            let (status, _) = send_and_count(&mut wire, &log, case).await;
            assert_eq!(status, 200, "{case:?}, {ending:?}");
        }
    }
}

const NO_ERROR: u32 = 0;

/// What an HTTP/2 upstream does to the first stream with a `POST` to `/v1/files`.
#[derive(Clone, Copy, Debug)]
enum StreamEnding {
    Reset(u32),
    /// `GOAWAY` with this code, and with the last stream before this one.
    GoAwayBefore(u32),
    /// `GOAWAY` with this code, and with this stream as the last one, and then the end of the connection.
    GoAwayAfter(u32),
    Fin,
}

/// Serves one HTTP/2 connection frame by frame. The first `failing` streams of all connections, which `seen` counts, end by
/// `ending`, and the others are answered with 200.
async fn end_streams(mut frames: Frames, ending: StreamEnding, failing: usize, seen: Arc<Mutex<usize>>) {
    while let Some(stream) = frames.request().await {
        *seen.lock() += 1;
        if *seen.lock() > failing {
            // The entry 8 of the static table is `:status: 200` (RFC 7541 appendix A).
            frames.send(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88]).await;
            continue;
        }
        let go_away = |last: u32, code: u32| [last.to_be_bytes(), code.to_be_bytes()].concat();
        match ending {
            StreamEnding::Reset(code) => drop(frames.reset(stream, code).await),
            StreamEnding::GoAwayBefore(code) => drop(frames.send(GOAWAY, 0, 0, &go_away(stream - 1, code)).await),
            StreamEnding::GoAwayAfter(code) => {
                frames.send(GOAWAY, 0, 0, &go_away(stream, code)).await;
                return;
            }
            StreamEnding::Fin => return,
        }
    }
}

/// Sends `POST /v1/files` to an HTTP/2 upstream that ends the first `failing` streams by `ending`. Returns the status,
/// and the number of streams.
async fn over_http2(ending: StreamEnding, failing: usize) -> (u16, usize) {
    let identity = tls::identity(&["127.0.0.1"], &["h2"]);
    let seen = Arc::new(Mutex::new(0));
    let count = seen.clone();
    let table = serve_frames(&identity, "a", move |frames| {
        end_streams(frames, ending, failing, count.clone())
    });
    let gateway = Gateway::configured(&table.await).await;
    let answer = wire::ask(gateway.address, request("POST", "/v1/files", "{}")).await;
    let seen = *seen.lock();
    (answer.status, seen)
}

#[tokio::test]
async fn a_stream_that_the_upstream_has_not_processed_is_sent_again() {
    const REFUSED_STREAM: u32 = 7;
    const ENHANCE_YOUR_CALM: u32 = 11;
    for ending in [
        StreamEnding::Reset(REFUSED_STREAM),
        StreamEnding::GoAwayBefore(NO_ERROR),
        StreamEnding::GoAwayBefore(ENHANCE_YOUR_CALM),
    ] {
        assert_eq!(over_http2(ending, 1).await, (200, 2), "{ending:?}");
        assert_eq!(over_http2(ending, 100).await, (502, 3), "{ending:?} for ever");
    }
}

#[tokio::test]
async fn a_stream_that_the_upstream_may_have_processed_is_sent_once() {
    const CANCEL: u32 = 8;
    const INTERNAL_ERROR: u32 = 2;
    for ending in [
        StreamEnding::Reset(CANCEL),
        StreamEnding::Reset(INTERNAL_ERROR),
        StreamEnding::Reset(NO_ERROR),
        StreamEnding::GoAwayAfter(NO_ERROR),
        StreamEnding::GoAwayAfter(INTERNAL_ERROR),
        StreamEnding::Fin,
    ] {
        assert_eq!(over_http2(ending, 1).await, (502, 1), "{ending:?}");
    }
}
