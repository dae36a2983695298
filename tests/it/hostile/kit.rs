//! The rows of the tables: the content of a row, and how it is sent over HTTP/1.1.

use std::{net::SocketAddr, sync::Arc};

use tokio::io::AsyncWriteExt as _;

use super::recorder::{RecordedMessage, Recorder};
use crate::kit::{
    gateway::{self, Gateway},
    wire::{End, Wire},
};

/// A valid request body.
pub const SOUND: &str = r#"{"model":"gpt-5.2","input":"hi"}"#;
/// The request that follows a row after which the gateway closes the connection. The gateway must never read it as a
/// request.
pub const SMUGGLED: &str = "GET /v1/files/smuggled HTTP/1.1\r\nhost: localhost\r\nx-request-id: hostile\r\n\r\n";
/// The request that follows every other row. The gateway must answer it.
pub const NEXT: &str = "GET /v1/files/next HTTP/1.1\r\nhost: localhost\r\nx-request-id: hostile\r\n\r\n";

/// One row of the table.
pub struct Row {
    pub name: String,
    /// The bytes or the request that the client sends.
    pub sent: Sent,
    /// The expected responses: the status and, for an error of the gateway, the code.
    pub answers: Vec<(u16, &'static str)>,
    /// The expected fate of the connection after the responses.
    pub fate: Fate,
    /// The messages that the upstream receives.
    pub reached: Vec<RecordedMessage>,
}

/// The bytes or the request that the client of a row sends.
pub enum Sent {
    /// Bytes that only HTTP/1.1 can carry.
    Raw(Vec<u8>),
    /// A request that every version of HTTP can carry.
    Request(SemanticRequest),
}

/// A request in the terms of RFC 9110, without the syntax of one HTTP version.
pub struct SemanticRequest {
    pub method: &'static str,
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// The fate of a connection after the responses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The connection serves the next request.
    StaysOpen,
    /// The gateway closes the connection.
    Closes,
    /// The client ends its sending side, and the gateway then closes the connection.
    ClientEnds,
}

impl Row {
    pub fn new(name: impl Into<String>, sent: Sent) -> Self {
        Self {
            name: name.into(),
            sent,
            answers: Vec::new(),
            fate: Fate::StaysOpen,
            reached: Vec::new(),
        }
    }

    pub fn raw(name: impl Into<String>, sent: impl Into<Vec<u8>>) -> Self {
        Self::new(name, Sent::Raw(sent.into()))
    }

    /// A request that can be sent in either version; a `content-length` is added for its body.
    pub fn request(name: impl Into<String>, method: &'static str, target: &str, fields: &[(&str, &str)]) -> Self {
        let fields = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let request = SemanticRequest {
            method,
            target: target.to_owned(),
            fields: fields.collect(),
            body: Vec::new(),
        };
        Self::new(name, Sent::Request(request))
    }

    /// A request to `/v1/responses` with a JSON body, in either version.
    pub fn json(name: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self::request(name, "POST", "/v1/responses", &[("content-type", "application/json")]).with_body(body)
    }

    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        if let Sent::Request(request) = &mut self.sent {
            request.body = body.into();
        }
        self
    }

    /// Expects one more response, with this status and error code.
    pub fn answered(mut self, status: u16, code: &'static str) -> Self {
        self.answers.push((status, code));
        self
    }

    /// Expects that the upstream receives this message, with the additional fields that the gateway sends to every
    /// upstream.
    pub fn reaches(mut self, line: &str, fields: &[&str], body: impl Into<Vec<u8>>) -> Self {
        self.reached.push(RecordedMessage::expected(line, fields, body.into()));
        self.answered(200, "")
    }

    /// Expects that the upstream receives the request unchanged.
    pub fn passes(self) -> Self {
        let Sent::Request(request) = &self.sent else {
            panic!("{}: a row of raw bytes needs `reaches`", self.name)
        };
        let (line, body) = (
            format!("{} {} HTTP/1.1", request.method, request.target),
            request.body.clone(),
        );
        let lines: Vec<String> = request.lines().collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        self.reaches(&line, &lines, body)
    }

