//! Why a body is refused, and where.

use std::fmt;

/// A part of a request body that routing reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `model`.
    Model,
    /// `prompt_cache_key`.
    PromptCacheKey,
    /// `stream`.
    Stream,
    /// `previous_response_id`.
    PreviousResponseId,
    /// `client_metadata`.
    ClientMetadata,
    /// `session_id` inside `client_metadata`.
    SessionId,
    /// `instructions`.
    Instructions,
    /// `input`.
    Input,
}

impl Field {
    /// The members of the root.
    pub(in crate::scan) const ROOT: &[Self] = &[
        Self::Model,
        Self::PromptCacheKey,
        Self::Stream,
        Self::PreviousResponseId,
        Self::ClientMetadata,
        Self::Instructions,
        Self::Input,
    ];

    /// The field as it stands in a body, with dots between levels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::PromptCacheKey => "prompt_cache_key",
            Self::Stream => "stream",
            Self::PreviousResponseId => "previous_response_id",
            Self::ClientMetadata => "client_metadata",
            Self::SessionId => "client_metadata.session_id",
            Self::Instructions => "instructions",
            Self::Input => "input",
        }
    }

    /// Whether `key`, which is not the field's own, is so once case is folded: in ASCII, and by Unicode's simple case
    /// folding, in which the long s and the Kelvin sign are letters like any other.
    pub(in crate::scan) fn is_alike(self, key: &[u8]) -> bool {
        // As nearly all keys are written: then being alike is being the same.
        if key.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_') {
            return false;
        }
        let name = self.name();
        let name = name.rsplit_once('.').map_or(name, |(_, last)| last);
        let folded = |letter| match letter {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            letter => letter.to_ascii_lowercase(),
        };
        std::str::from_utf8(key).is_ok_and(|key| key.chars().map(folded).eq(name.chars()))
    }
}

/// What keeps a body from having one reading only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Problem {
    /// The body begins with U+FEFF, which RFC 8259 §8.1 forbids and parsers treat differently.
    ByteOrderMark,
    /// A byte sequence that is not UTF-8 (RFC 3629); the offset is where the sequence begins.
    InvalidUtf8,
    /// The body is some other value than an object.
    RootNotObject,
    /// Something other than whitespace follows the root object.
    TextAfterRoot,
    /// Arrays and objects are nested deeper than [`Problem::MAX_DEPTH`].
    TooDeep,
    /// The body ends inside the root object, or is empty.
    UnexpectedEnd,
    /// An object goes on with something that is no key.
    ExpectedKey,
    /// No colon follows a key.
    ExpectedColon,
    /// Something stands where a value should that begins none.
    ExpectedValue,
    /// A member of an object is followed by neither `,` nor `}`.
    ExpectedCommaOrBrace,
    /// An item of an array is followed by neither `,` nor `]`.
    ExpectedCommaOrBracket,
    /// A misspelt `true`, `false` or `null`.
    BadLiteral,
    /// A number that RFC 8259 §6 does not allow, such as `01` or `1.`.
    BadNumber,
    /// A number beyond the range of a double, which some parsers refuse and others read as infinity.
    NumberOutOfRange,
    /// A raw control character (below U+0020) inside a string.
    ControlCharacter,
    /// A backslash in a string that begins no escape of RFC 8259 §7.
    BadEscape,
    /// A `\u` escape names half of a surrogate pair without the other half.
    LoneSurrogate,
    /// A field that routing reads stands twice after unescaping; the offset is that of the second key.
    Twice(Field),
    /// A key differs from that of a field that routing reads in nothing but upper and lower case; some parsers take it
    /// for the same. The offset is that of the key.
    Alike(Field),
    /// A field that routing reads is longer than [`Problem::MAX_TEXT`] bytes as written.
    TooLong(Field),
    /// A field that decides access is neither a string nor `null`.
    NotAString(Field),
}

impl Problem {
    /// How deep arrays and objects may be nested, the root included.
    pub const MAX_DEPTH: u32 = 128;
    /// How many bytes, as written between its quotes, the text of a field may have.
    pub const MAX_TEXT: usize = 4096;
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::ByteOrderMark => "the body begins with a byte order mark",
            Self::InvalidUtf8 => "invalid UTF-8",
            Self::RootNotObject => "the root is not an object",
            Self::TextAfterRoot => "text after the root",
            Self::TooDeep => return write!(f, "nested deeper than {}", Self::MAX_DEPTH),
            Self::UnexpectedEnd => "unexpected end",
            Self::ExpectedKey => "expected a key in quotes",
            Self::ExpectedColon => "expected a colon",
            Self::ExpectedValue => "expected a value",
            Self::ExpectedCommaOrBrace => "expected \",\" or \"}\"",
            Self::ExpectedCommaOrBracket => "expected \",\" or \"]\"",
            Self::BadLiteral => "expected true, false or null",
            Self::BadNumber => "malformed number",
            Self::NumberOutOfRange => "number out of range",
            Self::ControlCharacter => "unescaped control character in a string",
            Self::BadEscape => "unknown escape in a string",
            Self::LoneSurrogate => "lone surrogate in a string",
            Self::Twice(field) => return write!(f, "\"{}\" stands twice", field.name()),
            Self::Alike(field) => {
                return write!(f, "\"{}\" stands in other letters, upper or lower case", field.name());
            }
            Self::TooLong(field) => {
                return write!(f, "\"{}\" is longer than {} bytes", field.name(), Self::MAX_TEXT);
            }
            Self::NotAString(field) => return write!(f, "\"{}\" is not a string", field.name()),
        };
        f.write_str(text)
    }
}

/// A body that is not passed on: readers could disagree about it, or nobody could read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// What is wrong.
    pub problem: Problem,
    /// Where: bytes of the (decompressed) body before the offending one.
    pub offset: u64,
}

impl Refusal {
    pub(in crate::scan) const fn new(problem: Problem, offset: u64) -> Self {
        Self { problem, offset }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.problem, self.offset)
    }
}

impl std::error::Error for Refusal {}
