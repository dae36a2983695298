//! Collects the facts of a request from the fields that the JSON scanner reports. Each kind of fact has a reader of its own:
//! [`PathReader`] for the configured texts, [`ConversationReader`] for the beginning of the conversation, and
//! [`ReferenceReader`] for the names of objects. A [`TypeReader`] finds values of another type.

use super::{
    conversation::{self, ConversationReader, Leaf, Part},
    facts::RequestFacts,
    field_types::TypeReader,
    paths::PathReader,
    references::{Place, ReferenceReader, ReferenceSlot, TYPE_NAMES},
    rules::RequestScanRules,
    slots::{KeyForm, RequestSlot, slot_of_root},
};
use crate::{
    body_path::BodyPath,
    ids::EncryptedContent,
    media::MediaKind,
    scan::{
        field::{RoutingField, differs_only_in_case, is_lower_case},
        json::{
            capture::StreamSlice,
            error::{JsonError, JsonErrorKind},
            unescape::unescape,
            visitor::FieldVisitor,
        },
    },
};

/// Reads [`RequestFacts`].
pub(super) struct RequestVisitor<'r> {
    /// The facts that have been read so far.
    facts: RequestFacts,
    /// One bit for each field of [`RoutingField::ROOT`], set once its key has been read.
    seen: u16,
    paths: PathReader<'r>,
    conversation: ConversationReader,
    references: ReferenceReader,
    types: TypeReader,
    /// Whether the items of `input` are being read.
    is_in_input: bool,
    /// The depth of the value that was visited last.
    depth: u32,
    /// The depth of the deepest members that are wanted.
    max_depth: u32,
}

impl<'r> RequestVisitor<'r> {
    /// A visitor that has seen nothing yet.
    pub fn new(rules: RequestScanRules<'r>) -> Self {
        let references = ReferenceReader::new(rules.references);
        let max_depth = references.depth();
        Self {
            facts: RequestFacts::default(),
            seen: 0,
            paths: PathReader::new(rules.paths),
            conversation: ConversationReader::default(),
            references,
            types: TypeReader::default(),
            is_in_input: false,
            depth: 0,
            max_depth,
        }
    }

    /// The facts, after the whole body has been read.
    pub fn finish(mut self) -> RequestFacts {
        self.facts.content = self.conversation.finish();
        self.facts
    }

    fn update_depth(&mut self) {
        let conversation = match self.conversation.is_open() {
            true => conversation::MAX_DEPTH,
            false => 1,
        };
        let depth = self.paths.depth().max(self.references.depth());
        self.max_depth = depth.max(conversation);
    }

    /// The field of the root with this name.
    ///
    /// # Errors
    /// If the root has the field twice, or if the key differs from the name of a field in case only: some parsers ignore case,
    /// as Go's encoding/json does.
    fn root_field(&mut self, name: &[u8], at: u64) -> Result<Option<RoutingField>, JsonError> {
        let mut fields = RoutingField::ROOT.iter().enumerate();
        if let Some((index, (_, field))) = fields.find(|(_, (known, _))| known.as_bytes() == name) {
            let bit = 1 << index;
            if self.seen & bit != 0 {
                return Err(JsonError::new(JsonErrorKind::DuplicateField(*field), at));
            }
            self.seen |= bit;
            return Ok(Some(*field));
        }
        let in_other_case = match is_lower_case(name) {
            true => None,
            false => RoutingField::ROOT
                .iter()
                .find(|(known, _)| differs_only_in_case(name, known)),
        };
        match in_other_case {
            Some((_, field)) => Err(JsonError::new(JsonErrorKind::FieldInOtherCase(*field), at)),
            None => Ok(None),
        }
    }

    /// What a key of an item means.
    fn slot_of_member(&self, depth: u32, name: &[u8]) -> Option<RequestSlot> {
        if !self.conversation.reads(depth) {
            return None;
        }
        Some(match name {
            b"role" if self.conversation.is_role(depth) => RequestSlot::Role,
            b"text" | b"content" | b"arguments" | b"output" | b"input" | b"name" | b"refusal" => {
                RequestSlot::Leaf(Leaf::Text)
            }
            b"image_url" | b"file_url" | b"url" | b"file_data" | b"data" => RequestSlot::Leaf(Leaf::Media),
            b"annotations" | b"citations" | b"logprobs" | b"cache_control" | b"metadata" => RequestSlot::Skipped,
            _ => return None,
        })
    }

