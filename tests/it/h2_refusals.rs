//! Responses that end before their request does, over HTTP/2 (RFC 9113 section 8.1): the client receives the whole
//! response, and its stream is reset with NO_ERROR only if the rest of its body exceeds the limits.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::kit::{
    TIMEOUT,
    frames::{
        ACK, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, fields,
        status_of,
    },
    gateway::{Gateway, upstream_at},
    gateway_with_sim,
    keys::{ALICE, group, key},
    until,
    upstream::serve_connections,
};

/// The size of a body that is larger than all windows and buffers on its way.
const LARGE: usize = 3_000_000;
/// How many bytes of a body without a length are discarded.
const MAX_DISCARDED: usize = 1 << 20;
/// The time for discarding after the response.
const LINGER: Duration = Duration::from_secs(2);
const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;

/// What the server has sent on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A HEADERS frame with this status.
    Head(u16),
    /// The END_STREAM flag.
    End,
    /// A WINDOW_UPDATE frame after the end of the response.
    LateWindow,
    /// A RST_STREAM frame with this error code.
    Reset(u32),
}

/// A client that keeps to its flow-control windows (RFC 9113 section 5.2).
struct Uploader {
    frames: Frames,
    /// The initial window of a stream.
    initial: i64,
    /// The bytes that may still be sent on each stream, and on the connection (number 0).
    windows: HashMap<u32, i64>,
    events: HashMap<u32, Vec<Event>>,
}

impl Uploader {
    /// Opens a connection and exchanges the settings.
    async fn open(address: SocketAddr) -> Self {
        let mut frames = Frames::open(address).await;
        // SETTINGS_HEADER_TABLE_SIZE = 0, so that no status is an index of the dynamic table.
        frames.send(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]).await;
        let mut client = Self {
            frames,
            initial: 65_535,
            windows: HashMap::from([(0, 65_535)]),
            events: HashMap::new(),
        };
        let default = client.initial;
        while client.initial == default {
            assert!(client.read().await, "the server sends its settings");
        }
        client
    }

    /// Sends the head of a POST request that has a body.
    async fn post(&mut self, stream: u32, path: &str, more: &[(&str, &str)]) {
        let mut list = vec![
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", path),
            ("content-type", "application/json"),
        ];
        list.extend_from_slice(more);
        self.windows.insert(stream, self.initial);
        assert!(self.frames.send(HEADERS, END_HEADERS, stream, &fields(&list)).await);
    }

    /// Sends as much of `body` as the server takes before it resets the stream. Returns the number of bytes sent. The
    /// last frame has `flags`.
    async fn upload(&mut self, stream: u32, body: &[u8], flags: u8) -> usize {
        let mut sent = 0;
        while sent < body.len() && !self.is_reset(stream) {
            let window = self.windows[&stream].min(self.windows[&0]);
            let length = (body.len() - sent)
                .min(16 << 10)
                .min(usize::try_from(window).unwrap_or(0));
            if length == 0 {
                assert!(self.read().await, "the server keeps the window open: {:?}", self.events);
                continue;
            }
            let flags = if sent + length == body.len() { flags } else { 0 };
            assert!(self.frames.send(DATA, flags, stream, &body[sent..sent + length]).await);
            for number in [0, stream] {
                *self.windows.get_mut(&number).expect("an open stream") -= length as i64;
            }
            sent += length;
        }
        sent
    }

    /// Reads until `event` has come on the stream.
    async fn until(&mut self, stream: u32, event: Event) {
        while !self.events_of(stream).contains(&event) {
            assert!(self.read().await, "no {event:?}: {:?}", self.events);
        }
    }

    fn events_of(&self, stream: u32) -> &[Event] {
        self.events.get(&stream).map_or(&[], Vec::as_slice)
    }

    fn is_reset(&self, stream: u32) -> bool {
        matches!(self.events_of(stream).last(), Some(Event::Reset(_)))
    }

    /// Reads one frame. Returns `false` if the connection has ended.
    async fn read(&mut self) -> bool {
        let Some((kind, flags, stream, payload)) = self.frames.frame().await else {
            return false;
        };
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        let events = self.events.entry(stream).or_default();
        match kind {
            SETTINGS if flags & ACK == 0 => {
                for at in (0..payload.len()).step_by(6) {
                    if payload[at..at + 2] == [0, 4] {
                        self.initial = i64::from(number(at + 2));
                    }
                }
                self.frames.send(SETTINGS, ACK, 0, &[]).await;
            }
            HEADERS => events.push(Event::Head(status_of(&payload))),
            RST_STREAM => events.push(Event::Reset(number(0))),
            WINDOW_UPDATE => {
                *self.windows.entry(stream).or_default() += i64::from(number(0));
                if events.last() == Some(&Event::End) {
                    events.push(Event::LateWindow);
                }
            }
            PING if flags & ACK == 0 => {
                self.frames.send(PING, ACK, 0, &payload).await;
            }
            GOAWAY => assert_eq!(number(4), NO_ERROR),
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            self.events.entry(stream).or_default().push(Event::End);
        }
        true
    }
}

