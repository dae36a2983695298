//! Reads the names of objects: `file_id`, `vector_store_ids` and the like.
//!
//! Most names are strings, or arrays of strings, under a key of their own. In others, the key is `id` and a string beside it
//! says what the object is (`{"type":"item_reference","id":"msg_1"}`), or the key around the object does
//! (`"conversation":{"id":"conv_1"}`). So the reader keeps a stack of the objects and arrays in which it needs that.

use super::{
    facts::{NamedObject, ReferenceKind, RequestFacts},
    rules::ReferenceSearch,
};
use crate::{
    ids::ObjectId,
    scan::{
        field::folded,
        json::{
            error::{JsonError, JsonErrorKind},
            unescape::unescape,
        },
    },
};

/// What a key or value means to the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReferenceSlot {
    /// The name of an object, or an array of names, or an object with an `id`.
    Name(ReferenceKind),
    /// `id`, which names an object if another member says so.
    Id,
    /// `type`, or a string whose key is not known. It may say what `id` names.
    Type,
    /// An object whose members have to be read.
    Options,
    /// An object or array whose members name nothing.
    Ignored,
}

/// An object or array that is being read.
#[derive(Clone, Copy)]
struct OpenContainer {
    /// The depth of its members or elements.
    depth: u32,
    /// What its elements, or its `id`, name.
    kind: Option<ReferenceKind>,
    is_array: bool,
    /// The `id` that the object has.
    id: Option<ObjectId>,
}

impl OpenContainer {
    fn object(depth: u32, kind: Option<ReferenceKind>) -> Self {
        Self {
            depth,
            kind,
            is_array: false,
            id: None,
        }
    }
}

/// Reads the names of objects.
pub(super) struct ReferenceReader {
    search: ReferenceSearch,
    stack: Vec<OpenContainer>,
    /// The members deeper than this depth are ignored, if it is not 0.
    ignored_below: u32,
}

impl ReferenceReader {
    pub fn new(search: ReferenceSearch) -> Self {
        Self {
            search,
            stack: Vec::new(),
            ignored_below: 0,
        }
    }

    /// Whether all keys are read, also those written with escapes.
    pub fn is_exhaustive(&self) -> bool {
        self.search == ReferenceSearch::Exhaustive
    }

    /// The depth of the deepest members that the reader wants now.
    pub fn depth(&self) -> u32 {
        match self.search {
            ReferenceSearch::Exhaustive => u32::MAX,
            ReferenceSearch::Usual => self.stack.last().map_or(1, |container| container.depth),
        }
    }

    /// What the key `name` means.
    #[inline(always)]
    pub fn slot_of_key(&self, depth: u32, name: &[u8]) -> Option<ReferenceSlot> {
        if self.ignored_below != 0 && depth > self.ignored_below {
            return None;
        }
        match self.search {
            ReferenceSearch::Usual => slot_of_key(depth, name),
            ReferenceSearch::Exhaustive => {
                let folded: String = std::str::from_utf8(name).ok()?.chars().map(folded).collect();
                // Elsewhere than in its usual place, a name is read as in the root.
                slot_of_key(depth, folded.as_bytes()).or_else(|| match folded.as_str() {
                    "type" => Some(ReferenceSlot::Type),
                    "annotations" => Some(ReferenceSlot::Ignored),
                    "metadata" | "client_metadata" | "prompt_cache_options" => None,
                    name => slot_of_key(1, name.as_bytes()),
                })
            }
        }
    }

    /// What a string without a known key at `depth` means.
    #[inline(always)]
    pub fn slot_of_string(&self, depth: u32) -> Option<ReferenceSlot> {
        match self.stack.last() {
            _ if self.ignored_below != 0 && depth > self.ignored_below => None,
            Some(container) if container.depth == depth && container.is_array => {
                container.kind.map(ReferenceSlot::Name)
            }
            Some(_) | None if self.is_exhaustive() => None,
            Some(_) | None => Some(ReferenceSlot::Type),
        }
    }

    /// Visits the beginning of a value. Returns the maximum length of its text if the text is wanted.
    pub fn visit_value(&mut self, slot: ReferenceSlot, depth: u32, first: u8) -> Option<usize> {
        match (slot, first) {
            (ReferenceSlot::Name(_) | ReferenceSlot::Id, b'"') => return Some(JsonErrorKind::MAX_REFERENCE),
            (ReferenceSlot::Type, b'"') => return Some(MAX_TYPE),
            (ReferenceSlot::Name(kind), b'[' | b'{') => {
                // The members of an object in an array are other names, and so are the items of an array in an array.
                self.stack.push(OpenContainer {
                    is_array: first == b'[',
                    ..OpenContainer::object(depth + 1, Some(kind))
                });
            }
            (ReferenceSlot::Options, b'{') => self.stack.push(OpenContainer::object(depth + 1, None)),
            (ReferenceSlot::Ignored, b'[' | b'{') => self.ignored_below = depth,
            _ => {}
        }
        None
    }

    /// The object whose members have this depth.
    fn object(&mut self, depth: u32) -> &mut OpenContainer {
        if self.stack.last().is_none_or(|container| container.depth != depth) {
            self.stack.push(OpenContainer::object(depth, None));
        }
        self.stack.last_mut().expect("the stack has the object by now")
    }

