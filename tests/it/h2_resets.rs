//! Responses of HTTP/2 upstreams that are reset before their end (RFC 9113 section 8.1). hyper reports a reset with
//! NO_ERROR as the end of the body, but the response is not complete, and the client must see that.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{sync::mpsc, time::timeout};

use crate::kit::{
    STREAM, TIMEOUT,
    frames::{DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, fields, serve_frames, status_of},
    gateway::Gateway,
    sim, tls,
    wire::{self, End, Wire},
};

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const CANCEL: u32 = 8;

/// What the upstream sends after the data of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// An empty DATA frame with END_STREAM.
    Whole,
    /// Trailers with END_STREAM.
    Trailers,
    /// END_STREAM, and then a reset.
    WholeThenReset(u32),
    /// A reset.
    Reset(u32),
    /// A GOAWAY frame with NO_ERROR that excludes the stream.
    GoAway,
    /// A GOAWAY frame with NO_ERROR that includes the stream, and then the end of the connection.
    GoAwayThenClose,
    /// The end of the connection.
    Close,
}

impl Ending {
    const BROKEN: [Self; 9] = [
        Self::Reset(NO_ERROR),
        Self::Reset(1),
        Self::Reset(INTERNAL_ERROR),
        Self::Reset(5),
        Self::Reset(7),
        Self::Reset(CANCEL),
        Self::GoAway,
        Self::GoAwayThenClose,
        Self::Close,
    ];

    /// Sends this on a stream. Returns whether the connection continues.
    async fn send(self, frames: &mut Frames, stream: u32) -> bool {
        let go_away = |last: u32| [last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat();
        match self {
            Self::Whole => frames.send(DATA, END_STREAM, stream, &[]).await,
            Self::Trailers => {
                let trailers = fields(&[("x-checksum", "1"), ("content-length", "3")]);
                frames.send(HEADERS, END_HEADERS | END_STREAM, stream, &trailers).await
            }
            Self::WholeThenReset(code) => {
                frames.send(DATA, END_STREAM, stream, &[]).await && frames.reset(stream, code).await
            }
            Self::Reset(code) => frames.reset(stream, code).await,
            Self::GoAway => frames.send(GOAWAY, 0, 0, &go_away(0)).await,
            Self::GoAwayThenClose => {
                frames.send(GOAWAY, 0, 0, &go_away(stream)).await;
                false
            }
            Self::Close => false,
        }
    }
}

/// A response of an upstream: its fields, its data, and how it ends.
#[derive(Clone)]
struct ScriptedResponse {
    fields: Vec<(&'static str, String)>,
    data: String,
    ending: Ending,
}

impl ScriptedResponse {
    fn new(content_type: &str, data: &str, ending: Ending) -> Self {
        Self {
            fields: vec![(":status", "200".to_owned()), ("content-type", content_type.to_owned())],
            data: data.to_owned(),
            ending,
        }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.retain(|(known, _)| *known != name);
        self.fields.push((name, value.to_owned()));
        self.fields.sort_by_key(|(name, _)| !name.starts_with(':'));
        self
    }

