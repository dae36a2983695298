//! What is learnt from a response while it streams by: its id, and whether it has come to its end.

use super::{
    lexer::Path,
    reader::Reader,
    refusal::Refusal,
    scanner::Scanner,
    sse::{EventReader, Piece},
};

/// How an event stream said that the response is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Terminal {
    /// `response.completed`.
    Completed,
    /// `response.failed`.
    Failed,
    /// `response.incomplete`.
    Incomplete,
    /// `[DONE]`, which ends a stream of chat completions.
    Done,
}

/// Reads a response body as it streams by, and copies none of it but the id.
///
/// What is not JSON, or not an event stream, teaches nothing and harms nothing: it is the client's to judge.
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
pub struct ResponseReader(Mode);

enum Mode {
    Events(Box<Events>),
    Json {
        scanner: Box<Scanner<Outline>>,
        to_end: bool,
    },
    /// A JSON body of which nothing more is wanted, or no more can be had.
    Read {
        id: Option<String>,
        is_whole: bool,
    },
}

impl ResponseReader {
    /// The longest id that is learnt, in bytes as written.
    pub const MAX_ID: usize = 256;

    /// A reader of a `text/event-stream`: the id is `response.id` of the first event that tells one, among
    /// `response.created` and those that end a response.
    pub fn events() -> Self {
        Self(Mode::Events(Box::default()))
    }

    /// A reader of a JSON body: the id is the top-level `id`. It has no terminal event.
    pub fn json() -> Self {
        Self::json_mode(false)
    }

    /// The same, read on behind the id to tell whether the body [is whole](Self::is_whole).
    pub fn json_to_end() -> Self {
        Self::json_mode(true)
    }

    fn json_mode(to_end: bool) -> Self {
        let scanner = Box::new(outline_scanner());
        Self(Mode::Json { scanner, to_end })
    }

    /// Reads the next piece of the body.
    pub fn feed(&mut self, chunk: &[u8]) {
        match &mut self.0 {
            Mode::Events(events) => events.feed(chunk),
            Mode::Json { scanner, to_end } => {
                let is_broken = scanner.feed(chunk).is_err();
                let id = &scanner.reader().id;
                if is_broken || (id.is_some() && !*to_end) {
                    let id = id.clone();
                    self.0 = Mode::Read { id, is_whole: false };
                }
            }
            Mode::Read { .. } => {}
        }
    }

    /// The body has ended: reads what was left of a JSON body, which is read in blocks.
    pub fn finish(&mut self) {
        if let Mode::Json { scanner, .. } = &mut self.0 {
            let rest = std::mem::replace(&mut **scanner, outline_scanner());
            let outline = rest.finish().ok();
            let is_whole = outline.is_some();
            let id = outline.and_then(|outline| outline.id);
            self.0 = Mode::Read { id, is_whole };
        }
    }

    /// The response's id, once it is known.
    pub fn response_id(&self) -> Option<&str> {
        match &self.0 {
            Mode::Events(events) => events.id.as_deref(),
            Mode::Json { scanner, .. } => scanner.reader().id.as_deref(),
            Mode::Read { id, .. } => id.as_deref(),
        }
    }

    /// Whether what has been read is all there is by its own account: behind a terminal event, or behind the end of a JSON
    /// body's root, where it was read so far ([`ResponseReader::json_to_end`], then [`ResponseReader::finish`]). Tells a whole body from a cut one where framing does not.
    pub fn is_whole(&self) -> bool {
        match &self.0 {
            Mode::Events(_) => self.is_terminal(),
            Mode::Json { .. } => false,
            Mode::Read { is_whole, .. } => *is_whole,
        }
    }

    /// Whether an event that ends the response has been seen whole, so that a client that leaves now has missed nothing.
    pub fn is_terminal(&self) -> bool {
        self.terminal().is_some()
    }

