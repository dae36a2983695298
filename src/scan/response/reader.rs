//! Reads a response body while it is forwarded.

use super::{
    events::EventStreamReader,
    opening::{Opening, StreamFailure},
    outline::{ChoiceReading, FoundObject, ItemReading, MAX_OBJECTS, ResponseOutline, ResponseRemarks},
    terminal::Terminal,
    usage::{Usage, UsageCounts},
};
use crate::{
    ids::{EncryptedContent, ObjectId},
    scan::json::scanner::Scanner,
};

/// Reads a response body as it arrives, in pieces of any size. It copies only events that are or may be a failure.
///
/// A body that is not valid JSON, or not an event stream, is not an error. The reader finds no facts in it, and the
/// client receives it unchanged.
///
/// ```
/// use steadfast::{ids::ObjectId, scan::{ResponseReader, Terminal}};
///
/// let mut reader = ResponseReader::events();
/// reader.feed(b"data: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\"}}\n\n");
/// let objects: Vec<ObjectId> = reader.drain_objects().collect();
/// assert_eq!(objects, [ObjectId::from_text(b"resp_1")]);
/// reader.feed(b"data: {\"type\":\"response.completed\",\"response\":{}}\n");
/// assert!(!reader.is_terminal());
/// reader.feed(b"\n");
/// assert_eq!(reader.terminal(), Some(Terminal::Completed));
/// ```
pub struct ResponseReader(ReaderMode);

enum ReaderMode {
    Events(Box<EventStreamReader>),
    Json(Box<JsonReader>),
}

/// Reads a JSON body.
struct JsonReader {
    /// `None` if nothing more is read: the body has ended or is broken, or all facts are known.
    scanner: Option<Scanner<ResponseOutline>>,
    extent: JsonExtent,
    /// The facts that have been taken from the scanner.
    facts: JsonFacts,
}

/// How far a JSON body must be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum JsonExtent {
    /// To the end.
    WholeBody,
    /// The beginning of an object: this many more bytes, and not further than to the elements of a list.
    Beginning(usize),
}

/// The facts of a JSON body.
#[derive(Default)]
struct JsonFacts {
    id: Option<ObjectId>,
    /// The objects that may have to be dropped, because the response is not stored.
    found: Vec<FoundObject>,
    /// The objects that have not been taken yet.
    objects: Vec<ObjectId>,
    remarks: ResponseRemarks,
    encrypted: Vec<EncryptedContent>,
    usage: UsageCounts,
    /// Whether the root object has been read to its end.
    is_whole: bool,
}

impl JsonFacts {
    /// Moves the facts that `outline` has read so far to these facts.
    fn absorb(&mut self, outline: &mut ResponseOutline) {
        self.remarks = self.remarks.replaced_by(outline.remarks);
        self.usage.replace_by(&outline.usage);
        self.encrypted.append(&mut outline.encrypted);
        if let Some(id) = outline.id.take() {
            self.id = Some(id);
            self.objects.push(id);
        }
        self.found.append(&mut outline.objects);
    }

    /// Decides which objects can be named, after everything has been read.
    fn decide(&mut self) {
        let is_stored = self.remarks.is_stored != Some(false);
        let named = self.found.drain(..).filter(|object| is_stored || !object.is_item);
        self.objects.extend(named.map(|object| object.id).take(MAX_OBJECTS));
    }
}

impl JsonReader {
    fn new(extent: JsonExtent) -> Self {
        let mut scanner = ResponseOutline::scanner(ChoiceReading::Skip, ItemReading::Read);
        scanner.visitor_mut().stops_at_list = matches!(extent, JsonExtent::Beginning(_));
        Self {
            scanner: Some(scanner),
            extent,
            facts: JsonFacts::default(),
        }
    }

    fn feed(&mut self, mut chunk: &[u8]) {
        let Some(scanner) = &mut self.scanner else { return };
        if let JsonExtent::Beginning(left) = &mut self.extent {
            chunk = chunk.get(..*left).unwrap_or(chunk);
            *left -= chunk.len();
        }
        let is_broken = scanner.feed(chunk).is_err();
        let is_enough = match self.extent {
            JsonExtent::WholeBody => false,
            JsonExtent::Beginning(left) => left == 0 || scanner.visitor().is_list,
        };
        if is_broken || is_enough {
            self.facts.absorb(scanner.visitor_mut());
            self.facts.decide();
            self.scanner = None;
        }
    }

    /// Ends the body. The facts of a body that has been cut are kept.
    fn finish(&mut self) {
        if let Some(mut scanner) = self.scanner.take() {
            let facts = &mut self.facts;
            facts.absorb(scanner.visitor_mut());
            if let Ok(mut outline) = scanner.finish() {
                facts.absorb(&mut outline);
                facts.is_whole = true;
            }
            facts.decide();
        }
    }

    /// The usage. As long as the response is being made, its usage is not known.
    fn usage(&self) -> Option<Usage> {
        if self.remarks().is_unfinished == Some(true) {
            return None;
        }
        match &self.scanner {
            Some(scanner) => scanner.visitor().usage.usage(),
            None => self.facts.usage.usage(),
        }
    }

    fn remarks(&self) -> ResponseRemarks {
        match &self.scanner {
            Some(scanner) => scanner.visitor().remarks,
            None => self.facts.remarks,
        }
    }
}

