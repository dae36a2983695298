//! Collects the facts of a request from the fields that the JSON scanner reports.

use super::{
    facts::{NamedObject, ReferenceKind, RequestFacts},
    scanner::RequestScanRules,
};
use twox_hash::XxHash3_64;

use crate::{
    ids::{ContentDigest, EncryptedContent, ObjectId},
    scan::{
        field::RoutingField,
        json::{
            capture::{Capture, StreamSlice},
            error::{JsonError, JsonErrorKind},
            unescape::unescape,
            visitor::FieldVisitor,
        },
    },
};

/// The length in bytes of `user` if every character is written as an escape like `\u0000`.
const MAX_ROLE: usize = 4 * 6;

/// A field that the visitor reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestSlot {
    /// A field that decides the route.
    Routing(RoutingField),
    /// The `role` of an item of `input`.
    ItemRole,
}

/// The maximum number of bytes of a part of the conversation that are read.
const MAX_PART: usize = 4096;

/// Reads [`RequestFacts`].
pub(super) struct RequestVisitor<'r> {
    rules: RequestScanRules<'r>,
    /// The beginning of `instructions` and of `input`.
    parts: [Vec<u8>; 2],
    /// The facts that have been read so far.
    pub facts: RequestFacts,
    /// One bit for each [`RoutingField`], set once its key has been read.
    seen: u16,
    scope: RequestScope,
    /// The part of the conversation prefix that is being captured.
    prefix: Option<(PrefixPart, Capture)>,
    /// Whether the current item of `input` has the role `user`.
    from_user: bool,
}

/// The member of the root object that is being read, if the visitor also reads its members.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum RequestScope {
    #[default]
    Root,
    ClientMetadata,
    /// The items of `input` up to the first one of the user.
    Input,
    /// The later items of `input`, of which only the encrypted content is read.
    History,
}

/// A part of the beginning of a conversation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PrefixPart {
    Instructions,
    Input,
}

impl<'r> RequestVisitor<'r> {
    /// A visitor that has seen nothing yet.
    pub fn new(rules: RequestScanRules<'r>) -> Self {
        Self {
            rules,
            parts: Default::default(),
            facts: RequestFacts::default(),
            seen: 0,
            scope: RequestScope::Root,
            prefix: None,
            from_user: false,
        }
    }

    /// The facts, after the whole body has been read.
    pub fn finish(mut self) -> RequestFacts {
        if self.parts.iter().any(|part| !part.is_empty()) {
            let hash = self
                .parts
                .iter()
                .fold(0, |seed, part| XxHash3_64::oneshot_with_seed(seed, part));
            self.facts.content = Some(ContentDigest::from_hash(hash));
        }
        self.facts
    }

    /// Refuses a key that some parsers take for a routing field because they ignore case, as Go's encoding/json does.
    fn check_case(&self, depth: u32, name: &[u8], at: u64) -> Result<Option<RequestSlot>, JsonError> {
        let fields = match (depth, self.scope) {
            (1, _) => RoutingField::ROOT,
            (2, RequestScope::ClientMetadata) => &[RoutingField::SessionId],
            _ => return Ok(None),
        };
        match fields.iter().find(|field| field.differs_only_in_case(name)) {
            Some(field) => Err(JsonError::new(JsonErrorKind::FieldInOtherCase(*field), at)),
            None => Ok(None),
        }
    }

    /// Stores the text of a string field.
    fn store(&mut self, field: RoutingField, text: String) {
        match field {
            RoutingField::Model => self.facts.model = Some(text),
            RoutingField::PromptCacheKey | RoutingField::SessionId => {
                let path = self
                    .rules
                    .paths
                    .iter()
                    .find(|(_, path)| path.to_string() == field.name());
                if let Some((index, _)) = path {
                    self.facts.texts.set(index, text);
                }
            }
            RoutingField::PreviousResponseId => self.facts.named.push(NamedObject {
                kind: ReferenceKind::PreviousResponse,
                id: ObjectId::from_text(text.as_bytes()),
            }),
            RoutingField::Stream | RoutingField::ClientMetadata | RoutingField::Instructions | RoutingField::Input => {
                unreachable!("`visit_value` asks for the text of string fields only")
            }
        }
    }

    /// Ends the part of the conversation prefix that is being captured, if there is one, at offset `end`.
    fn end_prefix(&mut self, slice: &StreamSlice<'_>, end: u64) {
        let Some((part, capture)) = self.prefix.take() else {
            return;
        };
        let text = capture.finish(slice, end).into_owned();
        match part {
            PrefixPart::Instructions => self.parts[0] = text,
            PrefixPart::Input => self.parts[1] = text,
        }
    }

    fn begin_prefix(&mut self, part: PrefixPart, at: u64) {
        self.prefix = Some((part, Capture::new(at, MAX_PART)));
    }
}

