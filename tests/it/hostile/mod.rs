//! A table of hostile requests: what is sent, what is answered, and every byte that an upstream saw of it.
//!
//! A row is refused before anyone hears of it, or reaches the upstream with the one reading that it has. Whatever a
//! row does to its connection is tried as well: behind a row that closes it stands a request that must never be read
//! as one, and behind any other a request that must be answered.

mod bodies;
mod broken;
mod costs;
mod encodings;
mod fields;
mod framing;
mod http2;
mod json;
mod recorder;
mod targets;

use std::{net::SocketAddr, sync::Arc};

use tokio::io::AsyncWriteExt as _;

use self::recorder::{Message, Recorder};
use crate::kit::{
    gateway::{self, Gateway},
    wire::{End, Wire},
};

/// A body that is in order.
const SOUND: &str = r#"{"model":"gpt-5.2","input":"hi"}"#;
/// Stands behind what closes its connection.
const SMUGGLED: &str = "GET /v1/files/smuggled HTTP/1.1\r\nhost: it\r\nx-request-id: hostile\r\n\r\n";
/// Stands behind what does not.
const NEXT: &str = "GET /v1/files/next HTTP/1.1\r\nhost: it\r\nx-request-id: hostile\r\n\r\n";

/// One row of the table.
struct Row {
    name: String,
    sent: Sent,
    /// Status and, where it is ours, the code of each answer.
    answers: Vec<(u16, &'static str)>,
    then: Then,
    reached: Vec<Message>,
}

enum Sent {
    /// Bytes that only HTTP/1.1 has.
    Raw(Vec<u8>),
    /// What any version of HTTP can say.
    Asked(Asked),
}

/// A request in the terms of RFC 9110.
struct Asked {
    method: &'static str,
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What becomes of the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Stays,
    Closes,
    /// The client sends no more, and says so.
    ClientEnds,
}

impl Row {
    fn new(name: impl Into<String>, sent: Sent) -> Self {
        Self {
            name: name.into(),
            sent,
            answers: Vec::new(),
            then: Then::Stays,
            reached: Vec::new(),
        }
    }

    fn raw(name: impl Into<String>, sent: impl Into<Vec<u8>>) -> Self {
        Self::new(name, Sent::Raw(sent.into()))
    }

    /// A request in either version, which also says its length.
    fn asked(name: impl Into<String>, method: &'static str, target: &str, fields: &[(&str, &str)]) -> Self {
        let fields = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let asked = Asked {
            method,
            target: target.to_owned(),
            fields: fields.collect(),
            body: Vec::new(),
        };
        Self::new(name, Sent::Asked(asked))
    }

    /// A JSON body for `/v1/responses`, in either version.
    fn json(name: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self::asked(name, "POST", "/v1/responses", &[("content-type", "application/json")]).with_body(body)
    }

    fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        if let Sent::Asked(asked) = &mut self.sent {
            asked.body = body.into();
        }
        self
    }

    fn answered(mut self, status: u16, code: &'static str) -> Self {
        self.answers.push((status, code));
        self
    }

    /// It is passed on as this message, beside the fields that every upstream of ours gets.
    fn reaches(mut self, line: &str, fields: &[&str], body: impl Into<Vec<u8>>) -> Self {
        self.reached.push(Message::expected(line, fields, body.into()));
        self.answered(200, "")
    }

    /// It is passed on as it came.
    fn passes(self) -> Self {
        let Sent::Asked(asked) = &self.sent else {
            panic!("{}: say what is to come of it", self.name)
        };
        let (line, body) = (
            format!("{} {} HTTP/1.1", asked.method, asked.target),
            asked.body.clone(),
        );
        let lines: Vec<String> = asked.lines().collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        self.reaches(&line, &lines, body)
    }

    fn closes(mut self) -> Self {
        self.then = Then::Closes;
        self
    }

    fn client_ends(mut self) -> Self {
        self.then = Then::ClientEnds;
        self
    }

