//! The errors of forms: the kind of an error in a body, and the byte at which it is.

use std::fmt;

/// The kinds of errors in a form.
///
/// Besides forms that are invalid, this covers forms that parsers read differently, such as a form that has a field twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MultipartErrorKind {
    /// The body does not begin with the boundary (an empty line before it is allowed).
    Preamble,
    /// The last boundary is followed by something other than one line end.
    Epilogue,
    /// The body ends before the last boundary.
    MissingEnd,
    /// A boundary is followed by neither a line end nor `--`.
    AfterBoundary,
    /// A boundary stands at the beginning of a line that does not end the part before it: the line end before the boundary
    /// is not CRLF, or the boundary follows the head of the part at once, or it stands in the head.
    MisplacedBoundary,
    /// The head of a part is larger than [`MultipartErrorKind::MAX_HEAD`]. The offset is the beginning of the head.
    HeadTooLarge,
    /// The form has more than [`MultipartErrorKind::MAX_PARTS`] parts.
    TooManyParts,
    /// The head of a part contains a control character, such as NUL or a line end other than CRLF.
    ControlCharacter,
    /// A line in the head of a part begins with white space, which continues the line before it.
    FoldedLine,
    /// A line in the head of a part is not a header field.
    InvalidHeader,
    /// The head of a part has this header field twice.
    DuplicateHeader(&'static str),
    /// The head of a part has no `Content-Disposition`. The offset is the beginning of the head.
    MissingDisposition,
    /// The `Content-Disposition` of a part is not `form-data`.
    NotFormData,
    /// The parameters of a header field cannot be read.
    InvalidParameter,
    /// A header field has the same parameter twice.
    DuplicateParameter,
    /// A parameter contains a backslash before a quotation mark. Some parsers end the parameter there.
    EscapedQuote,
    /// The name of a field is written as `name*` (RFC 2231).
    ExtendedName,
    /// A part has no name.
    MissingName,
    /// A part is itself divided into parts.
    NestedMultipart,
    /// The form has this field twice. The offset is the head of the second part.
    DuplicateField(Box<str>),
    /// The name of a part can be read as the name of this field: it differs in case, or by escapes, spaces or brackets.
    FieldInOtherForm(Box<str>),
    /// The part with the name of this field has the name of a file.
    FieldIsFile(Box<str>),
    /// The text of this field has a `Content-Transfer-Encoding`, a charset or a type that parsers may ignore.
    FieldEncoded(Box<str>),
    /// The text of this field is longer than [`MultipartErrorKind::MAX_TEXT`].
    FieldTooLong(Box<str>),
    /// The text of this field is not UTF-8.
    FieldNotUtf8(Box<str>),
    /// The text of this field contains a control character.
    FieldControlCharacter(Box<str>),
    /// The field `_charset_` names a charset other than UTF-8.
    DefaultCharset,
}

impl MultipartErrorKind {
    /// The maximum size of the head of a part in bytes, with the empty line at its end.
    pub const MAX_HEAD: usize = 8 << 10;
    /// The maximum number of parts.
    pub const MAX_PARTS: u32 = 1000;
    /// The maximum length of the text of a field that routing reads, in bytes.
    pub const MAX_TEXT: usize = 4096;

    /// Whether parsers may read the form differently. Any other form is invalid for every parser.
    pub fn is_ambiguity(&self) -> bool {
        !matches!(
            self,
            Self::InvalidHeader
                | Self::MissingDisposition
                | Self::NotFormData
                | Self::InvalidParameter
                | Self::MissingName
        )
    }
}

impl fmt::Display for MultipartErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Preamble => "the form does not begin with its boundary",
            Self::Epilogue => "unexpected characters after the last boundary",
            Self::MissingEnd => "the form ends before its last boundary",
            Self::AfterBoundary => "a boundary is followed by neither a line end nor `--`",
            Self::MisplacedBoundary => "a boundary follows a line end that does not end a part",
            Self::HeadTooLarge => {
                return write!(f, "the head of a part is larger than {} bytes", Self::MAX_HEAD);
            }
            Self::TooManyParts => return write!(f, "the form has more than {} parts", Self::MAX_PARTS),
            Self::ControlCharacter => "a control character, or a line end other than CRLF, in the head of a part",
            Self::FoldedLine => "a header field of a part has more than one line",
            Self::InvalidHeader => "invalid header field in the head of a part",
            Self::DuplicateHeader(name) => return write!(f, "a part has two header fields `{name}`"),
            Self::MissingDisposition => "a part has no `Content-Disposition`",
            Self::NotFormData => "the `Content-Disposition` of a part is not `form-data`",
            Self::InvalidParameter => "invalid parameter in a header field of a part",
            Self::DuplicateParameter => "a header field of a part has a parameter twice",
            Self::EscapedQuote => "a backslash before a quotation mark in a header field of a part",
            Self::ExtendedName => "the name of a field is written as `name*`",
            Self::MissingName => "a part has no name",
            Self::NestedMultipart => "a part is itself divided into parts",
            Self::DuplicateField(field) => return write!(f, "duplicate field `{field}`"),
            Self::FieldInOtherForm(field) => {
                return write!(f, "the name of a part can be read as that of the field `{field}`");
            }
            Self::FieldIsFile(field) => return write!(f, "the field `{field}` is sent as a file"),
            Self::FieldEncoded(field) => return write!(f, "the field `{field}` is not plain text in UTF-8"),
            Self::FieldTooLong(field) => {
                return write!(f, "the field `{field}` is longer than {} bytes", Self::MAX_TEXT);
            }
            Self::FieldNotUtf8(field) => return write!(f, "the field `{field}` is not UTF-8"),
            Self::FieldControlCharacter(field) => return write!(f, "control character in the field `{field}`"),
            Self::DefaultCharset => "the field `_charset_` names a charset other than UTF-8",
        };
        f.write_str(text)
    }
}

/// An error in a form, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MultipartError {
    /// The kind of the error.
    pub kind: MultipartErrorKind,
    /// The offset of the error from the beginning of the decompressed body, in bytes.
    pub offset: u64,
}

impl MultipartError {
    pub(super) const fn new(kind: MultipartErrorKind, offset: u64) -> Self {
        Self { kind, offset }
    }
}

impl fmt::Display for MultipartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.kind, self.offset)
    }
}

impl std::error::Error for MultipartError {}
