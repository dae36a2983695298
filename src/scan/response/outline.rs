//! Collects the facts of a response from the fields that the JSON scanner reports. The JSON text is a response body, or an
//! event that contains a response or one of its items.

use super::{
    opening::EventRole,
    peek::EventKind,
    scope::{ResponseSlot, ScopeKind, Scopes},
    usage::{TokenKind, UsageCounts, count_of},
};
use crate::{
    ids::{EncryptedContent, ObjectId},
    scan::json::{
        capture::{Capture, StreamSlice},
        error::JsonError,
        lexer::InstructionSet,
        scanner::Scanner,
        unescape::unescape,
        visitor::FieldVisitor,
    },
};

/// The maximum number of encrypted contents that are kept. More are dropped.
pub(super) const MAX_ENCRYPTED: usize = 64;
/// The maximum number of objects that are kept. More are dropped.
pub(super) const MAX_OBJECTS: usize = 256;

/// The facts that have been read so far.
#[derive(Default)]
pub(super) struct ResponseOutline {
    /// `type`, if there is one.
    pub kind: Option<EventKind>,
    /// `id`.
    pub id: Option<ObjectId>,
    /// `response.id`.
    pub response_id: Option<ObjectId>,
    /// The `id` of `item`.
    pub item_id: Option<ObjectId>,
    /// The other objects that are named.
    pub objects: Vec<FoundObject>,
    /// Whether the objects of output are read.
    pub item_reading: ItemReading,
    /// What the response says about itself.
    pub remarks: ResponseRemarks,
    /// Whether `data` is an array, as in a list of objects.
    pub is_list: bool,
    /// Whether nothing of a list is read after the beginning of `data`.
    pub stops_at_list: bool,
    /// Whether `error` is an object, or a text that is not empty.
    has_error: bool,
    choice_reading: ChoiceReading,
    /// What the array `choices` contains, if it is read.
    choices: ChoiceContent,
    /// The `encrypted_content` of `item`, of the items of `output`, and of the items of `response.output`.
    pub encrypted: Vec<EncryptedContent>,
    /// The counts of `usage`, wherever it stands.
    pub usage: UsageCounts,
    scopes: Scopes,
    /// The element of an array that is being read.
    element: Option<Capture>,
}

/// An object that a response names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundObject {
    pub id: ObjectId,
    /// Whether it is an item of the output, which exists only as long as the response is stored.
    pub is_item: bool,
}

/// What a response says about itself. A value is `None` as long as it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ResponseRemarks {
    /// `store`: whether later requests can name the response.
    pub is_stored: Option<bool>,
    /// `background`: whether the response is made independently of the request.
    pub is_background: Option<bool>,
    /// Whether the response is still being made, by its `status`.
    pub is_unfinished: Option<bool>,
}

impl ResponseRemarks {
    /// These remarks, with those of `later` in place of them.
    pub fn replaced_by(self, later: Self) -> Self {
        Self {
            is_stored: later.is_stored.or(self.is_stored),
            is_background: later.is_background.or(self.is_background),
            is_unfinished: later.is_unfinished.or(self.is_unfinished),
        }
    }
}

/// Whether the ids of items of the output are read.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ItemReading {
    #[default]
    Read,
    /// The response is not stored, so its items cannot be named.
    Skip,
}

/// Whether the content of `choices` is looked for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ChoiceReading {
    Read,
    #[default]
    Skip,
}

/// The content of the choices of a chunk of a chat completion.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ChoiceContent {
    /// There is no array `choices`.
    #[default]
    Missing,
    /// No choice has content: the array is empty, or the deltas contain a role at most.
    None,
    /// A delta has content, or a choice has ended.
    Some,
}

impl ResponseOutline {
    /// The maximum length in bytes, as written, of a type or status that is read.
    const MAX_NAME: usize = 256;
    /// The maximum length in bytes, as written, of an id that is read.
    pub const MAX_ID: usize = 64 << 10;

