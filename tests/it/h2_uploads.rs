//! Uploads of HTTP/2 clients that are reset before their end. They must not be passed on as if they were whole.

use tokio::sync::mpsc;

use crate::kit::{
    TIMEOUT,
    frames::{DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, RST_STREAM, fields, serve_frames},
    gateway::{Gateway, upstream_at},
    gateway_with_sim,
    h2::PLAIN,
    tls,
    upstream::serve_connections,
    wire,
};

const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;

/// How a client ends its upload before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Reset(u32),
    /// The connection is closed.
    Close,
    /// A GOAWAY frame with NO_ERROR, and then the connection is closed.
    GoAway,
}

const BREAKS: [Break; 6] = [
    Break::Reset(NO_ERROR),
    Break::Reset(CANCEL),
    Break::Reset(2),
    Break::Reset(7),
    Break::Close,
    Break::GoAway,
];

impl Break {
    async fn apply(self, mut frames: Frames) -> Option<Frames> {
        match self {
            Self::Reset(code) => {
                frames.reset(1, code).await;
                Some(frames)
            }
            Self::Close => None,
            Self::GoAway => {
                frames.send(GOAWAY, 0, 0, &[0; 8]).await;
                None
            }
        }
    }
}

/// Sends the head of a POST request.
async fn post(frames: &mut Frames, stream: u32, path: &str, content_type: &str, length: Option<usize>) {
    let length = length.map(|length| length.to_string());
    let mut list = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", path),
        ("content-type", content_type),
    ];
    list.extend(length.as_deref().map(|length| ("content-length", length)));
    frames.send(HEADERS, END_HEADERS, stream, &fields(&list)).await;
}

#[tokio::test]
async fn an_inspected_body_that_is_reset_is_not_sent() {
    let (sim, gateway) = gateway_with_sim("").await;
    let mut sent = 0;
    for how in BREAKS {
        for length in [None, Some(PLAIN.len()), Some(PLAIN.len() + 1)] {
            // With an idle connection to the upstream, a request is sent as soon as its body is complete.
            let warm = wire::ask(gateway.address, wire::post("/v1/responses", PLAIN)).await;
            assert_eq!(warm.status, 200);
            sent += 1;
            let mut frames = Frames::open(gateway.address).await;
            post(&mut frames, 1, "/v1/responses", "application/json", length).await;
            frames.send(DATA, 0, 1, PLAIN.as_bytes()).await;
            if let Some(mut frames) = how.apply(frames).await {
                // The connection still serves requests.
                post(&mut frames, 3, "/v1/nope/../x", "application/json", None).await;
                frames.send(DATA, END_STREAM, 3, b"{}").await;
                while frames.stream_frame().await.expect("an answer").2 != 3 {}
            }
        }
        gateway.metric_reaches("steadfast_connections", 0.0).await;
        assert_eq!(sim.counts().requests, sent, "{how:?}");
    }
    let lines = gateway.access();
    let complete = lines.iter().filter(|line| line["outcome"] == "complete").count();
    assert!(complete as u64 <= sent, "{lines:?}");
}

const FORM: &str = "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nthe beginning";

/// Sends the beginning of an upload, waits until it has `arrived`, and breaks it off.
async fn break_upload(gateway: &Gateway, form: bool, length: Option<usize>, how: Break, arrived: &mut Arrivals) {
    let mut frames = Frames::open(gateway.address).await;
    let (content_type, data) = match form {
        true => ("multipart/form-data; boundary=b", FORM),
        false => ("application/octet-stream", "the beginning"),
    };
    post(&mut frames, 1, "/v1/files", content_type, length).await;
    frames.send(DATA, 0, 1, data.as_bytes()).await;
    arrived.next().await;
    let _frames = how.apply(frames).await;
}

/// What an upstream reports: first that the beginning of an upload has arrived, and then how it ended.
struct Arrivals(mpsc::UnboundedReceiver<String>);

impl Arrivals {
    async fn next(&mut self) -> String {
        let next = tokio::time::timeout(TIMEOUT, self.0.recv()).await;
        next.expect("a report in time").expect("the upstream runs")
    }
}

