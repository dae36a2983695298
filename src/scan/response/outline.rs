//! The few things that are read of a response, or of an event that holds one or an item of one.

use super::{
    peek::Kind,
    reader::{MAX_ENCRYPTED, ResponseReader},
    usage::Counts,
};
use crate::{
    ids::EncryptedContent,
    scan::json::{capture::unescape, error::Refusal, lexer::Path, scanner::Scanner, visitor::Reader},
};

/// What has been read.
#[derive(Default)]
pub(super) struct Outline {
    /// `type`, where there is one.
    pub kind: Option<Kind>,
    /// `id`.
    pub id: Option<String>,
    /// `response.id`.
    pub response_id: Option<String>,
    /// Whether there is an object `error`.
    pub has_error: bool,
    /// `encrypted_content` of `item`, of the items of `output`, and of those of `response.output`.
    pub encrypted: Vec<EncryptedContent>,
    /// Whether `output` has ended.
    pub has_output: bool,
    /// What is in `usage`, or in `response.usage`.
    pub usage: Counts,
    /// Whether `usage` has ended.
    pub has_usage: bool,
    within: Within,
}

/// What is being looked into.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Within {
    #[default]
    Nothing,
    Item,
    Output,
    Usage,
    UsageDetails,
    Response,
    ResponseOutput,
    ResponseUsage,
    ResponseUsageDetails,
}

/// What a value is for.
#[derive(Clone, Copy)]
pub(super) enum Slot {
    Type,
    Id,
    Error,
    Item,
    Output,
    Response,
    ResponseId,
    ResponseOutput,
    Usage,
    ResponseUsage,
    UsageDetails,
    InputTokens,
    CachedTokens,
    OutputTokens,
}

/// The longest count that is read, in digits.
const LONGEST_COUNT: usize = 19;

impl Outline {
    /// A scanner that makes one.
    pub fn scanner() -> Scanner<Self> {
        Scanner::new(Path::detect(), Self::default())
    }
}

impl Reader for Outline {
    type Slot = Slot;
    /// `response` with every character as `\u0000`; longer names are read where they are spelled plainly.
    const LONGEST_KEY: usize = 8 * 6;
    const NUMBERS: bool = true;

    #[inline(always)]
    fn depth(&self) -> u32 {
        match self.within {
            Within::Response | Within::ResponseOutput | Within::Usage => 2,
            Within::Nothing | Within::Item | Within::Output => 1,
            Within::UsageDetails | Within::ResponseUsage => 3,
            Within::ResponseUsageDetails => 4,
        }
    }

    #[inline(always)]
    fn encrypted_depth(&self) -> u32 {
        match self.within {
            Within::Nothing
            | Within::Response
            | Within::Usage
            | Within::UsageDetails
            | Within::ResponseUsage
            | Within::ResponseUsageDetails => 0,
            Within::Item => 2,
            Within::Output => 3,
            Within::ResponseOutput => 4,
        }
    }

    fn encrypted(&mut self, content: EncryptedContent) {
        if self.encrypted.len() < MAX_ENCRYPTED {
            self.encrypted.push(content);
        }
    }

    fn key(&mut self, depth: u32, name: &[u8], _at: u64) -> Result<Option<Slot>, Refusal> {
        Ok(match (depth, self.within, name) {
            (1, _, b"type") => Some(Slot::Type),
            (1, _, b"id") => Some(Slot::Id),
            (1, _, b"error") => Some(Slot::Error),
            (1, _, b"item") => Some(Slot::Item),
            (1, _, b"output") => Some(Slot::Output),
            (1, _, b"response") => Some(Slot::Response),
            (2, Within::Response, b"id") => Some(Slot::ResponseId),
            (2, Within::Response, b"output") => Some(Slot::ResponseOutput),
            (1, _, b"usage") => Some(Slot::Usage),
            (2, Within::Response, b"usage") => Some(Slot::ResponseUsage),
            (2, Within::Usage, _) | (3, Within::ResponseUsage, _) => match name {
                b"input_tokens" | b"prompt_tokens" => Some(Slot::InputTokens),
                b"output_tokens" | b"completion_tokens" => Some(Slot::OutputTokens),
                b"input_tokens_details" | b"prompt_tokens_details" => Some(Slot::UsageDetails),
                _ => None,
            },
            (3, Within::UsageDetails, b"cached_tokens") | (4, Within::ResponseUsageDetails, b"cached_tokens") => {
                Some(Slot::CachedTokens)
            }
            _ => None,
        })
    }

    fn value(&mut self, slot: Option<Slot>, _depth: u32, first: u8, _at: u64) -> Result<Option<usize>, Refusal> {
        let within = match (slot, first) {
            (Some(Slot::Type | Slot::Id | Slot::ResponseId), _) => return Ok(Some(ResponseReader::MAX_ID)),
            (Some(Slot::Error), b'{') => {
                self.has_error = true;
                return Ok(None);
            }
            (Some(Slot::Item), b'{') => Within::Item,
            (Some(Slot::Output), b'[') => Within::Output,
            (Some(Slot::Response), b'{') => Within::Response,
            (Some(Slot::ResponseOutput), b'[') => Within::ResponseOutput,
            (Some(Slot::InputTokens | Slot::CachedTokens | Slot::OutputTokens), b'0'..=b'9') => {
                return Ok(Some(LONGEST_COUNT));
            }
            (Some(Slot::Usage), b'{') => Within::Usage,
            (Some(Slot::ResponseUsage), b'{') => Within::ResponseUsage,
            (Some(Slot::UsageDetails), b'{') if self.within == Within::Usage => Within::UsageDetails,
            (Some(Slot::UsageDetails), b'{') => Within::ResponseUsageDetails,
            (_, _) => return Ok(None),
        };
        self.within = within;
        Ok(None)
    }

    fn text(&mut self, slot: Slot, raw: Option<&[u8]>, _at: u64) -> Result<(), Refusal> {
        let text = raw.and_then(|raw| unescape(raw).ok());
        match slot {
            Slot::Type => self.kind = text.map(|name| Kind::of(name.as_bytes())),
            Slot::Id => self.id = text.map(|id| id.into_owned()),
            Slot::ResponseId => self.response_id = text.map(|id| id.into_owned()),
            Slot::Error
            | Slot::Item
            | Slot::Output
            | Slot::Response
            | Slot::ResponseOutput
            | Slot::Usage
            | Slot::ResponseUsage
            | Slot::UsageDetails
            | Slot::InputTokens
            | Slot::CachedTokens
            | Slot::OutputTokens => {}
        }
        Ok(())
    }

    fn number(&mut self, slot: Slot, raw: &[u8]) {
        // What has a fraction or an exponent is no count.
        let count = std::str::from_utf8(raw).ok().and_then(|digits| digits.parse().ok());
        match slot {
            Slot::InputTokens => self.usage.input = count,
            Slot::CachedTokens => self.usage.cached_input = count,
            Slot::OutputTokens => self.usage.output = count,
            _ => {}
        }
    }

    fn value_end(&mut self, depth: u32, _run: &crate::scan::json::capture::Run<'_>, _at: u64) {
        if depth == 1 {
            self.has_output |= self.within == Within::Output;
            self.has_usage |= self.within == Within::Usage;
            self.within = Within::Nothing;
            return;
        }
        self.within = match (depth, self.within) {
            (2, Within::ResponseOutput | Within::ResponseUsage) => Within::Response,
            (2, Within::UsageDetails) => Within::Usage,
            (3, Within::ResponseUsageDetails) => Within::ResponseUsage,
            (_, within) => within,
        };
    }
}
