//! Reads an event stream: it looks at the type of each event and scans only the events that carry facts.

use super::{
    first_event::{EventOutcome, FirstEvent, FirstEventBuffer},
    outline::{MAX_ENCRYPTED, ResponseOutline},
    peek::{EventKind, Peek},
    sse::{SseItem, SseParser},
    terminal::Terminal,
    usage::Usage,
};
use crate::{ids::EncryptedContent, scan::json::scanner::Scanner};

/// Reads an event stream that arrives in pieces.
#[derive(Default)]
pub(super) struct EventStreamReader {
    parser: SseParser,
    /// The facts that have been read so far.
    pub facts: StreamFacts,
}

/// The facts of an event stream.
#[derive(Default)]
pub(super) struct StreamFacts {
    event: CurrentEvent,
    first: FirstEventBuffer,
    /// Whether the items of the response have arrived in events of their own. If so, the last event only repeats them.
    has_items: bool,
    /// The response's id.
    pub id: Option<String>,
    /// How the response ended, once it has ended.
    pub terminal: Option<Terminal>,
    /// The encrypted content that has not been taken yet.
    pub encrypted: Vec<EncryptedContent>,
    /// The usage that the latest event with a usage reports.
    pub usage: Option<Usage>,
}

/// The event that is being read.
struct CurrentEvent {
    /// The beginning of its data, of which `held` bytes are valid. It is used only if that beginning arrives in pieces.
    head: [u8; Peek::LENGTH],
    /// The number of valid bytes in `head`.
    held: usize,
    /// The type of the event, once it is known.
    kind: Option<EventKind>,
    /// Scans the whole event, if that is needed.
    scanner: Option<Scanner<ResponseOutline>>,
}

/// Whether the response's id still has to be found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IdSearch {
    Open,
    Done,
}

impl Default for CurrentEvent {
    fn default() -> Self {
        Self {
            head: [0; Peek::LENGTH],
            held: 0,
            kind: None,
            scanner: None,
        }
    }
}

impl EventStreamReader {
    /// Reads the next piece of the stream.
    pub fn feed(&mut self, chunk: &[u8]) {
        let Self { parser, facts } = self;
        parser.feed(chunk, |item| match item {
            SseItem::Data(data) => facts.push_data(data),
            SseItem::EndOfEvent => facts.end_event(),
        });
    }
}

impl StreamFacts {
    /// The first event, as far as it is known.
    pub fn first_event(&self) -> FirstEvent<'_> {
        self.first.get()
    }

    fn push_data(&mut self, data: &[u8]) {
        let search = match self.id {
            Some(_) => IdSearch::Done,
            None => IdSearch::Open,
        };
        self.event.push(data, search);
        if self.first.is_pending() {
            let outcome = self.event.kind.map(|kind| match kind.is_failure() {
                true => EventOutcome::Failure,
                false => EventOutcome::Other,
            });
            self.first.push(outcome, data);
        }
    }

    fn end_event(&mut self) {
        let (kind, outline) = self.event.end();
        if self.first.is_pending() {
            // A chat completion has no `type`.
            let has_error = |outline: &ResponseOutline| outline.kind.is_none() && outline.has_error;
            let is_failure = kind.is_failure() || outline.as_ref().is_some_and(has_error);
            self.first.end(match is_failure {
                true => EventOutcome::Failure,
                false => EventOutcome::Other,
            });
        }
        if let EventKind::Terminal(how) = kind {
            self.terminal = Some(how);
        }
        self.has_items |= kind == EventKind::ItemDone;
        if let Some(outline) = outline {
            self.merge(kind, outline);
        }
    }

    /// Adds the facts of an event to the facts of the stream.
    fn merge(&mut self, kind: EventKind, outline: ResponseOutline) {
        if self.id.is_none() && kind.has_response() {
            self.id = outline.response_id;
        }
        self.usage = outline.usage.usage().or(self.usage);
        // If the items have arrived one by one, the response object of the last event repeats them.
        if kind == EventKind::ItemDone || kind.has_response() && !self.has_items {
            let free = MAX_ENCRYPTED.saturating_sub(self.encrypted.len());
            self.encrypted.extend(outline.encrypted.into_iter().take(free));
        }
    }
}

impl CurrentEvent {
    /// Reads the next piece of the event's data.
    fn push(&mut self, mut data: &[u8], search: IdSearch) {
        if let Some(scanner) = &mut self.scanner {
            // The scanner keeps an error and returns it at the end of the event.
            let _ = scanner.feed(data);
            return;
        }
        if self.kind.is_some() {
            return;
        }
        if self.held == 0 {
            let peek = Peek::at(data);
            if peek != Peek::NeedMore {
                return self.decide(&peek, data, &[], search);
            }
        }
        while self.held < Peek::LENGTH && !data.is_empty() {
            let (piece, rest) = data.split_at(data.len().min(Peek::LENGTH - self.held));
            self.head[self.held..self.held + piece.len()].copy_from_slice(piece);
            self.held += piece.len();
            data = rest;
            let head = self.head;
            let head = &head[..self.held];
            match Peek::at(head) {
                Peek::NeedMore if self.held < Peek::LENGTH => {}
                Peek::NeedMore => return self.decide(&Peek::Unclear, head, data, search),
                clear => return self.decide(&clear, head, data, search),
            }
        }
    }

    /// Decides from the beginning of the event whether the event is scanned. `head` and `rest` are its data so far.
    fn decide(&mut self, peek: &Peek, head: &[u8], rest: &[u8], search: IdSearch) {
        let must_scan = match peek {
            Peek::Kind(kind) => {
                self.kind = Some(*kind);
                match kind {
                    // The event contains the usage.
                    EventKind::Terminal(how) => *how != Terminal::Done,
                    EventKind::Created => search == IdSearch::Open,
                    EventKind::ItemDone => true,
                    EventKind::Error | EventKind::Other => false,
                }
            }
            Peek::Unclear | Peek::NeedMore => true,
        };
        if must_scan {
            let scanner = self.scanner.insert(ResponseOutline::scanner());
            // The scanner keeps an error and returns it at the end of the event.
            let _ = scanner.feed(head).and_then(|()| scanner.feed(rest));
        }
    }

    /// Ends the event. Returns its type, and its outline if it was scanned and is valid JSON.
    fn end(&mut self) -> (EventKind, Option<ResponseOutline>) {
        let outline = self.scanner.take().and_then(|scanner| scanner.finish().ok());
        let scanned = outline.as_ref().and_then(|outline| outline.kind);
        self.held = 0;
        (self.kind.take().or(scanned).unwrap_or(EventKind::Other), outline)
    }
}
