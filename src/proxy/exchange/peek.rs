//! Part of the fourth stage: what an upstream's answer means, read from its head and as little of its body as will do.

use std::time::Duration;

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, TRANSFER_ENCODING},
};
use http_body::Body as _;
use memchr::memmem::Finder;
use tokio::time::{Instant, timeout_at};

use crate::proxy::request::admit::names_json;
use crate::{
    endpoint::Endpoint,
    policy::{
        Verdict,
        verdict::{self, ErrorFacts},
    },
    scan::{ErrorNotice, FirstEvent, ResponseReader, error_notice, event_notice},
    state::{Credential, Upstream},
    tick::Clock,
    wire::Relay,
};

/// How much of a body is read before it is passed on, in bytes.
const AHEAD: usize = 16 << 10;
/// How long a body is waited for before it is passed on, from its head.
const AHEAD_FOR: Duration = Duration::from_secs(5);
/// How long the rest of a failed answer is waited for: it most often came with the head.
const REST_FOR: Duration = Duration::from_millis(500);

/// An upstream's answer, and what it means.
pub(in crate::proxy) struct Answer {
    pub response: Response<Relay>,
    /// What reads the body as it passes.
    pub reader: Option<ResponseReader>,
    /// How many of the body's pieces it has read ahead.
    pub pieces_read: usize,
    /// Nothing but the end of the connection delimits the body (RFC 9112 section 6.3, rule 8).
    pub is_unframed: bool,
    pub verdict: Verdict,
}

/// What was asked, as far as it matters here.
pub(in crate::proxy) struct Question<'a> {
    pub endpoint: Option<Endpoint>,
    pub model: Option<&'a str>,
    pub upstream: &'a Upstream,
    pub clock: Clock,
}

impl Question<'_> {
    /// Reads what `response` means.
    pub async fn judge(&self, response: Response<Relay>) -> Answer {
        let is_unframed = ends_with_connection(&response);
        let mut answer = Answer {
            reader: reader(&response, self.endpoint, is_unframed),
            pieces_read: 0,
            is_unframed,
            verdict: Verdict::Served,
            response,
        };
        let status = answer.response.status();
        answer.verdict = if answer.is_stream() {
            self.first_event(&mut answer).await
        } else if verdict::needs_body(status, self.is_ours()) {
            let notice = self.error(&mut answer.response).await;
            verdict::of_status(status, &facts(&notice), self.model_key(), self.is_ours())
        } else {
            verdict::of_status(status, &ErrorFacts::default(), self.model_key(), self.is_ours())
        };
        answer
    }

    /// A stream can fail with its first event, behind a head that says 200.
    async fn first_event(&self, answer: &mut Answer) -> Verdict {
        let (Some(reader), relay) = (&mut answer.reader, answer.response.body_mut()) else {
            return Verdict::Served;
        };
        let deadline = Instant::now() + AHEAD_FOR;
        let mut read = 0;
        while read < AHEAD {
            match timeout_at(deadline, relay.read_ahead()).await {
                Ok(Some(Ok(piece))) => {
                    read += piece.len();
                    reader.feed(&piece);
                    answer.pieces_read += 1;
                }
                // Nothing of it has reached the caller, so somebody else may do better.
                Ok(Some(Err(_))) => return Verdict::Failed,
                Ok(None) | Err(_) => break,
            }
            match reader.first_event() {
                FirstEvent::Pending => {}
                FirstEvent::Other => break,
                FirstEvent::Failure(data) => {
                    let notice = event_notice(data, self.model, self.clock.unix_time());
                    return notice.map_or(Verdict::Served, |notice| {
                        verdict::of_first_event(&facts(&notice), self.model_key(), self.is_ours())
                    });
                }
            }
        }
        Verdict::Served
    }

    async fn error(&self, response: &mut Response<Relay>) -> ErrorNotice {
        let deadline = Instant::now() + AHEAD_FOR;
        let mut body = Vec::new();
        while body.len() < AHEAD
            && let Ok(Some(Ok(piece))) = timeout_at(deadline, response.body_mut().read_ahead()).await
        {
            body.extend_from_slice(&piece);
        }
        error_notice(response.headers(), &body, self.model, self.clock.unix_time())
    }

    fn model_key(&self) -> Option<crate::ids::ModelKey> {
        self.model.map(crate::ids::ModelKey::from_name)
    }

    fn is_ours(&self) -> bool {
        matches!(self.upstream.credential, Credential::Own(_))
    }
}

impl Answer {
    /// Reads the body as [`Answer::read_to_end`] does, and masks what is confidential in what it has read: who refuses a key
    /// may quote it.
    pub async fn conceal(&mut self, confidential: &[Finder<'_>]) -> bool {
        let is_whole = self.read_to_end().await;
        self.response.body_mut().mask(confidential);
        is_whole
    }

    pub fn is_error(&self) -> bool {
        let status = self.response.status();
        status.is_client_error() || status.is_server_error()
    }

    /// Reads all of the body into memory, where it is short and here already; whether it is.
    async fn read_to_end(&mut self) -> bool {
        let deadline = Instant::now() + REST_FOR;
        let relay = self.response.body_mut();
        while relay.ahead() < AHEAD {
            match timeout_at(deadline, relay.read_ahead()).await {
                Ok(Some(Ok(_))) => {}
                Ok(None) => return true,
                Ok(Some(Err(_))) | Err(_) => break,
            }
        }
        false
    }

    fn is_stream(&self) -> bool {
        self.reader.is_some() && is_events(&self.response)
    }

    /// Whether it says in the usual words that the account has had enough: when all have, the caller is told that instead.
    pub fn is_limit(&self) -> bool {
        let status = self.response.status();
        let is_usual = status == StatusCode::TOO_MANY_REQUESTS || status.is_success();
        is_usual && matches!(self.verdict, Verdict::Limited { .. })
    }
}

fn facts(notice: &ErrorNotice) -> ErrorFacts<'_> {
    ErrorFacts {
        kind: notice.kind.as_deref(),
        code: notice.code.as_deref(),
        reset: notice.reset,
        names_model: notice.names_model,
    }
}

/// What reads the body as it passes: only where there is something to learn (an id, a usage, an error), or an end to see: SDKs
/// close a stream of chat completions at `[DONE]`, before its last chunk.
fn reader(response: &Response<Relay>, endpoint: Option<Endpoint>, is_unframed: bool) -> Option<ResponseReader> {
    let reads = match endpoint? {
        Endpoint::Responses
        | Endpoint::Compact
        | Endpoint::Response
        | Endpoint::ChatCompletions
        | Endpoint::Embeddings => true,
        Endpoint::Models | Endpoint::Other => false,
    };
    let is_plain = !response.headers().contains_key(CONTENT_ENCODING);
    if !reads || !is_plain || response.status() != StatusCode::OK {
        return None;
    }
    match response.headers().get(CONTENT_TYPE) {
        _ if is_events(response) => Some(ResponseReader::events()),
        Some(content_type) if !names_json(content_type) => None,
        _ if is_unframed => Some(ResponseReader::json_to_end()),
        _ => Some(ResponseReader::json()),
    }
}

fn is_events(response: &Response<Relay>) -> bool {
    let content_type = response
        .headers()
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    content_type
        .get(..17)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
}

fn ends_with_connection(response: &Response<Relay>) -> bool {
    response.version() != http::Version::HTTP_2
        && response.body().size_hint().exact().is_none()
        && !response.headers().contains_key(TRANSFER_ENCODING)
}