    fn over_http1(&self) -> Vec<u8> {
        match &self.sent {
            Sent::Raw(bytes) => bytes.clone(),
            Sent::Asked(asked) => {
                let lines: Vec<String> = asked.lines().collect();
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                let head = head(&format!("{} {} HTTP/1.1", asked.method, asked.target), &lines);
                [head.as_bytes(), &asked.body].concat()
            }
        }
    }

    async fn run(&self, address: SocketAddr, recorder: &Recorder) {
        let mut wire = Wire::open(address).await;
        let mut bytes = self.over_http1();
        if self.then == Then::Closes {
            bytes.extend_from_slice(SMUGGLED.as_bytes());
        }
        wire.send(bytes).await;
        if self.then == Then::ClientEnds {
            wire.stream.shutdown().await.expect("a socket");
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
        let mut reached: Vec<Message> = self.reached.clone();
        if self.then == Then::Stays {
            wire.send(NEXT).await;
            let answer = wire.answer().await;
            assert_eq!(answer.status, 200, "what follows is out of step: {answer:?}");
            reached.push(Message::expected("GET /v1/files/next HTTP/1.1", &[], Vec::new()));
        } else {
            wire.closing().await;
            assert_eq!(wire.rest(), "");
        }
        assert_eq!(recorder.take(), reached);
    }
}

impl Asked {
    /// Its field lines.
    fn lines(&self) -> impl Iterator<Item = String> {
        let length = (!self.body.is_empty()).then(|| format!("content-length: {}", self.body.len()));
        let fields = self.fields.iter().map(|(name, value)| format!("{name}: {value}"));
        fields.chain(length)
    }
}

/// A head with these field lines, beside those that every request here has.
fn head(line: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{line}\r\nhost: it\r\nx-request-id: hostile\r\n{lines}\r\n")
}

/// A gateway before an upstream that writes everything down.
async fn house() -> (Arc<Recorder>, Gateway) {
    house_with("").await
}

/// The same, with further tables.
async fn house_with(tables: &str) -> (Arc<Recorder>, Gateway) {
    let recorder = Recorder::start().await;
    let upstream = gateway::upstream_at("a", &format!("http://{}/v1", recorder.address), "");
    let gateway = Gateway::configured(&format!("[server]\nmax_body = \"1MiB\"\n{tables}{upstream}")).await;
    (recorder, gateway)
}

/// Tries every row, and then names all that failed.
async fn run(rows: Vec<Row>) {
    let (recorder, gateway) = house().await;
    let address = gateway.address;
    let mut failed = Vec::new();
    for row in rows {
        let name = row.name.clone();
        // In a task, so that one row that fails hides no other.
        let tried = {
            let recorder = recorder.clone();
            tokio::spawn(async move { row.run(address, &recorder).await }).await
        };
        if let Err(error) = tried {
            failed.push(format!("{name}: {error}"));
            recorder.take();
        }
    }
    let left = recorder.take();
    assert!(left.is_empty(), "nobody asked for {left:?}");
    assert!(
        failed.is_empty(),
        "{} rows failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

#[tokio::test]
async fn framing_has_one_reading_or_none() {
    run(framing::rows()).await;
}

#[tokio::test]
async fn chunks_have_one_reading_or_none() {
    run(bodies::rows()).await;
}

#[tokio::test]
async fn targets_have_one_reading_or_none() {
    run(targets::rows()).await;
}

#[tokio::test]
async fn fields_have_one_reading_or_none() {
    run(fields::rows()).await;
}

#[tokio::test]
async fn json_has_one_reading_or_none() {
    run(json::rows()).await;
}

#[tokio::test]
async fn codings_have_one_reading_or_none() {
    run(encodings::rows()).await;
}

#[tokio::test]
async fn a_border_between_chunks_hides_nothing() {
    run(json::split()).await;
}

fn all_rows() -> Vec<Row> {
    let tables = [
        framing::rows(),
        bodies::rows(),
        targets::rows(),
        fields::rows(),
        json::rows(),
        encodings::rows(),
    ];
    tables.into_iter().flatten().collect()
}

#[test]
fn every_row_has_a_name_of_its_own() {
    let mut names: Vec<String> = all_rows().into_iter().map(|row| row.name).collect();
    let rows = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rows);
    assert!(rows >= 120, "{rows}");
}