    /// Visits a key.
    #[inline(always)]
    fn visit_name(
        &mut self,
        depth: u32,
        name: &[u8],
        at: u64,
        form: KeyForm,
    ) -> Result<Option<RequestSlot>, JsonError> {
        self.types.visit_key(depth, name);
        let is_path = depth <= BodyPath::MAX_NAMES as u32 && self.paths.visit_key(depth, name, at)?;
        if depth == 1
            && let Some(field) = self.root_field(name, at)?
        {
            return Ok(Some(slot_of_root(field)));
        }
        let names_objects = form == KeyForm::Plain || self.references.is_exhaustive();
        if (names_objects || depth == 1)
            && let Some(slot) = self.references.slot_of_key(depth, name)
        {
            return Ok(Some(RequestSlot::Reference(slot)));
        }
        let path = is_path.then_some(RequestSlot::Path);
        Ok(self.slot_of_member(depth, name).or(path))
    }

    /// Stores the text at a configured path, which is captured.
    fn visit_path_text(&mut self, path: u8, raw: Option<&[u8]>, at: u64) -> Result<(), JsonError> {
        let index = usize::from(path);
        match raw {
            Some(raw) => {
                self.facts.texts.set(index, readable(raw, at)?);
                Ok(())
            }
            None => {
                let field = self.paths.field_of(path);
                Err(JsonError::new(JsonErrorKind::FieldTooLong(field), at))
            }
        }
    }

    fn visit_model(&mut self, raw: Option<&[u8]>, at: u64) -> Result<(), JsonError> {
        let too_long = JsonError::new(JsonErrorKind::FieldTooLong(RoutingField::Model), at);
        let raw = raw.ok_or(too_long)?;
        self.facts.model_at = Some(at..at + raw.len() as u64 + 2);
        self.facts.model = Some(readable(raw, at)?);
        Ok(())
    }

    /// Visits the beginning of a value with a slot. Returns the maximum length of its text if the text is wanted.
    fn visit_slot(&mut self, slot: RequestSlot, first: u8, at: u64) -> Result<Option<usize>, JsonError> {
        let depth = self.depth;
        Ok(match slot {
            // A value that begins with `n` is `null`; the scanner refuses any other.
            RequestSlot::Model if first == b'n' => None,
            // `model` decides access, and an upstream may read another type differently.
            RequestSlot::Model if first != b'"' => {
                let kind = JsonErrorKind::FieldNotString(RoutingField::Model);
                return Err(JsonError::new(kind, at));
            }
            RequestSlot::Model => Some(JsonErrorKind::MAX_TEXT),
            RequestSlot::Flag(field) => {
                self.set_flag(field, first);
                None
            }
            RequestSlot::Part(part) => {
                self.is_in_input = part == Part::Input && first == b'[';
                let is_read = self.conversation.begin(part, first);
                self.conversation.begin_text(depth);
                (is_read && first == b'"').then_some(Self::STREAMED)
            }
            RequestSlot::Role => Some(conversation::MAX_ROLE),
            RequestSlot::Leaf(_) if first == b'"' => {
                self.conversation.begin_text(depth);
                Some(Self::STREAMED)
            }
            RequestSlot::Skipped => {
                if matches!(first, b'{' | b'[') {
                    self.conversation.skip(depth);
                }
                None
            }
            RequestSlot::Reference(slot) => {
                if slot == ReferenceSlot::Ignored && matches!(first, b'{' | b'[') {
                    self.conversation.skip(depth);
                }
                self.references.visit_value(slot, depth, first)
            }
            RequestSlot::Leaf(_) | RequestSlot::Path => None,
        })
    }

    fn set_flag(&mut self, field: RoutingField, first: u8) {
        let value = match first {
            b't' => Some(true),
            b'f' => Some(false),
            _ => None,
        };
        match field {
            RoutingField::Stream => self.facts.stream = value,
            RoutingField::Store => self.facts.store = value,
            RoutingField::Background => self.facts.background = value,
            _ => unreachable!("`slot_of_root` makes flags of these fields only"),
        }
    }
}

/// The text of a field that decides the route or access. The opening quote is at `at`.
fn readable(raw: &[u8], at: u64) -> Result<String, JsonError> {
    let lone = |index| JsonError::new(JsonErrorKind::LoneSurrogate, at + 1 + index as u64);
    Ok(unescape(raw).map_err(lone)?.into_owned())
}

