//! Reads a response body while it is forwarded.

use super::{
    events::EventStreamReader,
    opening::{Opening, StreamFailure},
    outline::{ChoiceReading, ResponseOutline},
    terminal::Terminal,
    usage::Usage,
};
use crate::{ids::EncryptedContent, scan::json::scanner::Scanner};

/// Reads a response body as it arrives, in pieces of any size. It copies only the id, and events that are or may be a
/// failure.
///
/// A body that is not valid JSON, or not an event stream, is not an error. The reader finds no facts in it, and the
/// client receives it unchanged.
///
/// ```
/// use steadfast::scan::{ResponseReader, Terminal};
///
/// let mut reader = ResponseReader::events();
/// reader.feed(b"data: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\"}}\n\n");
/// assert_eq!(reader.response_id(), Some("resp_1"));
/// reader.feed(b"data: {\"type\":\"response.completed\",\"response\":{}}\n");
/// assert!(!reader.is_terminal());
/// reader.feed(b"\n");
/// assert_eq!(reader.terminal(), Some(Terminal::Completed));
/// ```
pub struct ResponseReader(ReaderMode);

enum ReaderMode {
    Events(Box<EventStreamReader>),
    Json {
        scanner: Box<Scanner<ResponseOutline>>,
        extent: JsonExtent,
    },
    /// A JSON body of which nothing more is read: all facts are known, or the body is broken.
    Done(JsonFacts),
}

/// How far a JSON body must be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum JsonExtent {
    /// Until all facts are known.
    Facts,
    /// To the end.
    WholeBody,
}

/// The facts of a JSON body.
struct JsonFacts {
    id: Option<String>,
    encrypted: Vec<EncryptedContent>,
    usage: Option<Usage>,
    /// Whether the root object has been read to its end.
    is_whole: bool,
}

impl ResponseReader {
    /// A reader of a `text/event-stream`. The id is `response.id` of the first event that contains one, among
    /// `response.created` and the events that end a response.
    pub fn events() -> Self {
        Self(ReaderMode::Events(Box::default()))
    }

    /// A reader of a JSON body. The id is the top-level `id`. The body is read until its id, the items of `output`, and
    /// `usage` are known.
    pub fn json() -> Self {
        Self::read_json(JsonExtent::Facts)
    }

    /// A reader of a JSON body that reads to the end, to tell whether the body [is whole](Self::is_whole).
    pub fn json_to_end() -> Self {
        Self::read_json(JsonExtent::WholeBody)
    }

    fn read_json(extent: JsonExtent) -> Self {
        let scanner = Box::new(ResponseOutline::scanner(ChoiceReading::Skip));
        Self(ReaderMode::Json { scanner, extent })
    }

    /// Whether this is a reader of an event stream.
    pub fn is_stream(&self) -> bool {
        matches!(self.0, ReaderMode::Events(_))
    }

    /// Reads the next piece of the body.
    pub fn feed(&mut self, chunk: &[u8]) {
        match &mut self.0 {
            ReaderMode::Events(events) => events.feed(chunk),
            ReaderMode::Json { scanner, extent } => {
                let is_broken = scanner.feed(chunk).is_err();
                let outline = scanner.visitor_mut();
                if is_broken || *extent == JsonExtent::Facts && outline.is_complete() {
                    self.0 = ReaderMode::Done(JsonFacts {
                        id: outline.id.take(),
                        encrypted: std::mem::take(&mut outline.encrypted),
                        usage: outline.usage.usage(),
                        is_whole: false,
                    });
                }
            }
            ReaderMode::Done(_) => {}
        }
    }

    /// Ends the body, and reads the last block of a JSON body.
    pub fn finish(&mut self) {
        if let ReaderMode::Json { scanner, .. } = &mut self.0 {
            let mut scanner = std::mem::replace(&mut **scanner, ResponseOutline::scanner(ChoiceReading::Skip));
            // The encrypted content of a broken body is kept. All other facts of it are dropped.
            let mut encrypted = std::mem::take(&mut scanner.visitor_mut().encrypted);
            let (outline, is_whole) = match scanner.finish() {
                Ok(outline) => (outline, true),
                Err(_) => (ResponseOutline::default(), false),
            };
            encrypted.extend(outline.encrypted);
            self.0 = ReaderMode::Done(JsonFacts {
                id: outline.id,
                encrypted,
                usage: outline.usage.usage(),
                is_whole,
            });
        }
    }