    /// Sends the response on a stream. Returns whether the connection continues.
    async fn send(&self, frames: &mut Frames, stream: u32) -> bool {
        frames.send(HEADERS, END_HEADERS, stream, &fields(&self.fields)).await;
        if !self.data.is_empty() {
            frames.send(DATA, 0, stream, self.data.as_bytes()).await;
        }
        self.ending.send(frames, stream).await
    }
}

/// The response that an upstream sends next.
type Script = Arc<Mutex<ScriptedResponse>>;

/// Starts an upstream that sends the response of `script` to each complete request. Returns its `[[upstream]]` table.
async fn scripted(name: &str, script: &Script) -> String {
    let identity = tls::identity(&["127.0.0.1"], &["h2"]);
    let script = script.clone();
    serve_frames(&identity, name, move |mut frames| {
        let script = script.clone();
        async move {
            while let Some(stream) = frames.request().await {
                let response = script.lock().clone();
                if !response.send(&mut frames, stream).await {
                    return;
                }
            }
        }
    })
    .await
}

fn script(response: ScriptedResponse) -> Script {
    Arc::new(Mutex::new(response))
}

fn file(ending: Ending) -> ScriptedResponse {
    ScriptedResponse::new("application/octet-stream", "hello", ending)
}

/// How a client of HTTP/2 saw its response end: by END_STREAM, by a reset with this code, or with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamEnd {
    Whole,
    Reset(u32),
    Closed,
}

/// Requests `path` over HTTP/2. Returns the status, the data, and how the response ended.
async fn get_over_http2(gateway: &Gateway, method: &str, path: &str) -> (u16, String, StreamEnd) {
    let mut frames = Frames::open(gateway.address).await;
    let head = fields(&[
        (":method", method),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", path),
    ]);
    frames.send(HEADERS, END_HEADERS | END_STREAM, 1, &head).await;
    read_over_http2(&mut frames).await
}

/// Reads the response on the first stream.
async fn read_over_http2(frames: &mut Frames) -> (u16, String, StreamEnd) {
    let (mut status, mut data) = (0, String::new());
    while let Some((kind, flags, stream, payload)) = frames.stream_frame().await {
        match kind {
            HEADERS if status == 0 => status = status_of(&payload),
            DATA => data.push_str(&String::from_utf8_lossy(&payload)),
            RST_STREAM if stream == 1 => {
                let code = u32::from_be_bytes(payload.try_into().expect("four bytes"));
                return (status, data, StreamEnd::Reset(code));
            }
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            return (status, data, StreamEnd::Whole);
        }
    }
    (status, data, StreamEnd::Closed)
}

fn get(version: &str) -> String {
    format!("GET /v1/x/content HTTP/{version}\r\nhost: localhost\r\n\r\n")
}

/// Waits for the access log line of the next request after the first `known` ones.
async fn outcome_after(gateway: &Gateway, known: usize) -> String {
    let line = crate::kit::until("an access log line", || {
        std::future::ready(gateway.access().get(known).cloned())
    });
    line.await["outcome"].as_str().expect("an outcome").to_owned()
}

#[tokio::test]
async fn a_response_that_is_reset_is_broken_off_visibly() {
    let script = script(file(Ending::Whole));
    let gateway = Gateway::configured(&scripted("a", &script).await).await;
    let mut known = 0;
    for ending in Ending::BROKEN {
        // The data has five bytes. With that length, only the end of the stream is missing.
        for length in [None, Some("10"), Some("5")] {
            let with_length = length.is_some();
            *script.lock() = match length {
                Some(length) => file(ending).with("content-length", length),
                None => file(ending),
            };
            let answer = wire::ask(gateway.address, get("1.1")).await;
            let what = format!("{ending:?} {length:?} {answer:?}");
            assert!(matches!(answer.end, End::Cut | End::Reset), "{what}");
            let is_chunked = answer.header("transfer-encoding") == Some("chunked");
            assert_eq!((answer.status, is_chunked), (200, !with_length), "{what}");
            assert_eq!(outcome_after(&gateway, known).await, "upstream_broken", "{what}");

            let mut old = Wire::open(gateway.address).await;
            old.send(get("1.0")).await;
            let answer = old.answer().await;
            let expected: &[End] = if with_length {
                &[End::Cut, End::Reset]
            } else {
                &[End::Reset]
            };
            assert!(expected.contains(&answer.end), "{ending:?} {length:?}: {answer:?}");
            assert_eq!(outcome_after(&gateway, known + 1).await, "upstream_broken", "{what}");

            // The reset may overtake the data that was sent before it.
            let (_, _, end) = get_over_http2(&gateway, "GET", "/v1/x/content").await;
            assert_eq!(end, StreamEnd::Reset(INTERNAL_ERROR), "{ending:?} {length:?}");
            assert_eq!(outcome_after(&gateway, known + 2).await, "upstream_broken", "{what}");
            known += 3;

            // A good response, so that the upstream is not ejected. It also shows that the upstream is still used.
            *script.lock() = file(Ending::Whole);
            let answer = wire::ask(gateway.address, get("1.1")).await;
            assert_eq!((answer.text().as_str(), answer.end), ("hello", End::Whole), "{what}");
            assert_eq!(outcome_after(&gateway, known).await, "complete", "{what}");
            known += 1;
        }
    }
}

#[tokio::test]
async fn a_response_with_its_end_is_complete_in_spite_of_a_later_reset() {
    let script = script(file(Ending::Whole));
    let gateway = Gateway::configured(&scripted("a", &script).await).await;
    let endings = [
        Ending::Whole,
        Ending::Trailers,
        Ending::WholeThenReset(NO_ERROR),
        Ending::WholeThenReset(CANCEL),
    ];
    for (number, ending) in endings.into_iter().enumerate() {
        for with_length in [false, true] {
            *script.lock() = match with_length {
                true => file(ending).with("content-length", "5"),
                false => file(ending),
            };
            let what = format!("{ending:?} {with_length}");
            let answer = wire::ask(gateway.address, get("1.1")).await;
            assert_eq!((answer.text().as_str(), answer.end), ("hello", End::Whole), "{what}");
            let answer = wire::ask(gateway.address, get("1.0")).await;
            assert_eq!(answer.text(), "hello", "{what}");
            assert!(matches!(answer.end, End::Whole | End::Closed), "{what}: {answer:?}");
            let (status, data, end) = get_over_http2(&gateway, "GET", "/v1/x/content").await;
            assert_eq!((status, data.as_str(), end), (200, "hello", StreamEnd::Whole), "{what}");
            let first = 6 * number + 3 * usize::from(with_length);
            for known in first..first + 3 {
                assert_eq!(outcome_after(&gateway, known).await, "complete", "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_response_without_a_body_is_complete_with_its_head() {
    let script = script(file(Ending::Whole));
    let gateway = Gateway::configured(&scripted("a", &script).await).await;
    for ending in [Ending::Whole, Ending::WholeThenReset(NO_ERROR), Ending::Reset(NO_ERROR)] {
        for (method, status) in [("HEAD", "200"), ("GET", "204"), ("GET", "304")] {
            let mut response = file(ending).with(":status", status);
            response.data.clear();
            *script.lock() = response;
            let what = format!("{ending:?} {method} {status}");
            let mut wire = Wire::open(gateway.address).await;
            // The second request shows that the connection is still usable.
            for _ in 0..2 {
                wire.send(get("1.1").replace("GET", method)).await;
                let answer = wire.answer_to(method).await;
                assert_eq!(answer.status.to_string(), status, "{what}");
            }
            let (found, data, end) = get_over_http2(&gateway, method, "/v1/x/content").await;
            assert_eq!((found.to_string().as_str(), data.as_str()), (status, ""), "{what}");
            assert_eq!(end, StreamEnd::Whole, "{what}");
        }
    }
}

/// Without any data, only the head shows that there is a response.
#[tokio::test]
async fn an_empty_response_that_is_reset_is_broken_off() {
    for ending in [Ending::Reset(NO_ERROR), Ending::GoAway, Ending::Reset(CANCEL)] {
        let mut response = file(ending);
        response.data.clear();
        let gateway = Gateway::configured(&scripted("a", &script(response)).await).await;
        let answer = wire::ask(gateway.address, get("1.1")).await;
        assert!(matches!(answer.end, End::Cut | End::Reset), "{ending:?} {answer:?}");
        let (_, data, end) = get_over_http2(&gateway, "GET", "/v1/x/content").await;
        assert_eq!(
            (data.as_str(), end),
            ("", StreamEnd::Reset(INTERNAL_ERROR)),
            "{ending:?}"
        );
    }
}

const CREATED: &str =
    "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\"}}\n\n";
const OUTPUT: &str =
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\n";
const COMPLETED: &str = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"status\":\"completed\"}}\n\n";

fn events(data: &str, ending: Ending) -> ScriptedResponse {
    ScriptedResponse::new("text/event-stream", data, ending)
}

#[tokio::test]
async fn a_stream_that_is_reset_before_its_first_output_is_replaced() {
    for ending in Ending::BROKEN {
        let good = sim("b").await;
        let table = scripted("a", &script(events(CREATED, ending))).await;
        let weights = table.replace("http2 = true", "http2 = true\nweight = 1000");
        let gateway = Gateway::configured(&(weights + &crate::kit::gateway::upstream(&good, ""))).await;
        let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
        assert_eq!(
            (answer.status, answer.end, answer.header("x-steadfast-upstream")),
            (200, End::Whole, Some("b")),
            "{ending:?} {answer:?}"
        );
        assert!(answer.text().contains("response.completed"), "{ending:?} {answer:?}");
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_after_its_first_output_is_broken_off() {
    let script = script(events(&[CREATED, OUTPUT].concat(), Ending::Reset(NO_ERROR)));
    let gateway = Gateway::configured(&scripted("a", &script).await).await;
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
    assert!(matches!(answer.end, End::Cut | End::Reset), "{answer:?}");
    assert!(answer.text().contains("delta"), "{answer:?}");
    assert_eq!(outcome_after(&gateway, 0).await, "upstream_broken");
    // The last event says that the response is complete, whatever becomes of the stream.
    *script.lock() = events(&[CREATED, OUTPUT, COMPLETED].concat(), Ending::Reset(NO_ERROR));
    let answer = wire::ask(gateway.address, wire::post("/v1/responses", STREAM)).await;
    assert!(answer.text().ends_with(COMPLETED), "{answer:?}");
    assert_eq!(outcome_after(&gateway, 1).await, "complete");
}

/// Starts an upstream that answers each request as soon as its head has arrived, and then resets its stream. It reports when
/// it has done so.
async fn early_upstream(ending: Ending) -> (String, mpsc::UnboundedReceiver<()>) {
    let identity = tls::identity(&["127.0.0.1"], &["h2"]);
    let (done, answered) = mpsc::unbounded_channel();
    let table = serve_frames(&identity, "a", move |mut frames| {
        let done = done.clone();
        async move {
            while let Some((kind, _, stream, _)) = frames.stream_frame().await {
                if kind == HEADERS {
                    file(ending).with(":status", "403").send(&mut frames, stream).await;
                    let _ = done.send(());
                }
            }
        }
    })
    .await;
    (table, answered)
}

#[tokio::test]
async fn an_early_response_is_delivered_whole_while_the_upload_is_running() {
    let (table, mut answered) = early_upstream(Ending::WholeThenReset(NO_ERROR)).await;
    let gateway = Gateway::configured(&table).await;
    for framing in ["content-length: 100000", "transfer-encoding: chunked"] {
        let mut wire = Wire::open(gateway.address).await;
        let head = "POST /v1/x HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n";
        wire.send(format!("{head}{framing}\r\n\r\n5\r\nhello\r\n")).await;
        let answer = wire.answer().await;
        assert_eq!(
            (answer.status, answer.text().as_str(), answer.end),
            (403, "hello", End::Whole)
        );
        timeout(TIMEOUT, answered.recv()).await.expect("an answer in time");
    }
    let mut frames = Frames::open(gateway.address).await;
    let head = fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/v1/x"),
        ("content-type", "text/plain"),
    ]);
    frames.send(HEADERS, END_HEADERS, 1, &head).await;
    frames.send(DATA, 0, 1, b"hello").await;
    let (status, data, end) = read_over_http2(&mut frames).await;
    assert_eq!((status, data.as_str(), end), (403, "hello", StreamEnd::Whole));
}

/// An early response that is reset before its own end is not complete.
#[tokio::test]
async fn an_early_response_that_is_reset_is_broken_off() {
    let (table, _answered) = early_upstream(Ending::Reset(NO_ERROR)).await;
    let gateway = Gateway::configured(&table).await;
    let mut wire = Wire::open(gateway.address).await;
    let head = "POST /v1/x HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n";
    wire.send(format!("{head}content-length: 100000\r\n\r\nhello")).await;
    let answer = wire.answer().await;
    assert!(matches!(answer.end, End::Cut | End::Reset), "{answer:?}");
}
