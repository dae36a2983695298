//! Response bodies that Steadfast has made.

use bytes::Bytes;
use http_body::Frame;

use crate::proxy::{
    request_end::{RequestEnd, ResponseSummary},
    request_log::Outcome,
    turn::limits::FinalUsage,
};

/// A body that Steadfast has made.
pub(super) struct OwnBody {
    text: Bytes,
    kind: OwnBodyKind,
    /// The end of the request. It is taken when the request ends.
    end: Option<RequestEnd>,
}

/// The content of a body that Steadfast has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum OwnBodyKind {
    /// The answer to the request.
    Answer,
    /// An error. The request counts as refused even if the caller does not wait for the error.
    Error,
}

impl OwnBody {
    /// A body that ends the request with `end`.
    pub fn new(text: Bytes, kind: OwnBodyKind, end: RequestEnd) -> Self {
        let mut body = Self {
            text,
            kind,
            end: Some(end),
        };
        if body.text.is_empty() {
            body.end(Some(body.outcome()), 0);
        }
        body
    }

    /// The text that has not been passed on yet.
    pub fn rest(&self) -> &[u8] {
        &self.text
    }

    /// Passes the text on.
    pub fn poll_frame(&mut self) -> Option<Frame<Bytes>> {
        if self.text.is_empty() {
            return None;
        }
        let text = std::mem::take(&mut self.text);
        self.end(Some(self.outcome()), text.len() as u64);
        Some(Frame::data(text))
    }

    /// The outcome once the caller has the whole body.
    fn outcome(&self) -> Outcome {
        match self.kind {
            OwnBodyKind::Answer => Outcome::Complete,
            OwnBodyKind::Error => Outcome::Refused,
        }
    }

    fn end(&mut self, outcome: Option<Outcome>, bytes_out: u64) {
        if let Some(end) = self.end.take() {
            let summary = ResponseSummary {
                bytes_out,
                usage: FinalUsage::NONE,
                lease: None,
            };
            end.end(outcome, summary);
        }
    }
}

impl Drop for OwnBody {
    fn drop(&mut self) {
        let outcome = (self.kind == OwnBodyKind::Error).then_some(Outcome::Refused);
        self.end(outcome, 0);
    }
}
