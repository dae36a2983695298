//! The rows of the other tables, sent over HTTP/2, and rows that only HTTP/2 can carry (RFC 9113 section 8).

use super::{
    kit::{Row, SOUND, SemanticRequest, Sent, recorded_gateway},
    recorder::{RecordedMessage, Recorder},
};
use crate::kit::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Outcome, fields};

type Field = (Vec<u8>, Vec<u8>);

/// A request as HTTP/2 frames, and the expected result.
struct FrameRow {
    name: &'static str,
    /// The fields, sent in this order.
    fields: Vec<Field>,
    body: Option<&'static str>,
    trailers: Vec<Field>,
    expected: Expected,
}

enum Expected {
    /// The stream is reset or the connection ends, and nothing reaches the upstream.
    Reset,
    /// The gateway responds with this status and code, and nothing reaches the upstream.
    Refused(u16, &'static str),
    /// The upstream receives this request line, these fields in addition to those of every request, and this body.
    Passes(&'static str, Vec<&'static str>, &'static str),
}

fn field(name: &str, value: impl AsRef<[u8]>) -> Field {
    (name.as_bytes().to_vec(), value.as_ref().to_vec())
}

/// A `GET /v1/files/x` request with `more` after its own fields.
fn get(name: &'static str, more: &[(&str, &str)]) -> FrameRow {
    let mut row = FrameRow {
        name,
        fields: vec![
            field(":method", "GET"),
            field(":scheme", "http"),
            field(":authority", "localhost"),
            field(":path", "/v1/files/x"),
            field("x-request-id", "hostile"),
        ],
        body: None,
        trailers: Vec::new(),
        expected: Expected::Reset,
    };
    row.fields.extend(more.iter().map(|(name, value)| field(name, value)));
    row
}

/// A `POST /v1/responses` request with a body.
fn post(name: &'static str, more: &[(&str, &str)], body: &'static str) -> FrameRow {
    let mut row = get(name, more)
        .with(":method", Some("POST"))
        .with(":path", Some("/v1/responses"));
    row.fields.push(field("content-type", "application/json"));
    row.body = Some(body);
    row
}

impl FrameRow {
    /// Replaces the value of a field, or removes the field.
    fn with(mut self, name: &str, value: Option<&str>) -> Self {
        match value {
            None => self.fields.retain(|(known, _)| known != name.as_bytes()),
            Some(value) => {
                let known = self.fields.iter_mut().find(|(known, _)| known == name.as_bytes());
                known.expect("the field exists").1 = value.as_bytes().to_vec();
            }
        }
        self
    }

    fn refused(mut self, status: u16, code: &'static str) -> Self {
        self.expected = Expected::Refused(status, code);
        self
    }

    fn passes(mut self, line: &'static str, fields: &[&'static str], body: &'static str) -> Self {
        self.expected = Expected::Passes(line, fields.to_vec(), body);
        self
    }

    async fn outcome(&self, address: std::net::SocketAddr) -> Outcome {
        let mut frames = Frames::open(address).await;
        let ends = self.body.is_none() && self.trailers.is_empty();
        frames
            .send_fields(if ends { END_STREAM } else { 0 }, &fields(&self.fields))
            .await;
        if let Some(body) = self.body {
            let end = if self.trailers.is_empty() { END_STREAM } else { 0 };
            frames.send(DATA, end, 1, body.as_bytes()).await;
        }
        if !self.trailers.is_empty() {
            frames
                .send(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&self.trailers))
                .await;
        }
        frames.outcome().await
    }
}