    /// The response's id, once it is known. An id of more than 256 bytes is ignored.
    pub fn response_id(&self) -> Option<&str> {
        match &self.0 {
            ReaderMode::Events(events) => events.facts.id.as_deref(),
            ReaderMode::Json { scanner, .. } => scanner.visitor().id.as_deref(),
            ReaderMode::Done(facts) => facts.id.as_deref(),
        }
    }

    /// Takes the encrypted content of the response's items that has been read and not been taken yet. At most 64 contents
    /// wait to be taken, and more are dropped.
    ///
    /// In an event stream they are read from `response.output_item.done`, or from the event that ends the response if there
    /// was no such event. In a JSON body they are read from the items of `output`, which includes compactions.
    pub fn take_encrypted(&mut self) -> Vec<EncryptedContent> {
        std::mem::take(match &mut self.0 {
            ReaderMode::Events(events) => &mut events.facts.encrypted,
            ReaderMode::Json { scanner, .. } => &mut scanner.visitor_mut().encrypted,
            ReaderMode::Done(facts) => &mut facts.encrypted,
        })
    }

    /// The tokens that the response has used, once they are known. In an event stream they are read from the event that
    /// ends the response, or from the last chunk of a chat completion with a usage; in a JSON body from `usage`.
    pub fn usage(&self) -> Option<Usage> {
        match &self.0 {
            ReaderMode::Events(events) => events.facts.usage,
            ReaderMode::Json { scanner, .. } => scanner.visitor().usage.usage(),
            ReaderMode::Done(facts) => facts.usage,
        }
    }

    /// The opening of an event stream, as far as it is known.
    pub fn opening(&self) -> Opening {
        match &self.0 {
            ReaderMode::Events(events) => events.facts.opening.opening(),
            ReaderMode::Json { .. } | ReaderMode::Done(_) => Opening::Output,
        }
    }

    /// Ends a pending opening, because the stream is passed on now. A failure that follows is kept only up to
    /// [`StreamFailure::MAX_LATE`] bytes.
    pub fn end_opening(&mut self) {
        if let ReaderMode::Events(events) = &mut self.0 {
            events.facts.opening.end_opening();
        }
    }

    /// The events in which an event stream reports a failure, as far as they have been read completely. An `error` event is
    /// forgotten if output follows it.
    pub fn failure(&self) -> Option<StreamFailure<'_>> {
        match &self.0 {
            ReaderMode::Events(events) => events.facts.opening.failure(),
            ReaderMode::Json { .. } | ReaderMode::Done(_) => None,
        }
    }

    /// Whether an event stream would be incomplete if it ended now: a Responses stream, or a Messages stream, without the
    /// event that ends it. Streams of chat completions do not always have such an event.
    pub fn lacks_end(&self) -> bool {
        match &self.0 {
            ReaderMode::Events(events) => events.facts.needs_end && events.facts.terminal.is_none(),
            ReaderMode::Json { .. } | ReaderMode::Done(_) => false,
        }
    }

    /// Whether the content of the body shows that the body is complete. An event stream is complete after a terminal
    /// event. A JSON body is complete after the end of its root object; that is known only after
    /// [`ResponseReader::finish`] of a reader that was made by [`ResponseReader::json_to_end`].
    ///
    /// This distinguishes a complete body from a truncated one if the framing cannot.
    pub fn is_whole(&self) -> bool {
        match &self.0 {
            ReaderMode::Events(_) => self.is_terminal(),
            ReaderMode::Json { .. } => false,
            ReaderMode::Done(facts) => facts.is_whole,
        }
    }

    /// Whether the event that ends the response has been read completely. A client that closes the connection after it
    /// has missed nothing.
    pub fn is_terminal(&self) -> bool {
        self.terminal().is_some()
    }

    /// How the response ended, once the event that ends it has been read completely.
    pub fn terminal(&self) -> Option<Terminal> {
        match &self.0 {
            ReaderMode::Events(events) => events.facts.terminal,
            ReaderMode::Json { .. } | ReaderMode::Done(_) => None,
        }
    }
}
