//! Reads the meaning of an upstream's answer from its head and as little of its body as possible.
//!
//! An answer can be withdrawn only before its first byte has reached the caller. The data that decides the [`Verdict`]
//! is therefore read ahead: a stream up to its first output, or the body of an error that may report a limit. The data that
//! was read ahead stays in the [`Relay`], so the caller gets it too, in order.
//!
//! A stream is held back no longer than `retry.decide_within` after its head, and no more than `retry.decide_bytes` of it.
//! A stream that fails, breaks or ends before its first output has not reached the caller, so the request can be sent to
//! another upstream.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue, Response, StatusCode, Version,
    header::{CONTENT_ENCODING, CONTENT_TYPE, TRANSFER_ENCODING},
};
use http_body::Body as _;
use tokio::time::{Instant, timeout_at};

use crate::{
    endpoint::Endpoint,
    policy::Verdict,
    proxy::{
        exchange::stream_failure::{FailureContext, FailureVerdict, is_judged},
        headers::names_json,
        turn::{
            answer_content::AnswerContent,
            attempts::{BufferedRest, UpstreamAnswer},
            verdict::VerdictRules,
        },
    },
    scan::{ErrorNotice, Opening, ResponseReader, error_notice},
    state::RequestLimits,
    tick::Clock,
    wire::{BodyError, Relay},
};

/// The maximum number of bytes of an error answer that are read before it is passed on.
const MAX_AHEAD: usize = 16 << 10;
/// The maximum time from the response head to the part of an error answer that decides the verdict.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum time to wait for the rest of an error answer, or for the event after an `error` event. Most often it has
/// arrived with what is before it.
const REST_TIMEOUT: Duration = Duration::from_millis(500);

/// An upstream's response whose beginning has been read.
pub(in crate::proxy) struct PeekedResponse {
    pub response: Response<Relay>,
    /// The endpoint that was called.
    pub endpoint: Endpoint,
    /// What the answer contains if it is a good one.
    pub content: AnswerContent,
    /// Reads the body as it passes; `None` if the body contains nothing that Steadfast needs.
    pub reader: Option<ResponseReader>,
    /// The number of pieces at the beginning of the body that the reader has read already.
    pub pieces_read: usize,
    pub delimiter: BodyDelimiter,
    /// The model that was requested, to judge a failure after the first output. It is set if the answer is passed on.
    pub model: Option<String>,
}

/// The delimiter of a response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum BodyDelimiter {
    /// The framing of the body: a length, chunks, or the end of its HTTP/2 stream.
    Framing,
    /// Only the end of the connection (RFC 9112 section 6.3, rule 8). A broken connection looks the same.
    ConnectionEnd,
}

impl BodyDelimiter {
    fn from_response(response: &Response<Relay>) -> Self {
        if response.body().is_decoded() {
            // A compressed body shows by itself where it ends.
            return Self::Framing;
        }
        let length = response.body().size_hint().exact();
        Self::of_head(response.version(), response.headers(), length)
    }

    fn of_head(version: Version, headers: &HeaderMap, length: Option<u64>) -> Self {
        if version == Version::HTTP_2 || length.is_some() || headers.contains_key(TRANSFER_ENCODING) {
            Self::Framing
        } else {
            Self::ConnectionEnd
        }
    }
}

/// The parts of the request on which the meaning of the answer depends.
pub(in crate::proxy) struct PeekContext<'a> {
    pub endpoint: Endpoint,
    /// What a good answer contains.
    pub content: AnswerContent,
    /// The model that was requested.
    pub model: Option<&'a str>,
    pub rules: VerdictRules<'a>,
    /// The limits to the time and the bytes for which a stream is held back.
    pub limits: RequestLimits,
    pub clock: Clock,
}

/// How reading the opening of a stream ended.
enum OpeningRead {
    /// The meaning of the answer is known.
    Decided(Verdict),
    /// The stream has failed. The event that ends it may say more about the failure.
    Suspected,
    /// The body ended or broke before any output.
    BodyEnded,
    /// The maximum number of bytes has been read, or the upstream has paused for too long. A timeout does not show that
    /// the upstream has failed: it may still generate, and the caller would pay twice.
    Undecided,
}