    /// A scanner that collects an outline.
    pub fn scanner(choice_reading: ChoiceReading, item_reading: ItemReading) -> Scanner<Self> {
        let outline = Self {
            choice_reading,
            item_reading,
            ..Self::default()
        };
        Scanner::new(InstructionSet::detect(), outline)
    }

    /// The role of an event without a type, which is a chunk of a chat completion. If the choices are not read, every chunk
    /// counts as output.
    pub fn role_of_chunk(&self) -> EventRole {
        match self.choices {
            _ if self.has_error => EventRole::Failure,
            ChoiceContent::None => EventRole::Lifecycle,
            ChoiceContent::Missing | ChoiceContent::Some => EventRole::Output,
        }
    }

    /// Visits the beginning of a value that may be content. Returns the length of the text that is read. An object or array
    /// counts as content when its first member or element is visited.
    fn visit_content(&mut self, first: u8) -> Option<usize> {
        match first {
            b'"' => return Some(1),
            // `null` and `false`
            b'n' | b'f' | b'{' | b'[' => {}
            _ => self.choices = ChoiceContent::Some,
        }
        None
    }

    /// Opens a scope if its value begins with `first`.
    fn open(&mut self, kind: ScopeKind, depth: u32, first: u8) {
        let opening = if kind.is_array() { b'[' } else { b'{' };
        let is_skipped = kind == ScopeKind::Delta && self.choice_reading == ChoiceReading::Skip;
        if first != opening || is_skipped {
            return;
        }
        if kind == ScopeKind::Choices && self.choice_reading == ChoiceReading::Read {
            self.choices = ChoiceContent::None;
        }
        self.scopes.open(kind, depth);
    }

    fn keep(&mut self, id: ObjectId, is_item: bool) {
        if self.objects.len() < MAX_OBJECTS {
            self.objects.push(FoundObject { id, is_item });
        }
    }
}

/// The value of a boolean that begins with `first`.
fn boolean(first: u8) -> Option<bool> {
    match first {
        b't' => Some(true),
        b'f' => Some(false),
        _ => None,
    }
}

/// The object with the id `raw`, as written; `None` if that is no id.
fn object(raw: &[u8]) -> Option<ObjectId> {
    let id = unescape(raw).ok().filter(|id| !id.is_empty())?;
    Some(ObjectId::from_text(id.as_bytes()))
}

impl FieldVisitor for ResponseOutline {
    type Field = ResponseSlot;
    /// `response` if every character is written as an escape like `\u0000`. Longer names are read only where they are
    /// written without so many escapes.
    const MAX_KEY: usize = 8 * 6;
    const READS_NUMBERS: bool = true;

    #[inline(always)]
    fn max_depth(&self) -> u32 {
        self.scopes.max_depth()
    }

    #[inline(always)]
    fn encrypted_depth(&self) -> u32 {
        self.scopes.encrypted_depth()
    }

    fn visit_encrypted(&mut self, content: EncryptedContent) {
        if self.encrypted.len() < MAX_ENCRYPTED {
            self.encrypted.push(content);
        }
    }

    fn visit_key(&mut self, depth: u32, name: &[u8], _at: u64) -> Result<Option<ResponseSlot>, JsonError> {
        if self.is_list && self.stops_at_list {
            return Ok(None);
        }
        Ok(self.scopes.slot(depth, name))
    }

