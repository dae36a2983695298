//! The boundary between the parts of a form.

use super::parameters::{ParameterProblem, ParameterizedValue};

/// The boundary between the parts of a form: 1 to [`Boundary::MAX_LENGTH`] bytes (RFC 2046 §5.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundary(Box<[u8]>);

/// The meaning of a `Content-Type` for a reader of forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormType {
    /// The type is not `multipart/form-data`.
    Other,
    /// A form with this boundary.
    Form(Boundary),
    /// A form whose boundary parsers may read differently. The text says what is wrong, as the predicate of a sentence.
    Ambiguous(&'static str),
}

impl Boundary {
    /// The maximum length of a boundary in bytes.
    pub const MAX_LENGTH: usize = 70;

    /// The boundary `text`, or `None` if it is too long, empty, or has a character that is not allowed.
    pub fn new(text: &[u8]) -> Option<Self> {
        // The RFC allows a space, but not as the last character. Parsers that remove spaces would read another boundary.
        let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(byte);
        let is_valid = (1..=Self::MAX_LENGTH).contains(&text.len()) && text.iter().all(is_allowed);
        is_valid.then(|| Self(text.into()))
    }

    /// The bytes of the boundary, without the hyphens before it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FormType {
    /// Reads the value of a `Content-Type` header.
    pub fn read(content_type: &[u8]) -> Self {
        let value = ParameterizedValue::new(content_type);
        if !value.essence.eq_ignore_ascii_case(b"multipart/form-data") {
            return Self::Other;
        }
        let mut boundary = None;
        for parameter in value.parameters {
            let parameter = match parameter {
                Ok(parameter) => parameter,
                Err(ParameterProblem::EscapedQuote) => return Self::Ambiguous("has an escaped quotation mark"),
                Err(ParameterProblem::Syntax | ParameterProblem::Duplicate) => {
                    return Self::Ambiguous("has parameters that cannot be read");
                }
            };
            if parameter.is("boundary") {
                if boundary.replace(parameter.value).is_some() {
                    return Self::Ambiguous("has two boundaries");
                }
            } else if parameter.name.to_ascii_lowercase().starts_with(b"boundary*") {
                return Self::Ambiguous("has an encoded boundary");
            } else if parameter.is("charset") && !is_utf8(parameter.value) {
                return Self::Ambiguous("has a charset other than UTF-8");
            }
        }
        match boundary {
            None => Self::Ambiguous("has no boundary"),
            Some(text) if text.len() > Boundary::MAX_LENGTH => {
                Self::Ambiguous("has a boundary of more than 70 characters")
            }
            Some(text) => Boundary::new(text).map_or(
                Self::Ambiguous("has an empty boundary, or a boundary with a character that is not allowed"),
                Self::Form,
            ),
        }
    }
}

/// Whether a text in this charset reads as UTF-8. US-ASCII is a part of UTF-8.
pub(super) fn is_utf8(charset: &[u8]) -> bool {
    [&b"utf-8"[..], b"utf8", b"us-ascii"]
        .iter()
        .any(|name| charset.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_is_read_from_the_content_type() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=abc", "abc"),
            ("Multipart/Form-Data;BOUNDARY=\"a:b'()=?,/\"", "a:b'()=?,/"),
            (
                "multipart/form-data; charset=UTF-8; boundary=----WebKitFormBoundary7MA4",
                "----WebKitFormBoundary7MA4",
            ),
            ("multipart/form-data; boundary=abc;", "abc"),
        ] {
            let boundary = Boundary::new(expected.as_bytes()).expect("a boundary");
            assert_eq!(
                FormType::read(content_type.as_bytes()),
                FormType::Form(boundary),
                "{content_type}"
            );
        }
        let longest = "b".repeat(70);
        let read = FormType::read(format!("multipart/form-data; boundary={longest}").as_bytes());
        assert!(matches!(read, FormType::Form(boundary) if boundary.as_bytes() == longest.as_bytes()));
    }

    #[test]
    fn other_types_are_no_forms() {
        for content_type in [
            "",
            "application/json",
            "multipart/mixed; boundary=a",
            "multipart/form-data-x",
            "text/multipart/form-data",
        ] {
            assert_eq!(
                FormType::read(content_type.as_bytes()),
                FormType::Other,
                "{content_type}"
            );
        }
    }

    #[test]
    fn a_boundary_that_parsers_read_differently_is_ambiguous() {
        let long = format!("multipart/form-data; boundary={}", "b".repeat(71));
        for content_type in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=a; boundary=a",
            "multipart/form-data; boundary=a; Boundary=b",
            "multipart/form-data; boundary*=utf-8''a; boundary=b",
            "multipart/form-data; boundary*0=a; boundary*1=b",
            "multipart/form-data; boundary=\"a b\"",
            "multipart/form-data; boundary=\"a \"",
            "multipart/form-data; boundary=a:b",
            "multipart/form-data; boundary=\"a\\\"b\"",
            "multipart/form-data; boundary=\"a\\b\"",
            "multipart/form-data; boundary=\"\u{e9}\"",
            "multipart/form-data; boundary=a, multipart/form-data; boundary=b",
            "multipart/form-data; boundary=a; charset=utf-16",
            &long,
        ] {
            let read = FormType::read(content_type.as_bytes());
            assert!(matches!(read, FormType::Ambiguous(_)), "{content_type}: {read:?}");
        }
    }
}
