//! The errors of the JSON scanner: the kind of an error in a body, and the byte at which it is.

use std::fmt;

use crate::{body_path::BodyPaths, scan::field::RoutingField};

/// The kinds of errors in a body.
///
/// Besides invalid JSON, this covers bodies that JSON parsers read differently, such as a body with a duplicate field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JsonErrorKind {
    /// The body begins with U+FEFF. RFC 8259 §8.1 forbids it, and some parsers ignore it.
    ByteOrderMark,
    /// A byte sequence is not UTF-8 (RFC 3629). The offset is the beginning of the sequence.
    InvalidUtf8,
    /// The root value is not an object.
    RootNotObject,
    /// The root object is followed by something other than whitespace.
    TrailingCharacters,
    /// Arrays and objects are nested deeper than [`JsonErrorKind::MAX_DEPTH`].
    TooDeep,
    /// The body is empty or ends inside the root object.
    UnexpectedEnd,
    /// An object contains something other than a key where a key must stand.
    ExpectedKey,
    /// A key is not followed by `:`.
    ExpectedColon,
    /// A character that begins no value stands where a value must stand.
    ExpectedValue,
    /// A member of an object is followed by neither `,` nor `}`.
    ExpectedCommaOrBrace,
    /// An item of an array is followed by neither `,` nor `]`.
    ExpectedCommaOrBracket,
    /// A word that begins like `true`, `false` or `null` is none of them.
    InvalidLiteral,
    /// A number is not allowed by RFC 8259 §6, such as `01` or `1.`.
    InvalidNumber,
    /// A number is beyond the range of a double. Some parsers refuse it and others read it as infinity.
    NumberOutOfRange,
    /// A string contains a control character (below U+0020) that is not escaped.
    ControlCharacter,
    /// A backslash in a string does not begin an escape of RFC 8259 §7.
    InvalidEscape,
    /// A text that decides the route or access has a `\u` escape for one half of a surrogate pair, without the other half. Elsewhere
    /// it is allowed (RFC 8259 §8.2).
    LoneSurrogate,
    /// The object has the field twice, compared after unescaping. The offset is that of the second key.
    DuplicateField(RoutingField),
    /// A key differs from the field's key in case only. Some parsers ignore case and read it as the field. The offset is
    /// that of the key.
    FieldInOtherCase(RoutingField),
    /// The text of the field is longer than [`JsonErrorKind::MAX_TEXT`] bytes as written.
    FieldTooLong(RoutingField),
    /// The field decides access, and its value is neither a string nor `null`.
    FieldNotString(RoutingField),
    /// The body names more objects than are checked.
    TooManyReferences,
    /// The name of an object is longer than [`JsonErrorKind::MAX_REFERENCE`] bytes as written.
    ReferenceTooLong,
    /// An object of the body has two ids, and parsers read either of them. The offset is that of the second one.
    DuplicateReference,
}

impl JsonErrorKind {
    /// The maximum nesting depth of arrays and objects. The root object has depth 1.
    pub const MAX_DEPTH: u32 = 128;
    /// The maximum length of a field's text in bytes, as written between the quotes.
    pub const MAX_TEXT: usize = 4096;
    /// The maximum length of the name of an object in bytes, as written between the quotes.
    pub const MAX_REFERENCE: usize = 64 * 1024;

    /// Whether the text is valid JSON, or nearly so, that parsers read differently. Other errors are plain errors of syntax,
    /// which every parser refuses.
    pub const fn is_ambiguity(self) -> bool {
        match self {
            Self::ByteOrderMark
            | Self::TooDeep
            | Self::NumberOutOfRange
            | Self::LoneSurrogate
            | Self::DuplicateField(_)
            | Self::FieldInOtherCase(_)
            | Self::FieldTooLong(_)
            | Self::FieldNotString(_)
            | Self::TooManyReferences
            | Self::ReferenceTooLong
            | Self::DuplicateReference => true,
            Self::InvalidUtf8
            | Self::RootNotObject
            | Self::TrailingCharacters
            | Self::UnexpectedEnd
            | Self::ExpectedKey
            | Self::ExpectedColon
            | Self::ExpectedValue
            | Self::ExpectedCommaOrBrace
            | Self::ExpectedCommaOrBracket
            | Self::InvalidLiteral
            | Self::InvalidNumber
            | Self::ControlCharacter
            | Self::InvalidEscape => false,
        }
    }

    /// The sentence about the error, in which the path of a field is one of `paths`.
    pub fn describe(self, paths: &BodyPaths) -> String {
        match self {
            Self::DuplicateField(field) => format!("duplicate field `{}`", field.name(paths)),
            Self::FieldInOtherCase(field) => {
                format!("a key differs from the field `{}` in case only", field.name(paths))
            }
            Self::FieldTooLong(field) => {
                let maximum = Self::MAX_TEXT;
                format!("the field `{}` is longer than {maximum} bytes", field.name(paths))
            }
            Self::FieldNotString(field) => format!("the field `{}` is not a string", field.name(paths)),
            kind => kind.to_string(),
        }
    }
}

/// Prints a field at a configured path without its path; see [`JsonErrorKind::describe`].
impl fmt::Display for JsonErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::ByteOrderMark => "byte order mark at the beginning of the body",
            Self::InvalidUtf8 => "invalid UTF-8",
            Self::RootNotObject => "the root value is not an object",
            Self::TrailingCharacters => "unexpected characters after the root object",
            Self::TooDeep => {
                return write!(
                    f,
                    "arrays and objects are nested deeper than {} levels",
                    Self::MAX_DEPTH
                );
            }
            Self::UnexpectedEnd => "unexpected end of the body",
            Self::ExpectedKey => "expected a key in double quotes",
            Self::ExpectedColon => "expected `:` after a key",
            Self::ExpectedValue => "expected a value",
            Self::ExpectedCommaOrBrace => "expected `,` or `}`",
            Self::ExpectedCommaOrBracket => "expected `,` or `]`",
            Self::InvalidLiteral => "invalid literal, expected `true`, `false` or `null`",
            Self::InvalidNumber => "invalid number",
            Self::NumberOutOfRange => "number out of range",
            Self::ControlCharacter => "unescaped control character in a string",
            Self::InvalidEscape => "invalid escape sequence in a string",
            Self::LoneSurrogate => "lone surrogate in a string",
            Self::TooManyReferences => "too many ids of objects",
            Self::ReferenceTooLong => {
                return write!(f, "the id of an object is longer than {} bytes", Self::MAX_REFERENCE);
            }
            Self::DuplicateReference => "an object has two ids",
            Self::DuplicateField(_) | Self::FieldInOtherCase(_) | Self::FieldTooLong(_) | Self::FieldNotString(_) => {
                return f.write_str(&self.describe(&BodyPaths::default()));
            }
        };
        f.write_str(text)
    }
}

/// An error in a body, and where it is.
///
/// A body with such an error is not forwarded, because parsers may refuse it or read it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JsonError {
    /// The kind of the error.
    pub kind: JsonErrorKind,
    /// The offset of the offending byte from the beginning of the decompressed body, in bytes.
    pub offset: u64,
}

impl JsonError {
    pub(in crate::scan) const fn new(kind: JsonErrorKind, offset: u64) -> Self {
        Self { kind, offset }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.kind, self.offset)
    }
}

impl std::error::Error for JsonError {}