impl PeekContext<'_> {
    /// Reads the meaning of `response`.
    pub async fn peek(&self, response: Response<Relay>) -> UpstreamAnswer<PeekedResponse> {
        let delimiter = BodyDelimiter::from_response(&response);
        let status = response.status();
        let mut peeked = PeekedResponse {
            reader: reader(status, response.headers(), self.content),
            endpoint: self.endpoint,
            content: self.content,
            pieces_read: 0,
            delimiter,
            model: None,
            response,
        };
        let verdict = match &mut peeked.reader {
            Some(reader) if reader.is_stream() => {
                let relay = peeked.response.body_mut();
                let verdict = self.verdict_of_opening(relay, reader, &mut peeked.pieces_read).await;
                self.with_reset_of_head(verdict, peeked.response.headers())
            }
            _ if self.rules.needs_body(status) => {
                let notice = self.read_error(&mut peeked.response).await;
                self.rules.of_error(status, &notice)
            }
            _ => self.rules.of_status(status),
        };
        UpstreamAnswer {
            response: peeked,
            status,
            verdict,
        }
    }

    /// Reads a stream up to its first output. A stream can fail before it, after a head with the status 200.
    async fn verdict_of_opening(
        &self,
        relay: &mut Relay,
        reader: &mut ResponseReader,
        pieces_read: &mut usize,
    ) -> Verdict {
        if !is_judged(self.endpoint) || self.limits.decide_within.is_zero() {
            reader.end_opening();
            return Verdict::Served;
        }
        let deadline = Instant::now() + self.limits.decide_within;
        let mut read = timeout_at(deadline, self.read_opening(relay, reader, pieces_read)).await;
        if let Ok(OpeningRead::Suspected) = read {
            let deadline = deadline.min(Instant::now() + REST_TIMEOUT);
            // The future is boxed, because few streams fail and a request's future is as large as its largest branch.
            read = Box::pin(timeout_at(deadline, self.read_opening(relay, reader, pieces_read))).await;
        }
        match read {
            Ok(OpeningRead::Decided(verdict)) => {
                reader.end_opening();
                verdict
            }
            // The opening stays pending, which says that there was no output.
            Ok(OpeningRead::BodyEnded) => self.judge(reader).map_or(Verdict::Failed, FailureVerdict::verdict),
            Ok(OpeningRead::Suspected | OpeningRead::Undecided) | Err(_) => {
                reader.end_opening();
                self.judge(reader).map_or(Verdict::Served, FailureVerdict::verdict)
            }
        }
    }

    async fn read_opening(
        &self,
        relay: &mut Relay,
        reader: &mut ResponseReader,
        pieces_read: &mut usize,
    ) -> OpeningRead {
        let was_suspected = reader.failure().is_some();
        let mut read = relay.read_ahead_bytes();
        while read < self.limits.decide_bytes {
            let piece = match relay.read_ahead().await {
                Some(Ok(piece)) => piece,
                Some(Err(BodyError::Idle(_))) => break,
                Some(Err(_)) | None => return OpeningRead::BodyEnded,
            };
            read += piece.len();
            reader.feed(&piece);
            *pieces_read += 1;
            if reader.opening() == Opening::Output {
                return OpeningRead::Decided(Verdict::Served);
            }
            match self.judge(reader) {
                Some(FailureVerdict::Final(verdict)) => return OpeningRead::Decided(verdict),
                Some(FailureVerdict::Preliminary(_)) if !was_suspected => return OpeningRead::Suspected,
                Some(FailureVerdict::Preliminary(_)) | None => {}
            }
        }
        OpeningRead::Undecided
    }

    /// The verdict on a stream, with the reset that the head names if the events name none.
    fn with_reset_of_head(&self, verdict: Verdict, headers: &HeaderMap) -> Verdict {
        match verdict {
            Verdict::Limited {
                reset: None,
                scope,
                cause,
            } => Verdict::Limited {
                reset: error_notice(headers, b"", None, self.clock.unix_time()).reset,
                scope,
                cause,
            },
            verdict => verdict,
        }
    }

    /// Judges the failure that `reader` has found, if there is one.
    fn judge(&self, reader: &ResponseReader) -> Option<FailureVerdict> {
        let context = FailureContext {
            endpoint: self.endpoint,
            model: self.model,
            rules: self.rules,
        };
        let failure = reader.failure()?;
        Some(context.judge(failure, self.clock.unix_time()))
    }

    /// Reads the error that an error answer describes.
    async fn read_error(&self, response: &mut Response<Relay>) -> ErrorNotice {
        let deadline = Instant::now() + VERDICT_TIMEOUT;
        let mut body = Vec::new();
        while body.len() < MAX_AHEAD
            && let Ok(Some(Ok(piece))) = timeout_at(deadline, response.body_mut().read_ahead()).await
        {
            body.extend_from_slice(&piece);
        }
        error_notice(response.headers(), &body, self.model, self.clock.unix_time())
    }
}

impl PeekedResponse {
    /// Reads the rest of an error into memory, if it is short and arrives soon.
    pub async fn buffer_rest(&mut self) -> BufferedRest {
        let deadline = Instant::now() + REST_TIMEOUT;
        // The opening of a stream is in memory already, and may be longer than an error.
        let opening = self.reader.as_ref().filter(|reader| reader.is_stream());
        let relay = self.response.body_mut();
        let mut read = relay.read_ahead_bytes();
        let bound = MAX_AHEAD + opening.map_or(0, |_| read);
        while read < bound {
            match timeout_at(deadline, relay.read_ahead()).await {
                Ok(Some(Ok(piece))) => read += piece.len(),
                // A stream that ended before it said anything is of no use to the caller.
                Ok(None) if opening.is_some_and(says_nothing) => return BufferedRest::Broken,
                Ok(None) => return BufferedRest::Whole,
                Ok(Some(Err(_))) | Err(_) => break,
            }
        }
        match relay.is_broken() {
            true => BufferedRest::Broken,
            false => BufferedRest::Partial,
        }
    }
}