    /// Expects that the gateway closes the connection.
    pub fn closes(mut self) -> Self {
        self.fate = Fate::Closes;
        self
    }

    /// Lets the client end its sending side after the request.
    pub fn client_ends(mut self) -> Self {
        self.fate = Fate::ClientEnds;
        self
    }

    /// Returns the bytes of the row in HTTP/1.1.
    pub fn over_http1(&self) -> Vec<u8> {
        match &self.sent {
            Sent::Raw(bytes) => bytes.clone(),
            Sent::Request(request) => {
                let lines: Vec<String> = request.lines().collect();
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                let head = head(&format!("{} {} HTTP/1.1", request.method, request.target), &lines);
                [head.as_bytes(), &request.body].concat()
            }
        }
    }

    /// Sends the row on a connection of its own. Checks the responses, the connection and the messages that the
    /// upstream received.
    pub async fn run(&self, address: SocketAddr, recorder: &Recorder) {
        let mut wire = Wire::open(address).await;
        let mut bytes = self.over_http1();
        if self.fate == Fate::Closes {
            bytes.extend_from_slice(SMUGGLED.as_bytes());
        }
        wire.send(bytes).await;
        if self.fate == Fate::ClientEnds {
            wire.stream.shutdown().await.expect("the socket shuts down");
        }
        for expected in &self.answers {
            let answer = wire.answer().await;
            assert_eq!(answer.end, End::Whole, "{answer:?}");
            let code = if answer.status < 300 {
                String::new()
            } else {
                answer.error_code()
            };
            assert_eq!((answer.status, code.as_str()), *expected, "{answer:?}");
        }
        let mut reached: Vec<RecordedMessage> = self.reached.clone();
        if self.fate == Fate::StaysOpen {
            wire.send(NEXT).await;
            let answer = wire.answer().await;
            assert_eq!(answer.status, 200, "the connection is out of step: {answer:?}");
            reached.push(RecordedMessage::expected(
                "GET /v1/files/next HTTP/1.1",
                &[],
                Vec::new(),
            ));
        } else {
            wire.closing().await;
            assert_eq!(wire.rest(), "");
        }
        assert_eq!(recorder.take(), reached);
    }
}

impl SemanticRequest {
    /// Returns the field lines of the request, with its `content-length`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let length = (!self.body.is_empty()).then(|| format!("content-length: {}", self.body.len()));
        let fields = self.fields.iter().map(|(name, value)| format!("{name}: {value}"));
        fields.chain(length)
    }
}

/// Returns a request head with these field lines in addition to the fields that every request here has.
pub fn head(line: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{line}\r\nhost: localhost\r\nx-request-id: hostile\r\n{lines}\r\n")
}

/// Starts a gateway in front of an upstream that records every byte that it receives.
pub async fn recorded_gateway() -> (Arc<Recorder>, Gateway) {
    recorded_gateway_with("").await
}

/// Like `recorded_gateway`, with further configuration tables.
pub async fn recorded_gateway_with(tables: &str) -> (Arc<Recorder>, Gateway) {
    let recorder = Recorder::start().await;
    let upstream = gateway::upstream_at("a", &format!("http://{}/v1", recorder.address), "");
    let gateway = Gateway::configured(&format!("[server]\nmax_body = \"1MiB\"\n{tables}{upstream}")).await;
    (recorder, gateway)
}

/// Tries every row, then fails with a list of all rows that failed.
pub async fn run(rows: Vec<Row>) {
    let (recorder, gateway) = recorded_gateway().await;
    let address = gateway.address;
    let mut failed = Vec::new();
    for row in rows {
        let name = row.name.clone();
        // Each row runs in its own task, so that a row that panics does not hide the others.
        let result = {
            let recorder = recorder.clone();
            tokio::spawn(async move { row.run(address, &recorder).await }).await
        };
        if let Err(error) = result {
            failed.push(format!("{name}: {error}"));
            recorder.take();
        }
    }
    let left = recorder.take();
    assert!(left.is_empty(), "unexpected messages at the upstream: {left:?}");
    assert!(
        failed.is_empty(),
        "{} rows failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}
