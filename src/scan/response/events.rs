//! Reads an event stream: it looks at the type of each event and scans only the events that carry facts.

use super::{
    opening::{EventRole, Opening, OpeningTracker},
    outline::{ChoiceReading, ItemReading, MAX_ENCRYPTED, MAX_OBJECTS, ResponseOutline, ResponseRemarks},
    peek::{EventKind, Peek},
    sse::{SseItem, SseParser},
    terminal::Terminal,
    usage::{Usage, UsageCounts},
};
use crate::{
    ids::{EncryptedContent, ObjectId},
    scan::json::scanner::Scanner,
};

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
    /// The opening of the stream, and its failures.
    pub opening: OpeningTracker,
    /// Whether the items of the response have arrived in events of their own. If so, the last event only repeats them.
    has_items: bool,
    /// Whether the stream is incomplete without a terminal event.
    pub needs_end: bool,
    /// The first and the last id that the response has had. Most upstreams never change it.
    pub response_ids: [Option<ObjectId>; 2],
    /// The id of a chat completion.
    completion_id: Option<ObjectId>,
    /// The item that was named last. Its end repeats the id of its beginning.
    last_item: Option<ObjectId>,
    /// The objects that have not been taken yet.
    pub objects: Vec<ObjectId>,
    /// What the response says about itself.
    pub remarks: ResponseRemarks,
    /// How the response ended, once it has ended.
    pub terminal: Option<Terminal>,
    /// The encrypted content that has not been taken yet.
    pub encrypted: Vec<EncryptedContent>,
    /// The counts that have been reported, each by the latest event that reports it.
    usage: UsageCounts,
    /// Whether the counts include those of the output: the first event of a Messages stream reports only the input.
    has_output_usage: bool,
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
    /// Whether the event is not valid JSON.
    is_broken: bool,
}

/// What is still to be found out about the stream.
#[derive(Clone, Copy)]
struct Search {
    id: IdSearch,
    choices: ChoiceReading,
    items: ItemReading,
}

/// Whether the response's id still has to be found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IdSearch {
    Open,
    Done,
}

/// An event that has ended.
struct EndedEvent {
    /// Its type; `None` if it has none, or if it is not valid JSON.
    kind: Option<EventKind>,
    /// Its outline, if it was scanned and is valid JSON.
    outline: Option<ResponseOutline>,
    role: EventRole,
}