/// Whether a stream has brought neither output nor a failure.
fn says_nothing(reader: &ResponseReader) -> bool {
    reader.opening() == Opening::Pending && reader.failure().is_none()
}

/// The reader for a response body. It is `None` unless the body contains something to read (an id, a usage, an error)
/// or an end to recognize. SDKs close a stream of chat completions at `[DONE]`, before its last chunk.
fn reader(status: StatusCode, headers: &HeaderMap, content: AnswerContent) -> Option<ResponseReader> {
    let is_good = status.is_success() && status != StatusCode::PARTIAL_CONTENT && status != StatusCode::NO_CONTENT;
    if !is_good || content == AnswerContent::Nothing || headers.contains_key(CONTENT_ENCODING) {
        return None;
    }
    match (content, headers.get(CONTENT_TYPE)) {
        (AnswerContent::Object, Some(content_type)) if names_json(content_type) => Some(ResponseReader::object()),
        (AnswerContent::Object, _) => None,
        (_, Some(content_type)) if names_event_stream(content_type) => Some(ResponseReader::events()),
        (_, Some(content_type)) if !names_json(content_type) => None,
        _ => Some(ResponseReader::json()),
    }
}

fn names_event_stream(content_type: &HeaderValue) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    let start = content_type.as_bytes().get(..EVENT_STREAM.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(EVENT_STREAM))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn only_plain_answers_of_known_endpoints_are_read() {
        #[derive(Debug, PartialEq)]
        enum ReaderKind {
            Nothing,
            Events,
            Json,
        }
        let json: &[_] = &[("content-type", "application/json")];
        let events: &[_] = &[("content-type", "Text/Event-Stream; charset=utf-8")];
        let text: &[_] = &[("content-type", "text/plain")];
        let gzip: &[_] = &[("content-type", "application/json"), ("content-encoding", "gzip")];
        let utf8: &[_] = &[("content-type", "application/json; charset=utf-8")];
        for (content, status, fields, expected) in [
            (AnswerContent::NewResponse, 200, json, ReaderKind::Json),
            (AnswerContent::NewResponse, 200, &[], ReaderKind::Json),
            (AnswerContent::NewResponse, 200, events, ReaderKind::Events),
            (AnswerContent::Result, 200, events, ReaderKind::Events),
            (AnswerContent::NewResponse, 201, json, ReaderKind::Json),
            (AnswerContent::NewResponse, 202, utf8, ReaderKind::Json),
            (AnswerContent::NewResponse, 206, json, ReaderKind::Nothing),
            (AnswerContent::NewResponse, 429, json, ReaderKind::Nothing),
            (AnswerContent::Nothing, 200, json, ReaderKind::Nothing),
            (AnswerContent::Object, 200, json, ReaderKind::Json),
            (AnswerContent::Object, 201, utf8, ReaderKind::Json),
            (AnswerContent::Object, 200, &[], ReaderKind::Nothing),
            (AnswerContent::Object, 200, events, ReaderKind::Nothing),
            (AnswerContent::Object, 200, gzip, ReaderKind::Nothing),
            (AnswerContent::NewResponse, 200, text, ReaderKind::Nothing),
            (AnswerContent::NewResponse, 200, gzip, ReaderKind::Nothing),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let found = match reader(status, &head(fields), content) {
                None => ReaderKind::Nothing,
                Some(reader) if reader.is_stream() => ReaderKind::Events,
                Some(_) => ReaderKind::Json,
            };
            assert_eq!(found, expected, "{content:?} {status} {fields:?}");
        }
    }

    #[test]
    fn the_json_of_a_generation_is_read_to_its_end() {
        let mut reader = reader(StatusCode::OK, &head(&[]), AnswerContent::NewResponse).expect("a reader");
        reader.feed(b"{\"id\":\"resp_1\"}");
        reader.finish();
        assert!(reader.is_whole());
    }

    #[test]
    fn only_http1_without_framing_ends_with_the_connection() {
        let chunked = head(&[("transfer-encoding", "chunked")]);
        let none = head(&[]);
        for (version, headers, length, expected) in [
            (Version::HTTP_11, &none, None, BodyDelimiter::ConnectionEnd),
            (Version::HTTP_10, &none, None, BodyDelimiter::ConnectionEnd),
            (Version::HTTP_11, &none, Some(5), BodyDelimiter::Framing),
            (Version::HTTP_11, &chunked, None, BodyDelimiter::Framing),
            (Version::HTTP_2, &none, None, BodyDelimiter::Framing),
        ] {
            assert_eq!(
                BodyDelimiter::of_head(version, headers, length),
                expected,
                "{version:?}"
            );
        }
    }
}
