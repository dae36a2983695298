//! Collects the facts of a response from the fields that the JSON scanner reports. The JSON text is a response body, or an
//! event that contains a response or one of its items.

use super::{opening::EventRole, peek::EventKind, usage::UsageCounts};
use crate::{
    ids::EncryptedContent,
    scan::json::{
        capture::StreamSlice, error::JsonError, lexer::InstructionSet, scanner::Scanner, unescape::unescape,
        visitor::FieldVisitor,
    },
};

/// The maximum number of encrypted contents that are kept. More are dropped.
pub(super) const MAX_ENCRYPTED: usize = 64;
/// The maximum number of digits of a token count.
const MAX_COUNT: usize = 19;

/// The facts that have been read so far.
#[derive(Default)]
pub(super) struct ResponseOutline {
    /// `type`, if there is one.
    pub kind: Option<EventKind>,
    /// `id`.
    pub id: Option<String>,
    /// `response.id`.
    pub response_id: Option<String>,
    /// Whether `error` is an object, or a text that is not empty.
    has_error: bool,
    choice_reading: ChoiceReading,
    /// What the array `choices` contains, if it is read.
    choices: ChoiceContent,
    /// The `encrypted_content` of `item`, of the items of `output`, and of the items of `response.output`.
    pub encrypted: Vec<EncryptedContent>,
    /// Whether the array `output` has been read to its end.
    has_output: bool,
    /// The counts of `usage`, or of `response.usage`.
    pub usage: UsageCounts,
    /// Whether the object `usage` has been read to its end.
    has_usage: bool,
    scope: ResponseScope,
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

/// The object or array that is being read.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ResponseScope {
    #[default]
    Root,
    Item,
    Output,
    Usage,
    UsageDetails,
    /// The array `choices`, and the choices in it.
    Choices,
    /// The delta of a choice.
    Delta,
    Response,
    ResponseOutput,
    ResponseUsage,
    ResponseUsageDetails,
}

/// A field that is read.
#[derive(Clone, Copy)]
pub(super) enum ResponseSlot {
    Type,
    Id,
    Error,
    Item,
    Output,
    Response,
    ResponseId,
    ResponseOutput,
    Choices,
    Delta,
    /// A member of a choice or of its delta that has content unless its value is empty.
    Content,
    Usage,
    ResponseUsage,
    UsageDetails,
    InputTokens,
    CachedTokens,
    OutputTokens,
}

impl ResponseOutline {
    /// The maximum length in bytes, as written, of an id or type that is read.
    const MAX_ID: usize = 256;