    /// Visits the text of a value, or `None` if it is too long. The opening quote is at `at`.
    ///
    /// # Errors
    /// If a name cannot be read, or the body has too many names, and the names decide access.
    pub fn visit_string(
        &mut self,
        slot: ReferenceSlot,
        place: Place,
        raw: Option<&[u8]>,
        facts: &mut RequestFacts,
    ) -> Result<(), JsonError> {
        match (slot, raw) {
            (ReferenceSlot::Type, Some(raw)) => self.visit_type(place, raw, facts),
            (ReferenceSlot::Type | ReferenceSlot::Options | ReferenceSlot::Ignored, _) => Ok(()),
            (ReferenceSlot::Name(_) | ReferenceSlot::Id, None) => match self.search {
                ReferenceSearch::Usual => Ok(()),
                ReferenceSearch::Exhaustive => Err(JsonError::new(JsonErrorKind::ReferenceTooLong, place.at)),
            },
            (ReferenceSlot::Name(kind), Some(raw)) => {
                let lone = |index| JsonError::new(JsonErrorKind::LoneSurrogate, place.at + 1 + index as u64);
                let text = unescape(raw).map_err(lone)?;
                self.name(kind, ObjectId::from_text(text.as_bytes()), place, facts)
            }
            (ReferenceSlot::Id, Some(raw)) => self.visit_id(place, raw, facts),
        }
    }

    fn visit_id(&mut self, place: Place, raw: &[u8], facts: &mut RequestFacts) -> Result<(), JsonError> {
        // An `id` that names nothing may be any text.
        let text = match (unescape(raw), self.search) {
            (Ok(text), _) => text,
            (Err(_), ReferenceSearch::Usual) => return Ok(()),
            (Err(index), ReferenceSearch::Exhaustive) => {
                let at = place.at + 1 + index as u64;
                return Err(JsonError::new(JsonErrorKind::LoneSurrogate, at));
            }
        };
        let id = ObjectId::from_text(text.as_bytes());
        let is_exhaustive = self.is_exhaustive();
        let object = self.object(place.depth);
        if object.id.is_some() && is_exhaustive {
            return Err(JsonError::new(JsonErrorKind::DuplicateReference, place.at));
        }
        object.id = Some(id);
        match object.kind {
            Some(kind) => self.name(kind, id, place, facts),
            None => Ok(()),
        }
    }

    /// Visits a string that may say that the `id` beside it names an object.
    pub fn visit_type(&mut self, place: Place, raw: &[u8], facts: &mut RequestFacts) -> Result<(), JsonError> {
        let kind = match self.search {
            ReferenceSearch::Usual => kind_of_type(raw),
            ReferenceSearch::Exhaustive => unescape(raw).ok().and_then(|text| kind_of_type(text.as_bytes())),
        };
        let Some(kind) = kind else {
            return Ok(());
        };
        if self.ignored_below != 0 && place.depth > self.ignored_below {
            return Ok(());
        }
        let object = self.object(place.depth);
        if object.is_array || object.kind.is_some() {
            return Ok(());
        }
        object.kind = Some(kind);
        match object.id {
            Some(id) => self.name(kind, id, place, facts),
            None => Ok(()),
        }
    }

    fn name(
        &mut self,
        kind: ReferenceKind,
        id: ObjectId,
        place: Place,
        facts: &mut RequestFacts,
    ) -> Result<(), JsonError> {
        if facts.named.len() < RequestFacts::MAX_NAMED {
            facts.named.push(NamedObject { kind, id });
            return Ok(());
        }
        match self.search {
            ReferenceSearch::Usual => Ok(()),
            ReferenceSearch::Exhaustive => Err(JsonError::new(JsonErrorKind::TooManyReferences, place.at)),
        }
    }

    /// Visits the end of a value.
    #[inline(always)]
    pub fn visit_value_end(&mut self, depth: u32) {
        while self.stack.last().is_some_and(|container| container.depth > depth) {
            self.stack.pop();
        }
        if self.ignored_below == depth {
            self.ignored_below = 0;
        }
    }
}

/// Where a string stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The depth of the string.
    pub depth: u32,
    /// The stream offset of its opening quote.
    pub at: u64,
}

/// The maximum length of a `type` that is read, in bytes as written. Longer ones are not known.
const MAX_TYPE: usize = 14 * 6;

/// The values of `type` that [`kind_of_type`] knows.
pub(super) const TYPE_NAMES: [&[u8]; 2] = [b"item_reference", b"file_id"];

/// What an object with this `type` names by its `id`.
fn kind_of_type(text: &[u8]) -> Option<ReferenceKind> {
    match text {
        b"item_reference" => Some(ReferenceKind::Item),
        b"file_id" => Some(ReferenceKind::File),
        _ => None,
    }
}

/// What a key means at its usual place.
#[inline(always)]
fn slot_of_key(depth: u32, name: &[u8]) -> Option<ReferenceSlot> {
    let kind = match (name, depth) {
        (b"id", _) => return Some(ReferenceSlot::Id),
        (b"file_id" | b"file_ids", _) => ReferenceKind::File,
        (b"vector_store_id" | b"vector_store_ids", _) => ReferenceKind::VectorStore,
        (b"container" | b"container_id", _) => ReferenceKind::Container,
        (b"previous_response_id" | b"response_id", 1) => ReferenceKind::PreviousResponse,
        (b"conversation" | b"conversation_id", 1) => ReferenceKind::Conversation,
        (b"input_file_id" | b"training_file" | b"validation_file", 1) => ReferenceKind::File,
        (b"comparison_response_id", 1 | 2) => ReferenceKind::ComparedResponse,
        (b"batch_id" | b"completion_id" | b"item_id" | b"upload_id" | b"eval_id" | b"thread_id", 1) => {
            ReferenceKind::Item
        }
        (b"prompt_cache_options", 1) => return Some(ReferenceSlot::Options),
        (b"metadata" | b"client_metadata", 1) => return Some(ReferenceSlot::Ignored),
        _ => return None,
    };
    Some(ReferenceSlot::Name(kind))
}
