//! What a request body says about where it should go.

use std::{fmt, ops::Range};

use crate::{
    ids::EncryptedContent,
    scan::json::{
        capture::{Capture, Run, unescape},
        error::{Field, Problem, Refusal},
        lexer::Path,
        scanner::Scanner,
        visitor::Reader,
    },
};

/// How much of `instructions` and of `input` is kept.
const CONTENT: usize = 4096;
/// `user` with every character as `\u0000`.
const LONGEST_ROLE: usize = 4 * 6;

/// The facts of a request body that decide its route.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// `model`.
    pub model: Option<String>,
    /// Where its value stands in the (decompressed) body, as written and with its quotes: another JSON string in place of
    /// these bytes changes this value and nothing else.
    pub model_at: Option<Range<u64>>,
    /// `prompt_cache_key`; absent too where it is no string.
    pub prompt_cache_key: Option<String>,
    /// `stream`; absent too where it is no boolean.
    pub stream: Option<bool>,
    /// `previous_response_id`; absent too where it is no string.
    pub previous_response_id: Option<String>,
    /// `client_metadata.session_id`; absent too where it is no string.
    pub session_id: Option<String>,
    /// What the requests of a conversation share.
    pub content: Content,
    /// The `encrypted_content` of items of `input`: the last [`RequestFacts::MAX_ENCRYPTED`] of them that are strings, in the
    /// order in which they stand. Its key counts only where it is spelled without escapes.
    pub encrypted: Vec<EncryptedContent>,
}

impl RequestFacts {
    /// How many encrypted contents are kept.
    pub const MAX_ENCRYPTED: usize = 8;
}

/// Lengths only of what callers choose, but for the model.
impl fmt::Debug for RequestFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |text: &Option<String>| text.as_ref().map(String::len);
        f.debug_struct("RequestFacts")
            .field("model", &self.model)
            .field("prompt_cache_key", &length(&self.prompt_cache_key))
            .field("stream", &self.stream)
            .field("previous_response_id", &length(&self.previous_response_id))
            .field("session_id", &length(&self.session_id))
            .field("content", &self.content)
            .field("encrypted", &self.encrypted)
            .finish_non_exhaustive()
    }
}

/// The beginning of a conversation, as it was written: requests of one conversation repeat its history, so they have the
/// same content, and other conversations mostly have another.
///
/// It is at most 4 KiB of `instructions` and at most 4 KiB of `input`. Where `input` is an array, it ends after the first
/// item whose `role` is `user`, so that a first turn and the later ones, which append to it, have the same content.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content {
    instructions: Vec<u8>,
    input: Vec<u8>,
}

impl Content {
    /// The beginning of `instructions`: raw JSON, empty where it is absent or `null`.
    pub fn instructions(&self) -> &[u8] {
        &self.instructions
    }

    /// The beginning of `input`: raw JSON, empty where it is absent or `null`.
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// Whether the request has neither.
    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty() && self.input.is_empty()
    }
}

/// Lengths only: what people say to their models belongs in no log.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} + {} bytes)", self.instructions.len(), self.input.len())
    }
}

/// Reads a request body as it arrives, in whatever pieces.
///
/// The body is not kept: memory is bounded by the facts themselves, about 32 KiB at most. Facts are final only when
/// [`RequestScanner::finish`] has said that the whole body has one reading.
///
/// ```
/// use steadfast::scan::RequestScanner;
///
/// let mut scanner = RequestScanner::new();
/// scanner.feed(br#"{"model":"gpt-5","input":"hi","prompt_ca"#)?;
/// scanner.feed(br#"che_key":"session-1"}"#)?;
/// assert_eq!(scanner.finish()?.prompt_cache_key.as_deref(), Some("session-1"));
/// # Ok::<(), steadfast::scan::Refusal>(())
/// ```
pub struct RequestScanner(Scanner<Fields>);

impl RequestScanner {
    /// A scanner that uses the fastest instructions of this processor.
    pub fn new() -> Self {
        Self(Scanner::new(Path::detect(), Fields::default()))
    }

    /// A scanner that uses no vector instructions, to compare with.
    pub fn portable() -> Self {
        Self(Scanner::new(Path::Portable, Fields::default()))
    }

    /// Reads the next piece of the body.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where the body can have no single reading, whatever follows; every later call repeats it.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        self.0.feed(chunk)
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where the body has no single reading.
    pub fn finish(self) -> Result<RequestFacts, Refusal> {
        self.0.finish().map(|fields| fields.facts)
    }
}

impl Default for RequestScanner {
    fn default() -> Self {
        Self::new()
    }
}

/// What a value is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Field(Field),
    /// `role` of an item of `input`.
    Role,
}

/// Picks the facts out.
#[derive(Default)]
struct Fields {
    facts: RequestFacts,
    /// One bit for each [`Field`] whose key has been seen.
    seen: u16,
    within: Within,
    /// The content that has begun, and which of the two it is.
    content: Option<(Field, Capture)>,
    /// Whether the item of `input` that is being read is the user's.
    from_user: bool,
}

/// Which member of the root is being looked into.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Within {
    #[default]
    Nothing,
    ClientMetadata,
    /// `input`, whose items are looked into.
    Input,
    /// The rest of `input`, where only encrypted content is wanted.
    History,
}

impl Fields {
    fn text_of(&mut self, field: Field) -> Option<&mut Option<String>> {
        match field {
            Field::Model => Some(&mut self.facts.model),
            Field::PromptCacheKey => Some(&mut self.facts.prompt_cache_key),
            Field::PreviousResponseId => Some(&mut self.facts.previous_response_id),
            Field::SessionId => Some(&mut self.facts.session_id),
            Field::Stream | Field::ClientMetadata | Field::Instructions | Field::Input => None,
        }
    }