    /// How the response ended, once an event that says so has been seen whole.
    pub fn terminal(&self) -> Option<Terminal> {
        match &self.0 {
            Mode::Events(events) => events.terminal,
            Mode::Json { .. } | Mode::Read { .. } => None,
        }
    }
}

/// What an event is about, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Created,
    Terminal(Terminal),
    Other,
}

impl Kind {
    /// The longest `type` that matters.
    const LONGEST: usize = b"response.incomplete".len();

    fn of(name: &[u8]) -> Self {
        match name {
            b"response.created" => Self::Created,
            b"response.completed" => Self::Terminal(Terminal::Completed),
            b"response.failed" => Self::Terminal(Terminal::Failed),
            b"response.incomplete" => Self::Terminal(Terminal::Incomplete),
            _ => Self::Other,
        }
    }
}

/// What the beginning of an event's data tells.
#[derive(Debug, PartialEq, Eq)]
enum Glance {
    Kind(Kind),
    /// Too little to tell.
    More,
    /// It does not begin with its type: all of it has to be read.
    Unclear,
}

/// How far a glance goes.
const GLANCE: usize = 64;

/// Reads the type off data that begins with it, as OpenAI's does; clients go by it and not by the `event` field.
fn glance(data: &[u8]) -> Glance {
    if data.starts_with(b"[DONE]") {
        return Glance::Kind(Kind::Terminal(Terminal::Done));
    }
    let mut rest = data;
    for expected in [b"{".as_slice(), b"\"type\"", b":", b"\""] {
        rest = rest.trim_ascii_start();
        match rest.strip_prefix(expected) {
            Some(after) => rest = after,
            None if expected.starts_with(rest) || b"[DONE]".starts_with(data) => return Glance::More,
            None => return Glance::Unclear,
        }
    }
    let name = rest.get(..Kind::LONGEST + 1).unwrap_or(rest);
    match name.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        Some(end) if name.get(end) == Some(&b'"') => Glance::Kind(Kind::of(name.get(..end).unwrap_or_default())),
        Some(_) => Glance::Unclear,
        None if name.len() > Kind::LONGEST => Glance::Kind(Kind::Other),
        None => Glance::More,
    }
}

/// An event stream.
#[derive(Default)]
struct Events {
    reader: EventReader,
    event: Event,
    id: Option<String>,
    terminal: Option<Terminal>,
}

/// The present event.
struct Event {
    /// The beginning of its data, where that came in pieces.
    head: [u8; GLANCE],
    held: usize,
    /// What it is, once that is known.
    kind: Option<Kind>,
    /// Reads all of it, where that is needed. What else is to be learnt from terminal events is for this to read.
    scanner: Option<Scanner<Outline>>,
}

impl Default for Event {
    fn default() -> Self {
        Self {
            head: [0; GLANCE],
            held: 0,
            kind: None,
            scanner: None,
        }
    }
}

impl Events {
    fn feed(&mut self, chunk: &[u8]) {
        let Self {
            reader,
            event,
            id,
            terminal,
        } = self;
        reader.feed(chunk, |piece| match piece {
            Piece::Data(data) => event.data(data, id.is_none()),
            Piece::End => {
                let (kind, found) = event.end();
                if let Kind::Terminal(how) = kind {
                    *terminal = Some(how);
                }
                if id.is_none() && kind != Kind::Other {
                    *id = found;
                }
            }
        });
    }
}

impl Event {
    fn data(&mut self, mut data: &[u8], want_id: bool) {
        if let Some(scanner) = &mut self.scanner {
            // A refusal is kept by the scanner until the end.
            let _ = scanner.feed(data);
            return;
        }
        if self.kind.is_some() {
            return;
        }
        if self.held == 0 {
            let glance = glance(data);
            if glance != Glance::More {
                return self.decide(&glance, data, &[], want_id);
            }
        }
        while self.held < GLANCE && !data.is_empty() {
            let (head, rest) = data.split_at(data.len().min(GLANCE - self.held));
            if let Some(room) = self.head.get_mut(self.held..self.held + head.len()) {
                room.copy_from_slice(head);
            }
            self.held += head.len();
            data = rest;
            let head = self.head;
            let head = head.get(..self.held).unwrap_or_default();
            match glance(head) {
                Glance::More if self.held < GLANCE => {}
                Glance::More => return self.decide(&Glance::Unclear, head, data, want_id),
                clear => return self.decide(&clear, head, data, want_id),
            }
        }
    }