impl FieldVisitor for RequestVisitor<'_> {
    type Field = RequestSlot;
    /// The longest name of a path if every character is written as an escape like `\u0000`.
    const MAX_KEY: usize = BodyPath::MAX_NAME * 6;
    const READS_REFERENCES: bool = true;
    const READS_MEDIA: bool = true;

    #[inline(always)]
    fn max_depth(&self) -> u32 {
        self.max_depth
    }

    #[inline(always)]
    fn encrypted_depth(&self) -> u32 {
        if self.is_in_input { 3 } else { 0 }
    }

    fn visit_encrypted(&mut self, content: EncryptedContent) {
        let kept = &mut self.facts.encrypted;
        if kept.len() == RequestFacts::MAX_ENCRYPTED {
            kept.remove(0);
        }
        kept.push(content);
    }

    fn visit_media(&mut self, kind: MediaKind, bytes: u64) {
        self.facts.media.add(kind, bytes);
    }

    fn visit_key(&mut self, depth: u32, name: &[u8], at: u64) -> Result<Option<RequestSlot>, JsonError> {
        self.visit_name(depth, name, at, KeyForm::Plain)
    }

    fn visit_escaped_key(&mut self, depth: u32, name: &[u8], at: u64) -> Result<Option<RequestSlot>, JsonError> {
        self.visit_name(depth, name, at, KeyForm::Escaped)
    }

    #[inline(always)]
    fn field_of_value(&self, named: Option<RequestSlot>, depth: u32, first: u8) -> Option<RequestSlot> {
        if named.is_some() || first != b'"' {
            return named;
        }
        if self.conversation.is_item_text(depth) {
            return Some(RequestSlot::Leaf(Leaf::Text));
        }
        self.references.slot_of_string(depth).map(RequestSlot::Reference)
    }

    fn visit_value(
        &mut self,
        field: Option<RequestSlot>,
        depth: u32,
        first: u8,
        at: u64,
    ) -> Result<Option<usize>, JsonError> {
        self.depth = depth;
        self.types.visit_value(first, &mut self.facts.mistyped);
        if self.conversation.is_open() {
            self.conversation.visit_value(depth, first);
        }
        let is_path_text = self.paths.visit_value(depth, first);
        let limit = match field {
            Some(slot) => self.visit_slot(slot, first, at)?,
            None => None,
        };
        if is_path_text || matches!(first, b'{' | b'[') {
            self.update_depth();
        }
        // A text that a path leads to is never streamed.
        Ok(if is_path_text {
            Some(JsonErrorKind::MAX_TEXT)
        } else {
            limit
        })
    }

    fn visit_string(&mut self, field: RequestSlot, raw: Option<&[u8]>, at: u64) -> Result<(), JsonError> {
        if let Some(path) = self.paths.take_captured() {
            self.visit_path_text(path, raw, at)?;
        }
        let place = Place { depth: self.depth, at };
        match field {
            RequestSlot::Model => self.visit_model(raw, at)?,
            RequestSlot::Role => self.conversation.visit_role(raw),
            RequestSlot::Leaf(_) | RequestSlot::Part(_) => {
                let leaf = if let RequestSlot::Leaf(leaf) = field {
                    leaf
                } else {
                    Leaf::Text
                };
                self.conversation.visit_text(leaf, place.depth, raw.unwrap_or_default());
            }
            RequestSlot::Reference(slot) => {
                let raw_name = raw.filter(|_| matches!(slot, ReferenceSlot::Name(_)));
                if let Some(raw) = raw_name.filter(|_| self.conversation.reads(place.depth)) {
                    self.conversation.visit_text(Leaf::Media, place.depth, raw);
                }
                self.references.visit_string(slot, place, raw, &mut self.facts)?;
            }
            RequestSlot::Path | RequestSlot::Flag(_) | RequestSlot::Skipped => {}
        }
        match raw {
            Some(raw) if !matches!(field, RequestSlot::Reference(_)) && !self.references.is_exhaustive() => {
                self.references.visit_type(place, raw, &mut self.facts)?;
            }
            _ => {}
        }
        self.max_depth = self.max_depth.max(self.references.depth());
        Ok(())
    }

    fn visit_piece(&mut self, piece: &[u8]) {
        self.conversation.visit_piece(piece);
    }

    fn visit_last_piece(&mut self, field: RequestSlot, piece: &[u8]) {
        let leaf = if let RequestSlot::Leaf(leaf) = field {
            leaf
        } else {
            Leaf::Text
        };
        let (length, hash) = self.conversation.visit_last_piece(leaf, piece);
        if !self.references.is_exhaustive()
            && let Some(name) = TYPE_NAMES.iter().find(|name| name.len() as u64 == length)
            && hash == conversation::hash_of(name)
        {
            let place = Place {
                depth: self.depth,
                at: 0,
            };
            let named = self.references.visit_type(place, name, &mut self.facts);
            named.expect("a name that decides the route only is never refused");
            self.max_depth = self.max_depth.max(self.references.depth());
        }
    }

    fn visit_value_end(&mut self, depth: u32, _slice: &StreamSlice<'_>, _at: u64) {
        self.references.visit_value_end(depth);
        self.types.visit_value_end(depth, &mut self.facts.mistyped);
        self.paths.visit_value_end(depth);
        let ends = self.conversation.visit_value_end(depth);
        if depth == 1 {
            self.is_in_input = false;
        }
        if ends || depth < self.max_depth {
            self.update_depth();
        }
    }
}
