//! An event stream.

use super::{
    outline::Outline,
    peek::{Glance, Kind},
    reader::{FirstEvent, MAX_ENCRYPTED, Terminal},
    sse::{EventReader, Piece},
    usage::Usage,
};
use crate::{ids::EncryptedContent, scan::json::scanner::Scanner};

/// What is learnt from an event stream.
#[derive(Default)]
pub(super) struct Events {
    reader: EventReader,
    event: Event,
    first: First,
    /// Items have come one by one, so that the last event only repeats them.
    has_items: bool,
    pub id: Option<String>,
    pub terminal: Option<Terminal>,
    pub encrypted: Vec<EncryptedContent>,
    /// What the last event that tells says.
    pub usage: Option<Usage>,
}

/// The first event.
enum First {
    /// Its data so far, unless it is clear that it is no failure.
    Pending(Vec<u8>),
    Other,
    Failure(Vec<u8>),
}

impl Default for First {
    fn default() -> Self {
        Self::Pending(Vec::new())
    }
}

/// The present event.
struct Event {
    /// The beginning of its data, where that came in pieces.
    head: [u8; Glance::LENGTH],
    held: usize,
    /// What it is, once that is known.
    kind: Option<Kind>,
    /// Reads all of it, where that is needed. What else is to be learnt from terminal events is for this to read.
    scanner: Option<Scanner<Outline>>,
}

/// What has been learnt already, so that not every event is read for it.
#[derive(Clone, Copy)]
struct Known {
    id: bool,
}

impl Default for Event {
    fn default() -> Self {
        Self {
            head: [0; Glance::LENGTH],
            held: 0,
            kind: None,
            scanner: None,
        }
    }
}

impl Events {
    /// Reads on.
    pub fn feed(&mut self, chunk: &[u8]) {
        let Self {
            reader,
            event,
            first,
            has_items,
            id,
            terminal,
            encrypted,
            usage,
        } = self;
        reader.feed(chunk, |piece| match piece {
            Piece::Data(data) => {
                let known = Known { id: id.is_some() };
                event.data(data, known);
                if let First::Pending(_) = first {
                    first.data(event.kind, data);
                }
            }
            Piece::End => {
                let (kind, outline) = event.end();
                if let First::Pending(_) = first {
                    let has_error = |outline: &Outline| outline.kind.is_none() && outline.has_error;
                    first.end(kind.is_failure() || outline.as_ref().is_some_and(has_error));
                }
                if let Kind::Terminal(how) = kind {
                    *terminal = Some(how);
                }
                *has_items |= kind == Kind::ItemDone;
                if let Some(outline) = outline {
                    if id.is_none() && kind.has_response() {
                        *id = outline.response_id;
                    }
                    *usage = outline.usage.usage().or(*usage);
                    // Where the items have come one by one, the last event repeats them.
                    if kind == Kind::ItemDone || kind.has_response() && !*has_items {
                        let room = MAX_ENCRYPTED.saturating_sub(encrypted.len());
                        encrypted.extend(outline.encrypted.into_iter().take(room));
                    }
                }
            }
        });
    }

    /// What is known of the first event.
    pub fn first(&self) -> FirstEvent<'_> {
        match &self.first {
            First::Pending(_) => FirstEvent::Pending,
            First::Other => FirstEvent::Other,
            First::Failure(data) => FirstEvent::Failure(data),
        }
    }
}

impl First {
    /// Keeps a piece of the event's data, as long as the event may be a failure by its `kind`.
    fn data(&mut self, kind: Option<Kind>, data: &[u8]) {
        let Self::Pending(held) = self else { return };
        let may_fail = kind.is_none_or(Kind::is_failure);
        if may_fail && held.len() + data.len() <= FirstEvent::MAX_DATA {
            held.extend_from_slice(data);
        } else {
            *self = Self::Other;
        }
    }

    /// Knows what the whole event is.
    fn end(&mut self, is_failure: bool) {
        if let Self::Pending(held) = self {
            *self = match is_failure {
                true => Self::Failure(std::mem::take(held)),
                false => Self::Other,
            };
        }
    }
}

impl Event {
    fn data(&mut self, mut data: &[u8], known: Known) {
        if let Some(scanner) = &mut self.scanner {
            // A refusal is kept by the scanner until the end.
            let _ = scanner.feed(data);
            return;
        }
        if self.kind.is_some() {
            return;
        }
        if self.held == 0 {
            let glance = Glance::at(data);
            if glance != Glance::More {
                return self.decide(&glance, data, &[], known);
            }
        }
        while self.held < Glance::LENGTH && !data.is_empty() {
            let (head, rest) = data.split_at(data.len().min(Glance::LENGTH - self.held));
            if let Some(room) = self.head.get_mut(self.held..self.held + head.len()) {
                room.copy_from_slice(head);
            }
            self.held += head.len();
            data = rest;
            let head = self.head;
            let head = head.get(..self.held).unwrap_or_default();
            match Glance::at(head) {
                Glance::More if self.held < Glance::LENGTH => {}
                Glance::More => return self.decide(&Glance::Unclear, head, data, known),
                clear => return self.decide(&clear, head, data, known),
            }
        }
    }

    /// Knows what `head` tells, and goes on with `rest`.
    fn decide(&mut self, glance: &Glance, head: &[u8], rest: &[u8], known: Known) {
        let scan = match glance {
            Glance::Kind(kind) => {
                self.kind = Some(*kind);
                match kind {
                    // It ends with what was used.
                    Kind::Terminal(how) => *how != Terminal::Done,
                    Kind::Created => !known.id,
                    Kind::ItemDone => true,
                    Kind::Error | Kind::Other => false,
                }
            }
            Glance::Unclear | Glance::More => true,
        };
        if scan {
            let scanner = self.scanner.insert(Outline::scanner());
            let _ = scanner.feed(head).and_then(|()| scanner.feed(rest));
        }
    }

    /// Ends the event: what it was, and what was read of it.
    fn end(&mut self) -> (Kind, Option<Outline>) {
        let outline = self.scanner.take().and_then(|scanner| scanner.finish().ok());
        let seen = outline.as_ref().and_then(|outline| outline.kind);
        self.held = 0;
        (self.kind.take().or(seen).unwrap_or(Kind::Other), outline)
    }
}