    /// A scanner that collects an outline.
    pub fn scanner(choice_reading: ChoiceReading) -> Scanner<Self> {
        let outline = Self {
            choice_reading,
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

    /// Whether all facts of a JSON body are known.
    pub fn is_complete(&self) -> bool {
        self.id.is_some() && self.has_output && self.has_usage
    }
}

impl FieldVisitor for ResponseOutline {
    type Field = ResponseSlot;
    /// `response` if every character is written as an escape like `\u0000`. Longer names are read only where they are
    /// written without so many escapes.
    const MAX_KEY: usize = 8 * 6;
    const READS_NUMBERS: bool = true;

    #[inline(always)]
    fn max_depth(&self) -> u32 {
        match self.scope {
            ResponseScope::Root | ResponseScope::Item | ResponseScope::Output => 1,
            ResponseScope::Response | ResponseScope::ResponseOutput | ResponseScope::Usage => 2,
            ResponseScope::UsageDetails | ResponseScope::ResponseUsage | ResponseScope::Choices => 3,
            ResponseScope::ResponseUsageDetails => 4,
            ResponseScope::Delta => 5,
        }
    }

    #[inline(always)]
    fn encrypted_depth(&self) -> u32 {
        match self.scope {
            ResponseScope::Root
            | ResponseScope::Response
            | ResponseScope::Usage
            | ResponseScope::UsageDetails
            | ResponseScope::Choices
            | ResponseScope::Delta
            | ResponseScope::ResponseUsage
            | ResponseScope::ResponseUsageDetails => 0,
            ResponseScope::Item => 2,
            ResponseScope::Output => 3,
            ResponseScope::ResponseOutput => 4,
        }
    }

    fn visit_encrypted(&mut self, content: EncryptedContent) {
        if self.encrypted.len() < MAX_ENCRYPTED {
            self.encrypted.push(content);
        }
    }

    fn visit_key(&mut self, depth: u32, name: &[u8], _at: u64) -> Result<Option<ResponseSlot>, JsonError> {
        use ResponseScope::{Choices, Delta, Response, ResponseUsage, ResponseUsageDetails, Usage, UsageDetails};
        Ok(match (depth, self.scope, name) {
            (1, _, b"type") => Some(ResponseSlot::Type),
            (1, _, b"id") => Some(ResponseSlot::Id),
            (1, _, b"error") => Some(ResponseSlot::Error),
            (1, _, b"item") => Some(ResponseSlot::Item),
            (1, _, b"output") => Some(ResponseSlot::Output),
            (1, _, b"response") => Some(ResponseSlot::Response),
            (2, Response, b"id") => Some(ResponseSlot::ResponseId),
            (2, Response, b"output") => Some(ResponseSlot::ResponseOutput),
            (1, _, b"usage") => Some(ResponseSlot::Usage),
            (2, Response, b"usage") => Some(ResponseSlot::ResponseUsage),
            (1, _, b"choices") if self.choice_reading == ChoiceReading::Read => Some(ResponseSlot::Choices),
            // Some upstreams write `message` instead of `delta`.
            (3, Choices, b"delta" | b"message") => Some(ResponseSlot::Delta),
            // `text` belongs to the older completions.
            (3, Choices, b"finish_reason" | b"text") => Some(ResponseSlot::Content),
            (4, Delta, name) if name != b"role" => Some(ResponseSlot::Content),
            (2, Usage, _) | (3, ResponseUsage, _) => match name {
                b"input_tokens" | b"prompt_tokens" => Some(ResponseSlot::InputTokens),
                b"output_tokens" | b"completion_tokens" => Some(ResponseSlot::OutputTokens),
                b"input_tokens_details" | b"prompt_tokens_details" => Some(ResponseSlot::UsageDetails),
                _ => None,
            },
            (3, UsageDetails, b"cached_tokens") | (4, ResponseUsageDetails, b"cached_tokens") => {
                Some(ResponseSlot::CachedTokens)
            }
            _ => None,
        })
    }

    fn visit_value(
        &mut self,
        field: Option<ResponseSlot>,
        depth: u32,
        first: u8,
        _at: u64,
    ) -> Result<Option<usize>, JsonError> {
        self.scope = match (field, first) {
            (Some(ResponseSlot::Type | ResponseSlot::Id | ResponseSlot::ResponseId), _) => {
                return Ok(Some(Self::MAX_ID));
            }
            (Some(ResponseSlot::Error), b'{') => {
                self.has_error = true;
                return Ok(None);
            }
            (Some(ResponseSlot::Error), b'"') => return Ok(Some(1)),
            (Some(ResponseSlot::Item), b'{') => ResponseScope::Item,
            (Some(ResponseSlot::Output), b'[') => ResponseScope::Output,
            (Some(ResponseSlot::Response), b'{') => ResponseScope::Response,
            (Some(ResponseSlot::ResponseOutput), b'[') => ResponseScope::ResponseOutput,
            (
                Some(ResponseSlot::InputTokens | ResponseSlot::CachedTokens | ResponseSlot::OutputTokens),
                b'0'..=b'9',
            ) => {
                return Ok(Some(MAX_COUNT));
            }
            (Some(ResponseSlot::Usage), b'{') => ResponseScope::Usage,
            (Some(ResponseSlot::ResponseUsage), b'{') => ResponseScope::ResponseUsage,
            (Some(ResponseSlot::UsageDetails), b'{') if self.scope == ResponseScope::Usage => {
                ResponseScope::UsageDetails
            }
            (Some(ResponseSlot::UsageDetails), b'{') => ResponseScope::ResponseUsageDetails,
            (Some(ResponseSlot::Choices), b'[') => {
                self.choices = ChoiceContent::None;
                ResponseScope::Choices
            }
            (Some(ResponseSlot::Delta), b'{') => ResponseScope::Delta,
            (Some(ResponseSlot::Content), first) => return Ok(self.visit_content(first)),
            (_, _) if depth == 5 && self.scope == ResponseScope::Delta => {
                self.choices = ChoiceContent::Some;
                return Ok(None);
            }
            (_, _) => return Ok(None),
        };
        Ok(None)
    }

    fn visit_string(&mut self, field: ResponseSlot, raw: Option<&[u8]>, _at: u64) -> Result<(), JsonError> {
        let is_empty = raw == Some(b"");
        let text = raw.and_then(|raw| unescape(raw).ok());
        match field {
            ResponseSlot::Error => self.has_error |= !is_empty,
            ResponseSlot::Content if !is_empty => self.choices = ChoiceContent::Some,
            ResponseSlot::Content => {}
            ResponseSlot::Type => self.kind = text.map(|name| EventKind::from_type(name.as_bytes())),
            ResponseSlot::Id => self.id = text.map(|id| id.into_owned()),
            ResponseSlot::ResponseId => self.response_id = text.map(|id| id.into_owned()),
            ResponseSlot::Item
            | ResponseSlot::Output
            | ResponseSlot::Choices
            | ResponseSlot::Delta
            | ResponseSlot::Response
            | ResponseSlot::ResponseOutput
            | ResponseSlot::Usage
            | ResponseSlot::ResponseUsage
            | ResponseSlot::UsageDetails
            | ResponseSlot::InputTokens
            | ResponseSlot::CachedTokens
            | ResponseSlot::OutputTokens => {
                unreachable!("`visit_value` asks for the text of ids, types, errors and contents only")
            }
        }
        Ok(())
    }

    fn visit_number(&mut self, field: ResponseSlot, raw: &[u8]) {
        // A number with a fraction or an exponent is not a count.
        let count = std::str::from_utf8(raw).ok().and_then(|digits| digits.parse().ok());
        match field {
            ResponseSlot::InputTokens => self.usage.input = count,
            ResponseSlot::CachedTokens => self.usage.cached_input = count,
            ResponseSlot::OutputTokens => self.usage.output = count,
            // An id or type that is a number is ignored.
            _ => {}
        }
    }

    fn visit_value_end(&mut self, depth: u32, _slice: &StreamSlice<'_>, _at: u64) {
        if depth == 1 {
            self.has_output |= self.scope == ResponseScope::Output;
            self.has_usage |= self.scope == ResponseScope::Usage;
            self.scope = ResponseScope::Root;
            return;
        }
        self.scope = match (depth, self.scope) {
            (2, ResponseScope::ResponseOutput | ResponseScope::ResponseUsage) => ResponseScope::Response,
            (2, ResponseScope::UsageDetails) => ResponseScope::Usage,
            (3, ResponseScope::Delta) => ResponseScope::Choices,
            (3, ResponseScope::ResponseUsageDetails) => ResponseScope::ResponseUsage,
            (_, scope) => scope,
        };
    }
}