    /// Knows what `head` tells, and goes on with `rest`.
    fn decide(&mut self, glance: &Glance, head: &[u8], rest: &[u8], want_id: bool) {
        let scan = match glance {
            Glance::Kind(kind) => {
                self.kind = Some(*kind);
                want_id && !matches!(kind, Kind::Other | Kind::Terminal(Terminal::Done))
            }
            Glance::Unclear | Glance::More => true,
        };
        if scan {
            let scanner = self.scanner.insert(outline_scanner());
            let _ = scanner.feed(head).and_then(|()| scanner.feed(rest));
        }
    }

    /// Ends the event: what it was, and the id that it told.
    fn end(&mut self) -> (Kind, Option<String>) {
        let outline = self.scanner.take().and_then(|scanner| scanner.finish().ok());
        let (seen, id) = outline
            .map(|outline| (outline.kind, outline.response_id))
            .unwrap_or_default();
        self.held = 0;
        (self.kind.take().or(seen).unwrap_or(Kind::Other), id)
    }
}

/// The few things that are read of a response or event.
#[derive(Default)]
struct Outline {
    kind: Option<Kind>,
    id: Option<String>,
    response_id: Option<String>,
    in_response: bool,
}

/// What a value is for.
#[derive(Clone, Copy)]
enum Slot {
    Type,
    Id,
    Response,
    ResponseId,
}

fn outline_scanner() -> Scanner<Outline> {
    Scanner::new(Path::detect(), Outline::default())
}

impl Reader for Outline {
    type Slot = Slot;
    /// `response` with every character as `\u0000`.
    const LONGEST_KEY: usize = 8 * 6;

    #[inline(always)]
    fn depth(&self) -> u32 {
        1 + u32::from(self.in_response)
    }

    fn key(&mut self, depth: u32, name: &[u8], _at: u64) -> Result<Option<Slot>, Refusal> {
        Ok(match (depth, name) {
            (1, b"type") => Some(Slot::Type),
            (1, b"id") => Some(Slot::Id),
            (1, b"response") => Some(Slot::Response),
            (2, b"id") => Some(Slot::ResponseId),
            _ => None,
        })
    }

    fn value(&mut self, slot: Option<Slot>, depth: u32, first: u8, _at: u64) -> Result<Option<usize>, Refusal> {
        if depth == 1 {
            self.in_response = matches!(slot, Some(Slot::Response)) && first == b'{';
        }
        Ok(match slot {
            Some(Slot::Type | Slot::Id | Slot::ResponseId) => Some(ResponseReader::MAX_ID),
            Some(Slot::Response) | None => None,
        })
    }

    fn text(&mut self, slot: Slot, raw: Option<&[u8]>, _at: u64) -> Result<(), Refusal> {
        let text = raw.and_then(|raw| super::capture::unescape(raw).ok());
        match slot {
            Slot::Type => self.kind = text.map(|name| Kind::of(name.as_bytes())),
            Slot::Id => self.id = text.map(|id| id.into_owned()),
            Slot::ResponseId => self.response_id = text.map(|id| id.into_owned()),
            Slot::Response => {}
        }
        Ok(())
    }

    fn value_end(&mut self, depth: u32, _run: &super::capture::Run<'_>, _at: u64) {
        if depth == 1 {
            self.in_response = false;
        }
    }
}

#[cfg(test)]
mod tests;