    fn visit_value(
        &mut self,
        field: Option<ResponseSlot>,
        depth: u32,
        first: u8,
        at: u64,
    ) -> Result<Option<usize>, JsonError> {
        let Some(field) = field else {
            match self.scopes.kind() {
                ScopeKind::Delta if depth > self.scopes.member_depth() => self.choices = ChoiceContent::Some,
                ScopeKind::ResultFiles if first == b'"' => self.element = Some(Capture::new(at + 1, Self::MAX_ID)),
                _ => {}
            }
            return Ok(None);
        };
        match field {
            ResponseSlot::Type | ResponseSlot::Status => return Ok(Some(Self::MAX_NAME)),
            ResponseSlot::ItemId if self.item_reading == ItemReading::Skip => {}
            ResponseSlot::Id | ResponseSlot::ResponseId | ResponseSlot::ItemId | ResponseSlot::ObjectName => {
                return Ok(Some(Self::MAX_ID));
            }
            ResponseSlot::Conversation if first == b'"' => return Ok(Some(Self::MAX_ID)),
            ResponseSlot::Conversation => self.open(ScopeKind::Named, depth, first),
            ResponseSlot::Error if first == b'"' => return Ok(Some(1)),
            ResponseSlot::Error => self.has_error |= first == b'{',
            ResponseSlot::Background => self.remarks.is_background = boolean(first),
            ResponseSlot::Store => self.remarks.is_stored = boolean(first),
            ResponseSlot::Data => self.is_list |= first == b'[',
            ResponseSlot::Content if self.choice_reading == ChoiceReading::Read => return Ok(self.visit_content(first)),
            ResponseSlot::Content => {}
            ResponseSlot::CacheWrites if first == b'{' => self.open(ScopeKind::CacheWrites, depth, first),
            ResponseSlot::Count(_) | ResponseSlot::CacheWrites if first.is_ascii_digit() => {
                return Ok(Some(UsageCounts::MAX_NUMBER));
            }
            ResponseSlot::Count(_) | ResponseSlot::CacheWrites => {}
            ResponseSlot::Scope(kind) => self.open(kind, depth, first),
        }
        Ok(None)
    }

    fn visit_string(&mut self, field: ResponseSlot, raw: Option<&[u8]>, _at: u64) -> Result<(), JsonError> {
        let is_empty = raw == Some(b"");
        match field {
            ResponseSlot::Error => self.has_error |= !is_empty,
            ResponseSlot::Content if !is_empty => self.choices = ChoiceContent::Some,
            ResponseSlot::Content => {}
            ResponseSlot::Type => {
                let name = raw.and_then(|raw| unescape(raw).ok());
                self.kind = name.map(|name| EventKind::from_type(name.as_bytes()));
            }
            ResponseSlot::Status => {
                self.remarks.is_unfinished = raw.map(|raw| matches!(raw, b"queued" | b"in_progress"));
            }
            ResponseSlot::Id => self.id = raw.and_then(object),
            ResponseSlot::ResponseId => self.response_id = raw.and_then(object),
            ResponseSlot::ItemId => match raw.and_then(object) {
                Some(id) if self.scopes.kind() == ScopeKind::Output => self.keep(id, true),
                id => self.item_id = id,
            },
            ResponseSlot::ObjectName | ResponseSlot::Conversation => {
                if let Some(id) = raw.and_then(object) {
                    self.keep(id, false);
                }
            }
            ResponseSlot::Background
            | ResponseSlot::Store
            | ResponseSlot::Data
            | ResponseSlot::Scope(_)
            | ResponseSlot::Count(_)
            | ResponseSlot::CacheWrites => {
                unreachable!("`visit_value` asks for the text of ids, types, states, errors and contents only")
            }
        }
        Ok(())
    }

    fn visit_number(&mut self, field: ResponseSlot, raw: &[u8]) {
        let kind = match field {
            ResponseSlot::Count(kind) => kind,
            ResponseSlot::CacheWrites => TokenKind::CacheWrite,
            // An id or type that is a number is ignored.
            _ => return,
        };
        if let Some(count) = count_of(raw) {
            self.usage.note(kind, count);
        }
    }

    fn visit_value_end(&mut self, depth: u32, slice: &StreamSlice<'_>, at: u64) {
        if let Some(element) = self.element.take()
            && !element.overflows(at - 1)
            && let Some(id) = object(&element.finish(slice, at - 1))
        {
            self.keep(id, false);
        }
        self.scopes.close(depth);
    }

    fn suspend(&mut self, slice: &StreamSlice<'_>) {
        if let Some(element) = &mut self.element {
            element.suspend(slice);
        }
    }
}