/// A JSON body of [`LARGE`] bytes.
fn large_body() -> Vec<u8> {
    let (begin, end) = (r#"{"model":"gpt-5.2","input":""#, r#""}"#);
    format!("{begin}{}{end}", "x".repeat(LARGE - begin.len() - end.len())).into_bytes()
}

/// Client keys: Alice may use no model that the tests name, and may send one request per minute.
fn keys() -> String {
    group("team", "models = [\"gpt-4*\"]") + &key("alice", ALICE, "team", "")
}

#[tokio::test]
async fn a_client_that_sends_its_whole_body_receives_the_refusal() {
    let small = "[server]\nmax_body = \"1KiB\"\n".to_owned();
    let limited = group("team", "requests_per_minute = 1") + &key("alice", ALICE, "team", "");
    let bearer = format!("Bearer {ALICE}");
    let length = LARGE.to_string();
    let with_key = [("authorization", &*bearer), ("content-length", &*length)];
    let without_key = &with_key[1..];
    let body = large_body();
    for (configuration, path, head, size, status) in [
        (keys(), "/v1/responses", without_key, LARGE, 401),
        (keys(), "/v1/files", without_key, LARGE, 401),
        (keys(), "/v1/responses", &[], MAX_DISCARDED, 401),
        (keys(), "/v1/responses", &with_key, LARGE, 403),
        (String::new(), "/nope", without_key, LARGE, 404),
        (small.clone(), "/v1/responses", without_key, LARGE, 413),
        (small, "/v1/responses", &[], MAX_DISCARDED, 413),
        (limited, "/v1/responses", &with_key, LARGE, 429),
    ] {
        let (_sim, gateway) = gateway_with_sim(&configuration).await;
        let mut client = Uploader::open(gateway.address).await;
        let mut stream = 1;
        if status == 429 {
            client.post(stream, path, &head[..1]).await;
            let served = br#"{"model":"gpt-5.2","input":"hi"}"#;
            client.upload(stream, served, END_STREAM).await;
            client.until(stream, Event::End).await;
            stream += 2;
        }
        client.post(stream, path, head).await;
        client.upload(stream, &body[..size], END_STREAM).await;
        client.until(stream, Event::End).await;
        // The stream has ended on both sides, so nothing remains to be reset.
        client.post(stream + 2, "/nope-2", &[]).await;
        client.upload(stream + 2, b"{}", END_STREAM).await;
        client.until(stream + 2, Event::End).await;
        let events = client.events_of(stream);
        assert_eq!(events[..2], [Event::Head(status), Event::End], "{path} {head:?}");
        assert!(
            events[2..].iter().all(|event| *event == Event::LateWindow),
            "{events:?}"
        );
        if status == 401 {
            assert!(events.len() > 2, "the window is kept open: {events:?}");
        }
    }
}

#[tokio::test]
async fn a_body_that_finds_no_memory_is_refused_and_discarded() {
    let (_sim, gateway) = gateway_with_sim("[server]\nmax_body = \"4MiB\"\nbuffered_bodies = \"4MiB\"\n").await;
    let body = large_body();
    let length = LARGE.to_string();
    let mut first = Uploader::open(gateway.address).await;
    first.post(1, "/v1/responses", &[("content-length", &length)]).await;
    first.upload(1, &body[..LARGE - 1], 0).await;
    // Otherwise the second could take the memory for what the gateway has not read of the first.
    until("the memory of the first body to be reserved", || async {
        (gateway.metric("steadfast_buffered_bytes").await >= (LARGE - 1) as f64).then_some(())
    })
    .await;
    let mut second = Uploader::open(gateway.address).await;
    second.post(1, "/v1/responses", &[("content-length", &length)]).await;
    assert_eq!(second.upload(1, &body, END_STREAM).await, LARGE);
    second.until(1, Event::End).await;
    assert_eq!(second.events_of(1)[..2], [Event::Head(503), Event::End]);
    assert!(!second.is_reset(1));
    // The refusal of the second does not affect the first.
    first.upload(1, &body[LARGE - 1..], END_STREAM).await;
    first.until(1, Event::End).await;
    assert_eq!(first.events_of(1)[..2], [Event::Head(200), Event::End]);
}

#[tokio::test]
async fn an_upstream_that_responds_early_is_heard() {
    for closes in [true, false] {
        let address = serve_connections(move |mut wire| async move {
            wire.head().await;
            let connection = if closes { "close" } else { "keep-alive" };
            wire.send(format!(
                "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\nconnection: {connection}\r\n\r\n{{}}"
            ))
            .await;
            if !closes {
                tokio::time::sleep(TIMEOUT).await;
            }
        })
        .await;
        let gateway = Gateway::configured(&upstream_at("a", &format!("http://{address}/v1"), "")).await;
        let mut client = Uploader::open(gateway.address).await;
        let length = LARGE.to_string();
        let fields = [("content-length", &*length)];
        client.post(1, "/v1/files", &fields).await;
        assert_eq!(
            client.upload(1, &large_body(), END_STREAM).await,
            LARGE,
            "closes: {closes}"
        );
        client.until(1, Event::End).await;
        assert_eq!(
            client.events_of(1)[..2],
            [Event::Head(400), Event::End],
            "closes: {closes}"
        );
        assert!(!client.is_reset(1));
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_reset_with_no_error_after_the_response() {
    let (_sim, gateway) = gateway_with_sim(&keys()).await;
    let body = vec![b'x'; 100 << 20];
    let length = body.len().to_string();
    for head in [&[][..], &[("content-length", &*length)]] {
        let mut client = Uploader::open(gateway.address).await;
        client.post(1, "/v1/responses", head).await;
        // The client waits for the response, so that the order of the frames is certain.
        client.until(1, Event::End).await;
        let begun = Instant::now();
        let sent = client.upload(1, &body, END_STREAM).await;
        client.until(1, Event::Reset(NO_ERROR)).await;
        // The client may send as many bytes as the window has, and it sees the reset only when the window is empty.
        let most = MAX_DISCARDED + 2 * usize::try_from(client.initial).expect("a window");
        assert!((MAX_DISCARDED..=most).contains(&sent), "{sent} bytes were discarded");
        assert!(begun.elapsed() < LINGER, "{:?}", begun.elapsed());
        let events = client.events_of(1);
        assert_eq!(events[..3], [Event::Head(401), Event::End, Event::LateWindow]);
        // The connection still serves requests.
        client.post(3, "/nope", &[]).await;
        client.upload(3, b"{}", END_STREAM).await;
        client.until(3, Event::End).await;
    }
}

#[tokio::test]
async fn a_body_that_does_not_end_in_time_is_reset_with_no_error() {
    let (_sim, gateway) = gateway_with_sim(&keys()).await;
    let mut client = Uploader::open(gateway.address).await;
    let begun = Instant::now();
    client.post(1, "/v1/responses", &[]).await;
    client.upload(1, b"{", 0).await;
    client.until(1, Event::End).await;
    assert!(begun.elapsed() < LINGER, "the response does not wait for the body");
    client.until(1, Event::Reset(NO_ERROR)).await;
    assert_eq!(
        client.events_of(1),
        [Event::Head(401), Event::End, Event::Reset(NO_ERROR)]
    );
    assert!(
        begun.elapsed() >= LINGER && begun.elapsed() < 2 * LINGER,
        "{:?}",
        begun.elapsed()
    );
}

/// Streams whose bodies are discarded count toward the limit on streams, so a client gains nothing by opening many.
#[tokio::test]
async fn streams_whose_bodies_are_discarded_count() {
    const MAX_STREAMS: u32 = 128;
    let (_sim, gateway) = gateway_with_sim(&keys()).await;
    let mut client = Uploader::open(gateway.address).await;
    let last = 2 * MAX_STREAMS + 1;
    for stream in (1..last).step_by(2) {
        client.post(stream, "/v1/responses", &[]).await;
    }
    for stream in (1..last).step_by(2) {
        client.until(stream, Event::End).await;
    }
    client.post(last, "/v1/responses", &[]).await;
    client.until(last, Event::Reset(REFUSED_STREAM)).await;
    client.until(1, Event::Reset(NO_ERROR)).await;
    client.post(last + 2, "/v1/responses", &[]).await;
    client.until(last + 2, Event::Head(401)).await;
}

#[tokio::test]
async fn discarding_does_not_delay_the_shutdown() {
    let (_sim, mut gateway) = gateway_with_sim(&keys()).await;
    let mut client = Uploader::open(gateway.address).await;
    client.post(1, "/v1/responses", &[]).await;
    client.until(1, Event::End).await;
    gateway.signal("TERM").await;
    let begun = Instant::now();
    let (status, ()) = tokio::join!(gateway.ended(), client.until(1, Event::Reset(NO_ERROR)));
    assert!(
        status.success() && begun.elapsed() < LINGER / 2,
        "{:?}",
        begun.elapsed()
    );
}