impl ResponseReader {
    /// The number of bytes that [`Self::object`] reads. The facts of an object stand at its beginning.
    const MAX_OBJECT: usize = 64 << 10;

    /// A reader of a `text/event-stream`.
    pub fn events() -> Self {
        Self(ReaderMode::Events(Box::default()))
    }

    /// A reader of the JSON body of a generation, which is read to its end.
    pub fn json() -> Self {
        Self(ReaderMode::Json(Box::new(JsonReader::new(JsonExtent::WholeBody))))
    }

    /// A reader of a JSON body that is an object of the account. The first 64 KiB of it are read, and nothing of a list.
    pub fn object() -> Self {
        let extent = JsonExtent::Beginning(Self::MAX_OBJECT);
        Self(ReaderMode::Json(Box::new(JsonReader::new(extent))))
    }

    /// Whether this is a reader of an event stream.
    pub fn is_stream(&self) -> bool {
        matches!(self.0, ReaderMode::Events(_))
    }

    /// Reads the next piece of the body.
    pub fn feed(&mut self, chunk: &[u8]) {
        match &mut self.0 {
            ReaderMode::Events(events) => events.feed(chunk),
            ReaderMode::Json(json) => json.feed(chunk),
        }
    }

    /// Ends the body, and reads the last block of a JSON body.
    pub fn finish(&mut self) {
        if let ReaderMode::Json(json) = &mut self.0 {
            json.finish();
        }
    }

    /// Takes the objects of the account that the body has named and that have not been taken yet: the response itself, its
    /// conversation, its containers, and its items if it is stored; a chat completion; the object of a JSON body, and the
    /// objects that it names. At most 256 objects wait to be taken, and more are dropped.
    ///
    /// In an event stream, the id of the response is read from `response.created` and from the event that ends the
    /// response: some upstreams give it another id then. The objects in a JSON body are known when it has ended. An id
    /// of more than 64 KiB is ignored.
    pub fn drain_objects(&mut self) -> impl ExactSizeIterator<Item = ObjectId> {
        match &mut self.0 {
            ReaderMode::Events(events) => events.facts.objects.drain(..),
            ReaderMode::Json(json) => json.facts.objects.drain(..),
        }
    }

    /// The first and the last id of the response that the body contains, or the id of another object that is the body.
    pub fn response_ids(&self) -> [Option<ObjectId>; 2] {
        match &self.0 {
            ReaderMode::Events(events) => events.facts.response_ids,
            ReaderMode::Json(json) => [json.facts.id, None],
        }
    }

    /// Whether the response is made in the background, independently of the request, as far as the body says so.
    pub fn is_background(&self) -> bool {
        match &self.0 {
            ReaderMode::Events(events) => events.facts.remarks.is_background == Some(true),
            ReaderMode::Json(json) => {
                let remarks = json.remarks();
                // The answer to a request that waits for the response contains a response that is finished.
                remarks.is_background == Some(true) || remarks.is_unfinished == Some(true)
            }
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
            ReaderMode::Json(json) => match &mut json.scanner {
                Some(scanner) => &mut scanner.visitor_mut().encrypted,
                None => &mut json.facts.encrypted,
            },
        })
    }

    /// The tokens that the response has used, once they are known. In an event stream they are read from the event that
    /// ends the response, from the chunks of a chat completion, or from `message_start` and `message_delta`; in a JSON body
    /// from `usage`.
    pub fn usage(&self) -> Option<Usage> {
        match &self.0 {
            ReaderMode::Events(events) => events.facts.usage(),
            ReaderMode::Json(json) => json.usage(),
        }
    }

    /// The opening of an event stream, as far as it is known.
    pub fn opening(&self) -> Opening {
        match &self.0 {
            ReaderMode::Events(events) => events.facts.opening.opening(),
            ReaderMode::Json(_) => Opening::Output,
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
            ReaderMode::Json(_) => None,
        }
    }

    /// Whether an event stream would be incomplete if it ended now: a Responses stream, or a Messages stream, without the
    /// event that ends it. Streams of chat completions do not always have such an event.
    pub fn lacks_end(&self) -> bool {
        match &self.0 {
            ReaderMode::Events(events) => events.facts.needs_end && events.facts.terminal.is_none(),
            ReaderMode::Json(_) => false,
        }
    }

    /// Whether the reader reads a body to its end, so that [`Self::is_whole`] tells whether the body is complete.
    pub fn tells_end(&self) -> bool {
        match &self.0 {
            ReaderMode::Events(_) => true,
            ReaderMode::Json(json) => json.extent == JsonExtent::WholeBody,
        }
    }

    /// Whether the content of the body shows that the body is complete. An event stream is complete after a terminal
    /// event. A JSON body is complete after the end of its root object; that is known only after
    /// [`ResponseReader::finish`], and only if the reader [reads to the end](Self::tells_end).
    ///
    /// This distinguishes a complete body from a truncated one if the framing cannot.
    pub fn is_whole(&self) -> bool {
        match &self.0 {
            ReaderMode::Events(_) => self.is_terminal(),
            ReaderMode::Json(json) => json.facts.is_whole,
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
            ReaderMode::Json(_) => None,
        }
    }
}
