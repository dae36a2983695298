//! The same over HTTP/2, and what only HTTP/2 can say (RFC 9113 section 8).

use super::{
    Asked, Row, SOUND, Sent, house,
    recorder::{Message, Recorder},
};
use crate::kit::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Outcome, fields};

type Field = (Vec<u8>, Vec<u8>);

/// A request that only frames can say.
struct Told {
    name: &'static str,
    /// In this order.
    fields: Vec<Field>,
    body: Option<&'static str>,
    trailers: Vec<Field>,
    expected: Expected,
}

enum Expected {
    /// The stream is reset, or the connection ends: nobody hears of it.
    Reset,
    /// It is answered with this status and code: nobody else hears of it.
    Refused(u16, &'static str),
    /// It is passed on with these fields, beside those that every request has.
    Passes(&'static str, Vec<&'static str>, &'static str),
}

fn field(name: &str, value: impl AsRef<[u8]>) -> Field {
    (name.as_bytes().to_vec(), value.as_ref().to_vec())
}

/// `GET /v1/files/x` with these fields behind its own.
fn get(name: &'static str, more: &[(&str, &str)]) -> Told {
    let mut told = Told {
        name,
        fields: vec![
            field(":method", "GET"),
            field(":scheme", "http"),
            field(":authority", "it"),
            field(":path", "/v1/files/x"),
            field("x-request-id", "hostile"),
        ],
        body: None,
        trailers: Vec::new(),
        expected: Expected::Reset,
    };
    told.fields.extend(more.iter().map(|(name, value)| field(name, value)));
    told
}

/// `POST /v1/responses` with a body.
fn post(name: &'static str, more: &[(&str, &str)], body: &'static str) -> Told {
    let mut told = get(name, more)
        .with(":method", Some("POST"))
        .with(":path", Some("/v1/responses"));
    told.fields.push(field("content-type", "application/json"));
    told.body = Some(body);
    told
}

impl Told {
    /// Another value of a field, or none.
    fn with(mut self, name: &str, value: Option<&str>) -> Self {
        match value {
            None => self.fields.retain(|(known, _)| known != name.as_bytes()),
            Some(value) => {
                let known = self.fields.iter_mut().find(|(known, _)| known == name.as_bytes());
                known.expect("it is there").1 = value.as_bytes().to_vec();
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

fn rows() -> Vec<Told> {
    let mut rows = vec![
        get("a field in capitals", &[("X-A", "1")]),
        get("Connection", &[("connection", "close")]),
        get("Connection that names a field", &[("connection", "x-a"), ("x-a", "1")]),
        get("Transfer-Encoding", &[("transfer-encoding", "chunked")]),
        get("Keep-Alive", &[("keep-alive", "5")]),
        get("Upgrade", &[("upgrade", "h2c")]),
        get("Proxy-Connection", &[("proxy-connection", "close")]),
        get("TE that is no trailers", &[("te", "gzip")]),
        get("TE: trailers", &[("te", "trailers")]).passes("GET /v1/files/x HTTP/1.1", &[], ""),
        get("no path", &[]).with(":path", None),
        get("no method", &[]).with(":method", None),
        get("no scheme", &[]).with(":scheme", None),
        get("an empty path", &[]).with(":path", Some("")),
        get("two paths", &[(":path", "/v1/files/y")]),
        get("two methods", &[(":method", "POST")]),
        get("two authorities", &[(":authority", "other")]),
        get("a pseudo-field behind a field", &[("x-a", "1"), (":authority", "it")]),
        get("a pseudo-field that is none", &[(":protocol", "websocket")]),
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
        post("a length that is none", &[("content-length", "x")], SOUND),
        post("a negative length", &[("content-length", "-1")], SOUND),
    ];
    rows.extend([
        get("a Host that is another", &[("host", "other")]).refused(400, "ambiguous_target"),
        get("two hosts", &[("host", "it"), ("host", "it")]).refused(400, "bad_host"),
        get("no authority", &[])
            .with(":authority", None)
            .refused(400, "bad_host"),
        get("a Host instead", &[("host", "it")])
            .with(":authority", None)
            .passes("GET /v1/files/x HTTP/1.1", &[], ""),
        get("the same Host", &[("host", "it")]).passes("GET /v1/files/x HTTP/1.1", &[], ""),
        get("user information", &[])
            .with(":authority", Some("user@it"))
            .refused(400, "bad_host"),
        get("dots", &[])
            .with(":path", Some("/v1/files/../x"))
            .refused(400, "ambiguous_target"),
        get("encoded dots", &[])
            .with(":path", Some("/v1/%2e%2e/x"))
            .refused(400, "ambiguous_target"),
        get("two slashes", &[])
            .with(":path", Some("//v1/files"))
            .refused(400, "ambiguous_target"),
        get("a method in small letters", &[])
            .with(":method", Some("get"))
            .refused(405, "method_not_allowed"),
        get("TRACE", &[])
            .with(":method", Some("TRACE"))
            .refused(405, "method_not_allowed"),
        get("a path that is none", &[])
            .with(":path", Some("/v2/x"))
            .refused(404, "unknown_path"),
        get(
            "what is about the caller",
            &[
                ("cookie", "a=b"),
                ("cookie", "c=d"),
                ("x-api-key", "k"),
                ("x-forwarded-for", "1"),
            ],
        )
        .passes("GET /v1/files/x HTTP/1.1", &[], ""),
        post("two models", &[], r#"{"model":"a","model":"b"}"#).refused(400, "ambiguous_body"),
        post("a body that ends early", &[], r#"{"model":"a""#).refused(400, "ambiguous_body"),
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
        let mut told = post(name, &[], SOUND);
        told.trailers = trailers.iter().map(|(name, value)| field(name, value)).collect();
        told
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
async fn what_only_http_2_says_has_one_reading_or_none() {
    let (recorder, gateway) = house().await;
    let rows = rows();
    assert!(rows.len() >= 45, "{}", rows.len());
    let mut failed = Vec::new();
    for row in rows {
        let outcome = row.outcome(gateway.address).await;
        let reached = recorder.take();
        let (is_answered, expected) = match &row.expected {
            Expected::Reset => (outcome == Outcome::Refused, Vec::new()),
            Expected::Refused(status, code) => {
                let is_it =
                    matches!(&outcome, Outcome::Answered(known, body) if known == status && code_of(body) == *code);
                (is_it, Vec::new())
            }
            Expected::Passes(line, fields, body) => {
                let message = Message::expected(line, fields, body.as_bytes().to_vec());
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

/// A row of the other tables, said in frames: what passes there passes here, and what is refused there reaches nobody.
async fn try_row(row: &Row, asked: &Asked, address: std::net::SocketAddr, recorder: &Recorder) -> Result<(), String> {
    let mut told = Told {
        name: "",
        fields: vec![
            field(":method", asked.method),
            field(":scheme", "http"),
            field(":authority", "it"),
            field(":path", &asked.target),
            field("x-request-id", "hostile"),
        ],
        body: None,
        trailers: Vec::new(),
        expected: Expected::Reset,
    };
    told.fields.extend(
        asked
            .fields
            .iter()
            .map(|(name, value)| field(&name.to_ascii_lowercase(), value)),
    );
    if !asked.body.is_empty() {
        told.fields.push(field("content-length", asked.body.len().to_string()));
    }
    let mut frames = Frames::open(address).await;
    let ends = asked.body.is_empty();
    frames
        .send_fields(if ends { END_STREAM } else { 0 }, &fields(&told.fields))
        .await;
    let mut pieces = asked.body.chunks(16 << 10).peekable();
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
async fn what_both_versions_say_is_read_alike() {
    let (recorder, gateway) = house().await;
    let (mut tried, mut failed) = (0, Vec::new());
    for row in super::all_rows() {
        let Sent::Asked(asked) = &row.sent else { continue };
        // A connection of its own would be told to end by these, and a window needs minding with the long ones.
        if asked.body.len() > 60_000 {
            continue;
        }
        tried += 1;
        failed.extend(try_row(&row, asked, gateway.address, &recorder).await.err());
    }
    assert!(tried >= 60, "{tried}");
    assert!(
        failed.is_empty(),
        "{} of {tried} rows failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}