/// A gateway before an HTTP/1.1 upstream that reports what follows the beginning of an upload.
async fn before_http1_upstream() -> (Gateway, Arrivals) {
    let (report, reports) = mpsc::unbounded_channel();
    let address = serve_connections(move |mut wire| {
        let report = report.clone();
        async move {
            wire.head().await;
            wire.skip_to("the beginning").await;
            let _ = report.send("arrived".to_owned());
            wire.closing().await;
            let _ = report.send(wire.rest());
        }
    })
    .await;
    let gateway = Gateway::configured(&upstream_at("a", &format!("http://{address}/v1"), "")).await;
    (gateway, Arrivals(reports))
}

#[tokio::test]
async fn a_passing_upload_that_is_reset_is_broken_off_over_http1() {
    let (gateway, mut arrivals) = before_http1_upstream().await;
    for how in BREAKS {
        for form in [false, true] {
            for length in [None, Some(1000)] {
                break_upload(&gateway, form, length, how, &mut arrivals).await;
                // Only the end of the chunk that has arrived may follow, and no last chunk.
                let rest = arrivals.next().await;
                assert!(
                    ["", "\r\n"].contains(&rest.as_str()),
                    "{how:?} {form} {length:?}: {rest:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_passing_upload_that_is_reset_is_reset_over_http2() {
    let identity = tls::identity(&["127.0.0.1"], &["h2"]);
    let (report, reports) = mpsc::unbounded_channel();
    let mut arrivals = Arrivals(reports);
    let table = serve_frames(&identity, "a", move |mut frames| {
        let report = report.clone();
        async move {
            while let Some((kind, flags, _, payload)) = frames.stream_frame().await {
                let said = match kind {
                    DATA | HEADERS if flags & END_STREAM != 0 => "ended".to_owned(),
                    DATA if payload.ends_with(b"the beginning") => "arrived".to_owned(),
                    RST_STREAM if payload != [0; 4] => "reset".to_owned(),
                    RST_STREAM => "reset with NO_ERROR".to_owned(),
                    _ => continue,
                };
                let _ = report.send(said);
            }
        }
    })
    .await;
    let gateway = Gateway::configured(&table).await;
    for how in BREAKS {
        for form in [false, true] {
            for length in [None, Some(1000)] {
                break_upload(&gateway, form, length, how, &mut arrivals).await;
                assert_eq!(arrivals.next().await, "reset", "{how:?} {form} {length:?}");
            }
        }
    }
}

/// An upload whose announced length has arrived is complete only with its END_STREAM flag.
#[tokio::test]
async fn an_upload_of_full_length_that_is_reset_is_broken_off() {
    let (gateway, mut arrivals) = before_http1_upstream().await;
    for how in BREAKS {
        let mut frames = Frames::open(gateway.address).await;
        let length = Some("the beginning and the end".len());
        post(&mut frames, 1, "/v1/files", "application/octet-stream", length).await;
        frames.send(DATA, 0, 1, b"the beginning").await;
        arrivals.next().await;
        frames.send(DATA, 0, 1, b" and the end").await;
        // The gateway acknowledges a ping after it has read the data.
        frames.send(PING, 0, 0, &[0; 8]).await;
        while frames.frame().await.expect("an answer to the ping").0 != PING {}
        let _frames = how.apply(frames).await;
        assert_eq!(arrivals.next().await, "", "{how:?}");
    }
}

/// The end of an upload is its END_STREAM flag. A body that ends so is passed on, also with trailers.
#[tokio::test]
async fn an_upload_that_ends_is_passed_on_whole() {
    let (sim, gateway) = gateway_with_sim("").await;
    let ends = ["with its data", "after its data", "with trailers"];
    for (end, length) in ends.iter().flat_map(|end| [(*end, None), (*end, Some(8))]) {
        let mut frames = Frames::open(gateway.address).await;
        post(&mut frames, 1, "/v1/files", "application/octet-stream", length).await;
        let flags = if end == "with its data" { END_STREAM } else { 0 };
        frames.send(DATA, flags, 1, b"the file").await;
        if end == "after its data" {
            frames.send(DATA, END_STREAM, 1, b"").await;
        } else if end == "with trailers" {
            let block = fields(&[("x-checksum", "1")]);
            frames.send(HEADERS, END_HEADERS | END_STREAM, 1, &block).await;
        }
        frames.outcome().await;
        let seen = sim.requests();
        assert_eq!(seen.last().expect("a request").body, "the file", "{end} {length:?}");
    }
}