impl Default for CurrentEvent {
    fn default() -> Self {
        Self {
            head: [0; Peek::LENGTH],
            held: 0,
            kind: None,
            scanner: None,
            is_broken: false,
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
    fn push_data(&mut self, data: &[u8]) {
        let search = Search {
            id: match self.response_ids {
                [Some(_), _] => IdSearch::Done,
                [None, _] => IdSearch::Open,
            },
            items: match self.remarks.is_stored {
                Some(false) => ItemReading::Skip,
                Some(true) | None => ItemReading::Read,
            },
            // Later chunks need not be read so deeply.
            choices: match self.opening.opening() {
                Opening::Pending => ChoiceReading::Read,
                Opening::Output | Opening::Failed => ChoiceReading::Skip,
            },
        };
        self.event.push(data, search);
        self.opening.push(self.event.role(), data);
    }

    fn end_event(&mut self) {
        let EndedEvent { kind, outline, role } = self.event.end();
        self.opening.end_event(role, kind);
        if let Some(EventKind::Terminal(how)) = kind {
            self.terminal = Some(how);
        }
        self.has_items |= kind == Some(EventKind::ItemDone);
        self.needs_end |= kind.is_some_and(EventKind::needs_end);
        if let Some(outline) = outline {
            self.merge(kind, outline);
        }
    }

    /// Adds the facts of an event to the facts of the stream.
    fn merge(&mut self, kind: Option<EventKind>, outline: ResponseOutline) {
        if kind != Some(EventKind::Created) && outline.usage != UsageCounts::default() {
            self.usage.replace_by(&outline.usage);
            self.has_output_usage |= kind != Some(EventKind::MessageStart);
        }
        let Some(kind) = kind else {
            if self.completion_id.is_none()
                && let Some(id) = outline.id
            {
                self.completion_id = Some(id);
                self.keep(id);
            }
            return;
        };
        let (has_response, has_item) = (kind.has_response(), kind.has_item());
        if has_response {
            self.remarks = self.remarks.replaced_by(outline.remarks);
            // A response is created once.
            if kind != EventKind::Created || self.response_ids[0].is_none() {
                self.merge_response_id(outline.response_id);
            }
        }
        let is_stored = self.remarks.is_stored != Some(false);
        if has_item
            && is_stored
            && let Some(id) = outline.item_id.filter(|id| self.last_item != Some(*id))
        {
            self.last_item = Some(id);
            self.keep(id);
        }
        if has_response || has_item {
            let named = outline.objects.iter().filter(|object| is_stored || !object.is_item);
            named.for_each(|object| self.keep(object.id));
        }
        // If the items have arrived one by one, the response object of the last event repeats them.
        if kind == EventKind::ItemDone || has_response && !self.has_items {
            let free = MAX_ENCRYPTED.saturating_sub(self.encrypted.len());
            self.encrypted.extend(outline.encrypted.into_iter().take(free));
        }
    }

    /// The usage, once it is known.
    pub fn usage(&self) -> Option<Usage> {
        self.usage.usage().filter(|_| self.has_output_usage)
    }

    fn merge_response_id(&mut self, id: Option<ObjectId>) {
        let Some(id) = id else { return };
        let [first, last] = &mut self.response_ids;
        match first {
            Some(first) if *first == id => return,
            Some(_) => *last = Some(id),
            None => *first = Some(id),
        }
        self.keep(id);
    }

    fn keep(&mut self, id: ObjectId) {
        if self.objects.len() < MAX_OBJECTS {
            self.objects.push(id);
        }
    }
}

impl CurrentEvent {
    /// Reads the next piece of the event's data.
    fn push(&mut self, mut data: &[u8], search: Search) {
        if let Some(scanner) = &mut self.scanner {
            self.is_broken |= scanner.feed(data).is_err();
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
    fn decide(&mut self, peek: &Peek, head: &[u8], rest: &[u8], search: Search) {
        let must_scan = match peek {
            Peek::Kind(kind) => {
                self.kind = Some(*kind);
                match kind {
                    // The event contains the usage.
                    EventKind::Terminal(_) => kind.has_response(),
                    EventKind::Created => search.id == IdSearch::Open,
                    EventKind::ItemAdded => search.items == ItemReading::Read,
                    EventKind::ItemDone | EventKind::MessageStart | EventKind::MessageDelta => true,
                    EventKind::Progress | EventKind::Notice | EventKind::Error | EventKind::Other => false,
                }
            }
            Peek::Unclear | Peek::NeedMore => true,
        };
        if must_scan {
            let scanner = self
                .scanner
                .insert(ResponseOutline::scanner(search.choices, search.items));
            self.is_broken = scanner.feed(head).and_then(|()| scanner.feed(rest)).is_err();
        }
    }

    /// The role of the event, once its type is known or it is known not to be JSON.
    fn role(&self) -> Option<EventRole> {
        if let Some(kind) = self.kind {
            return Some(EventRole::of_kind(kind));
        }
        let scanned = self.scanner.as_ref()?.visitor().kind;
        match scanned {
            Some(kind) => Some(EventRole::of_kind(kind)),
            None => self.is_broken.then_some(EventRole::Output),
        }
    }

    /// Ends the event.
    fn end(&mut self) -> EndedEvent {
        let has_data = self.kind.is_some() || self.scanner.is_some() || self.held > 0;
        let outline = self.scanner.take().and_then(|scanner| scanner.finish().ok());
        self.held = 0;
        self.is_broken = false;
        let kind = self.kind.take().or(outline.as_ref().and_then(|outline| outline.kind));
        let role = match (kind, &outline) {
            (Some(kind), _) => EventRole::of_kind(kind),
            // A chat completion has no `type`.
            (None, Some(outline)) => outline.role_of_chunk(),
            // Clients ignore an event without data.
            (None, None) if !has_data => EventRole::Lifecycle,
            (None, None) => EventRole::Output,
        };
        EndedEvent { kind, outline, role }
    }
}