    /// Refuses a key that some readers take for a field's: Go's encoding/json compares keys without regard to case.
    fn alike(&self, depth: u32, name: &[u8], at: u64) -> Result<Option<Slot>, Refusal> {
        let fields = match (depth, self.within) {
            (1, _) => Field::ROOT,
            (2, Within::ClientMetadata) => &[Field::SessionId],
            _ => return Ok(None),
        };
        match fields.iter().find(|field| field.is_alike(name)) {
            Some(field) => Err(Refusal::new(Problem::Alike(*field), at)),
            None => Ok(None),
        }
    }

    /// Keeps the content that ends at `end`.
    fn content_end(&mut self, run: &Run<'_>, end: u64) {
        let Some((field, capture)) = self.content.take() else {
            return;
        };
        let text = capture.finish(run, end).into_owned();
        match field {
            Field::Instructions => self.facts.content.instructions = text,
            _ => self.facts.content.input = text,
        }
    }
}

impl Reader for Fields {
    type Slot = Slot;
    /// `previous_response_id` with every character as `\u0000`.
    const LONGEST_KEY: usize = 20 * 6;

    #[inline(always)]
    fn depth(&self) -> u32 {
        match self.within {
            Within::Nothing | Within::History => 1,
            Within::ClientMetadata => 2,
            Within::Input => 3,
        }
    }

    #[inline(always)]
    fn encrypted_depth(&self) -> u32 {
        match self.within {
            Within::Input | Within::History => 3,
            Within::Nothing | Within::ClientMetadata => 0,
        }
    }

    fn encrypted(&mut self, content: EncryptedContent) {
        let kept = &mut self.facts.encrypted;
        if kept.len() == RequestFacts::MAX_ENCRYPTED {
            kept.remove(0);
        }
        kept.push(content);
    }

    fn key(&mut self, depth: u32, name: &[u8], at: u64) -> Result<Option<Slot>, Refusal> {
        let field = match (depth, self.within, name) {
            (1, _, b"model") => Field::Model,
            (1, _, b"prompt_cache_key") => Field::PromptCacheKey,
            (1, _, b"stream") => Field::Stream,
            (1, _, b"previous_response_id") => Field::PreviousResponseId,
            (1, _, b"client_metadata") => Field::ClientMetadata,
            (1, _, b"instructions") => Field::Instructions,
            (1, _, b"input") => Field::Input,
            (2, Within::ClientMetadata, b"session_id") => Field::SessionId,
            (3, Within::Input, b"role") => return Ok(Some(Slot::Role)),
            _ => return self.alike(depth, name, at),
        };
        let bit = 1 << field as u32;
        if self.seen & bit != 0 {
            return Err(Refusal::new(Problem::Twice(field), at));
        }
        self.seen |= bit;
        Ok(Some(Slot::Field(field)))
    }

    fn value(&mut self, slot: Option<Slot>, depth: u32, first: u8, at: u64) -> Result<Option<usize>, Refusal> {
        if depth == 2 {
            self.from_user = false;
        }
        let field = match slot {
            Some(Slot::Field(field)) => field,
            Some(Slot::Role) => return Ok(Some(LONGEST_ROLE)),
            None => return Ok(None),
        };
        match (field, first) {
            // Nothing but `null` can follow an `n`, or the body is refused.
            (_, b'n') => {}
            (Field::Stream, b't') => self.facts.stream = Some(true),
            (Field::Stream, b'f') => self.facts.stream = Some(false),
            (Field::ClientMetadata, b'{') => self.within = Within::ClientMetadata,
            (Field::Stream | Field::ClientMetadata, _) => {}
            (Field::Instructions | Field::Input, _) => {
                self.content = Some((field, Capture::new(at, CONTENT)));
                if field == Field::Input && first == b'[' {
                    self.within = Within::Input;
                }
            }
            // It decides access, and upstreams may read it otherwise.
            (Field::Model, _) if first != b'"' => return Err(Refusal::new(Problem::NotAString(field), at)),
            (Field::Model | Field::PromptCacheKey | Field::PreviousResponseId | Field::SessionId, _) => {
                return Ok(Some(Problem::MAX_TEXT));
            }
        }
        Ok(None)
    }

    fn text(&mut self, slot: Slot, raw: Option<&[u8]>, at: u64) -> Result<(), Refusal> {
        match (slot, raw) {
            (Slot::Role, raw) => {
                self.from_user |= raw.is_some_and(|raw| unescape(raw).is_ok_and(|role| role == "user"))
            }
            (Slot::Field(field), None) => return Err(Refusal::new(Problem::TooLong(field), at)),
            (Slot::Field(field), Some(raw)) => {
                // The lexer has refused all else, save a surrogate whose other half is still due.
                let lone = |index| Refusal::new(Problem::LoneSurrogate, at + 1 + index as u64);
                let plain = unescape(raw).map_err(lone)?;
                if field == Field::Model {
                    self.facts.model_at = Some(at..at + raw.len() as u64 + 2);
                }
                if let Some(text) = self.text_of(field) {
                    *text = Some(plain.into_owned());
                }
            }
        }
        Ok(())
    }

    fn value_end(&mut self, depth: u32, run: &Run<'_>, at: u64) {
        let full = self.content.as_ref().is_some_and(|(_, capture)| capture.overflows(at));
        if depth == 1 {
            self.content_end(run, at);
            self.within = Within::Nothing;
        } else if depth == 2 && self.within == Within::Input && (self.from_user || full) {
            self.content_end(run, at);
            self.within = Within::History;
        }
    }

    fn suspend(&mut self, run: &Run<'_>) {
        if let Some((_, content)) = &mut self.content {
            content.suspend(run);
        }
    }
}
