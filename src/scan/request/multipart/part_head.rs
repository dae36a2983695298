//! The head of one part of a form: its header fields.

use super::{
    boundary::is_utf8,
    error::{MultipartError, MultipartErrorKind as Kind},
    parameters::{ParameterProblem, ParameterizedValue, is_token},
};

/// What the head of a part says. The texts are given as they were written, without their quotation marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartHead<'a> {
    /// The name of the field.
    pub name: &'a [u8],
    /// The name of the file. It is empty if the name is given only in an encoded form (`filename*`).
    pub file_name: Option<&'a [u8]>,
    /// The value of `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// The value of `Content-Transfer-Encoding`.
    pub transfer_encoding: Option<&'a [u8]>,
}

/// A header field and the offset of its line.
struct HeaderLine<'a> {
    name: &'a [u8],
    value: &'a [u8],
    at: u64,
}

impl<'a> PartHead<'a> {
    /// Reads a head: lines with CRLF at the end of each, without the empty line. It begins at the offset `at` of the body.
    ///
    /// # Errors
    /// If the head is invalid, or if parsers may read it differently.
    pub fn read(head: &'a [u8], at: u64) -> Result<Self, MultipartError> {
        let mut fields = PartHead::default();
        let mut disposition = None;
        let mut line_at = at;
        for line in lines(head) {
            let field = HeaderLine::read(line, line_at)?;
            let repeated = if field.is("content-disposition") {
                disposition.replace(field.value).map(|_| "Content-Disposition")
            } else if field.is("content-type") {
                fields.content_type.replace(field.value).map(|_| "Content-Type")
            } else if field.is("content-transfer-encoding") {
                let repeated = fields.transfer_encoding.replace(field.value);
                repeated.map(|_| "Content-Transfer-Encoding")
            } else {
                None
            };
            if let Some(name) = repeated {
                return Err(MultipartError::new(Kind::DuplicateHeader(name), line_at));
            }
            if field.is("content-disposition") {
                fields.read_disposition(&field)?;
            }
            line_at += line.len() as u64 + 2;
        }
        match disposition {
            None => Err(MultipartError::new(Kind::MissingDisposition, at)),
            Some(_) if fields.is_multipart() => Err(MultipartError::new(Kind::NestedMultipart, at)),
            Some(_) => Ok(fields),
        }
    }

    /// Reads a `Content-Disposition` (RFC 7578 §4.2).
    fn read_disposition(&mut self, field: &HeaderLine<'a>) -> Result<(), MultipartError> {
        let error = |kind| MultipartError::new(kind, field.at);
        let value = ParameterizedValue::new(field.value);
        if !value.essence.eq_ignore_ascii_case(b"form-data") {
            return Err(error(Kind::NotFormData));
        }
        let mut name = None;
        for parameter in value.parameters {
            let parameter = parameter.map_err(|problem| error(kind_of(problem)))?;
            let lower = parameter.name.to_ascii_lowercase();
            if lower == b"name" {
                if name.replace(parameter.value).is_some() {
                    return Err(error(Kind::DuplicateParameter));
                }
            } else if lower == b"filename" {
                // A name in the encoded form may stand before the plain one.
                if self
                    .file_name
                    .replace(parameter.value)
                    .is_some_and(|name| !name.is_empty())
                {
                    return Err(error(Kind::DuplicateParameter));
                }
            } else if lower.starts_with(b"name*") {
                return Err(error(Kind::ExtendedName));
            } else if lower.starts_with(b"filename*") {
                self.file_name.get_or_insert_default();
            }
        }
        self.name = name.ok_or(error(Kind::MissingName))?;
        Ok(())
    }

    fn is_multipart(&self) -> bool {
        let family = self.content_type.and_then(|content_type| content_type.first_chunk());
        family.is_some_and(|family: &[u8; 10]| family.eq_ignore_ascii_case(b"multipart/"))
    }

    /// Whether every parser reads the content of the part as a text in UTF-8.
    pub fn is_plain_text(&self) -> bool {
        let is_plain = self.transfer_encoding.is_none_or(|encoding| {
            [&b"7bit"[..], b"8bit", b"binary"]
                .iter()
                .any(|plain| encoding.eq_ignore_ascii_case(plain))
        });
        is_plain && self.content_type.is_none_or(is_text_type)
    }
}

/// Whether a content type is that of a text in UTF-8.
fn is_text_type(content_type: &[u8]) -> bool {
    let value = ParameterizedValue::new(content_type);
    let is_text = value.essence.first_chunk::<5>();
    is_text.is_some_and(|family| family.eq_ignore_ascii_case(b"text/"))
        && value
            .parameter("charset")
            .is_ok_and(|charset| charset.is_none_or(is_utf8))
}

fn kind_of(problem: ParameterProblem) -> Kind {
    match problem {
        ParameterProblem::Syntax => Kind::InvalidParameter,
        ParameterProblem::EscapedQuote => Kind::EscapedQuote,
        ParameterProblem::Duplicate => Kind::DuplicateParameter,
    }
}

/// The lines of a head, without their CRLF.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = head;
    std::iter::from_fn(move || {
        let end = memchr::memmem::find(rest, b"\r\n")?;
        let (line, more) = rest.split_at(end);
        rest = more.get(2..).unwrap_or_default();
        Some(line)
    })
}

impl<'a> HeaderLine<'a> {
    fn read(line: &'a [u8], at: u64) -> Result<Self, MultipartError> {
        let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
        if let Some(index) = line.iter().position(is_control) {
            return Err(MultipartError::new(Kind::ControlCharacter, at + index as u64));
        }
        if line.first().is_some_and(u8::is_ascii_whitespace) {
            return Err(MultipartError::new(Kind::FoldedLine, at));
        }
        let colon = memchr::memchr(b':', line).unwrap_or(0);
        let (name, value) = line.split_at(colon);
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(MultipartError::new(Kind::InvalidHeader, at));
        }
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        Ok(Self { name, value, at })
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}