fn rows() -> Vec<FrameRow> {
    let mut rows = vec![
        get("a field in capitals", &[("X-A", "1")]),
        get("Connection", &[("connection", "close")]),
        get("Connection that names a field", &[("connection", "x-a"), ("x-a", "1")]),
        get("Transfer-Encoding", &[("transfer-encoding", "chunked")]),
        get("Keep-Alive", &[("keep-alive", "5")]),
        get("Upgrade", &[("upgrade", "h2c")]),
        get("Proxy-Connection", &[("proxy-connection", "close")]),
        get("TE other than trailers", &[("te", "gzip")]),
        get("TE: trailers", &[("te", "trailers")]).passes("GET /v1/files/x HTTP/1.1", &[], ""),
        get("no path", &[]).with(":path", None),
        get("no method", &[]).with(":method", None),
        get("no scheme", &[]).with(":scheme", None),
        get("an empty path", &[]).with(":path", Some("")),
        get("two paths", &[(":path", "/v1/files/y")]),
        get("two methods", &[(":method", "POST")]),
        get("two authorities", &[(":authority", "other")]),
        get(
            "a pseudo-field after a field",
            &[("x-a", "1"), (":authority", "localhost")],
        ),
        get("an unknown pseudo-field", &[(":protocol", "websocket")]),
        get("an extended CONNECT", &[(":protocol", "websocket")]).with(":method", Some("CONNECT")),
        get("a status in a request", &[(":status", "200")]),
        get("an empty name", &[("", "1")]),
        get("a name with a blank", &[("x a", "1")]),
        get("a name with a colon", &[("x:a", "1")]),
        get("a name with CR and LF", &[("x\r\nauthorization", "1")]),
        get("a value with CR and LF", &[("x-a", "1\r\nhost: other")]),
        get("a value with LF", &[("x-a", "1\nhost: other")]),
        get("a value with NUL", &[("x-a", "1\0")]),
        get("a path with a blank", &[]).with(":path", Some("/v1/files/x HTTP/1.1\r\nhost: other\r\n\r\n")),
        post("a length that is too short", &[("content-length", "5")], SOUND),
        post("a length that is too long", &[("content-length", "500")], SOUND),
        post("an invalid length", &[("content-length", "x")], SOUND),
        post("a negative length", &[("content-length", "-1")], SOUND),
    ];
    rows.extend([
        get("another Host", &[("host", "other")]).refused(400, "ambiguous_target"),
        get("two hosts", &[("host", "localhost"), ("host", "localhost")]).refused(400, "bad_host"),
        get("no authority", &[])
            .with(":authority", None)
            .refused(400, "bad_host"),
        get("a Host without an authority", &[("host", "localhost")])
            .with(":authority", None)
            .passes("GET /v1/files/x HTTP/1.1", &[], ""),
        get("the same Host", &[("host", "localhost")]).passes("GET /v1/files/x HTTP/1.1", &[], ""),
        get("an authority with user information", &[])
            .with(":authority", Some("user@it"))
            .refused(400, "bad_host"),
        get("a path with dots", &[])
            .with(":path", Some("/v1/files/../x"))
            .refused(400, "ambiguous_target"),
        get("a path with encoded dots", &[])
            .with(":path", Some("/v1/%2e%2e/x"))
            .refused(400, "ambiguous_target"),
        get("a path with two slashes", &[])
            .with(":path", Some("//v1/files"))
            .refused(400, "ambiguous_target"),
        get("a method in small letters", &[])
            .with(":method", Some("get"))
            .refused(405, "method_not_allowed"),
        get("TRACE", &[])
            .with(":method", Some("TRACE"))
            .refused(405, "method_not_allowed"),
        get("an unknown path", &[])
            .with(":path", Some("/v2/x"))
            .refused(404, "unknown_path"),
        get(
            "fields about the caller",
            &[
                ("cookie", "a=b"),
                ("cookie", "c=d"),
                ("x-api-key", "k"),
                ("x-forwarded-for", "1"),
            ],
        )
        .passes("GET /v1/files/x HTTP/1.1", &[], ""),
        post("two models", &[], r#"{"model":"a","model":"b"}"#).refused(400, "ambiguous_body"),
        post("a body that ends early", &[], r#"{"model":"a""#).refused(400, "invalid_json"),
        post("a body without a length", &[], SOUND).passes(
            "POST /v1/responses HTTP/1.1",
            &["content-type: application/json", "transfer-encoding: chunked"],
            SOUND,
        ),
        post("a body with its length", &[("content-length", "32")], SOUND).passes(
            "POST /v1/responses HTTP/1.1",
            &["content-type: application/json", "content-length: 32"],
            SOUND,
        ),
    ]);
    let trailing = |name, trailers: &[(&str, &str)]| {
        let mut row = post(name, &[], SOUND);
        row.trailers = trailers.iter().map(|(name, value)| field(name, value)).collect();
        row
    };
    rows.extend([trailing(
        "trailers",
        &[
            (":path", "/v1/files/x"),
            ("authorization", "Bearer other"),
            ("content-length", "5"),
        ],
    )
    .passes(
        "POST /v1/responses HTTP/1.1",
        &["content-type: application/json", "transfer-encoding: chunked"],
        SOUND,
    )]);
    rows
}

fn code_of(body: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    value["error"]["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn hostile_http2_requests_are_refused_or_forwarded_unambiguously() {
    let (recorder, gateway) = recorded_gateway().await;
    let rows = rows();
    assert!(rows.len() >= 45, "{}", rows.len());
    let mut failed = Vec::new();
    for row in rows {
        let outcome = row.outcome(gateway.address).await;
        let reached = recorder.take();
        let (is_answered, expected) = match &row.expected {
            Expected::Reset => (outcome == Outcome::Refused, Vec::new()),
            Expected::Refused(status, code) => {
                let matches_code =
                    matches!(&outcome, Outcome::Answered(known, body) if known == status && code_of(body) == *code);
                (matches_code, Vec::new())
            }
            Expected::Passes(line, fields, body) => {
                let message = RecordedMessage::expected(line, fields, body.as_bytes().to_vec());
                (matches!(outcome, Outcome::Answered(200, _)), vec![message])
            }
        };
        if !is_answered || reached != expected {
            failed.push(format!("{}: {outcome:?}, and {reached:?} arrived", row.name));
        }
    }
    assert!(
        failed.is_empty(),
        "{} rows failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

/// Sends a row of the other tables as frames. A request that passes over HTTP/1.1 must also pass over HTTP/2. A request
/// that is refused over HTTP/1.1 must not reach the upstream over HTTP/2.
async fn try_row(
    row: &Row,
    request: &SemanticRequest,
    address: std::net::SocketAddr,
    recorder: &Recorder,
) -> Result<(), String> {
    let mut frame_row = FrameRow {
        name: "",
        fields: vec![
            field(":method", request.method),
            field(":scheme", "http"),
            field(":authority", "localhost"),
            field(":path", &request.target),
            field("x-request-id", "hostile"),
        ],
        body: None,
        trailers: Vec::new(),
        expected: Expected::Reset,
    };
    frame_row.fields.extend(
        request
            .fields
            .iter()
            .map(|(name, value)| field(&name.to_ascii_lowercase(), value)),
    );
    if !request.body.is_empty() {
        frame_row
            .fields
            .push(field("content-length", request.body.len().to_string()));
    }
    let mut frames = Frames::open(address).await;
    let ends = request.body.is_empty();
    frames
        .send_fields(if ends { END_STREAM } else { 0 }, &fields(&frame_row.fields))
        .await;
    let mut pieces = request.body.chunks(16 << 10).peekable();
    while let Some(piece) = pieces.next() {
        let end = if pieces.peek().is_none() { END_STREAM } else { 0 };
        frames.send(DATA, end, 1, piece).await;
    }
    let (outcome, reached) = (frames.outcome().await, recorder.take());
    let refuses = row.answers.first().is_some_and(|(status, _)| *status >= 400);
    match outcome {
        Outcome::Answered(200, _) if !refuses && reached == row.reached => Ok(()),
        Outcome::Answered(400.., _) | Outcome::Refused if refuses && reached.is_empty() => Ok(()),
        other => Err(format!("{}: {other:?}, and {reached:?} arrived", row.name)),
    }
}

#[tokio::test]
async fn a_request_is_read_in_the_same_way_over_both_http_versions() {
    let (recorder, gateway) = recorded_gateway().await;
    let (mut tried, mut failed) = (0, Vec::new());
    for row in super::all_rows() {
        let Sent::Request(request) = &row.sent else { continue };
        // This client does not track the flow-control window, so it sends no long bodies.
        if request.body.len() > 60_000 {
            continue;
        }
        tried += 1;
        failed.extend(try_row(&row, request, gateway.address, &recorder).await.err());
    }
    assert!(tried >= 60, "{tried}");
    assert!(
        failed.is_empty(),
        "{} of {tried} rows failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}