impl FieldVisitor for RequestVisitor<'_> {
    type Field = RequestSlot;
    /// `previous_response_id` if every character is written as an escape like `\u0000`.
    const MAX_KEY: usize = 20 * 6;

    #[inline(always)]
    fn max_depth(&self) -> u32 {
        match self.scope {
            RequestScope::Root | RequestScope::History => 1,
            RequestScope::ClientMetadata => 2,
            RequestScope::Input => 3,
        }
    }

    #[inline(always)]
    fn encrypted_depth(&self) -> u32 {
        match self.scope {
            RequestScope::Input | RequestScope::History => 3,
            RequestScope::Root | RequestScope::ClientMetadata => 0,
        }
    }

    fn visit_encrypted(&mut self, content: EncryptedContent) {
        let kept = &mut self.facts.encrypted;
        if kept.len() == RequestFacts::MAX_ENCRYPTED {
            kept.remove(0);
        }
        kept.push(content);
    }

    fn visit_key(&mut self, depth: u32, name: &[u8], at: u64) -> Result<Option<RequestSlot>, JsonError> {
        let field = match (depth, self.scope, name) {
            (1, _, b"model") => RoutingField::Model,
            (1, _, b"prompt_cache_key") => RoutingField::PromptCacheKey,
            (1, _, b"stream") => RoutingField::Stream,
            (1, _, b"previous_response_id") => RoutingField::PreviousResponseId,
            (1, _, b"client_metadata") => RoutingField::ClientMetadata,
            (1, _, b"instructions") => RoutingField::Instructions,
            (1, _, b"input") => RoutingField::Input,
            (2, RequestScope::ClientMetadata, b"session_id") => RoutingField::SessionId,
            (3, RequestScope::Input, b"role") => return Ok(Some(RequestSlot::ItemRole)),
            _ => return self.check_case(depth, name, at),
        };
        let bit = 1 << field as u32;
        if self.seen & bit != 0 {
            return Err(JsonError::new(JsonErrorKind::DuplicateField(field), at));
        }
        self.seen |= bit;
        Ok(Some(RequestSlot::Routing(field)))
    }

    fn visit_value(
        &mut self,
        field: Option<RequestSlot>,
        depth: u32,
        first: u8,
        at: u64,
    ) -> Result<Option<usize>, JsonError> {
        if depth == 2 {
            self.from_user = false;
        }
        let field = match field {
            Some(RequestSlot::Routing(field)) => field,
            Some(RequestSlot::ItemRole) => return Ok(Some(MAX_ROLE)),
            None => return Ok(None),
        };
        match (field, first) {
            // A value that begins with `n` is `null`; the scanner refuses any other.
            (_, b'n') => {}
            (RoutingField::Stream, b't') => self.facts.stream = Some(true),
            (RoutingField::Stream, b'f') => self.facts.stream = Some(false),
            (RoutingField::ClientMetadata, b'{') => self.scope = RequestScope::ClientMetadata,
            (RoutingField::Stream | RoutingField::ClientMetadata, _) => {}
            (RoutingField::Instructions, _) => self.begin_prefix(PrefixPart::Instructions, at),
            (RoutingField::Input, _) => {
                self.begin_prefix(PrefixPart::Input, at);
                if first == b'[' {
                    self.scope = RequestScope::Input;
                }
            }
            // `model` decides access, and an upstream may read another type differently.
            (RoutingField::Model, _) if first != b'"' => {
                return Err(JsonError::new(JsonErrorKind::FieldNotString(field), at));
            }
            (
                RoutingField::Model
                | RoutingField::PromptCacheKey
                | RoutingField::PreviousResponseId
                | RoutingField::SessionId,
                _,
            ) => return Ok(Some(JsonErrorKind::MAX_TEXT)),
        }
        Ok(None)
    }

    fn visit_string(&mut self, field: RequestSlot, raw: Option<&[u8]>, at: u64) -> Result<(), JsonError> {
        match (field, raw) {
            (RequestSlot::ItemRole, raw) => {
                self.from_user |= raw.is_some_and(|raw| unescape(raw).is_ok_and(|role| role == "user"))
            }
            (RequestSlot::Routing(field), None) => {
                return Err(JsonError::new(JsonErrorKind::FieldTooLong(field), at));
            }
            (RequestSlot::Routing(field), Some(raw)) => {
                // The lexer has checked the string, except that it reports a lone surrogate up to nine bytes after it.
                let lone = |index| JsonError::new(JsonErrorKind::LoneSurrogate, at + 1 + index as u64);
                let text = unescape(raw).map_err(lone)?;
                if field == RoutingField::Model {
                    self.facts.model_at = Some(at..at + raw.len() as u64 + 2);
                }
                self.store(field, text.into_owned());
            }
        }
        Ok(())
    }

    fn visit_value_end(&mut self, depth: u32, slice: &StreamSlice<'_>, at: u64) {
        let is_full = self.prefix.as_ref().is_some_and(|(_, capture)| capture.overflows(at));
        if depth == 1 {
            self.end_prefix(slice, at);
            self.scope = RequestScope::Root;
        } else if depth == 2 && self.scope == RequestScope::Input && (self.from_user || is_full) {
            self.end_prefix(slice, at);
            self.scope = RequestScope::History;
        }
    }

    fn suspend(&mut self, slice: &StreamSlice<'_>) {
        if let Some((_, capture)) = &mut self.prefix {
            capture.suspend(slice);
        }
    }
}
